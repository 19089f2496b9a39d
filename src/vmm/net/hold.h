/* SPDX-License-Identifier: MIT */
/*
 * hold.h - connections to forwarded ports that come before the guest listens.
 *
 * A booting guest refuses with a reset what it will accept a moment later.  So
 * while it boots, such a reset is kept from the NAT and the SYN is offered again
 * until the guest takes it or LIMIT_NET_HOLD_MS have passed.
 */
#ifndef VMM_NET_HOLD_H
#define VMM_NET_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/net/frame.h"

#define HOLD_MAX	64
#define HOLD_FRAME	(ETH_HDR + 60 + 60)
#define HOLD_EVERY_NS	(200 * 1000 * 1000ull)

struct hold_entry {
	bool used;
	uint64_t since;			/* ns */
	uint16_t host_port, guest_port;
	size_t len;
	uint8_t frame[HOLD_FRAME];
};

struct hold {
	bool off;			/* the guest has booted */
	uint64_t until;			/* it counts as booted from here; 0: unknown */
	struct hold_entry entry[HOLD_MAX];
	unsigned nr;
};

/* A frame for the guest: begins a wait when it is a SYN. */
void hold_to_guest(struct hold *h, const struct frame *f, uint64_t now);
/* A TCP segment of the guest; true: keep it from the NAT. */
bool hold_from_guest(struct hold *h, const struct frame *f, uint64_t now);
/* Offers every SYN again through send(); forgets those that waited too long. */
void hold_again(struct hold *h, uint64_t now,
		void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg);

#endif
