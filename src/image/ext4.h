/* SPDX-License-Identifier: MIT */
/* ext4.h - writes a tree out as an ext4 file system.  Included by src/image alone. */
#ifndef IMAGE_EXT4_H
#define IMAGE_EXT4_H

#include <stdint.h>

struct err;
struct space;
struct tree;

struct ext4_opts {
	uint64_t min_size;	/* bytes */
	const uint8_t *seed;	/* 32 bytes: UUID and directory hash seed */
	const char *label;	/* at most 16 bytes */
};

/*
 * Everything but file data, which is there already.  The descriptor of `s` is
 * truncated to the file system's size, which is returned.  0 or -errno.
 */
int ext4_write(struct tree *t, struct space *s, const struct ext4_opts *o,
	       uint64_t *size, struct err *err);

#endif
