// SPDX-License-Identifier: MIT
/*
 * memfile.c - guest RAM into a sparse file.
 *
 * A chunk of 2 MiB at a time: which of its pages may hold something, which of
 * those are not zero, their digest, their bytes in as few writes as they have
 * gaps.
 *
 * "May hold something" is asked of mincore(2).  A page of private memory that
 * is not resident was never touched and reads as zero, or as the bundle's data
 * where memory is mapped from one, or it was swapped out.  Only the last cannot
 * be told apart, so mincore is believed as long as the host has nothing swapped
 * out at all, which is asked afterwards: what was swapped out before the mincore
 * call still is then, or came back for somebody who faulted it in, and nobody but
 * us uses this memory now.
 *
 * #syscalls mincore sysinfo ftruncate pwrite64 lseek
 */
#include "vmm/memfile.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "proto/memsum.h"
#include "vmm/mem.h"

_Static_assert(MEMSUM_PAGE == PAGE_SIZE, "one page size");

#define TELL_EVERY (16 * MIB)

struct job {
	const struct mem *mem;
	int fd;
	struct buf *sums;
	uint64_t pages;
};

static bool swap_in_use(void)
{
	struct sysinfo si;

	return sysinfo(&si) < 0 || si.totalswap != si.freeswap;
}

/* Does the bundle that memory came from have data in the chunk? */
static bool file_has_data(const struct mem *m, uint64_t off)
{
	off_t next;

	if (m->file_fd < 0)
		return false;
	next = lseek(m->file_fd, off, SEEK_DATA);
	return next < 0 ? errno != ENXIO : (uint64_t)next < off + MEMSUM_CHUNK;
}

/* Marks pages of [off, off + len) that may hold something. */
static void find_touched(const struct mem *m, uint64_t off, uint64_t len, uint8_t *used)
{
	memset(used, 0, MEMSUM_PAGES);
	if (mincore(m->base + off, len, used) < 0 || swap_in_use() ||
	    file_has_data(m, off))
		memset(used, 1, len / PAGE_SIZE);
}

static int write_runs(struct job *j, uint64_t off, const uint8_t *used)
{
	const uint8_t *data = j->mem->base + off;
	unsigned i = 0;
	int ret = 0;

	while (i < MEMSUM_PAGES && !ret) {
		unsigned end = i;

		while (end < MEMSUM_PAGES && used[end])
			end++;
		if (end > i)
			ret = io_pwrite_full(j->fd, data + (size_t)i * PAGE_SIZE,
					     (size_t)(end - i) * PAGE_SIZE,
					     off + (uint64_t)i * PAGE_SIZE);
		j->pages += end - i;
		i = end + 1;
	}
	return ret;
}

static int write_chunk(struct job *j, uint64_t off, uint64_t len)
{
	const uint8_t *data = j->mem->base + off;
	uint8_t used[MEMSUM_PAGES];
	bool any = false;
	int ret;

	find_touched(j->mem, off, len, used);
	for (unsigned i = 0; i < len / PAGE_SIZE; i++) {
		used[i] = used[i] & 1 && !memsum_zero(data + (size_t)i * PAGE_SIZE);
		any |= used[i];
	}
	if (!any)
		return 0;
	ret = memsum_add(j->sums, off / MEMSUM_CHUNK, data, used);
	return ret ? ret : write_runs(j, off, used);
}

int memfile_write(const struct mem *m, int fd, struct buf *sums,
		  struct memfile_progress *p, uint64_t *pages, struct err *err)
{
	struct job j = { .mem = m, .fd = fd, .sums = sums };
	uint64_t done = 0, told = 0;
	int ret = ftruncate(fd, m->span) < 0 ? -errno : 0;

	memsum_begin(sums, m->span);
	for (unsigned r = 0; r < m->nr_ranges; r++) {
		const struct mem_range *range = &m->range[r];

		for (uint64_t off = 0; off < range->len && !ret; off += MEMSUM_CHUNK) {
			uint64_t len = MIN(range->len - off, (uint64_t)MEMSUM_CHUNK);

			ret = write_chunk(&j, range->start + off, len);
			done += len;
			if (ret || (done - told < TELL_EVERY && done < m->size))
				continue;
			told = done;
			if (p && !p->tell(p, done, m->size))
				ret = -ECANCELED;
		}
	}
	*pages = j.pages;
	if (ret)
		return err_code(err, ret == -ENOSPC || ret == -EDQUOT ? ERR_HOST_NO_SPACE :
				ERR_SNAPSHOT_DUMP_FAILED, -ret,
				"cannot write the memory file after %llu MiB: %s",
				(unsigned long long)(j.pages * PAGE_SIZE / MIB),
				strerror(-ret));
	return 0;
}
