/* SPDX-License-Identifier: MIT */
/* format.h - the layer file, byte by byte (docs/image.md).  For src/layer alone. */
#ifndef LAYER_FORMAT_H
#define LAYER_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define FMT_PAGE	 4096u
#define FMT_RECORD_OFF	 4096u		/* page 1 */
#define FMT_RECORD_LEN	 64u		/* inside one sector, so never torn */
#define FMT_MAP_OFF	 8192u
#define FMT_SLOT_HEAD	 64u
#define FMT_PAYLOAD	 (FMT_PAGE - FMT_SLOT_HEAD)	/* map bytes a page */
#define FMT_PAGE_BITS	 (FMT_PAYLOAD * 8u)		/* clusters a page */
#define FMT_DURABLE_OFF	 8u		/* in a slot: outside of its sum */

enum fmt_parent { FMT_PARENT_RAW = 1, FMT_PARENT_LAYER = 2 };

struct fmt_header {
	uint64_t size;
	uint8_t uuid[16];
	enum fmt_parent parent;
	uint8_t parent_id[16];
	/* derived */
	uint64_t clusters;
	uint32_t map_pages;
	uint64_t data_off;
};

/* What a layer at rest says about its map; absent while it is written. */
struct fmt_record {
	bool present;
	bool sealed;
	uint32_t map_sum;
};

struct fmt_slot {
	bool blank;		/* never written */
	bool valid;
	bool durable;
	uint64_t seq;
	uint8_t boot_id[16];
};

/* Checks size and fills in what follows from it; -EINVAL. */
int fmt_derive(struct fmt_header *h);
void fmt_header_print(const struct fmt_header *h, uint8_t page[FMT_PAGE]);
int fmt_header_read(struct fmt_header *h, int fd, struct err *err);

void fmt_record_print(const struct fmt_record *r, uint8_t rec[FMT_RECORD_LEN]);
int fmt_record_read(struct fmt_record *r, int fd, struct err *err);

/* Payload is in place already; fills in the head. */
void fmt_slot_print(uint8_t page[FMT_PAGE], uint32_t index,
		    const struct fmt_slot *s);
void fmt_slot_parse(struct fmt_slot *s, const uint8_t page[FMT_PAGE],
		    uint32_t index);
static inline uint64_t fmt_slot_off(uint32_t index, unsigned slot)
{
	return FMT_MAP_OFF + (2ull * index + slot) * FMT_PAGE;
}

/* Identity of a raw base: its size and sums of samples of it. */
int fmt_raw_id(int fd, uint8_t id[16], uint64_t *size, struct err *err);
/* Of this boot of the host; zeroes where the kernel does not tell. */
void fmt_boot_id(uint8_t id[16]);
uint32_t fmt_sum(const void *data, size_t len);

#endif
