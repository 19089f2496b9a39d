// SPDX-License-Identifier: MIT
/* virtio-blk over a raw file, and over a disk of our own that fails on demand. */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/vdriver.h"
#include "vmm/dev/blk.h"
#include "vmm/dev/devices.h"
#include "vmm/disk/disk.h"
#include "vmm/state.h"

#define DISK_BYTES (1u << 20)
enum { IN, OUT, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK, IOERR, UNSUPP };

struct ctx {
	struct vdriver d;
	int fd;			/* borrowed: the raw disk's, or -1 */
	gpa_t head, data, status;
};

/* A disk that counts, fails, and can be held. */
struct fake {
	struct disk disk;
	_Atomic int error;
	_Atomic unsigned flushes, writes;
	sem_t gate;		/* taken: reads wait */
};

static struct fake *to_fake(struct disk *d)
{
	return container_of(d, struct fake, disk);
}

static int fake_rw(struct disk *d, const struct iovec *iov, unsigned nr, uint64_t off)
{
	struct fake *f = to_fake(d);

	sem_wait(&f->gate);
	f->writes++;
	for (unsigned i = 0; i < nr && !f->error; i++)
		memset(iov[i].iov_base, off / DISK_SECTOR, iov[i].iov_len);
	sem_post(&f->gate);
	return f->error;
}

static int fake_writev(struct disk *d, const struct iovec *iov, unsigned nr, uint64_t off)
{
	to_fake(d)->writes++;
	return to_fake(d)->error;
}

static int fake_flush(struct disk *d)
{
	to_fake(d)->flushes++;
	return to_fake(d)->error;
}

static void fake_free(struct disk *d)
{
	free(to_fake(d));
}

static const struct disk_ops fake_ops = {
	.name = "fake", .readv = fake_rw, .writev = fake_writev,
	.flush = fake_flush, .free = fake_free,
};

static struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	f->disk = (struct disk){ .ops = &fake_ops, .size = DISK_BYTES };
	sem_init(&f->gate, 0, 1);
	return f;
}

static void start(struct ctx *c, struct disk *disk, uint64_t want)
{
	struct blk_config cfg = { .disk = disk };

	vd_init(&c->d, &blk_class, "root", &cfg);
	vd_start(&c->d, want);
	c->head = vd_alloc(&c->d, 16, 16);
	c->data = vd_alloc(&c->d, 1 << 20, 16);
	c->status = vd_alloc(&c->d, 1, 1);
}

static void start_raw(struct ctx *c, bool readonly)
{
	c->fd = memfd_create("disk", MFD_CLOEXEC);
	assert_int_equal(ftruncate(c->fd, DISK_BYTES), 0);
	start(c, disk_open_raw(c->fd, readonly, NULL), ~0ull);
}

static gpa_t put_head(struct ctx *c, uint32_t type, uint64_t sector)
{
	gpa_t gpa = vd_alloc(&c->d, 16, 16);
	uint8_t *p = vd_ptr(&c->d, gpa, 16);

	memcpy(p, &type, 4);
	memcpy(p + 8, &sector, 8);
	return gpa;
}

/* One whole request; the status byte. */
static uint8_t request(struct ctx *c, uint32_t type, uint64_t sector, uint32_t len)
{
	struct vd_buf b[] = {
		{ put_head(c, type, sector), 16, false },
		{ c->data, len / 2, type == IN || type == GET_ID },
		{ c->data + len / 2, len - len / 2, type == IN || type == GET_ID },
		{ c->status, 1, true },
	};
	uint8_t *status = vd_ptr(&c->d, c->status, 1);

	*status = 0xee;
	vd_add(&c->d, 0, b, 4);
	vd_kick(&c->d, 0);
	vd_used(&c->d, 0, NULL);
	return *status;
}

static void *data(struct ctx *c)
{
	return vd_ptr(&c->d, c->data, 1 << 20);
}

static void reads_and_writes(void **state)
{
	struct ctx c;
	char buf[4096];

	start_raw(&c, false);
	memset(data(&c), 0x5a, 4096);
	assert_int_equal(request(&c, OUT, 8, 4096), OK);
	assert_int_equal(pread(c.fd, buf, 4096, 4096), 4096);
	assert_memory_equal(buf, data(&c), 4096);
	memset(data(&c), 0, 4096);
	assert_int_equal(request(&c, IN, 8, 4096), OK);
	assert_memory_equal(buf, data(&c), 4096);
	assert_int_equal(request(&c, FLUSH, 0, 0), OK);
	assert_int_equal(request(&c, GET_ID, 0, 20), OK);
	assert_string_equal(data(&c), "root");
	assert_int_equal(request(&c, 99, 0, 512), UNSUPP);
	/* To the very end, and past it. */
	assert_int_equal(request(&c, IN, DISK_BYTES / 512 - 1, 512), OK);
	assert_int_equal(request(&c, IN, DISK_BYTES / 512 - 1, 1024), IOERR);
	assert_int_equal(request(&c, OUT, DISK_BYTES / 512, 512), IOERR);
	assert_int_equal(request(&c, OUT, ~0ull, 512), IOERR);
	assert_int_equal(request(&c, IN, 1ull << 55, 512), IOERR);
	assert_int_equal(request(&c, IN, 0, 511), IOERR);
	vd_done(&c.d);
}

static uint8_t zero(struct ctx *c, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	uint8_t *p = data(c);

	memcpy(p, &sector, 8);
	memcpy(p + 8, &n, 4);
	memcpy(p + 12, &flags, 4);
	return request(c, type, 0, 16);
}

static void discards_and_zeroes(void **state)
{
	struct ctx c;
	char ones[4096], buf[4096];

	start_raw(&c, false);
	memset(ones, 1, sizeof(ones));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pwrite(c.fd, ones, 4096, 4096 * i), 4096);
	assert_int_equal(zero(&c, DISCARD, 0, 8, 0), OK);
	assert_int_equal(zero(&c, WRITE_ZEROES, 8, 8, 1), OK);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pread(c.fd, buf, 4096, 4096 * i), 4096);
		for (unsigned k = 0; k < 4096; k++)
			assert_int_equal(buf[k], 0);
	}
	assert_int_equal(pread(c.fd, buf, 1, 8192), 1);
	assert_int_equal(buf[0], 1);
	assert_int_equal(zero(&c, DISCARD, 0, 8, 1), UNSUPP);
	assert_int_equal(zero(&c, WRITE_ZEROES, 0, 8, 2), UNSUPP);
	assert_int_equal(zero(&c, DISCARD, DISK_BYTES / 512, 1, 0), IOERR);
	assert_int_equal(zero(&c, DISCARD, ~0ull, 1, 0), IOERR);
	assert_int_equal(zero(&c, DISCARD, 0, ~0u, 0), IOERR);
	assert_int_equal(request(&c, DISCARD, 0, 0), IOERR);
	assert_int_equal(request(&c, DISCARD, 0, 17), IOERR);
	assert_int_equal(request(&c, DISCARD, 0, 16 * 33), IOERR);
	vd_done(&c.d);
}

static void readonly_refuses(void **state)
{
	struct ctx c;

	start_raw(&c, true);
	assert_true(c.d.features & BIT(5));
	assert_false(c.d.features & (BIT(13) | BIT(14)));
	assert_int_equal(request(&c, IN, 0, 512), OK);
	assert_int_equal(request(&c, OUT, 0, 512), IOERR);
	assert_int_equal(zero(&c, DISCARD, 0, 8, 0), IOERR);
	assert_int_equal(zero(&c, WRITE_ZEROES, 0, 8, 0), IOERR);
	assert_int_equal(request(&c, FLUSH, 0, 0), OK);
	vd_done(&c.d);
}

static void config_space(void **state)
{
	struct ctx c;

	start_raw(&c, false);
	assert_int_equal(vd_config(&c.d, 0, 8), DISK_BYTES / 512);
	assert_int_equal(vd_config(&c.d, 12, 4), 254);
	assert_int_equal(vd_config(&c.d, 20, 4), 512);
	assert_int_equal(vd_config(&c.d, 32, 1), 1);
	vd_config_write(&c.d, 32, 1, 0);
	assert_int_equal(vd_config(&c.d, 32, 1), 0);
	vd_config_write(&c.d, 0, 8, 1);
	assert_int_equal(vd_config(&c.d, 0, 8), DISK_BYTES / 512);
	vd_done(&c.d);
}

static void cache_mode(void **state)
{
	struct fake *f = fake_new();
	struct ctx c;

	start(&c, &f->disk, ~0ull);
	assert_int_equal(request(&c, OUT, 0, 512), OK);
	assert_int_equal(f->flushes, 0);
	vd_config_write(&c.d, 32, 1, 0);
	assert_int_equal(request(&c, OUT, 0, 512), OK);
	assert_int_equal(f->flushes, 1);
	/* A driver that cannot flush gets write-through. */
	vd_start(&c.d, ~BIT(9));
	assert_int_equal(request(&c, OUT, 0, 512), OK);
	assert_int_equal(f->flushes, 2);
	vd_done(&c.d);
}

static void errors_reach_the_guest(void **state)
{
	static const int errors[] = { -EIO, -ENOSPC, -ENOSPC };
	struct fake *f = fake_new();
	struct ctx c;

	start(&c, &f->disk, ~0ull);
	for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
		f->error = errors[i];
		assert_int_equal(request(&c, IN, 0, 512), IOERR);
		assert_int_equal(request(&c, OUT, 0, 512), IOERR);
		assert_int_equal(request(&c, FLUSH, 0, 0), IOERR);
	}
	f->error = 0;
	assert_int_equal(request(&c, OUT, 0, 512), OK);
	vd_done(&c.d);
}

static void malformed_requests(void **state)
{
	struct fake *f = fake_new();
	struct ctx c;
	struct vd_buf short_head[] = { { 0x1000, 15, false }, { 0x2000, 1, true } };
	struct vd_buf no_status[] = { { 0x1000, 16, false } };
	uint32_t len;

	start(&c, &f->disk, ~0ull);
	vd_add(&c.d, 0, short_head, 2);
	vd_kick(&c.d, 0);
	vd_used(&c.d, 0, &len);
	assert_int_equal(len, 1);
	assert_int_equal(*(uint8_t *)vd_ptr(&c.d, 0x2000, 1), IOERR);
	vd_add(&c.d, 0, no_status, 1);
	vd_kick(&c.d, 0);
	vd_settle(&c.d);
	assert_true(vd_status(&c.d) & VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->writes, 0);
	vd_done(&c.d);
}

static void fill_ring(struct ctx *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct vd_buf b[] = {
			{ put_head(c, IN, i % 200), 16, false },
			{ c->data + 512 * i, 512, true }, { c->status, 1, true },
		};

		vd_add(&c->d, 0, b, 3);
	}
	vd_kick(&c->d, 0);
}

/* More requests than may be in flight: all come back, none twice. */
static void many_at_once(void **state)
{
	struct fake *f = fake_new();
	bool seen[256] = { false };
	struct ctx c;

	start(&c, &f->disk, ~0ull);
	c.d.indirect = true;
	sem_wait(&f->gate);
	fill_ring(&c, 256);
	vd_turn(&c.d);
	vd_turn(&c.d);
	assert_int_equal(c.d.dev->vq[0].inflight, LIMIT_BLK_REQUESTS);
	sem_post(&f->gate);
	for (unsigned i = 0; i < 256; i++) {
		uint16_t head = vd_used(&c.d, 0, NULL);

		assert_false(seen[head]);
		seen[head] = true;
	}
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(((uint8_t *)data(&c))[512 * i], i % 200);
	vd_settle(&c.d);
	assert_int_equal(c.d.dev->vq[0].inflight, 0);
	assert_false(vd_has_used(&c.d, 0));
	vd_done(&c.d);
}

struct opener {
	struct fake *f;
	pthread_t thread;
};

static void *open_gate(void *arg)
{
	struct opener *o = arg;

	/* The requests have to be waited for: give the waiter time to sleep. */
	usleep(20000);
	sem_post(&o->f->gate);
	return NULL;
}

/* After a reset no byte of the guest's memory changes any more. */
static void reset_waits_for_io(void **state)
{
	struct opener o = { .f = fake_new() };
	uint8_t before[512 * 32];
	struct ctx c;

	start(&c, &o.f->disk, ~0ull);
	c.d.indirect = true;
	sem_wait(&o.f->gate);
	fill_ring(&c, 32);
	vd_turn(&c.d);
	assert_int_equal(pthread_create(&o.thread, NULL, open_gate, &o), 0);
	vd_write(&c.d, VD_STATUS, 0);
	memcpy(before, data(&c), sizeof(before));
	memset(vd_ptr(&c.d, c.status, 1), 0x77, 1);
	pthread_join(o.thread, NULL);
	vd_settle(&c.d);
	assert_memory_equal(before, data(&c), sizeof(before));
	assert_int_equal(*(uint8_t *)vd_ptr(&c.d, c.status, 1), 0x77);
	vd_start(&c.d, ~0ull);
	assert_int_equal(request(&c, IN, 3, 512), OK);
	assert_int_equal(*(uint8_t *)data(&c), 3);
	vd_done(&c.d);
}

static void freed_with_io_in_flight(void **state)
{
	struct opener o = { .f = fake_new() };
	struct ctx c;

	start(&c, &o.f->disk, ~0ull);
	c.d.indirect = true;
	sem_wait(&o.f->gate);
	fill_ring(&c, 100);
	vd_turn(&c.d);
	assert_int_equal(pthread_create(&o.thread, NULL, open_gate, &o), 0);
	vd_done(&c.d);
	pthread_join(o.thread, NULL);
}

static void drained_save_load(void **state)
{
	struct fake *f = fake_new();
	struct blk_config cfg;
	struct buf b = BUF_INIT;
	struct state_w w;
	struct state_r r;
	struct ctx c;

	start(&c, &f->disk, ~0ull);
	c.d.indirect = true;
	fill_ring(&c, 150);
	vd_turn(&c.d);
	pthread_mutex_lock(&c.d.lock);
	blk_class.drain(c.d.dev);
	assert_int_equal(c.d.dev->vq[0].inflight, 0);
	state_w_init(&w, &b);
	virtio_save(c.d.dev, 0, &w);
	pthread_mutex_unlock(&c.d.lock);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	virtio_free(c.d.dev);
	cfg.disk = &fake_new()->disk;
	vd_attach(&c.d, &blk_class, "root", &cfg);
	assert_int_equal(state_r_init(&r, b.data, b.len, NULL), 0);
	assert_int_equal(virtio_load(c.d.dev, 0, &r, NULL), 0);
	virtio_kick_queues(c.d.dev);
	for (unsigned i = 0; i < 150; i++)
		vd_used(&c.d, 0, NULL);
	/* A disk of another size is not the one the guest knows. */
	virtio_free(c.d.dev);
	cfg.disk = &fake_new()->disk;
	cfg.disk->size /= 2;
	vd_attach(&c.d, &blk_class, "root", &cfg);
	assert_int_equal(state_r_init(&r, b.data, b.len, NULL), 0);
	assert_true(virtio_load(c.d.dev, 0, &r, NULL) < 0);
	assert_int_equal(vd_status(&c.d), 0);
	buf_done(&b);
	vd_done(&c.d);
}

static void raw_over_many_pieces(void **state)
{
	struct ctx c;
	struct vd_buf b[202];
	unsigned n = 0;

	start_raw(&c, false);
	c.d.indirect = true;
	for (unsigned i = 0; i < 100 * 512; i++)
		((uint8_t *)data(&c))[i] = i * 7;
	for (unsigned round = 0; round < 2; round++) {
		n = 0;
		b[n++] = (struct vd_buf){ put_head(&c, round ? IN : OUT, 5), 16, false };
		for (unsigned i = 0; i < 200; i++)
			b[n++] = (struct vd_buf){
				c.data + 256 * i + (round ? 100 * 512 : 0), 256, round,
			};
		b[n++] = (struct vd_buf){ c.status, 1, true };
		vd_add(&c.d, 0, b, n);
		vd_kick(&c.d, 0);
		vd_used(&c.d, 0, NULL);
		assert_int_equal(*(uint8_t *)vd_ptr(&c.d, c.status, 1), OK);
	}
	assert_memory_equal(data(&c), (char *)data(&c) + 100 * 512, 100 * 512);
	vd_done(&c.d);
}

static void truncated_file_is_an_error(void **state)
{
	struct ctx c;

	start_raw(&c, false);
	assert_int_equal(ftruncate(c.fd, 4096), 0);
	assert_int_equal(request(&c, IN, 0, 4096), OK);
	assert_int_equal(request(&c, IN, 8, 4096), IOERR);
	vd_done(&c.d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_writes),
		cmocka_unit_test(discards_and_zeroes),
		cmocka_unit_test(readonly_refuses),
		cmocka_unit_test(config_space),
		cmocka_unit_test(cache_mode),
		cmocka_unit_test(errors_reach_the_guest),
		cmocka_unit_test(malformed_requests),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(reset_waits_for_io),
		cmocka_unit_test(freed_with_io_in_flight),
		cmocka_unit_test(drained_save_load),
		cmocka_unit_test(raw_over_many_pieces),
		cmocka_unit_test(truncated_file_is_an_error),
	};

	return cmocka_run_group_tests_name("blk", tests, NULL, NULL);
}
