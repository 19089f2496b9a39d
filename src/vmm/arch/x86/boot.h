/* SPDX-License-Identifier: MIT */
/*
 * arch/x86/boot.h - starts a kernel by the Linux 64-bit boot protocol
 * (Documentation/arch/x86/boot.rst), without firmware.
 *
 * What we put below 1 MiB (all of it but the ACPI area is the guest's to reuse):
 *
 *	0x06000	GDT			0x07000	zero page
 *	0x09000	page tables, 6 pages	0x20000	command line
 *	0xe0000 - 0xfffff	ACPI tables (acpi.h), reserved
 */
#ifndef ARCH_X86_BOOT_H
#define ARCH_X86_BOOT_H

#include "vmm/mem.h"

struct err;
struct x86_state;

#define BOOT_GDT	0x6000u
#define BOOT_ZERO_PAGE	0x7000u
#define BOOT_TABLES	0x9000u
#define BOOT_CMDLINE	0x20000u
#define BOOT_EBDA	0x9fc00u	/* end of conventional memory */
#define BOOT_ACPI	0xe0000u
#define BOOT_ACPI_END	0x100000u

struct boot {
	int kernel_fd;		/* borrowed */
	int initrd_fd;		/* borrowed; -1: none */
	const char *cmdline;	/* borrowed */
	gpa_t rsdp;
};

/*
 * Loads kernel and initrd, writes zero page, page tables and GDT, and fills in
 * the state in which vCPU 0 starts.  Errors are BOOT_KERNEL_NOT_FOUND and
 * BOOT_MEMORY_INVALID.
 */
int boot_load(struct mem *mem, const struct boot *b, struct x86_state *s,
	      struct err *err);

/* A vCPU out of reset: the first one at the reset vector, others wait for SIPI. */
void boot_reset_state(struct x86_state *s, unsigned id);

#endif
