// SPDX-License-Identifier: MIT
/*
 * err.c - error values.
 *
 * The message and its causes lie one after the other in one fixed buffer, so
 * that an error can be returned up any number of frames, sent over a socket
 * or copied with `=` and never needs freeing.  What does not fit is cut: the
 * outermost message always stays whole.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	const char *text;
	bool retryable;
} codes[ERR_NR_CODES] = {
	[ERR_NONE] = { "", "", false },
#define X(code, retry, what) [ERR_##code] = { #code, what, retry },
	ERR_CODES(X)
#undef X
};

const char *err_code_name(enum err_code code)
{
	return (unsigned)code < ERR_NR_CODES ? codes[code].name : "";
}

const char *err_code_text(enum err_code code)
{
	return (unsigned)code < ERR_NR_CODES ? codes[code].text : "";
}

bool err_code_retryable(enum err_code code)
{
	return (unsigned)code < ERR_NR_CODES && codes[code].retryable;
}

enum err_code err_code_parse(const char *name)
{
	for (unsigned i = 1; i < ERR_NR_CODES; i++)
		if (!strcmp(codes[i].name, name))
			return i;
	return ERR_NONE;
}

void err_clear(struct err *e)
{
	if (!e)
		return;
	e->num = 0;
	e->code = ERR_NONE;
	e->nr_causes = 0;
	e->len = 0;
	e->text[0] = '\0';
}

/* Puts a message in front of what is there; cuts the oldest causes. */
static void err_push(struct err *e, const char *fmt, va_list ap)
{
	char msg[ERR_TEXT_MAX / 2];
	int n = vsnprintf(msg, sizeof(msg), fmt, ap);
	size_t len = n < 0 ? 0 : (size_t)n;

	if (len >= sizeof(msg))
		len = sizeof(msg) - 1;
	if (e->len)
		e->nr_causes++;
	while (e->len + len + 1 > sizeof(e->text)) {
		/* drop the innermost cause */
		size_t keep = e->len - 1;

		while (keep && e->text[keep - 1])
			keep--;
		e->len = keep;
		e->nr_causes--;
	}
	memmove(e->text + len + 1, e->text, e->len);
	memcpy(e->text, msg, len);
	e->text[len] = '\0';
	e->len += len + 1;
}

int err_set(struct err *e, int num, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -num;
	err_clear(e);
	e->num = num;
	va_start(ap, fmt);
	err_push(e, fmt, ap);
	va_end(ap);
	return -num;
}

int err_code(struct err *e, enum err_code code, int num, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -num;
	err_clear(e);
	e->num = num;
	e->code = code;
	va_start(ap, fmt);
	err_push(e, fmt, ap);
	va_end(ap);
	return -num;
}

static void err_vwrap(struct err *e, int ret, const char *fmt, va_list ap)
{
	if (!e->len)
		err_set(e, -ret, "%s", strerror(-ret));
	err_push(e, fmt, ap);
}

int err_wrap(struct err *e, int ret, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return ret;
	va_start(ap, fmt);
	err_vwrap(e, ret, fmt, ap);
	va_end(ap);
	return ret;
}

int err_wrap_code(struct err *e, enum err_code code, int ret,
		  const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return ret;
	va_start(ap, fmt);
	err_vwrap(e, ret, fmt, ap);
	va_end(ap);
	if (e->code == ERR_NONE)
		e->code = code;
	return ret;
}

const char *err_message(const struct err *e)
{
	return e && e->len ? e->text : "";
}

const char *err_cause(const struct err *e, unsigned i)
{
	const char *p;

	if (!e || i >= e->nr_causes)
		return NULL;
	p = e->text + strlen(e->text) + 1;
	while (i--)
		p += strlen(p) + 1;
	return p;
}
