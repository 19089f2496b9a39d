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
struct virtio_class;
struct vm;

/* Order is MMIO slot order within a VM; do not reorder: bundles rely on it. */
#define DEVICES(X) \
	X(blk) \
	X(console) \
	X(rng)

#define X(name) extern const struct virtio_class name##_class;
DEVICES(X)
#undef X

extern const struct virtio_class *const device_classes[];
extern const unsigned nr_device_classes;

/* Makes every device of vm->spec, in table order, into vm->dev[]. */
int devices_create(struct vm *vm, struct err *err);

#endif
