// SPDX-License-Identifier: MIT
/*
 * codemem.c - the code area: two views of a memfd, and copy-on-write between VMs.
 *
 * One view is writable, one executable, no page is ever both.  Both are shared
 * mappings, for private ones cannot see each other's writes; so fork(2) does not
 * make copies of them, and a sibling that wrote into what it inherited would write
 * the code that its source runs.  Therefore copying on write is done here:
 *
 *	share	before the fork: the memfd is sealed against writing and its
 *		writable view is replaced by nothing.  Its executable view cannot
 *		be made writable either, being of a descriptor that only reads, or
 *		mapped anew after the seal.  So whatever goes wrong in one VM's
 *		process, it cannot change what another one executes.
 *	own	a chunk that is to be written is copied into a memfd of this
 *		process and mapped over both views.
 *
 * A chunk in rx comes from the memfd of this process or from one of an ancestor,
 * always at its own offset, so chunks beside each other make one mapping again.
 *
 * #syscalls memfd_create ftruncate mmap munmap madvise fcntl openat
 */
#include "vmm/soft/codemem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"

#ifndef F_SEAL_FUTURE_WRITE	/* Linux 5.1 */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* --- views ------------------------------------------------------------------ */

static bool map_at(const uint8_t *at, size_t len, int prot, int fd, size_t off)
{
	int flags = MAP_FIXED | MAP_NORESERVE |
		    (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	void *p = mmap((void *)(uintptr_t)at, len, prot, flags, fd,
		       fd < 0 ? 0 : (off_t)off);

	return p != MAP_FAILED;
}

static bool map_rw(struct codemem *c, size_t off, size_t len)
{
	return map_at(c->rw + off, len, PROT_READ | PROT_WRITE, c->fd, off);
}

static bool map_rx(struct codemem *c, size_t off, size_t len)
{
	return map_at(c->rx + off, len, PROT_READ | PROT_EXEC,
		      c->ro_fd < 0 ? c->fd : c->ro_fd, off);
}

/*
 * A mapping of this one cannot be made writable, so nothing has to be mapped anew in
 * the pause of a fork.  -1 in a sandbox that lets no file be opened.
 */
static int open_read_only(int fd)
{
	char path[32] = "/proc/self/fd/", digits[12];
	unsigned at = 14, n = 0;

	do
		digits[n++] = '0' + fd % 10;
	while ((fd /= 10));
	while (n)
		path[at++] = digits[--n];
	path[at] = '\0';
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_file(struct codemem *c)
{
	int fd = memfd_create("machinen-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)c->size) < 0) {
		close(fd);
		return -ENOMEM;
	}
	c->fd = fd;
	c->ro_fd = open_read_only(fd);
	return 0;
}

static void close_file(struct codemem *c)
{
	close(c->fd);
	if (c->ro_fd >= 0)
		close(c->ro_fd);
	c->fd = c->ro_fd = -1;
}

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Nothing is shared yet, so nobody looks at own[]. */
static void begin(struct codemem *c, size_t size)
{
	c->rw = NULL;
	c->rx = NULL;
	c->data = NULL;
	c->size = size;
	c->data_size = 0;
	c->shared = 0;
	c->tail = c->stuck = false;
	c->fd = c->ro_fd = -1;
}

static bool map_data(struct codemem *c)
{
	c->data = (uint8_t *)(uintptr_t)c->rx + c->size;
	return !c->data_size || map_at(c->data, c->data_size, PROT_READ | PROT_WRITE, -1, 0);
}

int codemem_init(struct codemem *c, size_t size, size_t data)
{
	int ret;

	begin(c, size);
	c->data_size = data;
	c->rw = reserve(size);
	c->rx = reserve(size + data);
	ret = c->rw && c->rx ? open_file(c) : -ENOMEM;
	if (!ret && (!map_rw(c, 0, size) || !map_rx(c, 0, size) || !map_data(c)))
		ret = -ENOMEM;
	return ret;
}

void codemem_done(struct codemem *c)
{
	if (c->rw)
		munmap(c->rw, c->size);
	if (c->rx)
		munmap((void *)(uintptr_t)c->rx, c->size + c->data_size);
	if (c->size && c->fd >= 0)
		close_file(c);
	begin(c, 0);
}

/* --- chunks ------------------------------------------------------------------- */

static bool is_own(const struct codemem *c, size_t off)
{
	size_t k = off / CODEMEM_CHUNK;

	if (off >= c->shared)
		return !c->tail;
	return c->own[k / 64] >> (k % 64) & 1;
}

static void set_own(struct codemem *c, size_t off, bool own)
{
	size_t k = off / CODEMEM_CHUNK;
	uint64_t bit = 1ull << (k % 64);

	c->own[k / 64] = own ? c->own[k / 64] | bit : c->own[k / 64] & ~bit;
}

/* [off, off + len), empty, in both views. */
static bool map_fresh(struct codemem *c, size_t off, size_t len)
{
	return (c->fd >= 0 || open_file(c) == 0) && map_rw(c, off, len) &&
	       map_rx(c, off, len);
}

static bool own_chunk(struct codemem *c, size_t off)
{
	size_t n = CODEMEM_CHUNK / 8;
	const uint8_t *from = c->rx + off;
	uint8_t *to = c->rw + off;

	if (off >= c->shared) {
		if (!map_fresh(c, c->shared, c->size - c->shared))
			return false;
		c->tail = false;
		return true;
	}
	if ((c->fd < 0 && open_file(c)) || !map_rw(c, off, CODEMEM_CHUNK))
		return false;
	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	if (!map_rx(c, off, CODEMEM_CHUNK))
		return false;
	set_own(c, off, true);
	return true;
}

bool codemem_own(struct codemem *c, size_t off, size_t len)
{
	size_t at = ALIGN_DOWN(off, (size_t)CODEMEM_CHUNK);

	if (!c->shared && !c->tail)
		return true;
	for (; at < off + len && at < c->size; at += CODEMEM_CHUNK)
		if (!is_own(c, at) && !own_chunk(c, at))
			return false;
	return true;
}

bool codemem_fault(struct codemem *c, const void *addr)
{
	size_t off = (size_t)((uintptr_t)addr - (uintptr_t)c->rw);

	return off < c->size && !is_own(c, off) &&
	       own_chunk(c, ALIGN_DOWN(off, (size_t)CODEMEM_CHUNK));
}

/* Page tables of rw are emptied here, where nobody waits, not in the pause of a
 * fork: half a microsecond a page. */
void codemem_settle(struct codemem *c, size_t off, size_t len)
{
	madvise(c->rw + off, len, MADV_DONTNEED);
}

void codemem_renew(struct codemem *c, size_t off)
{
	off = ALIGN_UP(off, (size_t)CODEMEM_CHUNK);
	if ((!c->shared && !c->tail) || off >= c->shared)
		return;
	if (!map_fresh(c, off, c->size - off))
		return;		/* chunk by chunk, then */
	c->shared = off;
	c->tail = false;
}

/* --- sharing ------------------------------------------------------------------- */

static int seal(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW |
		     F_SEAL_SHRINK | F_SEAL_SEAL) < 0 ? -errno : 0;
}

/* What of [0, end) is our own, mapped once more, since it is sealed now. */
static bool remap_own(struct codemem *c, size_t end)
{
	for (size_t at = 0, next; at < end; at = next) {
		bool own = is_own(c, at);

		for (next = at; next < end && is_own(c, next) == own;)
			next += CODEMEM_CHUNK;
		if (own && !map_rx(c, at, next - at))
			return false;
	}
	return true;
}

int codemem_share(struct codemem *c, size_t used)
{
	size_t end = ALIGN_UP(used, (size_t)CODEMEM_CHUNK);
	int ret;

	if (c->fd < 0)		/* nothing is our own */
		return c->stuck ? -ENOMEM : 0;
	ret = seal(c->fd);
	if (ret)
		return ret;
	c->stuck = (c->ro_fd < 0 && !remap_own(c, end)) ||
		   !map_at(c->rw, c->size, PROT_NONE, -1, 0);
	close_file(c);
	if (c->stuck)
		return -ENOMEM;
	for (size_t at = 0; at < end; at += CODEMEM_CHUNK)
		set_own(c, at, false);
	c->shared = end;
	c->tail = true;
	return 0;
}
