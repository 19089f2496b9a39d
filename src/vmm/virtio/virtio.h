/* SPDX-License-Identifier: MIT */
/*
 * virtio.h - what a device file needs to know: its class and its instance.
 *
 * A device is one file with one `const struct virtio_class` and one row in
 * dev/devices.c.  Only `notify` is required.  The transport (virtio-mmio) is
 * behind this and no device sees it; a device instance embeds struct virtio_dev
 * as its first field.
 *
 * Threads: every hook runs under vm->lock, except init and done, which run while
 * nothing else does.  notify, drain, save and load are on the loop's thread; reset
 * and the config hooks are on a vCPU's, so they may not touch the loop except by
 * loop_post().  When reset returns, nothing of the device writes guest memory any
 * more.
 */
#ifndef VMM_VIRTIO_VIRTIO_H
#define VMM_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/util.h"
#include "vmm/irq.h"
#include "vmm/virtio/virtq.h"

struct err;
struct loop;
struct mem;
struct pool;

enum virtio_id {
	VIRTIO_ID_NET = 1, VIRTIO_ID_BLK = 2, VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_RNG = 4, VIRTIO_ID_BALLOON = 5, VIRTIO_ID_VSOCK = 19,
	VIRTIO_ID_FS = 26,
};

/* Status bits (2.1) and transport features (6). */
#define VIRTIO_S_ACKNOWLEDGE	1u
#define VIRTIO_S_DRIVER		2u
#define VIRTIO_S_DRIVER_OK	4u
#define VIRTIO_S_FEATURES_OK	8u
#define VIRTIO_S_NEEDS_RESET	64u
#define VIRTIO_S_FAILED		128u
#define VIRTIO_ISR_QUEUE	1u
#define VIRTIO_ISR_CONFIG	2u
#define VIRTIO_F_INDIRECT_DESC	BIT(28)
#define VIRTIO_F_EVENT_IDX	BIT(29)
#define VIRTIO_F_VERSION_1	BIT(32)

/* What a device may use of its VM; borrowed, lives longer than the device. */
struct virtio_env {
	struct mem *mem;
	struct loop *loop;
	struct pool *pool;
	pthread_mutex_t *lock;	/* vm->lock; the core takes it around notify */
	void *vm;		/* for dev/devices.c and log prefixes only */
};

struct virtio_dev;

struct virtio_class {
	const char *name;	/* "blk": log prefix, state section, option */
	uint32_t id;		/* enum virtio_id */
	unsigned nr_queues;
	uint16_t queue_size;	/* 0: LIMIT_QUEUE_SIZE */
	size_t size;		/* of the instance, virtio_dev first */
	size_t config_size;	/* bytes of configuration space; 0: none */
	uint64_t features;	/* beside the transport's own */

	/* `arg` is the device's own config struct, borrowed for the call. */
	int (*init)(struct virtio_dev *dev, const void *arg, struct err *err);
	void (*done)(struct virtio_dev *dev);	/* half-built is fine */
	/* The driver reset the device: drop requests, keep the backend. */
	void (*reset)(struct virtio_dev *dev);
	/* The driver rang this queue's bell, or it became usable. */
	void (*notify)(struct virtio_dev *dev, struct virtq *vq);
	/* The core has bounded off and len against config_size. */
	void (*config_read)(struct virtio_dev *dev, unsigned off, void *dst, unsigned len);
	void (*config_write)(struct virtio_dev *dev, unsigned off, const void *src, unsigned len);
	/* Finish or park what is in flight so that save() can be called. */
	void (*drain)(struct virtio_dev *dev);
	/* The device's own fields; the core saves status, features and queues. */
	void (*save)(struct virtio_dev *dev, struct state_w *w);
	void (*load)(struct virtio_dev *dev, struct state_r *r);
	uint16_t state_version;
};

struct virtio_dev {
	const struct virtio_class *class;
	struct virtio_env env;
	struct irq_line irq;
	const char *id;			/* owned: "root", "" */
	uint8_t status;
	uint64_t features;		/* offered */
	uint64_t driver_features;	/* accepted */
	_Atomic uint32_t isr;		/* interrupt status register (4.2.2) */
	uint32_t config_generation;
	bool complained;		/* a broken ring was logged */
	struct virtq vq[LIMIT_QUEUES];
	/* transport */
	uint32_t features_sel, driver_features_sel, queue_sel;
	struct loop_fd bell;		/* doorbell eventfd, all queues */
	int bell_fd;			/* owned */
};

/*
 * Builds an instance on the heap: core fields, then class->init.  NULL with err.
 * `arg` as for init.  id is copied.
 */
struct virtio_dev *virtio_new(const struct virtio_class *class,
			      const struct virtio_env *env,
			      const struct irq_line *irq, const char *id,
			      const void *arg, struct err *err);
void virtio_free(struct virtio_dev *dev);
void virtio_reset(struct virtio_dev *dev);

static inline bool virtio_has(const struct virtio_dev *dev, uint64_t feature)
{
	return dev->driver_features & feature;
}
/* DRIVER_OK set and not broken: rings may be touched. */
bool virtio_live(const struct virtio_dev *dev);
/* The ring or a request broke the rules: log once, stop, ask for a reset. */
void virtio_broken(struct virtio_dev *dev, const char *why);
/* Locks and unlocks what env.lock is, for callbacks of timers and sockets. */
static inline void virtio_lock(struct virtio_dev *dev)
{
	if (dev->env.lock)
		pthread_mutex_lock(dev->env.lock);
}
static inline void virtio_unlock(struct virtio_dev *dev)
{
	if (dev->env.lock)
		pthread_mutex_unlock(dev->env.lock);
}
/* Configuration changed: bump the generation, interrupt. */
void virtio_config_changed(struct virtio_dev *dev);
/* Sets isr bits and pulses the line. */
void virtio_interrupt(struct virtio_dev *dev, uint32_t isr_bits);

void virtio_save(struct virtio_dev *dev, unsigned instance, struct state_w *w);
int virtio_load(struct virtio_dev *dev, unsigned instance, struct state_r *r,
		struct err *err);
/* The bell: the loop soon calls notify for every live queue.  Any thread. */
void virtio_ring_bell(struct virtio_dev *dev);
/* After a load, or after a drain that resumes: look at every live queue again. */
void virtio_kick_queues(struct virtio_dev *dev);

/*
 * virtio-mmio register window (4.2), PAGE_SIZE bytes.  Runs on a vCPU thread,
 * under vm->lock but for the registers that unlocked() names.  QUEUE_NOTIFY only rings the bell; which queue it was for is
 * not kept, because a CPU backend's own doorbell does not tell either: a bell
 * means to look at every queue.
 */
uint64_t virtio_mmio_read(void *dev, uint64_t off, unsigned len);
void virtio_mmio_write(void *dev, uint64_t off, unsigned len, uint64_t val);
bool virtio_mmio_unlocked(uint64_t off);
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x50

#endif
