// SPDX-License-Identifier: MIT
/*
 * cmd_logs.c - machinen logs
 *
 * The console's log is cut when it grows too long, so a follower that finds the
 * file shorter than its place goes back to the start.  Growth is awaited by
 * inotify, the VM's end by its process.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cmd.h"

struct opts {
	const char *target;
	struct opt_count tail;
	bool follow;
};

#define BLOCK 65536

/* Copies from `at` to the end; the new place, or -1 when stdout is gone. */
static off_t copy_rest(int fd, off_t at)
{
	char data[BLOCK];
	struct stat st;
	ssize_t n;

	if (!fstat(fd, &st) && st.st_size < at)
		at = 0;
	while ((n = pread(fd, data, sizeof(data), at)) > 0) {
		if (fwrite(data, 1, (size_t)n, stdout) != (size_t)n)
			return -1;
		at += n;
	}
	return fflush(stdout) ? -1 : at;
}

/* Where the last `lines` lines begin. */
static off_t find_tail(int fd, uint64_t lines)
{
	struct stat st;
	off_t end, at;

	if (fstat(fd, &st) < 0)
		return 0;
	for (end = at = st.st_size; at > 0; ) {
		char data[BLOCK];
		size_t want = at > BLOCK ? BLOCK : (size_t)at;

		at -= (off_t)want;
		if (pread(fd, data, want, at) != (ssize_t)want)
			return 0;
		for (size_t i = want; i--; )
			if (data[i] == '\n' && at + (off_t)i + 1 < end && !lines--)
				return at + (off_t)i + 1;
			else if (data[i] == '\n' && at + (off_t)i + 1 == end && !lines)
				return end;
	}
	return 0;
}

static int follow(struct mn_vm *vm, int fd, off_t at)
{
	int in = inotify_init1(IN_CLOEXEC);
	char path[64], drop[4096];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (in < 0 || inotify_add_watch(in, path, IN_MODIFY) < 0)
		at = -1;
	while (at >= 0 && (at = copy_rest(fd, at)) >= 0) {
		struct pollfd p = { .fd = in, .events = POLLIN };

		/* the VM's end makes no event on the file: looked for now and then */
		if (poll(&p, 1, 500) > 0) {
			if (read(in, drop, sizeof(drop)) < 0 && errno != EINTR)
				break;
		} else if (mn_vm_wait(vm, 0, NULL)) {
			copy_rest(fd, at);
			break;
		}
	}
	if (in >= 0)
		close(in);
	return 0;
}

static int run(const void *v)
{
	const struct opts *o = v;
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	int ret = mn_vm_open(o->target, &vm, &err), fd;
	off_t at = 0;

	if (ret)
		return out_error(&err, false);
	fd = mn_vm_console(vm, &err);
	if (fd < 0) {
		mn_vm_free(vm);
		return out_error(&err, false);
	}
	if (o->tail.given)
		at = find_tail(fd, o->tail.has_value ? o->tail.value : 10);
	if (o->follow)
		follow(vm, fd, at);
	else
		copy_rest(fd, at);
	close(fd);
	mn_vm_free(vm);
	return 0;
}

const struct cmd cmd_logs = {
	.opt = {
		.name = "logs",
		.summary = "Print a VM's console",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "follow", .letter = 'f', .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, follow),
			  .help = "go on until the VM ends" },
			{ .name = "tail", .letter = 'n', .kind = OPT_COUNT, .meta = "N",
			  .offset = offsetof(struct opts, tail), .def = "10",
			  .help = "only the last N lines" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
