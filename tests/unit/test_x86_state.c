// SPDX-License-Identifier: MIT
/* Sections "vcpu", "ioapic" and "clock": all of it comes back, damage is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/arch/x86/state.h"
#include "vmm/state.h"

static struct x86_state in, out;

/* Every byte that is saved differs from its neighbours. */
static void fill(void)
{
	uint8_t *p = (uint8_t *)&in;

	for (size_t i = 0; i < sizeof(in); i++)
		p[i] = (uint8_t)(i * 31 + (i >> 8));
	memset(&in.ev, 0, sizeof(in.ev));
	in.ev.pending = in.ev.has_error = in.ev.mov_ss_shadow = true;
	in.ev.vector = 14;
	in.ev.error = 0xfedcba98;
	in.run_state = X86_HALTED;
	in.nr_msrs = 100;
	in.xsave_size = 832;
}

static void save(struct buf *file, void (*put)(struct state_w *w))
{
	struct state_w w;

	state_w_init(&w, file);
	put(&w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
}

static void put_vcpu(struct state_w *w)
{
	x86_state_save(w, &in, 2);
}

static void vcpu_comes_back(void **state)
{
	struct buf a = BUF_INIT, b = BUF_INIT;
	struct state_r r;
	struct err err = ERR_INIT;

	fill();
	save(&a, put_vcpu);
	assert_int_equal(state_r_init(&r, a.data, a.len, &err), 0);
	assert_int_equal(x86_state_load(&r, &out, 2, &err), 0);
	assert_memory_equal(in.gpr, out.gpr, sizeof(in.gpr));
	for (unsigned i = 0; i < X86_NR_SEGS; i++) {
		assert_int_equal(in.seg[i].base, out.seg[i].base);
		assert_int_equal(in.seg[i].limit, out.seg[i].limit);
		assert_int_equal(in.seg[i].attr, out.seg[i].attr);
		assert_int_equal(in.seg[i].sel, out.seg[i].sel);
	}
	assert_memory_equal(&in.cr0, &out.cr0, 7 * sizeof(in.cr0));
	assert_memory_equal(in.dr, out.dr, sizeof(in.dr));
	assert_int_equal(in.dr7, out.dr7);
	assert_int_equal(out.run_state, X86_HALTED);
	assert_int_equal(out.ev.error, in.ev.error);
	assert_true(out.ev.mov_ss_shadow && !out.ev.sti_shadow);
	assert_int_equal(in.msr[99].value, out.msr[99].value);
	assert_memory_equal(in.xsave, out.xsave, 832);
	assert_memory_equal(in.lapic, out.lapic, sizeof(in.lapic));
	assert_int_equal(in.tsc, out.tsc);

	in = out;		/* saved again it is the same, byte for byte */
	save(&b, put_vcpu);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	assert_true(x86_state_load(&r, &out, 3, &err) < 0);
	assert_int_equal(err.code, ERR_SNAPSHOT_DAMAGED);
	buf_done(&a);
	buf_done(&b);
}

static struct x86_ioapic_state ioapic;
static struct x86_clock_state timebase;

static void put_board(struct state_w *w)
{
	x86_ioapic_save(w, &ioapic);
	x86_clock_save(w, &timebase);
}

static void board_comes_back(void **state)
{
	struct x86_ioapic_state io;
	struct x86_clock_state cl;
	struct buf file = BUF_INIT;
	struct state_r r;
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < 24; i++)
		ioapic.redir[i] = 0x0100000000010000ull + i;
	ioapic.irr = 0x123456;
	timebase = (struct x86_clock_state){ 11, 22, 33 };
	save(&file, put_board);
	assert_int_equal(state_r_init(&r, file.data, file.len, &err), 0);
	assert_int_equal(x86_ioapic_load(&r, &io, &err), 0);
	assert_int_equal(x86_clock_load(&r, &cl, &err), 0);
	assert_memory_equal(io.redir, ioapic.redir, sizeof(io.redir));
	assert_int_equal(io.irr, ioapic.irr);
	assert_int_equal(cl.kvmclock_ns, 11);
	assert_int_equal(cl.realtime_ns, 22);
	assert_int_equal(cl.tsc_khz, 33);

	buf_clear(&file);
	timebase.tsc_khz = 0;		/* would be divided by */
	save(&file, put_board);
	assert_int_equal(state_r_init(&r, file.data, file.len, &err), 0);
	assert_true(x86_clock_load(&r, &cl, &err) < 0);
	assert_int_equal(err.code, ERR_SNAPSHOT_DAMAGED);
	buf_done(&file);
}

/* Counts and enumerations out of range, in sections that check out. */
static void wild_values_are_refused(void **state)
{
	struct buf file = BUF_INIT;
	struct state_r r;
	struct err err = ERR_INIT;

	for (int what = 0; what < 3; what++) {
		fill();
		if (what == 0)
			in.run_state = 77;
		else if (what == 1)
			in.xsave_size = 100;
		else
			in.nr_msrs = 0;
		buf_clear(&file);
		save(&file, put_vcpu);
		assert_int_equal(state_r_init(&r, file.data, file.len, &err), 0);
		if (what < 2)
			assert_true(x86_state_load(&r, &out, 2, &err) < 0);
		else
			assert_int_equal(x86_state_load(&r, &out, 2, &err), 0);
	}
	buf_done(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vcpu_comes_back),
		cmocka_unit_test(board_comes_back),
		cmocka_unit_test(wild_values_are_refused),
	};

	return cmocka_run_group_tests_name("x86_state", tests, NULL, NULL);
}
