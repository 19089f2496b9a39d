/* SPDX-License-Identifier: MIT */
/*
 * layout.h - where virtio devices lie on the board: what the register windows,
 * the ACPI tables and the interrupt wiring have to agree on.
 */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

#include "vmm/mem.h"

#define LAYOUT_VIRTIO_BASE	0xd0000000ull
#define LAYOUT_VIRTIO_ADDR(slot) (LAYOUT_VIRTIO_BASE + (uint64_t)(slot) * PAGE_SIZE)
/*
 * The IOAPIC has 24 inputs; 0 to 4 are not for devices.  Slots past the last
 * input share one, which edges allow: a driver looks at its own interrupt status.
 */
#define LAYOUT_VIRTIO_GSI0	5u
#define LAYOUT_VIRTIO_GSI(slot)	(LAYOUT_VIRTIO_GSI0 + (slot) % (24u - LAYOUT_VIRTIO_GSI0))

#endif
