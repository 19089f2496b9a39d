// SPDX-License-Identifier: MIT
/*
 * arch/x86/unpack.c - kernel payload decompression; see unpack.h.
 *
 * Each format fills a fixed buffer and hands it to the sink, so memory is
 * bounded whatever the payload claims, and the buffer stays warm in the cache.
 * The four share `struct out`, which counts against the promised length.
 */
#include "vmm/arch/x86/unpack.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/err.h"
#include "base/util.h"

#define CHUNK		(256 * KIB)
#define LZ4_MAGIC	0x184c2102u
#define LZ4_BLOCK	(8 * MIB)	/* fixed by the legacy format */
#define XZ_MEMORY	(256 * MIB)	/* kernels use a dictionary of 32 or 128 */

struct out {
	const struct unpack_sink *sink;
	size_t done, total;	/* bytes handed on, bytes promised */
	uint8_t *buf;		/* owned; CHUNK or LZ4_BLOCK bytes */
};

static int bad(struct err *err, const char *what)
{
	return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, EINVAL,
			"the kernel's payload is damaged: %s", what);
}

static int emit(struct out *o, size_t n, struct err *err)
{
	if (n > o->total - o->done)
		return bad(err, "it unpacks to more than it says");
	o->done += n;
	return n ? o->sink->put(o->sink->arg, o->buf, n, err) : 0;
}

static uint32_t le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Blocks of (compressed length, data) until the data end. */
static int unpack_lz4(struct out *o, const uint8_t *p, size_t len, struct err *err)
{
	int ret = 0;

	p += 4;
	len -= 4;
	while (!ret && len > 4 && o->done < o->total) {
		uint32_t n = le32(p);
		int got;

		p += 4;
		len -= 4;
		if (n > len)
			return bad(err, "an lz4 block is cut off");
		got = LZ4_decompress_safe((const char *)p, (char *)o->buf, (int)n,
					  LZ4_BLOCK);
		if (got < 0)
			return bad(err, "an lz4 block is not valid");
		ret = emit(o, (size_t)got, err);
		p += n;
		len -= n;
	}
	return ret;
}

static int unpack_zstd(struct out *o, const uint8_t *p, size_t len, struct err *err)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer in = { p, len, 0 };
	size_t left = 1;
	int ret = z ? 0 : err_set(err, ENOMEM, "out of memory");

	/* The kernel's own build uses windows up to 128 MiB. */
	if (!ret)
		ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 27);
	while (!ret && left) {
		ZSTD_outBuffer out = { o->buf, CHUNK, 0 };
		size_t before = in.pos;

		left = ZSTD_decompressStream(z, &out, &in);
		if (ZSTD_isError(left))
			ret = bad(err, ZSTD_getErrorName(left));
		else if (left && !out.pos && in.pos == before)
			ret = bad(err, "the zstd stream is cut off");
		else
			ret = emit(o, out.pos, err);
	}
	ZSTD_freeDStream(z);
	return ret;
}

static int unpack_gzip(struct out *o, const uint8_t *p, size_t len, struct err *err)
{
	z_stream z = { .avail_in = (uInt)MIN(len, (size_t)UINT32_MAX) };
	int ret = 0, status = Z_OK;

	memcpy(&z.next_in, &p, sizeof(p));	/* zlib's input is not const */
	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return err_set(err, ENOMEM, "out of memory");
	while (!ret && status == Z_OK) {
		z.next_out = o->buf;
		z.avail_out = CHUNK;
		status = inflate(&z, Z_NO_FLUSH);
		if (status != Z_OK && status != Z_STREAM_END)
			ret = bad(err, z.msg ? z.msg : "the gzip stream is cut off");
		else
			ret = emit(o, CHUNK - z.avail_out, err);
	}
	inflateEnd(&z);
	return ret;
}

static int unpack_xz(struct out *o, const uint8_t *p, size_t len, struct err *err)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret status = lzma_stream_decoder(&z, XZ_MEMORY, 0);
	int ret = 0;

	if (status != LZMA_OK)
		return err_set(err, ENOMEM, "out of memory");
	z.next_in = p;
	z.avail_in = len;
	while (!ret && status == LZMA_OK) {
		z.next_out = o->buf;
		z.avail_out = CHUNK;
		status = lzma_code(&z, LZMA_RUN);
		if (status == LZMA_MEMLIMIT_ERROR)
			ret = bad(err, "its xz dictionary is too large");
		else if (status != LZMA_OK && status != LZMA_STREAM_END)
			ret = bad(err, "the xz stream is not valid or cut off");
		else
			ret = emit(o, CHUNK - z.avail_out, err);
	}
	lzma_end(&z);
	return ret;
}

static const struct format {
	const char *name;
	uint8_t magic[6], magic_len;
	size_t buf;
	int (*unpack)(struct out *o, const uint8_t *p, size_t len, struct err *err);
} formats[] = {
	{ "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4, LZ4_BLOCK, unpack_lz4 },
	{ "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, CHUNK, unpack_zstd },
	{ "gzip", { 0x1f, 0x8b }, 2, CHUNK, unpack_gzip },
	{ "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, CHUNK, unpack_xz },
};

int unpack_payload(const void *data, size_t len, size_t max,
		   const struct unpack_sink *sink, struct err *err)
{
	const uint8_t *p = data;
	struct out o = { .sink = sink };
	const struct format *f = NULL;
	int ret;

	for (unsigned i = 0; i < ARRAY_LEN(formats) && len > 8; i++) {
		if (!memcmp(p, formats[i].magic, formats[i].magic_len))
			f = &formats[i];
	}
	if (!f)
		return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, ENOTSUP,
				"the kernel is packed with something else than "
				"lz4, zstd, gzip or xz");
	o.total = le32(p + len - 4);
	if (o.total > max)
		return bad(err, "it is too large when unpacked");
	o.buf = malloc(f->buf);
	if (!o.buf)
		return err_set(err, ENOMEM, "out of memory");
	ret = f->unpack(&o, p, len, err);
	if (!ret && o.done != o.total)
		ret = bad(err, "it unpacks to less than it says");
	free(o.buf);
	return ret;
}
