/* SPDX-License-Identifier: MIT */
/* arch/x86/unpack.h - decompresses a kernel's payload as a stream. */
#ifndef ARCH_X86_UNPACK_H
#define ARCH_X86_UNPACK_H

#include <stddef.h>

struct err;

/* Takes the next len bytes, in order; 0 or -errno, which ends the unpacking. */
struct unpack_sink {
	int (*put)(void *arg, const void *data, size_t len, struct err *err);
	void *arg;	/* borrowed */
};

/*
 * Decompresses a bzImage payload: lz4 (legacy frame), zstd, gzip or xz, told
 * apart by magic, followed by the length of the result as the kernel's build
 * appends it.  Results longer than that or than `max` are refused.
 */
int unpack_payload(const void *data, size_t len, size_t max,
		   const struct unpack_sink *sink, struct err *err);

#endif
