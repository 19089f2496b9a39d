// SPDX-License-Identifier: MIT
/*
 * exec_mul.c - multiplication and division.
 *
 * The undefined flags come out as the host leaves them.  A division that would
 * fault on the host is found before: the guest gets #DE, not we a signal.
 *
 * RAX is an operand here and also what CC_IN and CC_OUT use, so operands pass
 * through other registers; MOV leaves flags alone.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

#define RAX_2 "%%ax"
#define RAX_4 "%%eax"
#define RAX_8 "%%rax"

/* hi:lo = op(hi:lo, b) with the guest's flags before and after */
#define RUN_WIDE(op, sfx, n, b, lo, out, hi, cc) \
	__asm__("movl %[in], %%eax; " CC_IN "mov" sfx " %[acc], " RAX_##n "; " \
		op sfx " %[src]; mov" sfx " " RAX_##n ", %[res]" CC_OUT \
		: "=&a"(cc), [res] "=&r"(out), "+&d"(hi) \
		: [in] "r"(cpu->cc), [acc] "r"(lo), [src] "r"(b) : "cc")

#define RUN_BYTE(op, b, ax, out, cc) \
	__asm__("movl %[in], %%eax; " CC_IN "movw %[acc], %%ax; " \
		op "b %[src]; movw %%ax, %[res]" CC_OUT \
		: "=&a"(cc), [res] "=&r"(out) \
		: [in] "r"(cpu->cc), [acc] "r"(ax), [src] "r"(b) : "cc")

#define WIDE(op, sfx, n, T) \
	HANDLER(op##_wide##n) \
	{ \
		T b = get_rm(cpu, i, i->rd), lo; \
		uint64_t hi = cpu->gpr[X86_RDX]; \
		uint32_t cc; \
		RUN_WIDE(#op, sfx, n, b, (T)cpu->gpr[X86_RAX], lo, hi, cc); \
		set##n(cpu, 0, lo); \
		set##n(cpu, X86_RDX * 8, hi); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
#define WIDE1(op) \
	HANDLER(op##_wide1) \
	{ \
		uint8_t b = get_rm(cpu, i, i->rd); \
		uint16_t ax; \
		uint32_t cc; \
		RUN_BYTE(#op, b, (uint16_t)cpu->gpr[X86_RAX], ax, cc); \
		set2(cpu, 0, ax); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
#define WIDE_ALL(op) \
	WIDE1(op) \
	WIDE(op, "w", 2, uint16_t) \
	WIDE(op, "l", 4, uint32_t) \
	WIDE(op, "q", 8, uint64_t)
WIDE_ALL(mul)
WIDE_ALL(imul)

static insn_fn *const mul_fn[NR_FORMS][4] = {
	[FORM_R] = { mul_wide1, mul_wide2, mul_wide4, mul_wide8 },
	[FORM_M] = { mul_wide1, mul_wide2, mul_wide4, mul_wide8 },
};

/* IMUL with two and three operands; of three the last is the immediate. */
#define IMUL(name, sfx, n, T, first) \
	HANDLER(name##n) \
	{ \
		T b = get_rm(cpu, i, i->rs), a = first; \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN "imul" sfx " %[b], %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
IMUL(imul_two, "w", 2, uint16_t, reg2(cpu, i->rd))
IMUL(imul_two, "l", 4, uint32_t, reg4(cpu, i->rd))
IMUL(imul_two, "q", 8, uint64_t, reg8(cpu, i->rd))
IMUL(imul_three, "w", 2, uint16_t, i->imm)
IMUL(imul_three, "l", 4, uint32_t, i->imm)
IMUL(imul_three, "q", 8, uint64_t, i->imm)

/* aux is the number of explicit operands (decode.c). */
static insn_fn *imul_choose(const struct insn *i, enum op_form form)
{
	static insn_fn *const fn[3][4] = {
		{ imul_wide1, imul_wide2, imul_wide4, imul_wide8 },
		{ NULL, imul_two2, imul_two4, imul_two8 },
		{ NULL, imul_three2, imul_three4, imul_three8 },
	};

	return fn[i->aux - 1][__builtin_ctz(i->size)];
}

/*
 * Does a / b not fit?  The quotient may reach 2^(bits-1), one less when it is
 * positive; |q| < limit is |a| < limit * |b|, and that product cannot overflow.
 * U and S are twice as wide as the operand.
 */
#define IDIV_CHECK(n, U, S) \
	static inline bool idiv_overflows##n(S a, S b) \
	{ \
		U ua = a < 0 ? -(U)a : (U)a, ub = b < 0 ? -(U)b : (U)b; \
		U limit = ((U)1 << (8 * n - 1)) + ((a < 0) != (b < 0)); \
		return ua >= limit * ub; \
	}
IDIV_CHECK(1, uint32_t, int32_t)
IDIV_CHECK(2, uint32_t, int32_t)
IDIV_CHECK(4, uint64_t, int64_t)
IDIV_CHECK(8, unsigned __int128, __int128)

#define DIV_SIZE(sfx, n, T, U, ST, S) \
	HANDLER(div##n) \
	{ \
		T b = get_rm(cpu, i, i->rd), lo = cpu->gpr[X86_RAX]; \
		uint64_t hi = cpu->gpr[X86_RDX]; \
		uint32_t cc; \
		if (!b || (T)hi >= b) \
			cpu_raise(cpu, VEC_DE, 0); \
		RUN_WIDE("div", sfx, n, b, lo, lo, hi, cc); \
		set##n(cpu, 0, lo); \
		set##n(cpu, X86_RDX * 8, hi); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(idiv##n) \
	{ \
		T b = get_rm(cpu, i, i->rd), lo = cpu->gpr[X86_RAX]; \
		uint64_t hi = cpu->gpr[X86_RDX]; \
		uint32_t cc; \
		if (!b || idiv_overflows##n((S)((U)(T)hi << (8 * n) | lo), (ST)b)) \
			cpu_raise(cpu, VEC_DE, 0); \
		RUN_WIDE("idiv", sfx, n, b, lo, lo, hi, cc); \
		set##n(cpu, 0, lo); \
		set##n(cpu, X86_RDX * 8, hi); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
DIV_SIZE("w", 2, uint16_t, uint32_t, int16_t, int32_t)
DIV_SIZE("l", 4, uint32_t, uint64_t, int32_t, int64_t)
DIV_SIZE("q", 8, uint64_t, unsigned __int128, int64_t, __int128)

HANDLER(div1)
{
	uint8_t b = get_rm(cpu, i, i->rd);
	uint16_t ax = cpu->gpr[X86_RAX];
	uint32_t cc;

	if (!b || ax >> 8 >= b)
		cpu_raise(cpu, VEC_DE, 0);
	RUN_BYTE("div", b, ax, ax, cc);
	set2(cpu, 0, ax);
	cpu->cc = (uint16_t)cc;
	NEXT(cpu, i);
}

HANDLER(idiv1)
{
	uint8_t b = get_rm(cpu, i, i->rd);
	uint16_t ax = cpu->gpr[X86_RAX];
	uint32_t cc;

	if (!b || idiv_overflows1((int16_t)ax, (int8_t)b))
		cpu_raise(cpu, VEC_DE, 0);
	RUN_BYTE("idiv", b, ax, ax, cc);
	set2(cpu, 0, ax);
	cpu->cc = (uint16_t)cc;
	NEXT(cpu, i);
}

static insn_fn *const div_fn[NR_FORMS][4] = {
	[FORM_R] = { div1, div2, div4, div8 },
	[FORM_M] = { div1, div2, div4, div8 },
};
static insn_fn *const idiv_fn[NR_FORMS][4] = {
	[FORM_R] = { idiv1, idiv2, idiv4, idiv8 },
	[FORM_M] = { idiv1, idiv2, idiv4, idiv8 },
};

const struct op ops_mul[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_MUL, .form = mul_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_IMUL, .choose = imul_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_DIV, .form = div_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_IDIV, .form = idiv_fn },
	{ .mnemonic = 0 },
};
