// SPDX-License-Identifier: MIT
/*
 * pool.c - jobs wait in one queue, run on whichever thread is free, and come
 * back to the loop on one posted call that empties the queue of finished jobs.
 *
 * A thread is started when a job finds none idle and the limit is not reached;
 * threads stay until pool_free().  Where not even one thread can be had, the job
 * runs in place: slow, but the VM goes on.
 */
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/err.h"

struct pool {
	struct loop *loop;		/* borrowed */
	unsigned max_threads;
	struct loop_work work;		/* finished jobs are waiting */

	pthread_mutex_t lock;		/* all below */
	pthread_cond_t more;		/* queued grew, or quit */
	pthread_cond_t less;		/* running fell */
	struct list queued, finished;
	unsigned nr_running, nr_idle, nr_threads;
	bool quit;
	pthread_t thread[];
};

static void *pool_thread(void *arg)
{
	struct pool *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct pool_job *job;

		while (list_empty(&p->queued) && !p->quit) {
			p->nr_idle++;
			pthread_cond_wait(&p->more, &p->lock);
			p->nr_idle--;
		}
		if (p->quit)
			break;
		job = list_first(&p->queued, struct pool_job, node);
		list_del(&job->node);
		p->nr_running++;
		pthread_mutex_unlock(&p->lock);
		job->run(job);
		pthread_mutex_lock(&p->lock);
		p->nr_running--;
		list_add_tail(&p->finished, &job->node);
		pthread_cond_broadcast(&p->less);
		loop_post(p->loop, &p->work);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Calls done() of everything finished; the lock is held around, not within. */
static void run_finished(struct pool *p)
{
	while (!list_empty(&p->finished)) {
		struct pool_job *job = list_first(&p->finished, struct pool_job, node);

		list_del(&job->node);
		pthread_mutex_unlock(&p->lock);
		job->done(job);
		pthread_mutex_lock(&p->lock);
	}
}

static void on_finished(struct loop_work *w)
{
	struct pool *p = container_of(w, struct pool, work);

	pthread_mutex_lock(&p->lock);
	run_finished(p);
	pthread_mutex_unlock(&p->lock);
}

struct pool *pool_new(struct loop *l, unsigned max_threads, struct err *err)
{
	struct pool *p = calloc(1, sizeof(*p) + max_threads * sizeof(p->thread[0]));

	if (!p) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	p->loop = l;
	p->max_threads = max_threads;
	p->work.cb = on_finished;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
	pthread_cond_init(&p->less, NULL);
	list_init(&p->queued);
	list_init(&p->finished);
	return p;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->nr_threads; i++)
		pthread_join(p->thread[i], NULL);
	loop_unpost(p->loop, &p->work);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->more);
	pthread_cond_destroy(&p->less);
	free(p);
}

/* Signals belong to the loop's thread; those of our own faults cannot wait. */
static int start_thread(struct pool *p)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&p->thread[p->nr_threads], NULL, pool_thread, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!ret)
		p->nr_threads++;
	return -ret;
}

void pool_submit(struct pool *p, struct pool_job *job)
{
	pthread_mutex_lock(&p->lock);
	list_add_tail(&p->queued, &job->node);
	if (!p->nr_idle && p->nr_threads < p->max_threads)
		start_thread(p);
	if (!p->nr_threads) {
		list_del(&job->node);
		pthread_mutex_unlock(&p->lock);
		job->run(job);
		pthread_mutex_lock(&p->lock);
		list_add_tail(&p->finished, &job->node);
		loop_post(p->loop, &p->work);
	}
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->lock);
}

void pool_drain(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	for (;;) {
		run_finished(p);
		if (list_empty(&p->queued) && !p->nr_running)
			break;
		pthread_cond_wait(&p->less, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
}
