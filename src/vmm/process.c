// SPDX-License-Identifier: MIT
/*
 * process.c - one VMM process from its launch document to its exit status.
 *
 * The beginning is reported as one line on role "ready".  The end is reported
 * twice: as exit status, for whoever is our parent, and in exit.json in role
 * "dir", for everybody else.  exit.json is opened before privileges go and is
 * empty while the VM runs: an empty one beside a dead process means that it was
 * killed.
 *
 * SIGTERM, SIGINT and SIGHUP end the VM in order; SIGPIPE and SIGXFSZ are errors of
 * the call that met them.
 */
#include "vmm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/lostpage.h"
#include "vmm/sandbox.h"
#include "vmm/snapshot.h"
#include "vmm/vm.h"

struct process {
	struct vm *vm;			/* owned */
	int ready_fd, exit_fd;		/* borrowed, owned; -1: none */
	struct loop_fd alive;		/* its fd is borrowed; -1: detached */
	struct loop_fd signals;		/* its fd is owned */
};

/* ---- beginning and end, as others see them ---- */

/* "ready", or "failed CODE message: cause: …", on one line. */
static void report_ready(int fd, const struct err *err)
{
	struct buf line = BUF_INIT;

	if (fd < 0)
		return;
	if (!err) {
		buf_adds(&line, "ready");
	} else {
		const char *code = err_code_name(err->code);

		buf_addf(&line, "failed %s %s", *code ? code : "HOST_FAILED",
			 err_message(err));
		for (unsigned i = 0; err_cause(err, i); i++)
			buf_addf(&line, ": %s", err_cause(err, i));
	}
	for (size_t i = 0; i < line.len; i++)
		if (line.data[i] == '\n')
			line.data[i] = ' ';
	buf_adds(&line, "\n");
	if (!line.oom && io_write_full(fd, line.data, line.len) < 0)
		log_warn("vmm", "nobody listens on role \"ready\"");
	buf_done(&line);
}

static void close_role(struct spec_fds *fds, const char *role)
{
	for (unsigned i = 0; i < fds->nr; i++) {
		if (strcmp(fds->fd[i].role, role))
			continue;
		io_close(fds->fd[i].fd);
		fds->fd[i].fd = -1;
	}
}

static const enum process_status statuses[] = {
	[VM_END_NONE] = PROCESS_FAILED, [VM_END_POWEROFF] = PROCESS_POWEROFF,
	[VM_END_REBOOT] = PROCESS_REBOOT, [VM_END_STOPPED] = PROCESS_STOPPED,
	[VM_END_CRASHED] = PROCESS_CRASHED,
};

static void report_exit(int fd, const char *end, int status, uint64_t up_ns,
			const struct err *err)
{
	cleanup(json_putp) json_t *o = json_pack("{s:i, s:s, s:i, s:I}",
		"schema_version", 1, "end", end, "status", status,
		"uptime_ms", (json_int_t)(up_ns / 1000000));
	json_t *causes;
	struct buf b = BUF_INIT;

	if (fd < 0)
		return;
	if (err && err->num) {
		causes = json_array();
		for (unsigned i = 0; err_cause(err, i); i++)
			json_array_append_new(causes, json_text(err_cause(err, i)));
		json_object_set_new(o, "error", json_pack("{s:s, s:o, s:o}",
			"code", err_code_name(err->code),
			"message", json_text(err_message(err)), "causes", causes));
	}
	json_print(o, &b);
	if (!b.oom && io_pwrite_full(fd, b.data, b.len, 0) < 0)
		log_warn("vmm", "cannot write exit.json");
	buf_done(&b);
}

/* ---- what the process watches ---- */

static void on_alive(struct loop_fd *w, uint32_t events)
{
	struct process *p = container_of(w, struct process, alive);
	char drop[64];
	ssize_t n = read(w->fd, drop, sizeof(drop));

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	log_info("vmm", "the foreground program is gone");
	process_detach(p);
	vm_end(p->vm, VM_END_STOPPED);
}

static void on_signal(struct loop_fd *w, uint32_t events)
{
	struct process *p = container_of(w, struct process, signals);
	struct signalfd_siginfo si;

	if (read(w->fd, &si, sizeof(si)) == sizeof(si))
		vm_end(p->vm, VM_END_STOPPED);
}

void process_detach(struct process *p)
{
	if (p)
		loop_del(p->vm->loop, &p->alive);
}

static int watch_signals(struct process *p)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* a disk's limit is the guest's I/O error */
	signal(SIGCHLD, SIG_IGN);	/* no zombies: children report by pipe */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p->signals = (struct loop_fd){
		.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
		.events = EPOLLIN, .cb = on_signal,
	};
	return p->signals.fd < 0 ? -errno : loop_add(p->vm->loop, &p->signals);
}

static int watch(struct process *p, struct err *err)
{
	int ret = watch_signals(p);

	p->alive = (struct loop_fd){ .fd = spec_fds_get(&p->vm->fds, "alive"),
				     .events = EPOLLIN, .cb = on_alive };
	if (!ret && p->alive.fd >= 0)
		ret = loop_add(p->vm->loop, &p->alive);
	return ret ? err_set(err, -ret, "cannot watch signals and role \"alive\"") : 0;
}

/* ---- life ---- */

static int open_exit(const struct spec_fds *fds)
{
	int fd = spec_fds_get(fds, "exit"), dir = spec_fds_get(fds, "dir");

	if (fd >= 0)
		return fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (dir < 0)
		return -1;
	return openat(dir, "exit.json", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* A sibling made by fork is in the source's sandbox already. */
static int start(struct process *p, struct spec *spec, struct spec_fds *fds,
		 struct restore *restore, struct err *err)
{
	bool confined = restore && restore->source;
	int ret;

	p->vm = vm_new(spec, fds, restore, err);
	if (!p->vm)
		return -EIO;
	p->vm->process = p;
	lostpage_watch(&p->vm->mem, p->exit_fd);
	ret = watch(p, err);
	if (!ret && !confined)
		ret = sandbox_enter(p->vm, err);
	return ret ? ret : vm_start(p->vm, err);
}

static int finish(struct process *p)
{
	struct vm *vm = p->vm;
	enum vm_end end = vm_run(vm);
	int status = statuses[end];

	report_exit(p->exit_fd, vm_end_name(end), status,
		    io_now_ns() - vm->started_ns, &vm->end_err);
	return status;
}

/* What outlives a VM that could not be built; the log from here on. */
static void open_reports(struct process *p, struct spec_fds *fds)
{
	int log_fd = spec_fds_get(fds, "log"), ready = spec_fds_get(fds, "ready");

	*p = (struct process){ .ready_fd = -1, .exit_fd = open_exit(fds),
			       .signals.fd = -1, .alive.fd = -1 };
	if (log_fd >= 0)
		log_to(log_fd);
	if (ready >= 0)
		p->ready_fd = fcntl(ready, F_DUPFD_CLOEXEC, 0);
	close_role(fds, "ready");
}

static void report_failure(struct process *p, const struct err *err)
{
	log_err("vmm", "%s", err_message(err));
	report_ready(p->ready_fd, err);
	report_exit(p->exit_fd, "failed", PROCESS_FAILED, 0, err);
}

int process_run(struct spec *spec, struct spec_fds *fds, struct restore *restore)
{
	int status = PROCESS_FAILED;
	struct err err = ERR_INIT;
	struct process p;

	open_reports(&p, fds);
	if (start(&p, spec, fds, restore, &err)) {
		report_failure(&p, &err);
		io_close(p.ready_fd);
	} else {
		report_ready(p.ready_fd, NULL);
		io_close(p.ready_fd);
		status = finish(&p);
	}
	if (p.vm) {
		loop_del(p.vm->loop, &p.alive);
		loop_del(p.vm->loop, &p.signals);
	}
	vm_free(p.vm);
	io_close(p.signals.fd);
	io_close(p.exit_fd);
	return status;
}

int process_fail(struct spec *spec, struct spec_fds *fds, const struct err *err)
{
	struct process p;

	open_reports(&p, fds);
	report_failure(&p, err);
	spec_done(spec);
	spec_fds_close(fds);
	io_close(p.ready_fd);
	io_close(p.exit_fd);
	return PROCESS_FAILED;
}
