/* SPDX-License-Identifier: MIT */
/*
 * layer.h - copy-on-write disk layers (docs/image.md).
 *
 * A layer is one sparse file: header, allocation map, and a place for every
 * 4 KiB cluster of the disk, filled as clusters are written.  A stack is a raw
 * base file with layers on it; only the top one is written.  Knows files alone,
 * so the VMM's disks, the library and the tests share it.
 *
 * Threads: a stack may be read, written, discarded and flushed by several
 * threads at once, as a disk would be; overlapping requests have no order.
 * layer_seal needs it to itself but for layer_merge, layer_stack_free entirely.
 *
 * All return 0 or -errno; -EBADMSG means a damaged or foreign file.  Offsets and
 * lengths are bytes, multiples of 512, inside the size.
 */
#ifndef LAYER_LAYER_H
#define LAYER_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct layer_stack;

#define LAYER_CLUSTER	4096u
#define LAYER_MAX_DEPTH	64u
#define LAYER_SIZE_MAX	(1ull << 44)

/*
 * Makes an empty file (fd) a fresh layer over `parent_fd`: the raw base, or
 * the layer that is the top so far.  size 0: that of the parent.  Takes no
 * descriptor over; nothing is synced, the first flush does that.
 */
int layer_create(int fd, int parent_fd, bool parent_is_raw, uint64_t size,
		 struct err *err);

/* The only ways in which a stack changes files; tests put themselves between. */
struct layer_io {
	int (*pwritev)(void *arg, int fd, const struct iovec *iov, unsigned nr,
		       uint64_t off);
	int (*sync)(void *arg, int fd);
	int (*punch)(void *arg, int fd, uint64_t off, uint64_t len);
	void *arg;
};

extern const struct layer_io layer_plain_io;	/* system calls */

/*
 * fd[0] is the raw base, fd[nr-1] the top.  Takes the descriptors over, also
 * on failure.  size 0: as the top says.  io NULL: plain system calls.
 */
struct layer_stack *layer_stack_open(const int *fd, unsigned nr, uint64_t size,
				     bool readonly, const struct layer_io *io,
				     struct err *err);
/* Flushes, marks the top as cleanly closed, closes all. */
void layer_stack_free(struct layer_stack *s);

uint64_t layer_stack_size(const struct layer_stack *s);
unsigned layer_stack_depth(const struct layer_stack *s);	/* base included */

int layer_read(struct layer_stack *s, const struct iovec *iov, unsigned nr,
	       uint64_t off);
int layer_write(struct layer_stack *s, const struct iovec *iov, unsigned nr,
		uint64_t off);
/* Reads as zeroes after; whole clusters give their space back. */
int layer_discard(struct layer_stack *s, uint64_t off, uint64_t len);
/* All that was written before is durable after, in all layers. */
int layer_flush(struct layer_stack *s);
/*
 * The top becomes read-only, new_fd (an empty file, owned by the stack on
 * success) the new top.  Does not wait for the disk: the sealed file may be
 * opened by others on this host at once, and is durable after the next flush.
 */
int layer_seal(struct layer_stack *s, int new_fd, struct err *err);

/*
 * Merges a run of sealed layers that is worth it into out_fd, an empty file that
 * is borrowed, and puts it in their place: merge.c.  *first is the lowest of them
 * (1 lies on the base) and *nr their number, 0 when none is worth it.  Durable when
 * it returns; on failure nothing has changed.  Any thread, beside everything but
 * layer_stack_free and another merge.  io as in layer_stack_open; an error of its
 * functions ends the merge.
 */
int layer_merge(struct layer_stack *s, int out_fd, const struct layer_io *io,
		unsigned *first, unsigned *nr, struct err *err);

/*
 * Brings a sealed layer to rest: durable, and its bytes final.  Its stack does so
 * at its next flush; both may, they write the same.  Borrows fd, open for writing
 * unless the layer is at rest already.
 */
int layer_rest(int fd, struct err *err);

struct layer_info {
	uint64_t size;
	uint64_t allocated;	/* bytes in clusters of its own */
	bool sealed;
	bool clean;		/* sealed or closed, so checked against its sum */
	uint8_t uuid[16];
};

/* Opens, checks and describes one layer; borrows fd. */
int layer_inspect(int fd, struct layer_info *out, struct err *err);

#endif
