// SPDX-License-Identifier: MIT
/* cmd_bake.c - machinen bake */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "cli/cmd.h"

struct opts {
	const char *from, *out, *cwd, *accel, *engine;
	struct opt_list steps, env, cmd;	/* steps: --run, --copy, --file in order */
	uint64_t memory, cpus, disk_size, timeout;
	bool no_net;
};

static int collect(const struct opts *o, struct steps *s)
{
	int ret = 0;

	for (unsigned i = 0; !ret && i < o->steps.nr; i++) {
		const char *flag = o->steps.from[i]->name, *word = o->steps.v[i];

		ret = !strcmp(flag, "run") ? steps_run(s, word) :
		      !strcmp(flag, "copy") ? steps_copy(s, word) : steps_file(s, word);
	}
	for (unsigned i = 0; !ret && i < o->env.nr; i++)
		ret = steps_env(s, o->env.v[i]);
	if (o->cwd)
		s->cwd = o->cwd;
	return ret;
}

static int on_event(const struct mn_event *ev, void *arg)
{
	struct progress *p = arg;
	bool bold = out_colour(2);

	switch (ev->type) {
	case MN_EVENT_STEP:
		progress_end(p);
		fprintf(stderr, "%s[%llu/%llu] %s%s\n", bold ? "\033[1m" : "",
			(unsigned long long)ev->done, (unsigned long long)ev->total,
			ev->name, bold ? "\033[0m" : "");
		return 0;
	case MN_EVENT_STDOUT:
	case MN_EVENT_STDERR:
		progress_end(p);
		return io_write_full(ev->type == MN_EVENT_STDOUT ? 1 : 2, ev->data, ev->len);
	default:
		return progress_event(ev, arg);
	}
}

static int bake(const struct opts *o, const struct steps *s, struct progress *p)
{
	const char *accel = o->accel ? o->accel : getenv("MACHINEN_ACCEL");
	struct mn_error err = { .code = MN_OK };
	MN_CONFIG(struct mn_bake, cfg);
	char size[32];
	struct stat st;
	int ret;

	cfg.out = o->out;
	cfg.from = o->from;
	cfg.steps = s->step;
	cfg.nr_steps = s->nr;
	cfg.env = s->env;
	cfg.cwd = s->cwd;
	cfg.cmd = o->cmd.v;
	cfg.memory_mib = o->memory;
	cfg.cpus = o->cpus;
	cfg.disk_size = o->disk_size;
	cfg.accel = !accel || !strcmp(accel, "auto") ? MN_ACCEL_AUTO :
		    !strcmp(accel, "kvm") ? MN_ACCEL_KVM : MN_ACCEL_SOFT;
	cfg.engine = o->engine;
	cfg.no_net = o->no_net;
	cfg.timeout_ms = o->timeout * 1000;
	cfg.event = on_event;
	cfg.event_arg = p;
	ret = mn_bake(&cfg, &err);
	progress_end(p);
	if (ret)
		return out_error(&err, false);
	if (p->tty && !stat(o->out, &st)) {
		out_bytes(size, sizeof(size), (uint64_t)st.st_size);
		out_note("%s is ready, %s", o->out, size);
	}
	return 0;
}

static int run(const void *v)
{
	struct steps s = { .step = NULL };
	const struct opts *o = v;
	struct progress p;
	int ret;

	if (!o->out)
		return out_usage_error(MN_PARSE_ARGUMENT_MISSING, false,
				       "bake needs --out IMAGE: where the image is written");
	progress_init(&p);
	ret = collect(o, &s);
	if (!ret)
		ret = bake(o, &s, &p);
	steps_done(&s);
	return ret;
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_bake = {
	.opt = {
		.name = "bake",
		.summary = "Change an image by steps in a VM, and write it as a new image",
		.details = "Steps run in the order given, in the directory / of a VM of its own; the first\n"
			   "that fails ends it, and no image is written.  --env, --cwd and CMD become the\n"
			   "image's defaults.  A file of steps has one a line: run SHELL, copy HOST:GUEST,\n"
			   "env K=V or cwd DIR; a line that ends with \\ goes on in the next one.",
		.examples = "  machinen bake --run 'apt-get update && apt-get install -y nginx' --out web.tar.zst -- nginx -g 'daemon off;'\n"
			    "  machinen bake --from web.tar.zst --copy ./site:/var/www/html --out site.tar.zst\n"
			    "  machinen bake -f steps --out app.tar.gz -- /opt/app",
		.opts = (const struct opt[]){
			{ .name = "out", .kind = OPT_STRING, OFF(out), .meta = "IMAGE",
			  .words = OPT_WORDS_FILE,
			  .help = "archive to write: .tar, .tar.gz, .tar.zst or .tar.xz" },
			{ .name = "from", .kind = OPT_STRING, OFF(from), .meta = "IMAGE",
			  .words = OPT_WORDS_FILE, .help = "image to begin with",
			  .def = "the installed base" },
			{ .name = "run", .kind = OPT_LIST, OFF(steps), .meta = "SHELL",
			  .help = "step: a line for the guest's sh; repeatable" },
			{ .name = "copy", .kind = OPT_LIST, OFF(steps), .meta = "HOST:GUEST",
			  .words = OPT_WORDS_FILE,
			  .help = "step: copy a file or directory in; repeatable" },
			{ .name = "file", .letter = 'f', .kind = OPT_LIST, OFF(steps),
			  .meta = "FILE", .words = OPT_WORDS_FILE,
			  .help = "steps from a file, - for stdin; repeatable" },
			{ .name = "env", .kind = OPT_LIST, OFF(env), .meta = "K=V",
			  .help = "environment of steps and of the image's commands; repeatable" },
			{ .name = "cwd", .kind = OPT_STRING, OFF(cwd), .meta = "DIR",
			  .help = "working directory of the image's commands, absolute" },
			{ .name = "memory", .kind = OPT_UINT, OFF(memory), .meta = "MIB",
			  .help = "memory of the VM that runs the steps",
			  .def = "half the host's, at most 16384" },
			{ .name = "cpus", .kind = OPT_UINT, OFF(cpus), .meta = "N",
			  .min = 1, .max = 16, .help = "CPUs of it", .def = "1" },
			{ .name = "disk-size", .kind = OPT_SIZE, OFF(disk_size), .meta = "SIZE",
			  .help = "size of its root disk, sparse",
			  .def = "2G or 2.5 times its content" },
			{ .name = "accel", .kind = OPT_CHOICE, OFF(accel),
			  .meta = "auto|kvm|soft", .words = OPT_WORDS_CHOICE,
			  .help = "its CPU backend", .def = "auto" },
			{ .name = "engine", .kind = OPT_CHOICE, OFF(engine),
			  .meta = "interp|jit", .words = OPT_WORDS_CHOICE,
			  .help = "engine of the software CPU", .def = "the fastest" },
			{ .name = "no-net", .kind = OPT_SWITCH, OFF(no_net),
			  .help = "steps without network" },
			{ .name = "timeout", .kind = OPT_UINT, OFF(timeout), .meta = "S",
			  .min = 1, .max = 86400, .def = "60",
			  .help = "seconds until the guest must be ready" },
			{ .name = NULL },
		},
		.literal = offsetof(struct opts, cmd) + 1,
		.literal_meta = "CMD...",
		.size = sizeof(struct opts),
	},
	.run = run,
};
