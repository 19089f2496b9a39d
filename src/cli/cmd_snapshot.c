// SPDX-License-Identifier: MIT
/* cmd_snapshot.c - machinen snapshot */
#include <stdio.h>

#include "cli/resume.h"

struct opts {
	const char *target, *dir;
	bool keep_alive, dry_run, json;
};

static int tell(const struct opts *o, const struct mn_snapshotted *s, pid_t pid,
		json_t *phases)
{
	char bytes[32];

	if (o->json)
		return out_json(json_pack("{s:b, s:b, s:s, s:i, s:b, s:I, s:I, s:O}",
			"ok", 1, "dry_run", o->dry_run, "path", s->path, "pid", (int)pid,
			"stopped", s->stopped, "bytes", (json_int_t)s->bytes,
			"memory_bytes", (json_int_t)s->memory_bytes, "phases", phases));
	out_bytes(bytes, sizeof(bytes), s->bytes);
	if (o->dry_run)
		printf("%s would be written%s\n", s->path,
		       o->keep_alive ? "" : ", and the VM stopped");
	else
		printf("%s (%s)\n", s->path, bytes);
	return 0;
}

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_snapshot, cfg);
	MN_CONFIG(struct mn_snapshotted, got);
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm = NULL;
	struct work w;
	int ret;

	work_begin(&w);
	cfg.dir = o->dir;
	cfg.keep_alive = o->keep_alive;
	cfg.dry_run = o->dry_run;
	cfg.event = work_event;
	cfg.event_arg = &w;
	ret = mn_vm_open(o->target, &vm, &err);
	if (!ret)
		ret = mn_vm_snapshot(vm, &cfg, &got, &err);
	work_end(&w);
	if (ret)
		ret = work_signal() ? work_signal() : out_error(&err, o->json);
	else
		ret = tell(o, &got, mn_vm_pid(vm), w.phases);
	json_decref(w.phases);
	mn_vm_free(vm);
	return ret;
}

const struct cmd cmd_snapshot = {
	.opt = {
		.name = "snapshot",
		.summary = "Write a running VM to a bundle",
		.details = "The bundle is complete or absent.  The VM stops once it is complete, and goes\n"
			   "on as if nothing had been if it cannot be made; with --keep-alive it goes on\n"
			   "in any case, after a pause of milliseconds.",
		.examples = "  machinen snapshot web ./web.snap\n"
			    "  machinen snapshot web ./backup --keep-alive",
		.json = "ok, dry_run, path, pid, stopped, bytes, memory_bytes, phases (microseconds by name, and total)",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = "OUTDIR", .offset = offsetof(struct opts, dir),
			  .help = "directory to make; absent, or empty",
			  .words = OPT_WORDS_FILE },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "keep-alive", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, keep_alive),
			  .help = "the VM goes on running" },
			{ .name = "dry-run", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, dry_run),
			  .help = "say what would happen, change nothing" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
