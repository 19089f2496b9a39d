// SPDX-License-Identifier: MIT
/*
 * Rings, good and hostile, through a device of our own that copies what it reads
 * into what it may write: every rule the core promises is looked at here once.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/vdriver.h"
#include "vmm/state.h"

struct echo {
	struct virtio_dev dev;
	unsigned served;
	bool hold;		/* leave the chain popped */
	struct chain held;
};

static void echo_notify(struct virtio_dev *dev, struct virtq *vq)
{
	struct echo *e = container_of(dev, struct echo, dev);
	struct chain c;
	uint8_t buf[512];
	size_t n;

	while (virtq_pop(vq, &c)) {
		e->served++;
		if (e->hold) {
			e->held = c;
			continue;
		}
		while ((n = chain_read(&c, buf, sizeof(buf))))
			chain_write(&c, buf, n);
		virtq_push(vq, &c);
	}
	virtq_signal(vq);
}

static const struct virtio_class echo_class = {
	.name = "echo", .id = 42, .nr_queues = 2, .size = sizeof(struct echo),
	.notify = echo_notify, .state_version = 1,
};

static int setup(void **state)
{
	struct vdriver *d = malloc(sizeof(*d));

	vd_init(d, &echo_class, "", NULL);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	vd_done(*state);
	free(*state);
	return 0;
}

static struct echo *echo_of(struct vdriver *d)
{
	return container_of(d->dev, struct echo, dev);
}

/* Sends `len` patterned bytes in `parts` pieces and checks what comes back. */
static void roundtrip(struct vdriver *d, unsigned q, uint32_t len, unsigned parts)
{
	gpa_t out = vd_alloc(d, len, 1), in = vd_alloc(d, len, 1);
	uint8_t *p = vd_ptr(d, out, len);
	struct vd_buf b[32];
	uint32_t used;
	unsigned n = 0;

	for (uint32_t i = 0; i < len; i++)
		p[i] = i * 31 + parts;
	for (unsigned i = 0; i < parts; i++) {
		uint32_t from = len * i / parts, to = len * (i + 1) / parts;

		b[n] = (struct vd_buf){ .gpa = out + from, .len = to - from };
		b[n + parts] = (struct vd_buf){
			.gpa = in + from, .len = to - from, .write = true,
		};
		n++;
	}
	vd_add(d, q, b, 2 * parts);
	vd_kick(d, q);
	vd_used(d, q, &used);
	assert_int_equal(used, len);
	assert_memory_equal(vd_ptr(d, in, len), p, len);
	d->brk = out;
}

static void good_chains(void **state)
{
	struct vdriver *d = *state;

	for (int indirect = 0; indirect < 2; indirect++) {
		vd_start(d, ~0ull);
		d->indirect = indirect;
		for (unsigned parts = 1; parts <= 16; parts++)
			for (uint32_t len = parts; len < 5000; len = len * 3 + 1)
				roundtrip(d, parts & 1, len, parts);
	}
}

static void without_optional_features(void **state)
{
	struct vdriver *d = *state;

	vd_start(d, VIRTIO_F_VERSION_1);
	roundtrip(d, 0, 1000, 3);
	assert_int_equal(d->irqs, 1);
	/* VIRTQ_AVAIL_F_NO_INTERRUPT */
	*(uint16_t *)vd_ptr(d, d->ring[0].avail, 2) = 1;
	roundtrip(d, 0, 1000, 3);
	assert_int_equal(d->irqs, 1);
}

static void indices_wrap(void **state)
{
	struct vdriver *d = *state;

	vd_start(d, ~0ull);
	for (unsigned i = 0; i < 70000; i++)
		roundtrip(d, 0, 8, 1);
	assert_int_equal(echo_of(d)->served, 70000);
}

static void event_index_suppresses(void **state)
{
	struct vdriver *d = *state;
	struct vd_buf b = { .gpa = vd_alloc(d, 16, 1), .len = 16, .write = true };
	uint16_t *used_event;

	vd_start(d, ~0ull);
	used_event = vd_ptr(d, d->ring[0].avail + 4 + 2u * d->ring[0].size, 2);
	*used_event = 3;	/* after the fourth, please */
	for (unsigned i = 0; i < 6; i++) {
		vd_add(d, 0, &b, 1);
		vd_kick(d, 0);
		vd_settle(d);
		assert_int_equal(d->irqs, i >= 3);
	}
	assert_int_equal(vd_read(d, VD_ISR), VIRTIO_ISR_QUEUE);
	vd_write(d, VD_ISR_ACK, VIRTIO_ISR_QUEUE);
	assert_int_equal(vd_read(d, VD_ISR), 0);
}

/* The device asks for a bell exactly where it stopped reading. */
static void asks_for_bell(void **state)
{
	struct vdriver *d = *state;
	uint16_t *avail_event;

	vd_start(d, ~0ull);
	avail_event = vd_ptr(d, d->ring[0].used + 4 + 8u * d->ring[0].size, 2);
	for (unsigned i = 0; i < 3; i++)
		roundtrip(d, 0, 8, 1);
	assert_int_equal(*avail_event, 3);
}

static void negotiation(void **state)
{
	struct vdriver *d = *state;

	assert_int_equal(vd_read(d, VD_MAGIC), 0x74726976);
	assert_int_equal(vd_read(d, VD_VERSION), 2);
	assert_int_equal(vd_read(d, VD_DEVICE_ID), 42);
	assert_false(vd_negotiate(d, 0));		/* legacy driver */
	assert_false(vd_negotiate(d, vd_offered(d) | BIT(50)));
	vd_write(d, VD_STATUS, vd_status(d) | VIRTIO_S_DRIVER_OK);
	assert_false(virtio_live(d->dev));
	assert_true(vd_negotiate(d, VIRTIO_F_VERSION_1));
	/* Too late to change one's mind. */
	vd_write(d, VD_DRIVER_FEATURES_SEL, 0);
	vd_write(d, VD_DRIVER_FEATURES, ~0u);
	assert_int_equal(d->dev->driver_features, VIRTIO_F_VERSION_1);
	vd_write(d, VD_STATUS, 0);
	assert_int_equal(vd_status(d), 0);
	assert_int_equal(d->dev->driver_features, 0);
}

static void registers_out_of_range(void **state)
{
	struct vdriver *d = *state;

	vd_start(d, ~0ull);
	vd_write(d, VD_QUEUE_SEL, 2);
	assert_int_equal(vd_read(d, VD_QUEUE_MAX), 0);
	vd_write(d, VD_QUEUE_NUM, 8);
	vd_write(d, VD_QUEUE_READY, 1);
	vd_write(d, VD_QUEUE_SEL, ~0u);
	assert_int_equal(vd_read(d, VD_QUEUE_READY), 0);
	vd_write(d, VD_QUEUE_READY, 1);
	vd_write(d, VD_QUEUE_NOTIFY, ~0u);
	for (unsigned off = 0; off < PAGE_SIZE; off++)
		for (unsigned len = 1; len <= 8; len *= 2)
			if (!(off % len))
				virtio_mmio_read(d->dev, off, len);
	/* A live queue does not move. */
	vd_write(d, VD_QUEUE_SEL, 0);
	vd_write(d, VD_DESC, 0xdead0000);
	vd_write(d, VD_QUEUE_NUM, 4);
	roundtrip(d, 0, 100, 2);
}

struct bad_queue {
	uint32_t size;
	gpa_t desc, avail, used;
};

static void bad_queue_addresses(void **state)
{
	static const struct bad_queue bad[] = {
		{ 0, 0x1000, 0x2000, 0x3000 },
		{ 3, 0x1000, 0x2000, 0x3000 },
		{ 512, 0x1000, 0x3000, 0x5000 },
		{ 0x10008, 0x1000, 0x3000, 0x5000 },
		{ 8, 0x1008, 0x2000, 0x3000 },
		{ 8, 0x1000, 0x2001, 0x3000 },
		{ 8, 0x1000, 0x2000, 0x3002 },
		{ 8, VD_RAM - 16, 0x2000, 0x3000 },
		{ 8, 0x1000, VD_RAM - 2, 0x3000 },
		{ 8, 0x1000, 0x2000, VD_RAM - 8 },
		{ 8, ~0ull & ~15ull, 0x2000, 0x3000 },
		{ 8, 0x1000, ~1ull, 0x3000 },
		{ 8, 0x1000, 0x2000, ~3ull },
		{ 8, 0xd0000000, 0x2000, 0x3000 },
	};
	struct vdriver *d = *state;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		assert_true(vd_negotiate(d, vd_offered(d)));
		vd_write(d, VD_QUEUE_SEL, 0);
		vd_write(d, VD_QUEUE_NUM, bad[i].size);
		vd_write(d, VD_DESC, bad[i].desc);
		vd_write(d, VD_DESC + 4, bad[i].desc >> 32);
		vd_write(d, VD_AVAIL, bad[i].avail);
		vd_write(d, VD_AVAIL + 4, bad[i].avail >> 32);
		vd_write(d, VD_USED, bad[i].used);
		vd_write(d, VD_USED + 4, bad[i].used >> 32);
		vd_write(d, VD_QUEUE_READY, 1);
		assert_int_equal(vd_read(d, VD_QUEUE_READY), 0);
		assert_true(vd_status(d) & VIRTIO_S_NEEDS_RESET);
	}
}

/* --- hostile rings: each writes one, which must end in NEEDS_RESET ---------- */

static void put_head(struct vdriver *d, uint16_t head)
{
	vd_avail_put(d, 0, head);
	vd_avail_publish(d, 0);
}

static void put_desc(struct vdriver *d, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	*vd_desc(d, 0, 0) = (struct vd_desc){ addr, len, flags, next };
	put_head(d, 0);
}

static void h_head_range(struct vdriver *d) { put_head(d, 256); }
static void h_head_max(struct vdriver *d) { put_head(d, 0xffff); }
static void h_next_range(struct vdriver *d) { put_desc(d, 0x1000, 16, VD_NEXT, 256); }
static void h_self_cycle(struct vdriver *d) { put_desc(d, 0x1000, 16, VD_NEXT, 0); }
static void h_zero_cycle(struct vdriver *d) { put_desc(d, 0x1000, 0, VD_NEXT, 0); }
static void h_outside(struct vdriver *d) { put_desc(d, VD_RAM, 1, VD_WRITE, 0); }
static void h_edge(struct vdriver *d) { put_desc(d, VD_RAM - 15, 16, VD_WRITE, 0); }
static void h_huge(struct vdriver *d) { put_desc(d, 0x1000, ~0u, VD_WRITE, 0); }
static void h_wrap(struct vdriver *d) { put_desc(d, ~0ull - 7, 16, 0, 0); }
static void h_hole(struct vdriver *d) { put_desc(d, 0xd0000000, 4, 0, 0); }

static void h_avail_jump(struct vdriver *d)
{
	*vd_avail_idx(d, 0) = 257;
}

static void h_avail_back(struct vdriver *d)
{
	*vd_avail_idx(d, 0) = 0xffff;
}

static void h_write_before_read(struct vdriver *d)
{
	*vd_desc(d, 0, 1) = (struct vd_desc){ 0x1000, 16, 0, 0 };
	put_desc(d, 0x2000, 16, VD_WRITE | VD_NEXT, 1);
}

static void h_two_cycle(struct vdriver *d)
{
	*vd_desc(d, 0, 1) = (struct vd_desc){ 0x1000, 16, VD_NEXT, 0 };
	put_desc(d, 0x2000, 16, VD_NEXT, 1);
}

static struct vd_desc *table(struct vdriver *d, uint32_t len, uint16_t flags)
{
	gpa_t gpa = vd_alloc(d, 16 * 300, 16);

	put_desc(d, gpa, len, VD_INDIRECT | flags, 1);
	return vd_ptr(d, gpa, 16 * 300);
}

static void h_indirect_empty(struct vdriver *d) { table(d, 0, 0); }
static void h_indirect_odd(struct vdriver *d) { table(d, 24, 0); }
static void h_indirect_big(struct vdriver *d) { table(d, 257 * 16, 0); }
static void h_indirect_next(struct vdriver *d) { table(d, 16, VD_NEXT); }
static void h_indirect_outside(struct vdriver *d)
{
	put_desc(d, VD_RAM - 16, 32, VD_INDIRECT, 0);
}

static void h_indirect_nested(struct vdriver *d)
{
	struct vd_desc *t = table(d, 32, 0);

	t[0] = (struct vd_desc){ 0x1000, 16, VD_INDIRECT, 0 };
}

static void h_indirect_index(struct vdriver *d)
{
	struct vd_desc *t = table(d, 32, 0);

	t[0] = (struct vd_desc){ 0x1000, 16, VD_NEXT, 2 };
}

static void h_indirect_cycle(struct vdriver *d)
{
	struct vd_desc *t = table(d, 32, 0);

	t[0] = (struct vd_desc){ 0x1000, 16, VD_NEXT, 1 };
	t[1] = (struct vd_desc){ 0x1000, 16, VD_NEXT, 0 };
}

static void h_four_gib(struct vdriver *d)
{
	struct vd_desc *t = table(d, 256 * 16, 0);

	for (unsigned i = 0; i < 256; i++)
		t[i] = (struct vd_desc){
			0, VD_RAM, VD_WRITE | (i < 255 ? VD_NEXT : 0), i + 1,
		};
}

static const struct hostile {
	const char *name;
	void (*make)(struct vdriver *d);
} hostile[] = {
#define H(x) { #x, h_##x }
	H(head_range), H(head_max), H(next_range), H(self_cycle), H(zero_cycle),
	H(outside), H(edge), H(huge), H(wrap), H(hole), H(avail_jump),
	H(avail_back), H(write_before_read), H(two_cycle), H(indirect_empty),
	H(indirect_odd), H(indirect_big), H(indirect_next), H(indirect_outside),
	H(indirect_nested), H(indirect_index), H(indirect_cycle), H(four_gib),
#undef H
};

static void hostile_rings(void **state)
{
	struct vdriver *d = *state;

	for (unsigned i = 0; i < ARRAY_LEN(hostile); i++) {
		struct echo *e = echo_of(d);
		unsigned served;

		vd_start(d, ~0ull);
		served = e->served;
		hostile[i].make(d);
		vd_kick(d, 0);
		vd_settle(d);
		if (!(vd_status(d) & VIRTIO_S_NEEDS_RESET))
			fail_msg("%s was accepted", hostile[i].name);
		assert_int_equal(e->served, served);
		assert_true(vd_read(d, VD_ISR) & VIRTIO_ISR_CONFIG);
		/* Nothing moves until the reset, and everything after it. */
		vd_kick(d, 1);
		vd_settle(d);
		assert_int_equal(e->served, served);
		vd_start(d, ~0ull);
		roundtrip(d, 0, 100, 2);
		d->brk = PAGE_SIZE;
		memset(d->mem.base, 0, 1 << 20);
	}
}

static void indirect_needs_the_feature(void **state)
{
	struct vdriver *d = *state;
	struct vd_desc *t;

	vd_start(d, ~VIRTIO_F_INDIRECT_DESC);
	t = table(d, 16, 0);
	t[0] = (struct vd_desc){ 0x1000, 16, 0, 0 };
	vd_kick(d, 0);
	vd_settle(d);
	assert_true(vd_status(d) & VIRTIO_S_NEEDS_RESET);
}

static void zero_length_and_longest(void **state)
{
	struct vdriver *d = *state;
	struct vd_desc *t;
	uint32_t len;

	vd_start(d, ~0ull);
	put_desc(d, 0x1000, 0, 0, 0);
	vd_kick(d, 0);
	vd_used(d, 0, &len);
	assert_int_equal(len, 0);
	t = table(d, 256 * 16, 0);
	for (unsigned i = 0; i < 256; i++)
		t[i] = (struct vd_desc){
			0x1000, 1, (i < 255 ? VD_NEXT : 0) | (i > 127 ? VD_WRITE : 0), i + 1,
		};
	vd_kick(d, 0);
	vd_used(d, 0, &len);
	assert_int_equal(len, 128);
}

static void stale_chains_are_dropped(void **state)
{
	struct vdriver *d = *state;
	struct vd_buf b = { .gpa = vd_alloc(d, 16, 1), .len = 16, .write = true };
	struct echo *e = echo_of(d);

	vd_start(d, ~0ull);
	e->hold = true;
	vd_add(d, 0, &b, 1);
	vd_kick(d, 0);
	vd_settle(d);
	assert_int_equal(e->served, 1);
	vd_start(d, ~0ull);		/* reset and up again */
	virtq_push(&d->dev->vq[0], &e->held);
	assert_false(vd_has_used(d, 0));
	assert_int_equal(d->dev->vq[0].inflight, 0);
	e->hold = false;
	roundtrip(d, 0, 10, 1);
}

static void queue_off_and_on(void **state)
{
	struct vdriver *d = *state;

	vd_start(d, ~0ull);
	vd_write(d, VD_QUEUE_SEL, 0);
	vd_write(d, VD_QUEUE_READY, 0);
	assert_int_equal(vd_read(d, VD_QUEUE_READY), 0);
	vd_setup_queue(d, 0, 8);
	roundtrip(d, 0, 10, 1);
	roundtrip(d, 1, 10, 1);
}

struct flipper {
	struct vdriver *d;
	_Atomic bool stop;
	pthread_t thread;
};

/* A vCPU that changes the descriptor while the device reads it. */
static void *flip(void *arg)
{
	struct flipper *f = arg;
	volatile struct vd_desc *t = vd_desc(f->d, 0, 0);

	for (unsigned i = 0; !f->stop; i++) {
		t->len = i & 1 ? 64 : 0xfffffff0u;
		t->addr = i & 2 ? 0x1000 : VD_RAM - 32;
		t->flags = i & 4 ? VD_NEXT | VD_INDIRECT : VD_WRITE;
		t->next = i;
	}
	return NULL;
}

static void changed_while_reading(void **state)
{
	struct vdriver *d = *state;
	struct flipper f = { .d = d };

#ifdef __SANITIZE_THREAD__
	skip();		/* a race is the point of it */
#endif
	vd_start(d, ~0ull);
	assert_int_equal(pthread_create(&f.thread, NULL, flip, &f), 0);
	for (unsigned i = 0; i < 3000; i++) {
		put_head(d, 0);
		vd_kick(d, 0);
		vd_turn(d);
		if (!(vd_status(d) & VIRTIO_S_NEEDS_RESET))
			continue;
		/* The same rings again, so that the flipper keeps its target. */
		gpa_t desc = d->ring[0].desc;

		d->brk = desc;
		memset(vd_ptr(d, desc, 64 << 10), 0, 64 << 10);
		vd_start(d, ~0ull);
		assert_int_equal(d->ring[0].desc, desc);
	}
	f.stop = true;
	pthread_join(f.thread, NULL);
	vd_start(d, ~0ull);
	roundtrip(d, 0, 100, 2);
}

/* --- state ------------------------------------------------------------------ */

static void save(struct vdriver *d, struct buf *b)
{
	struct state_w w;

	state_w_init(&w, b);
	virtio_save(d->dev, 0, &w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
}

static int load(struct vdriver *d, const struct buf *b, struct err *err)
{
	struct state_r r;
	int ret = state_r_init(&r, b->data, b->len, err);

	return ret < 0 ? ret : virtio_load(d->dev, 0, &r, err);
}

static void saved_queue_goes_on(void **state)
{
	struct vdriver *d = *state;
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	vd_start(d, ~0ull);
	roundtrip(d, 0, 100, 3);
	save(d, &b);
	virtio_free(d->dev);
	vd_attach(d, &echo_class, "", NULL);
	assert_int_equal(load(d, &b, &err), 0);
	assert_true(virtio_live(d->dev));
	roundtrip(d, 0, 100, 3);
	roundtrip(d, 1, 100, 3);
	buf_done(&b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(good_chains), T(without_optional_features), T(indices_wrap),
		T(event_index_suppresses), T(asks_for_bell), T(negotiation),
		T(registers_out_of_range), T(bad_queue_addresses), T(hostile_rings),
		T(indirect_needs_the_feature), T(zero_length_and_longest),
		T(stale_chains_are_dropped), T(queue_off_and_on),
		T(changed_while_reading), T(saved_queue_goes_on),
	};

	return cmocka_run_group_tests_name("virtq", tests, NULL, NULL);
}
