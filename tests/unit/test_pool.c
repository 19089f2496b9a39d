// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"
#include "base/pool.h"

#define NR_JOBS 200

struct shared {
	struct loop *l;
	struct pool *p;
	_Atomic int ran;
	int done, chain, stop_at;
	pthread_t loop_thread;
};

struct job {
	struct pool_job job;
	struct shared *s;
};

static void run(struct pool_job *j)
{
	struct job *job = container_of(j, struct job, job);

	assert_false(pthread_equal(pthread_self(), job->s->loop_thread));
	atomic_fetch_add(&job->s->ran, 1);
}

static void done(struct pool_job *j)
{
	struct job *job = container_of(j, struct job, job);
	struct shared *s = job->s;

	assert_true(pthread_equal(pthread_self(), s->loop_thread));
	s->done++;
	if (s->chain) {
		s->chain--;
		pool_submit(s->p, j);
	}
	if (s->done == s->stop_at)
		loop_stop(s->l);
}

static int setup(void **state)
{
	static struct shared s;

	s = (struct shared){ .l = loop_new(NULL), .loop_thread = pthread_self() };
	s.p = pool_new(s.l, 3, NULL);
	*state = &s;
	return s.p ? 0 : -1;
}

static int teardown(void **state)
{
	struct shared *s = *state;

	pool_free(s->p);
	loop_free(s->l);
	return 0;
}

static void submit_all(struct shared *s, struct job *job)
{
	for (int i = 0; i < NR_JOBS; i++) {
		job[i] = (struct job){ .job = { .run = run, .done = done }, .s = s };
		pool_submit(s->p, &job[i].job);
	}
}

static void done_is_called_on_the_loop(void **state)
{
	struct shared *s = *state;
	struct job job[NR_JOBS];

	s->stop_at = NR_JOBS;
	submit_all(s, job);
	loop_run(s->l);
	assert_int_equal(s->done, NR_JOBS);
}

static void drain_also_runs_what_done_submits(void **state)
{
	struct shared *s = *state;
	struct job job[NR_JOBS];

	s->chain = 50;
	submit_all(s, job);
	pool_drain(s->p);
	assert_int_equal(s->ran, NR_JOBS + 50);
	assert_int_equal(s->done, NR_JOBS + 50);
}

static void free_drops_done(void **state)
{
	struct shared *s = *state;
	struct job job[NR_JOBS];

	submit_all(s, job);
	pool_free(s->p);
	s->p = NULL;
	loop_stop(s->l);
	loop_run(s->l);
	assert_int_equal(s->done, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(done_is_called_on_the_loop, setup, teardown),
		cmocka_unit_test_setup_teardown(drain_also_runs_what_done_submits, setup, teardown),
		cmocka_unit_test_setup_teardown(free_drops_done, setup, teardown),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
