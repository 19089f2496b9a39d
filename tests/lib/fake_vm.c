// SPDX-License-Identifier: MIT
#include "fake_vm.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "vmm/arch/x86/board.h"
#include "vmm/arch/x86/state.h"
#include "vmm/state.h"
#include "vmm/vm.h"

struct fake_vm fake_vm;

struct fake_cpu {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool kicked;
	struct x86_state state;
};

static void cpuid_can(uint32_t *words)
{
	memset(words, 0xff, CPUID_NR_WORDS * sizeof(*words));
}

static int vm_init(struct vm *vm, struct err *err)
{
	vm->accel_vm = &fake_vm;
	return 0;
}

static void vm_done(struct vm *vm)
{
	vm->accel_vm = NULL;
}

static int mem_map(struct vm *vm, struct err *err)
{
	return 0;
}

static void set_irq(struct vm *vm, unsigned gsi, bool level)
{
}

static int vcpu_init(struct vcpu *c, struct err *err)
{
	struct fake_cpu *f = aligned_alloc(64, ALIGN_UP(sizeof(*f), 64ul));

	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	f->state.xsave_size = 576;
	c->accel_vcpu = f;
	return 0;
}

static void vcpu_done(struct vcpu *c)
{
	free(c->accel_vcpu);
	c->accel_vcpu = NULL;
}

static enum accel_exit vcpu_run(struct vcpu *c, struct err *err)
{
	struct fake_cpu *f = c->accel_vcpu;
	enum accel_exit why = ACCEL_EXIT_KICK;

	atomic_fetch_add(&fake_vm.runs, 1);
	if (fake_vm.guest)
		why = fake_vm.guest(c, err);
	if (why != ACCEL_EXIT_KICK)
		return why;
	pthread_mutex_lock(&f->lock);
	while (!f->kicked)
		pthread_cond_wait(&f->cond, &f->lock);
	f->kicked = false;
	pthread_mutex_unlock(&f->lock);
	return ACCEL_EXIT_KICK;
}

static void vcpu_kick(struct vcpu *c)
{
	struct fake_cpu *f = c->accel_vcpu;

	pthread_mutex_lock(&f->lock);
	f->kicked = true;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static int vcpu_get(struct vcpu *c, struct x86_state *s, struct err *err)
{
	*s = ((struct fake_cpu *)c->accel_vcpu)->state;
	return 0;
}

static int vcpu_set(struct vcpu *c, const struct x86_state *s, struct err *err)
{
	((struct fake_cpu *)c->accel_vcpu)->state = *s;
	return 0;
}

static int board_get(struct vm *vm, struct x86_ioapic_state *ioapic,
		     struct x86_clock_state *clock, struct err *err)
{
	*ioapic = (struct x86_ioapic_state){ .id = 1 };
	*clock = (struct x86_clock_state){ .kvmclock_ns = 5, .realtime_ns = 6,
					   .tsc_khz = vm->model.tsc_khz };
	return 0;
}

static int board_set(struct vm *vm, const struct x86_ioapic_state *ioapic,
		     const struct x86_clock_state *clock, struct err *err)
{
	return 0;
}

static void stats(struct vm *vm, struct json_t *obj)
{
	json_object_set_new(obj, "runs", json_integer(fake_vm.runs));
}

static const struct accel accel_fake = {
	.name = "fake", .cpuid_can = cpuid_can, .vm_init = vm_init,
	.vm_done = vm_done, .mem_map = mem_map, .irq_set = set_irq,
	.vcpu_init = vcpu_init, .vcpu_done = vcpu_done, .vcpu_run = vcpu_run,
	.vcpu_kick = vcpu_kick, .vcpu_get = vcpu_get, .vcpu_set = vcpu_set,
	.board_get = board_get, .board_set = board_set, .stats = stats,
};

int accel_check_cpus(const struct accel *accel, unsigned cpus, struct err *err)
{
	return 0;
}

const struct accel *accel_choose(enum spec_accel want, int verdict_fd, struct err *err)
{
	if (!fake_vm.refuse)
		return &accel_fake;
	err_code(err, ERR_BOOT_ACCEL_UNAVAILABLE, fake_vm.refuse, "no\nCPU here");
	return NULL;
}

int board_init(struct vm *vm, struct err *err)
{
	return 0;
}

void board_done(struct vm *vm)
{
}

int board_boot(struct vm *vm, struct err *err)
{
	return mem_write(&vm->mem, PAGE_SIZE, "kernel", 6) ? 0 : -EFAULT;
}

int board_power_button(struct vm *vm)
{
	atomic_fetch_add(&fake_vm.power, 1);
	return 0;
}

void board_save(struct vm *vm, struct state_w *w)
{
	state_begin(w, "board", 0, 1, true);
	state_end(w);
}

int board_load(struct vm *vm, struct state_r *r, struct err *err)
{
	if (state_find(r, "board", 0))
		return err_set(err, EBADMSG, "no board");
	return state_close(r, err);
}

void board_new_generation(struct vm *vm, const uint8_t id[16])
{
	mem_write(&vm->mem, 3 * PAGE_SIZE, id, 16);
}
