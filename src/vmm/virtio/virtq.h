/* SPDX-License-Identifier: MIT */
/*
 * virtq.h - split virtqueues (virtio 1.2, section 2.7) seen from the device.
 *
 *	  guest memory            ours                       the device file
 *	  desc[] avail used  -->  virtq_pop: copy, check --> struct chain: a byte
 *	  (indirect tables)       bound, translate           stream to read and one to
 *	                                                     write, never a descriptor
 *
 * Everything in the rings is hostile.  Each descriptor is copied once and then
 * checked; a chain has at most LIMIT_QUEUE_SIZE pieces, indirect ones included;
 * addresses go through mem_ptr() together with their length.  A ring that breaks
 * the rules marks the device NEEDS_RESET, stops its queues and is logged once.
 *
 * Under vm->lock.  A chain that was popped must be pushed or forgotten; a push
 * that comes after its queue was reset is dropped (chain and queue each have a
 * generation).
 */
#ifndef VMM_VIRTIO_VIRTQ_H
#define VMM_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/limits.h"
#include "vmm/mem.h"

struct state_r;
struct state_w;
struct virtio_dev;

struct virtq {
	struct virtio_dev *dev;		/* borrowed */
	unsigned index;
	uint16_t size, max_size;
	bool ready;
	uint32_t generation;		/* grows with each reset of the queue */
	gpa_t desc, avail, used;
	uint16_t last_avail;		/* next avail entry to look at */
	uint16_t next_used;		/* next used entry to fill */
	uint16_t signalled_used;	/* used index at the last interrupt */
	unsigned inflight;		/* popped and not yet pushed */
	unsigned budget;		/* pops left until the bell rings again */
};

/* One request: readable pieces first, then writable ones (2.7.4.2). */
struct chain {
	uint16_t head;
	uint16_t nr_out, nr_in;		/* readable, writable pieces in iov[] */
	struct iovec iov[LIMIT_QUEUE_SIZE];	/* into guest RAM, checked */
	gpa_t gpa[LIMIT_QUEUE_SIZE];
	size_t out_len, in_len;		/* total bytes */
	size_t out_pos, in_pos;		/* stream positions */
	uint32_t generation;		/* of the queue when popped */
};

/* The next request; false when there is none or the ring is broken. */
bool virtq_pop(struct virtq *vq, struct chain *c);
/* Puts back what the last virtq_pop gave: "not now" (no receive data). */
void virtq_unpop(struct virtq *vq, struct chain *c);

/* Bytes left to read, space left to write. */
static inline size_t chain_left(const struct chain *c)
{
	return c->out_len - c->out_pos;
}
static inline size_t chain_space(const struct chain *c)
{
	return c->in_len - c->in_pos;
}
/* Copy at the stream position and advance; short at the end; the number done. */
size_t chain_read(struct chain *c, void *dst, size_t len);
size_t chain_write(struct chain *c, const void *src, size_t len);
/* Advance without copying (after I/O straight to the pieces). */
void chain_skip_out(struct chain *c, size_t len);
void chain_skip_in(struct chain *c, size_t len);
/* Writes at an offset of the writable stream, position untouched (blk's status
 * byte, net's header). */
size_t chain_write_at(struct chain *c, size_t off, const void *src, size_t len);
/*
 * The pieces covering [position, position + len) for preadv/pwritev; the guest
 * may change their content at any time.  Returns their number, at most max.
 */
unsigned chain_out_iov(const struct chain *c, size_t len, struct iovec *iov, unsigned max);
unsigned chain_in_iov(const struct chain *c, size_t len, struct iovec *iov, unsigned max);

/*
 * Completes a chain: used length is in_pos; tells mem_wrote() about what was
 * written.  Chains of an older generation are dropped.  May be out of order.
 */
void virtq_push(struct virtq *vq, struct chain *c);
/*
 * The two halves of virtq_push, for a frame in several chains: the driver must
 * see all of them at once (5.1.6.4).
 */
void virtq_fill(struct virtq *vq, struct chain *c);
void virtq_publish(struct virtq *vq);
/* The chain's queue was reset since: its memory is the driver's again. */
static inline bool virtq_stale(const struct virtq *vq, const struct chain *c)
{
	return c->generation != vq->generation;
}
/* The ring as the driver set it up: checked and switched on. */
bool virtq_enable(struct virtq *vq);
/* Interrupts the driver if it asked for it (event index, 2.7.10). */
void virtq_signal(struct virtq *vq);
/* True when the driver has put something there we have not popped. */
bool virtq_has_work(const struct virtq *vq);
/* The next entry that the driver adds rings the bell, also while others wait. */
void virtq_bell_next(struct virtq *vq);

/* Off, with indices and addresses cleared; chains popped before are stale. */
void virtq_reset(struct virtq *vq);
void virtq_save(const struct virtq *vq, struct state_w *w);
/* Checks ring addresses again; sets r->bad on nonsense. */
void virtq_load(struct virtq *vq, struct state_r *r);

#endif
