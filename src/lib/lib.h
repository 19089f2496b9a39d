/* SPDX-License-Identifier: MIT */
/*
 * lib.h - what the files of libmachinen share: turning internal errors into
 * public ones, where things live, reporting events.  For src/lib only.
 */
#ifndef LIB_LIB_H
#define LIB_LIB_H

#include <limits.h>
#include <stddef.h>

#include "base/err.h"
#include "machinen.h"

/* Ends a public call: copies e to out (may be NULL) when ret < 0; returns ret. */
int lib_return(struct mn_error *out, const struct err *e, int ret);

/*
 * A config as this library knows it: copies what the caller's has, zeroes the
 * rest, refuses one that is bigger than ours and not zero there.
 */
int lib_config(void *dst, size_t dst_size, const void *src, struct err *err);

/* Events; fn may be NULL.  The callback's verdict comes back. */
int lib_progress(mn_event_fn fn, void *arg, const char *name, uint64_t done,
		 uint64_t total);
int lib_note(mn_event_fn fn, void *arg, const char *text);
/* Reports a phase that began at *since and sets *since to now. */
int lib_phase(mn_event_fn fn, void *arg, const char *name, uint64_t *since);

/* Formats a path; -ENAMETOOLONG with err when it does not fit. */
int lib_path(char path[PATH_MAX], struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* home.c: $MACHINEN_HOME or ~/.machinen, absolute; and a path below it. */
int home_get(char path[PATH_MAX], struct err *err);
int home_path(char path[PATH_MAX], const char *sub, struct err *err);
#define HOME_VERDICT "kvm-verdict"	/* of the VMM's probe; see docs/kvm.md */
/* Creates home/sub, 0700, and opens it: a directory descriptor or -errno. */
int home_open(const char *sub, struct err *err);
/* The registry's directory: $MACHINEN_REGISTRY_DIR or home/vms; created. */
int home_registry(char path[PATH_MAX], struct err *err);
/*
 * One of our own files beside the running program: `name` next to the
 * executable, in ../guest of a build tree, or in ../libexec/machinen.
 */
int home_program(char path[PATH_MAX], const char *name, struct err *err);

/* "ENOSPC" becomes HOST_NO_SPACE with the path and what is free. */
int lib_host_err(struct err *err, int ret, const char *path, const char *what);
/* What is free on the file system that the path is on, or would be. */
unsigned long long lib_free_mib(const char *path);

#endif
