// SPDX-License-Identifier: MIT
/* vm.c - handles on VMs: opening, asking, ending. */
#include "lib/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "proto/ctl.h"

#define END_MS	     3000	/* for a VMM whose foreground went away */
#define CTL_WAIT_S   10		/* for an answer on the control socket */
#define EXIT_MAX     65536

struct mn_vm *vm_alloc(void)
{
	struct mn_vm *vm = calloc(1, sizeof(*vm));

	if (vm)
		vm->dir = vm->pidfd = vm->alive = -1;
	return vm;
}

void vm_free(struct mn_vm *vm)
{
	if (!vm)
		return;
	io_close(vm->dir);
	io_close(vm->pidfd);
	io_close(vm->alive);
	image_config_done(&vm->config);
	free(vm);
}

static int vm_open(const char *target, struct mn_vm **out, struct err *err)
{
	struct mn_vm *vm = vm_alloc();
	struct registry r;
	int ret;

	if (!vm)
		return err_set(err, ENOMEM, "out of memory");
	ret = registry_open(&r, err);
	if (!ret) {
		ret = registry_find(&r, target, &vm->reg, err);
		if (!ret)
			vm->pidfd = proc_open(&vm->reg.id);
		if (!ret)
			vm->dir = registry_vm_dir(&r, vm->reg.id.pid);
		registry_close(&r);
	}
	if (!ret)
		ret = MIN(vm->pidfd, 0) ? vm->pidfd : MIN(vm->dir, 0);
	if (ret == -ESRCH || (ret == -ENOENT && vm->pidfd >= 0))
		ret = err_code(err, ERR_REGISTRY_VM_NOT_FOUND, ESRCH,
			       "VM \"%s\" has just ended", target);
	else if (ret && !err->num)
		ret = err_set(err, -ret, "cannot open VM \"%s\": %s", target,
			      strerror(-ret));
	if (ret) {
		vm_free(vm);
		return ret;
	}
	*out = vm;
	return 0;
}

int mn_vm_open(const char *target, struct mn_vm **vm, struct mn_error *err)
{
	struct err e = ERR_INIT;

	*vm = NULL;
	return lib_return(err, &e, vm_open(target, vm, &e));
}

/* A foreground VM: its VMM sees the pipe close, and gets some time to react. */
static void vm_end(struct mn_vm *vm)
{
	struct registry r;

	io_close(vm->alive);
	vm->alive = -1;
	if (!proc_wait(vm->pidfd, END_MS)) {
		proc_signal(vm->pidfd, SIGKILL);
		proc_wait(vm->pidfd, END_MS);
	}
	if (!registry_open(&r, NULL)) {
		registry_remove(&r, &vm->reg);
		registry_close(&r);
	}
}

void mn_vm_free(struct mn_vm *vm)
{
	if (vm && vm->ours)
		vm_end(vm);
	vm_free(vm);
}

pid_t mn_vm_pid(const struct mn_vm *vm)
{
	return vm->reg.id.pid;
}

const char *mn_vm_name(const struct mn_vm *vm)
{
	return vm->reg.name[0] ? vm->reg.name : NULL;
}

const char *const *mn_vm_baked_cmd(const struct mn_vm *vm)
{
	return (const char *const *)vm->config.cmd;
}

int vm_ctl(struct mn_vm *vm, json_t *req, json_t **answer, struct err *err)
{
	struct timeval limit = { .tv_sec = CTL_WAIT_S };
	json_t *got = NULL;
	int fd = socket_connect(vm->dir, "control", SOCK_SEQPACKET, err);
	int ret = fd < 0 ? fd : 0;

	if (!ret) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		ret = ctl_call(fd, req, NULL, 0, NULL, NULL, &got, err);
	}
	io_close(fd);
	json_decref(req);
	if (!ret && answer)
		*answer = got;
	else
		json_decref(got);
	return ret;
}

static int simple_op(struct mn_vm *vm, const char *op, struct mn_error *err)
{
	struct err e = ERR_INIT;

	return lib_return(err, &e, vm_ctl(vm, json_pack("{s:s}", "op", op), NULL, &e));
}

int mn_vm_pause(struct mn_vm *vm, struct mn_error *err)
{
	return simple_op(vm, "pause", err);
}

int mn_vm_resume(struct mn_vm *vm, struct mn_error *err)
{
	return simple_op(vm, "resume", err);
}

static int detach(struct mn_vm *vm, struct err *err)
{
	struct registry r;
	int ret;

	if (!vm->ours)
		return 0;
	ret = vm_ctl(vm, json_pack("{s:s}", "op", "detach"), NULL, err);
	if (!ret)
		ret = registry_open(&r, err);
	if (ret)
		return ret;
	vm->reg.detached = true;
	ret = registry_update(&r, &vm->reg, err);
	registry_close(&r);
	if (!ret)
		vm->ours = false;
	return ret;
}

int mn_vm_detach(struct mn_vm *vm, struct mn_error *err)
{
	struct err e = ERR_INIT;

	return lib_return(err, &e, detach(vm, &e));
}

int mn_vm_wait(struct mn_vm *vm, int64_t timeout_ms, struct mn_error *err)
{
	struct err e = ERR_INIT;
	int ret = proc_wait(vm->pidfd, timeout_ms);

	if (ret < 0)
		err_set(&e, -ret, "cannot wait for VM %d", vm->reg.id.pid);
	return lib_return(err, &e, ret);
}

int mn_vm_kill(struct mn_vm *vm, struct mn_error *err)
{
	struct err e = ERR_INIT;
	int ret = proc_signal(vm->pidfd, SIGKILL);

	if (ret == -ESRCH)
		ret = 0;
	if (ret)
		err_set(&e, -ret, "cannot kill VM %d", vm->reg.id.pid);
	return lib_return(err, &e, ret);
}

int mn_vm_console(struct mn_vm *vm, struct mn_error *err)
{
	struct err e = ERR_INIT;
	int fd = openat(vm->dir, "console.log", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fd = err_set(&e, errno, "VM %d has no console log", vm->reg.id.pid);
	return lib_return(err, &e, fd);
}

int mn_vm_log(struct mn_vm *vm, struct mn_error *err)
{
	struct err e = ERR_INIT;
	int fd = openat(vm->dir, "vmm.log", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fd = err_set(&e, errno, "VM %d has no log", vm->reg.id.pid);
	return lib_return(err, &e, fd);
}

/* Where the last `lines` lines begin in what was read. */
static size_t tail_start(const char *text, size_t len, unsigned lines)
{
	size_t at = len;

	while (at && text[at - 1] == '\n')
		at--;
	while (at) {
		if (text[at - 1] == '\n' && !--lines)
			break;
		at--;
	}
	return at;
}

int vm_log_tail(int dir, const char *name, unsigned lines, size_t max,
		struct buf *out)
{
	cleanup(io_closep) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	size_t want = size > 0 ? MIN((size_t)size, max) : 0, at;
	char *text = want ? malloc(want) : NULL;
	ssize_t n;

	if (!text)
		return fd < 0 ? -errno : 0;
	n = io_pread_full(fd, text, want, size - (off_t)want);
	if (n > 0) {
		at = tail_start(text, (size_t)n, lines);
		for (; at < (size_t)n; at++)
			if (text[at] != '\r')
				buf_add(out, text + at, 1);
		while (out->len && out->data[out->len - 1] == '\n')
			out->data[--out->len] = '\0';
	}
	free(text);
	return (int)n;
}

void vm_end_words(int dir, struct buf *out)
{
	cleanup(json_putp) json_t *doc = NULL;
	struct buf text = BUF_INIT;
	const json_t *error;

	if (!io_read_file(dir, "exit.json", EXIT_MAX, &text) && text.len)
		doc = json_parse(text.data, text.len, NULL);
	buf_done(&text);
	if (!doc)
		return;
	buf_addf(out, "the VM's end: %s", json_str_opt(doc, "end", "unknown", NULL));
	error = json_object_get(doc, "error");
	if (error)
		buf_addf(out, " (%s)", json_str_opt(error, "message", "", NULL));
}
