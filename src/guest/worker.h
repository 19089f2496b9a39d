/* SPDX-License-Identifier: MIT */
/*
 * worker.h - the connection inside a forked worker: blocking, one request.
 *
 * A worker owns the connection and reports by it.  When the host is gone there
 * is nobody to report to and nothing to keep: writing to a closed connection
 * ends the process.
 */
#ifndef GUEST_WORKER_H
#define GUEST_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/agent.h"

#define WORKER_CHUNK (32u << 10)

struct worker {
	int fd;			/* owned, blocking */
	struct buf early;	/* bytes that came with the request */
	uint8_t frame[AGENT_FRAME_MAX];	/* the DATA frame being read */
	uint32_t len, at;
	bool ended;		/* EOF was seen */
	uint8_t chunk[AGENT_HEAD + WORKER_CHUNK];	/* DATA being gathered */
	uint32_t fill;
	bool answered;		/* OK was sent */
	char failed[192];	/* what the error is about: a path */
};

/*
 * Up to len bytes of the host's DATA; less only at its end.  A stream that
 * breaks off without EOF ends the worker.
 */
size_t worker_read(struct worker *w, void *data, size_t len);
void worker_write(struct worker *w, const void *data, size_t len);
void worker_flush(struct worker *w);
/* json: results, "{}" without. */
void worker_ok(struct worker *w, const char *json);

/* Remembers what a failure is about; returns -errno as given. */
int worker_fail(struct worker *w, int error, const char *what);

/* tar_write.c: the tree at path as a pax stream, names relative to it ("."). */
int tar_write(struct worker *w, const char *path);

/*
 * tar_read.c: unpacks a stream whose names are relative to root; "." is root
 * itself.  No name leads out of root, through links neither.
 */
int tar_read(struct worker *w, const char *root);

#endif
