// SPDX-License-Identifier: MIT
/*
 * file.c - one layer: its map in memory and on the disk.
 *
 * Theory of operation.  A cluster has a fixed place in the file, so the map
 * needs one bit for each: set, the cluster is here; clear, look below.  All that
 * must hold after a crash at any instant is: a set bit on the disk has its data
 * on the disk.
 *
 *  1. A bit is set in memory after its data was written to the file.
 *  2. A flush copies the changed map pages, syncs the file - now all data those
 *     copies speak of is durable - then writes the copies, and syncs again.
 *  3. Each map page has two slots, written in turn, each with sequence number
 *     and checksum.  A write that is torn damages the older one only, and the
 *     state before that flush, which had not returned, is what is found.
 *
 * Within a page, and between pages, every mix of old and new bits is a state a
 * disk may have after power loss: unflushed writes may be there or not, each for
 * itself.
 *
 * Sealing must not wait for the disk (a VM is paused), yet others on this host
 * open the sealed file at once.  So sealing writes map slots whose data is not
 * durable: they are marked so, and carry the boot id of the host.  In the same
 * boot the page cache has the data and such a slot counts; after a reboot it is
 * void, and the other slot still holds the last flushed state.  The next flush
 * syncs the data and then marks the same slots durable, in place, one aligned
 * word that no checksum covers: whoever reads the slot meanwhile sees it valid
 * before and after.
 *
 * A layer at rest (sealed, or closed in order) has a record with a sum over the
 * whole map, so that a damaged slot is not mistaken for a torn one.  The record
 * is removed before the first map write after it, and that removal is covered
 * by the first sync of the flush.
 */
#include "layer/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the map is kept in memory as it is in the file: little-endian"
#endif

static int plain_pwritev(void *arg, int fd, const struct iovec *iov,
			 unsigned nr, uint64_t off)
{
	struct iovec part;
	ssize_t n;

	while (nr) {
		n = pwritev(fd, iov, nr, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		off += n;
		for (; nr && (size_t)n >= iov->iov_len; iov++, nr--)
			n -= iov->iov_len;
		if (!nr || !n)
			continue;
		/* a piece was written in part: finish it, go on behind it */
		part = (struct iovec){ (char *)iov->iov_base + n,
				       iov->iov_len - n };
		n = io_pwrite_full(fd, part.iov_base, part.iov_len, off);
		if (n < 0)
			return n;
		off += part.iov_len;
		iov++;
		nr--;
	}
	return 0;
}

static int plain_sync(void *arg, int fd)
{
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int plain_punch(void *arg, int fd, uint64_t off, uint64_t len)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
			 len) < 0 ? -errno : 0;
}

const struct layer_io layer_plain_io = {
	.pwritev = plain_pwritev, .sync = plain_sync, .punch = plain_punch,
};

static int put(const struct layer_io *io, int fd, const void *data, size_t len,
	       uint64_t off)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };

	return io->pwritev(io->arg, fd, &iov, 1, off);
}

static uint8_t *payload(const struct layer *l, uint32_t index)
{
	return (uint8_t *)l->map + (size_t)index * FMT_PAYLOAD;
}

static uint32_t map_sum(const struct layer *l)
{
	return fmt_sum(l->map, (size_t)l->h.map_pages * FMT_PAYLOAD);
}

/* Which slot counts: the newest that is valid in this boot. */
static int pick_slot(const struct fmt_slot s[2], const uint8_t boot[16])
{
	int best = -1;

	for (int i = 0; i < 2; i++) {
		if (!s[i].valid ||
		    (!s[i].durable && memcmp(s[i].boot_id, boot, 16)))
			continue;
		if (best < 0 || s[i].seq > s[best].seq)
			best = i;
	}
	return best;
}

static int load_page(struct layer *l, uint32_t index, struct err *err)
{
	uint8_t raw[2 * FMT_PAGE];
	struct layer_page *p = &l->page[index];
	struct fmt_slot s[2];
	int best;

	if (io_pread_full(l->fd, raw, sizeof(raw), fmt_slot_off(index, 0)) !=
	    sizeof(raw))
		return err_set(err, EIO, "cannot read the disk layer's map");
	for (int i = 0; i < 2; i++)
		fmt_slot_parse(&s[i], raw + i * FMT_PAGE, index);
	best = pick_slot(s, l->boot_id);
	if (best < 0) {
		/*
		 * Torn at the very first write of the page, or only published
		 * before a reboot: nothing durable was there.
		 */
		if (s[0].blank || s[1].blank || (s[0].valid && s[1].valid))
			return 0;
		return err_set(err, EBADMSG, "damaged disk layer: map page %u",
			       index);
	}
	p->slot = best;
	p->seq = s[best].seq;
	p->unsettled = !s[best].durable;
	l->unsynced |= p->unsettled;
	memcpy(payload(l, index), raw + best * FMT_PAGE + FMT_SLOT_HEAD,
	       FMT_PAYLOAD);
	return 0;
}

/* Bits past the end would be data nobody can see: not written by us. */
static int check_tail(const struct layer *l, struct err *err)
{
	uint64_t bits = (uint64_t)l->h.map_pages * FMT_PAGE_BITS;

	for (uint64_t c = l->h.clusters; c < bits; c++)
		if (l->map[c / 64] >> (c % 64) & 1)
			return err_set(err, EBADMSG,
				       "damaged disk layer: map past its end");
	return 0;
}

/* Pages never written are holes, and skipped at no cost. */
static int load_map(struct layer *l, struct err *err)
{
	uint64_t end = fmt_slot_off(l->h.map_pages, 0);
	off_t at = FMT_MAP_OFF;

	while ((uint64_t)at < end) {
		off_t data = lseek(l->fd, at, SEEK_DATA);
		uint32_t index;
		int ret;

		if (data < 0 && errno == ENXIO)
			break;
		if (data >= 0)
			at = data;
		if ((uint64_t)at >= end)
			break;
		index = (at - FMT_MAP_OFF) / (2 * FMT_PAGE);
		ret = load_page(l, index, err);
		if (ret)
			return ret;
		at = fmt_slot_off(index + 1, 0);
	}
	return check_tail(l, err);
}

static int load(struct layer *l, struct err *err)
{
	struct fmt_record rec;
	int ret = fmt_header_read(&l->h, l->fd, err);

	if (!ret)
		ret = fmt_record_read(&rec, l->fd, err);
	if (ret)
		return ret;
	fmt_boot_id(l->boot_id);
	l->map = calloc(l->h.map_pages, FMT_PAYLOAD);
	l->page = calloc(l->h.map_pages, sizeof(*l->page));
	if (!l->map || !l->page)
		return err_set(err, ENOMEM, "out of memory");
	ret = load_map(l, err);
	if (ret)
		return ret;
	l->record = rec.present;
	l->sealed = rec.sealed;
	if (rec.present && rec.map_sum != map_sum(l))
		return err_set(err, EBADMSG,
			       "damaged disk layer: the map does not match its sum");
	return 0;
}

struct layer *layer_open(int fd, struct err *err)
{
	struct layer *l = calloc(1, sizeof(*l));

	if (!l) {
		io_close(fd);
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	l->fd = fd;
	pthread_mutex_init(&l->lock, NULL);
	if (load(l, err)) {
		layer_close(l);
		return NULL;
	}
	return l;
}

void layer_close(struct layer *l)
{
	if (!l)
		return;
	io_close(l->fd);
	free(l->map);
	free(l->page);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void layer_mark(struct layer *l, uint64_t cluster, uint64_t nr, bool here)
{
	for (uint64_t c = cluster, n; c < cluster + nr; c += n) {
		uint64_t mask, word = c / 64;
		bool *dirty = &l->page[c / FMT_PAGE_BITS].dirty;

		n = MIN(64 - c % 64, cluster + nr - c);
		mask = (n == 64 ? ~0ull : BIT(n) - 1) << (c % 64);
		if (here && (__atomic_load_n(&l->map[word], __ATOMIC_RELAXED) &
			     mask) == mask)
			continue;
		/* pairs with the acquire in layer_has() and in copy_page() */
		if (here)
			__atomic_fetch_or(&l->map[word], mask, __ATOMIC_RELEASE);
		else
			__atomic_fetch_and(&l->map[word], ~mask, __ATOMIC_RELEASE);
		/* after the bit: a flush that clears it copies the bit, too */
		__atomic_store_n(dirty, true, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&l->unsynced, true, __ATOMIC_SEQ_CST);
}

/* The page as it is now, ready to be written; false when it is not dirty. */
static bool copy_page(struct layer *l, uint32_t index, uint8_t *out)
{
	const uint64_t *from = (const uint64_t *)payload(l, index);
	uint64_t word;

	if (!__atomic_exchange_n(&l->page[index].dirty, false, __ATOMIC_SEQ_CST))
		return false;
	for (unsigned i = 0; i < FMT_PAYLOAD / 8; i++) {
		word = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
		memcpy(out + FMT_SLOT_HEAD + i * 8, &word, 8);
	}
	return true;
}

static int write_page(struct layer *l, const struct layer_io *io,
		      uint32_t index, uint8_t *page, bool durable)
{
	struct layer_page *p = &l->page[index];
	struct fmt_slot s = { .durable = durable, .seq = p->seq + 1 };
	/* a slot that was only published is replaced, not left as the spare */
	unsigned slot = p->seq && !p->unsettled ? !p->slot : p->slot;
	int ret;

	memcpy(s.boot_id, l->boot_id, 16);
	fmt_slot_print(page, index, &s);
	ret = put(io, l->fd, page, FMT_PAGE, fmt_slot_off(index, slot));
	if (ret)
		return ret;
	p->slot = slot;
	p->seq = s.seq;
	p->unsettled = !durable;
	return 0;
}

static int drop_record(struct layer *l, const struct layer_io *io)
{
	static const uint8_t none[FMT_RECORD_LEN];
	int ret = 0;

	if (l->record)
		ret = put(io, l->fd, none, sizeof(none), FMT_RECORD_OFF);
	if (!ret)
		l->record = false;
	return ret;
}

int layer_publish(struct layer *l, const struct layer_io *io)
{
	static const uint8_t unknown[16];
	uint8_t page[FMT_PAGE];
	int ret;

	/* a slot that cannot name its boot would count after a reboot, too */
	if (!memcmp(l->boot_id, unknown, 16))
		return layer_sync(l, io);
	ret = drop_record(l, io);
	for (uint32_t i = 0; i < l->h.map_pages && !ret; i++)
		if (copy_page(l, i, page)) {
			ret = write_page(l, io, i, page, false);
			if (ret)
				__atomic_store_n(&l->page[i].dirty, true,
						 __ATOMIC_SEQ_CST);
		}
	return ret;
}

/* Copies of all dirty pages, one after the other, with their numbers. */
struct dirty_pages {
	uint32_t nr;
	uint32_t *index;	/* owned */
	uint8_t *data;		/* owned */
};

static int collect(struct layer *l, struct dirty_pages *d)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < l->h.map_pages; i++)
		nr += __atomic_load_n(&l->page[i].dirty, __ATOMIC_SEQ_CST);
	*d = (struct dirty_pages){ .nr = 0 };
	if (!nr)
		return 0;
	d->index = calloc(nr, sizeof(*d->index));
	d->data = malloc((size_t)nr * FMT_PAGE);
	if (!d->index || !d->data)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->h.map_pages && d->nr < nr; i++) {
		if (!copy_page(l, i, d->data + (size_t)d->nr * FMT_PAGE))
			continue;
		d->index[d->nr++] = i;
		l->page[i].collected = true;
	}
	return 0;
}

static void uncollect(struct layer *l, struct dirty_pages *d, int ret)
{
	for (uint32_t i = 0; i < d->nr; i++) {
		struct layer_page *p = &l->page[d->index[i]];

		p->collected = false;
		if (ret)
			__atomic_store_n(&p->dirty, true, __ATOMIC_SEQ_CST);
	}
	free(d->index);
	free(d->data);
}

/*
 * After a sync: published slots have their data on the disk now.  Not those of
 * pages about to be written again: they are overwritten, for the spare slot must
 * stay until the next sync.
 */
static int settle(struct layer *l, const struct layer_io *io, bool *wrote)
{
	static const uint8_t yes[8] = { 1 };

	for (uint32_t i = 0; i < l->h.map_pages; i++) {
		struct layer_page *p = &l->page[i];
		int ret;

		if (!p->unsettled || p->collected)
			continue;
		ret = put(io, l->fd, yes, sizeof(yes),
			  fmt_slot_off(i, p->slot) + FMT_DURABLE_OFF);
		if (ret)
			return ret;
		p->unsettled = false;
		*wrote = true;
	}
	return 0;
}

/*
 * After a failed sync the kernel may have dropped the dirty pages, and a second
 * one would succeed without them.
 */
static int do_sync(struct layer *l, const struct layer_io *io)
{
	int ret = l->broken ? l->broken : io->sync(io->arg, l->fd);

	if (ret)
		l->broken = ret;
	return ret;
}

static int sync_locked(struct layer *l, const struct layer_io *io,
		       struct dirty_pages *d)
{
	bool wrote = d->nr > 0;
	int ret = wrote ? drop_record(l, io) : 0;

	if (!ret)
		ret = do_sync(l, io);
	if (!ret)
		ret = settle(l, io, &wrote);
	for (uint32_t i = 0; i < d->nr && !ret; i++)
		ret = write_page(l, io, d->index[i],
				 d->data + (size_t)i * FMT_PAGE, true);
	return ret ? ret : wrote ? do_sync(l, io) : 0;
}

int layer_sync(struct layer *l, const struct layer_io *io)
{
	struct dirty_pages d;
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = l->broken;
	if (!ret && __atomic_exchange_n(&l->unsynced, false, __ATOMIC_SEQ_CST)) {
		ret = collect(l, &d);
		if (!ret)
			ret = sync_locked(l, io, &d);
		uncollect(l, &d, ret);
		if (ret)
			__atomic_store_n(&l->unsynced, true, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&l->lock);
	return ret;
}

int layer_put_record(struct layer *l, const struct layer_io *io, bool sealed)
{
	struct fmt_record r = { .present = true, .sealed = sealed,
				.map_sum = map_sum(l) };
	uint8_t rec[FMT_RECORD_LEN];
	int ret;

	fmt_record_print(&r, rec);
	ret = put(io, l->fd, rec, sizeof(rec), FMT_RECORD_OFF);
	if (!ret) {
		l->record = true;
		l->sealed = sealed;
	}
	return ret;
}
