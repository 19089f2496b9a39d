// SPDX-License-Identifier: MIT
/*
 * virtq.c - split virtqueues, seen from the device.
 *
 * Theory of operation.  The driver owns the descriptor table and the available
 * ring, we own the used ring.  All three lie in guest RAM, which any vCPU may
 * change between two of our reads.  Therefore every value is read exactly once
 * into a local variable, and only the local copy is checked and used: struct
 * desc by desc_fetch(), the ring indices by single atomic loads.
 *
 * A chain is walked into bounded arrays of host pieces before a device sees it.
 * The walk counts descriptors, not bytes, so a cyclic `next` ends at
 * LIMIT_QUEUE_SIZE like any other chain that is too long.  Any violation is
 * answered by virtio_broken(): no error leaves a ring half-used, since from then
 * on virtio_live() is false and nothing pops or pushes until the driver resets
 * the device.
 *
 * Ring addresses are checked as a whole when the queue is switched on and
 * translated again on each use: RAM may get another host address (fork), and the
 * translation is a handful of compares.
 *
 * What this does not do: packed rings, notification data, VIRTIO_F_RING_RESET.
 */
#include "vmm/virtio/virtq.h"

#include <string.h>

#include "base/util.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"

#define DESC_F_NEXT		1u
#define DESC_F_WRITE		2u
#define DESC_F_INDIRECT		4u
#define AVAIL_F_NO_INTERRUPT	1u

/* A descriptor as it lies in memory (2.7.5); little endian like us. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct desc) == 16, "virtio 2.7.5");

struct used_elem {
	uint32_t id;
	uint32_t len;
};
_Static_assert(sizeof(struct used_elem) == 8, "virtio 2.7.8");

/* Both rings: u16 flags, u16 idx, entries, u16 event (2.7.6, 2.7.8). */
#define RING_IDX	2
#define RING_ENTRIES	4

static uint64_t avail_bytes(const struct virtq *vq)
{
	return RING_ENTRIES + 2ull * vq->size + 2;
}

static uint64_t used_bytes(const struct virtq *vq)
{
	return RING_ENTRIES + sizeof(struct used_elem) * vq->size + 2;
}

/* Never NULL for a ready queue: virtq_enable() checked the whole ring. */
static void *ring_at(const struct virtq *vq, gpa_t ring, size_t off, size_t len)
{
	void *p = mem_ptr(vq->dev->env.mem, ring + off, len);

	ASSERT(p);
	return p;
}

static uint16_t *avail_u16(const struct virtq *vq, size_t off)
{
	return ring_at(vq, vq->avail, off, 2);
}

static uint16_t *used_u16(const struct virtq *vq, size_t off)
{
	return ring_at(vq, vq->used, off, 2);
}

static bool ring_ok(const struct virtq *vq, gpa_t gpa, uint64_t len, unsigned align)
{
	return !(gpa & (align - 1)) && mem_ptr(vq->dev->env.mem, gpa, len);
}

static bool rings_ok(const struct virtq *vq)
{
	return vq->size && vq->size <= vq->max_size &&
	       !(vq->size & (vq->size - 1)) &&
	       ring_ok(vq, vq->desc, sizeof(struct desc) * vq->size, 16) &&
	       ring_ok(vq, vq->avail, avail_bytes(vq), 2) &&
	       ring_ok(vq, vq->used, used_bytes(vq), 4);
}

bool virtq_enable(struct virtq *vq)
{
	if (!rings_ok(vq)) {
		virtio_broken(vq->dev, "queue address or size");
		return false;
	}
	vq->ready = true;
	return true;
}

void virtq_reset(struct virtq *vq)
{
	vq->ready = false;
	vq->size = 0;
	vq->desc = vq->avail = vq->used = 0;
	vq->last_avail = vq->next_used = vq->signalled_used = 0;
	vq->inflight = 0;
	vq->generation++;
}

/*
 * The driver's index.  Acquire pairs with the driver's write barrier between
 * filling entries (and descriptors) and storing the index (2.7.13.3).
 */
static uint16_t avail_idx(const struct virtq *vq)
{
	return __atomic_load_n(avail_u16(vq, RING_IDX), __ATOMIC_ACQUIRE);
}

bool virtq_has_work(const struct virtq *vq)
{
	return virtio_live(vq->dev) && vq->ready &&
	       avail_idx(vq) != vq->last_avail;
}

/* Ours, in the used ring: "ring the bell when you add this entry" (2.7.10). */
static void ask_for_bell(struct virtq *vq, uint16_t entry)
{
	size_t off = RING_ENTRIES + sizeof(struct used_elem) * vq->size;

	__atomic_store_n(used_u16(vq, off), entry, __ATOMIC_RELAXED);
	mem_wrote(vq->dev->env.mem, vq->used + off, 2);
	/*
	 * Pairs with the driver's full barrier between storing its index and
	 * reading our event: either it sees the new event and rings, or we see
	 * the new index on the second look.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void virtq_bell_next(struct virtq *vq)
{
	if (virtio_live(vq->dev) && vq->ready)
		ask_for_bell(vq, avail_idx(vq));
}

/* Entries the driver has added; when there are none, a bell is asked for. */
static bool has_entry(struct virtq *vq)
{
	uint16_t n = avail_idx(vq) - vq->last_avail;

	if (!n && virtio_has(vq->dev, VIRTIO_F_EVENT_IDX)) {
		ask_for_bell(vq, vq->last_avail);
		n = avail_idx(vq) - vq->last_avail;
	}
	if (n > vq->size) {
		virtio_broken(vq->dev, "available index jumped");
		return false;
	}
	return n;
}

/* One copy; everything after works on it. */
static bool desc_fetch(const struct virtq *vq, gpa_t table, unsigned i, struct desc *d)
{
	const void *p = mem_ptr(vq->dev->env.mem, table + i * sizeof(*d), sizeof(*d));

	if (!p)
		return false;
	memcpy(d, p, sizeof(*d));
	/* The compiler may not go back to guest memory for a field of *d. */
	__asm__ volatile("" : : : "memory");
	return true;
}

/* One buffer joins the chain; NULL or what is wrong with it. */
static const char *add_piece(const struct virtq *vq, struct chain *c, const struct desc *d)
{
	unsigned n = c->nr_out + c->nr_in;
	size_t *total = d->flags & DESC_F_WRITE ? &c->in_len : &c->out_len;
	void *p = mem_ptr(vq->dev->env.mem, d->addr, d->len);

	if (!p)
		return "buffer outside RAM";
	if (!(d->flags & DESC_F_WRITE) && c->nr_in)
		return "readable buffer after a writable one";
	if (*total + d->len > UINT32_MAX)
		return "chain of 4 GiB";
	if (!d->len)	/* allowed by silence, and nothing to transfer */
		return NULL;
	c->iov[n] = (struct iovec){ .iov_base = p, .iov_len = d->len };
	c->gpa[n] = d->addr;
	*total += d->len;
	if (d->flags & DESC_F_WRITE)
		c->nr_in++;
	else
		c->nr_out++;
	return NULL;
}

/* A table to walk: the queue's own, or an indirect one (2.7.5.3). */
struct walk {
	gpa_t table;
	unsigned nr;		/* entries */
	unsigned left;		/* descriptors this chain may still have */
	bool indirect;
};

static const char *enter_indirect(const struct virtq *vq, struct walk *w, const struct desc *d)
{
	if (!virtio_has(vq->dev, VIRTIO_F_INDIRECT_DESC))
		return "indirect descriptor without the feature";
	if (w->indirect || d->flags & DESC_F_NEXT)
		return "nested or continued indirect descriptor";
	if (!d->len || d->len % sizeof(*d) ||
	    d->len / sizeof(*d) > LIMIT_QUEUE_SIZE)
		return "indirect table size";
	if (!mem_ptr(vq->dev->env.mem, d->addr, d->len))
		return "indirect table outside RAM";
	w->table = d->addr;
	w->nr = d->len / sizeof(*d);
	w->indirect = true;
	w->left++;	/* the table's own descriptor is no piece */
	return NULL;
}

static const char *walk_chain(const struct virtq *vq, struct chain *c)
{
	struct walk w = {
		.table = vq->desc, .nr = vq->size, .left = LIMIT_QUEUE_SIZE,
	};
	unsigned i = c->head;
	const char *bad;
	struct desc d;

	for (;;) {
		if (i >= w.nr)
			return "descriptor index";
		if (!w.left--)
			return "chain too long or cyclic";
		if (!desc_fetch(vq, w.table, i, &d))
			return "descriptor outside RAM";
		if (d.flags & DESC_F_INDIRECT) {
			bad = enter_indirect(vq, &w, &d);
			if (bad)
				return bad;
			i = 0;
			continue;
		}
		bad = add_piece(vq, c, &d);
		if (bad || !(d.flags & DESC_F_NEXT))
			return bad;
		i = d.next;
	}
}

/*
 * A guest that adds as fast as we take would keep the loop in one device for
 * ever.  So a queue yields after a while: the bell brings us back, in line with
 * everything else the loop has to do.
 */
static bool must_yield(struct virtq *vq)
{
	if (vq->budget)
		return false;
	virtio_ring_bell(vq->dev);
	return true;
}

bool virtq_pop(struct virtq *vq, struct chain *c)
{
	const char *bad;
	size_t off;

	if (!virtio_live(vq->dev) || !vq->ready || !has_entry(vq) || must_yield(vq))
		return false;
	off = RING_ENTRIES + 2u * (vq->last_avail & (vq->size - 1));
	c->head = __atomic_load_n(avail_u16(vq, off), __ATOMIC_RELAXED);
	c->nr_out = c->nr_in = 0;
	c->out_len = c->in_len = c->out_pos = c->in_pos = 0;
	c->generation = vq->generation;
	bad = walk_chain(vq, c);
	if (bad) {
		virtio_broken(vq->dev, bad);
		return false;
	}
	vq->last_avail++;
	vq->inflight++;
	vq->budget--;
	return true;
}

void virtq_unpop(struct virtq *vq, struct chain *c)
{
	if (virtq_stale(vq, c))
		return;
	vq->last_avail--;
	vq->inflight--;
	vq->budget++;
}

/* --- the byte streams ----------------------------------------------------- */

/* Moves len bytes between buf and the pieces from byte `pos` on. */
static void copy_pieces(const struct iovec *iov, unsigned nr, size_t pos,
			void *in, const void *out, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < nr && done < len; i++) {
		size_t n;

		if (pos >= iov[i].iov_len) {
			pos -= iov[i].iov_len;
			continue;
		}
		n = MIN(iov[i].iov_len - pos, len - done);
		if (in)
			memcpy((char *)in + done, (char *)iov[i].iov_base + pos, n);
		else
			memcpy((char *)iov[i].iov_base + pos, (const char *)out + done, n);
		done += n;
		pos = 0;
	}
}

size_t chain_read(struct chain *c, void *dst, size_t len)
{
	len = MIN(len, chain_left(c));
	copy_pieces(c->iov, c->nr_out, c->out_pos, dst, NULL, len);
	c->out_pos += len;
	return len;
}

size_t chain_write_at(struct chain *c, size_t off, const void *src, size_t len)
{
	if (off >= c->in_len)
		return 0;
	len = MIN(len, c->in_len - off);
	copy_pieces(c->iov + c->nr_out, c->nr_in, off, NULL, src, len);
	return len;
}

size_t chain_write(struct chain *c, const void *src, size_t len)
{
	len = chain_write_at(c, c->in_pos, src, len);
	c->in_pos += len;
	return len;
}

void chain_skip_out(struct chain *c, size_t len)
{
	c->out_pos += MIN(len, chain_left(c));
}

void chain_skip_in(struct chain *c, size_t len)
{
	c->in_pos += MIN(len, chain_space(c));
}

static unsigned cut_pieces(const struct iovec *iov, unsigned nr, size_t pos,
			   size_t len, struct iovec *out, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr && len && n < max; i++) {
		size_t part;

		if (pos >= iov[i].iov_len) {
			pos -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - pos, len);
		out[n].iov_base = (char *)iov[i].iov_base + pos;
		out[n++].iov_len = part;
		len -= part;
		pos = 0;
	}
	return n;
}

unsigned chain_out_iov(const struct chain *c, size_t len, struct iovec *iov, unsigned max)
{
	return cut_pieces(c->iov, c->nr_out, c->out_pos, len, iov, max);
}

unsigned chain_in_iov(const struct chain *c, size_t len, struct iovec *iov, unsigned max)
{
	return cut_pieces(c->iov + c->nr_out, c->nr_in, c->in_pos, len, iov, max);
}

/* --- completion ----------------------------------------------------------- */

/*
 * Which pages were written is known to the piece.  All of them count, not only
 * those below in_pos: chain_write_at() may have gone past it.
 */
static void tell_written(const struct virtq *vq, const struct chain *c)
{
	for (unsigned i = c->nr_out; i < c->nr_out + c->nr_in; i++)
		mem_wrote(vq->dev->env.mem, c->gpa[i], c->iov[i].iov_len);
}

void virtq_fill(struct virtq *vq, struct chain *c)
{
	struct used_elem e = { .id = c->head, .len = (uint32_t)c->in_pos };
	size_t off;

	if (virtq_stale(vq, c))
		return;
	vq->inflight--;
	tell_written(vq, c);
	if (!virtio_live(vq->dev) || !vq->ready)
		return;
	off = RING_ENTRIES + sizeof(e) * (vq->next_used & (vq->size - 1));
	memcpy(ring_at(vq, vq->used, off, sizeof(e)), &e, sizeof(e));
	mem_wrote(vq->dev->env.mem, vq->used + off, sizeof(e));
	vq->next_used++;
}

void virtq_publish(struct virtq *vq)
{
	if (!virtio_live(vq->dev) || !vq->ready)
		return;
	/* Release: the driver reads idx, then entries and buffers (2.7.14). */
	__atomic_store_n(used_u16(vq, RING_IDX), vq->next_used, __ATOMIC_RELEASE);
	mem_wrote(vq->dev->env.mem, vq->used + RING_IDX, 2);
}

void virtq_push(struct virtq *vq, struct chain *c)
{
	virtq_fill(vq, c);
	virtq_publish(vq);
}

/* Did the index pass the driver's event on its way from old to new? */
static bool passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static bool wants_interrupt(const struct virtq *vq, uint16_t old)
{
	size_t event = RING_ENTRIES + 2u * vq->size;

	if (!virtio_has(vq->dev, VIRTIO_F_EVENT_IDX))
		return !(__atomic_load_n(avail_u16(vq, 0), __ATOMIC_RELAXED) &
			 AVAIL_F_NO_INTERRUPT);
	return passed(__atomic_load_n(avail_u16(vq, event), __ATOMIC_RELAXED),
		      vq->next_used, old);
}

void virtq_signal(struct virtq *vq)
{
	uint16_t old = vq->signalled_used;

	if (!virtio_live(vq->dev) || !vq->ready || vq->next_used == old)
		return;
	vq->signalled_used = vq->next_used;
	/*
	 * Pairs with the driver's full barrier between writing its event (or
	 * flags) and looking at our index once more: one of us sees the other.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (wants_interrupt(vq, old))
		virtio_interrupt(vq->dev, VIRTIO_ISR_QUEUE);
}

/* --- state ---------------------------------------------------------------- */

void virtq_save(const struct virtq *vq, struct state_w *w)
{
	state_put_u16(w, vq->size);
	state_put_u8(w, vq->ready);
	state_put_u64(w, vq->desc);
	state_put_u64(w, vq->avail);
	state_put_u64(w, vq->used);
	state_put_u16(w, vq->last_avail);
	state_put_u16(w, vq->next_used);
	state_put_u16(w, vq->signalled_used);
}

void virtq_load(struct virtq *vq, struct state_r *r)
{
	vq->size = state_get_u16(r);
	vq->ready = state_get_u8(r);
	vq->desc = state_get_u64(r);
	vq->avail = state_get_u64(r);
	vq->used = state_get_u64(r);
	vq->last_avail = state_get_u16(r);
	vq->next_used = state_get_u16(r);
	vq->signalled_used = state_get_u16(r);
	vq->inflight = 0;
	vq->generation++;
	if (vq->ready && !rings_ok(vq)) {
		vq->ready = false;
		r->bad = true;
	}
}
