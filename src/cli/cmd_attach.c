// SPDX-License-Identifier: MIT
/* cmd_attach.c - machinen attach: an interactive shell in a running VM. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cmd.h"

struct opts {
	const char *target, *shell, *user;
	struct opt_count tail;
};

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_exec, cfg);

	if (!terminal_both())
		return out_usage_error(MN_PARSE_ARGUMENT_MISSING, false,
				       "attach needs a terminal; use exec in scripts");
	cfg.shell = o->shell;
	cfg.user = o->user;
	cfg.tty = true;
	return terminal_session(o->target, &cfg, !o->tail.given ? 0 :
				o->tail.has_value ? o->tail.value : 10, true);
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_attach = {
	.opt = {
		.name = "attach",
		.summary = "Open a shell in a running VM",
		.details = "exit or Ctrl-D leaves, and so does Ctrl-] Ctrl-]; the VM runs on.  Ctrl-C goes to\n"
			   "the guest.",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "shell", .kind = OPT_STRING, OFF(shell), .meta = "CMD",
			  .help = "another command line than a login shell" },
			{ .name = "user", .kind = OPT_STRING, OFF(user), .meta = "USER",
			  .def = "root", .help = "name, or uid[:gid]" },
			{ .name = "tail", .kind = OPT_COUNT, OFF(tail), .meta = "N",
			  .def = "10", .help = "print the console's last lines first" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
