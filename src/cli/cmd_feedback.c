// SPDX-License-Identifier: MIT
/*
 * cmd_feedback.c - machinen feedback
 *
 * One JSON document a line in feedback.jsonl of the machinen home, appended with
 * one write(2).  Sending it anywhere is curl's work, and only when
 * MACHINEN_FEEDBACK_ENDPOINT says where to.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cmd.h"

struct opts {
	const char *text;
	bool list, json;
};

extern char **environ;

static int fail(const struct opts *o, int num, const char *path)
{
	struct mn_error err = { .code = MN_HOST_FAILED, .num = num };

	err.len = (size_t)snprintf(err.text, sizeof(err.text), "cannot use %s: %s", path,
				   strerror(num)) + 1;
	return out_error(&err, o->json);
}

static int post(const char *endpoint, const char *line)
{
	const char *const argv[] = {
		"curl", "-fsS", "-m", "10", "-H", "Content-Type: application/json",
		"--data-binary", line, "--", endpoint, NULL,
	};
	posix_spawn_file_actions_t fa;
	int status = -1, ret;
	pid_t pid;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	ret = posix_spawnp(&pid, "curl", &fa, NULL, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	if (!ret)
		waitpid(pid, &status, 0);
	return ret || status ? -1 : 0;
}

static int append(const struct opts *o, const char *path)
{
	const char *endpoint = getenv("MACHINEN_FEEDBACK_ENDPOINT");
	json_t *doc = json_pack("{s:i, s:I, s:s, s:s}", "schema_version",
				CMD_JSON_VERSION, "at", (json_int_t)time(NULL),
				"version", mn_version(), "text", o->text);
	char *line = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), ret = 0;
	bool sent = false;
	char *full;

	json_decref(doc);
	if (!line || fd < 0 || asprintf(&full, "%s\n", line) < 0) {
		ret = fail(o, line ? errno : EILSEQ, path);
	} else {
		if (write(fd, full, strlen(full)) != (ssize_t)strlen(full))
			ret = fail(o, errno, path);
		free(full);
	}
	if (fd >= 0)
		close(fd);
	if (!ret && endpoint && *endpoint) {
		sent = !post(endpoint, line);
		if (!sent && !o->json)
			out_note("the note is kept, but could not be sent to %s", endpoint);
	}
	free(line);
	if (!ret && o->json)
		out_json(json_pack("{s:b, s:s, s:b}", "ok", 1, "path", path, "sent", sent));
	else if (!ret)
		printf("noted in %s\n", path);
	return ret;
}

static int list(const struct opts *o, const char *path)
{
	json_t *all = json_array(), *doc;
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0) {
		doc = json_loads(line, 0, NULL);
		if (doc && !o->json)
			printf("%s\n", json_string_value(json_object_get(doc, "text")));
		if (doc)
			json_array_append_new(all, doc);
	}
	free(line);
	if (f)
		fclose(f);
	if (o->json)
		return out_json(json_pack("{s:b, s:o}", "ok", 1, "notes", all));
	if (!json_array_size(all))
		puts("(no notes)");
	json_decref(all);
	return 0;
}

static int run(const void *v)
{
	char home[PATH_MAX], path[PATH_MAX + 32];
	struct mn_error err = { .code = MN_OK };
	const struct opts *o = v;

	if (!o->list && !o->text)
		return out_usage_error(MN_PARSE_ARGUMENT_MISSING, o->json,
				       "feedback needs TEXT, or --list");
	if (mn_home(home, sizeof(home), &err))
		return out_error(&err, o->json);
	mkdir(home, 0700);
	snprintf(path, sizeof(path), "%s/feedback.jsonl", home);
	return o->list ? list(o, path) : append(o, path);
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_feedback = {
	.opt = {
		.name = "feedback",
		.summary = "Keep a note about machinen",
		.json = "ok, path, sent; with --list: ok, notes[schema_version, at, version, text]",
		.args = (const struct opt_arg[]){
			{ .name = "TEXT", .optional = true, OFF(text), .help = "the note" },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "list", .kind = OPT_SWITCH, OFF(list),
			  .help = "print the notes" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
