// SPDX-License-Identifier: MIT
/*
 * soft/clock.c - guest TSC and kvmclock; see clock.h.
 *
 * kvmclock is a page the guest reads without leaving: a TSC value, the time
 * then, and a factor.  All vCPUs get the same pair (base_host as each sees it,
 * base_ns), which is what lets the TSC_STABLE flag promise that they agree.  The
 * pair changes only when a state is loaded; within a life the page is written
 * once, but for the flag that says that the vCPU was stopped.
 *
 * #syscalls clock_gettime nanosleep clock_nanosleep
 */
#include "vmm/soft/clock.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/arch/x86/state.h"
#include "vmm/mem.h"

#define CALIBRATE_NS		(8 * 1000 * 1000ull)
#define CALIBRATE_TRIES		16
#define PVCLOCK_TSC_STABLE	1u
#define PVCLOCK_GUEST_STOPPED	2u	/* until the guest takes it away */

/* The layouts are those of the KVM ABI ("KVM-specific MSRs"). */
struct pvclock_page {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
};
_Static_assert(sizeof(struct pvclock_page) == 32, "KVM ABI");

struct pvclock_wall {
	uint32_t version, sec, nsec;
};
_Static_assert(sizeof(struct pvclock_wall) == 12, "KVM ABI");

/* a * b / c without the library's 128-bit division; saturates. */
static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 p = (unsigned __int128)a * b;
	uint64_t quot, rem;

	if ((uint64_t)(p >> 64) >= c)
		return UINT64_MAX;
	__asm__("divq %4" : "=a"(quot), "=d"(rem)
		: "a"((uint64_t)p), "d"((uint64_t)(p >> 64)), "r"(c) : "cc");
	return quot;
}

/* A raw system call: libc's wrapper may use vector registers. */
static uint64_t host_clock_ns(clockid_t id)
{
	struct timespec ts = { 0 };

	syscall(SYS_clock_gettime, id, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* --- frequency of the host -------------------------------------------------- */

static uint64_t told_khz(void)
{
	uint32_t a, b, c, d;

	if (__get_cpuid_max(0, NULL) < 0x15)
		return 0;
	__cpuid_count(0x15, 0, a, b, c, d);
	(void)d;
	if (!a || !b || !c)
		return 0;
	return mul_div(c, b, a) / 1000;
}

/* The tightest of several readings: TSC and clock at one instant. */
static void sample(uint64_t *tsc, uint64_t *ns)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < CALIBRATE_TRIES; i++) {
		uint64_t t0 = host_tsc();
		uint64_t now = host_clock_ns(CLOCK_MONOTONIC_RAW);
		uint64_t t1 = host_tsc();

		if (t1 - t0 < best) {
			best = t1 - t0;
			*tsc = t0 + best / 2;
			*ns = now;
		}
	}
}

uint64_t gclock_host_khz(void)
{
	struct timespec pause = { .tv_nsec = CALIBRATE_NS };
	uint64_t khz = told_khz(), t0 = 0, t1 = 0, n0 = 0, n1 = 0;

	if (khz)
		return khz;
	sample(&t0, &n0);
	nanosleep(&pause, NULL);
	sample(&t1, &n1);
	return n1 > n0 ? mul_div(t1 - t0, 1000000, n1 - n0) : 1000000;
}

/* --- the VM's clock --------------------------------------------------------- */

uint64_t gclock_to_ns(const struct gclock *c, uint64_t ticks)
{
	return mul_div(ticks, 1000000, c->tsc_khz);
}

uint64_t gclock_to_ticks(const struct gclock *c, uint64_t ns)
{
	return mul_div(ns, c->tsc_khz, 1000000);
}

void gclock_init(struct gclock *c, struct mem *mem, uint64_t host_khz,
		 uint64_t tsc_khz)
{
	*c = (struct gclock){
		.mem = mem,
		.host_khz = host_khz,
		.tsc_khz = tsc_khz ? tsc_khz : host_khz,
		.base_host = host_tsc(),
		.wall_ns = host_clock_ns(CLOCK_REALTIME),
	};
	if (c->tsc_khz != host_khz)
		c->ratio = mul_div(c->tsc_khz, 1ull << 48, host_khz);
}

uint64_t gclock_kvm_ns(const struct gclock *c)
{
	return c->base_ns +
	       mul_div(host_tsc() - c->base_host, 1000000, c->host_khz);
}

void gclock_get(const struct gclock *c, struct x86_clock_state *s)
{
	*s = (struct x86_clock_state){
		.kvmclock_ns = gclock_kvm_ns(c),
		.realtime_ns = host_clock_ns(CLOCK_REALTIME),
		.tsc_khz = c->tsc_khz,
	};
}

void gclock_set(struct gclock *c, const struct x86_clock_state *s)
{
	gclock_init(c, c->mem, c->host_khz, s->tsc_khz);
	c->base_ns = s->kvmclock_ns;
	c->wall_ns -= s->kvmclock_ns;
}

/* --- a vCPU's --------------------------------------------------------------- */

void gclock_cpu_init(struct gclock_cpu *v, const struct gclock *c)
{
	*v = (struct gclock_cpu){ .clock = c };
	gclock_cpu_set_tsc(v, 0);
}

void gclock_cpu_set_tsc(struct gclock_cpu *v, uint64_t tsc)
{
	v->offset = tsc - gclock_scale(v->clock, host_tsc());
}

/*
 * ns = (ticks << shift) * mul >> 32, with the largest mul that fits, so that
 * the factor is exact to 2^-31.
 */
static void ns_factor(uint64_t khz, uint32_t *mul, int8_t *shift)
{
	uint64_t num = 1000000;

	*shift = 0;
	while (num >= khz) {	/* slower than 1 GHz */
		khz <<= 1;
		++*shift;
	}
	while (num * 2 < khz) {
		num <<= 1;
		--*shift;
	}
	*mul = (uint32_t)mul_div(num, 1ull << 32, khz);
}

static void write_time(struct gclock_cpu *v)
{
	const struct gclock *c = v->clock;
	gpa_t gpa = v->time_msr & ~3ull;
	struct pvclock_page *p = mem_ptr(c->mem, gpa, sizeof(*p));
	struct pvclock_page page = { .flags = PVCLOCK_TSC_STABLE };

	if (!p)
		return;		/* the guest's own mistake */
	page.tsc_timestamp = gclock_scale(c, c->base_host) + v->offset;
	page.system_time = c->base_ns;
	ns_factor(c->tsc_khz, &page.tsc_to_system_mul, &page.tsc_shift);
	v->version += 2;
	/* Odd while it changes; pairs with the reader's check of version. */
	__atomic_store_n(&p->version, v->version - 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	page.version = v->version - 1;
	*p = page;
	__atomic_store_n(&p->version, v->version, __ATOMIC_RELEASE);
	mem_wrote(c->mem, gpa, sizeof(*p));
}

void gclock_cpu_was_stopped(struct gclock_cpu *v)
{
	gpa_t gpa = v->time_msr & ~3ull;
	struct pvclock_page *p = v->time_msr & 1 ?
				 mem_ptr(v->clock->mem, gpa, sizeof(*p)) : NULL;

	if (!p)
		return;
	p->flags |= PVCLOCK_GUEST_STOPPED;
	mem_wrote(v->clock->mem, gpa, sizeof(*p));
}

static void write_wall(struct gclock_cpu *v)
{
	const struct gclock *c = v->clock;
	gpa_t gpa = v->wall_msr;
	struct pvclock_wall *p = mem_ptr(c->mem, gpa, sizeof(*p));
	struct pvclock_wall wall = {
		.version = 2,
		.sec = (uint32_t)(c->wall_ns / NSEC_PER_SEC),
		.nsec = (uint32_t)(c->wall_ns % NSEC_PER_SEC),
	};

	if (!p)
		return;
	*p = wall;
	mem_wrote(c->mem, gpa, sizeof(*p));
}

static void msr_write(struct gclock_cpu *v, uint32_t msr, uint64_t val)
{
	uint64_t old;

	switch (msr) {
	case MSR_TSC:
		old = v->offset;
		gclock_cpu_set_tsc(v, val);
		v->adjust += v->offset - old;
		break;
	case MSR_TSC_ADJUST:
		v->offset += val - v->adjust;
		v->adjust = val;
		break;
	case MSR_KVM_TIME_OLD:
	case MSR_KVM_TIME:
		v->time_msr = val;
		if (val & 1)
			write_time(v);
		break;
	default:
		v->wall_msr = val;
		if (val)
			write_wall(v);
	}
}

bool gclock_msr(struct gclock_cpu *v, uint32_t msr, uint64_t *val, bool write)
{
	switch (msr) {
	case MSR_TSC:
	case MSR_TSC_ADJUST:
	case MSR_KVM_TIME_OLD:
	case MSR_KVM_TIME:
	case MSR_KVM_WALL_OLD:
	case MSR_KVM_WALL:
		break;
	default:
		return false;
	}
	if (write) {
		msr_write(v, msr, *val);
		return true;
	}
	if (msr == MSR_TSC)
		*val = gclock_tsc(v);
	else if (msr == MSR_TSC_ADJUST)
		*val = v->adjust;
	else if (msr == MSR_KVM_TIME || msr == MSR_KVM_TIME_OLD)
		*val = v->time_msr;
	else
		*val = v->wall_msr;
	return true;
}
