/* SPDX-License-Identifier: MIT */
/*
 * vdriver.h - a virtio driver without a guest: it speaks registers and rings
 * from the outside, as a kernel would, and as none would.
 *
 *	struct vdriver d;
 *	vd_init(&d, &rng_class, "", NULL);	// RAM, loop, pool, device
 *	vd_start(&d, ~0ull);			// negotiate all, queues, DRIVER_OK
 *	vd_add(&d, 0, buf, 1);			// chain into descriptors, avail ring
 *	vd_kick(&d, 0);
 *	vd_used(&d, 0, &len);			// runs the loop until it is there
 *
 * Hostile tests write rings themselves through vd_desc(), vd_avail_*().
 */
#ifndef TESTS_LIB_VDRIVER_H
#define TESTS_LIB_VDRIVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/irq.h"
#include "vmm/limits.h"
#include "vmm/mem.h"
#include "vmm/virtio/virtio.h"

#define VD_RAM (64ull << 20)

enum vd_reg {
	VD_MAGIC = 0x00, VD_VERSION = 0x04, VD_DEVICE_ID = 0x08, VD_FEATURES = 0x10,
	VD_FEATURES_SEL = 0x14, VD_DRIVER_FEATURES = 0x20,
	VD_DRIVER_FEATURES_SEL = 0x24, VD_QUEUE_SEL = 0x30, VD_QUEUE_MAX = 0x34,
	VD_QUEUE_NUM = 0x38, VD_QUEUE_READY = 0x44, VD_QUEUE_NOTIFY = 0x50,
	VD_ISR = 0x60, VD_ISR_ACK = 0x64, VD_STATUS = 0x70, VD_DESC = 0x80,
	VD_AVAIL = 0x90, VD_USED = 0xa0, VD_GENERATION = 0xfc, VD_CONFIG = 0x100,
};

#define VD_NEXT		1u
#define VD_WRITE	2u
#define VD_INDIRECT	4u

struct vd_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct vd_buf {
	gpa_t gpa;
	uint32_t len;
	bool write;		/* by the device */
};

struct vd_ring {
	uint16_t size;
	gpa_t desc, avail, used;
	uint16_t next_desc;	/* round robin: tests do not overfill */
	uint16_t added, seen;	/* our avail index, used entries taken */
};

struct vdriver {
	struct mem mem;
	struct loop *loop;
	struct pool *pool;
	pthread_mutex_t lock;
	struct virtio_dev *dev;
	struct vd_ring ring[LIMIT_QUEUES];
	gpa_t brk;		/* next free guest byte */
	unsigned irqs;
	bool indirect;		/* vd_add() uses indirect tables */
	uint64_t features;	/* negotiated */
};

/* Everything but the device: for tests whose config needs the loop first. */
void vd_init_host(struct vdriver *d);
void vd_attach(struct vdriver *d, const struct virtio_class *class,
	       const char *id, const void *arg);
static inline void vd_init(struct vdriver *d, const struct virtio_class *class,
			   const char *id, const void *arg)
{
	vd_init_host(d);
	vd_attach(d, class, id, arg);
}
void vd_done(struct vdriver *d);

uint32_t vd_read(struct vdriver *d, unsigned reg);
void vd_write(struct vdriver *d, unsigned reg, uint32_t val);
uint64_t vd_config(struct vdriver *d, unsigned off, unsigned len);
void vd_config_write(struct vdriver *d, unsigned off, unsigned len, uint64_t val);
uint8_t vd_status(struct vdriver *d);
uint64_t vd_offered(struct vdriver *d);

/* Guest memory, zeroed. */
gpa_t vd_alloc(struct vdriver *d, size_t len, size_t align);
void *vd_ptr(struct vdriver *d, gpa_t gpa, size_t len);

/* Status up to FEATURES_OK; false when the device refuses. */
bool vd_negotiate(struct vdriver *d, uint64_t want);
void vd_setup_queue(struct vdriver *d, unsigned q, uint16_t size);
/* Reset, negotiate offered & want, set all queues up, DRIVER_OK. */
void vd_start(struct vdriver *d, uint64_t want);

struct vd_desc *vd_desc(struct vdriver *d, unsigned q, unsigned i);
/* Appends a head to the avail ring without publishing it; then publishes. */
void vd_avail_put(struct vdriver *d, unsigned q, uint16_t head);
void vd_avail_publish(struct vdriver *d, unsigned q);
uint16_t *vd_avail_idx(struct vdriver *d, unsigned q);

/* A chain of buffers; its head. */
uint16_t vd_add(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned n);
void vd_kick(struct vdriver *d, unsigned q);
bool vd_has_used(struct vdriver *d, unsigned q);
/* Takes the next used entry, running the loop up to 10 s for it; its head. */
uint16_t vd_used(struct vdriver *d, unsigned q, uint32_t *len);
/* Everything that is ready has been handled. */
void vd_settle(struct vdriver *d);
/* Runs the loop until cond(arg), failing the test after 10 s. */
void vd_until(struct vdriver *d, bool (*cond)(void *arg), void *arg);
/* One pass of the loop without waiting. */
void vd_turn(struct vdriver *d);

#endif
