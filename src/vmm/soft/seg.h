/* SPDX-License-Identifier: MIT */
/* seg.h - descriptors and privilege; for except.c, seg.c and sys.c. */
#ifndef SOFT_SEG_H
#define SOFT_SEG_H

#include "vmm/soft/insn.h"

/* Raises vector(sel) when the selector is beyond its table. */
uint64_t desc_load(struct soft_cpu *cpu, uint16_t sel, unsigned vector);
bool desc_try(struct soft_cpu *cpu, uint16_t sel, uint64_t *desc);
struct x86_segment desc_unpack(uint16_t sel, uint64_t desc);
/* Sets the accessed bit in the table. */
void desc_accessed(struct soft_cpu *cpu, uint16_t sel, uint64_t desc);

/* CS of a 64-bit handler or target was checked; loads it with this RPL. */
void set_cs(struct soft_cpu *cpu, uint16_t sel, uint64_t desc, unsigned cpl);
void set_null_ss(struct soft_cpu *cpu, unsigned cpl);
void set_flat(struct soft_cpu *cpu, enum x86_seg s, uint16_t sel, unsigned dpl, bool code);
/* MOV to SS, DS, ES, FS, GS with all checks. */
void load_data_seg(struct soft_cpu *cpu, enum x86_seg s, uint16_t sel);

static inline uint64_t seg_base(const struct soft_cpu *cpu, enum x86_seg s)
{
	return s == X86_FS ? cpu->fs_base : s == X86_GS ? cpu->gs_base : cpu->seg[s].base;
}

#endif
