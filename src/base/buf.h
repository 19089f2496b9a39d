/* SPDX-License-Identifier: MIT */
/*
 * buf.h - growable byte buffer.  Out of memory is sticky (`oom`): writes after
 * it do nothing, and the owner looks once at the end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
	char *data;	/* owned; NUL after len bytes once anything was added */
	size_t len, cap;
	bool oom;
};

#define BUF_INIT { .data = NULL }

void buf_done(struct buf *b);
void buf_clear(struct buf *b);
/* Room for n more bytes, uninitialised, not yet counted; NULL when OOM. */
void *buf_reserve(struct buf *b, size_t n);
void buf_add(struct buf *b, const void *data, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addf(struct buf *b, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Forgets the first n bytes. */
void buf_drop(struct buf *b, size_t n);
/* The bytes as a malloc'd string the caller owns (NULL when OOM); b is empty after. */
char *buf_steal(struct buf *b);

#endif
