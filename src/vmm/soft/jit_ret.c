// SPDX-License-Identifier: MIT
/*
 * jit_ret.c - the return cache: returns without a look into the jump cache.
 *
 * A table of pairs (guest return address, host code), indexed by the guest's stack
 * pointer: CALL puts one where its RET will look, RET compares its target with the
 * address there and jumps.  There is no top to keep, so nothing gets out of step
 * when stacks are switched or unwound.  The host code is the block that follows the
 * call, or a way out that gets it linked: the address is linked as jumps are.  It is
 * in the same page as the call, so its link is undone like any other when that block
 * goes; an address taken before that leads to the body's way out.
 * Where the addresses differ the jump cache is asked.
 *
 * That an address is mapped as it was when CALL put it there is seen to by emptying
 * the table: of user code when the address space or its epoch changes, of kernel
 * code then too if any of it is in pages that are not global; both when a page that
 * was executed is invalidated, when global pages are flushed, and when the code area
 * is emptied.  User and kernel code have a table each, so that neither reaches code
 * of the other.  An empty entry has one value in both words, a thunk's address: a
 * RET to that very address goes to the thunk, which asks the run loop.
 *
 * CALL looks at the attention word and RET, where it finds its entry, does not: each
 * of those has had its CALL.
 */
#include "vmm/soft/jit_tr.h"

_Static_assert(sizeof(struct jit_return) == 16, "index arithmetic below");

static void forget(struct soft_cpu *cpu, struct jit_return *table)
{
	uint64_t none = cpu->jit ? (uint64_t)(uintptr_t)cpu->jit->ret_none : 0;
	size_t n = JIT_RETURNS * sizeof(*table) / 8;

	__asm__ volatile("rep stosq" : "+D"(table), "+c"(n) : "a"(none) : "memory");
}

void jit_return_forget(struct soft_cpu *cpu, bool global)
{
	if (!cpu->jit)
		return;
	forget(cpu, cpu->ret[1]);
	if (global || cpu->ret_local)
		forget(cpu, cpu->ret[0]);
}

/* r11d: of the entry for stack pointer r9; then its address. */
static void entry(struct emit *e, int reg)
{
	e_rr(e, false, 0x89, reg, HOST_GUEST_RSP);
	e_imm(e, false, 4, reg, (JIT_RETURNS - 1) * 16);
	e_rsp(e, true, 0x03, reg, OFF(ret_base));
}

/* H_S2 is the return address, which CALL has pushed; destroys H_S1 and H_S2. */
void jit_return_push(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	struct emit *e = &tr->e;

	if (t->off + t->i->len > (int)PAGE_SIZE - INSN_MAX)
		return;			/* the landing might be in another page */
	entry(e, H_S1);
	e_mem(e, true, 0x89, H_S2, H_S1, offsetof(struct jit_return, va));
	e8(e, 0x4c); e8(e, 0x8d); e8(e, 0x1d);			/* lea r11, [rip + ...] */
	e32(e, 0);
	add_tail(tr, (struct tail){ .kind = TAIL_LINK, .where = IN_CC, .live = true,
				    .target = t->off + t->i->len, .site = e->p - 4 });
	e_mem(e, true, 0x89, H_S2, H_S1, offsetof(struct jit_return, host));
}

static void page_of_target(struct emit *e)
{
	e_imm(e, true, 4, H_S1, -(int)PAGE_SIZE);
	e_st(e, OFF(scratch[JIT_PAGE_VA]), H_S1);
}

static void pop_rsp(struct emit *e, int n)
{
	e_lea(e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, n);
}

/* To H_S1, flags in cpu->cc; n: what it takes from the stack. */
void jit_return(struct tr *tr, unsigned k, int n)
{
	struct emit *e = &tr->e;

	if (n != 8) {			/* rare */
		jit_indirect(tr, k, n);
		return;
	}
	entry(e, H_S2);
	e_mem(e, true, 0x3b, H_S1, H_S2, offsetof(struct jit_return, va));
	add_tail(tr, (struct tail){ .kind = TAIL_RETURN, .k = k, .site = e_jump(e, 5) });
	page_of_target(e);
	pop_rsp(e, n);
	e_mem(e, false, 0xff, 4, H_S2, offsetof(struct jit_return, host));
}

void jit_return_tail(struct tr *tr, const struct tail *tl)
{
	e_movi(&tr->e, H_S2, jit_meta_insn(tr, META_INTERP, tl->k));
	e_patch(e_jump(&tr->e, -1), tr->j->ret_other + (tr->j->rw - tr->j->rx));
}

/* RET to H_S1, which is not what the table has; H_S2: the way out. */
void jit_return_thunk(struct jit *j, struct emit *e)
{
	uint8_t *miss[JIT_MISSES];

	e_st(e, OFF(scratch[JIT_TARGET]), H_S1);
	e_st(e, OFF(scratch[JIT_CODE]), H_S2);
	jit_emit_lookup(e, miss);
	pop_rsp(e, 8);
	e_ld(e, H_S1, OFF(scratch[JIT_TARGET]));
	page_of_target(e);
	e_mem(e, false, 0xff, 4, H_S2, offsetof(struct jump, host));
	for (unsigned k = 0; k < JIT_MISSES; k++)
		e_patch(miss[k], e->p);
	e_ld32(e, H_S2, OFF(scratch[JIT_CODE]));
	e_patch(e_jump(e, -1), j->exit + (j->rw - j->rx));
}

/* What an empty entry leads to, which H_S2 points to: its address is the target. */
void jit_return_none_thunk(struct jit *j, struct emit *e)
{
	e_mem(e, true, 0x8b, H_S2, H_S2, offsetof(struct jit_return, va));
	e_st(e, OFF(scratch[JIT_TARGET]), H_S2);
	e_patch(e_jump(e, -1), j->miss + (j->rw - j->rx));
}
