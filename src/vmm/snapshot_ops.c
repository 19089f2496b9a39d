// SPDX-License-Identifier: MIT
/*
 * snapshot_ops.c - the control operation `snapshot`: freeze, let a child write,
 * answer when it is done.
 *
 * The child talks through a pipe, one JSON document a line: progress, then one
 * result or error.  End of file without either means that it died.  Closing our
 * end is how it is told that nobody wants the files any more: its next line fails.
 *
 * One writer at a time.  Its `keep_alive` false means that the vCPUs stay parked,
 * after an error until the answer, after success until the requester has put the
 * bundle in its place and says `stop` on the same connection.  If that ends
 * without a word the VM goes on: at no instant does the VM exist neither here
 * nor in a bundle.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/pool.h"
#include "base/util.h"
#include "proto/ctl.h"
#include "vmm/ctl_server.h"
#include "vmm/memfile.h"
#include "vmm/snapshot.h"
#include "vmm/vm.h"

#define LINE_MAX_LEN (16u << 10)

struct writer {
	struct vm *vm;			/* borrowed */
	struct ctl_req *req;		/* to be answered */
	struct loop_fd pipe;		/* its fd is owned; -1: the child is done */
	struct buf line;
	json_t *result;			/* owned; what the child said last */
	struct pool_job flush;		/* of the sealed disks, beside the child */
	bool flushing;
	int flush_ret;
	struct err *why;		/* owned: given up, for this reason; or NULL */
	bool keep_alive;
	uint64_t forked_ns;
	struct freeze freeze;
};

/* ---- roles of a request, also for fork_ops.c ---- */

void spec_fds_close(struct spec_fds *fds)
{
	for (unsigned i = 0; i < fds->nr; i++)
		io_close(fds->fd[i].fd);
	spec_fds_done(fds);
}

int ctl_take_roles(struct ctl_req *req, struct spec_fds *out, struct err *err)
{
	json_t *roles = json_arr_opt(req->doc, "roles", err), *j;
	int ret = err->num ? -err->num : 0;
	size_t i;

	out->nr = 0;
	if (!ret && json_array_size(roles) != req->nr_fds)
		ret = err_set(err, EINVAL, "%zu roles for %u descriptors",
			      json_array_size(roles), req->nr_fds);
	json_array_foreach(roles, i, j) {
		const char *role = json_string_value(j);
		int fd = ret ? -1 : ctl_take_fd(req, i);

		if (ret)
			break;
		ret = role && *role ? spec_fds_add(out, fd, "%s", role) : -EINVAL;
		if (!ret)
			continue;
		io_close(fd);
		err_set(err, -ret, "role %zu is not acceptable", i);
	}
	if (ret)
		spec_fds_close(out);
	return ret;
}

/* ---- the child ---- */

struct child_tell {
	struct memfile_progress progress;
	int fd;
};

static int say(int fd, json_t *doc)
{
	struct buf b = BUF_INIT;
	int ret;

	json_print_compact(doc, &b);
	buf_adds(&b, "\n");
	ret = b.oom ? -ENOMEM : io_write_full(fd, b.data, b.len);
	buf_done(&b);
	json_decref(doc);
	return ret;
}

static bool tell(struct memfile_progress *p, uint64_t done, uint64_t total)
{
	struct child_tell *t = container_of(p, struct child_tell, progress);

	return !say(t->fd, json_pack("{s:{s:s, s:I, s:I}}", "progress",
		    "phase", "memory", "done", (json_int_t)done,
		    "total", (json_int_t)total));
}

static int put_file(const struct spec_fds *fds, const char *role,
		    const struct buf *b, struct err *err)
{
	int ret = io_pwrite_full(spec_fds_get(fds, "%s", role), b->data, b->len, 0);

	if (!ret)
		return 0;
	return err_code(err, ret == -ENOSPC || ret == -EDQUOT ? ERR_HOST_NO_SPACE :
			ERR_SNAPSHOT_DUMP_FAILED, -ret,
			"cannot write the %s file: %s", role, strerror(-ret));
}

static int write_bundle(struct vm *vm, struct freeze *f, const struct spec_fds *fds,
			int pipe_fd, uint64_t *pages, struct err *err)
{
	struct child_tell t = { .progress.tell = tell, .fd = pipe_fd };
	struct buf sums = BUF_INIT;
	int ret = put_file(fds, "state", &f->state, err);

	if (!ret)
		ret = memfile_write(&vm->mem, spec_fds_get(fds, "memory"), &sums,
				    &t.progress, pages, err);
	if (!ret)
		ret = put_file(fds, "sums", &sums, err);
	buf_done(&sums);
	return ret;
}

/* Dies with the VM: its files are worth nothing without somebody to ask. */
static _Noreturn void child(struct vm *vm, struct freeze *f, const struct spec_fds *fds,
			    int pipe_fd, pid_t parent)
{
	int keep[] = { spec_fds_get(fds, "state"), spec_fds_get(fds, "memory"),
		       spec_fds_get(fds, "sums"), pipe_fd, vm->mem.file_fd,
		       spec_fds_get(&vm->fds, "log") };
	struct err err = ERR_INIT;
	uint64_t pages = 0;
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	freeze_close_all_but(keep, ARRAY_LEN(keep));
	ret = write_bundle(vm, f, fds, pipe_fd, &pages, &err);
	say(pipe_fd, ret ? ctl_error(&err) :
	    json_pack("{s:b, s:{s:I, s:I, s:I}}", "ok", 1, "memory",
		      "span", (json_int_t)vm->mem.span, "pages", (json_int_t)pages,
		      "bytes", (json_int_t)(pages * PAGE_SIZE)));
	_exit(0);
}

/* ---- the VMM ---- */

static void close_pipe(struct writer *w)
{
	loop_del(w->vm->loop, &w->pipe);
	io_close(w->pipe.fd);
	w->pipe.fd = -1;
}

static void free_writer(struct writer *w)
{
	close_pipe(w);
	buf_done(&w->line);
	buf_done(&w->freeze.state);
	json_decref(w->result);
	free(w->why);
	w->vm->writer = NULL;
	/* vm_run() may be waiting for us. */
	if (atomic_load(&w->vm->end))
		loop_stop(w->vm->loop);
	free(w);
}

static void thaw(struct vm *vm)
{
	struct freeze f = { .begun = io_now_ns() };

	freeze_end(vm, &f);
}

static void fail(struct writer *w, const struct err *err)
{
	if (!w->keep_alive)
		thaw(w->vm);
	ctl_fail(w->req, err);
	free_writer(w);
}

static void succeed(struct writer *w)
{
	json_t *phases = freeze_phases(&w->freeze);
	uint64_t write_ns = io_now_ns() - w->forked_ns;
	struct buf features = BUF_INIT;
	struct vm *vm = w->vm;

	if (!w->keep_alive && w->req->client)
		ctl_on_gone(w->req, thaw);
	else if (!w->keep_alive)
		thaw(vm);
	json_object_set_new(phases, "write_us", json_integer(write_ns / 1000));
	cpu_model_features(&vm->model, &features);
	ctl_ok(w->req, json_pack("{s:o, s:O, s:o, s:o, s:s, s:{s:s, s:s, s:I}}",
				 "phases", phases,
				 "memory", json_object_get(w->result, "memory"),
				 "disks", freeze_disks(vm, &w->freeze),
				 "spec", spec_to_json(&vm->spec), "arch", "x86_64",
				 "cpu", "model", vm->spec.cpu_model,
				 "features", features.data ? features.data : "",
				 "tsc_khz", (json_int_t)vm->model.tsc_khz));
	buf_done(&features);
	free_writer(w);
}

/* What went wrong, if anything: given up, disks, child. */
static void judge(const struct writer *w, struct err *err)
{
	const json_t *e = json_object_get(w->result, "error");

	if (w->why)
		*err = *w->why;
	else if (w->flush_ret)
		err_code(err, w->flush_ret == -ENOSPC ? ERR_HOST_NO_SPACE :
			 ERR_SNAPSHOT_DUMP_FAILED, -w->flush_ret,
			 "the sealed disks cannot be written: %s",
			 strerror(-w->flush_ret));
	else if (e)
		err_code(err, err_code_parse(json_str_opt(e, "code", "", NULL)),
			 json_int_opt(e, "errno", 1, 4095, EIO, NULL), "%s",
			 json_str_opt(e, "message", "", NULL));
	else if (!json_is_true(json_object_get(w->result, "ok")))
		err_code(err, ERR_SNAPSHOT_DUMP_FAILED, EIO,
			 "the process that wrote the snapshot died");
}

/* When child and flush are both through; w may be gone after it. */
static void maybe_finish(struct writer *w)
{
	struct err err = ERR_INIT;

	if (w->pipe.fd >= 0 || w->flushing)
		return;
	judge(w, &err);
	if (err.num)
		fail(w, &err);
	else
		succeed(w);
}

static void give_up(struct writer *w, const char *why)
{
	if (!w->why)
		w->why = calloc(1, sizeof(*w->why));
	if (w->why)
		err_code(w->why, ERR_SNAPSHOT_DUMP_FAILED, ECANCELED, "%s", why);
	json_decref(w->result);
	w->result = NULL;
	close_pipe(w);
	maybe_finish(w);
}

static void on_line(struct writer *w, const char *text, size_t len)
{
	json_t *doc = json_parse(text, len, NULL);
	json_t *progress = json_object_get(doc, "progress");

	if (progress) {
		ctl_progress(w->req, json_incref(progress));
		json_decref(doc);
	} else {
		json_decref(w->result);
		w->result = doc;
	}
}

static void on_pipe(struct loop_fd *fd, uint32_t events)
{
	struct writer *w = container_of(fd, struct writer, pipe);
	char *p = buf_reserve(&w->line, LINE_MAX_LEN), *nl;
	ssize_t n = p ? read(fd->fd, p, LINE_MAX_LEN) : -1;

	if (n < 0 && p && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0)
		w->line.len += n;
	while (w->line.len && (nl = memchr(w->line.data, '\n', w->line.len))) {
		on_line(w, w->line.data, nl - w->line.data);
		buf_drop(&w->line, nl + 1 - w->line.data);
	}
	if (n <= 0) {
		close_pipe(w);
		maybe_finish(w);
	} else if (!w->req->client) {
		give_up(w, "nobody waits for the snapshot");
	}
}

static void run_flush(struct pool_job *job)
{
	struct writer *w = container_of(job, struct writer, flush);

	w->flush_ret = freeze_flush(w->vm);
}

static void flush_done(struct pool_job *job)
{
	struct writer *w = container_of(job, struct writer, flush);

	w->flushing = false;
	maybe_finish(w);
}

void snapshot_cancel(struct vm *vm)
{
	if (!vm->writer)
		return;
	/* The vCPUs are stopped already, parked or not. */
	vm->writer->keep_alive = true;
	give_up(vm->writer, "the VM ends");
	pool_drain(vm->pool);	/* the flush, if there is one, then the rest */
}

static int check(struct ctl_req *req, const struct spec_fds *fds, struct err *err)
{
	static const char *const roles[] = { "state", "memory", "sums" };

	if (req->vm->writer)
		return err_set(err, EBUSY, "a snapshot of this VM is being written");
	for (unsigned i = 0; i < ARRAY_LEN(roles); i++)
		if (spec_fds_get(fds, "%s", roles[i]) < 0)
			return err_set(err, EINVAL, "role %s is missing", roles[i]);
	return 0;
}

/*
 * Disks are sealed for a VM that goes on, and where the request brings files for
 * it: a sealed layer's bytes do not change any more, whatever becomes of the VM.
 */
static bool want_seal(const struct writer *w, const struct spec_fds *fds)
{
	for (unsigned i = 0; i < fds->nr; i++)
		if (!strncmp(fds->fd[i].role, "seal.", 5))
			return true;
	return w->keep_alive;
}

/* Freezes and forks; the child does not come back from here. */
static int begin(struct writer *w, struct spec_fds *fds, struct err *err)
{
	struct vm *vm = w->vm;
	pid_t self = getpid();
	int p[2], ret;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "cannot make a pipe");
	w->pipe = (struct loop_fd){ .fd = p[0], .events = EPOLLIN, .cb = on_pipe };
	ret = loop_add(vm->loop, &w->pipe);
	if (!ret)
		ret = freeze_begin(vm, &w->freeze, fds, want_seal(w, fds), err);
	if (!ret)
		ret = freeze_fork(vm, &w->freeze, false, err);
	if (!ret)
		child(vm, &w->freeze, fds, p[1], self);
	io_close(p[1]);
	if (ret > 0 && w->keep_alive)
		freeze_end(vm, &w->freeze);
	w->forked_ns = io_now_ns();
	if (ret > 0) {
		w->flush = (struct pool_job){ .run = run_flush, .done = flush_done };
		w->flushing = true;
		pool_submit(vm->pool, &w->flush);
		return 0;
	}
	loop_del(vm->loop, &w->pipe);
	io_close(p[0]);
	return ret;
}

void op_snapshot(struct ctl_req *req)
{
	struct spec_fds fds = { .nr = 0 };
	struct err err = ERR_INIT;
	bool keep = json_bool_opt(req->doc, "keep_alive", false, &err);
	struct writer *w = calloc(1, sizeof(*w));
	int ret = w ? -err.num : err_set(&err, ENOMEM, "out of memory");

	if (!ret)
		ret = ctl_take_roles(req, &fds, &err);
	if (!ret)
		ret = check(req, &fds, &err);
	if (!ret) {
		w->vm = req->vm;
		w->req = req;
		w->keep_alive = keep;
		ret = begin(w, &fds, &err);
	}
	spec_fds_close(&fds);
	if (ret) {
		free(w);
		ctl_fail(req, &err);
		return;
	}
	req->vm->writer = w;
	ctl_pin_layers(req);	/* its answer numbers them */
}
