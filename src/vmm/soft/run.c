// SPDX-License-Identifier: MIT
/*
 * run.c - the run loop: blocks, single steps, asynchronous causes, HLT.
 *
 * Blocks run each other without coming back here until the attention word is
 * set, an instruction faults (a longjmp to the top), or decoded code died under
 * them.  Interrupts are taken here alone, between two instructions.
 *
 * Step mode executes one instruction at a time, decoded on the spot.  It is for
 * all that must be looked at after each one: TF, breakpoints, the shadow
 * after STI and MOV SS, and tests that count.  It keeps ATT_SLOW set, so that
 * branches come back here.
 *
 * STI's shadow: `sti; hlt` must not be torn by an interrupt.  Attention is only
 * tested at branches, so within a block nothing can get in between; the shadow is
 * raised only when STI finds an interrupt waiting or ends its block.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#include "vmm/soft/jit.h"
#include "vmm/soft/ops.h"

/* --- flags and mode --------------------------------------------------------------- */

uint64_t rflags_get(const struct soft_cpu *cpu)
{
	return cpu->rflags | (cpu->cc >> 8 & 0xd5) | (cpu->cc & 1) << 11;
}

static void self_attention(struct soft_cpu *cpu, uint32_t bits)
{
	atomic_fetch_or_explicit(&cpu->attention, bits, memory_order_relaxed);
}

void rflags_set(struct soft_cpu *cpu, uint64_t v, uint64_t mask)
{
	uint32_t old = cpu->rflags, sys = mask & ~FL_CC & FL_KNOWN;

	if (mask & FL_CC)
		cpu->cc = (v & 0xd5) << 8 | (v >> 11 & 1);
	cpu->rflags = (old & ~sys) | (v & sys) | FL_ONE;
	if ((old ^ cpu->rflags) & FL_AC)
		cpu_mode_changed(cpu);
	if ((old ^ cpu->rflags) & FL_TF)
		cpu_update_stepping(cpu);
	if ((cpu->rflags & ~old & FL_IF) && cpu->irq_latched)
		self_attention(cpu, ATT_IRQ);
}

void cpu_mode_changed(struct soft_cpu *cpu)
{
	struct mmu *m = &cpu->mmu;
	bool compat = !(cpu->seg[X86_CS].attr & SEG_L);

	cpu->tlb = &m->tlb[mmu_mode(cpu)];
	cpu->gen = m->gen | (cpu->cpl == 3) | (compat ? 2 : 0);
	cpu->gen_global = cpu->cpl == 0 ? m->gen_global : 1;	/* 1: none */
	cpu->link = m->links | (cpu->cpl == 3) | (compat ? 2 : 0);
	cpu->link_global = cpu->cpl == 0 ? m->links_global : 1;
	cpu->ret_base = cpu->ret[cpu->cpl == 3];
}

void cpu_update_stepping(struct soft_cpu *cpu)
{
	cpu->stepping = (cpu->rflags & FL_TF) || (cpu->dr7 & 0xff) || cpu->limited;
	if (cpu->stepping)
		self_attention(cpu, ATT_SLOW);
}

void cpu_set_shadow(struct soft_cpu *cpu, enum soft_shadow s)
{
	cpu->shadow = s;
	self_attention(cpu, ATT_SLOW);
}

/* --- faults ----------------------------------------------------------------------- */

static bool has_error_code(unsigned vector)
{
	return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) ||
	       vector == VEC_AC;
}

static bool contributory(unsigned vector)
{
	return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

/* Which exception a fault during the delivery of another becomes (SDM 6.15). */
static void escalate(struct soft_cpu *cpu, const struct soft_event *first,
		     unsigned *vector, uint32_t *error)
{
	bool second = contributory(*vector);

	if (first->external || first->soft)
		return;
	if (first->vector == VEC_DF && (second || *vector == VEC_PF)) {
		cpu->shutdown = true;
	} else if ((contributory(first->vector) && second) ||
		   (first->vector == VEC_PF && (second || *vector == VEC_PF))) {
		*vector = VEC_DF;
		*error = 0;
	}
}

_Noreturn static void leave(struct soft_cpu *cpu)
{
	__builtin_longjmp(cpu->jmp, 1);
}

_Noreturn void cpu_raise(struct soft_cpu *cpu, unsigned vector, uint32_t error)
{
	cpu->stat.exceptions++;
	if (cpu->delivering)
		escalate(cpu, &cpu->event, &vector, &error);
	cpu->event = (struct soft_event){
		.vector = vector, .pending = true, .error = error,
		.has_error = has_error_code(vector), .next = cpu->rip,
	};
	leave(cpu);
}

_Noreturn void cpu_soft_int(struct soft_cpu *cpu, unsigned vector, unsigned len)
{
	cpu->event = (struct soft_event){
		.vector = vector, .pending = true, .soft = true, .trap = true,
		.next = cpu->rip + len,
	};
	leave(cpu);
}

_Noreturn void cpu_ud(struct soft_cpu *cpu)
{
	cpu_raise(cpu, VEC_UD, 0);
}

_Noreturn void cpu_gp(struct soft_cpu *cpu)
{
	cpu_raise(cpu, VEC_GP, 0);
}

_Noreturn void cpu_nm(struct soft_cpu *cpu)
{
	cpu_raise(cpu, VEC_NM, 0);
}

/* --- asynchronous causes ------------------------------------------------------------ */

static long futex(_Atomic uint32_t *word, int op, uint32_t val)
{
	register long r10 __asm__("r10") = 0;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret)
			 : "a"(SYS_futex), "D"(word), "S"(op), "d"(val), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

void soft_attention(struct soft_cpu *cpu, uint32_t bits)
{
	atomic_fetch_or(&cpu->attention, bits);
	/* pairs with snooze(): it sees the bits or we see it sleep */
	if (atomic_load(&cpu->sleeping))
		futex(&cpu->attention, FUTEX_WAKE_PRIVATE, 1);
}

/* Sleeps in HLT until some attention bit is set. */
static void snooze(struct soft_cpu *cpu)
{
	lapic_timer_idle(&cpu->lapic);
	atomic_store(&cpu->sleeping, 1);
	if (!atomic_load(&cpu->attention))
		futex(&cpu->attention, FUTEX_WAIT_PRIVATE, 0);
	atomic_store(&cpu->sleeping, 0);
}

/* Pages with code that devices wrote. */
static void code_hits(struct soft_cpu *cpu)
{
	struct soft_vm *svm = cpu->svm;
	struct mem_range hits[SOFT_HITS];
	unsigned n;

	while (atomic_flag_test_and_set_explicit(&svm->hits_lock, memory_order_acquire))
		__builtin_ia32_pause();
	n = svm->nr_hits;
	for (unsigned k = 0; k < n && k < SOFT_HITS; k++)
		hits[k] = svm->hits[k];
	svm->nr_hits = 0;
	atomic_flag_clear_explicit(&svm->hits_lock, memory_order_release);
	if (n > SOFT_HITS) {
		blocks_flush(cpu);
		return;
	}
	for (unsigned k = 0; k < n; k++)
		block_wrote(cpu, hits[k].start, hits[k].len);
}

static void inject(struct soft_cpu *cpu, unsigned vector)
{
	cpu->halted = false;
	cpu->event = (struct soft_event){
		.vector = vector, .pending = true, .external = true, .trap = true,
		.next = cpu->rip,
	};
}

/* Puts an interrupt that can be taken now into cpu->event. */
static void take_interrupt(struct soft_cpu *cpu)
{
	int vector;

	if (cpu->shadow || cpu->event.pending)
		return;
	if (cpu->nmi_pending && !cpu->nmi_masked) {
		cpu->nmi_pending = false;
		cpu->nmi_masked = true;
		inject(cpu, VEC_NMI);
		return;
	}
	if (!cpu->irq_latched || !(cpu->rflags & FL_IF))
		return;
	vector = lapic_pending(&cpu->lapic);
	if (vector < 0) {
		cpu->irq_latched = false;
		return;
	}
	cpu->stat.irqs++;
	lapic_ack(&cpu->lapic, vector);
	inject(cpu, vector);
}

/* True: leave the run loop with *stop. */
static bool attend(struct soft_cpu *cpu, enum soft_stop *stop)
{
	do {
		uint32_t a = atomic_exchange(&cpu->attention, 0);

		cpu->stat.exits++;
		if (a & ATT_CODE)
			code_hits(cpu);
		if (a & ATT_TIMER)
			lapic_timer_poll(&cpu->lapic);
		if (a & ATT_NMI)
			cpu->nmi_pending = true;
		if (a & (ATT_IRQ | ATT_TIMER))
			cpu->irq_latched = true;
		if (a & ATT_KICK) {
			self_attention(cpu, cpu->stepping || cpu->shadow ? ATT_SLOW : 0);
			*stop = SOFT_STOP_KICK;
			return true;
		}
		take_interrupt(cpu);
		if (!cpu->halted)
			break;
		if (cpu->bare) {
			*stop = SOFT_STOP_HLT;
			return true;
		}
		snooze(cpu);
	} while (1);
	if (cpu->stepping || cpu->shadow)
		self_attention(cpu, ATT_SLOW);
	return false;
}

/* --- stepping --------------------------------------------------------------------------- */

static bool hits_breakpoint(struct soft_cpu *cpu)
{
	uint64_t bits = 0;

	for (unsigned k = 0; k < 4; k++)
		if ((cpu->dr7 >> (2 * k) & 3) && !(cpu->dr7 >> (16 + 4 * k) & 15) &&
		    cpu->dr[k] == cpu->rip)
			bits |= 1u << k;
	cpu->dr6 |= bits;
	return bits;
}

static void step_one(struct soft_cpu *cpu)
{
	bool tf = cpu->rflags & FL_TF;
	const struct insn *i;

	if ((cpu->dr7 & 0xff) && !(cpu->rflags & FL_RF) &&
	    cpu->shadow != SHADOW_MOV_SS && hits_breakpoint(cpu))
		cpu_raise(cpu, VEC_DB, 0);
	cpu->rflags &= ~FL_RF;
	cpu->shadow = SHADOW_NONE;
	cpu->pending_db = 0;
	if (cpu->limited)
		cpu->run_left--;
	i = block_single(cpu);
	if (i->mnemonic == ZYDIS_MNEMONIC_SYSCALL)
		tf = false;	/* SFMASK has cleared it */
	while (i)
		i = i->fn(cpu, i);
	if (tf)
		cpu->pending_db |= DR6_BS;
	/* Held back behind MOV SS, whose successor traps by itself. */
	if (!cpu->pending_db || cpu->shadow == SHADOW_MOV_SS)
		return;
	cpu->dr6 |= cpu->pending_db;
	cpu->event = (struct soft_event){
		.vector = VEC_DB, .pending = true, .trap = true, .next = cpu->rip,
	};
}

/* --- the loop ---------------------------------------------------------------------------- */

static bool run_event(struct soft_cpu *cpu, enum soft_stop *stop)
{
	if (cpu->shutdown) {
		*stop = SOFT_STOP_SHUTDOWN;
		return true;
	}
	if (cpu->bare && !cpu->deliver) {
		*stop = SOFT_STOP_EXCEPTION;
		return true;
	}
	cpu->delivering = true;
	event_deliver(cpu);
	cpu->delivering = false;
	cpu->event.pending = false;
	return false;
}

static bool run_ends(struct soft_cpu *cpu, enum soft_stop *stop)
{
	if (cpu->run_until && cpu->rip == cpu->run_until)
		*stop = SOFT_STOP_RIP;
	else if (cpu->limited && !cpu->run_left)
		*stop = SOFT_STOP_COUNT;
	else
		return false;
	return true;
}

static __attribute__((noinline)) enum soft_stop run_loop(struct soft_cpu *cpu)
{
	enum soft_stop stop;

	for (;;) {
		const struct insn *i;

		if (cpu->event.pending) {
			if (run_event(cpu, &stop))
				return stop;
			continue;
		}
		if (attention(cpu) && attend(cpu, &stop))
			return stop;
		if (cpu->event.pending)
			continue;
		if (run_ends(cpu, &stop))
			return stop;
		if (cpu->stepping || cpu->shadow) {
			step_one(cpu);
			continue;
		}
		for (i = block_next(cpu); i;)
			i = i->fn(cpu, i);
	}
}

static __attribute__((noinline)) enum soft_stop run(struct soft_cpu *cpu)
{
	if (__builtin_setjmp(cpu->jmp)) {
		cpu->rmw_slow = false;	/* an instruction was given up */
		jit_given_up(cpu);
	}
	return run_loop(cpu);
}

enum soft_stop soft_run(struct soft_cpu *cpu, uint64_t max, uint64_t until)
{
	enum soft_stop stop;

	if (cpu->bare && !cpu->deliver)
		cpu->event.pending = false;
	cpu->limited = max || until;
	cpu->run_left = max ? max : UINT64_MAX;
	cpu->run_until = until;
	cpu_update_stepping(cpu);
	/* Asleep in HLT when it was kicked or loaded: back to sleep first. */
	if (cpu->shadow || cpu->halted)
		self_attention(cpu, ATT_SLOW);
	jit_thread(cpu);
	fp_load(cpu);
	stop = run(cpu);
	fp_save(cpu);
	return stop;
}
