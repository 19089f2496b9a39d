/* SPDX-License-Identifier: MIT */
/*
 * lockstep.h - translator and interpreter over the same guest, side by side; for
 * tests and tests/tool/bootk.  lockstep.c tells how.
 */
#ifndef TEST_LOCKSTEP_H
#define TEST_LOCKSTEP_H

#include <stdint.h>

struct lockstep;
struct soft_cpu;

struct lockstep_stat {
	uint64_t segments;	/* runs of host code that were compared */
	uint64_t instructions;	/* guest instructions in them */
	uint64_t pages;		/* written pages compared */
	uint64_t too_long;	/* segments of more instructions than are kept: not compared */
	uint64_t linked;	/* segments that went through more than one block */
};

/* Both on the CPU's thread, once, after which nothing is compared any more. */
struct lockstep_calls {
	void (*differs)(void *arg, const char *report);	/* the first difference */
	void (*enough)(void *arg);	/* that many instructions agreed; may be NULL */
	uint64_t instructions;
	void *arg;
};

/* A CPU that has a translator; before it runs.  NULL: out of memory. */
struct lockstep *lockstep_attach(struct soft_cpu *cpu, const struct lockstep_calls *calls);
/* Before the CPU goes away. */
void lockstep_detach(struct lockstep *l);
const struct lockstep_stat *lockstep_stat(const struct lockstep *l);

#endif
