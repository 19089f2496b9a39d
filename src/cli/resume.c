// SPDX-License-Identifier: MIT
/* resume.c - what snapshot, restore and fork have in common; see resume.h. */
#include "cli/resume.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

#define POWEROFF_MS 10000	/* for a guest whose command has ended */

static volatile sig_atomic_t came;

static void on_signal(int signo)
{
	came = signo;
}

/* A half-made VM or bundle is taken back before the program ends. */
void work_begin(struct work *w)
{
	struct sigaction sa = { .sa_handler = on_signal };

	progress_init(&w->progress);
	w->phases = json_object();
	w->begun = io_now_ns();
	came = 0;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

json_t *work_end(struct work *w)
{
	json_object_set_new(w->phases, "total",
			    json_integer((json_int_t)((io_now_ns() - w->begun) / 1000)));
	progress_end(&w->progress);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	return w->phases;
}

int work_signal(void)
{
	return came ? 128 + came : 0;
}

int work_event(const struct mn_event *ev, void *work)
{
	struct work *w = work;

	if (ev->type == MN_EVENT_PHASE)
		json_object_set_new(w->phases, ev->name,
				    json_integer((json_int_t)(ev->ms * 1000)));
	return came ? -EINTR : progress_event(ev, &w->progress);
}

static int fill_ports(const struct resume_opts *o, struct mn_resume *cfg,
		      struct resume_lists *l)
{
	int ret = 0;

	if (o->publish.nr > RESUME_MAX)
		return out_usage_error(MN_BOOT_PORT_FORWARD_INVALID, o->json,
				       "at most %d ports", RESUME_MAX);
	for (unsigned i = 0; i < o->publish.nr && !ret; i++)
		ret = port_parse(o->publish.v[i], &l->port[i], o->json);
	cfg->ports = l->port;
	cfg->nr_ports = o->publish.nr;
	return ret;
}

static int pair(const struct resume_opts *o, struct resume_lists *l, const char *word,
		const char **host, const char **guest)
{
	int ret = path_pair(word, MN_BOOT_MOUNT_INVALID, o->json, &l->text[l->nr_texts],
			    host, guest);

	if (!ret)
		l->nr_texts++;
	return ret;
}

/* HOST:GUEST[:rw|ro] */
static int live_pair(const struct resume_opts *o, struct resume_lists *l,
		     const char *word, struct mn_live_mount *m)
{
	size_t len = strlen(word);
	char bare[PATH_MAX * 2];

	if (len >= sizeof(bare))
		return out_usage_error(MN_BOOT_MOUNT_INVALID, o->json, "too long a path");
	memcpy(bare, word, len + 1);
	m->readonly = len > 3 && !strcmp(word + len - 3, ":ro");
	if (m->readonly || (len > 3 && !strcmp(word + len - 3, ":rw")))
		bare[len - 3] = '\0';
	return pair(o, l, bare, &m->host, &m->guest);
}

static int fill_mounts(const struct resume_opts *o, struct mn_resume *cfg,
		       struct resume_lists *l)
{
	int ret = 0;

	if (o->mount.nr > RESUME_MAX || o->mount_live.nr > RESUME_MAX)
		return out_usage_error(MN_BOOT_MOUNT_INVALID, o->json,
				       "at most %d mounts", RESUME_MAX);
	for (unsigned i = 0; i < o->mount.nr && !ret; i++)
		ret = pair(o, l, o->mount.v[i], &l->mount[i].host, &l->mount[i].guest);
	for (unsigned i = 0; i < o->mount_live.nr && !ret; i++)
		ret = live_pair(o, l, o->mount_live.v[i], &l->live[i]);
	cfg->mounts = l->mount;
	cfg->nr_mounts = o->mount.nr;
	cfg->live_mounts = l->live;
	cfg->nr_live_mounts = o->mount_live.nr;
	return ret;
}

int resume_fill(const struct resume_opts *o, struct mn_resume *cfg,
		struct resume_lists *l)
{
	const char *accel = o->accel ? o->accel : getenv("MACHINEN_ACCEL");
	int ret;

	l->nr_texts = 0;
	if (o->json && !o->detach)
		return out_usage_error(MN_PARSE_FLAG_MALFORMED, true,
				       "--json needs --detach: the output is the VM's console");
	ret = fill_ports(o, cfg, l);
	if (!ret)
		ret = fill_mounts(o, cfg, l);
	cfg->name = o->name;
	cfg->image = o->image;
	cfg->cwd = o->cwd;
	cfg->env = o->env.nr ? o->env.v : NULL;
	cfg->memory_mib = o->memory;
	cfg->accel = !accel || !strcmp(accel, "auto") ? MN_ACCEL_AUTO :
		     !strcmp(accel, "kvm") ? MN_ACCEL_KVM : MN_ACCEL_SOFT;
	cfg->detach = o->detach;
	cfg->timeout_ms = o->timeout * 1000;
	return ret;
}

void resume_lists_done(struct resume_lists *l)
{
	while (l->nr_texts)
		free(l->text[--l->nr_texts]);
}

/*
 * Its main command on our streams, after what it said before we were there.  A VM
 * without one has its console shown until it ends.  It dies with us.
 */
static int stay(struct mn_vm *vm)
{
	struct mn_error err = { .code = MN_OK };
	int fd = mn_vm_console(vm, &err), log = mn_vm_log(vm, NULL), status = 0, ret;
	MN_CONFIG(struct mn_exec, cfg);
	off_t at;

	if (fd < 0) {
		console_refusals(log);
		return out_error(&err, false);
	}
	at = console_copy(fd, 0);
	cfg.join = true;
	cfg.tty = terminal_both();
	ret = terminal_exec(vm, &cfg, false, &status);
	if (ret == -ESRCH) {
		console_follow(vm, fd, at < 0 ? 0 : at);
		ret = 0;
	} else if (!ret) {
		mn_vm_wait(vm, POWEROFF_MS, NULL);
	}
	close(fd);
	console_refusals(log);
	return ret ? ret : status;
}

static int resume_done(const struct resume_opts *o, struct mn_vm *vm, json_t *phases)
{
	const char *name = mn_vm_name(vm);
	int ret = 0;

	if (o->json)
		ret = out_json(json_pack("{s:b, s:i, s:s?, s:O}", "ok", 1, "pid",
					 (int)mn_vm_pid(vm), "name", name, "phases", phases));
	else if (!o->detach)
		ret = stay(vm);
	else if (name)
		puts(name);
	else
		printf("%d\n", mn_vm_pid(vm));
	json_decref(phases);
	mn_vm_free(vm);
	return ret;
}

int resume_end(const struct resume_opts *o, int ret, struct mn_vm *vm, struct work *w,
	       struct mn_error *err)
{
	work_end(w);
	if (!ret)
		return resume_done(o, vm, w->phases);
	json_decref(w->phases);
	return work_signal() ? work_signal() : out_error(err, o->json);
}
