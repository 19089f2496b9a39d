/* SPDX-License-Identifier: MIT */
/*
 * netif.h - network backends: where virtio-net's Ethernet frames go.
 *
 * Loop thread only.  The device gives frames with send(); the backend hands
 * frames to the guest through the `rx` callback, which may refuse (-EAGAIN) while
 * the guest has no buffers: the backend then keeps or drops, and can_rx() is
 * called when there is room again.
 */
#ifndef VMM_NET_NETIF_H
#define VMM_NET_NETIF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct loop;
struct spec;
struct state_r;
struct state_w;

struct netif {
	const struct netif_ops *ops;
};

struct netif_rx {
	int (*rx)(void *arg, const void *frame, size_t len);
	void *arg;		/* borrowed */
};

struct netif_ops {
	const char *name;
	/* One whole frame; the backend copies what it keeps.  Never fails:
	 * a network may lose frames. */
	void (*send)(struct netif *n, const struct iovec *iov, unsigned nr);
	void (*can_rx)(struct netif *n);
	void (*save)(struct netif *n, struct state_w *w);
	void (*load)(struct netif *n, struct state_r *r);
	void (*free)(struct netif *n);
};

#endif
