/* SPDX-License-Identifier: MIT */
/*
 * snapshot.h - a VM as bytes: its state sections, and a VM from them.
 *
 * docs/snapshot.md has the theory.  The order of calls:
 *
 *	freeze_begin()          vCPUs parked, devices drained, state saved, disks sealed
 *	fork(2)                 memory frozen
 *	freeze_end()            the source goes on
 *
 * and in a new VM: restore_open() or restore_from(), then vm_new(), which calls
 * the other restore_* functions from its steps.
 */
#ifndef VMM_SNAPSHOT_H
#define VMM_SNAPSHOT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/spec.h"
#include "vmm/arch/x86/cpuid.h"
#include "vmm/mem.h"
#include "vmm/state.h"

struct accel;
struct ctl_req;
struct err;
struct vm;

/* ---- restore.c ---- */

struct restore {
	struct buf state;		/* owned; r points into it */
	struct state_r r;
	int mem_fd;			/* owned: a bundle's memory file, or -1 */
	struct buf sums;		/* owned: checksums of it; empty: none */
	struct mem mem;			/* memory that is there already; base NULL: none */
	struct vm *source;		/* borrowed: in a child of its process, the VM
					 * whose memory this is; else NULL */
	uint64_t host_khz;		/* vm->host_khz of the source then; else 0 */
	/* section "vm" */
	struct spec spec;		/* of the source */
	char *features;			/* owned */
	uint32_t word[CPUID_NR_WORDS];
	uint64_t tsc_khz;
};

/* From roles "state", "memory" and perhaps "sums", or those files in "bundle". */
struct restore *restore_open(const struct spec_fds *fds, struct err *err);
/* In a child of fork(2): from a state just saved (stolen) and the source's memory,
 * which moves. */
struct restore *restore_from(struct buf *state, struct vm *source, struct err *err);
void restore_free(struct restore *r);

/* Refuses a spec that describes another machine. */
int restore_check(const struct restore *r, const struct spec *spec, struct err *err);
/* The CPU model the guest was started with; SNAPSHOT_CPU_MISMATCH. */
int restore_model(const struct restore *r, const struct accel *accel,
		  struct cpu_model *m, struct err *err);
/* Loads all sections into a VM that is built but for that. */
int restore_load(struct restore *r, struct vm *vm, struct err *err);

/* ---- freeze.c ---- */

/* vCPUs parked, everything drained, under vm->lock. */
int snapshot_save(struct vm *vm, struct buf *out, struct err *err);

enum freeze_phase { FREEZE_PARK, FREEZE_DRAIN, FREEZE_SAVE, FREEZE_SEAL, FREEZE_FORK,
		    FREEZE_PHASES };

struct freeze {
	struct buf state;		/* owned */
	uint64_t begun;			/* ns */
	uint64_t mark;			/* end of the last phase */
	uint64_t phase_ns[FREEZE_PHASES];
	unsigned layers[SPEC_MAX_DISKS];	/* of each disk, in the snapshot */
};

/*
 * Up to the sealed disks.  With `seal`, fds has role "seal.ID" for each writable
 * disk; those used are duplicated.  On failure the VM goes on.
 */
int freeze_begin(struct vm *vm, struct freeze *f, const struct spec_fds *fds,
		 bool seal, struct err *err);
/* What was sealed becomes complete and durable in its files.  On a pool thread;
 * -errno. */
int freeze_flush(struct vm *vm);
/* fork(2) with the time it took; 0 in the child, which has one thread.  sibling:
 * the child will run as a VM. */
int freeze_fork(struct vm *vm, struct freeze *f, bool sibling, struct err *err);
/* The source goes on. */
void freeze_end(struct vm *vm, struct freeze *f);
/* {"park_us": …, "pause_us": …} and [{"id", "layers"}] for an answer. */
json_t *freeze_phases(const struct freeze *f);
json_t *freeze_disks(const struct vm *vm, const struct freeze *f);

/* In the child: closes every descriptor but 0 to 2 and those. */
void freeze_close_all_but(const int *fds, unsigned nr);

/* ---- snapshot_ops.c, fork_ops.c ---- */

struct writer;

void op_snapshot(struct ctl_req *req);
void op_fork(struct ctl_req *req);
/* Ends a snapshot being written, with an error to who asked for it. */
void snapshot_cancel(struct vm *vm);

/* Moves the request's descriptors into roles as its "roles" names them. */
int ctl_take_roles(struct ctl_req *req, struct spec_fds *out, struct err *err);
void spec_fds_close(struct spec_fds *fds);

#endif
