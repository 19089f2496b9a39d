/* SPDX-License-Identifier: MIT */
/*
 * guest.h - bare-metal guests for tests of the CPU backends.
 *
 * A guest starts in 64-bit mode at privilege level 0 with the page tables, GDT,
 * TSS and IDT of guest_layout.h.  Every exception and interrupt is logged; then
 * its handler runs, or the program goes on where it said, or it ends.
 */
#ifndef TEST_GUEST_H
#define TEST_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "tests/lib/guest_layout.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/state.h"
#include "vmm/vm.h"

struct guest_record {
	uint64_t vector, error, rip, cs, rflags, rsp, cr2, dr6;
};

struct guest {
	struct vm vm;
	struct x86_state *state;	/* after the run */
	struct vcpu *running;		/* the one that ran last */
	enum accel_exit exit;		/* KICK: the program came to its end */
	bool ended, hung;
	struct err err;			/* of an exit that is none of these */
	const struct guest_record *log;	/* in guest memory */
	unsigned nr_log;
	const uint64_t *result;		/* at G_RESULT */
};

/* NULL when the backend does not run here. */
struct guest *guest_new(const struct accel *accel, enum spec_engine engine);
void guest_free(struct guest *g);
/* Registers as a program finds them; the rest of s stays. */
void guest_set_start(struct x86_state *s);
/* Loads the program and runs it to its end; at most 10 s, or TEST_SLOW times that. */
void guest_run(struct guest *g, const void *program, uint64_t len);
/* Runs a vCPU from where it is to the end of its program. */
void guest_go_on(struct guest *g, struct vcpu *c);

#endif
