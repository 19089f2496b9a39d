// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/pool.h"
#include "tests/lib/vdriver.h"

static void count_irq(void *arg, unsigned gsi, bool level)
{
	struct vdriver *d = arg;

	d->irqs += level;
}

void vd_init_host(struct vdriver *d)
{
	struct err err = ERR_INIT;

	memset(d, 0, sizeof(*d));
	pthread_mutex_init(&d->lock, NULL);
	d->loop = loop_new(&err);
	assert_non_null(d->loop);
	d->pool = pool_new(d->loop, LIMIT_POOL_THREADS, &err);
	assert_non_null(d->pool);
	if (mem_init(&d->mem, VD_RAM, -1, &err) < 0)
		fail_msg("%s", err_message(&err));
	d->brk = PAGE_SIZE;
}

void vd_attach(struct vdriver *d, const struct virtio_class *class,
	       const char *id, const void *arg)
{
	struct virtio_env env = {
		.mem = &d->mem, .loop = d->loop, .pool = d->pool, .lock = &d->lock,
	};
	struct irq_line irq = { .set = count_irq, .arg = d, .gsi = 7 };
	struct err err = ERR_INIT;

	d->dev = virtio_new(class, &env, &irq, id, arg, &err);
	if (!d->dev)
		fail_msg("%s: %s", class->name, err_message(&err));
}

void vd_done(struct vdriver *d)
{
	virtio_free(d->dev);
	pool_free(d->pool);
	loop_free(d->loop);
	mem_done(&d->mem);
	pthread_mutex_destroy(&d->lock);
}

/* --- registers, as a vCPU thread reaches them ------------------------------ */

static uint64_t access_read(struct vdriver *d, unsigned off, unsigned len)
{
	uint64_t val;

	pthread_mutex_lock(&d->lock);
	val = virtio_mmio_read(d->dev, off, len);
	pthread_mutex_unlock(&d->lock);
	return val;
}

static void access_write(struct vdriver *d, unsigned off, unsigned len, uint64_t val)
{
	pthread_mutex_lock(&d->lock);
	virtio_mmio_write(d->dev, off, len, val);
	pthread_mutex_unlock(&d->lock);
}

uint32_t vd_read(struct vdriver *d, unsigned reg)
{
	return access_read(d, reg, 4);
}

void vd_write(struct vdriver *d, unsigned reg, uint32_t val)
{
	access_write(d, reg, 4, val);
}

uint64_t vd_config(struct vdriver *d, unsigned off, unsigned len)
{
	return access_read(d, VD_CONFIG + off, len);
}

void vd_config_write(struct vdriver *d, unsigned off, unsigned len, uint64_t val)
{
	access_write(d, VD_CONFIG + off, len, val);
}

uint8_t vd_status(struct vdriver *d)
{
	return vd_read(d, VD_STATUS);
}

uint64_t vd_offered(struct vdriver *d)
{
	uint64_t lo, hi;

	vd_write(d, VD_FEATURES_SEL, 0);
	lo = vd_read(d, VD_FEATURES);
	vd_write(d, VD_FEATURES_SEL, 1);
	hi = vd_read(d, VD_FEATURES);
	return lo | hi << 32;
}

bool vd_negotiate(struct vdriver *d, uint64_t want)
{
	vd_write(d, VD_STATUS, 0);
	vd_write(d, VD_STATUS, VIRTIO_S_ACKNOWLEDGE);
	vd_write(d, VD_STATUS, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER);
	vd_write(d, VD_DRIVER_FEATURES_SEL, 0);
	vd_write(d, VD_DRIVER_FEATURES, (uint32_t)want);
	vd_write(d, VD_DRIVER_FEATURES_SEL, 1);
	vd_write(d, VD_DRIVER_FEATURES, want >> 32);
	vd_write(d, VD_STATUS, vd_status(d) | VIRTIO_S_FEATURES_OK);
	d->features = want;
	return vd_status(d) & VIRTIO_S_FEATURES_OK;
}

/* --- memory and rings ------------------------------------------------------ */

gpa_t vd_alloc(struct vdriver *d, size_t len, size_t align)
{
	gpa_t gpa = ALIGN_UP(d->brk, (gpa_t)align);

	assert_true(gpa + len <= VD_RAM);
	d->brk = gpa + len;
	memset(d->mem.base + gpa, 0, len);	/* a test may have moved brk back */
	return gpa;
}

void *vd_ptr(struct vdriver *d, gpa_t gpa, size_t len)
{
	void *p = mem_ptr(&d->mem, gpa, len);

	assert_non_null(p);
	return p;
}

static void write_gpa(struct vdriver *d, unsigned reg, gpa_t gpa)
{
	vd_write(d, reg, (uint32_t)gpa);
	vd_write(d, reg + 4, gpa >> 32);
}

void vd_setup_queue(struct vdriver *d, unsigned q, uint16_t size)
{
	struct vd_ring *r = &d->ring[q];

	*r = (struct vd_ring){
		.size = size,
		.desc = vd_alloc(d, 16ul * size, 16),
		.avail = vd_alloc(d, 6 + 2ul * size, 2),
		.used = vd_alloc(d, 6 + 8ul * size, 4),
	};
	vd_write(d, VD_QUEUE_SEL, q);
	vd_write(d, VD_QUEUE_NUM, size);
	write_gpa(d, VD_DESC, r->desc);
	write_gpa(d, VD_AVAIL, r->avail);
	write_gpa(d, VD_USED, r->used);
	vd_write(d, VD_QUEUE_READY, 1);
}

void vd_start(struct vdriver *d, uint64_t want)
{
	assert_true(vd_negotiate(d, vd_offered(d) & want));
	for (unsigned q = 0; q < d->dev->class->nr_queues; q++) {
		vd_write(d, VD_QUEUE_SEL, q);
		vd_setup_queue(d, q, vd_read(d, VD_QUEUE_MAX));
	}
	vd_write(d, VD_STATUS, vd_status(d) | VIRTIO_S_DRIVER_OK);
	assert_true(virtio_live(d->dev));
	vd_settle(d);
}

struct vd_desc *vd_desc(struct vdriver *d, unsigned q, unsigned i)
{
	return vd_ptr(d, d->ring[q].desc + 16 * i, 16);
}

uint16_t *vd_avail_idx(struct vdriver *d, unsigned q)
{
	return vd_ptr(d, d->ring[q].avail + 2, 2);
}

void vd_avail_put(struct vdriver *d, unsigned q, uint16_t head)
{
	struct vd_ring *r = &d->ring[q];
	uint16_t *e = vd_ptr(d, r->avail + 4 + 2u * (r->added % r->size), 2);

	*e = head;
	r->added++;
}

void vd_avail_publish(struct vdriver *d, unsigned q)
{
	__atomic_store_n(vd_avail_idx(d, q), d->ring[q].added, __ATOMIC_RELEASE);
}

/* Descriptor i of where a chain goes: the queue's table or an indirect one. */
static uint16_t add_indirect(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned n)
{
	struct vd_ring *r = &d->ring[q];
	gpa_t gpa = vd_alloc(d, 16ul * n, 16);
	struct vd_desc *t = vd_ptr(d, gpa, 16ul * n);
	uint16_t head = r->next_desc++ % r->size;

	for (unsigned i = 0; i < n; i++)
		t[i] = (struct vd_desc){
			.addr = b[i].gpa, .len = b[i].len, .next = i + 1,
			.flags = (b[i].write ? VD_WRITE : 0) | (i + 1 < n ? VD_NEXT : 0),
		};
	*vd_desc(d, q, head) = (struct vd_desc){
		.addr = gpa, .len = 16 * n, .flags = VD_INDIRECT,
	};
	return head;
}

static uint16_t add_direct(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned n)
{
	struct vd_ring *r = &d->ring[q];
	uint16_t head = r->next_desc % r->size;

	assert_true(n <= r->size);
	for (unsigned i = 0; i < n; i++)
		*vd_desc(d, q, (head + i) % r->size) = (struct vd_desc){
			.addr = b[i].gpa, .len = b[i].len,
			.next = (head + i + 1) % r->size,
			.flags = (b[i].write ? VD_WRITE : 0) | (i + 1 < n ? VD_NEXT : 0),
		};
	r->next_desc += n;
	return head;
}

uint16_t vd_add(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned n)
{
	uint16_t head = d->indirect ? add_indirect(d, q, b, n) : add_direct(d, q, b, n);

	vd_avail_put(d, q, head);
	vd_avail_publish(d, q);
	return head;
}

void vd_kick(struct vdriver *d, unsigned q)
{
	vd_write(d, VD_QUEUE_NOTIFY, q);
}

bool vd_has_used(struct vdriver *d, unsigned q)
{
	struct vd_ring *r = &d->ring[q];
	uint16_t *idx = vd_ptr(d, r->used + 2, 2);

	return __atomic_load_n(idx, __ATOMIC_ACQUIRE) != r->seen;
}

/* --- the loop -------------------------------------------------------------- */

struct stopper {
	struct loop_work work;
	struct loop *loop;
};

static void stop(struct loop_work *w)
{
	loop_stop(container_of(w, struct stopper, work)->loop);
}

void vd_turn(struct vdriver *d)
{
	struct stopper s = { .work.cb = stop, .loop = d->loop };

	loop_post(d->loop, &s.work);
	assert_int_equal(loop_run(d->loop), 0);
}

void vd_settle(struct vdriver *d)
{
	for (int i = 0; i < 4; i++) {
		vd_turn(d);
		pool_drain(d->pool);
	}
}

void vd_until(struct vdriver *d, bool (*cond)(void *arg), void *arg)
{
	uint64_t end = io_now_ns() + 10 * NSEC_PER_SEC;

	while (!cond(arg)) {
		if (io_now_ns() > end)
			fail_msg("nothing happened for 10 s");
		vd_turn(d);
	}
}

struct used_wait {
	struct vdriver *d;
	unsigned q;
};

static bool used_there(void *arg)
{
	struct used_wait *w = arg;

	return vd_has_used(w->d, w->q);
}

uint16_t vd_used(struct vdriver *d, unsigned q, uint32_t *len)
{
	struct vd_ring *r = &d->ring[q];
	struct used_wait w = { .d = d, .q = q };
	uint32_t *e;

	vd_until(d, used_there, &w);
	e = vd_ptr(d, r->used + 4 + 8u * (r->seen++ % r->size), 8);
	/* Ask for an interrupt at the next one. */
	*(uint16_t *)vd_ptr(d, r->avail + 4 + 2u * r->size, 2) = r->seen;
	if (len)
		*len = e[1];
	assert_true(e[0] < r->size);
	return e[0];
}
