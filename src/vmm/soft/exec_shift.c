// SPDX-License-Identifier: MIT
/*
 * exec_shift.c - shifts and rotates, single and double, and BMI2's.
 *
 * A count of zero leaves all flags, so the guest's are loaded before.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

/* The count is CL when the second operand is a register. */
static inline uint8_t shift_count(struct soft_cpu *cpu, const struct insn *i,
				  bool imm)
{
	return imm ? (uint8_t)i->imm : reg1(cpu, X86_RCX * 8);
}

/* c: "i" or "r", where the count comes from */
#define SHIFT_SIZE(op, sfx, n, T, c) \
	HANDLER(op##_r##c##n) \
	{ \
		T a = reg##n(cpu, i->rd); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %%cl, %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) : "c"(shift_count(cpu, i, #c[0] == 'i')) : "cc"); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_m##c##n) \
	{ \
		T *p = rmw_begin(cpu, insn_ea(cpu, i), n); \
		uint32_t cc = cpu->cc; \
		__asm__ volatile(CC_IN #op sfx " %%cl, %[p]" CC_OUT \
				 : [p] "+m"(*p), "+a"(cc) : "c"(shift_count(cpu, i, #c[0] == 'i')) : "cc"); \
		rmw_end(cpu); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}

#define SHIFT_SIZES(op, c) \
	SHIFT_SIZE(op, "b", 1, uint8_t, c) \
	SHIFT_SIZE(op, "w", 2, uint16_t, c) \
	SHIFT_SIZE(op, "l", 4, uint32_t, c) \
	SHIFT_SIZE(op, "q", 8, uint64_t, c)

#define SHIFT(op) \
	SHIFT_SIZES(op, i) \
	SHIFT_SIZES(op, r) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RI] = { op##_ri1, op##_ri2, op##_ri4, op##_ri8 }, \
		[FORM_MI] = { op##_mi1, op##_mi2, op##_mi4, op##_mi8 }, \
		[FORM_RR] = { op##_rr1, op##_rr2, op##_rr4, op##_rr8 }, \
		[FORM_MR] = { op##_mr1, op##_mr2, op##_mr4, op##_mr8 }, \
	};

SHIFT(shl)
SHIFT(shr)
SHIFT(sar)
SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)

/*
 * SHLD, SHRD: aux tells whether the third operand is CL (imm 0x100 or more is
 * never a count, decode.c sets bit 8 for CL).
 */
#define DOUBLE_SIZE(op, sfx, n, T) \
	HANDLER(op##_r##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = reg##n(cpu, i->rs); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %%cl, %[b], %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) \
			: [b] "r"(b), "c"(shift_count(cpu, i, !(i->imm & 0x100))) : "cc"); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_m##n) \
	{ \
		T b = reg##n(cpu, i->rs), *p = rmw_begin(cpu, insn_ea(cpu, i), n); \
		uint32_t cc = cpu->cc; \
		__asm__ volatile(CC_IN #op sfx " %%cl, %[b], %[p]" CC_OUT \
				 : [p] "+m"(*p), "+a"(cc) \
				 : [b] "r"(b), "c"(shift_count(cpu, i, !(i->imm & 0x100))) : "cc"); \
		rmw_end(cpu); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
#define DOUBLE(op) \
	DOUBLE_SIZE(op, "w", 2, uint16_t) \
	DOUBLE_SIZE(op, "l", 4, uint32_t) \
	DOUBLE_SIZE(op, "q", 8, uint64_t) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { NULL, op##_r2, op##_r4, op##_r8 }, \
		[FORM_MR] = { NULL, op##_m2, op##_m4, op##_m8 }, \
	};

DOUBLE(shld)
DOUBLE(shrd)

/* SARX, SHLX, SHRX: the count is a register, put into aux by decode.c. */
#define SHIFTX_SIZE(name, n, T, expr) \
	HANDLER(name##n) \
	{ \
		T a = get_rm(cpu, i, i->rs); \
		unsigned c = reg1(cpu, i->aux) & (8 * n - 1); \
		set##n(cpu, i->rd, expr); \
		NEXT(cpu, i); \
	}
#define SHIFTX(name, P, expr) \
	SHIFTX_SIZE(name, 4, P##32_t, expr) \
	SHIFTX_SIZE(name, 8, P##64_t, expr) \
	static insn_fn *const name##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { [2] = name##4, [3] = name##8 }, \
		[FORM_RM] = { [2] = name##4, [3] = name##8 }, \
	};
SHIFTX(sarx, int, a >> c)
SHIFTX(shlx, uint, a << c)
SHIFTX(shrx, uint, a >> c)

HANDLER(rorx4)
{
	uint32_t a = get_rm(cpu, i, i->rs);

	__asm__("rorl %%cl, %0" : "+r"(a) : "c"((uint8_t)i->imm) : "cc");
	set4(cpu, i->rd, a);
	NEXT(cpu, i);
}
HANDLER(rorx8)
{
	uint64_t a = get_rm(cpu, i, i->rs);

	__asm__("rorq %%cl, %0" : "+r"(a) : "c"((uint8_t)i->imm) : "cc");
	set8(cpu, i->rd, a);
	NEXT(cpu, i);
}
static insn_fn *const rorx_fn[NR_FORMS][4] = {
	[FORM_RR] = { [2] = rorx4, [3] = rorx8 },
	[FORM_RM] = { [2] = rorx4, [3] = rorx8 },
};

const struct op ops_shift[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_SHL, .form = shl_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SHR, .form = shr_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SAR, .form = sar_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_ROL, .form = rol_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_ROR, .form = ror_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_RCL, .form = rcl_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_RCR, .form = rcr_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SHLD, .form = shld_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SHRD, .form = shrd_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SARX, .form = sarx_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SHLX, .form = shlx_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SHRX, .form = shrx_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_RORX, .form = rorx_fn },
	{ .mnemonic = 0 },
};
