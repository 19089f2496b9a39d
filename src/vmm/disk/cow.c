// SPDX-License-Identifier: MIT
/*
 * cow.c - copy-on-write layers as a disk of the VMM.  All the work is done in
 * src/layer, which the library shares; a full host file system is said here,
 * for the guest sees just an I/O error.
 *
 * #syscalls pread64 pwrite64 pwritev fdatasync fallocate fstat newfstatat
 * #syscalls ftruncate lseek dup getrandom
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "layer/layer.h"
#include "vmm/disk/disk.h"

struct cow {
	struct disk d;
	struct layer_stack *s;		/* owned */
	bool full_logged;
};

static struct cow *cow_of(struct disk *d)
{
	return container_of(d, struct cow, d);
}

static int report(struct cow *c, int ret)
{
	if (ret == -ENOSPC || ret == -EDQUOT)
		log_once(c->full_logged, "disk", "HOST_NO_SPACE: the host file "
			 "system is full; the guest gets I/O errors");
	return ret;
}

static int cow_readv(struct disk *d, const struct iovec *iov, unsigned nr,
		     uint64_t off)
{
	return layer_read(cow_of(d)->s, iov, nr, off);
}

static int cow_writev(struct disk *d, const struct iovec *iov, unsigned nr,
		      uint64_t off)
{
	return report(cow_of(d), layer_write(cow_of(d)->s, iov, nr, off));
}

static int cow_flush(struct disk *d)
{
	return report(cow_of(d), layer_flush(cow_of(d)->s));
}

static int cow_discard(struct disk *d, uint64_t off, uint64_t len)
{
	return report(cow_of(d), layer_discard(cow_of(d)->s, off, len));
}

static int cow_write_zeroes(struct disk *d, uint64_t off, uint64_t len,
			    bool may_unmap)
{
	/* a hole in a layer is as good as zeroes, and nothing was reserved */
	return cow_discard(d, off, len);
}

static int cow_seal(struct disk *d, int new_fd, struct err *err)
{
	return layer_seal(cow_of(d)->s, new_fd, err);
}

static int cow_merge(struct disk *d, int new_fd, const struct layer_io *io,
		     unsigned *first, unsigned *nr, struct err *err)
{
	return layer_merge(cow_of(d)->s, new_fd, io, first, nr, err);
}

static void cow_free(struct disk *d)
{
	layer_stack_free(cow_of(d)->s);
	free(cow_of(d));
}

static const struct disk_ops cow_ops = {
	.name = "cow",
	.readv = cow_readv,
	.writev = cow_writev,
	.flush = cow_flush,
	.discard = cow_discard,
	.write_zeroes = cow_write_zeroes,
	.seal = cow_seal,
	.merge = cow_merge,
	.free = cow_free,
};

struct disk *disk_open_cow(const int *layer, unsigned nr, uint64_t size,
			   bool readonly, struct err *err)
{
	struct layer_stack *s = layer_stack_open(layer, nr, size, readonly,
						 NULL, err);
	struct cow *c = s ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		if (s)
			err_set(err, ENOMEM, "out of memory");
		layer_stack_free(s);
		return NULL;
	}
	c->s = s;
	c->d = (struct disk){ .ops = &cow_ops, .size = layer_stack_size(s),
			      .readonly = readonly };
	return &c->d;
}
