// SPDX-License-Identifier: MIT
/*
 * state.c - writing and reading the sections of a snapshot.
 *
 *	file     "mnstate\n"  u32 version  u32 0  section…
 *	section  name[32]  u32 instance  u16 version  u16 flags
 *	         u64 length  u32 crc  u32 0  payload[length]
 *
 * Little endian throughout.  The CRC covers the section's header, with the crc
 * field zero, and its payload.  The last section is called "end" and is empty,
 * so that a file that was cut off at a section boundary is noticed.
 *
 * The reader indexes all sections first and refuses the file as a whole when any
 * of them is out of bounds, damaged or there twice; the loaders then worry about
 * values alone.
 */
#include "vmm/state.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/util.h"
#include "base/wire.h"

#define MAGIC		"mnstate\n"
#define FORMAT		1u
#define FILE_HEADER	16u
#define HEADER		56u
#define OFF_LENGTH	40u
#define OFF_CRC		48u
#define F_MANDATORY	1u
#define END_NAME	"end"

struct header {
	char name[STATE_NAME_MAX];
	uint32_t instance;
	uint16_t version, flags;
	uint64_t length;
	uint32_t crc;
};

/* ---- writing ---- */

static void put(struct state_w *w, const void *p, size_t n)
{
	buf_add(w->out, p, n);
	if (w->out->oom)
		w->bad = true;
}

void state_w_init(struct state_w *w, struct buf *out)
{
	*w = (struct state_w){ .out = out };
	put(w, MAGIC, 8);
	state_put_u32(w, FORMAT);
	state_put_u32(w, 0);
}

void state_begin(struct state_w *w, const char *name, unsigned instance,
		 uint16_t version, bool mandatory)
{
	char field[STATE_NAME_MAX] = { 0 };

	ASSERT(!w->open && strlen(name) < sizeof(field));
	memcpy(field, name, strlen(name));
	w->section = w->out->len;
	w->open = true;
	put(w, field, sizeof(field));
	state_put_u32(w, instance);
	state_put_u16(w, version);
	state_put_u16(w, mandatory ? F_MANDATORY : 0);
	state_put_u64(w, 0);	/* length and crc: state_end() */
	state_put_u32(w, 0);
	state_put_u32(w, 0);
}

void state_end(struct state_w *w)
{
	struct wire_w field;
	uint8_t *start;
	size_t len;

	ASSERT(w->open);
	if (!w->bad) {
		start = (uint8_t *)w->out->data + w->section;
		len = w->out->len - w->section;
		wire_w_init(&field, start + OFF_LENGTH, 8);
		wire_put_u64(&field, len - HEADER);
		wire_w_init(&field, start + OFF_CRC, 4);
		wire_put_u32(&field, crc32_z(0, start, len));
	}
	w->open = false;
}

void state_put_u8(struct state_w *w, uint8_t v)
{
	put(w, &v, 1);
}

void state_put_u16(struct state_w *w, uint16_t v)
{
	uint8_t b[2] = { v & 0xff, v >> 8 };

	put(w, b, sizeof(b));
}

void state_put_u32(struct state_w *w, uint32_t v)
{
	state_put_u16(w, v & 0xffff);
	state_put_u16(w, v >> 16);
}

void state_put_u64(struct state_w *w, uint64_t v)
{
	state_put_u32(w, v & 0xffffffff);
	state_put_u32(w, v >> 32);
}

void state_put_bytes(struct state_w *w, const void *p, size_t n)
{
	put(w, p, n);
}

void state_put_blob(struct state_w *w, const void *p, uint32_t n)
{
	state_put_u32(w, n);
	put(w, p, n);
}

int state_w_finish(struct state_w *w, struct err *err)
{
	state_begin(w, END_NAME, 0, 1, false);
	state_end(w);
	return w->bad ? err_set(err, ENOMEM, "out of memory") : 0;
}

/* ---- reading ---- */

/* Reads the header at `off`, which is in the file. */
static void header_get(const struct state_r *r, size_t off, struct header *h)
{
	struct wire_r w;

	wire_r_init(&w, r->data + off, HEADER);
	wire_bytes(&w, h->name, sizeof(h->name));
	h->instance = wire_u32(&w);
	h->version = wire_u16(&w);
	h->flags = wire_u16(&w);
	h->length = wire_u64(&w);
	h->crc = wire_u32(&w);
}

static bool header_crc_ok(const struct state_r *r, size_t off, const struct header *h)
{
	uint8_t copy[HEADER];
	uint32_t crc;

	memcpy(copy, r->data + off, HEADER);
	memset(copy + OFF_CRC, 0, 4);
	crc = crc32_z(0, copy, HEADER);
	return crc32_z(crc, r->data + off + HEADER, h->length) == h->crc;
}

static bool seen(const struct state_r *r, const struct header *h)
{
	struct header other;

	for (unsigned i = 0; i < r->nr; i++) {
		header_get(r, r->at[i], &other);
		if (other.instance == h->instance && !strcmp(other.name, h->name))
			return true;
	}
	return false;
}

static int damaged(struct err *err, size_t off, const char *what)
{
	return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			"state file: %s at byte %zu", what, off);
}

/* Adds the section at *off to the index; 1 at the end marker. */
static int index_one(struct state_r *r, size_t *off, struct err *err)
{
	struct header h;

	if (r->len - *off < HEADER)
		return damaged(err, *off, "cut short");
	header_get(r, *off, &h);
	if (h.name[STATE_NAME_MAX - 1] || h.length > r->len - *off - HEADER)
		return damaged(err, *off, "impossible section");
	if (!header_crc_ok(r, *off, &h))
		return damaged(err, *off, "wrong checksum");
	if (!strcmp(h.name, END_NAME))
		return *off + HEADER + h.length == r->len ? 1 :
		       damaged(err, *off, "something after the end");
	if (r->nr == STATE_MAX_SECTIONS || seen(r, &h))
		return damaged(err, *off, "one section too many");
	r->at[r->nr++] = *off;
	*off += HEADER + h.length;
	return 0;
}

int state_r_init(struct state_r *r, const void *data, size_t len, struct err *err)
{
	struct wire_r w;
	size_t off = FILE_HEADER;
	uint32_t format;
	char magic[8];
	int ret = 0;

	*r = (struct state_r){ .data = data, .len = len };
	wire_r_init(&w, data, len);
	wire_bytes(&w, magic, sizeof(magic));
	format = wire_u32(&w);
	wire_u32(&w);
	if (w.bad || memcmp(magic, MAGIC, sizeof(magic)))
		return damaged(err, 0, "not a state file");
	if (format != FORMAT)
		return err_code(err, ERR_SNAPSHOT_VERSION, ENOTSUP,
				"state file: format %u is not known", format);
	while (!ret)
		ret = index_one(r, &off, err);
	return ret < 0 ? ret : 0;
}

int state_find(struct state_r *r, const char *name, unsigned instance)
{
	struct header h;

	for (unsigned i = 0; i < r->nr; i++) {
		header_get(r, r->at[i], &h);
		if (h.instance != instance || strcmp(h.name, name))
			continue;
		r->used[i] = true;
		r->name = (const char *)r->data + r->at[i];
		r->version = h.version;
		r->pos = r->at[i] + HEADER;
		r->end = r->pos + h.length;
		r->bad = false;
		return 0;
	}
	return -ENOENT;
}

/* The next n bytes of the open section; NULL past its end. */
static const uint8_t *take(struct state_r *r, size_t n)
{
	const uint8_t *p = r->data + r->pos;

	if (r->bad || n > r->end - r->pos) {
		r->bad = true;
		return NULL;
	}
	r->pos += n;
	return p;
}

uint8_t state_get_u8(struct state_r *r)
{
	const uint8_t *p = take(r, 1);

	return p ? p[0] : 0;
}

uint16_t state_get_u16(struct state_r *r)
{
	const uint8_t *p = take(r, 2);

	return p ? p[0] | p[1] << 8 : 0;
}

uint32_t state_get_u32(struct state_r *r)
{
	const uint8_t *p = take(r, 4);

	return p ? p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

uint64_t state_get_u64(struct state_r *r)
{
	uint64_t low = state_get_u32(r);
	uint64_t high = state_get_u32(r);

	return r->bad ? 0 : low | high << 32;
}

void state_get_bytes(struct state_r *r, void *dst, size_t n)
{
	const uint8_t *p = take(r, n);

	if (p)
		memcpy(dst, p, n);
	else
		memset(dst, 0, n);
}

const void *state_get_blob(struct state_r *r, uint32_t *n, uint32_t max)
{
	const uint8_t *p;

	*n = state_get_u32(r);
	if (*n > max)
		r->bad = true;
	p = take(r, *n);
	if (!p)
		*n = 0;
	return p;
}

int state_close(struct state_r *r, struct err *err)
{
	const char *name = r->name;

	r->name = NULL;
	if (r->bad || r->pos != r->end)
		return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
				"state file: section \"%s\" (version %u) does not fit",
				name ? name : "", r->version);
	return 0;
}

int state_r_finish(const struct state_r *r, struct err *err)
{
	struct header h;

	for (unsigned i = 0; i < r->nr; i++) {
		header_get(r, r->at[i], &h);
		if (!r->used[i] && h.flags & F_MANDATORY)
			return err_code(err, ERR_SNAPSHOT_VERSION, ENOTSUP,
					"state file: nothing here understands section \"%s\" %u",
					h.name, h.instance);
	}
	return 0;
}
