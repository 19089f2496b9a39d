/* SPDX-License-Identifier: MIT */
/*
 * jit_tr.h - a block being translated; what jit_translate.c, jit_insn.c and
 * jit_exit.c share and nobody else includes.
 */
#ifndef SOFT_JIT_TR_H
#define SOFT_JIT_TR_H

#include "vmm/soft/jit_form.h"

#define MAX_INSNS 72		/* above what block.c makes */

/* Where the guest's arithmetic flags are. */
enum { IN_HOST = 1, IN_CC = 2 };

/* jit_window.c */
#define NR_WINDOWS 16
struct window {
	uint8_t base;		/* register, or BASE_RIP */
	bool write, ready;	/* ready: checked by now */
	unsigned members;
	int64_t lo, hi;		/* from the base, where the reckoning began */
};

/* Code that lies behind the block's own, or elsewhere: in the cold lane. */
struct tail {
	enum { TAIL_SLOW, TAIL_WINDOW, TAIL_LINK, TAIL_RETURN, TAIL_SITE, TAIL_OUT,
	       TAIL_EXIT,	/* hot */
	} kind;
	uint8_t *site;		/* rel32 that leads here */
	unsigned k;		/* instruction */
	const uint8_t *resume;	/* SLOW, WINDOW: rw address to go on at */
	int where;		/* flags at site */
	bool live;		/* SLOW without a site: are they wanted; WINDOW: writes */
	int lo;			/* WINDOW: its start, from the base now */
	int target;		/* LINK: offset from the page; site is what may be linked */
	uint8_t *check;		/* LINK, SITE: another rel32 that leads here, or NULL */
	uint32_t id;		/* SITE: its number; OUT: record to leave with */
	const struct window *window;
	uint32_t fault;		/* its record, or NO_FAULT */
};
#define NO_FAULT UINT32_MAX

struct tr {
	struct emit e;
	struct jit *j;
	struct soft_cpu *cpu;
	struct block *b;
	struct jblock *jb;
	struct tinsn *t;	/* MAX_INSNS */
	unsigned n;
	int where;		/* IN_HOST | IN_CC at this point */
	struct tail tail[4 * MAX_INSNS + 8];	/* a REP MOVS has four */
	unsigned nr_tails;
	int page_off;		/* of the block in its page */
	int table;		/* of the instruction being emitted, as jblock.table */
	unsigned first_ac;	/* behind this one RFLAGS.AC may be another */
	struct window window[NR_WINDOWS];
	unsigned nr_windows;
	int held;		/* H_S1 holds this window's distance ... */
	const uint8_t *held_at;	/* ... for code that goes here */
};

static inline void want_cc(struct tr *tr, uint8_t live)
{
	if (live && !(tr->where & IN_CC)) {
		e_flags_save(&tr->e);
		tr->where |= IN_CC;
	}
}

/* The host's flags are about to be destroyed. */
static inline void clobber(struct tr *tr)
{
	tr->where = IN_CC;
}

static inline void want_host(struct tr *tr)
{
	if (!(tr->where & IN_HOST)) {
		e_flags_load(&tr->e);
		tr->where |= IN_HOST;
	}
}

static inline void add_tail(struct tr *tr, struct tail t)
{
	tr->tail[tr->nr_tails++] = t;
}

/* Host register that holds guest register r; loads a spilled one into tmp. */
static inline int guest_reg(struct tr *tr, int r, int tmp)
{
	if (host_of[r] >= 0)
		return host_of[r];
	e_ld(&tr->e, tmp, OFF_GPR(r));
	return tmp;
}

/* jit_insn.c */
/* The memory operand's linear address, into dst; uses H_S2. */
void jit_ea(struct tr *tr, const struct tinsn *t, int dst, bool w);
/* H_S1: the segment's base is added where the operand has one.  Destroys flags. */
void jit_segment(struct tr *tr, const struct tinsn *t);
/*
 * H_S1: guest virtual address -> host address, or the distance to it; destroys flags
 * and H_S2.  A miss interprets instruction k; returns its tail's index.
 */
unsigned jit_access(struct tr *tr, unsigned k, bool write, unsigned size, bool distance);
/*
 * H_S1: guest virtual address -> its offset in its page when the TLB has that, else
 * a number with bits above 4095 + 4096 set.  H_S2: the entry, for jit_tlb_field().
 * Destroys flags.
 */
void jit_tlb_offset(struct tr *tr, bool write);
/* op reg, the field (an offset in struct tlb) of the entry */
void jit_tlb_field(struct tr *tr, uint8_t op, int reg, size_t field);
/* Where an access goes, on the host. */
struct addr {
	int base, index;	/* index -1: none */
	unsigned scale;
	int32_t disp;
	int held;		/* the window whose distance is in H_S1; -1 */
	unsigned tail;		/* of its check; NO_TAIL */
};
#define NO_TAIL UINT32_MAX

/* op reg, [a] */
static inline void e_at(struct emit *e, bool w, uint8_t op, int reg, const struct addr *a)
{
	e_memx(e, w, op, reg, a->base, a->index, a->scale, a->disp);
}

/*
 * The instruction that used a is done; its tail, if any, goes on here, and then
 * H_S1 holds nothing.
 */
static inline void access_done(struct tr *tr, const struct addr *a)
{
	if (a->tail != NO_TAIL)
		tr->tail[a->tail].resume = tr->e.p;
	tr->held = a->tail == NO_TAIL ? a->held : -1;
	tr->held_at = tr->e.p;
}

/* jit_window.c */
void jit_plan_windows(struct tr *tr);
/* The operand of instruction k; flags survive when it lies in a window. */
struct addr jit_operand(struct tr *tr, unsigned k, bool write, unsigned size);
/* Eight bytes at rsp + at. */
struct addr jit_stack(struct tr *tr, unsigned k, int at, bool write);
/* Eight bytes to read at rbp. */
struct addr jit_frame(struct tr *tr, unsigned k);
void jit_window_tail(struct tr *tr, const struct tail *tl);
/* jit_string.c */
void jit_string(struct tr *tr, unsigned k);
/* One instruction that does not end the block. */
void jit_insn(struct tr *tr, unsigned k);

/* jit_sys.c: F_SYS */
void jit_sys(struct tr *tr, unsigned k);

/* jit_exit.c: one that does, or the way on where the block just stops. */
void jit_branch(struct tr *tr, unsigned k);
void jit_jcc(struct tr *tr, unsigned k);
void jit_exit_tail(struct tr *tr, const struct tail *tl);
/*
 * Looks H_S1 up in the jump cache: H_S2 points at the entry.  Destroys H_S1; the
 * misses' rel32 are the caller's to fill in.
 */
#define JIT_MISSES 2
void jit_emit_lookup(struct emit *e, uint8_t *miss[JIT_MISSES]);
/* Only the entry and whether it is of that address: for modes to come. */
uint8_t *jit_emit_slot(struct emit *e);
/* To H_S1 by the jump cache, or the interpreter does k; takes pop bytes off. */
void jit_indirect(struct tr *tr, unsigned k, int pop);
/* A jump, or an address (rel32), that is not linked yet leads here. */
void jit_link_tail(struct tr *tr, const struct tail *tl);
/* A record about instruction k. */
uint32_t jit_meta_insn(struct tr *tr, enum jit_kind kind, unsigned k);

/* jit_call.c: SYSCALL, SYSRET with flags in cpu->cc; false: another instruction */
bool jit_system_call(struct tr *tr, unsigned k);
/* jit_site.c: id: the record to leave with when the search finds no host code. */
uint32_t jit_site_new(struct tr *tr, uint32_t id);
/* H_S1: the target, still there afterwards, when the site surely leads there. */
void jit_site_check(struct tr *tr, uint32_t site);
/* To H_S1, which the check has passed; or after H_S1 was lost since. */
void jit_site_go(struct tr *tr, uint32_t site, bool lost);
void jit_site_tail(struct tr *tr, const struct tail *tl);

/* jit_ret.c: the return cache */
void jit_return_push(struct tr *tr, unsigned k);
void jit_return(struct tr *tr, unsigned k, int n);
void jit_return_tail(struct tr *tr, const struct tail *tl);

/* To where only the run loop knows. */
void jit_emit_exit(struct tr *tr, uint32_t id);
/* Are flags wanted at this offset of our page?  Only a decoded block tells. */
bool jit_target_live(struct tr *tr, int target);

static inline int branch_target(const struct tinsn *t)
{
	return t->off + t->i->len + (int)(int64_t)t->i->imm;
}

#endif
