// SPDX-License-Identifier: MIT
/*
 * blk.c - virtio block device (virtio 1.2, section 5.2).
 *
 * Theory of operation.  notify pops requests on the loop thread and hands each to
 * the pool; a pool thread does the I/O straight between the disk and the guest's
 * pages; its completion comes back to the loop, which writes the status byte and
 * pushes the chain.  Requests finish in any order.
 *
 *	free list --notify--> pool: run --> loop: done --> pushed, free list
 *
 * `busy` counts requests whose run() has not ended, under its own lock, since
 * two things must wait for them without the loop's help: a reset (a vCPU thread;
 * afterwards no page of the guest may be written) and a drain before a save.
 * A request is completed once, by whoever comes first, drain or done().
 *
 * A request cancelled by a reset has its chain dropped by the queue's generation.
 *
 * What is in the request header is copied once by blk_parse(); the data are never
 * looked at.  Every request gets a status byte, failure by default.
 */
#include "vmm/dev/blk.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/wire.h"
#include "vmm/dev/devices.h"
#include "vmm/disk/disk.h"
#include "vmm/limits.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"

#define BLK_F_SEG_MAX		BIT(2)
#define BLK_F_RO		BIT(5)
#define BLK_F_BLK_SIZE		BIT(6)
#define BLK_F_FLUSH		BIT(9)
#define BLK_F_CONFIG_WCE	BIT(11)
#define BLK_F_DISCARD		BIT(13)
#define BLK_F_WRITE_ZEROES	BIT(14)

enum blk_type {
	BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8,
	BLK_T_DISCARD = 11, BLK_T_WRITE_ZEROES = 13,
};

enum blk_status { BLK_S_OK, BLK_S_IOERR, BLK_S_UNSUPP };

#define BLK_ID_LEN		20
#define BLK_CONFIG_LEN		60
#define BLK_CONFIG_WRITEBACK	32
/* One segment: 1 GiB, so that a discard cannot occupy a pool thread for long. */
#define BLK_MAX_ZERO_SECTORS	(1u << 21)
#define BLK_ZERO_ALIGN		8	/* sectors: 4 KiB */

struct blk_req {
	struct pool_job job;
	struct list node;		/* blk->free or blk->flying */
	struct blk *blk;		/* borrowed */
	struct virtq *vq;		/* borrowed */
	uint32_t type;
	uint64_t off;			/* bytes */
	bool through;			/* a write is to be durable */
	bool completed;			/* status written, chain pushed */
	uint8_t status;			/* enum blk_status */
	int error;			/* -errno behind IOERR, 0 */
	struct chain chain;
};

struct blk {
	struct virtio_dev dev;
	struct disk *disk;		/* owned */
	bool writeback;			/* cache mode the driver chose */
	bool closing;			/* pop no more */
	_Atomic bool cancel;		/* a reset waits: what has not begun need not */
	bool starved;			/* ring not emptied: no free request */
	bool error_logged, space_logged;
	unsigned nr_reqs;
	struct list free, flying;
	pthread_mutex_t busy_lock;
	pthread_cond_t busy_cond;
	unsigned busy;
};

static struct blk *to_blk(struct virtio_dev *dev)
{
	return container_of(dev, struct blk, dev);
}

struct disk *blk_disk(struct virtio_dev *dev)
{
	return to_blk(dev)->disk;
}

/* --- on a pool thread: the request alone ---------------------------------- */

static uint8_t blk_result(struct blk_req *q, int ret)
{
	q->error = ret;
	return ret < 0 ? BLK_S_IOERR : BLK_S_OK;
}

/* [sector, sector + n) lies on the disk. */
static bool on_disk(const struct blk *b, uint64_t off, uint64_t len)
{
	return off <= b->disk->size && len <= b->disk->size - off;
}

/* A reset has to wait for what is under way: no request takes for ever. */
static bool transferable(const struct blk_req *q, size_t len)
{
	return !(len % DISK_SECTOR) && len <= LIMIT_BLK_BYTES &&
	       on_disk(q->blk, q->off, len);
}

static uint8_t blk_read(struct blk_req *q)
{
	size_t len = chain_space(&q->chain) - 1;
	struct iovec iov[LIMIT_QUEUE_SIZE];
	unsigned nr = chain_in_iov(&q->chain, len, iov, LIMIT_QUEUE_SIZE);
	struct disk *d = q->blk->disk;

	if (!transferable(q, len))
		return BLK_S_IOERR;
	chain_skip_in(&q->chain, len);
	return blk_result(q, d->ops->readv(d, iov, nr, q->off));
}

static uint8_t blk_write(struct blk_req *q)
{
	size_t len = chain_left(&q->chain);
	struct iovec iov[LIMIT_QUEUE_SIZE];
	unsigned nr = chain_out_iov(&q->chain, len, iov, LIMIT_QUEUE_SIZE);
	struct disk *d = q->blk->disk;
	int ret;

	if (d->readonly || !transferable(q, len))
		return BLK_S_IOERR;
	ret = d->ops->writev(d, iov, nr, q->off);
	if (!ret && q->through)
		ret = d->ops->flush(d);
	return blk_result(q, ret);
}

/* One segment (5.2.6): u64 sector, u32 sectors, u32 flags. */
static uint8_t blk_zero_segment(struct blk_req *q)
{
	struct disk *d = q->blk->disk;
	uint64_t sector, off, len;
	uint8_t raw[16];
	struct wire_r r;
	uint32_t flags;

	chain_read(&q->chain, raw, sizeof(raw));
	wire_r_init(&r, raw, sizeof(raw));
	sector = wire_u64(&r);
	len = (uint64_t)wire_u32(&r) * DISK_SECTOR;
	flags = wire_u32(&r);
	if (flags & ~(q->type == BLK_T_WRITE_ZEROES ? 1u : 0u))
		return BLK_S_UNSUPP;
	if (__builtin_mul_overflow(sector, DISK_SECTOR, &off) ||
	    !on_disk(q->blk, off, len) ||
	    len > (uint64_t)BLK_MAX_ZERO_SECTORS * DISK_SECTOR)
		return BLK_S_IOERR;
	if (q->type == BLK_T_DISCARD)
		return blk_result(q, d->ops->discard(d, off, len));
	return blk_result(q, d->ops->write_zeroes(d, off, len, flags & 1));
}

static uint8_t blk_zero(struct blk_req *q)
{
	struct disk *d = q->blk->disk;
	size_t len = chain_left(&q->chain);
	uint8_t status = BLK_S_OK;

	if (d->readonly || !len || len % 16 || len / 16 > LIMIT_BLK_SEGMENTS)
		return BLK_S_IOERR;
	while (status == BLK_S_OK && chain_left(&q->chain))
		status = blk_zero_segment(q);
	if (status == BLK_S_OK && q->through)
		status = blk_result(q, d->ops->flush(d));
	return status;
}

static uint8_t blk_get_id(struct blk_req *q)
{
	char id[BLK_ID_LEN] = "";

	memcpy(id, q->blk->dev.id, strnlen(q->blk->dev.id, sizeof(id)));
	chain_write(&q->chain, id, MIN(sizeof(id), chain_space(&q->chain) - 1));
	return BLK_S_OK;
}

static uint8_t blk_do(struct blk_req *q)
{
	struct disk *d = q->blk->disk;

	switch (q->type) {
	case BLK_T_IN: return blk_read(q);
	case BLK_T_OUT: return blk_write(q);
	case BLK_T_FLUSH: return blk_result(q, d->readonly ? 0 : d->ops->flush(d));
	case BLK_T_GET_ID: return blk_get_id(q);
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES: return blk_zero(q);
	default: return BLK_S_UNSUPP;
	}
}

static void blk_run(struct pool_job *job)
{
	struct blk_req *q = container_of(job, struct blk_req, job);
	struct blk *b = q->blk;

	if (!b->cancel)
		q->status = blk_do(q);
	pthread_mutex_lock(&b->busy_lock);
	if (!--b->busy)
		pthread_cond_broadcast(&b->busy_cond);
	pthread_mutex_unlock(&b->busy_lock);
}

/* --- on the loop thread ---------------------------------------------------- */

static void blk_wait(struct blk *b)
{
	pthread_mutex_lock(&b->busy_lock);
	while (b->busy)
		pthread_cond_wait(&b->busy_cond, &b->busy_lock);
	pthread_mutex_unlock(&b->busy_lock);
}

static void log_failure(struct blk *b, const struct blk_req *q)
{
	if (q->error == -ENOSPC)
		log_once(b->space_logged, "blk",
			 "(HOST_NO_SPACE): no space on the host for writes to disk %s",
			 b->dev.id);
	else if (q->error)
		log_once(b->error_logged, "blk", "disk %s: %s at byte %llu",
			 b->dev.id, strerror(-q->error),
			 (unsigned long long)q->off);
}

static void blk_complete(struct blk_req *q)
{
	struct chain *c = &q->chain;

	if (q->completed)
		return;
	q->completed = true;
	log_failure(q->blk, q);
	if (virtq_stale(q->vq, c))
		return;
	/* The status byte is the last writable one, wherever the data ended. */
	chain_write_at(c, c->in_len - 1, &q->status, 1);
	chain_skip_in(c, chain_space(c));
	virtq_push(q->vq, c);
}

static void blk_notify(struct virtio_dev *dev, struct virtq *vq);

static void blk_done(struct pool_job *job)
{
	struct blk_req *q = container_of(job, struct blk_req, job);
	struct blk *b = q->blk;
	struct virtq *vq = q->vq;

	virtio_lock(&b->dev);
	blk_complete(q);
	list_del(&q->node);
	list_add(&b->free, &q->node);
	if (b->starved)
		blk_notify(&b->dev, vq);
	else
		virtq_signal(vq);
	virtio_unlock(&b->dev);
}

static struct blk_req *req_get(struct blk *b)
{
	struct blk_req *q;

	if (!list_empty(&b->free)) {
		q = list_first(&b->free, struct blk_req, node);
		list_del(&q->node);
		return q;
	}
	if (b->nr_reqs == LIMIT_BLK_REQUESTS)
		return NULL;
	q = malloc(sizeof(*q));	/* not zeroed: a chain is 6 KiB of arrays */
	if (!q)
		return NULL;
	b->nr_reqs++;
	q->job = (struct pool_job){ .run = blk_run, .done = blk_done };
	q->blk = b;
	list_init(&q->node);
	return q;
}

/* The header (5.2.6): u32 type, u32 reserved, u64 sector.  False: no request. */
static bool blk_parse(struct blk *b, struct blk_req *q)
{
	uint8_t raw[16];
	struct wire_r r;

	q->completed = false;
	q->status = BLK_S_IOERR;
	q->error = 0;
	q->through = !virtio_has(&b->dev, BLK_F_FLUSH) || !b->writeback;
	if (chain_read(&q->chain, raw, sizeof(raw)) < sizeof(raw))
		return false;
	wire_r_init(&r, raw, sizeof(raw));
	q->type = wire_u32(&r);
	wire_u32(&r);
	if (__builtin_mul_overflow(wire_u64(&r), DISK_SECTOR, &q->off))
		q->off = UINT64_MAX;	/* on no disk */
	return true;
}

static void blk_submit(struct blk *b, struct blk_req *q)
{
	list_add_tail(&b->flying, &q->node);
	pthread_mutex_lock(&b->busy_lock);
	b->busy++;
	pthread_mutex_unlock(&b->busy_lock);
	pool_submit(b->dev.env.pool, &q->job);
}

static void blk_notify(struct virtio_dev *dev, struct virtq *vq)
{
	struct blk *b = to_blk(dev);
	struct blk_req *q;

	b->starved = false;
	while (!b->closing && (q = req_get(b))) {
		if (!virtq_pop(vq, &q->chain)) {
			list_add(&b->free, &q->node);
			goto out;
		}
		q->vq = vq;
		if (!q->chain.in_len) {
			list_add(&b->free, &q->node);
			virtio_broken(dev, "request without a status byte");
			goto out;
		}
		if (blk_parse(b, q)) {
			blk_submit(b, q);
			continue;
		}
		blk_complete(q);
		list_add(&b->free, &q->node);
	}
	b->starved = true;
out:
	virtq_signal(vq);
}

static void blk_drain(struct virtio_dev *dev)
{
	struct blk *b = to_blk(dev);
	struct blk_req *q;

	blk_wait(b);
	list_for_each(q, &b->flying, node)
		blk_complete(q);
	for (unsigned i = 0; i < dev->class->nr_queues; i++)
		virtq_signal(&dev->vq[i]);
}

static void blk_reset(struct virtio_dev *dev)
{
	struct blk *b = to_blk(dev);

	b->cancel = true;
	blk_wait(b);
	b->cancel = false;
	b->starved = false;
	b->writeback = true;
}

/* --- configuration, life --------------------------------------------------- */

static void blk_config_bytes(const struct blk *b, uint8_t cfg[BLK_CONFIG_LEN])
{
	struct wire_w w;

	wire_w_init(&w, cfg, BLK_CONFIG_LEN);
	wire_put_u64(&w, b->disk->size / DISK_SECTOR);
	wire_put_u32(&w, 0);				/* size_max */
	wire_put_u32(&w, LIMIT_QUEUE_SIZE - 2);		/* seg_max */
	wire_put_u32(&w, 0);				/* geometry */
	wire_put_u32(&w, DISK_SECTOR);			/* blk_size */
	wire_put_u64(&w, 0);				/* topology */
	wire_put_u8(&w, b->writeback);
	wire_put_u8(&w, 0);
	wire_put_u16(&w, 1);				/* num_queues */
	wire_put_u32(&w, BLK_MAX_ZERO_SECTORS);		/* discard */
	wire_put_u32(&w, LIMIT_BLK_SEGMENTS);
	wire_put_u32(&w, BLK_ZERO_ALIGN);
	wire_put_u32(&w, BLK_MAX_ZERO_SECTORS);		/* write zeroes */
	wire_put_u32(&w, LIMIT_BLK_SEGMENTS);
	wire_put_u32(&w, 1);				/* may unmap */
}

static void blk_config_read(struct virtio_dev *dev, unsigned off, void *dst, unsigned len)
{
	uint8_t cfg[BLK_CONFIG_LEN];

	blk_config_bytes(to_blk(dev), cfg);
	memcpy(dst, cfg + off, len);
}

static void blk_config_write(struct virtio_dev *dev, unsigned off, const void *src, unsigned len)
{
	if (off == BLK_CONFIG_WRITEBACK && len == 1 &&
	    virtio_has(dev, BLK_F_CONFIG_WCE))
		to_blk(dev)->writeback = *(const uint8_t *)src & 1;
}

static int blk_init(struct virtio_dev *dev, const void *arg, struct err *err)
{
	const struct blk_config *cfg = arg;
	struct blk *b = to_blk(dev);

	b->disk = cfg->disk;
	b->writeback = true;
	list_init(&b->free);
	list_init(&b->flying);
	pthread_mutex_init(&b->busy_lock, NULL);
	pthread_cond_init(&b->busy_cond, NULL);
	if (b->disk->readonly) {
		dev->features &= ~(BLK_F_DISCARD | BLK_F_WRITE_ZEROES);
		dev->features |= BLK_F_RO;
	}
	return 0;
}

static void blk_free(struct virtio_dev *dev)
{
	struct blk *b = to_blk(dev);
	struct blk_req *q, *tmp;

	if (!b->disk)
		return;		/* init was not reached */
	b->closing = true;
	if (!list_empty(&b->flying))
		pool_drain(dev->env.pool);
	list_for_each_safe(q, tmp, &b->free, node)
		free(q);
	disk_free(b->disk);
	pthread_cond_destroy(&b->busy_cond);
	pthread_mutex_destroy(&b->busy_lock);
}

static void blk_save(struct virtio_dev *dev, struct state_w *w)
{
	const struct blk *b = to_blk(dev);

	state_put_u64(w, b->disk->size);
	state_put_u8(w, b->writeback);
}

static void blk_load(struct virtio_dev *dev, struct state_r *r)
{
	struct blk *b = to_blk(dev);

	/* The guest's file system relies on the size it saw. */
	if (state_get_u64(r) != b->disk->size)
		r->bad = true;
	b->writeback = state_get_u8(r) & 1;
}

const struct virtio_class blk_class = {
	.name = "blk",
	.id = VIRTIO_ID_BLK,
	.nr_queues = 1,
	.size = sizeof(struct blk),
	.config_size = BLK_CONFIG_LEN,
	.features = BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_FLUSH |
		    BLK_F_CONFIG_WCE | BLK_F_DISCARD | BLK_F_WRITE_ZEROES,
	.init = blk_init,
	.done = blk_free,
	.reset = blk_reset,
	.notify = blk_notify,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.drain = blk_drain,
	.save = blk_save,
	.load = blk_load,
	.state_version = 1,
};
