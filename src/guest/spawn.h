/* SPDX-License-Identifier: MIT */
/* spawn.h - the life of a command between fork and exec. */
#ifndef GUEST_SPAWN_H
#define GUEST_SPAWN_H

#include <stdbool.h>

struct guest;

struct spawn {
	char **argv;		/* borrowed; NULL or empty: shell or login */
	const char *shell;	/* borrowed; a line for /bin/sh -c */
	char **env;		/* borrowed; added to the guest's own */
	const char *cwd;	/* borrowed; NULL: the guest's default */
	const char *user;	/* borrowed; NULL: root */
	const char *term;	/* borrowed; TERM on a terminal */
	bool login;		/* the user's shell as a login shell, in its home */
	bool tty;		/* fd[0] is a terminal to be controlled by */
	int fd[3];		/* become 0, 1, 2; descriptors above them close */
};

/*
 * Runs in the forked child and ends it: with the command, or with a message on
 * its stderr and status 127 (not found) or 126 (found, but not to be started).
 */
_Noreturn void spawn_exec(const struct guest *g, const struct spawn *s);

/* Undoes in a child what PID 1 set up for itself: signals, limits, OOM score. */
void spawn_reset(const struct guest *g);

#endif
