// SPDX-License-Identifier: MIT
/*
 * test_state.c - the neutral state of a CPU goes into a backend and comes out of it
 * as it was, every field: set, then get.
 *
 * BACKEND=kvm does so with KVM.  Values are such as a running guest may have;
 * what a backend works out by itself (the timer's present count, priorities) is
 * left out by name, below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "tests/lib/guest.h"

#define LAPIC(offset) ((offset) / 16)
#define XSTATE_BV 512
#define YMM_HIGH 576

struct change {
	const char *name;
	void (*make)(struct x86_state *s);
};

static uint64_t pattern(unsigned n)
{
	return (n + 1) * 0x9e3779b97f4a7c15ull;
}

static const struct accel *backend(void)
{
	const char *name = getenv("BACKEND");

	return name && !strcmp(name, "kvm") ? &accel_kvm : &accel_soft;
}

/* ---- what is set ---- */

static void nothing(struct x86_state *s)
{
}

static void general(struct x86_state *s)
{
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = pattern(i);
	s->rip = 0xffffffff81234567;
	s->rflags = 0x246cd7;	/* ID, AC, NT, IOPL 2, OF DF IF SF ZF AF PF CF */
}

static void segments(struct x86_state *s)
{
	s->seg[X86_FS].base = 0x00007f0123456780;
	s->seg[X86_GS].base = 0xffff888003c00000;
	s->seg[X86_ES].sel = G_USS;
	s->seg[X86_LDTR] = (struct x86_segment){ .base = 0x12000, .limit = 0xfff,
						 .sel = 0x40, .attr = 0x82 };
	s->seg[X86_TR] = (struct x86_segment){ .base = 0xfffffe0000003000,
					       .limit = 0x206f, .sel = 0x40,
					       .attr = 0x8b };
	s->gdt = (struct x86_dtable){ 0xfffffe0000001000, 0x7f };
	s->idt = (struct x86_dtable){ 0xfffffe0000000000, 0xfff };
}

static void user_mode(struct x86_state *s)
{
	s->seg[X86_CS] = (struct x86_segment){ .limit = 0xffffffff, .sel = G_UCS,
					       .attr = 0xa0fb };
	s->seg[X86_SS] = (struct x86_segment){ .limit = 0xffffffff, .sel = G_USS,
					       .attr = 0xc0f3 };
	s->rip = 0x555555554000;
}

static void control(struct x86_state *s)
{
	s->cr0 = 0x80050033;	/* + AM */
	s->cr2 = 0x00007ffdeadbeef0;
	s->cr3 = 0x2345000;
	s->cr4 = 0x3506f0;	/* SMAP SMEP OSXSAVE FSGSBASE and the usual */
	s->efer = 0xd01;
	s->xcr0 = 7;
}

static void debug(struct x86_state *s)
{
	for (unsigned i = 0; i < 4; i++)
		s->dr[i] = 0xffffffff81000000 + 8 * i;
	s->dr6 = 0xffff4ff1;	/* BS, B0 */
	s->dr7 = 0x000d0402;	/* a global watch of 4 bytes at DR0 */
}

static void exception_due(struct x86_state *s)
{
	s->ev.pending = true;
	s->ev.vector = 14;
	s->ev.has_error = true;
	s->ev.error = 6;
	s->cr2 = 0x1234000;
}

static void interrupt_due(struct x86_state *s)
{
	s->ev.pending = true;
	s->ev.vector = 0xec;
}

static void software_interrupt_due(struct x86_state *s)
{
	s->ev.pending = true;
	s->ev.vector = 0x80;
	s->ev.soft = true;
}

static void nmi_due(struct x86_state *s)
{
	s->ev.nmi_pending = true;
	s->ev.nmi_masked = true;
}

static void after_sti(struct x86_state *s)
{
	s->ev.sti_shadow = true;
}

static void halted(struct x86_state *s)
{
	s->run_state = X86_HALTED;
	s->rflags |= 0x200;
}

static const struct x86_msr some_msrs[] = {
	{ 0x174, 0x10 }, { 0x175, 0xfffffe0000003000 }, { 0x176, 0xffffffff81800000 },
	{ 0x277, 0x0407050600070106 }, { 0x2ff, 0xc06 },
	{ 0xc0000081, 0x0023001000000000 }, { 0xc0000082, 0xffffffff81800080 },
	{ 0xc0000083, 0xffffffff81801000 }, { 0xc0000084, 0x47700 },
	{ 0xc0000102, 0xffff888003c00000 }, { 0xc0000103, 0x7001 },
	{ 0x4b564d00, 0x5000 }, { 0x200, 0x80000006 }, { 0x201, 0xff80000800 },
	{ 0x26f, 0x0505050505050505 }, { 0x1a0, 1 },
};

static struct x86_msr *msr_of(struct x86_state *s, uint32_t index)
{
	for (unsigned i = 0; i < s->nr_msrs; i++)
		if (s->msr[i].index == index)
			return &s->msr[i];
	return NULL;
}

/* All of these every backend must know. */
static void msrs(struct x86_state *s)
{
	for (unsigned i = 0; i < ARRAY_LEN(some_msrs); i++) {
		struct x86_msr *m = msr_of(s, some_msrs[i].index);

		if (!m)
			printf("# MSR %#x is not saved\n", some_msrs[i].index);
		assert_non_null(m);
		m->value = some_msrs[i].value;
	}
}

static void put(struct x86_state *s, unsigned at, const void *data, size_t len)
{
	memcpy(s->xsave + at, data, len);
}

static void vectors(struct x86_state *s)
{
	const uint16_t words[] = { 0x0f7f, 0x3800, 0xff00, 0 };	/* FCW FSW FTW FOP */
	const uint32_t mxcsr = 0x5fa5;
	uint64_t bv = 7;

	s->cr4 |= 0x40000;
	s->xcr0 = 7;
	put(s, 0, words, sizeof(words));
	put(s, 24, &mxcsr, 4);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t mantissa = pattern(i) | 1ull << 63;
		uint16_t exponent = (uint16_t)(0x3fff + i);

		put(s, 32 + 16 * i, &mantissa, 8);
		put(s, 40 + 16 * i, &exponent, 2);
	}
	for (unsigned i = 0; i < 32; i++) {
		uint64_t v = pattern(100 + i), high = pattern(200 + i);

		put(s, 160 + 8 * i, &v, 8);
		put(s, YMM_HIGH + 8 * i, &high, 8);
	}
	put(s, XSTATE_BV, &bv, 8);
}

static void lapic(struct x86_state *s)
{
	s->lapic[LAPIC(0x80)] = 0x20;		/* TPR, and CR8 with it */
	s->cr8 = 2;
	s->lapic[LAPIC(0xf0)] = 0x1ff;
	s->lapic[LAPIC(0x120)] = 1u << 3;		/* in service: 0x43 */
	s->lapic[LAPIC(0x1a0)] = 1u << 12;	/* level */
	s->lapic[LAPIC(0x270)] = 1u << 13;	/* requested: 0xed */
	s->lapic[LAPIC(0x320)] = 0x200ec;	/* timer: periodic */
	s->lapic[LAPIC(0x350)] = 0x10700;
	s->lapic[LAPIC(0x360)] = 0x400;
	s->lapic[LAPIC(0x370)] = 0xfe;
	s->lapic[LAPIC(0x380)] = 0x7fffffff;
	s->lapic[LAPIC(0x3e0)] = 0xb;
}

static void deadline(struct x86_state *s)
{
	s->lapic[LAPIC(0xf0)] = 0x1ff;
	s->lapic[LAPIC(0x320)] = 0x400ec;
	s->tsc_deadline = s->tsc + 1000000000000;	/* minutes from now */
}

static void x2apic(struct x86_state *s)
{
	s->apic_base |= 0xc00;
	s->lapic[LAPIC(0xf0)] = 0x1ff;
	s->lapic[LAPIC(0xd0)] = 1;	/* follows from the id */
}

static const struct change changes[] = {
	{ "nothing", nothing }, { "general registers", general },
	{ "segments and tables", segments }, { "user mode", user_mode },
	{ "control registers", control }, { "debug registers", debug },
	{ "an exception due", exception_due }, { "an interrupt due", interrupt_due },
	{ "INT n due", software_interrupt_due }, { "NMI due and masked", nmi_due },
	{ "the instruction after STI", after_sti }, { "halted", halted },
	{ "MSRs", msrs }, { "x87, SSE and AVX", vectors }, { "LAPIC", lapic },
	{ "TSC deadline", deadline }, { "x2APIC", x2apic },
};

/* ---- what comes out ---- */

static unsigned differ(const char *name, unsigned i, uint64_t got, uint64_t wanted)
{
	if (got == wanted)
		return 0;
	printf("# %s %u is %#llx, not %#llx\n", name, i, (unsigned long long)got,
	       (unsigned long long)wanted);
	return 1;
}

#define DIFFER(f) differ(#f, 0, got->f, set->f)

static unsigned differ_registers(const struct x86_state *got, const struct x86_state *set)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 16; i++)
		n += differ("general register", i, got->gpr[i], set->gpr[i]);
	for (unsigned i = 0; i < X86_NR_SEGS; i++) {
		n += differ("segment base", i, got->seg[i].base, set->seg[i].base);
		n += differ("segment limit", i, got->seg[i].limit, set->seg[i].limit);
		n += differ("segment attributes", i, got->seg[i].attr, set->seg[i].attr);
		n += differ("selector", i, got->seg[i].sel, set->seg[i].sel);
	}
	for (unsigned i = 0; i < 4; i++)
		n += differ("debug register", i, got->dr[i], set->dr[i]);
	return n + DIFFER(rip) + DIFFER(rflags) + DIFFER(gdt.base) + DIFFER(gdt.limit) +
	       DIFFER(idt.base) + DIFFER(idt.limit) + DIFFER(cr0) + DIFFER(cr2) +
	       DIFFER(cr3) + DIFFER(cr4) + DIFFER(cr8) + DIFFER(efer) + DIFFER(xcr0) +
	       DIFFER(dr6) + DIFFER(dr7);
}

/*
 * KVM does not tell an INT n that is due from another interrupt.  It is none to the
 * guest either: the instruction is over, and so are the checks that it alone has.
 */
static unsigned differ_events(const struct x86_state *got, const struct x86_state *set)
{
	unsigned soft = backend() == &accel_kvm ? 0 : DIFFER(ev.soft);

	return soft + DIFFER(ev.pending) + DIFFER(ev.vector) + DIFFER(ev.has_error) +
	       DIFFER(ev.error) + DIFFER(ev.nmi_pending) +
	       DIFFER(ev.nmi_masked) + DIFFER(ev.sti_shadow) +
	       DIFFER(ev.mov_ss_shadow) + DIFFER(run_state);
}

static unsigned differ_msrs(struct x86_state *got, const struct x86_state *set)
{
	unsigned n = DIFFER(nr_msrs);

	for (unsigned i = 0; i < set->nr_msrs; i++) {
		const struct x86_msr *m = msr_of(got, set->msr[i].index);

		n += m ? differ("MSR", m->index, m->value, set->msr[i].value) : 1;
	}
	return n;
}

/*
 * A component in its initial state need not be in the image: compare what the
 * registers would hold.  The last 48 bytes of the legacy region are nobody's.
 */
static unsigned differ_vectors(const struct x86_state *got, const struct x86_state *set)
{
	uint64_t bv;
	unsigned n = 0;

	memcpy(&bv, set->xsave + XSTATE_BV, 8);
	if (bv & 1)
		n += !!memcmp(got->xsave, set->xsave, 8);
	for (unsigned i = 0; bv & 1 && i < 8; i++)
		n += !!memcmp(got->xsave + 32 + 16 * i, set->xsave + 32 + 16 * i, 10);
	if (bv & 2)
		n += !!memcmp(got->xsave + 24, set->xsave + 24, 4) +
		     !!memcmp(got->xsave + 160, set->xsave + 160, 256);
	if (bv & 4)
		n += !!memcmp(got->xsave + YMM_HIGH, set->xsave + YMM_HIGH, 256);
	if (n)
		printf("# the XSAVE image differs in %u places\n", n);
	return n;
}

/* Version, priorities, the present count, and the ID in x2APIC mode follow from
 * the rest. */
static bool follows(unsigned reg)
{
	return reg == LAPIC(0x30) || reg == LAPIC(0x90) || reg == LAPIC(0xa0) ||
	       reg == LAPIC(0x390);
}

static unsigned differ_lapic(const struct x86_state *got, const struct x86_state *set)
{
	unsigned n = DIFFER(apic_base) + DIFFER(tsc_deadline);

	for (unsigned i = 2; i < LAPIC(0x400); i++)
		if (!follows(i))
			n += differ("LAPIC register at 16 *", i, got->lapic[i],
				    set->lapic[i]);
	return n;
}

static unsigned differ_clock(const struct x86_state *got, const struct x86_state *set)
{
	if (got->tsc >= set->tsc && got->tsc - set->tsc < 20000000000)
		return 0;
	printf("# the TSC is %llu, was set to %llu\n", (unsigned long long)got->tsc,
	       (unsigned long long)set->tsc);
	return 1;
}

/* ---- the test ---- */

static struct x86_state *state_new(void)
{
	struct x86_state *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64u));

	assert_non_null(s);
	return s;
}

static void comes_out_as_it_went_in(void **arg)
{
	const struct change *change = *arg;
	struct guest *g = guest_new(backend(), SPEC_ENGINE_INTERP);
	struct x86_state *set, *got;
	struct err err = ERR_INIT;
	unsigned n;

	assert_non_null(g);
	set = state_new();
	got = state_new();
	assert_int_equal(g->vm.accel->vcpu_get(&g->vm.vcpu[0], set, &err), 0);
	guest_set_start(set);
	change->make(set);
	if (g->vm.accel->vcpu_set(&g->vm.vcpu[0], set, &err))
		printf("# %s\n", err_message(&err));
	assert_int_equal(err.num, 0);
	assert_int_equal(g->vm.accel->vcpu_get(&g->vm.vcpu[0], got, &err), 0);
	n = differ_registers(got, set) + differ_events(got, set) + differ_msrs(got, set) +
	    differ_vectors(got, set) + differ_lapic(got, set) + differ_clock(got, set);
	free(set);
	free(got);
	guest_free(g);
	assert_int_equal(n, 0);
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_LEN(changes)];

	for (unsigned i = 0; i < ARRAY_LEN(changes); i++)
		tests[i] = (struct CMUnitTest){
			.name = changes[i].name,
			.initial_state = (void *)(uintptr_t)&changes[i],
			.test_func = comes_out_as_it_went_in,
		};
	return _cmocka_run_group_tests("state", tests, ARRAY_LEN(tests), NULL, NULL);
}
