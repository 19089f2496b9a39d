// SPDX-License-Identifier: MIT
/* What the guest parses: requests, users, environment, tar records. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "guest/doc.h"
#include "guest/guest.h"
#include "guest/tar.h"
#include "guest/user.h"

static int parse(struct doc *d, const char *text)
{
	return doc_parse(d, text, strlen(text));
}

static void doc_values(void **state)
{
	struct doc d;
	char **v;

	assert_int_equal(parse(&d, " {\"s\":\"a\\n\\u00e9\\ud83d\\ude00\\/\","
			       "\"i\":-9223372036854775808,\"t\":true,"
			       "\"n\":null,\"l\":[\"x\",\"y\"],\"e\":[],"
			       "\"o\":{\"k\":7}} "), 0);
	assert_string_equal(doc_str(&d, doc_get(&d, DOC_ROOT, "s")),
			    "a\n\xc3\xa9\xf0\x9f\x98\x80/");
	assert_true(doc_int(&d, doc_get(&d, DOC_ROOT, "i"), 0) == INT64_MIN);
	assert_true(doc_bool(&d, doc_get(&d, DOC_ROOT, "t"), false));
	assert_null(doc_str(&d, doc_get(&d, DOC_ROOT, "n")));
	assert_int_equal(doc_int(&d, doc_get(&d, doc_get(&d, DOC_ROOT, "o"),
					     "k"), 0), 7);
	v = doc_strv(&d, doc_get(&d, DOC_ROOT, "l"));
	assert_string_equal(v[0], "x");
	assert_string_equal(v[1], "y");
	assert_null(v[2]);
	free(v);
	v = doc_strv(&d, doc_get(&d, DOC_ROOT, "absent"));
	assert_null(v[0]);
	free(v);
	/* wrong types and absent members read as absent */
	assert_null(doc_str(&d, doc_get(&d, doc_get(&d, DOC_ROOT, "s"), "x")));
	assert_int_equal(doc_int(&d, 12345, 6), 6);
	doc_done(&d);
}

static void doc_refusals(void **state)
{
	static const char *const bad[] = {
		"", "{", "{\"a\"}", "{\"a\":}", "[1,]", "{\"a\":1,}", "nul",
		"\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"",
		"\"\\x\"", "\"", "\"\\", "\"a\nb\"", "1.5", "1e3", "01", "-",
		"9223372036854775808", "1 2", "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]",
		"{1:2}", "{\"a\" 1}", "tru", "+1",
	};
	struct doc d;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (parse(&d, bad[i]) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
		doc_done(&d);	/* harmless */
	}
	assert_int_equal(doc_parse(&d, "1\0", 2), -EINVAL);
}

static const char passwd[] =
	"root:x:0:0:root:/root:/bin/bash\n"
	"broken line\n"
	"web:x:33:34:Web:/var/www:/usr/sbin/nologin\n"
	"noshell:x:50:50::/srv:\n";
static const char group[] = "root:x:0:\nwww:x:34:\nlog:x:4:web,x\n"
			    "adm:x:5:notweb,web\ndup:x:34:web\n";

static void users(void **state)
{
	struct user u;

	assert_int_equal(user_lookup(&u, NULL, passwd, group), 0);
	assert_int_equal(u.uid, 0);
	assert_string_equal(u.home, "/root");
	assert_int_equal(user_lookup(&u, "web", passwd, group), 0);
	assert_int_equal(u.uid, 33);
	assert_int_equal(u.nr_groups, 3);
	assert_int_equal(u.groups[0], 34);
	assert_int_equal(u.groups[1], 4);
	assert_int_equal(u.groups[2], 5);
	assert_int_equal(user_lookup(&u, "33", passwd, group), 0);
	assert_string_equal(u.name, "web");
	assert_int_equal(user_lookup(&u, "web:log", passwd, group), 0);
	assert_int_equal(u.gid, 4);
	assert_int_equal(u.nr_groups, 1);
	assert_int_equal(user_lookup(&u, "1234:99", passwd, group), 0);
	assert_int_equal(u.uid, 1234);
	assert_int_equal(u.gid, 99);
	assert_string_equal(u.shell, "/bin/sh");
	assert_int_equal(user_lookup(&u, "noshell", passwd, group), 0);
	assert_string_equal(u.shell, "/bin/sh");
	assert_int_equal(user_lookup(&u, "ghost", passwd, group), -ENOENT);
	assert_int_equal(user_lookup(&u, "web:ghost", passwd, group), -ENOENT);
	assert_int_equal(user_lookup(&u, "4294967295", passwd, group), -ENOENT);
	assert_int_equal(user_lookup(&u, ":5", passwd, group), -EINVAL);
	assert_int_equal(user_lookup(&u, "web:", passwd, group), -EINVAL);
	/* an image without any user still has root */
	assert_int_equal(user_lookup(&u, "root", NULL, NULL), 0);
	assert_string_equal(u.home, "/root");
}

static void environment(void **state)
{
	char **env = NULL;

	assert_int_equal(guest_env_add(&env, "A=1"), 0);
	assert_int_equal(guest_env_add(&env, "AB=2"), 0);
	assert_int_equal(guest_env_add(&env, "A="), 0);
	assert_int_equal(guest_env_add(&env, "=x"), -EINVAL);
	assert_int_equal(guest_env_add(&env, "nothing"), -EINVAL);
	assert_string_equal(guest_env_get(env, "A"), "");
	assert_string_equal(guest_env_get(env, "AB"), "2");
	assert_null(guest_env_get(env, "B"));
	assert_null(env[2]);
	free(env[0]);
	free(env[1]);
	free(env);
}

static void tar_numbers(void **state)
{
	char field[12] = "";
	uint64_t v;

	assert_true(tar_put_number(field, 12, 077777777777));
	assert_true(tar_number(field, 12, &v));
	assert_int_equal(v, 077777777777);
	assert_false(tar_put_number(field, 12, 0100000000000));
	memcpy(field, "\x80\0\0\0\0\0\0\x02\0\0\0\0", 12);
	assert_true(tar_number(field, 12, &v));
	assert_true(v == 2ull << 32);
	memset(field, 0xff, 12);
	assert_false(tar_number(field, 12, &v));
	memset(field, 0x7f, 12);
	field[0] = (char)0x80;
	assert_false(tar_number(field, 12, &v));
	assert_false(tar_number("12x4567", 8, &v));
}

static void tar_records(void **state)
{
	static const char text[] = "9 a=bc=d\n13 k=nl\n\n nl\n", *p = text;
	static const char *const bad[] = {
		"9 a=bc=d", "8 a=bc=d\n", "x a=b\n", "5 ab\n\n", "6 =ab\n",
		"99999999999999999999 a=b\n", "0 a=b\n", "6", "6 ",
	};
	const char *end = text + sizeof(text) - 1;
	struct tar_record r;
	bool broken;

	assert_true(tar_record_next(&p, end, &r, &broken));
	assert_int_equal(r.key_len, 1);
	assert_int_equal(r.value_len, 4);
	assert_memory_equal(r.value, "bc=d", 4);
	assert_true(tar_record_next(&p, end, &r, &broken));
	assert_memory_equal(r.value, "nl\n\n nl", r.value_len);
	assert_false(tar_record_next(&p, end, &r, &broken));
	assert_false(broken);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		const char *q = bad[i];

		assert_false(tar_record_next(&q, q + strlen(q), &r, &broken));
		if (!broken)
			fail_msg("accepted: %s", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(doc_values),
		cmocka_unit_test(doc_refusals),
		cmocka_unit_test(users),
		cmocka_unit_test(environment),
		cmocka_unit_test(tar_numbers),
		cmocka_unit_test(tar_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
