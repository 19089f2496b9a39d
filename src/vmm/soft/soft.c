// SPDX-License-Identifier: MIT
/*
 * soft.c - the software CPU as a backend of the VMM (vmm/accel.h).
 *
 * #syscalls futex write timer_create timer_settime timer_delete rt_sigaction
 * #syscalls rt_sigprocmask rt_sigreturn memfd_create ftruncate mmap munmap
 * #syscalls clock_gettime clock_nanosleep sched_yield gettid
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/err.h"
#include "base/log.h"
#include "vmm/accel.h"
#include "vmm/soft/jit.h"
#include "vmm/soft/soft.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

static bool host_has_xsave(void)
{
	uint32_t a = 1, b, c = 0, d;

	__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return c & (1u << 27);	/* OSXSAVE */
}

static int soft_probe(unsigned limit_ms, struct err *err)
{
	if (!host_has_xsave())
		return err_set(err, ENOTSUP,
			       "this processor or its kernel has no XSAVE, which the software CPU needs");
	return 0;
}

/* A device wrote to pages with decoded code. */
static void code_hit(void *arg, gpa_t gpa, uint64_t len)
{
	struct soft_vm *svm = arg;

	while (atomic_flag_test_and_set_explicit(&svm->hits_lock, memory_order_acquire))
		__builtin_ia32_pause();
	if (svm->nr_hits < SOFT_HITS)
		svm->hits[svm->nr_hits] = (struct mem_range){ gpa, len };
	if (svm->nr_hits <= SOFT_HITS)
		svm->nr_hits++;
	atomic_flag_clear_explicit(&svm->hits_lock, memory_order_release);
	for (unsigned k = 0; k < svm->nr_cpus; k++)
		if (svm->cpu[k])
			soft_attention(svm->cpu[k], ATT_CODE);
}

static int soft_vm_init(struct vm *vm, struct err *err)
{
	struct soft_vm *svm = calloc(1, sizeof(*svm));

	if (!svm)
		return err_set(err, ENOMEM, "out of memory");
	svm->vm = vm;
	svm->mem = &vm->mem;
	vm->accel_vm = svm;
	if (mem_track_code(&vm->mem, err))
		return -ENOMEM;
	vm->mem.code_hit = code_hit;
	vm->mem.code_arg = svm;
	if (!vm->host_khz)
		vm->host_khz = gclock_host_khz();
	gclock_init(&svm->clock, &vm->mem, vm->host_khz, vm->model.tsc_khz);
	ioapic_init(&svm->ioapic, &svm->hub);
	return 0;
}

static void soft_vm_done(struct vm *vm)
{
	struct soft_vm *svm = vm->accel_vm;

	if (!svm)
		return;
	vm->mem.code_hit = NULL;
	free(svm);
	vm->accel_vm = NULL;
}

/* Host addresses are in the TLBs. */
static int soft_mem_map(struct vm *vm, struct err *err)
{
	struct soft_vm *svm = vm->accel_vm;

	for (unsigned k = 0; k < svm->nr_cpus; k++) {
		if (!svm->cpu[k])
			continue;
		blocks_flush(svm->cpu[k]);
		mmu_flush_all(svm->cpu[k]);
	}
	return 0;
}

static void soft_irq_set(struct vm *vm, unsigned gsi, bool level)
{
	struct soft_vm *svm = vm->accel_vm;

	ioapic_irq(&svm->ioapic, gsi, level);
}

/* Entries are never moved, so that vCPUs may look without a lock. */
static int soft_doorbell(struct vm *vm, gpa_t gpa, uint32_t value, int efd)
{
	struct soft_vm *svm = vm->accel_vm;
	unsigned n = atomic_load(&svm->nr_doorbells), k;

	for (k = 0; k < n; k++)
		if (svm->doorbell[k].gpa == gpa && svm->doorbell[k].value == value)
			break;
	if (k == ARRAY_LEN(svm->doorbell))
		return -ENOSPC;
	svm->doorbell[k].gpa = gpa;
	svm->doorbell[k].value = value;
	svm->doorbell[k].efd = efd;
	if (k == n)
		atomic_store_explicit(&svm->nr_doorbells, n + 1, memory_order_release);
	return 0;
}

/* --- a fork of the VMM ---------------------------------------------------------- */

static int soft_fork_begin(struct vm *vm)
{
	const struct soft_vm *svm = vm->accel_vm;
	struct soft_cpu *cpu = svm->cpu[0];
	int ret;

	if (!cpu->jit)		/* interpreted code is decoded anew soon enough */
		return 0;
	ret = fp_fork(cpu);
	if (!ret)
		ret = jit_fork(cpu);
	if (!ret)
		blocks_fork(cpu, true);
	return ret;
}

static void soft_fork_end(struct vm *vm)
{
	const struct soft_vm *svm = vm->accel_vm;

	if (!svm->cpu[0]->jit)
		return;
	jit_forked(svm->cpu[0]);
	blocks_fork(svm->cpu[0], false);
}

/* The CPU of the source in whose memory this VM is being built, if its code is of
 * use: a sibling's CPU model or engine may have been asked to differ. */
static struct soft_cpu *heritage(const struct vm *vm)
{
	const struct vm *source = vm->source;
	struct soft_vm *svm = source ? source->accel_vm : NULL;

	if (!source || source->accel != &accel_soft || !svm->cpu[0]->jit ||
	    vm->spec.engine != source->spec.engine ||
	    memcmp(vm->model.word, source->model.word, sizeof(vm->model.word)))
		return NULL;
	return svm->cpu[0];
}

/* What devices wrote before the fork and the source's vCPU has not looked at. */
static void inherit_hits(struct soft_vm *svm, const struct soft_vm *from)
{
	svm->nr_hits = from->nr_hits;
	memcpy(svm->hits, from->hits, sizeof(svm->hits));
	soft_attention(svm->cpu[0], ATT_CODE);
}

/* From here on it is this VM's: nothing else in this process knows the source's. */
static struct soft_cpu *take_over(struct vcpu *vcpu, struct soft_cpu *cpu)
{
	struct soft_vm *svm = vcpu->vm->accel_vm, *from = cpu->svm;

	soft_cpu_inherit(cpu, svm, vcpu->id, &vcpu->vm->model);
	from->cpu[0] = NULL;
	inherit_hits(svm, from);
	return cpu;
}

static int init_cpu(struct vcpu *vcpu, struct soft_cpu *cpu, struct err *err)
{
	struct vm *vm = vcpu->vm;

	if (soft_cpu_init(cpu, vm->accel_vm, vcpu->id, &vm->model) < 0)
		return err_set(err, ENOMEM, "no memory for the software CPU's code cache");
	if (vm->spec.engine != SPEC_ENGINE_INTERP && jit_init(cpu) < 0)
		log_warn("soft", "no translator on this host: interpreting");
	return 0;
}

static int soft_vcpu_init(struct vcpu *vcpu, struct err *err)
{
	struct soft_vm *svm = vcpu->vm->accel_vm;
	struct soft_cpu *from, *cpu;
	int ret = 0;

	from = heritage(vcpu->vm);
	cpu = from ? take_over(vcpu, from) : soft_cpu_alloc();
	if (!cpu)
		return err_set(err, ENOMEM, "out of memory");
	vcpu->accel_vcpu = cpu;
	cpu->vcpu = vcpu;
	if (!from)
		ret = init_cpu(vcpu, cpu, err);
	if (ret)
		return ret;
	svm->nr_cpus = MAX(svm->nr_cpus, vcpu->id + 1);
	return 0;
}

static void soft_vcpu_done(struct vcpu *vcpu)
{
	struct soft_cpu *cpu = vcpu->accel_vcpu;
	struct soft_vm *svm = vcpu->vm->accel_vm;

	if (!cpu)
		return;
	if (svm)
		svm->cpu[cpu->id] = NULL;
	lapic_timer_stop(&cpu->lapic);
	soft_cpu_done(cpu);
	soft_cpu_free(cpu);
	vcpu->accel_vcpu = NULL;
}

static enum accel_exit soft_vcpu_run(struct vcpu *vcpu, struct err *err)
{
	struct soft_cpu *cpu = vcpu->accel_vcpu;

	if (!cpu->lapic.has_timer && lapic_timer_start(&cpu->lapic) < 0) {
		err_set(err, ENOTSUP, "the host has no timer for the guest's LAPIC");
		return ACCEL_EXIT_ERROR;
	}
	gclock_cpu_was_stopped(&cpu->time);
	if (soft_run(cpu, 0, 0) == SOFT_STOP_KICK)
		return ACCEL_EXIT_KICK;
	err_set(err, EIO, "exception %u (error code %#x) could not be delivered",
		cpu->event.vector, cpu->event.error);
	return ACCEL_EXIT_SHUTDOWN;
}

static void soft_vcpu_kick(struct vcpu *vcpu)
{
	soft_attention(vcpu->accel_vcpu, ATT_KICK);
}

static int soft_vcpu_get(struct vcpu *vcpu, struct x86_state *s, struct err *err)
{
	soft_get_state(vcpu->accel_vcpu, s);
	return 0;
}

static int soft_vcpu_set(struct vcpu *vcpu, const struct x86_state *s, struct err *err)
{
	return soft_set_state(vcpu->accel_vcpu, s, err);
}

static int soft_board_get(struct vm *vm, struct x86_ioapic_state *ioapic,
			  struct x86_clock_state *clock, struct err *err)
{
	struct soft_vm *svm = vm->accel_vm;

	ioapic_get(&svm->ioapic, ioapic);
	gclock_get(&svm->clock, clock);
	return 0;
}

static int soft_board_set(struct vm *vm, const struct x86_ioapic_state *ioapic,
			  const struct x86_clock_state *clock, struct err *err)
{
	struct soft_vm *svm = vm->accel_vm;

	ioapic_set(&svm->ioapic, ioapic);
	gclock_set(&svm->clock, clock);
	return 0;
}

static void soft_stats(struct vm *vm, json_t *obj)
{
	const struct soft_vm *svm = vm->accel_vm;

	if (svm->cpu[0])
		soft_cpu_stats(svm->cpu[0], obj);
}

const struct accel accel_soft = {
	.name = "soft",
	.max_cpus = 1,
	/* its isolation is the software TLB, not the guest kernel's care */
	.cmdline = "mitigations=off",
	.probe = soft_probe,
	.cpuid_can = soft_cpuid_can,
	.vm_init = soft_vm_init,
	.vm_done = soft_vm_done,
	.mem_map = soft_mem_map,
	.irq_set = soft_irq_set,
	.doorbell = soft_doorbell,
	.vcpu_init = soft_vcpu_init,
	.vcpu_done = soft_vcpu_done,
	.vcpu_run = soft_vcpu_run,
	.vcpu_kick = soft_vcpu_kick,
	.vcpu_get = soft_vcpu_get,
	.vcpu_set = soft_vcpu_set,
	.board_get = soft_board_get,
	.board_set = soft_board_set,
	.fork_begin = soft_fork_begin,
	.fork_end = soft_fork_end,
	.stats = soft_stats,
};
