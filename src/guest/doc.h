/* SPDX-License-Identifier: MIT */
/*
 * doc.h - the JSON the host sends: requests and the boot configuration.
 *
 * A reader of our own, because the guest binary has no libraries: one pass, no
 * floating point, depth bounded, strings decoded in place.  Values are ids into
 * the document; 0 is "absent", so lookups chain without checks and a wrong type
 * reads as absent.
 */
#ifndef GUEST_DOC_H
#define GUEST_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DOC_MAX		(4u << 20)	/* bytes of text */
#define DOC_DEPTH	16
#define DOC_ROOT	1u

struct doc_node;

struct doc {
	char *text;		/* owned; decoded strings live here */
	struct doc_node *node;	/* owned */
	unsigned nr, cap;
};

/* 0, -EINVAL (not JSON we take), -E2BIG, -ENOMEM.  On failure d is empty. */
int doc_parse(struct doc *d, const void *text, size_t len);
void doc_done(struct doc *d);

/* Member of an object. */
unsigned doc_get(const struct doc *d, unsigned obj, const char *key);
/* First member or element, and the one after. */
unsigned doc_first(const struct doc *d, unsigned id);
unsigned doc_next(const struct doc *d, unsigned id);

const char *doc_key(const struct doc *d, unsigned id);
/* Borrowed; NULL when absent or not a string. */
const char *doc_str(const struct doc *d, unsigned id);
int64_t doc_int(const struct doc *d, unsigned id, int64_t def);
bool doc_bool(const struct doc *d, unsigned id, bool def);
/*
 * The strings of an array, NULL-terminated: the array is the caller's to free,
 * the strings are borrowed.  Absent gives an empty list; NULL when an element
 * is not a string or memory is short.
 */
char **doc_strv(const struct doc *d, unsigned id);

#endif
