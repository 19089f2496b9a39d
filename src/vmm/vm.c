// SPDX-License-Identifier: MIT
/*
 * vm.c - building a VM, running it, taking it apart.
 *
 * The order is the table `steps`: each row says what it makes and what unmakes it.
 * A row may use everything above it.  Taking apart walks the table upwards from
 * wherever building got to, so each `done` accepts a half-built row.
 */
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/pool.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/board.h"
#include "vmm/console.h"
#include "vmm/ctl_server.h"
#include "vmm/dev/devices.h"
#include "vmm/merge.h"
#include "vmm/snapshot.h"
#include "vmm/soft/clock.h"
#include "vmm/verify.h"

/* ---- the steps ---- */

static int init_loop(struct vm *vm, struct err *err)
{
	vm->loop = loop_new(err);
	if (!vm->loop)
		return -EIO;
	vm->pool = pool_new(vm->loop, LIMIT_POOL_THREADS, err);
	return vm->pool ? 0 : -ENOMEM;
}

static void done_loop(struct vm *vm)
{
	pool_free(vm->pool);
	loop_free(vm->loop);
}

static int init_restore(struct vm *vm, struct err *err)
{
	if (!vm->restore && vm->spec.restore) {
		vm->restore = restore_open(&vm->fds, err);
		if (!vm->restore)
			return -EIO;
	}
	return vm->restore ? restore_check(vm->restore, &vm->spec, err) : 0;
}

static void done_restore(struct vm *vm)
{
	restore_free(vm->restore);
	vm->restore = NULL;
	vm->source = NULL;
}

static int init_mem(struct vm *vm, struct err *err)
{
	struct restore *r = vm->restore;

	if (!r || !r->mem.base)
		return mem_init(&vm->mem, vm->spec.memory_mib * MIB,
				r ? r->mem_fd : -1, err);
	mem_move(&vm->mem, &r->mem);
	return 0;
}

static void done_mem(struct vm *vm)
{
	mem_done(&vm->mem);
}

/* The model depends on what the backend can run, and how fast its clock is. */
static int init_model(struct vm *vm, struct err *err)
{
	uint32_t can[CPUID_NR_WORDS] = { 0 };
	int ret;

	if (vm->restore)
		return restore_model(vm->restore, vm->accel, &vm->model, err);
	ret = accel_check_cpus(vm->accel, vm->spec.cpus, err);
	if (ret)
		return ret;
	vm->accel->cpuid_can(can);
	return cpu_model_init(&vm->model, vm->spec.cpu_model, can,
			      vm->host_khz, vm->spec.cpus, err);
}

/* A sibling has the source's, which works, unless another one is wanted. */
static const struct accel *find_backend(const struct vm *vm, struct err *err)
{
	const struct vm *source = vm->restore ? vm->restore->source : NULL;
	const struct accel *a = source ? source->accel : NULL;

	if (a && (vm->spec.accel == SPEC_ACCEL_AUTO ||
		  !strcmp(a->name, spec_accel_name(vm->spec.accel))))
		return a;
	return accel_choose(vm->spec.accel, spec_fds_get(&vm->fds, "verdict"), err);
}

static int init_accel(struct vm *vm, struct err *err)
{
	int ret;

	vm->accel = find_backend(vm, err);
	if (!vm->accel)
		return -ENOTSUP;
	vm->host_khz = vm->restore ? vm->restore->host_khz : 0;
	ret = vm->accel->vm_init(vm, err);
	if (!vm->host_khz)
		vm->host_khz = gclock_host_khz();
	if (!ret)
		ret = init_model(vm, err);
	if (!ret)
		ret = vm->accel->mem_map(vm, err);
	log_info("vm", "CPU backend %s", vm->accel->name);
	return ret;
}

static void done_accel(struct vm *vm)
{
	if (vm->accel_vm)
		vm->accel->vm_done(vm);
}

static int init_console(struct vm *vm, struct err *err)
{
	vm->console = console_new(vm->loop, &vm->lock,
				  spec_fds_get(&vm->fds, "console"),
				  spec_fds_get(&vm->fds, "tty"), err);
	return vm->console ? 0 : -EIO;
}

static void done_console(struct vm *vm)
{
	console_free(vm->console);
}

static int init_vcpus(struct vm *vm, struct err *err)
{
	for (unsigned i = 0; i < vm->spec.cpus; i++) {
		struct vcpu *c = &vm->vcpu[i];
		int ret;

		c->vm = vm;
		c->id = i;
		ret = vm->accel->vcpu_init(c, err);
		if (ret)
			return err_wrap(err, ret, "cannot make vCPU %u", i);
		vm->nr_vcpus++;
	}
	return 0;
}

static void stop_vcpus(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		vcpu_stop(&vm->vcpu[i]);
}

static void done_vcpus(struct vm *vm)
{
	stop_vcpus(vm);
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		vm->accel->vcpu_done(&vm->vcpu[i]);
}

static int init_guest(struct vm *vm, struct err *err)
{
	int ret;

	if (!vm->restore)
		return board_boot(vm, err);
	ret = restore_load(vm->restore, vm, err);
	if (!ret && vm->restore->sums.len) {
		vm->verify = verify_new(vm, vm->mem.file_fd, &vm->restore->sums, err);
		ret = vm->verify ? 0 : -ENOMEM;
	}
	done_restore(vm);
	return ret;
}

static void done_guest(struct vm *vm)
{
	verify_free(vm->verify);
}

static int init_ctl(struct vm *vm, struct err *err)
{
	int fd = spec_fds_get(&vm->fds, "control");

	if (fd < 0)
		return 0;	/* nobody will ask */
	vm->ctl = ctl_server_new(vm, fd, err);
	return vm->ctl ? 0 : -EIO;
}

static void done_ctl(struct vm *vm)
{
	snapshot_cancel(vm);
	merge_cancel(vm);
	ctl_server_free(vm->ctl);
}

static const struct step {
	const char *what;
	int (*init)(struct vm *vm, struct err *err);
	void (*done)(struct vm *vm);
} steps[] = {
	{ "event loop", init_loop, done_loop },
	{ "snapshot", init_restore, done_restore },
	{ "memory", init_mem, done_mem },
	{ "CPU backend", init_accel, done_accel },
	{ "console", init_console, done_console },
	{ "devices", devices_create, devices_free },
	{ "board", board_init, board_done },
	{ "vCPUs", init_vcpus, done_vcpus },
	{ "guest", init_guest, done_guest },
	{ "control socket", init_ctl, done_ctl },
};

/* ---- life ---- */

/* Descriptors come inherited; none of them is for a child of ours. */
static void adopt_fds(struct vm *vm)
{
	for (unsigned i = 0; i < vm->fds.nr; i++)
		fcntl(vm->fds.fd[i].fd, F_SETFD, FD_CLOEXEC);
}

struct vm *vm_new(struct spec *spec, struct spec_fds *fds,
		  struct restore *restore, struct err *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int ret = 0;

	if (!vm) {
		err_set(err, ENOMEM, "out of memory");
		spec_done(spec);
		spec_fds_done(fds);
		restore_free(restore);
		return NULL;
	}
	vm->spec = *spec;
	vm->fds = *fds;
	vm->restore = restore;
	vm->source = restore ? restore->source : NULL;
	*spec = (struct spec){ .name = NULL };
	fds->nr = 0;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->park_lock, NULL);
	pthread_cond_init(&vm->park_cond, NULL);
	adopt_fds(vm);
	while (vm->built < ARRAY_LEN(steps) && !ret) {
		const struct step *s = &steps[vm->built++];
		uint64_t begun = io_now_ns();

		ret = s->init(vm, err);
		log_info("vm", "%s: %llu us", s->what,
			 (unsigned long long)(io_now_ns() - begun) / 1000);
		if (ret)
			err_wrap(err, ret, "cannot set up the %s", s->what);
	}
	if (!ret)
		return vm;
	vm_free(vm);
	return NULL;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	while (vm->built)
		steps[--vm->built].done(vm);
	for (unsigned i = 0; i < vm->fds.nr; i++)
		io_close(vm->fds.fd[i].fd);
	spec_fds_done(&vm->fds);
	spec_done(&vm->spec);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->park_lock);
	pthread_cond_destroy(&vm->park_cond);
	free(vm);
}

int vm_start(struct vm *vm, struct err *err)
{
	int ret = 0;

	vm->started_ns = io_now_ns();
	for (unsigned i = 0; i < vm->nr_vcpus && !ret; i++)
		ret = vcpu_start(&vm->vcpu[i], err);
	if (!ret && vm->verify)
		ret = verify_start(vm->verify, err);
	return ret;
}

enum vm_end vm_run(struct vm *vm)
{
	int ret = 0;

	while (!ret && !atomic_load(&vm->end))
		ret = loop_run(vm->loop);
	if (ret) {
		struct err err = ERR_INIT;

		err_set(&err, -ret, "the event loop failed");
		vm_crash(vm, &err);
	}
	stop_vcpus(vm);
	/* Who snapshots a VM that ends meanwhile still gets the snapshot. */
	while (!ret && vm->writer && atomic_load(&vm->end) != VM_END_STOPPED)
		ret = loop_run(vm->loop);
	return atomic_load(&vm->end);
}

static bool first_end(struct vm *vm, enum vm_end why)
{
	int none = VM_END_NONE;

	return atomic_compare_exchange_strong(&vm->end, &none, why);
}

void vm_end(struct vm *vm, enum vm_end why)
{
	if (first_end(vm, why))
		loop_stop(vm->loop);
}

/* vm_run() joins the vCPUs before anybody reads end_err. */
void vm_crash(struct vm *vm, const struct err *err)
{
	if (!first_end(vm, VM_END_CRASHED))
		return;
	vm->end_err = *err;
	log_err("vm", "%s", err_message(err));
	for (unsigned i = 0; err_cause(err, i); i++)
		log_err("vm", "  caused by: %s", err_cause(err, i));
	loop_stop(vm->loop);
}

const char *vm_end_name(enum vm_end why)
{
	static const char *const names[] = {
		[VM_END_NONE] = "running", [VM_END_POWEROFF] = "poweroff",
		[VM_END_REBOOT] = "reboot", [VM_END_STOPPED] = "stopped",
		[VM_END_CRASHED] = "crashed",
	};

	return (unsigned)why < ARRAY_LEN(names) ? names[why] : "";
}

void vm_pause(struct vm *vm)
{
	if (!vm->paused)
		vcpu_park_all(vm);
	vm->paused = true;
}

void vm_resume(struct vm *vm)
{
	if (vm->paused)
		vcpu_unpark_all(vm);
	vm->paused = false;
}
