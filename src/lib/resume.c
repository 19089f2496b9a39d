// SPDX-License-Identifier: MIT
/* resume.c - what snapshots, restores and forks have in common; see resume.h. */
#include "lib/resume.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/agent_client.h"

#define LINEAGE_MAX (256u << 10)
#define LINEAGE_LEN 64		/* entries that are kept */
#define ENTROPY	    64
#define RETRY_MS    5
#define GO_ON_NS    200000000ull /* between two looks whether the caller still waits */
#define CLOCK_NS    25000000ull	/* how far off a guest's clock may be set */
#define CLOCK_TRIES 8

void resume_config(const struct mn_resume *cfg, struct mn_boot *boot)
{
	*boot = (struct mn_boot){
		.size = sizeof(*boot), .name = cfg->name, .env = cfg->env,
		.cwd = cfg->cwd, .memory_mib = cfg->memory_mib, .accel = cfg->accel,
		.ports = cfg->ports, .nr_ports = cfg->nr_ports, .detach = cfg->detach,
		.timeout_ms = cfg->timeout_ms, .event = cfg->event,
		.event_arg = cfg->event_arg, .image = cfg->image,
		.mounts = cfg->mounts, .nr_mounts = cfg->nr_mounts,
	};
}

int resume_check(struct booting *b)
{
	const struct mn_boot *cfg = b->cfg;

	for (const char *const *e = cfg->env; e && *e; e++)
		if (**e == '=' || !strchr(*e, '='))
			return err_code(b->err, ERR_PARSE_FLAG_MALFORMED, EINVAL,
					"environment \"%s\": must be KEY=VALUE", *e);
	if (cfg->cwd && cfg->cwd[0] != '/')
		return err_code(b->err, ERR_BOOT_CWD_INVALID, EINVAL,
				"--cwd \"%s\": must be an absolute path", cfg->cwd);
	if (cfg->memory_mib && cfg->memory_mib != b->vm->reg.memory_mib)
		return err_code(b->err, ERR_BOOT_MEMORY_INVALID, EINVAL,
				"the guest runs with %llu MiB of memory already; that cannot change",
				(unsigned long long)b->vm->reg.memory_mib);
	if (cfg->nr_ports && !b->spec.net)
		return err_code(b->err, ERR_BOOT_PORT_FORWARD_INVALID, EINVAL,
				"a VM without network forwards no ports");
	return cfg->name ? registry_check_name(cfg->name, b->err) : 0;
}

int resume_new_layer(int dir, const char *id, char *name, size_t size,
		     struct err *err)
{
	char vms[PATH_MAX];
	int fd, ret;

	snprintf(name, size, "%.19s.%llx.layer", id, (unsigned long long)io_now_ns());
	fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ret = -errno;
	if (fd >= 0)
		return fd;
	return home_registry(vms, NULL) ? err_set(err, -ret, "cannot make a disk") :
	       lib_host_err(err, ret, vms, "cannot make a disk in");
}

int resume_phases(const json_t *answer, mn_event_fn fn, void *arg)
{
	json_t *phases = json_object_get(answer, "phases"), *v;
	const char *key;
	int ret = 0;

	json_object_foreach(phases, key, v) {
		struct mn_event ev = { .type = MN_EVENT_PHASE,
				       .ms = (double)json_integer_value(v) / 1000 };
		char name[32];

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(key, "_"), key);
		ev.name = name;
		if (fn && !ret)
			ret = fn(&ev, arg);
	}
	return ret;
}

/* --- lineage -------------------------------------------------------------- */

json_t *resume_lineage(const struct mn_vm *vm, const char *event)
{
	struct buf text = BUF_INIT;
	json_t *list = NULL;
	struct timespec now;

	if (!io_read_file(vm->dir, "lineage.json", LINEAGE_MAX, &text) && text.len)
		list = json_parse(text.data, text.len, NULL);
	buf_done(&text);
	if (!json_is_array(list)) {
		json_decref(list);
		list = json_array();
	}
	if (json_array_size(list) >= LINEAGE_LEN)
		json_array_remove(list, 0);
	clock_gettime(CLOCK_REALTIME, &now);
	json_array_append_new(list, json_pack("{s:s, s:o, s:i, s:I}", "event", event,
		"name", json_text(vm->reg.name), "pid", (int)vm->reg.id.pid,
		"at", (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000));
	return list;
}

int resume_keep_lineage(struct booting *b, const json_t *list)
{
	struct buf text = BUF_INIT;
	int ret;

	if (!json_is_array(list))
		return 0;
	json_print(list, &text);
	ret = text.oom ? -ENOMEM : io_write_file(b->vm->dir, "lineage.json", text.data,
						 text.len, 0600);
	buf_done(&text);
	return ret ? lib_host_err(b->err, ret, b->reg.path, "cannot write to") : 0;
}

/* --- the thaw ------------------------------------------------------------- */

static void put_time(json_t **req)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	json_put(req, "time_ns", json_integer(
		(json_int_t)now.tv_sec * 1000000000 + now.tv_nsec));
}

/* The clock is read last: what follows is on the way already. */
static json_t *thaw_request(const struct booting *b)
{
	const struct spec *s = &b->spec;
	uint8_t random[ENTROPY];
	char hex[2 * ENTROPY + 1], host[64], mac[18];
	json_t *req;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return NULL;
	for (unsigned i = 0; i < ENTROPY; i++)
		snprintf(hex + 2 * i, 3, "%02x", random[i]);
	boot_host_name(b->vm->reg.name, host);
	/* digits alone are no name to be found by */
	if (b->past && strspn(host, "0123456789") == strlen(host)) {
		char past[64];

		boot_host_name(b->past, past);
		snprintf(host, sizeof(host), "%.40s-%d", past, b->vm->reg.id.pid);
	}
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", s->mac[0], s->mac[1],
		 s->mac[2], s->mac[3], s->mac[4], s->mac[5]);
	req = json_pack("{s:s, s:s, s:s, s:s*, s:s*}", "op", "thaw", "entropy", hex,
			"hostname", host, "mac", s->net ? mac : NULL, "cwd", b->cfg->cwd);
	if (b->cfg->env)
		json_put(&req, "env", json_strings(b->cfg->env));
	put_time(&req);
	return req;
}

static int go_on(const struct booting *b)
{
	return lib_progress(b->cfg->event, b->cfg->event_arg, "waiting for the guest", 0, 0);
}

/* Within the deadline, and while the caller wants it. */
static int connect_agent(struct booting *b)
{
	for (;;) {
		uint64_t slice = MIN(io_now_ns() + GO_ON_NS, b->deadline);
		struct err err = ERR_INIT;
		int fd = agent_connect(b->vm->dir, b->vm->pidfd, slice, &err);

		if (fd == -ETIMEDOUT && slice < b->deadline && !go_on(b))
			continue;
		if (fd < 0)
			*b->err = err;
		return fd;
	}
}

static int wait_answer(struct booting *b, int fd)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
			       { .fd = b->vm->pidfd, .events = POLLIN } };
	int n = 0;

	while (n <= 0) {
		n = poll(p, 2, GO_ON_NS / 1000000);
		if (n < 0 && errno != EINTR)
			return err_set(b->err, errno, "cannot wait for the guest");
		if (n <= 0 && (io_now_ns() >= b->deadline || go_on(b)))
			return err_code(b->err, ERR_BOOT_TIMEOUT, ETIMEDOUT,
					"the guest agent gave no answer");
	}
	return 0;
}

static json_t *clock_request(const struct booting *b)
{
	json_t *req = json_pack("{s:s}", "op", "clock");

	put_time(&req);
	return req;
}

/* took: from when the clock was read until there was an answer. */
static int request(struct booting *b, json_t *(*make)(const struct booting *b),
		   uint64_t *took)
{
	cleanup(io_closep) int fd = connect_agent(b);
	uint64_t since = io_now_ns();
	json_t *req;
	int ret;

	if (fd < 0)
		return boot_explain(b, fd);
	req = make(b);
	ret = req ? agent_send_json(fd, req) : -EIO;
	json_decref(req);
	if (ret)
		return err_code(b->err, ERR_BOOT_READINESS_FAILED, ret == -EIO ? EIO :
				ECONNRESET, "the guest agent went away: %s", strerror(-ret));
	ret = wait_answer(b, fd);
	*took = io_now_ns() - since;
	return ret ? boot_explain(b, ret) :
		     agent_answer(fd, NULL, ERR_BOOT_READINESS_FAILED, b->err);
}

/*
 * A clock is set as late as its request is read, and on a busy host that is any time
 * after it was sent.  So where it cannot be known to be right it is set again, which
 * takes a warm agent a millisecond.  An agent in an old bundle may not know how.
 */
static void settle_clock(struct booting *b, uint64_t took)
{
	struct err err = *b->err;

	for (unsigned k = 0; took > CLOCK_NS && k < CLOCK_TRIES; k++)
		if (request(b, clock_request, &took))
			break;
	*b->err = err;
}

/*
 * The guest's kernel resets what it thinks are the source's connections, and one
 * made while it does may be among them.
 */
int resume_thaw(struct booting *b)
{
	struct err err = *b->err;
	uint64_t took = 0;
	int ret;

	for (;;) {
		ret = request(b, thaw_request, &took);
		if (!ret)
			settle_clock(b, took);
		if (ret != -ECONNRESET && ret != -EPIPE)
			return ret;
		if (io_now_ns() >= b->deadline || proc_wait(b->vm->pidfd, RETRY_MS))
			return boot_explain(b, ret);
		*b->err = err;
	}
}
