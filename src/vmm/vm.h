/* SPDX-License-Identifier: MIT */
/*
 * vm.h - one virtual machine: everything a VMM process has.
 *
 * Built in one explicit order by vm_new() and taken apart in the reverse order;
 * there is no other start-up code and no file-scope state.  `lock` serialises
 * devices: the loop thread holds it around every notify hook, vCPU threads around
 * every register access.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/err.h"
#include "proto/spec.h"
#include "vmm/arch/x86/cpuid.h"
#include "vmm/bus.h"
#include "vmm/limits.h"
#include "vmm/mem.h"
#include "vmm/vcpu.h"

struct accel;
struct console;
struct ctl_server;
struct loop;
struct merge;
struct pool;
struct process;
struct restore;
struct serial;
struct verify;
struct virtio_dev;
struct writer;

enum vm_end {
	VM_END_NONE,
	VM_END_POWEROFF,	/* the guest powered off */
	VM_END_REBOOT,		/* the guest asked for a reset */
	VM_END_STOPPED,		/* somebody asked us to */
	VM_END_CRASHED,		/* triple fault or a backend error; vm->end_err */
};

struct vm {
	struct spec spec;		/* owned */
	struct spec_fds fds;		/* owned, descriptors too */

	struct loop *loop;		/* owned */
	struct pool *pool;		/* owned */
	pthread_mutex_t lock;		/* devices; see above */

	struct mem mem;
	struct bus mmio, pio;
	struct cpu_model model;
	uint64_t host_khz;		/* of the host's TSC */
	const struct accel *accel;	/* borrowed, static */
	void *accel_vm;			/* owned by the backend */

	struct vcpu vcpu[LIMIT_CPUS];
	unsigned nr_vcpus;
	pthread_mutex_t park_lock;	/* park_depth and vcpu->parked */
	pthread_cond_t park_cond;
	unsigned park_depth;

	struct virtio_dev *dev[LIMIT_VIRTIO_SLOTS];	/* owned; slot = index */
	unsigned nr_devs;
	struct serial *serial;		/* owned */
	struct console *console;	/* owned; always there */
	struct ctl_server *ctl;		/* owned */
	struct process *process;	/* borrowed; NULL in tests */

	struct restore *restore;	/* owned; only while it is built */
	struct vm *source;		/* borrowed, while it is built: in a child of that
					 * VM's process; else NULL */
	struct verify *verify;		/* owned; NULL unless restored from a bundle */
	struct writer *writer;		/* owned; a snapshot is being written */
	struct merge *merge;		/* owned; disk layers become fewer */
	unsigned built;			/* steps of vm_new() that were begun */
	uint64_t started_ns;		/* CLOCK_MONOTONIC */
	bool paused;			/* by the user */
	_Atomic int end;		/* enum vm_end */
	struct err end_err;		/* why it crashed; read after vm_run() */
};

/*
 * Takes spec, fds and restore over, also on failure.  The vCPUs exist but do not
 * run.  restore: what to resume; NULL to boot, or where spec->restore is set, to
 * resume from the roles of a bundle.
 */
struct vm *vm_new(struct spec *spec, struct spec_fds *fds,
		  struct restore *restore, struct err *err);
void vm_free(struct vm *vm);
/* Starts the vCPU threads. */
int vm_start(struct vm *vm, struct err *err);
/* Runs the loop on the calling thread until the VM ends; vCPUs are stopped then. */
enum vm_end vm_run(struct vm *vm);
/* Any thread: the VM is to end for this reason; the first reason stays. */
void vm_end(struct vm *vm, enum vm_end why);
/* Any thread: vm_end(VM_END_CRASHED) with the reason (copied). */
void vm_crash(struct vm *vm, const struct err *err);
/* "poweroff", "reboot", …: for reports. */
const char *vm_end_name(enum vm_end why);

/* Loop thread, not under vm->lock: the user's pause, idempotent. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

#endif
