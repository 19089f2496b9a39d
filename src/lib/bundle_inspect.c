// SPDX-License-Identifier: MIT
/*
 * bundle_inspect.c - mn_bundle_inspect: what a bundle is, where its bytes are, and
 * whether it can be resumed here.
 *
 * What keeps it from that is no failure of the call but what it was called for, so
 * it goes into the answer.  Only `verify` makes damage an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/bundle.h"
#include "lib/run.h"
#include "lib/vm.h"
#include "proto/memsum.h"

/* --- can it be resumed? ----------------------------------------------------- */

static void add_problem(json_t *problems, enum err_code code, const char *message)
{
	json_array_append_new(problems, json_pack("{s:s, s:o}", "code",
			      err_code_name(code), "message", json_text(message)));
}

/* "soft ok", or "kvm why not", a line each: what the VMM says about this bundle. */
static bool take_backends(json_t *list, char *text, struct buf *why)
{
	bool any = false;

	for (char *line = text, *next; *line; line = next) {
		char *reason;

		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		reason = strchr(line, ' ');
		if (!reason)
			continue;
		*reason++ = '\0';
		if (!strcmp(reason, "ok"))
			any = true;
		else
			buf_addf(why, "%s%s: %s", why->len ? "; " : "", line, reason);
		json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "name", line,
			"ok", !strcmp(reason, "ok"), "message",
			strcmp(reason, "ok") ? json_text(reason) : json_null()));
	}
	return any;
}

/* Each CPU backend on this host against what the guest was started with. */
static void check_cpu(const struct bundle *b, json_t *backends, json_t *problems)
{
	struct buf out = BUF_INIT, why = BUF_INIT;
	struct err err = ERR_INIT;
	struct booting find = { .err = &err };
	const char *const argv[] = { find.vmm, "--probe", b->path, NULL };
	struct run run = { .argv = argv, .output = &out };
	int ret = boot_find_vmm(&find);

	if (!ret)
		ret = run_program(&run, &err);
	if (ret)
		add_problem(problems, err.code ? err.code : ERR_SNAPSHOT_DAMAGED,
			    err_cause(&err, 0) ? err_cause(&err, 0) : err_message(&err));
	else if (!out.len || !take_backends(backends, out.data, &why))
		add_problem(problems, ERR_SNAPSHOT_CPU_MISMATCH,
			    why.len ? why.data : "no CPU backend runs it");
	buf_done(&out);
	buf_done(&why);
}

/* No bundle knows a directory of this host: restore has to be told. */
static void check_live_mounts(const struct bundle *b, json_t *problems)
{
	for (unsigned i = 0; i < b->spec.nr_fs; i++) {
		char text[PATH_MAX];

		snprintf(text, sizeof(text), "the guest has a live mount on %.3000s: restore "
			 "it with --mount-live HOST:%.100s", b->spec.fs[i].guest,
			 b->spec.fs[i].guest);
		add_problem(problems, ERR_BOOT_MOUNT_HOST_NOT_FOUND, text);
	}
}

static json_t *judge(struct bundle *b, const struct err *found)
{
	json_t *backends = json_array(), *problems = json_array();

	if (found->num) {
		add_problem(problems, found->code, err_message(found));
	} else {
		check_cpu(b, backends, problems);
		check_live_mounts(b, problems);
	}
	return json_pack("{s:b, s:o, s:o}", "here", !json_array_size(problems),
			 "backends", backends, "problems", problems);
}

/* --- where its bytes are ---------------------------------------------------- */

struct part {
	uint64_t bytes, on_disk, linked;
};

/* "root.0" is a base, "root.1" a layer; the rest is named by what it is. */
static const char *part_of(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (dot)
		return strcmp(dot, ".0") ? "layers" : "base";
	return strcmp(name, "memory") ? "state" : "memory";
}

static json_t *part_json(const struct part *p)
{
	return json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)p->bytes, "on_disk",
			 (json_int_t)p->on_disk, "linked", (json_int_t)p->linked);
}

/* Adds to each file what it takes on disk, and to doc their sums. */
static void weigh(const struct bundle *b, json_t *doc)
{
	static const char *const names[] = { "memory", "base", "layers", "state" };
	struct part part[ARRAY_LEN(names)] = { { 0 } }, all = { 0 };
	json_t *parts = json_object(), *f;
	struct stat st;
	size_t i;

	json_array_foreach(json_object_get(doc, "files"), i, f) {
		const char *name = json_str_opt(f, "name", "", NULL);
		struct part *p = part;

		if (strchr(name, '/') || fstatat(b->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		while (strcmp(names[p - part], part_of(name)))
			p++;
		json_object_set_new(f, "on_disk", json_integer(st.st_blocks * 512));
		json_object_set_new(f, "links", json_integer((json_int_t)st.st_nlink));
		p->bytes += (uint64_t)st.st_size;
		p->on_disk += (uint64_t)st.st_blocks * 512;
		p->linked += st.st_nlink > 1 ? (uint64_t)st.st_blocks * 512 : 0;
	}
	for (i = 0; i < ARRAY_LEN(names); i++) {
		json_object_set_new(parts, names[i], part_json(&part[i]));
		all.on_disk += part[i].on_disk;
		all.linked += part[i].linked;
	}
	json_object_set_new(doc, "parts", parts);
	json_object_set_new(doc, "bytes", json_integer((json_int_t)all.on_disk));
	json_object_set_new(doc, "linked", json_integer((json_int_t)all.linked));
}

/* Memory by kind: zero; the same as on its disks, for who reads everything; own. */
static int sort_memory(const struct bundle *b, json_t *doc, bool deep, struct err *err)
{
	json_t *m = json_object_get(doc, "memory");
	json_int_t all = json_integer_value(json_object_get(doc, "memory_mib")) *
			 (json_int_t)MIB;
	json_int_t bytes = json_integer_value(json_object_get(m, "bytes"));
	uint64_t shared = 0;
	int ret = deep ? bundle_shared_pages(b, &shared, err) : 0;

	if (ret || !json_is_object(m))
		return ret;
	json_object_set_new(m, "zero_bytes", json_integer(MAX(all - bytes, 0)));
	if (deep) {
		json_object_set_new(m, "disk_bytes",
				    json_integer((json_int_t)(shared * MEMSUM_PAGE)));
		json_object_set_new(m, "own_bytes", json_integer(
				    bytes - (json_int_t)(shared * MEMSUM_PAGE)));
	}
	return 0;
}

/* --- all of it -------------------------------------------------------------- */

static int inspect(struct bundle *b, bool verify, mn_event_fn event, void *arg,
		   char **json, struct err *err)
{
	struct err found = ERR_INIT;
	int ret = bundle_check(b, &found);

	if (verify && ret) {
		*err = found;
		return ret;
	}
	ret = verify ? bundle_verify(b, event, arg, err) : 0;
	weigh(b, b->meta);
	if (!ret)
		ret = sort_memory(b, b->meta, verify, err);
	if (ret)
		return ret;
	json_object_set_new(b->meta, "path", json_text(b->path));
	json_object_set_new(b->meta, "restorable", judge(b, &found));
	*json = json_dumps(b->meta, JSON_COMPACT);
	return *json ? 0 : err_set(err, ENOMEM, "out of memory");
}

int mn_bundle_inspect(const char *path, bool verify, mn_event_fn event,
		      void *event_arg, char **json, struct mn_error *err)
{
	struct err e = ERR_INIT;
	struct bundle b;
	int ret = bundle_load(&b, path, &e);

	*json = NULL;
	if (!ret)
		ret = inspect(&b, verify, event, event_arg, json, &e);
	bundle_done(&b);
	return lib_return(err, &e, ret);
}
