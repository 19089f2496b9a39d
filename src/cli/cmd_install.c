// SPDX-License-Identifier: MIT
/* cmd_install.c - machinen install */
#include <stdio.h>

#include "cli/cmd.h"

struct opts {
	bool json, force;
};

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_install, cfg);
	MN_CONFIG(struct mn_installed, done);
	struct mn_error err = { .code = MN_OK };
	struct progress p;
	int ret;
	char size[32];

	progress_init(&p);
	cfg.force = o->force;
	cfg.event = progress_event;
	cfg.event_arg = &p;
	ret = mn_install(&cfg, &done, &err);
	progress_end(&p);
	if (ret)
		return out_error(&err, o->json);
	if (o->json)
		return out_json(json_pack("{s:b, s:b, s:s, s:s, s:s, s:I}",
					  "ok", 1, "fetched", done.fetched,
					  "version", done.version, "kernel", done.kernel,
					  "path", done.path, "bytes",
					  (json_int_t)done.bytes));
	out_bytes(size, sizeof(size), done.bytes);
	printf("%s %s (kernel %s, %s) in %s\n",
	       done.fetched ? "installed" : "already there:", done.version,
	       done.kernel, size, done.path);
	return 0;
}

const struct cmd cmd_install = {
	.opt = {
		.name = "install",
		.summary = "Fetch kernel and base image into the cache",
		.details = "The kernel is Debian's cloud kernel package, the base a minimal Debian made by\n"
			   "mmdebstrap from this host's own package sources.  No root is needed.\n"
			   "Does nothing when the base is there.",
		.json = "ok, fetched, version, kernel, path, bytes",
		.opts = (const struct opt[]){
			{ .name = "force", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, force),
			  .help = "fetch again also when it is there" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
