// SPDX-License-Identifier: MIT
/*
 * fuzz_virtio.c - every device under a driver that does anything: registers,
 * rings, buffers, resets and damaged state in random order.  What must hold is that
 * the process lives and that a proper driver gets the device back afterwards.
 * FUZZ_RUNS and FUZZ_SEED may be set; the seed is printed.  Made for
 * SAN=address,undefined.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/devfix.h"
#include "vmm/dev/devices.h"
#include "vmm/state.h"

struct rng {
	uint64_t s;
};

static uint32_t rnd(struct rng *r, uint32_t below)
{
	r->s = r->s * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(r->s >> 33) % below;
}

static unsigned long setting(const char *name, unsigned long otherwise)
{
	const char *s = getenv(name);

	return s ? strtoul(s, NULL, 0) : otherwise;
}

static void some_register(struct vdriver *d, struct rng *r)
{
	static const uint16_t regs[] = {
		VD_FEATURES_SEL, VD_DRIVER_FEATURES, VD_DRIVER_FEATURES_SEL,
		VD_QUEUE_SEL, VD_QUEUE_NUM, VD_QUEUE_READY, VD_QUEUE_NOTIFY,
		VD_ISR_ACK, VD_STATUS, VD_DESC, VD_DESC + 4, VD_AVAIL,
		VD_AVAIL + 4, VD_USED, VD_USED + 4,
	};
	uint32_t val = rnd(r, 2) ? rnd(r, 16) : rnd(r, 0x7fffffff);

	if (rnd(r, 4))
		vd_write(d, regs[rnd(r, ARRAY_LEN(regs))], val);
	else
		vd_read(d, rnd(r, 0x100) & ~3u);
}

static void some_config(struct vdriver *d, struct rng *r)
{
	unsigned len = 1u << rnd(r, 4), off = rnd(r, 128) & ~(len - 1);

	vd_config(d, off, len);
	if (rnd(r, 2))
		vd_config_write(d, off, len, r->s);
}

/* Mostly sound chains with unsound content, as those get furthest. */
static void some_chain(struct vdriver *d, struct rng *r)
{
	unsigned q = rnd(r, d->dev->class->nr_queues), n = 1 + rnd(r, 6);
	unsigned out = rnd(r, n + 1);
	struct vd_buf b[6];

	if (!d->ring[q].size)
		return;
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = rnd(r, 3) ? rnd(r, 64) : rnd(r, 70000);
		gpa_t gpa = 0x100000 + rnd(r, 4) * 0x20000 + rnd(r, 64);

		b[i] = (struct vd_buf){ gpa, len, i >= out };
	}
	memset(vd_ptr(d, 0x100000, 64), rnd(r, 256), rnd(r, 64));
	*(uint32_t *)vd_ptr(d, 0x100000, 4) = rnd(r, 16);
	d->indirect = rnd(r, 2);
	vd_add(d, q, b, n);
	vd_kick(d, q);
}

static void some_noise(struct vdriver *d, struct rng *r)
{
	unsigned q = rnd(r, d->dev->class->nr_queues);
	struct vd_ring *ring = &d->ring[q];

	if (!ring->size)
		return;
	*vd_desc(d, q, rnd(r, ring->size)) = (struct vd_desc){
		rnd(r, 2) ? rnd(r, VD_RAM) : r->s, rnd(r, 100000), rnd(r, 8),
		rnd(r, ring->size + 1),
	};
	if (!rnd(r, 8))
		*vd_avail_idx(d, q) += rnd(r, 300);
	vd_avail_put(d, q, rnd(r, ring->size + 1));
	vd_avail_publish(d, q);
	vd_kick(d, q);
}

static void save_and_load(struct devfix *f, struct rng *r)
{
	struct buf b = BUF_INIT;
	struct state_w w;
	struct state_r rd;

	pthread_mutex_lock(&f->d.lock);
	if (f->class->drain)
		f->class->drain(f->d.dev);
	state_w_init(&w, &b);
	virtio_save(f->d.dev, 0, &w);
	pthread_mutex_unlock(&f->d.lock);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	if (rnd(r, 2))
		b.data[rnd(r, b.len)] ^= 1u << rnd(r, 8);
	if (!state_r_init(&rd, b.data, b.len, NULL))
		virtio_load(f->d.dev, 0, &rd, NULL);
	virtio_kick_queues(f->d.dev);
	buf_done(&b);
}

static void restart(struct vdriver *d, struct rng *r)
{
	d->brk = 16 << 20;	/* clear of the buffers */
	vd_start(d, rnd(r, 3) ? ~0ull : VIRTIO_F_VERSION_1 | r->s);
}

static void step(struct devfix *f, struct rng *r)
{
	struct vdriver *d = &f->d;

	if (d->brk > VD_RAM - (4 << 20) || !rnd(r, 40)) {
		restart(d, r);
		return;
	}
	switch (rnd(r, 10)) {
	case 0: some_register(d, r); break;
	case 1: some_config(d, r); break;
	case 2: some_noise(d, r); break;
	case 3: vd_turn(d); break;
	case 4: if (!rnd(r, 8)) save_and_load(f, r); break;
	default: some_chain(d, r); break;
	}
}

static void any_driver(void **state)
{
	unsigned long runs = setting("FUZZ_RUNS", 20000);
	struct rng r = { setting("FUZZ_SEED", time(NULL)) };

	print_message("# FUZZ_SEED=%llu\n", (unsigned long long)r.s);
	for (unsigned i = 0; i < nr_device_classes; i++) {
		struct devfix f;

		devfix_init(&f, device_classes[i]);
		restart(&f.d, &r);
		for (unsigned long n = 0; n < runs; n++)
			step(&f, &r);
		vd_settle(&f.d);
		f.d.brk = 16 << 20;
		vd_start(&f.d, ~0ull);
		devfix_done(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(any_driver) };

	return cmocka_run_group_tests_name("fuzz_virtio", tests, NULL, NULL);
}
