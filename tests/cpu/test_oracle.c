// SPDX-License-Identifier: MIT
/*
 * test_oracle.c - random user programs on the software CPU and on the real one.
 *
 * Seeds run upwards from SEED (default: 1), so that a difference is found again
 * by its number; RUNS says how many programs (default: what a few seconds take).
 * STATS=1 prints which mnemonics ran and how often.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/soft_engine.h"

#define DEFAULT_RUNS	25000u
#define MAX_FAILURES	5u

/* ASan's shadow lies where random addresses point, and must not be written. */
#ifdef __SANITIZE_ADDRESS__
#define COMPARE false
#else
#define COMPARE true
#endif

static uint64_t number(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : fallback;
}

static void print_stats(const struct oracle *o)
{
	printf("# %s: %llu programs, %llu instructions, %u mnemonics, %llu ended by a fault\n",
	       o->engine->name, (unsigned long long)o->runs,
	       (unsigned long long)o->insns, oracle_mnemonics(o),
	       (unsigned long long)o->faults);
	if (!getenv("STATS"))
		return;
	for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
		if (o->hits[i])
			printf("# %9u %s\n", o->hits[i], ZydisMnemonicGetString(i));
}

static void compare(enum soft_engine_how how, unsigned max_insns, unsigned share)
{
	uint64_t seed = number("SEED", 1), runs = number("RUNS", DEFAULT_RUNS) / share;
	struct oracle *o = calloc(1, sizeof(*o));
	struct engine engine;
	unsigned bad = 0;

	assert_non_null(o);
	if (!soft_engine_init(&engine, how)) {
		printf("# this CPU lacks what the portable model needs\n");
		soft_engine_done(&engine);
		free(o);
		return;
	}
	o->native = COMPARE ? native_new() : NULL;
	o->engine = &engine;
	o->max_insns = max_insns;
	assert_true(o->native || !COMPARE);
	for (uint64_t i = 0; i < runs && bad < MAX_FAILURES; i++)
		bad += !oracle_seed(o, seed + i);
	print_stats(o);
	native_free(o->native);
	soft_engine_done(&engine);
	free(o);
	assert_int_equal(bad, 0);
}

static void blocks_like_hardware(void **state)
{
	compare(SOFT_BLOCKS, 12, 1);
}

static void translator_like_hardware(void **state)
{
	compare(SOFT_JIT, 12, 1);
}

static void steps_like_hardware(void **state)
{
	compare(SOFT_STEPS, 4, 2);
}

/* The stub area fills up and is emptied under way, again and again. */
static void small_stub_area_like_hardware(void **state)
{
	compare(SOFT_CRAMPED, 12, 10);
}

/* The oracle itself: the same program twice on the CPU leaves the same. */
static void run_native(void *arg, const struct seq_in *in, struct seq_out *out)
{
	native_run(arg, in, out);
}

static bool offers_legacy(const ZydisDecodedInstruction *z, void *arg)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	       z->meta.isa_set <= ZYDIS_ISA_SET_I86 && z->meta.isa_set >= ZYDIS_ISA_SET_I186;
}

static void hardware_repeats_itself(void **state)
{
	struct native *n = COMPARE ? native_new() : NULL;
	struct engine self = { .name = "the CPU itself", .run = run_native,
			       .offers = offers_legacy, .arg = n };
	struct oracle *o = calloc(1, sizeof(*o));

	if (!COMPARE) {
		free(o);
		return;
	}
	assert_non_null(n);
	assert_non_null(o);
	o->native = n;
	o->engine = &self;
	o->max_insns = 8;
	for (uint64_t seed = 1; seed < 2000; seed++)
		assert_true(oracle_seed(o, seed));
	assert_true(o->faults > 0);
	native_free(n);
	free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hardware_repeats_itself),
		cmocka_unit_test(blocks_like_hardware),
		cmocka_unit_test(translator_like_hardware),
		cmocka_unit_test(steps_like_hardware),
		cmocka_unit_test(small_stub_area_like_hardware),
	};

	return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
