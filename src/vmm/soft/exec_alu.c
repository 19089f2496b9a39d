// SPDX-License-Identifier: MIT
/*
 * exec_alu.c - two-operand arithmetic and logic, INC, DEC, NEG, NOT.
 *
 * One handler for each of operation, operand form and size, made by macros.
 * With a memory destination the host's instruction works on the guest's memory
 * directly, so that LOCK is the host's LOCK.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

/* Loads CF alone: what ADC, SBB, INC and DEC want of the old flags. */
#define CF_IN "btl $8, %%eax; "

#define ALU_SIZE(op, sfx, n, T, in, W) \
	HANDLER(op##_rr##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = reg##n(cpu, i->rs); \
		uint32_t cc = cpu->cc; \
		__asm__(in #op sfx " %[b], %[a]" CC_OUT : [a] "+r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		if (W) \
			set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_ri##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = i->imm; \
		uint32_t cc = cpu->cc; \
		__asm__(in #op sfx " %[b], %[a]" CC_OUT : [a] "+r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		if (W) \
			set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_rm##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = load##n(cpu, insn_ea(cpu, i)); \
		uint32_t cc = cpu->cc; \
		__asm__(in #op sfx " %[b], %[a]" CC_OUT : [a] "+r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		if (W) \
			set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}

#define ALU_MEM(op, sfx, n, T, in, form, src) \
	HANDLER(op##_##form##n) \
	{ \
		T b = src, *p = rmw_begin(cpu, insn_ea(cpu, i), sizeof(T)); \
		uint32_t cc = cpu->cc; \
		if (i->flags & INSN_LOCK) \
			__asm__ volatile(in "lock " #op sfx " %[b], %[p]" CC_OUT \
					 : [p] "+m"(*p), "+a"(cc) : [b] "r"(b) : "cc", "memory"); \
		else \
			__asm__ volatile(in #op sfx " %[b], %[p]" CC_OUT \
					 : [p] "+m"(*p), "+a"(cc) : [b] "r"(b) : "cc"); \
		rmw_end(cpu); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}

/* CMP and TEST only read. */
#define ALU_READ(op, sfx, n, T, in, form, src) \
	HANDLER(op##_##form##n) \
	{ \
		T b = src, a = load##n(cpu, insn_ea(cpu, i)); \
		uint32_t cc; \
		__asm__(#op sfx " %[b], %[a]" CC_OUT : "=a"(cc) : [a] "r"(a), [b] "r"(b) : "cc"); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}

#define ALU_TABLE(op) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { op##_rr1, op##_rr2, op##_rr4, op##_rr8 }, \
		[FORM_RI] = { op##_ri1, op##_ri2, op##_ri4, op##_ri8 }, \
		[FORM_RM] = { op##_rm1, op##_rm2, op##_rm4, op##_rm8 }, \
		[FORM_MR] = { op##_mr1, op##_mr2, op##_mr4, op##_mr8 }, \
		[FORM_MI] = { op##_mi1, op##_mi2, op##_mi4, op##_mi8 }, \
	};

#define ALU_BOTH(MEM, op, sfx, n, T, in, W) \
	ALU_SIZE(op, sfx, n, T, in, W) \
	MEM(op, sfx, n, T, in, mr, reg##n(cpu, i->rs)) \
	MEM(op, sfx, n, T, in, mi, i->imm)

#define ALU(MEM, op, in, W) \
	ALU_BOTH(MEM, op, "b", 1, uint8_t, in, W) \
	ALU_BOTH(MEM, op, "w", 2, uint16_t, in, W) \
	ALU_BOTH(MEM, op, "l", 4, uint32_t, in, W) \
	ALU_BOTH(MEM, op, "q", 8, uint64_t, in, W) \
	ALU_TABLE(op)

ALU(ALU_MEM, add, "", 1)
ALU(ALU_MEM, or, "", 1)
ALU(ALU_MEM, adc, CF_IN, 1)
ALU(ALU_MEM, sbb, CF_IN, 1)
ALU(ALU_MEM, and, "", 1)
ALU(ALU_MEM, sub, "", 1)
ALU(ALU_MEM, xor, "", 1)
ALU(ALU_READ, cmp, "", 0)
ALU(ALU_READ, test, "", 0)

#define UNARY_SIZE(op, sfx, n, T, in, FL) \
	HANDLER(op##_r##n) \
	{ \
		T a = reg##n(cpu, i->rd); \
		uint32_t cc = cpu->cc; \
		__asm__(in #op sfx " %[a]" FL : [a] "+r"(a), "+a"(cc) : : "cc"); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_m##n) \
	{ \
		T *p = rmw_begin(cpu, insn_ea(cpu, i), sizeof(T)); \
		uint32_t cc = cpu->cc; \
		if (i->flags & INSN_LOCK) \
			__asm__ volatile(in "lock " #op sfx " %[p]" FL \
					 : [p] "+m"(*p), "+a"(cc) : : "cc", "memory"); \
		else \
			__asm__ volatile(in #op sfx " %[p]" FL \
					 : [p] "+m"(*p), "+a"(cc) : : "cc"); \
		rmw_end(cpu); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}

#define UNARY(op, in, FL) \
	UNARY_SIZE(op, "b", 1, uint8_t, in, FL) \
	UNARY_SIZE(op, "w", 2, uint16_t, in, FL) \
	UNARY_SIZE(op, "l", 4, uint32_t, in, FL) \
	UNARY_SIZE(op, "q", 8, uint64_t, in, FL) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_R] = { op##_r1, op##_r2, op##_r4, op##_r8 }, \
		[FORM_M] = { op##_m1, op##_m2, op##_m4, op##_m8 }, \
	};

UNARY(inc, CF_IN, CC_OUT)
UNARY(dec, CF_IN, CC_OUT)
UNARY(neg, "", CC_OUT)
UNARY(not, "", "")

/* ADCX and ADOX: only one flag each, so that two chains can run. */
#define ADX_SIZE(op, n, sfx, T) \
	HANDLER(op##_##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = get_rm(cpu, i, i->rs); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %[b], %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
#define ADX(op) \
	ADX_SIZE(op, 4, "l", uint32_t) \
	ADX_SIZE(op, 8, "q", uint64_t) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { [2] = op##_4, [3] = op##_8 }, \
		[FORM_RM] = { [2] = op##_4, [3] = op##_8 }, \
	};

ADX(adcx)
ADX(adox)

const struct op ops_alu[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_ADD, .flags = OP_LOCK, .form = add_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_OR, .flags = OP_LOCK, .form = or_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_ADC, .flags = OP_LOCK, .form = adc_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SBB, .flags = OP_LOCK, .form = sbb_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_AND, .flags = OP_LOCK, .form = and_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_SUB, .flags = OP_LOCK, .form = sub_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_XOR, .flags = OP_LOCK, .form = xor_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_CMP, .form = cmp_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_TEST, .form = test_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_INC, .flags = OP_LOCK, .form = inc_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_DEC, .flags = OP_LOCK, .form = dec_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_NEG, .flags = OP_LOCK, .form = neg_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_NOT, .flags = OP_LOCK, .form = not_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_ADCX, .form = adcx_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_ADOX, .form = adox_fn },
	{ .mnemonic = 0 },
};
