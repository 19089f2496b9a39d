/* SPDX-License-Identifier: MIT */
/*
 * dev/devices.h - the table of devices.
 *
 * X(name): a `const struct virtio_class name_class` in dev/name.c.  Nothing
 * else registers a device: MMIO slot, ACPI node, state section, log prefix and the
 * table-driven tests follow from the row.
 */
#ifndef VMM_DEV_DEVICES_H
#define VMM_DEV_DEVICES_H

#include <stdint.h>

struct err;
struct state_r;
struct state_w;
struct virtio_class;
struct virtio_dev;
struct vm;

/* Order is MMIO slot order within a VM; do not reorder: bundles rely on it. */
#define DEVICES(X) \
	X(blk) \
	X(console) \
	X(rng) \
	X(vsock) \
	X(net) \
	X(balloon)

#define X(name) extern const struct virtio_class name##_class;
DEVICES(X)
#undef X

extern const struct virtio_class *const device_classes[];
extern const unsigned nr_device_classes;

/*
 * Makes every device of vm->spec, in table order, into vm->dev[], with its
 * register window on the bus and its doorbells at the CPU backend.  vm->accel_vm,
 * vm->console, loop, pool, lock and mem are there already.
 */
int devices_create(struct vm *vm, struct err *err);
/* Fine when half were made.  Under no lock; loop and pool are still there. */
void devices_free(struct vm *vm);

/* The i-th device of a class, NULL past the last. */
struct virtio_dev *devices_find(const struct vm *vm, const struct virtio_class *class,
				unsigned i);

/*
 * Snapshot: loop thread, vCPUs parked, under vm->lock.  devices_drain() leaves
 * nothing in flight, devices_save() writes a section a device, devices_resume()
 * lets them look at their queues again.  After devices_load() failed the VM is
 * to be given up.
 */
void devices_drain(struct vm *vm);
void devices_save(struct vm *vm, struct state_w *w);
int devices_load(struct vm *vm, struct state_r *r, struct err *err);
void devices_resume(struct vm *vm);

#endif
