/* SPDX-License-Identifier: MIT */
/*
 * user.h - users and groups of the guest's root file system.
 *
 * /etc/passwd and /etc/group are read here rather than through libc: they belong
 * to the image, and static musl would also look for services we do not have.
 * Only child processes call this: the files may be anything, a FIFO included,
 * and PID 1 must not wait for one.
 */
#ifndef GUEST_USER_H
#define GUEST_USER_H

#include <sys/types.h>

#define USER_GROUPS_MAX 64

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[USER_GROUPS_MAX];	/* gid first */
	unsigned nr_groups;
	char name[64];		/* "" when the uid has no entry */
	char home[256];		/* "/" when unknown */
	char shell[256];	/* "/bin/sh" when unknown */
};

/*
 * "name", "uid", each with ":group" or ":gid"; NULL or "" is root.  A number
 * needs no entry, a name does: -ENOENT.  -EINVAL for what is neither.
 */
int user_find(struct user *u, const char *spec);

/* The same on given file contents (tests, fuzzing); either may be NULL. */
int user_lookup(struct user *u, const char *spec, const char *passwd,
		const char *group);

#endif
