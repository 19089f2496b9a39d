// SPDX-License-Identifier: MIT
/*
 * list.c - what runs: status of one VM, a walk over all, and gc.
 *
 * A VMM that does not answer within a second is listed all the same, as
 * "unresponsive": a list that hangs on one bad VM is of no use.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/vm.h"
#include "proto/ctl.h"

#define ASK_MS 1000

static void take_port(struct mn_status *st, const json_t *p)
{
	struct mn_port *to = &st->port[st->nr_ports];

	if (st->nr_ports == ARRAY_LEN(st->port))
		return;
	snprintf(to->host_addr, sizeof(to->host_addr), "%s",
		 json_str_opt(p, "host_addr", "", NULL));
	to->host_port = (uint16_t)json_int_opt(p, "host_port", 0, 65535, 0, NULL);
	to->guest_port = (uint16_t)json_int_opt(p, "guest_port", 0, 65535, 0, NULL);
	to->udp = !strcmp(json_str_opt(p, "proto", "tcp", NULL), "udp");
	st->nr_ports++;
}

/* Of the layers' files in the VM's directory: "root.layer", "root.….layer". */
static uint64_t disk_bytes(int vm_dir, const char *id)
{
	DIR *dir = fdopendir(openat(vm_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t len = strlen(id);
	struct dirent *de;
	uint64_t sum = 0;
	struct stat st;

	while (dir && (de = readdir(dir)))
		if (!strncmp(de->d_name, id, len) && de->d_name[len] == '.' &&
		    !fstatat(vm_dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW))
			sum += (uint64_t)st.st_blocks * 512;
	if (dir)
		closedir(dir);
	return sum;
}

static void take_disk(struct mn_status *st, int dir, const json_t *d)
{
	struct mn_disk *to = &st->disk[st->nr_disks];

	if (st->nr_disks == ARRAY_LEN(st->disk))
		return;
	snprintf(to->id, sizeof(to->id), "%s", json_str_opt(d, "id", "", NULL));
	to->readonly = json_is_true(json_object_get(d, "readonly"));
	to->layers = (unsigned)json_int_opt(d, "layers", 1, 4096, 1, NULL);
	to->own_bytes = disk_bytes(dir, to->id);
	st->nr_disks++;
}

static int ask(int dir, json_t **answer)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s}", "op", "status");
	struct timeval limit = { .tv_usec = (ASK_MS - 1) * 1000 };
	struct err err = ERR_INIT;
	int fd = socket_connect(dir, "control", SOCK_SEQPACKET, &err);
	int ret = fd < 0 ? fd : 0;

	if (!ret) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		ret = ctl_call(fd, req, NULL, 0, NULL, NULL, answer, &err);
	}
	io_close(fd);
	return ret;
}

/* The backend's own business: handed on as it is, or not at all. */
static void take_counters(struct mn_status *st, const json_t *a)
{
	char *text = json_dumps(json_object_get(a, "counters"), JSON_COMPACT);

	if (text && strlen(text) < sizeof(st->counters))
		strcpy(st->counters, text);
	free(text);
}

/* What only the VMM knows. */
static void fill_deep(struct mn_status *st, int dir)
{
	cleanup(json_putp) json_t *a = NULL;
	json_t *p, *d;
	size_t i;

	if (ask(dir, &a)) {
		strcpy(st->state, "unresponsive");
		return;
	}
	snprintf(st->state, sizeof(st->state), "%s",
		 json_str_opt(a, "state", "running", NULL));
	snprintf(st->accel, sizeof(st->accel), "%s",
		 json_str_opt(a, "accel", st->accel, NULL));
	json_array_foreach(json_arr_opt(a, "ports", NULL), i, p)
		take_port(st, p);
	json_array_foreach(json_arr_opt(a, "disks", NULL), i, d)
		take_disk(st, dir, d);
	take_counters(st, a);
}

static void fill(struct mn_status *st, const struct reg_vm *vm)
{
	char path[PATH_MAX];

	if (!home_registry(path, NULL))
		lib_path(st->directory, NULL, "%s/%d", path, vm->id.pid);
	st->pid = vm->id.pid;
	snprintf(st->name, sizeof(st->name), "%s", vm->name);
	snprintf(st->forked_from, sizeof(st->forked_from), "%s", vm->forked_from);
	snprintf(st->image, sizeof(st->image), "%s", vm->image);
	memcpy(st->image_sha256, vm->image_sha256, sizeof(st->image_sha256));
	memcpy(st->kernel, vm->kernel, sizeof(st->kernel));
	memcpy(st->kernel_sha256, vm->kernel_sha256, sizeof(st->kernel_sha256));
	snprintf(st->accel, sizeof(st->accel), "%s",
		 strcmp(vm->accel, "auto") ? vm->accel : "");
	strcpy(st->state, "running");
	st->started_at_ms = vm->started_at_ms;
	st->uptime_ms = proc_uptime_ms(&vm->id);
	st->rss_bytes = proc_rss(vm->id.pid);
	st->ceiling_mib = vm->memory_mib;
	st->cpus = vm->cpus;
}

int mn_vm_status(struct mn_vm *vm, bool deep, struct mn_status *out,
		 struct mn_error *err)
{
	struct mn_status st = { .size = sizeof(st) };
	struct err e = ERR_INIT;

	if (proc_wait(vm->pidfd, 0) > 0)
		return lib_return(err, &e, err_code(&e, ERR_REGISTRY_VM_NOT_FOUND,
						    ESRCH, "VM %d has ended",
						    vm->reg.id.pid));
	fill(&st, &vm->reg);
	if (deep)
		fill_deep(&st, vm->dir);
	st.size = out->size;
	memcpy(out, &st, MIN(out->size, sizeof(st)));
	return 0;
}

static uint64_t bytes_of(const json_t *j, const char *key)
{
	return (uint64_t)json_int_opt(j, key, 0, INT64_MAX, 0, NULL);
}

static int memory(struct mn_vm *vm, struct mn_memory *m, struct err *err)
{
	cleanup(json_putp) json_t *a = NULL;
	const json_t *guest;
	int ret = ask(vm->dir, &a);

	if (ret)
		return err_set(err, -ret, "VM %d does not answer", vm->reg.id.pid);
	m->rss_bytes = proc_rss(vm->reg.id.pid);
	m->ceiling_bytes = vm->reg.memory_mib << 20;
	guest = json_object_get(json_object_get(a, "memory"), "guest");
	m->guest_known = json_is_object(guest);
	m->guest_total_bytes = bytes_of(guest, "total_bytes");
	m->guest_free_bytes = bytes_of(guest, "free_bytes");
	m->guest_available_bytes = bytes_of(guest, "available_bytes");
	m->guest_cache_bytes = bytes_of(guest, "cache_bytes");
	return 0;
}

int mn_vm_memory(struct mn_vm *vm, struct mn_memory *out, struct mn_error *err)
{
	struct mn_memory m = { .size = out->size };
	struct err e = ERR_INIT;
	int ret = memory(vm, &m, &e);

	if (!ret)
		memcpy(out, &m, MIN(out->size, sizeof(m)));
	return lib_return(err, &e, ret);
}

struct walk {
	struct registry *r;
	bool deep;
	int (*each)(const struct mn_status *st, void *arg);
	void *arg;
};

static int list_one(const struct reg_vm *vm, enum proc_state state, void *arg)
{
	struct mn_status st = { .size = sizeof(st) };
	struct walk *w = arg;

	if (state != PROC_LIVE) {
		registry_remove(w->r, vm);	/* if it is dead */
		return 0;
	}
	fill(&st, vm);
	if (w->deep) {
		cleanup(io_closep) int dir = registry_vm_dir(w->r, vm->id.pid);

		if (dir >= 0)
			fill_deep(&st, dir);
	}
	return w->each(&st, w->arg);
}

int mn_list(bool deep, int (*each)(const struct mn_status *st, void *arg),
	    void *arg, struct mn_error *err)
{
	struct registry r;
	struct walk w = { .r = &r, .deep = deep, .each = each, .arg = arg };
	struct err e = ERR_INIT;
	int ret = registry_open(&r, &e);

	if (!ret) {
		ret = registry_each(&r, list_one, &w, &e);
		registry_close(&r);
	}
	return lib_return(err, &e, ret);
}

int mn_gc(bool dry_run, int (*each)(const char *what, const char *path, void *arg),
	  void *arg, struct mn_error *err)
{
	struct registry r;
	struct err e = ERR_INIT;
	int ret = registry_open(&r, &e);

	if (!ret) {
		ret = registry_gc(&r, dry_run, each, arg, &e);
		registry_close(&r);
	}
	return lib_return(err, &e, ret);
}
