// SPDX-License-Identifier: MIT
/*
 * console.c - the guest's console on the host: bounded log, optional stream.
 *
 * Output goes to the log and, through a bounded buffer, to the stream; a device is
 * told how much was taken and waits with the rest, so a guest that floods its
 * console costs LIMIT_CONSOLE_LOG bytes of disk and OUT_MAX bytes of memory.
 *
 * The log is cut in place: when it would grow past its limit its newer half is
 * moved to the start.  There is no second file to rename, so the VMM needs no
 * access to a directory and a reader that holds the file open follows it by
 * seeing it shrink.
 *
 * Writers may be vCPU threads (UART), so changes to what the loop watches are
 * posted to it; everything else happens in place, under vm->lock.
 */
#include "vmm/console.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/loop.h"
#include "vmm/limits.h"

#define OUT_MAX (64u << 10)
#define IN_MAX	(16u << 10)

struct console {
	struct loop *loop;		/* borrowed */
	pthread_mutex_t *lock;		/* borrowed: vm->lock */
	struct console_listener *listener;	/* borrowed; may be NULL */

	int log_fd;			/* borrowed; -1: none */
	uint64_t log_size;

	struct loop_fd tty;		/* fd -1: none, or gone */
	struct loop_work rearm;
	bool in_eof;
	bool gone;			/* nobody reads the stream any more */
	struct buf out, in;
};

/* ---- log ---- */

static void log_cut(struct console *c)
{
	size_t keep = LIMIT_CONSOLE_LOG / 2, len = 0;
	char *data = malloc(keep);
	ssize_t n = -1;

	if (data && c->log_size > keep)
		n = io_pread_full(c->log_fd, data, keep, c->log_size - keep);
	if (n > 0)
		len = n;
	if (!ftruncate(c->log_fd, 0) && !io_pwrite_full(c->log_fd, data, len, 0))
		c->log_size = len;
	else
		c->log_fd = -1;		/* a full disk does not stop the guest */
	free(data);
}

static void log_add(struct console *c, const void *data, size_t len)
{
	if (c->log_fd < 0)
		return;
	if (c->log_size + len > LIMIT_CONSOLE_LOG)
		log_cut(c);
	if (c->log_fd >= 0 && !io_pwrite_full(c->log_fd, data, len, c->log_size))
		c->log_size += len;
}

/* ---- stream ---- */

/* The loop's thread, under the lock. */
static void watch(struct console *c)
{
	uint32_t want = 0;

	if (c->gone)
		loop_del(c->loop, &c->tty);
	if (!c->tty.added)
		return;
	if (!c->in_eof && c->in.len < IN_MAX)
		want |= EPOLLIN;
	if (c->out.len)
		want |= EPOLLOUT;
	loop_mod(c->loop, &c->tty, want);
}

static void on_rearm(struct loop_work *w)
{
	struct console *c = container_of(w, struct console, rearm);

	pthread_mutex_lock(c->lock);
	watch(c);
	pthread_mutex_unlock(c->lock);
}

static void flush(struct console *c)
{
	ssize_t n = c->out.len ? write(c->tty.fd, c->out.data, c->out.len) : 0;

	if (n > 0)
		buf_drop(&c->out, n);
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		c->gone = true;
	if (c->gone)
		buf_clear(&c->out);	/* the log has it */
}

static void fill(struct console *c)
{
	char *p = buf_reserve(&c->in, IN_MAX);
	ssize_t n;

	if (!p || c->in.len >= IN_MAX)
		return;
	n = read(c->tty.fd, p, IN_MAX - c->in.len);
	if (n > 0)
		c->in.len += n;
	else if (!n || (errno != EAGAIN && errno != EINTR))
		c->in_eof = true;
}

static void on_tty(struct loop_fd *w, uint32_t events)
{
	struct console *c = container_of(w, struct console, tty);

	pthread_mutex_lock(c->lock);
	if (events & EPOLLIN)
		fill(c);
	if (events & (EPOLLOUT | EPOLLERR))
		flush(c);
	if (events & (EPOLLHUP | EPOLLERR) && !(events & EPOLLIN))
		c->gone = true;
	if (c->gone)
		buf_clear(&c->out);
	if (c->listener)
		c->listener->event(c->listener);
	watch(c);
	pthread_mutex_unlock(c->lock);
}

/* ---- calls ---- */

struct console *console_new(struct loop *loop, pthread_mutex_t *lock,
			    int log_fd, int tty_fd, struct err *err)
{
	struct console *c = calloc(1, sizeof(*c));
	struct stat st;
	int ret = 0;

	if (!c) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	c->loop = loop;
	c->lock = lock;
	c->log_fd = log_fd;
	if (log_fd >= 0 && !fstat(log_fd, &st))
		c->log_size = st.st_size;
	c->rearm.cb = on_rearm;
	c->tty = (struct loop_fd){ .fd = tty_fd, .events = EPOLLIN, .cb = on_tty };
	if (tty_fd >= 0)
		ret = io_set_nonblock(tty_fd, true);
	if (tty_fd >= 0 && !ret)
		ret = loop_add(loop, &c->tty);
	if (!ret)
		return c;
	err_set(err, -ret, "cannot watch the console stream");
	console_free(c);
	return NULL;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	if (c->tty.added && !c->gone)
		flush(c);
	loop_del(c->loop, &c->tty);
	loop_unpost(c->loop, &c->rearm);
	buf_done(&c->in);
	buf_done(&c->out);
	free(c);
}

size_t console_write(struct console *c, const void *data, size_t len)
{
	bool waiting = c->out.len;

	if (c->tty.added && !c->gone) {
		len = MIN(len, OUT_MAX - c->out.len);
		buf_add(&c->out, data, len);
		if (!waiting)
			flush(c);
		if ((c->out.len || c->gone) && !waiting)
			loop_post(c->loop, &c->rearm);
	}
	if (len)
		log_add(c, data, len);
	return len;
}

size_t console_read(struct console *c, void *dst, size_t max)
{
	size_t n = MIN(max, c->in.len);

	if (!n)
		return 0;
	memcpy(dst, c->in.data, n);
	if (c->in.len == IN_MAX)
		loop_post(c->loop, &c->rearm);
	buf_drop(&c->in, n);
	return n;
}

void console_listen(struct console *c, struct console_listener *l)
{
	c->listener = l;
}
