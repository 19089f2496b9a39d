// SPDX-License-Identifier: MIT
/*
 * bundle_write.c - making a bundle; see bundle.h.
 *
 * It is filled under a name of its own beside the final one, synced, and renamed:
 * rename(2) replaces an empty directory, so OUTDIR may be absent or empty and
 * nobody ever sees a part of a bundle.  Whoever is killed leaves the temporary
 * directory, which holds a lock while its maker lives; the next snapshot to the
 * same place removes those that nobody holds.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/bundle.h"
#include "lib/lib.h"

#define SMALL_MAX  (64u << 20)
#define COPY_CHUNK (16u << 20)	/* between two looks whether the caller still waits */
#define COPY_BYTES (1u << 20)	/* at once, through memory */
#define BUNDLE_NAME_MAX 200	/* so that a name under way fits */

/* --- beginning ------------------------------------------------------------ */

static int check_target(struct bundle_w *w, const char *name, struct err *err)
{
	cleanup(io_closep) int fd = openat(w->parent, name,
					   O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *de;
	bool empty = true;
	DIR *dir;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 && errno != ENOTDIR)
		return lib_host_err(err, -errno, w->path, "cannot open");
	if (fd < 0)
		return err_code(err, ERR_SNAPSHOT_DUMP_FAILED, ENOTDIR,
				"%s is not a directory", w->path);
	dir = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 0));
	while (dir && (de = readdir(dir)))
		empty = empty && (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."));
	if (dir)
		closedir(dir);
	return dir && empty ? 0 : err_code(err, ERR_SNAPSHOT_DUMP_FAILED, ENOTEMPTY,
		"%s exists and is not empty; choose another directory or remove it",
		w->path);
}

/* What makers that were killed left here. */
static void sweep(struct bundle_w *w, const char *prefix)
{
	DIR *dir = fdopendir(fcntl(w->parent, F_DUPFD_CLOEXEC, 0));
	struct dirent *de;

	if (dir)
		rewinddir(dir);
	while (dir && (de = readdir(dir))) {
		int fd;

		if (strncmp(de->d_name, prefix, strlen(prefix)))
			continue;
		fd = openat(w->parent, de->d_name,
			    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
			io_remove_tree(w->parent, de->d_name);
		io_close(fd);
	}
	if (dir)
		closedir(dir);
}

static int make_tmp(struct bundle_w *w, const char *name, struct err *err)
{
	char prefix[NAME_MAX + 1];
	int n = snprintf(prefix, sizeof(prefix), ".%.200s.partial-", name);

	sweep(w, prefix);
	snprintf(w->tmp, sizeof(w->tmp), "%.*s%x-%llx", n, prefix, (unsigned)getpid(),
		 (unsigned long long)io_now_ns());
	if (mkdirat(w->parent, w->tmp, 0700) < 0) {
		*w->tmp = '\0';
		return lib_host_err(err, -errno, w->path, "cannot write to");
	}
	w->dir = openat(w->parent, w->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dir < 0 || flock(w->dir, LOCK_EX | LOCK_NB) < 0)
		return lib_host_err(err, -errno, w->path, "cannot write to");
	return 0;
}

/*
 * What is to have the bundle's name: `dir`, which is there, and `name`, which may be.
 * A link to a directory stands for that, since rename(2) would not go through it.
 */
static int find_place(const char *path, char dir[PATH_MAX], char name[NAME_MAX + 1],
		      struct err *err)
{
	char given[PATH_MAX], real[PATH_MAX], *at;
	struct stat st;
	int ret = lib_path(given, err, "%s", path);

	if (ret)
		return ret;
	for (size_t n = strlen(given); n > 1 && given[n - 1] == '/'; n--)
		given[n - 1] = '\0';
	at = strrchr(given, '/');
	at = at ? at + 1 : given;
	if (!*at || !strcmp(at, ".") || !strcmp(at, ".."))
		return err_code(err, ERR_SNAPSHOT_DUMP_FAILED, EINVAL,
				"\"%s\" is not a name for a new directory", path);
	if (!lstat(given, &st) && S_ISLNK(st.st_mode)) {
		if (!realpath(given, real))
			return err_code(err, ERR_SNAPSHOT_DUMP_FAILED, errno,
					"%s is a link to nowhere", path);
		memcpy(given, real, sizeof(given));
		at = strrchr(given, '/') + 1;
	}
	if (strlen(at) > BUNDLE_NAME_MAX)
		return err_code(err, ERR_SNAPSHOT_DUMP_FAILED, ENAMETOOLONG,
				"\"%.40s…\" is too long a name", at);
	snprintf(name, NAME_MAX + 1, "%s", at);
	*at = '\0';
	if (!realpath(*given ? given : ".", dir))
		return lib_host_err(err, -errno, path, "cannot write to");
	return 0;
}

int bundle_begin(struct bundle_w *w, const char *path, bool make, struct err *err)
{
	char dir[PATH_MAX], name[NAME_MAX + 1];
	int ret = find_place(path, dir, name, err);

	*w = (struct bundle_w)BUNDLE_W_INIT;
	if (ret)
		return ret;
	ret = lib_path(w->path, err, "%s/%s", strcmp(dir, "/") ? dir : "", name);
	w->parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!ret && w->parent < 0)
		ret = lib_host_err(err, -errno, dir, "cannot open");
	if (!ret)
		ret = check_target(w, name, err);
	w->files = json_array();
	return ret || !make ? ret : make_tmp(w, name, err);
}

void bundle_abort(struct bundle_w *w)
{
	if (*w->tmp && w->parent >= 0)
		io_remove_tree(w->parent, w->tmp);
	io_close(w->dir);
	io_close(w->parent);
	json_decref(w->files);
	*w = (struct bundle_w)BUNDLE_W_INIT;
}

/* --- files ---------------------------------------------------------------- */

int bundle_create(struct bundle_w *w, const char *name, struct err *err)
{
	int fd = openat(w->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? lib_host_err(err, -errno, w->path, "cannot write to") : fd;
}

/* By hand: between file systems of different kinds the kernel does not copy. */
static ssize_t copy_bytes(int from, int to, off_t at, size_t len)
{
	char *data = malloc(len);
	ssize_t n = data ? io_pread_full(from, data, len, at) : -ENOMEM;
	int ret = n > 0 ? io_pwrite_full(to, data, (size_t)n, (uint64_t)at) : 0;

	free(data);
	return ret ? ret : n;
}

/* How many bytes were copied, or -errno. */
static ssize_t copy_some(int from, int to, off_t at, size_t len)
{
	off_t in = at, out = at;
	ssize_t n = copy_file_range(from, &in, to, &out, len, 0);

	if (n >= 0)
		return n;
	return errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS ?
	       copy_bytes(from, to, at, MIN(len, (size_t)COPY_BYTES)) : -errno;
}

/* One stretch without a hole. */
static int copy_run(const struct bundle_w *w, int from, int to, off_t at, off_t end,
		    uint64_t *done)
{
	while (at < end) {
		ssize_t n = copy_some(from, to, at,
				      MIN((size_t)(end - at), (size_t)COPY_CHUNK));
		int ret;

		if (n <= 0)
			return n ? (int)n : -EIO;
		at += n;
		*done += (uint64_t)n;
		ret = lib_progress(w->event, w->event_arg, "copying a disk", *done, 0);
		if (ret)
			return ret;
	}
	return 0;
}

/* Data only: holes stay holes. */
static int copy_data(const struct bundle_w *w, int from, int to)
{
	uint64_t done = 0;
	off_t size = lseek(from, 0, SEEK_END), at = 0;

	if (size < 0 || ftruncate(to, size) < 0)
		return -errno;
	for (;;) {
		off_t in = lseek(from, at, SEEK_DATA);
		off_t end = in < 0 ? -1 : lseek(from, in, SEEK_HOLE);
		int ret;

		if (in < 0)
			return errno == ENXIO ? 0 : -errno;
		if (end < 0)
			return -errno;
		ret = copy_run(w, from, to, in, end, &done);
		if (ret)
			return ret;
		at = end;
	}
}

/* A link where the file still has a name on the same file system. */
static int put_content(struct bundle_w *w, const char *name, int fd)
{
	char path[40];
	int to, ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!linkat(AT_FDCWD, path, w->dir, name, AT_SYMLINK_FOLLOW))
		return 0;
	to = openat(w->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return -errno;
	ret = ioctl(to, FICLONE, fd) ? copy_data(w, fd, to) : 0;
	io_close(to);
	return ret;
}

static int note(struct bundle_w *w, const char *name, const char *kind,
		const char *sum, struct err *err)
{
	struct stat st;
	json_t *f;

	if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return lib_host_err(err, -errno, w->path, "cannot read");
	f = json_pack("{s:s, s:I, s:s, s:s*}", "name", name, "size",
		      (json_int_t)st.st_size, "check", kind, "digest", sum);
	/* what is optional is left out without a word when memory ends */
	if (sum && !json_object_get(f, "digest")) {
		json_decref(f);
		f = NULL;
	}
	return json_array_append_new(w->files, f) ? err_set(err, ENOMEM, "out of memory") : 0;
}

int bundle_add_file(struct bundle_w *w, const char *name, int fd, const char *sum,
		    struct err *err)
{
	int ret = put_content(w, name, fd);

	if (ret)
		return lib_host_err(err, ret, w->path, "cannot copy a disk to");
	return note(w, name, "pages", sum, err);
}

int bundle_note(struct bundle_w *w, const char *name, bool small, struct err *err)
{
	struct buf data = BUF_INIT;
	char sum[BUNDLE_SUM_LEN];
	int ret;

	if (!small)
		return note(w, name, "sums", NULL, err);
	ret = io_read_file(w->dir, name, SMALL_MAX, &data);
	if (!ret)
		ret = bundle_sum_data(data.data ? data.data : "", data.len, sum);
	buf_done(&data);
	return ret ? lib_host_err(err, ret, w->path, "cannot read") :
		     note(w, name, "sha256", sum, err);
}

/* --- the end -------------------------------------------------------------- */

static int write_meta(struct bundle_w *w, json_t *meta)
{
	char sum[BUNDLE_SUM_LEN], *text;
	struct buf out = BUF_INIT;
	int ret;

	json_object_set_new(meta, "format", json_string("machinen-bundle"));
	json_object_set_new(meta, "format_version", json_integer(BUNDLE_FORMAT));
	json_object_set(meta, "files", w->files);
	text = json_dumps(meta, JSON_COMPACT | JSON_SORT_KEYS);
	ret = text ? bundle_sum_data(text, strlen(text), sum) : -ENOMEM;
	free(text);
	if (ret)
		return ret;
	json_object_set_new(meta, "digest", json_string(sum));
	json_print(meta, &out);
	ret = out.oom ? -ENOMEM :
	      io_write_file(w->dir, "meta.json", out.data, out.len, 0600);
	buf_done(&out);
	return ret;
}

/* Links to files that others may still be waiting to have on disk, too. */
static int sync_all(struct bundle_w *w)
{
	size_t i;
	json_t *f;
	int ret = 0;

	json_array_foreach(w->files, i, f) {
		const char *name = json_str_opt(f, "name", "", NULL);
		int fd = openat(w->dir, name, O_RDONLY | O_CLOEXEC);

		ret = fd < 0 || fsync(fd) < 0 ? -errno :
		      lib_progress(w->event, w->event_arg, "writing to disk", 0, 0);
		io_close(fd);
		if (ret)
			return ret;
	}
	return fsync(w->dir) < 0 ? -errno : 0;
}

/*
 * What nobody could restore is no bundle.  A document lacks a field without a word
 * when an allocation failed; this is the one look that a reader's own checks give.
 */
static int read_back(struct bundle_w *w, struct err *err)
{
	struct bundle b;
	int ret = bundle_open_at(&b, w->dir, w->path, err);

	bundle_done(&b);
	return !ret ? 0 : err_code(err, ERR_SNAPSHOT_DUMP_FAILED, -ret,
				   "what was written to %s cannot be read back", w->path);
}

int bundle_finish(struct bundle_w *w, json_t *meta, struct err *err)
{
	const char *name = strrchr(w->path, '/') + 1;
	int ret = write_meta(w, meta);

	if (!ret && read_back(w, err))
		return -err->num;
	if (!ret)
		ret = sync_all(w);
	if (!ret && renameat(w->parent, w->tmp, w->parent, name) < 0)
		ret = -errno;
	if (ret)
		return lib_host_err(err, ret, w->path, "cannot write to");
	*w->tmp = '\0';
	return fsync(w->parent) < 0 ?
	       lib_host_err(err, -errno, w->path, "cannot sync") : 0;
}
