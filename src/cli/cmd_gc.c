// SPDX-License-Identifier: MIT
/* cmd_gc.c - machinen gc */
#include <stdio.h>

#include "cli/cmd.h"

struct opts {
	bool dry_run, json;
};

struct found {
	json_t *list;
	const struct opts *o;
};

static int on_found(const char *what, const char *path, void *arg)
{
	struct found *f = arg;

	if (!f->o->json)
		printf("%s %s\n", f->o->dry_run ? "would remove" : "removed", path);
	return json_array_append_new(f->list, json_pack("{s:s, s:s}", "what", what,
							"path", path));
}

static int run(const void *v)
{
	const struct opts *o = v;
	struct found f = { .list = json_array(), .o = o };
	struct mn_error err = { .code = MN_OK };
	int n = mn_gc(o->dry_run, on_found, &f, &err);

	if (n >= 0 && o->json)
		return out_json(json_pack("{s:b, s:b, s:o}", "ok", 1, "dry_run",
					  o->dry_run, "removed", f.list));
	json_decref(f.list);
	if (n < 0)
		return out_error(&err, o->json);
	if (!n)
		puts("nothing to remove");
	return 0;
}

const struct cmd cmd_gc = {
	.opt = {
		.name = "gc",
		.summary = "Remove what dead VMs left behind",
		.json = "ok, dry_run, removed[what: vm|name|unfinished, path]",
		.opts = (const struct opt[]){
			{ .name = "dry-run", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, dry_run),
			  .help = "say what would be removed, remove nothing" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
