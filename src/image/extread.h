/* SPDX-License-Identifier: MIT */
/* extread.h - reading an ext4 file system that a guest has written.  Included by
 * src/image alone. */
#ifndef IMAGE_EXTREAD_H
#define IMAGE_EXTREAD_H

#include <ext2fs/ext2fs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/extio.h"

struct err;
struct layer_stack;

struct extread {
	ext2_filsys fs;			/* owned */
	struct extio io;
	struct layer_stack *stack;	/* owned; NULL: a raw file */
	int fd;				/* owned; the raw file */
};

/* disk[0] raw, layers on it; borrowed.  extread_done() is due also on failure. */
int extread_open(struct extread *r, const int *disk, unsigned nr,
		 struct err *err);
void extread_done(struct extread *r);

struct extread_name {
	char *name;		/* owned by the list */
	ext2_ino_t ino;
};

struct extread_names {
	struct extread_name *list;	/* owned; sorted by name */
	size_t nr, cap;
};

/* All but "." and "..". */
int extread_dir(struct extread *r, ext2_ino_t ino, struct extread_names *out,
		struct err *err);
void extread_names_done(struct extread_names *n);

/* Where a file has data, in order, in bytes; disk 0: not by extents. */
struct extread_run {
	uint64_t off, len, disk;
};

struct extread_runs {
	struct extread_run *run;	/* owned */
	size_t nr, cap;
	bool mapped;		/* runs say where; else read through libext2fs */
};

int extread_runs(struct extread *r, ext2_ino_t ino,
		 const struct ext2_inode_large *n, struct extread_runs *out,
		 struct err *err);
/* Bytes of the disk. */
int extread_bytes(struct extread *r, void *data, size_t len, uint64_t disk,
		  struct err *err);

#endif
