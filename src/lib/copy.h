/* SPDX-License-Identifier: MIT */
/*
 * copy.h - tar streams between host directories and the guest's agent.  For
 * src/lib only.
 *
 * What comes from a guest is hostile: names resolve below the destination and
 * through no symbolic link, device nodes are left out, set-id bits are dropped.
 */
#ifndef LIB_COPY_H
#define LIB_COPY_H

#include <stddef.h>
#include <sys/types.h>

struct archive;
struct err;

/* Writes path (a file or a tree) to an open pax archive as "." and "./...". */
int copy_pack(struct archive *a, const char *path, struct err *err);
/*
 * Unpacks an opened archive as name in dirfd, replacing files that are there.
 */
int copy_unpack(struct archive *a, int dirfd, const char *name, struct err *err);

#endif
