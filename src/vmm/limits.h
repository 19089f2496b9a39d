/* SPDX-License-Identifier: MIT */
/* limits.h - every size, cap and timeout of the VMM, reviewed together. */
#ifndef VMM_LIMITS_H
#define VMM_LIMITS_H

#define LIMIT_CPUS		16
#define LIMIT_MEMORY_MIN_MIB	64	/* of the VMM; the CLI asks for 512 */
#define LIMIT_MEMORY_MAX_MIB	(1u << 20)

#define LIMIT_VIRTIO_SLOTS	32	/* mmio devices */
#define LIMIT_QUEUES		4	/* a device */
#define LIMIT_QUEUE_SIZE	256	/* descriptors; also longest chain */

#define LIMIT_QUEUE_BUDGET	2048	/* chains taken at one bell */

#define LIMIT_POOL_THREADS	4
#define LIMIT_CTL_CLIENTS	64
#define LIMIT_CONSOLE_LOG	(4u << 20)	/* bytes before rotation */

#define LIMIT_BLK_REQUESTS	64	/* in flight, a disk */
#define LIMIT_BLK_BYTES		(64u << 20)	/* of one request */
#define LIMIT_BLK_SEGMENTS	32	/* of one discard or write-zeroes */
#define LIMIT_BALLOON_PFNS	4096	/* of one chain; drivers send 256 */
#define LIMIT_CONSOLE_BURST	(1u << 20)	/* bytes before others get a turn */
#define LIMIT_VSOCK_CONNS	4096
#define LIMIT_VSOCK_WINDOW	(256u << 10)	/* bytes buffered for a connection */
#define LIMIT_VSOCK_WINDOW_MIN	(16u << 10)	/* … once the budget is given away */
#define LIMIT_VSOCK_BUDGET	(64u << 20)
#define LIMIT_VSOCK_OPEN_MS	10000		/* CONNECT line, guest's answer */
#define LIMIT_VSOCK_CLOSE_MS	60000		/* guest's answer to a full close */

#define LIMIT_NET_SOCKETS	2048	/* of the guest's outside connections */
#define LIMIT_NET_BACKLOG	(4u << 20)	/* bytes waiting for receive buffers */
#define LIMIT_NET_FORWARDS	64
#define LIMIT_NET_RULES		256
#define LIMIT_NET_HOLD_MS	10000	/* a connection waits for its listener */
#define LIMIT_NET_BOOT_MS	60000	/* … as long after the first frame */

#define LIMIT_PROBE_MS		50

#endif
