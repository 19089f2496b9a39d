/* SPDX-License-Identifier: MIT */
/*
 * soft/clock.h - the time a guest of the software CPU sees: its TSC and
 * kvmclock.  Everything derives from the host's TSC:
 *
 *	guest TSC  = host TSC (scaled when the guest came from a host with
 *	             another frequency) + the vCPU's offset
 *	kvmclock   = base_ns + time since base_host
 *
 * One `struct gclock` per VM, one `struct gclock_cpu` per vCPU.
 *
 * Threads: gclock_* while no vCPU runs; gclock_cpu_* and MSRs on the vCPU's
 * thread; readers anywhere.  Nothing here touches vector registers.
 */
#ifndef SOFT_CLOCK_H
#define SOFT_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct mem;
struct x86_clock_state;

#define MSR_TSC			0x10u
#define MSR_TSC_ADJUST		0x3bu
#define MSR_KVM_WALL_OLD	0x11u
#define MSR_KVM_TIME_OLD	0x12u
#define MSR_KVM_WALL		0x4b564d00u
#define MSR_KVM_TIME		0x4b564d01u

struct gclock {
	struct mem *mem;	/* borrowed: where kvmclock pages are written */
	uint64_t host_khz;	/* of the host's TSC */
	uint64_t tsc_khz;	/* of the guest's TSC */
	uint64_t ratio;		/* guest ticks a host tick, 16.48; 0: equal */
	uint64_t base_host;	/* host TSC when kvmclock read base_ns */
	uint64_t base_ns;
	uint64_t wall_ns;	/* CLOCK_REALTIME when kvmclock read 0 */
};

struct gclock_cpu {
	const struct gclock *clock;	/* borrowed */
	uint64_t offset;	/* guest TSC - scaled host TSC */
	uint64_t adjust;	/* IA32_TSC_ADJUST */
	uint64_t time_msr;	/* MSR_KVM_TIME: address | enabled */
	uint64_t wall_msr;
	uint32_t version;	/* of the kvmclock page; even */
};

static inline uint64_t host_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static inline uint64_t gclock_scale(const struct gclock *c, uint64_t host)
{
	if (__builtin_expect(!c->ratio, 1))
		return host;
	return (uint64_t)((unsigned __int128)host * c->ratio >> 48);
}

/* RDTSC.  With clock->ratio 0 it is host_tsc() + offset. */
static inline uint64_t gclock_tsc(const struct gclock_cpu *v)
{
	return gclock_scale(v->clock, host_tsc()) + v->offset;
}

/*
 * Frequency of the host's TSC: from CPUID where it is told, else measured
 * against CLOCK_MONOTONIC_RAW, which takes up to 10 ms.
 */
uint64_t gclock_host_khz(void);

/* tsc_khz: what the guest was or will be told; 0: the host's. */
void gclock_init(struct gclock *c, struct mem *mem, uint64_t host_khz,
		 uint64_t tsc_khz);
uint64_t gclock_kvm_ns(const struct gclock *c);
void gclock_get(const struct gclock *c, struct x86_clock_state *s);
/* The guest's time goes on from s; vCPUs are set (tsc, MSRs) after this. */
void gclock_set(struct gclock *c, const struct x86_clock_state *s);

/* TSC 0 now. */
void gclock_cpu_init(struct gclock_cpu *v, const struct gclock *c);
void gclock_cpu_set_tsc(struct gclock_cpu *v, uint64_t tsc);
/* Time went by while the vCPU did not run: its watchdogs need not bark. */
void gclock_cpu_was_stopped(struct gclock_cpu *v);
/* Ticks of the guest's TSC in nanoseconds and back, saturating. */
uint64_t gclock_to_ns(const struct gclock *c, uint64_t ticks);
uint64_t gclock_to_ticks(const struct gclock *c, uint64_t ns);

/* The MSRs above; false: not one of them, or a value that is #GP. */
bool gclock_msr(struct gclock_cpu *v, uint32_t msr, uint64_t *val, bool write);

#endif
