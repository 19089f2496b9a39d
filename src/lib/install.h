/* SPDX-License-Identifier: MIT */
/*
 * install.h - the parts of `machinen install`, and finding what it made.  For
 * src/lib only.
 *
 * A base is a directory:
 *	vmlinuz			the kernel as Debian ships it
 *	modules/NAME.ko		and modules/modules.dep, see kmod.h
 *	base.tar.zst		the root file system
 *	manifest.json		version, kernel release, sizes, SHA-256 of each file
 * It appears whole, by rename, and is not written to afterwards.
 */
#ifndef LIB_INSTALL_H
#define LIB_INSTALL_H

#include <limits.h>

#include "machinen.h"

struct buf;
struct err;

/* What the steps share: one installation under way. */
struct installing {
	char dir[PATH_MAX];	/* being filled, becomes the base */
	char tmp[PATH_MAX];	/* scratch, removed at the end */
	char codename[64];	/* of the host's release */
	char release[128];	/* of the kernel */
	bool private_apt;	/* lists of our own instead of the host's */
	mn_event_fn event;	/* may be NULL */
	void *event_arg;
	struct err *err;
};

/* install_apt.c: apt as an ordinary user. */
int apt_run(struct installing *in, const char *const *args, const char *cwd,
	    struct buf *out);
/* Fetches package lists into a place of our own, when the host has none. */
int apt_own_lists(struct installing *in);
/* Lines "deb URI SUITE COMPONENT" of the host's own distribution. */
int apt_sources(struct installing *in, struct buf *out);

/* install_kernel.c, install_base.c */
int install_kernel(struct installing *in);
int install_base(struct installing *in);

/* Hex SHA-256 and size of a file. */
int file_digest(const char *path, char hex[65], uint64_t *size, struct err *err);
/* Where the base is: $MACHINEN_ASSETS_DIR or base/current. */
int base_find(char dir[PATH_MAX], struct err *err);

#endif
