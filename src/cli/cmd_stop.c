// SPDX-License-Identifier: MIT
/* cmd_stop.c - machinen stop */
#include <stdio.h>

#include "cli/cmd.h"

struct opts {
	struct opt_list targets;
	bool force, dry_run, json;
};

static const char *const how_names[] = {
	[MN_STOPPED] = "stopped", [MN_ALREADY_DEAD] = "already_dead",
	[MN_RECYCLED] = "recycled", [MN_WOULD_STOP] = "would_stop",
};
static const char *const how_words[] = {
	[MN_STOPPED] = "stopped", [MN_ALREADY_DEAD] = "was dead already, cleaned up",
	[MN_RECYCLED] = "had ended, and its pid is another's now; cleaned up",
	[MN_WOULD_STOP] = "would be stopped",
};

/* Every target is tried; the first error decides the exit status. */
static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_stop, cfg);
	json_t *results = json_array(), *failed = NULL;
	int status = 0;

	cfg.force = o->force;
	cfg.dry_run = o->dry_run;
	for (unsigned i = 0; i < o->targets.nr; i++) {
		struct mn_error err = { .code = MN_OK };
		enum mn_stopped how;
		pid_t pid;

		if (mn_stop(o->targets.v[i], &cfg, &how, &pid, &err)) {
			status = 1;
			if (!o->json)
				out_error(&err, false);
			else if (!failed)
				failed = json_pack("{s:s, s:s}", "code",
						   mn_code_name(err.code), "message",
						   mn_error_message(&err));
			continue;
		}
		if (!o->json)
			printf("%s %s\n", o->targets.v[i], how_words[how]);
		json_array_append_new(results, json_pack("{s:s, s:i, s:s}", "target",
							 o->targets.v[i], "pid", (int)pid,
							 "outcome", how_names[how]));
	}
	if (o->json) {
		json_t *doc = json_pack("{s:b, s:o}", "ok", !status, "results", results);

		if (failed)
			json_object_set_new(doc, "error", failed);
		out_json(doc);
	} else {
		json_decref(results);
	}
	return status;
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_stop = {
	.opt = {
		.name = "stop",
		.summary = "End VMs",
		.details = "Asks the guest to power off, and after 2 s, and 2 s more, insists.",
		.json = "ok, results[target, pid, outcome: stopped|already_dead|recycled|would_stop]",
		.args = (const struct opt_arg[]){
			{ .name = "TARGET", .repeat = true, OFF(targets),
			  .help = "name or pid of a running VM", .words = OPT_WORDS_TARGET },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "force", .letter = '9', .kind = OPT_SWITCH, OFF(force),
			  .help = "kill at once" },
			{ .name = "dry-run", .kind = OPT_SWITCH, OFF(dry_run),
			  .help = "say what would happen, change nothing" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
