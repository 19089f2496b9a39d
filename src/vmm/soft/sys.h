/* SPDX-License-Identifier: MIT */
/* sys.h - MSRs, CPUID, port I/O: what sys.c and soft.c share. */
#ifndef SOFT_SYS_H
#define SOFT_SYS_H

#include "vmm/soft/soft.h"

/* msr.c; false: #GP */
bool msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *val);
bool msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t val);
void msr_reset(struct soft_cpu *cpu);
/* The MSRs a snapshot holds: fills s->msr; takes what it knows from there. */
void msr_get_all(struct soft_cpu *cpu, struct x86_state *s);
void msr_set_all(struct soft_cpu *cpu, const struct x86_state *s);

/* CPUID with what depends on control registers filled in. */
void cpuid_query(struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
bool xcr0_valid(const struct soft_cpu *cpu, uint64_t v);
/* DR7 was written. */
void debug_update(struct soft_cpu *cpu);

#endif
