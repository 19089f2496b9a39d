// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

static json_t *parse(const char *s, struct err *err)
{
	return json_parse(s, strlen(s), err);
}

static void refuses_bad_text(void **state)
{
	static const char *const bad[] = {
		"", "{", "nul", "{\"a\":1,\"a\":2}", "1", "\"x\"", "{} {}",
		"{\"a\":\"\\u0000\"}", "{\"a\":\"\xff\"}",
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err e = ERR_INIT;

		assert_null(parse(bad[i], &e));
		assert_int_equal(e.num, 22);
	}
}

static void depth_is_bounded(void **state)
{
	char s[300];
	struct err e = ERR_INIT;
	json_t *j;

	memset(s, '[', 100);
	memset(s + 100, ']', 100);
	assert_null(json_parse(s, 200, &e));
	assert_non_null(strstr(err_message(&e), "nested"));
	j = json_parse(s + 40, 120, NULL);
	assert_non_null(j);
	json_decref(j);
	/* brackets within strings do not count, nor do escaped quotes */
	memcpy(s, "[\"\\\"", 4);
	memset(s + 4, '[', 200);
	memcpy(s + 204, "\"]", 2);
	j = json_parse(s, 206, NULL);
	assert_non_null(j);
	json_decref(j);
}

static void first_field_error_wins(void **state)
{
	struct err e = ERR_INIT;
	json_t *o = parse("{\"n\":5,\"s\":\"x\",\"b\":true,\"l\":[],\"o\":{}}", &e);

	assert_string_equal(json_str(o, "s", &e), "x");
	assert_int_equal(json_int(o, "n", 0, 5, &e), 5);
	assert_int_equal(json_int_opt(o, "none", 0, 5, 3, &e), 3);
	assert_true(json_bool_opt(o, "b", false, &e));
	assert_true(json_bool_opt(o, "none", true, &e));
	assert_non_null(json_arr_opt(o, "l", &e));
	assert_non_null(json_obj_opt(o, "o", &e));
	assert_null(json_obj_opt(o, "none", &e));
	assert_null(json_str_opt(o, "none", NULL, &e));
	assert_int_equal(e.num, 0);

	assert_int_equal(json_int(o, "n", 6, 9, &e), 0);
	assert_string_equal(json_str(o, "none", &e), "");
	assert_null(json_arr_opt(o, "o", &e));
	assert_non_null(strstr(err_message(&e), "\"n\""));
	assert_null(err_cause(&e, 0));
	assert_string_equal(json_str(o, "n", NULL), "");
	json_decref(o);
}

static void prints_in_order(void **state)
{
	struct buf b = BUF_INIT;
	json_t *o = parse("{\"z\":1,\"a\":[2]}", NULL);

	json_print_compact(o, &b);
	assert_string_equal(b.data, "{\"z\":1,\"a\":[2]}");
	buf_clear(&b);
	json_print(o, &b);
	assert_string_equal(b.data, "{\n  \"z\": 1,\n  \"a\": [\n    2\n  ]\n}\n");
	buf_done(&b);
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_bad_text),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(first_field_error_wins),
		cmocka_unit_test(prints_in_order),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
