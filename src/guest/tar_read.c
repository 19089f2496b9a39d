// SPDX-License-Identifier: MIT
/*
 * tar_read.c - unpacks a pax stream below a directory; see worker.h.
 *
 * The stream is the host's, but the tree it goes into is the guest's, with any
 * links in it: names are resolved by openat2 below the root of the copy, so no
 * link, old or just unpacked, leads a file to another place.  What is in the way
 * of a file is replaced; a directory stays and is filled.
 *
 * Times of directories are set at the end, as unpacking into them changes them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/tar.h"
#include "guest/worker.h"

#define TAR_EXTENTS_MAX (1u << 20)

struct entry {
	struct tar_head h;
	char name[PATH_MAX], link[PATH_MAX];
	uint64_t size, realsize, uid, gid, mode, major, minor;
	struct timespec mtime;
	bool sparse, named;
	struct buf pax;		/* records, for the attributes in them */
};

struct late {
	char *name;		/* owned */
	struct timespec mtime;
};

struct unpack {
	struct worker *w;
	const char *root;	/* borrowed */
	int fd;			/* root as a directory, -1: is none (yet) */
	struct entry e;
	uint64_t left;		/* bytes of the entry not read yet */
	struct late *late;	/* owned */
	size_t nr_late, cap_late;
};

static int bad_stream(struct unpack *u)
{
	return worker_fail(u->w, EBADMSG, "tar stream");
}

static int entry_fail(struct unpack *u, int error)
{
	return worker_fail(u->w, error, u->e.name[0] ? u->e.name : u->root);
}

static int open_below(const struct unpack *u, const char *path, uint64_t flags)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	int fd = syscall(SYS_openat2, u->fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/*
 * Cleans a name in place: no leading "/" or "./", no empty or "." parts; "" is
 * the root.  False for one with "..".
 */
static bool clean_name(char *name)
{
	char *out = name;

	for (char *p = name; *p; ) {
		size_t len = strcspn(p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.')
			return false;
		if (len && !(len == 1 && *p == '.')) {
			if (out != name)
				*out++ = '/';
			memmove(out, p, len);
			out += len;
		}
		p += len + (p[len] == '/');
	}
	*out = '\0';
	return true;
}

static bool record_is(const struct tar_record *r, const char *key)
{
	return strlen(key) == r->key_len && !memcmp(key, r->key, r->key_len);
}

static bool record_number(const struct tar_record *r, uint64_t *v)
{
	*v = 0;
	for (size_t i = 0; i < r->value_len; i++) {
		if (r->value[i] < '0' || r->value[i] > '9' ||
		    __builtin_mul_overflow(*v, 10, v) ||
		    __builtin_add_overflow(*v, r->value[i] - '0', v))
			return false;
	}
	return r->value_len > 0;
}

static bool record_text(const struct tar_record *r, char *out)
{
	if (r->value_len >= PATH_MAX || memchr(r->value, 0, r->value_len))
		return false;
	memcpy(out, r->value, r->value_len);
	out[r->value_len] = '\0';
	return true;
}

static bool record_time(const struct tar_record *r, struct timespec *t)
{
	char text[64], *dot;
	long nsec = 0;

	if (r->value_len >= sizeof(text))
		return false;
	memcpy(text, r->value, r->value_len);
	text[r->value_len] = '\0';
	dot = strchr(text, '.');
	for (int i = 1; dot && i <= 9; i++) {
		bool digit = dot[i] >= '0' && dot[i] <= '9';

		nsec = nsec * 10 + (digit ? dot[i] - '0' : 0);
		if (!digit)
			dot[i + 1] = '\0';
	}
	*t = (struct timespec){ .tv_sec = strtoll(text, NULL, 10),
				.tv_nsec = text[0] == '-' ? 0 : nsec };
	return true;
}

/* What a pax header says of the entry after it. */
static bool apply_record(struct entry *e, const struct tar_record *r)
{
	if (record_is(r, "GNU.sparse.name")) {
		e->named = true;	/* "path" is a stand-in then */
		return record_text(r, e->name);
	}
	if (record_is(r, "path"))
		return e->named || record_text(r, e->name);
	if (record_is(r, "linkpath"))
		return record_text(r, e->link);
	if (record_is(r, "size"))
		return record_number(r, &e->size);
	if (record_is(r, "uid"))
		return record_number(r, &e->uid);
	if (record_is(r, "gid"))
		return record_number(r, &e->gid);
	if (record_is(r, "SCHILY.devmajor"))
		return record_number(r, &e->major);
	if (record_is(r, "SCHILY.devminor"))
		return record_number(r, &e->minor);
	if (record_is(r, "mtime"))
		return record_time(r, &e->mtime);
	if (record_is(r, "GNU.sparse.realsize")) {
		e->sparse = true;
		return record_number(r, &e->realsize);
	}
	return true;
}

static bool apply_pax(struct entry *e)
{
	const char *p = e->pax.data, *end = p + e->pax.len;
	struct tar_record r;
	bool bad = false;

	while (e->pax.len && tar_record_next(&p, end, &r, &bad))
		if (!apply_record(e, &r))
			return false;
	return !bad;
}

static bool read_pax(struct unpack *u, uint64_t size)
{
	char pad[TAR_BLOCK];
	char *p;

	if (size > TAR_PAX_MAX)
		return false;
	buf_clear(&u->e.pax);
	p = buf_reserve(&u->e.pax, size);
	if (!p || worker_read(u->w, p, size) != size ||
	    worker_read(u->w, pad, -size & (TAR_BLOCK - 1)) !=
	    (-size & (TAR_BLOCK - 1)))
		return false;
	u->e.pax.len = size;
	return true;
}

static bool parse_head(struct entry *e)
{
	const struct tar_head *h = &e->h;
	uint64_t sum, mtime;

	if (!tar_number(h->sum, sizeof(h->sum), &sum) ||
	    sum != tar_checksum(h) ||
	    !tar_number(h->size, sizeof(h->size), &e->size) ||
	    !tar_number(h->mode, sizeof(h->mode), &e->mode) ||
	    !tar_number(h->uid, sizeof(h->uid), &e->uid) ||
	    !tar_number(h->gid, sizeof(h->gid), &e->gid) ||
	    !tar_number(h->mtime, sizeof(h->mtime), &mtime))
		return false;
	tar_number(h->devmajor, sizeof(h->devmajor), &e->major);
	tar_number(h->devminor, sizeof(h->devminor), &e->minor);
	e->mtime = (struct timespec){ .tv_sec = mtime };
	snprintf(e->name, sizeof(e->name), "%.*s%s%.*s",
		 (int)sizeof(h->prefix), h->prefix, h->prefix[0] ? "/" : "",
		 (int)sizeof(h->name), h->name);
	snprintf(e->link, sizeof(e->link), "%.*s", (int)sizeof(h->linkname),
		 h->linkname);
	return true;
}

/* The next entry with its pax header applied: 1, 0 at the end, or -errno. */
static int next_entry(struct unpack *u)
{
	static const char zero[TAR_BLOCK];
	struct entry *e = &u->e;

	buf_clear(&e->pax);
	for (;;) {
		size_t n = worker_read(u->w, &e->h, sizeof(e->h));

		if (!n || (n == sizeof(e->h) && !memcmp(&e->h, zero, n)))
			return 0;
		e->sparse = e->named = false;
		if (n != sizeof(e->h) || !parse_head(e))
			return bad_stream(u);
		if (e->h.type != 'x' && e->h.type != 'g')
			break;
		if (!read_pax(u, e->size))
			return bad_stream(u);
		if (e->h.type == 'g')
			buf_clear(&e->pax);
	}
	if (!apply_pax(e) || !clean_name(e->name))
		return bad_stream(u);
	u->left = e->size;
	return 1;
}

/* Up to len bytes of the entry's own data. */
static size_t read_data(struct unpack *u, void *data, size_t len)
{
	size_t n = worker_read(u->w, data, MIN((uint64_t)len, u->left));

	u->left -= n;
	return n;
}

static int skip_rest(struct unpack *u)
{
	char drop[TAR_BLOCK];
	size_t pad = -u->e.size & (TAR_BLOCK - 1);

	while (u->left)
		if (!read_data(u, drop, sizeof(drop)))
			return bad_stream(u);
	return worker_read(u->w, drop, pad) == pad ? 0 : bad_stream(u);
}

static int make_dirs(const struct unpack *u, char *path)
{
	for (char *p = strchr(path, '/'); ; p = strchr(p + 1, '/')) {
		int parent, r = 0;
		char *base;

		if (p)
			*p = '\0';
		base = strrchr(path, '/');
		if (base)
			*base = '\0';
		parent = open_below(u, base ? path : ".", O_PATH | O_DIRECTORY);
		if (base)
			*base = '/';
		if (parent < 0)
			r = parent;
		else if (mkdirat(parent, base ? base + 1 : path, 0755) &&
			 errno != EEXIST)
			r = -errno;
		if (parent >= 0)
			close(parent);
		if (p)
			*p = '/';
		if (r || !p)
			return r;
	}
}

/* The directory that is to hold name, made when absent; *base is its last part. */
static int open_parent(const struct unpack *u, char *name, const char **base)
{
	char *slash = strrchr(name, '/');
	int fd;

	*base = slash ? slash + 1 : name;
	if (!slash)
		return fcntl(u->fd, F_DUPFD_CLOEXEC, 3);
	*slash = '\0';
	fd = open_below(u, name, O_PATH | O_DIRECTORY);
	if (fd == -ENOENT && !make_dirs(u, name))
		fd = open_below(u, name, O_PATH | O_DIRECTORY);
	*slash = '/';
	return fd;
}

/* One count of a sparse map: decimal, ended by a newline. */
static bool map_number(struct unpack *u, uint64_t *v)
{
	char c;

	for (*v = 0; read_data(u, &c, 1) == 1; ) {
		if (c == '\n')
			return true;
		if (c < '0' || c > '9' || __builtin_mul_overflow(*v, 10, v) ||
		    __builtin_add_overflow(*v, c - '0', v))
			return false;
	}
	return false;
}

static int write_extent(struct unpack *u, int fd, uint64_t off, uint64_t len)
{
	char data[WORKER_CHUNK];

	while (len) {
		size_t n = read_data(u, data, MIN((uint64_t)sizeof(data), len));

		if (!n)
			return bad_stream(u);
		for (size_t at = 0; at < n; ) {
			ssize_t k = pwrite(fd, data + at, n - at, off + at);

			if (k < 0 && errno != EINTR)
				return entry_fail(u, errno);
			at += k > 0 ? k : 0;
		}
		off += n;
		len -= n;
	}
	return 0;
}

static int write_sparse(struct unpack *u, int fd)
{
	uint64_t nr, (*ext)[2], total = u->left;
	char drop[TAR_BLOCK];
	int r = 0;

	if (!map_number(u, &nr) || nr > TAR_EXTENTS_MAX)
		return bad_stream(u);
	ext = calloc(nr + 1, sizeof(*ext));
	if (!ext)
		return entry_fail(u, ENOMEM);
	for (uint64_t i = 0; !r && i < nr; i++)
		if (!map_number(u, &ext[i][0]) || !map_number(u, &ext[i][1]) ||
		    ext[i][0] > u->e.realsize ||
		    ext[i][1] > u->e.realsize - ext[i][0])
			r = bad_stream(u);
	/* the map is padded to a block */
	total = -(total - u->left) & (TAR_BLOCK - 1);
	if (!r && read_data(u, drop, total) != total)
		r = bad_stream(u);
	for (uint64_t i = 0; !r && i < nr; i++)
		r = write_extent(u, fd, ext[i][0], ext[i][1]);
	free(ext);
	return r;
}

/* Creates the file, in place of whatever had the name; a mount point is kept. */
static int create_file(int dir, const char *base, mode_t mode)
{
	int fd;

	if (unlinkat(dir, base, 0) && errno != ENOENT && errno != EBUSY)
		return -errno;
	fd = openat(dir, base, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW |
		    O_NONBLOCK | O_CLOEXEC | O_NOCTTY, mode);
	return fd < 0 ? -errno : fd;
}

static int unpack_file(struct unpack *u, int dir, const char *base)
{
	int fd = create_file(dir, base, 0600), r;

	if (fd < 0)
		return entry_fail(u, fd);
	r = u->e.sparse ? write_sparse(u, fd) :
			  write_extent(u, fd, 0, u->e.size);
	if (!r && u->e.sparse && ftruncate(fd, u->e.realsize))
		r = entry_fail(u, errno);
	if (close(fd) && !r)
		r = entry_fail(u, errno);
	return r;
}

static int unpack_hardlink(struct unpack *u, int dir, const char *base)
{
	char target[PATH_MAX];
	const char *last;
	int from, r = 0;

	snprintf(target, sizeof(target), "%s", u->e.link);
	if (!clean_name(target) || !target[0])
		return bad_stream(u);
	from = open_parent(u, target, &last);
	if (from < 0)
		return worker_fail(u->w, from, target);
	unlinkat(dir, base, 0);
	if (linkat(from, last, dir, base, 0))
		r = entry_fail(u, errno);
	close(from);
	return r;
}

static int unpack_node(struct unpack *u, int dir, const char *base)
{
	static const struct {
		char type;
		mode_t mode;
	} nodes[] = { { '3', S_IFCHR }, { '4', S_IFBLK }, { '6', S_IFIFO } };

	unlinkat(dir, base, 0);
	if (u->e.h.type == '2')
		return symlinkat(u->e.link, dir, base) ?
			entry_fail(u, errno) : 0;
	for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
		if (nodes[i].type == u->e.h.type)
			return mknodat(dir, base, nodes[i].mode | 0600,
				       makedev(u->e.major, u->e.minor)) ?
				entry_fail(u, errno) : 0;
	return entry_fail(u, ENOTSUP);
}

static int unpack_dir(struct unpack *u, int dir, const char *base)
{
	struct late *l;
	struct stat st;

	if (mkdirat(dir, base, 0700) && (errno != EEXIST ||
	    fstatat(dir, base, &st, 0) || !S_ISDIR(st.st_mode)))
		return entry_fail(u, errno == EEXIST ? ENOTDIR : errno);
	if (u->nr_late == u->cap_late) {
		size_t cap = u->cap_late ? u->cap_late * 2 : 64;

		l = realloc(u->late, cap * sizeof(*l));
		if (!l)
			return entry_fail(u, ENOMEM);
		u->late = l;
		u->cap_late = cap;
	}
	l = &u->late[u->nr_late];
	*l = (struct late){ strdup(u->e.name), u->e.mtime };
	u->nr_late += l->name != NULL;
	return 0;
}

static void set_xattrs(struct unpack *u, int dir, const char *base)
{
	static const char prefix[] = "SCHILY.xattr.";
	const char *p = u->e.pax.data, *end = p + u->e.pax.len;
	size_t skip = strlen(prefix);
	char path[PATH_MAX], key[XATTR_NAME_MAX + 1];
	struct tar_record r;
	bool bad;

	if (dir == AT_FDCWD)
		snprintf(path, sizeof(path), "%s", base);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, base);
	while (u->e.pax.len && tar_record_next(&p, end, &r, &bad)) {
		if (r.key_len <= skip || memcmp(r.key, prefix, skip) ||
		    r.key_len - skip > XATTR_NAME_MAX)
			continue;
		memcpy(key, r.key + skip, r.key_len - skip);
		key[r.key_len - skip] = '\0';
		/* not every file system has them: a copy without is a copy */
		lsetxattr(path, key, r.value, r.value_len, 0);
	}
}

/* Owner before mode: changing it clears the set-id bits. */
static int set_attributes(struct unpack *u, int dir, const char *base)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
					   u->e.mtime };
	char type = u->e.h.type;

	if (type == '1')
		return 0;
	if (fchownat(dir, base, u->e.uid, u->e.gid, AT_SYMLINK_NOFOLLOW) &&
	    !geteuid())
		return entry_fail(u, errno);
	set_xattrs(u, dir, base);
	if (type != '2' && fchmodat(dir, base, u->e.mode & 07777, 0))
		return entry_fail(u, errno);
	if (type != '5')
		utimensat(dir, base, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int unpack_at(struct unpack *u, int dir, const char *base)
{
	int r;

	switch (u->e.h.type) {
	case '0': case '\0': case '7':
		r = unpack_file(u, dir, base);
		break;
	case '1':
		r = unpack_hardlink(u, dir, base);
		break;
	case '5':
		r = unpack_dir(u, dir, base);
		break;
	default:
		r = unpack_node(u, dir, base);
	}
	return r ? r : set_attributes(u, dir, base);
}

/* 1 when the directory is new. */
static int open_root(struct unpack *u)
{
	bool made = !mkdir(u->root, 0755);

	if (!made && errno != EEXIST)
		return worker_fail(u->w, errno, u->root);
	u->fd = open(u->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return u->fd < 0 ? worker_fail(u->w, errno, u->root) : made;
}

/*
 * The entry "." is what is copied, at the root's own path: a directory becomes
 * the root of what follows, anything else is all there is.  A directory that was
 * there keeps its owner and mode.
 */
static int unpack_root(struct unpack *u)
{
	int r;

	if (u->e.h.type != '5')
		return unpack_at(u, AT_FDCWD, u->root);
	r = open_root(u);
	return r > 0 ? unpack_at(u, u->fd, ".") : r;
}

static int unpack_entry(struct unpack *u)
{
	const char *base;
	int dir, r;

	if (!u->e.name[0])
		return unpack_root(u);
	if (u->fd < 0) {	/* a stream without an entry for its root */
		r = open_root(u);
		if (r < 0)
			return r;
	}
	dir = open_parent(u, u->e.name, &base);
	if (dir < 0)
		return entry_fail(u, dir);
	r = unpack_at(u, dir, base);
	close(dir);
	return r;
}

static void set_late_times(struct unpack *u)
{
	while (u->nr_late) {
		struct late *l = &u->late[--u->nr_late];
		const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
						   l->mtime };
		int fd = open_below(u, l->name[0] ? l->name : ".",
				    O_RDONLY | O_DIRECTORY);

		if (fd >= 0) {
			futimens(fd, times);
			close(fd);
		}
		free(l->name);
	}
	free(u->late);
}

int tar_read(struct worker *w, const char *root)
{
	struct unpack *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return worker_fail(w, ENOMEM, root);
	u->w = w;
	u->root = root;
	u->fd = -1;
	while ((r = next_entry(u)) > 0) {
		r = unpack_entry(u);
		if (!r)
			r = skip_rest(u);
		if (r)
			break;
	}
	/* what follows the end marker is padding */
	while (!r && worker_read(w, &u->e.h, sizeof(u->e.h)))
		;
	set_late_times(u);
	if (u->fd >= 0)
		close(u->fd);
	buf_done(&u->e.pax);
	free(u);
	return r;
}
