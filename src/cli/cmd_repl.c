// SPDX-License-Identifier: MIT
/* cmd_repl.c - machinen repl: each line of input is an exec of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd.h"

struct opts {
	const char *target, *user;
	struct opt_list env;
};

static int on_event(const struct mn_event *ev, void *arg)
{
	FILE *to = ev->type == MN_EVENT_STDERR ? stderr : stdout;

	return fwrite(ev->data, 1, ev->len, to) == ev->len && !fflush(to) ? 0 : -1;
}

/* A line that fails does not end the loop; its status is shown. */
static int run_line(struct mn_vm *vm, const struct opts *o, const char *line,
		    int *status)
{
	MN_CONFIG(struct mn_exec, cfg);
	struct mn_error err = { .code = MN_OK };
	struct mn_exit end = { .status = 0 };

	cfg.shell = line;
	cfg.env = o->env.v;
	cfg.user = o->user;
	cfg.event = on_event;
	if (mn_exec(vm, &cfg, &end, &err)) {
		*status = out_error(&err, false);
		return err.code == MN_EXEC_AGENT_UNAVAILABLE ? -1 : 0;
	}
	*status = end.status;
	if (end.status && isatty(2))
		fprintf(stderr, "(status %d)\n", end.status);
	return 0;
}

static int run(const void *v)
{
	const struct opts *o = v;
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	char *line = NULL;
	size_t cap = 0;
	int status = 0;
	ssize_t n;

	if (mn_vm_open(o->target, &vm, &err))
		return out_error(&err, false);
	for (;;) {
		if (terminal_both()) {
			printf("%s> ", o->target);
			fflush(stdout);
		}
		n = getline(&line, &cap, stdin);
		if (n <= 0)
			break;
		if (line[n - 1] == '\n')
			line[--n] = '\0';
		if (!strcmp(line, "exit"))
			break;
		if (line[strspn(line, " \t")] && run_line(vm, o, line, &status))
			break;
	}
	if (n <= 0 && terminal_both())
		putchar('\n');
	free(line);
	mn_vm_free(vm);
	return status;
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_repl = {
	.opt = {
		.name = "repl",
		.summary = "Run each line of input as a command in a VM",
		.details = "Lines share nothing but the VM: no variables, no directory.  exit or the end of\n"
			   "the input ends it, with the last command's status.",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "env", .kind = OPT_LIST, OFF(env), .meta = "K=V",
			  .help = "environment; repeatable" },
			{ .name = "user", .kind = OPT_STRING, OFF(user), .meta = "USER",
			  .def = "root", .help = "name, or uid[:gid]" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
