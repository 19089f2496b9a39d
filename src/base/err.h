/* SPDX-License-Identifier: MIT */
/*
 * err.h - errors as values: a fixed buffer, no allocation, with a code from
 * the one table of error codes (codes.h) and the chain of what caused it.
 *
 * Anyone may include this.  A function that a human must understand when it
 * fails takes a trailing `struct err *err` (NULL is allowed: the text is then
 * dropped) and returns the negative errno that err_set() hands back:
 *
 *	return err_set(err, EINVAL, "slot %u is taken", slot);
 *
 * A caller that knows more wraps it; the old message becomes a cause:
 *
 *	return err_wrap(err, ret, "cannot open disk %s", path);
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

#include "base/codes.h"

#define ERR_TEXT_MAX 2048

struct err {
	int num;		/* positive errno; 0 while nothing failed */
	enum err_code code;	/* ERR_NONE: not decided yet */
	unsigned nr_causes;
	size_t len;		/* bytes used in text, last NUL included */
	char text[ERR_TEXT_MAX];	/* message NUL cause NUL cause NUL … */
};

#define ERR_INIT { .num = 0 }

void err_clear(struct err *e);

/* Records a first failure and returns -num.  Replaces what was there. */
int err_set(struct err *e, int num, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with a user-visible code. */
int err_code(struct err *e, enum err_code code, int num, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/*
 * Puts a new message before the old one, which becomes a cause; keeps the
 * errno and the code.  `ret` (negative errno) is returned unchanged, and is
 * used as the cause when nothing was recorded.
 */
int err_wrap(struct err *e, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* err_wrap() that also decides the code, unless one is decided already. */
int err_wrap_code(struct err *e, enum err_code code, int ret,
		  const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Never NULL; "" when nothing was recorded. */
const char *err_message(const struct err *e);
/* The i-th cause, outermost first; NULL past the last. */
const char *err_cause(const struct err *e, unsigned i);

#endif
