// SPDX-License-Identifier: MIT
/* cmd_fork.c - machinen fork */
#include "cli/resume.h"

struct opts {
	struct resume_opts resume;
	const char *target, *out_dir;
};

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_resume, cfg);
	struct mn_error err = { .code = MN_OK };
	struct resume_lists lists;
	struct mn_vm *source = NULL, *vm = NULL;
	struct work w;
	int ret = resume_fill(&o->resume, &cfg, &lists);

	if (ret) {
		resume_lists_done(&lists);
		return ret;
	}
	work_begin(&w);
	/* MACHINEN_ACCEL is for VMs that are made from nothing or a bundle */
	if (!o->resume.accel && !o->out_dir)
		cfg.accel = MN_ACCEL_AUTO;
	cfg.out_dir = o->out_dir;
	cfg.event = work_event;
	cfg.event_arg = &w;
	ret = mn_vm_open(o->target, &source, &err);
	if (!ret)
		ret = mn_vm_fork(source, &cfg, &vm, &err);
	mn_vm_free(source);
	resume_lists_done(&lists);
	return resume_end(&o->resume, ret, vm, &w, &err);
}

const struct cmd cmd_fork = {
	.opt = {
		.name = "fork",
		.summary = "Clone a running VM into a sibling",
		.details = "The source keeps running.  Memory and disks are shared until one of the two\n"
			   "writes; from then on neither sees what the other does.  Without\n"
			   "--detach the sibling's main command has this terminal, and machinen its exit\n"
			   "status.",
		.examples = "  machinen fork web -d\n"
			    "  machinen fork web --new-name web/2 -d -p 3001:3000\n"
			    "  machinen fork web -d --mount ./case-7:/mnt/case",
		.json = "ok, pid, name, phases (microseconds by name, and total)",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			RESUME_OPTS,
			{ .name = "mount", .kind = OPT_LIST, RESUME_OFF(mount),
			  .meta = "HOST:GUEST", .words = OPT_WORDS_FILE,
			  .help = "copy of a host directory at GUEST below /mnt/, which must be absent or empty, for the sibling alone; repeatable" },
			{ .name = "out-dir", .kind = OPT_STRING, .meta = "DIR",
			  .offset = offsetof(struct opts, out_dir), .words = OPT_WORDS_FILE,
			  .help = "also keep a bundle of that instant" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
