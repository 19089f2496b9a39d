/* SPDX-License-Identifier: MIT */
/*
 * aside.h - a thread for long work beside the guest: of low priority, and one that a
 * snapshot can hold.
 *
 * A child of fork(2) must not find a library's lock taken by a thread that it does
 * not have, and the pause must not wait for work that can wait.  So such a thread
 * says when it is at work, and a freeze holds it, before its pause begins, where it
 * is not: between two pieces of work, or in a system call.
 *
 * aside_enter and aside_leave are the thread's own; the rest is the loop thread's.
 * Pool jobs are for what a freeze waits for; this is for all else.
 */
#ifndef VMM_ASIDE_H
#define VMM_ASIDE_H

#include <pthread.h>
#include <stdbool.h>

struct err;

struct aside {
	/* On the thread, entered; to return soon once aside_enter() is false. */
	void (*run)(struct aside *a);
	/* private */
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t cond;
	unsigned holds;
	bool working;
	bool stop;
};

void aside_init(struct aside *a, void (*run)(struct aside *a));
int aside_start(struct aside *a, struct err *err);
/* Tells it to stop, waits until it has; also where it was never started. */
void aside_done(struct aside *a);

/* What follows may last: a system call, nothing that takes a lock in here. */
void aside_leave(struct aside *a);
/* Back at work, when nobody holds it.  False: there is to be none any more. */
bool aside_enter(struct aside *a);
static inline bool aside_rest(struct aside *a)
{
	aside_leave(a);
	return aside_enter(a);
}

/* Around fork(2): between the two it is not at work.  They nest. */
void aside_hold(struct aside *a);
void aside_release(struct aside *a);

#endif
