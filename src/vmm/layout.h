/* SPDX-License-Identifier: MIT */
/*
 * layout.h - where devices lie on the board: what the register windows, the ACPI
 * tables and the interrupt wiring have to agree on.  docs/device.md draws it.
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

/* COM1 */
#define LAYOUT_SERIAL_PORT	0x3f8u
#define LAYOUT_SERIAL_GSI	4u

/* ACPI registers, one byte each (arch/x86/board.c). */
#define LAYOUT_ACPI_PORT	0x600u
#define LAYOUT_ACPI_SLEEP	0u	/* sleep control */
#define LAYOUT_ACPI_SLEEP_STATUS 1u
#define LAYOUT_ACPI_RESET	2u
#define LAYOUT_ACPI_EVENTS	3u	/* what the event device reports */
#define LAYOUT_ACPI_PORTS	4u
#define LAYOUT_ACPI_GSI		3u

#define LAYOUT_LAPIC		0xfee00000ull
#define LAYOUT_IOAPIC		0xfec00000ull
/* The VM generation ID, in the reserved area below 1 MiB. */
#define LAYOUT_VMGENID		0xff000ull

/* Bits of LAYOUT_ACPI_EVENTS. */
#define ACPI_EVENT_POWER	0x01u
#define ACPI_EVENT_VMGENID	0x02u
#define ACPI_RESET_VALUE	0x01u
#define ACPI_SLEEP_S5		5u	/* SLP_TYP of soft off */

#endif
