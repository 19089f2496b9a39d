/* SPDX-License-Identifier: MIT */
/*
 * transfer.h - files and trees to and from a guest.  For src/lib only.
 *
 * Each call drives one connection on which a request was sent already, and
 * leaves closing it to the caller; shutdown(2) on it from another thread cancels
 * the transfer.  What a guest sends is hostile: it leads to nothing outside of
 * the destination, and sets neither set-id bits nor device nodes on the host.
 */
#ifndef LIB_TRANSFER_H
#define LIB_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/agent.h"

struct err;

struct transfer {
	int fd;				/* borrowed, blocking */
	bool ended;			/* no more DATA will come */
	uint32_t len;			/* of data */
	uint8_t data[AGENT_FRAME_MAX];	/* the last frame */
	uint64_t bytes;			/* of DATA so far */
	struct err *err;		/* borrowed */
	/* may be NULL; negative ends the transfer with that errno */
	int (*progress)(uint64_t bytes, void *arg);
	void *arg;
};

void transfer_init(struct transfer *t, int fd, struct err *err);

/*
 * DATA to the guest; fails at once when the guest has refused.  The guest's
 * errno comes back, with its message in err.
 */
int transfer_send(struct transfer *t, const void *data, size_t len);
/* EOF, and the answer to it. */
int transfer_finish(struct transfer *t);
/* The next DATA into t->data: its length, 0 at EOF, or -errno. */
ssize_t transfer_recv(struct transfer *t);

/* A file or a tree as a tar stream, its names relative to it ("."). */
int transfer_push(struct transfer *t, const char *path);
/*
 * Unpacks the guest's stream at path, which becomes what the guest sends "." for:
 * a file, or a directory, which may exist.  Its parent must exist.
 */
int transfer_pull(struct transfer *t, const char *path);

#endif
