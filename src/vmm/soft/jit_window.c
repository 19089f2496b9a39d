// SPDX-License-Identifier: MIT
/*
 * jit_window.c - one look into the TLB for several accesses.
 *
 * A window is what a block accesses through one base, a register with one value
 * (plus constants that the block itself adds: PUSH, POP, ADD, LEA) or the page of
 * code it runs in: a range of bytes around that base, and whether any is
 * written.  The first access of a window checks all of the range: one page, that
 * the TLB has, with write permission if the window writes.  It leaves the distance
 * from guest to host in cpu->window[].  All accesses through the window, the
 * first one too, then use [distance + base + displacement]: no check, and flags are
 * left alone.
 *
 * Why that is sound.  Code of a block is a straight line and is entered at its
 * start, so the check comes before all that relies on it; but for an instruction
 * with two accesses, whose first may send it to the interpreter and on behind itself:
 * its second makes no check that others rely on.  The check changes
 * nothing a guest sees but TLB entries of the page that its first access touches
 * anyhow.  What it found holds until the TLB loses or narrows entries, which only
 * this thread does: between blocks, or in an instruction that is interpreted on
 * the way.  Each such occasion counts in mmu.narrowed, and jit_slow() leaves the
 * block when that changed.  (An entry that merely gives way to another one stays true:
 * the TLB may keep a translation until it is flushed.)
 *
 * When the check fails, jit_slow() brings the page in if that takes no more than a
 * walk, and the check is made again.  Else (the range crosses a page's end, or part of
 * it may not be accessed, perhaps one that would not have been) the block goes on in
 * a second translation of its rest, made at that moment, where each access
 * is checked by itself.
 *
 * Constants and globals next to code: the page of a window based on rip is known
 * but for the page of the code, so it is all one page or none.
 */
#include "vmm/soft/jit_tr.h"

#define SPAN 512	/* bytes a window spans at most: they cross a page now and then */

struct plan {
	struct tr *tr;
	int now[16];		/* the window through each register; -1: none */
	int64_t added[16];	/* to the register since its last other write */
	unsigned rip;		/* windows based on rip from this one on */
};

static struct window *new_window(struct tr *tr, uint8_t base)
{
	if (tr->nr_windows == NR_WINDOWS)
		return NULL;
	tr->window[tr->nr_windows] = (struct window){ .base = base };
	return &tr->window[tr->nr_windows++];
}

static void join(struct tr *tr, struct access *a, struct window *w, bool write)
{
	w->members++;
	w->write |= write;
	a->window = w - tr->window;
}

static void plan_rip(struct plan *p, struct access *a, int at, unsigned size, bool write)
{
	struct tr *tr = p->tr;
	int page = at & ~(PAGE_SIZE - 1);
	struct window *w = NULL;

	if (at + (int)size > page + (int)PAGE_SIZE)
		return;
	for (unsigned n = p->rip; n < tr->nr_windows && !w; n++)
		if (tr->window[n].base == BASE_RIP && tr->window[n].lo == page)
			w = &tr->window[n];
	if (!w)
		w = new_window(tr, BASE_RIP);
	if (!w)
		return;
	w->lo = page;
	w->hi = page + (int)PAGE_SIZE;
	join(tr, a, w, write);
}

/* An access of size bytes at register + at. */
static void plan_access(struct plan *p, struct access *a, unsigned reg, int at, unsigned size,
			bool write)
{
	int64_t lo = p->added[reg] + at, hi = lo + size;
	struct window *w = NULL;

	if (p->now[reg] >= 0) {
		w = &p->tr->window[p->now[reg]];
		if (MAX(hi, w->hi) - MIN(lo, w->lo) > SPAN)
			w = NULL;
	}
	if (!w) {
		w = new_window(p->tr, reg);
		if (!w)
			return;
		w->lo = lo;
		w->hi = hi;
		p->now[reg] = w - p->tr->window;
	}
	w->lo = MIN(lo, w->lo);
	w->hi = MAX(hi, w->hi);
	a->added = p->added[reg];
	join(p->tr, a, w, write);
}

static void forget(struct plan *p, unsigned reg)
{
	p->now[reg] = -1;
	p->added[reg] = 0;
}

static void forget_all(struct plan *p)
{
	for (unsigned r = 0; r < 16; r++)
		forget(p, r);
	p->rip = p->tr->nr_windows;
}

static void add(struct plan *p, unsigned reg, int64_t n)
{
	p->added[reg] += n;
	if (p->added[reg] != (int32_t)p->added[reg])
		forget(p, reg);
}

/* ADD, SUB, INC, DEC of a whole register by a constant. */
static bool adds_constant(const struct tinsn *t, int64_t *n)
{
	bool imm = t->ops[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	if (t->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || t->ops[0].size != 64)
		return false;
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADD: *n = t->ops[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_SUB: *n = -t->ops[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_INC: *n = 1; return true;
	case ZYDIS_MNEMONIC_DEC: *n = -1; return true;
	default: return false;
	}
}

static void forget_written(struct plan *p, const struct tinsn *t)
{
	for (unsigned k = 0; k < t->z.operand_count; k++) {
		const ZydisDecodedOperand *o = &t->ops[k];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE &&
		    ZydisRegisterGetClass(o->reg.value) >= ZYDIS_REGCLASS_GPR8 &&
		    ZydisRegisterGetClass(o->reg.value) <= ZYDIS_REGCLASS_GPR64)
			forget(p, ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
				ZYDIS_MACHINE_MODE_LONG_64, o->reg.value)));
	}
}

/* What the instruction does to registers. */
static void plan_registers(struct plan *p, const struct tinsn *t)
{
	const struct insn *i = t->i;
	int64_t n;

	switch (t->form) {
	case F_NOP: case F_PAUSE: case F_RAW: case F_JCC: case F_BT:
		break;
	case F_COPY:
		if (adds_constant(t, &n))
			add(p, i->rd / 8, n);
		else
			forget_written(p, t);
		break;
	case F_LEA:
		if (i->base == i->rd && i->index == SLOT_ZERO &&
		    t->z.operand_width == 64 && !(i->flags & INSN_ADDR32))
			add(p, i->rd / 8, i->disp);
		else
			forget(p, i->rd / 8);
		break;
	case F_PUSH: case F_PUSHF:
		add(p, X86_RSP, -8);
		break;
	case F_POP:
		add(p, X86_RSP, 8);
		forget(p, ZydisRegisterGetId(t->ops[0].reg.value));
		break;
	default:	/* CLAC and STAC change what may be accessed */
		forget_all(p);
	}
}

static void plan_operand(struct plan *p, struct tinsn *t, unsigned size, bool write)
{
	const struct insn *i = t->i;

	if (i->index != SLOT_ZERO || i->seg != SLOT_ZERO || i->flags & INSN_ADDR32)
		return;
	if (i->base == SLOT_RIP)
		plan_rip(p, &t->operand, i->disp + t->off, size, write);
	else if (i->base != SLOT_ZERO)
		plan_access(p, &t->operand, i->base / 8, i->disp, size, write);
}

static void plan_insn(struct plan *p, struct tinsn *t)
{
	switch (t->form) {
	case F_COPY:
		if (t->msize)
			plan_operand(p, t, t->msize, t->write);
		break;
	case F_PUSH: case F_PUSHF: case F_CALL:
		if (t->form == F_PUSH && t->i->flags & INSN_MEM)
			plan_operand(p, t, 8, false);
		plan_access(p, &t->stack, X86_RSP, -8, 8, true);
		break;
	case F_POP: case F_RET:
		plan_access(p, &t->stack, X86_RSP, 0, 8, false);
		break;
	case F_LEAVE:
		plan_access(p, &t->operand, X86_RBP, 0, 8, false);
		break;
	case F_JMP_RM: case F_CALL_RM:
		if (t->i->flags & INSN_MEM)
			plan_operand(p, t, 8, false);
		if (t->form == F_CALL_RM)
			plan_access(p, &t->stack, X86_RSP, -8, 8, true);
		break;
	default:
		break;
	}
}

void jit_plan_windows(struct tr *tr)
{
	struct plan p = { .tr = tr };

	forget_all(&p);
	for (unsigned k = 0; k < tr->n; k++) {
		plan_insn(&p, &tr->t[k]);
		plan_registers(&p, &tr->t[k]);
	}
}

/* --- emission --------------------------------------------------------------------- */

static unsigned span(const struct window *w)
{
	return (unsigned)(w->hi - w->lo);
}

/* The window's first access; leaves the distance in H_S1. */
static void check(struct tr *tr, unsigned k, struct window *w, const struct access *a,
		  bool write)
{
	struct emit *e = &tr->e;
	int lo = (int)(w->lo - a->added);
	const uint8_t *start;
	bool rip = w->base == BASE_RIP;

	want_cc(tr, tr->t[k].before);
	clobber(tr);
	start = e->p;
	if (rip)
		e_ld(e, H_S1, OFF(scratch[JIT_PAGE_VA]));
	if (!rip || lo)
		e_lea(e, true, H_S1, rip ? H_S1 : guest_reg(tr, w->base, H_S1), -1, 0, lo);
	jit_tlb_offset(tr, w->write);
	if (!rip)
		e_imm(e, true, 7, H_S1, PAGE_SIZE - span(w));
	add_tail(tr, (struct tail){ .kind = TAIL_WINDOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT, .resume = start, .lo = lo,
				    .window = w, .live = write,
				    .site = e_jump(e, rip ? 5 : 7) });
	jit_tlb_field(tr, 0x8b, H_S1, rip ? offsetof(struct tlb, host) :
					    offsetof(struct tlb, addend));
	e_st(e, OFF(window) + (int)(w - tr->window) * 8, H_S1);
	w->ready = true;
}

/* May this instruction have been interpreted by a check of its own before here? */
static bool may_be_skipped(const struct tr *tr, unsigned k)
{
	const struct tail *last = tr->nr_tails ? &tr->tail[tr->nr_tails - 1] : NULL;

	return last && last->k == k && last->kind == TAIL_SLOW;
}

/*
 * Host address of the access through its window, if it has one.  at: displacement
 * from the base, now.
 */
static bool through_window(struct tr *tr, unsigned k, const struct access *a, int at,
			   bool write, struct addr *to)
{
	struct window *w = a->window < 0 ? NULL : &tr->window[a->window];
	int base;

	if (!w || w->members < 2 || (!w->ready && may_be_skipped(tr, k)))
		return false;
	if (!w->ready)
		check(tr, k, w, a, write);
	else if (tr->held_at != tr->e.p || tr->held != a->window)
		e_ld(&tr->e, H_S1, OFF(window) + a->window * 8);
	*to = (struct addr){ .base = H_S1, .index = -1, .disp = at, .held = a->window };
	if (w->base == BASE_RIP) {
		to->disp = at - (int)w->lo;
		return true;
	}
	base = guest_reg(tr, w->base, H_S2);
	if (base != H_S2) {
		to->index = base;
		return true;
	}
	e_lea(&tr->e, true, H_S1, H_S1, H_S2, 0, 0);
	to->held = -1;
	return true;
}

/*
 * H_S1: guest address, checked by itself.  The operand keeps its own index, where it
 * has a register that can be one: then the host address does not wait for the
 * check's arithmetic.
 */
static struct addr checked(struct tr *tr, unsigned k, bool write, unsigned size,
			   const struct addr *form)
{
	struct addr a = { .base = H_S1, .index = -1, .held = -1 };

	if (form->index >= 0)
		a = *form;
	a.tail = jit_access(tr, k, write, size, a.index >= 0);
	return a;
}

/* [base + disp] of a register that is the host's, or [index * scale + disp]. */
static struct addr operand_form(const struct insn *i)
{
	struct addr a = { .base = H_S1, .index = -1, .disp = i->disp, .held = -1 };

	if (i->seg != SLOT_ZERO || i->flags & INSN_ADDR32 || i->base == SLOT_RIP)
		return a;
	if (i->index == SLOT_ZERO && i->base != SLOT_ZERO) {
		a.index = host_of[i->base / 8];
	} else if (i->index != SLOT_ZERO && i->base == SLOT_ZERO) {
		a.index = host_of[i->index / 8];
		a.scale = i->scale;
	}
	return a;
}

struct addr jit_operand(struct tr *tr, unsigned k, bool write, unsigned size)
{
	struct tinsn *t = &tr->t[k];
	int at = t->i->disp + (t->i->base == SLOT_RIP ? t->off : 0);
	struct addr form = operand_form(t->i), to;

	if (through_window(tr, k, &t->operand, at, write, &to)) {
		to.tail = NO_TAIL;
		return to;
	}
	want_cc(tr, t->before);
	jit_ea(tr, t, H_S1, true);
	jit_segment(tr, t);
	return checked(tr, k, write, size, &form);
}

/* Eight bytes at a register that is the host's. */
static struct addr at_register(struct tr *tr, unsigned k, const struct access *a, int reg,
			       int at, bool write)
{
	struct addr form = { .base = H_S1, .index = reg, .disp = at, .held = -1 }, to;

	if (through_window(tr, k, a, at, write, &to)) {
		to.tail = NO_TAIL;
		return to;
	}
	want_cc(tr, tr->t[k].before);
	if (at)
		e_lea(&tr->e, true, H_S1, reg, -1, 0, at);
	else
		e_mov(&tr->e, H_S1, reg);
	return checked(tr, k, write, 8, &form);
}

struct addr jit_stack(struct tr *tr, unsigned k, int at, bool write)
{
	return at_register(tr, k, &tr->t[k].stack, HOST_GUEST_RSP, at, write);
}

struct addr jit_frame(struct tr *tr, unsigned k)
{
	return at_register(tr, k, &tr->t[k].operand, H_RBP, 0, false);
}

/* The second translation is put here once it is made; until then jit_slow(). */
void jit_window_tail(struct tr *tr, const struct tail *tl)
{
	const struct tinsn *t = &tr->t[tl->k];
	const struct window *w = tl->window;
	struct jit *j = tr->j;
	struct emit *e = &tr->e;
	uint32_t id = jit_meta_new(j, META_WINDOW);
	struct jit_meta *m = &j->meta[id];
	uint8_t *fits;

	*m = (struct jit_meta){ .kind = META_WINDOW, .i = t->i, .off = t->off,
				.resume = j->rx + (tl->resume - j->rw), .jb = tr->jb,
				.base = w->base, .write = w->write, .dirty = tl->live,
				.k = tl->k, .lo = tl->lo, .span = span(w) };
	if (w->base != BASE_RIP) {
		/* the offset in the page is what the check has left */
		e_imm(e, false, 4, H_S1, PAGE_SIZE - 1);
		e_imm(e, false, 7, H_S1, PAGE_SIZE - span(w));
		fits = e_jump(e, 6);		/* jbe */
		m->site = e_jump(e, -1);
		e_patch(m->site, e->p);
		e_patch(fits, e->p);
	}
	e_movi(e, H_S2, id);
	e_patch(e_jump(e, -1), j->slow + (j->rw - j->rx));
}
