// SPDX-License-Identifier: MIT
/*
 * install_base.c - the root file system of a base, made by mmdebstrap from the
 * host's own package sources.
 *
 * mmdebstrap chooses how to be root for itself: really, in a user name space, or
 * by pretending.  Documentation and translations are left out: a shell does
 * without them, and every boot that copies a base is glad.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/install.h"
#include "lib/lib.h"
#include "lib/run.h"

#define PACKAGES "ca-certificates,curl,iproute2,procps,iputils-ping,less,netbase"
#define MAX_SOURCES 16

/* mmdebstrap's "I: downloading packages with apt..." as a step of ours. */
static int base_line(const char *line, void *arg)
{
	static const char *const steps[] = {
		"downloading", "extracting", "installing", "creating",
	};
	struct installing *in = arg;
	char text[128];

	if (strncmp(line, "I: ", 3))
		return 0;
	line += 3;
	snprintf(text, sizeof(text), "base: %.*s", (int)strcspn(line, "."), line);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++)
		if (!strncmp(line, steps[i], strlen(steps[i])))
			return lib_note(in->event, in->event_arg, text);
	return 0;
}

static int run_mmdebstrap(struct installing *in, char *sources)
{
	char target[PATH_MAX];
	const char *argv[17 + MAX_SOURCES] = {
		"mmdebstrap", "--variant=minbase", "--format=tar",
		"--include=" PACKAGES,
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--aptopt=Acquire::Check-Valid-Until \"false\"",
		/* of the network here; a guest has its own */
		"--customize-hook=rm -f \"$1/etc/resolv.conf\"",
		in->codename, target,
	};
	unsigned n = 12;
	char *save = NULL;

	for (char *s = strtok_r(sources, "\n", &save); s && n < 11 + MAX_SOURCES;
	     s = strtok_r(NULL, "\n", &save))
		argv[n++] = s;
	argv[n] = NULL;
	if (lib_path(target, in->err, "%s/base.tar.zst", in->dir))
		return -ENAMETOOLONG;
	return run_program(&(struct run){ .argv = argv, .line = base_line,
					  .arg = in, .cwd = "/" }, in->err);
}

int install_base(struct installing *in)
{
	struct buf sources = BUF_INIT;
	int ret = apt_sources(in, &sources);

	if (ret && !in->private_apt) {
		err_clear(in->err);
		ret = apt_own_lists(in);
		if (!ret)
			ret = apt_sources(in, &sources);
	}
	if (!ret && sources.oom)
		ret = err_set(in->err, ENOMEM, "out of memory");
	if (!ret)
		ret = run_mmdebstrap(in, sources.data);
	buf_done(&sources);
	return ret ? err_wrap(in->err, ret, "cannot make the base file system") : 0;
}
