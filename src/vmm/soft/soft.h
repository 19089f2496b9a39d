/* SPDX-License-Identifier: MIT */
/*
 * soft.h - the software CPU: its state, and what its parts say to each other.
 *
 * Only src/vmm/soft and its tests include this; the rest of the VMM sees
 * `accel_soft` (vmm/accel.h).  insn.h has decoded instructions and blocks, mmu.h
 * guest memory; docs/cpu.md tells how it all works.
 *
 * While a vCPU runs, the guest's x87, vector and mask registers, MXCSR and x87
 * control word are in the host's own registers.  Code that may touch those
 * (nearly all of libc, Zydis, the rest of the VMM) is called between fp_save()
 * and fp_load().
 */
#ifndef SOFT_H
#define SOFT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"
#include "vmm/arch/x86/cpuid.h"
#include "vmm/arch/x86/state.h"
#include "vmm/mem.h"
#include "vmm/soft/clock.h"
#include "vmm/soft/ioapic.h"
#include "vmm/soft/lapic.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/x86.h"

struct blocks;
struct err;
struct insn;
struct jit;
struct jump;
struct soft_vm;
struct vcpu;

/* Asynchronous causes; set through soft_attention() by any thread. */
enum soft_attention {
	ATT_KICK  = 1 << 0,	/* leave vcpu_run() */
	ATT_IRQ   = 1 << 1,	/* ask lapic_pending() again */
	ATT_NMI   = 1 << 2,
	ATT_CODE  = 1 << 3,	/* soft_vm.hits has ranges devices wrote */
	ATT_SLOW  = 1 << 4,	/* own thread: step mode, shadow, full cache */
	ATT_TIMER = 1 << 5,	/* lapic_timer_poll() */
	ATT_INIT  = 1 << 6,	/* INIT, then SIPI */
	ATT_SIPI  = 1 << 7,
};

/*
 * Somebody who looks over the translator's shoulder (tests/lib/lockstep.c); NULL in
 * every VM.  Translations are linked only where end() says so, and the jump cache
 * leads to none, so that host code soon comes back.
 */
struct soft_watch {
	/* Host code is about to run from cpu->rip, where flags are in cpu->cc: a
	 * block's start, or behind an instruction that the interpreter did for it. */
	void (*begin)(struct soft_cpu *cpu, const struct insn *done);
	/* It stopped at cpu->rip, `next` being the interpreter's if not NULL. */
	bool (*end)(struct soft_cpu *cpu, const struct insn *next);
	/* Memory while the watcher itself interprets: host address; *gpa follows. */
	uint8_t *(*access)(struct soft_cpu *cpu, uint64_t va, unsigned len,
			   unsigned acc, uint64_t *gpa);
	bool interpreting;
};

enum soft_shadow { SHADOW_NONE, SHADOW_STI, SHADOW_MOV_SS };

struct soft_event {
	uint8_t vector;
	bool pending, has_error;
	bool soft;		/* INT n and friends: checks the gate's DPL */
	bool trap;		/* no RF in the pushed flags */
	bool external;		/* an interrupt */
	uint32_t error;
	uint64_t next;		/* rip to push */
};

/* Byte offset from gpr[0]: what an instruction's register operands hold. */
enum soft_slot {
	SLOT_RIP = 16 * 8, SLOT_ZERO = 17 * 8, SLOT_FS = 18 * 8, SLOT_GS = 19 * 8,
};

/* Where a RET will go, and its translation; jit_ret.c. */
#define JIT_RETURNS 128
struct jit_return {
	uint64_t va;
	const uint8_t *host;
};

/* The first 256 bytes are in reach of an 8-bit displacement from cpu + 128. */
struct soft_cpu {
	uint64_t gpr[16];	/* enum x86_gpr */
	uint64_t rip;		/* of the instruction, until it completes */
	uint64_t zero;		/* always 0: base or index of "none" */
	uint64_t fs_base, gs_base;
	uint32_t cc;		/* arithmetic flags as LAHF; SETO AL leave them */
	_Atomic uint32_t attention;	/* enum soft_attention */
	struct tlb *tlb;	/* the current mode's table */
	uint32_t rflags;	/* the other flags; RFLAGS = rflags_get() */
	uint8_t cpl;
	uint8_t shadow;		/* enum soft_shadow */
	bool rmw_slow;		/* rmw_end() has work */
	bool stepping;		/* one instruction at a time: TF, DR7, soft_run */
	uint64_t gen, gen_global;	/* epochs of the jump cache; 0: none */
	struct jump *jumps;	/* jump cache (insn.h); owned by blocks */
	uint64_t scratch[3];	/* the translator's */
	uint64_t link, link_global;	/* epochs of what jumps remember; jit_site.c */
	struct jit_return *ret_base;	/* ret[] of this mode */
	uint64_t window[16];	/* the translator's: host - guest address, within a block */
	uint64_t icount;	/* instructions, counted a block at a time */
	struct gclock_cpu time;
	bool ret_local;		/* kernel code was in a page that is not global */
	struct jit_return ret[2][JIT_RETURNS] __attribute__((aligned(64)));	/* kernel's, user's */
	uint64_t aside[3];	/* the translator's, seldom used */

	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0, dr[4], dr6, dr7;
	struct x86_segment seg[X86_NR_SEGS];	/* fs and gs base: see above */
	struct x86_dtable gdt, idt;
	uint64_t kernel_gs_base, star, lstar, cstar, sfmask, tsc_aux;
	uint64_t msr[MSR_NR_STORED];	/* the ones without effect; msr.c */

	struct soft_event event;	/* being delivered or to be injected */
	bool delivering;	/* a fault now is a double fault or worse */
	bool nmi_pending, nmi_masked;
	bool irq_latched;	/* interrupt pending while it could not be taken */
	bool halted;
	bool bare;		/* soft_run() returns at exceptions and HLT */
	bool deliver;		/* and yet exceptions go through the IDT */
	bool shutdown;
	uint8_t fp_deny;	/* enum fp_class: instructions that fault now */
	bool limited;		/* soft_run() counts instructions */
	uint64_t run_left, run_until;
	uint64_t pending_db;	/* DR6 bits of a debug trap after this instruction */
	void *jmp[5];		/* __builtin_setjmp of the run loop */

	struct blocks *blocks;	/* owned; block.c */
	struct mem *mem;	/* borrowed */
	struct lapic lapic;
	struct soft_vm *svm;	/* borrowed */
	struct vcpu *vcpu;	/* borrowed; NULL in bare tests */
	const struct cpu_model *model;	/* borrowed */
	unsigned id;		/* APIC id */
	void *fp;		/* owned by fp.c */
	struct jit *jit;	/* owned by jit.c; NULL: interpreter alone */
	struct soft_watch *watch;	/* borrowed; tests: of the translator */
	_Atomic uint32_t sleeping;	/* in HLT's futex */
	struct {
		uint64_t exits, irqs, exceptions, decoded, mmio, pio, tlb_fill, tlb_walk,
			 code_hits, flushes;
	} stat;

	bool fp_live;		/* guest FP state is in the host's registers */
	uint64_t host_xcr0;	/* components that fp_save() and fp_load() move */
	uint8_t xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));	/* guest's */

	struct mmu mmu;		/* large */
};

#define SOFT_HITS 64
struct soft_vm {
	struct vm *vm;		/* borrowed; NULL in bare tests */
	struct mem *mem;	/* borrowed */
	struct soft_cpu *cpu[LIMIT_CPUS];	/* owned; by APIC id */
	unsigned nr_cpus;
	struct lapic_hub hub;
	struct ioapic ioapic;
	struct gclock clock;
	/* pages that devices wrote and that hold code, for the vCPUs */
	atomic_flag hits_lock;
	unsigned nr_hits;	/* > SOFT_HITS: all pages */
	struct mem_range hits[SOFT_HITS];
	struct { gpa_t gpa; uint32_t value; int efd; } doorbell[256];
	_Atomic unsigned nr_doorbells;
};

/* --- any thread ----------------------------------------------------------- */

/* Raises a cause and wakes a vCPU that sleeps in HLT.  Async-signal-safe. */
void soft_attention(struct soft_cpu *cpu, uint32_t bits);

/* --- on the vCPU's thread, or while it does not run ------------------------- */

/* Ends the current instruction with a fault.  Guest state must be untouched. */
_Noreturn void cpu_raise(struct soft_cpu *cpu, unsigned vector, uint32_t error);
_Noreturn void cpu_ud(struct soft_cpu *cpu);	/* #UD */
_Noreturn void cpu_gp(struct soft_cpu *cpu);	/* #GP(0) */
_Noreturn void cpu_nm(struct soft_cpu *cpu);	/* #NM */

_Noreturn void cpu_soft_int(struct soft_cpu *cpu, unsigned vector, unsigned len);
/* Delivers cpu->event through the IDT; except.c. */
void event_deliver(struct soft_cpu *cpu);
/* TF, DR7, limited or shadow changed. */
void cpu_update_stepping(struct soft_cpu *cpu);
void cpu_set_shadow(struct soft_cpu *cpu, enum soft_shadow s);

/* #GP or #SS for an address that is not canonical. */
_Noreturn void cpu_noncanonical(struct soft_cpu *cpu, unsigned acc);
/* Data breakpoints (DR7): notes a debug trap for after this instruction. */
void debug_watch(struct soft_cpu *cpu, uint64_t va, unsigned len, bool write);

/* Moves guest FP state out of the host's registers and back.  fp_live tells
 * where it is; saving what is saved and loading what is loaded do nothing. */
void fp_save(struct soft_cpu *cpu);
void fp_load(struct soft_cpu *cpu);
/* After CR0, CR4 or XCR0 changed. */
void fp_mode_changed(struct soft_cpu *cpu);
/* After cpu->xsave was replaced, by whatever: makes it one that loads. */
void fp_sanitise(struct soft_cpu *cpu);

uint64_t rflags_get(const struct soft_cpu *cpu);
/* Only bits in mask; then look at attention: an interrupt may be due. */
void rflags_set(struct soft_cpu *cpu, uint64_t v, uint64_t mask);
/* After CPL, RFLAGS.AC, CR0, CR3, CR4 or EFER changed. */
void cpu_mode_changed(struct soft_cpu *cpu);
uint64_t cpu_tsc(const struct soft_cpu *cpu);

void soft_get_state(struct soft_cpu *cpu, struct x86_state *s);
int soft_set_state(struct soft_cpu *cpu, const struct x86_state *s, struct err *err);

/* cpu.c: alloc, then init; done frees what init made, then free.  Reset state is long
 * mode with nothing mapped. */
struct soft_cpu *soft_cpu_alloc(void);
void soft_cpu_free(struct soft_cpu *cpu);
int soft_cpu_init(struct soft_cpu *cpu, struct soft_vm *svm, unsigned id,
		  const struct cpu_model *model);
/* In a child of fork(2), in place of it: `cpu` was the source's and becomes one of
 * svm, of the same model and on the same memory.  It keeps decoded and translated
 * code, and TLBs and jump cache if the state that it is given is the source's. */
void soft_cpu_inherit(struct soft_cpu *cpu, struct soft_vm *svm, unsigned id,
		      const struct cpu_model *model);
void soft_cpu_done(struct soft_cpu *cpu);
/* accel->cpuid_can */
void soft_cpuid_can(uint32_t *words);

/* stat.c: counters, and what they are called. */
struct json_t;
void soft_cpu_stats(const struct soft_cpu *cpu, struct json_t *obj);

/* --- bare CPUs, for tests ---------------------------------------------------- */

/* A CPU without board on this RAM, in long mode only after soft_set_state(). */
struct soft_cpu *soft_new(struct mem *mem, const struct cpu_model *model);
void soft_free(struct soft_cpu *cpu);

enum soft_stop {
	SOFT_STOP_KICK,
	SOFT_STOP_COUNT,	/* max instructions done */
	SOFT_STOP_RIP,		/* about to execute `until` */
	SOFT_STOP_EXCEPTION,	/* cpu->event; only when cpu->bare, not deliver */
	SOFT_STOP_HLT,		/* only when cpu->bare, nothing pending */
	SOFT_STOP_SHUTDOWN,
};
/*
 * Runs up to max instructions, or until rip is `until` (both ignored when 0), one
 * at a time.  With neither it runs blocks at full speed, until HLT or a fault.
 */
enum soft_stop soft_run(struct soft_cpu *cpu, uint64_t max, uint64_t until);

#endif
