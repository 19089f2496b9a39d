// SPDX-License-Identifier: MIT
/*
 * ctl_ops.c - the operations of the control socket: one row, one function each.
 * What they mean to a client is in docs/protocol.md.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/board.h"
#include "vmm/ctl_server.h"
#include "vmm/dev/balloon.h"
#include "vmm/dev/devices.h"
#include "vmm/merge.h"
#include "vmm/port_ops.h"
#include "vmm/process.h"
#include "vmm/snapshot.h"
#include "vmm/vm.h"

/* What the guest's kernel said about its memory; absent until it did. */
static json_t *guest_memory(struct vm *vm)
{
	struct virtio_dev *dev = devices_find(vm, &balloon_class, 0);
	struct balloon_stats s = { .known = false };

	if (dev) {
		pthread_mutex_lock(&vm->lock);
		s = balloon_stats(dev);
		pthread_mutex_unlock(&vm->lock);
	}
	if (!s.known)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I}", "total_bytes", (json_int_t)s.total,
			 "free_bytes", (json_int_t)s.free,
			 "available_bytes", (json_int_t)s.available,
			 "cache_bytes", (json_int_t)s.caches);
}

static void op_status(struct ctl_req *req)
{
	struct vm *vm = req->vm;
	json_t *counters = json_object(), *disks = json_array(), *o;
	uint64_t up = io_now_ns() - vm->started_ns;

	if (vm->accel->stats)
		vm->accel->stats(vm, counters);
	for (unsigned i = 0; i < vm->spec.nr_disks; i++)
		json_array_append_new(disks, json_pack("{s:s, s:i, s:b}", "id",
			vm->spec.disk[i].id, "layers", vm->spec.disk[i].nr_layers,
			"readonly", vm->spec.disk[i].readonly));
	o = json_pack("{s:s, s:s, s:I, s:i, s:{s:I, s:o}, s:o, s:o, s:o, s:b, s:o}",
		      "state", vm->paused ? "paused" : "running",
		      "accel", vm->accel->name,
		      "uptime_ms", (json_int_t)(up / 1000000),
		      "cpus", vm->nr_vcpus,
		      "memory", "ceiling_mib", (json_int_t)vm->spec.memory_mib,
				"guest", guest_memory(vm),
		      "ports", ports_to_json(vm), "disks", disks, "fs", spec_fs_print(&vm->spec),
		      "merging", vm->merge != NULL,
		      "counters", counters);
	ctl_ok(req, o);
}

/* The files under a disk, the base first: for bundles, which link or copy them. */
static void op_layers(struct ctl_req *req)
{
	struct vm *vm = req->vm;
	struct err err = ERR_INIT;
	const char *id = json_str(req->doc, "id", &err);
	unsigned i = 0;

	while (i < vm->spec.nr_disks && id && strcmp(vm->spec.disk[i].id, id))
		i++;
	if (!err.num && i == vm->spec.nr_disks)
		err_set(&err, ENOENT, "there is no disk %.40s", id);
	if (err.num) {
		ctl_fail(req, &err);
		return;
	}
	for (unsigned k = 0; k < vm->spec.disk[i].nr_layers; k++)
		ctl_give_fd(req, spec_fds_get(&vm->fds, "%s.%u", id, k));
	ctl_pin_layers(req);
	ctl_ok(req, json_pack("{s:i}", "layers", vm->spec.disk[i].nr_layers));
}

static void op_pause(struct ctl_req *req)
{
	vm_pause(req->vm);
	ctl_ok(req, NULL);
}

static void op_resume(struct ctl_req *req)
{
	vm_resume(req->vm);
	ctl_ok(req, NULL);
}

static void op_stop(struct ctl_req *req)
{
	struct vm *vm = req->vm;
	struct err err = ERR_INIT;
	bool now = json_bool_opt(req->doc, "now", false, &err);
	int ret = -err.num;

	if (!ret && !now) {
		pthread_mutex_lock(&vm->lock);
		ret = board_power_button(vm);
		pthread_mutex_unlock(&vm->lock);
		if (ret)
			err_set(&err, -ret, "the guest has no power button");
	}
	if (ret) {
		ctl_fail(req, &err);
		return;
	}
	ctl_ok(req, NULL);
	if (now)
		vm_end(vm, VM_END_STOPPED);
}

static void op_detach(struct ctl_req *req)
{
	process_detach(req->vm->process);
	ctl_ok(req, NULL);
}

const struct ctl_op ctl_ops[] = {
	{ "status", op_status },
	{ "pause", op_pause },
	{ "resume", op_resume },
	{ "stop", op_stop },
	{ "detach", op_detach },
	{ "port_add", op_port_add },
	{ "port_rm", op_port_rm },
	{ "port_ls", op_port_ls },
	{ "layers", op_layers },
	{ "merge", op_merge },
	{ "snapshot", op_snapshot },
	{ "fork", op_fork },
};
const unsigned nr_ctl_ops = ARRAY_LEN(ctl_ops);
