/* SPDX-License-Identifier: MIT */
/*
 * pool.h - a few threads for blocking file I/O.
 *
 * A job's run() is called on a pool thread and may touch the job alone; its
 * done() is called on the loop's thread afterwards.  The job is borrowed from
 * pool_submit() until done() begins.  Threads are started on first use and
 * block all signals.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/list.h"
#include "base/loop.h"

struct err;
struct pool;

struct pool_job {
	void (*run)(struct pool_job *job);
	void (*done)(struct pool_job *job);
	/* private */
	struct list node;
};

/* `l` is borrowed and must outlive the pool. */
struct pool *pool_new(struct loop *l, unsigned max_threads, struct err *err);
/* Waits for running jobs; their done() is not called any more. */
void pool_free(struct pool *p);
/* The loop's thread. */
void pool_submit(struct pool *p, struct pool_job *job);
/*
 * The loop's thread: waits until no job is queued or running and every done()
 * has been called (they are called from here).
 */
void pool_drain(struct pool *p);

#endif
