// SPDX-License-Identifier: MIT
/*
 * flows.c - a set-associative table: no lists, no allocation per connection, and
 * a guest that opens ten thousand of them overwrites its own oldest.  What is lost
 * that way is a prompt reset after a restore; the NAT answers the connection's
 * next segment with one anyway.  For the same reason entries of connections that
 * ended may stay: a reset for them is ignored.
 */
#include "vmm/net/flows.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/state.h"

#define SETS	1024
#define WAYS	4

struct flows {
	struct flow way[SETS][WAYS];	/* rport 0: free */
	uint8_t victim[SETS];
};

struct flows *flows_new(void)
{
	return calloc(1, sizeof(struct flows));
}

void flows_free(struct flows *t)
{
	free(t);
}

static unsigned set_of(const struct frame *f)
{
	uint32_t h = f->sport * 0x9e3779b1u ^ f->dport * 0x85ebca6bu;

	for (unsigned i = 0; i < 16; i++)
		h = h * 31 + f->dst.b[i];
	return (h ^ h >> 15) % SETS;
}

static struct flow *find(struct flow *way, const struct frame *f)
{
	for (unsigned i = 0; i < WAYS; i++)
		if (way[i].lport == f->sport && way[i].rport == f->dport &&
		    naddr_eq(&way[i].remote, &f->dst) &&
		    naddr_eq(&way[i].local, &f->src))
			return &way[i];
	return NULL;
}

static struct flow *find_or_make(struct flows *t, const struct frame *f)
{
	unsigned set = set_of(f);
	struct flow *w = find(t->way[set], f);

	if (w)
		return w;
	for (unsigned i = 0; !w && i < WAYS; i++)
		if (!t->way[set][i].rport)
			w = &t->way[set][i];
	if (!w)
		w = &t->way[set][t->victim[set]++ % WAYS];
	*w = (struct flow){
		.local = f->src, .remote = f->dst, .lport = f->sport, .rport = f->dport,
	};
	return w;
}

bool flows_note(struct flows *t, const struct frame *f)
{
	struct flow *w;
	bool again = false;

	if (f->flags & TCP_RST) {
		w = find(t->way[set_of(f)], f);
		if (w)
			w->rport = 0;
		return false;
	}
	if (!f->dport || !(f->flags & (TCP_ACK | TCP_SYN)))
		return false;
	w = find_or_make(t, f);
	if (f->flags & TCP_SYN) {
		again = w->begun && w->syn == f->seq;
		w->acked &= again;
		w->begun = true;
		w->syn = f->seq;
	}
	if (f->flags & TCP_ACK) {
		w->next = f->ack;
		w->acked = true;
	}
	return again;
}

static bool is_open(const struct flow *f)
{
	return f->rport && f->acked;
}

void flows_save(const struct flows *t, struct state_w *w)
{
	uint32_t nr = 0;

	for (unsigned i = 0; i < SETS * WAYS; i++)
		nr += is_open(&t->way[i / WAYS][i % WAYS]);
	state_put_u32(w, nr);
	for (unsigned i = 0; i < SETS * WAYS; i++) {
		const struct flow *f = &t->way[i / WAYS][i % WAYS];

		if (!is_open(f))
			continue;
		state_put_bytes(w, f->local.b, sizeof(f->local.b));
		state_put_bytes(w, f->remote.b, sizeof(f->remote.b));
		state_put_u16(w, f->lport);
		state_put_u16(w, f->rport);
		state_put_u32(w, f->next);
	}
}

void flows_load(struct state_r *r, void (*reset)(void *arg, const struct flow *f), void *arg)
{
	uint32_t nr = state_get_u32(r);

	if (nr > SETS * WAYS) {
		r->bad = true;
		return;
	}
	while (nr-- && !r->bad) {
		struct flow f;

		state_get_bytes(r, f.local.b, sizeof(f.local.b));
		state_get_bytes(r, f.remote.b, sizeof(f.remote.b));
		f.lport = state_get_u16(r);
		f.rport = state_get_u16(r);
		f.next = state_get_u32(r);
		if (!r->bad)
			reset(arg, &f);
	}
}
