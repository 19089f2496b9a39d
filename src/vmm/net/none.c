// SPDX-License-Identifier: MIT
/* none.c - a network without anybody on it: frames are dropped. */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "vmm/net/netif.h"

static void none_send(struct netif *n, uint8_t *frame, size_t len)
{
}

static void none_can_rx(struct netif *n)
{
}

static int none_forward_add(struct netif *n, const struct spec_port *p,
			    uint16_t *port, struct err *err)
{
	return err_code(err, ERR_BOOT_PORT_FORWARD_INVALID, ENETDOWN,
			"this VM has no network to forward a port to");
}

static int none_forward_rm(struct netif *n, const char *host_addr,
			   uint16_t host_port, bool udp)
{
	return -ENOENT;
}

static bool none_forward_get(struct netif *n, unsigned i, struct netif_forward *f)
{
	return false;
}

static void none_save(struct netif *n, struct state_w *w)
{
}

static void none_load(struct netif *n, struct state_r *r)
{
}

static void none_free(struct netif *n)
{
	free(n);
}

static const struct netif_ops none_ops = {
	.name = "none",
	.send = none_send,
	.can_rx = none_can_rx,
	.forward_add = none_forward_add,
	.forward_rm = none_forward_rm,
	.forward_get = none_forward_get,
	.save = none_save,
	.load = none_load,
	.free = none_free,
};

struct netif *netif_none_new(struct err *err)
{
	struct netif *n = calloc(1, sizeof(*n));

	if (n)
		n->ops = &none_ops;
	else
		err_set(err, ENOMEM, "out of memory");
	return n;
}
