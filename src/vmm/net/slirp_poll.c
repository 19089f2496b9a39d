// SPDX-License-Identifier: MIT
/*
 * slirp_poll.c - libslirp's descriptors and timers on our event loop.
 *
 * libslirp is written for poll(2): before sleeping it wants to say which
 * descriptors it waits for and how long (fill), after waking to be told which are
 * ready (poll).  We turn that into a *pass* that runs at most once a turn of the
 * loop, whenever a frame, a socket or a timer gave it a reason:
 *
 *	slirp_pollfds_poll(what epoll reported)  then  slirp_pollfds_fill(),
 *
 * and the descriptors it names are kept registered with epoll as `struct watch`,
 * changed only where its wishes changed.  It has no threads and no main loop.  A
 * pass asks about every socket there is, LIMIT_NET_SOCKETS at most.
 *
 * Its timers tick twice a second as long as there is any TCP socket, a listening
 * one included.  When nothing has moved for so long that each of them has run out,
 * the tick stops until something happens: idle connections wake nobody.  (What was
 * not acknowledged moves: it is sent again.)
 *
 * Its sockets are counted by their watches.  A watch is made when libslirp says
 * that it opened a socket or, for those of which it does not say so, when it names
 * it first.
 */
#include "vmm/net/slirp.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/io.h"

#define TICK_MS		500
/* Longer than the longest of its timers, which is FIN_WAIT_2's ten minutes. */
#define QUIET_TICKS	(11 * 60 * 1000 / TICK_MS)
/* With listening sockets alone: two minutes. */
#define LISTEN_TICKS	(2 * 60 * 1000 / TICK_MS)

struct watch {
	struct list node;		/* nat->watches */
	struct nat *nat;		/* borrowed */
	struct loop_fd w;		/* fd is libslirp's */
	unsigned round;			/* of the last fill that named it */
	int idx;			/* in nat->poll[] */
	uint32_t ready;			/* EPOLL* reported since the last pass */
};

/* libslirp's own timers (router advertisements). */
struct nat_timer {
	struct loop_timer t;
	struct nat *nat;
	SlirpTimerCb cb;
	void *opaque;
};

void nat_schedule(struct nat *n)
{
	n->quiet = 0;
	loop_post(n->loop, &n->pass);
}

static struct watch *watch_of(struct nat *n, int fd)
{
	return (size_t)fd < n->nr_by_fd ? n->by_fd[fd] : NULL;
}

static void watch_ready(struct loop_fd *w, uint32_t events)
{
	struct watch *x = container_of(w, struct watch, w);

	x->ready |= events;
	nat_schedule(x->nat);
}

static struct watch *watch_new(struct nat *n, int fd)
{
	struct watch *x = calloc(1, sizeof(*x));
	struct watch **bigger;

	if (x && (size_t)fd >= n->nr_by_fd) {
		size_t nr = fd + 64;

		bigger = realloc(n->by_fd, nr * sizeof(struct watch *));
		if (!bigger) {
			free(x);
			return NULL;
		}
		memset(bigger + n->nr_by_fd, 0, (nr - n->nr_by_fd) * sizeof(struct watch *));
		n->by_fd = bigger;
		n->nr_by_fd = nr;
	}
	if (!x)
		return NULL;
	x->nat = n;
	x->idx = -1;
	x->w = (struct loop_fd){ .fd = fd, .cb = watch_ready };
	list_add_tail(&n->watches, &x->node);
	n->nr_watches++;
	n->by_fd[fd] = x;
	n->last_fd = fd;
	return x;
}

static void watch_free(struct watch *x)
{
	struct nat *n = x->nat;

	loop_del(n->loop, &x->w);
	if (x->idx >= 0 && (unsigned)x->idx < n->nr_poll && n->poll[x->idx] == x)
		n->poll[x->idx] = NULL;
	n->by_fd[x->w.fd] = NULL;
	list_del(&x->node);
	n->nr_watches--;
	free(x);
}

static void cb_unregister(int fd, void *opaque)
{
	struct watch *x = watch_of(opaque, fd);

	if (x)
		watch_free(x);
}

/* A watch of that number is of another socket. */
static void cb_register(int fd, void *opaque)
{
	cb_unregister(fd, opaque);
	if (fd >= 0)
		watch_new(opaque, fd);
}

static int cb_add_poll(int fd, int events, void *opaque)
{
	struct nat *n = opaque;
	struct watch *x = watch_of(n, fd);
	uint32_t want = (events & SLIRP_POLL_IN ? EPOLLIN : 0) |
			(events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
			(events & SLIRP_POLL_PRI ? EPOLLPRI : 0);

	/* Who comes while there are too many waits in the listener's backlog. */
	if (n->nr_watches >= n->max_sockets && nat_is_listener(n, fd))
		want = 0;
	if (n->nr_poll == n->cap_poll) {
		unsigned cap = n->cap_poll * 2 + 64;
		struct watch **p = realloc(n->poll, cap * sizeof(struct watch *));

		if (!p)
			return -1;
		n->poll = p;
		n->cap_poll = cap;
	}
	if (!x)
		x = watch_new(n, fd);
	if (!x)
		return -1;
	if (x->w.added) {
		loop_mod(n->loop, &x->w, want);
	} else {
		x->w.events = want;
		loop_add(n->loop, &x->w);
	}
	x->round = n->round;
	x->idx = n->nr_poll;
	n->poll[n->nr_poll++] = x;
	return x->idx;
}

static int cb_revents(int idx, void *opaque)
{
	struct nat *n = opaque;
	const struct watch *x = idx >= 0 && (unsigned)idx < n->nr_poll ? n->poll[idx] : NULL;
	uint32_t e = x ? x->ready : 0;

	return (e & EPOLLIN ? SLIRP_POLL_IN : 0) |
	       (e & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (e & EPOLLPRI ? SLIRP_POLL_PRI : 0) |
	       (e & EPOLLERR ? SLIRP_POLL_ERR : 0) |
	       (e & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

/* What libslirp did not name is not to wake us. */
static void drop_unnamed(struct nat *n)
{
	struct watch *x;

	list_for_each(x, &n->watches, node) {
		x->ready = 0;
		if (x->round == n->round)
			continue;
		x->idx = -1;
		loop_del(n->loop, &x->w);
	}
}

static void set_tick(struct nat *n, uint32_t ms)
{
	unsigned enough = n->nr_watches > n->nr_forwards ? QUIET_TICKS : LISTEN_TICKS;

	/* Above TICK_MS it has no timer running and only means "now and then". */
	if (ms > TICK_MS || n->quiet > enough)
		loop_timer_cancel(n->loop, &n->tick);
	else
		loop_timer_set(n->loop, &n->tick, io_now_ns() + ms * 1000000ull);
}

void nat_fill(struct nat *n)
{
	uint32_t ms = UINT32_MAX;

	n->round++;
	n->nr_poll = 0;
	slirp_pollfds_fill(n->slirp, &ms, cb_add_poll, n);
	drop_unnamed(n);
	n->opening = 0;
	n->full = n->nr_watches >= n->max_sockets;
	set_tick(n, ms);
}

bool nat_may_open(struct nat *n)
{
	if (!n->full && n->nr_watches + n->opening >= n->max_sockets)
		nat_fill(n);	/* which of them did? */
	n->opening++;
	return !n->full;
}

static void run_pass(struct nat *n)
{
	pthread_mutex_lock(n->lock);
	slirp_pollfds_poll(n->slirp, 0, cb_revents, n);
	nat_fill(n);
	pthread_mutex_unlock(n->lock);
}

static void pass_posted(struct loop_work *w)
{
	run_pass(container_of(w, struct nat, pass));
}

static void ticked(struct loop_timer *t)
{
	struct nat *n = container_of(t, struct nat, tick);

	n->quiet++;
	run_pass(n);
}

static void nat_timer_fired(struct loop_timer *t)
{
	struct nat_timer *x = container_of(t, struct nat_timer, t);

	pthread_mutex_lock(x->nat->lock);
	x->cb(x->opaque);
	pthread_mutex_unlock(x->nat->lock);
}

static void *cb_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct nat_timer *x = g_malloc0(sizeof(*x));

	x->nat = opaque;
	x->cb = cb;
	x->opaque = cb_opaque;
	loop_timer_init(&x->t, nat_timer_fired);
	return x;
}

static void cb_timer_free(void *timer, void *opaque)
{
	struct nat_timer *x = timer;

	loop_timer_cancel(x->nat->loop, &x->t);
	g_free(x);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct nat_timer *x = timer;

	loop_timer_set(x->nat->loop, &x->t, expire_ms * 1000000ull);
}

static int64_t cb_clock(void *opaque)
{
	return io_now_ns();
}

static void cb_notify(void *opaque)
{
	nat_schedule(opaque);
}

void nat_poll_init(struct nat *n)
{
	list_init(&n->watches);
	loop_timer_init(&n->tick, ticked);
	n->pass.cb = pass_posted;
	n->cb.clock_get_ns = cb_clock;
	n->cb.timer_new = cb_timer_new;
	n->cb.timer_free = cb_timer_free;
	n->cb.timer_mod = cb_timer_mod;
	n->cb.register_poll_fd = cb_register;
	n->cb.unregister_poll_fd = cb_unregister;
	n->cb.notify = cb_notify;
}

void nat_poll_done(struct nat *n)
{
	while (!list_empty(&n->watches))
		watch_free(list_first(&n->watches, struct watch, node));
	loop_timer_cancel(n->loop, &n->tick);
	loop_unpost(n->loop, &n->pass);
	free(n->by_fd);
	free(n->poll);
}
