// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/state.h"

static void sample(struct buf *b)
{
	struct state_w w;
	struct err e = ERR_INIT;

	state_w_init(&w, b);
	state_begin(&w, "blk", 1, 3, true);
	state_put_u8(&w, 0x11);
	state_put_u16(&w, 0x2233);
	state_put_u32(&w, 0x44556677);
	state_put_u64(&w, 0x8899aabbccddeeffull);
	state_put_blob(&w, "hello", 5);
	state_end(&w);
	state_begin(&w, "extra", 0, 1, false);
	state_put_bytes(&w, "xyz", 3);
	state_end(&w);
	assert_int_equal(state_w_finish(&w, &e), 0);
}

static void round_trip(void **state)
{
	struct buf b = BUF_INIT;
	struct state_r r;
	struct err e = ERR_INIT;
	const char *blob;
	uint32_t n;

	sample(&b);
	assert_int_equal(state_r_init(&r, b.data, b.len, &e), 0);
	assert_int_equal(state_find(&r, "blk", 0), -2);
	assert_int_not_equal(state_r_finish(&r, &e), 0);	/* blk not asked for */
	assert_int_equal(e.code, ERR_SNAPSHOT_VERSION);
	assert_int_equal(state_find(&r, "blk", 1), 0);
	assert_int_equal(r.version, 3);
	assert_int_equal(state_get_u8(&r), 0x11);
	assert_int_equal(state_get_u16(&r), 0x2233);
	assert_int_equal(state_get_u32(&r), 0x44556677);
	assert_true(state_get_u64(&r) == 0x8899aabbccddeeffull);
	blob = state_get_blob(&r, &n, 5);
	assert_int_equal(n, 5);
	assert_memory_equal(blob, "hello", 5);
	assert_int_equal(state_close(&r, &e), 0);
	assert_int_equal(state_r_finish(&r, &e), 0);		/* extra is optional */
	buf_done(&b);
}

static void short_long_and_oversized_reads_stick(void **state)
{
	struct buf b = BUF_INIT;
	struct state_r r;
	struct err e = ERR_INIT;
	uint32_t n;

	sample(&b);
	assert_int_equal(state_r_init(&r, b.data, b.len, &e), 0);
	state_find(&r, "extra", 0);
	assert_true(state_get_u64(&r) == 0);
	assert_int_equal(state_get_u8(&r), 0);
	assert_int_equal(state_close(&r, &e), -74);
	assert_int_equal(e.code, ERR_SNAPSHOT_DAMAGED);
	state_find(&r, "extra", 0);
	state_get_u8(&r);
	assert_int_equal(state_close(&r, &e), -74);	/* two bytes left */
	state_find(&r, "blk", 1);
	state_get_u8(&r), state_get_u16(&r), state_get_u32(&r), state_get_u64(&r);
	assert_null(state_get_blob(&r, &n, 4));		/* five bytes there */
	assert_int_equal(n, 0);
	assert_int_equal(state_close(&r, &e), -74);
	buf_done(&b);
}

static void every_flipped_bit_and_cut_is_noticed(void **state)
{
	struct buf b = BUF_INIT;
	struct state_r r;

	sample(&b);
	for (size_t bit = 0; bit < b.len * 8; bit++) {
		if (bit / 8 >= 12 && bit / 8 < 16)
			continue;	/* reserved word of the file header */
		b.data[bit / 8] ^= 1 << bit % 8;
		assert_int_not_equal(state_r_init(&r, b.data, b.len, NULL), 0);
		b.data[bit / 8] ^= 1 << bit % 8;
	}
	for (size_t len = 0; len < b.len; len++) {
		char *exact = malloc(len ? len : 1);

		memcpy(exact, b.data, len);
		assert_int_not_equal(state_r_init(&r, exact, len, NULL), 0);
		free(exact);
	}
	buf_done(&b);
}

static void duplicates_are_refused(void **state)
{
	struct buf b = BUF_INIT;
	struct state_w w;
	struct state_r r;

	state_w_init(&w, &b);
	for (int i = 0; i < 2; i++) {
		state_begin(&w, "rng", 0, 1, true);
		state_end(&w);
	}
	assert_int_equal(state_w_finish(&w, NULL), 0);
	assert_int_equal(state_r_init(&r, b.data, b.len, NULL), -74);
	buf_done(&b);
}

/* A VM whose memory ends goes on without a snapshot. */
static void no_memory_for_any_of_it_is_an_error(void **state)
{
	struct buf b = { .oom = true };
	struct err e = ERR_INIT;
	struct state_w w;

	state_w_init(&w, &b);
	state_begin(&w, "rng", 0, 1, true);
	state_put_u8(&w, 1);
	state_end(&w);
	assert_int_not_equal(state_w_finish(&w, &e), 0);
	assert_int_equal(e.num, 12);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(short_long_and_oversized_reads_stick),
		cmocka_unit_test(every_flipped_bit_and_cut_is_noticed),
		cmocka_unit_test(duplicates_are_refused),
		cmocka_unit_test(no_memory_for_any_of_it_is_an_error),
	};

	return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
