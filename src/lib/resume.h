/* SPDX-License-Identifier: MIT */
/*
 * resume.h - what snapshots, restores and forks have in common.  For src/lib
 * only.
 */
#ifndef LIB_RESUME_H
#define LIB_RESUME_H

#include <jansson.h>

#include "lib/vm.h"

/* The part of a boot's configuration that a restored or forked VM has, too. */
void resume_config(const struct mn_resume *cfg, struct mn_boot *boot);
/* Checks what is asked of a guest that is there already. */
int resume_check(struct booting *b);
/* A new file for a layer of a disk in a VM's directory; its name goes to `name`. */
int resume_new_layer(int dir, const char *id, char *name, size_t size,
		     struct err *err);
/* layers.c: chains of disk layers of a VM that is sealed again and again. */

/* A lock to be closed: others do not remove layers that are made meanwhile. */
int layers_making(const struct mn_vm *vm);
/* Before a seal: removes what is not used any more, and sees that there is room. */
void layers_before(struct mn_vm *vm, mn_event_fn fn, void *arg);
/* After it: the VMM begins to merge where they are many. */
void layers_after(struct mn_vm *vm);

/* The phases of a VMM's answer, as events. */
int resume_phases(const json_t *answer, mn_event_fn fn, void *arg);

/* Where a VM came from: its own list with one more entry; a new reference. */
json_t *resume_lineage(const struct mn_vm *vm, const char *event);
/* Writes it into a VM's directory. */
int resume_keep_lineage(struct booting *b, const json_t *list);

/* The agent makes the VM itself. */
int resume_thaw(struct booting *b);

/* resume_mounts.c.  The copy mounts, by the agent: the last step. */
int resume_mounts(struct booting *b);
/* Roles for what b->spec.fs has another directory for; BOOT_LIVE_MOUNT_OVERRIDE_UNKNOWN. */
int resume_live_mounts(struct booting *b, const struct mn_resume *cfg);
/* The image that was named is that which the guest runs from. */
int resume_check_image(struct booting *b);

/* Like the public calls; cfg has its full size. */
int snapshot_vm(struct mn_vm *vm, const struct mn_snapshot *cfg,
		struct mn_snapshotted *out, struct err *err);
/* forked_from: the VM of which the bundle was just made, or "". */
int restore_vm(const struct mn_resume *cfg, const char *forked_from, struct mn_vm **vm,
	       struct err *err);

#endif
