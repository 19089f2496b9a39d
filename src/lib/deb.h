/* SPDX-License-Identifier: MIT */
/*
 * deb.h - reads files out of a Debian package.  For src/lib only.
 *
 * The package is one that apt verified, yet its paths are checked as if it were
 * not: nothing is written outside of dir.
 */
#ifndef LIB_DEB_H
#define LIB_DEB_H

#include <stdbool.h>

struct err;

/*
 * Unpacks the regular files of the package for which want(path) says so, as
 * dir/path; path has no leading "./" or "/".  0 or -errno.
 */
int deb_unpack(const char *deb, const char *dir, bool (*want)(const char *path),
	       struct err *err);

#endif
