/* SPDX-License-Identifier: MIT */
/*
 * arch/x86/acpi.h - the tables that describe the board to the guest:
 * hardware-reduced ACPI 6.3, in the reserved area below 1 MiB.
 */
#ifndef ARCH_X86_ACPI_H
#define ARCH_X86_ACPI_H

#include <stdint.h>

#include "vmm/mem.h"

struct err;

struct acpi_config {
	unsigned nr_cpus;
	unsigned nr_slots;	/* virtio-mmio slots in use, from 0 */
	const uint8_t *vmgenid;	/* 16 bytes, borrowed */
};

/* Writes all tables; *rsdp is where the RSDP lies. */
int acpi_write(struct mem *mem, const struct acpi_config *c, gpa_t *rsdp,
	       struct err *err);

/* The generation ID in guest memory (the notification is the board's). */
void acpi_set_vmgenid(struct mem *mem, const uint8_t id[16]);

#endif
