// SPDX-License-Identifier: MIT
/* cmd_pause.c - machinen pause and machinen resume */
#include "cli/cmd.h"

struct opts {
	const char *target;
};

static int run_op(const struct opts *o,
		  int (*op)(struct mn_vm *vm, struct mn_error *err))
{
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	int ret = mn_vm_open(o->target, &vm, &err);

	if (!ret)
		ret = op(vm, &err);
	mn_vm_free(vm);
	return ret ? out_error(&err, false) : 0;
}

static int run_pause(const void *v)
{
	return run_op(v, mn_vm_pause);
}

static int run_resume(const void *v)
{
	return run_op(v, mn_vm_resume);
}

static const struct opt_arg args[] = {
	CMD_ARG_TARGET(struct opts),
	{ .name = NULL },
};

const struct cmd cmd_pause = {
	.opt = {
		.name = "pause",
		.summary = "Stop a VM's CPUs until resume",
		.args = args,
		.size = sizeof(struct opts),
	},
	.run = run_pause,
};

const struct cmd cmd_resume = {
	.opt = {
		.name = "resume",
		.summary = "Let a paused VM run on",
		.args = args,
		.size = sizeof(struct opts),
	},
	.run = run_resume,
};
