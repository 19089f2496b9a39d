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

static void check_attention(struct tr *tr, unsigned k)
{
	e_rsp(&tr->e, false, 0x83, 7, OFF(attention));	/* cmp */
	e8(&tr->e, 0);
	miss(tr, e_jump(&tr->e, 5), k);
}

/* jump_hash(), and the comparison of the address */
uint8_t *jit_emit_slot(struct emit *e)
{
	e_mov(e, H_S2, H_S1);
	e_shift_imm(e, true, 5, H_S2, PAGE_SHIFT);
	e_rr(e, false, 0x31, H_S2, H_S1);
	e_imm(e, false, 4, H_S2, JUMP_SIZE - 1);
	e_shift_imm(e, false, 4, H_S2, 5);
	e_rsp(e, true, 0x03, H_S2, OFF(jumps));
	e_mem(e, true, 0x3b, H_S1, H_S2, offsetof(struct jump, rip));
	return e_jump(e, 5);
}

void jit_emit_lookup(struct emit *e, uint8_t *miss[JIT_MISSES])
{
	uint8_t *found;

	miss[0] = jit_emit_slot(e);
	e_mem(e, true, 0x8b, H_S1, H_S2, offsetof(struct jump, gen));
	e_rsp(e, true, 0x3b, H_S1, OFF(gen));
	found = e_jump(e, 4);
	e_rsp(e, true, 0x3b, H_S1, OFF(gen_global));
	miss[1] = e_jump(e, 5);
	e_patch(found, e->p);
}
_Static_assert(sizeof(struct jump) == 32, "shift by 5 above");

/*
 * Looks H_S1 up in the jump cache: H_S2 points at its entry, the target is in
 * scratch[JIT_TARGET].  On a miss instruction k is the interpreter's, which also
 * sees to targets that are no addresses; so nothing may be changed before this.
 */
static void lookup(struct tr *tr, unsigned k)
{
	uint8_t *site[JIT_MISSES];

	e_st(&tr->e, OFF(scratch[JIT_TARGET]), H_S1);
	check_attention(tr, k);
	jit_emit_lookup(&tr->e, site);
	for (unsigned n = 0; n < JIT_MISSES; n++)
		miss(tr, site[n], k);
}

/* The page of scratch[JIT_TARGET] becomes the current one. */
static void enter_page(struct tr *tr)
{
	e_ld(&tr->e, H_S1, OFF(scratch[JIT_TARGET]));
	e_imm(&tr->e, true, 4, H_S1, -(int)PAGE_SIZE);
	e_st(&tr->e, OFF(scratch[JIT_PAGE_VA]), H_S1);
}

/* To the address in H_S1, taking pop bytes from the stack; flags are in cpu->cc. */
void jit_indirect(struct tr *tr, unsigned k, int pop)
{
	lookup(tr, k);
	if (pop)
		e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, pop);
	enter_page(tr);
	e_mem(&tr->e, false, 0xff, 4, H_S2, offsetof(struct jump, host));	/* jmp */
}

/*
 * In our page, and so near its start that the instruction is there too.  What may go
 * on in the next page is only for the jump cache to know.
 */
static bool in_page(int target)
{
	return target >= 0 && target <= (int)PAGE_SIZE - INSN_MAX;
}

/* A jump (cc as e_jump()) in our page, that may be linked. */
static void linked(struct tr *tr, int target, int cc, bool live, uint8_t *check)
{
	add_tail(tr, (struct tail){ .kind = TAIL_LINK, .where = tr->where, .live = live,
				    .target = target, .check = check,
				    .site = e_jump(&tr->e, cc) });
}

void jit_link_tail(struct tr *tr, const struct tail *tl)
{
	struct jit *j = tr->j;
	struct emit *e = &tr->e;
	uint32_t id = jit_meta_new(j, META_LINK);
	struct jit_meta *m = &j->meta[id];

	m->off = tl->target;
	m->site = tl->site;
	m->host_flags = tl->live && tl->where == IN_HOST;
	m->stub = j->rx + (e->p - j->rw);
	if (tl->check)
		e_patch(tl->check, e->p);
	if (m->host_flags)
		e_flags_save(e);
	jit_emit_exit(tr, id);
}

/* Out when there is something to attend to; flags the target wants are in cpu->cc. */
static uint8_t *attention_check(struct tr *tr, bool live)
{
	want_cc(tr, live);
	clobber(tr);
	e_rsp(&tr->e, false, 0x83, 7, OFF(attention));		/* cmp */
	e8(&tr->e, 0);
	return e_jump(&tr->e, 5);
}

static void attention_or_out(struct tr *tr, uint32_t id)
{
	add_tail(tr, (struct tail){ .kind = TAIL_OUT, .id = id,
				    .site = attention_check(tr, true) });
}

/*
 * A direct branch to another page.  What leaves does so behind it: the instruction
 * has done its work, so the interpreter need not repeat it.
 */
static void far_direct(struct tr *tr, int target, bool check)
{
	uint32_t id = jit_meta_new(tr->j, META_LINK), site = jit_site_new(tr, id);

	tr->j->meta[id].off = target;
	want_cc(tr, ALL_FLAGS);
	if (check)
		attention_or_out(tr, id);
	e_ld(&tr->e, H_S1, OFF(scratch[JIT_PAGE_VA]));
	e_lea(&tr->e, true, H_S1, H_S1, -1, 0, target);
	jit_site_check(tr, site);
	jit_site_go(tr, site, false);
}

/*
 * A direct branch from here; from: offset of the branching instruction.  Backward
 * ones and calls look at the attention word, so that no loop goes without.
 */
static void direct(struct tr *tr, int from, int target, bool is_call)
{
	bool live = jit_target_live(tr, target), look = target <= from || is_call;
	uint8_t *check = NULL;

	if (!in_page(target)) {
		far_direct(tr, target, look);
		return;
	}
	if (look)
		check = attention_check(tr, live);
	linked(tr, target, -1, live, check);
}

static void push_return(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	struct addr a = jit_stack(tr, k, -8, true);

	e_ld(&tr->e, H_S2, OFF(scratch[JIT_PAGE_VA]));
	e_lea(&tr->e, true, H_S2, H_S2, -1, 0, t->off + t->i->len);
	e_at(&tr->e, true, 0x89, H_S2, &a);
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
	jit_return_push(tr, k);
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
	jit_return(tr, k, 8 + (imm ? (int)(t->ops[0].imm.value.u & 0xffff) : 0));
}

uint32_t jit_meta_insn(struct tr *tr, enum jit_kind kind, unsigned k)
{
	uint32_t id = jit_meta_new(tr->j, kind);
	enum form form = tr->t[k].form;

	tr->j->meta[id].cause = form == F_RET || form == F_JMP_RM || form == F_CALL_RM ?
		CAUSE_BRANCH : CAUSE_END;
	tr->j->meta[id].i = tr->t[k].i;
	tr->j->meta[id].off = tr->t[k].off;
	return id;
}

static void leave_to_interp(struct tr *tr, unsigned k)
{
	want_cc(tr, ALL_FLAGS);
	jit_emit_exit(tr, jit_meta_insn(tr, META_INTERP, k));
}

/*
 * Most indirect calls lead to one place, and so do jumps through one pointer.  When
 * they leave, the interpreter does all of the instruction.
 */
static void call_rm(struct tr *tr, unsigned k)
{
	uint32_t id = jit_meta_insn(tr, META_INTERP, k), site = jit_site_new(tr, id);

	attention_or_out(tr, id);
	load_target(tr, k);
	jit_site_check(tr, site);
	push_return(tr, k);
	jit_site_go(tr, site, true);
}

static void jmp_rm(struct tr *tr, unsigned k)
{
	const struct insn *i = tr->t[k].i;
	uint32_t id, site;

	if (!(i->flags & INSN_MEM) || i->index != SLOT_ZERO) {
		load_target(tr, k);
		jit_indirect(tr, k, 0);
		return;
	}
	id = jit_meta_insn(tr, META_INTERP, k);
	site = jit_site_new(tr, id);
	attention_or_out(tr, id);
	load_target(tr, k);
	jit_site_check(tr, site);
	jit_site_go(tr, site, false);
}

/* The slow thunk, whose C part does the instruction and finds out where to. */
static void transfer(struct tr *tr, unsigned k)
{
	want_cc(tr, ALL_FLAGS);
	if (jit_system_call(tr, k))
		return;
	e_movi(&tr->e, H_S2, jit_meta_insn(tr, META_TRANSFER, k));
	e_patch(e_jump(&tr->e, -1), tr->j->slow + (tr->j->rw - tr->j->rx));
}

/*
 * Forward the jump itself is linked.  Backward, which mostly is taken, the look at
 * the attention word stands in line; and what leaves the page lies behind the block.
 */
void jit_jcc(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int target = branch_target(t), cc = t->z.opcode & 15, where;
	bool live = jit_target_live(tr, target);
	uint8_t *not_taken;

	want_host(tr);
	where = tr->where;
	if (!in_page(target)) {
		add_tail(tr, (struct tail){ .kind = TAIL_EXIT, .k = k, .where = where,
					    .site = e_jump(&tr->e, cc) });
	} else if (target > t->off) {
		linked(tr, target, cc, live, NULL);
	} else {
		not_taken = e_jump(&tr->e, cc ^ 1);
		linked(tr, target, -1, live, attention_check(tr, live));
		e_patch(not_taken, tr->e.p);
		tr->where = where;
	}
}

void jit_exit_tail(struct tr *tr, const struct tail *tl)
{
	const struct tinsn *t = &tr->t[tl->k];

	tr->where = tl->where;
	direct(tr, t->off, branch_target(t), false);
}

void jit_branch(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];

	if (t->form == F_CALL)
		want_cc(tr, jit_target_live(tr, branch_target(t)));
	else if (t->form != F_JMP && t->form != F_FALL)
		want_cc(tr, ALL_FLAGS);
	switch (t->form) {
	case F_JMP: direct(tr, t->off, branch_target(t), false); break;
	case F_CALL:
		push_return(tr, k);
		direct(tr, t->off, branch_target(t), true);
		break;
	case F_RET: ret(tr, k); break;
	case F_JMP_RM: jmp_rm(tr, k); break;
	case F_CALL_RM: call_rm(tr, k); break;
	case F_TRANSFER: transfer(tr, k); break;
	case F_INTERP: leave_to_interp(tr, k); break;
	default: direct(tr, -1, t->off, false); break;	/* F_FALL */
	}
}
