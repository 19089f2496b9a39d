/* SPDX-License-Identifier: MIT */
/* fakenet.h - a network backend that keeps what it is sent. */
#ifndef TESTS_LIB_FAKENET_H
#define TESTS_LIB_FAKENET_H

#include "vmm/net/netif.h"

struct fakenet {
	struct netif netif;
	uint8_t last[NETIF_FRAME_MAX];
	size_t last_len;
	unsigned sent, rooms;	/* frames from the guest, can_rx() calls */
	bool *freed;		/* borrowed; may be NULL */
};

struct fakenet *fakenet_new(void);

#endif
