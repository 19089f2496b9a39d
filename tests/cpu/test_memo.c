// SPDX-License-Identifier: MIT
/*
 * test_memo.c - an instruction that was remembered is the same as one decoded from
 * scratch: random ones, and each again with other values in its last bytes.
 * RUNS=1000000 SEED=7 for more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/gen.h"
#include "tests/lib/softbox.h"
#include "vmm/soft/decode.h"

static struct box box;
static unsigned found;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v ? strtoull(v, NULL, 0) : otherwise;
}

static void show(const char *what, const struct insn *i)
{
	const uint8_t *p = (const uint8_t *)i;

	fprintf(stderr, "%s", what);
	for (unsigned k = 0; k < sizeof(*i); k++)
		fprintf(stderr, " %02x", p[k]);
	fprintf(stderr, "\n");
}

/* Decodes with what is remembered and without. */
static void compare(const uint8_t *bytes)
{
	static struct memo kept;
	struct memo *memo = &cpu_decoder(box.cpu)->memo;
	struct insn quick = { .len = 0 }, slow = { .len = 0 }, probe;
	int r1, r2;

	found += memo_get(memo, &probe, bytes);
	r1 = insn_decode(box.cpu, &quick, bytes, 15);
	memcpy(&kept, memo, sizeof(kept));
	memo_forget(memo);
	r2 = insn_decode(box.cpu, &slow, bytes, 15);
	memcpy(memo, &kept, sizeof(kept));
	assert_int_equal(r1, r2);
	if (memcmp(&quick, &slow, sizeof(quick))) {
		show("remembered", &quick);
		show("decoded   ", &slow);
		fail();
	}
}

/* Bytes of one instruction after a few prefixes; sometimes plain noise. */
static void make(uint64_t *seed, uint8_t bytes[16])
{
	static const uint8_t prefix[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x67, 0x2e };
	uint64_t r = gen_random(seed);
	unsigned at = 0;

	for (unsigned k = 0; k < 16; k++)
		bytes[k] = (uint8_t)gen_random(seed);
	if (!(r & 7))
		return;
	if (!(r >> 3 & 3))
		bytes[at++] = prefix[r >> 5 & 7];
	if (r >> 8 & 1)
		bytes[at++] = 0x40 | (r >> 9 & 15);
	if (!(r >> 13 & 3))
		bytes[at++] = 0x0f;
	bytes[at] = (uint8_t)(r >> 16);
}

static void test_same(void **state)
{
	uint64_t seed = number("SEED", 1), runs = number("RUNS", 20000);
	uint8_t bytes[16];

	while (runs--) {
		make(&seed, bytes);
		compare(bytes);
		for (unsigned k = 0; k < 3; k++) {
			/* the same opcode, and most often the same form */
			for (unsigned n = 3 + k; n < 15; n++)
				bytes[n] = (uint8_t)gen_random(&seed);
			compare(bytes);
		}
	}
	assert_true(found > 1000);	/* else this compared nothing */
}

/* Not read: what lies behind the last 15 bytes of a page may not be there. */
static void test_short(void **state)
{
	static const uint8_t nop[15] = { 0x90 };
	struct insn i;

	assert_int_equal(insn_decode(box.cpu, &i, nop, 15), 0);
	assert_int_equal(insn_decode(box.cpu, &i, nop, 1), 0);
	assert_int_equal(i.len, 1);
}

static int setup(void **state)
{
	box_init(&box);
	return 0;
}

static int teardown(void **state)
{
	box_done(&box);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_short),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
