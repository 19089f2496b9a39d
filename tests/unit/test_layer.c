// SPDX-License-Identifier: MIT
/*
 * Copy-on-write layers against a model, under crashes, full disks and damage.
 *
 * Crash tests: every write, punch and sync of a random run goes into a log.  A
 * power loss at step k keeps everything up to the last sync of each file, and of
 * what came after any subset, each write whole, absent or cut at a sector.  The
 * files made from that must open, and each cluster must hold what the last
 * completed flush left, or something written after it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "layer/layer.h"

#define SECTOR	 512u
#define SIZE	 (64u * 4096u)
#define SECTORS	 (SIZE / SECTOR)

static uint64_t rng_state;

static uint32_t rnd(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (rng_state >> 11) % below;
}

static int memfile(void)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int reopen(int fd)
{
	char path[64];
	int copy;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, O_RDWR | O_CLOEXEC);
	assert_true(copy >= 0);
	return copy;
}

/* A base of half the disk's size, each byte telling its sector. */
static int make_base(uint8_t *model)
{
	int fd = memfile();

	for (unsigned i = 0; i < SIZE / 2; i++)
		model[i] = 0x80 | i / SECTOR;
	memset(model + SIZE / 2, 0, SIZE / 2);
	assert_int_equal(io_pwrite_full(fd, model, SIZE / 2, 0), 0);
	return fd;
}

static int rw(struct layer_stack *s, bool write, void *p, size_t len,
	      uint64_t off)
{
	/* in three pieces, to exercise the iovecs */
	size_t a = len / 3, b = len / 2;
	struct iovec iov[] = { { p, a },
			       { (char *)p + a, b - a },
			       { (char *)p + b, len - b } };

	return write ? layer_write(s, iov, 3, off) : layer_read(s, iov, 3, off);
}

static void expect_model(struct layer_stack *s, const uint8_t *model)
{
	static uint8_t got[SIZE];

	assert_int_equal(rw(s, false, got, SIZE, 0), 0);
	if (!memcmp(got, model, SIZE))
		return;
	for (unsigned i = 0; i < SIZE; i++)
		if (got[i] != model[i])
			fail_msg("byte %u is %02x, not %02x", i, got[i], model[i]);
}

struct files {
	int fd[16];
	unsigned nr;
};

static struct layer_stack *open_files(const struct files *f, bool readonly,
				      const struct layer_io *io, struct err *err)
{
	int fd[16];

	for (unsigned i = 0; i < f->nr; i++)
		fd[i] = reopen(f->fd[i]);
	return layer_stack_open(fd, f->nr, 0, readonly, io, err);
}

static void files_close(struct files *f)
{
	for (unsigned i = 0; i < f->nr; i++)
		close(f->fd[i]);
}

static void begin(struct files *f, uint8_t *model)
{
	*f = (struct files){ .nr = 2 };
	f->fd[0] = make_base(model);
	f->fd[1] = memfile();
	assert_int_equal(layer_create(f->fd[1], f->fd[0], true, SIZE, NULL), 0);
}

static void random_range(uint64_t *off, uint64_t *len)
{
	uint32_t first = rnd(SECTORS), n = 1 + rnd(rnd(2) ? 4 : 64);

	if (rnd(2)) {	/* whole clusters */
		first &= ~7u;
		n = (n + 7) & ~7u;
	}
	*off = (uint64_t)first * SECTOR;
	*len = MIN((uint64_t)n * SECTOR, SIZE - *off);
}

/* One random operation on stack and model. */
static void random_op(struct layer_stack *s, struct files *f, uint8_t *model)
{
	static uint8_t data[SIZE];
	uint64_t off, len;
	uint32_t what = rnd(100);

	random_range(&off, &len);
	if (what < 60) {
		memset(data, 1 + rnd(127), len);
		memcpy(model + off, data, len);
		assert_int_equal(rw(s, true, data, len, off), 0);
	} else if (what < 80) {
		memset(model + off, 0, len);
		assert_int_equal(layer_discard(s, off, len), 0);
	} else if (what < 97 || f->nr >= 8) {
		assert_int_equal(layer_flush(s), 0);
	} else {
		f->fd[f->nr] = memfile();
		assert_int_equal(layer_seal(s, reopen(f->fd[f->nr]), NULL), 0);
		f->nr++;
	}
}

static void model_holds(void **state)
{
	static uint8_t model[SIZE];

	for (unsigned seed = 1; seed <= 40; seed++) {
		struct files f;
		struct layer_stack *s;
		struct err err = ERR_INIT;

		rng_state = seed * 0x9e3779b97f4a7c15ull;
		begin(&f, model);
		s = open_files(&f, false, NULL, &err);
		assert_non_null(s);
		for (unsigned i = 0; i < 150; i++) {
			random_op(s, &f, model);
			if (i % 16 == 0)
				expect_model(s, model);
		}
		expect_model(s, model);
		layer_stack_free(s);
		s = open_files(&f, true, NULL, &err);
		if (!s)
			fail_msg("seed %u: %s", seed, err_message(&err));
		assert_int_equal(layer_stack_depth(s), f.nr);
		expect_model(s, model);
		assert_int_equal(rw(s, true, model, SECTOR, 0), -EROFS);
		layer_stack_free(s);
		files_close(&f);
	}
}

/* --- merges ----------------------------------------------------------------- */

/* Merges as a VMM does; the chain of files becomes the new one. */
static unsigned merge(struct layer_stack *s, struct files *f, const struct layer_io *io)
{
	unsigned first, nr;
	int fd = memfile();

	assert_int_equal(layer_merge(s, fd, io, &first, &nr, NULL), 0);
	if (!nr) {
		close(fd);
		return 0;
	}
	assert_true(nr >= 2 && first >= 1 && first + nr < f->nr);
	/* the old files stay open: chains from before are made of them */
	memmove(f->fd + first + 1, f->fd + first + nr,
		(f->nr - first - nr) * sizeof(f->fd[0]));
	f->fd[first] = fd;
	f->nr -= nr - 1;
	assert_int_equal(layer_stack_depth(s), f->nr);
	return nr;
}

/* A chain as a bundle keeps it. */
struct kept {
	struct files f;
	uint8_t model[SIZE];
};

static void expect_chain(const struct files *f, const uint8_t *model)
{
	struct err err = ERR_INIT;
	struct layer_stack *s = open_files(f, true, NULL, &err);

	if (!s)
		fail_msg("%u files: %s", f->nr, err_message(&err));
	expect_model(s, model);
	layer_stack_free(s);
}

/* Snapshots one after the other, with merges between, and everything holds. */
static void merged_is_the_same(void **state)
{
	static uint8_t model[SIZE];
	struct kept *kept = calloc(8, sizeof(*kept));

	for (unsigned seed = 1; seed <= 8; seed++) {
		unsigned nr_kept = 0, merges = 0;
		struct files f;
		struct layer_stack *s;

		rng_state = seed * 0x9e3779b97f4a7c15ull;
		begin(&f, model);
		s = open_files(&f, false, NULL, NULL);
		for (unsigned i = 0; i < 600; i++) {
			unsigned sealed = f.nr;

			random_op(s, &f, model);
			if (f.nr > sealed && nr_kept < 8 && rnd(3) == 0) {
				kept[nr_kept].f = f;
				kept[nr_kept].f.nr--;	/* without the new top */
				memcpy(kept[nr_kept++].model, model, SIZE);
			}
			if (f.nr >= 5 && rnd(2))
				merges += !!merge(s, &f, &layer_plain_io);
			if (i % 16 == 0)
				expect_model(s, model);
		}
		assert_true(merges > 1);
		expect_model(s, model);
		layer_stack_free(s);
		expect_chain(&f, model);
		for (unsigned i = 0; i < nr_kept; i++)
			expect_chain(&kept[i].f, kept[i].model);
		close_range(f.fd[0], ~0u, 0);	/* the old files, too */
	}
	free(kept);
}

/* However often it is sealed: after a merge each layer outweighs those above. */
static void chains_stay_short(void **state)
{
	static uint8_t model[SIZE];
	struct layer_stack *s;
	struct files f;

	rng_state = 77;
	begin(&f, model);
	s = open_files(&f, false, NULL, NULL);
	for (unsigned i = 0; i < 300; i++) {
		for (unsigned k = rnd(4); k--;) {
			uint64_t at = rnd(SIZE / 4096) * 4096ull;

			memset(model + at, i, 4096);
			assert_int_equal(rw(s, true, model + at, 4096, at), 0);
		}
		f.fd[f.nr] = memfile();
		assert_int_equal(layer_seal(s, reopen(f.fd[f.nr]), NULL), 0);
		f.nr++;
		if (f.nr > 8)
			merge(s, &f, &layer_plain_io);
		/* base, top, and at most log2 of 64 clusters between */
		assert_true(f.nr <= 2 + 7);
	}
	expect_model(s, model);
	layer_stack_free(s);
	expect_chain(&f, model);
	close_range(f.fd[0], ~0u, 0);
}

/* --- crashes ---------------------------------------------------------------- */

enum { OP_WRITE, OP_PUNCH, OP_SYNC };

struct op {
	int type, file;
	uint64_t off;
	size_t len;
	uint8_t *data;		/* owned */
};

struct oplog {
	struct op op[4096];
	unsigned nr;
	const struct files *f;
};

/* Descriptors differ from open to open; files are told apart by inode. */
static int file_of(const struct files *f, int fd)
{
	struct stat a, b;

	fstat(fd, &a);
	for (unsigned i = 0; i < f->nr; i++) {
		fstat(f->fd[i], &b);
		if (a.st_ino == b.st_ino)
			return i;
	}
	return f->nr;	/* the one being added */
}

static struct op *log_op(struct oplog *l, int type, int fd, uint64_t off,
			 size_t len)
{
	struct op *o = &l->op[l->nr++];

	assert_true(l->nr < ARRAY_LEN(l->op));
	*o = (struct op){ .type = type, .file = file_of(l->f, fd), .off = off,
			  .len = len };
	return o;
}

static int log_pwritev(void *arg, int fd, const struct iovec *iov, unsigned nr,
		       uint64_t off)
{
	struct op *o = log_op(arg, OP_WRITE, fd, off, 0);

	for (; nr; iov++, nr--) {
		o->data = realloc(o->data, o->len + iov->iov_len);
		memcpy(o->data + o->len, iov->iov_base, iov->iov_len);
		o->len += iov->iov_len;
	}
	assert_int_equal(io_pwrite_full(fd, o->data, o->len, off), 0);
	return 0;
}

static int log_sync(void *arg, int fd)
{
	log_op(arg, OP_SYNC, fd, 0, 0);
	return 0;
}

static int punch(int fd, uint64_t off, uint64_t len)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
			 len) < 0 ? -errno : 0;
}

static int log_punch(void *arg, int fd, uint64_t off, uint64_t len)
{
	log_op(arg, OP_PUNCH, fd, off, len);
	return punch(fd, off, len);
}

static void replay(const struct op *o, int fd, bool torn)
{
	size_t len = o->len;

	if (torn && len > SECTOR)	/* all our writes begin at a sector */
		len = (size_t)rnd(len / SECTOR) * SECTOR;
	if (o->type == OP_WRITE)
		assert_int_equal(io_pwrite_full(fd, o->data, len, o->off), 0);
	else if (o->type == OP_PUNCH && len)
		assert_int_equal(punch(fd, o->off, len), 0);
}

static uint32_t slot_sum(const uint8_t *p)
{
	return crc32_z(crc32_z(0, p + 4, 4), p + 16, 4096 - 16);
}

/* After power loss the host has another boot id. */
static void change_boot(int fd)
{
	uint8_t page[4096];

	for (unsigned slot = 0; slot < 2; slot++) {
		off_t off = 8192 + slot * 4096;
		uint32_t sum;

		assert_int_equal(pread(fd, page, sizeof(page), off), sizeof(page));
		sum = slot_sum(page);
		if (memcmp(page, &sum, 4))
			continue;
		page[24] ^= 0xff;
		sum = slot_sum(page);
		memcpy(page, &sum, 4);
		assert_int_equal(pwrite(fd, page, sizeof(page), off), sizeof(page));
	}
}

/* The files as power loss before op `k` may have left them. */
static void crash(const struct oplog *l, const struct files *f, unsigned k,
		  const unsigned *layer_born, struct files *out)
{
	*out = (struct files){ .nr = 0 };
	for (unsigned i = 0; i < f->nr; i++) {
		unsigned synced = 0;
		struct stat st;

		if (i > 1 && layer_born[i] >= k)
			break;
		out->fd[out->nr++] = memfile();
		fstat(f->fd[i], &st);
		assert_int_equal(ftruncate(out->fd[i], st.st_size), 0);
		for (unsigned n = 0; n < k; n++)
			if (l->op[n].type == OP_SYNC && l->op[n].file == (int)i)
				synced = n;
		for (unsigned n = 0; n < k; n++) {
			const struct op *o = &l->op[n];
			bool loose = n > synced && rnd(3) == 0;

			if (o->file != (int)i)
				continue;
			if (!loose || (o->len > SECTOR && rnd(2)))
				replay(o, out->fd[i], loose);
		}
		if (i)
			change_boot(out->fd[i]);
	}
}

/* What each cluster may hold: since the last flush, all it ever was. */
struct history {
	uint8_t (*state)[SIZE];	/* owned; [0] is the one flushed last */
	unsigned nr;
};

static void check_crash(struct layer_stack *s, const struct history *h,
			unsigned seed, unsigned k)
{
	static uint8_t got[SIZE];

	assert_int_equal(rw(s, false, got, SIZE, 0), 0);
	for (unsigned i = 0; i < SIZE; i += SECTOR) {
		unsigned n = 0;

		while (n < h->nr && memcmp(got + i, h->state[n] + i, SECTOR))
			n++;
		if (n == h->nr)
			fail_msg("seed %u, crash at %u: sector %u holds %02x, "
				 "flushed was %02x", seed, k, i / SECTOR, got[i],
				 h->state[0][i]);
	}
}

/* Recorded at each operation of the run. */
struct moment {
	unsigned op;		/* log length when the operation had returned */
	bool flushed;
	uint8_t model[SIZE];
};

static void one_crash(const struct oplog *l, const struct files *f,
		      const unsigned *born, const struct moment *m, unsigned nr,
		      unsigned k, unsigned seed)
{
	struct history h = { .state = calloc(nr + 1, SIZE) };
	struct files after;
	struct layer_stack *s;
	struct err err = ERR_INIT;
	unsigned i, last = 0;

	for (i = 0; i < nr && m[i].op <= k; i++)
		if (m[i].flushed)
			last = i;
	/* states from the last flush on, including the operation under way */
	for (i = last; i < nr && (i == 0 || m[i - 1].op <= k); i++)
		memcpy(h.state[h.nr++], m[i].model, SIZE);
	crash(l, f, k, born, &after);
	s = open_files(&after, false, NULL, &err);
	if (!s)
		fail_msg("seed %u, crash at %u: %s", seed, k, err_message(&err));
	check_crash(s, &h, seed, k);
	/* and it goes on: written, flushed and found again */
	assert_int_equal(rw(s, true, h.state[0], SIZE, 0), 0);
	assert_int_equal(layer_flush(s), 0);
	layer_stack_free(s);
	s = open_files(&after, true, NULL, &err);
	assert_non_null(s);
	expect_model(s, h.state[0]);
	layer_stack_free(s);
	files_close(&after);
	free(h.state);
}

static void crash_run(unsigned seed, unsigned nr_ops)
{
	static struct oplog l;
	static uint8_t model[SIZE];
	struct moment *m = calloc(nr_ops + 1, sizeof(*m));
	struct layer_io io = { log_pwritev, log_sync, log_punch, &l };
	unsigned born[16] = { 0 };
	struct layer_stack *s;
	struct files f;

	rng_state = seed * 0x9e3779b97f4a7c15ull;
	begin(&f, model);
	l = (struct oplog){ .f = &f };
	/* what creation wrote is there: nothing is promised before a flush */
	for (unsigned i = 0; i < 2; i++) {
		struct op *o = log_op(&l, OP_WRITE, f.fd[i], 0, i ? 4096 : SIZE / 2);

		o->data = malloc(o->len);
		assert_int_equal(io_pread_full(f.fd[i], o->data, o->len, 0), o->len);
		log_op(&l, OP_SYNC, f.fd[i], 0, 0);
	}
	s = open_files(&f, false, &io, NULL);
	assert_non_null(s);
	m[0] = (struct moment){ .op = l.nr, .flushed = true };
	memcpy(m[0].model, model, SIZE);
	for (unsigned i = 1; i <= nr_ops; i++) {
		unsigned before = l.nr, layers = f.nr;

		random_op(s, &f, model);
		m[i].op = l.nr;
		m[i].flushed = l.nr > before && l.op[l.nr - 1].type == OP_SYNC;
		memcpy(m[i].model, model, SIZE);
		if (f.nr > layers) {
			/* the caller of seal syncs the new file's header */
			born[layers] = l.nr;
			log_op(&l, OP_SYNC, f.fd[layers], 0, 0);
		}
	}
	for (unsigned k = 4; k <= l.nr; k++)
		one_crash(&l, &f, born, m, nr_ops + 1, k, seed);
	layer_stack_free(s);
	files_close(&f);
	for (unsigned i = 0; i < l.nr; i++)
		free(l.op[i].data);
	free(m);
}

static void crashes_keep_what_was_flushed(void **state)
{
	for (unsigned seed = 1; seed <= 12; seed++)
		crash_run(seed, 40);
}

/* Sealed layers of different content, each part of them flushed or not. */
static struct layer_stack *deep_stack(struct files *f, uint8_t *model, unsigned layers)
{
	struct layer_stack *s;

	begin(f, model);
	s = open_files(f, false, NULL, NULL);
	while (f->nr < 2 + layers) {
		for (unsigned i = 0; i < 12; i++)
			random_op(s, f, model);
		f->fd[f->nr] = memfile();
		assert_int_equal(layer_seal(s, reopen(f->fd[f->nr]), NULL), 0);
		f->nr++;
	}
	return s;
}

/*
 * A merge writes to its own file alone, so whenever a crash comes the old chain is
 * whole; and once it is in place, what was synced of it is all there is to it.
 */
static void crashes_in_a_merge(void **state)
{
	static struct oplog l;
	static uint8_t model[SIZE];
	struct layer_io io = { log_pwritev, log_sync, log_punch, &l };

	for (unsigned seed = 1; seed <= 10; seed++) {
		unsigned first, nr, synced = 0;
		int fd = memfile(), after = memfile();
		struct layer_stack *s;
		struct files f;
		struct stat st;

		rng_state = seed * 0x9e3779b97f4a7c15ull;
		s = deep_stack(&f, model, 5);
		l = (struct oplog){ .f = &f };
		assert_int_equal(layer_merge(s, fd, &io, &first, &nr, NULL), 0);
		assert_true(nr);
		fstat(fd, &st);
		assert_int_equal(ftruncate(after, st.st_size), 0);
		for (unsigned i = 0; i < l.nr; i++) {
			assert_int_equal(l.op[i].file, f.nr);
			synced = l.op[i].type == OP_SYNC ? i : synced;
		}
		for (unsigned i = 0; i < l.nr; i++) {
			if (i < synced)
				replay(&l.op[i], after, false);
			free(l.op[i].data);
		}
		change_boot(after);
		layer_stack_free(s);
		expect_chain(&f, model);
		f.fd[first] = after;
		memmove(f.fd + first + 1, f.fd + first + nr,
			(f.nr - first - nr) * sizeof(f.fd[0]));
		f.nr -= nr - 1;
		expect_chain(&f, model);
		close_range(f.fd[0], ~0u, 0);
	}
}

/* --- full disks -------------------------------------------------------------- */

struct quota {
	int left;
};

static int quota_pwritev(void *arg, int fd, const struct iovec *iov, unsigned nr,
			 uint64_t off)
{
	struct quota *q = arg;

	if (q->left-- <= 0) {
		/* half of it fits */
		io_pwrite_full(fd, iov->iov_base, iov->iov_len / 2, off);
		return -ENOSPC;
	}
	return pwritev(fd, iov, nr, off) < 0 ? -errno : 0;
}

static int quota_sync(void *arg, int fd)
{
	return 0;
}

static int quota_punch(void *arg, int fd, uint64_t off, uint64_t len)
{
	return punch(fd, off, len);
}

static void full_disk_leaves_a_good_layer(void **state)
{
	static uint8_t model[SIZE], data[SIZE];

	for (int allowed = 0; allowed < 30; allowed++) {
		struct quota q = { allowed };
		struct layer_io io = { quota_pwritev, quota_sync, quota_punch, &q };
		struct layer_stack *s;
		struct files f;
		bool hit = false;

		rng_state = 99 + allowed;
		begin(&f, model);
		s = open_files(&f, false, &io, NULL);
		for (unsigned i = 0; i < 40; i++) {
			uint64_t off, len;
			int ret;

			random_range(&off, &len);
			off &= ~4095ull;
			len = 4096;
			memset(data, 1 + i, len);
			ret = rw(s, true, data, len, off);
			hit |= ret == -ENOSPC;
			if (!ret)
				memcpy(model + off, data, len);
			else if (model[off] < 0x80 && model[off])
				memset(model + off, 0xff, len); /* overwrite: unknown */
			ret = i % 8 == 7 ? layer_flush(s) : 0;
			hit |= ret == -ENOSPC;
		}
		assert_true(hit);
		q.left = 1000000;	/* space again */
		for (unsigned off = 0; off < SIZE; off += 4096)
			if (model[off] == 0xff)
				assert_int_equal(rw(s, true, model + off, 4096,
						    off), 0);
		assert_int_equal(layer_flush(s), 0);
		expect_model(s, model);
		layer_stack_free(s);
		s = open_files(&f, true, NULL, NULL);
		assert_non_null(s);
		expect_model(s, model);
		layer_stack_free(s);
		files_close(&f);
	}
}

struct flaky {
	int left;		/* as struct quota */
	bool fail;
};

static int flaky_sync(void *arg, int fd)
{
	return ((struct flaky *)arg)->fail ? -EIO : 0;
}

static void failed_sync_is_never_forgotten(void **state)
{
	static uint8_t model[SIZE];
	struct flaky fl = { 1000000, true };
	struct layer_io io = { quota_pwritev, flaky_sync, quota_punch, &fl };
	struct layer_stack *s;
	struct files f;

	begin(&f, model);
	s = open_files(&f, false, &io, NULL);
	assert_non_null(s);
	assert_int_equal(rw(s, true, model, 4096, 0), 0);
	assert_int_equal(layer_flush(s), -EIO);
	fl.fail = false;
	assert_int_equal(layer_flush(s), -EIO);
	layer_stack_free(s);
	files_close(&f);
}

static void failed_merges_change_nothing(void **state)
{
	static uint8_t model[SIZE];
	struct flaky fl = { 0, false };
	struct layer_io io = { quota_pwritev, flaky_sync, quota_punch, &fl };
	struct layer_stack *s;
	struct files f;
	int ret = -1;

	rng_state = 5;
	s = deep_stack(&f, model, 5);
	for (int allowed = 0; ret; allowed++) {
		struct err err = ERR_INIT;
		unsigned first, nr;
		int fd = memfile();

		fl.left = allowed;
		ret = layer_merge(s, fd, &io, &first, &nr, &err);
		close(fd);
		if (!ret)
			break;
		assert_int_equal(ret, -ENOSPC);
		assert_int_equal(err.code, ERR_HOST_NO_SPACE);
		assert_int_equal(layer_stack_depth(s), f.nr);
		expect_model(s, model);
		fl = (struct flaky){ 1000000, true };
		fd = memfile();
		assert_int_equal(layer_merge(s, fd, &io, &first, &nr, NULL), -EIO);
		close(fd);
		assert_int_equal(layer_stack_depth(s), f.nr);
		fl.fail = false;
	}
	assert_true(layer_stack_depth(s) < f.nr);
	expect_model(s, model);
	layer_stack_free(s);
	files_close(&f);
}

/* --- damage ------------------------------------------------------------------ */

static bool survives(const struct files *f, const uint8_t *model)
{
	struct err err = ERR_INIT;
	struct layer_stack *s = open_files(f, true, NULL, &err);

	if (s)
		expect_model(s, model);
	else
		assert_int_equal(err.num, EBADMSG);
	layer_stack_free(s);
	return s != NULL;
}

/* One bit of header, record or map of a layer at rest. */
static void damage_is_noticed(void **state)
{
	static uint8_t model[SIZE];
	struct layer_stack *s;
	struct files f;
	unsigned refused = 0;

	rng_state = 5;
	begin(&f, model);
	s = open_files(&f, false, NULL, NULL);
	for (unsigned i = 0; i < 60; i++)
		random_op(s, &f, model);
	layer_stack_free(s);
	for (unsigned off = 0; off < 16384; off += 1 + rnd(8)) {
		uint8_t was, byte;

		assert_int_equal(pread(f.fd[1], &was, 1, off), 1);
		byte = was ^ 1 << rnd(8);
		assert_int_equal(pwrite(f.fd[1], &byte, 1, off), 1);
		refused += !survives(&f, model);
		assert_int_equal(pwrite(f.fd[1], &was, 1, off), 1);
	}
	assert_true(refused > 500);
	assert_true(survives(&f, model));
	files_close(&f);
}

static void cut_files_are_refused(void **state)
{
	static uint8_t model[SIZE];
	struct stat st;
	struct files f;

	begin(&f, model);
	fstat(f.fd[1], &st);
	for (off_t len = st.st_size - 1; len >= 0; len -= 1 + rnd(9000)) {
		assert_int_equal(ftruncate(f.fd[1], len), 0);
		assert_false(survives(&f, model));
	}
	files_close(&f);
}

/* Random bytes anywhere, with sums made right where that is easy. */
static void mutations_never_crash(void **state)
{
	static uint8_t model[SIZE], head[16384], good[16384];
	struct layer_stack *s;
	struct files f;

	begin(&f, model);
	s = open_files(&f, false, NULL, NULL);
	assert_int_equal(rw(s, true, model, SIZE, 0), 0);
	layer_stack_free(s);
	assert_int_equal(pread(f.fd[1], good, sizeof(good), 0), sizeof(good));
	for (unsigned i = 0; i < 3000; i++) {
		rng_state = i + 1;
		memcpy(head, good, sizeof(head));
		for (unsigned n = 1 + rnd(4); n; n--)
			head[rnd(rnd(2) ? 128 : sizeof(head))] = rnd(256);
		if (rnd(2)) {
			uint32_t sum = crc32_z(0, head, 96);

			memcpy(head + 96, &sum, 4);
		}
		assert_int_equal(pwrite(f.fd[1], head, sizeof(head), 0),
				 sizeof(head));
		s = open_files(&f, true, NULL, NULL);
		if (s && layer_stack_size(s) >= SIZE)
			assert_int_equal(rw(s, false, head, sizeof(head), 0), 0);
		layer_stack_free(s);
	}
	files_close(&f);
}

static void foreign_parents_are_refused(void **state)
{
	static uint8_t model[SIZE];
	struct err err = ERR_INIT;
	struct files f, other;
	uint8_t byte = 1;

	begin(&f, model);
	begin(&other, model);
	f.fd[2] = memfile();
	assert_int_equal(layer_create(f.fd[2], other.fd[1], false, 0, NULL), 0);
	f.nr = 3;
	assert_null(open_files(&f, true, NULL, &err));
	assert_int_equal(err.num, EBADMSG);
	f.nr = 2;
	assert_true(survives(&f, model));
	assert_int_equal(pwrite(f.fd[0], &byte, 1, 100), 1);
	assert_false(survives(&f, model));
	close(f.fd[2]);
	files_close(&f);
	files_close(&other);
}

/* --- the rest ---------------------------------------------------------------- */

static void discard_gives_space_back(void **state)
{
	static uint8_t data[SIZE];
	struct layer_stack *s;
	struct stat before, after;
	struct files f;

	begin(&f, data);
	s = open_files(&f, false, NULL, NULL);
	memset(data, 1, SIZE);
	assert_int_equal(rw(s, true, data, SIZE, 0), 0);
	assert_int_equal(layer_flush(s), 0);
	fstat(f.fd[1], &before);
	assert_int_equal(layer_discard(s, 0, SIZE), 0);
	assert_int_equal(layer_flush(s), 0);
	fstat(f.fd[1], &after);
	assert_true(before.st_blocks - after.st_blocks >= SIZE / 512 - 16);	/* but a map page */
	layer_stack_free(s);
	files_close(&f);
}

static void layers_can_be_larger_than_below(void **state)
{
	static uint8_t model[SIZE], data[4096];
	struct layer_stack *s;
	struct files f;

	begin(&f, model);
	f.fd[2] = memfile();
	assert_int_equal(layer_create(f.fd[2], f.fd[1], false, 4 * GIB, NULL), 0);
	f.nr = 3;
	s = open_files(&f, false, NULL, NULL);
	assert_true(layer_stack_size(s) == 4 * GIB);
	memset(data, 0x55, sizeof(data));
	assert_int_equal(rw(s, true, data, 4096, 4 * GIB - 4096), 0);
	assert_int_equal(rw(s, true, data, 4096, 4 * GIB - 2048), -EINVAL);
	layer_stack_free(s);
	s = open_files(&f, true, NULL, NULL);
	memset(data, 0, sizeof(data));
	assert_int_equal(rw(s, false, data, 4096, 4 * GIB - 4096), 0);
	assert_int_equal(data[4095], 0x55);
	assert_int_equal(rw(s, false, data, 4096, GIB), 0);
	assert_int_equal(data[0], 0);
	expect_model(s, model);
	layer_stack_free(s);
	files_close(&f);
}

struct worker {
	struct layer_stack *s;
	unsigned me;
};

/* Each thread owns every fourth sector: they meet in all clusters. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t data[SECTOR];
	struct iovec iov = { data, SECTOR };

	for (unsigned round = 0; round < 8; round++)
		for (unsigned i = w->me; i < SECTORS; i += 4) {
			memset(data, 1 + round * 4 + w->me, SECTOR);
			if (layer_write(w->s, &iov, 1, (uint64_t)i * SECTOR))
				return w;
			if (i % 64 == w->me && layer_flush(w->s))
				return w;
		}
	return NULL;
}

static void threads_share_clusters(void **state)
{
	static uint8_t model[SIZE];
	struct worker w[4];
	pthread_t t[4];
	struct files f;
	struct layer_stack *s;
	void *bad;

	begin(&f, model);
	s = open_files(&f, false, NULL, NULL);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){ s, i };
		pthread_create(&t[i], NULL, work, &w[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	for (unsigned i = 0; i < SIZE; i++)
		model[i] = 1 + 7 * 4 + i / SECTOR % 4;
	expect_model(s, model);
	layer_stack_free(s);
	s = open_files(&f, true, NULL, NULL);
	expect_model(s, model);
	layer_stack_free(s);
	files_close(&f);
}

/* The disk is in use while it is merged. */
static void merges_beside_writers(void **state)
{
	static uint8_t model[SIZE];
	struct worker w[4];
	pthread_t t[4];
	struct files f;
	struct layer_stack *s;
	void *bad;

	rng_state = 3;
	s = deep_stack(&f, model, 6);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){ s, i };
		pthread_create(&t[i], NULL, work, &w[i]);
	}
	assert_true(merge(s, &f, &layer_plain_io));
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	for (unsigned i = 0; i < SIZE; i++)
		model[i] = 1 + 7 * 4 + i / SECTOR % 4;
	expect_model(s, model);
	layer_stack_free(s);
	expect_chain(&f, model);
	close_range(f.fd[0], ~0u, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(model_holds),
		cmocka_unit_test(merged_is_the_same),
		cmocka_unit_test(chains_stay_short),
		cmocka_unit_test(crashes_keep_what_was_flushed),
		cmocka_unit_test(crashes_in_a_merge),
		cmocka_unit_test(full_disk_leaves_a_good_layer),
		cmocka_unit_test(failed_merges_change_nothing),
		cmocka_unit_test(failed_sync_is_never_forgotten),
		cmocka_unit_test(damage_is_noticed),
		cmocka_unit_test(cut_files_are_refused),
		cmocka_unit_test(mutations_never_crash),
		cmocka_unit_test(foreign_parents_are_refused),
		cmocka_unit_test(discard_gives_space_back),
		cmocka_unit_test(layers_can_be_larger_than_below),
		cmocka_unit_test(threads_share_clusters),
		cmocka_unit_test(merges_beside_writers),
	};

	return cmocka_run_group_tests_name("layer", tests, NULL, NULL);
}
