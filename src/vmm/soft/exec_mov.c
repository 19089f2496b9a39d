// SPDX-License-Identifier: MIT
/*
 * exec_mov.c - moves, extensions, exchanges, conditional moves and sets.
 *
 * Where there is no immediate operand, imm is the size of the source (decode.c).
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

#define MOV_SIZE(n) \
	HANDLER(mov_rr##n) \
	{ \
		set##n(cpu, i->rd, reg##n(cpu, i->rs)); \
		NEXT(cpu, i); \
	} \
	HANDLER(mov_ri##n) \
	{ \
		set##n(cpu, i->rd, i->imm); \
		NEXT(cpu, i); \
	} \
	HANDLER(mov_rm##n) \
	{ \
		set##n(cpu, i->rd, load##n(cpu, insn_ea(cpu, i))); \
		NEXT(cpu, i); \
	} \
	HANDLER(mov_mr##n) \
	{ \
		store##n(cpu, insn_ea(cpu, i), reg##n(cpu, i->rs)); \
		NEXT(cpu, i); \
	} \
	HANDLER(mov_mi##n) \
	{ \
		store##n(cpu, insn_ea(cpu, i), i->imm); \
		NEXT(cpu, i); \
	}
MOV_SIZE(1)
MOV_SIZE(2)
MOV_SIZE(4)
MOV_SIZE(8)

/* MOV between accumulator and an address of full width: opcodes A0 to A3. */
const struct insn *mov_moffs(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t ea = i->imm;
	bool to_memory = i->raw[i->len - (i->flags & INSN_ADDR32 ? 5 : 9)] & 2;

	if (i->flags & INSN_ADDR32)
		ea = (uint32_t)ea;
	ea += *(uint64_t *)(void *)reg_ptr(cpu, i->seg);
	if (to_memory)
		store_n(cpu, ea, reg_n(cpu, 0, i->size), i->size);
	else
		set_n(cpu, 0, load_n(cpu, ea, i->size), i->size);
	NEXT(cpu, i);
}

#define BY_SIZE(f) { f##1, f##2, f##4, f##8 }
#define BY_SIZE_W(f) { NULL, f##2, f##4, f##8 }

static insn_fn *const mov_fn[NR_FORMS][4] = {
	[FORM_RR] = BY_SIZE(mov_rr),
	[FORM_RI] = BY_SIZE(mov_ri),
	[FORM_RM] = BY_SIZE(mov_rm),
	[FORM_MR] = BY_SIZE(mov_mr),
	[FORM_MI] = BY_SIZE(mov_mi),
};

/* By opcode: 8C and 8E are segment registers, 0F 20 to 0F 23 control and debug. */
static insn_fn *mov_choose(const struct insn *i, enum op_form form)
{
	if (i->aux == OP_MOFFS)
		return mov_moffs;
	if (form != FORM_OTHER)
		return mov_fn[form][__builtin_ctz(i->size)];
	for (unsigned k = 0; k + 1 < i->len; k++)
		if (i->raw[k] == 0x0f)
			return mov_cr_choose(i);
		else if (i->raw[k] == 0x8c || i->raw[k] == 0x8e)
			break;
	return mov_seg_choose(i);
}

static insn_fn *const movnti_fn[NR_FORMS][4] = {
	[FORM_MR] = { NULL, NULL, mov_mr4, mov_mr8 },
};

HANDLER(lea2)
{
	set2(cpu, i->rd, insn_ea(cpu, i));
	NEXT(cpu, i);
}
HANDLER(lea4)
{
	set4(cpu, i->rd, insn_ea(cpu, i));
	NEXT(cpu, i);
}
HANDLER(lea8)
{
	set8(cpu, i->rd, insn_ea(cpu, i));
	NEXT(cpu, i);
}
static insn_fn *const lea_fn[NR_FORMS][4] = { [FORM_RM] = BY_SIZE_W(lea) };

/* source size, source type, destination size */
#define EXTEND(name, s, T, d) \
	HANDLER(name##_r##s##_##d) \
	{ \
		set##d(cpu, i->rd, (T)reg##s(cpu, i->rs)); \
		NEXT(cpu, i); \
	} \
	HANDLER(name##_m##s##_##d) \
	{ \
		set##d(cpu, i->rd, (T)load##s(cpu, insn_ea(cpu, i))); \
		NEXT(cpu, i); \
	}
EXTEND(movzx, 1, uint8_t, 2)
EXTEND(movzx, 1, uint8_t, 4)
EXTEND(movzx, 2, uint16_t, 2)
EXTEND(movzx, 2, uint16_t, 4)
EXTEND(movsx, 1, int8_t, 2)
EXTEND(movsx, 1, int8_t, 4)
EXTEND(movsx, 1, int8_t, 8)
EXTEND(movsx, 2, int16_t, 2)
EXTEND(movsx, 2, int16_t, 4)
EXTEND(movsx, 2, int16_t, 8)
EXTEND(movsx, 4, int32_t, 4)
EXTEND(movsx, 4, int32_t, 8)

static insn_fn *movzx_choose(const struct insn *i, enum op_form form)
{
	bool mem = form == FORM_RM;

	if (i->imm == 1) {
		if (i->size == 2)
			return mem ? movzx_m1_2 : movzx_r1_2;
		return mem ? movzx_m1_4 : movzx_r1_4;
	}
	if (i->size == 2)
		return mem ? movzx_m2_2 : movzx_r2_2;
	return mem ? movzx_m2_4 : movzx_r2_4;
}

static insn_fn *movsx_choose(const struct insn *i, enum op_form form)
{
	static insn_fn *const fn[3][3][2] = {	/* source, destination, memory */
		{ { movsx_r1_2, movsx_m1_2 }, { movsx_r1_4, movsx_m1_4 },
		  { movsx_r1_8, movsx_m1_8 } },
		{ { movsx_r2_2, movsx_m2_2 }, { movsx_r2_4, movsx_m2_4 },
		  { movsx_r2_8, movsx_m2_8 } },
		{ { movsx_r2_2, movsx_m2_2 }, { movsx_r4_4, movsx_m4_4 },
		  { movsx_r4_8, movsx_m4_8 } },
	};

	return fn[i->imm >> 1][i->size >> 2][form == FORM_RM];
}

#define XCHG_SIZE(n, T) \
	HANDLER(xchg_rr##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = reg##n(cpu, i->rs); \
		set##n(cpu, i->rd, b); \
		set##n(cpu, i->rs, a); \
		NEXT(cpu, i); \
	} \
	HANDLER(xchg_mr##n) \
	{ \
		T *p = rmw_begin(cpu, insn_ea(cpu, i), n); \
		T old = __atomic_exchange_n(p, reg##n(cpu, i->rs), __ATOMIC_SEQ_CST); \
		rmw_end(cpu); \
		set##n(cpu, i->rs, old); \
		NEXT(cpu, i); \
	} \
	HANDLER(xchg_rm##n) \
	{ \
		T *p = rmw_begin(cpu, insn_ea(cpu, i), n); \
		T old = __atomic_exchange_n(p, reg##n(cpu, i->rd), __ATOMIC_SEQ_CST); \
		rmw_end(cpu); \
		set##n(cpu, i->rd, old); \
		NEXT(cpu, i); \
	}
XCHG_SIZE(1, uint8_t)
XCHG_SIZE(2, uint16_t)
XCHG_SIZE(4, uint32_t)
XCHG_SIZE(8, uint64_t)
static insn_fn *const xchg_fn[NR_FORMS][4] = {
	[FORM_RR] = BY_SIZE(xchg_rr),
	[FORM_RM] = BY_SIZE(xchg_rm),
	[FORM_MR] = BY_SIZE(xchg_mr),
};

/* The destination register is written last: XADD r, r with both the same. */
#define XADD_SIZE(n, T, sfx) \
	HANDLER(xadd_rr##n) \
	{ \
		T a = reg##n(cpu, i->rd), b = reg##n(cpu, i->rs); \
		uint32_t cc; \
		__asm__("xadd" sfx " %[b], %[a]" CC_OUT : [a] "+&r"(a), [b] "+&r"(b), "=&a"(cc) : : "cc"); \
		set##n(cpu, i->rs, b); \
		set##n(cpu, i->rd, a); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(xadd_mr##n) \
	{ \
		T b = reg##n(cpu, i->rs), *p = rmw_begin(cpu, insn_ea(cpu, i), n); \
		uint32_t cc; \
		__asm__ volatile("lock xadd" sfx " %[b], %[p]" CC_OUT \
				 : [p] "+m"(*p), [b] "+&r"(b), "=&a"(cc) : : "cc", "memory"); \
		rmw_end(cpu); \
		set##n(cpu, i->rs, b); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
XADD_SIZE(1, uint8_t, "b")
XADD_SIZE(2, uint16_t, "w")
XADD_SIZE(4, uint32_t, "l")
XADD_SIZE(8, uint64_t, "q")
static insn_fn *const xadd_fn[NR_FORMS][4] = {
	[FORM_RR] = BY_SIZE(xadd_rr),
	[FORM_MR] = BY_SIZE(xadd_mr),
};

/*
 * CMPXCHG's flags are those of comparing the accumulator with the destination.
 * A 32-bit one clears the upper half of RAX when it fails, and that of the
 * destination register only when it succeeds.
 */
#define CMPXCHG_SIZE(n, T, sfx) \
	HANDLER(cmpxchg_rr##n) \
	{ \
		T d = reg##n(cpu, i->rd), acc = reg##n(cpu, 0); \
		uint32_t cc; \
		__asm__("cmp" sfx " %[d], %[acc]" CC_OUT : "=a"(cc) : [d] "r"(d), [acc] "r"(acc) : "cc"); \
		if (cc & CC_ZF) \
			set##n(cpu, i->rd, reg##n(cpu, i->rs)); \
		else \
			set##n(cpu, 0, d); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	} \
	HANDLER(cmpxchg_mr##n) \
	{ \
		T *p = rmw_begin(cpu, insn_ea(cpu, i), n); \
		T acc = reg##n(cpu, 0), old = acc; \
		uint32_t cc; \
		__asm__ volatile("lock cmpxchg" sfx " %[src], %[p]" \
				 : [p] "+m"(*p), "+a"(old) : [src] "r"((T)reg##n(cpu, i->rs)) : "cc", "memory"); \
		rmw_end(cpu); \
		__asm__("cmp" sfx " %[d], %[acc]" CC_OUT : "=a"(cc) : [d] "r"(old), [acc] "r"(acc) : "cc"); \
		if (!(cc & CC_ZF)) \
			set##n(cpu, 0, old); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
CMPXCHG_SIZE(1, uint8_t, "b")
CMPXCHG_SIZE(2, uint16_t, "w")
CMPXCHG_SIZE(4, uint32_t, "l")
CMPXCHG_SIZE(8, uint64_t, "q")
static insn_fn *const cmpxchg_fn[NR_FORMS][4] = {
	[FORM_RR] = BY_SIZE(cmpxchg_rr),
	[FORM_MR] = BY_SIZE(cmpxchg_mr),
};

static void set_zf(struct soft_cpu *cpu, bool zf)
{
	cpu->cc = zf ? cpu->cc | CC_ZF : cpu->cc & ~CC_ZF;
}

HANDLER(cmpxchg8b)
{
	uint64_t *p = rmw_begin(cpu, insn_ea(cpu, i), 8);
	uint64_t old = (uint64_t)reg4(cpu, 2 * 8) << 32 | reg4(cpu, 0);
	uint64_t new = (uint64_t)reg4(cpu, 1 * 8) << 32 | reg4(cpu, 3 * 8);
	bool ok;

	__asm__ volatile("lock cmpxchgq %[new], %[p]"
			 : [p] "+m"(*p), "+a"(old), "=@ccz"(ok)
			 : [new] "r"(new) : "memory");
	rmw_end(cpu);
	if (!ok) {
		set4(cpu, 0, old);
		set4(cpu, 2 * 8, old >> 32);
	}
	set_zf(cpu, ok);
	NEXT(cpu, i);
}

HANDLER(cmpxchg16b)
{
	uint64_t ea = insn_ea(cpu, i), *p, lo, hi;
	bool ok;

	if (ea & 15)
		cpu_gp(cpu);
	p = rmw_begin(cpu, ea, 16);
	lo = cpu->gpr[X86_RAX];
	hi = cpu->gpr[X86_RDX];
	__asm__ volatile("lock cmpxchg16b %[p]"
			 : [p] "+m"(*(unsigned __int128 *)(void *)p), "+a"(lo), "+d"(hi), "=@ccz"(ok)
			 : "b"(cpu->gpr[X86_RBX]), "c"(cpu->gpr[X86_RCX])
			 : "memory");
	rmw_end(cpu);
	cpu->gpr[X86_RAX] = lo;
	cpu->gpr[X86_RDX] = hi;
	set_zf(cpu, ok);
	NEXT(cpu, i);
}

/* CMOVcc and SETcc: one handler a condition.  A false CMOV still reads its
 * memory operand and still clears the upper half of a 32-bit destination. */
#define COND_NAMED(c, name) \
	HANDLER(cmov_##name##4) \
	{ \
		uint32_t v = i->flags & INSN_MEM ? load4(cpu, insn_ea(cpu, i)) : reg4(cpu, i->rs); \
		set4(cpu, i->rd, cc_test(cpu->cc, c) ? v : reg4(cpu, i->rd)); \
		NEXT(cpu, i); \
	} \
	HANDLER(cmov_##name##8) \
	{ \
		uint64_t v = i->flags & INSN_MEM ? load8(cpu, insn_ea(cpu, i)) : reg8(cpu, i->rs); \
		if (cc_test(cpu->cc, c)) \
			set8(cpu, i->rd, v); \
		NEXT(cpu, i); \
	} \
	HANDLER(cmov_##name##2) \
	{ \
		uint16_t v = i->flags & INSN_MEM ? load2(cpu, insn_ea(cpu, i)) : reg2(cpu, i->rs); \
		if (cc_test(cpu->cc, c)) \
			set2(cpu, i->rd, v); \
		NEXT(cpu, i); \
	} \
	HANDLER(set_##name) \
	{ \
		if (i->flags & INSN_MEM) \
			store1(cpu, insn_ea(cpu, i), cc_test(cpu->cc, c)); \
		else \
			set1(cpu, i->rd, cc_test(cpu->cc, c)); \
		NEXT(cpu, i); \
	} \
	static insn_fn *const cmov_##name##_fn[NR_FORMS][4] = { \
		[FORM_RR] = BY_SIZE_W(cmov_##name), \
		[FORM_RM] = BY_SIZE_W(cmov_##name), \
	};

#define CONDS(X) \
	X(0, O) X(1, NO) X(2, B) X(3, NB) X(4, Z) X(5, NZ) X(6, BE) X(7, NBE) \
	X(8, S) X(9, NS) X(10, P) X(11, NP) X(12, L) X(13, NL) X(14, LE) X(15, NLE)
CONDS(COND_NAMED)

#define BSWAP_SIZE(n, f) \
	HANDLER(movbe_rm##n) \
	{ \
		set##n(cpu, i->rd, f(load##n(cpu, insn_ea(cpu, i)))); \
		NEXT(cpu, i); \
	} \
	HANDLER(movbe_mr##n) \
	{ \
		store##n(cpu, insn_ea(cpu, i), f(reg##n(cpu, i->rs))); \
		NEXT(cpu, i); \
	}
BSWAP_SIZE(2, __builtin_bswap16)
BSWAP_SIZE(4, __builtin_bswap32)
BSWAP_SIZE(8, __builtin_bswap64)

HANDLER(bswap4)
{
	set4(cpu, i->rd, __builtin_bswap32(reg4(cpu, i->rd)));
	NEXT(cpu, i);
}
HANDLER(bswap8)
{
	set8(cpu, i->rd, __builtin_bswap64(reg8(cpu, i->rd)));
	NEXT(cpu, i);
}

/* With a 16-bit operand the result is undefined; processors give zero. */
HANDLER(bswap_zero)
{
	set2(cpu, i->rd, 0);
	NEXT(cpu, i);
}
static insn_fn *const bswap_fn[NR_FORMS][4] = {
	[FORM_R] = { NULL, bswap_zero, bswap4, bswap8 },
};
static insn_fn *const movbe_fn[NR_FORMS][4] = {
	[FORM_RM] = BY_SIZE_W(movbe_rm),
	[FORM_MR] = BY_SIZE_W(movbe_mr),
};

#define ACC(name, d, T, s) \
	HANDLER(name) \
	{ \
		set##d(cpu, 0, (T)reg##s(cpu, 0)); \
		NEXT(cpu, i); \
	}
ACC(cbw, 2, int8_t, 1)
ACC(cwde, 4, int16_t, 2)
ACC(cdqe, 8, int32_t, 4)

#define SPREAD(name, n, T) \
	HANDLER(name) \
	{ \
		set##n(cpu, X86_RDX * 8, (T)reg##n(cpu, 0) < 0 ? -1 : 0); \
		NEXT(cpu, i); \
	}
SPREAD(cwd, 2, int16_t)
SPREAD(cdq, 4, int32_t)
SPREAD(cqo, 8, int64_t)

HANDLER(lahf)
{
	set1(cpu, 1, (cpu->cc >> 8 & 0xd5) | FL_ONE);
	NEXT(cpu, i);
}
HANDLER(sahf)
{
	cpu->cc = (cpu->cc & CC_OF) | (reg1(cpu, 1) & 0xd5) << 8;
	NEXT(cpu, i);
}
HANDLER(clc)
{
	cpu->cc &= ~CC_CF;
	NEXT(cpu, i);
}
HANDLER(stc)
{
	cpu->cc |= CC_CF;
	NEXT(cpu, i);
}
HANDLER(cmc)
{
	cpu->cc ^= CC_CF;
	NEXT(cpu, i);
}
HANDLER(cld)
{
	cpu->rflags &= ~FL_DF;
	NEXT(cpu, i);
}
HANDLER(std)
{
	cpu->rflags |= FL_DF;
	NEXT(cpu, i);
}
HANDLER(xlat)
{
	uint64_t ea = cpu->gpr[X86_RBX] + reg1(cpu, 0);

	if (i->flags & INSN_ADDR32)
		ea = (uint32_t)ea;
	ea += *(uint64_t *)(void *)reg_ptr(cpu, i->seg);
	set1(cpu, 0, load1(cpu, ea));
	NEXT(cpu, i);
}
HANDLER(nop)
{
	NEXT(cpu, i);
}

#define CMOV_ROW(c, name) { .mnemonic = ZYDIS_MNEMONIC_CMOV##name, .form = cmov_##name##_fn },
#define SET_ROW(c, name) { .mnemonic = ZYDIS_MNEMONIC_SET##name, .any = set_##name },

const struct op ops_mov[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_MOV, .choose = mov_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVNTI, .form = movnti_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_LEA, .form = lea_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVZX, .choose = movzx_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVSX, .choose = movsx_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVSXD, .choose = movsx_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_XCHG, .flags = OP_LOCK, .form = xchg_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_XADD, .flags = OP_LOCK, .form = xadd_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPXCHG, .flags = OP_LOCK, .form = cmpxchg_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPXCHG8B, .flags = OP_LOCK, .any = cmpxchg8b },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPXCHG16B, .flags = OP_LOCK, .any = cmpxchg16b },
	CONDS(CMOV_ROW)
	CONDS(SET_ROW)
	{ .mnemonic = ZYDIS_MNEMONIC_BSWAP, .form = bswap_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVBE, .form = movbe_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_CBW, .any = cbw },
	{ .mnemonic = ZYDIS_MNEMONIC_CWDE, .any = cwde },
	{ .mnemonic = ZYDIS_MNEMONIC_CDQE, .any = cdqe },
	{ .mnemonic = ZYDIS_MNEMONIC_CWD, .any = cwd },
	{ .mnemonic = ZYDIS_MNEMONIC_CDQ, .any = cdq },
	{ .mnemonic = ZYDIS_MNEMONIC_CQO, .any = cqo },
	{ .mnemonic = ZYDIS_MNEMONIC_LAHF, .any = lahf },
	{ .mnemonic = ZYDIS_MNEMONIC_SAHF, .any = sahf },
	{ .mnemonic = ZYDIS_MNEMONIC_CLC, .any = clc },
	{ .mnemonic = ZYDIS_MNEMONIC_STC, .any = stc },
	{ .mnemonic = ZYDIS_MNEMONIC_CMC, .any = cmc },
	{ .mnemonic = ZYDIS_MNEMONIC_CLD, .any = cld },
	{ .mnemonic = ZYDIS_MNEMONIC_STD, .any = std },
	{ .mnemonic = ZYDIS_MNEMONIC_XLAT, .any = xlat },
	{ .mnemonic = ZYDIS_MNEMONIC_NOP, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PAUSE, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_ENDBR64, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_ENDBR32, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCH, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCHNTA, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCHT0, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCHT1, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCHT2, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCHW, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_PREFETCHWT1, .any = nop },
	{ .mnemonic = ZYDIS_MNEMONIC_CLDEMOTE, .any = nop },
	{ .mnemonic = 0 },
};
