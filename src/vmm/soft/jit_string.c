// SPDX-License-Identifier: MIT
/*
 * jit_string.c - MOVS, STOS and LODS within one page of each side, upwards.
 *
 * The pages are looked up before anything moves.  Then the guest's own
 * instruction runs on host addresses: RSI and RDI are moved by the page's distance
 * between guest and host, and back after it.  Small copies are made of this, a few
 * elements or none at a time.  The rest is the interpreter's, from the start of
 * the instruction: DF, counts and addresses that leave the page, 32-bit
 * addresses, pages that are not in the TLB.
 */
#include "vmm/soft/jit_tr.h"

static void slow(struct tr *tr, unsigned k, int cc)
{
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT, .site = e_jump(&tr->e, cc) });
}

static bool repeats(const struct insn *i)
{
	return i->flags & (INSN_REP | INSN_REPNE);
}

/*
 * H_S1: address of one side.  H_S2 becomes host address - guest address.  An
 * offset in a page plus the length, at most a page, is no more than a page
 * when all of it lies there; what is no offset has bits far above.
 */
static void side(struct tr *tr, unsigned k, bool write)
{
	const struct insn *i = tr->t[k].i;
	struct emit *e = &tr->e;

	jit_tlb_offset(tr, write);
	if (repeats(i)) {
		e_lea(e, true, H_S1, H_S1, H_RCX, __builtin_ctz(i->size), 0);
		e_imm(e, true, 7, H_S1, PAGE_SIZE);
	} else {
		e_imm(e, true, 7, H_S1, PAGE_SIZE - i->size);
	}
	slow(tr, k, 7);				/* ja */
	jit_tlb_field(tr, 0x8b, H_S2, offsetof(struct tlb, addend));
}

/* Leaves the distance of the source in `dist`. */
static void source(struct tr *tr, unsigned k, int dist)
{
	struct emit *e = &tr->e;

	e_mov(e, H_S1, H_RSI);
	jit_segment(tr, &tr->t[k]);
	side(tr, k, false);
	if (tr->t[k].i->seg != SLOT_ZERO)
		e_rsp(e, true, 0x03, H_S2, tr->t[k].i->seg == SLOT_FS ? OFF(fs_base) :
									OFF(gs_base));
	if (dist != H_S2)
		e_st(e, OFF(aside[JIT_SOURCE]), H_S2);
}

/* The count: none is done, more than a page is the interpreter's. */
static uint8_t *count(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;
	uint8_t *none;

	e_rr(e, true, 0x85, H_RCX, H_RCX);	/* test */
	none = e_jump(e, 4);
	e_imm(e, true, 7, H_RCX, PAGE_SIZE / tr->t[k].i->size);
	slow(tr, k, 7);
	return none;
}

static void run(struct tr *tr, const struct tinsn *t)
{
	if (repeats(t->i))
		e8(&tr->e, 0xf3);
	if (t->i->size == 2)
		e8(&tr->e, 0x66);
	if (t->i->size == 8)
		e8(&tr->e, 0x48);
	e8(&tr->e, t->z.opcode);
}

void jit_string(struct tr *tr, unsigned k)
{
	const struct tinsn *t = &tr->t[k];
	bool load = jit_string_loads(t), store = jit_string_stores(t);
	int from = store ? H_S1 : H_S2;
	struct emit *e = &tr->e;
	unsigned first = tr->nr_tails;
	uint8_t *none = NULL;

	want_cc(tr, t->before);
	clobber(tr);
	e_rsp(e, false, 0xf6, 0, OFF(rflags) + 1);	/* test byte */
	e8(e, FL_DF >> 8);
	slow(tr, k, 5);
	if (repeats(t->i))
		none = count(tr, k);
	if (load)
		source(tr, k, from);
	if (store) {
		e_mov(e, H_S1, H_RDI);
		side(tr, k, true);
		e_rr(e, true, 0x01, H_RDI, H_S2);	/* add */
	}
	if (load) {
		if (store)
			e_ld(e, H_S1, OFF(aside[JIT_SOURCE]));
		e_rr(e, true, 0x01, H_RSI, from);
	}
	run(tr, t);
	if (load)
		e_rr(e, true, 0x29, H_RSI, from);	/* sub */
	if (store)
		e_rr(e, true, 0x29, H_RDI, H_S2);
	if (none)
		e_patch(none, e->p);
	for (unsigned n = first; n < tr->nr_tails; n++)
		tr->tail[n].resume = e->p;
}
