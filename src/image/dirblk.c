// SPDX-License-Identifier: MIT
/*
 * dirblk.c - the blocks of one ext4 directory.
 *
 * What fits one block is a plain list of entries.  Anything longer gets the
 * hash tree ("htree", Documentation/filesystems/ext4/directory.rst of Linux):
 * the kernel never indexes an existing plain directory of several blocks, and
 * each look-up in one of 100,000 names would read all of it.
 *
 *	block 0		"." and "..", then the root: (hash, block) pairs
 *	1 … k		with more leaves than the root holds: interior nodes
 *	rest		leaves: plain entries of one range of hashes
 *
 * Every block ends with a checksum tail (metadata_csum): 12 bytes dressed up as
 * an entry in leaves, 8 bytes in root and nodes.
 */
#include "image/dirblk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/tree.h"

#define BLOCK	   4096u
#define TAIL	   12u		/* of a leaf */
#define LEAF_SPACE (BLOCK - TAIL)
#define HEAD	   24u		/* "." and ".." */
#define ROOT_AT	   32u		/* pairs behind "." ".." and the root info */
#define ROOT_MAX   ((BLOCK - ROOT_AT - 8) / 8)
#define NODE_AT	   8u		/* pairs behind an empty entry */
#define NODE_MAX   ((BLOCK - NODE_AT - 8) / 8)

struct hashed {
	const struct tree_dirent *d;
	uint32_t hash, minor;
};

static size_t entry_size(size_t name_len)
{
	return (8 + name_len + 3) & ~3ul;
}

static int reserve(struct dirblk *b, size_t blocks)
{
	uint8_t *data;

	if (blocks > b->cap) {
		size_t cap = MAX(blocks, b->cap * 2);

		data = realloc(b->data, cap * BLOCK);
		if (!data)
			return -ENOMEM;
		b->data = data;
		b->cap = cap;
	}
	return 0;
}

/* The next block, zeroed; room for it must be reserved. */
static uint8_t *next_block(struct dirblk *b)
{
	return memset(b->data + (size_t)b->nr++ * BLOCK, 0, BLOCK);
}

static uint8_t file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return EXT2_FT_REG_FILE;
	case S_IFDIR: return EXT2_FT_DIR;
	case S_IFCHR: return EXT2_FT_CHRDEV;
	case S_IFBLK: return EXT2_FT_BLKDEV;
	case S_IFIFO: return EXT2_FT_FIFO;
	case S_IFSOCK: return EXT2_FT_SOCK;
	case S_IFLNK: return EXT2_FT_SYMLINK;
	default: return EXT2_FT_UNKNOWN;
	}
}

static void put_entry(uint8_t *at, uint32_t ino, size_t rec_len, uint8_t type,
		      const char *name, size_t name_len)
{
	struct ext2_dir_entry_2 e = {
		.inode = ino, .rec_len = rec_len, .name_len = name_len,
		.file_type = type,
	};

	memcpy(at, &e, 8);
	memcpy(at + 8, name, name_len);
}

static void put_dots(uint8_t *block, const struct tree_inode *dir,
		     size_t dotdot_len)
{
	put_entry(block, dir->ino, 12, EXT2_FT_DIR, ".", 1);
	put_entry(block + 12, dir->parent->ino, dotdot_len, EXT2_FT_DIR, "..", 2);
}

/* Stretches the last entry over the free space and dresses up the tail. */
static void close_leaf(uint8_t *block, size_t last)
{
	struct ext2_dir_entry_tail tail = {
		.det_rec_len = TAIL,
		.det_reserved_name_len = EXT2_DIR_NAME_LEN_CSUM,
	};
	uint16_t rec_len = LEAF_SPACE - last;

	memcpy(block + last + 4, &rec_len, 2);
	memcpy(block + LEAF_SPACE, &tail, sizeof(tail));
}

static size_t put_name(uint8_t *block, size_t at, const struct tree_dirent *d)
{
	size_t n = entry_size(d->name_len);

	put_entry(block + at, d->inode->ino, n, file_type(d->inode->mode),
		  d->name, d->name_len);
	return at + n;
}

static int build_list(struct dirblk *b, const struct tree_inode *dir)
{
	size_t at = HEAD, last = 12;
	uint8_t *block;

	if (reserve(b, 1))
		return -ENOMEM;
	block = next_block(b);
	put_dots(block, dir, 12);
	for (const struct tree_dirent *d = dir->first; d; d = d->next) {
		last = at;
		at = put_name(block, at, d);
	}
	close_leaf(block, last);
	return 0;
}

static int by_hash(const void *pa, const void *pb)
{
	const struct hashed *a = pa, *b = pb;

	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	if (a->minor != b->minor)
		return a->minor < b->minor ? -1 : 1;
	return strcmp(a->d->name, b->d->name);
}

static struct hashed *hash_all(ext2_filsys fs, const struct tree_inode *dir)
{
	struct hashed *h = calloc(dir->nr_entries, sizeof(*h));
	size_t n = 0;

	if (!h)
		return NULL;
	for (const struct tree_dirent *d = dir->first; d; d = d->next, n++) {
		h[n].d = d;
		if (ext2fs_dirhash2(EXT2_HASH_HALF_MD4, d->name, d->name_len,
				    NULL, 0, fs->super->s_hash_seed,
				    &h[n].hash, &h[n].minor)) {
			free(h);
			return NULL;
		}
	}
	qsort(h, n, sizeof(*h), by_hash);
	return h;
}

/* How many of h[0..nr) fit one leaf. */
static size_t leaf_count(const struct hashed *h, size_t nr)
{
	size_t used = 0, n = 0;

	while (n < nr && used + entry_size(h[n].d->name_len) <= LEAF_SPACE)
		used += entry_size(h[n++].d->name_len);
	return n;
}

static size_t nr_leaves(const struct hashed *h, size_t nr)
{
	size_t n = 0;

	for (size_t i = 0; i < nr; i += leaf_count(h + i, nr - i))
		n++;
	return n;
}

/* Appends the leaves; first[i] becomes the hash that begins leaf i. */
static void put_leaves(struct dirblk *b, const struct hashed *h, size_t nr,
		       uint32_t *first)
{
	for (size_t i = 0, n; i < nr; i += n) {
		uint8_t *block = next_block(b);
		size_t at = 0, last = 0;

		n = leaf_count(h + i, nr - i);
		for (size_t k = 0; k < n; k++) {
			last = at;
			at = put_name(block, at, h[i + k].d);
		}
		close_leaf(block, last);
		/* the low bit: this hash began in the leaf before */
		*first++ = h[i].hash | (i && h[i].hash == h[i - 1].hash);
	}
}

/* (hash, block) pairs; the first one's hash field holds limit and count. */
static void put_pairs(uint8_t *at, size_t limit, size_t nr,
		      const uint32_t *hash, uint32_t step, uint32_t block)
{
	struct ext2_dx_countlimit cl = { .limit = limit, .count = nr };

	for (size_t i = 0; i < nr; i++) {
		struct ext2_dx_entry e = {
			.hash = i ? hash[i * step] : 0, .block = block + i,
		};

		memcpy(at + i * sizeof(e), &e, sizeof(e));
	}
	memcpy(at, &cl, sizeof(cl));
}

static void put_root(uint8_t *block, const struct tree_inode *dir, bool deep)
{
	struct ext2_dx_root_info info = {
		.hash_version = EXT2_HASH_HALF_MD4, .info_length = 8,
		.indirect_levels = deep,
	};

	put_dots(block, dir, BLOCK - 12);
	memcpy(block + HEAD, &info, sizeof(info));
}

static int build_tree(struct dirblk *b, const struct tree_inode *dir,
		      const struct hashed *h)
{
	size_t leaves = nr_leaves(h, dir->nr_entries);
	size_t nodes = leaves <= ROOT_MAX ? 0 :
		       (leaves + NODE_MAX - 1) / NODE_MAX;
	uint32_t *first = calloc(leaves, sizeof(*first));

	if (!first || nodes > ROOT_MAX || reserve(b, 1 + nodes + leaves)) {
		free(first);
		return nodes > ROOT_MAX ? -EFBIG : -ENOMEM;
	}
	for (size_t i = 0; i < 1 + nodes; i++)
		next_block(b);
	put_leaves(b, h, dir->nr_entries, first);
	put_root(b->data, dir, nodes > 0);
	if (!nodes)
		put_pairs(b->data + ROOT_AT, ROOT_MAX, leaves, first, 1, 1);
	else
		put_pairs(b->data + ROOT_AT, ROOT_MAX, nodes, first, NODE_MAX, 1);
	for (size_t i = 0; i < nodes; i++) {
		uint8_t *block = b->data + (1 + i) * BLOCK;
		size_t from = i * NODE_MAX;

		put_entry(block, 0, BLOCK, 0, "", 0);
		put_pairs(block + NODE_AT, NODE_MAX,
			  MIN(leaves - from, (size_t)NODE_MAX), first + from, 1,
			  1 + nodes + from);
	}
	b->indexed = true;
	free(first);
	return 0;
}

int dirblk_build(struct dirblk *b, ext2_filsys fs, const struct tree_inode *dir)
{
	size_t total = HEAD;
	struct hashed *h;
	int ret;

	b->nr = 0;
	b->indexed = false;
	for (const struct tree_dirent *d = dir->first; d; d = d->next)
		total += entry_size(d->name_len);
	if (total <= LEAF_SPACE)
		return build_list(b, dir);
	h = hash_all(fs, dir);
	if (!h)
		return -ENOMEM;
	ret = build_tree(b, dir, h);
	free(h);
	return ret;
}

void dirblk_done(struct dirblk *b)
{
	free(b->data);
	b->data = NULL;
}
