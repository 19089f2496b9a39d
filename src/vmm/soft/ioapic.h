/* SPDX-License-Identifier: MIT */
/*
 * soft/ioapic.h - the IOAPIC of the software CPU: 24 pins, no EOI register, as
 * KVM's, so that its state moves between the two.
 *
 * Threads: all calls from any thread; a spin lock held for a few instructions.
 * Nothing here touches vector registers.
 */
#ifndef SOFT_IOAPIC_H
#define SOFT_IOAPIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lapic_hub;
struct x86_ioapic_state;

#define IOAPIC_PAGE	0xfec00000ull
#define IOAPIC_SIZE	0x1000u
#define IOAPIC_PINS	24

struct ioapic {
	_Atomic bool lock;
	struct lapic_hub *hub;	/* borrowed */
	uint32_t id, ioregsel;
	uint64_t redir[IOAPIC_PINS];
	uint32_t line;		/* levels of the inputs */
	uint32_t irr;		/* what waits: levels, and edges while masked */
};

/* Becomes hub->ioapic. */
void ioapic_init(struct ioapic *io, struct lapic_hub *hub);
void ioapic_irq(struct ioapic *io, unsigned pin, bool level);
/* A LAPIC ended a level interrupt. */
void ioapic_eoi(struct ioapic *io, unsigned vector);
uint64_t ioapic_mmio_read(struct ioapic *io, uint32_t off, unsigned len);
void ioapic_mmio_write(struct ioapic *io, uint32_t off, unsigned len,
		       uint64_t val);
void ioapic_get(struct ioapic *io, struct x86_ioapic_state *s);
void ioapic_set(struct ioapic *io, const struct x86_ioapic_state *s);

#endif
