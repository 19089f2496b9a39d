// SPDX-License-Identifier: MIT
/* commands.c - THE TABLE of commands, in the order of `machinen help`. */
#include <string.h>

#include "cli/cmd.h"

#define COMMANDS(X) \
	X(boot) X(bake) X(restore) X(fork) X(snapshot) X(exec) X(attach) X(repl) X(list) X(logs) \
	X(cp) X(pause) X(resume) X(port) \
	X(inspect) X(stop) X(gc) X(install) X(doctor) X(agent_context) \
	X(completion) X(complete) X(feedback) X(help)

#define X(name) extern const struct cmd cmd_##name;
COMMANDS(X)
#undef X

const struct cmd *const commands[] = {
#define X(name) &cmd_##name,
	COMMANDS(X)
#undef X
	NULL
};

const struct cmd *cmd_find(const char *name)
{
	for (unsigned i = 0; commands[i]; i++) {
		const struct opt_cmd *o = &commands[i]->opt;

		if (!strcmp(o->name, name))
			return commands[i];
		for (unsigned k = 0; o->alias[k]; k++)
			if (!strcmp(o->alias[k], name))
				return commands[i];
	}
	return NULL;
}
