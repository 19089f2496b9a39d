/* SPDX-License-Identifier: MIT */
/*
 * registry.h - which VMs there are: directories and names.  For src/lib only.
 *
 *	<registry>/<pid>/meta.json	one VM; its sockets and disks lie beside it
 *	<registry>/names/<name>		"<pid>\n"; '/' in a name is written '%'
 *	<registry>/.new.XXXXXX/		a VM being made, locked by who makes it
 *	<registry>/.lock		held while names and entries change
 *
 * Nothing but these files is the registry: no process keeps it.  An entry whose
 * process is gone is dead; whoever meets one under the lock removes it.
 */
#ifndef LIB_REGISTRY_H
#define LIB_REGISTRY_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/proc.h"

#define REG_NAME_MAX 200	/* bytes of a VM's name */

struct err;

/* What meta.json holds. */
struct reg_vm {
	struct proc_id id;
	char name[REG_NAME_MAX + 1];		/* "" when unnamed */
	char forked_from[REG_NAME_MAX + 1];	/* "" when not */
	char image[512];
	char image_sha256[65];			/* of the archive; "" when not known */
	char kernel[128];			/* its version; likewise */
	char kernel_sha256[65];
	char accel[16];				/* as asked for */
	uint64_t memory_mib, cpus;
	int64_t started_at_ms;			/* since the epoch */
	bool detached;
};

struct registry {
	char path[PATH_MAX];
	int dir;	/* descriptor of path, owned */
	int lock;	/* descriptor of .lock, owned */
};

int registry_open(struct registry *r, struct err *err);
void registry_close(struct registry *r);

/* REGISTRY_NAME_INVALID unless usable: see the message. */
int registry_check_name(const char *name, struct err *err);
/* 0 when no live VM has the name, else REGISTRY_NAME_IN_USE.  A hint only. */
int registry_name_free(struct registry *r, const char *name, struct err *err);

/*
 * A directory for a VM that is being made: its descriptor (owned; holds a lock
 * that tells gc to keep off) or -errno.  tmp receives its name in the registry.
 */
int registry_begin(struct registry *r, char tmp[32], struct err *err);
/*
 * The process exists: claims vm->name, writes meta.json and gives the directory
 * its final name, all or nothing.  Exactly one of several racing claims wins.
 */
int registry_commit(struct registry *r, const char *tmp, int dirfd,
		    const struct reg_vm *vm, struct err *err);
/* Removes a directory of registry_begin() that was not committed. */
void registry_abort(struct registry *r, const char *tmp);
/* Rewrites the meta.json of a live VM. */
int registry_update(struct registry *r, const struct reg_vm *vm, struct err *err);

/* REGISTRY_VM_NOT_FOUND, with near names, unless a live VM is meant. */
int registry_find(struct registry *r, const char *target, struct reg_vm *vm,
		  struct err *err);
/* The same for dead ones too; *state tells, and is never PROC_UNKNOWN on success. */
int registry_look(struct registry *r, const char *target, struct reg_vm *vm,
		  enum proc_state *state, struct err *err);

/*
 * Each entry, in order of pid; a negative return of the callback ends the walk
 * and comes back.
 */
int registry_each(struct registry *r,
		  int (*each)(const struct reg_vm *vm, enum proc_state state,
			      void *arg),
		  void *arg, struct err *err);

/* Removes a dead entry and its name; others are left alone (-EBUSY). */
int registry_remove(struct registry *r, const struct reg_vm *vm);
/*
 * Everything that dead VMs left: entries, names, unfinished directories.
 * each(what, path) tells of it before (dry_run: instead); returns how many.
 */
int registry_gc(struct registry *r, bool dry_run,
		int (*each)(const char *what, const char *path, void *arg),
		void *arg, struct err *err);

/* Opens <registry>/<pid> of a VM; a directory descriptor or -errno. */
int registry_vm_dir(struct registry *r, pid_t pid);

#endif
