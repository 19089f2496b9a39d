/* SPDX-License-Identifier: MIT */
/*
 * image.h - archives and host directories to disks and back.  For src/lib.
 *
 * Every function returns 0 or a negative errno with `err` filled; what is wrong
 * with an archive is BOOT_IMAGE_INVALID and names the entry, a full host file
 * system is HOST_NO_SPACE.  Outputs are written through descriptors: naming,
 * renaming and removing files is the caller's (or cache.h's) job.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/config.h"

struct err;

#define IMAGE_HASH_LEN 65	/* SHA-256 in hexadecimal, with NUL */
#define IMAGE_CONFIG_PATH "machinen-config.json"

/* Zero stands for the default. */
struct image_opts {
	uint64_t min_size;	/* bytes of the disk at least; 2 GiB */
	uint64_t max_content;	/* bytes of file data at most; 128 GiB */
	uint32_t max_entries;	/* 1,000,000 */
	/* Now and then, with bytes read of all; may be NULL. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct image_info {
	char hash[IMAGE_HASH_LEN];	/* of the archive's bytes, or the manifest */
	uint64_t archive_size;
	uint64_t content;		/* bytes of file data, in whole blocks */
	uint64_t disk_size;
	uint64_t entries;
	struct image_config config;
};

void image_info_done(struct image_info *i);

/*
 * One pass over the archive (a tar, perhaps compressed with gzip, zstd or xz)
 * makes an ext4 file system in out_fd, an empty file.
 */
int image_build(int archive_fd, int out_fd, const struct image_opts *o,
		struct image_info *out, struct err *err);
/*
 * The same from a host directory: symbolic links stay links, owners stay.  Other
 * file systems mounted below it are included.  Changes while it is read give
 * one of the states or an error.
 */
int image_build_dir(int dir_fd, int out_fd, const struct image_opts *o,
		    struct image_info *out, struct err *err);

/*
 * The other way: the root file system of a stopped VM becomes an archive.
 * disk[0] is the raw base, disk[1..nr) are the layers on it; all are borrowed.
 * The same disk content and options give the same bytes: entries are sorted,
 * and only what ext4 and tar both mean is kept.
 */
struct image_export_opts {
	const char *name;	/* its extension chooses the compression */
	/* Put in as /machinen-config.json; NULL: as the disk has it. */
	const struct image_config *config;
	/*
	 * What is newer than the newest file of the image the disk was built
	 * from gets that file's time, so that when steps ran leaves no trace.
	 */
	bool clamp_times;
	void (*progress)(void *arg, uint64_t entries);	/* may be NULL */
	void *arg;
};

/* Entries written are returned in *entries when it is not NULL. */
int image_export(const int *disk, unsigned nr, int out_fd,
		 const struct image_export_opts *o, uint64_t *entries,
		 struct err *err);

#endif
