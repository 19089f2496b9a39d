/* SPDX-License-Identifier: MIT */
/*
 * bus.h - address spaces that are not RAM: port I/O and MMIO.
 *
 * A region is described by value; the bus enforces its bounds and the sizes it
 * accepts.  Reads of nothing give all ones, writes to nothing are dropped, both
 * logged once: a guest probes what it likes.  Regions are added while the VM is
 * built and never removed, so look-ups need no lock; handlers run under vm->lock
 * except where `unlocked` says that they may do without.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct err;

#define BUS_MAX_REGIONS 64

struct bus_region {
	const char *name;	/* borrowed, static */
	uint64_t base, size;
	uint8_t min_len, max_len;	/* bytes of one access; naturally aligned */
	uint64_t (*read)(void *dev, uint64_t off, unsigned len);
	void (*write)(void *dev, uint64_t off, unsigned len, uint64_t val);
	void *dev;		/* borrowed */
	bool (*unlocked)(uint64_t off);	/* NULL: nowhere */
};

struct bus {
	struct bus_region region[BUS_MAX_REGIONS];	/* sorted by base */
	unsigned nr;
	_Atomic bool stray_logged;
};

/* -EEXIST when it overlaps another, -ENOSPC when full. */
int bus_add(struct bus *b, const struct bus_region *r, struct err *err);
/* NULL when [addr, addr + len) is not wholly in a region or len is refused. */
const struct bus_region *bus_find(const struct bus *b, uint64_t addr, unsigned len);

#endif
