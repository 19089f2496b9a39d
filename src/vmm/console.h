/* SPDX-License-Identifier: MIT */
/*
 * console.h - where the guest's console goes: a log file that stays bounded, and
 * a byte stream to the foreground program where there is one.
 *
 * Every call is made under vm->lock, on any thread; nothing blocks.  The one
 * listener (virtio-console) is called on the loop thread under vm->lock when
 * input came or room appeared.  A device without a listener (the UART) ignores
 * what was not accepted.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <pthread.h>
#include <stddef.h>

struct console;
struct err;
struct loop;

struct console_listener {
	void (*event)(struct console_listener *l);
};

/*
 * Descriptors are borrowed and may be -1: log_fd a regular file opened for
 * reading and writing, tty_fd a stream.  `lock` (borrowed) is vm->lock.
 */
struct console *console_new(struct loop *loop, pthread_mutex_t *lock,
			    int log_fd, int tty_fd, struct err *err);
void console_free(struct console *c);

/* How much was accepted: all of it, unless the stream's reader is slow. */
size_t console_write(struct console *c, const void *data, size_t len);
/* Input of the stream, at most max bytes; 0 when there is none now. */
size_t console_read(struct console *c, void *dst, size_t max);
/* Borrowed; NULL to stop listening. */
void console_listen(struct console *c, struct console_listener *l);

#endif
