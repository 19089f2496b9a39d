/* SPDX-License-Identifier: MIT */
/*
 * flows.h - the guest's TCP connections, as seen passing by: enough of each to
 * reset it in a VM that was restored without the NAT's other half, and to tell a
 * SYN that is said again from one that begins something.
 */
#ifndef VMM_NET_FLOWS_H
#define VMM_NET_FLOWS_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/net/frame.h"

struct flows;
struct state_r;
struct state_w;

struct flow {
	struct naddr local, remote;
	uint16_t lport, rport;
	uint32_t next;		/* sequence number the guest expects next */
	bool acked;		/* … if it has said so */
	bool begun;		/* its SYN was seen: */
	uint32_t syn;		/* the sequence number */
};

struct flows *flows_new(void);	/* NULL: out of memory */
void flows_free(struct flows *t);
/* A TCP segment the guest sent; true: a SYN, and not for the first time. */
bool flows_note(struct flows *t, const struct frame *f);
void flows_save(const struct flows *t, struct state_w *w);
/* Calls reset() for each saved flow; sets r->bad on nonsense. */
void flows_load(struct state_r *r, void (*reset)(void *arg, const struct flow *f), void *arg);

#endif
