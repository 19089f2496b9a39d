// SPDX-License-Identifier: MIT
/*
 * opt.c - parsing by table; see opt.h.
 *
 * What was given is noted in a bit set by the flag's place in the table, so
 * that a flag repeated where it may not be is seen without a field of its own.
 */
#include "base/opt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/util.h"

#define MAX_OPTS 64	/* flags in one table: bits of parse.seen */
#define MAX_WORD 64	/* longest word that opt_distance() looks at */

struct parse {
	const struct opt_cmd *cmd;	/* borrowed */
	int argc;
	char *const *argv;		/* borrowed */
	int at;				/* next word */
	char *out;			/* the command's struct, borrowed */
	uint64_t seen;
	unsigned nr_args;
	bool help;
	struct err *err;		/* borrowed */
};

bool opt_uint(const char *s, uint64_t *out)
{
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return !errno && !*end;
}

/* Shift of a unit: K, KB, KiB and so on up to T; -1 when it is none. */
static int unit_shift(const char *s)
{
	static const char units[] = "kmgt";
	const char *u;

	if (!*s || !strcasecmp(s, "b"))
		return 0;
	u = strchr(units, *s | 0x20);
	if (!u || (s[1] && strcasecmp(s + 1, "b") && strcasecmp(s + 1, "ib")))
		return -1;
	return 10 * (int)(u - units + 1);
}

bool opt_size(const char *s, uint64_t *out)
{
	uint64_t whole, frac = 0, scale = 1;
	char *end;
	int shift;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	whole = strtoull(s, &end, 10);
	if (errno)
		return false;
	if (*end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++)
			if (scale < 1000) {
				frac = frac * 10 + (uint64_t)(*end - '0');
				scale *= 10;
			}
	shift = unit_shift(end);
	if (shift < 0 || (shift && whole >> (64 - shift)))
		return false;
	*out = (whole << shift) + ((frac << shift) / scale);
	return true;
}

unsigned opt_distance(const char *a, const char *b)
{
	unsigned row[MAX_WORD + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > MAX_WORD || lb > MAX_WORD)
		return MAX_WORD;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned diag = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned up = row[j];
			unsigned best = diag + (a[i - 1] != b[j - 1]);

			best = MIN(best, up + 1);
			row[j] = MIN(best, row[j - 1] + 1);
			diag = up;
		}
	}
	return row[lb];
}

const char *opt_nearest(const char *word, const char *const *words)
{
	unsigned best = MIN(2 + (unsigned)strlen(word) / 6, 4u) + 1;
	const char *found = NULL;

	for (; *words; words++) {
		unsigned d = opt_distance(word, *words);

		if (d < best && d < strlen(word)) {
			best = d;
			found = *words;
		}
	}
	return found;
}

static bool name_is(const char *name, const char *s, size_t len)
{
	return name && strlen(name) == len && !strncmp(name, s, len);
}

const struct opt *opt_find(const struct opt_cmd *c, const char *name, size_t len)
{
	for (const struct opt *o = c->opts; o && o->name; o++)
		if (name_is(o->name, name, len) || name_is(o->alias, name, len))
			return o;
	return NULL;
}

static const struct opt *find_letter(const struct opt_cmd *c, char letter)
{
	for (const struct opt *o = c->opts; o && o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static int list_add_word(struct opt_list *l, const char *word,
			 const struct opt *from)
{
	const char **v = realloc(l->v, (l->nr + 2) * sizeof(*v));
	const struct opt **f;

	if (!v)
		return -ENOMEM;
	l->v = v;
	f = realloc(l->from, (l->nr + 1) * sizeof(*f));
	if (!f)
		return -ENOMEM;
	l->from = f;
	l->from[l->nr] = from;
	l->v[l->nr++] = word;
	l->v[l->nr] = NULL;
	return 0;
}

static int unknown_flag(struct parse *p, const char *flag, size_t len)
{
	const char *names[MAX_OPTS + 2] = { "help" };
	char word[MAX_WORD] = "";
	const char *near;
	unsigned n = 1;

	for (const struct opt *o = p->cmd->opts; o && o->name; o++)
		names[n++] = o->name;
	names[n] = NULL;
	if (len > 2 && len - 2 < sizeof(word))
		memcpy(word, flag + 2, len - 2);
	near = *word ? opt_nearest(word, names) : NULL;
	if (near)
		return err_code(p->err, ERR_PARSE_FLAG_UNKNOWN, EINVAL,
				"%s has no flag %.*s; did you mean --%s?",
				p->cmd->name, (int)len, flag, near);
	return err_code(p->err, ERR_PARSE_FLAG_UNKNOWN, EINVAL,
			"%s has no flag %.*s; see machinen %s --help",
			p->cmd->name, (int)len, flag, p->cmd->name);
}

static int malformed(struct parse *p, const struct opt *o, const char *value,
		     const char *want)
{
	return err_code(p->err, ERR_PARSE_FLAG_MALFORMED, EINVAL,
			"--%s \"%s\": %s", o->name, value, want);
}

static bool choice_has(const char *choices, const char *value)
{
	size_t len = strlen(value);

	while (len && choices) {
		size_t n = strcspn(choices, "|");

		if (n == len && !strncmp(choices, value, n))
			return true;
		choices = choices[n] ? choices + n + 1 : NULL;
	}
	return false;
}

static int store_number(struct parse *p, const struct opt *o,
			const char *value, uint64_t *out)
{
	char want[96];

	if (!opt_uint(value, out))
		return malformed(p, o, value, "a whole number is needed");
	if (*out >= o->min && (!o->max || *out <= o->max))
		return 0;
	if (o->max)
		snprintf(want, sizeof(want), "must be %llu to %llu",
			 (unsigned long long)o->min, (unsigned long long)o->max);
	else
		snprintf(want, sizeof(want), "must be at least %llu",
			 (unsigned long long)o->min);
	return malformed(p, o, value, want);
}

/* value is NULL for a switch, or for a count without its number. */
static int store(struct parse *p, const struct opt *o, const char *value)
{
	uint64_t bit = BIT(o - p->cmd->opts);
	char *field = p->out + o->offset;
	struct opt_count *count;
	char want[128];

	if ((p->seen & bit) && o->kind != OPT_LIST && o->kind != OPT_SWITCH)
		return err_code(p->err, ERR_PARSE_FLAG_DUPLICATE, EINVAL,
				"--%s may be given once", o->name);
	p->seen |= bit;
	switch (o->kind) {
	case OPT_SWITCH:
		*(bool *)field = true;
		return 0;
	case OPT_STRING:
		*(const char **)(void *)field = value;
		return 0;
	case OPT_LIST:
		return list_add_word((struct opt_list *)(void *)field, value, o);
	case OPT_UINT:
		return store_number(p, o, value, (uint64_t *)(void *)field);
	case OPT_SIZE:
		if (!opt_size(value, (uint64_t *)(void *)field))
			return malformed(p, o, value, "a size like 512M or 2G is needed");
		return 0;
	case OPT_CHOICE:
		snprintf(want, sizeof(want), "must be one of %s", o->meta);
		if (!choice_has(o->meta, value))
			return malformed(p, o, value, want);
		*(const char **)(void *)field = value;
		return 0;
	case OPT_COUNT:
		count = (struct opt_count *)(void *)field;
		count->given = true;
		count->has_value = value;
		return value ? store_number(p, o, value, &count->value) : 0;
	}
	return -EINVAL;
}

static bool all_digits(const char *s)
{
	return *s && !s[strspn(s, "0123456789")];
}

/*
 * Finds the value of o: `attached` (after = or the letter), else the next word.
 * "--" is never a value, so that a forgotten one is reported as such.
 */
static int take(struct parse *p, const struct opt *o, const char *attached)
{
	const char *next = p->at < p->argc ? p->argv[p->at] : NULL;

	if (o->kind == OPT_SWITCH) {
		if (attached)
			return malformed(p, o, attached, "takes no value");
		return store(p, o, NULL);
	}
	if (attached)
		return store(p, o, attached);
	if (o->kind == OPT_COUNT) {
		if (!next || !all_digits(next))
			return store(p, o, NULL);
	} else if (!next || !strcmp(next, "--")) {
		return err_code(p->err, ERR_PARSE_FLAG_MISSING_VALUE, EINVAL,
				"--%s needs a value: --%s %s", o->name, o->name,
				o->meta ? o->meta : "VALUE");
	}
	p->at++;
	return store(p, o, next);
}

static int parse_long(struct parse *p, const char *word)
{
	size_t len = strcspn(word, "=");
	const struct opt *o = opt_find(p->cmd, word + 2, len - 2);

	if (!o && name_is("help", word + 2, strlen(word) - 2)) {
		p->help = true;
		return 0;
	}
	if (!o)
		return unknown_flag(p, word, len);
	return take(p, o, word[len] ? word + len + 1 : NULL);
}

static int parse_short(struct parse *p, const char *word)
{
	for (const char *s = word + 1; *s; s++) {
		const struct opt *o = find_letter(p->cmd, *s);
		char flag[3] = { '-', *s, 0 };
		int ret;

		if (!o && *s == 'h') {
			p->help = true;
			continue;
		}
		if (!o)
			return unknown_flag(p, flag, 2);
		if (o->kind != OPT_SWITCH)
			return take(p, o, s[1] ? s + 1 + (s[1] == '=') : NULL);
		ret = store(p, o, NULL);
		if (ret)
			return ret;
	}
	return 0;
}

static const struct opt_arg *arg_slot(const struct opt_cmd *c, unsigned nr)
{
	const struct opt_arg *a = c->args;

	if (!a || !a->name)
		return NULL;
	for (; nr && a[1].name; nr--)
		a++;
	return !nr || a->repeat ? a : NULL;
}

static int parse_arg(struct parse *p, const char *word)
{
	const struct opt_arg *a = arg_slot(p->cmd, p->nr_args);

	if (!a)
		return err_code(p->err, ERR_PARSE_ARGUMENT_EXTRA, EINVAL,
				"%s takes no argument \"%s\"%s", p->cmd->name, word,
				p->cmd->literal ? "; put -- before the command" : "");
	p->nr_args++;
	if (a->repeat)
		return list_add_word((struct opt_list *)(void *)
				     (p->out + a->offset), word, NULL);
	*(const char **)(void *)(p->out + a->offset) = word;
	return 0;
}

static int parse_literal(struct parse *p)
{
	struct opt_list *l;

	if (!p->cmd->literal)
		return p->at == p->argc ? 0 : parse_arg(p, p->argv[p->at++]);
	l = (struct opt_list *)(void *)(p->out + p->cmd->literal - 1);
	while (p->at < p->argc)
		if (list_add_word(l, p->argv[p->at++], NULL))
			return err_set(p->err, ENOMEM, "out of memory");
	return 0;
}

static int parse_words(struct parse *p)
{
	bool literal = false;
	int ret = 0;

	while (!ret && p->at < p->argc) {
		const char *word = p->argv[p->at];

		if (literal) {
			ret = parse_literal(p);
			continue;
		}
		p->at++;
		if (!strcmp(word, "--"))
			literal = true;
		else if (!strncmp(word, "--", 2))
			ret = parse_long(p, word);
		else if (word[0] == '-' && word[1])
			ret = parse_short(p, word);
		else
			ret = parse_arg(p, word);
	}
	return ret;
}

static int check_complete(struct parse *p)
{
	const struct opt_arg *a = p->cmd->args;
	unsigned nr = 0;

	for (; a && a->name; a++, nr++)
		if (!a->optional && nr >= p->nr_args)
			return err_code(p->err, ERR_PARSE_ARGUMENT_MISSING, EINVAL,
					"%s needs %s: %s", p->cmd->name, a->name, a->help);
	if (p->cmd->literal_needed &&
	    !((struct opt_list *)(void *)(p->out + p->cmd->literal - 1))->nr)
		return err_code(p->err, ERR_PARSE_ARGUMENT_MISSING, EINVAL,
				"%s needs -- %s", p->cmd->name, p->cmd->literal_meta);
	return 0;
}

int opt_parse(const struct opt_cmd *c, int argc, char *const *argv, void *out,
	      struct err *err)
{
	struct parse p = {
		.cmd = c, .argc = argc, .argv = argv, .out = out, .err = err,
	};
	int ret;

	memset(out, 0, c->size);
	ret = parse_words(&p);
	if (!ret && p.help)
		return OPT_HELP;
	return ret ? ret : check_complete(&p);
}

static void list_done(void *field)
{
	struct opt_list *l = field;

	free(l->v);
	free(l->from);
	*l = (struct opt_list){ 0 };
}

void opt_done(const struct opt_cmd *c, void *out)
{
	for (const struct opt *o = c->opts; o && o->name; o++)
		if (o->kind == OPT_LIST)
			list_done((char *)out + o->offset);
	for (const struct opt_arg *a = c->args; a && a->name; a++)
		if (a->repeat)
			list_done((char *)out + a->offset);
	if (c->literal)
		list_done((char *)out + c->literal - 1);
}
