// SPDX-License-Identifier: MIT
/*
 * snapshot.c - mn_vm_snapshot: a running VM becomes a bundle.
 *
 * The VMM writes state and memory into files of the bundle under way, and seals
 * its disks: docs/snapshot.md.  What it hands out of them is then linked.  What
 * can be done before the pause is: digests of the layers that nobody writes any
 * more, base included.  The guest is asked nothing: its page cache is memory, and
 * memory, processor and disks are of one instant.
 *
 * Without keep_alive the VMM stays frozen from its answer on, until `stop` comes
 * on the same connection, which is sent when the bundle has its name.  The end of
 * the connection, for whatever reason, lets the source go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "layer/layer.h"
#include "lib/bundle.h"
#include "lib/resume.h"
#include "lib/vm.h"
#include "proto/ctl.h"

#define POLL_MS	  100		/* how soon a caller's wish to stop is seen */
#define STOP_MS	  10000
#define END_MS	  300
#define MAX_ROLES (SPEC_MAX_DISKS + 3)
#define MAX_FDS	  64


struct shot {
	struct mn_vm *vm;		/* borrowed */
	const struct mn_snapshot *cfg;
	struct err *err;
	struct bundle_w w;
	int ctl;			/* owned */
	json_t *disks;			/* owned: of status */
	json_t *answer;			/* owned */
	int fd[MAX_ROLES];		/* owned */
	json_t *roles;			/* owned */
	unsigned nr_fds;
	json_t *sums;			/* owned: "root.0" → digest */
	int making;			/* owned: a lock; -1: none */
	uint64_t since;
	int stopped;			/* not 0: the caller does not want it any more */
};

/* --- asking --------------------------------------------------------------- */

/* Its sockets close a moment before it is gone. */
static bool has_ended(const struct shot *s, int ms)
{
	return proc_wait(s->vm->pidfd, ms) > 0;
}

/* One document, and descriptors, in reach of the caller's wish to stop. */
static int receive(struct shot *s, json_t **doc, int *fds, unsigned *nr)
{
	struct pollfd p = { .fd = s->ctl, .events = POLLIN };
	int ret;

	for (;;) {
		ret = poll(&p, 1, POLL_MS);
		if (ret > 0)
			break;
		if (ret < 0 && errno != EINTR)
			return err_set(s->err, errno, "cannot wait for the VM");
		ret = lib_progress(s->cfg->event, s->cfg->event_arg, "snapshot", 0, 0);
		if (ret)
			return ret;
	}
	ret = ctl_recv(s->ctl, doc, fds, nr, s->err);
	if (!ret)
		return err_code(s->err, ERR_SNAPSHOT_DUMP_FAILED, EPIPE,
				has_ended(s, END_MS) ? "the VM ended meanwhile" :
				"the VM gave no answer");
	return ret < 0 ? ret : 0;
}

static int on_progress(struct shot *s, const json_t *p)
{
	return lib_progress(s->cfg->event, s->cfg->event_arg, "writing memory",
			    (uint64_t)json_int_opt(p, "done", 0, INT64_MAX, 0, NULL),
			    (uint64_t)json_int_opt(p, "total", 0, INT64_MAX, 0, NULL));
}

static int ask(struct shot *s, json_t *req, const int *give, unsigned nr_give,
	       json_t **answer, int *fds, unsigned *nr)
{
	int ret = ctl_send(s->ctl, req, give, nr_give, s->err);
	unsigned room = nr ? *nr : 0;
	json_t *doc = NULL;

	json_decref(req);
	while (!ret) {
		const json_t *p;

		if (nr)
			*nr = room;
		ret = receive(s, &doc, fds, nr);
		p = ret ? NULL : json_object_get(doc, "progress");
		if (!p)
			break;
		ret = on_progress(s, p);
		json_decref(doc);
		doc = NULL;
	}
	if (!ret && !json_is_true(json_object_get(doc, "ok")))
		ret = ctl_answer_error(doc, s->err);
	if (!ret && answer)
		*answer = json_incref(doc);
	json_decref(doc);
	return ret;
}

/* The files under a disk; descriptors are the caller's. */
static int get_layers(struct shot *s, const char *id, int fds[MAX_FDS], unsigned *nr)
{
	*nr = MAX_FDS;
	return ask(s, json_pack("{s:s, s:s}", "op", "layers", "id", id), NULL, 0, NULL,
		   fds, nr);
}

static void close_all(int *fds, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		io_close(fds[i]);
}

/* --- before the pause ----------------------------------------------------- */

static int add_role(struct shot *s, int fd, const char *role)
{
	if (s->nr_fds == MAX_ROLES) {
		io_close(fd);
		return err_set(s->err, EMFILE, "too many disks");
	}
	s->fd[s->nr_fds++] = fd;
	json_array_append_new(s->roles, json_string(role));
	return 0;
}

static int add_files(struct shot *s)
{
	static const char *const names[] = { "state", "memory", "sums" };
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_LEN(names) && !ret; i++) {
		int fd = bundle_create(&s->w, names[i], s->err);

		ret = fd < 0 ? fd : add_role(s, fd, names[i]);
	}
	return ret;
}

/*
 * The file in which the source's disk goes on.  It is not taken back when there is
 * no bundle in the end, for the disk may have been sealed before that was known; if
 * not, the next layers_before() removes it.
 */
static int add_seal(struct shot *s, const char *id)
{
	char role[32], name[48];
	int fd = resume_new_layer(s->vm->dir, id, name, sizeof(name), s->err);

	snprintf(role, sizeof(role), "seal.%.19s", id);
	return fd < 0 ? fd : add_role(s, fd, role);
}

static int on_digest(void *arg, uint64_t done)
{
	struct shot *s = arg;

	s->stopped = lib_progress(s->cfg->event, s->cfg->event_arg, "reading disks", done, 0);
	return s->stopped;
}

static int keep_sum(struct shot *s, const char *id, unsigned k, int fd)
{
	char key[40], sum[BUNDLE_SUM_LEN];
	/* the base is no layer; others may not have been flushed since they were
	 * sealed, which would make them void on another host */
	int ret = k ? layer_rest(fd, s->err) : 0;

	if (ret)
		return ret;
	ret = k ? bundle_sum_pages(fd, sum, on_digest, s) :
		  bundle_sum_base(fd, sum, on_digest, s);
	snprintf(key, sizeof(key), "%.19s.%u", id, k);
	if (ret && !s->stopped)
		return err_set(s->err, -ret, "cannot read disk %s: %s", id, strerror(-ret));
	if (!ret && json_object_set_new(s->sums, key, json_string(sum)))
		ret = err_set(s->err, ENOMEM, "out of memory");
	return ret;
}

static int prepare_disk(struct shot *s, const json_t *disk)
{
	const char *id = json_str_opt(disk, "id", "", NULL);
	bool readonly = json_is_true(json_object_get(disk, "readonly"));
	int fds[MAX_FDS], ret;
	unsigned nr;

	ret = get_layers(s, id, fds, &nr);
	if (ret)
		return ret;
	for (unsigned k = 0; k + !readonly < nr && !ret; k++)
		ret = keep_sum(s, id, k, fds[k]);
	close_all(fds, nr);
	return ret || readonly ? ret : add_seal(s, id);
}

static int prepare(struct shot *s)
{
	json_t *status = NULL, *disk;
	size_t i;
	int ret = add_files(s);

	if (!ret)
		ret = ask(s, json_pack("{s:s}", "op", "status"), NULL, 0, &status, NULL,
			  NULL);
	s->disks = json_incref(json_object_get(status, "disks"));
	json_decref(status);
	if (!ret && json_array_size(s->disks) > SPEC_MAX_DISKS)
		ret = err_set(s->err, EPROTO, "the VM has too many disks");
	json_array_foreach(s->disks, i, disk)
		if (!ret)
			ret = prepare_disk(s, disk);
	return ret;
}

/* --- the instant ---------------------------------------------------------- */

/* The VMM knows which file, but no paths; it writes in two places. */
static int no_space(struct shot *s, int ret)
{
	char vms[PATH_MAX];

	if (home_registry(vms, NULL))
		return ret;
	return err_wrap(s->err, ret, "make room: %llu MiB are free for %s, %llu MiB for the disks of VMs in %s",
			lib_free_mib(s->w.path), s->w.path, lib_free_mib(vms), vms);
}

static int freeze(struct shot *s)
{
	json_t *req = json_pack("{s:s, s:b, s:O}", "op", "snapshot", "keep_alive",
				s->cfg->keep_alive, "roles", s->roles);
	int ret = ask(s, req, s->fd, s->nr_fds, &s->answer, NULL, NULL);

	if (ret && s->err->code == ERR_HOST_NO_SPACE)
		return no_space(s, ret);
	if (!ret)
		ret = resume_phases(s->answer, s->cfg->event, s->cfg->event_arg);
	return ret;
}

/* --- after it ------------------------------------------------------------- */

static int take_layer(struct shot *s, const char *id, unsigned k, int fd)
{
	char name[40];
	const char *sum;
	int ret = 0;

	snprintf(name, sizeof(name), "%.19s.%u", id, k);
	if (!json_object_get(s->sums, name))
		ret = keep_sum(s, id, k, fd);
	sum = json_str_opt(s->sums, name, "", NULL);
	return ret ? ret : bundle_add_file(&s->w, name, fd, sum, s->err);
}

static int take_disk(struct shot *s, const json_t *disk)
{
	const char *id = json_str_opt(disk, "id", "", NULL);
	unsigned want = (unsigned)json_int_opt(disk, "layers", 1, SPEC_MAX_LAYERS, 1, NULL);
	int fds[MAX_FDS], ret;
	unsigned nr;

	ret = get_layers(s, id, fds, &nr);
	if (ret)
		return ret;
	if (nr < want)
		ret = err_set(s->err, EPROTO, "disk %s has lost layers", id);
	for (unsigned k = 0; k < want && !ret; k++)
		ret = take_layer(s, id, k, fds[k]);
	close_all(fds, nr);
	return ret;
}

/* The spec as it was at the instant: disks have what was sealed. */
static json_t *spec_then(struct shot *s)
{
	json_t *spec = json_deep_copy(json_object_get(s->answer, "spec"));
	json_t *list = json_object_get(s->answer, "disks"), *disk;
	size_t i;

	json_array_foreach(json_object_get(spec, "disks"), i, disk)
		json_object_set(disk, "layers",
				json_object_get(json_array_get(list, i), "layers"));
	json_object_set_new(spec, "restore", json_false());
	return spec;
}

static json_t *describe(struct shot *s)
{
	const struct reg_vm *reg = &s->vm->reg;
	struct timespec now;
	json_t *a = s->answer, *source;
	char host[256] = "";

	clock_gettime(CLOCK_REALTIME, &now);
	gethostname(host, sizeof(host) - 1);
	source = json_pack("{s:s, s:i, s:o, s:I}", "name", reg->name, "pid",
			   (int)reg->id.pid, "host", json_text(host), "started_at",
			   (json_int_t)reg->started_at_ms);
	return json_pack("{s:i, s:s, s:s, s:I, s:O, s:I, s:I, s:O, s:s, s:s, s:{s:s, s:s}, "
			 "s:o, s:o, s:o}",
			 "schema_version", 1, "machinen", mn_version(),
			 "arch", json_str_opt(a, "arch", "x86_64", NULL),
			 "created_at", (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
			 "cpu", json_object_get(a, "cpu"),
			 "memory_mib", (json_int_t)reg->memory_mib,
			 "cpus", (json_int_t)reg->cpus,
			 "memory", json_object_get(a, "memory"), "image", reg->image,
			 "image_sha256", reg->image_sha256,
			 "kernel", "version", reg->kernel, "sha256", reg->kernel_sha256,
			 "source", source, "lineage", resume_lineage(s->vm, "snapshot"),
			 "spec", spec_then(s));
}

static int complete(struct shot *s)
{
	json_t *meta, *disk;
	size_t i;
	int ret = bundle_note(&s->w, "state", true, s->err);

	if (!ret)
		ret = bundle_note(&s->w, "memory", false, s->err);
	if (!ret)
		ret = bundle_note(&s->w, "sums", true, s->err);
	json_array_foreach(json_object_get(s->answer, "disks"), i, disk)
		if (!ret)
			ret = take_disk(s, disk);
	if (!ret)
		ret = lib_phase(s->cfg->event, s->cfg->event_arg, "disks", &s->since);
	if (ret)
		return ret;
	meta = describe(s);
	ret = meta ? bundle_finish(&s->w, meta, s->err) :
		     err_set(s->err, EINVAL, "the VM cannot be described");
	json_decref(meta);
	if (!ret)
		lib_phase(s->cfg->event, s->cfg->event_arg, "sync", &s->since);
	return ret;
}

/* The bundle is there: nothing that fails from here on takes it back. */
static void end_source(struct shot *s)
{
	struct err err = ERR_INIT;
	json_t *req = json_pack("{s:s, s:b}", "op", "stop", "now", 1);
	struct registry r;

	if (ctl_send(s->ctl, req, NULL, 0, &err) || proc_wait(s->vm->pidfd, STOP_MS) <= 0) {
		proc_signal(s->vm->pidfd, SIGKILL);
		proc_wait(s->vm->pidfd, STOP_MS);
	}
	json_decref(req);
	if (!registry_open(&r, NULL)) {
		registry_remove(&r, &s->vm->reg);
		registry_close(&r);
	}
	s->vm->ours = false;
}

static uint64_t disk_bytes(const char *path)
{
	struct err err = ERR_INIT;
	struct bundle b;
	uint64_t n = bundle_open(&b, path, &err) ? 0 : bundle_bytes(&b);

	bundle_done(&b);
	return n;
}

static int shoot(struct shot *s, struct mn_snapshotted *out)
{
	int ret = bundle_begin(&s->w, s->cfg->dir, !s->cfg->dry_run, s->err);

	snprintf(out->path, sizeof(out->path), "%s", s->w.path);
	s->w.event = s->cfg->event;
	s->w.event_arg = s->cfg->event_arg;
	if (ret || s->cfg->dry_run)
		return ret;
	layers_before(s->vm, s->cfg->event, s->cfg->event_arg);
	s->making = layers_making(s->vm);
	s->ctl = socket_connect(s->vm->dir, "control", SOCK_SEQPACKET, s->err);
	ret = s->ctl < 0 ? s->ctl : prepare(s);
	if (!ret)
		ret = lib_phase(s->cfg->event, s->cfg->event_arg, "prepare", &s->since);
	if (!ret)
		ret = freeze(s);
	io_close(s->making);
	s->making = -1;
	s->since = io_now_ns();
	if (!ret)
		ret = complete(s);
	if (ret)
		return ret;
	out->memory_bytes = (uint64_t)json_int_opt(json_object_get(s->answer, "memory"),
						   "bytes", 0, INT64_MAX, 0, NULL);
	out->stopped = !s->cfg->keep_alive;
	if (out->stopped)
		end_source(s);
	out->bytes = disk_bytes(out->path);
	return 0;
}

/* An error without words is the verdict of the caller's own function. */
static int failed(struct shot *s, int ret)
{
	bool ended = has_ended(s, 0);

	if (ended)	/* whatever that looked like from here */
		ret = err_set(s->err, EPIPE, "the VM ended meanwhile");
	else if (!s->err->num)
		err_set(s->err, -ret, "it was stopped");
	return err_wrap_code(s->err, ERR_SNAPSHOT_DUMP_FAILED, ret, "no snapshot was made%s",
			     ended ? "" : ", the VM goes on");
}

int snapshot_vm(struct mn_vm *vm, const struct mn_snapshot *cfg,
		struct mn_snapshotted *out, struct err *err)
{
	struct shot s = { .vm = vm, .cfg = cfg, .err = err, .w = BUNDLE_W_INIT,
			  .ctl = -1, .making = -1, .roles = json_array(), .sums = json_object(),
			  .since = io_now_ns() };
	int ret;

	if (!cfg->dir || !*cfg->dir)
		ret = err_set(err, EINVAL, "no directory for the bundle");
	else
		ret = shoot(&s, out);
	io_close(s.ctl);
	io_close(s.making);
	close_all(s.fd, s.nr_fds);
	bundle_abort(&s.w);
	json_decref(s.disks);
	json_decref(s.answer);
	json_decref(s.roles);
	json_decref(s.sums);
	if (!ret && !cfg->dry_run && cfg->keep_alive)
		layers_after(vm);
	return ret ? failed(&s, ret) : 0;
}

int mn_vm_snapshot(struct mn_vm *vm, const struct mn_snapshot *cfg,
		   struct mn_snapshotted *out, struct mn_error *err)
{
	struct mn_snapshotted got = { .size = sizeof(got) };
	struct err e = ERR_INIT;
	struct mn_snapshot own;
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	if (!ret)
		ret = snapshot_vm(vm, &own, &got, &e);
	if (out) {
		size_t size = MIN(out->size, sizeof(got));

		got.size = out->size;
		memcpy(out, &got, size);
	}
	return lib_return(err, &e, ret);
}
