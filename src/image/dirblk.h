/* SPDX-License-Identifier: MIT */
/*
 * dirblk.h - the blocks of one ext4 directory.  Included by src/image alone.
 */
#ifndef IMAGE_DIRBLK_H
#define IMAGE_DIRBLK_H

#include <ext2fs/ext2fs.h>
#include <stdbool.h>

struct tree_inode;

struct dirblk {
	uint8_t *data;		/* owned; reused from directory to directory */
	size_t cap;		/* blocks */
	uint32_t nr;		/* blocks filled */
	bool indexed;		/* hash tree: the inode needs EXT2_INDEX_FL */
};

/*
 * Fills in all blocks, without checksums: ext2fs_write_dir_block4() adds those.
 * 0 or -errno.
 */
int dirblk_build(struct dirblk *b, ext2_filsys fs, const struct tree_inode *dir);
void dirblk_done(struct dirblk *b);

#endif
