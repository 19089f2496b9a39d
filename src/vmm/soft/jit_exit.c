// SPDX-License-Identifier: MIT
/*
 * jit_exit.c - where a translated block goes on: linked jumps within its page, the
 * jump cache for all others, the interpreter for what ends blocks otherwise.
 */
#include "vmm/soft/jit_tr.h"

/* Are arithmetic flags wanted at this offset of our page?  Only a block that is
 * decoded can tell that they are not. */
bool jit_target_live(struct tr *tr, int target)
{
	const struct block *b;

	if (target < 0 || target >= (int)PAGE_SIZE)
		return true;
	if (target == tr->page_off)
		return jit_block_live_in(tr->b);
	b = block_peek(tr->cpu, (tr->b->gpa & PAGE_MASK) + (unsigned)target);
	return !b || jit_block_live_in(b);
}

/* To where only the run loop knows. */
void jit_emit_exit(struct tr *tr, uint32_t id)
{
	e_movi(&tr->e, H_S2, id);
	e_patch(e_jump(&tr->e, -1), tr->j->exit + (tr->j->rw - tr->j->rx));
}

static void miss(struct tr *tr, uint8_t *site, unsigned k)
{
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT, .site = site });
}

/*
 * Looks H_S1 up in the jump cache: H_S2 points at its entry, the target is in
 * scratch[JIT_TARGET].  On a miss instruction k is the interpreter's, which also
 * sees to targets that are no addresses; so nothing may be changed before this.
 */
static void lookup(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;
	uint8_t *found;

	e_st(e, OFF(scratch[JIT_TARGET]), H_S1);
	e_rsp(e, false, 0x83, 7, OFF(attention));	/* cmp */
	e8(e, 0);
	miss(tr, e_jump(e, 5), k);
	/* jump_hash() */
	e_mov(e, H_S2, H_S1);
	e_shift_imm(e, true, 5, H_S2, PAGE_SHIFT);
	e_rr(e, false, 0x31, H_S2, H_S1);
	e_imm(e, false, 4, H_S2, JUMP_SIZE - 1);
	e_shift_imm(e, false, 4, H_S2, 5);
	e_rsp(e, true, 0x03, H_S2, OFF(jumps));
	e_mem(e, true, 0x3b, H_S1, H_S2, offsetof(struct jump, rip));
	miss(tr, e_jump(e, 5), k);
	e_mem(e, true, 0x8b, H_S1, H_S2, offsetof(struct jump, gen));
	e_rsp(e, true, 0x3b, H_S1, OFF(gen));
	found = e_jump(e, 4);
	e_rsp(e, true, 0x3b, H_S1, OFF(gen_global));
	miss(tr, e_jump(e, 5), k);
	e_patch(found, e->p);
}

/* The page of scratch[JIT_TARGET] becomes the current one. */
static void enter_page(struct tr *tr)
{
	e_ld(&tr->e, H_S1, OFF(scratch[JIT_TARGET]));
	e_imm(&tr->e, true, 4, H_S1, -(int)PAGE_SIZE);
	e_st(&tr->e, OFF(scratch[JIT_PAGE_VA]), H_S1);
}

/* To the address in H_S1; flags are in cpu->cc. */
static void indirect(struct tr *tr, unsigned k)
{
	lookup(tr, k);
	enter_page(tr);
	e_mem(&tr->e, false, 0xff, 4, H_S2, offsetof(struct jump, host));	/* jmp */
}
_Static_assert(sizeof(struct jump) == 32, "shift by 5 above");

/*
 * A direct branch to another page, whose address is in H_S1.  A miss leaves: the
 * instruction has done its work, so the interpreter need not repeat it.
 */
static void far_direct(struct tr *tr, int target)
{
	uint32_t id = jit_meta_new(tr->j, META_LINK);
	unsigned first = tr->nr_tails;

	tr->j->meta[id].off = target;
	indirect(tr, 0);
	while (tr->nr_tails > first)
		e_patch(tr->tail[--tr->nr_tails].site, tr->e.p);
	jit_emit_exit(tr, id);
}

/* A direct branch from here; from: offset of the branching instruction. */
static void direct(struct tr *tr, int from, int target)
{
	bool live = jit_target_live(tr, target);
	struct jit *j = tr->j;
	struct emit *e = &tr->e;
	uint8_t *check = NULL;
	struct jit_meta *m;
	uint32_t id;

	if (target < 0 || target >= (int)PAGE_SIZE) {
		want_cc(tr, ALL_FLAGS);
		e_ld(e, H_S1, OFF(scratch[JIT_PAGE_VA]));
		e_lea(e, true, H_S1, H_S1, -1, 0, target);
		far_direct(tr, target);
		return;
	}
	id = jit_meta_new(j, META_LINK);
	m = &j->meta[id];
	m->off = target;
	if (target <= from) {
		want_cc(tr, live);
		clobber(tr);
		e_rsp(e, false, 0x83, 7, OFF(attention));	/* cmp */
		e8(e, 0);
		check = e_jump(e, 5);
	}
	m->site = e_jump(e, -1);
	m->host_flags = live && tr->where == IN_HOST;
	if (check)
		e_patch(check, e->p);
	e_patch(m->site, e->p);
	m->stub = j->rx + (e->p - j->rw);
	if (m->host_flags)
		e_flags_save(e);
	jit_emit_exit(tr, id);
}

static void push_return(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	struct addr a = jit_stack(tr, k, -8, true);

	e_ld(&tr->e, H_S2, OFF(scratch[JIT_PAGE_VA]));
	e_lea(&tr->e, true, H_S2, H_S2, -1, 0, t->off + t->i->len);
	e_at(&tr->e, true, 0x89, H_S2, &a);
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

/* Branch target in memory or a register, into H_S1. */
static void load_target(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int r;

	if (t->i->flags & INSN_MEM) {
		struct addr a = jit_operand(tr, k, false, 8);

		e_at(&tr->e, true, 0x8b, H_S1, &a);
		return;
	}
	r = ZydisRegisterGetId(t->ops[0].reg.value);
	if (host_of[r] < 0)
		e_ld(&tr->e, H_S1, OFF_GPR(r));
	else
		e_mov(&tr->e, H_S1, host_of[r]);
}

static void ret(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	bool imm = t->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		   t->ops[0].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
	struct addr a = jit_stack(tr, k, 0, false);

	e_at(&tr->e, true, 0x8b, H_S1, &a);
	lookup(tr, k);
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0,
	      8 + (imm ? (int)(t->ops[0].imm.value.u & 0xffff) : 0));
	enter_page(tr);
	e_mem(&tr->e, false, 0xff, 4, H_S2, offsetof(struct jump, host));
}

static void call_rm(struct tr *tr, unsigned k)
{
	load_target(tr, k);
	lookup(tr, k);
	e_mem(&tr->e, true, 0x8b, H_S2, H_S2, offsetof(struct jump, host));
	e_st(&tr->e, OFF(scratch[JIT_CODE]), H_S2);
	push_return(tr, k);
	enter_page(tr);
	e_rsp(&tr->e, false, 0xff, 4, OFF(scratch[JIT_CODE]));	/* jmp */
}

static void leave_to_interp(struct tr *tr, unsigned k)
{
	struct jit *j = tr->j;
	uint32_t id = jit_meta_new(j, META_INTERP);

	want_cc(tr, ALL_FLAGS);
	j->meta[id].i = tr->t[k].i;
	j->meta[id].off = tr->t[k].off;
	jit_emit_exit(tr, id);
}

/* The taken side lies behind the block. */
void jit_jcc(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];

	want_host(tr);
	add_tail(tr, (struct tail){ .kind = TAIL_EXIT, .k = k, .where = tr->where,
				    .site = e_jump(&tr->e, t->z.opcode & 15) });
}

void jit_exit_tail(struct tr *tr, const struct tail *tl)
{
	const struct tinsn *t = &tr->t[tl->k];

	tr->where = tl->where;
	direct(tr, t->off, branch_target(t));
}

void jit_branch(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];

	if (t->form != F_JMP && t->form != F_FALL)
		want_cc(tr, ALL_FLAGS);
	switch (t->form) {
	case F_JMP: direct(tr, t->off, branch_target(t)); break;
	case F_CALL:
		push_return(tr, k);
		direct(tr, t->off, branch_target(t));
		break;
	case F_RET: ret(tr, k); break;
	case F_JMP_RM:
		load_target(tr, k);
		indirect(tr, k);
		break;
	case F_CALL_RM: call_rm(tr, k); break;
	case F_INTERP: leave_to_interp(tr, k); break;
	default: direct(tr, -1, t->off); break;	/* F_FALL */
	}
}
