// SPDX-License-Identifier: MIT
/* bundle.c - what `inspect` says about a bundle; see cmd.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "cli/cmd.h"

static const char *str(const json_t *o, const char *key)
{
	return json_str_opt(o, key, "", NULL);
}

static uint64_t num(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static void when(uint64_t ms, char out[64])
{
	time_t t = (time_t)(ms / 1000);
	struct tm tm;

	strftime(out, 64, "%F %T", localtime_r(&t, &tm));
}

/* A row of text put together; nothing when there is none. */
static void row(const char *name, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void row(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("%-12s ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void print_lineage(const json_t *doc)
{
	json_t *e;
	size_t i;

	json_array_foreach(json_object_get(doc, "lineage"), i, e) {
		const char *name = str(e, "name");
		char at[64];

		when(num(e, "at"), at);
		row(i ? "" : "lineage", "%s of %s (pid %llu), %s", str(e, "event"),
		    *name ? name : "a VM", (unsigned long long)num(e, "pid"), at);
	}
}

static void print_files(const json_t *doc)
{
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(doc, "files"), i, f) {
		char size[32], disk[32];

		out_bytes(size, sizeof(size), num(f, "size"));
		out_bytes(disk, sizeof(disk), num(f, "on_disk"));
		row(i ? "" : "files", "%-16s %10s, on disk %s%s", str(f, "name"), size,
		    disk, num(f, "links") > 1 ? ", shared" : "");
	}
}

static void print_identity(const json_t *doc)
{
	const json_t *source = json_object_get(doc, "source");
	const json_t *kernel = json_object_get(doc, "kernel");
	const json_t *cpu = json_object_get(doc, "cpu");
	const char *name = str(source, "name");
	char at[64];

	when(num(doc, "created_at"), at);
	row("of", "%s (pid %llu) on %s, %s", *name ? name : "a VM",
	    (unsigned long long)num(source, "pid"), str(source, "host"), at);
	row("made by", "machinen %s, format %llu", str(doc, "machinen"),
	    (unsigned long long)num(doc, "format_version"));
	out_identity("image", str(doc, "image"), str(doc, "image_sha256"));
	out_identity("kernel", str(kernel, "version"), str(kernel, "sha256"));
	row("machine", "%s, %s, %llu CPU, %llu MiB", str(doc, "arch"),
	    str(cpu, "model"), (unsigned long long)num(doc, "cpus"),
	    (unsigned long long)num(doc, "memory_mib"));
}

static void print_memory(const json_t *doc)
{
	const json_t *m = json_object_get(doc, "memory");
	char all[32], zero[32], shared[32], own[32];

	out_bytes(all, sizeof(all), num(m, "bytes"));
	out_bytes(zero, sizeof(zero), num(m, "zero_bytes"));
	row("memory", "%s in %llu pages, %s zero", all,
	    (unsigned long long)num(m, "pages"), zero);
	if (!json_object_get(m, "own_bytes"))
		return;
	out_bytes(shared, sizeof(shared), num(m, "disk_bytes"));
	out_bytes(own, sizeof(own), num(m, "own_bytes"));
	row("", "%s of it as on its disks, %s its own", shared, own);
}

static void print_parts(const json_t *doc)
{
	const json_t *p;
	const char *name;
	char a[32], b[32];

	out_bytes(a, sizeof(a), num(doc, "bytes"));
	out_bytes(b, sizeof(b), num(doc, "linked"));
	row("on disk", "%s, %s of it shared with others", a, b);
	json_object_foreach(json_object_get(doc, "parts"), name, p) {
		out_bytes(a, sizeof(a), num(p, "on_disk"));
		out_bytes(b, sizeof(b), num(p, "bytes"));
		row("", "%-8s %10s of %s", name, a, b);
	}
}

/* Yes, and on which CPU backend; or every reason why not. */
static void print_restorable(const json_t *doc)
{
	const json_t *r = json_object_get(doc, "restorable"), *p;
	const char *head = "restorable";
	size_t i;

	json_array_foreach(json_object_get(r, "backends"), i, p) {
		if (!json_is_true(json_object_get(p, "ok")))
			continue;
		row(head, "%s, on the %s backend", json_is_true(json_object_get(r, "here")) ?
		    "yes" : "not as it is", str(p, "name"));
		head = "";
	}
	json_array_foreach(json_object_get(r, "problems"), i, p) {
		row(head, "%s(%s): %s", *head ? "no: " : "", str(p, "code"),
		    str(p, "message"));
		head = "";
	}
}

static void print(const json_t *doc, bool verified)
{
	row("bundle", "%s", str(doc, "path"));
	print_restorable(doc);
	print_identity(doc);
	print_memory(doc);
	print_parts(doc);
	print_lineage(doc);
	print_files(doc);
	if (verified)
		row("verified", "every byte matches");
}

int bundle_inspect(const char *path, bool verify, bool json)
{
	struct mn_error err = { .code = MN_OK };
	struct progress p;
	json_t *doc;
	char *text;
	int ret;

	progress_init(&p);
	ret = mn_bundle_inspect(path, verify, progress_event, &p, &text, &err);
	progress_end(&p);
	if (ret)
		return out_error(&err, json);
	doc = json_parse(text, strlen(text), NULL);
	free(text);
	json_object_set_new(doc, "ok", json_true());
	json_object_set_new(doc, "kind", json_string("bundle"));
	json_object_set_new(doc, "verified", json_boolean(verify));
	if (json)
		return out_json(doc);
	print(doc, verify);
	json_decref(doc);
	return 0;
}
