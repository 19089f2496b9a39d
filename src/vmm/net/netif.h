/* SPDX-License-Identifier: MIT */
/*
 * netif.h - network backends: where virtio-net's Ethernet frames go.
 *
 * Loop thread, under vm->lock, for every call and callback; a backend takes the
 * lock (given at its making) around what its own sockets and timers wake it for.
 * The device gives frames with send(); the backend hands frames to the guest
 * through the `rx` callback, which may refuse (-EAGAIN) while the guest has no
 * buffers: the backend then keeps or drops, and can_rx() is called when there is
 * room again.
 */
#ifndef VMM_NET_NETIF_H
#define VMM_NET_NETIF_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct loop;
struct spec;
struct spec_port;
struct state_r;
struct state_w;

/* Ethernet header and the largest IP packet the guest may send. */
#define NETIF_FRAME_MAX	(14 + 65535)
#define NETIF_MTU	65520

struct netif_rx {
	/* 0: taken; -EAGAIN: no buffers now; -ENETDOWN: no driver. */
	int (*rx)(void *arg, const void *frame, size_t len);
	void *arg;		/* borrowed */
};

struct netif {
	const struct netif_ops *ops;
	struct netif_rx to_guest;	/* set by the device */
};

/* A forward that listens; ports in host order. */
struct netif_forward {
	char host_addr[46];	/* INET6_ADDRSTRLEN */
	uint16_t host_port, guest_port;
	bool udp;
};

struct netif_ops {
	const char *name;
	/*
	 * One whole frame with valid checksums; TCP segments may be larger than
	 * the MTU.  The backend may change it and copies what it keeps.  Never
	 * fails: a network may lose frames.
	 */
	void (*send)(struct netif *n, uint8_t *frame, size_t len);
	void (*can_rx)(struct netif *n);
	/* Host port 0 picks a free one, told in *port.  -EADDRINUSE, … */
	int (*forward_add)(struct netif *n, const struct spec_port *p,
			   uint16_t *port, struct err *err);
	/* -ENOENT when there is none. */
	int (*forward_rm)(struct netif *n, const char *host_addr,
			  uint16_t host_port, bool udp);
	/* The i-th; false past the last. */
	bool (*forward_get)(struct netif *n, unsigned i, struct netif_forward *f);
	void (*save)(struct netif *n, struct state_w *w);
	void (*load)(struct netif *n, struct state_r *r);
	void (*free)(struct netif *n);
};

/* NAT as the spec says, its forwards included.  mac is the guest's. */
struct netif *netif_slirp_new(struct loop *loop, pthread_mutex_t *lock,
			      const struct spec *spec, struct err *err);
/* A cable that leads nowhere. */
struct netif *netif_none_new(struct err *err);

static inline void netif_free(struct netif *n)
{
	if (n)
		n->ops->free(n);
}

#endif
