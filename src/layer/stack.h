/* SPDX-License-Identifier: MIT */
/* stack.h - what a stack of layers is made of.  For src/layer alone. */
#ifndef LAYER_STACK_H
#define LAYER_STACK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "layer/file.h"
#include "layer/layer.h"

struct layer_stack {
	struct layer_io io;
	int base;			/* owned: raw file */
	uint64_t base_size;
	struct layer *layer[LAYER_MAX_DEPTH];	/* owned; [0] lies on the base */
	unsigned nr;
	uint64_t size;
	bool readonly;
	pthread_rwlock_t lock;		/* write: the stack changes */
	pthread_mutex_t fill;		/* copying up parts of clusters */
};

#endif
