// SPDX-License-Identifier: MIT
/* cmd_inspect.c - machinen inspect */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/cmd.h"

struct opts {
	const char *target;
	bool json, verify;
};

static json_t *text(const char *s)
{
	return *s ? json_string(s) : json_null();
}

static json_t *disks(const struct mn_status *st)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < st->nr_disks; i++)
		json_array_append_new(list, json_pack("{s:s, s:b, s:i, s:I}",
			"id", st->disk[i].id, "readonly", st->disk[i].readonly,
			"layers", (int)st->disk[i].layers,
			"own_bytes", (json_int_t)st->disk[i].own_bytes));
	return list;
}

static json_t *counters(const struct mn_status *st)
{
	json_t *j = json_loads(st->counters, 0, NULL);

	return j ? j : json_object();
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
	return json_pack("{s:b, s:s, s:i, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:{s:I, s:I}, s:o, s:o, "
			 "s:o, s:{s:o, s:o}, s:o, s:o}",
			 "ok", 1, "kind", "vm", "pid", (int)st->pid,
			 "name", text(st->name), "state", st->state,
			 "accel", text(st->accel), "image", text(st->image),
			 "directory", text(st->directory),
			 "cpus", (json_int_t)st->cpus,
			 "started_at", (json_int_t)st->started_at_ms,
			 "uptime_ms", (json_int_t)st->uptime_ms,
			 "memory", "rss_bytes", (json_int_t)st->rss_bytes,
			 "ceiling_mib", (json_int_t)st->ceiling_mib,
			 "ports", ports, "forked_from", text(st->forked_from),
			 "image_sha256", text(st->image_sha256),
			 "kernel", "version", text(st->kernel),
			 "sha256", text(st->kernel_sha256), "disks", disks(st),
			 "counters", counters(st));
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
	out_identity("image", st->image, st->image_sha256);
	out_identity("kernel", st->kernel, st->kernel_sha256);
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
	for (unsigned i = 0; i < st->nr_disks; i++) {
		out_bytes(a, sizeof(a), st->disk[i].own_bytes);
		printf("%-12s %s: %s of its own, %u layer%s\n", i ? "" : "disks",
		       st->disk[i].id, a, st->disk[i].layers - 1,
		       st->disk[i].layers == 2 ? "" : "s");
	}
	for (unsigned i = 0; i < st->nr_ports; i++)
		printf("%-12s %s -> %u/%s\n", "port", port_host(&st->port[i], line),
		       st->port[i].guest_port, st->port[i].udp ? "udp" : "tcp");
	if (st->forked_from[0])
		row("forked from", st->forked_from);
}

/* --- images --------------------------------------------------------------- */

static json_t *words(char *const *a)
{
	json_t *j = json_array();

	for (; a && *a; a++)
		json_array_append_new(j, json_string(*a));
	return j;
}

static json_t *describe_image(const char *path, const struct mn_image *i)
{
	return json_pack("{s:b, s:s, s:s, s:s, s:I, s:I, s:I, s:b, s:{s:o, s:o, s:s?}}",
			 "ok", 1, "kind", "image", "path", path, "sha256", i->hash,
			 "bytes", (json_int_t)i->bytes,
			 "content_bytes", (json_int_t)i->content_bytes,
			 "entries", (json_int_t)i->entries, "cached", i->cached,
			 "config", "cmd", i->cmd ? words(i->cmd) : json_null(),
			 "env", words(i->env), "cwd", i->cwd);
}

static void print_words(const char *name, char *const *a)
{
	for (; a && *a; a++, name = "")
		row(name, *a);
}

static void print_image(const char *path, const struct mn_image *i)
{
	char size[64];

	row("image", path);
	out_bytes(size, sizeof(size), i->bytes);
	row("size", size);
	out_bytes(size, sizeof(size), i->content_bytes);
	row("content", size);
	printf("%-12s %llu\n", "entries", (unsigned long long)i->entries);
	row("sha256", i->hash);
	row("cached", i->cached ? "yes" : "no: its first boot prepares a disk");
	print_words("cmd", i->cmd);
	print_words("env", i->env);
	if (i->cwd)
		row("cwd", i->cwd);
}

static int inspect_image(const struct opts *o)
{
	MN_CONFIG(struct mn_image, image);
	struct mn_error err = { .code = MN_OK };
	int ret = mn_image_inspect(o->target, &image, &err);

	if (ret)
		return out_error(&err, o->json);
	if (o->json)
		out_json(describe_image(o->target, &image));
	else
		print_image(o->target, &image);
	mn_image_done(&image);
	return 0;
}

/* A VM by that name comes first, unless the word can only be a path. */
static bool means_file(const char *word)
{
	const char *base = strrchr(word, '/');
	struct stat st;

	if (*word == '/' || !strncmp(word, "./", 2) || !strncmp(word, "../", 3))
		return true;
	return strstr(base ? base : word, ".t") && !stat(word, &st) &&
	       S_ISREG(st.st_mode);
}

/* A directory is a bundle, or says why it is none. */
static int inspect_path(const struct opts *o)
{
	struct stat st;

	if (!stat(o->target, &st) && S_ISDIR(st.st_mode))
		return bundle_inspect(o->target, o->verify, o->json);
	return inspect_image(o);
}

static int run(const void *v)
{
	const struct opts *o = v;
	MN_CONFIG(struct mn_status, st);
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	struct stat file;
	int ret;

	if (means_file(o->target))
		return inspect_path(o);
	ret = mn_vm_open(o->target, &vm, &err);
	if (ret && err.code == MN_REGISTRY_VM_NOT_FOUND && !stat(o->target, &file))
		return inspect_path(o);
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
		.summary = "Show what a VM, a bundle or an image is, and where its bytes are",
		.json = "ok, kind, pid, name, state, accel, image, directory, cpus, started_at (ms), uptime_ms, memory{rss_bytes, ceiling_mib}, ports[], forked_from, image_sha256, kernel{version, sha256}, disks[{id, readonly, layers, own_bytes}], counters{} of the backend; an image: ok, kind, path, sha256, bytes, content_bytes, entries, cached, config{cmd, env, cwd}; a bundle: ok, kind, verified, path, bytes, linked, parts{memory, base, layers, state}{bytes, on_disk, linked}, restorable{here, backends[{name, ok, message}], problems[{code, message}]}, and its meta.json with memory{zero_bytes; with --verify disk_bytes, own_bytes} and files[{on_disk, links}]",
		.args = (const struct opt_arg[]){
			{ .name = "TARGET", .offset = offsetof(struct opts, target),
			  .help = "name or pid of a running VM, or the path of a bundle or image",
			  .words = OPT_WORDS_TARGET },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "verify", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, verify),
			  .help = "check every byte of a bundle" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
