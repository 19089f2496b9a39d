// SPDX-License-Identifier: MIT
/*
 * raw.c - a disk that is a file, byte for byte, or a block device.
 *
 * It keeps no state between calls, so it needs no lock: the kernel orders calls on
 * one descriptor.  Discard punches a hole where the file system can and writes
 * zeroes elsewhere, since our promise is that discarded content reads as zeroes.
 *
 * #syscalls preadv pwritev fdatasync fallocate
 * #ioctls BLKGETSIZE64
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "vmm/disk/disk.h"

#define IOV_PART 64u	/* pieces a call; more only costs another call */

struct raw {
	struct disk disk;
	int fd;			/* owned */
};

static int raw_fd(const struct disk *d)
{
	return container_of(d, struct raw, disk)->fd;
}

/* Drops the first len bytes of iov[0..nr). */
static void iov_advance(struct iovec **iov, unsigned *nr, size_t len)
{
	while (*nr && len >= (*iov)->iov_len) {
		len -= (*iov)->iov_len;
		++*iov;
		--*nr;
	}
	if (len) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + len;
		(*iov)->iov_len -= len;
	}
}

/* All of at most IOV_PART pieces; short transfers are carried on. */
static int raw_part(int fd, struct iovec *iov, unsigned nr, uint64_t *off, bool write)
{
	while (nr) {
		ssize_t n = write ? pwritev(fd, iov, nr, *off)
				  : preadv(fd, iov, nr, *off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO;	/* somebody cut the file */
		*off += n;
		iov_advance(&iov, &nr, n);
	}
	return 0;
}

static int raw_rw(struct disk *d, const struct iovec *iov, unsigned nr,
		  uint64_t off, bool write)
{
	int ret = 0;

	while (nr && !ret) {
		struct iovec part[IOV_PART];
		unsigned n = MIN(nr, IOV_PART);

		memcpy(part, iov, n * sizeof(*part));
		ret = raw_part(raw_fd(d), part, n, &off, write);
		iov += n;
		nr -= n;
	}
	return ret;
}

static int raw_readv(struct disk *d, const struct iovec *iov, unsigned nr, uint64_t off)
{
	return raw_rw(d, iov, nr, off, false);
}

static int raw_writev(struct disk *d, const struct iovec *iov, unsigned nr, uint64_t off)
{
	return raw_rw(d, iov, nr, off, true);
}

static int raw_flush(struct disk *d)
{
	return fdatasync(raw_fd(d)) < 0 ? -errno : 0;
}

static int write_zeroes_by_hand(int fd, uint64_t off, uint64_t len)
{
	static const char zeroes[64 << 10];
	int ret = 0;

	while (len && !ret) {
		size_t n = MIN(len, sizeof(zeroes));

		ret = io_pwrite_full(fd, zeroes, n, off);
		off += n;
		len -= n;
	}
	return ret;
}

static int raw_zero(struct disk *d, uint64_t off, uint64_t len, int mode)
{
	if (!len || !fallocate(raw_fd(d), mode | FALLOC_FL_KEEP_SIZE, off, len))
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOTTY && errno != ENODEV)
		return -errno;
	return write_zeroes_by_hand(raw_fd(d), off, len);
}

static int raw_discard(struct disk *d, uint64_t off, uint64_t len)
{
	return raw_zero(d, off, len, FALLOC_FL_PUNCH_HOLE);
}

static int raw_write_zeroes(struct disk *d, uint64_t off, uint64_t len, bool may_unmap)
{
	return raw_zero(d, off, len, may_unmap ? FALLOC_FL_PUNCH_HOLE
					       : FALLOC_FL_ZERO_RANGE);
}

static void raw_free(struct disk *d)
{
	struct raw *raw = container_of(d, struct raw, disk);

	io_close(raw->fd);
	free(raw);
}

static const struct disk_ops raw_ops = {
	.name = "raw",
	.readv = raw_readv,
	.writev = raw_writev,
	.flush = raw_flush,
	.discard = raw_discard,
	.write_zeroes = raw_write_zeroes,
	.free = raw_free,
};

static int raw_size(int fd, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*size = st.st_size;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
	return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

struct disk *disk_open_raw(int fd, bool readonly, struct err *err)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	uint64_t size = 0;
	int ret = raw ? raw_size(fd, &size) : -ENOMEM;

	if (ret < 0) {
		err_wrap(err, ret, "cannot use a file as a disk");
		io_close(fd);
		free(raw);
		return NULL;
	}
	raw->fd = fd;
	raw->disk = (struct disk){
		.ops = &raw_ops,
		.size = ALIGN_DOWN(size, DISK_SECTOR),
		.readonly = readonly,
	};
	return &raw->disk;
}
