// SPDX-License-Identifier: MIT
/*
 * aside.c - threads for long work beside the guest; see aside.h.
 *
 * #syscalls setpriority gettid
 */
#include "vmm/aside.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"

void aside_leave(struct aside *a)
{
	pthread_mutex_lock(&a->lock);
	a->working = false;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->lock);
}

bool aside_enter(struct aside *a)
{
	bool on;

	pthread_mutex_lock(&a->lock);
	while (a->holds && !a->stop)
		pthread_cond_wait(&a->cond, &a->lock);
	a->working = true;
	on = !a->stop;
	pthread_mutex_unlock(&a->lock);
	return on;
}

static void *thread(void *arg)
{
	struct aside *a = arg;

	setpriority(PRIO_PROCESS, gettid(), 19);	/* the guest comes first */
	if (aside_enter(a))
		a->run(a);
	aside_leave(a);
	return NULL;
}

void aside_init(struct aside *a, void (*run)(struct aside *a))
{
	*a = (struct aside){ .run = run };
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->cond, NULL);
}

int aside_start(struct aside *a, struct err *err)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&a->thread, NULL, thread, a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	a->started = !ret;
	return ret ? err_set(err, ret, "cannot start a thread") : 0;
}

void aside_hold(struct aside *a)
{
	pthread_mutex_lock(&a->lock);
	a->holds++;
	while (a->working)
		pthread_cond_wait(&a->cond, &a->lock);
	pthread_mutex_unlock(&a->lock);
}

void aside_release(struct aside *a)
{
	pthread_mutex_lock(&a->lock);
	a->holds--;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->lock);
}

void aside_done(struct aside *a)
{
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->lock);
	if (a->started)
		pthread_join(a->thread, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->cond);
}
