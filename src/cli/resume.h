/* SPDX-License-Identifier: MIT */
/* resume.h - what restore and fork have in common.  For src/cli only. */
#ifndef CLI_RESUME_H
#define CLI_RESUME_H

#include "cli/cmd.h"

#define RESUME_MAX 64	/* of ports, and of mounts of either kind */

struct work;

/* First in the struct of a command's options. */
struct resume_opts {
	const char *name, *image, *cwd, *accel;
	struct opt_list env, publish, mount, mount_live;
	uint64_t memory, timeout;
	bool detach, json;
};

#define RESUME_OFF(field) .offset = offsetof(struct resume_opts, field)
#define RESUME_OPTS \
	{ .name = "name", .kind = OPT_STRING, RESUME_OFF(name), .meta = "NAME", \
	  .alias = "new-name", .help = "registered name of the new VM", \
	  .def = "SOURCE/PID" }, \
	{ .name = "image", .kind = OPT_STRING, RESUME_OFF(image), .meta = "IMAGE", \
	  .words = OPT_WORDS_FILE, \
	  .help = "only if the guest runs from this archive", .def = "any" }, \
	{ .name = "mount-live", .kind = OPT_LIST, RESUME_OFF(mount_live), \
	  .meta = "HOST:GUEST[:rw|ro]", .words = OPT_WORDS_FILE, \
	  .help = "another directory for a live mount that the guest has; repeatable" }, \
	{ .name = "publish", .letter = 'p', .kind = OPT_LIST, RESUME_OFF(publish), \
	  .meta = "[ADDR:]HOST:GUEST[/tcp|udp]", \
	  .help = "port forward; none are inherited; repeatable" }, \
	{ .name = "env", .kind = OPT_LIST, RESUME_OFF(env), .meta = "K=V", \
	  .help = "environment of later commands; repeatable" }, \
	{ .name = "cwd", .kind = OPT_STRING, RESUME_OFF(cwd), .meta = "DIR", \
	  .help = "working directory of later commands, absolute" }, \
	{ .name = "memory", .kind = OPT_UINT, RESUME_OFF(memory), .meta = "MIB", \
	  .help = "must be what the guest has", .def = "that" }, \
	{ .name = "accel", .kind = OPT_CHOICE, RESUME_OFF(accel), \
	  .meta = "auto|kvm|soft", .words = OPT_WORDS_CHOICE, \
	  .help = "CPU backend", .def = "auto" }, \
	{ .name = "detach", .alias = "detached", .letter = 'd', .kind = OPT_SWITCH, \
	  RESUME_OFF(detach), .help = "return when the VM is ready; it lives on" }, \
	{ .name = "timeout", .kind = OPT_UINT, RESUME_OFF(timeout), .meta = "S", \
	  .min = 1, .max = 86400, .def = "60", \
	  .help = "seconds until the guest must answer" }, \
	{ .name = "json", .kind = OPT_SWITCH, RESUME_OFF(json), \
	  .help = "print one JSON document" }

/* Events with the times of phases kept, and SIGINT and SIGTERM made an error. */
struct work {
	struct progress progress;
	json_t *phases;		/* owned: name → microseconds */
	uint64_t begun;		/* CLOCK_MONOTONIC ns */
};

void work_begin(struct work *w);
int work_event(const struct mn_event *ev, void *work);
/* Ends the bar, gives signals back, adds "total"; the phases are the caller's. */
json_t *work_end(struct work *w);
/* 128 + N when signal N came since work_begin(), else 0. */
int work_signal(void);

/* What a configuration borrows. */
struct resume_lists {
	struct mn_port port[RESUME_MAX];
	struct mn_mount mount[RESUME_MAX];
	struct mn_live_mount live[RESUME_MAX];
	char *text[2 * RESUME_MAX];	/* owned */
	unsigned nr_texts;
};

/* Options to configuration; 0 or an exit status.  l is to be _done in any case. */
int resume_fill(const struct resume_opts *o, struct mn_resume *cfg,
		struct resume_lists *l);
void resume_lists_done(struct resume_lists *l);
/*
 * How both commands end, by what the library returned: the VM is shown, joined or
 * left running, or the error printed.  Ends w; vm is taken over.  The exit status.
 */
int resume_end(const struct resume_opts *o, int ret, struct mn_vm *vm, struct work *w,
	       struct mn_error *err);

#endif
