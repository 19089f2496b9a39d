/* SPDX-License-Identifier: MIT */
/*
 * irq.h - a device's interrupt line.  A device holds a copy of a line and knows
 * nothing of what is behind it (accel->irq_set, or a test's counter).
 * Callable from any thread; takes no lock.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include <stdbool.h>

struct irq_line {
	void (*set)(void *arg, unsigned gsi, bool level);
	void *arg;		/* borrowed */
	unsigned gsi;
};

static inline void irq_set(const struct irq_line *l, bool level)
{
	if (l->set)
		l->set(l->arg, l->gsi, level);
}

/* All virtio lines are edge triggered (DSDT): one pulse per event. */
static inline void irq_pulse(const struct irq_line *l)
{
	irq_set(l, true);
	irq_set(l, false);
}

#endif
