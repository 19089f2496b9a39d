// SPDX-License-Identifier: MIT
/*
 * doc.c - bounded JSON reader; see doc.h.
 *
 * The text is copied once and parsed where it lies.  A decoded string is never
 * longer than its source, so it is written back over it and its closing quote
 * makes room for the NUL.  NUL inside a string is refused: what the strings
 * become (argv, paths, environment) cannot hold one, and cutting silently would
 * run something that was not asked for.
 */
#include "guest/doc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum doc_type { DOC_NULL, DOC_BOOL, DOC_INT, DOC_STR, DOC_ARR, DOC_OBJ };

struct doc_node {
	enum doc_type type;
	unsigned next;		/* sibling, 0: last */
	unsigned child;		/* first member or element */
	char *key;		/* into text; NULL outside objects */
	char *str;		/* into text */
	int64_t num;		/* DOC_INT, DOC_BOOL */
};

struct parser {
	struct doc *d;
	char *p, *end;
	unsigned depth;
	int error;
};

static unsigned fail(struct parser *s, int error)
{
	if (!s->error)
		s->error = error;
	s->p = s->end;
	return 0;
}

static void skip_space(struct parser *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' ||
				 *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

/* Takes the next character when it is c. */
static bool take(struct parser *s, char c)
{
	skip_space(s);
	if (s->p >= s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static unsigned node_new(struct parser *s, enum doc_type type)
{
	struct doc *d = s->d;

	if (d->nr == d->cap) {
		unsigned cap = d->cap ? d->cap * 2 : 32;
		struct doc_node *node = realloc(d->node, cap * sizeof(*node));

		if (!node)
			return fail(s, -ENOMEM);
		d->node = node;
		d->cap = cap;
	}
	d->node[d->nr] = (struct doc_node){ .type = type };
	return d->nr++;
}

static int hex4(struct parser *s)
{
	int v = 0;

	if (s->end - s->p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = *s->p++;

		if (c >= '0' && c <= '9')
			v = v * 16 + c - '0';
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			v = v * 16 + (c | 32) - 'a' + 10;
		else
			return -1;
	}
	return v;
}

static char *put_utf8(char *out, unsigned c)
{
	if (c < 0x80) {
		*out++ = c;
	} else if (c < 0x800) {
		*out++ = 0xc0 | c >> 6;
		*out++ = 0x80 | (c & 63);
	} else if (c < 0x10000) {
		*out++ = 0xe0 | c >> 12;
		*out++ = 0x80 | (c >> 6 & 63);
		*out++ = 0x80 | (c & 63);
	} else {
		*out++ = 0xf0 | c >> 18;
		*out++ = 0x80 | (c >> 12 & 63);
		*out++ = 0x80 | (c >> 6 & 63);
		*out++ = 0x80 | (c & 63);
	}
	return out;
}

/* After "\u": one code point, surrogate pairs joined; NULL when it is none. */
static char *unescape_unicode(struct parser *s, char *out)
{
	int c = hex4(s);

	if (c >= 0xd800 && c < 0xdc00) {
		int low;

		if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u')
			return NULL;
		s->p += 2;
		low = hex4(s);
		if (low < 0xdc00 || low > 0xdfff)
			return NULL;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	} else if (c <= 0 || (c >= 0xdc00 && c < 0xe000)) {
		return NULL;
	}
	return put_utf8(out, c);
}

static char *unescape(struct parser *s, char *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	char c;

	if (s->p >= s->end)
		return NULL;
	c = *s->p++;
	if (c == 'u')
		return unescape_unicode(s, out);
	at = c ? strchr(from, c) : NULL;
	if (!at)
		return NULL;
	*out++ = to[at - from];
	return out;
}

/* After the opening quote. */
static char *parse_string(struct parser *s)
{
	char *start = s->p, *out = s->p;

	while (s->p < s->end) {
		unsigned char c = *s->p++;

		if (c == '"') {
			*out = '\0';
			return start;
		}
		if (c < 0x20)
			break;
		if (c != '\\')
			*out++ = c;
		else if (!(out = unescape(s, out)))
			break;
	}
	fail(s, -EINVAL);
	return NULL;
}

static unsigned parse_int(struct parser *s)
{
	bool neg = *s->p == '-';
	unsigned id = node_new(s, DOC_INT);
	int64_t v = 0;
	char *first;

	s->p += neg;
	first = s->p;
	while (s->p < s->end && *s->p >= '0' && *s->p <= '9') {
		int digit = *s->p++ - '0';

		/* negative throughout: its range is the larger one */
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_sub_overflow(v, digit, &v))
			return fail(s, -EINVAL);
	}
	if (s->p == first || (*first == '0' && s->p - first > 1) ||
	    (s->p < s->end && strchr(".eE", *s->p)) ||
	    (!neg && v == INT64_MIN))
		return fail(s, -EINVAL);
	if (id)
		s->d->node[id].num = neg ? v : -v;
	return id;
}

static unsigned parse_word(struct parser *s)
{
	static const struct {
		const char *word;
		enum doc_type type;
		int num;
	} words[] = {
		{ "true", DOC_BOOL, 1 }, { "false", DOC_BOOL, 0 },
		{ "null", DOC_NULL, 0 },
	};

	for (size_t i = 0; i < 3; i++) {
		size_t len = strlen(words[i].word);
		unsigned id;

		if ((size_t)(s->end - s->p) < len ||
		    memcmp(s->p, words[i].word, len))
			continue;
		s->p += len;
		id = node_new(s, words[i].type);
		if (id)
			s->d->node[id].num = words[i].num;
		return id;
	}
	return fail(s, -EINVAL);
}

static unsigned parse_value(struct parser *s);

static unsigned parse_members(struct parser *s, enum doc_type type, char close)
{
	unsigned id = node_new(s, type), last = 0;

	if (!id || ++s->depth > DOC_DEPTH)
		return fail(s, -EINVAL);
	if (take(s, close)) {
		s->depth--;
		return id;
	}
	do {
		char *key = NULL;
		unsigned sub;

		if (type == DOC_OBJ && (!take(s, '"') ||
		    !(key = parse_string(s)) || !take(s, ':')))
			return fail(s, -EINVAL);
		sub = parse_value(s);
		if (!sub)
			return 0;
		s->d->node[sub].key = key;
		if (last)
			s->d->node[last].next = sub;
		else
			s->d->node[id].child = sub;
		last = sub;
	} while (take(s, ','));
	s->depth--;
	return take(s, close) ? id : fail(s, -EINVAL);
}

static unsigned parse_value(struct parser *s)
{
	unsigned id;
	char *str;

	if (take(s, '{'))
		return parse_members(s, DOC_OBJ, '}');
	if (take(s, '['))
		return parse_members(s, DOC_ARR, ']');
	if (take(s, '"')) {
		str = parse_string(s);
		id = str ? node_new(s, DOC_STR) : 0;
		if (id)
			s->d->node[id].str = str;
		return id;
	}
	if (s->p >= s->end)
		return fail(s, -EINVAL);
	if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
		return parse_int(s);
	return parse_word(s);
}

int doc_parse(struct doc *d, const void *text, size_t len)
{
	struct parser s = { .d = d };
	unsigned root;

	*d = (struct doc){ .nr = 0 };
	if (len > DOC_MAX)
		return -E2BIG;
	d->text = malloc(len + 1);
	if (!d->text)
		return -ENOMEM;
	memcpy(d->text, text, len);
	d->text[len] = '\0';
	s.p = d->text;
	s.end = d->text + len;
	node_new(&s, DOC_NULL);		/* id 0: absent */
	root = parse_value(&s);
	skip_space(&s);
	if (!s.error && (!root || s.p != s.end))
		s.error = -EINVAL;
	if (s.error)
		doc_done(d);
	return s.error;
}

void doc_done(struct doc *d)
{
	free(d->text);
	free(d->node);
	*d = (struct doc){ .nr = 0 };
}

static const struct doc_node *at(const struct doc *d, unsigned id)
{
	return id < d->nr ? &d->node[id] : NULL;
}

unsigned doc_first(const struct doc *d, unsigned id)
{
	const struct doc_node *n = at(d, id);

	return n ? n->child : 0;
}

unsigned doc_next(const struct doc *d, unsigned id)
{
	const struct doc_node *n = at(d, id);

	return n ? n->next : 0;
}

unsigned doc_get(const struct doc *d, unsigned obj, const char *key)
{
	for (unsigned id = doc_first(d, obj); id; id = d->node[id].next)
		if (d->node[id].key && !strcmp(d->node[id].key, key))
			return id;
	return 0;
}

const char *doc_key(const struct doc *d, unsigned id)
{
	const struct doc_node *n = at(d, id);

	return n ? n->key : NULL;
}

const char *doc_str(const struct doc *d, unsigned id)
{
	const struct doc_node *n = at(d, id);

	return n && n->type == DOC_STR ? n->str : NULL;
}

int64_t doc_int(const struct doc *d, unsigned id, int64_t def)
{
	const struct doc_node *n = at(d, id);

	return n && n->type == DOC_INT ? n->num : def;
}

bool doc_bool(const struct doc *d, unsigned id, bool def)
{
	const struct doc_node *n = at(d, id);

	return n && n->type == DOC_BOOL ? n->num : def;
}

char **doc_strv(const struct doc *d, unsigned id)
{
	unsigned nr = 0;
	char **v;

	for (unsigned i = doc_first(d, id); i; i = d->node[i].next) {
		if (d->node[i].type != DOC_STR)
			return NULL;
		nr++;
	}
	v = calloc(nr + 1, sizeof(*v));
	nr = 0;
	for (unsigned i = doc_first(d, id); v && i; i = d->node[i].next)
		v[nr++] = d->node[i].str;
	return v;
}
