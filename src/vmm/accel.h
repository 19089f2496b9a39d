/* SPDX-License-Identifier: MIT */
/*
 * accel.h - the interface of a CPU backend: KVM or the software CPU.
 *
 * A backend runs guest code on the vCPU threads and owns the interrupt
 * controllers and clocks of the board.  Accesses that are neither RAM nor its
 * own registers go to the VM synchronously through vcpu_mmio() and vcpu_pio()
 * (vcpu.h), on the vCPU's thread.
 *
 * Threads: vm_* and vcpu_init/done/get/set while no vCPU runs (built, or parked);
 * run on the vCPU's own thread; kick, irq_set and doorbell from any thread.
 */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/spec.h"
#include "vmm/mem.h"

struct cpu_model;
struct err;
struct json_t;
struct restore;
struct vcpu;
struct vm;
struct x86_clock_state;
struct x86_ioapic_state;
struct x86_state;

enum accel_exit {
	ACCEL_EXIT_KICK,	/* kicked: look at vcpu->attention */
	ACCEL_EXIT_SHUTDOWN,	/* triple fault; err tells where */
	ACCEL_EXIT_ERROR,	/* the backend cannot go on; err has registers */
};

struct accel {
	const char *name;	/* "kvm", "soft" */
	const char *cmdline;	/* for the kernel, before the user's; or NULL */
	unsigned max_cpus;	/* of a VM; 0: as many as there may be */

	/*
	 * Can this host run guests?  0, or -errno with err saying what failed
	 * and what to do.  Gives up after limit_ms of CPU time; remembers nothing
	 * itself.  NULL: always.
	 */
	int (*probe)(unsigned limit_ms, struct err *err);
	/*
	 * One line that changes when the probe's answer may; -errno when the answer
	 * is not worth remembering.  NULL with probe.
	 */
	int (*identity)(char *line, size_t size);
	/* Feature words it can offer (arch/x86/cpuid.h). */
	void (*cpuid_can)(uint32_t *words);

	/*
	 * Sets vm->accel_vm, and vm->host_khz where that is 0 and it knows;
	 * vm->mem is there already, vm->model not yet.
	 */
	int (*vm_init)(struct vm *vm, struct err *err);
	void (*vm_done)(struct vm *vm);
	/* Guest RAM changed host addresses (after fork) or was just made. */
	int (*mem_map)(struct vm *vm, struct err *err);
	/* Pages written since the last call, one bit a page; NULL: not offered. */
	int (*mem_dirty)(struct vm *vm, uint64_t *bitmap);

	void (*irq_set)(struct vm *vm, unsigned gsi, bool level);
	/*
	 * A 4-byte write of `value` at `gpa` signals efd instead of reaching
	 * vcpu_mmio(); efd < 0 undoes it.
	 */
	int (*doorbell)(struct vm *vm, gpa_t gpa, uint32_t value, int efd);

	/* Sets vcpu->accel_vcpu. */
	int (*vcpu_init)(struct vcpu *vcpu, struct err *err);
	void (*vcpu_done)(struct vcpu *vcpu);
	enum accel_exit (*vcpu_run)(struct vcpu *vcpu, struct err *err);
	/* After this, a running or about to run vcpu_run() returns KICK once. */
	void (*vcpu_kick)(struct vcpu *vcpu);
	int (*vcpu_get)(struct vcpu *vcpu, struct x86_state *s, struct err *err);
	int (*vcpu_set)(struct vcpu *vcpu, const struct x86_state *s, struct err *err);

	int (*board_get)(struct vm *vm, struct x86_ioapic_state *ioapic,
			 struct x86_clock_state *clock, struct err *err);
	int (*board_set)(struct vm *vm, const struct x86_ioapic_state *ioapic,
			 const struct x86_clock_state *clock, struct err *err);

	/*
	 * Around a fork(2) that makes a sibling; -errno when there can be none.
	 * What is made inheritable here the child's vcpu_init() finds through
	 * vm->source.  NULL: nothing is.
	 */
	int (*fork_begin)(struct vm *vm);
	void (*fork_end)(struct vm *vm);

	/* Adds counters to a status document; may be NULL. */
	void (*stats)(struct vm *vm, struct json_t *obj);
};

extern const struct accel accel_kvm, accel_soft;

/* One line for each backend: its name, and "ok" or what keeps it from working, or,
 * with `restore`, from running that. */
void accel_report(FILE *out, const struct restore *restore);

/*
 * The backend for a VM that asks for `want`; NULL with BOOT_ACCEL_UNAVAILABLE.
 * `auto` believes what is remembered in the file verdict_fd (verdict.h; -1: none).
 */
const struct accel *accel_choose(enum spec_accel want, int verdict_fd, struct err *err);
/* BOOT_ACCEL_UNAVAILABLE when the backend cannot have that many. */
int accel_check_cpus(const struct accel *accel, unsigned cpus, struct err *err);

#endif
