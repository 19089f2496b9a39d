// SPDX-License-Identifier: MIT
/*
 * extio.c - the io manager of libext2fs; see extio.h.
 *
 * libext2fs writes one inode or bitmap at a time, each a whole block read and
 * written.  A direct-mapped write-back cache of blocks turns that into one
 * write for each block: inodes are written in rising order, so a block is
 * complete when it is evicted.
 *
 * The library names what it opens by a string; ours is the address of the
 * extio in hexadecimal.
 */
#include "image/extio.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/util.h"

#define NR_SLOTS 512u

struct slot {
	unsigned long long blk;
	bool used, dirty;
};

struct cache {
	struct extio *io;	/* borrowed */
	struct slot slot[NR_SLOTS];
	uint8_t *data;		/* owned: NR_SLOTS blocks */
};

static int fd_pread(void *arg, void *data, size_t len, uint64_t off)
{
	ssize_t n = io_pread_full(*(int *)arg, data, len, off);

	if (n < 0)
		return n;
	memset((char *)data + n, 0, len - n);	/* past the end of a sparse file */
	return 0;
}

static int fd_pwrite(void *arg, const void *data, size_t len, uint64_t off)
{
	return io_pwrite_full(*(int *)arg, data, len, off);
}

const struct extio_ops extio_fd_ops = { fd_pread, fd_pwrite };

static errcode_t note(struct cache *c, int ret)
{
	if (ret && !c->io->failed)
		c->io->failed = ret;
	return -ret;
}

static uint8_t *slot_data(io_channel ch, struct cache *c, struct slot *s)
{
	return c->data + (size_t)(s - c->slot) * ch->block_size;
}

static errcode_t write_back(io_channel ch, struct cache *c, struct slot *s)
{
	int ret;

	if (!s->used || !s->dirty)
		return 0;
	ret = c->io->ops->pwrite(c->io->arg, slot_data(ch, c, s),
				 ch->block_size,
				 s->blk * (uint64_t)ch->block_size);
	if (!ret)
		s->dirty = false;
	return note(c, ret);
}

static struct slot *find(struct cache *c, unsigned long long blk)
{
	return &c->slot[blk % NR_SLOTS];
}

static errcode_t channel_flush(io_channel ch)
{
	struct cache *c = ch->private_data;
	errcode_t first = 0;

	for (unsigned i = 0; i < NR_SLOTS; i++) {
		errcode_t ret = write_back(ch, c, &c->slot[i]);

		if (ret && !first)
			first = ret;
	}
	return first;
}

/* Before going past the cache: write what it holds, forget it. */
static errcode_t drop_range(io_channel ch, unsigned long long blk,
			    uint64_t bytes)
{
	struct cache *c = ch->private_data;
	uint64_t n = (bytes + ch->block_size - 1) / ch->block_size;

	for (unsigned i = 0; i < NR_SLOTS; i++) {
		struct slot *s = &c->slot[i];
		errcode_t ret;

		if (!s->used || s->blk < blk || s->blk - blk >= n)
			continue;
		ret = write_back(ch, c, s);
		if (ret)
			return ret;
		s->used = false;
	}
	return 0;
}

static uint64_t nr_bytes(io_channel ch, int count)
{
	return count < 0 ? (uint64_t)-(int64_t)count :
			   (uint64_t)count * ch->block_size;
}

static errcode_t read_blk64(io_channel ch, unsigned long long blk, int count,
			    void *data)
{
	struct cache *c = ch->private_data;
	struct slot *s = find(c, blk);
	errcode_t ret;

	if (count != 1) {
		ret = drop_range(ch, blk, nr_bytes(ch, count));
		return ret ? ret : note(c, c->io->ops->pread(c->io->arg, data,
				nr_bytes(ch, count),
				blk * (uint64_t)ch->block_size));
	}
	if (!s->used || s->blk != blk) {
		ret = write_back(ch, c, s);
		if (ret)
			return ret;
		s->used = false;
		ret = note(c, c->io->ops->pread(c->io->arg, slot_data(ch, c, s),
						ch->block_size,
						blk * (uint64_t)ch->block_size));
		if (ret)
			return ret;
		*s = (struct slot){ .blk = blk, .used = true };
	}
	memcpy(data, slot_data(ch, c, s), ch->block_size);
	return 0;
}

static errcode_t write_blk64(io_channel ch, unsigned long long blk, int count,
			     const void *data)
{
	struct cache *c = ch->private_data;
	struct slot *s = find(c, blk);
	errcode_t ret;

	if (count != 1) {
		ret = drop_range(ch, blk, nr_bytes(ch, count));
		return ret ? ret : note(c, c->io->ops->pwrite(c->io->arg, data,
				nr_bytes(ch, count),
				blk * (uint64_t)ch->block_size));
	}
	if (!s->used || s->blk != blk) {
		ret = write_back(ch, c, s);
		if (ret)
			return ret;
	}
	*s = (struct slot){ .blk = blk, .used = true, .dirty = true };
	memcpy(slot_data(ch, c, s), data, ch->block_size);
	return 0;
}

static errcode_t read_blk(io_channel ch, unsigned long blk, int count,
			  void *data)
{
	return read_blk64(ch, blk, count, data);
}

static errcode_t write_blk(io_channel ch, unsigned long blk, int count,
			   const void *data)
{
	return write_blk64(ch, blk, count, data);
}

static errcode_t write_byte(io_channel ch, unsigned long off, int count,
			    const void *data)
{
	struct cache *c = ch->private_data;
	errcode_t ret = drop_range(ch, off / ch->block_size,
				   count + off % ch->block_size);

	return ret ? ret : note(c, c->io->ops->pwrite(c->io->arg, data, count,
						      off));
}

static errcode_t set_blksize(io_channel ch, int size)
{
	struct cache *c = ch->private_data;
	errcode_t ret = channel_flush(ch);
	uint8_t *data;

	if (ret || size == ch->block_size)
		return ret;
	data = calloc(NR_SLOTS, size);
	if (!data)
		return EXT2_ET_NO_MEMORY;
	free(c->data);
	c->data = data;
	memset(c->slot, 0, sizeof(c->slot));
	ch->block_size = size;
	return 0;
}

static errcode_t channel_close(io_channel ch)
{
	struct cache *c = ch->private_data;
	errcode_t ret;

	if (--ch->refcount > 0)
		return 0;
	ret = channel_flush(ch);
	free(c->data);
	free(c);
	free(ch->name);
	free(ch);
	return ret;
}

static errcode_t channel_open(const char *name, int flags, io_channel *out);

/* The library takes it without const and never writes to it. */
static const struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "machinen",
	.open = channel_open,
	.close = channel_close,
	.set_blksize = set_blksize,
	.read_blk = read_blk,
	.write_blk = write_blk,
	.flush = channel_flush,
	.write_byte = write_byte,
	.read_blk64 = read_blk64,
	.write_blk64 = write_blk64,
};

io_manager extio_manager(struct extio *io, char *name)
{
	snprintf(name, EXTIO_NAME_MAX, "%" PRIxPTR, (uintptr_t)io);
	return (io_manager)(uintptr_t)&manager;
}

static errcode_t channel_open(const char *name, int flags, io_channel *out)
{
	struct extio *io = (void *)(uintptr_t)strtoull(name, NULL, 16);
	io_channel ch = calloc(1, sizeof(*ch));
	struct cache *c = calloc(1, sizeof(*c));

	if (!ch || !c)
		goto out;
	ch->name = strdup(name);
	c->data = calloc(NR_SLOTS, 1024);
	if (!ch->name || !c->data)
		goto out;
	c->io = io;
	ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	ch->manager = extio_manager(io, (char[EXTIO_NAME_MAX]){ 0 });
	ch->block_size = 1024;
	ch->refcount = 1;
	ch->private_data = c;
	*out = ch;
	return 0;
out:
	if (c)
		free(c->data);
	free(c);
	if (ch)
		free(ch->name);
	free(ch);
	return EXT2_ET_NO_MEMORY;
}
