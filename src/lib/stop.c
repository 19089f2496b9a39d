// SPDX-License-Identifier: MIT
/*
 * stop.c - ends a VM: power button, SIGTERM, SIGKILL, each with a time to react.
 *
 * Signals go through a descriptor of the process that was checked to be the
 * recorded one after it was opened, so a pid that came back is never hit.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/io.h"
#include "base/util.h"
#include "lib/agent_client.h"
#include "lib/vm.h"

#define GRACE_MS 2000
#define KILL_MS	 5000

/*
 * The agent, else the ACPI button.  A paused guest could follow neither, and is
 * left paused for the signals.
 */
static void ask_poweroff(struct mn_vm *vm)
{
	json_t *req = json_pack("{s:s}", "op", "poweroff");
	uint64_t soon = io_now_ns() + 300 * 1000000ull;
	struct err err = ERR_INIT;
	int fd = agent_connect(vm->dir, vm->pidfd, soon, &err);
	int ret = fd < 0 ? fd : agent_send_json(fd, req);

	json_decref(req);
	if (ret)
		vm_ctl(vm, json_pack("{s:s}", "op", "stop"), NULL, &err);
	if (fd >= 0) {
		/* closing at once could overtake the request */
		proc_wait(vm->pidfd, 50);
		io_close(fd);
	}
}

static int end_vm(struct mn_vm *vm, const struct mn_stop *cfg, struct err *err)
{
	int64_t grace = cfg->grace_ms ? (int64_t)cfg->grace_ms : GRACE_MS;
	int ret;

	if (!cfg->force) {
		ask_poweroff(vm);
		if (proc_wait(vm->pidfd, grace) > 0)
			return 0;
		proc_signal(vm->pidfd, SIGTERM);
		if (proc_wait(vm->pidfd, grace) > 0)
			return 0;
	}
	ret = proc_signal(vm->pidfd, SIGKILL);
	if (ret && ret != -ESRCH)
		return err_set(err, -ret, "cannot signal VM %d: %s",
			       vm->reg.id.pid, strerror(-ret));
	if (proc_wait(vm->pidfd, KILL_MS) > 0)
		return 0;
	return err_set(err, EBUSY, "VM %d does not end", vm->reg.id.pid);
}

static int stop(struct registry *r, const char *target, const struct mn_stop *cfg,
		enum mn_stopped *how, pid_t *pid, struct err *err)
{
	struct mn_vm *vm = vm_alloc();
	enum proc_state state;
	int ret = vm ? 0 : err_set(err, ENOMEM, "out of memory");

	if (!ret)
		ret = registry_look(r, target, &vm->reg, &state, err);
	if (ret)
		goto out;
	*pid = vm->reg.id.pid;
	*how = state == PROC_LIVE ? MN_STOPPED :
	       state == PROC_DEAD ? MN_ALREADY_DEAD : MN_RECYCLED;
	if (cfg->dry_run) {
		*how = *how == MN_STOPPED ? MN_WOULD_STOP : *how;
		goto out;
	}
	if (*how == MN_STOPPED) {
		vm->pidfd = proc_open(&vm->reg.id);
		vm->dir = registry_vm_dir(r, vm->reg.id.pid);
		if (vm->pidfd >= 0)
			ret = end_vm(vm, cfg, err);
		else if (vm->pidfd != -ESRCH)
			ret = err_set(err, -vm->pidfd, "cannot open VM %d: %s",
				      vm->reg.id.pid, strerror(-vm->pidfd));
	}
	if (!ret)
		registry_remove(r, &vm->reg);
out:
	vm_free(vm);
	return ret;
}

int mn_stop(const char *target, const struct mn_stop *cfg, enum mn_stopped *how,
	    pid_t *pid, struct mn_error *err)
{
	enum mn_stopped done = MN_STOPPED;
	struct err e = ERR_INIT;
	struct mn_stop own;
	struct registry r;
	pid_t who = 0;
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	if (!ret)
		ret = registry_open(&r, &e);
	if (!ret) {
		ret = stop(&r, target, &own, &done, &who, &e);
		registry_close(&r);
	}
	if (how)
		*how = done;
	if (pid)
		*pid = who;
	return lib_return(err, &e, ret);
}
