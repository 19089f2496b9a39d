// SPDX-License-Identifier: MIT
/*
 * jit_translate.c - one guest block into host code.
 *
 * Registers.  A guest register lives in the host register of the same number,
 * except rsp (host r9) and r9, r10, r11, the ones compilers use least, which stay
 * in struct soft_cpu.  Host r10 and r11 are scratch, host rsp points at the
 * struct.  Instructions are copied with their registers renamed and their memory
 * operand replaced by [r10], the host address (recode.c).
 *
 * Memory.  Address into r10; r11 = its TLB slot; r10 ^= tag gives the offset in
 * the page on a hit and something large on a miss, so that one unsigned compare
 * with (page size - operand size) catches misses and page crossings; adding the
 * host page gives the host address.  Anything but a hit interprets that
 * one instruction and comes back behind it.  In blocks for CPL 3 alone, and in kernel
 * code up to STAC or CLAC, the table's address is rsp plus a constant; elsewhere it is
 * cpu->tlb.
 *
 * Flags.  The guest's are in the host's (HOST), in cpu->cc (CC) or in both.  The
 * TLB check destroys the host's, so flags that are live across it are saved first,
 * and loaded again when an instruction wants them.  A block has two entries, one
 * for each place its predecessor left them in; the one that does not fit what the
 * body expects converts and falls through.  At the end of a block all flags count
 * as live, unless the successor is in the same page and sets them before use.
 *
 * Addresses.  Nothing in host code holds a guest virtual address: rip is the page
 * being executed (scratch[JIT_PAGE_VA]) plus a constant, so that one translation
 * serves every process that maps the page.
 *
 * A fault sees precise registers and memory.  Arithmetic flags in the pushed RFLAGS
 * may be stale when the block sets them again before any use: nothing that
 * returns to the instruction can tell.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/jit_tr.h"

#define GONE_SIZE 5	/* of the jump that jit_drop() writes */

static enum jit_cause cause_of(const struct tinsn *t, const struct tail *tl)
{
	if (!tl->site)
		return CAUSE_FAULT;
	switch (t->form) {
	case F_RET: case F_JMP_RM: case F_CALL_RM: return CAUSE_BRANCH;
	case F_STRING: return CAUSE_STRING;
	case F_SYS: return CAUSE_SYSTEM;
	default: return CAUSE_MEMORY;
	}
}

static void emit_slow(struct tr *tr, const struct tail *tl)
{
	const struct tinsn *t = &tr->t[tl->k];
	struct jit *j = tr->j;
	uint32_t id = jit_meta_new(j, tl->resume ? META_SLOW : META_INTERP);
	struct jit_meta *m = &j->meta[id];

	if (tl->fault != NO_FAULT)
		j->fault[tl->fault].stub = (uint32_t)(tr->e.p - j->rw);
	if (tl->live && !(tl->where & IN_CC))
		e_flags_save(&tr->e);
	m->cause = cause_of(t, tl);
	m->i = t->i;
	m->off = t->off;
	if (!tl->resume) {
		jit_emit_exit(tr, id);
		return;
	}
	m->resume = j->rx + (tl->resume - j->rw);
	e_movi(&tr->e, H_S2, id);
	e_patch(e_jump(&tr->e, -1), j->slow + (j->rw - j->rx));
}

static void emit_tails(struct tr *tr, bool hot)
{
	for (unsigned n = 0; n < tr->nr_tails; n++) {
		const struct tail tl = tr->tail[n];

		if ((tl.kind == TAIL_EXIT) != hot)
			continue;
		if (tl.site)
			e_patch(tl.site, tr->e.p);
		switch (tl.kind) {
		case TAIL_SLOW: emit_slow(tr, &tl); break;
		case TAIL_WINDOW: jit_window_tail(tr, &tl); break;
		case TAIL_LINK: jit_link_tail(tr, &tl); break;
		case TAIL_SITE: jit_site_tail(tr, &tl); break;
		case TAIL_OUT: jit_emit_exit(tr, tl.id); break;
		case TAIL_RETURN: jit_return_tail(tr, &tl); break;
		case TAIL_EXIT: jit_exit_tail(tr, &tl); break;
		}
	}
}

/* Where the next code of a lane goes. */
static uint8_t *lane_start(const struct jit *j, const struct jit_lane *l)
{
	return j->rw + ALIGN_UP(l->used, (size_t)16);
}

static void lane_took(struct jit *j, struct jit_lane *l, const uint8_t *end)
{
	size_t used = (size_t)(end - j->rw);

	j->stat.host_bytes += used - l->used;
	l->used = used;
}

/* What follows the instructions, and what lies apart. */
static void emit_rest(struct tr *tr)
{
	struct jit *j = tr->j;

	emit_tails(tr, true);
	lane_took(j, &j->hot, tr->e.p);
	tr->e.p = j->rw + j->cold.used;
	emit_tails(tr, false);
}

/* STAC and CLAC choose another table in the midst of a block. */
static void find_first_ac(struct tr *tr)
{
	for (tr->first_ac = 0; tr->first_ac < tr->n; tr->first_ac++) {
		ZydisMnemonic m = tr->t[tr->first_ac].z.mnemonic;

		if (m == ZYDIS_MNEMONIC_STAC || m == ZYDIS_MNEMONIC_CLAC)
			break;
	}
}

/*
 * jit_drop() puts a jump over the body's start, where none may be that is linked, and
 * unlinked, after that.
 */
static void clear_of_start(struct tr *tr)
{
	struct emit *e = &tr->e;

	if (e->p == tr->jb->body) {
		e8(e, 0x0f); e8(e, 0x1f); e8(e, 0x44); e8(e, 0x00); e8(e, 0x00); /* nop */
	}
	while (e->p - tr->jb->body < GONE_SIZE)
		e8(e, 0x90);
}

static void emit(struct tr *tr, unsigned k)
{
	tr->table = k <= tr->first_ac ? tr->jb->table : -1;
	if (tr->t[k].form >= F_JCC)
		clear_of_start(tr);
	if (tr->t[k].form == F_JCC)
		jit_jcc(tr, k);
	else if (tr->t[k].form > F_JCC)
		jit_branch(tr, k);
	else
		jit_insn(tr, k);
}

/* Decodes again for the operands; stops where the interpreter must go on. */
static void gather(struct tr *tr)
{
	struct block *b = tr->b;
	ZydisDecoder d;
	int off = tr->page_off;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (unsigned k = 0; k < b->nr && tr->n < MAX_INSNS - 1; k++) {
		struct tinsn *t = &tr->t[tr->n++];

		*t = (struct tinsn){ .i = &b->insn[k], .off = off,
				     .operand.window = -1, .stack.window = -1 };
		jit_analyse(&d, t, tr->j->fp_deny);
		off += t->i->len;
		if (t->form >= F_JMP)
			return;
	}
	tr->t[tr->n++] = (struct tinsn){ .form = F_FALL, .off = off,
					 .i = &b->insn[b->nr], .use = ALL_FLAGS };
}

/* Does the block's last instruction surely lead to code that sets the flags? */
static bool dead_at_end(struct tr *tr, const struct tinsn *t)
{
	if (t->form == F_FALL)
		return !jit_target_live(tr, t->off);
	return (t->form == F_JMP || t->form == F_CALL) &&
	       !jit_target_live(tr, branch_target(t));
}

static void liveness(struct tr *tr)
{
	uint8_t live = ALL_FLAGS;

	if (dead_at_end(tr, &tr->t[tr->n - 1])) {
		live = 0;
		tr->t[tr->n - 1].use = 0;
	}
	for (unsigned k = tr->n; k-- > 0;) {
		struct tinsn *t = &tr->t[k];

		if (t->form == F_JCC && jit_target_live(tr, branch_target(t)))
			live = ALL_FLAGS;
		t->after = live;
		live = (live & ~t->kill) | t->use;
		t->before = live;
	}
}

/* Does anything destroy the host's flags before an instruction wants them? */
static bool body_wants_cc(const struct tr *tr)
{
	for (unsigned k = 0; k < tr->n; k++) {
		const struct tinsn *t = &tr->t[k];

		if (t->form == F_COPY && !t->msize) {
			if (t->use || t->def)
				return false;
		} else if (t->form == F_JCC) {
			return false;
		} else if (t->form != F_LEA && t->form != F_NOP && t->form != F_PAUSE &&
			   t->form != F_RAW &&
			   t->form != F_FALL &&
			   t->form != F_JMP) {
			return true;
		}
	}
	return false;
}

static void entries(struct tr *tr, struct jblock *jb)
{
	struct jit *j = tr->j;
	uint8_t *alt = tr->e.p;

	if (!tr->t[0].before) {
		tr->where = IN_CC;
	} else if (body_wants_cc(tr)) {
		e_flags_save(&tr->e);
		tr->where = IN_CC;
	} else {
		e_flags_load(&tr->e);
		tr->where = IN_HOST;
	}
	jb->entry_m = jb->entry_h = j->rx + (tr->e.p - j->rw);
	if (tr->t[0].before && tr->where == IN_CC)
		jb->entry_h = j->rx + (alt - j->rw);
	else if (tr->t[0].before)
		jb->entry_m = j->rx + (alt - j->rw);
	jb->body = tr->e.p;
}

/* What a dropped block's body starts with a jump to: look it up again. */
static void emit_gone(struct tr *tr, struct jblock *jb, bool save)
{
	struct jit *j = tr->j;
	uint32_t id = jit_meta_new(j, META_LINK);

	j->meta[id].off = tr->page_off;
	jb->gone = tr->e.p;
	if (save)
		e_flags_save(&tr->e);
	jit_emit_exit(tr, id);
}

/*
 * Kernel code that is translated with AC clear looks in the table without user pages.
 * Where it runs with AC set, that lacks what it wants but has nothing it must not reach.
 */
static int known_table(const struct soft_cpu *cpu, enum jit_level level)
{
	if (level == LEVEL_USER)
		return TLB_USER;
	return level == LEVEL_KERNEL && cpu->tlb == &cpu->mmu.tlb[TLB_KERNEL] ? TLB_KERNEL : -1;
}

struct jblock *jit_translate(struct soft_cpu *cpu, struct block *b)
{
	struct jit *j = cpu->jit;
	struct tinsn t[MAX_INSNS];
	struct tr tr = { .j = j, .cpu = cpu, .b = b, .t = t,
			 .e.p = lane_start(j, &j->hot),
			 .page_off = b->gpa & (PAGE_SIZE - 1) };
	struct jblock *jb;
	bool host;

	gather(&tr);
	if (t[0].form == F_INTERP)
		return NULL;
	liveness(&tr);
	find_first_ac(&tr);
	jb = &j->jblock[j->nr_jblock++];
	jb->block = b;
	jb->level = j->level = b->shared ? LEVEL_ANY : jit_level(cpu);
	jb->table = known_table(cpu, jb->level);
	tr.jb = jb;
	jit_plan_windows(&tr);
	j->first_link[jb - j->jblock] = LAST_LINK;
	entries(&tr, jb);
	host = tr.where & IN_HOST;
	for (unsigned k = 0; k < tr.n; k++)
		emit(&tr, k);
	emit_rest(&tr);
	emit_gone(&tr, jb, host);
	lane_took(j, &j->cold, tr.e.p);
	j->stat.translated++;
	j->stat.guest_bytes += b->bytes;
	return jb;
}

const uint8_t *jit_translate_careful(struct soft_cpu *cpu, struct jblock *jb, unsigned k)
{
	struct jit *j = cpu->jit;
	struct block *b = jb->block;
	struct tinsn t[MAX_INSNS];
	struct tr tr = { .j = j, .cpu = cpu, .b = b, .jb = jb, .t = t,
			 .e.p = lane_start(j, &j->hot),
			 .where = IN_CC, .page_off = b->gpa & (PAGE_SIZE - 1) };
	const uint8_t *start = j->rx + (tr.e.p - j->rw);

	j->level = jb->level;
	gather(&tr);
	liveness(&tr);
	find_first_ac(&tr);
	for (; k < tr.n; k++)
		emit(&tr, k);
	emit_rest(&tr);
	lane_took(j, &j->cold, tr.e.p);
	j->stat.careful++;
	return start;
}
