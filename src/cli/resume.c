// SPDX-License-Identifier: MIT
/* resume.c - what snapshot, restore and fork have in common; see resume.h. */
#include "cli/resume.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
	came = 0;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

json_t *work_end(struct work *w)
{
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

int resume_fill(const struct resume_opts *o, struct mn_resume *cfg,
		struct mn_port *ports)
{
	const char *accel = o->accel ? o->accel : getenv("MACHINEN_ACCEL");

	if (o->json && !o->detach)
		return out_usage_error(MN_PARSE_FLAG_MALFORMED, true,
				       "--json needs --detach: the output is the VM's console");
	for (unsigned i = 0; i < o->publish.nr; i++) {
		int ret = i == RESUME_PORTS_MAX ?
			  out_usage_error(MN_BOOT_PORT_FORWARD_INVALID, o->json,
					  "at most %d ports", RESUME_PORTS_MAX) :
			  port_parse(o->publish.v[i], &ports[i], o->json);

		if (ret)
			return ret;
	}
	cfg->name = o->name;
	cfg->cwd = o->cwd;
	cfg->env = o->env.nr ? o->env.v : NULL;
	cfg->memory_mib = o->memory;
	cfg->accel = !accel || !strcmp(accel, "auto") ? MN_ACCEL_AUTO :
		     !strcmp(accel, "kvm") ? MN_ACCEL_KVM : MN_ACCEL_SOFT;
	cfg->ports = ports;
	cfg->nr_ports = o->publish.nr;
	cfg->detach = o->detach;
	cfg->timeout_ms = o->timeout * 1000;
	return 0;
}

/*
 * Its main command on our streams, after what it said before we were there.  A VM
 * without one has its console shown until it ends.  It dies with us.
 */
static int stay(struct mn_vm *vm)
{
	struct mn_error err = { .code = MN_OK };
	int fd = mn_vm_console(vm, &err), status = 0, ret;
	MN_CONFIG(struct mn_exec, cfg);
	off_t at;

	if (fd < 0)
		return out_error(&err, false);
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
	ret = out_error(err, o->json);
	return work_signal() ? work_signal() : ret;
}
