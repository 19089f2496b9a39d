/* SPDX-License-Identifier: MIT */
/* arch/x86/kernel.h - puts a Linux kernel file into guest RAM. */
#ifndef ARCH_X86_KERNEL_H
#define ARCH_X86_KERNEL_H

#include <stdint.h>

#include "vmm/mem.h"

struct err;

#define KERNEL_FILE_MAX		(256u << 20)
#define KERNEL_UNPACKED_MAX	(1u << 30)
#define KERNEL_LOWEST		0x100000u	/* below are our tables */

/* Offsets in the zero page, and so in a bzImage's first sectors. */
#define SETUP_HEADER		0x1f1u
#define SETUP_HEADER_END	0x290u

struct kernel {
	gpa_t entry;		/* 64-bit entry point */
	gpa_t start, end;	/* RAM it takes while it starts */
	/* Its setup header, or a made-up one for plain ELF; the zero page
	 * gets it at SETUP_HEADER. */
	uint8_t header[SETUP_HEADER_END - SETUP_HEADER];
};

/*
 * Loads a bzImage or an ELF vmlinux.  The file is treated as hostile; every
 * failure is BOOT_KERNEL_NOT_FOUND with what is wrong, or BOOT_MEMORY_INVALID.
 */
int kernel_load(struct kernel *k, struct mem *mem, int fd, struct err *err);

#endif
