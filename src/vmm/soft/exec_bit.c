// SPDX-License-Identifier: MIT
/*
 * exec_bit.c - bit tests, bit scans, counts, BMI1 and BMI2, CRC32.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

/*
 * BT and friends with a register bit offset reach beyond the memory operand:
 * the offset is signed and picks the word (SDM, BT).
 */
#define BT_SIZE(op, sfx, n, T, S, sh, W) \
	HANDLER(op##_rr##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = reg##n(cpu, i->rs); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %[b], %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		if (W) \
			set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_ri##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = i->imm & (8 * n - 1); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %[b], %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		if (W) \
			set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_mr##n) \
	{ \
		S off = reg##n(cpu, i->rs); \
		op##_mem##n(cpu, i, insn_bit_ea(cpu, i, (int64_t)(off >> sh) * n), off & (8 * n - 1)); \
		NEXT(cpu, i); \
	} \
	HANDLER(op##_mi##n) \
	{ \
		op##_mem##n(cpu, i, insn_ea(cpu, i), i->imm & (8 * n - 1)); \
		NEXT(cpu, i); \
	}

/* With a 32-bit address size the sum wraps there, segment base apart. */
static inline uint64_t insn_bit_ea(struct soft_cpu *cpu, const struct insn *i, int64_t add)
{
	uint64_t seg = *(uint64_t *)(void *)reg_ptr(cpu, i->seg);
	uint64_t ea = insn_ea(cpu, i) - seg + add;

	if (unlikely(i->flags & INSN_ADDR32))
		ea = (uint32_t)ea;
	return ea + seg;
}

#define BT_MEM_READ(op, sfx, n, T) \
	static inline void op##_mem##n(struct soft_cpu *cpu, const struct insn *i, \
				       uint64_t ea, T b) \
	{ \
		T a = load##n(cpu, ea); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %[b], %[a]" CC_OUT \
			: "+a"(cc) : [a] "r"(a), [b] "r"(b) : "cc"); \
		cpu->cc = (uint16_t)cc; \
	}
/* In memory the register form must not be used with b in range: it is, by mask. */
#define BT_MEM_WRITE(op, sfx, n, T) \
	static inline void op##_mem##n(struct soft_cpu *cpu, const struct insn *i, \
				       uint64_t ea, T b) \
	{ \
		T *p = rmw_begin(cpu, ea, n); \
		uint32_t cc = cpu->cc; \
		if (i->flags & INSN_LOCK) \
			__asm__ volatile(CC_IN "lock " #op sfx " %[b], %[p]" CC_OUT \
					 : [p] "+m"(*p), "+a"(cc) : [b] "r"(b) : "cc", "memory"); \
		else \
			__asm__ volatile(CC_IN #op sfx " %[b], %[p]" CC_OUT \
					 : [p] "+m"(*p), "+a"(cc) : [b] "r"(b) : "cc", "memory"); \
		rmw_end(cpu); \
		cpu->cc = (uint16_t)cc; \
	}

#define BT(op, MEM, W) \
	MEM(op, "w", 2, uint16_t) \
	MEM(op, "l", 4, uint32_t) \
	MEM(op, "q", 8, uint64_t) \
	BT_SIZE(op, "w", 2, uint16_t, int16_t, 4, W) \
	BT_SIZE(op, "l", 4, uint32_t, int32_t, 5, W) \
	BT_SIZE(op, "q", 8, uint64_t, int64_t, 6, W) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { NULL, op##_rr2, op##_rr4, op##_rr8 }, \
		[FORM_RI] = { NULL, op##_ri2, op##_ri4, op##_ri8 }, \
		[FORM_MR] = { NULL, op##_mr2, op##_mr4, op##_mr8 }, \
		[FORM_MI] = { NULL, op##_mi2, op##_mi4, op##_mi8 }, \
	};

BT(bt, BT_MEM_READ, 0)
BT(bts, BT_MEM_WRITE, 1)
BT(btr, BT_MEM_WRITE, 1)
BT(btc, BT_MEM_WRITE, 1)

/*
 * Two operands, the second read only.  The destination's old value goes in:
 * BSF and BSR of zero leave it alone (in all 64 bits, as processors do for a
 * 32-bit operand too).
 */
#define SCAN_SIZE(op, sfx, n, T, KEEP) \
	HANDLER(op##n) \
	{ \
		T b = get_rm(cpu, i, i->rs), a = reg##n(cpu, i->rd); \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx " %[b], %[a]" CC_OUT \
			: [a] "+&r"(a), "+a"(cc) : [b] "r"(b) : "cc"); \
		if (!KEEP || b) \
			set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
#define SCAN(op, KEEP) \
	SCAN_SIZE(op, "w", 2, uint16_t, KEEP) \
	SCAN_SIZE(op, "l", 4, uint32_t, KEEP) \
	SCAN_SIZE(op, "q", 8, uint64_t, KEEP) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { NULL, op##2, op##4, op##8 }, \
		[FORM_RM] = { NULL, op##2, op##4, op##8 }, \
	};

SCAN(bsf, 1)
SCAN(bsr, 1)
SCAN(popcnt, 0)
SCAN(lzcnt, 0)
SCAN(tzcnt, 0)

/* BMI1: destination, source (BLSx). */
#define BLS_SIZE(op, sfx, n, T) SCAN_SIZE(op, sfx, n, T, 0)
#define BLS(op) \
	BLS_SIZE(op, "l", 4, uint32_t) \
	BLS_SIZE(op, "q", 8, uint64_t) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { [2] = op##4, [3] = op##8 }, \
		[FORM_RM] = { [2] = op##4, [3] = op##8 }, \
	};
BLS(blsr)
BLS(blsi)
BLS(blsmsk)

/*
 * Three operands: decode.c puts the general one that is never memory into aux.
 * ANDN, PDEP, PEXT: aux is the first source; BEXTR, BZHI: the control.
 */
#define THREE_SIZE(op, sfx, n, T, args) \
	HANDLER(op##n) \
	{ \
		T b = get_rm(cpu, i, i->rs), c = reg##n(cpu, i->aux), a; \
		uint32_t cc = cpu->cc; \
		__asm__(CC_IN #op sfx args CC_OUT \
			: [a] "=&r"(a), "+a"(cc) : [b] "r"(b), [c] "r"(c) : "cc"); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
#define THREE(op, args) \
	THREE_SIZE(op, "l", 4, uint32_t, args) \
	THREE_SIZE(op, "q", 8, uint64_t, args) \
	static insn_fn *const op##_fn[NR_FORMS][4] = { \
		[FORM_RR] = { [2] = op##4, [3] = op##8 }, \
		[FORM_RM] = { [2] = op##4, [3] = op##8 }, \
	};
#define SRC_LAST " %[b], %[c], %[a]"
#define CTL_LAST " %[c], %[b], %[a]"
THREE(andn, SRC_LAST)
THREE(pdep, SRC_LAST)
THREE(pext, SRC_LAST)
THREE(bextr, CTL_LAST)
THREE(bzhi, CTL_LAST)

/* MULX: rd high half, aux low half, times RDX; the high half is written last. */
HANDLER(mulx4)
{
	uint64_t r = (uint64_t)reg4(cpu, X86_RDX * 8) * (uint32_t)get_rm(cpu, i, i->rs);

	set4(cpu, i->aux, r);
	set4(cpu, i->rd, r >> 32);
	NEXT(cpu, i);
}
HANDLER(mulx8)
{
	unsigned __int128 r = (unsigned __int128)cpu->gpr[X86_RDX] * get_rm(cpu, i, i->rs);

	set8(cpu, i->aux, r);
	set8(cpu, i->rd, r >> 64);
	NEXT(cpu, i);
}
static insn_fn *const mulx_fn[NR_FORMS][4] = {
	[FORM_RR] = { [2] = mulx4, [3] = mulx8 },
	[FORM_RM] = { [2] = mulx4, [3] = mulx8 },
};

/* The source's size is imm (decode.c), the destination 4 or 8 bytes. */
HANDLER(crc32)
{
	uint64_t acc = reg4(cpu, i->rd), v;

	v = i->flags & INSN_MEM ? load_n(cpu, insn_ea(cpu, i), i->imm) :
				  reg_n(cpu, i->rs, i->imm);
	switch (i->imm) {
	case 1: __asm__("crc32b %b1, %k0" : "+r"(acc) : "q"(v)); break;
	case 2: __asm__("crc32w %w1, %k0" : "+r"(acc) : "r"(v)); break;
	case 4: __asm__("crc32l %k1, %k0" : "+r"(acc) : "r"(v)); break;
	default: __asm__("crc32q %1, %0" : "+r"(acc) : "r"(v));
	}
	set4(cpu, i->rd, acc);
	NEXT(cpu, i);
}

const struct op ops_bit[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_BT, .form = bt_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BTS, .flags = OP_LOCK, .form = bts_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BTR, .flags = OP_LOCK, .form = btr_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BTC, .flags = OP_LOCK, .form = btc_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BSF, .form = bsf_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BSR, .form = bsr_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_POPCNT, .form = popcnt_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_LZCNT, .form = lzcnt_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_TZCNT, .form = tzcnt_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BLSR, .form = blsr_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BLSI, .form = blsi_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BLSMSK, .form = blsmsk_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_ANDN, .form = andn_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_PDEP, .form = pdep_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_PEXT, .form = pext_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BEXTR, .form = bextr_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_BZHI, .form = bzhi_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_MULX, .form = mulx_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_CRC32, .any = crc32 },
	{ .mnemonic = 0 },
};
