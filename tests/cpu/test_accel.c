// SPDX-License-Identifier: MIT
/*
 * test_accel.c - what a backend promises beside running code (vmm/accel.h):
 * doorbells, interrupt lines, the pages that were written, more CPUs, time.
 *
 * BACKEND=kvm asks KVM.  The guests' side is in tests/lib/guest_board.S.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "tests/lib/guest.h"
#include "vmm/arch/x86/boot.h"

#define DOORBELL	0xd0001050ull
#define LINE		9
#define GUEST_STOPPED	2	/* of the flags of a kvmclock */

#define DECLARE(n) extern const uint8_t prog_##n[], prog_##n##_end[]
DECLARE(rings_doorbells); DECLARE(hears_lines); DECLARE(writes_pages);
DECLARE(calls_another); DECLARE(looks_at_clock);
#define RUN(g, n) guest_run(g, prog_##n, (uint64_t)(prog_##n##_end - prog_##n))

static bool on_kvm(void)
{
	const char *name = getenv("BACKEND");

	return name && !strcmp(name, "kvm");
}

static struct guest *make_guest(void)
{
	struct guest *g = guest_new(on_kvm() ? &accel_kvm : &accel_soft, SPEC_ENGINE_JIT);

	assert_non_null(g);
	return g;
}

/* What the guest's question at G_PORT_ASK does. */
static void when_asked(struct guest *g, void (*answer)(void *dev, uint64_t off,
						       unsigned len, uint64_t val))
{
	struct bus_region ask = { .name = "ask", .base = G_PORT_ASK, .size = 1,
				  .min_len = 1, .max_len = 1, .write = answer, .dev = g };
	struct err err = ERR_INIT;

	assert_int_equal(bus_add(&g->vm.pio, &ask, &err), 0);
}

static void ran_well(struct guest *g)
{
	if (g->err.num || g->hung)
		printf("# %s at %#llx\n", g->hung ? "hangs" : err_message(&g->err),
		       (unsigned long long)(g->state->seg[X86_CS].base + g->state->rip));
	for (unsigned i = 0; i < g->nr_log; i++)
		printf("# event: vector %llu at %#llx\n", (unsigned long long)g->log[i].vector,
		       (unsigned long long)g->log[i].rip);
	assert_false(g->hung);
	assert_int_equal(g->exit, ACCEL_EXIT_KICK);
	assert_true(g->ended);
}

/* ---- doorbells and lines ---- */

static void doorbell_rings_once_a_write(void **state)
{
	struct guest *g = make_guest();
	int efd = eventfd(0, EFD_NONBLOCK);
	uint64_t rung = 0;

	assert_int_equal(g->vm.accel->doorbell(&g->vm, DOORBELL, 7, efd), 0);
	RUN(g, rings_doorbells);
	ran_well(g);
	assert_int_equal(read(efd, &rung, sizeof(rung)), sizeof(rung));
	assert_int_equal(rung, 2);
	close(efd);
	guest_free(g);
}

static void pulse(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct guest *g = dev;

	g->vm.accel->irq_set(&g->vm, LINE, true);
	g->vm.accel->irq_set(&g->vm, LINE, false);
}

static void line_interrupts_once_a_pulse(void **state)
{
	struct guest *g = make_guest();

	when_asked(g, pulse);
	RUN(g, hears_lines);
	ran_well(g);
	assert_int_equal(g->result[0], 3);
	assert_int_equal(g->nr_log, 3);
	guest_free(g);
}

/* ---- pages that were written ---- */

static bool is_dirty(const uint64_t *bitmap, uint64_t gpa)
{
	return bitmap[gpa >> 18] >> (gpa >> 12 & 63) & 1;
}

static void written_pages_are_told_once(void **state)
{
	struct guest *g = make_guest();
	uint64_t *bitmap;

	if (!g->vm.accel->mem_dirty) {
		guest_free(g);
		return;
	}
	bitmap = calloc(g->vm.mem.span >> 18, sizeof(*bitmap));
	assert_non_null(bitmap);
	assert_int_equal(g->vm.accel->mem_dirty(&g->vm, bitmap), 0);
	assert_true(is_dirty(bitmap, G_LARGE + 0x100000));	/* all, at first */
	RUN(g, writes_pages);
	ran_well(g);
	assert_int_equal(g->vm.accel->mem_dirty(&g->vm, bitmap), 0);
	assert_true(is_dirty(bitmap, G_KPAGE + 0x3000));
	assert_true(is_dirty(bitmap, G_UPAGE + 0x7000));
	assert_true(is_dirty(bitmap, G_LARGE + 0x5000));
	assert_false(is_dirty(bitmap, G_KPAGE + 0x4000));
	assert_false(is_dirty(bitmap, G_LARGE + 0x100000));
	assert_int_equal(g->vm.accel->mem_dirty(&g->vm, bitmap), 0);
	assert_false(is_dirty(bitmap, G_KPAGE + 0x3000));
	free(bitmap);
	guest_free(g);
}

/* ---- another CPU ---- */

static int add_cpu(struct guest *g, struct err *err)
{
	g->vm.vcpu[1].vm = &g->vm;
	g->vm.vcpu[1].id = 1;
	return g->vm.accel->vcpu_init(&g->vm.vcpu[1], err);
}

static void drop_cpu(struct guest *g)
{
	if (g->vm.vcpu[1].accel_vcpu)
		g->vm.accel->vcpu_done(&g->vm.vcpu[1]);
	guest_free(g);
}

/* Its state is taken and put back before it is called, and again between the call
 * and its first instruction. */
static void another_cpu_is_called(void **state)
{
	struct guest *g = make_guest();
	struct vcpu *other = &g->vm.vcpu[1];
	struct err err = ERR_INIT;
	struct x86_state *s = g->state;

	if (g->vm.accel->max_cpus == 1) {
		guest_free(g);
		return;
	}
	assert_int_equal(add_cpu(g, &err), 0);
	assert_int_equal(g->vm.accel->vcpu_get(other, s, &err), 0);
	boot_reset_state(s, 1);
	assert_int_equal(g->vm.accel->vcpu_set(other, s, &err), 0);
	assert_int_equal(g->vm.accel->vcpu_get(other, s, &err), 0);
	assert_int_equal(s->run_state, X86_WAIT_SIPI);
	assert_int_equal(g->vm.accel->vcpu_set(other, s, &err), 0);
	RUN(g, calls_another);
	ran_well(g);
	assert_int_equal(g->vm.accel->vcpu_get(other, s, &err), 0);
	assert_int_equal(s->run_state, X86_RUNNING);
	assert_int_equal(s->seg[X86_CS].base, G_AP);
	assert_int_equal(s->rip, 0);
	assert_int_equal(g->vm.accel->vcpu_set(other, s, &err), 0);
	guest_go_on(g, other);
	ran_well(g);
	assert_int_equal(g->result[0], 0x1234);
	drop_cpu(g);
}

/* ---- time ---- */

/* As parking does: out of the backend, and in again. */
static void stop_and_go(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct guest *g = dev;

	g->vm.accel->vcpu_kick(&g->vm.vcpu[0]);
}

static void clock_tells_that_it_was_stopped(void **state)
{
	struct guest *g = make_guest();

	when_asked(g, stop_and_go);
	RUN(g, looks_at_clock);
	ran_well(g);
	assert_int_equal(g->result[0] & GUEST_STOPPED, 0);
	assert_int_equal(g->result[1] & GUEST_STOPPED, GUEST_STOPPED);
	guest_free(g);
}

/* A bundle of a host that is twice as fast: scaled, or refused. */
static void tsc_runs_as_the_guest_was_told(void **state)
{
	struct guest *g = make_guest();
	struct x86_ioapic_state ioapic;
	struct x86_clock_state clock;
	struct err err = ERR_INIT;
	int ret;

	assert_int_equal(g->vm.accel->board_get(&g->vm, &ioapic, &clock, &err), 0);
	assert_in_range(clock.tsc_khz, g->vm.model.tsc_khz - g->vm.model.tsc_khz / 1000,
			g->vm.model.tsc_khz + g->vm.model.tsc_khz / 1000);
	if (!on_kvm()) {
		guest_free(g);
		return;
	}
	g->vm.model.tsc_khz *= 2;
	ret = add_cpu(g, &err);
	if (ret) {
		printf("# %s\n", err_message(&err));
		assert_int_equal(err.code, ERR_SNAPSHOT_CPU_MISMATCH);
	} else {
		assert_int_equal(g->vm.accel->board_get(&g->vm, &ioapic, &clock, &err), 0);
		assert_int_equal(clock.tsc_khz, g->vm.model.tsc_khz);
	}
	drop_cpu(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(doorbell_rings_once_a_write),
		cmocka_unit_test(line_interrupts_once_a_pulse),
		cmocka_unit_test(written_pages_are_told_once),
		cmocka_unit_test(another_cpu_is_called),
		cmocka_unit_test(clock_tells_that_it_was_stopped),
		cmocka_unit_test(tsc_runs_as_the_guest_was_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
