// SPDX-License-Identifier: MIT
/*
 * merge.c - runs of layers become one while the disk is in use.
 *
 * Theory of operation.  Each snapshot and each fork seals the top layer, so a VM's
 * chain of layers grows by one; a read looks through all of them, and their number
 * is limited.  A merge takes a run of neighbours below the top, writes what a reader
 * sees of them into a new file, and puts that in their place.
 *
 *	base  1  2  3  4  5  top		base  1  M  top
 *	         `--run--'		-->
 *
 *  1. Only sealed layers are merged.  Nobody writes them, so nothing has to stop:
 *     the guest reads and writes beside it, and a seal adds on top.
 *  2. The merged file has the UUID of the last layer of the run and the parent of
 *     the first.  A UUID thus names the content of the disk up to there, and the
 *     layer above, made over the last one, finds its parent in place.  A chain of
 *     files from before and one from after are both whole; who holds the old files -
 *     a bundle, a sibling, a snapshot under way - goes on with those.
 *  3. The file is durable and at rest before it is in anybody's chain.  Up to then a
 *     crash leaves a file that nothing names; which files make a chain is known to
 *     the VMM alone, and in bundles to meta.json, which never changes.
 *  4. A layer that failed to sync is not merged, nor is anything below it: its pages
 *     may be gone from the cache, and a merge would make the loss look durable.
 *
 * Which run: the longest that ends below the top and whose lowest layer holds no
 * more than those above it in the run together.  After that each layer holds more
 * than all above it, so a chain stays as short as the logarithm of what it holds,
 * and a byte is copied that often at most.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "layer/stack.h"

#define CHUNK (256u * LAYER_CLUSTER)

/* A run of a stack's layers: they stay as they are while it is merged. */
struct run {
	struct layer *l[LAYER_MAX_DEPTH];	/* borrowed */
	unsigned first, nr;			/* index in the stack */
};

static bool is_broken(struct layer *l)
{
	bool broken;

	pthread_mutex_lock(&l->lock);
	broken = l->broken;
	pthread_mutex_unlock(&l->lock);
	return broken;
}

static void choose(struct layer_stack *s, struct run *r)
{
	unsigned end = s->nr - 1;
	uint64_t above = 0;

	*r = (struct run){ .nr = 0 };
	for (unsigned i = end; i-- && !is_broken(s->layer[i]);) {
		uint64_t here = layer_clusters(s->layer[i]);

		if (i + 1 < end && here <= above) {
			r->first = i;
			r->nr = end - i;
		}
		above += here;
	}
	memcpy(r->l, s->layer + r->first, r->nr * sizeof(r->l[0]));
}

/* --- copying ---------------------------------------------------------------- */

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* Writes some clusters but for those that are zero: they stay holes. */
static int write_clusters(struct layer *out, const struct layer_io *io, uint8_t *data,
			  uint64_t cluster, uint64_t nr)
{
	for (uint64_t i = 0, n; i < nr; i += n) {
		struct iovec iov = { data + i * LAYER_CLUSTER, 0 };
		int ret;

		n = 1;
		if (all_zero(iov.iov_base, LAYER_CLUSTER))
			continue;
		while (i + n < nr && !all_zero(data + (i + n) * LAYER_CLUSTER,
					       LAYER_CLUSTER))
			n++;
		iov.iov_len = n * LAYER_CLUSTER;
		ret = io->pwritev(io->arg, out->fd, &iov, 1, out->h.data_off +
				  (cluster + i) * LAYER_CLUSTER);
		if (ret)
			return ret;
	}
	layer_mark(out, cluster, nr, true);
	return 0;
}

/* The next cluster, from c on, that any of the layers has; end: none. */
static uint64_t next_here(const struct run *r, uint64_t c, uint64_t end)
{
	while (c < end) {
		uint64_t word = 0;

		for (unsigned i = 0; i < r->nr; i++)
			if (c < r->l[i]->h.clusters)
				word |= r->l[i]->map[c / 64];
		word >>= c % 64;
		if (word)
			return MIN(c + (unsigned)__builtin_ctzll(word), end);
		c = (c / 64 + 1) * 64;
	}
	return end;
}

/* Which of the layers has the cluster, topmost first; -1: none. */
static int find(const struct run *r, uint64_t cluster)
{
	for (unsigned i = r->nr; i--;)
		if (layer_has(r->l[i], cluster))
			return i;
	return -1;
}

static int copy(const struct run *r, struct layer *out, const struct layer_io *io,
		uint8_t *buf)
{
	uint64_t end = out->h.clusters, n;

	for (uint64_t c = next_here(r, 0, end); c < end;
	     c = next_here(r, c + n, end)) {
		int who = find(r, c), ret;
		const struct layer *l = r->l[who];
		ssize_t got;

		for (n = 1; n < CHUNK / LAYER_CLUSTER && find(r, c + n) == who;)
			n++;
		got = io_pread_full(l->fd, buf, n * LAYER_CLUSTER,
				    l->h.data_off + c * LAYER_CLUSTER);
		if (got < 0)
			return got;
		memset(buf + got, 0, n * LAYER_CLUSTER - got);
		ret = write_clusters(out, io, buf, c, n);
		if (ret)
			return ret;
	}
	return 0;
}

/* --- the merged file -------------------------------------------------------- */

/* It stands where the run stood: the first one's parent, the last one's name. */
static struct layer *make_output(const struct run *r, int fd, const struct layer_io *io,
				 struct err *err)
{
	struct fmt_header h = r->l[0]->h;
	const struct fmt_header *last = &r->l[r->nr - 1]->h;
	int ret, own;

	h.size = last->size;
	memcpy(h.uuid, last->uuid, sizeof(h.uuid));
	ret = layer_write_header(fd, &h, io, err);
	own = ret ? -1 : dup(fd);
	if (!ret && own < 0)
		err_set(err, errno, "cannot open the merged layer");
	return own < 0 ? NULL : layer_open(own, err);
}

static int fill_output(const struct run *r, struct layer *out, const struct layer_io *io)
{
	uint8_t *buf = malloc(CHUNK);
	int ret = buf ? copy(r, out, io, buf) : -ENOMEM;

	free(buf);
	if (!ret)
		ret = layer_sync(out, io);
	if (!ret)
		ret = layer_put_record(out, io, true);
	return ret ? ret : io->sync(io->arg, out->fd);
}

static int failed(int ret, struct err *err)
{
	if (ret == -ENOSPC || ret == -EDQUOT)
		return err_code(err, ERR_HOST_NO_SPACE, -ret,
				"no space left for a merged disk layer");
	return err_set(err, -ret, "cannot merge disk layers: %s", strerror(-ret));
}

/* Between two requests of the disk. */
static int put_in_place(struct layer_stack *s, const struct run *r, struct layer *out,
			struct err *err)
{
	unsigned after = r->first + r->nr;

	for (unsigned i = 0; i < r->nr; i++)
		if (is_broken(r->l[i]))
			return err_set(err, EIO, "a layer broke while it was merged");
	pthread_rwlock_wrlock(&s->lock);
	s->layer[r->first] = out;
	memmove(s->layer + r->first + 1, s->layer + after,
		(s->nr - after) * sizeof(s->layer[0]));
	s->nr -= r->nr - 1;
	pthread_rwlock_unlock(&s->lock);
	for (unsigned i = 0; i < r->nr; i++)
		layer_close(r->l[i]);
	return 0;
}

int layer_merge(struct layer_stack *s, int out_fd, const struct layer_io *io,
		unsigned *first, unsigned *nr, struct err *err)
{
	struct layer *out;
	struct run r;
	int ret;

	pthread_rwlock_rdlock(&s->lock);
	choose(s, &r);
	pthread_rwlock_unlock(&s->lock);
	*first = r.first + 1;
	*nr = r.nr;
	if (!r.nr)
		return 0;
	out = make_output(&r, out_fd, io, err);
	if (!out)
		return err && err->num ? -err->num : -EIO;
	ret = fill_output(&r, out, io);
	ret = ret ? failed(ret, err) : put_in_place(s, &r, out, err);
	if (ret)
		layer_close(out);
	return ret;
}
