/* SPDX-License-Identifier: MIT */
/*
 * verify.h - checking a restored VM's memory against its checksums while the
 * guest runs already.
 */
#ifndef VMM_VERIFY_H
#define VMM_VERIFY_H

struct buf;
struct err;
struct verify;
struct vm;

/* mem_fd is borrowed, sums stolen. */
struct verify *verify_new(struct vm *vm, int mem_fd, struct buf *sums, struct err *err);
/* Goes on in a thread of its own; vm_crash() with SNAPSHOT_DAMAGED, or nothing. */
int verify_start(struct verify *v, struct err *err);
/* Around fork(2): between the two the thread rests and holds no lock of any library.
 * They nest; NULL is fine. */
void verify_hold(struct verify *v);
void verify_release(struct verify *v);
void verify_free(struct verify *v);

#endif
