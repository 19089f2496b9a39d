/* SPDX-License-Identifier: MIT */
/* hostdir.h - what a host directory holds, without its data.  Included by src/image
 * alone; image_build_dir() is in image.h. */
#ifndef IMAGE_HOSTDIR_H
#define IMAGE_HOSTDIR_H

#include <stdint.h>

struct err;

/*
 * SHA-256 over path, type, mode, owner, size, modification and change time and
 * inode of everything below, in sorted order.
 */
int hostdir_digest(int dir_fd, uint8_t digest[32], struct err *err);

#endif
