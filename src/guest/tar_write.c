// SPDX-License-Identifier: MIT
/*
 * tar_write.c - a directory tree as a pax stream; see worker.h.
 *
 * Walks with openat, follows no symbolic link below the start, and never holds
 * a file in memory.  What the ustar header cannot say goes into a pax header:
 * long names, large numbers, nanoseconds, extended attributes, and the map of a
 * sparse file (GNU format 1.0, where the map leads the data).
 *
 * A file may change while it is read: its header has promised a length, so a
 * file that shrank is filled up with zeroes and one that grew is cut.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/tar.h"
#include "guest/worker.h"

#define TAR_DEPTH_MAX	256	/* directories open at once */
#define TAR_LINKS_MAX	(1u << 20)

struct extent {
	off_t off, len;
};

/* A file with several names, at its first. */
struct link {
	dev_t dev;
	ino_t ino;
	char *name;		/* owned */
};

struct tree {
	struct worker *w;
	struct link *link;	/* owned; open-addressed by inode */
	size_t nr_links, cap_links;
	struct buf pax;		/* records of the current entry */
	struct extent *ext;	/* owned; of the current sparse file */
	size_t nr_ext, cap_ext;
};

static struct link *link_slot(struct link *table, size_t cap, dev_t dev,
			      ino_t ino)
{
	size_t i = (ino * 0x9e3779b97f4a7c15ull ^ dev) & (cap - 1);

	while (table[i].name && (table[i].ino != ino || table[i].dev != dev))
		i = (i + 1) & (cap - 1);
	return &table[i];
}

static int links_grow(struct tree *t)
{
	size_t cap = t->cap_links ? t->cap_links * 2 : 64;
	struct link *table = calloc(cap, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < t->cap_links; i++)
		if (t->link[i].name)
			*link_slot(table, cap, t->link[i].dev,
				   t->link[i].ino) = t->link[i];
	free(t->link);
	t->link = table;
	t->cap_links = cap;
	return 0;
}

/* The earlier name of this file, or NULL, and then this is its first. */
static const char *link_name(struct tree *t, const struct stat *st,
			     const char *name)
{
	struct link *l;

	if (st->st_nlink < 2 || S_ISDIR(st->st_mode))
		return NULL;
	/* past the limit, or without memory, names become files of their own */
	if (t->nr_links * 2 >= t->cap_links &&
	    (t->nr_links >= TAR_LINKS_MAX || links_grow(t)))
		return NULL;
	l = link_slot(t->link, t->cap_links, st->st_dev, st->st_ino);
	if (l->name)
		return l->name;
	*l = (struct link){ st->st_dev, st->st_ino, strdup(name) };
	t->nr_links += l->name != NULL;
	return NULL;
}

/* "LEN KEY=VALUE\n", where LEN counts itself. */
static void pax_add(struct tree *t, const char *key, const void *value,
		    size_t len)
{
	size_t rest = strlen(key) + len + 3, total = rest + 1;
	char digits[24];

	while (total != rest + (size_t)snprintf(digits, sizeof(digits), "%zu",
						total))
		total = rest + strlen(digits);
	buf_addf(&t->pax, "%s %s=", digits, key);
	buf_add(&t->pax, value, len);
	buf_add(&t->pax, "\n", 1);
}

static void pax_number(struct tree *t, const char *key, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	pax_add(t, key, text, strlen(text));
}

static void put_number(struct tree *t, const char *key, char *field, size_t len,
		       uint64_t v)
{
	if (tar_put_number(field, len, v))
		return;
	tar_put_number(field, len, 0);
	if (key)
		pax_number(t, key, v);
}

static void put_text(struct tree *t, const char *key, char *field, size_t size,
		     const char *text)
{
	size_t len = strlen(text);

	memcpy(field, text, MIN(len, size));
	if (len <= size)
		return;
	/* names are bytes: a reader must not take them for UTF-8 */
	if (!t->pax.len)
		pax_add(t, "hdrcharset", "BINARY", 6);
	pax_add(t, key, text, len);
}

static void put_mtime(struct tree *t, struct tar_head *h,
		      const struct timespec *m)
{
	char text[48];

	tar_put_number(h->mtime, sizeof(h->mtime), m->tv_sec > 0 ? m->tv_sec : 0);
	if (!m->tv_nsec && m->tv_sec >= 0)
		return;
	/* a time before 1970 is written as seconds alone */
	if (m->tv_sec < 0)
		snprintf(text, sizeof(text), "%lld", (long long)m->tv_sec);
	else
		snprintf(text, sizeof(text), "%lld.%09ld", (long long)m->tv_sec,
			 m->tv_nsec);
	pax_add(t, "mtime", text, strlen(text));
}

/* Through /proc, since there is no flistxattrat; failures mean none. */
static void put_xattrs(struct tree *t, int dir, const char *name)
{
	char path[PATH_MAX], key[XATTR_NAME_MAX + 32];
	static const char prefix[] = "SCHILY.xattr.";
	char *list, *value;
	ssize_t n;

	if (dir == AT_FDCWD)
		snprintf(path, sizeof(path), "%s", name);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	if (llistxattr(path, NULL, 0) <= 0)
		return;
	list = malloc(XATTR_LIST_MAX);
	value = malloc(XATTR_SIZE_MAX);
	n = list && value ? llistxattr(path, list, XATTR_LIST_MAX) : 0;
	for (char *x = list; n > 0 && x < list + n; x += strlen(x) + 1) {
		ssize_t len = lgetxattr(path, x, value, XATTR_SIZE_MAX);

		snprintf(key, sizeof(key), "%s%s", prefix, x);
		if (len >= 0 && !strchr(x, '=') && t->pax.len < TAR_PAX_MAX / 2)
			pax_add(t, key, value, len);
	}
	free(list);
	free(value);
}

static void pad_block(struct worker *w, uint64_t len)
{
	static const char zero[TAR_BLOCK];

	worker_write(w, zero, -len & (TAR_BLOCK - 1));
}

static void finish_head(struct tar_head *h)
{
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	snprintf(h->sum, sizeof(h->sum), "%06o", tar_checksum(h));
	h->sum[7] = ' ';
}

/* The pax header, when there is one, then the entry's own. */
static int send_head(struct tree *t, struct tar_head *h)
{
	struct tar_head x = { .name = "PaxHeader", .type = 'x' };

	if (t->pax.oom)
		return worker_fail(t->w, ENOMEM, "");
	if (t->pax.len) {
		tar_put_number(x.mode, sizeof(x.mode), 0644);
		tar_put_number(x.uid, sizeof(x.uid), 0);
		tar_put_number(x.gid, sizeof(x.gid), 0);
		tar_put_number(x.mtime, sizeof(x.mtime), 0);
		tar_put_number(x.size, sizeof(x.size), t->pax.len);
		finish_head(&x);
		worker_write(t->w, &x, sizeof(x));
		worker_write(t->w, t->pax.data, t->pax.len);
		pad_block(t->w, t->pax.len);
	}
	finish_head(h);
	worker_write(t->w, h, sizeof(*h));
	buf_clear(&t->pax);
	return 0;
}

static int ext_add(struct tree *t, off_t off, off_t len)
{
	if (t->nr_ext == t->cap_ext) {
		size_t cap = t->cap_ext ? t->cap_ext * 2 : 32;
		struct extent *e = realloc(t->ext, cap * sizeof(*e));

		if (!e)
			return -ENOMEM;
		t->ext = e;
		t->cap_ext = cap;
	}
	t->ext[t->nr_ext++] = (struct extent){ off, len };
	return 0;
}

/* Fills t->ext with what is data; a file without holes gives one extent. */
static int find_data(struct tree *t, int fd, const struct stat *st)
{
	off_t at = 0, hole;
	int r = 0;

	t->nr_ext = 0;
	if ((uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size)
		return ext_add(t, 0, st->st_size);
	while (!r && at < st->st_size) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			break;
		hole = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
		if (hole < 0) {
			t->nr_ext = 0;
			return ext_add(t, 0, st->st_size);
		}
		hole = MIN(hole, st->st_size);
		if (hole > at)
			r = ext_add(t, at, hole - at);
		at = hole;
	}
	/* the format tells the length by a last, empty extent */
	return r ? r : ext_add(t, st->st_size, 0);
}

static void send_extent(struct worker *w, int fd, struct extent e)
{
	char data[WORKER_CHUNK];

	while (e.len > 0) {
		size_t want = MIN((off_t)sizeof(data), e.len);
		ssize_t n = pread(fd, data, want, e.off);

		if (n <= 0) {
			memset(data, 0, want);
			n = want;
		}
		worker_write(w, data, n);
		e.off += n;
		e.len -= n;
	}
}

/* The map of a sparse file as text, padded to a block. */
static void sparse_map(const struct tree *t, struct buf *map)
{
	buf_addf(map, "%zu\n", t->nr_ext);
	for (size_t i = 0; i < t->nr_ext; i++)
		buf_addf(map, "%lld\n%lld\n", (long long)t->ext[i].off,
			 (long long)t->ext[i].len);
	while (map->len % TAR_BLOCK && !map->oom)
		buf_add(map, "", 1);
}

static int send_file(struct tree *t, int fd, const char *name,
		     const struct stat *st, struct tar_head *h)
{
	struct buf map = BUF_INIT;
	uint64_t size = 0;
	int r = find_data(t, fd, st);

	if (!r && (t->nr_ext > 1 || !t->ext[0].len) && st->st_size) {
		sparse_map(t, &map);
		size = map.len;
		pax_add(t, "GNU.sparse.major", "1", 1);
		pax_add(t, "GNU.sparse.minor", "0", 1);
		pax_add(t, "GNU.sparse.name", name, strlen(name));
		pax_number(t, "GNU.sparse.realsize", st->st_size);
	}
	for (size_t i = 0; !r && i < t->nr_ext; i++)
		size += t->ext[i].len;
	put_number(t, "size", h->size, sizeof(h->size), size);
	if (!r)
		r = map.oom ? -ENOMEM : send_head(t, h);
	if (!r) {
		worker_write(t->w, map.data, map.len);
		for (size_t i = 0; i < t->nr_ext; i++)
			send_extent(t->w, fd, t->ext[i]);
		pad_block(t->w, size);
	}
	buf_done(&map);
	return r < 0 ? worker_fail(t->w, r, name) : 0;
}

static char type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return '0';
	case S_IFLNK: return '2';
	case S_IFCHR: return '3';
	case S_IFBLK: return '4';
	case S_IFDIR: return '5';
	case S_IFIFO: return '6';
	default: return 0;	/* a socket: nothing to copy */
	}
}

static void fill_head(struct tree *t, struct tar_head *h, const char *name,
		      const struct stat *st)
{
	put_text(t, "path", h->name, sizeof(h->name), name);
	tar_put_number(h->mode, sizeof(h->mode), st->st_mode & 07777);
	put_number(t, "uid", h->uid, sizeof(h->uid), st->st_uid);
	put_number(t, "gid", h->gid, sizeof(h->gid), st->st_gid);
	put_mtime(t, h, &st->st_mtim);
	tar_put_number(h->size, sizeof(h->size), 0);
	h->type = type_of(st->st_mode);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		put_number(t, "SCHILY.devmajor", h->devmajor,
			   sizeof(h->devmajor), major(st->st_rdev));
		put_number(t, "SCHILY.devminor", h->devminor,
			   sizeof(h->devminor), minor(st->st_rdev));
	}
}

static int send_entry(struct tree *t, int dir, const char *base,
		      const char *name, unsigned depth);

static int send_children(struct tree *t, int fd, const char *name,
			 unsigned depth)
{
	DIR *d = fdopendir(fd);		/* takes fd */
	struct dirent *e;
	int r = 0;

	if (!d) {
		close(fd);
		return worker_fail(t->w, ENOMEM, name);
	}
	while (!r && (e = readdir(d))) {
		char *child = NULL;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (asprintf(&child, "%s/%s", name, e->d_name) < 0)
			r = worker_fail(t->w, ENOMEM, name);
		else
			r = send_entry(t, dirfd(d), e->d_name, child, depth + 1);
		free(child);
	}
	closedir(d);
	return r;
}

/* A link's target, or a second name, into the header; 0 or -errno. */
static int put_target(struct tree *t, struct tar_head *h, int dir,
		      const char *base, const char *first)
{
	char target[PATH_MAX];
	ssize_t n;

	if (first) {
		h->type = '1';
		put_text(t, "linkpath", h->linkname, sizeof(h->linkname), first);
		return 0;
	}
	if (h->type != '2')
		return 0;
	n = readlinkat(dir, base, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	put_text(t, "linkpath", h->linkname, sizeof(h->linkname), target);
	return 0;
}

/* base is relative to dir, name is what the stream says. */
static int send_entry(struct tree *t, int dir, const char *base,
		      const char *name, unsigned depth)
{
	struct tar_head h = { .name = "" };
	const char *first;
	struct stat st;
	int fd = -1, r;

	if (depth > TAR_DEPTH_MAX)
		return worker_fail(t->w, ELOOP, name);
	if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : worker_fail(t->w, errno, name);
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
		/* what is opened must be what was looked at: it may be swapped */
		fd = openat(dir, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
			    O_CLOEXEC | O_NOCTTY);
		if (fd < 0 || fstat(fd, &st))
			return worker_fail(t->w, errno, name);
	}
	buf_clear(&t->pax);
	fill_head(t, &h, name, &st);
	first = link_name(t, &st, name);
	r = h.type ? put_target(t, &h, dir, base, first) : 0;
	if (h.type && !first)
		put_xattrs(t, dir, base);
	if (r)
		r = worker_fail(t->w, r, name);
	else if (h.type == '0')
		r = send_file(t, fd, name, &st, &h);
	else if (h.type)
		r = send_head(t, &h);
	if (!r && h.type == '5')
		return send_children(t, fd, name, depth);
	if (fd >= 0)
		close(fd);
	return r;
}

int tar_write(struct worker *w, const char *path)
{
	static const char end[2 * TAR_BLOCK];
	struct tree t = { .w = w };
	int r;

	r = send_entry(&t, AT_FDCWD, path, ".", 0);
	if (!r)
		worker_write(w, end, sizeof(end));
	for (size_t i = 0; i < t.cap_links; i++)
		free(t.link[i].name);
	free(t.link);
	free(t.ext);
	buf_done(&t.pax);
	return r;
}
