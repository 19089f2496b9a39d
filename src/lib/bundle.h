/* SPDX-License-Identifier: MIT */
/*
 * bundle.h - bundles as directories: docs/snapshot.md, "the bundle".  For src/lib
 * only.
 *
 *	meta.json	what this is of, and every other file with size and digest
 *	state memory sums	written by the VMM
 *	ID.N		layer N of disk ID, the base first
 *
 * A bundle may come from anybody.  bundle_open() checks what is cheap: the form of
 * meta.json and its own digest, names, sizes, digests of small files.  The digests
 * of disks and memory are bundle_verify()'s.
 */
#ifndef LIB_BUNDLE_H
#define LIB_BUNDLE_H

#include <jansson.h>
#include <limits.h>

#include "machinen.h"
#include "proto/spec.h"

struct err;

#define BUNDLE_FORMAT 1

struct bundle {
	char path[PATH_MAX];
	int dir;		/* owned */
	json_t *meta;		/* owned */
	struct spec spec;	/* of the VM it was taken of */
};

/* bundle_load() and bundle_check(). */
int bundle_open(struct bundle *b, const char *path, struct err *err);
/* Reads meta.json as it is: BOOT_SNAPSHOT_NOT_FOUND, SNAPSHOT_DAMAGED. */
int bundle_load(struct bundle *b, const char *path, struct err *err);
/* SNAPSHOT_VERSION, _ARCH_MISMATCH, _DAMAGED. */
int bundle_check(struct bundle *b, struct err *err);
/* The same for a directory that has no name yet; dir is borrowed, path for words. */
int bundle_open_at(struct bundle *b, int dir, const char *path, struct err *err);
void bundle_done(struct bundle *b);	/* also a zeroed one, or after a failure */
/* Reads everything; reports progress. */
int bundle_verify(const struct bundle *b, mn_event_fn fn, void *arg, struct err *err);
/* Opens a file that meta.json names, of the size it says. */
int bundle_open_file(const struct bundle *b, const json_t *f, struct err *err);
/* Bytes on disk, by fstat; links to other files count whole. */
uint64_t bundle_bytes(const struct bundle *b);

/* --- bundle_kinds.c --------------------------------------------------------- */

/* How many pages of memory the bundle's disks have as well. */
int bundle_shared_pages(const struct bundle *b, uint64_t *pages, struct err *err);

/* --- bundle_sum.c: digests ------------------------------------------------- */

#define BUNDLE_SUM_LEN 65	/* hex and NUL */

/* A walk over the 4 KiB pages of a file that are not zero; holes cost nothing. */
struct bundle_walk {
	int (*page)(void *arg, uint64_t nr, const uint8_t *data);
	void *arg;
	/* Now and then, with the bytes read so far; may be NULL.  Negative ends it. */
	int (*step)(void *arg, uint64_t done);
	void *step_arg;
};

int bundle_walk_pages(int fd, const struct bundle_walk *w);

/* SHA-256 of bytes. */
int bundle_sum_data(const void *data, size_t len, char hex[BUNDLE_SUM_LEN]);
/*
 * Digest of a sparse file: SHA-256 over number (u64) and bytes of each 4 KiB page
 * that is not zero, and its length (u64).  Holes do not matter.  step (may be NULL)
 * is told the bytes read so far; negative ends it.
 */
int bundle_sum_pages(int fd, char hex[BUNDLE_SUM_LEN],
		     int (*step)(void *arg, uint64_t done), void *arg);

/* bundle_seen.c: the same of a base disk, which never changes: read once. */
int bundle_sum_base(int fd, char hex[BUNDLE_SUM_LEN],
		    int (*step)(void *arg, uint64_t done), void *arg);

/* --- bundle_write.c: making one -------------------------------------------- */

struct bundle_w {
	char path[PATH_MAX];	/* the final one, absolute */
	char tmp[NAME_MAX + 1];	/* in the same directory; "" when there is none */
	int parent, dir;	/* owned */
	json_t *files;		/* owned */
	mn_event_fn event;	/* told of copies; may end them; or NULL */
	void *event_arg;
};

#define BUNDLE_W_INIT { .parent = -1, .dir = -1 }

/* The path must be absent or an empty directory; with `make`, a directory beside
 * it to be filled. */
int bundle_begin(struct bundle_w *w, const char *path, bool make, struct err *err);
/* A new empty file in it: a descriptor or -errno. */
int bundle_create(struct bundle_w *w, const char *name, struct err *err);
/* The content of fd: a hard link, a reflink or a copy.  sum: its digest. */
int bundle_add_file(struct bundle_w *w, const char *name, int fd, const char *sum,
		    struct err *err);
/* A file that is there already.  `small`: it is digested here. */
int bundle_note(struct bundle_w *w, const char *name, bool small, struct err *err);
/* Adds format, files and digest to meta, reads it all back as a restore would, syncs,
 * renames.  meta is borrowed. */
int bundle_finish(struct bundle_w *w, json_t *meta, struct err *err);
/* Removes what was not finished; always to be called. */
void bundle_abort(struct bundle_w *w);

#endif
