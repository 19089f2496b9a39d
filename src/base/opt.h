/* SPDX-License-Identifier: MIT */
/*
 * opt.h - option tables.
 *
 * One const table per command describes its flags and arguments; from it come
 * parsing with exact errors, --help, shell completion and the machine-readable
 * description.  Values are stored at `offset` in the command's own struct, whose
 * zeroed state is the default.  Anyone who has a command line may include this.
 *
 * Values: `--flag value`, `--flag=value`, `-f value`, `-fvalue`, `-ab` for
 * switches.  Flags and arguments mix freely up to `--`; what follows is kept
 * literally.  Strings are borrowed from argv.
 */
#ifndef BASE_OPT_H
#define BASE_OPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

enum opt_kind {
	OPT_SWITCH,	/* bool */
	OPT_STRING,	/* const char * */
	OPT_LIST,	/* struct opt_list; repeatable */
	OPT_UINT,	/* uint64_t, within min..max */
	OPT_SIZE,	/* uint64_t bytes: 512M, 2G, 1.5G; plain: bytes */
	OPT_CHOICE,	/* const char *, one of meta's a|b|c */
	OPT_COUNT,	/* struct opt_count: a switch with an optional number */
};

/* What completes an argument or a flag's value. */
enum opt_words {
	OPT_WORDS_NONE, OPT_WORDS_FILE, OPT_WORDS_TARGET, OPT_WORDS_COMMAND,
	OPT_WORDS_CHOICE,	/* the meta's a|b|c */
};

struct opt_list {
	const char **v;			/* NULL-terminated; owned, strings borrowed */
	const struct opt **from;	/* the flag each came by: keeps order of several */
	unsigned nr;
};

struct opt_count {
	bool given;
	bool has_value;
	uint64_t value;
};

struct opt {
	const char *name;	/* "publish"; NULL ends a table */
	const char *alias;	/* second long name, or NULL */
	char letter;		/* 'p', or 0 */
	enum opt_kind kind;
	size_t offset;
	const char *meta;	/* "HOST:GUEST" in help; "a|b" of a choice */
	const char *help;
	const char *def;	/* shown in help, or NULL */
	uint64_t min, max;	/* OPT_UINT; max 0: no limit */
	enum opt_words words;
};

struct opt_arg {
	const char *name;	/* "TARGET"; NULL ends a table */
	const char *help;
	bool optional;
	bool repeat;		/* the last one may; field is struct opt_list */
	size_t offset;		/* const char *, or struct opt_list */
	enum opt_words words;
};

struct opt_cmd {
	const char *name;
	const char *alias[3];	/* NULL-terminated */
	const char *summary;	/* one line, no full stop */
	const char *details;	/* paragraphs for --help, or NULL */
	const char *examples;	/* lines for --help, or NULL */
	const char *json;	/* fields of its --json document, or NULL */
	const struct opt_arg *args;	/* NULL: none */
	const struct opt *opts;		/* NULL: none but --help */
	size_t literal;		/* offset + 1 of a struct opt_list for what follows
				 * `--`; 0: none is taken */
	const char *literal_meta;	/* "CMD..." */
	bool literal_needed;
	bool hidden;
	size_t size;		/* of the command's struct */
};

/* Result: 0, or OPT_HELP when --help was met, or -errno with a PARSE_* code. */
#define OPT_HELP 1

/* argv without program and command name.  out is zeroed first. */
int opt_parse(const struct opt_cmd *c, int argc, char *const *argv, void *out,
	      struct err *err);
/* Frees the lists of a parsed struct. */
void opt_done(const struct opt_cmd *c, void *out);

/* The words of `--x` in a table, for completion and suggestions. */
const struct opt *opt_find(const struct opt_cmd *c, const char *name, size_t len);

/* Number words as the tables read them; false when malformed. */
bool opt_uint(const char *s, uint64_t *out);
bool opt_size(const char *s, uint64_t *out);

/* The nearest of `words` (NULL-terminated) when it is near enough, else NULL. */
const char *opt_nearest(const char *word, const char *const *words);
unsigned opt_distance(const char *a, const char *b);	/* edits, capped at 64 */

/* opt_doc.c: text and documents from a table. */
void opt_usage(const struct opt_cmd *c, const char *prog, struct buf *out);
void opt_help(const struct opt_cmd *c, const char *prog, struct buf *out);
json_t *opt_describe(const struct opt_cmd *c);	/* new reference */
/*
 * Candidates, one a line, for the last of the words after the command's name;
 * returns what else the shell should offer.
 */
enum opt_words opt_complete(const struct opt_cmd *c, int nr, char *const *words,
			    struct buf *out);

#endif
