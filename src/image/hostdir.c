// SPDX-License-Identifier: MIT
/*
 * hostdir.c - a host directory becomes a disk (copy mounts).
 *
 * The tree is walked in sorted order through descriptors, never following a
 * symbolic link, so nothing outside is ever read, also when somebody swaps
 * directories for links meanwhile.  The same walk either hashes what stat(2)
 * says (the cache's key) or builds.  Sockets are left out: there is nobody
 * behind them in the guest.
 *
 * Files that grow while they are read are cut at the size they had when their
 * turn came; ones that shrink are an error.
 */
#include "image/hostdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/build.h"

#define DEPTH_MAX 256u		/* a descriptor each */
#define CHUNK	  (1u << 20)
#define LINKS_MIN 1024u

/* Files with several names, by device and inode. */
struct seen {
	dev_t dev;
	ino_t ino;
	char *path;		/* owned */
};

struct walk {
	EVP_MD_CTX *md;		/* owned */
	struct build *b;	/* NULL: only hash */
	uint8_t *chunk;		/* owned */
	struct buf path;	/* of the entry, relative */
	struct seen *seen;	/* owned; open addressing, power of two */
	size_t nr_seen, cap_seen;
	struct err *err;
};

static int failed(struct walk *w, int num, const char *what)
{
	return err_code(w->err, ERR_HOST_FAILED, num, "cannot %s '%.512s': %s",
			what, w->path.len ? w->path.data : ".", strerror(num));
}

static struct seen *seen_slot(struct seen *tab, size_t cap, const struct stat *st)
{
	size_t h = (st->st_ino * 0x9e3779b97f4a7c15ull) ^ st->st_dev;

	for (;; h++) {
		struct seen *s = &tab[h & (cap - 1)];

		if (!s->path || (s->ino == st->st_ino && s->dev == st->st_dev))
			return s;
	}
}

static int seen_grow(struct walk *w)
{
	size_t cap = w->cap_seen ? w->cap_seen * 2 : LINKS_MIN;
	struct seen *tab = calloc(cap, sizeof(*tab));

	if (!tab)
		return -ENOMEM;
	for (size_t i = 0; i < w->cap_seen; i++) {
		const struct stat st = { .st_dev = w->seen[i].dev,
					 .st_ino = w->seen[i].ino };

		if (w->seen[i].path)
			*seen_slot(tab, cap, &st) = w->seen[i];
	}
	free(w->seen);
	w->seen = tab;
	w->cap_seen = cap;
	return 0;
}

/* The first name of a file met before, else NULL and this one is noted. */
static int first_name(struct walk *w, const struct stat *st, const char **first)
{
	struct seen *s;

	*first = NULL;
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return 0;
	if (w->nr_seen * 2 >= w->cap_seen && seen_grow(w))
		return -ENOMEM;
	s = seen_slot(w->seen, w->cap_seen, st);
	*first = s->path;
	if (s->path)
		return 0;
	s->dev = st->st_dev;
	s->ino = st->st_ino;
	s->path = strdup(w->path.data);
	w->nr_seen++;
	return s->path ? 0 : -ENOMEM;
}

static void hash_stat(struct walk *w, const struct stat *st)
{
	const uint64_t f[] = {
		st->st_mode, st->st_uid, st->st_gid, st->st_rdev,
		S_ISDIR(st->st_mode) ? 0 : st->st_size,
		st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
		st->st_ctim.tv_sec, st->st_ctim.tv_nsec,
		st->st_ino, st->st_dev, w->path.len,
	};

	EVP_DigestUpdate(w->md, f, sizeof(f));
	EVP_DigestUpdate(w->md, w->path.data, w->path.len);
}

static void fill_meta(struct tree_meta *m, const struct stat *st)
{
	*m = (struct tree_meta){
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.size = S_ISREG(st->st_mode) ? st->st_size : 0,
		.mtime = { st->st_mtim.tv_sec, st->st_mtim.tv_nsec },
	};
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		m->major = major(st->st_rdev);
		m->minor = minor(st->st_rdev);
	}
	m->atime = m->ctime = m->mtime;
}

/* One piece of data between two holes. */
static int copy_piece(struct walk *w, int fd, struct tree_inode *i, off_t off,
		      off_t end)
{
	uint32_t cursor = 0;
	int ret = tree_room(&w->b->tree, &w->b->space, i, off, end - off, w->err);

	while (!ret && off < end) {
		size_t want = MIN((off_t)CHUNK, end - off);
		ssize_t n = io_pread_full(fd, w->chunk, want, off);

		if (n < 0)
			return failed(w, -n, "read");
		if ((size_t)n < want)
			return failed(w, ESTALE, "read, for it shrank");
		ret = tree_data(&w->b->space, i, &cursor, off, w->chunk, n,
				w->err);
		off += n;
	}
	return ret;
}

static int copy_file(struct walk *w, int fd, struct tree_inode *i)
{
	off_t size = i->size, off = 0;
	int ret = 0;

	while (!ret && off < size) {
		off_t data = lseek(fd, off, SEEK_DATA), end;

		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0)
			data = off;	/* no holes known here */
		end = lseek(fd, data, SEEK_HOLE);
		if (end < 0 || end > size)
			end = size;
		if (data >= size)
			return 0;
		ret = copy_piece(w, fd, i, data, end);
		off = end;
	}
	return ret;
}

static int add_xattrs(struct walk *w, int fd, struct tree_inode *i)
{
	char names[8192], value[8192];
	ssize_t n = flistxattr(fd, names, sizeof(names));
	int ret = 0;

	/* a file system without attributes, or too many to be ext4's */
	for (char *p = names; n > 0 && !ret && p < names + n; p += strlen(p) + 1) {
		ssize_t len;

		if (strncmp(p, "user.", 5) && strcmp(p, "security.capability") &&
		    strncmp(p, "system.posix_acl_", 17))
			continue;
		len = fgetxattr(fd, p, value, sizeof(value));
		if (len >= 0)
			ret = tree_xattr(&w->b->tree, i, p, value, len, w->err);
	}
	return ret;
}

static int add_file(struct walk *w, int dir_fd, const char *name,
		    const struct stat *st, struct tree_inode **i)
{
	cleanup(io_closep) int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW |
					   O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct tree_meta m;
	struct stat now;
	int ret;

	if (fd < 0 || fstat(fd, &now) < 0)
		return failed(w, errno, "open");
	if (now.st_ino != st->st_ino || !S_ISREG(now.st_mode))
		return failed(w, ESTALE, "read, for it was replaced");
	fill_meta(&m, &now);
	ret = tree_add(&w->b->tree, w->path.data, &m, i, w->err);
	if (!ret)
		ret = add_xattrs(w, fd, *i);
	return ret ? ret : copy_file(w, fd, *i);
}

static int add_entry(struct walk *w, int dir_fd, const char *name,
		     const struct stat *st)
{
	char target[4096];
	struct tree_inode *i;
	struct tree_meta m;
	const char *first;
	ssize_t n;

	if (first_name(w, st, &first))
		return err_set(w->err, ENOMEM, "out of memory");
	if (first)
		return tree_link(&w->b->tree, w->path.data, first, w->err);
	if (S_ISREG(st->st_mode))
		return add_file(w, dir_fd, name, st, &i);
	fill_meta(&m, st);
	if (S_ISLNK(st->st_mode)) {
		n = readlinkat(dir_fd, name, target, sizeof(target) - 1);
		if (n < 0)
			return failed(w, errno, "read the link");
		target[n] = '\0';
		m.target = target;
	}
	return tree_add(&w->b->tree, w->path.data, &m, &i, w->err);
}

static int walk_dir(struct walk *w, int fd, unsigned depth);

static int visit(struct walk *w, int dir_fd, const char *name, unsigned depth)
{
	size_t len = w->path.len;
	struct stat st;
	int ret = 0, fd;

	if (len)
		buf_adds(&w->path, "/");
	buf_adds(&w->path, name);
	if (w->path.oom)
		return err_set(w->err, ENOMEM, "out of memory");
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return failed(w, errno, "look at");
	if (!S_ISSOCK(st.st_mode)) {
		hash_stat(w, &st);
		if (w->b)
			ret = add_entry(w, dir_fd, name, &st);
	}
	if (!ret && S_ISDIR(st.st_mode)) {
		fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
			    O_CLOEXEC);
		ret = fd < 0 ? failed(w, errno, "open") :
			       walk_dir(w, fd, depth + 1);
	}
	if (!ret) {
		w->path.len = len;
		w->path.data[len] = '\0';
	}
	return ret;
}

static int not_dots(const struct dirent *d)
{
	return strcmp(d->d_name, ".") && strcmp(d->d_name, "..");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Takes fd over. */
static int walk_dir(struct walk *w, int fd, unsigned depth)
{
	struct dirent **list = NULL;
	int n = depth > DEPTH_MAX ? -1 :
		scandirat(fd, ".", &list, not_dots, by_name), ret = 0;

	if (depth > DEPTH_MAX)
		ret = failed(w, ELOOP, "go below");
	else if (n < 0)
		ret = failed(w, errno, "read");
	for (int i = 0; i < n; i++) {
		if (!ret)
			ret = visit(w, fd, list[i]->d_name, depth);
		free(list[i]);
	}
	free(list);
	io_close(fd);
	return ret;
}

static int walk_root(struct walk *w, int dir_fd, uint8_t digest[32])
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	int ret = 0;

	w->md = EVP_MD_CTX_new();
	w->chunk = malloc(CHUNK);
	buf_add(&w->path, "", 0);
	if (!w->md || !w->chunk || w->path.oom ||
	    !EVP_DigestInit_ex(w->md, EVP_sha256(), NULL)) {
		io_close(fd);
		return err_set(w->err, ENOMEM, "out of memory");
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		io_close(fd);
		return failed(w, errno, "open");
	}
	hash_stat(w, &st);
	if (w->b) {
		struct tree_inode *root;
		struct tree_meta m;

		fill_meta(&m, &st);
		ret = tree_add(&w->b->tree, ".", &m, &root, w->err);
		if (!ret)
			ret = add_xattrs(w, fd, root);
	}
	if (ret)
		io_close(fd);
	else
		ret = walk_dir(w, fd, 0);
	if (!ret && !EVP_DigestFinal_ex(w->md, digest, NULL))
		ret = err_set(w->err, EIO, "cannot hash");
	return ret;
}

static void walk_done(struct walk *w)
{
	for (size_t i = 0; i < w->cap_seen; i++)
		free(w->seen[i].path);
	free(w->seen);
	free(w->chunk);
	buf_done(&w->path);
	EVP_MD_CTX_free(w->md);
}

int hostdir_digest(int dir_fd, uint8_t digest[32], struct err *err)
{
	struct walk w = { .err = err };
	int ret = walk_root(&w, dir_fd, digest);

	walk_done(&w);
	return ret;
}

int image_build_dir(int dir_fd, int out_fd, const struct image_opts *o,
		    struct image_info *out, struct err *err)
{
	struct build b;
	struct walk w = { .b = &b, .err = err };
	uint8_t digest[32];
	int ret = build_init(&b, out_fd, o, err);

	*out = (struct image_info){ .hash = "" };
	if (!ret)
		ret = walk_root(&w, dir_fd, digest);
	if (!ret)
		ret = build_finish(&b, digest, "mount", out, err);
	walk_done(&w);
	build_done(&b);
	return ret ? err_wrap_code(err, ERR_BOOT_MOUNT_INVALID, ret,
				   "cannot make a disk of the directory") : 0;
}
