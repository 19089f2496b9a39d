// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/dev/serial.h"
#include "vmm/state.h"

struct rig {
	struct serial s;
	struct buf out;
	bool level;
	unsigned edges;
};

static void set(void *arg, unsigned gsi, bool level)
{
	struct rig *r = arg;

	assert_int_equal(gsi, 4);
	r->edges += level && !r->level;
	r->level = level;
}

static void out(void *arg, uint8_t byte)
{
	buf_add(&((struct rig *)arg)->out, &byte, 1);
}

static void rig_init(struct rig *r)
{
	struct irq_line line = { set, r, 4 };

	memset(r, 0, sizeof(*r));
	serial_init(&r->s, &line, out, r);
}

static uint8_t rd(struct rig *r, unsigned reg)
{
	return (uint8_t)serial_read(&r->s, reg, 1);
}

static void wr(struct rig *r, unsigned reg, uint8_t v)
{
	serial_write(&r->s, reg, 1, v);
}

/* What a polling console does. */
static void polled_output(void **state)
{
	struct rig r;

	rig_init(&r);
	for (const char *p = "panic\n"; *p; p++) {
		assert_true(rd(&r, 5) & 0x20);
		wr(&r, 0, (uint8_t)*p);
	}
	assert_string_equal(r.out.data, "panic\n");
	assert_int_equal(r.edges, 0);
	buf_done(&r.out);
}

/* What a driver with interrupts does: each byte out of the handler. */
static void interrupt_driven_output(void **state)
{
	struct rig r;
	const char *p = "hello";

	rig_init(&r);
	wr(&r, 1, 0x02);
	assert_true(r.level);
	while (r.level) {
		assert_int_equal(rd(&r, 2) & 0x0f, 0x02);
		assert_false(r.level);		/* reading it acknowledges */
		if (*p)
			wr(&r, 0, (uint8_t)*p++);
	}
	assert_string_equal(r.out.data, "hello");
	assert_int_equal(rd(&r, 2) & 0x0f, 0x01);
	buf_done(&r.out);
}

static void input(void **state)
{
	struct rig r;

	rig_init(&r);
	wr(&r, 2, 0x01);
	wr(&r, 1, 0x01);
	assert_int_equal(serial_input(&r.s, "0123456789abcdefXYZ", 19), 16);
	assert_true(r.level);
	assert_int_equal(rd(&r, 2), 0xc4);
	for (unsigned i = 0; i < 16; i++) {
		assert_true(rd(&r, 5) & 1);
		assert_int_equal(rd(&r, 0), "0123456789abcdef"[i]);
	}
	assert_false(r.level);
	assert_false(rd(&r, 5) & 1);
	assert_int_equal(rd(&r, 0), 0);
	assert_int_equal(serial_input(&r.s, "Z", 1), 1);
	wr(&r, 2, 0x03);		/* clears the FIFO */
	assert_false(r.level);
}

/* Linux tells a 16550A from others by these. */
static void looks_like_a_16550a(void **state)
{
	struct rig r;

	rig_init(&r);
	wr(&r, 7, 0x5a);
	assert_int_equal(rd(&r, 7), 0x5a);
	wr(&r, 2, 0x01);
	assert_int_equal(rd(&r, 2) & 0xc0, 0xc0);
	wr(&r, 4, 0x1a);		/* loop back: RTS and OUT2 */
	assert_int_equal(rd(&r, 6) & 0xf0, 0x90);
	wr(&r, 0, 'x');
	assert_int_equal(rd(&r, 0), 'x');
	assert_int_equal(r.out.len, 0);
	wr(&r, 3, 0x83);
	wr(&r, 0, 0x0c);
	assert_int_equal(rd(&r, 0), 0x0c);
	wr(&r, 3, 0x03);
	for (unsigned i = 0; i < 40; i++)	/* overrun of the loop */
		wr(&r, 0, 'y');
	assert_true(rd(&r, 5) & 0x02);
}

static void state_round_trip(void **state)
{
	struct rig a, b;
	struct buf file = BUF_INIT;
	struct state_w w;
	struct state_r r;
	struct err err = ERR_INIT;

	rig_init(&a);
	rig_init(&b);
	wr(&a, 2, 0x01);
	wr(&a, 1, 0x03);
	wr(&a, 7, 0x77);
	serial_input(&a.s, "abc", 3);
	state_w_init(&w, &file);
	serial_save(&a.s, &w);
	assert_int_equal(state_w_finish(&w, &err), 0);
	assert_int_equal(state_r_init(&r, file.data, file.len, &err), 0);
	assert_int_equal(state_find(&r, "serial", 0), 0);
	serial_load(&b.s, &r);
	assert_int_equal(state_close(&r, &err), 0);
	assert_int_equal(rd(&b, 7), 0x77);
	assert_int_equal(rd(&b, 2) & 0xf, 0x04);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rd(&b, 0), "abc"[i]);
	assert_int_equal(rd(&b, 2) & 0xf, 0x02);
	buf_done(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(polled_output),
		cmocka_unit_test(interrupt_driven_output),
		cmocka_unit_test(input),
		cmocka_unit_test(looks_like_a_16550a),
		cmocka_unit_test(state_round_trip),
	};

	return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
