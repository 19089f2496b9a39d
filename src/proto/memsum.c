// SPDX-License-Identifier: MIT
/*
 * memsum.c - making and checking a table of chunk digests; see memsum.h.
 */
#include "proto/memsum.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/wire.h"

#define MAGIC	"mnsums1\n"
#define HEADER	24u
#define ENTRY	40u
#define DIGEST	32u

bool memsum_zero(const void *page)
{
	const uint64_t *p = page;

	for (unsigned i = 0; i < MEMSUM_PAGE / 8; i += 8)
		if (p[i] | p[i + 1] | p[i + 2] | p[i + 3] |
		    p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7])
			return false;
	return true;
}

static bool digest(uint32_t chunk, const uint8_t *data, const uint8_t *used,
		   uint32_t *pages, uint8_t out[DIGEST])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

	*pages = 0;
	for (uint32_t i = 0; i < MEMSUM_PAGES && ok; i++) {
		struct wire_w w;
		uint8_t number[8];

		if (!used[i])
			continue;
		wire_w_init(&w, number, sizeof(number));
		wire_put_u64(&w, (uint64_t)chunk * MEMSUM_PAGES + i);
		ok = EVP_DigestUpdate(ctx, number, sizeof(number)) &&
		     EVP_DigestUpdate(ctx, data + (size_t)i * MEMSUM_PAGE, MEMSUM_PAGE);
		++*pages;
	}
	ok = ok && EVP_DigestFinal_ex(ctx, out, NULL);
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* ---- making ---- */

void memsum_begin(struct buf *out, uint64_t span)
{
	uint8_t header[HEADER];
	struct wire_w w;

	wire_w_init(&w, header, sizeof(header));
	wire_put_bytes(&w, MAGIC, 8);
	wire_put_u64(&w, span);
	wire_put_u32(&w, MEMSUM_CHUNK);
	wire_put_u32(&w, 0);
	buf_add(out, header, sizeof(header));
}

int memsum_add(struct buf *out, uint32_t chunk, const void *data, const uint8_t *used)
{
	uint8_t entry[ENTRY], sum[DIGEST];
	uint32_t pages, nr = (out->len - HEADER) / ENTRY + 1;
	struct wire_w w;

	if (!digest(chunk, data, used, &pages, sum))
		return -ENOMEM;
	if (!pages)
		return 0;
	wire_w_init(&w, entry, sizeof(entry));
	wire_put_u32(&w, chunk);
	wire_put_u32(&w, pages);
	wire_put_bytes(&w, sum, sizeof(sum));
	buf_add(out, entry, sizeof(entry));
	if (out->oom)
		return -ENOMEM;
	wire_w_init(&w, out->data + HEADER - 4, 4);
	wire_put_u32(&w, nr);
	return 0;
}

/* ---- checking ---- */

struct table {
	struct wire_r entries;
	uint64_t span;
	uint32_t left;		/* entries not read yet */
	/* the next entry */
	bool have;
	uint32_t chunk, pages;
	uint8_t sum[DIGEST];
};

static int bad_table(struct err *err)
{
	return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			"the bundle's file of checksums is damaged");
}

static int bad_chunk(struct err *err, uint32_t chunk)
{
	return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			"the bundle's memory file is damaged in the 2 MiB at offset %llu",
			(unsigned long long)chunk * MEMSUM_CHUNK);
}

/* Entries must ascend and lie within the span. */
static bool next_entry(struct table *t)
{
	uint32_t before = t->chunk;
	bool first = !t->have;

	t->have = t->left > 0;
	if (!t->have)
		return true;
	t->left--;
	t->chunk = wire_u32(&t->entries);
	t->pages = wire_u32(&t->entries);
	wire_bytes(&t->entries, t->sum, sizeof(t->sum));
	return !t->entries.bad && (first || t->chunk > before) &&
	       (uint64_t)t->chunk * MEMSUM_CHUNK < t->span;
}

static int open_table(struct table *t, const void *data, size_t len, struct err *err)
{
	char magic[8];
	uint32_t chunk;

	*t = (struct table){ .span = 0 };
	wire_r_init(&t->entries, data, len);
	wire_bytes(&t->entries, magic, sizeof(magic));
	t->span = wire_u64(&t->entries);
	chunk = wire_u32(&t->entries);
	t->left = wire_u32(&t->entries);
	if (t->entries.bad || memcmp(magic, MAGIC, 8) || chunk != MEMSUM_CHUNK ||
	    wire_left(&t->entries) != (uint64_t)t->left * ENTRY || !next_entry(t))
		return bad_table(err);
	return 0;
}

/* Reads a chunk; what the file does not have reads as zeroes. */
static int check_chunk(int fd, uint32_t chunk, uint8_t *data, struct table *t,
		       uint64_t *total, struct err *err)
{
	bool expect = t->have && t->chunk == chunk;
	uint8_t used[MEMSUM_PAGES], sum[DIGEST];
	uint32_t pages = 0;
	ssize_t n = io_pread_full(fd, data, MEMSUM_CHUNK, (off_t)chunk * MEMSUM_CHUNK);

	if (n < 0)
		return err_set(err, -n, "cannot read the bundle's memory file");
	memset(data + n, 0, MEMSUM_CHUNK - n);
	for (unsigned i = 0; i < MEMSUM_PAGES; i++)
		used[i] = !memsum_zero(data + (size_t)i * MEMSUM_PAGE);
	if (!digest(chunk, data, used, &pages, sum))
		return err_set(err, ENOMEM, "out of memory");
	if (expect ? pages != t->pages || memcmp(sum, t->sum, DIGEST) : pages > 0)
		return bad_chunk(err, chunk);
	*total += pages;
	if (expect && !next_entry(t))
		return bad_table(err);
	return 0;
}

static int check_all(int fd, uint8_t *data, struct table *t, struct memsum_watch *w,
		     uint64_t *total, struct err *err)
{
	uint64_t off = 0;
	int ret = 0;

	while (off < t->span && !ret) {
		off_t next = lseek(fd, off, SEEK_DATA);
		uint32_t chunk = next < 0 ? UINT32_MAX : next / MEMSUM_CHUNK;

		if (next < 0 && errno != ENXIO)
			return err_set(err, errno, "cannot read the bundle's memory file");
		/* An entry in a hole is a chunk that got lost. */
		if (t->have && t->chunk < chunk)
			return bad_chunk(err, t->chunk);
		if (next < 0 || (uint64_t)next >= t->span)
			break;
		ret = check_chunk(fd, chunk, data, t, total, err);
		off = ((uint64_t)chunk + 1) * MEMSUM_CHUNK;
		if (!ret && w && !w->step(w, off, t->span))
			return err_set(err, ECANCELED, "given up");
	}
	if (!ret && t->have)
		return bad_chunk(err, t->chunk);
	return ret;
}

int memsum_verify(int fd, const void *table, size_t len, struct memsum_watch *w,
		  uint64_t *pages, struct err *err)
{
	uint8_t *data = malloc(MEMSUM_CHUNK);
	uint64_t total = 0;
	struct table t;
	struct stat st;
	int ret = data ? open_table(&t, table, len, err) :
		  err_set(err, ENOMEM, "out of memory");

	if (!ret && (fstat(fd, &st) < 0 || (uint64_t)st.st_size != t.span))
		ret = err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			       "the bundle's memory file has not the length it should have");
	if (!ret)
		ret = check_all(fd, data, &t, w, &total, err);
	free(data);
	if (pages)
		*pages = total;
	return ret;
}
