// SPDX-License-Identifier: MIT
/*
 * mmio.c - the virtio-mmio register window, version 2 (virtio 1.2, 4.2.2).
 *
 * Registers are 32 bits wide; configuration space begins at 0x100 and takes the
 * widths its fields have.  The bus has checked alignment and that the access lies
 * in the window.  What a driver writes out of turn (ring addresses of a live
 * queue, features after FEATURES_OK) is ignored: the device keeps working by
 * what was agreed on.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/util.h"
#include "vmm/virtio/virtio.h"

#define MMIO_MAGIC	0x74726976u	/* "virt" */
#define MMIO_VERSION	2u
#define MMIO_VENDOR	0x4e4d4e4du	/* "MNMN" */
#define MMIO_CONFIG	0x100u

enum mmio_reg {
	R_MAGIC = 0x00, R_VERSION = 0x04, R_DEVICE_ID = 0x08, R_VENDOR = 0x0c,
	R_FEATURES = 0x10, R_FEATURES_SEL = 0x14,
	R_DRIVER_FEATURES = 0x20, R_DRIVER_FEATURES_SEL = 0x24,
	R_QUEUE_SEL = 0x30, R_QUEUE_MAX = 0x34, R_QUEUE_NUM = 0x38,
	R_QUEUE_READY = 0x44, R_QUEUE_NOTIFY = VIRTIO_MMIO_QUEUE_NOTIFY,
	R_ISR = 0x60, R_ISR_ACK = 0x64, R_STATUS = 0x70,
	R_DESC_LO = 0x80, R_DESC_HI = 0x84, R_AVAIL_LO = 0x90, R_AVAIL_HI = 0x94,
	R_USED_LO = 0xa0, R_USED_HI = 0xa4,
	R_SHM_LEN_LO = 0xb0, R_SHM_LEN_HI = 0xb4,
	R_SHM_BASE_LO = 0xb8, R_SHM_BASE_HI = 0xbc,
	R_GENERATION = 0xfc,
};

/* NULL when the driver selected a queue that is not there. */
static struct virtq *selected(struct virtio_dev *dev)
{
	return dev->queue_sel < dev->class->nr_queues ? &dev->vq[dev->queue_sel]
						      : NULL;
}

static uint32_t word_of(uint64_t v, uint32_t sel)
{
	return sel > 1 ? 0 : (uint32_t)(v >> (32 * sel));
}

static void set_word(uint64_t *v, bool high, uint32_t val)
{
	unsigned shift = high ? 32 : 0;

	*v = (*v & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

static uint64_t config_read(struct virtio_dev *dev, unsigned off, unsigned len)
{
	uint64_t val = 0;

	if (!dev->class->config_read || off >= dev->class->config_size ||
	    len > dev->class->config_size - off)
		return 0;
	dev->class->config_read(dev, off, &val, len);
	return val;
}

/*
 * Every interrupt has the driver touch these two, at the moment when the thread
 * that raised it mostly still holds the lock.
 */
bool virtio_mmio_unlocked(uint64_t off)
{
	return off == R_ISR || off == R_ISR_ACK;
}

uint64_t virtio_mmio_read(void *opaque, uint64_t off, unsigned len)
{
	struct virtio_dev *dev = opaque;
	const struct virtq *vq;

	if (off >= MMIO_CONFIG)
		return config_read(dev, off - MMIO_CONFIG, len);
	if (len != 4)
		return 0;
	switch (off) {
	case R_MAGIC: return MMIO_MAGIC;
	case R_VERSION: return MMIO_VERSION;
	case R_DEVICE_ID: return dev->class->id;
	case R_VENDOR: return MMIO_VENDOR;
	case R_FEATURES: return word_of(dev->features, dev->features_sel);
	case R_QUEUE_MAX: vq = selected(dev); return vq ? vq->max_size : 0;
	case R_QUEUE_READY: vq = selected(dev); return vq ? vq->ready : 0;
	case R_ISR: return atomic_load(&dev->isr);
	case R_STATUS: return dev->status;
	case R_GENERATION: return dev->config_generation;
	case R_SHM_LEN_LO:
	case R_SHM_LEN_HI:
	case R_SHM_BASE_LO:
	case R_SHM_BASE_HI: return 0xffffffff;	/* 4.2.2: no such region */
	default: return 0;
	}
}

/* FEATURES_OK stays clear when we cannot work with what was accepted (3.1.1). */
static void write_status(struct virtio_dev *dev, uint8_t val)
{
	uint8_t fresh = val & ~dev->status;

	if (!val) {
		virtio_reset(dev);
		return;
	}
	dev->status |= val & (VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_FAILED);
	if (fresh & VIRTIO_S_FEATURES_OK && virtio_has(dev, VIRTIO_F_VERSION_1) &&
	    !(dev->driver_features & ~dev->features))
		dev->status |= VIRTIO_S_FEATURES_OK;
	if (fresh & VIRTIO_S_DRIVER_OK && dev->status & VIRTIO_S_FEATURES_OK) {
		dev->status |= VIRTIO_S_DRIVER_OK;
		virtio_ring_bell(dev);	/* queues became usable */
	}
}

static void write_ready(struct virtq *vq, bool on)
{
	if (!on) {
		/* The driver may reuse the rings; nothing popped comes back. */
		if (vq->ready && vq->dev->class->reset)
			vq->dev->class->reset(vq->dev);
		virtq_reset(vq);
	} else if (!vq->ready && virtq_enable(vq)) {
		virtio_kick_queues(vq->dev);
	}
}

static void write_queue(struct virtq *vq, uint64_t off, uint32_t val)
{
	if (!vq)
		return;
	if (off == R_QUEUE_READY) {
		write_ready(vq, val & 1);
		return;
	}
	if (vq->ready)
		return;
	switch (off) {
	case R_QUEUE_NUM: vq->size = val > vq->max_size ? 0 : val; break;
	case R_DESC_LO:
	case R_DESC_HI: set_word(&vq->desc, off == R_DESC_HI, val); break;
	case R_AVAIL_LO:
	case R_AVAIL_HI: set_word(&vq->avail, off == R_AVAIL_HI, val); break;
	case R_USED_LO:
	case R_USED_HI: set_word(&vq->used, off == R_USED_HI, val); break;
	}
}

static void write_features(struct virtio_dev *dev, uint32_t val)
{
	if (dev->status & VIRTIO_S_FEATURES_OK || dev->driver_features_sel > 1)
		return;
	set_word(&dev->driver_features, dev->driver_features_sel, val);
}

void virtio_mmio_write(void *opaque, uint64_t off, unsigned len, uint64_t val)
{
	struct virtio_dev *dev = opaque;

	if (off >= MMIO_CONFIG) {
		off -= MMIO_CONFIG;
		if (dev->class->config_write && off < dev->class->config_size &&
		    len <= dev->class->config_size - off)
			dev->class->config_write(dev, off, &val, len);
		return;
	}
	if (len != 4)
		return;
	switch (off) {
	case R_FEATURES_SEL: dev->features_sel = val; break;
	case R_DRIVER_FEATURES: write_features(dev, val); break;
	case R_DRIVER_FEATURES_SEL: dev->driver_features_sel = val; break;
	case R_QUEUE_SEL: dev->queue_sel = val; break;
	case R_QUEUE_NOTIFY: virtio_ring_bell(dev); break;
	case R_ISR_ACK: atomic_fetch_and(&dev->isr, ~(uint32_t)val); break;
	case R_STATUS: write_status(dev, val); break;
	default: write_queue(selected(dev), off, val); break;
	}
}
