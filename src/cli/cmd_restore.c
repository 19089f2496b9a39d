// SPDX-License-Identifier: MIT
/* cmd_restore.c - machinen restore */
#include "cli/resume.h"

struct opts {
	struct resume_opts resume;
	const char *bundle;
};

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_resume, cfg);
	struct mn_error err = { .code = MN_OK };
	struct resume_lists lists;
	struct mn_vm *vm = NULL;
	struct work w;
	int ret = resume_fill(&o->resume, &cfg, &lists);

	if (ret) {
		resume_lists_done(&lists);
		return ret;
	}
	work_begin(&w);
	cfg.bundle = o->bundle;
	cfg.event = work_event;
	cfg.event_arg = &w;
	ret = mn_restore(&cfg, &vm, &err);
	resume_lists_done(&lists);
	return resume_end(&o->resume, ret, vm, &w, &err);
}

const struct cmd cmd_restore = {
	.opt = {
		.name = "restore",
		.summary = "Resume a VM from a bundle",
		.details = "Every process of the VM goes on where it was.  Any number of VMs may be\n"
			   "resumed from one bundle, also at once; none of them changes it.  Without --detach the\n"
			   "VM's main command has this terminal, and machinen its exit status.",
		.examples = "  machinen restore ./web.snap -d -p 3000:3000\n"
			    "  machinen restore ./web.snap -d --name web/2",
		.json = "ok, pid, name, phases (microseconds by name, and total)",
		.args = (const struct opt_arg[]){
			{ .name = "BUNDLE", .offset = offsetof(struct opts, bundle),
			  .help = "directory that machinen snapshot wrote",
			  .words = OPT_WORDS_FILE },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			RESUME_OPTS,
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
