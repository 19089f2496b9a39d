/* SPDX-License-Identifier: MIT */
/* soft/lapic_timer.h - between lapic.c and lapic_timer.c; for nobody else. */
#ifndef SOFT_LAPIC_TIMER_H
#define SOFT_LAPIC_TIMER_H

#include "vmm/soft/lapic.h"

#define LVT_MASKED	0x10000u

/* An LVT entry fires. */
void lapic_local(struct lapic *l, enum lapic_lvt entry);

/* The timer's LVT entry changed from `old`. */
void lapic_timer_mode(struct lapic *l, uint32_t old);
void lapic_timer_divide(struct lapic *l, uint32_t tdcr);
void lapic_timer_start_count(struct lapic *l, uint32_t initial);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
/* The current-count register. */
uint32_t lapic_timer_count(const struct lapic *l);
/* From a saved state, after LVT and divider are in place. */
void lapic_timer_load(struct lapic *l, uint32_t initial, uint32_t current,
		      uint64_t deadline);

#endif
