// SPDX-License-Identifier: MIT
/*
 * ext4.c - writes a tree out as an ext4 file system.
 *
 * Theory of operation.  How large the file system must be, and how many inodes
 * it needs, is known only when the last entry of the archive has been read; but
 * the data of the first must be on the disk by then, for there is one pass and
 * no temporary copy.  So the disk is filled from the front:
 *
 *	| superblock, descriptors, reserve | file data … | block bitmaps |
 *	| inode bitmaps | inode tables | directories | journal | free … |
 *
 * File data goes to its final place while the archive is read (space.c avoids
 * the few places that ext4 fixes in any geometry).  When all is known, libext2fs
 * initialises a file system of the right size around the data, and the tables
 * of all groups are put behind it, which flex_bg allows anywhere.  Nothing is
 * moved, and nothing is zeroed: a new sparse file is zero already, which the
 * ZEROED flag of each group tells the kernel, or it would write the inode tables
 * of every VM's layer in the background.
 *
 * Room to grow: descriptor blocks for 512 GiB are reserved in the resize inode,
 * so the guest enlarges a mounted file system in place.
 *
 * The same input gives the same bytes: UUID and hash seed come from the content
 * hash, and all times from the newest file.
 */
#include "image/ext4.h"

#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "image/dirblk.h"
#include "image/extio.h"
#include "image/space.h"
#include "image/tree.h"

#define INODE_SIZE	256u
#define INODES_PER_BLK	(SPACE_BLOCK / INODE_SIZE)
#define BYTES_PER_INODE	(16u << 10)
#define FIRST_INO	11u	/* lost+found; those below are reserved */
#define FAST_LINK_MAX	59u	/* longest target kept in the inode */
#define IN_INODE_EXTENTS 4u
#define SLACK		(64 * MIB)
#define JOURNAL_SMALL	4096u	/* blocks */
#define JOURNAL_LARGE	16384u
#define LARGE_FS	(64 * GIB)

struct writer {
	struct tree *t;
	struct space *s;
	const struct ext4_opts *o;
	ext2_filsys fs;		/* owned */
	struct extio io;
	struct dirblk dir;
	uint32_t nr_inodes;	/* highest number in use */
	struct err *err;
};

/* error_message() would want its tables registered in a global list. */
static const char *message(errcode_t e)
{
	long i = e - et_ext2_error_table.base;

	if (i >= 0 && i < et_ext2_error_table.n_msgs)
		return et_ext2_error_table.msgs[i];
	return e > 0 && e < 4096 ? strerror(e) : "unknown error";
}

/* Turns a libext2fs error into ours; the cause below it, if any, wins. */
static int fail(struct writer *w, errcode_t e, const char *what)
{
	int num = w->io.failed ? -w->io.failed : EIO;

	if (w->io.failed == -ENOSPC || w->io.failed == -EDQUOT)
		return err_code(w->err, ERR_HOST_NO_SPACE, num,
				"no space left for the disk");
	if (e == EXT2_ET_EA_NO_SPACE)
		return err_set(w->err, E2BIG, "attributes that do not fit ext4");
	if (e == EXT2_ET_NO_MEMORY)
		num = ENOMEM;
	return err_set(w->err, num, "cannot %s: %s", what, message(e));
}

static int add_lost_found(struct writer *w, struct tree_inode **out)
{
	const struct tree_meta m = { .mode = S_IFDIR | 0700,
				     .mtime = w->t->newest,
				     .atime = w->t->newest,
				     .ctime = w->t->newest };

	*out = tree_find(w->t, "lost+found");
	return *out ? 0 : tree_add(w->t, "lost+found", &m, out, w->err);
}

static int number_inodes(struct writer *w)
{
	struct tree_inode *lost;
	uint32_t next = FIRST_INO + 1;
	int ret = add_lost_found(w, &lost);

	if (ret)
		return ret;
	for (struct tree_inode *i = w->t->root; i; i = i->next) {
		if (i == w->t->root)
			i->ino = EXT2_ROOT_INO;
		else if (i == lost)
			i->ino = FIRST_INO;
		else if (i->nlink)
			i->ino = next++;
	}
	w->nr_inodes = next - 1;
	return 0;
}

static uint64_t fs_size(const struct writer *w)
{
	uint64_t content = w->s->used * SPACE_BLOCK;
	uint64_t need = w->s->next * SPACE_BLOCK + SLACK;
	uint64_t size = MAX(w->o->min_size, content / 2 * 5);

	/* directories: a full-length entry a name, and a block a directory */
	for (const struct tree_inode *i = w->t->root; i; i = i->next)
		if (S_ISDIR(i->mode))
			need += ALIGN_UP(64 + i->nr_entries * 264ull,
					 SPACE_BLOCK) + SPACE_BLOCK;
	need += (uint64_t)w->nr_inodes * 2 * INODE_SIZE;
	need += (uint64_t)JOURNAL_LARGE * SPACE_BLOCK;
	need += need / 16;	/* default inode tables, bitmaps, backups */
	return ALIGN_UP(MAX(size, need), (uint64_t)SPACE_GROUP * SPACE_BLOCK);
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

static void fill_super(struct ext2_super_block *sb, const struct writer *w,
		       uint64_t size)
{
	uint64_t groups = size / SPACE_BLOCK / SPACE_GROUP;
	uint64_t inodes = MIN(size / BYTES_PER_INODE, (uint64_t)UINT32_MAX);

	sb->s_log_block_size = 2;
	sb->s_log_cluster_size = 2;
	sb->s_rev_level = EXT2_DYNAMIC_REV;
	sb->s_inode_size = INODE_SIZE;
	sb->s_desc_size = 64;
	sb->s_log_groups_per_flex = 4;
	sb->s_max_mnt_count = -1;
	sb->s_checksum_type = EXT2_CRC32C_CHKSUM;
	sb->s_inodes_count = MAX((uint64_t)w->nr_inodes * 2, inodes);
	sb->s_reserved_gdt_blocks = SPACE_GDT_BLOCKS - (groups + 63) / 64;
	sb->s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR |
			       EXT2_FEATURE_COMPAT_RESIZE_INODE |
			       EXT2_FEATURE_COMPAT_DIR_INDEX;
	sb->s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE |
				 EXT3_FEATURE_INCOMPAT_EXTENTS |
				 EXT4_FEATURE_INCOMPAT_64BIT |
				 EXT4_FEATURE_INCOMPAT_FLEX_BG;
	sb->s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER |
				  EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
				  EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
				  EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
				  EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |
				  EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
	ext2fs_blocks_count_set(sb, size / SPACE_BLOCK);
}

/* What ext2fs_initialize() does not take from its parameter. */
static void finish_super(struct writer *w)
{
	struct ext2_super_block *sb = w->fs->super;
	int64_t now = clamp(w->t->newest.sec, 1, INT32_MAX);

	w->fs->now = now;
	sb->s_mkfs_time = sb->s_lastcheck = sb->s_wtime = now;
	sb->s_checkinterval = 0;
	sb->s_max_mnt_count = -1;
	sb->s_checksum_type = EXT2_CRC32C_CHKSUM;
	sb->s_def_hash_version = EXT2_HASH_HALF_MD4;
	sb->s_flags &= ~EXT2_FLAGS_UNSIGNED_HASH;
	sb->s_flags |= EXT2_FLAGS_SIGNED_HASH;
	sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	memcpy(sb->s_uuid, w->o->seed, 16);
	/* a version 4, variant 1 UUID in shape */
	sb->s_uuid[6] = (sb->s_uuid[6] & 0x0f) | 0x40;
	sb->s_uuid[8] = (sb->s_uuid[8] & 0x3f) | 0x80;
	memcpy(sb->s_hash_seed, w->o->seed + 16, 16);
	memcpy(sb->s_volume_name, w->o->label,
	       MIN(strlen(w->o->label), sizeof(sb->s_volume_name)));
	ext2fs_init_csum_seed(w->fs);
	for (dgrp_t g = 0; g < w->fs->group_desc_count; g++)
		ext2fs_bg_flags_set(w->fs, g, EXT2_BG_INODE_ZEROED |
				    EXT2_BG_INODE_UNINIT);
}

static int create(struct writer *w, uint64_t size)
{
	struct ext2_super_block sb = { 0 };
	char name[EXTIO_NAME_MAX];
	io_manager mgr = extio_manager(&w->io, name);
	errcode_t e;

	fill_super(&sb, w, size);
	if (ftruncate(w->s->fd, size) < 0)
		return err_code(w->err, ERR_HOST_NO_SPACE, errno,
				"cannot size the disk: %s", strerror(errno));
	e = ext2fs_initialize(name, EXT2_FLAG_64BITS, &sb, mgr, &w->fs);
	if (e)
		return fail(w, e, "initialise the file system");
	if (ext2fs_blocks_count(w->fs->super) != size / SPACE_BLOCK)
		return err_set(w->err, EIO, "the file system has another size "
			       "than planned");
	finish_super(w);
	return 0;
}

/* A run of exactly len blocks; shorter ones before it stay free. */
static int alloc_whole(struct writer *w, uint32_t len, uint64_t *blk)
{
	uint32_t got;
	int ret;

	do
		ret = space_alloc(w->s, len, blk, &got, w->err);
	while (!ret && got < len);
	return ret;
}

static int write_dir(struct writer *w, struct tree_inode *d)
{
	uint32_t done = 0;
	int ret = dirblk_build(&w->dir, w->fs, d);

	if (ret)
		return err_set(w->err, -ret, "cannot lay out a directory");
	d->size = (uint64_t)w->dir.nr * SPACE_BLOCK;
	d->indexed = w->dir.indexed;
	d->nr_extents = 0;
	ret = tree_room(w->t, w->s, d, 0, d->size, w->err);
	for (uint32_t i = 0; !ret && i < d->nr_extents; i++) {
		const struct tree_extent *x = &d->extents[i];

		for (uint32_t k = 0; !ret && k < x->len; k++, done++) {
			errcode_t e = ext2fs_write_dir_block4(w->fs, x->pblk + k,
				w->dir.data + (size_t)done * SPACE_BLOCK, 0,
				d->ino);

			if (e)
				ret = fail(w, e, "write a directory");
		}
	}
	return ret;
}

static int write_dirs(struct writer *w)
{
	for (struct tree_inode *i = w->t->root; i; i = i->next) {
		int ret = i->nlink && S_ISDIR(i->mode) ? write_dir(w, i) : 0;

		if (ret)
			return ret;
	}
	return 0;
}

static int place_tables(struct writer *w)
{
	ext2_filsys fs = w->fs;
	dgrp_t nr = fs->group_desc_count;
	uint64_t blk;
	int ret = 0;

	for (dgrp_t g = 0; !ret && g < nr; g++) {
		ret = alloc_whole(w, 1, &blk);
		ext2fs_block_bitmap_loc_set(fs, g, blk);
	}
	for (dgrp_t g = 0; !ret && g < nr; g++) {
		ret = alloc_whole(w, 1, &blk);
		ext2fs_inode_bitmap_loc_set(fs, g, blk);
	}
	for (dgrp_t g = 0; !ret && g < nr; g++) {
		ret = alloc_whole(w, fs->inode_blocks_per_group, &blk);
		ext2fs_inode_table_loc_set(fs, g, blk);
	}
	if (!ret && w->s->next >= ext2fs_blocks_count(fs->super))
		ret = err_set(w->err, EFBIG, "the content does not fit the disk");
	return ret;
}

/* Marks what the tree and the tables take; counts are made from it at the end. */
static void mark_blocks(struct writer *w)
{
	ext2_filsys fs = w->fs;

	for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
		ext2fs_mark_block_bitmap2(fs->block_map,
					  ext2fs_block_bitmap_loc(fs, g));
		ext2fs_mark_block_bitmap2(fs->block_map,
					  ext2fs_inode_bitmap_loc(fs, g));
		ext2fs_mark_block_bitmap_range2(fs->block_map,
						ext2fs_inode_table_loc(fs, g),
						fs->inode_blocks_per_group);
	}
	for (struct tree_inode *i = w->t->root; i; i = i->next)
		for (uint32_t k = 0; i->nlink && k < i->nr_extents; k++)
			ext2fs_mark_block_bitmap_range2(fs->block_map,
							i->extents[k].pblk,
							i->extents[k].len);
	ext2fs_mark_bb_dirty(fs);
}

static void mark_inodes(struct writer *w)
{
	for (ext2_ino_t n = 1; n < FIRST_INO; n++)
		ext2fs_inode_alloc_stats2(w->fs, n, 1, n == EXT2_ROOT_INO);
	for (struct tree_inode *i = w->t->root->next; i; i = i->next)
		if (i->nlink)
			ext2fs_inode_alloc_stats2(w->fs, i->ino, 1,
						  S_ISDIR(i->mode));
}

static void set_time(uint32_t *lo, uint32_t *extra, struct tree_time t)
{
	/* 34 bits of seconds from 1901 on, 30 of nanoseconds */
	int64_t sec = clamp(t.sec, INT32_MIN, INT32_MIN + (1ll << 34) - 1);

	*lo = (uint32_t)sec;
	*extra = (uint32_t)((uint64_t)(sec - (int32_t)sec) >> 32 & 3) |
		 t.nsec << 2;
}

static uint16_t links(const struct tree_inode *i)
{
	if (!S_ISDIR(i->mode))
		return i->nlink;
	/* more sub-directories than fit: 1 stands for "not counted" */
	return i->nr_subdirs + 2 > TREE_LINK_MAX ? 1 : i->nr_subdirs + 2;
}

static void put_extents(struct ext2_inode_large *n, const struct tree_inode *i)
{
	struct ext3_extent_header h = {
		.eh_magic = EXT3_EXT_MAGIC, .eh_max = IN_INODE_EXTENTS,
		.eh_entries = i->nr_extents <= IN_INODE_EXTENTS ?
			      i->nr_extents : 0,
	};
	uint8_t *at = (uint8_t *)n->i_block;
	uint64_t sectors = 0;

	memcpy(at, &h, sizeof(h));
	for (uint32_t k = 0; k < i->nr_extents; k++) {
		const struct tree_extent *x = &i->extents[k];
		struct ext3_extent e = {
			.ee_block = x->lblk, .ee_len = x->len,
			.ee_start = x->pblk, .ee_start_hi = x->pblk >> 32,
		};

		if (k < h.eh_entries)
			memcpy(at + sizeof(h) + k * sizeof(e), &e, sizeof(e));
		sectors += (uint64_t)x->len * (SPACE_BLOCK / 512);
	}
	n->i_flags |= EXT4_EXTENTS_FL;
	n->i_blocks = sectors;
	n->osd2.linux2.l_i_blocks_hi = sectors >> 32;
}

static void put_device(struct ext2_inode_large *n, const struct tree_inode *i)
{
	if (i->major < 256 && i->minor < 256)
		n->i_block[0] = i->major << 8 | i->minor;
	else
		n->i_block[1] = (i->minor & 0xff) | i->major << 8 |
				(i->minor & ~0xffu) << 12;
}

static void fill_inode(struct ext2_inode_large *n, const struct tree_inode *i)
{
	*n = (struct ext2_inode_large){
		.i_mode = i->mode, .i_uid = i->uid, .i_gid = i->gid,
		.i_links_count = links(i),
		.i_extra_isize = sizeof(*n) - EXT2_GOOD_OLD_INODE_SIZE,
		.i_flags = i->indexed ? EXT2_INDEX_FL : 0,
	};
	n->osd2.linux2.l_i_uid_high = i->uid >> 16;
	n->osd2.linux2.l_i_gid_high = i->gid >> 16;
	set_time(&n->i_mtime, &n->i_mtime_extra, i->mtime);
	set_time(&n->i_atime, &n->i_atime_extra, i->atime);
	set_time(&n->i_ctime, &n->i_ctime_extra, i->ctime);
	set_time(&n->i_crtime, &n->i_crtime_extra, i->mtime);
	switch (i->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
		n->i_size = i->size;
		n->i_size_high = i->size >> 32;
		if (!S_ISLNK(i->mode) || i->size > FAST_LINK_MAX)
			put_extents(n, i);
		else
			memcpy(n->i_block, i->target, i->size);
		break;
	case S_IFCHR:
	case S_IFBLK:
		put_device(n, i);
		break;
	}
}

/* More extents than the inode holds: libext2fs builds the tree. */
static int grow_extents(struct writer *w, const struct tree_inode *i)
{
	ext2_extent_handle_t h;
	errcode_t e = ext2fs_extent_open(w->fs, i->ino, &h);

	if (e)
		return fail(w, e, "open an extent tree");
	for (uint32_t k = 0; !e && k < i->nr_extents; k++) {
		struct ext2fs_extent x = {
			.e_pblk = i->extents[k].pblk,
			.e_lblk = i->extents[k].lblk,
			.e_len = i->extents[k].len,
		};

		e = ext2fs_extent_insert(h, EXT2_EXTENT_INSERT_AFTER, &x);
		if (!e && !k)
			e = ext2fs_extent_fix_parents(h);
	}
	ext2fs_extent_free(h);
	return e ? fail(w, e, "build an extent tree") : 0;
}

static int write_xattrs(struct writer *w, const struct tree_inode *i)
{
	struct ext2_xattr_handle *h;
	errcode_t e = ext2fs_xattrs_open(w->fs, i->ino, &h), e2;

	if (e)
		return fail(w, e, "open attributes");
	for (const struct tree_xattr *x = i->xattrs; x && !e; x = x->next)
		e = ext2fs_xattr_set(h, x->name, x->value, x->len);
	e2 = ext2fs_xattrs_close(&h);
	return e || e2 ? fail(w, e ? e : e2, "write attributes") : 0;
}

static int write_inode(struct writer *w, const struct tree_inode *i)
{
	struct ext2_inode_large n;
	errcode_t e;

	fill_inode(&n, i);
	e = ext2fs_write_inode_full(w->fs, i->ino, (struct ext2_inode *)&n,
				    sizeof(n));
	if (e)
		return fail(w, e, "write an inode");
	return 0;
}

/*
 * All inodes in order first, so that each block of the table is written once;
 * what needs blocks of its own after that.
 */
static int write_inodes(struct writer *w)
{
	struct ext2_inode_large zero = { 0 };
	int ret = 0;

	for (ext2_ino_t n = 1; n < FIRST_INO; n++) {
		errcode_t e = ext2fs_write_inode_full(w->fs, n,
				(struct ext2_inode *)&zero, sizeof(zero));

		if (e)
			return fail(w, e, "write an inode");
	}
	for (struct tree_inode *i = w->t->root; i && !ret; i = i->next)
		if (i->nlink)
			ret = write_inode(w, i);
	for (struct tree_inode *i = w->t->root; i && !ret; i = i->next) {
		if (!i->nlink)
			continue;
		if (i->nr_extents > IN_INODE_EXTENTS)
			ret = grow_extents(w, i);
		if (!ret && i->xattrs)
			ret = write_xattrs(w, i);
	}
	return ret;
}

static int add_journal(struct writer *w, uint64_t size)
{
	errcode_t e = ext2fs_create_resize_inode(w->fs);

	if (!e)
		e = ext2fs_add_journal_inode2(w->fs,
			size > LARGE_FS ? JOURNAL_LARGE : JOURNAL_SMALL,
			w->s->next, EXT2_MKJOURNAL_LAZYINIT |
			EXT2_MKJOURNAL_NO_MNT_CHECK);
	return e ? fail(w, e, "add the journal") : 0;
}

static int close_fs(struct writer *w)
{
	errcode_t e = ext2fs_calculate_summary_stats(w->fs, 0);

	ext2fs_set_gdt_csum(w->fs);
	if (!e)
		e = ext2fs_close_free(&w->fs);
	return e ? fail(w, e, "write the file system") : 0;
}

/* Targets too long for the inode are data like that of a file. */
static int write_long_links(struct writer *w)
{
	for (struct tree_inode *i = w->t->root; i; i = i->next) {
		uint32_t cursor = 0;
		int ret;

		if (!S_ISLNK(i->mode) || !i->nlink || i->size <= FAST_LINK_MAX)
			continue;
		ret = tree_room(w->t, w->s, i, 0, i->size, w->err);
		if (!ret)
			ret = tree_data(w->s, i, &cursor, 0, i->target, i->size,
					w->err);
		if (ret)
			return ret;
	}
	return space_flush(w->s, w->err);
}

static int write_all(struct writer *w, uint64_t *size)
{
	int ret = number_inodes(w);

	if (!ret)
		ret = write_long_links(w);
	*size = fs_size(w);
	/* our own blocks do not count against what content may take */
	w->s->max = UINT64_MAX;
	if (!ret)
		ret = create(w, *size);
	if (!ret)
		ret = place_tables(w);
	/* after the tables: the checksum covers the inode's generation, which
	 * libext2fs reads from there */
	if (!ret)
		ret = write_dirs(w);
	if (!ret && w->s->next >= ext2fs_blocks_count(w->fs->super))
		ret = err_set(w->err, EFBIG, "the content does not fit the disk");
	if (ret)
		return ret;
	mark_blocks(w);
	mark_inodes(w);
	ret = write_inodes(w);
	if (!ret)
		ret = add_journal(w, *size);
	return ret ? ret : close_fs(w);
}

int ext4_write(struct tree *t, struct space *s, const struct ext4_opts *o,
	       uint64_t *size, struct err *err)
{
	struct writer w = {
		.t = t, .s = s, .o = o, .err = err,
		.io = { .ops = &extio_fd_ops, .arg = &s->fd },
	};
	int ret = write_all(&w, size);

	if (w.fs)
		ext2fs_free(w.fs);
	dirblk_done(&w.dir);
	return ret;
}
