// SPDX-License-Identifier: MIT
/*
 * copy_pack.c - a host file or directory as a tar stream; see copy.h.
 *
 * The walk is fts(3) without changing directories: the process's working
 * directory belongs to the library's user.  Hard links within the tree are
 * found by libarchive's resolver.  The guest has users of its own: what belongs
 * to an ordinary user of the host becomes root's there, and root keeps owners.
 */
#include "lib/copy.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/lib.h"

#define CHUNK 65536

struct pack {
	struct archive *out, *disk;
	struct archive_entry_linkresolver *links;
	size_t root_len;	/* of the path that becomes "." */
	struct err *err;
};

/* The write callback may have set a better error than libarchive knows. */
static int archive_failed(struct pack *p, struct archive *a)
{
	int num = archive_errno(a);

	if (p->err->num)
		return -p->err->num;
	return err_set(p->err, num > 0 ? num : EIO, "%s", archive_error_string(a));
}

static int pack_data(struct pack *p, int fd, const char *path, uint64_t size)
{
	char data[CHUNK];
	uint64_t done = 0;

	while (done < size) {
		ssize_t n = io_read_full(fd, data, MIN(sizeof(data), size - done));

		if (n <= 0)
			return err_set(p->err, n ? (int)-n : EIO,
				       "%s changed while it was read", path);
		if (archive_write_data(p->out, data, (size_t)n) < 0)
			return archive_failed(p, p->out);
		done += (uint64_t)n;
	}
	return 0;
}

static int pack_entry(struct pack *p, struct archive_entry *e, int fd,
		      const char *path)
{
	if (archive_write_header(p->out, e) < ARCHIVE_WARN)
		return archive_failed(p, p->out);
	if (archive_entry_size_is_set(e) && archive_entry_size(e) > 0 && fd >= 0)
		return pack_data(p, fd, path, (uint64_t)archive_entry_size(e));
	return 0;
}

static int pack_one(struct pack *p, const FTSENT *f)
{
	cleanup(io_closep) int fd = -1;
	struct archive_entry *e = archive_entry_new(), *spare = NULL;
	char name[PATH_MAX];
	int ret;

	if (!e)
		return err_set(p->err, ENOMEM, "out of memory");
	ret = lib_path(name, p->err, ".%s", f->fts_path + p->root_len);
	if (!ret && f->fts_info == FTS_F) {
		fd = open(f->fts_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			ret = err_set(p->err, errno, "cannot read %s: %s",
				      f->fts_path, strerror(errno));
	}
	if (!ret) {
		archive_entry_copy_pathname(e, name);
		archive_entry_copy_sourcepath(e, f->fts_path);
		if (archive_read_disk_entry_from_file(p->disk, e, fd, f->fts_statp) <
		    ARCHIVE_WARN)
			ret = archive_failed(p, p->disk);
	}
	if (!ret) {
		if (geteuid()) {
			archive_entry_set_uid(e, 0);
			archive_entry_set_gid(e, 0);
		}
		archive_entry_acl_clear(e);
		archive_entry_linkify(p->links, &e, &spare);
		ret = e ? pack_entry(p, e, fd, f->fts_path) : 0;
	}
	archive_entry_free(e);
	archive_entry_free(spare);
	return ret;
}

static int pack_walk(struct pack *p, const char *path)
{
	char *roots[] = { (char *)(uintptr_t)path, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *f;
	int ret = 0;

	if (!fts)
		return err_set(p->err, errno, "cannot read %s", path);
	while (!ret && (f = fts_read(fts))) {
		switch (f->fts_info) {
		case FTS_DP:
			break;
		case FTS_DNR: case FTS_ERR: case FTS_NS:
			ret = err_set(p->err, f->fts_errno, "cannot read %s: %s",
				      f->fts_path, strerror(f->fts_errno));
			break;
		default:
			if (!S_ISSOCK(f->fts_statp->st_mode))
				ret = pack_one(p, f);
		}
	}
	fts_close(fts);
	return ret;
}

int copy_pack(struct archive *a, const char *path, struct err *err)
{
	struct pack p = { .out = a, .disk = archive_read_disk_new(),
			  .links = archive_entry_linkresolver_new(),
			  .root_len = strlen(path), .err = err };
	int ret = p.disk && p.links ? 0 : err_set(err, ENOMEM, "out of memory");

	while (p.root_len > 1 && path[p.root_len - 1] == '/')
		p.root_len--;
	if (!ret) {
		archive_entry_linkresolver_set_strategy(p.links,
				ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE);
		ret = pack_walk(&p, path);
	}
	if (!ret && archive_write_close(a) < ARCHIVE_WARN)
		ret = archive_failed(&p, a);
	archive_entry_linkresolver_free(p.links);
	archive_read_free(p.disk);
	return ret;
}
