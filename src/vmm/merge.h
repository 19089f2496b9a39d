/* SPDX-License-Identifier: MIT */
/*
 * merge.h - disk layers of a running VM become fewer: docs/snapshot.md, "Chains of
 * layers".  Loop thread, all of it; NULL merges are fine.
 */
#ifndef VMM_MERGE_H
#define VMM_MERGE_H

struct ctl_req;
struct merge;
struct vm;

/* The control operation `merge`. */
void op_merge(struct ctl_req *req);
/* Around a freeze. */
void merge_hold(struct merge *m);
void merge_release(struct merge *m);
/* A connection that had pinned the layers is gone. */
void merge_settle(struct vm *vm);
/* Ends one under way; nothing has changed. */
void merge_cancel(struct vm *vm);

#endif
