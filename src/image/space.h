/* SPDX-License-Identifier: MIT */
/*
 * space.h - which blocks of the disk are taken while an image is built, and
 * the buffered writer for their content.  Included by src/image alone.
 *
 * Blocks are handed out in rising order and never again, past the places that
 * ext4 fixes: the superblock copies with the descriptor tables behind them.  How
 * large the file system becomes is decided later (ext4.c).
 */
#ifndef IMAGE_SPACE_H
#define IMAGE_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define SPACE_BLOCK	 4096u
#define SPACE_GROUP	 32768u	/* blocks a group */
#define SPACE_RUN_MAX	 32768u	/* blocks of one extent */
/*
 * Descriptor blocks, used and reserved, behind each superblock copy: room for
 * 4096 groups, so the file system can be grown in place to 512 GiB.
 */
#define SPACE_GDT_BLOCKS 64u

struct space {
	int fd;			/* borrowed */
	uint64_t next;		/* first block not handed out */
	uint64_t used;		/* blocks handed out */
	uint64_t max;		/* most blocks to hand out */
	uint8_t *buf;		/* owned: bytes at [pos, pos + len) not written yet */
	uint64_t pos;
	size_t len;
};

int space_init(struct space *s, int fd, uint64_t max_bytes);
void space_done(struct space *s);
/* A run of at most `want` blocks; it may be shorter. */
int space_alloc(struct space *s, uint64_t want, uint64_t *blk, uint32_t *len,
		struct err *err);
/* Bytes of the disk between written ones are zero as long as they are inside
 * one block. */
int space_write(struct space *s, uint64_t off, const void *data, size_t len,
		struct err *err);
int space_flush(struct space *s, struct err *err);
/* Groups that hold a copy of the superblock. */
bool space_is_backup(uint64_t group);

#endif
