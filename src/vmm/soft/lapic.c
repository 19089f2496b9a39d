// SPDX-License-Identifier: MIT
/*
 * soft/lapic.c - local APIC registers, priorities and messages (Intel SDM
 * volume 3, chapter "Advanced Programmable Interrupt Controller").  The timer is
 * lapic_timer.c.
 *
 * Theory of operation.  An interrupt message sets one bit of IRR, from any
 * thread, and raises attention; from then on only the vCPU's thread acts.  It
 * asks lapic_pending() for the highest requested vector whose class is above
 * the processor priority, and lapic_ack() moves it to ISR.  What can make a
 * vector deliverable later (EOI, a lower TPR, enabling) happens on the vCPU's
 * thread and raises attention again, so the engine never polls.
 *
 * Not modelled: ExtINT and LINT pins (there is no PIC), SMI, performance and
 * thermal interrupts (their LVT entries are plain registers), focus checks,
 * EOI-broadcast suppression (not offered in the version register).
 */
#include "vmm/soft/lapic.h"

#include "base/util.h"
#include "vmm/arch/x86/state.h"
#include "vmm/soft/ioapic.h"
#include "vmm/soft/lapic_timer.h"

/* Register offsets / 16; the same numbers are x2APIC MSRs from 0x800. */
enum reg {
	R_ID = 0x02, R_VERSION = 0x03, R_TPR = 0x08, R_PPR = 0x0a, R_EOI = 0x0b,
	R_LDR = 0x0d, R_DFR = 0x0e, R_SVR = 0x0f, R_ISR = 0x10, R_TMR = 0x18,
	R_IRR = 0x20, R_ESR = 0x28, R_ICR_LO = 0x30, R_ICR_HI = 0x31,
	R_LVT_TIMER = 0x32, R_LVT_ERROR = 0x37, R_TMICT = 0x38, R_TMCCT = 0x39,
	R_TDCR = 0x3e, R_SELF_IPI = 0x3f, R_NR = 0x40,
};

#define VERSION_VALUE	(0x14u | (LVT_NR - 1) << 16)
#define BASE_BSP	BIT(8)
#define BASE_X2APIC	BIT(10)
#define BASE_ENABLE	BIT(11)
#define SVR_ENABLE	BIT(8)
#define ESR_SEND_ILLEGAL	BIT(5)
#define ESR_RECV_ILLEGAL	BIT(6)
#define ESR_REGISTER		BIT(7)

enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_NMI = 4, MODE_INIT, MODE_SIPI };

/* Bits software may set, per LVT entry. */
static const uint32_t lvt_mask[LVT_NR] = {
	[LVT_TIMER] = 0x000700ff,
	[LVT_THERMAL] = 0x000107ff,
	[LVT_PERF] = 0x000107ff,
	[LVT_LINT0] = 0x0001a7ff,
	[LVT_LINT1] = 0x0001a7ff,
	[LVT_ERROR] = 0x000100ff,
};

/* --- priorities ------------------------------------------------------------- */

static bool x2apic(const struct lapic *l)
{
	return l->base_lo & BASE_X2APIC;
}

static bool sw_enabled(const struct lapic *l)
{
	return l->base_lo & BASE_ENABLE && l->svr & SVR_ENABLE;
}

static int highest(uint64_t w3, uint64_t w2, uint64_t w1, uint64_t w0)
{
	if (w3)
		return 255 - __builtin_clzll(w3);
	if (w2)
		return 191 - __builtin_clzll(w2);
	if (w1)
		return 127 - __builtin_clzll(w1);
	return w0 ? 63 - __builtin_clzll(w0) : -1;
}

static int highest_irr(struct lapic *l)
{
	/* Pairs with the release in raise_irr(). */
	return highest(
		atomic_load_explicit(&l->irr[3], memory_order_acquire),
		atomic_load_explicit(&l->irr[2], memory_order_acquire),
		atomic_load_explicit(&l->irr[1], memory_order_acquire),
		atomic_load_explicit(&l->irr[0], memory_order_acquire));
}

static int highest_isr(const struct lapic *l)
{
	return highest(l->isr[3], l->isr[2], l->isr[1], l->isr[0]);
}

static uint32_t ppr(const struct lapic *l)
{
	int isr = highest_isr(l);
	uint32_t class = isr < 0 ? 0 : isr & 0xf0;

	return (l->tpr & 0xf0) >= class ? l->tpr : class;
}

int lapic_pending(struct lapic *l)
{
	int vec = highest_irr(l);

	if (vec < 0 || !sw_enabled(l))
		return -1;
	return (vec & 0xf0u) > (ppr(l) & 0xf0) ? vec : -1;
}

void lapic_ack(struct lapic *l, unsigned vector)
{
	uint64_t bit = BIT(vector & 63);

	atomic_fetch_and_explicit(&l->irr[vector >> 6 & 3], ~bit,
				  memory_order_relaxed);
	l->isr[vector >> 6 & 3] |= bit;
}

/* Something on our own thread may have unblocked a waiting vector. */
static void recheck(struct lapic *l)
{
	if (lapic_pending(l) >= 0)
		l->attention(l->arg, LAPIC_INTR);
}

unsigned lapic_cr8(const struct lapic *l)
{
	return l->tpr >> 4;
}

void lapic_set_cr8(struct lapic *l, unsigned cr8)
{
	l->tpr = (cr8 & 15) << 4;
	recheck(l);
}

static void end_of_interrupt(struct lapic *l)
{
	int vec = highest_isr(l);
	uint64_t bit;

	if (vec < 0)
		return;
	bit = BIT(vec & 63);
	l->isr[vec >> 6] &= ~bit;
	if (l->tmr[vec >> 6] & bit && l->hub->ioapic)
		ioapic_eoi(l->hub->ioapic, (unsigned)vec);
	recheck(l);
}

/* --- receiving -------------------------------------------------------------- */

static void raise_irr(struct lapic *l, unsigned vec, bool level)
{
	uint64_t bit = BIT(vec & 63);

	if (level)
		atomic_fetch_or_explicit(&l->tmr[vec >> 6], bit,
					 memory_order_relaxed);
	else
		atomic_fetch_and_explicit(&l->tmr[vec >> 6], ~bit,
					  memory_order_relaxed);
	/* Publishes TMR; pairs with the acquire in highest_irr(). */
	atomic_fetch_or_explicit(&l->irr[vec >> 6], bit, memory_order_release);
	l->attention(l->arg, LAPIC_INTR);
}

static void raise_error(struct lapic *l, uint32_t bit)
{
	uint32_t lvt = l->lvt[LVT_ERROR];
	uint32_t old = atomic_fetch_or(&l->errors, bit);

	if (old & bit || lvt & LVT_MASKED || (lvt & 0xff) < 16)
		return;
	raise_irr(l, lvt & 0xff, false);
}

void lapic_local(struct lapic *l, enum lapic_lvt entry)
{
	uint32_t lvt = l->lvt[entry];

	if (lvt & LVT_MASKED || !sw_enabled(l))
		return;
	if ((lvt & 0xff) < 16)
		raise_error(l, ESR_RECV_ILLEGAL);
	else
		raise_irr(l, lvt & 0xff, false);
}

static bool accept_msg(struct lapic *l, const struct lapic_msg *m)
{
	switch (m->mode) {
	case MODE_FIXED:
	case MODE_LOWEST:
		if (!sw_enabled(l))
			return false;
		if (m->vector < 16)
			atomic_fetch_or(&l->errors, ESR_RECV_ILLEGAL);
		else
			raise_irr(l, m->vector, m->level);
		return true;
	case MODE_NMI:
		l->attention(l->arg, LAPIC_NMI);
		return true;
	case MODE_INIT:
		l->attention(l->arg, LAPIC_INIT);
		return true;
	case MODE_SIPI:
		atomic_store(&l->sipi_vector, m->vector);
		l->attention(l->arg, LAPIC_SIPI);
		return true;
	default:
		return false;
	}
}

static bool match_logical(const struct lapic *l, uint32_t dest)
{
	uint32_t ldr = l->ldr >> 24;

	if (x2apic(l))
		return l->id >> 4 == dest >> 16 &&
		       dest & 0xffff & BIT(l->id & 15);
	dest &= 0xff;
	if ((l->dfr >> 28) == 0xf)	/* flat */
		return ldr & dest;
	return (ldr >> 4 == dest >> 4 || dest >> 4 == 0xf) && ldr & dest & 0xf;
}

static bool match(const struct lapic *l, const struct lapic_msg *m)
{
	if (!(l->base_lo & BASE_ENABLE))
		return false;
	if (m->dest == UINT32_MAX || (!x2apic(l) && m->dest == 0xff))
		return true;
	return m->logical ? match_logical(l, m->dest) : m->dest == l->id;
}

bool lapic_deliver(struct lapic_hub *hub, const struct lapic_msg *m)
{
	unsigned n = hub->nr, start = 0;
	bool taken = false;

	/* Any choice is allowed for lowest priority: take turns. */
	if (m->mode == MODE_LOWEST && n > 1)
		start = atomic_fetch_add(&hub->turn, 1) % n;
	for (unsigned i = 0; i < n; i++) {
		struct lapic *l = hub->cpu[(start + i) % n];

		if (!match(l, m) || !accept_msg(l, m))
			continue;
		taken = true;
		if (m->mode == MODE_LOWEST)
			break;
	}
	return taken;
}

/* --- sending ---------------------------------------------------------------- */

static void send_others(struct lapic *l, const struct lapic_msg *m, bool self)
{
	for (unsigned i = 0; i < l->hub->nr; i++) {
		struct lapic *to = l->hub->cpu[i];

		if ((to != l || self) && to->base_lo & BASE_ENABLE)
			accept_msg(to, m);
	}
}

static void send_ipi(struct lapic *l)
{
	uint32_t icr = l->icr_lo;
	struct lapic_msg m = {
		.vector = icr & 0xff,
		.mode = icr >> 8 & 7,
		.logical = icr & BIT(11),
		.dest = x2apic(l) ? l->icr_hi : l->icr_hi >> 24,
	};

	if (m.mode == MODE_INIT && icr & BIT(15) && !(icr & BIT(14)))
		return;		/* INIT level de-assert: no effect since P4 */
	if ((m.mode == MODE_FIXED || m.mode == MODE_LOWEST) && m.vector < 16) {
		raise_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	switch (icr >> 18 & 3) {
	case 0: lapic_deliver(l->hub, &m); break;
	case 1: accept_msg(l, &m); break;
	case 2: send_others(l, &m, true); break;
	case 3: send_others(l, &m, false); break;
	}
}

/* --- registers -------------------------------------------------------------- */

static uint32_t reg_read(struct lapic *l, unsigned reg)
{
	switch (reg) {
	case R_ID: return x2apic(l) ? l->id : l->id << 24;
	case R_VERSION: return VERSION_VALUE;
	case R_TPR: return l->tpr;
	case R_PPR: return ppr(l);
	case R_LDR:
		return x2apic(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : l->ldr;
	case R_DFR: return l->dfr;
	case R_SVR: return l->svr;
	case R_ISR ... R_ISR + 7:
		return (uint32_t)(l->isr[(reg & 7) / 2] >> (32 * (reg & 1)));
	case R_TMR ... R_TMR + 7:
		return (uint32_t)(l->tmr[(reg & 7) / 2] >> (32 * (reg & 1)));
	case R_IRR ... R_IRR + 7:
		return (uint32_t)(l->irr[(reg & 7) / 2] >> (32 * (reg & 1)));
	case R_ESR: return l->esr;
	case R_ICR_LO: return l->icr_lo;
	case R_ICR_HI: return l->icr_hi;
	case R_LVT_TIMER ... R_LVT_ERROR: return l->lvt[reg - R_LVT_TIMER];
	case R_TMICT: return l->tmict;
	case R_TMCCT: return lapic_timer_count(l);
	case R_TDCR: return l->tdcr;
	default: return 0;
	}
}

static void write_svr(struct lapic *l, uint32_t val)
{
	l->svr = val & 0x1ff;
	if (!(val & SVR_ENABLE)) {	/* software disable masks every LVT */
		for (unsigned i = 0; i < LVT_NR; i++)
			l->lvt[i] |= LVT_MASKED;
	}
	recheck(l);
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t val)
{
	uint32_t old = l->lvt[i];

	val &= lvt_mask[i];
	if (!(l->svr & SVR_ENABLE))
		val |= LVT_MASKED;
	l->lvt[i] = val;
	if (i == LVT_TIMER)
		lapic_timer_mode(l, old);
}

static void reg_write(struct lapic *l, unsigned reg, uint32_t val)
{
	switch (reg) {
	case R_TPR:
		l->tpr = val & 0xff;
		recheck(l);
		break;
	case R_EOI: end_of_interrupt(l); break;
	case R_LDR: l->ldr = val & 0xff000000; break;
	case R_DFR: l->dfr = val | 0x0fffffff; break;
	case R_SVR: write_svr(l, val); break;
	case R_ESR: l->esr = atomic_exchange(&l->errors, 0); break;
	case R_ICR_LO:
		l->icr_lo = val & 0xccfff;
		send_ipi(l);
		break;
	case R_ICR_HI: l->icr_hi = val & 0xff000000; break;
	case R_LVT_TIMER ... R_LVT_ERROR:
		write_lvt(l, reg - R_LVT_TIMER, val);
		break;
	case R_TMICT: lapic_timer_start_count(l, val); break;
	case R_TDCR: lapic_timer_divide(l, val & 0xb); break;
	case R_ID: case R_VERSION: case R_PPR: case R_TMCCT:
	case R_ISR ... R_ESR - 1:
		break;		/* read-only */
	default: raise_error(l, ESR_REGISTER);
	}
}

uint64_t lapic_mmio_read(struct lapic *l, uint32_t off, unsigned len)
{
	uint32_t val;

	if (x2apic(l) || !(l->base_lo & BASE_ENABLE))
		return UINT64_MAX;
	/* Registers are 4 bytes wide at 16-byte steps; the rest is reserved. */
	if (off >= R_NR * 16 || (off & 15) + len > 4)
		return 0;
	val = reg_read(l, off >> 4);
	return val >> (8 * (off & 3)) & (len >= 4 ? UINT32_MAX : (1u << 8 * len) - 1);
}

void lapic_mmio_write(struct lapic *l, uint32_t off, unsigned len, uint64_t val)
{
	if (x2apic(l) || !(l->base_lo & BASE_ENABLE))
		return;
	if (off >= R_NR * 16 || off & 15 || len != 4)
		return;
	reg_write(l, off >> 4, (uint32_t)val);
}

/* --- MSRs ------------------------------------------------------------------- */

/* Legal moves: disabled <-> xAPIC -> x2APIC -> disabled (SDM 11.12.5). */
static bool write_base(struct lapic *l, uint64_t val)
{
	uint32_t mode = val & (BASE_ENABLE | BASE_X2APIC);
	uint32_t old = l->base_lo & (BASE_ENABLE | BASE_X2APIC);

	if ((val & ~(BASE_ENABLE | BASE_X2APIC | BASE_BSP)) != LAPIC_PAGE)
		return false;
	if (mode == BASE_X2APIC || (!old && mode & BASE_X2APIC) ||
	    (old & BASE_X2APIC && mode == BASE_ENABLE))
		return false;
	if (!mode && old)
		lapic_reset(l);
	l->base_lo = (uint32_t)val;
	return true;
}

/* Bits a write may have set; ~0u where the register is not writable. */
static bool x2_reserved(unsigned reg, uint64_t val)
{
	switch (reg) {
	case R_TPR: return val & ~0xffull;
	case R_EOI: case R_ESR: return val;
	case R_SVR: return val & ~0x1ffull;
	case R_LVT_TIMER ... R_LVT_ERROR:
		return val & ~(uint64_t)(lvt_mask[reg - R_LVT_TIMER] | 0x1000);
	case R_TMICT: return val >> 32;
	case R_TDCR: return val & ~0xbull;
	case R_SELF_IPI: return val & ~0xffull;
	default: return true;
	}
}

static bool x2_write(struct lapic *l, unsigned reg, uint64_t val)
{
	if (reg == R_ICR_LO) {
		if ((uint32_t)val & ~0xccfffu)
			return false;
		l->icr_hi = (uint32_t)(val >> 32);
		reg_write(l, reg, (uint32_t)val);
		return true;
	}
	if (x2_reserved(reg, val))
		return false;
	if (reg != R_SELF_IPI)
		reg_write(l, reg, (uint32_t)val);
	else if (val < 16)
		raise_error(l, ESR_SEND_ILLEGAL);
	else
		raise_irr(l, (unsigned)val, false);
	return true;
}

static bool x2_read(struct lapic *l, unsigned reg, uint64_t *val)
{
	switch (reg) {
	case R_ICR_LO:
		*val = (uint64_t)l->icr_hi << 32 | l->icr_lo;
		return true;
	case R_ID: case R_VERSION: case R_TPR: case R_PPR: case R_LDR: case R_SVR:
	case R_ISR ... R_ESR:
	case R_LVT_TIMER ... R_TMCCT:
	case R_TDCR:
		*val = reg_read(l, reg);
		return true;
	default:
		return false;
	}
}

bool lapic_msr(struct lapic *l, uint32_t msr, uint64_t *val, bool write)
{
	unsigned reg = msr - MSR_X2APIC_FIRST;

	if (msr == MSR_APIC_BASE) {
		if (write)
			return write_base(l, *val);
		*val = l->base_lo;
		return true;
	}
	if (msr == MSR_TSC_DEADLINE) {
		if (write)
			lapic_timer_set_deadline(l, *val);
		else
			*val = l->deadline;
		return true;
	}
	if (!x2apic(l) || reg >= R_NR)
		return false;
	return write ? x2_write(l, reg, *val) : x2_read(l, reg, val);
}

/* --- life ------------------------------------------------------------------- */

void lapic_reset(struct lapic *l)
{
	for (int i = 0; i < 4; i++) {
		l->irr[i] = l->tmr[i] = 0;
		l->isr[i] = 0;
	}
	for (int i = 0; i < LVT_NR; i++)
		l->lvt[i] = LVT_MASKED;
	l->errors = 0;
	l->svr = 0xff;
	l->ldr = 0;
	l->dfr = UINT32_MAX;
	l->tpr = l->esr = l->icr_lo = l->icr_hi = l->tdcr = l->tmict = 0;
	l->deadline = l->expiry = l->period = 0;
}

void lapic_init(struct lapic *l, struct lapic_hub *hub, unsigned id,
		struct gclock_cpu *time,
		void (*attention)(void *arg, unsigned why), void *arg)
{
	*l = (struct lapic){
		.id = id, .hub = hub, .time = time,
		.attention = attention, .arg = arg,
	};
	lapic_reset(l);
	l->base_lo = (uint32_t)(LAPIC_PAGE | BASE_ENABLE | (id ? 0 : BASE_BSP));
	ASSERT(hub->nr < ARRAY_LEN(hub->cpu));
	hub->cpu[hub->nr++] = l;
}

void lapic_get(struct lapic *l, struct x86_state *s)
{
	for (unsigned reg = 0; reg < ARRAY_LEN(s->lapic); reg++)
		s->lapic[reg] = reg < R_NR ? reg_read(l, reg) : 0;
	s->lapic[R_ID] = l->id << 24;
	s->apic_base = l->base_lo;
	s->tsc_deadline = l->deadline;
}

/* The words come from a bundle: each is cut to what a guest could have set. */
void lapic_set(struct lapic *l, const struct x86_state *s)
{
	const uint32_t *r = s->lapic;

	lapic_reset(l);
	l->base_lo = LAPIC_PAGE | (s->apic_base &
		     (BASE_ENABLE | BASE_X2APIC | BASE_BSP));
	if (!(l->base_lo & BASE_ENABLE))
		l->base_lo &= ~(uint32_t)BASE_X2APIC;
	l->tpr = r[R_TPR] & 0xff;
	l->ldr = r[R_LDR] & 0xff000000;
	l->dfr = r[R_DFR] | 0x0fffffff;
	l->svr = r[R_SVR] & 0x1ff;
	l->esr = r[R_ESR] & 0xff;
	l->icr_lo = r[R_ICR_LO] & 0xccfff;
	l->icr_hi = r[R_ICR_HI];
	for (unsigned i = 0; i < 4; i++) {
		/* Vectors below 16 can never be requested. */
		uint64_t ok = i ? UINT64_MAX : ~0xffffull;

		l->irr[i] = ok & ((uint64_t)r[R_IRR + 2 * i + 1] << 32 | r[R_IRR + 2 * i]);
		l->isr[i] = ok & ((uint64_t)r[R_ISR + 2 * i + 1] << 32 | r[R_ISR + 2 * i]);
		l->tmr[i] = ok & ((uint64_t)r[R_TMR + 2 * i + 1] << 32 | r[R_TMR + 2 * i]);
	}
	for (unsigned i = 0; i < LVT_NR; i++)
		l->lvt[i] = r[R_LVT_TIMER + i] & lvt_mask[i];
	l->tdcr = r[R_TDCR] & 0xb;
	lapic_timer_load(l, r[R_TMICT], r[R_TMCCT], s->tsc_deadline);
	if (highest_irr(l) >= 0)
		l->attention(l->arg, LAPIC_INTR);
}
