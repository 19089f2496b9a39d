// SPDX-License-Identifier: MIT
/*
 * stack.c - a raw base with layers on it, as one disk.
 *
 * Reading: each cluster comes from the topmost layer that has it, else from
 * the base; neighbours from the same file are read at once.  Writing: whole
 * clusters go to the top layer in one call, then their bits are set.  A write of
 * part of a cluster that the top does not have yet first copies it up, under a
 * lock, since two threads may write two sectors of one cluster.
 *
 * Discarding sets bits over holes: "here, and zero".  The hole is punched even
 * where no data is expected, for a crash may have left data there that no bit
 * speaks of.  Where nothing lies below, bits are cleared instead.
 */
#include "layer/stack.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define IOV_MAX_PART 256u
#define NOBODY	     (-1)	/* owner of clusters that are nowhere: zero */
#define BASE	     0

/* A place in somebody's iovecs. */
struct cursor {
	const struct iovec *iov;
	unsigned nr;
	size_t skip;		/* into iov[0] */
};

static struct layer *top(const struct layer_stack *s)
{
	return s->layer[s->nr - 1];
}

/* Takes at most len bytes off c as iovecs; returns how many bytes those are. */
static size_t take(struct cursor *c, uint64_t len, struct iovec *out,
		   unsigned *nr)
{
	size_t total = 0;

	for (*nr = 0; len && c->nr && *nr < IOV_MAX_PART;) {
		size_t n = MIN(c->iov->iov_len - c->skip, len);

		if (n)
			out[(*nr)++] = (struct iovec){
				(char *)c->iov->iov_base + c->skip, n };
		c->skip += n;
		total += n;
		len -= n;
		if (c->skip == c->iov->iov_len) {
			c->iov++;
			c->nr--;
			c->skip = 0;
		}
	}
	return total;
}

/* Which layer holds a cluster: its number + 1, BASE or NOBODY. */
static int owner(const struct layer_stack *s, uint64_t cluster)
{
	for (unsigned i = s->nr; i--;)
		if (layer_has(s->layer[i], cluster))
			return i + 1;
	return cluster * LAYER_CLUSTER < s->base_size ? BASE : NOBODY;
}

/* Fills iovecs from a file; past its end with zeroes. */
static int read_file(int fd, const struct iovec *iov, unsigned nr, uint64_t off)
{
	for (; nr; iov++, nr--) {
		ssize_t n = io_pread_full(fd, iov->iov_base, iov->iov_len, off);

		if (n < 0)
			return n;
		memset((char *)iov->iov_base + n, 0, iov->iov_len - n);
		off += iov->iov_len;
	}
	return 0;
}

static int read_run(struct layer_stack *s, int who, const struct iovec *iov,
		    unsigned nr, uint64_t off)
{
	const struct layer *l;

	if (who == BASE)
		return read_file(s->base, iov, nr, off);
	if (who == NOBODY) {
		for (; nr; iov++, nr--)
			memset(iov->iov_base, 0, iov->iov_len);
		return 0;
	}
	l = s->layer[who - 1];
	return read_file(l->fd, iov, nr, l->h.data_off + off);
}

static int read_cursor(struct layer_stack *s, struct cursor *c, uint64_t off,
		       uint64_t len)
{
	while (len) {
		uint64_t cluster = off / LAYER_CLUSTER;
		uint64_t run = LAYER_CLUSTER - off % LAYER_CLUSTER;
		int who = owner(s, cluster), ret;

		while (run < len && owner(s, ++cluster) == who)
			run += LAYER_CLUSTER;
		run = MIN(run, len);
		off += run;
		len -= run;
		while (run) {
			struct iovec part[IOV_MAX_PART];
			unsigned nr;
			size_t n = take(c, run, part, &nr);

			ret = n ? read_run(s, who, part, nr, off - run) : -EINVAL;
			if (ret)
				return ret;
			run -= n;
		}
	}
	return 0;
}

static uint64_t iov_bytes(const struct iovec *iov, unsigned nr)
{
	uint64_t sum = 0;

	for (; nr; iov++, nr--)
		sum += iov->iov_len;
	return sum;
}

static bool inside(const struct layer_stack *s, uint64_t off, uint64_t len)
{
	return off <= s->size && len <= s->size - off;
}

int layer_read(struct layer_stack *s, const struct iovec *iov, unsigned nr,
	       uint64_t off)
{
	struct cursor c = { .iov = iov, .nr = nr };
	uint64_t len = iov_bytes(iov, nr);
	int ret;

	if (!inside(s, off, len))
		return -EINVAL;
	pthread_rwlock_rdlock(&s->lock);
	ret = read_cursor(s, &c, off, len);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

static int put_top(struct layer_stack *s, struct cursor *c, uint64_t off,
		   uint64_t len)
{
	struct layer *l = top(s);

	while (len) {
		struct iovec part[IOV_MAX_PART];
		unsigned nr;
		size_t n = take(c, len, part, &nr);
		int ret = n ? s->io.pwritev(s->io.arg, l->fd, part, nr,
					    l->h.data_off + off) : -EINVAL;

		if (ret)
			return ret;
		off += n;
		len -= n;
	}
	return 0;
}

/* Part of one cluster that the top does not have: all of it is written. */
static int copy_up(struct layer_stack *s, struct cursor *c, uint64_t off,
		   uint64_t len)
{
	uint64_t start = ALIGN_DOWN(off, LAYER_CLUSTER), done = 0;
	uint8_t data[LAYER_CLUSTER];
	struct iovec iov = { data, sizeof(data) }, part[IOV_MAX_PART];
	struct cursor whole = { .iov = &iov, .nr = 1 };
	int ret = read_cursor(s, &whole, start, sizeof(data));

	while (!ret && done < len) {
		unsigned nr;
		size_t n = take(c, len - done, part, &nr);

		for (unsigned i = 0; i < nr; i++) {
			memcpy(data + (off - start) + done, part[i].iov_base,
			       part[i].iov_len);
			done += part[i].iov_len;
		}
		if (!n)
			ret = -EINVAL;
	}
	whole = (struct cursor){ .iov = &iov, .nr = 1 };
	return ret ? ret : put_top(s, &whole, start, sizeof(data));
}

static int write_part(struct layer_stack *s, struct cursor *c, uint64_t off,
		      uint64_t len)
{
	uint64_t cluster = off / LAYER_CLUSTER;
	int ret;

	if (layer_has(top(s), cluster))
		return put_top(s, c, off, len);
	pthread_mutex_lock(&s->fill);
	if (layer_has(top(s), cluster)) {
		ret = put_top(s, c, off, len);
	} else {
		ret = copy_up(s, c, off, len);
		if (!ret)
			layer_mark(top(s), cluster, 1, true);
	}
	pthread_mutex_unlock(&s->fill);
	return ret;
}

static int write_whole(struct layer_stack *s, struct cursor *c, uint64_t off,
		       uint64_t len)
{
	int ret = put_top(s, c, off, len);

	if (!ret)
		layer_mark(top(s), off / LAYER_CLUSTER, len / LAYER_CLUSTER,
			   true);
	return ret;
}

/* Cuts [off, off + len) at its next boundary between whole clusters and parts. */
static uint64_t piece(uint64_t off, uint64_t len, bool *whole)
{
	uint64_t head = LAYER_CLUSTER - off % LAYER_CLUSTER;

	*whole = head == LAYER_CLUSTER && len >= LAYER_CLUSTER;
	return *whole ? ALIGN_DOWN(len, LAYER_CLUSTER) : MIN(head, len);
}

static int write_cursor(struct layer_stack *s, struct cursor *c, uint64_t off,
			uint64_t len)
{
	int ret = 0;

	while (!ret && len) {
		bool whole;
		uint64_t n = piece(off, len, &whole);

		ret = whole ? write_whole(s, c, off, n) :
			      write_part(s, c, off, n);
		off += n;
		len -= n;
	}
	/* data in the file is to be synced even where no bit changed */
	__atomic_store_n(&top(s)->unsynced, true, __ATOMIC_SEQ_CST);
	return ret;
}

int layer_write(struct layer_stack *s, const struct iovec *iov, unsigned nr,
		uint64_t off)
{
	struct cursor c = { .iov = iov, .nr = nr };
	uint64_t len = iov_bytes(iov, nr);
	int ret;

	if (s->readonly)
		return -EROFS;
	if (!inside(s, off, len))
		return -EINVAL;
	pthread_rwlock_rdlock(&s->lock);
	ret = write_cursor(s, &c, off, len);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

static int write_zero(struct layer_stack *s, uint64_t off, uint64_t len)
{
	static const uint8_t zero[LAYER_CLUSTER];
	struct iovec iov = { (void *)(uintptr_t)zero, len };
	struct cursor c = { .iov = &iov, .nr = 1 };

	return len == LAYER_CLUSTER ? write_whole(s, &c, off, len) :
				      write_part(s, &c, off, len);
}

static bool covered_below(const struct layer_stack *s, uint64_t cluster)
{
	for (unsigned i = s->nr - 1; i--;)
		if (layer_has(s->layer[i], cluster))
			return true;
	return cluster * LAYER_CLUSTER < s->base_size;
}

static int discard_whole(struct layer_stack *s, uint64_t off, uint64_t len)
{
	struct layer *l = top(s);
	uint64_t end = (off + len) / LAYER_CLUSTER;
	int ret = s->io.punch(s->io.arg, l->fd, l->h.data_off + off, len);

	if (ret == -EOPNOTSUPP) {
		for (uint64_t at = 0; at < len; at += LAYER_CLUSTER) {
			ret = write_zero(s, off + at, LAYER_CLUSTER);
			if (ret)
				return ret;
		}
		return 0;
	}
	if (ret)
		return ret;
	for (uint64_t c = off / LAYER_CLUSTER, n; c < end; c += n) {
		bool below = covered_below(s, c);

		for (n = 1; c + n < end && covered_below(s, c + n) == below; n++)
			;
		layer_mark(l, c, n, below);
	}
	return 0;
}

int layer_discard(struct layer_stack *s, uint64_t off, uint64_t len)
{
	int ret = 0;

	if (s->readonly)
		return -EROFS;
	if (!inside(s, off, len))
		return -EINVAL;
	pthread_rwlock_rdlock(&s->lock);
	while (!ret && len) {
		bool whole;
		uint64_t n = piece(off, len, &whole);

		ret = whole ? discard_whole(s, off, n) : write_zero(s, off, n);
		off += n;
		len -= n;
	}
	__atomic_store_n(&top(s)->unsynced, true, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

/* Sealed layers, too: what was sealed since the last flush. */
int layer_flush(struct layer_stack *s)
{
	int ret = 0;

	if (s->readonly)
		return 0;
	pthread_rwlock_rdlock(&s->lock);
	for (unsigned i = 0; i < s->nr && !ret; i++) {
		struct layer *l = s->layer[i];

		if (i < s->nr - 1 && l->sealed)
			continue;
		ret = layer_sync(l, &s->io);
		if (!ret && i < s->nr - 1)
			ret = layer_put_record(l, &s->io, true);
	}
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

int layer_write_header(int fd, struct fmt_header *h, const struct layer_io *io,
		       struct err *err)
{
	uint8_t page[FMT_PAGE];
	struct iovec iov = { page, sizeof(page) };
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0 || st.st_size)
		return err_set(err, EEXIST, "a new disk layer needs an empty file");
	if (fmt_derive(h))
		return err_set(err, EINVAL, "a disk layer of %llu bytes",
			       (unsigned long long)h->size);
	fmt_header_print(h, page);
	if (ftruncate(fd, h->data_off + h->clusters * LAYER_CLUSTER) < 0)
		ret = -errno;
	else
		ret = io->pwritev(io->arg, fd, &iov, 1, 0);
	if (ret == -ENOSPC || ret == -EDQUOT)
		return err_code(err, ERR_HOST_NO_SPACE, -ret,
				"no space left for a disk layer");
	return ret ? err_set(err, -ret, "cannot write a disk layer: %s",
			     strerror(-ret)) : 0;
}

/* The header of a layer that is nobody's stand-in. */
static int write_new_header(int fd, struct fmt_header *h, const struct layer_io *io,
			    struct err *err)
{
	if (getrandom(h->uuid, sizeof(h->uuid), 0) != sizeof(h->uuid))
		return err_set(err, EIO, "no random bytes");
	return layer_write_header(fd, h, io, err);
}

int layer_create(int fd, int parent_fd, bool parent_is_raw, uint64_t size,
		 struct err *err)
{
	struct fmt_header h = { .parent = parent_is_raw ? FMT_PARENT_RAW :
							  FMT_PARENT_LAYER };
	struct fmt_header parent;
	int ret;

	if (parent_is_raw) {
		ret = fmt_raw_id(parent_fd, h.parent_id, &h.size, err);
	} else {
		ret = fmt_header_read(&parent, parent_fd, err);
		memcpy(h.parent_id, parent.uuid, 16);
		h.size = parent.size;
	}
	if (size)
		h.size = size;
	return ret ? ret : write_new_header(fd, &h, &layer_plain_io, err);
}

/* Each layer must lie on the very file it was made over. */
static int check_parents(struct layer_stack *s, struct err *err)
{
	uint8_t id[16];
	int ret = fmt_raw_id(s->base, id, &s->base_size, err);

	for (unsigned i = 0; i < s->nr && !ret; i++) {
		const struct fmt_header *h = &s->layer[i]->h;

		if (h->parent != (i ? FMT_PARENT_LAYER : FMT_PARENT_RAW) ||
		    memcmp(h->parent_id, id, 16))
			return err_set(err, EBADMSG, "disk layer %u was made "
				       "over another %s", i + 1,
				       i ? "layer" : "base disk");
		memcpy(id, h->uuid, 16);
	}
	return ret;
}

static int open_layers(struct layer_stack *s, const int *fd, unsigned nr,
		       struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < nr; i++) {
		struct layer *l;

		if (ret) {
			io_close(fd[i]);
			continue;
		}
		l = layer_open(fd[i], err);
		if (l)
			s->layer[s->nr++] = l;
		else
			ret = err ? -err->num : -EBADMSG;
	}
	return ret;
}

static int check_stack(struct layer_stack *s, uint64_t size, struct err *err)
{
	int ret = check_parents(s, err);

	if (ret)
		return ret;
	s->size = size ? size : top(s)->h.size;
	if (s->size > top(s)->h.size || s->size % 512)
		return err_set(err, EINVAL, "the disk is larger than its layer");
	if (!s->readonly && top(s)->sealed)
		return err_set(err, EROFS, "the top disk layer is sealed");
	return 0;
}

struct layer_stack *layer_stack_open(const int *fd, unsigned nr, uint64_t size,
				     bool readonly, const struct layer_io *io,
				     struct err *err)
{
	struct layer_stack *s = calloc(1, sizeof(*s));
	struct err local = ERR_INIT;
	int ret;

	if (!s || nr < 2 || nr > LAYER_MAX_DEPTH) {
		for (unsigned i = 0; i < nr; i++)
			io_close(fd[i]);
		free(s);
		err_set(err, EINVAL, "a stack of %u disk layers", nr);
		return NULL;
	}
	if (!err)
		err = &local;
	s->base = fd[0];
	s->io = io ? *io : layer_plain_io;
	s->readonly = true;	/* until it is known to be good */
	pthread_rwlock_init(&s->lock, NULL);
	pthread_mutex_init(&s->fill, NULL);
	ret = open_layers(s, fd + 1, nr - 1, err);
	if (!ret) {
		s->readonly = readonly;
		ret = check_stack(s, size, err);
	}
	if (ret) {
		s->readonly = true;
		layer_stack_free(s);
		return NULL;
	}
	return s;
}

void layer_stack_free(struct layer_stack *s)
{
	if (!s)
		return;
	if (!s->readonly && !layer_flush(s))
		layer_put_record(top(s), &s->io, false);
	for (unsigned i = 0; i < s->nr; i++)
		layer_close(s->layer[i]);
	io_close(s->base);
	pthread_rwlock_destroy(&s->lock);
	pthread_mutex_destroy(&s->fill);
	free(s);
}

uint64_t layer_stack_size(const struct layer_stack *s)
{
	return s->size;
}

unsigned layer_stack_depth(const struct layer_stack *s)
{
	return s->nr + 1;
}

/* Opens a fresh layer over the top from the file just made. */
static struct layer *begin_layer(struct layer_stack *s, int fd, struct err *err)
{
	struct fmt_header h = { .size = s->size, .parent = FMT_PARENT_LAYER };
	int copy;

	memcpy(h.parent_id, top(s)->h.uuid, 16);
	if (write_new_header(fd, &h, &s->io, err))
		return NULL;
	/* layer_open() closes what it is given when it fails; fd stays the
	 * caller's then */
	copy = dup(fd);
	if (copy < 0) {
		err_set(err, errno, "cannot open the new disk layer");
		return NULL;
	}
	return layer_open(copy, err);
}

int layer_seal(struct layer_stack *s, int new_fd, struct err *err)
{
	struct err local = ERR_INIT;
	struct layer *l;
	int ret;

	if (s->readonly || s->nr + 1 >= LAYER_MAX_DEPTH)
		return err_set(err, EMLINK, "no further disk layer is possible");
	if (!err)
		err = &local;
	l = begin_layer(s, new_fd, err);
	if (!l)
		return -err->num;
	pthread_rwlock_wrlock(&s->lock);
	ret = layer_publish(top(s), &s->io);
	if (!ret) {
		top(s)->unsynced = true;	/* its record is to be written */
		l->unsynced = true;		/* its header, too */
		s->layer[s->nr++] = l;
	}
	pthread_rwlock_unlock(&s->lock);
	if (ret) {
		layer_close(l);
		return err_set(err, -ret, "cannot seal the disk layer: %s",
			       strerror(-ret));
	}
	io_close(new_fd);
	return 0;
}
