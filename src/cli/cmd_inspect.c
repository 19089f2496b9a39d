// SPDX-License-Identifier: MIT
/* cmd_inspect.c - machinen inspect */
#include <stdio.h>
#include <time.h>

#include "cli/cmd.h"

struct opts {
	const char *target;
	bool json;
};

static json_t *text(const char *s)
{
	return *s ? json_string(s) : json_null();
}

static json_t *describe(const struct mn_status *st)
{
	json_t *ports = json_array();

	for (unsigned i = 0; i < st->nr_ports; i++)
		json_array_append_new(ports, json_pack("{s:s, s:i, s:i, s:s}",
			"host_addr", st->port[i].host_addr,
			"host_port", st->port[i].host_port,
			"guest_port", st->port[i].guest_port,
			"proto", st->port[i].udp ? "udp" : "tcp"));
	return json_pack("{s:b, s:s, s:i, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:{s:I, s:I}, s:o, s:o}",
			 "ok", 1, "kind", "vm", "pid", (int)st->pid,
			 "name", text(st->name), "state", st->state,
			 "accel", text(st->accel), "image", text(st->image),
			 "directory", text(st->directory),
			 "cpus", (json_int_t)st->cpus,
			 "started_at", (json_int_t)st->started_at_ms,
			 "uptime_ms", (json_int_t)st->uptime_ms,
			 "memory", "rss_bytes", (json_int_t)st->rss_bytes,
			 "ceiling_mib", (json_int_t)st->ceiling_mib,
			 "ports", ports, "forked_from", text(st->forked_from));
}

static void row(const char *name, const char *value)
{
	printf("%-12s %s\n", name, value);
}

static void print(const struct mn_status *st)
{
	char a[64], b[64], line[160];
	time_t began = st->started_at_ms / 1000;
	struct tm tm;

	printf("%-12s %d\n", "pid", st->pid);
	row("name", st->name[0] ? st->name : "-");
	row("state", st->state);
	row("accel", st->accel[0] ? st->accel : "-");
	row("image", st->image);
	row("directory", st->directory);
	out_duration(a, sizeof(a), st->uptime_ms);
	strftime(b, sizeof(b), "%F %T", localtime_r(&began, &tm));
	snprintf(line, sizeof(line), "%s, since %s", a, b);
	row("up", line);
	printf("%-12s %llu\n", "cpus", (unsigned long long)st->cpus);
	out_bytes(a, sizeof(a), st->rss_bytes);
	out_bytes(b, sizeof(b), st->ceiling_mib << 20);
	snprintf(line, sizeof(line), "%s of %s", a, b);
	row("memory", line);
	for (unsigned i = 0; i < st->nr_ports; i++)
		printf("%-12s %s:%u -> %u/%s\n", "port", st->port[i].host_addr,
		       st->port[i].host_port, st->port[i].guest_port,
		       st->port[i].udp ? "udp" : "tcp");
	if (st->forked_from[0])
		row("forked from", st->forked_from);
}

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_status, st);
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	int ret = mn_vm_open(o->target, &vm, &err);

	if (!ret)
		ret = mn_vm_status(vm, true, &st, &err);
	mn_vm_free(vm);
	if (ret)
		return out_error(&err, o->json);
	if (o->json)
		return out_json(describe(&st));
	print(&st);
	return 0;
}

const struct cmd cmd_inspect = {
	.opt = {
		.name = "inspect",
		.summary = "Show what a VM is and where its files are",
		.json = "ok, kind, pid, name, state, accel, image, directory, cpus, started_at (ms), uptime_ms, memory{rss_bytes, ceiling_mib}, ports[], forked_from",
		.args = (const struct opt_arg[]){
			CMD_ARG_TARGET(struct opts),
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
