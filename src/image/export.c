// SPDX-License-Identifier: MIT
/*
 * export.c - the root file system of a stopped VM becomes an archive.
 *
 * Depth first and by name, so the order does not depend on how the guest came
 * to what it has.  Data goes from the disk to libarchive in large pieces, by
 * extents; holes stay holes.  The pax format keeps what ustar cannot say, such as
 * fractions of seconds.
 *
 * The guest is hostile: directories that contain each other, paths without end
 * and links to nowhere are damage, not work.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/acl.h"
#include "image/extread.h"
#include "image/image.h"

#define CHUNK	  (1u << 20)
#define DEPTH_MAX 1024u
#define PATH_LEN_MAX (32u << 10)

struct exporter {
	struct extread r;
	struct archive *a;	/* owned */
	const struct image_export_opts *o;	/* borrowed */
	struct buf path;
	uint8_t *chunk;		/* owned */
	char **first;		/* owned: by inode, first name of linked files */
	uint8_t *visited;	/* owned: bit by inode, directories */
	struct buf config;	/* text to put in; empty: none */
	bool config_done;
	uint64_t entries;
	uint64_t clamp;		/* seconds; 0: no clamping */
	struct err *err;
};

static int write_failed(struct exporter *x)
{
	int num = archive_errno(x->a);

	if (num == ENOSPC || num == EDQUOT)
		return err_code(x->err, ERR_HOST_NO_SPACE, num,
				"no space left for the archive");
	return err_set(x->err, num > 0 ? num : EIO, "cannot write the archive: %s",
		       archive_error_string(x->a));
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

static int add_filter(struct exporter *x)
{
	const char *name = x->o->name;
	int ret = ARCHIVE_OK;

	if (ends_with(name, ".gz") || ends_with(name, ".tgz")) {
		ret = archive_write_add_filter_gzip(x->a);
		/* or the header holds the time of day */
		if (ret == ARCHIVE_OK)
			ret = archive_write_set_filter_option(x->a, "gzip",
							      "timestamp", NULL);
	} else if (ends_with(name, ".zst") || ends_with(name, ".tzst")) {
		ret = archive_write_add_filter_zstd(x->a);
	} else if (ends_with(name, ".xz") || ends_with(name, ".txz")) {
		ret = archive_write_add_filter_xz(x->a);
	} else if (!ends_with(name, ".tar")) {
		return err_set(x->err, EINVAL, "'%s' ends in none of .tar, "
			       ".tar.gz, .tar.zst, .tar.xz", name);
	}
	return ret == ARCHIVE_OK ? 0 : write_failed(x);
}

static int open_output(struct exporter *x, int fd)
{
	int ret;

	x->a = archive_write_new();
	x->chunk = malloc(CHUNK);
	if (!x->a || !x->chunk)
		return err_set(x->err, ENOMEM, "out of memory");
	ret = add_filter(x);
	if (ret)
		return ret;
	if (archive_write_set_format_pax(x->a) ||
	    archive_write_set_format_option(x->a, "pax", "xattrheader",
					    "SCHILY") ||
	    archive_write_set_bytes_in_last_block(x->a, 1) ||
	    archive_write_open_fd(x->a, fd))
		return write_failed(x);
	return 0;
}

static void set_mtime(struct exporter *x, struct archive_entry *e,
		      const struct ext2_inode_large *n)
{
	int64_t sec = (int32_t)n->i_mtime;
	uint32_t nsec = 0;

	if (n->i_extra_isize >= 16) {
		sec += (int64_t)(n->i_mtime_extra & 3) << 32;
		nsec = MIN(n->i_mtime_extra >> 2, 999999999u);
	}
	if (x->clamp && sec > (int64_t)x->clamp) {
		sec = x->clamp;
		nsec = 0;
	}
	archive_entry_set_mtime(e, sec, nsec);
}

static void set_device(struct archive_entry *e, const struct ext2_inode_large *n)
{
	uint32_t v = n->i_block[0] ? n->i_block[0] : n->i_block[1];

	if (n->i_block[0]) {
		archive_entry_set_rdevmajor(e, v >> 8 & 0xff);
		archive_entry_set_rdevminor(e, v & 0xff);
	} else {
		archive_entry_set_rdevmajor(e, v >> 8 & 0xfff);
		archive_entry_set_rdevminor(e, (v & 0xff) | (v >> 12 & 0xfff00));
	}
}

static int set_link(struct exporter *x, struct archive_entry *e, ext2_ino_t ino,
		    const struct ext2_inode_large *n)
{
	char target[4097] = "";
	struct extread_runs runs = { .run = NULL };
	uint64_t size = n->i_size;
	int ret = 0;

	if (n->i_size_high || size >= sizeof(target))
		return err_set(x->err, EBADMSG, "damaged file system: a link");
	if (size < sizeof(n->i_block) && !(n->i_flags & EXT4_EXTENTS_FL)) {
		memcpy(target, n->i_block, size);
	} else {
		ret = extread_runs(&x->r, ino, n, &runs, x->err);
		if (!ret && (!runs.mapped || runs.nr != 1 || runs.run[0].off))
			ret = err_set(x->err, EBADMSG,
				      "damaged file system: a link");
		if (!ret)
			ret = extread_bytes(&x->r, target, size,
					    runs.run[0].disk, x->err);
		free(runs.run);
	}
	archive_entry_set_symlink(e, target);
	return ret;
}

struct xattr_arg {
	struct exporter *x;
	struct ext2_xattr_handle *h;	/* borrowed */
	struct archive_entry *e;
	int ret;
};

/* What the iteration shows is as ext4 keeps it; get converts. */
static int set_acl(struct xattr_arg *a, const char *name)
{
	void *value;
	size_t len;
	int ret;

	if (ext2fs_xattr_get(a->h, name, &value, &len))
		return err_set(a->x->err, EBADMSG,
			       "damaged file system: an access control list");
	ret = acl_to_entry(a->e, name, value, len, a->x->err);
	ext2fs_free_mem(&value);
	return ret;
}

static int on_xattr(char *name, char *value, size_t len, void *arg)
{
	struct xattr_arg *a = arg;

	if (!strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT))
		a->ret = set_acl(a, name);
	else
		archive_entry_xattr_add_entry(a->e, name, value, len);
	return a->ret ? XATTR_ABORT : 0;
}

static bool has_xattrs(const struct ext2_inode_large *n, const uint8_t *raw,
		       size_t size)
{
	size_t at = EXT2_GOOD_OLD_INODE_SIZE + n->i_extra_isize;
	uint32_t magic = 0;

	if (n->i_file_acl || n->osd2.linux2.l_i_file_acl_high)
		return true;
	if (at + sizeof(magic) <= size)
		memcpy(&magic, raw + at, sizeof(magic));
	return magic == EXT2_EXT_ATTR_MAGIC;
}

static int set_xattrs(struct exporter *x, struct archive_entry *e,
		      ext2_ino_t ino)
{
	struct xattr_arg a = { .x = x, .e = e };
	struct ext2_xattr_handle *h;
	errcode_t err = ext2fs_xattrs_open(x->r.fs, ino, &h);

	if (!err) {
		a.h = h;
		err = ext2fs_xattrs_read(h);
		if (!err)
			err = ext2fs_xattrs_iterate(h, on_xattr, &a);
		ext2fs_xattrs_close(&h);
	}
	if (a.ret)
		return a.ret;
	return err ? err_set(x->err, EBADMSG, "damaged file system: attributes") :
		     0;
}

static int put(struct exporter *x, const void *data, size_t len)
{
	la_ssize_t n = archive_write_data(x->a, data, len);

	return n == (la_ssize_t)len ? 0 : write_failed(x);
}

static int put_zeroes(struct exporter *x, uint64_t len)
{
	int ret = 0;

	memset(x->chunk, 0, MIN(len, (uint64_t)CHUNK));
	for (uint64_t n; len && !ret; len -= n) {
		n = MIN(len, (uint64_t)CHUNK);
		ret = put(x, x->chunk, n);
	}
	return ret;
}

static int put_run(struct exporter *x, const struct extread_run *run)
{
	int ret = 0;

	for (uint64_t done = 0, n; done < run->len && !ret; done += n) {
		n = MIN(run->len - done, (uint64_t)CHUNK);
		ret = extread_bytes(&x->r, x->chunk, n, run->disk + done, x->err);
		if (!ret)
			ret = put(x, x->chunk, n);
	}
	return ret;
}

/* Files of the old block map: nobody makes them, but they are legal. */
static int put_unmapped(struct exporter *x, ext2_ino_t ino, uint64_t size)
{
	ext2_file_t f;
	int ret = 0;

	if (ext2fs_file_open(x->r.fs, ino, 0, &f))
		return err_set(x->err, EBADMSG, "damaged file system: a file");
	while (size && !ret) {
		unsigned got = 0;

		if (ext2fs_file_read(f, x->chunk, MIN(size, (uint64_t)CHUNK),
				     &got) || !got)
			ret = err_set(x->err, EBADMSG,
				      "damaged file system: a file");
		else
			ret = put(x, x->chunk, got);
		size -= got;
	}
	ext2fs_file_close(f);
	return ret;
}

static int put_data(struct exporter *x, ext2_ino_t ino,
		    const struct extread_runs *runs, uint64_t size)
{
	uint64_t at = 0;
	int ret = 0;

	if (!runs->mapped)
		return put_unmapped(x, ino, size);
	for (size_t i = 0; i < runs->nr && !ret; i++) {
		ret = put_zeroes(x, runs->run[i].off - at);
		if (!ret)
			ret = put_run(x, &runs->run[i]);
		at = runs->run[i].off + runs->run[i].len;
	}
	return ret ? ret : put_zeroes(x, size - at);
}

static void set_sparse(struct archive_entry *e, const struct extread_runs *runs,
		       uint64_t size)
{
	uint64_t data = 0;

	for (size_t i = 0; i < runs->nr; i++)
		data += runs->run[i].len;
	if (!runs->mapped || data == size)
		return;
	for (size_t i = 0; i < runs->nr; i++)
		archive_entry_sparse_add_entry(e, runs->run[i].off,
					       runs->run[i].len);
	if (!runs->nr)
		archive_entry_sparse_add_entry(e, 0, 0);
}

static int put_header(struct exporter *x, struct archive_entry *e)
{
	int ret = archive_write_header(x->a, e);

	x->entries++;
	if (x->o->progress)
		x->o->progress(x->o->arg, x->entries);
	return ret >= ARCHIVE_WARN ? 0 : write_failed(x);
}

static int put_file(struct exporter *x, struct archive_entry *e, ext2_ino_t ino,
		    const struct ext2_inode_large *n)
{
	uint64_t size = n->i_size | (uint64_t)n->i_size_high << 32;
	struct extread_runs runs;
	int ret;

	if (size > INT64_MAX)
		return err_set(x->err, EBADMSG, "damaged file system: a file");
	ret = extread_runs(&x->r, ino, n, &runs, x->err);
	archive_entry_set_size(e, size);
	if (!ret) {
		set_sparse(e, &runs, size);
		ret = put_header(x, e);
	}
	if (!ret)
		ret = put_data(x, ino, &runs, size);
	free(runs.run);
	return ret;
}

/* True when a link to the first name was written. */
static int put_hardlink(struct exporter *x, struct archive_entry *e,
			ext2_ino_t ino, bool *done)
{
	*done = false;
	if (x->first[ino]) {
		archive_entry_set_hardlink(e, x->first[ino]);
		archive_entry_set_size(e, 0);
		*done = true;
		return put_header(x, e);
	}
	x->first[ino] = strdup(x->path.data);
	return x->first[ino] ? 0 : err_set(x->err, ENOMEM, "out of memory");
}

static void set_common(struct exporter *x, struct archive_entry *e,
		       const struct ext2_inode_large *n)
{
	archive_entry_copy_pathname(e, x->path.len ? x->path.data : "./");
	archive_entry_set_mode(e, n->i_mode);
	archive_entry_set_uid(e, n->i_uid |
			      (uint32_t)n->osd2.linux2.l_i_uid_high << 16);
	archive_entry_set_gid(e, n->i_gid |
			      (uint32_t)n->osd2.linux2.l_i_gid_high << 16);
	set_mtime(x, e, n);
}

static int put_entry(struct exporter *x, struct archive_entry *e,
		     ext2_ino_t ino, const struct ext2_inode_large *n)
{
	bool done = false;
	int ret = 0;

	if (!S_ISDIR(n->i_mode) && n->i_links_count > 1)
		ret = put_hardlink(x, e, ino, &done);
	if (ret || done)
		return ret;
	switch (n->i_mode & S_IFMT) {
	case S_IFREG:
		return put_file(x, e, ino, n);
	case S_IFLNK:
		ret = set_link(x, e, ino, n);
		break;
	case S_IFCHR:
	case S_IFBLK:
		set_device(e, n);
		break;
	case S_IFDIR:
	case S_IFIFO:
		break;
	default:
		return err_set(x->err, EBADMSG, "damaged file system: an inode "
			       "of unknown type");
	}
	return ret ? ret : put_header(x, e);
}

static int export_dir(struct exporter *x, ext2_ino_t ino, unsigned depth);

static int export_inode(struct exporter *x, ext2_ino_t ino, unsigned depth)
{
	uint8_t raw[4096] = { 0 };
	struct ext2_inode_large n;
	struct archive_entry *e;
	size_t size = MIN((size_t)EXT2_INODE_SIZE(x->r.fs->super), sizeof(raw));
	int ret;

	if (ino > x->r.fs->super->s_inodes_count ||
	    ext2fs_read_inode_full(x->r.fs, ino, (struct ext2_inode *)raw, size))
		return err_set(x->err, EBADMSG, "damaged file system: inode %u",
			       ino);
	memcpy(&n, raw, sizeof(n));
	if (size <= EXT2_GOOD_OLD_INODE_SIZE)
		n.i_extra_isize = 0;
	if (S_ISSOCK(n.i_mode))
		return 0;	/* tar has no word for it, and nobody is behind it */
	e = archive_entry_new();
	if (!e)
		return err_set(x->err, ENOMEM, "out of memory");
	set_common(x, e, &n);
	ret = has_xattrs(&n, raw, size) ? set_xattrs(x, e, ino) : 0;
	if (!ret)
		ret = put_entry(x, e, ino, &n);
	archive_entry_free(e);
	if (!ret && S_ISDIR(n.i_mode))
		ret = export_dir(x, ino, depth + 1);
	return ret;
}

static int put_config(struct exporter *x)
{
	struct archive_entry *e = archive_entry_new();
	int ret;

	if (!e)
		return err_set(x->err, ENOMEM, "out of memory");
	archive_entry_copy_pathname(e, IMAGE_CONFIG_PATH);
	archive_entry_set_mode(e, S_IFREG | 0644);
	archive_entry_set_mtime(e, x->r.fs->super->s_mkfs_time, 0);
	archive_entry_set_size(e, x->config.len);
	ret = put_header(x, e);
	if (!ret)
		ret = put(x, x->config.data, x->config.len);
	archive_entry_free(e);
	x->config_done = true;
	return ret;
}

/* The configuration we put in has its place in the order, and replaces. */
static int export_name(struct exporter *x, const struct extread_name *n,
		       bool is_root, unsigned depth)
{
	int ret = 0;

	if (is_root && x->config.len) {
		int cmp = strcmp(n->name, IMAGE_CONFIG_PATH);

		if (cmp >= 0 && !x->config_done)
			ret = put_config(x);
		if (ret || !cmp)
			return ret;
	}
	return export_inode(x, n->ino, depth);
}

static int push_name(struct exporter *x, const char *name)
{
	if (x->path.len)
		buf_adds(&x->path, "/");
	buf_adds(&x->path, name);
	if (x->path.oom)
		return err_set(x->err, ENOMEM, "out of memory");
	if (x->path.len > PATH_LEN_MAX)
		return err_set(x->err, ENAMETOOLONG, "a path is too long");
	return 0;
}

static int enter(struct exporter *x, ext2_ino_t ino, unsigned depth)
{
	if (x->visited[ino / 8] >> (ino % 8) & 1)
		return err_set(x->err, EBADMSG, "damaged file system: a "
			       "directory inside itself");
	x->visited[ino / 8] |= 1 << (ino % 8);
	return depth > DEPTH_MAX ? err_set(x->err, ELOOP, "directories deeper "
					   "than %u", DEPTH_MAX) : 0;
}

static int export_dir(struct exporter *x, ext2_ino_t ino, unsigned depth)
{
	bool is_root = ino == EXT2_ROOT_INO;
	struct extread_names names = { .list = NULL };
	size_t len = x->path.len;
	int ret = enter(x, ino, depth);

	if (!ret)
		ret = extread_dir(&x->r, ino, &names, x->err);
	for (size_t i = 0; i < names.nr && !ret; i++) {
		if (is_root && !strcmp(names.list[i].name, "lost+found"))
			continue;
		ret = push_name(x, names.list[i].name);
		if (!ret)
			ret = export_name(x, &names.list[i], is_root, depth);
		if (ret)
			err_wrap(x->err, ret, "'%.512s'", x->path.data);
		x->path.len = len;
		x->path.data[len] = '\0';
	}
	if (!ret && is_root && x->config.len && !x->config_done)
		ret = put_config(x);
	extread_names_done(&names);
	return ret;
}

static int export_all(struct exporter *x, const int *disk, unsigned nr, int fd)
{
	uint64_t inodes;
	int ret = extread_open(&x->r, disk, nr, x->err);

	if (!ret)
		ret = open_output(x, fd);
	if (ret)
		return ret;
	inodes = x->r.fs->super->s_inodes_count + 1ull;
	x->first = calloc(inodes, sizeof(*x->first));
	x->visited = calloc(inodes / 8 + 1, 1);
	buf_add(&x->path, "", 0);
	if (x->o->config)
		ret = image_config_print(x->o->config, &x->config);
	if (!x->first || !x->visited || x->path.oom || ret)
		return err_set(x->err, ENOMEM, "out of memory");
	if (x->o->clamp_times)
		x->clamp = x->r.fs->super->s_mkfs_time;
	ret = export_inode(x, EXT2_ROOT_INO, 0);
	if (!ret && archive_write_close(x->a))
		ret = write_failed(x);
	return ret;
}

static void exporter_done(struct exporter *x)
{
	uint64_t n = x->r.fs ? x->r.fs->super->s_inodes_count + 1ull : 0;

	for (uint64_t i = 0; x->first && i < n; i++)
		free(x->first[i]);
	free(x->first);
	free(x->visited);
	free(x->chunk);
	buf_done(&x->path);
	buf_done(&x->config);
	archive_write_free(x->a);
	extread_done(&x->r);
}

int image_export(const int *disk, unsigned nr, int out_fd,
		 const struct image_export_opts *o, uint64_t *entries,
		 struct err *err)
{
	struct exporter x = { .o = o, .err = err };
	/* as in archive.c: names are UTF-8 for the pax writer */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	locale_t old = utf8 ? uselocale(utf8) : (locale_t)0;
	int ret = export_all(&x, disk, nr, out_fd);

	if (entries)
		*entries = x.entries;
	exporter_done(&x);
	if (old)
		uselocale(old);
	if (utf8)
		freelocale(utf8);
	return ret ? err_wrap_code(err, ERR_HOST_FAILED, ret, "cannot make an "
				   "archive of the disk") : 0;
}
