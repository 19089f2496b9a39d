// SPDX-License-Identifier: MIT
/*
 * steps.c - the steps of a bake, from flags and files; see cmd.h.
 *
 * In a file a line that ends with a backslash goes on in the next one, and what
 * begins with # is a comment.  A relative HOST is looked up from where the command
 * runs, as with --copy.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "cli/cmd.h"

static int no_memory(void)
{
	return out_usage_error(MN_HOST_FAILED, false, "out of memory");
}

static int add_step(struct steps *s, struct mn_step step)
{
	struct mn_step *all = realloc(s->step, (s->nr + 1) * sizeof(*all));

	if (!all)
		return no_memory();
	s->step = all;
	s->step[s->nr++] = step;
	return 0;
}

/* Keeps a malloc'd text until the end. */
static int keep(struct steps *s, char *text)
{
	char **all = realloc(s->text, (s->nr_text + 1) * sizeof(*all));

	if (!all || !text) {
		free(text);
		return no_memory();
	}
	s->text = all;
	s->text[s->nr_text++] = text;
	return 0;
}

int steps_run(struct steps *s, const char *line)
{
	return add_step(s, (struct mn_step){ .run = line });
}

int steps_copy(struct steps *s, const char *pair)
{
	struct mn_step step = { .run = NULL };
	char *text = NULL;
	int ret = path_pair(pair, MN_PARSE_FLAG_MALFORMED, false, &text,
			    &step.copy_from, &step.copy_to);

	if (!ret)
		ret = keep(s, text);
	return ret ? ret : add_step(s, step);
}

int steps_env(struct steps *s, const char *word)
{
	const char **all = realloc(s->env, (s->nr_env + 2) * sizeof(*all));

	if (!all)
		return no_memory();
	s->env = all;
	s->env[s->nr_env++] = word;
	s->env[s->nr_env] = NULL;
	return 0;
}

static int file_line(struct steps *s, const char *path, unsigned nr, char *line)
{
	char *rest = line + strcspn(line, " \t");

	if (!*line || *line == '#')
		return 0;
	if (*rest) {
		*rest++ = '\0';
		rest += strspn(rest, " \t");
	}
	if (!*rest)
		return out_usage_error(MN_PARSE_FLAG_MISSING_VALUE, false,
				       "%s:%u: %s needs something after it", path, nr, line);
	if (!strcasecmp(line, "run"))
		return steps_run(s, rest);
	if (!strcasecmp(line, "copy"))
		return steps_copy(s, rest);
	if (!strcasecmp(line, "env"))
		return steps_env(s, rest);
	if (!strcasecmp(line, "cwd")) {
		s->cwd = rest;
		return 0;
	}
	return out_usage_error(MN_PARSE_FLAG_MALFORMED, false,
			       "%s:%u: \"%s\": a step is run, copy, env or cwd", path, nr,
			       line);
}

/* A line with those that it goes on in; false at the end. */
static bool read_line(FILE *f, struct buf *line, unsigned *nr)
{
	char *part = NULL;
	size_t cap = 0;
	ssize_t n;
	bool more = true, any = false;

	while (more && (n = getline(&part, &cap, f)) >= 0) {
		any = true;
		++*nr;
		while (n && strchr(" \t\r\n", part[n - 1]))
			n--;
		more = n && part[n - 1] == '\\';
		buf_add(line, part, (size_t)n - more);
	}
	free(part);
	return any;
}

int steps_file(struct steps *s, const char *path)
{
	FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
	struct buf line = BUF_INIT;
	unsigned nr = 0;
	int ret = 0;

	if (!f)
		return out_usage_error(MN_FILES_HOST_NOT_FOUND, false,
				       "cannot read %s: %s", path, strerror(errno));
	while (!ret && read_line(f, &line, &nr)) {
		char *text = buf_steal(&line);

		ret = keep(s, text);
		if (!ret)
			ret = file_line(s, path, nr, text + strspn(text, " \t"));
	}
	buf_done(&line);
	if (f != stdin)
		fclose(f);
	return ret;
}

void steps_done(struct steps *s)
{
	for (size_t i = 0; i < s->nr_text; i++)
		free(s->text[i]);
	free(s->text);
	free(s->step);
	free(s->env);
}
