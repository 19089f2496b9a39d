/* SPDX-License-Identifier: MIT */
/*
 * ops.h - what instruction handlers are written with.  Only exec_*.c and their
 * like include this.
 *
 * Arithmetic runs on the host's own instruction, and LAHF; SETO AL take the
 * flags it left, those that manuals call undefined included.  CC_IN puts the
 * guest's flags into the host's before, where the instruction leaves some of
 * them alone.
 */
#ifndef SOFT_OPS_H
#define SOFT_OPS_H

#include "vmm/soft/insn.h"

/*
 * Handlers end in a tail call to the next one.  Builds whose compiler does not
 * make tail calls (-O0, sanitizers) return it to the run loop instead.
 */
#if defined(SOFT_NO_TAIL) || !defined(__OPTIMIZE__)
#define DISPATCH(cpu, n) return (n)
#elif defined(__clang__)
#define DISPATCH(cpu, n) __attribute__((musttail)) return (n)->fn(cpu, n)
#else
#define DISPATCH(cpu, n) return (n)->fn(cpu, n)
#endif

#define NEXT(cpu, i) \
	do { \
		(cpu)->rip += (i)->len; \
		DISPATCH(cpu, (i) + 1); \
	} while (0)

#define HANDLER(name) \
	static const struct insn *name(struct soft_cpu *cpu, const struct insn *i)

/* Decoder's table: which handlers a mnemonic has. */
enum op_form {
	FORM_NONE, FORM_R, FORM_M, FORM_I, FORM_RR, FORM_RM, FORM_MR, FORM_RI,
	FORM_MI, FORM_OTHER, NR_FORMS
};

struct op {
	uint16_t mnemonic;
	uint8_t flags;			/* INSN_END, OP_* */
	insn_fn *any;			/* whatever the operands; or */
	/* by a look at it; NULL: #UD; or */
	insn_fn *(*choose)(const struct insn *i, enum op_form form);
	insn_fn *const (*form)[4];	/* [enum op_form][log2 of size] */
};
#define OP_LOCK 0x80	/* handlers see to INSN_LOCK themselves */

extern const struct op ops_alu[], ops_shift[], ops_bit[], ops_mul[], ops_mov[],
	ops_branch[], ops_string[], ops_stack[], ops_sys[], ops_seg[], ops_misc[],
	ops_io[];

/* insn.aux of MOV with a 64-bit address in imm */
#define OP_MOFFS 0x200
insn_fn mov_moffs, jmp_far, call_far, ret_far, pop_seg;
/* seg.c, except.c */
insn_fn *mov_seg_choose(const struct insn *i);
void far_return(struct soft_cpu *cpu, unsigned size, unsigned drop);
/* sys.c: MOV to and from control and debug registers */
insn_fn *mov_cr_choose(const struct insn *i);

/*
 * An instruction that ends its block, without going on: rip is where to.  What
 * has none of these is done by its handler alone.
 */
typedef void transfer_fn(struct soft_cpu *cpu, const struct insn *i);
transfer_fn *transfer_of(const struct insn *i);
transfer_fn iret_transfer;

/* The next block after rip changed. */
const struct insn *branch_to(struct soft_cpu *cpu, const struct insn *i);

#define CC_CF 0x0100u
#define CC_PF 0x0400u
#define CC_AF 0x1000u
#define CC_ZF 0x4000u
#define CC_SF 0x8000u
#define CC_OF 0x0001u

/* "a" holds cpu->cc on entry to CC_IN and after CC_OUT */
#define CC_IN "addb $127, %%al; sahf; "
#define CC_OUT "; lahf; seto %%al"

static inline uint8_t *reg_ptr(struct soft_cpu *cpu, unsigned off)
{
	return (uint8_t *)cpu->gpr + off;
}

#define REG_ACCESS(n, T, W) \
	static inline T reg##n(struct soft_cpu *cpu, unsigned off) \
	{ \
		return *(T *)(void *)reg_ptr(cpu, off); \
	} \
	static inline void set##n(struct soft_cpu *cpu, unsigned off, T v) \
	{ \
		*(W *)(void *)reg_ptr(cpu, off) = v; \
	} \
	static inline T load##n(struct soft_cpu *cpu, uint64_t va) \
	{ \
		if (likely(tlb_reads(cpu->tlb, va, sizeof(T)))) \
			return *(volatile T *)tlb_host(cpu->tlb, va); \
		return mmu_load(cpu, va, sizeof(T)); \
	} \
	static inline void store##n(struct soft_cpu *cpu, uint64_t va, T v) \
	{ \
		if (likely(tlb_writes(cpu->tlb, va, sizeof(T)))) \
			*(volatile T *)tlb_host(cpu->tlb, va) = v; \
		else \
			mmu_store(cpu, va, v, sizeof(T)); \
	}

REG_ACCESS(1, uint8_t, uint8_t)
REG_ACCESS(2, uint16_t, uint16_t)
REG_ACCESS(4, uint32_t, uint64_t)
REG_ACCESS(8, uint64_t, uint64_t)

static inline uint64_t load_n(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	switch (len) {
	case 1: return load1(cpu, va);
	case 2: return load2(cpu, va);
	case 4: return load4(cpu, va);
	default: return load8(cpu, va);
	}
}

static inline void store_n(struct soft_cpu *cpu, uint64_t va, uint64_t v, unsigned len)
{
	switch (len) {
	case 1: store1(cpu, va, v); break;
	case 2: store2(cpu, va, v); break;
	case 4: store4(cpu, va, v); break;
	default: store8(cpu, va, v);
	}
}

static inline uint64_t reg_n(struct soft_cpu *cpu, unsigned off, unsigned len)
{
	switch (len) {
	case 1: return reg1(cpu, off);
	case 2: return reg2(cpu, off);
	case 4: return reg4(cpu, off);
	default: return reg8(cpu, off);
	}
}

static inline void set_n(struct soft_cpu *cpu, unsigned off, uint64_t v, unsigned len)
{
	switch (len) {
	case 1: set1(cpu, off, v); break;
	case 2: set2(cpu, off, v); break;
	case 4: set4(cpu, off, v); break;
	default: set8(cpu, off, v);
	}
}

/* The register or memory operand rd/mem of size bytes, by INSN_MEM. */
static inline uint64_t get_rm(struct soft_cpu *cpu, const struct insn *i, unsigned slot)
{
	if (i->flags & INSN_MEM)
		return load_n(cpu, insn_ea(cpu, i), i->size);
	return reg_n(cpu, slot, i->size);
}

static inline void put_rm(struct soft_cpu *cpu, const struct insn *i, unsigned slot,
			  uint64_t v)
{
	if (i->flags & INSN_MEM)
		store_n(cpu, insn_ea(cpu, i), v, i->size);
	else
		set_n(cpu, slot, v, i->size);
}

/*
 * Host address for a read-modify-write; faults here or not at all.  Memory that
 * is not plain RAM is bounced by rmw_end().
 */
static inline void *rmw_begin(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	if (likely(tlb_writes(cpu->tlb, va, len)))
		return tlb_host(cpu->tlb, va);
	return mmu_rmw(cpu, va, len);
}

static inline void rmw_end(struct soft_cpu *cpu)
{
	if (unlikely(cpu->rmw_slow))
		mmu_rmw_end(cpu);
}

/* The 16 condition codes of Jcc, SETcc and CMOVcc. */
static inline bool cc_test(uint32_t cc, unsigned cond)
{
	bool r;

	switch (cond >> 1) {
	case 0: r = cc & CC_OF; break;
	case 1: r = cc & CC_CF; break;
	case 2: r = cc & CC_ZF; break;
	case 3: r = cc & (CC_CF | CC_ZF); break;
	case 4: r = cc & CC_SF; break;
	case 5: r = cc & CC_PF; break;
	case 6: r = (cc >> 15 ^ cc) & 1; break;
	default: r = ((cc >> 15 ^ cc) & 1) | (cc & CC_ZF); break;
	}
	return r ^ (cond & 1);
}

/* Stack, in 64-bit mode. */
static inline void push8(struct soft_cpu *cpu, uint64_t v)
{
	store8(cpu, cpu->gpr[X86_RSP] - 8, v);
	cpu->gpr[X86_RSP] -= 8;
}

static inline bool canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

static inline bool attention(struct soft_cpu *cpu)
{
	return atomic_load_explicit(&cpu->attention, memory_order_relaxed);
}

#endif
