/* SPDX-License-Identifier: MIT */
/*
 * newfile.h - a file that appears under its name when it is whole.  For src/lib.
 */
#ifndef LIB_NEWFILE_H
#define LIB_NEWFILE_H

#include <limits.h>

struct err;

struct newfile {
	int fd;			/* owned, to be written; -1: none */
	int dir;		/* where it appears, owned */
	char name[NAME_MAX + 1];
	char tmp[64];		/* its name until then; "": it has none */
};

#define NEWFILE_INIT { .fd = -1, .dir = -1 }

/* Fails at once where the file could not appear later. */
int newfile_open(struct newfile *f, const char *path, struct err *err);
/* Durable, and under its name, replacing what had it. */
int newfile_place(struct newfile *f, struct err *err);
/* Drops it unless it was placed. */
void newfile_done(struct newfile *f);

#endif
