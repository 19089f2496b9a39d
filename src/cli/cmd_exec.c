// SPDX-License-Identifier: MIT
/* cmd_exec.c - machinen exec */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"

struct opts {
	const char *target, *cwd, *user;
	struct opt_list env, cmd;
	uint64_t timeout;
	bool tty;
};

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_exec, cfg);

	cfg.argv = o->cmd.v;
	cfg.env = o->env.v;
	cfg.cwd = o->cwd;
	cfg.user = o->user;
	cfg.tty = o->tty;
	cfg.timeout_ms = o->timeout * 1000;
	return terminal_session(o->target, &cfg, 0, false);
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_exec = {
	.opt = {
		.name = "exec",
		.summary = "Run a command in a running VM",
		.details = "stdout and stderr come apart and as they are written, stdin is passed in, SIGINT\n"
			   "and SIGTERM are forwarded.  Ends with the command's exit status.",
		.examples = "  machinen exec web -- ps aux\n"
			    "  tar c . | machinen exec web -- tar x -C /srv",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "tty", .letter = 't', .kind = OPT_SWITCH, OFF(tty),
			  .help = "give the command a terminal" },
			{ .name = "env", .kind = OPT_LIST, OFF(env), .meta = "K=V",
			  .help = "environment; repeatable" },
			{ .name = "cwd", .kind = OPT_STRING, OFF(cwd), .meta = "DIR",
			  .help = "working directory" },
			{ .name = "user", .kind = OPT_STRING, OFF(user),
			  .meta = "USER", .def = "root",
			  .help = "name, or uid[:gid]" },
			{ .name = "timeout", .kind = OPT_UINT, OFF(timeout),
			  .meta = "S", .min = 1, .max = 86400 * 365,
			  .help = "hang the command up after so many seconds" },
			{ .name = NULL },
		},
		.literal = offsetof(struct opts, cmd) + 1,
		.literal_meta = "CMD...",
		.literal_needed = true,
		.size = sizeof(struct opts),
	},
	.run = run,
};
