/* SPDX-License-Identifier: MIT */
/*
 * codemem.h - memory for host code: writable at one address, executable at
 * another, never both at one; and shared with siblings that a fork of the VMM
 * makes.  src/vmm/soft alone includes it.
 */
#ifndef SOFT_CODEMEM_H
#define SOFT_CODEMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CODEMEM_MAX	(256u << 20)
#define CODEMEM_CHUNK	(4u << 10)	/* what becomes one's own at once */

struct codemem {
	uint8_t *rw;		/* owned; without access where not our own */
	const uint8_t *rx;	/* owned */
	uint8_t *data;		/* part of rx's mapping: ordinary memory near the code */
	size_t size, data_size;
	size_t shared;		/* below this some chunks are not our own */
	bool tail;		/* and above it none is, until the first is wanted */
	bool stuck;		/* a share failed half-way: no more of them */
	int fd;			/* owned: what we write into; -1: none yet */
	int ro_fd;		/* owned: the same for reading; -1: cannot be had */
	uint64_t own[CODEMEM_MAX / CODEMEM_CHUNK / 64];	/* a bit a chunk */
};

/*
 * size: a multiple of the chunk; data: bytes of private memory behind rx, of pages.
 * -errno; done also takes what init left.
 */
int codemem_init(struct codemem *c, size_t size, size_t data);
void codemem_done(struct codemem *c);
/*
 * Before a fork(2): the first `used` bytes become what parent and child share, which
 * neither can write any more, and the rest is empty for both.  A struct that is
 * copied into the child goes on there.  -errno; the area is whole then too.
 */
int codemem_share(struct codemem *c, size_t used);
/* [off, off + len) can be written through rw.  False: no memory. */
bool codemem_own(struct codemem *c, size_t off, size_t len);
/* [off, off + len) is written, and will be changed but here and there. */
void codemem_settle(struct codemem *c, size_t off, size_t len);
/* The content from `off` on is wanted no more: all of it is our own. */
void codemem_renew(struct codemem *c, size_t off);
/*
 * From a SIGSEGV handler: a write at `addr` that hit what is not our own yet can be
 * tried again.
 */
bool codemem_fault(struct codemem *c, const void *addr);

#endif
