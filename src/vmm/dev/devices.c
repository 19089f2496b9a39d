// SPDX-License-Identifier: MIT
/*
 * devices.c - THE TABLE, and from it and the spec the devices of a VM.
 *
 * Each maker below turns its part of the spec into instances.  Makers run in
 * table order and slots are given out in that order, so the same spec gives the
 * same slots, interrupts and state sections on every host.
 */
#include "vmm/dev/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "vmm/accel.h"
#include "vmm/dev/blk.h"
#include "vmm/dev/console.h"
#include "vmm/dev/net.h"
#include "vmm/dev/vsock.h"
#include "vmm/disk/disk.h"
#include "vmm/layout.h"
#include "vmm/net/netif.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

const struct virtio_class *const device_classes[] = {
#define X(name) &name##_class,
	DEVICES(X)
#undef X
};
const unsigned nr_device_classes = ARRAY_LEN(device_classes);

static void set_irq(void *arg, unsigned gsi, bool level)
{
	struct vm *vm = arg;

	vm->accel->irq_set(vm, gsi, level);
}

/* One doorbell a queue: the value written is the queue's number (4.2.2). */
static int add_doorbells(struct vm *vm, struct virtio_dev *dev, gpa_t base)
{
	int ret = 0;

	if (!vm->accel->doorbell)
		return 0;
	for (unsigned i = 0; i < dev->class->nr_queues && !ret; i++)
		ret = vm->accel->doorbell(vm, base + VIRTIO_MMIO_QUEUE_NOTIFY,
					  i, dev->bell_fd);
	return ret;
}

static int add_device(struct vm *vm, const struct virtio_class *class,
		      const char *id, const void *arg, struct err *err)
{
	unsigned slot = vm->nr_devs;
	struct virtio_env env = {
		.mem = &vm->mem, .loop = vm->loop, .pool = vm->pool,
		.lock = &vm->lock, .vm = vm,
	};
	struct irq_line irq = {
		.set = set_irq, .arg = vm, .gsi = LAYOUT_VIRTIO_GSI(slot),
	};
	struct bus_region window = {
		.name = class->name, .base = LAYOUT_VIRTIO_ADDR(slot),
		.size = PAGE_SIZE, .min_len = 1, .max_len = 8,
		.read = virtio_mmio_read, .write = virtio_mmio_write,
		.unlocked = virtio_mmio_unlocked,
	};
	struct virtio_dev *dev;
	int ret;

	dev = virtio_new(class, &env, &irq, id, arg, err);
	if (!dev)
		return -EIO;
	if (slot == LIMIT_VIRTIO_SLOTS) {
		virtio_free(dev);
		return err_set(err, ENOSPC, "a VM has at most %u devices", slot);
	}
	vm->dev[vm->nr_devs++] = dev;
	window.dev = dev;
	ret = bus_add(&vm->mmio, &window, err);
	if (ret < 0)
		return ret;
	ret = add_doorbells(vm, dev, window.base);
	return ret < 0 ? err_wrap(err, ret, "no doorbell for %s", class->name) : 0;
}

/* The disk takes its descriptors over, the spec's stay: so duplicates. */
static int dup_layers(struct vm *vm, const struct spec_disk *s, int *layer)
{
	for (unsigned i = 0; i < s->nr_layers; i++) {
		int fd = spec_fds_get(&vm->fds, "%s.%u", s->id, i);

		layer[i] = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (layer[i] >= 0)
			continue;
		fd = fd < 0 ? fd : -errno;
		while (i--)
			close(layer[i]);
		return fd;
	}
	return 0;
}

static struct disk *open_disk(struct vm *vm, const struct spec_disk *s, struct err *err)
{
	int layer[SPEC_MAX_FDS];
	int ret;

	ret = s->nr_layers && s->nr_layers <= SPEC_MAX_FDS
		      ? dup_layers(vm, s, layer) : -EINVAL;
	if (ret < 0) {
		err_wrap(err, ret, "disk %s has no usable layers", s->id);
		return NULL;
	}
	if (s->nr_layers == 1)
		return disk_open_raw(layer[0], s->readonly, err);
	return disk_open_cow(layer, s->nr_layers, s->size, s->readonly, err);
}

static int make_disks(struct vm *vm, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < vm->spec.nr_disks && !ret; i++) {
		const struct spec_disk *s = &vm->spec.disk[i];
		struct blk_config cfg = { .disk = open_disk(vm, s, err) };

		ret = cfg.disk ? add_device(vm, &blk_class, s->id, &cfg, err)
			       : err_wrap(err, -EIO, "cannot open disk %s", s->id);
	}
	return ret;
}

static int make_console(struct vm *vm, struct err *err)
{
	struct console_config cfg = { .console = vm->console };

	return add_device(vm, &console_class, "", &cfg, err);
}

static int make_rng(struct vm *vm, struct err *err)
{
	return add_device(vm, &rng_class, "", NULL, err);
}

static int make_vsock(struct vm *vm, struct err *err)
{
	int fd = spec_fds_get(&vm->fds, "agent");
	struct vsock_config cfg = {
		.cid = vm->spec.vsock_cid, .listen_fd = MAX(fd, -1),
	};

	return add_device(vm, &vsock_class, "", &cfg, err);
}

static int make_net(struct vm *vm, struct err *err)
{
	struct net_config cfg;

	if (!vm->spec.net)
		return 0;
	memcpy(cfg.mac, vm->spec.mac, sizeof(cfg.mac));
	cfg.netif = netif_slirp_new(vm->loop, &vm->lock, &vm->spec, err);
	return cfg.netif ? add_device(vm, &net_class, "", &cfg, err) : -EIO;
}

static int make_balloon(struct vm *vm, struct err *err)
{
	return add_device(vm, &balloon_class, "", NULL, err);
}

/* In table order. */
static int (*const makers[])(struct vm *vm, struct err *err) = {
	make_disks, make_console, make_rng, make_vsock, make_net, make_balloon,
};
_Static_assert(ARRAY_LEN(makers) == ARRAY_LEN(device_classes), "a maker a row");

int devices_create(struct vm *vm, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_LEN(makers) && !ret; i++)
		ret = makers[i](vm, err);
	return ret;
}

void devices_free(struct vm *vm)
{
	while (vm->nr_devs) {
		virtio_free(vm->dev[--vm->nr_devs]);
		vm->dev[vm->nr_devs] = NULL;
	}
}

struct virtio_dev *devices_find(const struct vm *vm, const struct virtio_class *class,
				unsigned i)
{
	for (unsigned n = 0; n < vm->nr_devs; n++)
		if (vm->dev[n]->class == class && !i--)
			return vm->dev[n];
	return NULL;
}

/* How many of its class come before it: names its state section. */
static unsigned instance(const struct vm *vm, unsigned n)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++)
		count += vm->dev[i]->class == vm->dev[n]->class;
	return count;
}

void devices_drain(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_devs; i++)
		if (vm->dev[i]->class->drain)
			vm->dev[i]->class->drain(vm->dev[i]);
}

void devices_save(struct vm *vm, struct state_w *w)
{
	for (unsigned i = 0; i < vm->nr_devs; i++)
		virtio_save(vm->dev[i], instance(vm, i), w);
}

int devices_load(struct vm *vm, struct state_r *r, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < vm->nr_devs && !ret; i++)
		ret = virtio_load(vm->dev[i], instance(vm, i), r, err);
	return ret;
}

void devices_resume(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_devs; i++)
		virtio_kick_queues(vm->dev[i]);
}
