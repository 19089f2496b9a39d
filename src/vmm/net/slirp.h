/* SPDX-License-Identifier: MIT */
/*
 * slirp.h - what the three files of the NAT share; for slirp*.c only, which
 * include it first.
 *
 *	slirp.c		frames both ways, state, life
 *	slirp_poll.c	libslirp's descriptors and timers on our loop
 *	slirp_forward.c	port forwards
 */
#ifndef VMM_NET_SLIRP_H
#define VMM_NET_SLIRP_H

#include <glib.h>
#include <pthread.h>
#include <slirp/libslirp.h>
#include <sys/socket.h>

/* GLib's, which evaluate twice; base/util.h has its own. */
#undef MIN
#undef MAX

#include "base/list.h"
#include "base/loop.h"
#include "base/util.h"
#include "vmm/limits.h"
#include "vmm/net/hold.h"
#include "vmm/net/netif.h"

struct flows;
struct policy;

struct forward {
	struct netif_forward f;
	struct sockaddr_storage addr;	/* of the host side, port filled in */
	socklen_t addr_len;
	int fd;				/* libslirp's listening socket */
};

struct nat {
	struct netif netif;
	struct loop *loop;		/* borrowed */
	pthread_mutex_t *lock;		/* borrowed: vm->lock */
	Slirp *slirp;			/* owned */
	SlirpCb cb;			/* libslirp keeps a pointer to it */
	struct policy *policy;		/* owned */
	struct flows *flows;		/* owned */
	struct hold hold;
	uint8_t guest_mac[6];

	/* slirp_poll.c */
	struct list watches;
	struct watch **by_fd;		/* owned array */
	size_t nr_by_fd;
	struct watch **poll;		/* owned array: what fill gave an index */
	unsigned nr_poll, cap_poll;
	unsigned round;
	unsigned nr_watches, max_sockets;
	unsigned opening;		/* frames since the last fill that may open one */
	bool full;			/* the last fill found too many */
	int last_fd;			/* of the newest watch */

	struct loop_work pass;
	struct loop_timer tick;
	unsigned quiet;			/* ticks without anything moving */

	struct list queue;		/* struct queued */
	size_t queue_bytes;
	bool full_logged, sockets_logged;
	struct loop_timer hold_timer;

	struct forward forward[LIMIT_NET_FORWARDS];
	unsigned nr_forwards;
};

static inline struct nat *to_nat(struct netif *n)
{
	return container_of(n, struct nat, netif);
}

/* --- slirp_poll.c ---------------------------------------------------------------- */

/* Before slirp_new(): puts the callbacks for descriptors and time into n->cb. */
void nat_poll_init(struct nat *n);
/* After slirp_cleanup(). */
void nat_poll_done(struct nat *n);
/* Something happened: a pass before the loop sleeps again. */
void nat_schedule(struct nat *n);
/* Asks libslirp which descriptors it waits for, and waits for them. */
void nat_fill(struct nat *n);
/* Something that may open a socket: false when there are too many already. */
bool nat_may_open(struct nat *n);

/* --- slirp_forward.c: as in netif_ops, on a NAT that runs ---------------------------- */

int nat_forward_add(struct netif *netif, const struct spec_port *p, uint16_t *port,
		    struct err *err);
int nat_forward_rm(struct netif *netif, const char *host_addr, uint16_t host_port, bool udp);
bool nat_forward_get(struct netif *netif, unsigned i, struct netif_forward *f);
/* Whether a forward accepts connections there. */
bool nat_is_listener(const struct nat *n, int fd);

#endif
