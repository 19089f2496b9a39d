// SPDX-License-Identifier: MIT
/*
 * tree.c - the file system to be; see tree.h.
 *
 * Paths come from archives and are hostile: each is cut into names here and
 * nowhere else, and a name is only ever looked up in a directory of this tree,
 * so there is nothing outside to escape to.  Links are never followed: an
 * entry below a symbolic link means that archive and author disagree on where
 * it goes, and is refused.
 *
 * Names live in one hash table keyed by (directory, name) with a random
 * multiplier, so that no archive can choose names that collide.
 */
#include "image/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/util.h"
#include "image/space.h"

#define CHUNK_SIZE  (256u << 10)
#define MIN_BUCKETS 1024u

struct tree_chunk {
	struct tree_chunk *next;
	size_t used, size;
	_Alignas(16) char data[];
};

void *tree_alloc(struct tree *t, size_t size)
{
	struct tree_chunk *c = t->chunks;
	void *p;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = ALIGN_UP(size, 16);
	if (!c || c->size - c->used < size) {
		size_t cap = MAX(size, (size_t)CHUNK_SIZE);

		c = malloc(sizeof(*c) + cap);
		if (!c)
			return NULL;
		*c = (struct tree_chunk){ .next = t->chunks, .size = cap };
		t->chunks = c;
	}
	p = c->data + c->used;
	c->used += size;
	memset(p, 0, size);
	return p;
}

static char *tree_strdup(struct tree *t, const char *s)
{
	size_t len = strlen(s);
	char *copy = tree_alloc(t, len + 1);

	if (copy)
		memcpy(copy, s, len);
	return copy;
}

static struct tree_inode *new_inode(struct tree *t, const struct tree_meta *m)
{
	struct tree_inode *i = tree_alloc(t, sizeof(*i));

	if (!i)
		return NULL;
	*i = (struct tree_inode){
		.mode = m->mode, .uid = m->uid, .gid = m->gid,
		.major = m->major, .minor = m->minor, .size = m->size,
		.mtime = m->mtime, .atime = m->atime, .ctime = m->ctime,
	};
	if (t->last)
		t->last->next = i;
	t->last = i;
	return i;
}

int tree_init(struct tree *t, const struct tree_limits *limits)
{
	const struct tree_meta root = { .mode = S_IFDIR | 0755 };

	*t = (struct tree){ .limits = *limits, .nr_buckets = MIN_BUCKETS };
	if (getrandom(&t->hash_key, sizeof(t->hash_key), 0) !=
	    sizeof(t->hash_key))
		t->hash_key = (uintptr_t)t;
	t->hash_key |= 1;
	t->buckets = calloc(t->nr_buckets, sizeof(t->buckets[0]));
	if (!t->buckets)
		return -ENOMEM;
	t->root = new_inode(t, &root);
	if (!t->root)
		return -ENOMEM;
	t->root->parent = t->root;
	t->root->nlink = 1;
	return 0;
}

void tree_done(struct tree *t)
{
	while (t->chunks) {
		struct tree_chunk *next = t->chunks->next;

		free(t->chunks);
		t->chunks = next;
	}
	free(t->buckets);
	free(t->last_dir);
	*t = (struct tree){ .root = NULL };
}

static uint64_t hash_name(const struct tree *t, const struct tree_inode *dir,
			  const char *name, size_t len)
{
	uint64_t h = (uintptr_t)dir * t->hash_key;

	for (; len >= 8; name += 8, len -= 8) {
		uint64_t w;

		memcpy(&w, name, 8);
		h = ((h ^ w) * t->hash_key);
		h ^= h >> 29;
	}
	for (; len; name++, len--)
		h = (h ^ (uint8_t)*name) * t->hash_key;
	return h ^ h >> 32;
}

static struct tree_dirent **bucket(struct tree *t, const struct tree_inode *dir,
				   const char *name, size_t len)
{
	return &t->buckets[hash_name(t, dir, name, len) & (t->nr_buckets - 1)];
}

static struct tree_dirent *lookup(struct tree *t, const struct tree_inode *dir,
				  const char *name, size_t len)
{
	struct tree_dirent *d = *bucket(t, dir, name, len);

	while (d && (d->dir != dir || d->name_len != len ||
		     memcmp(d->name, name, len)))
		d = d->hash_next;
	return d;
}

/* Failing to grow costs speed alone. */
static void grow_buckets(struct tree *t)
{
	struct tree_dirent **old = t->buckets;
	size_t nr_old = t->nr_buckets;

	t->buckets = calloc(nr_old * 2, sizeof(*old));
	if (!t->buckets) {
		t->buckets = old;
		return;
	}
	t->nr_buckets = nr_old * 2;
	for (size_t i = 0; i < nr_old; i++) {
		struct tree_dirent *d = old[i], *next, **b;

		for (; d; d = next) {
			next = d->hash_next;
			b = bucket(t, d->dir, d->name, d->name_len);
			d->hash_next = *b;
			*b = d;
		}
	}
	free(old);
}

static int add_name(struct tree *t, struct tree_inode *dir, const char *name,
		    size_t len, struct tree_inode *i)
{
	struct tree_dirent *d = tree_alloc(t, sizeof(*d) + len + 1), **b;

	if (!d)
		return -ENOMEM;
	memcpy(d->name, name, len);
	d->name_len = len;
	d->dir = dir;
	d->inode = i;
	if (++t->nr_names > t->nr_buckets)
		grow_buckets(t);
	b = bucket(t, dir, name, len);
	d->hash_next = *b;
	*b = d;
	if (dir->last)
		dir->last->next = d;
	else
		dir->first = d;
	dir->last = d;
	dir->nr_entries++;
	i->nlink++;
	if (S_ISDIR(i->mode)) {
		dir->nr_subdirs++;
		i->parent = dir;
	}
	return 0;
}

/* The directory `name` in dir, made when missing. */
static int enter(struct tree *t, struct tree_inode **dir, const char *name,
		 size_t len, struct err *err)
{
	const struct tree_meta m = { .mode = S_IFDIR | 0755 };
	struct tree_dirent *d = lookup(t, *dir, name, len);
	struct tree_inode *i;

	if (d && S_ISDIR(d->inode->mode)) {
		*dir = d->inode;
		return 0;
	}
	if (d)
		return err_set(err, EINVAL, "its path leads through '%s', "
			       "which is not a directory", d->name);
	if (t->nr_entries++ >= t->limits.entries)
		return err_set(err, EINVAL, "more than %u entries",
			       t->limits.entries);
	i = new_inode(t, &m);
	if (!i || add_name(t, *dir, name, len, i))
		return err_set(err, ENOMEM, "out of memory");
	*dir = i;
	return 0;
}

static void remember_dir(struct tree *t, const char *path, size_t len,
			 struct tree_inode *dir)
{
	if (len > t->last_dir_cap) {
		char *p = realloc(t->last_dir, len * 2);

		if (!p)
			return;
		t->last_dir = p;
		t->last_dir_cap = len * 2;
	}
	if (len)
		memcpy(t->last_dir, path, len);
	t->last_dir_len = len;
	t->last_dir_inode = dir;
}

static void forget_dir(struct tree *t)
{
	t->last_dir_inode = NULL;
}

static int check_name(const char *name, size_t len, struct err *err)
{
	if (len == 2 && !memcmp(name, "..", 2))
		return err_set(err, EINVAL, "'..' in its path");
	if (len > TREE_NAME_MAX)
		return err_set(err, EINVAL, "a name of %zu bytes in its path",
			       len);
	return 0;
}

/*
 * Splits off the last name and finds the directory it is in; with `make`,
 * missing directories are made, else they are an error.  A path that names the
 * root gives len 0.
 */
static int split(struct tree *t, const char *path, bool make,
		 struct tree_inode **dir, const char **name, size_t *len,
		 struct err *err)
{
	const char *end = path + strlen(path), *p = path, *last;
	int ret;

	if (*path == '/')
		return err_set(err, EINVAL, "its path is absolute");
	if (end - path > TREE_PATH_MAX)
		return err_set(err, EINVAL, "its path is too long");
	while (end > path && (end[-1] == '/' ||
			      (end[-1] == '.' && (end - path == 1 || end[-2] == '/'))))
		end--;
	for (last = end; last > path && last[-1] != '/'; last--)
		;
	*dir = t->root;
	if (t->last_dir_inode && t->last_dir_len == (size_t)(last - path) &&
	    (last == path || !memcmp(t->last_dir, path, last - path))) {
		*dir = t->last_dir_inode;
		p = last;
	}
	while (p < last) {
		const char *slash = memchr(p, '/', last - p);
		size_t n = slash - p;

		if (n && !(n == 1 && *p == '.')) {
			ret = check_name(p, n, err);
			if (!ret && !make && !lookup(t, *dir, p, n))
				ret = err_set(err, EINVAL, "'%s' does not exist",
					      path);
			if (!ret)
				ret = enter(t, dir, p, n, err);
			if (ret)
				return ret;
		}
		p = slash + 1;
	}
	remember_dir(t, path, last - path, *dir);
	*name = last;
	*len = end - last;
	return check_name(last, *len, err);
}

static void set_meta(struct tree_inode *i, const struct tree_meta *m)
{
	i->mode = m->mode;
	i->uid = m->uid;
	i->gid = m->gid;
	i->mtime = m->mtime;
	i->atime = m->atime;
	i->ctime = m->ctime;
	i->xattrs = NULL;
}

static int replace(struct tree *t, struct tree_dirent *d, struct tree_inode *i,
		   struct err *err)
{
	struct tree_inode *old = d->inode;

	if (old == i)
		return 0;
	if (S_ISDIR(old->mode) && old->nr_entries)
		return err_set(err, EINVAL, "it would replace a directory that "
			       "is not empty");
	if (S_ISDIR(old->mode))
		d->dir->nr_subdirs--;
	if (S_ISDIR(i->mode)) {
		d->dir->nr_subdirs++;
		i->parent = d->dir;
	}
	old->nlink--;
	i->nlink++;
	d->inode = i;
	forget_dir(t);
	return 0;
}

static int put(struct tree *t, struct tree_inode *dir, const char *name,
	       size_t len, struct tree_inode *i, struct err *err)
{
	struct tree_dirent *d = lookup(t, dir, name, len);

	if (d)
		return replace(t, d, i, err);
	if (add_name(t, dir, name, len, i))
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

static int check_meta(struct tree *t, const struct tree_meta *m,
		      struct err *err)
{
	if (t->nr_entries++ >= t->limits.entries)
		return err_set(err, EINVAL, "more than %u entries",
			       t->limits.entries);
	if (S_ISREG(m->mode) && m->size > TREE_FILE_MAX)
		return err_set(err, EINVAL, "a file of %llu bytes",
			       (unsigned long long)m->size);
	if (S_ISLNK(m->mode) && (!m->target || !*m->target ||
				 strlen(m->target) > 4095))
		return err_set(err, EINVAL, "a symbolic link that is empty or "
			       "too long");
	if ((S_ISCHR(m->mode) || S_ISBLK(m->mode)) &&
	    t->nr_devices++ >= t->limits.devices)
		return err_set(err, EINVAL, "more than %u device nodes",
			       t->limits.devices);
	if (m->major >= 1u << 12 || m->minor >= 1u << 20)
		return err_set(err, EINVAL, "device number %u:%u", m->major,
			       m->minor);
	if (m->mtime.sec > t->newest.sec)
		t->newest = m->mtime;
	return 0;
}

static int reserved_name(struct tree *t, const struct tree_inode *dir,
			 const char *name, size_t len, uint32_t mode,
			 struct err *err)
{
	if (dir == t->root && len == 10 && !memcmp(name, "lost+found", len) &&
	    !S_ISDIR(mode))
		return err_set(err, EINVAL, "/lost+found must be a directory");
	return 0;
}

int tree_add(struct tree *t, const char *path, const struct tree_meta *m,
	     struct tree_inode **out, struct err *err)
{
	struct tree_inode *dir, *i;
	struct tree_dirent *d;
	const char *name;
	size_t len;
	int ret = check_meta(t, m, err);

	if (!ret)
		ret = split(t, path, true, &dir, &name, &len, err);
	if (!ret && len)
		ret = reserved_name(t, dir, name, len, m->mode, err);
	if (ret)
		return ret;
	d = len ? lookup(t, dir, name, len) : NULL;
	if (!len || (d && S_ISDIR(d->inode->mode) && S_ISDIR(m->mode))) {
		*out = len ? d->inode : t->root;
		if (!S_ISDIR(m->mode))
			return err_set(err, EINVAL, "the root must be a directory");
		set_meta(*out, m);
		return 0;
	}
	i = new_inode(t, m);
	if (i && S_ISLNK(m->mode)) {
		i->target = tree_strdup(t, m->target);
		i->size = strlen(m->target);
	}
	if (!i || (S_ISLNK(m->mode) && !i->target))
		return err_set(err, ENOMEM, "out of memory");
	*out = i;
	return put(t, dir, name, len, i, err);
}

int tree_link(struct tree *t, const char *path, const char *target,
	      struct err *err)
{
	struct tree_inode *dir;
	struct tree_dirent *d;
	const char *name;
	size_t len;
	int ret;

	if (t->nr_entries++ >= t->limits.entries)
		return err_set(err, EINVAL, "more than %u entries",
			       t->limits.entries);
	ret = split(t, target, false, &dir, &name, &len, err);
	if (ret)
		return err_wrap(err, ret, "its link target '%s' is not usable",
				target);
	d = len ? lookup(t, dir, name, len) : NULL;
	if (!d || S_ISDIR(d->inode->mode))
		return err_set(err, EINVAL, "its link target '%s' %s", target,
			       d ? "is a directory" : "does not exist");
	if (d->inode->nlink >= TREE_LINK_MAX)
		return err_set(err, EMLINK, "more than %u links to one file",
			       TREE_LINK_MAX);
	ret = split(t, path, true, &dir, &name, &len, err);
	if (!ret && !len)
		ret = err_set(err, EINVAL, "the root must be a directory");
	if (!ret)
		ret = reserved_name(t, dir, name, len, d->inode->mode, err);
	return ret ? ret : put(t, dir, name, len, d->inode, err);
}

struct tree_inode *tree_find(struct tree *t, const char *path)
{
	struct tree_inode *dir;
	struct tree_dirent *d;
	const char *name;
	size_t len;

	if (split(t, path, false, &dir, &name, &len, NULL))
		return NULL;
	d = len ? lookup(t, dir, name, len) : NULL;
	return len ? d ? d->inode : NULL : t->root;
}

int tree_xattr(struct tree *t, struct tree_inode *i, const char *name,
	       const void *value, size_t len, struct err *err)
{
	struct tree_xattr *x, **at = &i->xattrs;
	size_t total = len;

	if (!*name || strlen(name) > TREE_NAME_MAX)
		return err_set(err, EINVAL, "an attribute with a bad name");
	for (; *at && strcmp((*at)->name, name); at = &(*at)->next)
		total += (*at)->len + strlen((*at)->name) + 32;
	if (total > t->limits.xattrs)
		return err_set(err, EINVAL, "attributes of more than %u bytes",
			       t->limits.xattrs);
	x = *at;
	if (!x)
		x = tree_alloc(t, sizeof(*x));
	if (x && !*at)
		x->name = tree_strdup(t, name);
	if (x)
		x->value = tree_alloc(t, len + 1);
	if (!x || !x->name || !x->value)
		return err_set(err, ENOMEM, "out of memory");
	if (len)
		memcpy(x->value, value, len);
	x->len = len;
	*at = x;
	return 0;
}

/* Appends an extent, joined with the last one where they touch. */
static int add_extent(struct tree *t, struct tree_inode *i,
		      const struct tree_extent *e)
{
	struct tree_extent *last = i->nr_extents ?
				   &i->extents[i->nr_extents - 1] : NULL;

	if (last && last->lblk + last->len == e->lblk &&
	    last->pblk + last->len == e->pblk &&
	    last->len + e->len <= SPACE_RUN_MAX) {
		last->len += e->len;
		return 0;
	}
	/* the array doubles whenever its length is a power of two */
	if (!(i->nr_extents & (i->nr_extents - 1))) {
		uint32_t cap = i->nr_extents ? i->nr_extents * 2 : 1;
		struct tree_extent *n = tree_alloc(t, cap * sizeof(*n));

		if (!n)
			return -ENOMEM;
		if (i->nr_extents)
			memcpy(n, i->extents, i->nr_extents * sizeof(*n));
		i->extents = n;
	}
	i->extents[i->nr_extents++] = *e;
	return 0;
}

int tree_room(struct tree *t, struct space *s, struct tree_inode *i,
	      uint64_t off, uint64_t len, struct err *err)
{
	uint64_t lblk = off / SPACE_BLOCK, end;

	if (!len)
		return 0;
	if (__builtin_add_overflow(off, len, &end) || end > TREE_FILE_MAX)
		return err_set(err, EINVAL, "data past the largest file size");
	end = (end + SPACE_BLOCK - 1) / SPACE_BLOCK;
	if (i->nr_extents) {
		const struct tree_extent *e = &i->extents[i->nr_extents - 1];

		if ((uint64_t)e->lblk + e->len > lblk)
			lblk = e->lblk + e->len;
	}
	while (lblk < end) {
		struct tree_extent e = { .lblk = lblk };
		int ret = space_alloc(s, end - lblk, &e.pblk, &e.len, err);

		if (ret)
			return ret;
		if (add_extent(t, i, &e))
			return err_set(err, ENOMEM, "out of memory");
		lblk += e.len;
	}
	return 0;
}

/* The extent that holds lblk; the cursor remembers where reading has come. */
static const struct tree_extent *find_extent(const struct tree_inode *i,
					     uint32_t *cursor, uint64_t lblk)
{
	if (*cursor >= i->nr_extents || i->extents[*cursor].lblk > lblk)
		*cursor = 0;
	for (; *cursor < i->nr_extents; (*cursor)++) {
		const struct tree_extent *e = &i->extents[*cursor];

		if (lblk < (uint64_t)e->lblk + e->len)
			return lblk >= e->lblk ? e : NULL;
	}
	return NULL;
}

int tree_data(struct space *s, struct tree_inode *i, uint32_t *cursor,
	      uint64_t off, const void *data, size_t len, struct err *err)
{
	while (len) {
		const struct tree_extent *e =
			find_extent(i, cursor, off / SPACE_BLOCK);
		uint64_t skip, n;
		int ret;

		if (!e || off >= i->size)
			return err_set(err, EINVAL, "data at %llu, where the "
				       "file has none", (unsigned long long)off);
		skip = off - (uint64_t)e->lblk * SPACE_BLOCK;
		n = MIN((uint64_t)len, (uint64_t)e->len * SPACE_BLOCK - skip);
		n = MIN(n, i->size - off);
		ret = space_write(s, e->pblk * SPACE_BLOCK + skip, data, n, err);
		if (ret)
			return ret;
		off += n;
		data = (const char *)data + n;
		len -= n;
	}
	return 0;
}
