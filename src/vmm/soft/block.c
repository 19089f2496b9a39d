// SPDX-License-Identifier: MIT
/*
 * block.c - decoded code: building blocks, finding them, dropping them.
 *
 * Blocks are keyed by the physical address of their first byte, so that one
 * serves every address space that maps it.  A block goes on past conditional
 * branches that are not taken; it ends at other control transfers, at its page's
 * end and after BLOCK_INSNS instructions.  Only a block's first instruction may
 * straddle two pages, and then it is the only one.
 *
 * What changes while code is merely run (how often a block ran, that it is translated)
 * and what changes with each new block (the lists of its page) is kept apart from the
 * blocks, in dense arrays, so that siblings go on sharing the pages of these.
 *
 * A page with decoded code is marked in mem->code[], which sends writes to it
 * through block_wrote().  Each such page has a map of the 64-byte lines that hold
 * code, so that data beside code costs little.  A block that was written is
 * dead: all its handlers become one that goes back to the run loop, which
 * takes effect for jump cache entries, links and for the block just running.
 *
 * Memory comes from an arena that is emptied as a whole when full; that happens
 * in block_find() alone, when no block runs.
 *
 * Decoding and building run with the guest's FP state put away, for Zydis.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "vmm/soft/decode.h"
#include "vmm/soft/jit.h"
#include "vmm/soft/ops.h"

#define BLOCK_INSNS	64
#define PAGE_HASH_BITS	14
#define ARENA_SIZE	(256u << 20)
#define MAX_BLOCKS	(ARENA_SIZE / (sizeof(struct block) + sizeof(struct insn)))
#define MAX_PAGES	(128u << 10)

struct code_page {
	uint64_t gpa;
	uint64_t lines;		/* 64-byte lines with code */
	struct code_page *next;
	struct block *blocks;	/* by next_page, or next_page2 if gpa2 is it */
	uint32_t first[64];	/* block_place() of a block that begins in this line, */
};				/* then by next_line; 0: none */

struct blocks {
	struct decoder decoder;
	struct jump jumps[JUMP_SIZE];
	struct code_page *page[1u << PAGE_HASH_BITS];
	uint8_t *arena;		/* owned */
	size_t used;
	struct block_use *use;	/* owned; by block.no */
	uint32_t nr_blocks;
	struct code_page *pages;	/* owned */
	uint32_t nr_pages;
	uint64_t single[(sizeof(struct block) + 2 * sizeof(struct insn)) / 8];
};

struct decoder *cpu_decoder(struct soft_cpu *cpu)
{
	return &cpu->blocks->decoder;
}

static struct code_page **page_bucket(struct blocks *b, uint64_t gpa)
{
	return &b->page[((gpa >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull) >>
			(64 - PAGE_HASH_BITS)];
}

static struct code_page *page_find(struct blocks *b, uint64_t gpa)
{
	struct code_page *p = *page_bucket(b, gpa);

	while (p && p->gpa != (gpa & PAGE_MASK))
		p = p->next;
	return p;
}

/* --- blocks by address --------------------------------------------------------- */

/*
 * A block's place in the arena, in units of 64 bytes.  The first is not used.
 */
static uint32_t block_place(const struct blocks *b, const struct block *blk)
{
	return ((const uint8_t *)blk - b->arena) / 64;
}

static struct block *block_at(const struct blocks *b, uint32_t place)
{
	return place ? (void *)(b->arena + place * 64ull) : NULL;
}

static uint32_t *line_of(struct code_page *p, uint64_t gpa)
{
	return &p->first[gpa >> 6 & 63];
}

static void line_add(struct blocks *b, struct code_page *p, struct block *blk)
{
	uint32_t *first = line_of(p, blk->gpa);

	blk->next_line = *first;
	*first = block_place(b, blk);
}

static void line_remove(struct blocks *b, struct block *blk)
{
	uint32_t *link = line_of(page_find(b, blk->gpa), blk->gpa);

	while (*link != block_place(b, blk))
		link = &block_at(b, *link)->next_line;
	*link = blk->next_line;
}

struct block_use *block_use(const struct soft_cpu *cpu, const struct block *blk)
{
	return &cpu->blocks->use[blk->no];
}

/* --- handlers at the ends of blocks ------------------------------------------ */

/* The block goes on elsewhere: page end, or long enough. */
HANDLER(block_end)
{
	return branch_to(cpu, i);
}

/* To what is there now: the jump cache may still lead here. */
HANDLER(block_dead)
{
	return block_find(cpu);
}

HANDLER(single_end)
{
	cpu->icount++;
	return NULL;
}

/* --- pages ------------------------------------------------------------------------ */

/*
 * Comes before the page's bytes are read: a device that writes them after that
 * sees the mark and tells us.
 */
static struct code_page *page_get(struct soft_cpu *cpu, uint64_t gpa)
{
	struct blocks *b = cpu->blocks;
	struct code_page *p = page_find(b, gpa);

	if (p && p->blocks)
		return p;
	if (!p) {
		p = &b->pages[b->nr_pages++];
		*p = (struct code_page){ .gpa = gpa & PAGE_MASK,
					 .next = *page_bucket(b, gpa) };
		*page_bucket(b, gpa) = p;
	}
	__atomic_store_n(&cpu->mem->code[gpa >> PAGE_SHIFT], 1, __ATOMIC_SEQ_CST);
	mmu_protect(cpu, gpa);
	return p;
}

/* Lines touched by [off, off + len) of a page. */
static uint64_t line_mask(unsigned off, unsigned len)
{
	unsigned first = off >> 6, last = (off + len - 1) >> 6;

	return (~0ull >> (63 - (last - first))) << first;
}

/* The part of a block that lies in page p: offset there and length. */
static unsigned block_part(const struct block *blk, const struct code_page *p,
			   unsigned *len)
{
	unsigned off = blk->gpa & ~PAGE_MASK;
	unsigned here = MIN(blk->bytes, PAGE_SIZE - off);

	if ((blk->gpa & PAGE_MASK) == p->gpa) {
		*len = here;
		return off;
	}
	*len = blk->bytes - here;
	return 0;
}

static struct block **next_in_page(struct block *blk, const struct code_page *p)
{
	if ((blk->gpa & PAGE_MASK) == p->gpa)
		return &blk->next_page;
	return &blk->next_page2;
}

static void page_add(struct code_page *p, struct block *blk)
{
	unsigned len, off = block_part(blk, p, &len);

	p->lines |= line_mask(off, MAX(len, 1u));
	*next_in_page(blk, p) = p->blocks;
	p->blocks = blk;
}

/* --- building --------------------------------------------------------------------- */

/*
 * The bytes at cpu->rip: n in its page, and for an instruction that goes on in
 * the next page up to 15 of both.
 */
struct fetch {
	uint64_t gpa, gpa2;
	bool global;
	unsigned n;
	uint8_t bytes[15];
};

static void fetch_first(struct soft_cpu *cpu, struct fetch *f)
{
	f->gpa = mmu_fetch(cpu, cpu->rip, &f->global);
	f->gpa2 = 0;
	f->n = PAGE_SIZE - (cpu->rip & ~PAGE_MASK);
	if (f->gpa == UINT64_MAX)
		cpu_ud(cpu);	/* the bus reads as ones there */
	if (unlikely(!(cpu->seg[X86_CS].attr & SEG_L)))
		cpu_ud(cpu);	/* 32-bit code */
}

static void fetch_second(struct soft_cpu *cpu, struct fetch *f)
{
	bool global;
	uint64_t next = (cpu->rip & PAGE_MASK) + PAGE_SIZE;

	f->gpa2 = mmu_fetch(cpu, next, &global);
	f->global &= global;
	if (f->gpa2 == UINT64_MAX)
		cpu_ud(cpu);
	for (unsigned k = 0; k < 15; k++)
		f->bytes[k] = k < f->n ? cpu->mem->base[f->gpa + k] :
					 cpu->mem->base[f->gpa2 + k - f->n];
}

/* Does the instruction at rip need bytes of the next page? */
static bool straddles(struct soft_cpu *cpu, const struct fetch *f)
{
	struct insn tmp;
	bool more;

	if (f->n >= 15)
		return false;
	fp_save(cpu);
	more = insn_decode(cpu, &tmp, cpu->mem->base + f->gpa, f->n) < 0;
	fp_load(cpu);
	return more;
}

/* Decodes up to max instructions into blk, and an end. */
static void decode_run(struct soft_cpu *cpu, struct block *blk, const struct fetch *f,
		       unsigned max, insn_fn *end)
{
	const uint8_t *p = f->gpa2 ? f->bytes : cpu->mem->base + f->gpa;
	unsigned avail = f->gpa2 ? 15 : f->n, off = 0, nr = 0;

	if (f->gpa2)
		max = 1;
	while (nr < max && off < avail) {
		struct insn *i = &blk->insn[nr];

		if (insn_decode(cpu, i, p + off, MIN(avail - off, 15u)) < 0)
			break;
		i->off = off;
		i->nr = ++nr;
		off += i->len;
		if (i->flags & INSN_END)
			break;
	}
	blk->nr = nr;
	blk->bytes = off;
	blk->insn[nr] = (struct insn){ .fn = end, .nr = nr, .off = off };
	cpu->stat.decoded += nr;
}

static struct block *build(struct soft_cpu *cpu, struct fetch *f)
{
	struct blocks *b = cpu->blocks;
	struct block *blk;
	struct code_page *page = page_get(cpu, f->gpa), *page2 = NULL;

	if (f->gpa2)
		page2 = page_get(cpu, f->gpa2);
	fp_save(cpu);
	blk = (struct block *)(void *)(b->arena + b->used);
	*blk = (struct block){ .gpa = f->gpa, .gpa2 = f->gpa2, .no = b->nr_blocks++ };
	decode_run(cpu, blk, f, BLOCK_INSNS, block_end);
	b->used += sizeof(*blk) + (blk->nr + 1u) * sizeof(struct insn);
	b->use[blk->no] = (struct block_use){ .jit = 0 };
	fp_load(cpu);
	page_add(page, blk);
	if (page2 && page2 != page)
		page_add(page2, blk);
	line_add(b, page, blk);
	jit_hook(cpu, blk);
	return blk;
}

/* --- finding ---------------------------------------------------------------------- */

static struct block *lookup(struct soft_cpu *cpu, struct fetch *f)
{
	struct blocks *b = cpu->blocks;
	struct code_page *p = page_find(b, f->gpa);
	struct block *blk = p ? block_at(b, *line_of(p, f->gpa)) : NULL;

	for (; blk; blk = block_at(b, blk->next_line)) {
		if (blk->gpa != f->gpa)
			continue;
		if (!blk->gpa2)
			return blk;
		if (!f->gpa2)
			fetch_second(cpu, f);
		if (blk->gpa2 == f->gpa2)
			return blk;
	}
	return NULL;
}

const struct block *block_peek(struct soft_cpu *cpu, uint64_t gpa)
{
	struct blocks *b = cpu->blocks;
	struct code_page *p = page_find(b, gpa);
	struct block *blk = p ? block_at(b, *line_of(p, gpa)) : NULL;

	for (; blk; blk = block_at(b, blk->next_line)) {
		if (blk->gpa != gpa || blk->gpa2)
			continue;
		block_use(cpu, blk)->peeked = true;
		return blk;
	}
	return NULL;
}

static bool room_for_block(const struct blocks *b)
{
	size_t most = sizeof(struct block) + (BLOCK_INSNS + 1) * sizeof(struct insn);

	return b->used + most <= ARENA_SIZE && b->nr_pages + 2 <= MAX_PAGES;
}

const struct insn *block_find(struct soft_cpu *cpu)
{
	struct blocks *b = cpu->blocks;
	struct jump *j = &b->jumps[jump_hash(cpu->rip)];
	struct block *blk;
	struct fetch f;

	fetch_first(cpu, &f);
	blk = lookup(cpu, &f);
	if (!blk) {
		if (!room_for_block(b))
			blocks_flush(cpu);
		if (!f.gpa2 && straddles(cpu, &f))
			fetch_second(cpu, &f);
		blk = build(cpu, &f);
	}
	mmu_exec_mark(cpu, cpu->rip, f.gpa2);
	cpu->ret_local |= !f.global && cpu->cpl != 3;
	j->rip = cpu->rip;
	j->gen = f.global && cpu->cpl == 0 ? cpu->gen_global : cpu->gen;
	j->code = blk->insn;
	j->host = jit_way_out(cpu);
	return blk->insn;
}

const struct insn *block_single(struct soft_cpu *cpu)
{
	struct block *blk = (void *)cpu->blocks->single;
	struct fetch f;

	fetch_first(cpu, &f);
	if (straddles(cpu, &f))
		fetch_second(cpu, &f);
	fp_save(cpu);
	*blk = (struct block){ .gpa = f.gpa, .gpa2 = f.gpa2 };
	decode_run(cpu, blk, &f, 1, single_end);
	fp_load(cpu);
	return blk->insn;
}

/* --- dropping --------------------------------------------------------------------- */

static void kill_block(struct soft_cpu *cpu, struct block *blk)
{
	line_remove(cpu->blocks, blk);
	blk->dead = true;
	jit_drop(cpu, blk);
	blk->first_fn = block_dead;
	for (unsigned k = 0; k <= blk->nr; k++)
		blk->insn[k].fn = block_dead;
}

static void page_wrote(struct soft_cpu *cpu, struct code_page *p, unsigned lo,
		       unsigned hi)
{
	struct block **link = &p->blocks, *blk;
	bool peeked = false;

	if (!(p->lines & line_mask(lo, hi - lo)))
		return;
	while ((blk = *link)) {
		unsigned len, off = block_part(blk, p, &len);

		if (!blk->dead && (off >= hi || off + len <= lo)) {
			link = next_in_page(blk, p);
			continue;
		}
		*link = *next_in_page(blk, p);
		peeked |= block_use(cpu, blk)->peeked;
		if (!blk->dead)
			kill_block(cpu, blk);
	}
	for (blk = p->blocks; peeked && blk; blk = *next_in_page(blk, p))
		jit_drop(cpu, blk);
	cpu->stat.code_hits++;
	if (p->blocks)
		return;
	p->lines = 0;
	__atomic_store_n(&cpu->mem->code[p->gpa >> PAGE_SHIFT], 0, __ATOMIC_SEQ_CST);
}

void block_wrote(struct soft_cpu *cpu, uint64_t gpa, uint64_t len)
{
	uint64_t end = gpa + len;

	for (uint64_t at = gpa & PAGE_MASK; at < end; at += PAGE_SIZE) {
		struct code_page *p;

		if (!cpu->mem->code[at >> PAGE_SHIFT])
			continue;
		p = page_find(cpu->blocks, at);
		if (p)
			page_wrote(cpu, p, at < gpa ? gpa - at : 0,
				   MIN(end - at, (uint64_t)PAGE_SIZE));
	}
}

/* A page's entries are one aligned group of them: see jump_hash(). */
static void forget_group(struct soft_cpu *cpu, uint64_t page, uint64_t va)
{
	unsigned at = jump_hash(page) & ~(PAGE_SIZE - 1);

	for (unsigned k = at; k < at + PAGE_SIZE; k++) {
		struct jump *j = &cpu->blocks->jumps[k];
		uint64_t last = j->rip + 14;	/* it may straddle */

		if (!((j->rip ^ va) & PAGE_MASK) || !((last ^ va) & PAGE_MASK))
			j->gen = 0;
	}
}
_Static_assert(JUMP_SIZE % PAGE_SIZE == 0, "a page's entries are a group");

void block_forget_page(struct soft_cpu *cpu, uint64_t va)
{
	jit_return_forget(cpu, true);
	forget_group(cpu, va & PAGE_MASK, va);
	forget_group(cpu, (va & PAGE_MASK) - PAGE_SIZE, va);
}

void block_forget_all(struct soft_cpu *cpu)
{
	jit_return_forget(cpu, true);
	for (unsigned k = 0; k < JUMP_SIZE; k++)
		cpu->blocks->jumps[k].gen = 0;
}

void blocks_flush(struct soft_cpu *cpu)
{
	struct blocks *b = cpu->blocks;

	jit_flush(cpu);
	memo_forget(&b->decoder.memo);	/* stubs go, too */
	for (unsigned k = 0; k < ARRAY_LEN(b->page); k++) {
		for (struct code_page *p = b->page[k]; p; p = p->next)
			__atomic_store_n(&cpu->mem->code[p->gpa >> PAGE_SHIFT], 0,
					 __ATOMIC_SEQ_CST);
		b->page[k] = NULL;
	}
	block_forget_all(cpu);
	b->used = 64;
	b->nr_blocks = b->nr_pages = 0;
	cpu->stat.flushes++;
}

static void *reserve(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void unreserve(void *p, size_t n)
{
	if (p)
		munmap(p, n);
}

static void free_blocks(struct blocks *b)
{
	unreserve(b->arena, ARENA_SIZE);
	unreserve(b->use, MAX_BLOCKS * sizeof(*b->use));
	unreserve(b->pages, MAX_PAGES * sizeof(*b->pages));
	free(b);
}

/* A snapshot's process has no use for them (freeze.c), a sibling's has. */
static void for_fork(struct blocks *b, int advice)
{
	madvise(b->arena, ARENA_SIZE, advice);
	madvise(b->use, MAX_BLOCKS * sizeof(*b->use), advice);
	madvise(b->pages, MAX_PAGES * sizeof(*b->pages), advice);
}

int blocks_init(struct soft_cpu *cpu)
{
	struct blocks *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->arena = reserve(ARENA_SIZE);
	b->use = reserve(MAX_BLOCKS * sizeof(*b->use));
	b->pages = reserve(MAX_PAGES * sizeof(*b->pages));
	if (!b->arena || !b->use || !b->pages) {
		free_blocks(b);
		return -ENOMEM;
	}
	b->used = 64;
	/* A tenth of the page tables that a fork has to copy. */
	madvise(b->arena, ARENA_SIZE, MADV_HUGEPAGE);
	for_fork(b, MADV_DONTFORK);
	decoder_init(&b->decoder);
	cpu->blocks = b;
	cpu->jumps = b->jumps;
	return 0;
}

void blocks_done(struct soft_cpu *cpu)
{
	struct blocks *b = cpu->blocks;

	if (!b)
		return;
	free_blocks(b);
	cpu->blocks = NULL;
}

void blocks_fork(struct soft_cpu *cpu, bool now)
{
	for_fork(cpu->blocks, now ? MADV_DOFORK : MADV_DONTFORK);
}

/*
 * A huge page is right where a VM decodes its whole kernel, as at boot.  What a sibling
 * adds is little, and mostly less than one.
 */
void blocks_inherit(struct soft_cpu *cpu)
{
	struct blocks *b = cpu->blocks;

	madvise(b->arena, ARENA_SIZE, MADV_NOHUGEPAGE);
	for (unsigned k = 0; k < ARRAY_LEN(b->page); k++)
		for (struct code_page *p = b->page[k]; p; p = p->next)
			if (p->blocks)
				cpu->mem->code[p->gpa >> PAGE_SHIFT] = 1;
}

/* The instruction at rip, as far as it is mapped; its length at most. */
static unsigned fetch_bytes(struct soft_cpu *cpu, uint8_t bytes[15])
{
	unsigned n = 0;

	while (n < 15) {
		uint64_t va = cpu->rip + n;
		const struct tlb2_entry *t = mmu_translate(cpu, va, ACC_EXEC | ACC_PROBE);
		unsigned off = va & ~PAGE_MASK;

		if (!t || !(t->flags & WALK_RAM))
			break;
		do
			bytes[n++] = cpu->mem->base[t->gpa + off++];
		while (n < 15 && off < PAGE_SIZE);
	}
	return n;
}

_Noreturn void cpu_noncanonical(struct soft_cpu *cpu, unsigned acc)
{
	uint8_t bytes[15];
	unsigned n;
	bool stack;

	if (acc & (ACC_EXEC | ACC_SYSTEM))
		cpu_gp(cpu);
	n = fetch_bytes(cpu, bytes);
	fp_save(cpu);
	stack = insn_uses_stack(cpu, bytes, n, acc & ACC_WRITE);
	fp_load(cpu);
	cpu_raise(cpu, stack ? VEC_SS : VEC_GP, 0);
}
