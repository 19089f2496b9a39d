/* SPDX-License-Identifier: MIT */
/*
 * json.h - jansson with our habits: checked field access whose errors name the
 * field, and output indented by 2 with key order kept.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct buf;
struct err;

static inline void json_putp(json_t **j)
{
	json_decref(*j);
}

/* Whole text, one object or array; NULL with err on a syntax error or when it
 * is nested deeper than 64.  The caller owns the reference. */
json_t *json_parse(const char *text, size_t len, struct err *err);

/*
 * Fields of an object from outside.  A missing optional field gives `def`;
 * a missing mandatory one or a wrong type sets err (first error wins, so a
 * chain of calls needs one check) and gives "" / 0 / false / NULL.
 * Strings are borrowed from the object.
 */
const char *json_str(const json_t *o, const char *key, struct err *err);
const char *json_str_opt(const json_t *o, const char *key, const char *def,
			 struct err *err);
int64_t json_int(const json_t *o, const char *key, int64_t min, int64_t max,
		 struct err *err);
int64_t json_int_opt(const json_t *o, const char *key, int64_t min,
		     int64_t max, int64_t def, struct err *err);
bool json_bool_opt(const json_t *o, const char *key, bool def, struct err *err);
/* Borrowed; NULL when absent. */
json_t *json_arr_opt(const json_t *o, const char *key, struct err *err);
json_t *json_obj_opt(const json_t *o, const char *key, struct err *err);

/*
 * Documents that lose nothing: a member that cannot be had (no memory, text that is
 * not UTF-8) drops the whole, *o is NULL from then on, and that prints as a failure.
 */
void json_put(json_t **o, const char *key, json_t *v);
/* A list of strings that ends with NULL; may itself be NULL. */
json_t *json_strings(const char *const *a);

/* A string of any bytes; what is not UTF-8 becomes '?'. */
json_t *json_text(const char *s);
/* Appends the document, indented by 2, with a final newline. */
void json_print(const json_t *j, struct buf *out);
/* Appends it on one line without newline. */
void json_print_compact(const json_t *j, struct buf *out);

#endif
