// SPDX-License-Identifier: MIT
/*
 * install_apt.c - apt as an ordinary user.
 *
 * Where packages come from, which keys sign them and which proxy is in between
 * is the host's configuration, and apt is asked for it: nothing here knows a
 * server.  When the host never ran `apt-get update`, or its lists are too old
 * to download by, lists of our own go to the scratch directory, which needs
 * no privilege.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/install.h"
#include "lib/lib.h"
#include "lib/run.h"

#define MAX_ARGS 24

int apt_run(struct installing *in, const char *const *args, const char *cwd,
	    struct buf *out)
{
	char state[PATH_MAX + 32], cache[PATH_MAX + 32];
	const char *argv[MAX_ARGS] = { args[0], "-q" };
	unsigned n = 2;

	if (in->private_apt) {
		snprintf(state, sizeof(state), "Dir::State=%s/apt", in->tmp);
		snprintf(cache, sizeof(cache), "Dir::Cache=%s/apt-cache", in->tmp);
		argv[n++] = "-o";
		argv[n++] = state;
		argv[n++] = "-o";
		argv[n++] = cache;
		argv[n++] = "-o";
		argv[n++] = "Dir::State::status=/var/lib/dpkg/status";
	}
	if (!geteuid()) {
		/* the sandbox user cannot write to a 0700 directory */
		argv[n++] = "-o";
		argv[n++] = "APT::Sandbox::User=root";
	}
	for (unsigned i = 1; args[i]; i++) {
		ASSERT(n < MAX_ARGS - 1);
		argv[n++] = args[i];
	}
	argv[n] = NULL;
	return run_program(&(struct run){ .argv = argv, .cwd = cwd, .output = out },
			   in->err);
}

int apt_own_lists(struct installing *in)
{
	static const char *const update[] = { "apt-get", "update", NULL };
	static const char *const dirs[] = {
		"apt/lists/partial", "apt-cache/archives/partial",
	};
	char path[PATH_MAX];

	lib_note(in->event, in->event_arg, "fetching package lists");
	for (unsigned i = 0; i < ARRAY_LEN(dirs); i++) {
		int ret;

		ret = lib_path(path, in->err, "%s/%s", in->tmp, dirs[i]);
		if (ret)
			return ret;
		ret = io_mkdir_all(path, 0700);
		if (ret)
			return err_set(in->err, -ret, "cannot create %s", path);
	}
	in->private_apt = true;
	return apt_run(in, update, NULL, NULL);
}

/* Takes a row "URI|release|component|origin" when it is of our distribution. */
static bool add_source(const struct installing *in, char *row, struct buf *out)
{
	char *save = NULL;
	const char *uri = strtok_r(row, "|", &save);
	const char *suite = strtok_r(NULL, "|", &save);
	const char *component = strtok_r(NULL, "|", &save);
	const char *origin = strtok_r(NULL, "|", &save);
	size_t n = strlen(in->codename);
	const char *key = "";

	if (!origin || strncmp(suite, in->codename, n) ||
	    (suite[n] && suite[n] != '-') || strcmp(component, "main"))
		return false;
	if (!strcmp(origin, "Debian") &&
	    !access("/usr/share/keyrings/debian-archive-keyring.gpg", R_OK))
		key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ";
	else if (strcmp(origin, "Debian") && strcmp(origin, "Ubuntu"))
		return false;
	buf_addf(out, "deb %s%s %s %s\n", key, uri, suite, component);
	return true;
}

int apt_sources(struct installing *in, struct buf *out)
{
	static const char *const targets[] = {
		"apt-get", "indextargets", "--format",
		"$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)",
		"Created-By: Packages", NULL,
	};
	struct buf rows = BUF_INIT;
	unsigned found = 0;
	char *save = NULL;
	int ret;

	ret = apt_run(in, targets, NULL, &rows);
	buf_add(&rows, "", 0);
	if (!ret && rows.oom)
		ret = err_set(in->err, ENOMEM, "out of memory");
	/* add_source() cuts at '|', so strtok_r on lines is done by hand */
	for (char *row = ret ? NULL : rows.data; row && *row; row = save) {
		save = row + strcspn(row, "\n");
		if (*save)
			*save++ = '\0';
		found += add_source(in, row, out);
	}
	buf_done(&rows);
	if (!ret && !found)
		return err_set(in->err, ENOENT,
			       "apt has no package source of %s with component main",
			       in->codename);
	return ret;
}
