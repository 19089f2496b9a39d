// SPDX-License-Identifier: MIT
/*
 * tar.c - host trees as tar streams and back; see transfer.h.
 *
 * libarchive reads and writes both the tree and the stream.  Files of an
 * ordinary user become root's in the guest, as there is no such user there; root
 * keeps the owners.  On the way back root keeps them as well, an ordinary user
 * gets files of his own.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "lib/transfer.h"

#define TAR_CHUNK 65536

static int archive_err(struct transfer *t, struct archive *a, int fallback)
{
	int num = archive_errno(a);
	const char *text = archive_error_string(a);

	/* the transfer itself may be what failed, and has said so */
	if (t->err->num)
		return -t->err->num;
	if (num <= 0 || num > 4095)
		num = fallback;
	return err_code(t->err, num == ENOENT ? ERR_FILES_HOST_NOT_FOUND :
			ERR_HOST_FAILED, num, "%s", text ? text : strerror(num));
}

/* --- to the guest --------------------------------------------------------- */

struct push {
	struct transfer *t;
	const char *path;	/* borrowed */
	size_t path_len;	/* without trailing slashes */
	struct archive *disk, *out;	/* owned */
	struct archive_entry_linkresolver *links;	/* owned */
};

static la_ssize_t push_bytes(struct archive *a, void *arg, const void *data,
			     size_t len)
{
	struct push *p = arg;

	return transfer_send(p->t, data, len) ? -1 : (la_ssize_t)len;
}

static int push_open(struct push *p)
{
	p->disk = archive_read_disk_new();
	p->out = archive_write_new();
	p->links = archive_entry_linkresolver_new();
	if (!p->disk || !p->out || !p->links)
		return err_set(p->t->err, ENOMEM, "out of memory");
	archive_entry_linkresolver_set_strategy(p->links,
						ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE);
	archive_read_disk_set_symlink_physical(p->disk);
	archive_write_set_format_pax(p->out);
	archive_write_set_options(p->out,
				  "hdrcharset=BINARY,xattrheader=SCHILY");
	archive_write_set_bytes_per_block(p->out, TAR_CHUNK);
	archive_write_set_bytes_in_last_block(p->out, 1);
	if (archive_write_open(p->out, p, NULL, push_bytes, NULL))
		return archive_err(p->t, p->out, EIO);
	if (archive_read_disk_open(p->disk, p->path))
		return archive_err(p->t, p->disk, ENOENT);
	return 0;
}

/* The writer leaves holes out by the entry's map, but wants them as zeroes. */
static int push_gap(struct push *p, int64_t len)
{
	static const char zero[TAR_CHUNK];

	while (len > 0) {
		size_t n = (size_t)MIN(len, (int64_t)sizeof(zero));

		if (archive_write_data(p->out, zero, n) < 0)
			return archive_err(p->t, p->out, EIO);
		len -= (int64_t)n;
	}
	return 0;
}

static int push_data(struct push *p, int64_t size)
{
	int64_t at = 0, off;
	const void *data;
	size_t len;
	int r;

	while ((r = archive_read_data_block(p->disk, &data, &len, &off)) ==
	       ARCHIVE_OK) {
		r = push_gap(p, off - at);
		if (r)
			return r;
		if (archive_write_data(p->out, data, len) < 0)
			return archive_err(p->t, p->out, EIO);
		at = off + (int64_t)len;
	}
	if (r != ARCHIVE_EOF)
		return archive_err(p->t, p->disk, EIO);
	return push_gap(p, size - at);
}

/* The name in the stream: "." for the start, "./a/b" below it. */
static int push_name(struct push *p, struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e);
	char name[PATH_MAX + 2];

	if (!path || strncmp(path, p->path, p->path_len) ||
	    snprintf(name, sizeof(name), ".%s", path + p->path_len) >=
	    (int)sizeof(name))
		return err_set(p->t->err, ENAMETOOLONG, "%s: unusable name",
			       path ? path : p->path);
	if (!strcmp(name, "./"))
		name[1] = '\0';
	archive_entry_copy_pathname(e, name);
	return 0;
}

static int push_entry(struct push *p, struct archive_entry *e)
{
	struct archive_entry *rest = NULL;
	int r = push_name(p, e);

	if (r || archive_entry_filetype(e) == AE_IFSOCK)
		return r;
	if (geteuid()) {
		archive_entry_set_uid(e, 0);
		archive_entry_set_gid(e, 0);
	}
	/* the guest has users of its own */
	archive_entry_set_uname(e, NULL);
	archive_entry_set_gname(e, NULL);
	archive_entry_acl_clear(e);
	archive_entry_linkify(p->links, &e, &rest);
	if (!e)
		return 0;
	if (archive_entry_hardlink(e))
		archive_entry_set_size(e, 0);
	r = archive_write_header(p->out, e);
	if (r < ARCHIVE_WARN)
		return archive_err(p->t, p->out, EIO);
	return archive_entry_size(e) > 0 && !archive_entry_hardlink(e) ?
		push_data(p, archive_entry_size(e)) : 0;
}

static int push_tree(struct push *p)
{
	struct archive_entry *e = archive_entry_new();
	int r = 0;

	if (!e)
		return err_set(p->t->err, ENOMEM, "out of memory");
	while (!r) {
		int got = archive_read_next_header2(p->disk, e);

		if (got == ARCHIVE_EOF)
			break;
		if (got < ARCHIVE_WARN) {
			r = archive_err(p->t, p->disk, EIO);
			break;
		}
		if (archive_read_disk_can_descend(p->disk))
			archive_read_disk_descend(p->disk);
		r = push_entry(p, e);
		archive_entry_clear(e);
	}
	archive_entry_free(e);
	return r;
}

int transfer_push(struct transfer *t, const char *path)
{
	struct push p = { .t = t, .path = path, .path_len = strlen(path) };
	int r;

	while (p.path_len > 1 && path[p.path_len - 1] == '/')
		p.path_len--;
	r = push_open(&p);
	if (!r)
		r = push_tree(&p);
	if (!r && archive_write_close(p.out))
		r = archive_err(t, p.out, EIO);
	archive_read_free(p.disk);
	archive_write_free(p.out);
	archive_entry_linkresolver_free(p.links);
	return r ? r : transfer_finish(t);
}

/* --- from the guest ------------------------------------------------------- */

struct pull {
	struct transfer *t;
	char root[PATH_MAX];	/* no symbolic link in its parents */
	struct archive *in, *disk;	/* owned */
};

static la_ssize_t pull_bytes(struct archive *a, void *arg, const void **data)
{
	struct pull *p = arg;
	ssize_t n = transfer_recv(p->t);

	*data = p->t->data;
	if (n < 0)
		archive_set_error(a, (int)-n, "%s", err_message(p->t->err));
	return n < 0 ? -1 : n;
}

/*
 * The parents resolved: from there on SECURE_SYMLINKS refuses every link, and
 * those on the way to the destination are the user's own.
 */
static int pull_root(struct pull *p, const char *path)
{
	char copy[PATH_MAX], dir[PATH_MAX], *slash;
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	if (len >= sizeof(copy))
		return err_set(p->t->err, ENAMETOOLONG, "%s: too long", path);
	memcpy(copy, path, len);
	copy[len] = '\0';
	if (realpath(copy, p->root))
		return 0;
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	if (!realpath(!slash ? "." : slash == copy ? "/" : copy, dir))
		return err_code(p->t->err, ERR_FILES_HOST_NOT_FOUND, errno,
				"%s: %s", slash ? copy : ".", strerror(errno));
	if (snprintf(p->root, sizeof(p->root), "%s/%s", dir,
		     slash ? slash + 1 : copy) >= (int)sizeof(p->root))
		return err_set(p->t->err, ENAMETOOLONG, "%s: too long", path);
	return 0;
}

static int pull_open(struct pull *p)
{
	int flags = ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM |
		    ARCHIVE_EXTRACT_SECURE_SYMLINKS |
		    ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_UNLINK |
		    ARCHIVE_EXTRACT_SPARSE;

	if (!geteuid())
		flags |= ARCHIVE_EXTRACT_OWNER;
	p->in = archive_read_new();
	p->disk = archive_write_disk_new();
	if (!p->in || !p->disk)
		return err_set(p->t->err, ENOMEM, "out of memory");
	archive_write_disk_set_options(p->disk, flags);
	archive_read_support_format_tar(p->in);
	if (archive_read_open(p->in, p, NULL, pull_bytes, NULL))
		return archive_err(p->t, p->in, EBADMSG);
	return 0;
}

/* A name from the guest below the root; false when it would lead out. */
static bool pull_name(const struct pull *p, const char *name, char *out)
{
	if (!name)
		return false;
	for (const char *q = name; *q; ) {
		size_t len = strcspn(q, "/");

		if (len == 2 && q[0] == '.' && q[1] == '.')
			return false;
		q += len + (q[len] == '/');
	}
	while (*name == '/' || (*name == '.' && (name[1] == '/' || !name[1])))
		name++;
	return snprintf(out, PATH_MAX, "%s%s%s", p->root, *name ? "/" : "",
			name) < PATH_MAX;
}

static int pull_entry(struct pull *p, struct archive_entry *e)
{
	const char *name = archive_entry_pathname(e);
	mode_t type = archive_entry_filetype(e);
	char path[PATH_MAX], link[PATH_MAX];

	if (!pull_name(p, name, path) ||
	    (archive_entry_hardlink(e) &&
	     !pull_name(p, archive_entry_hardlink(e), link)))
		return err_code(p->t->err, ERR_MOUNT_PATH_ESCAPE, EBADMSG,
				"the guest sent an unusable name: %s",
				name ? name : "(none)");
	if (type == AE_IFCHR || type == AE_IFBLK)
		return err_code(p->t->err, ERR_HOST_FAILED, EPERM,
				"%s is a device node; those are not copied to "
				"the host", name);
	archive_entry_copy_pathname(e, path);
	if (archive_entry_hardlink(e))
		archive_entry_copy_hardlink(e, link);
	archive_entry_set_perm(e, archive_entry_perm(e) & 01777);
	archive_entry_unset_birthtime(e);
	archive_entry_xattr_clear(e);
	if (archive_write_header(p->disk, e) < ARCHIVE_WARN)
		return archive_err(p->t, p->disk, EIO);
	return 0;
}

static int pull_data(struct pull *p)
{
	const void *data;
	int64_t off;
	size_t len;
	int r;

	while ((r = archive_read_data_block(p->in, &data, &len, &off)) ==
	       ARCHIVE_OK)
		if (archive_write_data_block(p->disk, data, len, off) < ARCHIVE_WARN)
			return archive_err(p->t, p->disk, EIO);
	if (r != ARCHIVE_EOF)
		return archive_err(p->t, p->in, EBADMSG);
	if (archive_write_finish_entry(p->disk) < ARCHIVE_WARN)
		return archive_err(p->t, p->disk, EIO);
	return 0;
}

static int pull_tree(struct pull *p)
{
	struct archive_entry *e;
	int r = 0, got;

	while (!r && (got = archive_read_next_header(p->in, &e)) != ARCHIVE_EOF) {
		if (got < ARCHIVE_WARN)
			return archive_err(p->t, p->in, EBADMSG);
		r = pull_entry(p, e);
		if (!r)
			r = pull_data(p);
	}
	if (!r && archive_write_close(p->disk) < ARCHIVE_WARN)
		r = archive_err(p->t, p->disk, EIO);
	return r;
}

int transfer_pull(struct transfer *t, const char *path)
{
	struct pull p = { .t = t };
	ssize_t n = 1;
	int r = pull_root(&p, path);

	if (!r)
		r = pull_open(&p);
	if (!r)
		r = pull_tree(&p);
	/* after the archive's end, the guest's last word: EOF or a failure */
	while (!r && n > 0) {
		n = transfer_recv(t);
		if (n < 0)
			r = (int)n;
	}
	archive_read_free(p.in);
	archive_write_free(p.disk);
	return r;
}
