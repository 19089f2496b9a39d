// SPDX-License-Identifier: MIT
/*
 * newfile.c - see newfile.h.
 *
 * O_TMPFILE gives a file that is gone with the process, however that ends.  Some
 * file systems do not have it; there the file has a temporary name from the start.
 */
#include "lib/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "lib/lib.h"

static void tmp_name(struct newfile *f)
{
	unsigned long long id = 0;

	if (getrandom(&id, sizeof(id), 0) < 0)
		id = (unsigned long long)getpid();
	snprintf(f->tmp, sizeof(f->tmp), ".machinen-%016llx.tmp", id);
}

int newfile_open(struct newfile *f, const char *path, struct err *err)
{
	char dir[PATH_MAX], name[PATH_MAX];
	struct stat st;
	int ret = lib_path(dir, err, "%s", path);

	if (ret)
		return ret;
	strcpy(name, dir);
	if (snprintf(f->name, sizeof(f->name), "%s", basename(name)) >=
	    (int)sizeof(f->name))
		return err_set(err, ENAMETOOLONG, "%s: the name is too long", path);
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return err_code(err, ERR_FILES_HOST_NOT_FOUND, EISDIR,
				"cannot write %s: it is not a file", path);
	f->dir = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dir >= 0)
		f->fd = openat(f->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	if (f->dir >= 0 && f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		tmp_name(f);
		f->fd = openat(f->dir, f->tmp,
			       O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
	}
	if (f->fd < 0)
		return err_code(err, ERR_FILES_HOST_NOT_FOUND, errno,
				"cannot write %s: %s", path, strerror(errno));
	return 0;
}

int newfile_place(struct newfile *f, struct err *err)
{
	char self[32];

	if (fsync(f->fd) < 0)
		return lib_host_err(err, -errno, f->name, "cannot write");
	if (!*f->tmp) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
		tmp_name(f);
		if (linkat(AT_FDCWD, self, f->dir, f->tmp, AT_SYMLINK_FOLLOW) < 0) {
			*f->tmp = '\0';
			return lib_host_err(err, -errno, f->name, "cannot place");
		}
	}
	if (renameat(f->dir, f->tmp, f->dir, f->name) < 0)
		return lib_host_err(err, -errno, f->name, "cannot place");
	*f->tmp = '\0';
	return 0;
}

void newfile_done(struct newfile *f)
{
	if (*f->tmp)
		unlinkat(f->dir, f->tmp, 0);
	io_close(f->fd);
	io_close(f->dir);
	*f = (struct newfile)NEWFILE_INIT;
}
