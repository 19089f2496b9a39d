// SPDX-License-Identifier: MIT
/*
 * json.c - checked access to documents from outside; see json.h.
 *
 * Depth is counted before jansson sees the text: its own limit is far above what
 * our documents need, and everything that walks a document here may recurse.
 */
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>

#include "base/buf.h"
#include "base/err.h"

#define MAX_DEPTH 64

/* The first error wins. */
#define field_err(err, ...) \
	do { if ((err) && !(err)->num) err_set(err, EINVAL, __VA_ARGS__); } while (0)

static bool too_deep(const char *s, size_t len)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (in_string && s[i] == '\\')
			i++;
		else if (s[i] == '"')
			in_string = !in_string;
		else if (!in_string && (s[i] == '{' || s[i] == '['))
			depth++;
		else if (!in_string && (s[i] == '}' || s[i] == ']'))
			depth -= depth > 0;
		if (depth > MAX_DEPTH)
			return true;
	}
	return false;
}

json_t *json_parse(const char *text, size_t len, struct err *err)
{
	json_error_t je;
	json_t *j;

	if (too_deep(text, len)) {
		err_set(err, EINVAL, "JSON is nested too deeply");
		return NULL;
	}
	j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	if (!j && json_error_code(&je) == json_error_out_of_memory)
		err_set(err, ENOMEM, "out of memory");
	else if (!j)
		err_set(err, EINVAL, "not valid JSON: line %d: %s", je.line, je.text);
	return j;
}

const char *json_str_opt(const json_t *o, const char *key, const char *def,
			 struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v)
		return def;
	if (json_is_string(v))
		return json_string_value(v);
	field_err(err, "field \"%s\" must be a string", key);
	return "";
}

const char *json_str(const json_t *o, const char *key, struct err *err)
{
	if (!json_object_get(o, key))
		field_err(err, "field \"%s\" is missing", key);
	return json_str_opt(o, key, "", err);
}

int64_t json_int_opt(const json_t *o, const char *key, int64_t min,
		     int64_t max, int64_t def, struct err *err)
{
	const json_t *v = json_object_get(o, key);
	int64_t n;

	if (!v)
		return def;
	if (!json_is_integer(v)) {
		field_err(err, "field \"%s\" must be a whole number", key);
		return 0;
	}
	n = json_integer_value(v);
	if (n >= min && n <= max)
		return n;
	field_err(err, "field \"%s\" must be from %" PRId64 " to %" PRId64,
		  key, min, max);
	return 0;
}

int64_t json_int(const json_t *o, const char *key, int64_t min, int64_t max,
		 struct err *err)
{
	if (!json_object_get(o, key))
		field_err(err, "field \"%s\" is missing", key);
	return json_int_opt(o, key, min, max, 0, err);
}

bool json_bool_opt(const json_t *o, const char *key, bool def, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v)
		return def;
	if (!json_is_boolean(v))
		field_err(err, "field \"%s\" must be true or false", key);
	return json_is_true(v);
}

json_t *json_arr_opt(const json_t *o, const char *key, struct err *err)
{
	json_t *v = json_object_get(o, key);

	if (!v || json_is_array(v))
		return v;
	field_err(err, "field \"%s\" must be a list", key);
	return NULL;
}

json_t *json_obj_opt(const json_t *o, const char *key, struct err *err)
{
	json_t *v = json_object_get(o, key);

	if (!v || json_is_object(v))
		return v;
	field_err(err, "field \"%s\" must be an object", key);
	return NULL;
}

void json_put(json_t **o, const char *key, json_t *v)
{
	if (!json_object_set_new(*o, key, v))
		return;
	json_decref(*o);
	*o = NULL;
}

json_t *json_strings(const char *const *a)
{
	json_t *list = json_array();

	for (; a && *a; a++) {
		if (!json_array_append_new(list, json_string(*a)))
			continue;
		json_decref(list);
		return NULL;
	}
	return list;
}

json_t *json_text(const char *s)
{
	json_t *j = json_string(s);
	struct buf b = BUF_INIT;

	if (j)
		return j;
	buf_adds(&b, s);
	for (size_t i = 0; i < b.len; i++)
		if (b.data[i] & 0x80)
			b.data[i] = '?';
	j = b.oom ? NULL : json_string(b.data);
	buf_done(&b);
	return j;
}

static int add_text(const char *text, size_t len, void *arg)
{
	struct buf *out = arg;

	buf_add(out, text, len);
	return out->oom ? -1 : 0;
}

void json_print(const json_t *j, struct buf *out)
{
	if (json_dump_callback(j, add_text, out, JSON_INDENT(2) | JSON_ENCODE_ANY) < 0)
		out->oom = true;
	buf_add(out, "\n", 1);
}

void json_print_compact(const json_t *j, struct buf *out)
{
	if (json_dump_callback(j, add_text, out, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
		out->oom = true;
}
