/* SPDX-License-Identifier: MIT */
/* image_tar.h - making archives for tests, and comparing what is in them. */
#ifndef TESTS_LIB_IMAGE_TAR_H
#define TESTS_LIB_IMAGE_TAR_H

#include <archive.h>
#include <archive_entry.h>
#include <stddef.h>
#include <stdint.h>

/* A new temporary file, unlinked already. */
int tar_tmpfile(void);

/* format: "pax", "gnutar", "ustar"; filter: "", "gzip", "zstd", "xz" */
struct archive *tar_begin(int fd, const char *format, const char *filter);
void tar_end(struct archive *a);

/* An entry with type and mode; the caller sets the rest and calls tar_put(). */
struct archive_entry *tar_entry(const char *path, unsigned mode);
/* Writes and frees it. */
void tar_put(struct archive *a, struct archive_entry *e, const void *data,
	     size_t len);
void tar_file(struct archive *a, const char *path, const void *data, size_t len);
void tar_dir(struct archive *a, const char *path);
void tar_symlink(struct archive *a, const char *path, const char *target);
void tar_hardlink(struct archive *a, const char *path, const char *target);

/*
 * Everything about each entry as text lines sorted by path: what has several
 * names says so under each, whichever comes first.  malloc'd.
 */
char *tar_describe(int fd);
/* Fails the test with the first line that differs. */
void tar_same(int fd_a, int fd_b);

/* The exit status of `e2fsck -fn` on a descriptor. */
int tar_fsck(int fd);

#endif
