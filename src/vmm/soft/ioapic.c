// SPDX-License-Identifier: MIT
/*
 * soft/ioapic.c - 82093AA, behaving as KVM's does.
 *
 * A level pin is sent while its line is up and no earlier message of it awaits
 * its EOI (remote IRR).  An edge that arrives while its pin is masked is kept and
 * sent at unmasking: the real part would lose it, but a lost virtio interrupt is
 * a hung device and a superfluous one is nothing.
 *
 * #syscalls sched_yield
 */
#include "vmm/soft/ioapic.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/arch/x86/state.h"
#include "vmm/soft/lapic.h"

#define REDIR_VECTOR	0xffull
#define REDIR_LOGICAL	BIT(11)
#define REDIR_PENDING	BIT(12)
#define REDIR_LOW	BIT(13)
#define REDIR_REMOTE	BIT(14)
#define REDIR_LEVEL	BIT(15)
#define REDIR_MASKED	BIT(16)
/* vector, modes, polarity, trigger, mask, destination */
#define REDIR_WRITABLE	(0xff0000000001afffull & ~REDIR_PENDING)

#define VERSION		(0x11u | (IOAPIC_PINS - 1) << 16)
#define SPINS		100

_Static_assert(ARRAY_LEN(((struct x86_ioapic_state *)0)->redir) == IOAPIC_PINS,
	       "state holds all pins");

static void io_lock(struct ioapic *io)
{
	/* Acquire pairs with the release in io_unlock(). */
	for (unsigned n = 0; atomic_exchange_explicit(&io->lock, true,
						      memory_order_acquire); n++) {
		if (n < SPINS)
			__builtin_ia32_pause();
		else
			syscall(SYS_sched_yield);
	}
}

static void io_unlock(struct ioapic *io)
{
	atomic_store_explicit(&io->lock, false, memory_order_release);
}

/* Sends what waits on a pin, if it may.  Locked. */
static void service(struct ioapic *io, unsigned pin)
{
	uint64_t e = io->redir[pin];
	struct lapic_msg m = {
		/* 8 bits; all ones is everybody, whatever their mode */
		.dest = e >> 56 == 0xff ? UINT32_MAX : (uint32_t)(e >> 56),
		.vector = e & REDIR_VECTOR,
		.mode = e >> 8 & 7,
		.logical = e & REDIR_LOGICAL,
		.level = e & REDIR_LEVEL,
	};

	if (e & REDIR_MASKED || !(io->irr & BIT(pin)))
		return;
	if (e & REDIR_LEVEL) {
		if (e & REDIR_REMOTE)
			return;
		if (lapic_deliver(io->hub, &m))
			io->redir[pin] |= REDIR_REMOTE;
		return;
	}
	io->irr &= ~(uint32_t)BIT(pin);
	lapic_deliver(io->hub, &m);
}

void ioapic_irq(struct ioapic *io, unsigned pin, bool level)
{
	uint32_t bit;
	bool rose;

	if (pin >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	io_lock(io);
	rose = level && !(io->line & bit);
	io->line = level ? io->line | bit : io->line & ~bit;
	if (io->redir[pin] & REDIR_LEVEL)
		io->irr = level ? io->irr | bit : io->irr & ~bit;
	else if (rose)
		io->irr |= bit;
	service(io, pin);
	io_unlock(io);
}

void ioapic_eoi(struct ioapic *io, unsigned vector)
{
	io_lock(io);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t e = io->redir[pin];

		if ((e & REDIR_VECTOR) != vector || !(e & REDIR_REMOTE))
			continue;
		io->redir[pin] = e & ~REDIR_REMOTE;
		service(io, pin);
	}
	io_unlock(io);
}

static uint32_t reg_read(const struct ioapic *io, unsigned reg)
{
	unsigned pin = (reg - 0x10) / 2;

	switch (reg) {
	case 0: case 2: return io->id << 24;	/* identity, arbitration */
	case 1: return VERSION;
	default:
		if (reg < 0x10 || pin >= IOAPIC_PINS)
			return UINT32_MAX;
		return (uint32_t)(io->redir[pin] >> (32 * (reg & 1)));
	}
}

static void set_redir(struct ioapic *io, unsigned pin, uint64_t val)
{
	uint64_t e = io->redir[pin];
	uint32_t bit = (uint32_t)BIT(pin);

	e = (e & ~REDIR_WRITABLE) | (val & REDIR_WRITABLE);
	if (!(e & REDIR_LEVEL))
		e &= ~REDIR_REMOTE;
	else if (io->line & bit)
		io->irr |= bit;
	else
		io->irr &= ~bit;
	io->redir[pin] = e;
	service(io, pin);
}

static void reg_write(struct ioapic *io, unsigned reg, uint32_t val)
{
	unsigned pin = (reg - 0x10) / 2;
	uint64_t e;

	if (reg == 0)
		io->id = val >> 24 & 15;
	if (reg < 0x10 || pin >= IOAPIC_PINS)
		return;
	e = io->redir[pin];
	if (reg & 1)
		e = (uint32_t)e | (uint64_t)val << 32;
	else
		e = (e & 0xffffffff00000000ull) | val;
	set_redir(io, pin, e);
}

/* Of the page only the select and window registers exist. */
uint64_t ioapic_mmio_read(struct ioapic *io, uint32_t off, unsigned len)
{
	uint32_t val = 0;

	io_lock(io);
	if ((off & 0xff) == 0)
		val = io->ioregsel;
	else if ((off & 0xff) == 0x10)
		val = reg_read(io, io->ioregsel);
	io_unlock(io);
	return len >= 4 ? val : val & ((1u << 8 * len) - 1);
}

void ioapic_mmio_write(struct ioapic *io, uint32_t off, unsigned len,
		       uint64_t val)
{
	io_lock(io);
	if ((off & 0xff) == 0)
		io->ioregsel = val & 0xff;
	else if ((off & 0xff) == 0x10 && len >= 4)
		reg_write(io, io->ioregsel, (uint32_t)val);
	io_unlock(io);
}

void ioapic_init(struct ioapic *io, struct lapic_hub *hub)
{
	*io = (struct ioapic){ .hub = hub };
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		io->redir[pin] = REDIR_MASKED;
	hub->ioapic = io;
}

void ioapic_get(struct ioapic *io, struct x86_ioapic_state *s)
{
	io_lock(io);
	*s = (struct x86_ioapic_state){
		.id = io->id, .ioregsel = io->ioregsel, .irr = io->irr,
	};
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		s->redir[pin] = io->redir[pin];
	io_unlock(io);
}

void ioapic_set(struct ioapic *io, const struct x86_ioapic_state *s)
{
	const uint32_t pins = (uint32_t)BIT(IOAPIC_PINS) - 1;

	io_lock(io);
	io->id = s->id & 15;
	io->ioregsel = s->ioregsel & 0xff;
	io->irr = s->irr & pins;
	io->line = 0;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		io->redir[pin] = s->redir[pin] & (REDIR_WRITABLE | REDIR_REMOTE);
		if (io->redir[pin] & REDIR_LEVEL)
			io->line |= io->irr & (uint32_t)BIT(pin);
	}
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		service(io, pin);
	io_unlock(io);
}
