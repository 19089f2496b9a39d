/* SPDX-License-Identifier: MIT */
/*
 * devfix.h - an instance of any device class with everything behind it that it
 * needs (a disk in memory, a socket, …), for the tests that walk the table.
 */
#ifndef TESTS_LIB_DEVFIX_H
#define TESTS_LIB_DEVFIX_H

#include "tests/lib/vdriver.h"

struct devfix {
	struct vdriver d;
	const struct virtio_class *class;
	struct console *console;
	int fd[4];		/* owned, -1: none */
};

void devfix_init(struct devfix *f, const struct virtio_class *class);
/* Another instance in place of the first, RAM and rings as they are. */
void devfix_replace(struct devfix *f);
void devfix_done(struct devfix *f);

#endif
