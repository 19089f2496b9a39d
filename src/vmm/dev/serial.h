/* SPDX-License-Identifier: MIT */
/*
 * dev/serial.h - 16550A UART for the kernel's early messages and panics.
 *
 * Threads: all under vm->lock.
 */
#ifndef VMM_DEV_SERIAL_H
#define VMM_DEV_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/irq.h"

struct state_r;
struct state_w;

#define SERIAL_SIZE	8u	/* ports */
#define SERIAL_FIFO	16u

struct serial {
	struct irq_line irq;
	/* A byte was sent; must not block. */
	void (*out)(void *arg, uint8_t byte);
	void *arg;		/* borrowed */

	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	bool thr_pending;	/* THR-empty interrupt not yet acknowledged */
	bool overrun;
	bool level;		/* of the interrupt line */
	uint8_t rx[SERIAL_FIFO];
	unsigned rx_head, rx_len;
};

void serial_init(struct serial *s, const struct irq_line *irq,
		 void (*out)(void *arg, uint8_t byte), void *arg);
/* bus_region hooks; one byte at a time. */
uint64_t serial_read(void *dev, uint64_t off, unsigned len);
void serial_write(void *dev, uint64_t off, unsigned len, uint64_t val);
/* Input from the host: how many bytes were taken. */
size_t serial_input(struct serial *s, const void *data, size_t len);
/* Section "serial". */
void serial_save(const struct serial *s, struct state_w *w);
/* The section is open; the caller closes it. */
void serial_load(struct serial *s, struct state_r *r);
#define SERIAL_VERSION 1

#endif
