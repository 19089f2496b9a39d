// SPDX-License-Identifier: MIT
/* bundle_sum.c - digests of a bundle's files; see bundle.h. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/util.h"
#include "base/wire.h"
#include "lib/bundle.h"
#include "proto/memsum.h"

#define BLOCK (1u << 20)
#define DIGEST 32

static void to_hex(const uint8_t *sum, char hex[BUNDLE_SUM_LEN])
{
	for (unsigned i = 0; i < DIGEST; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
}

int bundle_sum_data(const void *data, size_t len, char hex[BUNDLE_SUM_LEN])
{
	uint8_t sum[DIGEST];

	if (!EVP_Digest(data, len, sum, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	to_hex(sum, hex);
	return 0;
}

static bool add_number(EVP_MD_CTX *ctx, uint64_t v)
{
	uint8_t bytes[8];
	struct wire_w w;

	wire_w_init(&w, bytes, sizeof(bytes));
	wire_put_u64(&w, v);
	return EVP_DigestUpdate(ctx, bytes, sizeof(bytes));
}

static int add_page(void *arg, uint64_t nr, const uint8_t *data)
{
	EVP_MD_CTX *ctx = arg;

	return add_number(ctx, nr) && EVP_DigestUpdate(ctx, data, MEMSUM_PAGE) ?
	       0 : -ENOMEM;
}

/* One block that begins at a page; data past its end is zero. */
static int walk_block(const struct bundle_walk *w, const uint8_t *data, uint64_t off,
		      size_t len)
{
	int ret = 0;

	for (size_t at = 0; at < len && !ret; at += MEMSUM_PAGE)
		if (!memsum_zero(data + at))
			ret = w->page(w->arg, (off + at) / MEMSUM_PAGE, data + at);
	return ret;
}

static int walk(int fd, const struct bundle_walk *w, uint64_t size, uint8_t *data)
{
	uint64_t off = 0, done = 0;
	int ret = 0;

	while (off < size && !ret) {
		off_t next = lseek(fd, (off_t)off, SEEK_DATA);
		ssize_t n;

		if (next < 0)
			return errno == ENXIO ? 0 : -errno;
		off = ALIGN_DOWN((uint64_t)next, (uint64_t)BLOCK);
		n = io_pread_full(fd, data, BLOCK, (off_t)off);
		if (n < 0)
			return (int)n;
		memset(data + n, 0, BLOCK - (size_t)n);
		ret = walk_block(w, data, off, (size_t)n);
		off += BLOCK;
		done += (uint64_t)n;
		if (!ret && w->step)
			ret = w->step(w->step_arg, done);
	}
	return ret;
}

int bundle_walk_pages(int fd, const struct bundle_walk *w)
{
	uint8_t *data = malloc(BLOCK);
	struct stat st;
	int ret = !data ? -ENOMEM : fstat(fd, &st) < 0 ? -errno : 0;

	if (!ret)
		ret = walk(fd, w, (uint64_t)st.st_size, data);
	free(data);
	return ret;
}

int bundle_sum_pages(int fd, char hex[BUNDLE_SUM_LEN],
		     int (*step)(void *arg, uint64_t done), void *arg)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	struct bundle_walk w = { .page = add_page, .arg = ctx, .step = step,
				 .step_arg = arg };
	uint8_t sum[DIGEST];
	struct stat st;
	int ret = -ENOMEM;

	if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
		ret = fstat(fd, &st) < 0 ? -errno : 0;
	if (!ret)
		ret = bundle_walk_pages(fd, &w);
	if (!ret && (!add_number(ctx, (uint64_t)st.st_size) ||
		     !EVP_DigestFinal_ex(ctx, sum, NULL)))
		ret = -ENOMEM;
	if (!ret)
		to_hex(sum, hex);
	EVP_MD_CTX_free(ctx);
	return ret;
}
