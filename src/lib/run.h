/* SPDX-License-Identifier: MIT */
/*
 * run.h - runs a program of the host to its end.  For src/lib only.
 */
#ifndef LIB_RUN_H
#define LIB_RUN_H

#include <stddef.h>

struct buf;
struct err;

struct run {
	const char *const *argv;	/* looked up on PATH */
	const char *cwd;		/* or NULL */
	struct buf *output;		/* its stdout, or NULL: dropped */
	/* Each line of its stderr (may be NULL); negative ends it. */
	int (*line)(const char *line, void *arg);
	void *arg;
};

/*
 * Its stdin is empty.  0 when it exited with 0.  Else -errno with err: how it ended, and the last
 * lines of its stderr as the cause.  The program sees LC_ALL=C.UTF-8.
 */
int run_program(const struct run *r, struct err *err);

#endif
