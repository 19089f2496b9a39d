// SPDX-License-Identifier: MIT
/*
 * mem.c - guest RAM: one reservation, private pages in it.
 *
 *	guard | 0 … 3 GiB RAM | hole | 4 GiB … RAM | guard
 *	      ^ base
 *
 * The whole range is reserved without access first; RAM is mapped over it.  The
 * hole and the guards stay without access, so an address computed wrongly in
 * this process faults instead of reaching something else.
 *
 * Pages are private and not reserved from swap: a VM costs what it touched.
 * Huge pages are asked for on memory that starts empty.  They make the page
 * tables that fork(2) has to copy five hundred times smaller, which is most of
 * the pause of a snapshot, and spare TLB misses.  On a bundle's memory they would
 * do harm: file pages stay shared between clones at 4 KiB a touched page.
 */
#include "vmm/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "vmm/limits.h"

#define HUGE	(2 * MIB)	/* alignment of base, for huge pages */
#define GUARD	HUGE

static void lay_out(struct mem *m, uint64_t size)
{
	uint64_t low = MIN(size, MEM_LOW_END);

	m->size = size;
	m->range[m->nr_ranges++] = (struct mem_range){ 0, low };
	m->span = low;
	if (size > low) {
		m->range[m->nr_ranges++] =
			(struct mem_range){ MEM_HIGH_START, size - low };
		m->span = MEM_HIGH_START + (size - low);
	}
}

/* A file shorter than RAM would turn guest accesses into SIGBUS. */
static int check_file(const struct mem *m, int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, errno, "cannot stat the bundle's memory file");
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != m->span)
		return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
				"the bundle's memory file has %lld bytes, not %llu",
				(long long)st.st_size, (unsigned long long)m->span);
	return 0;
}

static int map_range(struct mem *m, const struct mem_range *r, int fd, struct err *err)
{
	int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
	void *p = m->base + r->start;

	if (fd < 0)
		flags |= MAP_ANONYMOUS;
	if (mmap(p, r->len, PROT_READ | PROT_WRITE, flags, fd,
		 fd < 0 ? 0 : (off_t)r->start) == MAP_FAILED)
		return err_set(err, errno, "cannot map guest memory");
	madvise(p, r->len, MADV_DONTDUMP);
	if (fd < 0)
		madvise(p, r->len, MADV_HUGEPAGE);
	return 0;
}

/* Reserves guard, span, guard, with the span aligned; what is over goes back. */
static int reserve(struct mem *m, struct err *err)
{
	uint64_t len = m->span + 2 * GUARD;
	uintptr_t p, start;
	void *map = mmap(NULL, len + HUGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return err_set(err, errno, "no address space for guest memory");
	p = (uintptr_t)map;
	start = ALIGN_UP(p, HUGE);
	if (start > p)
		munmap(map, start - p);
	if (p + HUGE > start)
		munmap((void *)(start + len), p + HUGE - start);
	m->base = (uint8_t *)start + GUARD;
	return 0;
}

int mem_init(struct mem *m, uint64_t size, int bundle_fd, struct err *err)
{
	int ret = 0;

	*m = (struct mem){ .file_fd = -1 };
	if (size % PAGE_SIZE || size < LIMIT_MEMORY_MIN_MIB * MIB ||
	    size > LIMIT_MEMORY_MAX_MIB * MIB)
		return err_code(err, ERR_BOOT_MEMORY_INVALID, EINVAL,
				"%llu bytes of memory: must be whole pages, %u to %u MiB",
				(unsigned long long)size, LIMIT_MEMORY_MIN_MIB,
				LIMIT_MEMORY_MAX_MIB);
	lay_out(m, size);
	if (bundle_fd >= 0)
		ret = check_file(m, bundle_fd, err);
	if (!ret)
		ret = reserve(m, err);
	for (unsigned i = 0; i < m->nr_ranges && !ret; i++)
		ret = map_range(m, &m->range[i], bundle_fd, err);
	if (!ret && bundle_fd >= 0)
		m->file_fd = fcntl(bundle_fd, F_DUPFD_CLOEXEC, 0);
	if (!ret && bundle_fd >= 0 && m->file_fd < 0)
		ret = err_set(err, errno, "cannot keep the bundle's memory file");
	if (ret)
		mem_done(m);
	return ret;
}

void mem_done(struct mem *m)
{
	if (m->code)
		munmap(m->code, m->span >> PAGE_SHIFT);
	if (m->base)
		munmap(m->base - GUARD, m->span + 2 * GUARD);
	if (m->base)
		io_close(m->file_fd);
	*m = (struct mem){ .file_fd = -1 };
}

void mem_move(struct mem *to, struct mem *from)
{
	/* A code map is not inherited by a child, or it belongs to the VM left. */
	*to = *from;
	to->code = NULL;
	to->code_hit = NULL;
	to->code_arg = NULL;
	*from = (struct mem){ .file_fd = -1 };
}

/* Mapped, not allocated: a page of the array covers 16 MiB, few are touched. */
int mem_track_code(struct mem *m, struct err *err)
{
	void *p = mmap(NULL, m->span >> PAGE_SHIFT, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return err_set(err, errno, "no memory for the code map");
	madvise(p, m->span >> PAGE_SHIFT, MADV_DONTFORK);
	m->code = p;
	return 0;
}

void mem_wrote(struct mem *m, gpa_t gpa, uint64_t len)
{
	uint64_t first, last;

	if (!m->code || !len || !mem_ptr(m, gpa, len))
		return;
	/*
	 * Orders the device's write before the look at the map.  Pairs with the
	 * software CPU, which marks a page before it reads code from it: either
	 * we see the mark, or it sees the new bytes.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	first = gpa >> PAGE_SHIFT;
	last = (gpa + len - 1) >> PAGE_SHIFT;
	for (uint64_t page = first; page <= last; page++) {
		if (!__atomic_load_n(&m->code[page], __ATOMIC_RELAXED))
			continue;
		m->code_hit(m->code_arg, gpa, len);
		return;
	}
}

bool mem_read(const struct mem *m, gpa_t gpa, void *dst, size_t len)
{
	const void *p = mem_ptr(m, gpa, len);

	if (p)
		memcpy(dst, p, len);
	else
		memset(dst, 0, len);
	return p;
}

bool mem_write(struct mem *m, gpa_t gpa, const void *src, size_t len)
{
	void *p = mem_ptr(m, gpa, len);

	if (!p)
		return false;
	memcpy(p, src, len);
	mem_wrote(m, gpa, len);
	return true;
}

/* Private pages of a bundle's file come back as the file has them, others zeroed:
 * both are content the guest once had, or none. */
void mem_discard(struct mem *m, gpa_t gpa, uint64_t len)
{
	gpa_t from = ALIGN_UP(gpa, (gpa_t)PAGE_SIZE);
	gpa_t to = ALIGN_DOWN(gpa + len, (gpa_t)PAGE_SIZE);

	if (!mem_ptr(m, gpa, len) || from >= to)
		return;
	madvise(m->base + from, to - from, MADV_DONTNEED);
	mem_wrote(m, from, to - from);
}
