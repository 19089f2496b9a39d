// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/loop.h"

struct fix {
	struct loop *l;
	int order[16];
	unsigned nr;
};

struct item {
	struct fix *f;
	int id;
	struct loop_timer t;
	struct loop_work w;
	struct loop_fd fd;
	struct item *other;
};

static int setup(void **state)
{
	static struct fix f;

	f = (struct fix){ .l = loop_new(NULL) };
	*state = &f;
	return f.l ? 0 : -1;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	loop_free(f->l);
	return 0;
}

static void note(struct item *it)
{
	it->f->order[it->f->nr++] = it->id;
}

static void timer_cb(struct loop_timer *t)
{
	struct item *it = container_of(t, struct item, t);

	note(it);
	if (it->other)
		loop_timer_cancel(it->f->l, &it->other->t);
	if (it->id == 9)
		loop_stop(it->f->l);
}

static void timers_run_in_order_and_cancel(void **state)
{
	struct fix *f = *state;
	uint64_t now = io_now_ns();
	struct item a = { f, .id = 1 }, b = { f, .id = 2 }, c = { f, .id = 3 },
		    end = { f, .id = 9 };

	loop_timer_init(&a.t, timer_cb);
	loop_timer_init(&b.t, timer_cb);
	loop_timer_init(&c.t, timer_cb);
	loop_timer_init(&end.t, timer_cb);
	loop_timer_set(f->l, &end.t, now + 3000000);
	loop_timer_set(f->l, &b.t, now + 2);
	loop_timer_set(f->l, &c.t, now + 9000000);
	loop_timer_set(f->l, &c.t, now + 3);	/* re-armed earlier */
	loop_timer_set(f->l, &a.t, now + 1);
	b.other = &c;			/* same batch: must not run any more */
	assert_int_equal(loop_run(f->l), 0);
	assert_true(io_now_ns() >= now + 3000000);
	assert_int_equal(f->nr, 3);
	assert_int_equal(f->order[0], 1);
	assert_int_equal(f->order[1], 2);
	assert_int_equal(f->order[2], 9);
}

static void fd_cb(struct loop_fd *w, uint32_t events)
{
	struct item *it = container_of(w, struct item, fd);

	note(it);
	assert_true(events & EPOLLIN);
	if (it->other)
		loop_del(it->f->l, &it->other->fd);
	loop_del(it->f->l, &it->fd);
	loop_stop(it->f->l);
}

/* Two descriptors ready at once: whichever comes first deletes the other. */
static void deleted_fd_gets_no_callback(void **state)
{
	struct fix *f = *state;
	struct item a = { f, .id = 1 }, b = { f, .id = 2, .other = &a };

	a.other = &b;
	a.fd = (struct loop_fd){ .fd = eventfd(1, 0), .events = EPOLLIN, .cb = fd_cb };
	b.fd = (struct loop_fd){ .fd = eventfd(1, 0), .events = EPOLLIN, .cb = fd_cb };
	assert_int_equal(loop_add(f->l, &a.fd), 0);
	assert_int_equal(loop_add(f->l, &b.fd), 0);
	assert_int_equal(loop_run(f->l), 0);
	assert_int_equal(f->nr, 1);
	close(a.fd.fd);
	close(b.fd.fd);
}

static void work_cb(struct loop_work *w)
{
	struct item *it = container_of(w, struct item, w);

	note(it);
	if (it->other)
		loop_unpost(it->f->l, &it->other->w);
	if (it->id == 9)
		loop_stop(it->f->l);
}

static void posts_keep_order_and_unpost(void **state)
{
	struct fix *f = *state;
	struct item a = { f, .id = 1, .w.cb = work_cb }, b = { f, .id = 2, .w.cb = work_cb },
		    c = { f, .id = 3, .w.cb = work_cb }, end = { f, .id = 9, .w.cb = work_cb };

	loop_post(f->l, &a.w);
	loop_post(f->l, &c.w);
	loop_unpost(f->l, &c.w);
	loop_unpost(f->l, &c.w);
	loop_post(f->l, &b.w);
	loop_post(f->l, &a.w);	/* already queued */
	loop_post(f->l, &c.w);
	loop_post(f->l, &end.w);
	b.other = &c;		/* unposted out of the running batch */
	loop_run(f->l);
	assert_int_equal(f->nr, 3);
	assert_int_equal(f->order[0], 1);
	assert_int_equal(f->order[1], 2);
	assert_int_equal(f->order[2], 9);
}

#define NR_POSTS 20000

struct counter {
	struct loop *l;
	struct loop_work w[2];
	_Atomic int sent[2];
	_Atomic int seen[2];
};

static void count0(struct loop_work *w)
{
	container_of(w, struct counter, w[0])->seen[0]++;
}

static void count1(struct loop_work *w)
{
	container_of(w, struct counter, w[1])->seen[1]++;
}

static void *poster(void *arg)
{
	struct counter *c = arg;

	while (!c->seen[0])	/* the loop runs */
		loop_post(c->l, &c->w[0]);
	for (int i = 0; i < NR_POSTS; i++) {
		loop_post(c->l, &c->w[0]);
		loop_post(c->l, &c->w[1]);
	}
	loop_stop(c->l);
	return NULL;
}

static void posts_from_another_thread(void **state)
{
	struct fix *f = *state;
	struct counter c = { .l = f->l, .w = { { .cb = count0 }, { .cb = count1 } } };
	pthread_t t;

	pthread_create(&t, NULL, poster, &c);
	loop_run(f->l);
	pthread_join(t, NULL);
	loop_unpost(f->l, &c.w[0]);
	loop_unpost(f->l, &c.w[1]);
	assert_true(c.seen[0] >= 1);
	assert_true(c.seen[1] >= 0 && c.seen[1] <= NR_POSTS);
}

/* One at a time, so that each finds the loop asleep, awake or on its way. */
static void *careful_poster(void *arg)
{
	struct counter *c = arg;

	for (int i = 0; i < NR_POSTS; i++) {
		loop_post(c->l, &c->w[0]);
		while (c->seen[0] <= i)
			if (i & 1)
				sched_yield();
	}
	loop_stop(c->l);
	return NULL;
}

static void no_post_is_slept_through(void **state)
{
	struct fix *f = *state;
	struct counter c = { .l = f->l, .w = { { .cb = count0 } } };
	pthread_t t;

	pthread_create(&t, NULL, careful_poster, &c);
	alarm(60);
	loop_run(f->l);
	alarm(0);
	pthread_join(t, NULL);
	assert_int_equal(c.seen[0], NR_POSTS);
}

static void stop_cb(struct loop_work *w)
{
	loop_stop(container_of(w, struct item, w)->f->l);
}

static void post_again(struct loop_work *w)
{
	struct item *it = container_of(w, struct item, w);

	note(it);
	loop_post(it->f->l, &it->other->w);
}

/* The wake-up of a post made by a post must not be taken for the first one's. */
static void posts_made_by_posts_run(void **state)
{
	struct fix *f = *state;
	struct item end = { .f = f, .id = 3, .w.cb = stop_cb };
	struct item b = { .f = f, .id = 2, .w.cb = post_again, .other = &end };
	struct item a = { .f = f, .id = 1, .w.cb = post_again, .other = &b };

	loop_post(f->l, &a.w);
	alarm(10);
	assert_int_equal(loop_run(f->l), 0);
	alarm(0);
	assert_int_equal(f->nr, 2);
}

static void stop_before_run_returns(void **state)
{
	struct fix *f = *state;

	loop_stop(f->l);
	assert_int_equal(loop_run(f->l), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(timers_run_in_order_and_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(deleted_fd_gets_no_callback, setup, teardown),
		cmocka_unit_test_setup_teardown(posts_keep_order_and_unpost, setup, teardown),
		cmocka_unit_test_setup_teardown(posts_from_another_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(no_post_is_slept_through, setup, teardown),
		cmocka_unit_test_setup_teardown(posts_made_by_posts_run, setup, teardown),
		cmocka_unit_test_setup_teardown(stop_before_run_returns, setup, teardown),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
