// SPDX-License-Identifier: MIT
/*
 * verify.c - a thread that reads the bundle's memory file once, chunk by chunk.
 *
 * Restoring does not wait for it: the guest runs on pages that were not looked at
 * yet, and when one turns out to be damaged the VM ends and says so.  That is
 * later than one would like, but a restore whose time grows with memory is what
 * mapping the file was meant to avoid.  Reading also brings the file into the
 * page cache ahead of the guest.
 *
 * Not a pool job, since a snapshot waits for those within its pause.  It holds this
 * thread between two chunks before its pause begins: a child of fork(2) must not
 * find libcrypto's locks taken by a thread that it does not have.
 *
 * #syscalls setpriority gettid
 */
#include "vmm/verify.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "proto/memsum.h"
#include "vmm/vm.h"

struct verify {
	struct memsum_watch watch;
	struct vm *vm;			/* borrowed */
	int mem_fd;			/* borrowed */
	struct buf sums;		/* owned */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;		/* below */
	pthread_cond_t cond;
	unsigned holds;
	bool working;			/* on a chunk */
	bool stop;
};

/* Between chunks; waits while held.  False: to end. */
static bool rest(struct verify *v)
{
	bool on;

	pthread_mutex_lock(&v->lock);
	v->working = false;
	pthread_cond_broadcast(&v->cond);
	while (v->holds && !v->stop)
		pthread_cond_wait(&v->cond, &v->lock);
	v->working = on = !v->stop;
	pthread_mutex_unlock(&v->lock);
	return on;
}

static bool step(struct memsum_watch *w, uint64_t done, uint64_t span)
{
	return rest(container_of(w, struct verify, watch));
}

static void retire(struct verify *v)
{
	pthread_mutex_lock(&v->lock);
	v->working = false;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

static void *thread(void *arg)
{
	struct verify *v = arg;
	struct err err = ERR_INIT;
	uint64_t pages = 0;
	int ret;

	setpriority(PRIO_PROCESS, gettid(), 19);	/* the guest comes first */
	if (!rest(v))
		return NULL;
	ret = memsum_verify(v->mem_fd, v->sums.data, v->sums.len, &v->watch,
			    &pages, &err);
	retire(v);
	if (ret && ret != -ECANCELED)
		vm_crash(v->vm, &err);
	else if (!ret)
		log_info("vm", "memory is as it was saved: %llu pages",
			 (unsigned long long)pages);
	return NULL;
}

struct verify *verify_new(struct vm *vm, int mem_fd, struct buf *sums, struct err *err)
{
	struct verify *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	v->watch.step = step;
	v->vm = vm;
	v->mem_fd = mem_fd;
	v->sums = *sums;
	*sums = (struct buf)BUF_INIT;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->cond, NULL);
	return v;
}

int verify_start(struct verify *v, struct err *err)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&v->thread, NULL, thread, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	v->started = !ret;
	return ret ? err_set(err, ret, "cannot start a thread") : 0;
}

void verify_hold(struct verify *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->holds++;
	while (v->working)
		pthread_cond_wait(&v->cond, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

void verify_release(struct verify *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->holds--;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

void verify_free(struct verify *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->stop = true;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
	if (v->started)
		pthread_join(v->thread, NULL);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->cond);
	buf_done(&v->sums);
	free(v);
}
