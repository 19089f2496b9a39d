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
 * Not a pool job, since a snapshot waits for those within its pause; libcrypto takes
 * locks that a child of fork(2) must not find taken: hence aside.h.
 */
#include "vmm/verify.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "proto/memsum.h"
#include "vmm/aside.h"
#include "vmm/vm.h"

struct verify {
	struct aside aside;
	struct memsum_watch watch;
	struct vm *vm;			/* borrowed */
	int mem_fd;			/* borrowed */
	struct buf sums;		/* owned */
};

static bool step(struct memsum_watch *w, uint64_t done, uint64_t span)
{
	return aside_rest(&container_of(w, struct verify, watch)->aside);
}

static void run(struct aside *a)
{
	struct verify *v = container_of(a, struct verify, aside);
	struct err err = ERR_INIT;
	uint64_t pages = 0;
	int ret = memsum_verify(v->mem_fd, v->sums.data, v->sums.len, &v->watch,
				&pages, &err);

	if (ret && ret != -ECANCELED)
		vm_crash(v->vm, &err);
	else if (!ret)
		log_info("vm", "memory is as it was saved: %llu pages",
			 (unsigned long long)pages);
}

struct verify *verify_new(struct vm *vm, int mem_fd, struct buf *sums, struct err *err)
{
	struct verify *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	aside_init(&v->aside, run);
	v->watch.step = step;
	v->vm = vm;
	v->mem_fd = mem_fd;
	v->sums = *sums;
	*sums = (struct buf)BUF_INIT;
	return v;
}

int verify_start(struct verify *v, struct err *err)
{
	return aside_start(&v->aside, err);
}

void verify_hold(struct verify *v)
{
	if (v)
		aside_hold(&v->aside);
}

void verify_release(struct verify *v)
{
	if (v)
		aside_release(&v->aside);
}

void verify_free(struct verify *v)
{
	if (!v)
		return;
	aside_done(&v->aside);
	buf_done(&v->sums);
	free(v);
}
