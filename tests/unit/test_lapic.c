// SPDX-License-Identifier: MIT
/* LAPIC, IOAPIC and clock of the software CPU, without a CPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/util.h"
#include "vmm/arch/x86/state.h"
#include "vmm/mem.h"
#include "vmm/soft/ioapic.h"
#include "vmm/soft/lapic.h"

#define KHZ 2000000ull

struct cpu {
	struct lapic l;
	struct gclock_cpu time;
	_Atomic unsigned why;
};

struct rig {
	struct lapic_hub hub;
	struct ioapic io;
	struct gclock clock;
	struct cpu cpu[3];
	struct mem mem;
};

static void attention(void *arg, unsigned why)
{
	atomic_fetch_or(&((struct cpu *)arg)->why, why);
}

static unsigned took(struct cpu *c)
{
	return atomic_exchange(&c->why, 0);
}

static void reg_set(struct cpu *c, uint32_t off, uint32_t v)
{
	lapic_mmio_write(&c->l, off, 4, v);
}

static uint32_t reg_get(struct cpu *c, uint32_t off)
{
	return (uint32_t)lapic_mmio_read(&c->l, off, 4);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	uint64_t khz = gclock_host_khz();

	assert_int_equal(mem_init(&r->mem, 64 * MIB, -1, NULL), 0);
	gclock_init(&r->clock, &r->mem, khz, KHZ);
	for (unsigned i = 0; i < ARRAY_LEN(r->cpu); i++) {
		struct cpu *c = &r->cpu[i];

		gclock_cpu_init(&c->time, &r->clock);
		lapic_init(&c->l, &r->hub, i, &c->time, attention, c);
		reg_set(c, 0xf0, 0x1ff);
	}
	ioapic_init(&r->io, &r->hub);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	mem_done(&r->mem);
	free(r);
	return 0;
}

static void fixed(struct rig *r, uint32_t dest, uint8_t vector, bool level)
{
	lapic_deliver(&r->hub, &(struct lapic_msg){
		.dest = dest, .vector = vector, .level = level });
}

/* --- interrupts ------------------------------------------------------------- */

static void priorities(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];

	assert_int_equal(lapic_pending(&c->l), -1);
	fixed(r, 0, 0x31, false);
	fixed(r, 0, 0x85, false);
	assert_int_equal(took(c), LAPIC_INTR);
	assert_int_equal(took(&r->cpu[1]), 0);
	assert_int_equal(lapic_pending(&c->l), 0x85);
	lapic_ack(&c->l, 0x85);
	assert_int_equal(reg_get(c, 0xa0), 0x80);	/* PPR */
	assert_int_equal(lapic_pending(&c->l), -1);	/* 0x31 waits */
	fixed(r, 0, 0x8f, false);
	assert_int_equal(lapic_pending(&c->l), -1);	/* same class */
	took(c);
	reg_set(c, 0xb0, 0);
	assert_int_equal(took(c), LAPIC_INTR);		/* EOI unblocked one */
	assert_int_equal(lapic_pending(&c->l), 0x8f);
	lapic_ack(&c->l, 0x8f);
	reg_set(c, 0xb0, 0);
	lapic_set_cr8(&c->l, 3);
	assert_int_equal(lapic_pending(&c->l), -1);
	assert_int_equal(reg_get(c, 0x80), 0x30);
	took(c);
	lapic_set_cr8(&c->l, 2);
	assert_int_equal(took(c), LAPIC_INTR);
	assert_int_equal(lapic_pending(&c->l), 0x31);
}

static void disabled_takes_nothing(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];

	reg_set(c, 0xf0, 0xff);
	fixed(r, 0, 0x50, false);
	assert_int_equal(lapic_pending(&c->l), -1);
	assert_int_equal(took(c), 0);
	assert_true(reg_get(c, 0x320) & 0x10000);
	reg_set(c, 0x320, 0x40);			/* stays masked */
	assert_true(reg_get(c, 0x320) & 0x10000);
}

static void destinations(void **state)
{
	struct rig *r = *state;
	struct lapic_msg m = { .vector = 0x60, .dest = 6, .logical = true };

	for (unsigned i = 0; i < 3; i++)		/* flat: one bit each */
		reg_set(&r->cpu[i], 0xd0, 1u << (24 + i));
	assert_true(lapic_deliver(&r->hub, &m));
	assert_int_equal(took(&r->cpu[0]), 0);
	assert_int_equal(took(&r->cpu[1]), LAPIC_INTR);
	assert_int_equal(took(&r->cpu[2]), LAPIC_INTR);
	m.mode = 1;					/* lowest priority: one */
	m.dest = 7;
	assert_true(lapic_deliver(&r->hub, &m));
	assert_int_equal(!!took(&r->cpu[0]) + !!took(&r->cpu[1]) + !!took(&r->cpu[2]), 1);
	fixed(r, 0xff, 0x61, false);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(took(&r->cpu[i]), LAPIC_INTR);
	m = (struct lapic_msg){ .vector = 0x60, .dest = 9 };
	assert_false(lapic_deliver(&r->hub, &m));
}

static void ipis(void **state)
{
	struct rig *r = *state;

	reg_set(&r->cpu[0], 0x310, 2u << 24);
	reg_set(&r->cpu[0], 0x300, 0x4500);		/* INIT */
	assert_int_equal(took(&r->cpu[2]), LAPIC_INIT);
	reg_set(&r->cpu[0], 0x300, 0x8500);		/* its de-assertion */
	assert_int_equal(took(&r->cpu[2]), 0);
	reg_set(&r->cpu[0], 0x300, 0x4069a);		/* SIPI, self shorthand */
	assert_int_equal(took(&r->cpu[0]), LAPIC_SIPI);
	assert_int_equal(r->cpu[0].l.sipi_vector, 0x9a);
	reg_set(&r->cpu[0], 0x300, 0xc0400);		/* NMI to the others */
	assert_int_equal(took(&r->cpu[0]), 0);
	assert_int_equal(took(&r->cpu[1]), LAPIC_NMI);
	reg_set(&r->cpu[0], 0x300, 0x40040);		/* to self */
	assert_int_equal(lapic_pending(&r->cpu[0].l), 0x40);
	reg_set(&r->cpu[0], 0x370, 0xfe);		/* error vector */
	reg_set(&r->cpu[0], 0x300, 0x40005);		/* illegal vector */
	assert_int_equal(lapic_pending(&r->cpu[0].l), 0xfe);
	assert_int_equal(reg_get(&r->cpu[0], 0x280), 0);
	reg_set(&r->cpu[0], 0x280, 0);
	assert_int_equal(reg_get(&r->cpu[0], 0x280), 0x20);
}

static bool msr(struct cpu *c, uint32_t index, uint64_t val)
{
	return lapic_msr(&c->l, index, &val, true);
}

static uint64_t msr_get(struct cpu *c, uint32_t index)
{
	uint64_t v = ~0ull;

	assert_true(lapic_msr(&c->l, index, &v, false));
	return v;
}

static void x2apic_mode(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[1];
	uint64_t v = 0;

	assert_false(lapic_msr(&c->l, 0x802, &v, false));	/* still xAPIC */
	assert_false(msr(c, MSR_APIC_BASE, 0xfee00400));	/* x2 without enable */
	assert_false(msr(c, MSR_APIC_BASE, 0xfed00800));	/* moved */
	assert_true(msr(c, MSR_APIC_BASE, 0xfee00c00));
	assert_int_equal(msr_get(c, 0x802), 1);
	assert_int_equal(msr_get(c, 0x80d), 2);
	assert_int_equal(lapic_mmio_read(&c->l, 0x20, 4), UINT64_MAX);
	assert_true(msr(c, 0x83f, 0x77));			/* self IPI */
	assert_int_equal(lapic_pending(&c->l), 0x77);
	lapic_ack(&c->l, 0x77);
	assert_int_equal(msr_get(c, 0x813), 1u << 23);		/* ISR */
	assert_false(msr(c, 0x80b, 1));				/* EOI wants 0 */
	assert_true(msr(c, 0x80b, 0));
	assert_int_equal(msr_get(c, 0x813), 0);
	assert_true(msr(c, 0x830, 0x0000000000000041));		/* to id 0 */
	assert_int_equal(lapic_pending(&r->cpu[0].l), 0x41);
	assert_false(msr(c, 0x802, 1));
	assert_false(msr(c, 0x80e, 0));				/* no DFR */
	assert_false(lapic_msr(&c->l, 0x8ff, &v, false));
	assert_false(msr(c, 0x808, 0x100));
	assert_false(msr(c, MSR_APIC_BASE, 0xfee00800));	/* not back */
	assert_true(msr(c, MSR_APIC_BASE, 0xfee00000));
	assert_true(msr(c, MSR_APIC_BASE, 0xfee00800));
}

/* --- IOAPIC ----------------------------------------------------------------- */

static void io_set(struct rig *r, unsigned reg, uint32_t v)
{
	ioapic_mmio_write(&r->io, 0, 4, reg);
	ioapic_mmio_write(&r->io, 0x10, 4, v);
}

static uint32_t io_get(struct rig *r, unsigned reg)
{
	ioapic_mmio_write(&r->io, 0, 4, reg);
	return (uint32_t)ioapic_mmio_read(&r->io, 0x10, 4);
}

static void edges(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];

	assert_int_equal(io_get(r, 1), 0x170011);
	ioapic_irq(&r->io, 5, true);			/* masked: kept */
	ioapic_irq(&r->io, 5, false);
	assert_int_equal(lapic_pending(&c->l), -1);
	io_set(r, 0x1a, 0x51);
	assert_int_equal(lapic_pending(&c->l), 0x51);
	lapic_ack(&c->l, 0x51);
	reg_set(c, 0xb0, 0);
	ioapic_irq(&r->io, 5, true);
	assert_int_equal(lapic_pending(&c->l), 0x51);
	lapic_ack(&c->l, 0x51);
	ioapic_irq(&r->io, 5, true);			/* no edge */
	reg_set(c, 0xb0, 0);
	assert_int_equal(lapic_pending(&c->l), -1);
	ioapic_irq(&r->io, 99, true);
}

static void levels(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];

	io_set(r, 0x10 + 2 * 7, 0x8000 | 0x45);
	ioapic_irq(&r->io, 7, true);
	assert_int_equal(lapic_pending(&c->l), 0x45);
	lapic_ack(&c->l, 0x45);
	assert_true(io_get(r, 0x10 + 2 * 7) & BIT(14));	/* remote IRR */
	assert_int_equal(lapic_pending(&c->l), -1);
	reg_set(c, 0xb0, 0);				/* still asserted: again */
	assert_int_equal(lapic_pending(&c->l), 0x45);
	lapic_ack(&c->l, 0x45);
	ioapic_irq(&r->io, 7, false);
	reg_set(c, 0xb0, 0);
	assert_int_equal(lapic_pending(&c->l), -1);
	assert_false(io_get(r, 0x10 + 2 * 7) & BIT(14));
}

/* --- timer ------------------------------------------------------------------ */

static void skip_ns(struct cpu *c, uint64_t ns)
{
	c->time.offset += gclock_to_ticks(c->time.clock, ns);
	lapic_timer_poll(&c->l);
}

static void timer_counts(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];

	reg_set(c, 0x3e0, 0xb);				/* divide by 1 */
	reg_set(c, 0x320, 0xe0);			/* one shot */
	reg_set(c, 0x380, 1000000000);			/* a second */
	assert_in_range(reg_get(c, 0x390), 900000000, 1000000000);
	skip_ns(c, 500000000);
	assert_in_range(reg_get(c, 0x390), 400000000, 500000000);
	assert_int_equal(lapic_pending(&c->l), -1);
	skip_ns(c, 500000000);
	assert_int_equal(lapic_pending(&c->l), 0xe0);
	assert_int_equal(reg_get(c, 0x390), 0);
	assert_int_equal(lapic_timer_left(&c->l), UINT64_MAX);
	lapic_ack(&c->l, 0xe0);
	reg_set(c, 0xb0, 0);

	reg_set(c, 0x320, 0x200e1);			/* periodic */
	reg_set(c, 0x380, 1000000000);
	skip_ns(c, 3300000000);				/* three, seen as one */
	assert_int_equal(lapic_pending(&c->l), 0xe1);
	lapic_ack(&c->l, 0xe1);
	reg_set(c, 0xb0, 0);
	assert_int_equal(lapic_pending(&c->l), -1);
	assert_in_range(lapic_timer_left(&c->l), 600000000, 700000000);
	reg_set(c, 0x380, 0);
	assert_int_equal(lapic_timer_left(&c->l), UINT64_MAX);
}

static void timer_deadline(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];
	uint64_t at;

	assert_true(msr(c, MSR_TSC_DEADLINE, 5));	/* wrong mode: ignored */
	assert_int_equal(msr_get(c, MSR_TSC_DEADLINE), 0);
	reg_set(c, 0x320, 0x400ef);
	at = gclock_tsc(&c->time) + KHZ * 1000;		/* one second */
	assert_true(msr(c, MSR_TSC_DEADLINE, at));
	assert_int_equal(msr_get(c, MSR_TSC_DEADLINE), at);
	assert_in_range(lapic_timer_left(&c->l), 900000000, 1000000000);
	assert_in_range(lapic_deadline_ns(&c->l) - io_now_ns(), 900000000, 1000000000);
	skip_ns(c, 1000000000);
	assert_int_equal(lapic_pending(&c->l), 0xef);
	assert_int_equal(msr_get(c, MSR_TSC_DEADLINE), 0);
	lapic_ack(&c->l, 0xef);
	reg_set(c, 0xb0, 0);
	assert_true(msr(c, MSR_TSC_DEADLINE, 1));	/* past: at once */
	assert_int_equal(lapic_pending(&c->l), 0xef);
}

/* The signal comes by itself, and early ones are not taken for the last. */
static void host_timer_fires(void **state)
{
	struct rig *r = *state;
	struct cpu *c = &r->cpu[0];
	uint64_t start;

	assert_int_equal(lapic_timer_start(&c->l), 0);
	took(c);
	reg_set(c, 0x320, 0x400ef);
	start = gclock_tsc(&c->time);
	msr(c, MSR_TSC_DEADLINE, start + KHZ * 1);	/* 1 ms, then */
	msr(c, MSR_TSC_DEADLINE, start + KHZ * 5);	/* moved to 5 */
	while (lapic_pending(&c->l) < 0) {
		if (took(c) & LAPIC_TIMER)
			lapic_timer_poll(&c->l);
		assert_true(gclock_tsc(&c->time) < start + KHZ * 10000);
	}
	assert_true(gclock_tsc(&c->time) >= start + KHZ * 5);
	lapic_ack(&c->l, 0xef);
	reg_set(c, 0xb0, 0);

	msr(c, MSR_TSC_DEADLINE, gclock_tsc(&c->time) + KHZ * 5);
	lapic_timer_idle(&c->l);
	usleep(10000000);				/* EINTR at the deadline */
	assert_true(took(c) & LAPIC_TIMER);
	lapic_timer_poll(&c->l);
	assert_int_equal(lapic_pending(&c->l), 0xef);
	lapic_timer_stop(&c->l);
}

/* --- state ------------------------------------------------------------------ */

static void state_moves(void **state)
{
	struct rig *r = *state;
	static struct x86_state s;
	struct x86_ioapic_state is;
	struct cpu *a = &r->cpu[0], *b = &r->cpu[1];

	reg_set(a, 0x3e0, 0xb);
	reg_set(a, 0x320, 0xe0);
	reg_set(a, 0x380, 1000000000);
	fixed(r, 0, 0x90, true);
	fixed(r, 0, 0x33, false);
	lapic_ack(&a->l, 0x90);
	lapic_get(&a->l, &s);
	took(b);
	lapic_set(&b->l, &s);
	assert_int_equal(took(b), LAPIC_INTR);
	assert_int_equal(reg_get(b, 0x20), 1u << 24);	/* its own id */
	assert_int_equal(lapic_pending(&b->l), -1);
	io_set(r, 0x10 + 2 * 3, 0x8000 | 0x90);
	ioapic_irq(&r->io, 3, true);
	ioapic_get(&r->io, &is);
	assert_true(is.redir[3] & BIT(14));
	ioapic_irq(&r->io, 3, false);
	ioapic_set(&r->io, &is);			/* the line is up again */
	lapic_timer_poll(&b->l);
	lapic_ack(&a->l, 0x90);
	reg_set(b, 0xb0, 0);				/* level: IOAPIC hears */
	assert_int_equal(reg_get(a, 0x240), 1u << 16);	/* requested again */
	assert_int_equal(lapic_pending(&b->l), 0x33);
	assert_in_range(lapic_timer_left(&b->l), 900000000, 1000000000);

	memset(&s, 0xff, sizeof(s));			/* a hostile one */
	lapic_set(&b->l, &s);
	memset(&is, 0xff, sizeof(is));
	ioapic_set(&r->io, &is);
	assert_int_equal(b->l.irr[0] & 0xffff, 0);
}

/* --- clock ------------------------------------------------------------------ */

struct page {
	uint32_t version, pad;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad2[2];
};

/* What a guest computes (KVM ABI). */
static uint64_t guest_ns(const struct page *p, uint64_t tsc)
{
	uint64_t d = tsc - p->tsc;

	d = p->shift < 0 ? d >> -p->shift : d << p->shift;
	return p->ns + (uint64_t)((unsigned __int128)d * p->mul >> 32);
}

static void kvmclock(void **state)
{
	struct rig *r = *state;
	struct gclock_cpu *v = &r->cpu[0].time;
	struct x86_clock_state cs;
	uint64_t val = 0x5000 | 1;
	struct page p;
	uint32_t wall[3];

	assert_true(gclock_msr(v, MSR_KVM_TIME, &val, true));
	assert_true(mem_read(&r->mem, 0x5000, &p, sizeof(p)));
	assert_int_equal(p.version, 2);
	assert_int_equal(p.flags, 1);
	assert_in_range(gclock_kvm_ns(&r->clock) - guest_ns(&p, gclock_tsc(v)) + 1000000,
			0, 2000000);
	val = 0x6000;
	assert_true(gclock_msr(v, MSR_KVM_WALL, &val, true));
	assert_true(mem_read(&r->mem, 0x6000, wall, sizeof(wall)));
	assert_in_range(wall[1], 1700000000, UINT32_MAX);

	cs = (struct x86_clock_state){ .kvmclock_ns = 5000000000, .tsc_khz = 3 * KHZ / 2 };
	gclock_set(&r->clock, &cs);			/* goes on, other TSC */
	gclock_cpu_set_tsc(v, 77);
	val = 0x5000 | 1;
	assert_true(gclock_msr(v, MSR_KVM_TIME, &val, true));
	assert_true(mem_read(&r->mem, 0x5000, &p, sizeof(p)));
	assert_in_range(guest_ns(&p, gclock_tsc(v)), 5000000000, 5900000000);
	gclock_get(&r->clock, &cs);
	assert_in_range(cs.kvmclock_ns, 5000000000, 5900000000);
	val = UINT64_MAX;				/* nowhere: no harm */
	assert_true(gclock_msr(v, MSR_KVM_TIME, &val, true));
	assert_false(gclock_msr(v, 0x1234, &val, true));
}

static void tsc_writes(void **state)
{
	struct rig *r = *state;
	struct gclock_cpu *v = &r->cpu[0].time;
	uint64_t val = 1000, t;

	assert_true(gclock_msr(v, MSR_TSC, &val, true));
	t = gclock_tsc(v);
	assert_in_range(t, 1000, KHZ * 1000);
	assert_true(gclock_msr(v, MSR_TSC_ADJUST, &val, false));
	val += KHZ * 5000;
	assert_true(gclock_msr(v, MSR_TSC_ADJUST, &val, true));
	assert_in_range(gclock_tsc(v), t + KHZ * 5000, t + KHZ * 6000);
}

static void rate_is_right(void **state)
{
	struct rig *r = *state;
	struct gclock_cpu *v = &r->cpu[0].time;
	uint64_t t0 = gclock_tsc(v), n0 = io_now_ns(), ns;

	while (io_now_ns() - n0 < 20000000)
		;
	ns = gclock_to_ns(&r->clock, gclock_tsc(v) - t0);
	assert_in_range(ns, 19900000, 40000000);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(priorities), T(disabled_takes_nothing), T(destinations), T(ipis),
		T(x2apic_mode), T(edges), T(levels), T(timer_counts), T(timer_deadline),
		T(host_timer_fires), T(state_moves), T(kvmclock), T(tsc_writes),
		T(rate_is_right),
	};
#undef T

	return cmocka_run_group_tests_name("lapic", tests, NULL, NULL);
}
