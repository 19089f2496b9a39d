// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/lib/fakenet.h"
#include "vmm/state.h"

static struct fakenet *to_fake(struct netif *n)
{
	return container_of(n, struct fakenet, netif);
}

static void fake_send(struct netif *n, uint8_t *frame, size_t len)
{
	memcpy(to_fake(n)->last, frame, len);
	to_fake(n)->last_len = len;
	to_fake(n)->sent++;
}

static void fake_can_rx(struct netif *n)
{
	to_fake(n)->rooms++;
}

static int fake_add(struct netif *n, const struct spec_port *p, uint16_t *port, struct err *err)
{
	return -ENOTSUP;
}

static int fake_rm(struct netif *n, const char *addr, uint16_t port, bool udp)
{
	return -ENOENT;
}

static bool fake_get(struct netif *n, unsigned i, struct netif_forward *f)
{
	return false;
}

static void fake_save(struct netif *n, struct state_w *w)
{
	state_put_u32(w, 0xfeedface);
}

static void fake_load(struct netif *n, struct state_r *r)
{
	if (state_get_u32(r) != 0xfeedface)
		r->bad = true;
}

static void fake_free(struct netif *n)
{
	if (to_fake(n)->freed)
		*to_fake(n)->freed = true;
	free(to_fake(n));
}

static const struct netif_ops fake_ops = {
	.name = "fake", .send = fake_send, .can_rx = fake_can_rx,
	.forward_add = fake_add, .forward_rm = fake_rm, .forward_get = fake_get,
	.save = fake_save, .load = fake_load, .free = fake_free,
};

struct fakenet *fakenet_new(void)
{
	struct fakenet *f = calloc(1, sizeof(*f));

	f->netif.ops = &fake_ops;
	return f;
}
