// SPDX-License-Identifier: MIT
/*
 * What must hold for every row of the device table: it survives what a hostile
 * driver does to its registers, configuration, rings and buffers, comes back
 * after a reset, and takes its own state, but no damaged one, from a bundle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/devfix.h"
#include "vmm/dev/devices.h"
#include "vmm/state.h"

static void for_each_device(void (*check)(struct devfix *f))
{
	for (unsigned i = 0; i < nr_device_classes; i++) {
		struct devfix f;

		print_message("# %s\n", device_classes[i]->name);
		devfix_init(&f, device_classes[i]);
		check(&f);
		devfix_done(&f);
	}
}

static void check_negotiation(struct devfix *f)
{
	struct vdriver *d = &f->d;
	uint64_t offered = vd_offered(d);

	assert_int_equal(vd_read(d, VD_DEVICE_ID), f->class->id);
	assert_true(offered & VIRTIO_F_VERSION_1);
	assert_false(vd_negotiate(d, offered & ~VIRTIO_F_VERSION_1));
	/* One feature more than offered, each in turn. */
	for (unsigned bit = 0; bit < 64; bit++)
		if (!(offered & BIT(bit)))
			assert_false(vd_negotiate(d, offered | BIT(bit)));
	vd_start(d, VIRTIO_F_VERSION_1);
	vd_start(d, ~0ull);
}

static void negotiation(void **state)
{
	for_each_device(check_negotiation);
}

/* Reads do not leave the space, writes outside change nothing, none crashes. */
static void check_config(struct devfix *f)
{
	struct vdriver *d = &f->d;
	unsigned size = f->class->config_size;

	for (int live = 0; live < 2; live++) {
		for (unsigned off = 0; off < 0xf00; off++)
			for (unsigned len = 1; len <= 8; len *= 2) {
				uint64_t val = vd_config(d, off, len);

				if (off + len > size)
					assert_int_equal(val, 0);
				vd_config_write(d, off, len, ~0ull);
				vd_config_write(d, off, len, 0);
			}
		vd_start(d, ~0ull);
	}
}

static void config_bounds(void **state)
{
	for_each_device(check_config);
}

/* Chains a driver has no reason to send: each shape on each queue. */
static void check_shapes(struct devfix *f)
{
	static const struct {
		unsigned n;
		struct vd_buf b[4];
	} shape[] = {
		{ 1, { { 0x1000, 0, false } } },
		{ 1, { { 0x1000, 0, true } } },
		{ 1, { { 0x1000, 1, false } } },
		{ 1, { { 0x1000, 1, true } } },
		{ 1, { { 0, VD_RAM, true } } },
		{ 1, { { 0, VD_RAM, false } } },
		{ 1, { { VD_RAM - 1, 1, true } } },
		{ 1, { { VD_RAM, 0, true } } },
		{ 2, { { 0x1000, 15, false }, { 0x2000, 1, true } } },
		{ 2, { { 0x1000, 16, false }, { 0x2000, 0, true } } },
		{ 2, { { 0x1000, 1, true }, { 0x2000, 1, false } } },
		{ 3, { { 0x1000, 16, false }, { 0x2000, 4096, true }, { 0x3000, 1, true } } },
		{ 4, { { 0x1000, 44, false }, { 0x1000, 44, false },
		       { 0x1000, 44, true }, { 0x1000, 44, true } } },
		{ 2, { { 0x1000, 12, false }, { 0x2000, 65536, false } } },
	};
	struct vdriver *d = &f->d;

	for (unsigned fill = 0; fill < 256; fill += 51)
		for (unsigned q = 0; q < f->class->nr_queues; q++)
			for (unsigned i = 0; i < ARRAY_LEN(shape); i++) {
				d->brk = 16 << 20;
				vd_start(d, ~0ull);
				memset(d->mem.base + 0x1000, fill, 0x20000);
				vd_add(d, q, shape[i].b, shape[i].n);
				vd_kick(d, q);
				vd_settle(d);
			}
}

static void hostile_shapes(void **state)
{
	for_each_device(check_shapes);
}

/* Rings filled with noise; a device may stop, its process may not. */
static void check_noise(struct devfix *f)
{
	struct vdriver *d = &f->d;
	unsigned seed = 1;

	for (unsigned round = 0; round < 60; round++) {
		d->brk = 16 << 20;
		vd_start(d, round & 1 ? ~0ull : VIRTIO_F_VERSION_1);
		for (unsigned q = 0; q < f->class->nr_queues; q++) {
			struct vd_ring *r = &d->ring[q];
			uint8_t *p = vd_ptr(d, r->desc, 16ul * r->size);

			for (unsigned i = 0; i < 16u * r->size; i++)
				p[i] = rand_r(&seed) >> 8;
			/* Half of the addresses in RAM, so that some work. */
			for (unsigned i = 0; i < r->size; i += 2)
				*vd_desc(d, q, i) = (struct vd_desc){
					rand_r(&seed) % VD_RAM, rand_r(&seed) % 70000,
					rand_r(&seed) % 8, rand_r(&seed) % r->size,
				};
			for (unsigned i = 0; i < 8; i++)
				vd_avail_put(d, q, rand_r(&seed) % (r->size + 1));
			vd_avail_publish(d, q);
			vd_kick(d, q);
		}
		vd_settle(d);
		assert_true(d->dev->class == f->class);
	}
	vd_start(d, ~0ull);
}

static void noisy_rings(void **state)
{
	for_each_device(check_noise);
}

static void check_reset(struct devfix *f)
{
	struct vdriver *d = &f->d;

	for (unsigned i = 0; i < 5; i++) {
		vd_start(d, ~0ull);
		for (unsigned q = 0; q < f->class->nr_queues; q++) {
			struct vd_buf b = { 0x1000, 512, q != 1 };

			vd_add(d, q, &b, 1);
			vd_kick(d, q);
		}
		if (i & 1)
			vd_turn(d);
		vd_write(d, VD_STATUS, 0);
		assert_int_equal(vd_status(d), 0);
		assert_int_equal(vd_read(d, VD_ISR), 0);
		vd_write(d, VD_QUEUE_SEL, 0);
		assert_int_equal(vd_read(d, VD_QUEUE_READY), 0);
	}
}

static void reset_any_time(void **state)
{
	for_each_device(check_reset);
}

static void save(struct devfix *f, struct buf *b)
{
	struct state_w w;

	buf_clear(b);
	state_w_init(&w, b);
	if (f->class->drain)
		f->class->drain(f->d.dev);
	virtio_save(f->d.dev, 0, &w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
}

static int load(struct devfix *f, const void *data, size_t len)
{
	struct err err = ERR_INIT;
	struct state_r r;
	int ret = state_r_init(&r, data, len, &err);

	return ret < 0 ? ret : virtio_load(f->d.dev, 0, &r, &err);
}

static void check_state(struct devfix *f)
{
	struct buf first = BUF_INIT, again = BUF_INIT;

	vd_start(&f->d, ~0ull);
	save(f, &first);
	devfix_replace(f);
	assert_int_equal(load(f, first.data, first.len), 0);
	assert_true(virtio_live(f->d.dev));
	save(f, &again);
	/* vsock owes an event after a load, and saves that. */
	assert_int_equal(again.len, first.len);
	virtio_kick_queues(f->d.dev);
	vd_settle(&f->d);
	assert_true(virtio_live(f->d.dev));
	vd_start(&f->d, ~0ull);
	buf_done(&first);
	buf_done(&again);
}

static void state_round_trip(void **state)
{
	for_each_device(check_state);
}

/*
 * Payloads damaged behind the checksum's back: the section is written anew with
 * one byte changed, as an attacker would.
 */
static void rewrite(const struct devfix *f, const struct buf *from, struct buf *to,
		    size_t at, uint8_t flip, size_t cut)
{
	struct state_r r;
	struct state_w w;
	size_t len;
	uint8_t *p;

	assert_int_equal(state_r_init(&r, from->data, from->len, NULL), 0);
	assert_int_equal(state_find(&r, f->class->name, 0), 0);
	len = r.end - r.pos;
	p = malloc(len);
	state_get_bytes(&r, p, len);
	if (at < len)
		p[at] ^= flip;
	buf_clear(to);
	state_w_init(&w, to);
	state_begin(&w, f->class->name, 0, r.version, true);
	state_put_bytes(&w, p, cut < len ? cut : len);
	state_end(&w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	free(p);
}

static void check_mutated(struct devfix *f)
{
	static const uint8_t flips[] = { 1, 0x80, 0xff };
	struct buf good = BUF_INIT, bad = BUF_INIT;

	vd_start(&f->d, ~0ull);
	save(f, &good);
	for (size_t at = 0; at < 200; at++)
		for (unsigned i = 0; i < ARRAY_LEN(flips); i++) {
			rewrite(f, &good, &bad, at, flips[i], SIZE_MAX);
			if (load(f, bad.data, bad.len) < 0)
				assert_int_equal(vd_status(&f->d), 0);
			virtio_kick_queues(f->d.dev);
			vd_turn(&f->d);
		}
	for (size_t cut = 0; cut < good.len; cut++) {
		rewrite(f, &good, &bad, SIZE_MAX, 0, cut);
		load(f, bad.data, bad.len);
		load(f, good.data, cut);
	}
	assert_int_equal(load(f, good.data, good.len), 0);
	vd_start(&f->d, ~0ull);
	buf_done(&good);
	buf_done(&bad);
}

static void mutated_state(void **state)
{
	for_each_device(check_mutated);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(negotiation),
		cmocka_unit_test(config_bounds),
		cmocka_unit_test(hostile_shapes),
		cmocka_unit_test(noisy_rings),
		cmocka_unit_test(reset_any_time),
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(mutated_state),
	};

	return cmocka_run_group_tests_name("every_device", tests, NULL, NULL);
}
