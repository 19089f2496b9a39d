/* SPDX-License-Identifier: MIT */
/*
 * loop.h - the event loop: descriptors, timers, posts from other threads.
 *
 * One thread runs a loop and everything registered with it.  Numbered rules:
 *  1. Every call except loop_post() and loop_stop() is for the loop's thread,
 *     or for any thread while the loop does not run.
 *  2. A struct given to the loop is borrowed until its _del or _cancel returns,
 *     or until its callback begins (timers and posts are one-shot).
 *  3. A callback may add, change or delete anything, itself included; a deleted
 *     descriptor gets no further callback, also within the same wake-up.
 *  4. Posts run in the order they were made by one thread, each exactly once.
 *  5. An idle loop sleeps in epoll_wait without a timeout.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct err;
struct loop;

struct loop_fd {
	int fd;				/* borrowed */
	uint32_t events;		/* EPOLLIN, EPOLLOUT */
	void (*cb)(struct loop_fd *w, uint32_t events);
	/* private */
	struct list node;
	bool added;
};

struct loop_timer {
	void (*cb)(struct loop_timer *t);
	/* private */
	struct list node;		/* sorted by deadline */
	uint64_t deadline;		/* CLOCK_MONOTONIC ns */
};

struct loop_work {
	void (*cb)(struct loop_work *w);
	/* private */
	struct loop_work *next;
	bool queued;
};

struct loop *loop_new(struct err *err);
void loop_free(struct loop *l);

/* Runs until loop_stop(); 0 or -errno when epoll itself fails. */
int loop_run(struct loop *l);
/* Any thread, also a signal handler: the running loop_run() returns soon. */
void loop_stop(struct loop *l);

int loop_add(struct loop *l, struct loop_fd *w);
int loop_mod(struct loop *l, struct loop_fd *w, uint32_t events);
void loop_del(struct loop *l, struct loop_fd *w);

/* t->node must be list_init()ed once before the first use. */
void loop_timer_init(struct loop_timer *t, void (*cb)(struct loop_timer *t));
/* (Re)arms for an absolute CLOCK_MONOTONIC time in ns. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline);
void loop_timer_cancel(struct loop *l, struct loop_timer *t);

/* Any thread.  A work that is queued already is not queued again. */
void loop_post(struct loop *l, struct loop_work *w);
/* Takes a queued work back; fine when it is not queued. */
void loop_unpost(struct loop *l, struct loop_work *w);

#endif
