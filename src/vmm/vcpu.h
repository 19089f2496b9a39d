/* SPDX-License-Identifier: MIT */
/*
 * vcpu.h - a vCPU and its thread: run, exit, dispatch; park and kick.
 *
 * One attention word collects every asynchronous cause.  Setting a bit and
 * kicking is all a requester does; the vCPU thread acts on it between two
 * vcpu_run() calls.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/mem.h"

struct err;
struct vm;

enum vcpu_attention {
	VCPU_PARK = 1 << 0,	/* stop running until vcpu_unpark_all() */
	VCPU_EXIT = 1 << 1,	/* end the thread */
};

struct vcpu {
	struct vm *vm;		/* borrowed */
	unsigned id;		/* also the APIC id */
	pthread_t thread;
	bool started;
	_Atomic unsigned attention;	/* enum vcpu_attention */
	bool parked;		/* under vm->park_lock */
	void *accel_vcpu;	/* owned by the backend */
};

/*
 * Called by backends on the vCPU's thread for accesses that are not theirs.
 * len is 1, 2, 4 or 8 and data holds len bytes, little endian.  A read of
 * nothing gives all ones.
 */
void vcpu_mmio(struct vcpu *c, gpa_t gpa, void *data, unsigned len, bool write);
void vcpu_pio(struct vcpu *c, uint16_t port, void *data, unsigned len, bool write);

int vcpu_start(struct vcpu *c, struct err *err);
/* Asks, kicks and joins; fine when never started. */
void vcpu_stop(struct vcpu *c);

/*
 * Any thread but a vCPU's, and never under vm->lock: a vCPU may need it on its
 * way.  Returns when all are parked.  Nested: the last unpark lets them go on.
 */
void vcpu_park_all(struct vm *vm);
void vcpu_unpark_all(struct vm *vm);

#endif
