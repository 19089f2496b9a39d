// SPDX-License-Identifier: MIT
/*
 * jit.c - the translator's machinery around the code: its memory, the way in and
 * out, slow paths, chaining, dropping.
 *
 * Code lives in memory of codemem.c, at one address writable and at another
 * executable.  It is taken in parts from the front and emptied as a whole.  Half of a
 * block's code seldom runs; in a part it lies apart from the rest, which so fills
 * fewer lines of the instruction cache and fewer pages.
 *
 * A block starts out interpreted.  Its first instruction's handler, jit_run(),
 * counts; after JIT_HEAT runs the block is translated and it enters that, so the
 * interpreter's own ways from block to block lead into host code.
 *
 * Host code leaves through two thunks with a record's number in H_S2:
 *   exit	back to jit_run(), which finds the next block and, if that is
 *		translated, connects the two and goes on in it;
 *   slow	jit_slow() interprets one instruction, host code goes on behind it.
 * Both put the guest's registers back into struct soft_cpu, so faults
 * may leave by cpu_raise() from anywhere below.
 *
 * A dropped translation may still be reached through the jump cache or be the
 * one that is running: its body starts with a jump to code that leaves, and
 * `epoch` tells jit_slow() not to go back into it.
 *
 * #syscalls sigaltstack mmap munmap madvise
 */
#include "vmm/soft/jit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "vmm/soft/jit_emit.h"
#include "vmm/soft/ops.h"

static const int8_t pinned[] = {
	H_RAX, H_RCX, H_RDX, H_RBX, H_RBP, H_RSI, H_RDI, H_R8, H_R12, H_R13,
	H_R14, H_R15,
};

/* --- thunks ------------------------------------------------------------------ */

static void emit_spill(struct emit *e)
{
	for (unsigned k = 0; k < ARRAY_LEN(pinned); k++)
		e_st(e, OFF_GPR(pinned[k]), pinned[k]);
	e_st(e, OFF_GPR(X86_RSP), H_R9);
}

static void emit_fill(struct emit *e)
{
	e_flags_load(e);
	for (unsigned k = 0; k < ARRAY_LEN(pinned); k++)
		e_ld(e, pinned[k], OFF_GPR(pinned[k]));
	e_ld(e, H_R9, OFF_GPR(X86_RSP));
}

/* uint32_t enter(cpu, code): callee-saved registers on the caller's stack */
static void emit_enter(struct emit *e)
{
	static const uint8_t push[] = {
		0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57,
	};

	for (unsigned k = 0; k < sizeof(push); k++)
		e8(e, push[k]);
	e_mem(e, true, 0x89, H_RSP, H_RDI,
	      offsetof(struct soft_cpu, aside[JIT_HOST_RSP]));
	e_mov(e, H_R10, H_RSI);
	e_lea(e, true, H_RSP, H_RDI, -1, 0, JIT_BIAS);
	emit_fill(e);
	e_jmp_reg(e, H_R10);
}

static void emit_exit_thunk(struct emit *e)
{
	static const uint8_t pop[] = {
		0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3,
	};

	emit_spill(e);
	e_rr(e, false, 0x89, H_RAX, H_S2);
	e_ld(e, H_RSP, OFF(aside[JIT_HOST_RSP]));
	for (unsigned k = 0; k < sizeof(pop); k++)
		e8(e, pop[k]);
}

static const uint8_t *jit_slow(struct soft_cpu *cpu, uint32_t id);

static void emit_slow_thunk(struct emit *e)
{
	emit_spill(e);
	e_lea(e, true, H_RDI, H_RSP, -1, 0, -JIT_BIAS);
	e_rr(e, false, 0x89, H_RSI, H_S2);
	e_mov(e, H_RBX, H_RSP);
	e_ld(e, H_RSP, OFF(aside[JIT_HOST_RSP]));
	e_imm(e, true, 5, H_RSP, 8);		/* calls want it 16-aligned */
	e8(e, 0x48);				/* mov rax, jit_slow */
	e8(e, 0xb8);
	e64(e, (uintptr_t)jit_slow);
	e8(e, 0xff);				/* call rax */
	e8(e, 0xd0);
	e_mov(e, H_RSP, H_RBX);
	e_mov(e, H_R10, H_RAX);
	emit_fill(e);
	e_jmp_reg(e, H_R10);
}

static const uint8_t *thunk(struct jit *j, struct emit *e)
{
	j->used = ALIGN_UP((size_t)(e->p - j->rw), (size_t)64);
	e->p = j->rw + j->used;
	return j->rx + j->used;
}

uint32_t jit_meta_new(struct jit *j, enum jit_kind kind)
{
	j->meta[j->nr_meta] = (struct jit_meta){ .kind = kind, .level = j->level };
	return j->nr_meta++;
}

/* A thunk that leaves with a record of its own. */
static const uint8_t *leave_thunk(struct jit *j, struct emit *e, enum jit_kind kind)
{
	const uint8_t *at = thunk(j, e);

	e_movi(e, H_S2, jit_meta_new(j, kind));
	e_patch(e_jump(e, -1), j->exit + (j->rw - j->rx));
	return at;
}

static struct jit_lane lane(size_t from, size_t end)
{
	return (struct jit_lane){ .used = from, .end = end,
				  .settled = ALIGN_UP(from, (size_t)PAGE_SIZE) };
}

/* The first part begins with the thunks, which are hot. */
static void take_part(struct jit *j, size_t from)
{
	size_t part = ALIGN_DOWN(from, (size_t)JIT_PART);

	j->hot = lane(from, part + JIT_PART_HOT);
	j->cold = lane(part + JIT_PART_HOT, part + JIT_PART);
	j->used = part + JIT_PART;
}

static void make_thunks(struct jit *j)
{
	struct emit e = { .p = j->rw };

	j->enter = (uint32_t (*)(struct soft_cpu *, const uint8_t *))
		(uintptr_t)thunk(j, &e);
	emit_enter(&e);
	j->exit = thunk(j, &e);
	emit_exit_thunk(&e);
	j->slow = thunk(j, &e);
	emit_slow_thunk(&e);
	j->ret_other = thunk(j, &e);
	jit_return_thunk(j, &e);
	j->leave = leave_thunk(j, &e, META_LEAVE);
	j->miss = leave_thunk(j, &e, META_INDIRECT);
	j->ret_none = thunk(j, &e);
	jit_return_none_thunk(j, &e);
	j->syscall = thunk(j, &e);
	jit_syscall_thunk(j, &e);
	j->sysret = thunk(j, &e);
	jit_sysret_thunk(j, &e);
	j->find = thunk(j, &e);
	jit_site_thunk(j, &e);
	thunk(j, &e);
	j->thunks = j->used;
	take_part(j, j->thunks);
	j->thunk_metas = j->nr_meta;
}

/* --- running ------------------------------------------------------------------ */

static struct block *block_of(const struct insn *first)
{
	return container_of((struct insn *)(uintptr_t)first, struct block, insn[0]);
}

HANDLER(stop)
{
	return NULL;
}

/* The instruction's own handler: a block's first has ours in its place. */
static insn_fn *handler_of(const struct insn *i)
{
	return i->off == 0 && i->nr == 1 ? block_of(i)->first_fn : i->fn;
}

/* Not REP MOVS, which takes thirty cycles to start, and not libc. */
static void copy_insn(struct insn *dst, const struct insn *src)
{
	typedef uint64_t __attribute__((may_alias)) word;
	const word *from = (const void *)src;
	word *to = (void *)dst;

	for (unsigned k = 0; k < sizeof(*dst) / 8; k++)
		to[k] = from[k];
}

/* Page tables of the writable view go here, where nobody waits. */
static void settle(struct jit *j, struct jit_lane *l, bool all)
{
	size_t to = all ? l->end : ALIGN_DOWN(l->used, (size_t)JIT_SETTLE);

	if (to > l->settled)
		codemem_settle(&j->code, l->settled, to - l->settled);
	l->settled = MAX(l->settled, to);
}

static bool lane_full(const struct jit_lane *l)
{
	return l->used + JIT_BLOCK_ROOM > l->end;
}

static bool room(struct jit *j)
{
	bool full = lane_full(&j->hot) || lane_full(&j->cold);

	settle(j, &j->hot, full);
	settle(j, &j->cold, full);
	if (full && j->used < JIT_CODE_SIZE) {
		take_part(j, j->used);
		full = false;
	}
	return !full &&
	       j->nr_meta + 1024 <= JIT_MAX_META && j->nr_site + 256 <= JIT_MAX_SITES &&
	       j->nr_jblock < JIT_MAX_BLOCKS && j->nr_fault + 1024 <= JIT_MAX_FAULTS;
}

/* Where the block goes on whose window is not to be had. */
static const uint8_t *go_carefully(struct soft_cpu *cpu, struct jit_meta *m)
{
	struct jit *j = cpu->jit;

	if (!m->careful && m->jb->block && room(j)) {
		fp_save(cpu);
		m->careful = jit_translate_careful(cpu, m->jb, m->k);
		fp_load(cpu);
		if (m->site)
			e_patch(m->site, m->careful + (j->rw - j->rx));
	}
	return m->careful ? m->careful : j->leave;
}

/* Kernel code with AC set: what is filled is not where the block looks. */
static bool other_table(const struct soft_cpu *cpu, const struct jblock *jb)
{
	return jb->table >= 0 && cpu->tlb != &cpu->mmu.tlb[jb->table];
}

static const uint8_t *window_missed(struct soft_cpu *cpu, struct jit_meta *m)
{
	uint64_t base = m->base == BASE_RIP ? cpu->scratch[JIT_PAGE_VA] : cpu->gpr[m->base];
	uint64_t va = base + (int64_t)m->lo;
	const uint8_t *to;

	cpu->rip = cpu->scratch[JIT_PAGE_VA] + (int64_t)m->off;
	if (unlikely(cpu->watch))
		cpu->watch->end(cpu, NULL);
	if ((va & ~PAGE_MASK) + m->span <= PAGE_SIZE && !other_table(cpu, m->jb) &&
	    mmu_touch(cpu, va, m->dirty, m->write))
		to = m->resume;
	else
		to = go_carefully(cpu, m);
	if (unlikely(cpu->watch) && to != cpu->jit->leave)
		cpu->watch->begin(cpu, m->k ? m->i - 1 : NULL);
	return to;
}

/* Host code at rip, or the thunk that leaves to have it found. */
static const uint8_t *host_at_rip(struct soft_cpu *cpu)
{
	const struct jump *at = &cpu->jumps[jump_hash(cpu->rip)];

	if (attention(cpu) || cpu->jit->fp_deny != cpu->fp_deny || at->rip != cpu->rip ||
	    (at->gen != cpu->gen && at->gen != cpu->gen_global))
		return cpu->jit->leave;
	cpu->scratch[JIT_TARGET] = cpu->rip;	/* at->host may be the miss thunk */
	cpu->scratch[JIT_PAGE_VA] = cpu->rip & PAGE_MASK;
	return at->host;
}

static const uint8_t *transfer(struct soft_cpu *cpu, const struct jit_meta *m)
{
	cpu->jit->stat.transfers++;
	cpu->rip = cpu->scratch[JIT_PAGE_VA] + (int64_t)m->off;
	if (unlikely(cpu->watch))
		cpu->watch->end(cpu, m->i);
	transfer_of(m->i)(cpu, m->i);
	return host_at_rip(cpu);
}

static void note_interpreted(struct jit *j, const struct jit_meta *m)
{
	j->stat.interpreted[m->cause]++;
	if (m->cause >= CAUSE_KIND)
		j->by_mnemonic[m->i->mnemonic]++;
}

static const uint8_t *jit_slow(struct soft_cpu *cpu, uint32_t id)
{
	struct jit *j = cpu->jit;
	struct jit_meta *m = &j->meta[id];
	const uint8_t *resume = m->resume;
	uint64_t epoch = j->epoch, gen = cpu->gen, gen_global = cpu->gen_global, next;
	uint64_t narrowed = cpu->mmu.narrowed;
	const struct tlb *tlb = cpu->tlb;

	if (m->kind == META_WINDOW)
		return window_missed(cpu, m);
	if (m->kind == META_TRANSFER)
		return transfer(cpu, m);
	note_interpreted(j, m);
	cpu->rip = cpu->scratch[JIT_PAGE_VA] + (int64_t)m->off;
	next = cpu->rip + m->i->len;
	if (unlikely(cpu->watch))
		cpu->watch->end(cpu, m->i);
	copy_insn(&j->pair[0], m->i);
	j->pair[0].fn = handler_of(m->i);
	j->pair[1].mnemonic = m->i[1].mnemonic;	/* STI asks whether it is last */
	j->in_slow = true;
	j->pair[0].fn(cpu, &j->pair[0]);
	j->in_slow = false;
	if (likely(cpu->rip == next && epoch == j->epoch && gen == cpu->gen &&
		   gen_global == cpu->gen_global && tlb == cpu->tlb &&
		   narrowed == cpu->mmu.narrowed && j->fp_deny == cpu->fp_deny &&
		   !attention(cpu))) {
		if (unlikely(cpu->watch))
			cpu->watch->begin(cpu, m->i);
		return resume;
	}
	return j->leave;
}

/*
 * Connects an exit with the block it led to.  Code for some level alone is entered from
 * such code alone.
 */
static void link_exit(struct jit *j, struct jit_meta *m, struct jblock *to)
{
	uint32_t *next = &j->next_link[m - j->meta], *first = &j->first_link[to - j->jblock];

	/* a return address taken before the link was made leads here again */
	if (!m->site || *next || to->block->gpa2 ||
	    (to->level != LEVEL_ANY && to->level != m->level))
		return;
	e_patch(m->site, (m->host_flags ? to->entry_h : to->entry_m) + (j->rw - j->rx));
	*next = *first;
	*first = (uint32_t)(m - j->meta);
	j->stat.links++;
}

static void set_jump(struct soft_cpu *cpu, struct jblock *to)
{
	struct jump *at = &cpu->jumps[jump_hash(cpu->rip)];

	if (unlikely(cpu->watch))
		return;
	if (at->rip == cpu->rip && at->code == to->block->insn &&
	    (at->gen == cpu->gen || at->gen == cpu->gen_global))
		at->host = to->entry_m;
}

static struct jit_meta *run_host(struct soft_cpu *cpu, const uint8_t *code)
{
	struct jit *j = cpu->jit;
	struct jit_meta *m;

	if (unlikely(cpu->watch))
		cpu->watch->begin(cpu, NULL);
	cpu->scratch[JIT_PAGE_VA] = cpu->rip & PAGE_MASK;
	m = &j->meta[j->enter(cpu, code)];
	if (m->kind == META_INDIRECT)
		cpu->rip = cpu->scratch[JIT_TARGET];
	else if (m->kind != META_LEAVE)
		cpu->rip = cpu->scratch[JIT_PAGE_VA] + (int64_t)m->off;
	j->may_link = m->kind == META_LINK;
	if (unlikely(cpu->watch))
		j->may_link &= cpu->watch->end(cpu, m->kind == META_INTERP ? m->i : NULL);
	return m;
}

static insn_fn jit_run;

static struct jblock *translation(const struct soft_cpu *cpu, const struct block *b)
{
	uint32_t no = block_use(cpu, b)->jit;

	return no ? &cpu->jit->jblock[no - 1] : NULL;
}

static bool fits(const struct soft_cpu *cpu, const struct jblock *jb)
{
	return jb->level == LEVEL_ANY || jb->level == jit_level(cpu);
}

/*
 * Runs host code.  Returns to the interpreter when something has to be seen to, or the
 * way leads to code that is not translated.
 */
static const struct insn *enter(struct soft_cpu *cpu, struct jblock *jb)
{
	struct jit *j = cpu->jit;

	if (unlikely(j->fp_deny != cpu->fp_deny)) {
		jit_flush(cpu);
		j->fp_deny = cpu->fp_deny;
		return NULL;
	}
	if (unlikely(j->in_slow))	/* the handler went on to here */
		return NULL;
	if (unlikely(!fits(cpu, jb))) {
		jb->block->shared = true;
		jit_drop(cpu, jb->block);
		return NULL;
	}
	set_jump(cpu, jb);
	for (;;) {
		struct jit_meta *m = run_host(cpu, jb->entry_m);
		uint64_t epoch = j->epoch;
		const struct insn *n;

		j->stat.enters++;
		if (m->kind == META_INTERP) {
			note_interpreted(j, m);
			return handler_of(m->i)(cpu, m->i);
		}
		if (unlikely(attention(cpu) || j->fp_deny != cpu->fp_deny ||
			     (cpu->run_until && cpu->rip == cpu->run_until)))
			return NULL;
		n = block_next(cpu);
		if (n->fn != jit_run || !(jb = translation(cpu, block_of(n))))
			return n;
		if (unlikely(!fits(cpu, jb)))
			return n;
		if (j->may_link && epoch == j->epoch)
			link_exit(j, m, jb);
		set_jump(cpu, jb);
	}
}

static struct jblock *translate(struct soft_cpu *cpu, struct block *b)
{
	struct jit *j = cpu->jit;
	struct jblock *jb;

	fp_save(cpu);
	jb = jit_translate(cpu, b);
	fp_load(cpu);
	if (jb)
		block_use(cpu, b)->jit = (uint32_t)(jb - j->jblock) + 1;
	else
		b->insn[0].fn = b->first_fn;
	return jb;
}

/* The handler of a block's first instruction. */
HANDLER(jit_run)
{
	struct block *b = block_of(i);
	struct block_use *use = block_use(cpu, b);
	struct jblock *jb = translation(cpu, b);

	if (jb)
		return enter(cpu, jb);
	if (likely(++use->heat < cpu->jit->heat))
		return b->first_fn(cpu, i);
	if (!room(cpu->jit)) {
		jit_flush(cpu);
		return b->first_fn(cpu, i);
	}
	jb = translate(cpu, b);
	return jb ? enter(cpu, jb) : b->first_fn(cpu, i);
}

const uint8_t *jit_way_out(const struct soft_cpu *cpu)
{
	const struct jit *j = cpu->jit;

	return j ? j->miss : NULL;
}

/* --- the life of translations --------------------------------------------------- */

void jit_hook(struct soft_cpu *cpu, struct block *b)
{
	b->first_fn = b->insn[0].fn;
	if (cpu->jit && b->nr)
		b->insn[0].fn = jit_run;
}

/* Back to counting, without touching the host code. */
static void unhook(const struct soft_cpu *cpu, struct jblock *jb)
{
	struct block_use *use = block_use(cpu, jb->block);

	jb->block = NULL;
	use->jit = 0;
	use->heat = 0;
}

void jit_drop(struct soft_cpu *cpu, struct block *b)
{
	struct jit *j = cpu->jit;
	struct jblock *jb = j ? translation(cpu, b) : NULL;

	if (!jb)
		return;
	for (uint32_t k = j->first_link[jb - j->jblock], next; k != LAST_LINK; k = next) {
		next = j->next_link[k];
		j->next_link[k] = 0;
		e_patch(j->meta[k].site, j->meta[k].stub + (j->rw - j->rx));
	}
	jb->body[0] = 0xe9;
	e_patch(jb->body + 1, jb->gone);
	unhook(cpu, jb);
	j->epoch++;
	j->stat.dropped++;
}

void jit_flush(struct soft_cpu *cpu)
{
	struct jit *j = cpu->jit;

	if (!j)
		return;
	for (uint32_t k = 0; k < j->nr_jblock; k++)
		if (j->jblock[k].block)
			unhook(cpu, &j->jblock[k]);
	for (unsigned k = 0; k < JUMP_SIZE; k++)
		cpu->jumps[k].host = j->miss;
	for (uint32_t k = 0; k < j->nr_meta; k++)
		j->next_link[k] = 0;
	jit_return_forget(cpu, true);
	codemem_renew(&j->code, j->thunks);
	take_part(j, j->thunks);
	j->nr_meta = j->thunk_metas;
	j->nr_jblock = j->nr_fault = j->nr_site = 0;
	j->epoch++;
	j->stat.flushes++;
}

/* Where translated code goes on after a fault at host address rip; 0: not ours. */
static uintptr_t fault_resume(const struct jit *j, uintptr_t rip)
{
	uint32_t lo = 0, hi = j->nr_fault, at;

	if (rip - (uintptr_t)j->rx >= j->used)
		return 0;
	at = (uint32_t)(rip - (uintptr_t)j->rx);
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (j->fault[mid].code < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == j->nr_fault || j->fault[lo].code != at)
		return 0;
	return (uintptr_t)j->rx + j->fault[lo].stub;
}

/* Signal handlers have no other way to know. */
static _Thread_local struct soft_cpu *jit_cpu __attribute__((tls_model("initial-exec")));

bool jit_signal(void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t to = 0;

	if (jit_cpu && jit_cpu->jit)
		to = fault_resume(jit_cpu->jit, (uintptr_t)g[REG_RIP]);
	if (to)
		g[REG_RIP] = (greg_t)to;
	return to;
}

/*
 * Vector instructions on misaligned addresses; and, after a fork, writes into code
 * that is shared.
 */
static void on_sigsegv(int sig, siginfo_t *info, void *context)
{
	if (jit_cpu && jit_cpu->jit && codemem_fault(&jit_cpu->jit->code, info->si_addr))
		return;
	if (!jit_signal(context))
		signal(sig, SIG_DFL);	/* our own bug: die of it on return */
}

#define ALTSTACK_SIZE (64u << 10)

void jit_thread(struct soft_cpu *cpu)
{
	stack_t ss = { .ss_size = ALTSTACK_SIZE };

	jit_cpu = cpu;
	if (!cpu->jit)
		return;
	ss.ss_sp = cpu->jit->altstack;
	sigaltstack(&ss, NULL);
}

/* --- set-up --------------------------------------------------------------------- */

_Static_assert(JIT_CODE_SIZE <= CODEMEM_MAX, "a bit a chunk");

/* Records of the translations: large, filled from the front. */
#define META_SIZE	(JIT_MAX_META * sizeof(struct jit_meta))
#define JBLOCK_SIZE	(JIT_MAX_BLOCKS * sizeof(struct jblock))
#define SITES_SIZE	(JIT_MAX_SITES * sizeof(struct jit_site))
#define FAULT_SIZE	(JIT_MAX_FAULTS * sizeof(struct jit_fault))
#define FIRST_SIZE	(JIT_MAX_BLOCKS * sizeof(uint32_t))
#define NEXT_SIZE	(JIT_MAX_META * sizeof(uint32_t))

static void *reserve(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, n, MADV_DONTFORK);
	return p;
}

int jit_init(struct soft_cpu *cpu)
{
	struct sigaction sa = { .sa_sigaction = on_sigsegv,
				.sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct jit *j = calloc(1, sizeof(*j));
	int ret;

	if (!j)
		return -ENOMEM;
	cpu->jit = j;
	j->fp_deny = cpu->fp_deny;
	j->heat = JIT_HEAT;
	j->altstack = malloc(ALTSTACK_SIZE);
	ret = codemem_init(&j->code, JIT_CODE_SIZE, SITES_SIZE);
	j->rw = j->code.rw;
	j->rx = j->code.rx;
	j->meta = reserve(META_SIZE);
	j->jblock = reserve(JBLOCK_SIZE);
	j->fault = reserve(FAULT_SIZE);
	j->first_link = reserve(FIRST_SIZE);
	j->next_link = reserve(NEXT_SIZE);
	if (!ret && (!j->altstack || !j->meta || !j->jblock || !j->fault ||
		     !j->first_link || !j->next_link))
		ret = -ENOMEM;
	if (ret) {
		jit_done(cpu);
		return ret;
	}
	sigaction(SIGSEGV, &sa, NULL);
	j->site = (struct jit_site *)(void *)j->code.data;
	make_thunks(j);
	jit_return_forget(cpu, true);
	j->pair[1].fn = stop;
	for (unsigned k = 0; k < JUMP_SIZE; k++)
		cpu->jumps[k].host = j->miss;
	return 0;
}

static void unreserve(const void *p, size_t n)
{
	if (p)
		munmap((void *)(uintptr_t)p, n);
}

void jit_done(struct soft_cpu *cpu)
{
	struct jit *j = cpu->jit;

	if (!j)
		return;
	codemem_done(&j->code);
	unreserve(j->meta, META_SIZE);
	unreserve(j->jblock, JBLOCK_SIZE);
	unreserve(j->fault, FAULT_SIZE);
	unreserve(j->first_link, FIRST_SIZE);
	unreserve(j->next_link, NEXT_SIZE);
	if (jit_cpu == cpu) {
		stack_t off = { .ss_flags = SS_DISABLE };

		sigaltstack(&off, NULL);
		jit_cpu = NULL;
	}
	free(j->altstack);
	free(j);
	cpu->jit = NULL;
}

/* --- a fork of the VMM ------------------------------------------------------------- */

static void for_fork(struct jit *j, int advice)
{
	madvise(j->meta, META_SIZE, advice);
	madvise(j->jblock, JBLOCK_SIZE, advice);
	madvise(j->fault, FAULT_SIZE, advice);
	madvise(j->first_link, FIRST_SIZE, advice);
	madvise(j->next_link, NEXT_SIZE, advice);
	madvise(j->site, SITES_SIZE, advice);
}

int jit_fork(struct soft_cpu *cpu)
{
	int ret = codemem_share(&cpu->jit->code, cpu->jit->used);

	if (!ret)
		for_fork(cpu->jit, MADV_DOFORK);
	return ret;
}

void jit_forked(struct soft_cpu *cpu)
{
	for_fork(cpu->jit, MADV_DONTFORK);
}
