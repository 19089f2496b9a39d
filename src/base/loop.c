// SPDX-License-Identifier: MIT
/*
 * loop.c - epoll, a sorted list of timers, and a queue of posted calls.
 *
 * One wake-up runs three batches: expired timers, ready descriptors, posts.
 * Each batch is cut off before its first callback runs, so that a callback that
 * re-arms itself cannot starve the others.
 *
 * A post wakes the loop only when it sleeps or is about to (`asleep`, under the
 * lock): most posts are made by callbacks of the loop, and three system calls to
 * wake oneself cost more than what such a post does.
 *
 * Deleting within a batch: a timer or a post is unlinked from whatever list it is
 * on, and loop_del() blanks the entries of its descriptor in the event array that
 * is being walked.
 *
 * Timers are a list, not a heap: a VM has about ten.  It stops being enough in the
 * thousands.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"

#define MAX_EVENTS 64

struct post_queue {
	struct loop_work *head, **tail;
};

struct loop {
	int epfd;			/* owned */
	int wake_fd;			/* owned; eventfd */
	struct loop_fd wake;
	struct list fds;		/* loop_fd.node */
	struct list timers;		/* loop_timer.node, soonest first */
	_Atomic bool stop;

	/* the batch being walked */
	struct epoll_event event[MAX_EVENTS];
	int nr_events, next_event;
	struct list expired;

	pthread_mutex_t lock;		/* below */
	struct post_queue posted, batch;
	bool asleep;
};

static void queue_init(struct post_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static bool queue_remove(struct post_queue *q, struct loop_work *w)
{
	struct loop_work **p = &q->head;

	while (*p && *p != w)
		p = &(*p)->next;
	if (!*p)
		return false;
	*p = w->next;
	if (q->tail == &w->next)
		q->tail = p;
	return true;
}

static void wake(struct loop *l)
{
	uint64_t one = 1;
	ssize_t n = write(l->wake_fd, &one, sizeof(one));

	(void)n;	/* a full counter wakes as well */
}

static void on_wake(struct loop_fd *w, uint32_t events)
{
	uint64_t count;
	ssize_t n = read(w->fd, &count, sizeof(count));

	(void)n;	/* the posts are looked at on every turn */
}

struct loop *loop_new(struct err *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	int ret;

	if (!l) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	list_init(&l->fds);
	list_init(&l->timers);
	list_init(&l->expired);
	queue_init(&l->posted);
	queue_init(&l->batch);
	pthread_mutex_init(&l->lock, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->wake = (struct loop_fd){ .fd = l->wake_fd, .events = EPOLLIN,
				    .cb = on_wake };
	ret = l->epfd < 0 || l->wake_fd < 0 ? -errno : loop_add(l, &l->wake);
	if (ret < 0) {
		err_set(err, -ret, "cannot make an event loop");
		loop_free(l);
		return NULL;
	}
	return l;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (!list_empty(&l->fds))
		loop_del(l, list_first(&l->fds, struct loop_fd, node));
	while (!list_empty(&l->timers))
		list_del(l->timers.next);
	io_close(l->epfd);
	io_close(l->wake_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void loop_stop(struct loop *l)
{
	int saved = errno;	/* we may be a signal handler */

	atomic_store(&l->stop, true);
	wake(l);
	errno = saved;
}

/* ---- timers ---- */

void loop_timer_init(struct loop_timer *t, void (*cb)(struct loop_timer *t))
{
	list_init(&t->node);
	t->cb = cb;
	t->deadline = 0;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline)
{
	struct loop_timer *at;

	list_del(&t->node);
	t->deadline = deadline;
	list_for_each(at, &l->timers, node)
		if (at->deadline > deadline)
			break;
	list_add_tail(&at->node, &t->node);
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	list_del(&t->node);
}

static void run_timers(struct loop *l)
{
	uint64_t now;

	if (list_empty(&l->timers))
		return;
	now = io_now_ns();
	while (!list_empty(&l->timers)) {
		struct loop_timer *t = list_first(&l->timers, struct loop_timer, node);

		if (t->deadline > now)
			break;
		list_del(&t->node);
		list_add_tail(&l->expired, &t->node);
	}
	while (!list_empty(&l->expired)) {
		struct loop_timer *t = list_first(&l->expired, struct loop_timer, node);

		list_del(&t->node);
		t->cb(t);
	}
}

/* ---- posts ---- */

void loop_post(struct loop *l, struct loop_work *w)
{
	bool asleep;

	pthread_mutex_lock(&l->lock);
	if (w->queued) {
		pthread_mutex_unlock(&l->lock);
		return;
	}
	asleep = l->asleep;
	l->asleep = false;
	w->queued = true;
	w->next = NULL;
	*l->posted.tail = w;
	l->posted.tail = &w->next;
	pthread_mutex_unlock(&l->lock);
	if (asleep)
		wake(l);
}

void loop_unpost(struct loop *l, struct loop_work *w)
{
	pthread_mutex_lock(&l->lock);
	if (w->queued) {
		if (!queue_remove(&l->posted, w))
			queue_remove(&l->batch, w);
		w->queued = false;
	}
	pthread_mutex_unlock(&l->lock);
}

static struct loop_work *next_post(struct loop *l)
{
	struct loop_work *w;

	pthread_mutex_lock(&l->lock);
	w = l->batch.head;
	if (w) {
		queue_remove(&l->batch, w);
		w->queued = false;
	}
	pthread_mutex_unlock(&l->lock);
	return w;
}

static void run_posts(struct loop *l)
{
	struct loop_work *w;

	pthread_mutex_lock(&l->lock);
	if (l->posted.head) {
		l->batch.head = l->posted.head;
		l->batch.tail = l->posted.tail;
		queue_init(&l->posted);
	}
	pthread_mutex_unlock(&l->lock);
	while ((w = next_post(l)))
		w->cb(w);
}

/* ---- descriptors ---- */

int loop_add(struct loop *l, struct loop_fd *w)
{
	struct epoll_event ev = { .events = w->events, .data.ptr = w };

	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
		return -errno;
	w->added = true;
	list_add_tail(&l->fds, &w->node);
	return 0;
}

int loop_mod(struct loop *l, struct loop_fd *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (w->events == events)
		return 0;
	if (epoll_ctl(l->epfd, EPOLL_CTL_MOD, w->fd, &ev) < 0)
		return -errno;
	w->events = events;
	return 0;
}

void loop_del(struct loop *l, struct loop_fd *w)
{
	if (!w->added)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL);
	w->added = false;
	list_del(&w->node);
	for (int i = l->next_event; i < l->nr_events; i++)
		if (l->event[i].data.ptr == w)
			l->event[i].data.ptr = NULL;
}

static void run_events(struct loop *l)
{
	l->next_event = 0;
	while (l->next_event < l->nr_events) {
		struct epoll_event *ev = &l->event[l->next_event++];
		struct loop_fd *w = ev->data.ptr;

		if (w)
			w->cb(w, ev->events);
	}
	l->nr_events = l->next_event = 0;
}

/* False while there are posts.  Until wake_up() a new one writes to wake_fd. */
static bool fall_asleep(struct loop *l)
{
	bool asleep;

	pthread_mutex_lock(&l->lock);
	asleep = l->asleep = !l->posted.head;
	pthread_mutex_unlock(&l->lock);
	return asleep;
}

static void wake_up(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	l->asleep = false;
	pthread_mutex_unlock(&l->lock);
}

/* How long the loop may sleep; NULL: until something happens. */
static struct timespec *sleep_time(struct loop *l, struct timespec *ts)
{
	uint64_t now, ns = 0;

	if (fall_asleep(l)) {
		if (list_empty(&l->timers))
			return NULL;
		now = io_now_ns();
		if (list_first(&l->timers, struct loop_timer, node)->deadline > now)
			ns = list_first(&l->timers, struct loop_timer, node)->deadline - now;
	}
	ts->tv_sec = ns / NSEC_PER_SEC;
	ts->tv_nsec = ns % NSEC_PER_SEC;
	return ts;
}

int loop_run(struct loop *l)
{
	struct timespec ts;

	while (!atomic_exchange(&l->stop, false)) {
		int n = epoll_pwait2(l->epfd, l->event, MAX_EVENTS,
				     sleep_time(l, &ts), NULL);

		if (n < 0 && errno != EINTR)
			return -errno;
		wake_up(l);
		l->nr_events = n < 0 ? 0 : n;
		l->next_event = 0;
		run_timers(l);
		run_events(l);
		run_posts(l);
	}
	return 0;
}
