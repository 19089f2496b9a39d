/* SPDX-License-Identifier: MIT */
/*
 * extio.h - libext2fs on top of anything that has blocks: a file, a stack of
 * disk layers.  Included by src/image alone.
 */
#ifndef IMAGE_EXTIO_H
#define IMAGE_EXTIO_H

#include <ext2fs/ext2fs.h>

/* What libext2fs reads and writes.  Calls return 0 or -errno; short is an error. */
struct extio_ops {
	int (*pread)(void *arg, void *data, size_t len, uint64_t off);
	int (*pwrite)(void *arg, const void *data, size_t len, uint64_t off);
};

struct extio {
	const struct extio_ops *ops;
	void *arg;		/* borrowed */
	int failed;		/* first -errno of ops, which libext2fs would lose */
};

/* For a descriptor: arg is a pointer to it. */
extern const struct extio_ops extio_fd_ops;

#define EXTIO_NAME_MAX 32
/*
 * What ext2fs_open() and ext2fs_initialize() take as manager and name.  `io`
 * must outlive the file system; `name` is EXTIO_NAME_MAX bytes.
 */
io_manager extio_manager(struct extio *io, char *name);

#endif
