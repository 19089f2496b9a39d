/* SPDX-License-Identifier: MIT */
/*
 * guest.h - what PID 1 knows and everything in src/guest shares.
 *
 * Once the root file system is mounted PID 1 opens no path in it: any path may
 * be a FIFO, a dead network mount or a symbolic link to one, and PID 1 that
 * waits is a VM that hangs.  What it needs later it opened before, and the rest
 * is done by forked children.
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/doc.h"

struct guest {
	bool pid1;	/* false when the agent core runs in a test */
	struct doc config;	/* /config of the initramfs */
	int console;	/* raw console, -1 when there is none */
	int kmsg;	/* kernel log, -1 when there is none */
	int proc;	/* directory of a proc mount, -1 */
	int pts;	/* directory of the devpts mount, -1 */
	int random;	/* /dev/urandom, -1 */
	char netdev[16];	/* name of the network device, or "" */
	char **env;	/* owned list and strings: environment of each CMD */
	char *cwd;	/* owned; NULL: the home of the user */
};

/* One line to the kernel log, so that it is ordered with the kernel's own. */
void guest_log(const struct guest *g, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Adds "K=V" strings to a NULL-terminated owned list; a later value of the same
 * key replaces the earlier.  0, -EINVAL for one without "=" or key, -ENOMEM.
 */
int guest_env_add(char ***env, const char *assign);
/* The value of key in a list, or NULL. */
const char *guest_env_get(char *const *env, const char *key);

#endif
