/* SPDX-License-Identifier: MIT */
/*
 * jit.h - the translator: guest blocks as host code.  docs/cpu.md explains it;
 * src/vmm/soft alone includes it.
 *
 *	block.c	 decodes a block, hands it to jit_hook()
 *	run loop block->insn[0].fn counts, translates, then enters host code
 *	jit_translate.c	 block -> host code, with jit_form.c (what an instruction
 *		 needs), jit_insn.c, jit_exit.c; jit_emit.h is their assembler
 *	jit_site.c	 jumps out of a page, which remember where they led
 *	jit.c	 code area, entry and exit, slow paths, chaining, invalidation
 */
#ifndef SOFT_JIT_H
#define SOFT_JIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/soft/codemem.h"
#include "vmm/soft/insn.h"

/* Use of soft_cpu.scratch[] and aside[]. */
enum jit_scratch {
	JIT_PAGE_VA,	/* virtual address of the page being executed */
	JIT_TARGET,	/* of an indirect branch */
	JIT_CODE,	/* host code of it, while something else is done */
};
enum jit_aside {
	JIT_HOST_RSP,	/* stack of jit_enter()'s caller */
	JIT_RAX,	/* the guest's, while a thunk needs a register */
	JIT_SOURCE,	/* string instructions: host - guest address of their source;
			 * system calls: their record */
};

/* Host rsp while guest code runs: the whole hot part in reach of a disp8. */
#define JIT_BIAS 128

/* Who may run it: level 3 alone, levels below alone, or all. */
enum jit_level { LEVEL_ANY, LEVEL_USER, LEVEL_KERNEL };

/* A translated block.  Lives until the next flush, dead ones too. */
struct jblock {
	struct block *block;	/* borrowed; NULL once dropped */
	const uint8_t *entry_m;	/* expects flags in cpu->cc, or dead ones */
	const uint8_t *entry_h;	/* expects flags in the host's */
	uint8_t *body, *gone;	/* rw: where a drop patches, and to where */
	uint8_t level;		/* enum jit_level */
	int8_t table;		/* enum tlb_mode whose address it knows; -1: cpu->tlb */
};

enum jit_kind {
	META_SLOW,	/* interpret one instruction, go on at `resume` */
	META_INTERP,	/* leave, interpreter goes on with `i` */
	META_LINK,	/* leave to page + off; may be linked */
	META_INDIRECT,	/* leave to scratch[JIT_TARGET] */
	META_LEAVE,	/* leave; cpu->rip is right */
	META_TRANSFER,	/* one that ends its block, then to wherever rip is */
	META_WINDOW,	/* a window's check failed (jit_window.c) */
};

/* Why an instruction of a translated block was interpreted. */
enum jit_cause {
	CAUSE_MEMORY,	/* page not in the TLB or crossed, device, code, or what it stands for */
	CAUSE_BRANCH,	/* target not in the jump cache, or something to attend to */
	CAUSE_STRING, CAUSE_SYSTEM,	/* not in the usual case */
	CAUSE_FAULT,	/* the host's processor refused */
	CAUSE_KIND,	/* never translated */
	CAUSE_END,	/* never translated, and ends its block */
	NR_CAUSES
};

/* What host code says when it calls out: one record a place. */
struct jit_meta {
	uint8_t kind;		/* enum jit_kind */
	uint8_t cause;		/* enum jit_cause */
	bool host_flags;	/* link: guest flags are in the host's */
	uint8_t level;		/* enum jit_level of the code */
	int32_t off;		/* of the instruction or target, from its page */
	const struct insn *i;	/* borrowed from a block that lives as long */
	const uint8_t *resume;	/* rx */
	uint8_t *site;		/* rw: the jump's rel32; NULL: not linkable */
	const uint8_t *stub;	/* rx: where site points when not linked */
	/* windows: [base + lo, + span), first accessed by instruction k of jb */
	struct jblock *jb;
	const uint8_t *careful;	/* rx: the block from there on, access by access */
	int32_t lo;
	uint16_t span;
	uint8_t base;		/* register, or BASE_RIP */
	uint8_t k;
	bool write, dirty;	/* the window writes; its first access does */
};
#define BASE_RIP 16

/* A host instruction that may fault, in address order. */
struct jit_fault {
	uint32_t code, stub;	/* offsets in the code area */
};

/* A jump that leaves its page, or an indirect one: what it found last; jit_site.c. */
struct jit_site {
	uint64_t va;		/* target */
	uint64_t epoch;		/* cpu->link or link_global then; 0: nothing found */
	const uint8_t *host;	/* its code */
	const uint8_t *resume;	/* rx: where a search goes on */
	uint64_t id;		/* record for the way out when there is none */
};

#define JIT_MNEMONICS 2048	/* more than Zydis has */

/* A stretch of the code area that fills from its front; offsets in the area. */
struct jit_lane {
	size_t used, end;
	size_t settled;		/* up to here its writable view has no page tables */
};

struct jit {
	struct codemem code;	/* owned */
	uint8_t *rw;		/* code.rw: after a fork, writes may be slow */
	const uint8_t *rx;	/* code.rx */
	size_t used, thunks;	/* bytes, with all of the last part; thunks survive a flush */
	struct jit_lane hot;	/* of the last part: what usually runs */
	struct jit_lane cold;	/* and what seldom does: misses, exits, links to be made */
	const uint8_t *slow, *exit;	/* thunks, rx */
	const uint8_t *ret_other, *ret_none;	/* thunks; jit_ret.c */
	const uint8_t *syscall, *sysret;	/* thunks; jit_call.c */
	uint32_t (*enter)(struct soft_cpu *cpu, const uint8_t *code);
	struct jit_meta *meta;	/* owned; by id */
	uint32_t nr_meta, thunk_metas;
	struct jblock *jblock;	/* owned */
	uint32_t nr_jblock;
	struct jit_fault *fault;	/* owned */
	uint32_t nr_fault;
	/* Links, apart from what they join and so denser: first into each jblock, next
	 * of each record.  0: of a record that is not linked. */
#define LAST_LINK UINT32_MAX
	uint32_t *first_link, *next_link;	/* owned */
	struct jit_site *site;	/* borrowed from code; in reach of rip + disp32 */
	uint32_t nr_site;
	const uint8_t *find;	/* thunk: jit_site.c */
	uint64_t epoch;		/* grows with every dropped translation */
	uint8_t fp_deny;	/* cpu->fp_deny that translations rely on */
	bool in_slow;		/* jit_slow() runs a handler */
	uint8_t level;		/* enum jit_level of what is being translated */
	bool may_link;		/* the exit just taken */
	uint8_t heat;		/* JIT_HEAT; tests: less */
	uint8_t *altstack;	/* owned: for signals while rsp is not a stack */
	struct insn pair[2];	/* one instruction and a stop */
	const uint8_t *leave;	/* thunk: exit with cpu->rip right */
	const uint8_t *miss;	/* thunk: jump cache entry without host code */
	struct {
		uint64_t careful, translated, guest_bytes, host_bytes, enters, links,
			 flushes, dropped, transfers, interpreted[NR_CAUSES];
	} stat;
	uint64_t by_mnemonic[JIT_MNEMONICS];	/* of CAUSE_KIND and CAUSE_END */
};

#define JIT_CODE_SIZE	(256u << 20)
#define JIT_SETTLE	(512u << 10)	/* see codemem_settle() */
#define JIT_MAX_META	(4u << 20)
#define JIT_MAX_BLOCKS	(1u << 20)
#define JIT_MAX_SITES	(512u << 10)
#define JIT_MAX_FAULTS	(4u << 20)
#define JIT_PART	(4u << 20)	/* the area is taken in parts, each with both lanes */
#define JIT_PART_HOT	(1536u << 10)
#define JIT_BLOCK_ROOM	(64u << 10)	/* more than any block becomes, in either lane */
#define JIT_HEAT	12		/* runs of a block before it is translated */

/* cpu->jit, or NULL where host code cannot be made: the interpreter does it all. */
int jit_init(struct soft_cpu *cpu);
void jit_done(struct soft_cpu *cpu);
/*
 * Around a fork(2) after which the child's CPU goes on with the translations.  -errno.
 */
int jit_fork(struct soft_cpu *cpu);
void jit_forked(struct soft_cpu *cpu);
/* A fresh block: makes its first instruction count runs. */
void jit_hook(struct soft_cpu *cpu, struct block *b);
/* The block goes away; its page's other translations may stay. */
void jit_drop(struct soft_cpu *cpu, struct block *b);
void jit_flush(struct soft_cpu *cpu);
/* An instruction ended by a fault, wherever that was. */
static inline void jit_given_up(struct soft_cpu *cpu)
{
	if (cpu->jit)
		cpu->jit->in_slow = false;
}
/* For jump cache entries of blocks that are not translated. */
const uint8_t *jit_way_out(const struct soft_cpu *cpu);
/* The calling thread is about to run this CPU. */
void jit_thread(struct soft_cpu *cpu);
/*
 * A host signal with this ucontext_t: true when it hit translated code, which
 * then goes on where the interpreter repeats the instruction.  Signal handlers.
 */
bool jit_signal(void *context);

/* jit_ret.c: empties the return cache, of global pages' code too or not. */
void jit_return_forget(struct soft_cpu *cpu, bool global);
struct emit;
void jit_site_thunk(struct jit *j, struct emit *e);
void jit_return_thunk(struct jit *j, struct emit *e);
void jit_return_none_thunk(struct jit *j, struct emit *e);

/* jit_call.c */
void jit_syscall_thunk(struct jit *j, struct emit *e);
void jit_sysret_thunk(struct jit *j, struct emit *e);

static inline enum jit_level jit_level(const struct soft_cpu *cpu)
{
	return cpu->cpl == 3 ? LEVEL_USER : LEVEL_KERNEL;
}

/* jit_translate.c; between fp_save() and fp_load().  NULL: cannot or no room. */
struct jblock *jit_translate(struct soft_cpu *cpu, struct block *b);
/*
 * The block from instruction k on, each access checked by itself, for flags in
 * cpu->cc; where it starts (rx), or NULL.
 */
const uint8_t *jit_translate_careful(struct soft_cpu *cpu, struct jblock *jb, unsigned k);
/* A new record; the caller has seen to the room. */
uint32_t jit_meta_new(struct jit *j, enum jit_kind kind);

#endif
