/* SPDX-License-Identifier: MIT */
/*
 * disk.h - disk backends: what virtio-blk reads and writes.
 *
 * Two kinds: a raw file, and a stack of copy-on-write layers over one
 * (docs/image.md).  Threads: calls on one disk may come from several pool threads
 * at once; a backend locks for itself.  Offsets and lengths are bytes, multiples
 * of DISK_SECTOR, already checked against the size.
 */
#ifndef VMM_DISK_DISK_H
#define VMM_DISK_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct layer_io;

#define DISK_SECTOR 512u

struct disk {
	const struct disk_ops *ops;
	uint64_t size;		/* bytes */
	bool readonly;
};

/* All return 0 or -errno; reads and writes are whole or an error. */
struct disk_ops {
	const char *name;
	int (*readv)(struct disk *d, const struct iovec *iov, unsigned nr, uint64_t off);
	int (*writev)(struct disk *d, const struct iovec *iov, unsigned nr, uint64_t off);
	/* All writes completed before it are durable after it. */
	int (*flush)(struct disk *d);
	/* Content becomes zero; space is freed where that is possible. */
	int (*discard)(struct disk *d, uint64_t off, uint64_t len);
	int (*write_zeroes)(struct disk *d, uint64_t off, uint64_t len, bool may_unmap);
	/*
	 * Seals the writable layer and goes on in a new one that is in new_fd
	 * (empty file, owned by the disk on success).  NULL where not offered.
	 */
	int (*seal)(struct disk *d, int new_fd, struct err *err);
	/* layer_merge() of layer/layer.h; NULL where not offered.  Any thread. */
	int (*merge)(struct disk *d, int new_fd, const struct layer_io *io,
		     unsigned *first, unsigned *nr, struct err *err);
	void (*free)(struct disk *d);
};

/* Takes fd over, also on failure. */
struct disk *disk_open_raw(int fd, bool readonly, struct err *err);
/*
 * layer[0] is the raw base, layer[nr-1] the writable top; all but the top are
 * only read.  size 0: as the top layer says.  Takes the descriptors over, also on
 * failure.  Refuses (-EBADMSG) a damaged layer.
 */
struct disk *disk_open_cow(const int *layer, unsigned nr, uint64_t size,
			   bool readonly, struct err *err);
/* Layers are created by layer_create() of layer/layer.h, or by seal. */

static inline void disk_free(struct disk *d)
{
	if (d)
		d->ops->free(d);
}

#endif
