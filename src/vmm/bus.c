// SPDX-License-Identifier: MIT
/*
 * bus.c - a sorted array of regions.  Built once, looked up by binary search.
 */
#include "vmm/bus.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"

/* Index of the first region that begins above addr. */
static unsigned upper(const struct bus *b, uint64_t addr)
{
	unsigned lo = 0, hi = b->nr;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (b->region[mid].base <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bus_add(struct bus *b, const struct bus_region *r, struct err *err)
{
	unsigned at = upper(b, r->base);
	const struct bus_region *prev = at ? &b->region[at - 1] : NULL;
	const struct bus_region *next = at < b->nr ? &b->region[at] : NULL;
	uint64_t end;

	if (!r->size || __builtin_add_overflow(r->base, r->size, &end))
		return err_set(err, EINVAL, "region %s has no sensible size", r->name);
	if (prev && r->base - prev->base < prev->size)
		return err_set(err, EEXIST, "region %s overlaps %s", r->name, prev->name);
	if (next && next->base < end)
		return err_set(err, EEXIST, "region %s overlaps %s", r->name, next->name);
	if (b->nr == BUS_MAX_REGIONS)
		return err_set(err, ENOSPC, "no room for region %s", r->name);
	memmove(&b->region[at + 1], &b->region[at],
		(b->nr - at) * sizeof(b->region[0]));
	b->region[at] = *r;
	b->nr++;
	return 0;
}

const struct bus_region *bus_find(const struct bus *b, uint64_t addr, unsigned len)
{
	unsigned at = upper(b, addr);
	const struct bus_region *r = at ? &b->region[at - 1] : NULL;

	if (!r || addr - r->base >= r->size || len > r->size - (addr - r->base))
		return NULL;
	if (len < r->min_len || len > r->max_len || !len || len & (len - 1) ||
	    addr & (len - 1))
		return NULL;
	return r;
}
