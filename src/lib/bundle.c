// SPDX-License-Identifier: MIT
/* bundle.c - reading and checking bundles; see bundle.h.  Untrusted input. */
#include "lib/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/lib.h"
#include "proto/memsum.h"

#define META_MAX  (4u << 20)
#define SMALL_MAX (64u << 20)
#define FILES_MAX (SPEC_MAX_DISKS * SPEC_MAX_LAYERS + 16)

static int damaged(const struct bundle *b, struct err *err, const char *what)
{
	return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			"the bundle %s is damaged: %s", b->path, what);
}

static int damaged_file(const struct bundle *b, struct err *err, const char *name,
			const char *what)
{
	return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			"the bundle %s is damaged: file %.80s %s", b->path, name, what);
}

/* A host out of descriptors or memory says nothing about the bundle. */
static int unreadable(const struct bundle *b, struct err *err, const char *name, int ret)
{
	if (ret == -ENOENT)
		return damaged_file(b, err, name, "is missing");
	if (ret == -ELOOP || ret == -EFBIG)
		return damaged_file(b, err, name, "is none that was written there");
	return err_code(err, ERR_HOST_FAILED, -ret, "cannot read file %.80s of the bundle %s: %s",
			name, b->path, strerror(-ret));
}

/* A whole file, which whoever made the bundle may have made a link or a pipe. */
static int read_small(const struct bundle *b, const char *name, size_t max,
		      struct buf *out)
{
	cleanup(io_closep) int fd = openat(b->dir, name, O_RDONLY | O_NOFOLLOW |
					   O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	ssize_t n;
	char *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ELOOP;
	if ((uint64_t)st.st_size > max)
		return -EFBIG;
	p = buf_reserve(out, (size_t)st.st_size + 1);
	n = p ? io_read_full(fd, p, (size_t)st.st_size) : -ENOMEM;
	if (n < 0)
		return (int)n;
	p[n] = '\0';
	out->len += (size_t)n;
	return 0;
}

/* --- meta.json ------------------------------------------------------------ */

static int read_meta(struct bundle *b, struct err *err)
{
	struct buf text = BUF_INIT;
	int ret = read_small(b, "meta.json", META_MAX, &text);

	if (ret == -ENOENT) {
		buf_done(&text);
		return err_code(err, ERR_BOOT_SNAPSHOT_NOT_FOUND, ENOENT,
				"%s is no bundle: it has no meta.json", b->path);
	}
	if (ret) {
		buf_done(&text);
		return unreadable(b, err, "meta.json", ret);
	}
	b->meta = json_parse(text.data ? text.data : "", text.len, err);
	buf_done(&text);
	return json_is_object(b->meta) ? 0 : damaged(b, err, "meta.json cannot be read");
}

/* Before its digest: another version may have another one. */
static int check_version(const struct bundle *b, struct err *err)
{
	json_int_t v = json_integer_value(json_object_get(b->meta, "format_version"));
	const char *arch = json_str_opt(b->meta, "arch", "", NULL);

	if (strcmp(json_str_opt(b->meta, "format", "", NULL), "machinen-bundle"))
		return damaged(b, err, "meta.json is of something else");
	if (v != BUNDLE_FORMAT)
		return err_code(err, ERR_SNAPSHOT_VERSION, ENOTSUP,
				"the bundle %s has format version %lld; this machinen knows %d",
				b->path, (long long)v, BUNDLE_FORMAT);
	if (strcmp(arch, "x86_64"))
		return err_code(err, ERR_SNAPSHOT_ARCH_MISMATCH, ENOTSUP,
				"the bundle %s is of a %.20s machine, this is x86_64",
				b->path, arch);
	return 0;
}

static int check_digest(const struct bundle *b, struct err *err)
{
	json_t *bare = json_copy(b->meta);
	char sum[BUNDLE_SUM_LEN] = "", *text;
	int ret;

	json_object_del(bare, "digest");
	text = json_dumps(bare, JSON_COMPACT | JSON_SORT_KEYS);
	ret = text && json_object_size(bare) + 1 >= json_object_size(b->meta) ?
	      bundle_sum_data(text, strlen(text), sum) : -ENOMEM;
	free(text);
	json_decref(bare);
	if (ret)
		return unreadable(b, err, "meta.json", ret);
	return strcmp(sum, json_str_opt(b->meta, "digest", "-", NULL)) ?
	       damaged(b, err, "meta.json does not match its digest") : 0;
}

static int take_spec(struct bundle *b, struct err *err)
{
	const json_t *o = json_object_get(b->meta, "spec");

	if (!json_is_object(o) || spec_parse_json(&b->spec, o, err))
		return err_wrap_code(err, ERR_SNAPSHOT_DAMAGED, damaged(b, NULL, ""),
				     "the bundle %s describes no VM", b->path);
	return 0;
}

/* --- files ---------------------------------------------------------------- */

int bundle_open_file(const struct bundle *b, const json_t *f, struct err *err)
{
	const char *name = json_str_opt(f, "name", "", NULL);
	json_int_t size = json_integer_value(json_object_get(f, "size"));
	struct stat st;
	int fd;

	if (!*name || *name == '.' || strchr(name, '/'))
		return damaged(b, err, "meta.json names a file outside");
	fd = openat(b->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return unreadable(b, err, name, -errno);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != size) {
		io_close(fd);
		return damaged_file(b, err, name, "has not the size it was written with");
	}
	return fd;
}

static int check_small(const struct bundle *b, const json_t *f, struct err *err)
{
	const char *name = json_str_opt(f, "name", "", NULL);
	struct buf data = BUF_INIT;
	char sum[BUNDLE_SUM_LEN] = "";
	int ret = read_small(b, name, SMALL_MAX, &data);

	if (!ret)
		ret = bundle_sum_data(data.data ? data.data : "", data.len, sum);
	buf_done(&data);
	if (ret)
		return unreadable(b, err, name, ret);
	return strcmp(sum, json_str_opt(f, "digest", "-", NULL)) ?
	       damaged_file(b, err, name, "does not match its digest") : 0;
}

static bool is_check(const json_t *f, const char *kind)
{
	return !strcmp(json_str_opt(f, "check", "", NULL), kind);
}

static int check_files(const struct bundle *b, struct err *err)
{
	const json_t *files = json_object_get(b->meta, "files"), *f;
	size_t i;
	int ret = 0;

	if (!json_is_array(files) || json_array_size(files) > FILES_MAX)
		return damaged(b, err, "meta.json lists no files");
	json_array_foreach(files, i, f) {
		int fd = bundle_open_file(b, f, err);

		io_close(fd);
		ret = fd < 0 ? fd : is_check(f, "sha256") ? check_small(b, f, err) : 0;
		if (ret)
			break;
	}
	return ret;
}

/* Whether meta.json lists a file: nothing else of the directory is used. */
static bool is_listed(const struct bundle *b, const char *name)
{
	const json_t *f;
	size_t i;

	json_array_foreach(json_object_get(b->meta, "files"), i, f)
		if (!strcmp(json_str_opt(f, "name", "", NULL), name))
			return true;
	return false;
}

static int check_needed(const struct bundle *b, struct err *err)
{
	static const char *const always[] = { "state", "memory", "sums" };
	char name[64];

	for (unsigned i = 0; i < ARRAY_LEN(always); i++)
		if (!is_listed(b, always[i]))
			return damaged_file(b, err, always[i], "is not listed");
	for (unsigned i = 0; i < b->spec.nr_disks; i++)
		for (unsigned k = 0; k < b->spec.disk[i].nr_layers; k++) {
			snprintf(name, sizeof(name), "%s.%u", b->spec.disk[i].id, k);
			if (!is_listed(b, name))
				return damaged_file(b, err, name, "is not listed");
		}
	return 0;
}

int bundle_load(struct bundle *b, const char *path, struct err *err)
{
	*b = (struct bundle){ .dir = -1 };
	spec_init(&b->spec);
	if (!realpath(path, b->path))
		return err_code(err, ERR_BOOT_SNAPSHOT_NOT_FOUND, errno,
				"there is no bundle %s", path);
	b->dir = open(b->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->dir < 0)
		return err_code(err, ERR_BOOT_SNAPSHOT_NOT_FOUND, errno,
				"%s is no bundle: %s", path, strerror(errno));
	return read_meta(b, err);
}

int bundle_check(struct bundle *b, struct err *err)
{
	int ret = check_version(b, err);

	if (!ret)
		ret = check_digest(b, err);
	if (!ret)
		ret = take_spec(b, err);
	if (!ret)
		ret = check_needed(b, err);
	return ret ? ret : check_files(b, err);
}

int bundle_open(struct bundle *b, const char *path, struct err *err)
{
	int ret = bundle_load(b, path, err);

	return ret ? ret : bundle_check(b, err);
}

int bundle_open_at(struct bundle *b, int dir, const char *path, struct err *err)
{
	int ret;

	*b = (struct bundle){ .dir = fcntl(dir, F_DUPFD_CLOEXEC, 0) };
	spec_init(&b->spec);
	snprintf(b->path, sizeof(b->path), "%s", path);
	ret = b->dir < 0 ? err_set(err, errno, "no descriptor") : read_meta(b, err);
	return ret ? ret : bundle_check(b, err);
}

void bundle_done(struct bundle *b)
{
	io_close(b->dir);
	b->dir = -1;
	json_decref(b->meta);
	b->meta = NULL;
	spec_done(&b->spec);
}

uint64_t bundle_bytes(const struct bundle *b)
{
	const json_t *f;
	uint64_t all = 0;
	struct stat st;
	size_t i;

	json_array_foreach(json_object_get(b->meta, "files"), i, f)
		if (!fstatat(b->dir, json_str_opt(f, "name", "", NULL), &st,
			     AT_SYMLINK_NOFOLLOW))
			all += (uint64_t)st.st_blocks * 512;
	return all;
}

/* --- everything ----------------------------------------------------------- */

struct verify {
	mn_event_fn fn;
	void *arg;
	const char *name;
};

static int on_step(void *arg, uint64_t done)
{
	struct verify *v = arg;
	char text[96];

	snprintf(text, sizeof(text), "checking %.60s", v->name);
	return lib_progress(v->fn, v->arg, text, done, 0);
}

static int verify_memory(const struct bundle *b, int fd, struct err *err)
{
	struct buf table = BUF_INIT;
	int ret = read_small(b, "sums", SMALL_MAX, &table);

	ret = ret ? damaged_file(b, err, "sums", "cannot be read") :
	      memsum_verify(fd, table.data ? table.data : "", table.len, NULL,
			    NULL, err);
	buf_done(&table);
	return ret;
}

static int verify_pages(const struct bundle *b, const json_t *f, int fd,
			struct verify *v, struct err *err)
{
	char sum[BUNDLE_SUM_LEN] = "";
	int ret = bundle_sum_pages(fd, sum, on_step, v);

	if (ret)
		return err_set(err, -ret, "cannot read %s of the bundle: %s", v->name,
			       strerror(-ret));
	return strcmp(sum, json_str_opt(f, "digest", "-", NULL)) ?
	       damaged_file(b, err, v->name, "does not match its digest") : 0;
}

int bundle_verify(const struct bundle *b, mn_event_fn fn, void *arg, struct err *err)
{
	const json_t *f;
	size_t i;
	int ret = 0;

	json_array_foreach(json_object_get(b->meta, "files"), i, f) {
		struct verify v = { fn, arg, json_str_opt(f, "name", "", NULL) };
		int fd = bundle_open_file(b, f, err);

		ret = fd < 0 ? fd : 0;
		if (!ret && is_check(f, "sums"))
			ret = verify_memory(b, fd, err);
		else if (!ret && is_check(f, "pages"))
			ret = verify_pages(b, f, fd, &v, err);
		io_close(fd);
		if (ret)
			break;
	}
	return ret;
}
