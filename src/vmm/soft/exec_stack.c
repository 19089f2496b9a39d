// SPDX-License-Identifier: MIT
/*
 * exec_stack.c - PUSH, POP, ENTER, LEAVE, PUSHF, POPF.
 *
 * The stack pointer moves only after the memory access has succeeded.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

static inline void push_n(struct soft_cpu *cpu, uint64_t v, unsigned n)
{
	store_n(cpu, cpu->gpr[X86_RSP] - n, v, n);
	cpu->gpr[X86_RSP] -= n;
}

HANDLER(push_r8)
{
	push8(cpu, reg8(cpu, i->rd));
	NEXT(cpu, i);
}

HANDLER(push_any)
{
	push_n(cpu, get_rm(cpu, i, i->rd), i->size);
	NEXT(cpu, i);
}

HANDLER(push_imm)
{
	push_n(cpu, i->imm, i->size);
	NEXT(cpu, i);
}

HANDLER(push_seg)
{
	unsigned s = i->raw[i->len - 1] == 0xa0 ? X86_FS : X86_GS;

	push_n(cpu, cpu->seg[s].sel, i->size);
	NEXT(cpu, i);
}

static insn_fn *push_choose(const struct insn *i, enum op_form form)
{
	switch (form) {
	case FORM_R: return i->size == 8 ? push_r8 : push_any;
	case FORM_M: return push_any;
	case FORM_I: return push_imm;
	default: return push_seg;
	}
}

HANDLER(pop_r8)
{
	uint64_t v = load8(cpu, cpu->gpr[X86_RSP]);

	cpu->gpr[X86_RSP] += 8;
	set8(cpu, i->rd, v);
	NEXT(cpu, i);
}

HANDLER(pop_r2)
{
	uint16_t v = load2(cpu, cpu->gpr[X86_RSP]);

	cpu->gpr[X86_RSP] += 2;
	set2(cpu, i->rd, v);
	NEXT(cpu, i);
}

/* An address based on RSP is computed with RSP already moved. */
HANDLER(pop_mem)
{
	uint64_t v = load_n(cpu, cpu->gpr[X86_RSP], i->size);
	uint64_t ea = insn_ea(cpu, i);

	if (i->base == X86_RSP * 8)
		ea += i->size;
	store_n(cpu, ea, v, i->size);
	cpu->gpr[X86_RSP] += i->size;
	NEXT(cpu, i);
}

static insn_fn *pop_choose(const struct insn *i, enum op_form form)
{
	switch (form) {
	case FORM_R: return i->size == 8 ? pop_r8 : pop_r2;
	case FORM_M: return pop_mem;
	default: return pop_seg;
	}
}

HANDLER(leave)
{
	uint64_t rbp = cpu->gpr[X86_RBP];
	uint64_t v = load_n(cpu, rbp, i->size);

	cpu->gpr[X86_RSP] = rbp + i->size;
	set_n(cpu, X86_RBP * 8, v, i->size);
	NEXT(cpu, i);
}

/* imm: bytes of locals; the nesting level is the last byte (SDM, ENTER). */
HANDLER(enter)
{
	unsigned level = i->raw[i->len - 1] & 31, n = i->size;
	uint64_t rsp = cpu->gpr[X86_RSP] - n, rbp = cpu->gpr[X86_RBP], frame = rsp;
	uint16_t locals = i->raw[i->len - 3] | i->raw[i->len - 2] << 8;

	store_n(cpu, rsp, rbp, n);
	for (unsigned k = 1; k < level; k++) {
		rbp -= n;
		rsp -= n;
		store_n(cpu, rsp, load_n(cpu, rbp, n), n);
	}
	if (level) {
		rsp -= n;
		store_n(cpu, rsp, frame, n);
	}
	rsp -= locals;
	guest_check_write(cpu, rsp, n);
	cpu->gpr[X86_RSP] = rsp;
	set_n(cpu, X86_RBP * 8, frame, n);
	NEXT(cpu, i);
}

HANDLER(pushf)
{
	push_n(cpu, rflags_get(cpu) & ~(uint64_t)(FL_VM | FL_RF), i->size);
	NEXT(cpu, i);
}

HANDLER(popf)
{
	uint64_t v = load_n(cpu, cpu->gpr[X86_RSP], i->size);
	uint64_t mask = FL_CC | FL_TF | FL_DF | FL_NT;

	if (i->size > 2) {
		mask |= FL_AC | FL_ID | FL_RF;
		v &= ~(uint64_t)FL_RF;
	}
	if (cpu->cpl <= (cpu->rflags >> 12 & 3))
		mask |= FL_IF;
	if (cpu->cpl == 0)
		mask |= FL_IOPL;
	cpu->gpr[X86_RSP] += i->size;
	cpu->rip += i->len;
	rflags_set(cpu, v, mask);
	if (unlikely(attention(cpu))) {
		cpu->icount += i->nr;
		return NULL;
	}
	DISPATCH(cpu, i + 1);
}

const struct op ops_stack[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_PUSH, .choose = push_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_POP, .choose = pop_choose },
	{ .mnemonic = ZYDIS_MNEMONIC_LEAVE, .any = leave },
	{ .mnemonic = ZYDIS_MNEMONIC_ENTER, .any = enter },
	{ .mnemonic = ZYDIS_MNEMONIC_PUSHF, .any = pushf },
	{ .mnemonic = ZYDIS_MNEMONIC_PUSHFQ, .any = pushf },
	{ .mnemonic = ZYDIS_MNEMONIC_POPF, .any = popf },
	{ .mnemonic = ZYDIS_MNEMONIC_POPFQ, .any = popf },
	{ .mnemonic = 0 },
};
