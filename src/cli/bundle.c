// SPDX-License-Identifier: MIT
/* bundle.c - what `inspect` says about a bundle; see cmd.h. */
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

static void print_lineage(const json_t *doc)
{
	json_t *e;
	size_t i;

	json_array_foreach(json_object_get(doc, "lineage"), i, e) {
		char at[64];

		when(num(e, "at"), at);
		printf("%-12s %s of %s (pid %llu), %s\n", i ? "" : "lineage",
		       str(e, "event"), str(e, "name"),
		       (unsigned long long)num(e, "pid"), at);
	}
}

static void print_files(const json_t *doc)
{
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(doc, "files"), i, f) {
		char size[32];

		out_bytes(size, sizeof(size), num(f, "size"));
		printf("%-12s %-24s %s\n", i ? "" : "files", str(f, "name"), size);
	}
}

static void print(const json_t *doc, bool verified)
{
	const json_t *source = json_object_get(doc, "source");
	const json_t *memory = json_object_get(doc, "memory");
	const json_t *cpu = json_object_get(doc, "cpu");
	char a[64], b[64];

	printf("%-12s %s\n", "bundle", str(doc, "path"));
	when(num(doc, "created_at"), a);
	printf("%-12s %s on %s, %s\n", "of", str(source, "name"), str(source, "host"), a);
	printf("%-12s %s\n", "image", str(doc, "image"));
	printf("%-12s %s, %s, %llu CPU\n", "machine", str(doc, "arch"), str(cpu, "model"),
	       (unsigned long long)num(doc, "cpus"));
	out_bytes(a, sizeof(a), num(memory, "span"));
	out_bytes(b, sizeof(b), num(memory, "bytes"));
	printf("%-12s %s, %s of it not zero\n", "memory", a, b);
	out_bytes(a, sizeof(a), num(doc, "bytes"));
	out_bytes(b, sizeof(b), num(doc, "linked"));
	printf("%-12s %s, %s of it shared with others\n", "on disk", a, b);
	print_lineage(doc);
	print_files(doc);
	if (verified)
		printf("%-12s every byte matches\n", "verified");
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
