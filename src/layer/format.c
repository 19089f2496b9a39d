// SPDX-License-Identifier: MIT
/*
 * format.c - the layer file, byte by byte; see format.h and docs/image.md.
 * Files may come from other hosts and are hostile: everything read is checked
 * here, and sizes are bounded before anything is allocated from them.
 */
#include "layer/format.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "base/wire.h"
#include "layer/layer.h"

#define HEADER_MAGIC "MNLAYER\n"
#define RECORD_MAGIC "MNCLEAN\n"
#define VERSION	     1u
#define HEADER_LEN   96u	/* up to the sum */
#define SAMPLE	     8192u	/* holds superblock and UUID of an ext4 */
#define SEALED	     1u

uint32_t fmt_sum(const void *data, size_t len)
{
	return crc32_z(0, data, len);
}

int fmt_derive(struct fmt_header *h)
{
	if (!h->size || h->size % 512 || h->size > LAYER_SIZE_MAX)
		return -EINVAL;
	h->clusters = (h->size + LAYER_CLUSTER - 1) / LAYER_CLUSTER;
	h->map_pages = (h->clusters + FMT_PAGE_BITS - 1) / FMT_PAGE_BITS;
	h->data_off = fmt_slot_off(h->map_pages, 0);
	return 0;
}

void fmt_header_print(const struct fmt_header *h, uint8_t page[FMT_PAGE])
{
	struct wire_w w;

	memset(page, 0, FMT_PAGE);
	wire_w_init(&w, page, FMT_PAGE);
	wire_put_bytes(&w, HEADER_MAGIC, 8);
	wire_put_u32(&w, VERSION);
	wire_put_u32(&w, LAYER_CLUSTER);
	wire_put_u64(&w, h->size);
	wire_put_u32(&w, h->map_pages);
	wire_put_u32(&w, h->parent);
	wire_put_bytes(&w, h->uuid, 16);
	wire_put_bytes(&w, h->parent_id, 16);
	w.p = page + HEADER_LEN;
	wire_put_u32(&w, fmt_sum(page, HEADER_LEN));
}

static int damaged(struct err *err, const char *what)
{
	return err_set(err, EBADMSG, "damaged disk layer: %s", what);
}

static int read_page(int fd, uint8_t *page, size_t len, uint64_t off,
		     struct err *err)
{
	ssize_t n = io_pread_full(fd, page, len, off);

	if (n < 0)
		return err_set(err, -n, "cannot read the disk layer: %s",
			       strerror(-n));
	return (size_t)n < len ? damaged(err, "cut short") : 0;
}

int fmt_header_read(struct fmt_header *h, int fd, struct err *err)
{
	uint8_t page[FMT_PAGE], magic[8];
	uint32_t version, cluster, pages, sum;
	struct wire_r r;
	struct stat st;
	int ret = read_page(fd, page, sizeof(page), 0, err);

	if (ret)
		return ret;
	wire_r_init(&r, page, sizeof(page));
	wire_bytes(&r, magic, 8);
	if (memcmp(magic, HEADER_MAGIC, 8))
		return err_set(err, EBADMSG, "not a disk layer");
	version = wire_u32(&r);
	cluster = wire_u32(&r);
	*h = (struct fmt_header){ .size = wire_u64(&r) };
	pages = wire_u32(&r);
	h->parent = wire_u32(&r);
	wire_bytes(&r, h->uuid, 16);
	wire_bytes(&r, h->parent_id, 16);
	r.p = page + HEADER_LEN;
	sum = wire_u32(&r);
	if (sum != fmt_sum(page, HEADER_LEN))
		return damaged(err, "header");
	if (version != VERSION || cluster != LAYER_CLUSTER)
		return err_set(err, EBADMSG, "disk layer of unknown version %u",
			       version);
	if (fmt_derive(h) || pages != h->map_pages ||
	    (h->parent != FMT_PARENT_RAW && h->parent != FMT_PARENT_LAYER))
		return damaged(err, "header");
	if (fstat(fd, &st) < 0)
		return err_set(err, errno, "cannot look at the disk layer");
	if ((uint64_t)st.st_size < h->data_off + h->clusters * LAYER_CLUSTER)
		return damaged(err, "cut short");
	return 0;
}

void fmt_record_print(const struct fmt_record *r, uint8_t rec[FMT_RECORD_LEN])
{
	struct wire_w w;

	memset(rec, 0, FMT_RECORD_LEN);
	if (!r->present)
		return;
	wire_w_init(&w, rec, FMT_RECORD_LEN);
	wire_put_bytes(&w, RECORD_MAGIC, 8);
	wire_put_u32(&w, r->sealed ? SEALED : 0);
	wire_put_u32(&w, r->map_sum);
	wire_put_u32(&w, fmt_sum(rec, 16));
}

int fmt_record_read(struct fmt_record *r, int fd, struct err *err)
{
	static const uint8_t blank[FMT_RECORD_LEN];
	uint8_t rec[FMT_RECORD_LEN];
	uint32_t flags, sum;
	struct wire_r w;
	int ret = read_page(fd, rec, sizeof(rec), FMT_RECORD_OFF, err);

	*r = (struct fmt_record){ .present = false };
	if (ret || !memcmp(rec, blank, sizeof(rec)))
		return ret;
	wire_r_init(&w, rec, sizeof(rec));
	wire_view(&w, 8);
	flags = wire_u32(&w);
	r->map_sum = wire_u32(&w);
	sum = wire_u32(&w);
	if (memcmp(rec, RECORD_MAGIC, 8) || sum != fmt_sum(rec, 16) ||
	    flags > SEALED)
		return damaged(err, "closing record");
	r->present = true;
	r->sealed = flags & SEALED;
	return 0;
}

/* Over everything but itself and the durable word. */
static uint32_t slot_sum(const uint8_t page[FMT_PAGE])
{
	uint32_t sum = crc32_z(0, page + 4, 4);

	return crc32_z(sum, page + 16, FMT_PAGE - 16);
}

void fmt_slot_print(uint8_t page[FMT_PAGE], uint32_t index,
		    const struct fmt_slot *s)
{
	struct wire_w w;

	memset(page, 0, FMT_SLOT_HEAD);
	wire_w_init(&w, page + 4, FMT_SLOT_HEAD - 4);
	wire_put_u32(&w, index);
	wire_put_u64(&w, s->durable);
	wire_put_u64(&w, s->seq);
	wire_put_bytes(&w, s->boot_id, 16);
	wire_w_init(&w, page, 4);
	wire_put_u32(&w, slot_sum(page));
}

void fmt_slot_parse(struct fmt_slot *s, const uint8_t page[FMT_PAGE],
		    uint32_t index)
{
	struct wire_r r;
	uint32_t sum, i;

	wire_r_init(&r, page, FMT_SLOT_HEAD);
	sum = wire_u32(&r);
	i = wire_u32(&r);
	*s = (struct fmt_slot){ .durable = wire_u64(&r) == 1 };
	s->seq = wire_u64(&r);
	wire_bytes(&r, s->boot_id, 16);
	s->valid = s->seq && i == index && sum == slot_sum(page);
	if (!s->valid) {
		size_t k = 0;

		while (k < FMT_PAGE && !page[k])
			k++;
		s->blank = k == FMT_PAGE;
	}
}

int fmt_raw_id(int fd, uint8_t id[16], uint64_t *size, struct err *err)
{
	uint8_t buf[SAMPLE];
	struct wire_w w;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return err_set(err, errno, "cannot look at the base disk");
	*size = st.st_size;
	wire_w_init(&w, id, 16);
	wire_put_u64(&w, st.st_size);
	for (unsigned i = 0; i < 2; i++) {
		n = io_pread_full(fd, buf, sizeof(buf), i * (st.st_size / 2));
		if (n < 0)
			return err_set(err, -n, "cannot read the base disk: %s",
				       strerror(-n));
		wire_put_u32(&w, fmt_sum(buf, n));
	}
	return 0;
}

static struct {
	pthread_once_t once;
	uint8_t id[16];
} boot = { .once = PTHREAD_ONCE_INIT };

static void read_boot_id(void)
{
	cleanup(io_closep) int fd = open("/proc/sys/kernel/random/boot_id",
					 O_RDONLY | O_CLOEXEC);
	char text[64] = "";

	if (fd < 0 || io_read_full(fd, text, 36) != 36)
		return;
	for (unsigned i = 0, at = 0; i < 16; i++, at += 2) {
		unsigned v;

		if (text[at] == '-')
			at++;
		if (sscanf(text + at, "%2x", &v) == 1)
			boot.id[i] = v;
	}
}

/*
 * Read once a process: a VMM reads no files once it is in its sandbox, and its
 * forks begin in there.  Without it they would take what was published but not
 * flushed for void.
 */
void fmt_boot_id(uint8_t id[16])
{
	pthread_once(&boot.once, read_boot_id);
	memcpy(id, boot.id, 16);
}
