// SPDX-License-Identifier: MIT
/*
 * virtio.c - what all virtio devices share: building, features, reset,
 * interrupts, the bell, and state.
 *
 * The life of a device as the driver sees it is its status byte (3.1).  What we
 * read from it is one question, virtio_live(): may rings be touched?  It is asked
 * by every virtq call, so a device file needs no look at the status of its own.
 */
#include "vmm/virtio/virtio.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "vmm/state.h"

#define STATUS_ALL (VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | \
		    VIRTIO_S_DRIVER_OK | VIRTIO_S_FEATURES_OK | \
		    VIRTIO_S_NEEDS_RESET | VIRTIO_S_FAILED)

bool virtio_live(const struct virtio_dev *dev)
{
	return (dev->status & (VIRTIO_S_DRIVER_OK | VIRTIO_S_NEEDS_RESET |
			       VIRTIO_S_FAILED)) == VIRTIO_S_DRIVER_OK;
}

static void look_at_queues(struct virtio_dev *dev)
{
	for (unsigned i = 0; i < dev->class->nr_queues; i++)
		dev->vq[i].budget = LIMIT_QUEUE_BUDGET;
	for (unsigned i = 0; i < dev->class->nr_queues; i++)
		if (virtio_live(dev) && dev->vq[i].ready)
			dev->class->notify(dev, &dev->vq[i]);
}

static void bell_rang(struct loop_fd *w, uint32_t events)
{
	struct virtio_dev *dev = container_of(w, struct virtio_dev, bell);
	uint64_t n;

	if (read(w->fd, &n, sizeof(n)) < 0)
		return;		/* somebody was faster: EAGAIN */
	virtio_lock(dev);
	look_at_queues(dev);
	virtio_unlock(dev);
}

void virtio_ring_bell(struct virtio_dev *dev)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then it rings already. */
	if (write(dev->bell_fd, &one, sizeof(one)) < 0)
		return;
}

void virtio_kick_queues(struct virtio_dev *dev)
{
	if (virtio_live(dev))
		virtio_ring_bell(dev);
}

static void init_queues(struct virtio_dev *dev)
{
	const struct virtio_class *class = dev->class;

	ASSERT(class->nr_queues <= LIMIT_QUEUES);
	for (unsigned i = 0; i < class->nr_queues; i++) {
		struct virtq *vq = &dev->vq[i];

		vq->dev = dev;
		vq->index = i;
		vq->max_size = class->queue_size ? class->queue_size
						 : LIMIT_QUEUE_SIZE;
		ASSERT(vq->max_size <= LIMIT_QUEUE_SIZE);
	}
}

static int init_bell(struct virtio_dev *dev, struct err *err)
{
	int ret;

	dev->bell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (dev->bell_fd < 0)
		return err_set(err, errno, "cannot make an eventfd");
	dev->bell = (struct loop_fd){
		.fd = dev->bell_fd, .events = EPOLLIN, .cb = bell_rang,
	};
	ret = loop_add(dev->env.loop, &dev->bell);
	return ret < 0 ? err_wrap(err, ret, "cannot watch an eventfd") : 0;
}

struct virtio_dev *virtio_new(const struct virtio_class *class,
			      const struct virtio_env *env,
			      const struct irq_line *irq, const char *id,
			      const void *arg, struct err *err)
{
	struct virtio_dev *dev = calloc(1, MAX(class->size, sizeof(*dev)));
	int ret;

	if (!dev) {
		err_set(err, ENOMEM, "no memory for device %s", class->name);
		return NULL;
	}
	dev->class = class;
	dev->env = *env;
	dev->irq = *irq;
	dev->bell_fd = -1;
	dev->features = class->features | VIRTIO_F_VERSION_1 |
			VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	dev->id = strdup(id ? id : "");
	init_queues(dev);
	/* First: what arg hands over belongs to the device from here on. */
	ret = class->init ? class->init(dev, arg, err) : 0;
	if (!ret)
		ret = dev->id ? init_bell(dev, err) : err_set(err, ENOMEM, "no memory");
	if (ret < 0) {
		err_wrap(err, ret, "cannot make device %s", class->name);
		virtio_free(dev);
		return NULL;
	}
	return dev;
}

void virtio_free(struct virtio_dev *dev)
{
	if (!dev)
		return;
	if (dev->class->done)
		dev->class->done(dev);
	if (dev->bell.added)
		loop_del(dev->env.loop, &dev->bell);
	io_close(dev->bell_fd);
	free((void *)(uintptr_t)dev->id);
	free(dev);
}

/* The hook goes first: it sees to it that nobody uses popped chains any more. */
void virtio_reset(struct virtio_dev *dev)
{
	if (dev->class->reset)
		dev->class->reset(dev);
	for (unsigned i = 0; i < dev->class->nr_queues; i++)
		virtq_reset(&dev->vq[i]);
	dev->status = 0;
	dev->driver_features = 0;
	dev->isr = 0;
	dev->features_sel = dev->driver_features_sel = dev->queue_sel = 0;
}

void virtio_interrupt(struct virtio_dev *dev, uint32_t isr_bits)
{
	atomic_fetch_or(&dev->isr, isr_bits);
	irq_pulse(&dev->irq);
}

void virtio_broken(struct virtio_dev *dev, const char *why)
{
	log_once(dev->complained, dev->class->name,
		 "%s%sthe driver broke the rules (%s); stopped until it resets the device",
		 dev->id, *dev->id ? ": " : "", why);
	if (dev->status & VIRTIO_S_NEEDS_RESET)
		return;
	dev->status |= VIRTIO_S_NEEDS_RESET;
	if (dev->status & VIRTIO_S_DRIVER_OK)
		virtio_interrupt(dev, VIRTIO_ISR_CONFIG);
}

void virtio_config_changed(struct virtio_dev *dev)
{
	dev->config_generation++;
	if (virtio_live(dev))
		virtio_interrupt(dev, VIRTIO_ISR_CONFIG);
}

/* --- state ---------------------------------------------------------------- */

void virtio_save(struct virtio_dev *dev, unsigned instance, struct state_w *w)
{
	state_begin(w, dev->class->name, instance, dev->class->state_version, true);
	state_put_u8(w, dev->status);
	state_put_u64(w, dev->driver_features);
	state_put_u32(w, dev->isr);
	state_put_u32(w, dev->config_generation);
	state_put_u32(w, dev->features_sel);
	state_put_u32(w, dev->driver_features_sel);
	state_put_u32(w, dev->queue_sel);
	state_put_u8(w, dev->class->nr_queues);
	for (unsigned i = 0; i < dev->class->nr_queues; i++)
		virtq_save(&dev->vq[i], w);
	if (dev->class->save)
		dev->class->save(dev, w);
	state_end(w);
}

/* A driver can only have come here through the checks of the transport. */
static bool state_possible(const struct virtio_dev *dev)
{
	uint8_t s = dev->status;

	if (s & ~STATUS_ALL || dev->driver_features & ~dev->features)
		return false;
	if (s & VIRTIO_S_DRIVER_OK && !(s & VIRTIO_S_FEATURES_OK))
		return false;
	return !(s & VIRTIO_S_FEATURES_OK) || virtio_has(dev, VIRTIO_F_VERSION_1);
}

static void load_core(struct virtio_dev *dev, struct state_r *r)
{
	dev->status = state_get_u8(r);
	dev->driver_features = state_get_u64(r);
	dev->isr = state_get_u32(r) & (VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG);
	dev->config_generation = state_get_u32(r);
	dev->features_sel = state_get_u32(r);
	dev->driver_features_sel = state_get_u32(r);
	dev->queue_sel = state_get_u32(r);
	if (state_get_u8(r) != dev->class->nr_queues || !state_possible(dev)) {
		r->bad = true;
		return;
	}
	for (unsigned i = 0; i < dev->class->nr_queues; i++)
		virtq_load(&dev->vq[i], r);
}

int virtio_load(struct virtio_dev *dev, unsigned instance, struct state_r *r,
		struct err *err)
{
	int ret = state_find(r, dev->class->name, instance);

	if (ret < 0)
		return err_wrap(err, ret, "no state of device %s %u",
				dev->class->name, instance);
	if (r->version > dev->class->state_version)
		return err_set(err, ENOTSUP, "state of device %s is of version %u",
			       dev->class->name, r->version);
	load_core(dev, r);
	if (!r->bad && dev->class->load)
		dev->class->load(dev, r);
	ret = state_close(r, err);
	if (ret < 0) {
		virtio_reset(dev);	/* nothing half-loaded goes live */
		return err_wrap(err, ret, "state of device %s %u",
				dev->class->name, instance);
	}
	return 0;
}
