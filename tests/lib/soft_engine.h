/* SPDX-License-Identifier: MIT */
/*
 * soft_engine.h - the software CPU as an engine of the hardware comparison: a bare
 * CPU in user mode, with just the pages of a sequence mapped.
 */
#ifndef TEST_SOFT_ENGINE_H
#define TEST_SOFT_ENGINE_H

#include "tests/lib/oracle.h"

enum soft_engine_how {
	SOFT_BLOCKS,	/* whole blocks at full speed */
	SOFT_STEPS,	/* one instruction at a time */
	SOFT_CRAMPED,	/* blocks; room for a few dozen FP instructions alone */
	SOFT_JIT,	/* translated at first sight */
};

/* False when this host lacks what the portable CPU model needs. */
bool soft_engine_init(struct engine *e, enum soft_engine_how how);
void soft_engine_done(struct engine *e);

#endif
