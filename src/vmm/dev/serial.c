// SPDX-License-Identifier: MIT
/*
 * dev/serial.c - 16550A (National Semiconductor PC16550D).
 *
 * Output leaves at once, so the transmitter is always empty; the THR-empty
 * interrupt is a latch set by each write and by enabling it, cleared by reading
 * IIR or writing THR, which is all that interrupt-driven writers need.  Received
 * bytes interrupt at once instead of waiting for a trigger level or a timeout.
 * Baud rate, word length and parity are registers without effect.
 */
#include "vmm/dev/serial.h"

#include "base/util.h"
#include "vmm/state.h"

enum { R_DATA, R_IER, R_IIR, R_LCR, R_MCR, R_LSR, R_MSR, R_SCR };

#define IER_RX		0x01
#define IER_THR		0x02
#define IER_LINE	0x04
#define IIR_NONE	0x01
#define IIR_THR		0x02
#define IIR_RX		0x04
#define IIR_LINE	0x06
#define IIR_FIFO	0xc0
#define FCR_ENABLE	0x01
#define FCR_CLEAR_RX	0x02
#define LCR_DLAB	0x80
#define MCR_LOOP	0x10
#define LSR_READY	0x01
#define LSR_OVERRUN	0x02
#define LSR_EMPTY	0x60	/* holding and shift register */
#define MSR_CONNECTED	0xb0	/* CTS, DSR, DCD */

static uint8_t cause(const struct serial *s)
{
	if (s->ier & IER_LINE && s->overrun)
		return IIR_LINE;
	if (s->ier & IER_RX && s->rx_len)
		return IIR_RX;
	if (s->ier & IER_THR && s->thr_pending)
		return IIR_THR;
	return IIR_NONE;
}

static void update(struct serial *s)
{
	bool level = cause(s) != IIR_NONE;

	if (level != s->level) {
		s->level = level;
		irq_set(&s->irq, level);
	}
}

static unsigned rx_room(const struct serial *s)
{
	return (s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1) - s->rx_len;
}

static void rx_put(struct serial *s, uint8_t byte)
{
	s->rx[(s->rx_head + s->rx_len++) % SERIAL_FIFO] = byte;
}

static uint8_t rx_get(struct serial *s)
{
	uint8_t byte = s->rx[s->rx_head];

	if (!s->rx_len)
		return 0;
	s->rx_head = (s->rx_head + 1) % SERIAL_FIFO;
	s->rx_len--;
	return byte;
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t why = cause(s);

	if (why == IIR_THR)
		s->thr_pending = false;
	return why | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct serial *s)
{
	uint8_t v = LSR_EMPTY | (s->rx_len ? LSR_READY : 0) |
		    (s->overrun ? LSR_OVERRUN : 0);

	s->overrun = false;
	return v;
}

/* In loop-back the modem inputs are the outputs: RTS, DTR, OUT1, OUT2. */
static uint8_t read_msr(const struct serial *s)
{
	uint8_t m = s->mcr;

	if (!(m & MCR_LOOP))
		return MSR_CONNECTED;
	return (m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4;
}

uint64_t serial_read(void *dev, uint64_t off, unsigned len)
{
	struct serial *s = dev;
	uint8_t v = 0;

	switch (off) {
	case R_DATA: v = s->lcr & LCR_DLAB ? s->dll : rx_get(s); break;
	case R_IER: v = s->lcr & LCR_DLAB ? s->dlm : s->ier; break;
	case R_IIR: v = read_iir(s); break;
	case R_LCR: v = s->lcr; break;
	case R_MCR: v = s->mcr; break;
	case R_LSR: v = read_lsr(s); break;
	case R_MSR: v = read_msr(s); break;
	case R_SCR: v = s->scr; break;
	}
	update(s);
	return v;
}

static void send(struct serial *s, uint8_t byte)
{
	s->thr_pending = true;
	if (!(s->mcr & MCR_LOOP))
		s->out(s->arg, byte);
	else if (rx_room(s))
		rx_put(s, byte);
	else
		s->overrun = true;
}

void serial_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct serial *s = dev;
	uint8_t v = (uint8_t)val;

	switch (off) {
	case R_DATA:
		if (s->lcr & LCR_DLAB)
			s->dll = v;
		else
			send(s, v);
		break;
	case R_IER:
		if (s->lcr & LCR_DLAB) {
			s->dlm = v;
			break;
		}
		/* The transmitter is empty: enabling interrupts at once. */
		if (v & ~s->ier & IER_THR)
			s->thr_pending = true;
		s->ier = v & 0x0f;
		break;
	case R_IIR:	/* FCR */
		if (v & FCR_CLEAR_RX || (v ^ s->fcr) & FCR_ENABLE)
			s->rx_len = 0;
		s->fcr = v & 0xc9;
		break;
	case R_LCR: s->lcr = v; break;
	case R_MCR: s->mcr = v & 0x1f; break;
	case R_SCR: s->scr = v; break;
	}
	update(s);
}

size_t serial_input(struct serial *s, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t n = 0;

	if (s->mcr & MCR_LOOP)
		return 0;
	while (n < len && rx_room(s))
		rx_put(s, p[n++]);
	update(s);
	return n;
}

void serial_init(struct serial *s, const struct irq_line *irq,
		 void (*out)(void *arg, uint8_t byte), void *arg)
{
	*s = (struct serial){
		.irq = *irq, .out = out, .arg = arg,
		.mcr = 0x08, .dll = 1,
	};
}

void serial_save(const struct serial *s, struct state_w *w)
{
	state_begin(w, "serial", 0, SERIAL_VERSION, true);
	state_put_u8(w, s->ier);
	state_put_u8(w, s->fcr);
	state_put_u8(w, s->lcr);
	state_put_u8(w, s->mcr);
	state_put_u8(w, s->scr);
	state_put_u8(w, s->dll);
	state_put_u8(w, s->dlm);
	state_put_u8(w, s->thr_pending);
	state_put_u8(w, s->overrun);
	state_put_u8(w, (uint8_t)s->rx_len);
	for (unsigned i = 0; i < s->rx_len; i++)
		state_put_u8(w, s->rx[(s->rx_head + i) % SERIAL_FIFO]);
	state_end(w);
}

void serial_load(struct serial *s, struct state_r *r)
{
	unsigned n;

	s->ier = state_get_u8(r) & 0x0f;
	s->fcr = state_get_u8(r) & 0xc9;
	s->lcr = state_get_u8(r);
	s->mcr = state_get_u8(r) & 0x1f;
	s->scr = state_get_u8(r);
	s->dll = state_get_u8(r);
	s->dlm = state_get_u8(r);
	s->thr_pending = state_get_u8(r);
	s->overrun = state_get_u8(r);
	n = state_get_u8(r);
	s->rx_head = s->rx_len = 0;
	if (n > rx_room(s)) {
		r->bad = true;
		n = 0;
	}
	while (n--)
		rx_put(s, state_get_u8(r));
	/* The interrupt controller has the line's level in its own state. */
	s->level = cause(s) != IIR_NONE;
}
