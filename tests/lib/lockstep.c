// SPDX-License-Identifier: MIT
/*
 * lockstep.c - the translator checked by the interpreter, on the same CPU, one run
 * of host code at a time.
 *
 * A segment is what host code does between two places where all guest state is in
 * struct soft_cpu again: from its entry, or from the return of an instruction that
 * it left to the interpreter, to the next such instruction or the exit.  Nothing in
 * a segment can be seen from outside or repeats with another result: devices, time
 * stamps, page tables and modes are the interpreter's (RDTSC too: attaching gives
 * the clock a factor of one, which the translator leaves to it).  So:
 *
 *	begin	The interpreter's own handlers run from there first, one instruction
 *		at a time, and the state after each is kept.  It stops where a
 *		segment must stop: before what is not to be repeated, at a fault, a
 *		device, a write to code, behind a branch that is never linked.  Its
 *		first-level TLB is empty, so that all its accesses come to us; pages
 *		that it writes are copies.  Then all is put back.
 *	run	Host code runs on the real thing.
 *	end	The state it left must be one of those kept: rip, registers, RFLAGS,
 *		x87, MMX, SSE, AVX, and each page that the interpreter wrote, byte
 *		for byte.  A store that went elsewhere is missed where it belongs.
 *
 * Arithmetic flags that are dead may be stale in cpu->cc.  So the interpreter has
 * flags of its own, carried from segment to segment, never the translator's: a flag
 * that was wrongly held for dead shows as soon as something uses it, in a register,
 * in memory or as a branch that goes the other way.
 *
 * Segments are kept short: links are made forward within a page only, and the jump
 * cache never leads to host code; look-ups, entries with flags in the host's
 * register and fall-through between blocks are all in what is compared.
 *
 * Not for guests with devices that write memory on their own (disks, network): the
 * interpreter would read before them what the translator reads after.  Page table
 * bits A and D may be set by either and are left out.  Not compared: what the
 * interpreter does alone.
 *
 * Compiled as src/vmm/soft is: between fp_save() and fp_load() alone libc is called.
 */
#include "tests/lib/lockstep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "tests/lib/native.h"
#include "vmm/soft/jit.h"
#include "vmm/soft/ops.h"

#define MAX_STEPS	4096	/* a page of the shortest */
#define MAX_PAGES	64
#define LOG_SIZE	(256u << 10)
#define CC_MASK		0xd501u
#define IMG_MXCSR	24	/* in the XSAVE area */
#define STATE_SIZE	offsetof(struct soft_cpu, blocks)

/* State after so many instructions. */
struct step {
	uint64_t gpr[16], rip, fs_base, gs_base, kernel_gs_base;
	uint64_t gen, gen_global;
	const void *tlb, *ret_base;
	struct x86_segment cs, ss;
	uint32_t rflags, cc;
	uint8_t cpl;
	const struct insn *i;	/* the one that comes next; NULL: not run */
	uint16_t fp;		/* in lockstep.fp[] */
};

/* Bytes as they were before instruction `step` wrote them. */
struct undo {
	uint16_t step, page, off, len;
	uint8_t old[];
};

struct page {
	uint64_t gpa;
	uint8_t *copy;		/* owned */
};

struct lockstep {
	struct soft_watch watch;
	struct soft_cpu *cpu;		/* borrowed */
	struct lockstep_calls calls;
	bool open, over;
	struct lockstep_stat stat;
	uint8_t allowed[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	struct tlb empty;
	/* the segment */
	struct step step[MAX_STEPS + 1];
	unsigned nr_steps;		/* instructions done; step[nr_steps] is the last state */
	uint8_t (*fp)[SEQ_XSAVE];	/* owned */
	unsigned nr_fp;
	struct page page[MAX_PAGES];
	unsigned nr_pages;
	uint8_t *log;			/* owned; struct undo, each behind its offset */
	unsigned nr_log;
	uint32_t undo[LOG_SIZE / 16];	/* where each starts */
	unsigned nr_undo;
	struct insn pair[2];
	uint8_t saved[STATE_SIZE];
	/* the interpreter's flags, and where they belong */
	uint32_t cc, end_cc;
	uint64_t end_rip;
	uint8_t vector;			/* by which the interpreter stopped; 0xff: none */
};

static struct lockstep *of(struct soft_cpu *cpu)
{
	return container_of(cpu->watch, struct lockstep, watch);
}

/* Not libc's: guest FP state may be in the host's registers. */
static void copy(void *dst, const void *src, unsigned long n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

/* --- the interpreter's memory ------------------------------------------------------- */

/* Ends the interpreter's part before the instruction it is in. */
_Noreturn static void stop(struct soft_cpu *cpu)
{
	__builtin_longjmp(cpu->jmp, 1);
}

static struct page *find_page(struct lockstep *l, uint64_t gpa)
{
	for (unsigned k = 0; k < l->nr_pages; k++)
		if (l->page[k].gpa == gpa)
			return &l->page[k];
	return NULL;
}

static struct page *copy_page(struct soft_cpu *cpu, uint64_t gpa)
{
	struct lockstep *l = of(cpu);
	struct page *p = find_page(l, gpa);

	if (p)
		return p;
	if (l->nr_pages == MAX_PAGES)
		stop(cpu);
	p = &l->page[l->nr_pages++];
	p->gpa = gpa;
	copy(p->copy, cpu->mem->base + gpa, PAGE_SIZE);
	return p;
}

static void note_write(struct soft_cpu *cpu, const struct page *p, unsigned off, unsigned len)
{
	struct lockstep *l = of(cpu);
	struct undo *u = (void *)(l->log + l->nr_log);
	unsigned size = ALIGN_UP((unsigned)sizeof(*u) + len, 8u);

	if (l->nr_log + size > LOG_SIZE || l->nr_undo == ARRAY_LEN(l->undo))
		stop(cpu);
	l->undo[l->nr_undo++] = l->nr_log;
	l->nr_log += size;
	u->step = (uint16_t)l->nr_steps;
	u->page = (uint16_t)(p - l->page);
	u->off = (uint16_t)off;
	u->len = (uint16_t)len;
	copy(u->old, p->copy + off, len);
}

static uint64_t table_entry(struct soft_cpu *cpu, uint64_t gpa)
{
	struct page *p = find_page(of(cpu), gpa & PAGE_MASK);

	return *(uint64_t *)(void *)((p ? p->copy : cpu->mem->base + (gpa & PAGE_MASK)) +
				     (gpa & ~PAGE_MASK));
}

/*
 * A walk that leaves no trace: it stops where another would set a bit, and remembers
 * nothing, as the guest may be about to change an entry that was never used.
 */
static uint64_t walk_page(struct soft_cpu *cpu, uint64_t va, unsigned acc)
{
	uint64_t want = acc & ACC_WRITE ? PTE_A | PTE_D : PTE_A, table = cpu->cr3, pte, span;
	unsigned flags = PTE_W | PTE_U;

	for (unsigned level = 4;; level--) {
		if (!mem_ptr(cpu->mem, table & PTE_ADDR, PAGE_SIZE))
			stop(cpu);
		span = 1ull << (12 + 9 * (level - 1));
		pte = table_entry(cpu, (table & PTE_ADDR) + (va / span & 511) * 8);
		if (!(pte & PTE_P) || !(pte & PTE_A))
			stop(cpu);
		flags &= pte | ~(unsigned)(PTE_W | PTE_U);
		if (level == 1 || pte & PTE_PS)
			break;
		table = pte;
	}
	if ((pte & want) != want || !mmu_allowed(cpu, flags, acc))
		stop(cpu);
	table = (pte & PTE_ADDR & ~(span - 1)) | (va & (span - 1) & PAGE_MASK);
	if (!mem_ptr(cpu->mem, table, PAGE_SIZE))
		stop(cpu);
	return table;
}

/*
 * What the translator has in its first-level TLB; also what it may still reach
 * through a window whose entry has given way to another (jit_window.c).
 */
static uint64_t page_of(struct soft_cpu *cpu, uint64_t va, unsigned acc)
{
	const struct tlb *t = &cpu->mmu.tlb[mmu_mode(cpu)];

	if (acc & ACC_WRITE ? tlb_writes(t, va, 1) : tlb_reads(t, va, 1))
		return (uint64_t)(t->host[tlb_slot(va)] - cpu->mem->base);
	return walk_page(cpu, va, acc);
}

static uint8_t *memory(struct soft_cpu *cpu, uint64_t va, unsigned len, unsigned acc,
		       uint64_t *gpa)
{
	uint64_t at = page_of(cpu, va, acc);
	unsigned off = va & ~PAGE_MASK;
	struct page *p;

	if (acc & ACC_SYSTEM)
		stop(cpu);
	*gpa = at + off;
	if (!(acc & ACC_WRITE)) {
		p = find_page(of(cpu), at);
		return (p ? p->copy : cpu->mem->base + at) + off;
	}
	if (cpu->mem->code[at >> PAGE_SHIFT])
		stop(cpu);
	p = copy_page(cpu, at);
	note_write(cpu, p, off, len);
	return p->copy + off;
}

/* --- the interpreter's part ----------------------------------------------------------- */

static const uint16_t harmless[] = {	/* of those that are the system's */
	ZYDIS_MNEMONIC_CLI, ZYDIS_MNEMONIC_STI, ZYDIS_MNEMONIC_CLAC, ZYDIS_MNEMONIC_STAC,
	ZYDIS_MNEMONIC_SWAPGS, ZYDIS_MNEMONIC_RDFSBASE, ZYDIS_MNEMONIC_RDGSBASE,
	ZYDIS_MNEMONIC_WRFSBASE, ZYDIS_MNEMONIC_WRGSBASE, ZYDIS_MNEMONIC_MFENCE,
	ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_SFENCE, ZYDIS_MNEMONIC_SYSCALL,
	ZYDIS_MNEMONIC_SYSRET,
};

static void set_allowed(struct lockstep *l)
{
	static const struct op *const not[] = { ops_sys, ops_seg, ops_misc, ops_io };

	memset(l->allowed, 1, sizeof(l->allowed));
	for (unsigned t = 0; t < ARRAY_LEN(not); t++)
		for (const struct op *op = not[t]; op->mnemonic; op++)
			l->allowed[op->mnemonic] = 0;
	for (unsigned k = 0; k < ARRAY_LEN(harmless); k++)
		l->allowed[harmless[k]] = 1;
	l->allowed[ZYDIS_MNEMONIC_POPF] = l->allowed[ZYDIS_MNEMONIC_POPFQ] = 0;
	l->allowed[ZYDIS_MNEMONIC_INVALID] = 0;
}

/* MOV to segment and control registers, to and from debug registers. */
static bool is_system_move(const struct insn *i)
{
	unsigned k = 0;

	while (k + 1u < i->len && (i->raw[k] == 0x66 || i->raw[k] == 0x67 ||
				   (i->raw[k] & 0xf0) == 0x40))
		k++;
	return i->raw[k] == 0x8e || (i->raw[k] == 0x0f && i->raw[k + 1] >= 0x21 &&
				     i->raw[k + 1] <= 0x23);
}

static bool may_run(const struct lockstep *l, const struct insn *i)
{
	if (!l->allowed[i->mnemonic] || i->aux == OP_FAR)
		return i->flags & INSN_FP;	/* aux is fp.c's there */
	return i->mnemonic != ZYDIS_MNEMONIC_MOV || !is_system_move(i);
}

static const struct block *block_of(const struct insn *i)
{
	return container_of((struct insn *)(uintptr_t)(i - (i->nr - 1)), struct block, insn[0]);
}

/* The block at rip; one in two pages is found where it was when it was run. */
static const struct block *find_block(struct soft_cpu *cpu)
{
	const struct jump *j = &cpu->jumps[jump_hash(cpu->rip)];
	bool global;

	if (j->rip == cpu->rip && (j->gen == cpu->gen || j->gen == cpu->gen_global))
		return block_of(j->code);
	return block_peek(cpu, mmu_fetch(cpu, cpu->rip, &global));
}

/* The decoded instruction at rip, where its block goes on at `i`; NULL: none. */
static const struct insn *next_insn(struct soft_cpu *cpu, const struct block **b,
				    const struct insn *i)
{
	if (i && i < &(*b)->insn[(*b)->nr])
		return (*b)->dead ? NULL : i;
	*b = find_block(cpu);
	return *b && (*b)->nr && !(*b)->dead ? (*b)->insn : NULL;
}

static insn_fn *handler_of(const struct block *b, const struct insn *i)
{
	return i == b->insn ? b->first_fn : i->fn;
}

HANDLER(end_of_pair)
{
	return NULL;
}

static void snapshot_fp(struct lockstep *l, struct soft_cpu *cpu)
{
	fp_save(cpu);
	memcpy(l->fp[l->nr_fp++], cpu->xsave, SEQ_XSAVE);
	fp_load(cpu);
}

static void record(struct lockstep *l, struct soft_cpu *cpu)
{
	struct step *s = &l->step[l->nr_steps];

	copy(s->gpr, cpu->gpr, sizeof(s->gpr));
	s->rip = cpu->rip;
	s->fs_base = cpu->fs_base;
	s->gs_base = cpu->gs_base;
	s->kernel_gs_base = cpu->kernel_gs_base;
	s->gen = cpu->gen;
	s->gen_global = cpu->gen_global;
	s->tlb = &cpu->mmu.tlb[mmu_mode(cpu)];
	s->ret_base = cpu->ret_base;
	s->cs = cpu->seg[X86_CS];
	s->ss = cpu->seg[X86_SS];
	s->cpl = cpu->cpl;
	s->rflags = cpu->rflags;
	s->cc = cpu->cc & CC_MASK;
	s->i = NULL;
	s->fp = (uint16_t)(l->nr_fp - 1);
}

static void run_one(struct lockstep *l, struct soft_cpu *cpu, const struct block *b,
		    const struct insn *i)
{
	copy(&l->pair[0], i, sizeof(*i));
	l->pair[0].fn = handler_of(b, i);
	l->pair[1].mnemonic = i[1].mnemonic;
	l->pair[1].fn = end_of_pair;
	cpu->tlb = &l->empty;
	l->pair[0].fn(cpu, &l->pair[0]);
}

/* Never linked: backwards, to another page, unless it is a RET. */
static bool ends(const struct soft_cpu *cpu, const struct insn *i, uint64_t from)
{
	return cpu->rip != from + i->len && i->mnemonic != ZYDIS_MNEMONIC_RET &&
	       (cpu->rip <= from || (cpu->rip ^ from) & PAGE_MASK);
}

/* From the start of a block, or behind instruction `done` of one. */
static __attribute__((noinline)) void walk(struct lockstep *l, struct soft_cpu *cpu,
					   const struct insn *done)
{
	const struct block *b = done ? block_of(done) : NULL;
	const struct insn *i = done ? done + 1 : NULL;

	while (l->nr_steps < MAX_STEPS) {
		uint64_t from = cpu->rip;

		i = next_insn(cpu, &b, i);
		if (!i || !may_run(l, i))
			return;
		run_one(l, cpu, b, i);
		if (cpu->rip == from && i->flags & (INSN_REP | INSN_REPNE))
			return;		/* attention in its middle */
		if (i->flags & INSN_FP)
			snapshot_fp(l, cpu);
		l->step[l->nr_steps++].i = i;
		record(l, cpu);
		if (ends(cpu, i, from))
			return;
		if (cpu->rip == from + i->len)
			i++;
		else
			i = NULL;
	}
}

static __attribute__((noinline)) void interpret(struct lockstep *l, struct soft_cpu *cpu,
						const struct insn *done)
{
	cpu->event.vector = 0xff;
	if (!__builtin_setjmp(cpu->jmp))
		walk(l, cpu, done);
	l->vector = cpu->event.vector;
}

/* --- flags --------------------------------------------------------------------------- */

static uint32_t cc_bits(uint8_t use)
{
	return (use & 0xd5u) << 8 | (use >> 1 & 1);
}

/*
 * The interpreter's flags now.  After an instruction that it did for the
 * translator, with the translator's flags: those that it set; the rest stays.
 */
static void carry_flags(struct lockstep *l, const struct soft_cpu *cpu,
			const struct insn *done)
{
	uint32_t cc = cpu->cc & CC_MASK, set;

	if (cpu->rip == l->end_rip && cc == l->end_cc)
		return;		/* nothing ran in between */
	set = done ? cc_bits(done->cc_def) | (cc ^ l->end_cc) : CC_MASK;
	l->cc = (l->cc & ~set) | (cc & set);
}

/* --- begin ----------------------------------------------------------------------------- */

/* All but the attention word, which is others' too. */
static void put_back(struct lockstep *l, struct soft_cpu *cpu)
{
	size_t at = offsetof(struct soft_cpu, attention), next = at + sizeof(cpu->attention);

	copy(cpu, l->saved, at);
	copy((uint8_t *)cpu + next, l->saved + next, STATE_SIZE - next);
}

static void begin(struct soft_cpu *cpu, const struct insn *done)
{
	struct lockstep *l = of(cpu);
	uint32_t slow;

	if (l->over)
		return;
	l->nr_steps = l->nr_pages = l->nr_log = l->nr_undo = l->nr_fp = 0;
	snapshot_fp(l, cpu);
	carry_flags(l, cpu, done);
	copy(l->saved, cpu, STATE_SIZE);
	cpu->cc = l->cc;
	record(l, cpu);
	/* so that branches come back */
	slow = atomic_fetch_or(&cpu->attention, ATT_SLOW) & ATT_SLOW;
	l->watch.interpreting = true;
	interpret(l, cpu, done);
	l->watch.interpreting = false;
	put_back(l, cpu);
	if (!slow)
		atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_SLOW);
	if (l->nr_fp > 1) {
		fp_save(cpu);
		memcpy(cpu->xsave, l->fp[0], SEQ_XSAVE);
		fp_load(cpu);
	}
	l->open = true;
}

/* --- end --------------------------------------------------------------------------------- */

static bool same_segment(const struct x86_segment *a, const struct x86_segment *b)
{
	return a->base == b->base && a->limit == b->limit && a->attr == b->attr &&
	       a->sel == b->sel;
}

/* What belongs to the mode: SYSCALL and SYSRET change it. */
static bool same_mode(const struct soft_cpu *cpu, const struct step *s)
{
	return cpu->cpl == s->cpl && cpu->gen == s->gen && cpu->gen_global == s->gen_global &&
	       cpu->tlb == s->tlb && cpu->ret_base == s->ret_base &&
	       same_segment(&cpu->seg[X86_CS], &s->cs) &&
	       same_segment(&cpu->seg[X86_SS], &s->ss);
}

static bool same_registers(const struct soft_cpu *cpu, const struct step *s)
{
	return cpu->rip == s->rip && !memcmp(cpu->gpr, s->gpr, sizeof(s->gpr)) &&
	       cpu->fs_base == s->fs_base && cpu->gs_base == s->gs_base &&
	       cpu->kernel_gs_base == s->kernel_gs_base && cpu->rflags == s->rflags &&
	       same_mode(cpu, s);
}

/* The state that host code reached: the last that agrees, else the last at rip. */
static unsigned find_step(const struct lockstep *l, const struct soft_cpu *cpu, bool *agrees)
{
	unsigned at = l->nr_steps;
	bool found = false;

	for (unsigned k = l->nr_steps + 1; k-- > 0;) {
		*agrees = same_registers(cpu, &l->step[k]);
		if (*agrees)
			return k;
		if (!found && cpu->rip == l->step[k].rip) {
			found = true;
			at = k;
		}
	}
	return at;
}

/* Makes the copies what they were before instruction `at`. */
static void rewind_pages(struct lockstep *l, unsigned at)
{
	while (l->nr_undo > 0) {
		const struct undo *u = (void *)(l->log + l->undo[l->nr_undo - 1]);

		if (u->step < at)
			return;
		memcpy(l->page[u->page].copy + u->off, u->old, u->len);
		l->nr_undo--;
	}
}

/* The first byte that differs, or PAGE_SIZE.  Bits A and D are the walker's. */
static unsigned page_differs(const uint8_t *host, const uint8_t *want)
{
	if (!memcmp(host, want, PAGE_SIZE))
		return PAGE_SIZE;
	for (unsigned k = 0; k < PAGE_SIZE; k++) {
		uint8_t diff = host[k] ^ want[k];

		if (diff && (k % 8 || diff & ~0x60 || want[k] & diff))
			return k;
	}
	return PAGE_SIZE;
}

/* An instruction that faults on the host has left its exception flags. */
static bool same_fp(uint8_t *host, uint8_t *want, const struct insn *next)
{
	if (!memcmp(host, want, SEQ_XSAVE))
		return true;
	seq_xsave_normalise(host);
	seq_xsave_normalise(want);
	if (next && next->flags & INSN_FP)
		want[IMG_MXCSR] |= host[IMG_MXCSR] & 0x3f;
	return !memcmp(host, want, SEQ_XSAVE);
}

static void say_registers(FILE *f, const struct soft_cpu *cpu, const struct step *s)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi",
		"rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };
	const struct { const char *name; uint64_t is, want; } other[] = {
		{ "rip", cpu->rip, s->rip }, { "fs base", cpu->fs_base, s->fs_base },
		{ "gs base", cpu->gs_base, s->gs_base },
		{ "kernel gs base", cpu->kernel_gs_base, s->kernel_gs_base },
		{ "rflags", cpu->rflags, s->rflags },
	};

	for (unsigned k = 0; k < 16; k++)
		if (cpu->gpr[k] != s->gpr[k])
			fprintf(f, "  %-4s translator %#018llx interpreter %#018llx\n", names[k],
				(unsigned long long)cpu->gpr[k], (unsigned long long)s->gpr[k]);
	for (unsigned k = 0; k < ARRAY_LEN(other); k++)
		if (other[k].is != other[k].want)
			fprintf(f, "  %-4s translator %#llx interpreter %#llx\n", other[k].name,
				(unsigned long long)other[k].is,
				(unsigned long long)other[k].want);
	if (!same_mode(cpu, s))
		fprintf(f, "  mode differs: translator cpl %u cs %#x ss %#x interpreter cpl %u "
			"cs %#x ss %#x\n", cpu->cpl, cpu->seg[X86_CS].sel, cpu->seg[X86_SS].sel,
			s->cpl, s->cs.sel, s->ss.sel);
}

static void say_bytes(FILE *f, const char *who, const uint8_t *p)
{
	fprintf(f, "    %-12s", who);
	for (unsigned k = 0; k < 16; k++)
		fprintf(f, " %02x", p[k]);
	fprintf(f, "\n");
}

static void say_fp(FILE *f, const uint8_t *is, const uint8_t *want)
{
	for (unsigned k = 0; k < SEQ_XSAVE; k += 16) {
		if (!memcmp(is + k, want + k, 16))
			continue;
		fprintf(f, "  XSAVE area + %u:\n", k);
		say_bytes(f, "translator", is + k);
		say_bytes(f, "interpreter", want + k);
	}
}

static void say_code(FILE *f, const struct lockstep *l, unsigned at)
{
	ZydisFormatter fmt;
	ZydisDecoder d;

	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (unsigned k = 0; k <= l->nr_steps; k++) {
		const struct step *s = &l->step[k];
		ZydisDecodedInstruction z;
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		char text[96] = "(the interpreter stopped here)";

		if (s->i && ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, s->i->raw, s->i->len, &z, ops)))
			ZydisFormatterFormatInstruction(&fmt, &z, ops, z.operand_count_visible,
							text, sizeof(text), s->rip, NULL);
		fprintf(f, "%s %#llx  ", k == at ? "->" : "  ", (unsigned long long)s->rip);
		for (unsigned n = 0; s->i && n < s->i->len; n++)
			fprintf(f, "%02x", s->i->raw[n]);
		fprintf(f, "  %s\n", text);
	}
}

/* What is wrong, and where; NULL when nothing is. */
struct verdict {
	bool registers, flags, fp;
	const struct page *page;
	unsigned off;
};

static void report(struct lockstep *l, struct soft_cpu *cpu, unsigned at,
		   const struct verdict *v, uint32_t flags)
{
	const struct step *s = &l->step[at];
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	l->over = true;
	if (!f)
		return;
	fprintf(f, "translator and interpreter differ after %llu segments, %llu instructions; "
		"cpl %u, cr3 %#llx\n", (unsigned long long)l->stat.segments,
		(unsigned long long)l->stat.instructions, cpu->cpl,
		(unsigned long long)cpu->cr3);
	if (v->registers)
		say_registers(f, cpu, s);
	if (v->flags)
		fprintf(f, "  flags that the next instruction uses: translator %#x interpreter "
			"%#x (as LAHF; SETO AL)\n", cpu->cc & flags, l->cc & flags);
	if (v->page) {
		unsigned off = v->off & ~15u;

		fprintf(f, "  memory at gpa %#llx:\n", (unsigned long long)v->page->gpa + off);
		say_bytes(f, "translator", cpu->mem->base + v->page->gpa + off);
		say_bytes(f, "interpreter", v->page->copy + off);
	}
	if (v->fp)
		say_fp(f, cpu->xsave, l->fp[s->fp]);
	say_code(f, l, at);
	if (l->vector != 0xff)
		fprintf(f, "   exception %u\n", l->vector);
	fclose(f);
	l->calls.differs(l->calls.arg, text);
	free(text);
}

static bool check_pages(struct lockstep *l, struct soft_cpu *cpu, unsigned at,
			struct verdict *v)
{
	rewind_pages(l, at);
	l->stat.pages += l->nr_pages;
	for (unsigned k = 0; k < l->nr_pages; k++) {
		v->off = page_differs(cpu->mem->base + l->page[k].gpa, l->page[k].copy);
		if (v->off < PAGE_SIZE) {
			v->page = &l->page[k];
			return false;
		}
	}
	return true;
}

static void check(struct lockstep *l, struct soft_cpu *cpu, unsigned at, bool agrees,
		  const struct insn *next)
{
	uint32_t used = next ? cc_bits(next->cc_use) : 0;
	struct verdict v = { .registers = !agrees };

	l->cc = l->step[at].cc;
	v.flags = (cpu->cc ^ l->cc) & used;
	check_pages(l, cpu, at, &v);
	v.fp = !same_fp(cpu->xsave, l->fp[l->step[at].fp], next);
	if (v.registers || v.flags || v.fp || v.page)
		report(l, cpu, at, &v, used);
}

static bool end(struct soft_cpu *cpu, const struct insn *next)
{
	struct lockstep *l = of(cpu);
	bool agrees, forward = false;
	unsigned at;

	if (!l->open)
		return false;
	l->open = false;
	fp_save(cpu);
	at = find_step(l, cpu, &agrees);
	if (!agrees && l->nr_steps == MAX_STEPS) {
		l->stat.too_long++;
		l->cc = cpu->cc & CC_MASK;
	} else {
		check(l, cpu, at, agrees, next);
	}
	l->stat.segments++;
	l->stat.instructions += at;
	if (!l->over && l->calls.enough && l->stat.instructions >= l->calls.instructions) {
		l->over = true;
		l->calls.enough(l->calls.arg);
	}
	if (at > 0) {
		uint64_t from = l->step[at - 1].rip;

		forward = cpu->rip > from && !((cpu->rip ^ from) & PAGE_MASK);
	}
	for (unsigned k = 1; k < at; k++)
		if (l->step[k].rip != l->step[k - 1].rip + l->step[k - 1].i->len) {
			l->stat.linked++;
			break;
		}
	l->end_rip = cpu->rip;
	l->end_cc = cpu->cc & CC_MASK;
	fp_load(cpu);
	return forward;
}

/* --- set-up ---------------------------------------------------------------------------------- */

void lockstep_detach(struct lockstep *l)
{
	if (!l)
		return;
	l->cpu->watch = NULL;
	for (unsigned k = 0; k < MAX_PAGES; k++)
		free(l->page[k].copy);
	free(l->fp);
	free(l->log);
	free(l);
}

struct lockstep *lockstep_attach(struct soft_cpu *cpu, const struct lockstep_calls *calls)
{
	struct lockstep *l = calloc(1, sizeof(*l));
	bool ok;

	if (!l)
		return NULL;
	l->cpu = cpu;
	l->calls = *calls;
	l->fp = calloc(MAX_STEPS + 2, sizeof(*l->fp));
	l->log = malloc(LOG_SIZE);
	ok = l->fp && l->log;
	for (unsigned k = 0; k < MAX_PAGES; k++) {
		l->page[k].copy = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
		ok &= l->page[k].copy != NULL;
	}
	/* all else is empty by being zero */
	l->empty.rtag[0] = l->empty.wtag[0] = tlb_none(0);
	l->empty.rtag[TLB_SIZE - 1] = l->empty.wtag[TLB_SIZE - 1] = tlb_none(TLB_SIZE - 1);
	set_allowed(l);
	l->watch = (struct soft_watch){ .begin = begin, .end = end, .access = memory };
	cpu->watch = &l->watch;
	cpu->jit->heat = 1;
	if (!cpu->svm->clock.ratio)
		cpu->svm->clock.ratio = 1ull << 48;
	if (ok)
		return l;
	lockstep_detach(l);
	return NULL;
}

const struct lockstep_stat *lockstep_stat(const struct lockstep *l)
{
	return &l->stat;
}
