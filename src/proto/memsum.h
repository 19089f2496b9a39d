/* SPDX-License-Identifier: MIT */
/*
 * memsum.h - checksums of a bundle's memory file (docs/snapshot.md, "sums").
 *
 * The VMM makes them while it writes the file, the library checks the file against
 * them.  A digest covers the pages that are not zero, so holes do not matter.
 */
#ifndef PROTO_MEMSUM_H
#define PROTO_MEMSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

#define MEMSUM_PAGE	4096u
#define MEMSUM_CHUNK	(2u << 20)
#define MEMSUM_PAGES	(MEMSUM_CHUNK / MEMSUM_PAGE)

bool memsum_zero(const void *page);

/* Writes the header, with no entries yet. */
void memsum_begin(struct buf *out, uint64_t span);
/*
 * Adds the entry of one chunk; chunks come in ascending order.  used: one byte a
 * page, non-zero for those that are not zero, which alone are looked at.
 */
int memsum_add(struct buf *out, uint32_t chunk, const void *data, const uint8_t *used);

struct memsum_watch {
	/* Called after each chunk; false gives up with -ECANCELED. */
	bool (*step)(struct memsum_watch *w, uint64_t done, uint64_t span);
};

/*
 * Checks the file behind fd against the table.  SNAPSHOT_DAMAGED with the offset
 * of the first bad chunk.  `w` and `pages` (of them that are not zero: how many)
 * may be NULL.
 */
int memsum_verify(int fd, const void *table, size_t len, struct memsum_watch *w,
		  uint64_t *pages, struct err *err);

#endif
