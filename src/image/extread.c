// SPDX-License-Identifier: MIT
/*
 * extread.c - reading an ext4 file system that a guest has written.
 *
 * The guest is hostile: what libext2fs returns is checked again where we rely
 * on it - names, extents inside the disk and in rising order, how many there
 * are.  A journal that was not replayed is refused: libext2fs has no public way
 * to do it, and the guest agent unmounts before a VM ends.
 */
#include "image/extread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "layer/layer.h"

#define NAMES_MAX (4u << 20)	/* in one directory */
#define RUNS_MAX  (4u << 20)	/* of one file */

static int stack_pread(void *arg, void *data, size_t len, uint64_t off)
{
	struct iovec iov = { data, len };
	uint64_t size = layer_stack_size(arg);

	/* libext2fs reads whole blocks, the disk may end in the middle of one */
	if (off >= size)
		return -EINVAL;
	if (len > size - off) {
		memset((char *)data + (size - off), 0, len - (size - off));
		iov.iov_len = size - off;
	}
	return layer_read(arg, &iov, 1, off);
}

static int no_pwrite(void *arg, const void *data, size_t len, uint64_t off)
{
	return -EROFS;
}

static const struct extio_ops stack_ops = { stack_pread, no_pwrite };

static int open_stack(struct extread *r, const int *disk, unsigned nr,
		      struct err *err)
{
	int fd[LAYER_MAX_DEPTH];

	if (nr > LAYER_MAX_DEPTH)
		return err_set(err, EINVAL, "a stack of %u disk layers", nr);
	for (unsigned i = 0; i < nr; i++)
		fd[i] = dup(disk[i]);
	r->stack = layer_stack_open(fd, nr, 0, true, NULL, err);
	r->io = (struct extio){ .ops = &stack_ops, .arg = r->stack };
	return r->stack ? 0 : -EBADMSG;
}

static int damaged(struct err *err, const char *what)
{
	return err_set(err, EBADMSG, "damaged file system: %s", what);
}

static int check_super(struct ext2_super_block *sb, struct err *err)
{
	if (ext2fs_has_feature_journal_needs_recovery(sb))
		return err_set(err, EBUSY, "the file system was not unmounted: "
			       "its journal is not empty");
	if (sb->s_state & EXT2_ERROR_FS)
		return damaged(err, "the guest found errors in it");
	return 0;
}

int extread_open(struct extread *r, const int *disk, unsigned nr,
		 struct err *err)
{
	char name[EXTIO_NAME_MAX];
	io_manager mgr;
	errcode_t e;

	*r = (struct extread){ .fd = -1 };
	if (nr > 1) {
		int ret = open_stack(r, disk, nr, err);

		if (ret)
			return ret;
	} else {
		r->fd = dup(disk[0]);
		r->io = (struct extio){ .ops = &extio_fd_ops, .arg = &r->fd };
	}
	mgr = extio_manager(&r->io, name);
	e = ext2fs_open(name, EXT2_FLAG_64BITS, 0, 0, mgr, &r->fs);
	if (e)
		return damaged(err, "no ext4 in it");
	return check_super(r->fs->super, err);
}

void extread_done(struct extread *r)
{
	if (r->fs)
		ext2fs_free(r->fs);
	layer_stack_free(r->stack);
	io_close(r->fd);
	*r = (struct extread){ .fd = -1 };
}

void extread_names_done(struct extread_names *n)
{
	for (size_t i = 0; i < n->nr; i++)
		free(n->list[i].name);
	free(n->list);
	*n = (struct extread_names){ .list = NULL };
}

struct collect {
	struct extread_names *out;
	int failed;
};

static int add_name(struct extread_names *n, const char *name, size_t len,
		    ext2_ino_t ino)
{
	if (n->nr == NAMES_MAX)
		return -EFBIG;
	if (n->nr == n->cap) {
		size_t cap = n->cap ? n->cap * 2 : 16;
		void *list = realloc(n->list, cap * sizeof(*n->list));

		if (!list)
			return -ENOMEM;
		n->list = list;
		n->cap = cap;
	}
	n->list[n->nr] = (struct extread_name){ strndup(name, len), ino };
	return n->list[n->nr++].name ? 0 : -ENOMEM;
}

static int on_entry(ext2_ino_t dir, int entry, struct ext2_dir_entry *de,
		    int offset, int blocksize, char *buf, void *priv)
{
	struct collect *c = priv;
	int len = ext2fs_dirent_name_len(de);

	if ((len == 1 && de->name[0] == '.') ||
	    (len == 2 && de->name[0] == '.' && de->name[1] == '.'))
		return 0;
	if (len <= 0 || memchr(de->name, '/', len) || memchr(de->name, 0, len))
		c->failed = -EBADMSG;
	else
		c->failed = add_name(c->out, de->name, len, de->inode);
	return c->failed ? DIRENT_ABORT : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct extread_name *)a)->name,
		      ((const struct extread_name *)b)->name);
}

int extread_dir(struct extread *r, ext2_ino_t ino, struct extread_names *out,
		struct err *err)
{
	struct collect c = { .out = out };
	errcode_t e;

	*out = (struct extread_names){ .list = NULL };
	e = ext2fs_dir_iterate2(r->fs, ino, 0, NULL, on_entry, &c);
	if (c.failed == -ENOMEM)
		return err_set(err, ENOMEM, "out of memory");
	if (e || c.failed)
		return damaged(err, "a directory");
	if (out->nr)
		qsort(out->list, out->nr, sizeof(*out->list), by_name);
	for (size_t i = 1; i < out->nr; i++)
		if (!strcmp(out->list[i - 1].name, out->list[i].name))
			return damaged(err, "a name twice in one directory");
	return 0;
}

static int add_run(struct extread_runs *out, struct extread_run run)
{
	struct extread_run *last = out->nr ? &out->run[out->nr - 1] : NULL;

	if (last && last->off + last->len == run.off &&
	    last->disk + last->len == run.disk) {
		last->len += run.len;
		return 0;
	}
	if (out->nr == RUNS_MAX)
		return -EFBIG;
	if (out->nr == out->cap) {
		size_t cap = out->cap ? out->cap * 2 : 16;
		void *p = realloc(out->run, cap * sizeof(*out->run));

		if (!p)
			return -ENOMEM;
		out->run = p;
		out->cap = cap;
	}
	out->run[out->nr++] = run;
	return 0;
}

/* One extent; what lies past the end of the file is not part of it. */
static int take_extent(struct extread *r, const struct ext2fs_extent *x,
		       uint64_t size, struct extread_runs *out)
{
	uint64_t bs = r->fs->blocksize;
	struct extread_run run = { .off = x->e_lblk * bs, .len = x->e_len * bs,
				   .disk = x->e_pblk * bs };
	const struct extread_run *last = out->nr ? &out->run[out->nr - 1] : NULL;

	if ((x->e_flags & EXT2_EXTENT_FLAGS_UNINIT) || run.off >= size)
		return 0;
	if (x->e_pblk + x->e_len > ext2fs_blocks_count(r->fs->super) ||
	    (last && run.off < last->off + last->len))
		return -EBADMSG;
	run.len = MIN(run.len, size - run.off);
	return add_run(out, run);
}

static int walk_extents(struct extread *r, ext2_extent_handle_t h,
			uint64_t size, struct extread_runs *out)
{
	struct ext2fs_extent x;
	errcode_t e = ext2fs_extent_get(h, EXT2_EXTENT_ROOT, &x);

	while (!e) {
		if (x.e_flags & EXT2_EXTENT_FLAGS_LEAF) {
			int ret = x.e_flags & EXT2_EXTENT_FLAGS_SECOND_VISIT ?
				  0 : take_extent(r, &x, size, out);

			if (ret)
				return ret;
		}
		e = ext2fs_extent_get(h, EXT2_EXTENT_NEXT, &x);
	}
	return e == EXT2_ET_EXTENT_NO_NEXT || e == EXT2_ET_NO_CURRENT_NODE ?
	       0 : -EBADMSG;
}

int extread_runs(struct extread *r, ext2_ino_t ino,
		 const struct ext2_inode_large *n, struct extread_runs *out,
		 struct err *err)
{
	uint64_t size = n->i_size | (uint64_t)n->i_size_high << 32;
	ext2_extent_handle_t h;
	errcode_t e;
	int ret;

	*out = (struct extread_runs){ .mapped = n->i_flags & EXT4_EXTENTS_FL };
	if (!size)
		return 0;
	if (!out->mapped)
		return add_run(out, (struct extread_run){ .len = size });
	e = ext2fs_extent_open(r->fs, ino, &h);
	if (e)
		return damaged(err, "an extent tree");
	ret = walk_extents(r, h, size, out);
	ext2fs_extent_free(h);
	return ret ? damaged(err, "an extent tree") : 0;
}

int extread_bytes(struct extread *r, void *data, size_t len, uint64_t disk,
		  struct err *err)
{
	int ret = r->io.ops->pread(r->io.arg, data, len, disk);

	return ret ? err_set(err, -ret, "cannot read the disk: %s",
			     strerror(-ret)) : 0;
}
