// SPDX-License-Identifier: MIT
/*
 * cmd_logs.c - machinen logs
 *
 * Growth of the log is awaited by inotify; the VM's end makes no event there and
 * is looked for twice a second.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "cli/cmd.h"

struct opts {
	const char *target;
	struct opt_count tail;
	bool follow, vmm;
};

int console_follow(struct mn_vm *vm, int fd, off_t at)
{
	int in = inotify_init1(IN_CLOEXEC);
	char path[64], drop[4096];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (in < 0 || inotify_add_watch(in, path, IN_MODIFY) < 0)
		at = -1;
	while (at >= 0 && (at = console_copy(fd, at)) >= 0) {
		struct pollfd p = { .fd = in, .events = POLLIN };

		if (poll(&p, 1, 500) > 0) {
			if (read(in, drop, sizeof(drop)) < 0 && errno != EINTR)
				break;
		} else if (mn_vm_wait(vm, 0, NULL)) {
			console_copy(fd, at);
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
	fd = o->vmm ? mn_vm_log(vm, &err) : mn_vm_console(vm, &err);
	if (fd < 0) {
		mn_vm_free(vm);
		return out_error(&err, false);
	}
	if (o->tail.given)
		at = console_tail(fd, o->tail.has_value ? o->tail.value : 10);
	if (o->follow)
		console_follow(vm, fd, at);
	else
		console_copy(fd, at);
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
			{ .name = "vmm", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, vmm),
			  .help = "what machinen-vmm logs instead: refused connections, broken devices" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
