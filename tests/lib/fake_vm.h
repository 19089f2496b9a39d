/* SPDX-License-Identifier: MIT */
/*
 * fake_vm.h - a CPU backend and a board without a CPU or a board, so that the
 * VMM's own code runs in tests: threads, parking, control socket, snapshots.
 *
 * Linking it replaces accel_choose() and the board_* calls.  The "guest" is a C
 * function, called on the vCPU's thread at every entry.
 */
#ifndef TESTS_FAKE_VM_H
#define TESTS_FAKE_VM_H

#include <stdatomic.h>

#include "vmm/accel.h"

struct fake_vm {
	/* ACCEL_EXIT_KICK: wait for the next kick, then leave.  May be NULL. */
	enum accel_exit (*guest)(struct vcpu *c, struct err *err);
	_Atomic unsigned runs;		/* entries of all vCPUs */
	_Atomic unsigned power;		/* power button presses */
	int refuse;			/* errno of accel_choose(), 0: works */
};

extern struct fake_vm fake_vm;

#endif
