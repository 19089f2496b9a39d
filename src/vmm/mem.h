/* SPDX-License-Identifier: MIT */
/*
 * mem.h - guest RAM.
 *
 * Layout: below 3 GiB from address 0, the rest from 4 GiB up.  Both lie at
 * `base + gpa` in one reserved range of the VMM's address space, private
 * (anonymous, or a bundle's memory file mapped MAP_PRIVATE at the same offsets),
 * so that fork(2) freezes it copy-on-write.
 *
 * mem_ptr() is the only way from a guest address to a pointer and takes the
 * length with it.  The guest changes memory at any time: copy first, then check.
 *
 * Anything but the vCPUs that writes guest memory calls mem_wrote() afterwards;
 * the software CPU hangs its translated-code invalidation on it.
 */
#ifndef VMM_MEM_H
#define VMM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

typedef uint64_t gpa_t;

#define PAGE_SIZE	4096u
#define PAGE_SHIFT	12
#define MEM_LOW_END	0xc0000000ull	/* 3 GiB: the hole for devices */
#define MEM_HIGH_START	0x100000000ull
#define MEM_RANGES_MAX	2

struct mem_range {
	gpa_t start;
	uint64_t len;
};

struct mem {
	uint8_t *base;		/* owned: host address of gpa 0 */
	uint64_t span;		/* bytes reserved from base */
	uint64_t size;		/* bytes of RAM */
	struct mem_range range[MEM_RANGES_MAX];
	unsigned nr_ranges;
	int file_fd;		/* owned: the bundle's memory file, or -1 */

	/* One byte a page, index gpa >> PAGE_SHIFT: non-zero while the software
	 * CPU holds decoded or translated code of it.  Owned; NULL unless
	 * mem_track_code() was called.  Atomic accesses only. */
	uint8_t *code;
	/* Called by mem_wrote() when a page of the range has code; any thread. */
	void (*code_hit)(void *arg, gpa_t gpa, uint64_t len);
	void *code_arg;
};

/* bundle_fd (borrowed): memory file of a bundle to start from, or -1 for zeroes. */
int mem_init(struct mem *m, uint64_t size, int bundle_fd, struct err *err);
void mem_done(struct mem *m);	/* zeroed or after mem_init() only */
/* In a child of fork(2): takes the memory of the VM left behind, without its code
 * map, which children do not have. */
void mem_move(struct mem *to, struct mem *from);
/* Makes the `code` array, zeroed; the caller fills in code_hit and code_arg. */
int mem_track_code(struct mem *m, struct err *err);

/* NULL unless [gpa, gpa + len) lies in one RAM range.  len may be 0. */
static inline void *mem_ptr(const struct mem *m, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < m->nr_ranges; i++) {
		const struct mem_range *r = &m->range[i];

		if (gpa >= r->start && gpa - r->start <= r->len &&
		    len <= r->len - (gpa - r->start))
			return m->base + gpa;
	}
	return NULL;
}

/* Tells the software CPU that a device wrote [gpa, gpa + len).  Any thread. */
void mem_wrote(struct mem *m, gpa_t gpa, uint64_t len);

/*
 * Gives the whole pages within [gpa, gpa + len) back to the host; their content is
 * undefined after.  Nothing happens when the range is not wholly in RAM.
 */
void mem_discard(struct mem *m, gpa_t gpa, uint64_t len);

/* Copies; false (and zeroed dst) when not wholly in RAM. */
bool mem_read(const struct mem *m, gpa_t gpa, void *dst, size_t len);
/* Copies and calls mem_wrote(). */
bool mem_write(struct mem *m, gpa_t gpa, const void *src, size_t len);

#endif
