/* SPDX-License-Identifier: MIT */
/*
 * state.h - the sections of a snapshot.
 *
 * A state file is a header (magic, format version) and sections: name, version,
 * flags (mandatory or not), length, payload, CRC32.  Devices write their fields
 * one by one through the put calls, never a live struct, and read them back in the
 * same order through the get calls.  The reader treats everything as hostile:
 * reads past a section's end give zeroes and make the error stick, and a
 * restorer checks every value as it would check the guest's.
 */
#ifndef VMM_STATE_H
#define VMM_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

#define STATE_NAME_MAX 32	/* with the final NUL */
#define STATE_MAX_SECTIONS 256

struct state_w {
	struct buf *out;	/* borrowed; whole file */
	size_t section;		/* offset of the open section's header */
	bool open;		/* there is one */
	bool bad;		/* out of memory */
};

void state_w_init(struct state_w *w, struct buf *out);
/* Opens a section; instance distinguishes several of one kind ("blk", 0). */
void state_begin(struct state_w *w, const char *name, unsigned instance,
		 uint16_t version, bool mandatory);
void state_end(struct state_w *w);
void state_put_u8(struct state_w *w, uint8_t v);
void state_put_u16(struct state_w *w, uint16_t v);
void state_put_u32(struct state_w *w, uint32_t v);
void state_put_u64(struct state_w *w, uint64_t v);
void state_put_bytes(struct state_w *w, const void *p, size_t n);
/* Length first, then the bytes. */
void state_put_blob(struct state_w *w, const void *p, uint32_t n);
int state_w_finish(struct state_w *w, struct err *err);

struct state_r {
	const uint8_t *data;	/* borrowed; whole file */
	size_t len;
	unsigned nr;		/* sections */
	size_t at[STATE_MAX_SECTIONS];	/* offsets of their headers */
	bool used[STATE_MAX_SECTIONS];	/* state_find() gave it out */
	/* the open section */
	const char *name;
	uint16_t version;
	size_t pos, end;
	bool bad;
};

/* Checks header, section bounds and checksums of the whole file. */
int state_r_init(struct state_r *r, const void *data, size_t len, struct err *err);
/* Positions at a section's payload and sets version; -ENOENT when absent. */
int state_find(struct state_r *r, const char *name, unsigned instance);
uint8_t state_get_u8(struct state_r *r);
uint16_t state_get_u16(struct state_r *r);
uint32_t state_get_u32(struct state_r *r);
uint64_t state_get_u64(struct state_r *r);
void state_get_bytes(struct state_r *r, void *dst, size_t n);
/* In place; *n is at most max, else bad. */
const void *state_get_blob(struct state_r *r, uint32_t *n, uint32_t max);
/* Must be called after each section: err when it was short, long or refused. */
int state_close(struct state_r *r, struct err *err);
/* Refuses when a mandatory section was never asked for: it belongs to something
 * this VM does not have. */
int state_r_finish(const struct state_r *r, struct err *err);

#endif
