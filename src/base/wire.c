// SPDX-License-Identifier: MIT
/* wire.c - bounded little-endian reader and writer; see wire.h. */
#include "base/wire.h"

#include <string.h>

void wire_r_init(struct wire_r *r, const void *data, size_t len)
{
	*r = (struct wire_r){ .p = data, .end = (const uint8_t *)data + len };
}

const void *wire_view(struct wire_r *r, size_t len)
{
	const uint8_t *p = r->p;

	if (r->bad || len > wire_left(r)) {
		r->bad = true;
		return NULL;
	}
	r->p += len;
	return p;
}

void wire_bytes(struct wire_r *r, void *dst, size_t len)
{
	const void *src = wire_view(r, len);

	if (src && len)
		memcpy(dst, src, len);
	else if (len)
		memset(dst, 0, len);
}

static uint64_t get_le(struct wire_r *r, unsigned len)
{
	const uint8_t *p = wire_view(r, len);
	uint64_t v = 0;

	while (p && len--)
		v = v << 8 | p[len];
	return v;
}

uint8_t wire_u8(struct wire_r *r) { return get_le(r, 1); }
uint16_t wire_u16(struct wire_r *r) { return get_le(r, 2); }
uint32_t wire_u32(struct wire_r *r) { return get_le(r, 4); }
uint64_t wire_u64(struct wire_r *r) { return get_le(r, 8); }

void wire_w_init(struct wire_w *w, void *data, size_t len)
{
	*w = (struct wire_w){ .p = data, .start = data,
			      .end = (uint8_t *)data + len };
}

void wire_put_bytes(struct wire_w *w, const void *src, size_t len)
{
	if (w->bad || len > (size_t)(w->end - w->p)) {
		w->bad = true;
		return;
	}
	if (len)
		memcpy(w->p, src, len);
	w->p += len;
}

static void put_le(struct wire_w *w, uint64_t v, unsigned len)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < len; i++)
		bytes[i] = v >> (8 * i);
	wire_put_bytes(w, bytes, len);
}

void wire_put_u8(struct wire_w *w, uint8_t v) { put_le(w, v, 1); }
void wire_put_u16(struct wire_w *w, uint16_t v) { put_le(w, v, 2); }
void wire_put_u32(struct wire_w *w, uint32_t v) { put_le(w, v, 4); }
void wire_put_u64(struct wire_w *w, uint64_t v) { put_le(w, v, 8); }
