/* SPDX-License-Identifier: MIT */
/*
 * memfile.h - writing guest RAM into a bundle's memory file.
 */
#ifndef VMM_MEMFILE_H
#define VMM_MEMFILE_H

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct err;
struct mem;

struct memfile_progress {
	/* Called every few MiB; false: nobody wants the file any more. */
	bool (*tell)(struct memfile_progress *p, uint64_t done, uint64_t total);
};

/*
 * Writes all pages of m that are not zero to the empty file fd at their guest
 * addresses, sets its length to m->span, and puts the checksums into sums.
 * Nothing may write m meanwhile.  pages: how many were written.
 */
int memfile_write(const struct mem *m, int fd, struct buf *sums,
		  struct memfile_progress *p, uint64_t *pages, struct err *err);

#endif
