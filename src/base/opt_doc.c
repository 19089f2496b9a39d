// SPDX-License-Identifier: MIT
/*
 * opt_doc.c - what an option table says about itself: usage, help, a JSON
 * description, completions.
 */
#include <string.h>

#include "base/buf.h"
#include "base/opt.h"

#define HELP_COLUMN 28	/* where the explanations begin */
#define HELP_WIDTH  80

static const char *const kind_names[] = {
	[OPT_SWITCH] = "switch", [OPT_STRING] = "string", [OPT_LIST] = "string",
	[OPT_UINT] = "integer", [OPT_SIZE] = "size", [OPT_CHOICE] = "choice",
	[OPT_COUNT] = "integer",
};

void opt_usage(const struct opt_cmd *c, const char *prog, struct buf *out)
{
	buf_addf(out, "%s %s", prog, c->name);
	for (const struct opt_arg *a = c->args; a && a->name; a++)
		buf_addf(out, a->optional ? " [%s%s]" : " %s%s", a->name,
			 a->repeat ? "..." : "");
	if (c->opts && c->opts->name)
		buf_adds(out, " [flags]");
	if (c->literal)
		buf_addf(out, c->literal_needed ? " -- %s" : " [-- %s]",
			 c->literal_meta);
}

/* Appends text, wrapped, with lines after the first indented. */
static void add_wrapped(struct buf *out, const char *text, size_t column)
{
	size_t at = column;

	while (*text) {
		size_t n = strcspn(text, " ");

		if (at > column && at + 1 + n > HELP_WIDTH) {
			buf_addf(out, "\n%*s", (int)column, "");
			at = column;
		} else if (at > column) {
			buf_adds(out, " ");
			at++;
		}
		buf_add(out, text, n);
		at += n;
		text += n + (text[n] == ' ');
	}
	buf_adds(out, "\n");
}

static void add_row(struct buf *out, const char *left, const char *help,
		    const char *def)
{
	struct buf text = BUF_INIT;
	size_t len = strlen(left);

	buf_addf(out, "  %s", left);
	if (len + 3 > HELP_COLUMN)
		buf_addf(out, "\n%*s", HELP_COLUMN, "");
	else
		buf_addf(out, "%*s", (int)(HELP_COLUMN - len - 2), "");
	buf_adds(&text, help);
	if (def)
		buf_addf(&text, " (default %s)", def);
	add_wrapped(out, text.oom ? "" : text.data, HELP_COLUMN);
	buf_done(&text);
}

static void add_flag(struct buf *out, const struct opt *o)
{
	struct buf left = BUF_INIT;

	if (o->letter)
		buf_addf(&left, "-%c, ", o->letter);
	buf_addf(&left, "--%s", o->name);
	if (o->kind == OPT_COUNT)
		buf_addf(&left, " [%s]", o->meta);
	else if (o->kind != OPT_SWITCH)
		buf_addf(&left, " %s", o->meta);
	if (!left.oom)
		add_row(out, left.data, o->help, o->def);
	buf_done(&left);
}

void opt_help(const struct opt_cmd *c, const char *prog, struct buf *out)
{
	buf_adds(out, "Usage: ");
	opt_usage(c, prog, out);
	buf_addf(out, "\n\n%s.\n", c->summary);
	if (c->alias[0]) {
		buf_adds(out, "Also called");
		for (unsigned i = 0; c->alias[i]; i++)
			buf_addf(out, "%s %s", i ? "," : "", c->alias[i]);
		buf_adds(out, ".\n");
	}
	if (c->details)
		buf_addf(out, "\n%s\n", c->details);
	if (c->args && c->args->name)
		buf_adds(out, "\nArguments:\n");
	for (const struct opt_arg *a = c->args; a && a->name; a++)
		add_row(out, a->name, a->help, NULL);
	buf_adds(out, "\nFlags:\n");
	for (const struct opt *o = c->opts; o && o->name; o++)
		add_flag(out, o);
	add_row(out, "-h, --help", "this text", NULL);
	if (c->examples)
		buf_addf(out, "\nExamples:\n%s\n", c->examples);
}

static json_t *split(const char *words)
{
	json_t *a = json_array();

	while (words && *words) {
		size_t n = strcspn(words, "|");

		json_array_append_new(a, json_stringn(words, n));
		words += n + (words[n] == '|');
	}
	return a;
}

static void set_str(json_t *o, const char *key, const char *value)
{
	if (value)
		json_object_set_new(o, key, json_string(value));
}

static json_t *describe_flag(const struct opt *o)
{
	json_t *j = json_object();
	char letter[2] = { o->letter, 0 };

	set_str(j, "name", o->name);
	set_str(j, "alias", o->alias);
	set_str(j, "letter", o->letter ? letter : NULL);
	set_str(j, "type", kind_names[o->kind]);
	json_object_set_new(j, "takes_value", json_boolean(o->kind != OPT_SWITCH));
	json_object_set_new(j, "repeatable", json_boolean(o->kind == OPT_LIST));
	set_str(j, "value", o->kind == OPT_SWITCH ? NULL : o->meta);
	if (o->kind == OPT_CHOICE)
		json_object_set_new(j, "choices", split(o->meta));
	if (o->kind == OPT_UINT && o->max) {
		json_object_set_new(j, "min", json_integer((json_int_t)o->min));
		json_object_set_new(j, "max", json_integer((json_int_t)o->max));
	}
	set_str(j, "default", o->def);
	set_str(j, "help", o->help);
	return j;
}

static json_t *describe_arg(const struct opt_arg *a)
{
	return json_pack("{s:s, s:b, s:b, s:s}", "name", a->name, "required",
			 !a->optional, "repeatable", a->repeat, "help", a->help);
}

json_t *opt_describe(const struct opt_cmd *c)
{
	json_t *j = json_object(), *args = json_array(), *flags = json_array();
	json_t *aliases = json_array();
	struct buf usage = BUF_INIT;

	opt_usage(c, "machinen", &usage);
	for (unsigned i = 0; c->alias[i]; i++)
		json_array_append_new(aliases, json_string(c->alias[i]));
	for (const struct opt_arg *a = c->args; a && a->name; a++)
		json_array_append_new(args, describe_arg(a));
	for (const struct opt *o = c->opts; o && o->name; o++)
		json_array_append_new(flags, describe_flag(o));
	set_str(j, "name", c->name);
	json_object_set_new(j, "aliases", aliases);
	set_str(j, "summary", c->summary);
	set_str(j, "usage", usage.oom ? NULL : usage.data);
	json_object_set_new(j, "arguments", args);
	json_object_set_new(j, "flags", flags);
	set_str(j, "literal", c->literal ? c->literal_meta : NULL);
	set_str(j, "json", c->json);
	buf_done(&usage);
	return j;
}

static void add_choices(struct buf *out, const char *choices)
{
	while (choices && *choices) {
		size_t n = strcspn(choices, "|");

		buf_addf(out, "%.*s\n", (int)n, choices);
		choices += n + (choices[n] == '|');
	}
}

/* The flag whose value a word would be, or NULL. */
static const struct opt *pending(const struct opt_cmd *c, const char *word)
{
	const struct opt *o = NULL;

	if (!strncmp(word, "--", 2) && word[2])
		o = opt_find(c, word + 2, strlen(word) - 2);
	else if (word[0] == '-' && word[1] && !word[2])
		for (const struct opt *i = c->opts; i && i->name && !o; i++)
			o = i->letter == word[1] ? i : NULL;
	return o && o->kind != OPT_SWITCH && o->kind != OPT_COUNT ? o : NULL;
}

enum opt_words opt_complete(const struct opt_cmd *c, int nr, char *const *words,
			    struct buf *out)
{
	const char *last = nr ? words[nr - 1] : "";
	const struct opt *o = NULL;
	const struct opt_arg *a = c->args;
	int args = 0;

	for (int i = 0; i < nr - 1; i++) {
		if (!strcmp(words[i], "--"))
			return OPT_WORDS_FILE;
		o = o ? NULL : pending(c, words[i]);
		if (!o && words[i][0] != '-' && (!i || !pending(c, words[i - 1])))
			args++;
	}
	if (o) {
		if (o->kind == OPT_CHOICE)
			add_choices(out, o->meta);
		return o->words;
	}
	if (last[0] == '-') {
		for (o = c->opts; o && o->name; o++)
			buf_addf(out, "--%s\n", o->name);
		buf_adds(out, "--help\n");
		return OPT_WORDS_NONE;
	}
	while (a && a->name && args && a[1].name) {
		a++;
		args--;
	}
	if (!a || !a->name || (args && !a->repeat))
		return OPT_WORDS_NONE;
	if (a->words == OPT_WORDS_CHOICE)
		add_choices(out, a->name);
	return a->words;
}
