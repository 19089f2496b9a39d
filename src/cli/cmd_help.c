// SPDX-License-Identifier: MIT
/* cmd_help.c - machinen help */
#include <stdio.h>

#include "base/buf.h"
#include "cli/cmd.h"

struct opts {
	const char *command;
};

static void overview(void)
{
	puts("machinen freezes, moves and forks running Linux VMs.\n\n"
	     "Usage: machinen COMMAND [flags] [-- CMD...]\n\nCommands:");
	for (unsigned i = 0; commands[i]; i++)
		if (!commands[i]->opt.hidden)
			printf("  %-14s %s\n", commands[i]->opt.name,
			       commands[i]->opt.summary);
	puts("\nmachinen help COMMAND or machinen COMMAND --help says more;\n"
	     "machinen --version prints the version.  TARGET is a VM's name or pid.");
}

static int run(const void *v)
{
	const struct opts *o = v;
	const struct cmd *c;
	struct buf text = BUF_INIT;

	if (!o->command) {
		overview();
		return 0;
	}
	c = cmd_find(o->command);
	if (!c)
		return out_usage_error(MN_PARSE_COMMAND_UNKNOWN, false,
				       "no command \"%s\"; see machinen help", o->command);
	opt_help(&c->opt, "machinen", &text);
	if (!text.oom)
		fputs(text.data, stdout);
	buf_done(&text);
	return 0;
}

const struct cmd cmd_help = {
	.opt = {
		.name = "help",
		.summary = "Explain a command",
		.args = (const struct opt_arg[]){
			{ .name = "COMMAND", .optional = true,
			  .offset = offsetof(struct opts, command),
			  .words = OPT_WORDS_COMMAND, .help = "which one" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
