// SPDX-License-Identifier: MIT
/* cmd_cp.c - machinen cp */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"

struct opts {
	const char *from, *to;
	bool parents;
};

/*
 * Where "TARGET:PATH" is cut; NULL for a host path.  A host path with a colon is
 * written with a slash before it, as in ./a:b.
 */
static const char *colon_of(const char *word)
{
	const char *colon = strchr(word, ':');

	return colon && colon != word && word[0] != '.' && word[0] != '/' ? colon : NULL;
}

static int copy(const struct opts *o, const char *target, const char *guest, bool in)
{
	MN_CONFIG(struct mn_copy, cfg);
	struct mn_error err = { .code = MN_OK };
	struct progress p;
	struct mn_vm *vm;
	int ret = mn_vm_open(target, &vm, &err);

	progress_init(&p);
	cfg.parents = o->parents;
	cfg.event = progress_event;
	cfg.event_arg = &p;
	if (!ret)
		ret = in ? mn_push(vm, o->from, guest, &cfg, &err) :
			   mn_pull(vm, guest, o->to, &cfg, &err);
	progress_end(&p);
	mn_vm_free(vm);
	return ret ? out_error(&err, false) : 0;
}

static int run(const void *v)
{
	const struct opts *o = v;
	const char *from = colon_of(o->from), *to = colon_of(o->to);
	const char *word = from ? o->from : o->to, *colon = from ? from : to;
	char *target;
	int ret;

	if (!from == !to)
		return out_usage_error(MN_PARSE_FLAG_MALFORMED, false,
				       "one side must be TARGET:PATH, the other a host path");
	if (colon[1] != '/')
		return out_usage_error(MN_MOUNT_PATH_INVALID, false,
				       "\"%s\": the guest's path must be absolute", word);
	target = strndup(word, (size_t)(colon - word));
	ret = target ? copy(o, target, colon + 1, !from) : 1;
	free(target);
	return ret;
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_cp = {
	.opt = {
		.name = "cp",
		.summary = "Copy files and directories into or out of a VM",
		.details = "One side is TARGET:PATH.  Directories are copied with all below them; a\n"
			   "destination that is a directory takes the copy in.",
		.examples = "  machinen cp ./site web:/srv\n"
			    "  machinen cp web:/var/log ./logs",
		.args = (const struct opt_arg[]){
			{ .name = "SRC", OFF(from), .help = "host path, or TARGET:PATH",
			  .words = OPT_WORDS_FILE },
			{ .name = "DST", OFF(to), .help = "TARGET:PATH, or host path",
			  .words = OPT_WORDS_FILE },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "parents", .kind = OPT_SWITCH, OFF(parents),
			  .help = "create missing directories above the guest's path" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
