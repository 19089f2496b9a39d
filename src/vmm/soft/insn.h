/* SPDX-License-Identifier: MIT */
/*
 * insn.h - decoded instructions, basic blocks and the handlers that run them.
 *
 * A handler gets the CPU and the instruction, does it, advances rip and goes to
 * the next one: a tail call where that costs nothing (NEXT), else by
 * returning it to the run loop (`return insn_done(cpu, i)`), which is right for
 * every handler with locals whose address it takes.  NULL means: look the
 * next block up, or see to the attention word.
 */
#ifndef SOFT_INSN_H
#define SOFT_INSN_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/soft/soft.h"

struct ZydisDecodedInstruction_;
struct ZydisDecodedOperand_;

typedef const struct insn *insn_fn(struct soft_cpu *cpu, const struct insn *i);

struct insn {
	insn_fn *fn;
	union {
		uint64_t imm;	/* sign-extended to 64 bits; branch: displacement */
		void *ptr;	/* fp.c: what it prepared */
	};
	union {
		const struct insn *link;	/* direct branch: its target's block */
		uint64_t aux;	/* fp.c: free */
	};
	/* memory operand: base + (index << scale) + disp + seg, as enum soft_slot */
	int32_t disp;
	uint8_t base, index, scale, seg;
	uint8_t rd, rs;		/* registers as byte offsets in gpr[]; AH is 1 */
	uint8_t len;		/* of the instruction */
	uint8_t size;		/* of the operands, in bytes */
	uint16_t mnemonic;	/* ZydisMnemonic */
	uint8_t flags;		/* INSN_* */
	uint8_t cc_use;		/* arithmetic flags read, written: bit per flag, */
	uint8_t cc_def;		/* in LAHF's order, OF in bit 1 */
	uint8_t raw[15];	/* the bytes */
	uint16_t off;		/* from the start of the block */
	uint16_t nr;		/* instructions of the block up to this one */
};
_Static_assert(sizeof(struct insn) == 64, "one cache line an instruction");

#define INSN_MAX	15	/* bytes */

#define INSN_MEM	0x01	/* has a memory operand */
#define INSN_ADDR32	0x02	/* address size prefix */
#define INSN_LOCK	0x04
#define INSN_REP	0x08	/* F3 */
#define INSN_REPNE	0x10	/* F2 */
#define INSN_END	0x20	/* ends its block */
#define INSN_FP		0x40	/* uses x87 or vector state */

/* Where a jump to rip goes; of use while gen is the current epoch. */
struct jump {
	uint64_t rip, gen;
	const struct insn *code;
	const uint8_t *host;	/* translation, or a way out; jit.c */
};
#define JUMP_BITS 14
#define JUMP_SIZE (1u << JUMP_BITS)

static inline unsigned jump_hash(uint64_t rip)
{
	return (rip ^ rip >> 12) & (JUMP_SIZE - 1);
}

/* Decoded instructions that follow each other, all in one page but the first. */
struct block {
	uint64_t gpa;		/* of the first byte */
	uint64_t gpa2;		/* page of a straddling first instruction, else 0 */
	struct block *next_page, *next_page2;
	uint16_t nr;		/* instructions, without the one that ends it */
	uint16_t bytes;
	uint32_t no;		/* counted from the last flush */
	insn_fn *first_fn;	/* insn[0]'s own handler, under jit.c's */
	uint32_t next_line;	/* block.c */
	bool dead;		/* its page was written: runs no more */
	bool shared;		/* run by user code and by the kernel */
	uint64_t pad;
	struct insn insn[];
};
_Static_assert(sizeof(struct block) == 64, "instructions fill cache lines");

/* What changes while a block is merely run. */
struct block_use {
	uint32_t heat : 7;	/* how often it ran, until it is translated; jit.c */
	uint32_t peeked : 1;	/* a translation relies on the flags it uses */
	uint32_t jit : 24;	/* its translation's number from 1, or 0; jit.c */
};
_Static_assert(sizeof(struct block_use) == 4, "dense");

/* A block of which all is in one page: a branch in that page may link it. */
static inline bool block_can_link(const struct insn *first)
{
	return !((const struct block *)(const void *)
		 ((const char *)first - offsetof(struct block, insn)))->gpa2;
}

/* The next instruction, for handlers that cannot tail call. */
static inline const struct insn *insn_done(struct soft_cpu *cpu,
					   const struct insn *i)
{
	cpu->rip += i->len;
	return i + 1;
}

static inline uint64_t insn_ea(const struct soft_cpu *cpu, const struct insn *i)
{
	const char *r = (const char *)cpu->gpr;
	uint64_t ea = *(const uint64_t *)(const void *)(r + i->base) +
		      (*(const uint64_t *)(const void *)(r + i->index) << i->scale) +
		      (int64_t)i->disp;

	if (unlikely(i->flags & INSN_ADDR32))
		ea = (uint32_t)ea;
	return ea + *(const uint64_t *)(const void *)(r + i->seg);
}

/*
 * fp.c: x87, MMX, SSE, AVX, FXSAVE and XSAVE families.  fp_decode() is asked
 * first for each instruction whose operands are not general ones alone; it
 * sets fn (and ptr, aux, INSN_END where the block must end) and returns true
 * when the instruction is its own; memory operand, size, len and raw are filled.
 * It runs between fp_save() and fp_load().
 */
bool fp_decode(struct soft_cpu *cpu, const struct ZydisDecodedInstruction_ *z,
	       const struct ZydisDecodedOperand_ *ops, struct insn *i);
int fp_init(struct soft_cpu *cpu);	/* cpu->fp and the reset state */
void fp_done(struct soft_cpu *cpu);
/* Before a fork(2): -errno; and in the child, in place of fp_init(). */
int fp_fork(struct soft_cpu *cpu);
void fp_inherit(struct soft_cpu *cpu);

/* decode.c: fills i from up to n bytes; 0, or -1 when more bytes are needed.
 * What cannot be decoded gets a handler that raises #UD. */
int insn_decode(struct soft_cpu *cpu, struct insn *i, const uint8_t *p, unsigned n);

/* insn.aux of branches that are far */
#define OP_FAR 0x100

/* block.c */
int blocks_init(struct soft_cpu *cpu);
void blocks_done(struct soft_cpu *cpu);
/* Before and after a fork(2) whose child takes them over by blocks_inherit(). */
void blocks_fork(struct soft_cpu *cpu, bool now);
void blocks_inherit(struct soft_cpu *cpu);
/* The block at cpu->rip, decoded when need be; raises fetch faults. */
const struct insn *block_find(struct soft_cpu *cpu);
/* The same, by a look at the jump cache first. */
static inline const struct insn *block_next(struct soft_cpu *cpu)
{
	const struct jump *j = &cpu->jumps[jump_hash(cpu->rip)];

	if (likely(j->rip == cpu->rip &&
		   (j->gen == cpu->gen || j->gen == cpu->gen_global)))
		return j->code;
	return block_find(cpu);
}
/* One instruction at cpu->rip and an end, not cached. */
const struct insn *block_single(struct soft_cpu *cpu);
/* Somebody wrote to [gpa, gpa + len): decoded code of it is dropped. */
void block_wrote(struct soft_cpu *cpu, uint64_t gpa, uint64_t len);
void blocks_flush(struct soft_cpu *cpu);
struct block_use *block_use(const struct soft_cpu *cpu, const struct block *blk);
/* The block that starts at gpa if it is decoded; it counts as peeked then. */
const struct block *block_peek(struct soft_cpu *cpu, uint64_t gpa);
/* The jump cache forgets this page of guest virtual memory. */
void block_forget_page(struct soft_cpu *cpu, uint64_t va);
/* The jump cache forgets everything. */
void block_forget_all(struct soft_cpu *cpu);

#endif
