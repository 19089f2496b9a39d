/* SPDX-License-Identifier: MIT */
/*
 * soft/lapic.h - local APICs of the software CPU: xAPIC page and x2APIC MSRs,
 * inter-processor interrupts, the timer with all three modes.
 *
 * Threads: IRR and TMR are atomic and may be set by any thread through
 * lapic_deliver(); all else of a LAPIC belongs to its vCPU's thread.  Whatever
 * may make lapic_pending() change its answer, on whatever thread, is followed by
 * a call of `attention`.  Callable while guest vector state is live: nothing
 * here touches vector registers.
 *
 * Timer: lapic_timer_start() makes a POSIX timer that signals the vCPU's
 * thread; its handler calls attention(LAPIC_TIMER), upon which the vCPU calls
 * lapic_timer_poll().  Before it sleeps in HLT it calls lapic_timer_idle(); it
 * is then woken by the signal at the deadline and never before.
 */
#ifndef SOFT_LAPIC_H
#define SOFT_LAPIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/limits.h"
#include "vmm/soft/clock.h"

struct ioapic;
struct x86_state;

#define LAPIC_PAGE		0xfee00000ull	/* guests may not move it */
#define LAPIC_SIZE		0x1000u

#define MSR_APIC_BASE		0x1bu
#define MSR_TSC_DEADLINE	0x6e0u
#define MSR_X2APIC_FIRST	0x800u
#define MSR_X2APIC_LAST		0x8ffu

/* Why attention is called; a set of bits. */
enum lapic_why {
	LAPIC_INTR  = 1 << 0,	/* look at lapic_pending() */
	LAPIC_NMI   = 1 << 1,
	LAPIC_INIT  = 1 << 2,	/* go to wait-for-SIPI */
	LAPIC_SIPI  = 1 << 3,	/* start at lapic->sipi_vector << 12 */
	LAPIC_TIMER = 1 << 4,	/* call lapic_timer_poll() */
};

enum lapic_lvt {
	LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_NR
};

struct lapic_hub;

struct lapic {
	/* any thread */
	_Atomic uint64_t irr[4], tmr[4];
	_Atomic uint32_t errors;	/* to appear in ESR at its next write */
	_Atomic uint32_t base_lo, svr, ldr, dfr;	/* written by the owner */
	_Atomic uint8_t sipi_vector;
	uint32_t id;

	/* vCPU thread */
	uint64_t isr[4];
	uint32_t tpr, esr, icr_lo, icr_hi, tdcr, tmict;
	uint32_t lvt[LVT_NR];
	uint64_t deadline;	/* MSR_TSC_DEADLINE */
	uint64_t expiry;	/* guest TSC at which the timer is due; 0: never */
	uint64_t period;	/* guest ticks; 0: not periodic */

	/* host timer */
	bool has_timer;
	int timer;		/* kernel's id; owned */
	/* guest TSC it fires at, 0: disarmed; cleared by its signal */
	_Atomic uint64_t armed;

	struct lapic_hub *hub;	/* borrowed */
	struct gclock_cpu *time;	/* borrowed */
	void (*attention)(void *arg, unsigned why);	/* any thread, signals */
	void *arg;		/* borrowed */
};

/* What interrupts travel over: one a VM. */
struct lapic_hub {
	struct lapic *cpu[LIMIT_CPUS];	/* borrowed */
	unsigned nr;
	struct ioapic *ioapic;		/* borrowed; hears EOIs of level lines */
	_Atomic unsigned turn;		/* of lowest-priority delivery */
};

/* Reset state, and joins the hub (no vCPU running).  id is the APIC id. */
void lapic_init(struct lapic *l, struct lapic_hub *hub, unsigned id,
		struct gclock_cpu *time,
		void (*attention)(void *arg, unsigned why), void *arg);
/* As INIT does: ids and APIC base stay. */
void lapic_reset(struct lapic *l);

/* The vector to deliver now, -1 for none.  Looks at TPR, ISR and enable. */
int lapic_pending(struct lapic *l);
/* The vCPU takes it: IRR to ISR. */
void lapic_ack(struct lapic *l, unsigned vector);

unsigned lapic_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, unsigned cr8);

/* MSR_APIC_BASE, MSR_TSC_DEADLINE, x2APIC; false: #GP. */
bool lapic_msr(struct lapic *l, uint32_t msr, uint64_t *val, bool write);
/* The page at LAPIC_PAGE.  In x2APIC mode reads give ones. */
uint64_t lapic_mmio_read(struct lapic *l, uint32_t off, unsigned len);
void lapic_mmio_write(struct lapic *l, uint32_t off, unsigned len, uint64_t val);

/* An interrupt message.  Any thread. */
struct lapic_msg {
	uint32_t dest;
	uint8_t vector, mode;	/* delivery mode, 0..7 */
	bool logical, level;
};
/* false when no LAPIC took it. */
bool lapic_deliver(struct lapic_hub *hub, const struct lapic_msg *m);

/* On the vCPU's thread, once; 0 or -errno.  Not inherited by fork(2). */
int lapic_timer_start(struct lapic *l);
void lapic_timer_stop(struct lapic *l);
void lapic_timer_poll(struct lapic *l);
void lapic_timer_idle(struct lapic *l);
/* Nanoseconds until the timer is due; 0: now, UINT64_MAX: not running. */
uint64_t lapic_timer_left(const struct lapic *l);
/* The same as an absolute CLOCK_MONOTONIC time. */
uint64_t lapic_deadline_ns(const struct lapic *l);

/* lapic[], apic_base and tsc_deadline of the state; after the TSC is set. */
void lapic_get(struct lapic *l, struct x86_state *s);
void lapic_set(struct lapic *l, const struct x86_state *s);

#endif
