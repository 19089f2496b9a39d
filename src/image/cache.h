/* SPDX-License-Identifier: MIT */
/*
 * cache.h - prepared disks by content, under $MACHINEN_HOME/cache.  For src/lib.
 *
 *	cache/lock			byte ranges of it are locks, one a key
 *	cache/seen/KEY			content hash of an archive seen before
 *	cache/disk-1-HASH[-MIB]/	one prepared disk, complete:
 *		disk			ext4, read-only, sparse
 *		manifest.json		what image_build() found out
 *	cache/tmp-…/			being built, or left by a builder that died
 *
 * All of it may be deleted at any time; open descriptors stay good.  Functions
 * are safe for any number of threads and processes at once: of several that
 * want the same disk, one builds and the others wait for it.
 */
#ifndef IMAGE_CACHE_H
#define IMAGE_CACHE_H

#include <stdbool.h>

#include "image/image.h"

struct err;

struct cache_disk {
	int fd;			/* owned, read-only */
	bool fresh;		/* built by this call */
	struct image_info info;	/* as recorded when it was built */
};

#define CACHE_DISK_INIT { .fd = -1 }

/*
 * The disk of an archive.  The archive is not read when file, size and times
 * are those of one whose hash is known.  `o` may be NULL; its min_size belongs
 * to the disk's identity.  BOOT_IMAGE_NOT_FOUND when there is no such file.
 */
int cache_get(const char *cache, const char *archive, const struct image_opts *o,
	      struct cache_disk *out, struct err *err);
/* The disk of a host directory, by what names, sizes and times it has. */
int cache_get_dir(const char *cache, const char *dir, const struct image_opts *o,
		  struct cache_disk *out, struct err *err);
/* Only looks: -ENOENT when the archive's disk is not there. */
int cache_find(const char *cache, const char *archive,
	       const struct image_opts *o, struct cache_disk *out);
void cache_disk_done(struct cache_disk *d);

#endif
