// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void chain_keeps_order(void **state)
{
	struct err e = ERR_INIT;

	assert_int_equal(err_set(&e, ENOENT, "no file %s", "x"), -ENOENT);
	assert_int_equal(err_wrap_code(&e, ERR_BOOT_IMAGE_NOT_FOUND, -ENOENT, "open"), -ENOENT);
	err_wrap_code(&e, ERR_BOOT_TIMEOUT, -ENOENT, "boot");
	assert_string_equal(err_message(&e), "boot");
	assert_string_equal(err_cause(&e, 0), "open");
	assert_string_equal(err_cause(&e, 1), "no file x");
	assert_null(err_cause(&e, 2));
	assert_int_equal(e.code, ERR_BOOT_IMAGE_NOT_FOUND);
}

static void overflow_drops_the_innermost(void **state)
{
	struct err e = ERR_INIT;
	char big[600];

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&e, EIO, "first");
	for (int i = 0; i < 10; i++)
		err_wrap(&e, -EIO, "%d %s", i, big);
	assert_int_equal(err_message(&e)[0], '9');
	for (unsigned i = 0; err_cause(&e, i); i++)
		assert_int_equal(err_cause(&e, i)[0], '8' - (int)i);
	assert_int_equal(e.num, EIO);
}

static void wrap_of_nothing_uses_errno(void **state)
{
	struct err e = ERR_INIT;

	err_wrap(&e, -EACCES, "open");
	assert_string_equal(err_cause(&e, 0), strerror(EACCES));
}

static void codes_parse_back(void **state)
{
	for (int i = 1; i < ERR_NR_CODES; i++)
		assert_int_equal(err_code_parse(err_code_name(i)), i);
	assert_int_equal(err_code_parse("NOPE"), ERR_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chain_keeps_order),
		cmocka_unit_test(overflow_drops_the_innermost),
		cmocka_unit_test(wrap_of_nothing_uses_errno),
		cmocka_unit_test(codes_parse_back),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
