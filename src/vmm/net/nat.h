/* SPDX-License-Identifier: MIT */
/*
 * nat.h - the addresses inside the NAT: 10.0.2.0/24 and fec0::/64, gateway .2,
 * resolver .3, guest .15.
 */
#ifndef VMM_NET_NAT_H
#define VMM_NET_NAT_H

#include <string.h>

#include "vmm/net/frame.h"

/* Host order, and text of the IPv6 ones. */
#define NAT_NET4	0x0a000200u
#define NAT_MASK4	0xffffff00u
#define NAT_GATEWAY4	0x0a000202u
#define NAT_DNS4	0x0a000203u
#define NAT_GUEST4	0x0a00020fu
#define NAT_NET6	"fec0::"
#define NAT_GATEWAY6	"fec0::2"
#define NAT_DNS6	"fec0::3"
#define NAT_GUEST6	"fec0::15"

static inline bool nat_is_inside(const struct naddr *a)
{
	static const struct naddr v6 = { { 0xfe, 0xc0 } };
	struct naddr v4 = naddr4(10, 0, 2, 0);

	return naddr_in(a, &v4, 120) || naddr_in(a, &v6, 64);
}

static inline bool nat_is_dns(const struct naddr *a)
{
	return nat_is_inside(a) && a->b[15] == 3 &&
	       (naddr_is4(a) || !memcmp(a->b + 8, "\0\0\0\0\0\0\0", 7));
}

static inline bool nat_is_guest4(const struct naddr *a)
{
	struct naddr guest = naddr4(10, 0, 2, 15);

	return naddr_eq(a, &guest);
}

#endif
