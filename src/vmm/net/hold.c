// SPDX-License-Identifier: MIT
/* hold.c - see hold.h. */
#include "vmm/net/hold.h"

#include <string.h>

#include "vmm/limits.h"

#define MS 1000000ull

static struct hold_entry *find(struct hold *h, uint16_t host_port, uint16_t guest_port)
{
	for (unsigned i = 0; i < HOLD_MAX; i++)
		if (h->entry[i].used && h->entry[i].host_port == host_port &&
		    h->entry[i].guest_port == guest_port)
			return &h->entry[i];
	return NULL;
}

static void forget(struct hold *h, struct hold_entry *e)
{
	e->used = false;
	h->nr--;
}

void hold_to_guest(struct hold *h, const struct frame *f, uint64_t now)
{
	if (h->off || f->proto != IP_TCP || f->fragment || f->len > HOLD_FRAME ||
	    (f->flags & (TCP_SYN | TCP_ACK)) != TCP_SYN ||
	    find(h, f->sport, f->dport))
		return;
	for (unsigned i = 0; i < HOLD_MAX; i++) {
		struct hold_entry *e = &h->entry[i];

		if (e->used)
			continue;
		*e = (struct hold_entry){
			.used = true, .since = now, .host_port = f->sport,
			.guest_port = f->dport, .len = f->len,
		};
		memcpy(e->frame, f->eth, f->len);
		h->nr++;
		return;
	}
}

bool hold_from_guest(struct hold *h, const struct frame *f, uint64_t now)
{
	struct hold_entry *e;

	if (!h->until)
		h->until = now + LIMIT_NET_BOOT_MS * MS;
	if (now > h->until)
		h->off = true;
	if (!h->nr || f->proto != IP_TCP)
		return false;
	e = find(h, f->dport, f->sport);
	if (!e)
		return false;
	if (f->flags & TCP_RST && now - e->since < LIMIT_NET_HOLD_MS * MS)
		return true;
	forget(h, e);
	return false;
}

void hold_again(struct hold *h, uint64_t now,
		void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg)
{
	for (unsigned i = 0; i < HOLD_MAX; i++) {
		struct hold_entry *e = &h->entry[i];

		if (!e->used)
			continue;
		/* The last offer's reset goes through. */
		send(arg, e->frame, e->len);
		if (now - e->since >= LIMIT_NET_HOLD_MS * MS)
			forget(h, e);
	}
}
