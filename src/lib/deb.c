// SPDX-License-Identifier: MIT
/*
 * deb.c - Debian packages: an ar archive that holds a compressed tar archive
 * named data.tar.*; libarchive reads both, the inner one through a callback on
 * the outer one.
 */
#include "lib/deb.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define BLOCK 65536

struct inner {
	struct archive *outer;	/* borrowed; stands at data.tar.* */
	char block[BLOCK];
};

static ssize_t inner_read(struct archive *a, void *arg, const void **block)
{
	struct inner *in = arg;
	la_ssize_t n = archive_read_data(in->outer, in->block, BLOCK);

	*block = in->block;
	if (n < 0)
		archive_set_error(a, archive_errno(in->outer), "%s",
				  archive_error_string(in->outer));
	return n;
}

static int archive_err(struct archive *a, struct err *err)
{
	const char *text = archive_error_string(a);
	int num = archive_errno(a);

	return err_set(err, num > 0 ? num : EIO, "%s", text ? text : "damaged");
}

/* Where the entry's file goes, or NULL when the path is none of ours. */
static const char *clean_path(const char *path)
{
	while (!strncmp(path, "./", 2))
		path += 2;
	while (*path == '/')
		path++;
	if (!*path || strstr(path, "/../") || !strncmp(path, "../", 3))
		return NULL;
	return path;
}

static int write_entry(struct archive *a, const char *dir, const char *path,
		       struct err *err)
{
	char full[PATH_MAX], parent[PATH_MAX];
	int ret, fd;

	if (snprintf(full, sizeof(full), "%s/%s", dir, path) >= (int)sizeof(full))
		return err_set(err, ENAMETOOLONG, "%s", path);
	snprintf(parent, sizeof(parent), "%s", full);
	*strrchr(parent, '/') = '\0';
	ret = io_mkdir_all(parent, 0700);
	if (ret)
		return err_set(err, -ret, "cannot create %s", parent);
	fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, errno, "cannot create %s: %s", full, strerror(errno));
	ret = archive_read_data_into_fd(a, fd) == ARCHIVE_OK ? 0 : archive_err(a, err);
	if (close(fd) < 0 && !ret)
		ret = err_set(err, errno, "cannot write %s: %s", full, strerror(errno));
	return ret;
}

static int unpack_data(struct archive *outer, const char *dir,
		       bool (*want)(const char *path), struct err *err)
{
	struct inner in = { .outer = outer };
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	int ret = 0, got;

	if (!a)
		return err_set(err, ENOMEM, "out of memory");
	archive_read_support_format_tar(a);
	archive_read_support_filter_all(a);
	got = archive_read_open(a, &in, NULL, inner_read, NULL);
	while (!ret && got >= ARCHIVE_WARN &&
	       (got = archive_read_next_header(a, &e)) >= ARCHIVE_WARN &&
	       got != ARCHIVE_EOF) {
		const char *path = archive_entry_pathname(e);

		path = path ? clean_path(path) : NULL;
		if (path && archive_entry_filetype(e) == AE_IFREG &&
		    !archive_entry_hardlink(e) && want(path))
			ret = write_entry(a, dir, path, err);
	}
	if (!ret && got < ARCHIVE_WARN)
		ret = archive_err(a, err);
	archive_read_free(a);
	return ret;
}

int deb_unpack(const char *deb, const char *dir, bool (*want)(const char *path),
	       struct err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	bool found = false;
	int ret = 0, got;

	if (!a)
		return err_set(err, ENOMEM, "out of memory");
	archive_read_support_format_ar(a);
	got = archive_read_open_filename(a, deb, BLOCK);
	while (!ret && !found && got >= ARCHIVE_WARN &&
	       (got = archive_read_next_header(a, &e)) >= ARCHIVE_WARN &&
	       got != ARCHIVE_EOF) {
		const char *name = archive_entry_pathname(e);

		found = name && !strncmp(name, "data.tar", 8);
		if (found)
			ret = unpack_data(a, dir, want, err);
	}
	if (!ret && got < ARCHIVE_WARN)
		ret = archive_err(a, err);
	if (!ret && !found)
		ret = err_set(err, EINVAL, "no data.tar in it");
	archive_read_free(a);
	return ret ? err_wrap(err, ret, "cannot unpack %s", deb) : 0;
}
