// SPDX-License-Identifier: MIT
/* cmd_doctor.c - machinen doctor */
#include <stdio.h>

#include "cli/cmd.h"

struct opts {
	bool json;
};

struct findings {
	json_t *list;
	bool json, failed;
};

static const char *const level_names[] = {
	[MN_FINDING_OK] = "ok", [MN_FINDING_WARN] = "warning",
	[MN_FINDING_FAIL] = "failure",
};
static const char *const colours[] = {
	[MN_FINDING_OK] = "\033[32m", [MN_FINDING_WARN] = "\033[33m",
	[MN_FINDING_FAIL] = "\033[31m",
};

static int on_finding(const struct mn_finding *f, void *arg)
{
	struct findings *all = arg;
	bool colour = out_colour(1);

	all->failed |= f->level == MN_FINDING_FAIL;
	if (all->json)
		return json_array_append_new(all->list, json_pack("{s:s, s:s, s:s, s:s?}",
			"check", f->check, "level", level_names[f->level],
			"what", f->what, "fix", f->fix));
	printf("%s%-8s%s %-7s %s\n", colour ? colours[f->level] : "",
	       level_names[f->level], colour ? "\033[0m" : "", f->check, f->what);
	if (f->fix)
		printf("%16s %s\n", "->", f->fix);
	return 0;
}

static int run(const void *v)
{
	const struct opts *o = v;
	struct findings all = { .list = json_array(), .json = o->json };
	struct mn_error err = { .code = MN_OK };

	if (mn_doctor(on_finding, &all, &err)) {
		json_decref(all.list);
		return out_error(&err, o->json);
	}
	if (o->json)
		out_json(json_pack("{s:b, s:o}", "ok", !all.failed, "findings", all.list));
	else
		json_decref(all.list);
	return all.failed;
}

const struct cmd cmd_doctor = {
	.opt = {
		.name = "doctor",
		.summary = "Check the host and say what to do",
		.json = "ok, findings[check, level: ok|warning|failure, what, fix]",
		.opts = (const struct opt[]){
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
