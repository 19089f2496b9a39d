// SPDX-License-Identifier: MIT
/*
 * thaw.c - a VM that came out of a bundle or a fork becomes itself, and numbers
 * about the guest; see agent.h.
 *
 * Everything is done on descriptors from before and by plain system calls: the
 * thaw is on the way to the first command of the new VM, and a fork of PID 1
 * would cost more than all of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/boot.h"
#include "guest/guest.h"

#define THAW_ENTROPY_MAX 512

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Two VMs of one past must not draw the same random numbers. */
static int mix_entropy(const struct guest *g, const char *hex)
{
	struct {
		struct rand_pool_info head;
		uint8_t bytes[THAW_ENTROPY_MAX];
	} pool;
	size_t len = strlen(hex) / 2;
	int r = 0;

	if (len > sizeof(pool.bytes) || strlen(hex) % 2)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		pool.bytes[i] = high << 4 | low;
	}
	pool.head.entropy_count = len * 8;
	pool.head.buf_size = len;
	if (ioctl(g->random, RNDADDENTROPY, &pool) ||
	    ioctl(g->random, RNDRESEEDCRNG))
		r = -errno;
	explicit_bzero(&pool, sizeof(pool));
	return r;
}

static int set_clock(int64_t ns)
{
	struct timespec t = { .tv_sec = ns / 1000000000,
			      .tv_nsec = ns % 1000000000 };

	return clock_settime(CLOCK_REALTIME, &t) ? -errno : 0;
}

/* Commands of the VM's past belong to connections that the source keeps. */
static void close_past(struct session *now)
{
	struct list *head = &now->a->sessions, *next;

	for (struct list *n = head->next; n != head; n = next) {
		struct session *s = list_entry(n, struct session, node);

		next = n->next;
		if (s == now)
			return;		/* what follows is newer */
		if (s->state == SESSION_EXEC && s->raw)
			continue;
		session_drop(s);
	}
}

static int replace_defaults(struct guest *g, const struct doc *d)
{
	char **env = doc_strv(d, doc_get(d, DOC_ROOT, "env"));
	const char *cwd = doc_str(d, doc_get(d, DOC_ROOT, "cwd"));
	int r = env ? 0 : -EINVAL;

	for (char **e = env; !r && *e; e++)
		r = guest_env_add(&g->env, *e);
	free(env);
	if (cwd) {
		free(g->cwd);
		g->cwd = strdup(cwd);
	}
	return r;
}

void thaw_request(struct session *s, const struct doc *d)
{
	struct guest *g = s->a->g;
	const char *entropy = doc_str(d, doc_get(d, DOC_ROOT, "entropy"));
	const char *name = doc_str(d, doc_get(d, DOC_ROOT, "hostname"));
	const char *mac = doc_str(d, doc_get(d, DOC_ROOT, "mac"));
	int64_t ns = doc_int(d, doc_get(d, DOC_ROOT, "time_ns"), 0);
	const char *what = "clock";
	int r = 0;

	close_past(s);
	if (ns > 0)
		r = set_clock(ns);
	if (!r && entropy) {
		what = "entropy";
		r = mix_entropy(g, entropy);
	}
	if (!r && name) {
		what = "host name";
		r = sethostname(name, strlen(name)) ? -errno : 0;
	}
	if (!r && mac) {
		what = "MAC address";
		r = net_set_mac(g, mac);
	}
	if (!r) {
		what = "environment";
		r = replace_defaults(g, d);
	}
	if (r) {
		session_fail(s, -r, what);
		return;
	}
	session_ok(s);
	session_linger(s);
}

/* The time once more: that of a thaw may have been long on its way. */
void clock_request(struct session *s, const struct doc *d)
{
	int64_t ns = doc_int(d, doc_get(d, DOC_ROOT, "time_ns"), 0);
	int r = ns > 0 ? set_clock(ns) : -EINVAL;

	if (r) {
		session_fail(s, -r, "clock");
		return;
	}
	session_ok(s);
	session_linger(s);
}

/* Appends "NAME":bytes for a line "NAME:   N kB" of meminfo. */
static void meminfo(char *json, size_t size, const char *text, const char *name)
{
	const char *at = strstr(text, name);
	size_t len = strlen(json);

	if (at && at[strlen(name)] == ':')
		snprintf(json + len, size - len, "\"%s\":%llu,", name,
			 strtoull(at + strlen(name) + 1, NULL, 10) << 10);
}

static void read_proc(const struct guest *g, const char *name, char *text,
		      size_t size)
{
	int fd = openat(g->proc, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, size - 1) : 0;

	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

void stats_request(struct session *s, const struct doc *d)
{
	static const char *const names[] = {
		"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached",
		"SwapTotal", "SwapFree",
	};
	char json[1024] = "{", text[4096];
	struct statvfs fs = { .f_bsize = 0 };
	size_t len;

	read_proc(s->a->g, "meminfo", text, sizeof(text));
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		meminfo(json, sizeof(json), text, names[i]);
	read_proc(s->a->g, "loadavg", text, sizeof(text));
	text[strcspn(text, " \n")] = '\0';
	statvfs("/", &fs);
	len = strlen(json);
	snprintf(json + len, sizeof(json) - len,
		 "\"load\":\"%.16s\",\"disk_total\":%llu,\"disk_free\":%llu,"
		 "\"sessions\":%u}", text,
		 (unsigned long long)fs.f_blocks * fs.f_frsize,
		 (unsigned long long)fs.f_bavail * fs.f_frsize,
		 s->a->nr_sessions - 1);
	session_send(s, AGENT_OK, json, strlen(json));
	session_linger(s);
}
