// SPDX-License-Identifier: MIT
/*
 * soft/lapic_timer.c - the LAPIC timer and the host timer behind it.
 *
 * All three modes reduce to one number, `expiry`, in ticks of the guest's TSC;
 * count modes run at 1 GHz before the divider, as KVM's do.  The host timer is
 * armed lazily: Linux moves its deadline several times a millisecond, mostly to
 * later, and a timer_settime(2) costs as much as a thousand guest instructions.
 * So it is touched when the new deadline is earlier than what is armed; a signal
 * that comes too early finds nothing due and arms again.  Before the vCPU sleeps
 * the two are made equal, so that idle guests are woken by their deadlines alone.
 *
 * The signal goes to the vCPU's thread and its handler does nothing but raise
 * attention, which ends a sleep (EINTR) and makes running code look.
 *
 * #syscalls timer_create timer_settime timer_delete clock_gettime gettid
 * #syscalls rt_sigaction rt_sigprocmask rt_sigreturn
 */
#include "vmm/soft/lapic_timer.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define TIMER_SIGNAL	(SIGRTMIN + 2)
#define DAY_NS		(86400 * NSEC_PER_SEC)

enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

static unsigned timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] >> 17 & 3;
}

/* --- host timer ------------------------------------------------------------- */

static void on_signal(int sig, siginfo_t *info, void *ctx)
{
	struct lapic *l = info->si_value.sival_ptr;

	if (info->si_code != SI_TIMER)
		return;
	/* Also when it came a little before the guest's TSC says so: the
	 * poll must arm again.  Losing an armed timer so costs a call. */
	l->armed = 0;
	l->attention(l->arg, LAPIC_TIMER);
}

int lapic_timer_start(struct lapic *l)
{
	struct sigaction sa = {
		.sa_sigaction = on_signal,
		/* The thread's stack pointer may hold a guest's value. */
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	sigset_t set;
	struct sigevent ev = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = TIMER_SIGNAL,
		.sigev_value.sival_ptr = l,
	};

	ev._sigev_un._tid = gettid();
	sigemptyset(&sa.sa_mask);
	if (sigaction(TIMER_SIGNAL, &sa, NULL) ||
	    syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &l->timer))
		return -errno;
	/* vCPU threads start with everything blocked */
	sigemptyset(&set);
	sigaddset(&set, TIMER_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	l->has_timer = true;
	l->armed = 0;
	l->attention(l->arg, LAPIC_TIMER);	/* something may be running */
	return 0;
}

void lapic_timer_stop(struct lapic *l)
{
	if (l->has_timer)
		syscall(SYS_timer_delete, l->timer);
	l->has_timer = false;
}

static void arm(struct lapic *l, uint64_t expiry)
{
	struct itimerspec it = { .it_value.tv_nsec = 0 };

	if (!l->has_timer)
		return;
	if (expiry) {
		/* At least 1: zero would disarm.  At most a day: no overflow. */
		uint64_t ns = MIN(lapic_timer_left(l), DAY_NS);

		ns += !ns;
		it.it_value.tv_sec = (time_t)(ns / NSEC_PER_SEC);
		it.it_value.tv_nsec = (long)(ns % NSEC_PER_SEC);
	}
	l->armed = expiry;	/* first: the signal may come at once */
	syscall(SYS_timer_settime, l->timer, 0, &it, NULL);
}

/* Makes sure the host timer fires no later than expiry. */
static void arm_lazily(struct lapic *l)
{
	if (l->expiry && (!l->armed || l->expiry < l->armed))
		arm(l, l->expiry);
}

void lapic_timer_idle(struct lapic *l)
{
	if (l->armed != l->expiry)
		arm(l, l->expiry);
}

/* --- guest timer ------------------------------------------------------------ */

static unsigned divider(const struct lapic *l)
{
	unsigned code = (l->tdcr & 3) | (l->tdcr >> 1 & 4);

	return code == 7 ? 1 : 2u << code;
}

static uint64_t count_to_ticks(const struct lapic *l, uint32_t count)
{
	uint64_t ticks = gclock_to_ticks(l->time->clock,
					 (uint64_t)count * divider(l));

	return ticks + !ticks;
}

uint64_t lapic_timer_left(const struct lapic *l)
{
	uint64_t now;

	if (!l->expiry)
		return UINT64_MAX;
	now = gclock_tsc(l->time);
	return l->expiry > now ? gclock_to_ns(l->time->clock, l->expiry - now) : 0;
}

uint64_t lapic_deadline_ns(const struct lapic *l)
{
	uint64_t left = lapic_timer_left(l), at;
	struct timespec ts = { 0 };

	if (left == UINT64_MAX)
		return left;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	at = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
	return left > UINT64_MAX - at ? UINT64_MAX : at + left;
}

uint32_t lapic_timer_count(const struct lapic *l)
{
	uint64_t left = lapic_timer_left(l);

	if (timer_mode(l) == TIMER_DEADLINE || left == UINT64_MAX)
		return 0;
	return (uint32_t)MIN(left / divider(l), l->tmict);
}

static void expire_at(struct lapic *l, uint64_t expiry, uint64_t period)
{
	l->expiry = expiry;
	l->period = period;
	arm_lazily(l);
	if (expiry && gclock_tsc(l->time) >= expiry)
		lapic_timer_poll(l);
}

static void run_count(struct lapic *l, uint32_t current)
{
	uint64_t now = gclock_tsc(l->time);

	if (!l->tmict) {
		expire_at(l, 0, 0);
		return;
	}
	expire_at(l, now + count_to_ticks(l, current),
		  timer_mode(l) == TIMER_PERIODIC ? count_to_ticks(l, l->tmict) : 0);
}

void lapic_timer_start_count(struct lapic *l, uint32_t initial)
{
	if (timer_mode(l) == TIMER_DEADLINE)
		return;		/* SDM: writes are ignored */
	l->tmict = initial;
	run_count(l, initial);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	if (timer_mode(l) != TIMER_DEADLINE)
		return;
	l->deadline = tsc;
	expire_at(l, tsc, 0);
}

void lapic_timer_divide(struct lapic *l, uint32_t tdcr)
{
	uint32_t left = lapic_timer_count(l);

	if (tdcr == l->tdcr)
		return;
	l->tdcr = tdcr;
	if (l->expiry && timer_mode(l) != TIMER_DEADLINE)
		run_count(l, left);
}

void lapic_timer_mode(struct lapic *l, uint32_t old)
{
	bool was = (old >> 17 & 3) == TIMER_DEADLINE;
	bool is = timer_mode(l) == TIMER_DEADLINE;

	if (was != is) {	/* SDM: switching disarms */
		l->deadline = 0;
		l->tmict = 0;
		expire_at(l, 0, 0);
	} else if (!is && l->expiry) {
		l->period = timer_mode(l) == TIMER_PERIODIC ?
			    count_to_ticks(l, l->tmict) : 0;
	}
}

void lapic_timer_poll(struct lapic *l)
{
	uint64_t now = gclock_tsc(l->time);

	if (l->expiry && now >= l->expiry) {
		/* Periods missed while the vCPU could not run are dropped. */
		l->expiry = l->period ?
			    now + l->period - (now - l->expiry) % l->period : 0;
		l->deadline = 0;
		lapic_local(l, LVT_TIMER);
	}
	arm_lazily(l);
}

void lapic_timer_load(struct lapic *l, uint32_t initial, uint32_t current,
		      uint64_t deadline)
{
	l->armed = 0;		/* whatever is armed: a spurious look */
	if (timer_mode(l) == TIMER_DEADLINE) {
		l->deadline = deadline;
		expire_at(l, deadline, 0);
		return;
	}
	l->tmict = initial;
	/* A one-shot that has run out stays so. */
	if (initial && (current || timer_mode(l) == TIMER_PERIODIC))
		run_count(l, current ? MIN(current, initial) : initial);
	else
		expire_at(l, 0, 0);
}
