// SPDX-License-Identifier: MIT
/*
 * exec_branch.c - jumps, calls, returns, loops.
 *
 * A direct branch within its page remembers the block it leads to: both are
 * decoded from the same physical page, so that link holds at whatever address
 * the page is mapped, and dies with it.  All others go through the jump cache.
 * Taken branches are where the attention word is tested.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

/* rip was set; i is the branch (its nr counts the block's instructions). */
const struct insn *branch_to(struct soft_cpu *cpu, const struct insn *i)
{
	const struct insn *n;

	cpu->icount += i->nr;
	if (unlikely(attention(cpu)))
		return NULL;
	n = block_next(cpu);
	DISPATCH(cpu, n);
}

static const struct insn *branch_unlinked(struct soft_cpu *cpu,
					  const struct insn *i, uint64_t from)
{
	uint64_t flushes = cpu->stat.flushes;
	const struct insn *n = block_find(cpu);

	/* The branch itself may be gone after a flush. */
	if (!((from ^ cpu->rip) & PAGE_MASK) && flushes == cpu->stat.flushes &&
	    block_can_link(n))
		((struct insn *)(uintptr_t)i)->link = n;
	return n;
}

static inline const struct insn *branch_direct(struct soft_cpu *cpu,
					       const struct insn *i)
{
	uint64_t from = cpu->rip;
	const struct insn *n = i->link;

	cpu->rip = from + i->len + i->imm;
	if (unlikely(!n)) {
		if (unlikely((from ^ cpu->rip) & PAGE_MASK))
			return branch_to(cpu, i);
		cpu->icount += i->nr;
		if (unlikely(attention(cpu)))
			return NULL;
		return branch_unlinked(cpu, i, from);
	}
	cpu->icount += i->nr;
	if (unlikely(attention(cpu)))
		return NULL;
	DISPATCH(cpu, n);
}

#define JCC(c, name) \
	HANDLER(jcc_##name) \
	{ \
		if (!cc_test(cpu->cc, c)) \
			NEXT(cpu, i); \
		return branch_direct(cpu, i); \
	}
JCC(0, o) JCC(1, no) JCC(2, b) JCC(3, nb) JCC(4, z) JCC(5, nz) JCC(6, be) JCC(7, nbe)
JCC(8, s) JCC(9, ns) JCC(10, p) JCC(11, np) JCC(12, l) JCC(13, nl) JCC(14, le) JCC(15, nle)

HANDLER(jmp_rel)
{
	return branch_direct(cpu, i);
}

static inline uint64_t indirect_target(struct soft_cpu *cpu, const struct insn *i)
{
	return i->flags & INSN_MEM ? load8(cpu, insn_ea(cpu, i)) : reg8(cpu, i->rd);
}

HANDLER(jmp_ind)
{
	uint64_t to = indirect_target(cpu, i);

	if (unlikely(!canonical(to)))
		cpu_gp(cpu);
	cpu->rip = to;
	return branch_to(cpu, i);
}

HANDLER(call_rel)
{
	push8(cpu, cpu->rip + i->len);
	return branch_direct(cpu, i);
}

HANDLER(call_ind)
{
	uint64_t to = indirect_target(cpu, i), rsp = cpu->gpr[X86_RSP] - 8;

	/* A push that faults comes before a target that is not canonical. */
	store8(cpu, rsp, cpu->rip + i->len);
	if (unlikely(!canonical(to)))
		cpu_gp(cpu);
	cpu->gpr[X86_RSP] = rsp;
	cpu->rip = to;
	return branch_to(cpu, i);
}

HANDLER(ret)
{
	uint64_t to = load8(cpu, cpu->gpr[X86_RSP]);

	if (unlikely(!canonical(to)))
		cpu_gp(cpu);
	cpu->gpr[X86_RSP] += 8 + i->imm;
	cpu->rip = to;
	return branch_to(cpu, i);
}

/* The counter is ECX with an address size prefix. */
static inline uint64_t counter(struct soft_cpu *cpu, const struct insn *i)
{
	return i->flags & INSN_ADDR32 ? reg4(cpu, X86_RCX * 8) :
					cpu->gpr[X86_RCX];
}

static inline uint64_t count_down(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t n = counter(cpu, i) - 1;

	if (i->flags & INSN_ADDR32)
		n = (uint32_t)n;
	cpu->gpr[X86_RCX] = n;
	return n;
}

HANDLER(jrcxz)
{
	if (counter(cpu, i))
		NEXT(cpu, i);
	return branch_direct(cpu, i);
}

HANDLER(loop)
{
	if (!count_down(cpu, i))
		NEXT(cpu, i);
	return branch_direct(cpu, i);
}

HANDLER(loope)
{
	if (!count_down(cpu, i) || !(cpu->cc & CC_ZF))
		NEXT(cpu, i);
	return branch_direct(cpu, i);
}

HANDLER(loopne)
{
	if (!count_down(cpu, i) || (cpu->cc & CC_ZF))
		NEXT(cpu, i);
	return branch_direct(cpu, i);
}

/* Far transfers of control are in except.c and seg.c. */
static insn_fn *jmp_choose(const struct insn *i, enum op_form form)
{
	if (i->aux == OP_FAR)
		return jmp_far;
	return form == FORM_I ? jmp_rel : jmp_ind;
}

static insn_fn *call_choose(const struct insn *i, enum op_form form)
{
	if (i->aux == OP_FAR)
		return call_far;
	return form == FORM_I ? call_rel : call_ind;
}

static insn_fn *ret_choose(const struct insn *i, enum op_form form)
{
	return i->aux == OP_FAR ? ret_far : ret;
}

const struct op ops_branch[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_JO, .any = jcc_o },
	{ .mnemonic = ZYDIS_MNEMONIC_JNO, .any = jcc_no },
	{ .mnemonic = ZYDIS_MNEMONIC_JB, .any = jcc_b },
	{ .mnemonic = ZYDIS_MNEMONIC_JNB, .any = jcc_nb },
	{ .mnemonic = ZYDIS_MNEMONIC_JZ, .any = jcc_z },
	{ .mnemonic = ZYDIS_MNEMONIC_JNZ, .any = jcc_nz },
	{ .mnemonic = ZYDIS_MNEMONIC_JBE, .any = jcc_be },
	{ .mnemonic = ZYDIS_MNEMONIC_JNBE, .any = jcc_nbe },
	{ .mnemonic = ZYDIS_MNEMONIC_JS, .any = jcc_s },
	{ .mnemonic = ZYDIS_MNEMONIC_JNS, .any = jcc_ns },
	{ .mnemonic = ZYDIS_MNEMONIC_JP, .any = jcc_p },
	{ .mnemonic = ZYDIS_MNEMONIC_JNP, .any = jcc_np },
	{ .mnemonic = ZYDIS_MNEMONIC_JL, .any = jcc_l },
	{ .mnemonic = ZYDIS_MNEMONIC_JNL, .any = jcc_nl },
	{ .mnemonic = ZYDIS_MNEMONIC_JLE, .any = jcc_le },
	{ .mnemonic = ZYDIS_MNEMONIC_JNLE, .any = jcc_nle },
	{ .mnemonic = ZYDIS_MNEMONIC_JMP, .flags = INSN_END, .choose = jmp_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_CALL, .flags = INSN_END, .choose = call_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_RET, .flags = INSN_END, .choose = ret_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_JRCXZ, .any = jrcxz },
	{ .mnemonic = ZYDIS_MNEMONIC_JECXZ, .any = jrcxz },
	{ .mnemonic = ZYDIS_MNEMONIC_LOOP, .any = loop },
	{ .mnemonic = ZYDIS_MNEMONIC_LOOPE, .any = loope },
	{ .mnemonic = ZYDIS_MNEMONIC_LOOPNE, .any = loopne },
	{ .mnemonic = 0 },
};
