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
#include "base/util.h"
#include "proto/spec.h"

static const char full[] =
	"{\"schema_version\":1,\"name\":\"a/b\",\"memory_mib\":1024,\"cpus\":2,"
	"\"accel\":\"soft\",\"engine\":\"interp\",\"cpu_model\":\"host\","
	"\"cmdline\":\"console=hvc0 quiet\",\"initrd\":true,\"restore\":true,"
	"\"disks\":[{\"id\":\"root\",\"layers\":3,\"readonly\":false,\"size\":4096},"
	"{\"id\":\"mount0\",\"layers\":1,\"readonly\":true,\"size\":0}],"
	"\"fs\":[{\"id\":\"f0\",\"guest\":\"/mnt/x\",\"readonly\":true}],"
	"\"net\":{\"mac\":\"02:00:00:0a:0b:0c\",\"ports\":[{\"host_addr\":\"::1\","
	"\"host_port\":0,\"guest_port\":80,\"proto\":\"udp\"}],\"host_loopback\":true,"
	"\"allow\":[\"debian.org\"]},\"vsock_cid\":7,"
	"\"vmgenid\":\"000102030405060708090a0b0c0d0e0f\"}";

static void round_trip(void **state)
{
	struct buf one = BUF_INIT, two = BUF_INIT;
	struct err e = ERR_INIT;
	struct spec s, t;

	assert_int_equal(spec_parse(&s, full, strlen(full), &e), 0);
	assert_string_equal(s.name, "a/b");
	assert_int_equal(s.cpus, 2);
	assert_int_equal(s.accel, SPEC_ACCEL_SOFT);
	assert_int_equal(s.engine, SPEC_ENGINE_INTERP);
	assert_int_equal(s.nr_disks, 2);
	assert_int_equal(s.disk[0].nr_layers, 3);
	assert_true(s.disk[1].readonly);
	assert_string_equal(s.fs[0].guest, "/mnt/x");
	assert_int_equal(s.mac[5], 0x0c);
	assert_true(s.port[0].udp);
	assert_string_equal(s.net_allow[0], "debian.org");
	assert_null(s.net_allow[1]);
	assert_int_equal(s.vmgenid[15], 15);
	assert_int_equal(spec_print(&s, &one), 0);
	assert_int_equal(spec_parse(&t, one.data, one.len, &e), 0);
	assert_int_equal(spec_print(&t, &two), 0);
	assert_string_equal(one.data, two.data);
	spec_done(&s);
	spec_done(&t);
	buf_done(&one);
	buf_done(&two);
}

static void least_spec_gets_defaults(void **state)
{
	static const char least[] = "{\"schema_version\":1,\"memory_mib\":64}";
	struct spec s;

	assert_int_equal(spec_parse(&s, least, strlen(least), NULL), 0);
	assert_int_equal(s.cpus, 1);
	assert_string_equal(s.cpu_model, "portable");
	assert_false(s.net);
	assert_null(s.name);
	spec_done(&s);
}

static void bad_values_are_named(void **state)
{
	static const struct { const char *body, *says; } bad[] = {
		{ "\"memory_mib\":63", "memory_mib" },
		{ "\"memory_mib\":64.5", "memory_mib" },
		{ "\"cpus\":0", "cpus" },
		{ "\"cpus\":17", "cpus" },
		{ "\"accel\":\"hvf\"", "accel" },
		{ "\"cpu_model\":\"486\"", "cpu_model" },
		{ "\"cmdline\":\"a\\nb\"", "cmdline" },
		{ "\"name\":\"\"", "name" },
		{ "\"disks\":[{\"id\":\"../x\"}]", "id" },
		{ "\"disks\":[{\"id\":\"a\"},{\"id\":\"a\"}]", "twice" },
		{ "\"disks\":[{\"id\":\"a\",\"layers\":65}]", "layers" },
		{ "\"disks\":[{\"id\":\"a\",\"size\":513}]", "size" },
		{ "\"disks\":[1]", "id" },
		{ "\"disks\":{}", "disks" },
		{ "\"fs\":[{\"id\":\"a\",\"guest\":\"mnt\"}]", "guest" },
		{ "\"net\":{\"mac\":\"01:00:00:00:00:00\"}", "mac" },
		{ "\"net\":{\"mac\":\"02:00:00:00:00\"}", "mac" },
		{ "\"net\":{\"mac\":\"02:00:00:00:00:000\"}", "mac" },
		{ "\"net\":{\"ports\":[{\"guest_port\":0}]}", "guest_port" },
		{ "\"net\":{\"ports\":[{\"guest_port\":1,\"host_addr\":\"x\"}]}", "host" },
		{ "\"net\":{\"allow\":[3]}", "allow" },
		{ "\"net\":[]", "net" },
		{ "\"vsock_cid\":2", "vsock_cid" },
		{ "\"vmgenid\":\"00\"", "vmgenid" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct buf b = BUF_INIT;
		struct err e = ERR_INIT;
		struct spec s;

		buf_addf(&b, "{\"schema_version\":1,%s%s}",
			 strstr(bad[i].body, "memory") ? "" : "\"memory_mib\":64,",
			 bad[i].body);
		assert_int_equal(spec_parse(&s, b.data, b.len, &e), -22);
		assert_non_null(strstr(err_cause(&e, 0), bad[i].says));
		buf_done(&b);
	}
}

static void launch_round_trip(void **state)
{
	struct buf b = BUF_INIT;
	struct spec_fds fds = { .nr = 0 }, back;
	struct spec s, t;

	spec_init(&s);
	assert_int_equal(spec_fds_add(&fds, 7, "kernel"), 0);
	assert_int_equal(spec_fds_add(&fds, 9, "%s.%u", "root", 1), 0);
	assert_int_equal(spec_fds_add(&fds, 9, "root.1"), -17);
	assert_int_equal(spec_launch_print(&s, &fds, &b), 0);
	assert_int_equal(spec_launch_parse(&t, &back, b.data, b.len, NULL), 0);
	assert_int_equal(spec_fds_get(&back, "root.%u", 1), 9);
	assert_int_equal(spec_fds_get(&back, "kernel"), 7);
	assert_int_equal(spec_fds_get(&back, "initrd"), -2);
	spec_done(&t);
	spec_fds_done(&back);
	spec_fds_done(&fds);
	s.name = strdup("\xff");
	buf_clear(&b);
	assert_int_equal(spec_print(&s, &b), -84);
	spec_done(&s);
	buf_done(&b);
}

/* Mutations of a good document are refused or parsed, never worse (run it
 * under the sanitizers). */
static void mutated_documents(void **state)
{
	struct buf base = BUF_INIT;
	uint64_t x = 88172645463325252ull;
	char *text;

	buf_addf(&base, "{\"schema_version\":1,\"spec\":%s,\"fds\":{\"kernel\":5}}", full);
	for (int round = 0; round < 20000; round++) {
		size_t len = base.len;
		struct spec_fds fds;
		struct spec s;

		text = malloc(len);
		memcpy(text, base.data, len);
		for (int i = 0; i <= round % 3; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			text[x % len] = "{}[]\",:0919-eax\\/\0\xff"[x >> 32 & 15];
		}
		if (round % 5 == 0)
			len = x % len;
		if (!spec_launch_parse(&s, &fds, text, len, NULL)) {
			spec_done(&s);
			spec_fds_done(&fds);
		}
		free(text);
	}
	buf_done(&base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(least_spec_gets_defaults),
		cmocka_unit_test(bad_values_are_named),
		cmocka_unit_test(launch_round_trip),
		cmocka_unit_test(mutated_documents),
	};

	return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
