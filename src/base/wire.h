/* SPDX-License-Identifier: MIT */
/*
 * wire.h - bounded little-endian reader and writer with a sticky error.
 *
 * Everything that comes from outside (bundles, frames, ring contents) is read
 * through `struct wire_r`: it never runs past its end, a failed read gives
 * zeroes, and one look at `bad` at the end tells whether all of it was good.
 * No libc beyond memcpy, so the guest binary uses it too.
 */
#ifndef BASE_WIRE_H
#define BASE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_r {
	const uint8_t *p, *end;	/* borrowed */
	bool bad;		/* a read went past the end */
};

struct wire_w {
	uint8_t *p, *start, *end;	/* borrowed */
	bool bad;			/* a write did not fit */
};

void wire_r_init(struct wire_r *r, const void *data, size_t len);
uint8_t wire_u8(struct wire_r *r);
uint16_t wire_u16(struct wire_r *r);
uint32_t wire_u32(struct wire_r *r);
uint64_t wire_u64(struct wire_r *r);
/* Copies len bytes, or zeroes and sets bad. */
void wire_bytes(struct wire_r *r, void *dst, size_t len);
/* The next len bytes in place; NULL and bad when there are fewer. */
const void *wire_view(struct wire_r *r, size_t len);
static inline size_t wire_left(const struct wire_r *r)
{
	return (size_t)(r->end - r->p);
}

void wire_w_init(struct wire_w *w, void *data, size_t len);
void wire_put_u8(struct wire_w *w, uint8_t v);
void wire_put_u16(struct wire_w *w, uint16_t v);
void wire_put_u32(struct wire_w *w, uint32_t v);
void wire_put_u64(struct wire_w *w, uint64_t v);
void wire_put_bytes(struct wire_w *w, const void *src, size_t len);
static inline size_t wire_len(const struct wire_w *w)
{
	return (size_t)(w->p - w->start);
}

#endif
