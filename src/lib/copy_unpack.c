// SPDX-License-Identifier: MIT
/*
 * copy_unpack.c - a tar stream from a guest as files of the host; see copy.h.
 *
 * The stream is untrusted.  Every name is taken apart into the directory it is
 * in and its last part; the directory is opened with openat2(2), which refuses
 * to leave the destination or to follow a symbolic link, and the last part is
 * created anew in it, never followed.  Directories get their final modes and
 * times after everything is in them.
 */
#include "lib/copy.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

/* What a directory is to get at the end. */
struct late {
	char *path;		/* owned; below `top` */
	mode_t mode;
	struct timespec mtime;
};

struct unpack {
	struct archive *a;
	int top;		/* the directory that holds the copy, borrowed */
	const char *root;	/* name of the copy in it */
	struct err *err;
	struct late *late;	/* owned */
	size_t nr_late, cap_late;
};

static int bad_name(struct unpack *u, const char *name)
{
	return err_code(u->err, ERR_MOUNT_PATH_ESCAPE, EPERM,
			"the guest sent the name \"%.200s\", which leads out of the copy",
			name);
}

/* "./a/b" below the copy's root: "ROOT/a/b" relative to `top`. */
static int place(struct unpack *u, const char *name, char out[PATH_MAX])
{
	if (!strncmp(name, "./", 2))
		name += 2;
	else if (!strcmp(name, "."))
		name = "";
	if (*name == '/' || !strcmp(name, "..") || !strncmp(name, "../", 3) ||
	    strstr(name, "/../") ||
	    (strlen(name) > 2 && !strcmp(name + strlen(name) - 3, "/..")))
		return bad_name(u, name);
	if (snprintf(out, PATH_MAX, "%s%s%s", u->root, *name ? "/" : "", name) >= PATH_MAX)
		return err_set(u->err, ENAMETOOLONG, "%.200s...", name);
	for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--)
		out[n - 1] = '\0';
	return 0;
}

/* Opens the directory that `path` is in; *last becomes its last part. */
static int open_parent(struct unpack *u, char *path, const char **last)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	char *slash = strrchr(path, '/');
	int fd;

	*last = slash ? slash + 1 : path;
	if (slash)
		*slash = '\0';
	fd = (int)syscall(SYS_openat2, u->top, slash ? path : ".", &how, sizeof(how));
	if (fd < 0 && (errno == ELOOP || errno == EXDEV))
		return bad_name(u, path);
	return fd < 0 ? err_set(u->err, errno, "cannot open %s: %s", path,
				strerror(errno)) : fd;
}

static int make_file(struct unpack *u, int dir, const char *name, int64_t size)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			0600);

	if (fd < 0)
		return -errno;
	if (archive_read_data_into_fd(u->a, fd) < ARCHIVE_WARN) {
		int num = archive_errno(u->a);

		close(fd);
		if (u->err->num)
			return -u->err->num;
		return err_set(u->err, num > 0 ? num : EIO, "%s",
			       archive_error_string(u->a));
	}
	/* a hole at the end is not written, and may be all of the file */
	if (ftruncate(fd, size) < 0) {
		int num = errno;

		close(fd);
		return -num;
	}
	return close(fd) < 0 ? -errno : 0;
}

static int make_link(struct unpack *u, int dir, const char *name, const char *to)
{
	cleanup(io_closep) int from = -1;
	char path[PATH_MAX];
	const char *last;
	int ret = place(u, to, path);

	if (ret)
		return ret;
	from = open_parent(u, path, &last);
	if (from < 0)
		return from;
	return linkat(from, last, dir, name, 0) < 0 ? -errno : 0;
}

/* Owner (when we may), mode without set-id bits, times. */
static int finish(struct archive_entry *e, int dir, const char *name)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	bool link = archive_entry_filetype(e) == AE_IFLNK;

	if (!geteuid() && fchownat(dir, name, (uid_t)archive_entry_uid(e),
				   (gid_t)archive_entry_gid(e), AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!link && fchmodat(dir, name, archive_entry_perm(e) & 0777, 0) < 0)
		return -errno;
	times[1].tv_sec = archive_entry_mtime(e);
	times[1].tv_nsec = archive_entry_mtime_nsec(e);
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int make_entry(struct unpack *u, struct archive_entry *e, int dir,
		      const char *name)
{
	const char *link = archive_entry_hardlink(e);
	struct stat st;
	int ret;

	if (archive_entry_filetype(e) == AE_IFDIR && !link) {
		/* writable while it is filled; final modes follow its content */
		if (!mkdirat(dir, name, 0700))
			return 0;
		return errno == EEXIST && !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) &&
		       S_ISDIR(st.st_mode) ? 0 : -EEXIST;
	}
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return -errno;
	if (link)
		return make_link(u, dir, name, link);
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
		ret = make_file(u, dir, name, archive_entry_size(e));
		break;
	case AE_IFLNK:
		ret = symlinkat(archive_entry_symlink(e), dir, name) < 0 ? -errno : 0;
		break;
	case AE_IFIFO:
		ret = mkfifoat(dir, name, 0600) < 0 ? -errno : 0;
		break;
	default:
		return 0;	/* device nodes stay in the guest */
	}
	return ret ? ret : finish(e, dir, name);
}

/* The owner at once, the rest at the end: filling it changes its times. */
static int add_late(struct unpack *u, struct archive_entry *e, int dir,
		    const char *last, const char *name)
{
	char path[PATH_MAX];
	struct late *l;
	int ret = place(u, name, path);

	if (ret)
		return ret;
	if (u->nr_late == u->cap_late) {
		size_t cap = u->cap_late ? 2 * u->cap_late : 64;

		l = realloc(u->late, cap * sizeof(*l));
		if (!l)
			return err_set(u->err, ENOMEM, "out of memory");
		u->late = l;
		u->cap_late = cap;
	}
	if (!geteuid() && fchownat(dir, last, (uid_t)archive_entry_uid(e),
				   (gid_t)archive_entry_gid(e), AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(u->err, errno, "cannot change %.200s", name);
	l = &u->late[u->nr_late];
	*l = (struct late){
		.path = strdup(path), .mode = archive_entry_perm(e) & 01777,
		.mtime = { archive_entry_mtime(e), archive_entry_mtime_nsec(e) },
	};
	u->nr_late += l->path != NULL;
	return l->path ? 0 : err_set(u->err, ENOMEM, "out of memory");
}

/* Deepest first: a parent without permission for us comes after its children. */
static void finish_late(struct unpack *u)
{
	while (u->nr_late) {
		struct late *l = &u->late[--u->nr_late];
		struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, l->mtime };
		const char *last;
		int dir = open_parent(u, l->path, &last);

		if (dir >= 0) {
			/* best effort: the content is there */
			if (fchmodat(dir, last, l->mode, 0) == 0)
				utimensat(dir, last, times, AT_SYMLINK_NOFOLLOW);
			close(dir);
		}
		free(l->path);
	}
	free(u->late);
}

static int unpack_one(struct unpack *u, struct archive_entry *e)
{
	cleanup(io_closep) int dir = -1;
	const char *name = archive_entry_pathname(e), *last;
	char path[PATH_MAX];
	int ret;

	if (!name)
		return err_set(u->err, EINVAL, "an entry without a name");
	ret = place(u, name, path);
	if (ret)
		return ret;
	dir = open_parent(u, path, &last);
	if (dir < 0)
		return dir;
	ret = make_entry(u, e, dir, last);
	if (ret && !u->err->num)
		err_set(u->err, -ret, "cannot create %.200s: %s", name, strerror(-ret));
	if (!ret && archive_entry_filetype(e) == AE_IFDIR && !archive_entry_hardlink(e))
		ret = add_late(u, e, dir, last, name);
	return ret;
}

int copy_unpack(struct archive *a, int dirfd, const char *name, struct err *err)
{
	struct unpack u = { .a = a, .top = dirfd, .root = name, .err = err };
	struct archive_entry *e;
	int got = ARCHIVE_OK, ret = 0;

	while (!ret && (got = archive_read_next_header(a, &e)) != ARCHIVE_EOF &&
	       got >= ARCHIVE_WARN)
		ret = unpack_one(&u, e);
	if (!ret && got < ARCHIVE_WARN)
		ret = err->num ? -err->num : err_set(err, EPROTO, "%s",
						     archive_error_string(a));
	finish_late(&u);
	return ret;
}
