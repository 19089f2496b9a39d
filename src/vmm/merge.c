// SPDX-License-Identifier: MIT
/*
 * merge.c - the control operation `merge`: a run of a disk's sealed layers becomes one
 * while the guest goes on.
 *
 *	requester: merge, an empty file --> progress "merge", then it may leave
 *	thread aside: layer_merge() copies, syncs, changes the disk's own stack
 *	loop, when no connection pins the layers: roles and numbers follow
 *
 * A disk's stack and the roles of its files are two lists of the same chain.  Either
 * is whole at any time, so a fork between the two changes hands the sibling the
 * longer chain, which is as good.  Connections that were told layers by their number
 * - a snapshot under way - pin the second list.
 *
 * The old files are closed here and removed by the library, which knows their names
 * (lib/layers.c).
 */
#include "vmm/merge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "layer/layer.h"
#include "vmm/aside.h"
#include "vmm/ctl_server.h"
#include "vmm/dev/blk.h"
#include "vmm/dev/devices.h"
#include "vmm/disk/disk.h"
#include "vmm/limits.h"
#include "vmm/vm.h"

struct merge {
	struct aside aside;
	struct layer_io io;
	struct vm *vm;				/* borrowed */
	struct spec_disk *spec;			/* borrowed */
	struct disk *disk;			/* borrowed */
	struct ctl_req *req[LIMIT_CTL_CLIENTS];	/* to be answered */
	unsigned nr_reqs;
	struct loop_work over;
	/* the thread's until it is over */
	int fd;					/* owned; the merged file */
	unsigned first, nr;
	int ret;
	struct err err;
	uint64_t begun;				/* ns */
	bool done;				/* the loop knows that it is over */
};

/* --- the thread ------------------------------------------------------------- */

static int merge_pwritev(void *arg, int fd, const struct iovec *iov, unsigned nr,
			 uint64_t off)
{
	struct merge *m = arg;
	int ret;

	aside_leave(&m->aside);
	ret = layer_plain_io.pwritev(NULL, fd, iov, nr, off);
	return aside_enter(&m->aside) ? ret : -ECANCELED;
}

static int merge_sync(void *arg, int fd)
{
	struct merge *m = arg;
	int ret;

	aside_leave(&m->aside);
	ret = layer_plain_io.sync(NULL, fd);
	return aside_enter(&m->aside) ? ret : -ECANCELED;
}

static void run(struct aside *a)
{
	struct merge *m = container_of(a, struct merge, aside);

	m->ret = m->disk->ops->merge(m->disk, m->fd, &m->io, &m->first, &m->nr,
				     &m->err);
	loop_post(m->vm->loop, &m->over);
}

/* --- the end ---------------------------------------------------------------- */

static void answer(struct merge *m)
{
	for (unsigned i = 0; i < m->nr_reqs; i++)
		if (m->ret)
			ctl_fail(m->req[i], &m->err);
		else
			ctl_ok(m->req[i], json_pack("{s:i, s:i}", "merged", m->nr,
						    "layers", m->spec->nr_layers));
}

static void end(struct merge *m)
{
	struct vm *vm = m->vm;

	aside_done(&m->aside);
	loop_unpost(vm->loop, &m->over);
	vm->merge = NULL;
	answer(m);
	io_close(m->fd);
	free(m);
}

/* A number only gets smaller, so its text fits where the old one was. */
static void renumber(struct spec_fds *fds, const char *id, unsigned from, unsigned to)
{
	char role[SPEC_ID_MAX + 16];

	snprintf(role, sizeof(role), "%s.%u", id, from);
	for (unsigned i = 0; i < fds->nr; i++)
		if (!strcmp(fds->fd[i].role, role))
			snprintf(fds->fd[i].role, strlen(role) + 1, "%s.%u", id, to);
}

static void drop_role(struct spec_fds *fds, const char *id, unsigned k)
{
	io_close(spec_fds_get(fds, "%s.%u", id, k));
	spec_fds_drop(fds, "%s.%u", id, k);
}

/* The roles of the disk's files: the merged one where the run was. */
static void change_roles(struct merge *m)
{
	struct spec_fds *fds = &m->vm->fds;
	const char *id = m->spec->id;

	for (unsigned i = 0; i < fds->nr; i++) {
		char role[SPEC_ID_MAX + 16];

		snprintf(role, sizeof(role), "%s.%u", id, m->first);
		if (strcmp(fds->fd[i].role, role))
			continue;
		io_close(fds->fd[i].fd);
		fds->fd[i].fd = m->fd;
		m->fd = -1;
	}
	for (unsigned k = m->first + 1; k < m->first + m->nr; k++)
		drop_role(fds, id, k);
	for (unsigned k = m->first + m->nr; k < m->spec->nr_layers; k++)
		renumber(fds, id, k, k - m->nr + 1);
	m->spec->nr_layers -= m->nr - 1;
	log_info("disk", "%s: %u layers became one in %llu ms, %u are left", id, m->nr,
		 (unsigned long long)(io_now_ns() - m->begun) / 1000000,
		 m->spec->nr_layers);
}

void merge_settle(struct vm *vm)
{
	struct merge *m = vm->merge;

	if (!m || !m->done || (!m->ret && m->nr && ctl_layers_pinned(vm->ctl)))
		return;
	if (m->ret)
		log_warn("disk", "%s: layers stay as they are: %s", m->spec->id,
			 err_message(&m->err));
	else if (m->nr)
		change_roles(m);
	end(m);
}

static void on_over(struct loop_work *w)
{
	struct merge *m = container_of(w, struct merge, over);

	m->done = true;
	merge_settle(m->vm);
}

void merge_hold(struct merge *m)
{
	if (m)
		aside_hold(&m->aside);
}

void merge_release(struct merge *m)
{
	if (m)
		aside_release(&m->aside);
}

void merge_cancel(struct vm *vm)
{
	struct merge *m = vm->merge;

	if (!m)
		return;
	if (!m->done)
		m->ret = err_set(&m->err, ECANCELED, "the VM ends");
	end(m);
}

/* --- the request ------------------------------------------------------------ */

static void join(struct merge *m, struct ctl_req *req, bool taken)
{
	m->req[m->nr_reqs++] = req;
	ctl_progress(req, json_pack("{s:s, s:b}", "phase", "merge", "taken", taken));
}

static int find_disk(struct ctl_req *req, struct merge *m, struct err *err)
{
	struct vm *vm = req->vm;
	const char *id = json_str(req->doc, "id", err);

	for (unsigned i = 0; id && i < vm->spec.nr_disks; i++) {
		struct virtio_dev *dev = devices_find(vm, &blk_class, i);

		if (!dev || strcmp(vm->spec.disk[i].id, id))
			continue;
		m->spec = &vm->spec.disk[i];
		m->disk = blk_disk(dev);
	}
	if (err->num)
		return -err->num;
	if (!m->disk || m->disk->readonly || !m->disk->ops->merge)
		return err_set(err, ENOENT, "there is no disk %.40s with layers", id);
	return 0;
}

static int begin(struct ctl_req *req, struct err *err)
{
	struct merge *m = calloc(1, sizeof(*m));
	int ret = m ? find_disk(req, m, err) : err_set(err, ENOMEM, "out of memory");

	if (!ret) {
		m->fd = ctl_take_fd(req, 0);
		if (m->fd < 0)
			ret = err_set(err, EINVAL, "a merge needs an empty file");
	}
	if (ret) {
		free(m);
		return ret;
	}
	m->vm = req->vm;
	m->io = (struct layer_io){ .pwritev = merge_pwritev, .sync = merge_sync,
				   .arg = m };
	m->over.cb = on_over;
	m->begun = io_now_ns();
	aside_init(&m->aside, run);
	ret = aside_start(&m->aside, err);
	if (ret) {
		aside_done(&m->aside);
		io_close(m->fd);
		free(m);
		return ret;
	}
	req->vm->merge = m;
	return 0;
}

void op_merge(struct ctl_req *req)
{
	struct merge *m = req->vm->merge;
	struct err err = ERR_INIT;
	int ret = 0;

	if (ctl_pins_layers(req))
		ret = err_set(&err, EDEADLK, "this connection keeps the layers as they are");
	else if (m && m->nr_reqs == ARRAY_LEN(m->req))
		ret = err_set(&err, EBUSY, "too many wait for a merge");
	else if (!m)
		ret = begin(req, &err);
	if (ret)
		ctl_fail(req, &err);
	else
		join(req->vm->merge, req, !m);
}
