// SPDX-License-Identifier: MIT
/*
 * main.c - the machinen program: finds the command, parses by its table, runs.
 */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/cmd.h"

static int usage_error(const struct err *e, bool json)
{
	struct mn_error host = { .code = MN_HOST_FAILED, .num = e->num };

	if (e->code == ERR_NONE) {
		snprintf(host.text, sizeof(host.text), "%s", err_message(e));
		host.len = strlen(host.text) + 1;
		return out_error(&host, json);
	}
	return out_usage_error((enum mn_code)e->code, json, "%s", err_message(e));
}

static int unknown_command(const char *name)
{
	const char *names[64], *near;
	unsigned n = 0;

	for (unsigned i = 0; commands[i] && n < 62; i++)
		if (!commands[i]->opt.hidden)
			names[n++] = commands[i]->opt.name;
	names[n] = NULL;
	near = opt_nearest(name, names);
	if (near)
		return out_usage_error(MN_PARSE_COMMAND_UNKNOWN, false,
				       "no command \"%s\"; did you mean %s?", name, near);
	return out_usage_error(MN_PARSE_COMMAND_UNKNOWN, false,
			       "no command \"%s\"; see machinen help", name);
}

static int print_help(const struct cmd *c)
{
	struct buf text = BUF_INIT;

	opt_help(&c->opt, "machinen", &text);
	if (!text.oom)
		fwrite(text.data, 1, text.len, stdout);
	buf_done(&text);
	return 0;
}

static bool wants_json(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--json"))
			return true;
	return false;
}

static int run_command(const struct cmd *c, int argc, char **argv)
{
	/* options of the biggest command; checked in commands.c */
	_Alignas(max_align_t) char opts[CMD_OPTS_MAX];
	struct err e = ERR_INIT;
	int ret = opt_parse(&c->opt, argc, argv, opts, &e);

	if (ret == OPT_HELP)
		ret = print_help(c);
	else if (ret < 0)
		ret = usage_error(&e, wants_json(argc, argv) &&
				  opt_find(&c->opt, "json", 4));
	else
		ret = c->run(opts);
	opt_done(&c->opt, opts);
	return ret;
}

int main(int argc, char **argv)
{
	const struct cmd *c;
	const char *name = argc > 1 ? argv[1] : "help";

	setlocale(LC_CTYPE, "");
	/* a pipe that closes is an error of write(2) here */
	signal(SIGPIPE, SIG_IGN);
	/* and so is a file that grows past a limit of the shell's */
	signal(SIGXFSZ, SIG_IGN);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("machinen %s\n", mn_version());
		return 0;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	c = cmd_find(name);
	if (!c)
		return unknown_command(name);
	return run_command(c, argc > 2 ? argc - 2 : 0, argv + 2);
}
