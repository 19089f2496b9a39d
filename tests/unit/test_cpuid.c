// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/util.h"
#include "vmm/arch/x86/cpuid.h"

#define KHZ 2800000

static void all_words(uint32_t can[CPUID_NR_WORDS])
{
	memset(can, 0xff, CPUID_NR_WORDS * sizeof(*can));
}

static void portable(struct cpu_model *m, unsigned cpus)
{
	uint32_t can[CPUID_NR_WORDS];

	all_words(can);
	assert_int_equal(cpu_model_init(m, "portable", can, KHZ, cpus, NULL), 0);
}

static void query(const struct cpu_model *m, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	cpu_model_query(m, 2, leaf, sub, out);
}

static void portable_leaves(void **state)
{
	struct cpu_model m;
	uint32_t r[4], e[4];

	portable(&m, 4);
	query(&m, 0, 0, r);
	assert_int_equal(r[0], 0x16);
	assert_memory_equal(&r[1], "GenuntelineI", 12);
	query(&m, 1, 0, r);
	assert_int_equal(r[1] >> 24, 2);
	assert_true(r[2] >> 31);			/* hypervisor */
	assert_true(r[2] & BIT(21) && r[2] & BIT(24));	/* x2APIC, deadline */
	assert_true(r[2] & BIT(28));			/* AVX */
	assert_false(r[2] & BIT(27));			/* OSXSAVE is CR4's */
	assert_false(r[2] & BIT(3));			/* MWAIT */
	query(&m, 7, 0, r);
	assert_false(r[1] & BIT(16));			/* AVX-512 */
	assert_false(r[2] & (BIT(3) | BIT(16) | BIT(7)));	/* PKU, LA57, CET */
	query(&m, 0xd, 0, r);
	assert_int_equal(r[0], 7);
	assert_int_equal(r[2], 832);
	query(&m, 0xd, 2, r);
	assert_int_equal(r[0], 256);
	assert_int_equal(r[1], 576);
	query(&m, 0x40000000, 0, r);
	assert_memory_equal(&r[1], "KVMKVMKVM\0\0\0", 12);
	query(&m, 0x40000001, 0, r);
	assert_int_equal(r[0], BIT(0) | BIT(1) | BIT(3) | BIT(24));
	query(&m, 0x40000010, 0, r);
	assert_int_equal(r[0], KHZ);
	query(&m, 0x15, 0, e);
	assert_int_equal((uint64_t)e[2] * e[1] / e[0], (uint64_t)KHZ * 1000);
	query(&m, 0x80000007, 0, r);
	assert_int_equal(r[3], BIT(8));
	query(&m, 0x80000002, 0, r);
	assert_memory_equal(r, "machinen portabl", 16);
	query(&m, 0x12345, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

static void topology(void **state)
{
	struct cpu_model m;
	uint32_t r[4];

	portable(&m, 3);
	query(&m, 0xb, 1, r);
	assert_int_equal(r[0], 2);
	assert_int_equal(r[1], 3);
	assert_int_equal(r[2], 0x201);
	assert_int_equal(r[3], 2);
	query(&m, 0xb, 7, r);
	assert_int_equal(r[0] | r[1], 0);
	assert_int_equal(r[2], 7);
	query(&m, 4, 3, r);
	assert_int_equal(r[0] >> 26, 3);
	query(&m, 4, 4, r);
	assert_int_equal(r[0], 0);
}

/* Same on all hosts that have what it needs. */
static void portable_ignores_the_rest(void **state)
{
	struct cpu_model a, b;
	uint32_t can[CPUID_NR_WORDS];
	struct buf names = BUF_INIT;

	portable(&a, 1);
	all_words(can);
	can[CPUID_7_EBX] &= ~(uint32_t)(BIT(16) | BIT(29));	/* AVX-512, SHA */
	can[CPUID_7_ECX] = can[CPUID_7_EDX] = can[CPUID_EXT8_EBX] = 0;
	assert_int_equal(cpu_model_init(&b, "portable", can, KHZ, 1, NULL), 0);
	assert_memory_equal(a.word, b.word, sizeof(a.word));

	can[CPUID_1_ECX] &= ~(uint32_t)BIT(17);		/* PCID may be absent */
	assert_int_equal(cpu_model_init(&b, "portable", can, KHZ, 1, NULL), 0);
	assert_int_equal(cpu_model_missing(&b, "sse2 pcid  avx2 unheard_of", &names), 2);
	assert_string_equal(names.data, "pcid unheard_of");
	buf_done(&names);
}

static void lacking_is_named(void **state)
{
	struct cpu_model m;
	struct err err = ERR_INIT;
	uint32_t can[CPUID_NR_WORDS];

	all_words(can);
	can[CPUID_7_EBX] &= ~(uint32_t)BIT(5);
	assert_int_equal(cpu_model_init(&m, "portable", can, KHZ, 1, &err), -ENOTSUP);
	assert_non_null(strstr(err_message(&err), "avx2"));
	assert_int_equal(cpu_model_init(&m, "host", can, KHZ, 1, &err), 0);
	assert_int_equal(cpu_model_init(&m, "i486", can, KHZ, 1, &err), -EINVAL);
}

static void features_round_trip(void **state)
{
	struct cpu_model m;
	struct buf names = BUF_INIT, missing = BUF_INIT;
	uint32_t word[CPUID_NR_WORDS];

	portable(&m, 1);
	cpu_model_features(&m, &names);
	assert_non_null(strstr(names.data, "avx2"));
	assert_null(strstr(names.data, "avx512"));
	assert_int_equal(cpu_model_missing(&m, names.data, &missing), 0);
	cpu_feature_words(names.data, word);
	assert_memory_equal(word, m.word, sizeof(word));
	buf_done(&names);
	buf_done(&missing);
}

static void host_model(void **state)
{
	struct cpu_model m;
	uint32_t can[CPUID_NR_WORDS], r[4];

	cpu_host_words(can);
	assert_true(can[CPUID_1_EDX] & BIT(26));
	assert_int_equal(can[CPUID_KVM_EAX], 0);
	assert_int_equal(cpu_model_init(&m, "host", can, KHZ, 1, NULL), 0);
	query(&m, 0xd, 0, r);
	assert_int_equal(r[2], m.xsave_size);
	assert_true(m.xsave_size >= 576 && m.xsave_size <= 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(portable_leaves),
		cmocka_unit_test(topology),
		cmocka_unit_test(portable_ignores_the_rest),
		cmocka_unit_test(lacking_is_named),
		cmocka_unit_test(features_round_trip),
		cmocka_unit_test(host_model),
	};

	return cmocka_run_group_tests_name("cpuid", tests, NULL, NULL);
}
