// SPDX-License-Identifier: MIT
/*
 * cmd_completion.c - machinen completion, and the hidden command behind it.
 *
 * The scripts know nothing: they hand the words so far to `machinen __complete`,
 * which answers from the option tables and the registry, one candidate a line.
 * A last line ":files" says that file names are welcome as well.
 */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "cli/cmd.h"

static const char bash_script[] =
	"_machinen() {\n"
	"\tlocal IFS=$'\\n' out\n"
	"\tout=$(\"${COMP_WORDS[0]}\" __complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
	"\tif [[ $out == *:files ]]; then\n"
	"\t\tcompopt -o default 2>/dev/null\n"
	"\t\tout=${out%:files}\n"
	"\tfi\n"
	"\tCOMPREPLY=($(compgen -W \"$out\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
	"}\n"
	"complete -F _machinen machinen mn\n";

static const char zsh_script[] =
	"#compdef machinen mn\n"
	"_machinen() {\n"
	"\tlocal -a out\n"
	"\tout=(${(f)\"$(${words[1]} __complete -- ${words[2,CURRENT]} 2>/dev/null)\"})\n"
	"\tif [[ ${out[-1]} == :files ]]; then\n"
	"\t\tout[-1]=()\n"
	"\t\t_files\n"
	"\tfi\n"
	"\tcompadd -a out\n"
	"}\n"
	"compdef _machinen machinen mn\n";

static const char fish_script[] =
	"function __machinen_complete\n"
	"\tset -l words (commandline -opc) (commandline -ct)\n"
	"\tset -l out ($words[1] __complete -- $words[2..-1] 2>/dev/null)\n"
	"\tif test \"$out[-1]\" = :files\n"
	"\t\tset -e out[-1]\n"
	"\t\t__fish_complete_path (commandline -ct)\n"
	"\tend\n"
	"\tprintf '%s\\n' $out\n"
	"end\n"
	"complete -c machinen -f -a '(__machinen_complete)'\n"
	"complete -c mn -f -a '(__machinen_complete)'\n";

struct opts {
	const char *shell;
};

static int run(const void *v)
{
	static const struct {
		const char *name, *script;
	} shells[] = {
		{ "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script },
	};
	const struct opts *o = v;

	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(o->shell, shells[i].name)) {
			fputs(shells[i].script, stdout);
			return 0;
		}
	return out_usage_error(MN_PARSE_FLAG_MALFORMED, false,
			       "no completion for \"%s\"; there is bash, zsh and fish",
			       o->shell);
}

const struct cmd cmd_completion = {
	.opt = {
		.name = "completion",
		.summary = "Print a completion script for a shell",
		.examples = "  source <(machinen completion bash)\n"
			    "  machinen completion fish > ~/.config/fish/completions/machinen.fish",
		.args = (const struct opt_arg[]){
			{ .name = "bash|zsh|fish", .offset = offsetof(struct opts, shell),
			  .words = OPT_WORDS_CHOICE, .help = "which shell" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};

struct words {
	struct opt_list v;
};

static int print_target(const struct mn_status *st, void *arg)
{
	if (st->name[0])
		puts(st->name);
	else
		printf("%d\n", st->pid);
	return 0;
}

static void print_commands(void)
{
	for (unsigned i = 0; commands[i]; i++)
		if (!commands[i]->opt.hidden)
			puts(commands[i]->opt.name);
}

static int run_complete(const void *v)
{
	const struct words *w = v;
	char *const *words = (char *const *)(uintptr_t)w->v.v;
	struct buf out = BUF_INIT;
	const struct cmd *c;

	if (w->v.nr <= 1) {
		print_commands();
		return 0;
	}
	c = cmd_find(words[0]);
	if (!c)
		return 0;
	switch (opt_complete(&c->opt, (int)w->v.nr - 1, words + 1, &out)) {
	case OPT_WORDS_TARGET:
		mn_list(false, print_target, NULL, NULL);
		break;
	case OPT_WORDS_COMMAND:
		print_commands();
		break;
	case OPT_WORDS_FILE:
		buf_adds(&out, ":files\n");
		break;
	default:
		break;
	}
	if (out.data && !out.oom)
		fputs(out.data, stdout);
	buf_done(&out);
	return 0;
}

const struct cmd cmd_complete = {
	.opt = {
		.name = "__complete",
		.summary = "Print candidates for the last of some words",
		.literal = offsetof(struct words, v) + 1,
		.literal_meta = "WORDS...",
		.hidden = true,
		.size = sizeof(struct words),
	},
	.run = run_complete,
};
