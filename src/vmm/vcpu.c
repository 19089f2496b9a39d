// SPDX-License-Identifier: MIT
/*
 * vcpu.c - vCPU threads.
 *
 * A thread is in one of three places: in the backend (or in a register access it
 * dispatches), waiting in park(), or on its way between the two, where it looks at
 * `attention`.  A requester sets a bit first and kicks second; the backend promises
 * that a kick makes a running or about to run vcpu_run() return, so the bit
 * cannot be missed.
 *
 * A vCPU whose backend gave up ends the VM and then counts as parked for good,
 * so that nobody waits for it.
 *
 * Lock order: vm->lock (devices) before vm->park_lock.  Whoever parks the vCPUs
 * must not hold vm->lock: a vCPU on its way to the parking place may need it.
 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/state.h"
#include "vmm/vm.h"

/* ---- dispatch ---- */

static void access_region(struct vm *vm, const struct bus_region *r, uint64_t addr,
			  uint64_t *val, unsigned len, bool write)
{
	uint64_t off = addr - r->base;
	bool locked = !r->unlocked || !r->unlocked(off);

	if (locked)
		pthread_mutex_lock(&vm->lock);
	if (write && r->write)
		r->write(r->dev, off, len, *val);
	else if (!write)
		*val = r->read ? r->read(r->dev, off, len) : UINT64_MAX;
	if (locked)
		pthread_mutex_unlock(&vm->lock);
}

static void dispatch(struct vm *vm, struct bus *bus, const char *kind, uint64_t addr,
		     void *data, unsigned len, bool write)
{
	const struct bus_region *r = bus_find(bus, addr, len);
	uint64_t val = UINT64_MAX;

	ASSERT(len <= sizeof(val));
	if (write) {
		val = 0;
		memcpy(&val, data, len);
	}
	if (r)
		access_region(vm, r, addr, &val, len, write);
	else if (!atomic_exchange(&bus->stray_logged, true))
		log_info("bus", "guest touched %s 0x%llx (%u bytes), where nothing is",
			 kind, (unsigned long long)addr, len);
	if (!write)
		memcpy(data, &val, len);
}

void vcpu_mmio(struct vcpu *c, gpa_t gpa, void *data, unsigned len, bool write)
{
	dispatch(c->vm, &c->vm->mmio, "address", gpa, data, len, write);
}

void vcpu_pio(struct vcpu *c, uint16_t port, void *data, unsigned len, bool write)
{
	dispatch(c->vm, &c->vm->pio, "port", port, data, len, write);
}

/* ---- the thread ---- */

/* Waits while parking is asked for; `for_good` until the end. */
static void park(struct vcpu *c, bool for_good)
{
	struct vm *vm = c->vm;

	pthread_mutex_lock(&vm->park_lock);
	while ((vm->park_depth || for_good) &&
	       !(atomic_load(&c->attention) & VCPU_EXIT)) {
		c->parked = true;
		pthread_cond_broadcast(&vm->park_cond);
		pthread_cond_wait(&vm->park_cond, &vm->park_lock);
	}
	atomic_fetch_and(&c->attention, ~(unsigned)VCPU_PARK);
	c->parked = false;
	pthread_mutex_unlock(&vm->park_lock);
}

static void crashed(struct vcpu *c, enum accel_exit why, const struct err *err)
{
	struct err own = *err;
	struct x86_state state;

	if (!own.num)
		err_set(&own, EIO, "no details");
	if (!c->vm->accel->vcpu_get(c, &state, NULL))
		x86_explain(&state, &c->vm->mem, &own);
	err_wrap(&own, -own.num, why == ACCEL_EXIT_SHUTDOWN ?
		 "vCPU %u: triple fault" : "vCPU %u: the CPU backend gave up", c->id);
	vm_crash(c->vm, &own);
	park(c, true);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	const struct accel *accel = c->vm->accel;

	for (;;) {
		unsigned attention = atomic_load(&c->attention);
		struct err err = ERR_INIT;
		enum accel_exit why;

		if (attention & VCPU_EXIT)
			return NULL;
		if (attention & VCPU_PARK) {
			park(c, false);
			continue;
		}
		why = accel->vcpu_run(c, &err);
		if (why != ACCEL_EXIT_KICK)
			crashed(c, why, &err);
	}
}

/*
 * Process signals are the loop's.  What a fault of this very thread raises stays
 * deliverable: the software CPU catches some of them.
 */
static void block_signals(sigset_t *old)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP,
				      SIGSYS };
	sigset_t set;

	sigfillset(&set);
	for (unsigned i = 0; i < ARRAY_LEN(faults); i++)
		sigdelset(&set, faults[i]);
	pthread_sigmask(SIG_SETMASK, &set, old);
}

int vcpu_start(struct vcpu *c, struct err *err)
{
	sigset_t old;
	int ret;

	/* Parked until somebody unparks: the VM may start paused. */
	pthread_mutex_lock(&c->vm->park_lock);
	atomic_store(&c->attention, c->vm->park_depth ? VCPU_PARK : 0);
	pthread_mutex_unlock(&c->vm->park_lock);
	block_signals(&old);
	ret = pthread_create(&c->thread, NULL, vcpu_thread, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return err_set(err, ret, "cannot start vCPU %u", c->id);
	c->started = true;
	return 0;
}

static void ask(struct vcpu *c, enum vcpu_attention what)
{
	atomic_fetch_or(&c->attention, what);
	c->vm->accel->vcpu_kick(c);
}

void vcpu_stop(struct vcpu *c)
{
	if (!c->started)
		return;
	ask(c, VCPU_EXIT);
	pthread_mutex_lock(&c->vm->park_lock);
	pthread_cond_broadcast(&c->vm->park_cond);
	pthread_mutex_unlock(&c->vm->park_lock);
	pthread_join(c->thread, NULL);
	c->started = false;
}

static bool all_parked(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpu[i].started && !vm->vcpu[i].parked)
			return false;
	return true;
}

void vcpu_park_all(struct vm *vm)
{
	pthread_mutex_lock(&vm->park_lock);
	if (!vm->park_depth++)
		for (unsigned i = 0; i < vm->nr_vcpus; i++)
			if (vm->vcpu[i].started)
				ask(&vm->vcpu[i], VCPU_PARK);
	while (!all_parked(vm))
		pthread_cond_wait(&vm->park_cond, &vm->park_lock);
	pthread_mutex_unlock(&vm->park_lock);
}

void vcpu_unpark_all(struct vm *vm)
{
	pthread_mutex_lock(&vm->park_lock);
	ASSERT(vm->park_depth);
	if (!--vm->park_depth)
		pthread_cond_broadcast(&vm->park_cond);
	pthread_mutex_unlock(&vm->park_lock);
}
