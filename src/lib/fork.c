// SPDX-License-Identifier: MIT
/*
 * fork.c - mn_vm_fork: a running VM becomes two.
 *
 * The VMM forks; the library gives the sibling a directory, sockets, logs and
 * layers before, and a name right after.  The sibling ends with the pipe "alive"
 * until it is known that it stands in the registry, so that a fork whose asker
 * is killed leaves no VM that nobody knows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/resume.h"
#include "proto/ctl.h"

#define FREE_PERCENT 1		/* of the host's memory, less is too little */
#define MEMINFO_MAX  65536
#define CTL_WAIT_S   60

struct forking {
	struct booting b;
	const struct mn_resume *cfg;	/* borrowed */
	struct mn_vm *source;		/* borrowed */
	char past[REG_NAME_MAX + 1];
	int making;			/* owned: a lock; -1: none */
};

static struct forking *of(struct booting *b)
{
	return container_of(b, struct forking, b);
}

static uint64_t meminfo(const char *text, const char *name)
{
	const char *at = text ? strstr(text, name) : NULL;

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static int check_memory(struct booting *b)
{
	struct buf text = BUF_INIT;
	uint64_t total, available;

	if (io_read_file(AT_FDCWD, "/proc/meminfo", MEMINFO_MAX, &text))
		return 0;
	total = meminfo(text.data, "MemTotal:");
	available = meminfo(text.data, "MemAvailable:");
	buf_done(&text);
	if (!total || available * 100 >= total * FREE_PERCENT)
		return 0;
	return err_code(b->err, ERR_FORK_MEMORY_BACKPRESSURE, ENOMEM,
			"the host has %llu of %llu MiB of memory free; stop something first",
			(unsigned long long)available / 1024,
			(unsigned long long)total / 1024);
}

/* How the sibling says whose it is. */
static void name_source(const struct reg_vm *from, char name[REG_NAME_MAX + 1])
{
	if (*from->name)
		memcpy(name, from->name, REG_NAME_MAX + 1);
	else
		snprintf(name, REG_NAME_MAX + 1, "%d", from->id.pid);
}

static int take_identity(struct booting *b)
{
	struct forking *f = of(b);
	const struct reg_vm *from = &f->source->reg;
	struct reg_vm *reg = &b->vm->reg;

	if (*from->name)
		snprintf(f->past, sizeof(f->past), "%s", from->name);
	else
		snprintf(f->past, sizeof(f->past), "vm%d", from->id.pid);
	b->past = f->past;
	memcpy(reg->image, from->image, sizeof(reg->image));
	memcpy(reg->image_sha256, from->image_sha256, sizeof(reg->image_sha256));
	memcpy(reg->kernel, from->kernel, sizeof(reg->kernel));
	memcpy(reg->kernel_sha256, from->kernel_sha256, sizeof(reg->kernel_sha256));
	memcpy(reg->accel, from->accel, sizeof(reg->accel));
	name_source(from, reg->forked_from);
	reg->memory_mib = from->memory_mib;
	reg->cpus = from->cpus;
	b->spec.net = true;	/* for the check of forwards: the VMM knows better */
	return resume_check(b);
}

/* Those without another directory are shared with the source: the VMM does that. */
static int live_mounts(struct booting *b)
{
	json_t *status = NULL;
	int ret;

	if (!of(b)->cfg->nr_live_mounts)
		return 0;
	ret = vm_ctl(of(b)->source, json_pack("{s:s}", "op", "status"), &status, b->err);
	if (!ret)
		spec_fs_parse(&b->spec, status, b->err);
	json_decref(status);
	return b->err->num ? -b->err->num : resume_live_mounts(b, of(b)->cfg);
}

static int add_layers(struct booting *b, const char *id)
{
	char role[40], name[48];
	int fd = resume_new_layer(of(b)->source->dir, id, name, sizeof(name), b->err);
	int ret;

	if (fd < 0)
		return fd;
	snprintf(role, sizeof(role), "seal.%.19s", id);
	ret = booting_role(b, fd, role);
	if (ret)
		return ret;
	fd = resume_new_layer(b->vm->dir, id, name, sizeof(name), b->err);
	snprintf(role, sizeof(role), "top.%.19s", id);
	return fd < 0 ? fd : booting_role(b, fd, role);
}

static int fork_disks(struct booting *b)
{
	json_t *status = NULL, *disk;
	size_t i;
	int ret;

	of(b)->making = layers_making(of(b)->source);
	ret = vm_ctl(of(b)->source, json_pack("{s:s}", "op", "status"), &status, b->err);
	json_array_foreach(json_object_get(status, "disks"), i, disk) {
		if (ret || json_is_true(json_object_get(disk, "readonly")))
			continue;
		ret = i < SPEC_MAX_DISKS ?
		      add_layers(b, json_str_opt(disk, "id", "", NULL)) : -E2BIG;
	}
	json_decref(status);
	return ret;
}

/* exit.json: the sibling is in a sandbox already and opens nothing. */
static int fork_channels(struct booting *b)
{
	int fd, ret = boot_channels(b);

	if (ret)
		return ret;
	fd = openat(b->vm->dir, "exit.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? lib_host_err(b->err, -errno, b->reg.path, "cannot write to") :
			booting_role(b, fd, "exit");
}

/* What of the spec is the sibling's own. */
static json_t *changes(struct booting *b)
{
	const struct spec *s = &b->spec;
	json_t *ports = json_array(), *net;
	char mac[18], id[33];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", s->mac[0], s->mac[1],
		 s->mac[2], s->mac[3], s->mac[4], s->mac[5]);
	for (unsigned i = 0; i < sizeof(s->vmgenid); i++)
		snprintf(id + 2 * i, 3, "%02x", s->vmgenid[i]);
	for (unsigned i = 0; i < s->nr_ports; i++)
		json_array_append_new(ports, spec_port_print(&s->port[i]));
	net = json_pack("{s:s, s:o}", "mac", mac, "ports", ports);
	return json_pack("{s:s?, s:s, s:o, s:o*}", "name", s->name, "vmgenid", id, "net",
			 net, "fs", s->nr_fs ? spec_fs_print(s) : NULL);
}

static int ask(struct booting *b, json_t **answer)
{
	struct timeval limit = { .tv_sec = CTL_WAIT_S };
	cleanup(io_closep) int fd = socket_connect(of(b)->source->dir, "control",
						   SOCK_SEQPACKET, b->err);
	cleanup(json_putp) json_t *req = NULL;
	json_t *roles = json_array();
	int fds[SPEC_MAX_FDS];

	for (unsigned i = 0; i < b->fds.nr; i++) {
		fds[i] = b->fds.fd[i].fd;
		json_array_append_new(roles, json_string(b->fds.fd[i].role));
	}
	req = json_pack("{s:s, s:o, s:o}", "op", "fork", "spec", changes(b), "roles", roles);
	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return ctl_call(fd, req, fds, b->fds.nr, NULL, NULL, answer, b->err);
}

static int request(struct booting *b)
{
	json_t *answer = NULL;
	int ret = ask(b, &answer);
	pid_t pid = ret ? 0 : (pid_t)json_int_opt(answer, "pid", 1, INT32_MAX, 0, NULL);

	boot_close_own(b);
	if (!ret)
		ret = resume_phases(answer, b->cfg->event, b->cfg->event_arg);
	json_decref(answer);
	io_close(of(b)->making);
	of(b)->making = -1;
	if (ret)
		return ret;
	ret = proc_identify(pid, &b->vm->reg.id);
	b->vm->pidfd = ret ? ret : proc_open(&b->vm->reg.id);
	if (b->vm->pidfd < 0)	/* it may have said why */
		return boot_wait_ready(b) ? -b->err->num :
		       err_code(b->err, ERR_BOOT_READINESS_FAILED, -b->vm->pidfd,
				"the sibling ended at once");
	ret = boot_commit(b);
	if (!ret)
		*b->tmp = '\0';
	return ret;
}

static int keep_lineage(struct booting *b)
{
	cleanup(json_putp) json_t *list = resume_lineage(of(b)->source, "fork");

	return resume_keep_lineage(b, list);
}

/* It stands in the registry and runs: it may outlive us. */
static int let_go(struct booting *b)
{
	int ret;

	if (!b->cfg->detach)
		return 0;
	ret = vm_ctl(b->vm, json_pack("{s:s}", "op", "detach"), NULL, b->err);
	if (!ret) {
		io_close(b->vm->alive);
		b->vm->alive = -1;
	}
	return ret;
}

/* The memory is that of a process which has its backend, and its sandbox. */
static int check_accel(struct booting *b)
{
	static const char *const names[] = { [MN_ACCEL_KVM] = "kvm", [MN_ACCEL_SOFT] = "soft" };
	enum mn_accel want = of(b)->cfg->accel;
	cleanup(json_putp) json_t *status = NULL;
	const char *has;
	int ret;

	if ((unsigned)want >= ARRAY_LEN(names) || !names[want])
		return 0;	/* boot_settle() refuses what is none */
	ret = vm_ctl(of(b)->source, json_pack("{s:s}", "op", "status"), &status, b->err);
	if (ret)
		return ret;
	has = json_str_opt(status, "accel", "", NULL);
	return !strcmp(has, names[want]) ? 0 :
	       err_code(b->err, ERR_BOOT_ACCEL_UNAVAILABLE, ENOTSUP,
			"a fork goes on with the CPU backend of its source, which is %s; to change that use snapshot, or --out-dir, and restore --accel %s",
			has, names[want]);
}

static const struct boot_step steps[] = {
	{ NULL, take_identity },
	{ NULL, check_accel },
	{ NULL, resume_check_image },
	{ NULL, live_mounts },
	{ NULL, boot_check_ports },
	{ NULL, boot_check_mounts },
	{ NULL, check_memory },
	{ NULL, boot_settle },
	{ "registry", boot_enter },
	{ NULL, fork_disks },
	{ NULL, fork_channels },
	{ NULL, keep_lineage },
	{ "request", request },
	{ "vmm", boot_wait_ready },
	{ NULL, let_go },
	{ "thaw", resume_thaw },
	{ "mounts", resume_mounts },
};

static int fork_vm(struct mn_vm *source, const struct mn_resume *cfg,
		   struct mn_vm **vm, struct err *err)
{
	struct forking f = { .b.err = err, .cfg = cfg, .source = source, .making = -1 };
	struct mn_boot boot;
	int ret;

	resume_config(cfg, &boot);
	spec_init(&f.b.spec);
	f.b.keep_alive_pipe = true;
	layers_before(source, cfg->event, cfg->event_arg);
	ret = boot_run(&f.b, &boot, steps, ARRAY_LEN(steps), vm);
	io_close(f.making);
	if (!ret)
		layers_after(source);
	return ret;
}

/* Asked before a bundle is written that would stay behind. */
static int check_name(const char *name, struct err *err)
{
	struct registry r;
	int ret;

	if (!name)
		return 0;
	ret = registry_check_name(name, err);
	if (!ret)
		ret = registry_open(&r, err);
	if (ret)
		return ret;
	ret = registry_name_free(&r, name, err);
	registry_close(&r);
	return ret;
}

/* With a bundle: the sibling is what the bundle holds, so both are one instant. */
static int fork_through(struct mn_vm *source, const struct mn_resume *cfg,
			struct mn_vm **vm, struct err *err)
{
	struct mn_snapshot shot = { .size = sizeof(shot), .dir = cfg->out_dir,
				    .keep_alive = true, .event = cfg->event,
				    .event_arg = cfg->event_arg };
	struct mn_snapshotted got = { .size = sizeof(got) };
	struct mn_resume resume = *cfg;
	char name[REG_NAME_MAX + 1];
	int ret = check_name(cfg->name, err);

	if (!ret)
		ret = snapshot_vm(source, &shot, &got, err);
	if (ret)
		return ret;
	resume.bundle = got.path;
	name_source(&source->reg, name);
	return restore_vm(&resume, name, vm, err);
}

int mn_vm_fork(struct mn_vm *source, const struct mn_resume *cfg,
	       struct mn_vm **vm, struct mn_error *err)
{
	struct err e = ERR_INIT;
	struct mn_resume own;
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	*vm = NULL;
	if (!ret)
		ret = own.out_dir ? fork_through(source, &own, vm, &e) :
				    fork_vm(source, &own, vm, &e);
	return lib_return(err, &e, ret);
}
