// SPDX-License-Identifier: MIT
/*
 * archive.c - a tar archive becomes a disk, in one read of the archive.
 *
 * libarchive takes care of formats and compression; bytes reach it through
 * source_read(), which also hashes them, so what was built and what was hashed
 * are the same bytes even if the file changes meanwhile.  Entries go into a
 * tree (tree.c), file data straight to its place on the disk (space.c), and at
 * the end ext4.c writes the rest.
 *
 * The archive is hostile.  Paths are the tree's business; here are the limits
 * on what a small archive may make of the disk, and on what counts as whole:
 * an uncompressed archive that is cut between two entries looks complete but
 * for its missing end marker, so the marker is insisted on.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/acl.h"
#include "image/build.h"

#define CHUNK	    (1u << 20)
#define END_MARKER  1024u	/* bytes of zeroes that end a tar archive */
/* Beyond this much content, an archive must not have shrunk by more than this:
 * gzip's best is 1,030, real root file systems get 2 to 10. */
#define BOMB_FROM   GIB
#define BOMB_RATIO  250u
#define SPARSE_MAX  (1u << 20)	/* pieces of one sparse file */

struct source {
	int fd;			/* borrowed */
	EVP_MD_CTX *md;		/* owned */
	uint8_t *buf;		/* owned */
	uint64_t bytes, total;
	uint64_t zeroes;	/* at the end of what was read so far */
	int failed;		/* -errno of read(2) */
	const struct image_opts *opts;	/* borrowed */
};

struct reader {
	struct build b;
	struct source src;
	struct archive *a;	/* owned */
	struct archive_entry *e;	/* borrowed from a */
	struct err *err;
};

static void count_zeroes(struct source *s, size_t n)
{
	size_t k = n;

	while (k && !s->buf[k - 1] && n - k < END_MARKER)
		k--;
	s->zeroes = k ? n - k : s->zeroes + n;
}

static ssize_t source_fill(struct source *s)
{
	ssize_t n = io_read_full(s->fd, s->buf, CHUNK);

	if (n < 0) {
		s->failed = n;
		return n;
	}
	if (!n)
		return 0;
	EVP_DigestUpdate(s->md, s->buf, n);
	count_zeroes(s, n);
	s->bytes += n;
	if (s->opts->progress)
		s->opts->progress(s->opts->arg, s->bytes,
				  MAX(s->bytes, s->total));
	return n;
}

static la_ssize_t source_read(struct archive *a, void *arg, const void **data)
{
	struct source *s = arg;
	ssize_t n = source_fill(s);

	*data = s->buf;
	if (n < 0)
		archive_set_error(a, -n, "%s", strerror(-n));
	return n < 0 ? ARCHIVE_FATAL : n;
}

static int source_init(struct source *s, int fd, const struct image_opts *o,
		       struct err *err)
{
	struct stat st;

	*s = (struct source){ .fd = fd, .opts = o };
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		s->total = st.st_size;
	s->md = EVP_MD_CTX_new();
	s->buf = malloc(CHUNK);
	if (!s->md || !s->buf || !EVP_DigestInit_ex(s->md, EVP_sha256(), NULL))
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

static void source_done(struct source *s)
{
	EVP_MD_CTX_free(s->md);
	free(s->buf);
}

static int archive_failed(struct reader *r, const char *what)
{
	const char *why = archive_error_string(r->a);

	if (r->src.failed)
		return err_code(r->err, ERR_HOST_FAILED, -r->src.failed,
				"cannot read it: %s", strerror(-r->src.failed));
	return err_set(r->err, EINVAL, "%s: %s", what, why ? why : "damaged");
}

static int open_archive(struct reader *r)
{
	r->a = archive_read_new();
	if (!r->a)
		return err_set(r->err, ENOMEM, "out of memory");
	archive_read_support_filter_gzip(r->a);
	archive_read_support_filter_zstd(r->a);
	archive_read_support_filter_xz(r->a);
	archive_read_support_format_tar(r->a);
	if (archive_read_open(r->a, &r->src, NULL, source_read, NULL))
		return archive_failed(r, "not a tar archive, plain or "
				      "compressed with gzip, zstd or xz");
	return 0;
}

static struct tree_time get_time(int64_t sec, long nsec)
{
	struct tree_time t = { .sec = sec };

	if (nsec > 0 && nsec < (long)NSEC_PER_SEC)
		t.nsec = nsec;
	return t;
}

static int get_meta(struct reader *r, struct tree_meta *m)
{
	int64_t uid = archive_entry_uid(r->e), gid = archive_entry_gid(r->e);

	*m = (struct tree_meta){
		.mode = archive_entry_mode(r->e),
		.uid = uid, .gid = gid,
		.mtime = get_time(archive_entry_mtime(r->e),
				  archive_entry_mtime_nsec(r->e)),
		.target = archive_entry_symlink(r->e),
	};
	m->atime = m->ctime = m->mtime;
	if (archive_entry_atime_is_set(r->e))
		m->atime = get_time(archive_entry_atime(r->e),
				    archive_entry_atime_nsec(r->e));
	if (archive_entry_ctime_is_set(r->e))
		m->ctime = get_time(archive_entry_ctime(r->e),
				    archive_entry_ctime_nsec(r->e));
	if (S_ISCHR(m->mode) || S_ISBLK(m->mode)) {
		m->major = archive_entry_rdevmajor(r->e);
		m->minor = archive_entry_rdevminor(r->e);
	}
	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return err_set(r->err, EINVAL, "owner %lld:%lld", (long long)uid,
			       (long long)gid);
	if (S_ISREG(m->mode)) {
		int64_t size = archive_entry_size(r->e);

		if (size < 0 || !archive_entry_size_is_set(r->e))
			return err_set(r->err, EINVAL, "no size");
		m->size = size;
	}
	switch (m->mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK:
	case S_IFCHR: case S_IFBLK: case S_IFIFO:
		return 0;
	}
	return err_set(r->err, EINVAL, "an entry of unknown type");
}

/* What ext4 can hold; the rest (other systems' attributes) means nothing here. */
static bool wanted_xattr(const char *name)
{
	static const char *const prefix[] = { "user.", "trusted.", "security." };

	for (unsigned i = 0; i < ARRAY_LEN(prefix); i++)
		if (!strncmp(name, prefix[i], strlen(prefix[i])) &&
		    name[strlen(prefix[i])])
			return true;
	return false;
}

static int add_xattrs(struct reader *r, struct tree_inode *i)
{
	const char *name;
	const void *value;
	size_t len;
	int ret = acl_add(&r->b.tree, i, r->e, r->err);

	archive_entry_xattr_reset(r->e);
	while (!ret && archive_entry_xattr_next(r->e, &name, &value, &len) == 0)
		if (name && wanted_xattr(name))
			ret = tree_xattr(&r->b.tree, i, name, value, len, r->err);
	return ret;
}

static int make_room(struct reader *r, struct tree_inode *i)
{
	int64_t off, len;
	int ret = 0, n = archive_entry_sparse_reset(r->e);

	if (n > (int)SPARSE_MAX)
		return err_set(r->err, EINVAL, "a sparse file of %d pieces", n);
	if (n <= 0)
		return tree_room(&r->b.tree, &r->b.space, i, 0, i->size, r->err);
	while (!ret && archive_entry_sparse_next(r->e, &off, &len) == ARCHIVE_OK) {
		if (off < 0 || len < 0)
			return err_set(r->err, EINVAL, "a bad sparse map");
		ret = tree_room(&r->b.tree, &r->b.space, i, off, len, r->err);
	}
	return ret;
}

static int check_bomb(struct reader *r)
{
	uint64_t content = r->b.space.used * SPACE_BLOCK;

	if (content > BOMB_FROM && content / BOMB_RATIO > r->src.bytes)
		return err_set(r->err, EFBIG, "the archive expands more than "
			       "%u times", BOMB_RATIO);
	return 0;
}

static int copy_data(struct reader *r, struct tree_inode *i, bool is_config)
{
	uint32_t cursor = 0;
	const void *data;
	size_t len;
	int64_t off;
	int ret;

	for (;;) {
		ret = archive_read_data_block(r->a, &data, &len, &off);
		if (ret == ARCHIVE_EOF)
			return 0;
		if (ret < ARCHIVE_WARN)
			return archive_failed(r, "damaged");
		if (off < 0)
			return err_set(r->err, EINVAL, "damaged");
		/* libarchive ends a sparse file with an empty block at its size */
		if (!len)
			continue;
		ret = tree_data(&r->b.space, i, &cursor, off, data, len, r->err);
		if (!ret)
			ret = check_bomb(r);
		if (ret)
			return ret;
		if (is_config)
			buf_add(&r->b.config, data, len);
	}
}

/* The name without "./" in front. */
static const char *plain(const char *path)
{
	while (path[0] == '.' && path[1] == '/')
		for (path++; *path == '/'; path++)
			;
	return path;
}

static int begin_config(struct reader *r, const struct tree_meta *m)
{
	if (!S_ISREG(m->mode) || m->size > IMAGE_CONFIG_MAX)
		return err_set(r->err, EINVAL, "not a file of at most %u KiB",
			       IMAGE_CONFIG_MAX >> 10);
	buf_clear(&r->b.config);
	buf_add(&r->b.config, "", 0);
	r->b.has_config = true;
	return 0;
}

static int add_entry(struct reader *r, const char *path)
{
	const char *link = archive_entry_hardlink(r->e);
	bool is_config = !strcmp(plain(path), IMAGE_CONFIG_PATH);
	struct tree_inode *i;
	struct tree_meta m;
	int ret;

	if (link)
		return is_config ? err_set(r->err, EINVAL, "it is a link") :
				   tree_link(&r->b.tree, path, link, r->err);
	ret = get_meta(r, &m);
	if (!ret)
		ret = tree_add(&r->b.tree, path, &m, &i, r->err);
	if (!ret)
		ret = add_xattrs(r, i);
	if (!ret && is_config)
		ret = begin_config(r, &m);
	if (ret || !S_ISREG(m.mode))
		return ret;
	ret = make_room(r, i);
	return ret ? ret : copy_data(r, i, is_config);
}

static int read_entries(struct reader *r)
{
	for (;;) {
		int st = archive_read_next_header(r->a, &r->e);
		const char *path;
		int ret;

		if (st == ARCHIVE_EOF)
			return 0;
		if (st < ARCHIVE_WARN)
			return archive_failed(r, "damaged");
		path = archive_entry_pathname(r->e);
		if (!path || !*path)
			return err_set(r->err, EINVAL, "an entry without a name");
		ret = add_entry(r, path);
		if (ret)
			return err_wrap(r->err, ret, "entry '%.512s'", path);
	}
}

static int finish_source(struct reader *r, uint8_t digest[32])
{
	ssize_t n;

	while ((n = source_fill(&r->src)) > 0)
		;
	if (n < 0)
		return archive_failed(r, "read");
	if (!r->b.tree.nr_entries)
		return err_set(r->err, EINVAL, "it holds nothing");
	if (archive_filter_count(r->a) <= 1 && r->src.zeroes < END_MARKER)
		return err_set(r->err, EINVAL, "it is cut short: the end marker "
			       "is missing");
	if (!EVP_DigestFinal_ex(r->src.md, digest, NULL))
		return err_set(r->err, EIO, "cannot hash it");
	return 0;
}

static int build(struct reader *r, int archive_fd, int out_fd,
		 const struct image_opts *o, struct image_info *out)
{
	uint8_t digest[32];
	int ret = build_init(&r->b, out_fd, o, r->err);

	if (!ret)
		ret = source_init(&r->src, archive_fd, &r->b.opts, r->err);
	if (!ret)
		ret = open_archive(r);
	if (!ret)
		ret = read_entries(r);
	if (!ret)
		ret = finish_source(r, digest);
	if (ret)
		return ret;
	out->archive_size = r->src.bytes;
	return build_finish(&r->b, digest, "root", out, r->err);
}

int image_build(int archive_fd, int out_fd, const struct image_opts *o,
		struct image_info *out, struct err *err)
{
	struct reader r = { .err = err };
	/* libarchive converts names of pax headers to the thread's charset, and
	 * a name that is not in it is lost */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	locale_t old = utf8 ? uselocale(utf8) : (locale_t)0;
	int ret;

	*out = (struct image_info){ .hash = "" };
	ret = build(&r, archive_fd, out_fd, o, out);
	archive_read_free(r.a);
	source_done(&r.src);
	build_done(&r.b);
	if (old)
		uselocale(old);
	if (utf8)
		freelocale(utf8);
	if (ret == -ENOMEM)
		return err_wrap_code(err, ERR_HOST_FAILED, ret,
				     "cannot build a disk from the image");
	return ret ? err_wrap_code(err, ERR_BOOT_IMAGE_INVALID, ret,
				   "the image is not acceptable") : 0;
}
