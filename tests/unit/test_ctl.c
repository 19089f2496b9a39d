// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json.h"
#include "base/util.h"
#include "proto/ctl.h"

static int pair[2];

static int setup(void **state)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int teardown(void **state)
{
	close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
	return 0;
}

static void say(const char *text)
{
	assert_int_equal(send(pair[1], text, strlen(text), 0), strlen(text));
}

static void count(const json_t *p, void *arg)
{
	*(int *)arg += json_int(p, "n", 0, 10, NULL);
}

static int call(json_t **answer, int *seen, struct err *e)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s}", "op", "status");

	return ctl_call(pair[0], req, NULL, 0, count, seen, answer, e);
}

static void answer_after_progress(void **state)
{
	json_t *answer;
	int seen = 0;

	say("{\"progress\":{\"n\":1}}");
	say("{\"progress\":{\"n\":2}}");
	say("{\"ok\":true,\"x\":5}");
	assert_int_equal(call(&answer, &seen, NULL), 0);
	assert_int_equal(seen, 3);
	assert_int_equal(json_int(answer, "x", 0, 9, NULL), 5);
	json_decref(answer);
}

static void errors_travel_whole(void **state)
{
	struct err e = ERR_INIT, back = ERR_INIT;
	json_t *doc, *answer;
	int seen;

	err_code(&e, ERR_BOOT_PORT_FORWARD_IN_USE, 98, "bind \xff");
	err_wrap(&e, -98, "port 80");
	doc = ctl_error(&e);
	assert_int_equal(ctl_send(pair[1], doc, NULL, 0, NULL), 0);
	json_decref(doc);
	assert_int_equal(call(&answer, &seen, &back), -98);
	assert_null(answer);
	assert_int_equal(back.code, ERR_BOOT_PORT_FORWARD_IN_USE);
	assert_string_equal(err_message(&back), "port 80");
	assert_string_equal(err_cause(&back, 0), "bind ?");
}

static void strange_answers_are_errors(void **state)
{
	static const char *const text[] = {
		"{}", "[]", "nonsense", "{\"ok\":1}", "{\"ok\":false}",
		"{\"ok\":false,\"error\":{\"code\":\"NOPE\",\"causes\":[1]}}",
		"{\"ok\":false,\"error\":{\"errno\":0}}",
	};
	int seen;

	for (unsigned i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
		struct err e = ERR_INIT;

		say(text[i]);
		assert_true(call(NULL, &seen, &e) < 0);
		assert_true(e.num > 0);
	}
	close(pair[1]);
	pair[1] = -1;
	assert_true(call(NULL, &seen, NULL) < 0);
}

static void too_long_packets_are_refused(void **state)
{
	char *big = malloc(CTL_MAX + 2);
	json_t *doc;
	int size = 4 * CTL_MAX;

	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	memset(big, ' ', CTL_MAX + 2);
	memcpy(big, "{}", 2);
	if (send(pair[1], big, CTL_MAX + 1, MSG_DONTWAIT) < 0)
		skip();		/* the host's wmem_max is too small to try */
	assert_int_equal(ctl_recv(pair[0], &doc, NULL, NULL, NULL), -90);
	free(big);
}

static void descriptors_travel(void **state)
{
	cleanup(json_putp) json_t *doc = json_pack("{s:i}", "a", 1);
	json_t *got;
	int fds[2] = { 0, 1 }, back[1];
	unsigned nr = 1;
	struct stat a, b;

	assert_int_equal(ctl_send(pair[0], doc, fds, 2, NULL), 0);
	assert_int_equal(ctl_recv(pair[1], &got, back, &nr, NULL), 1);
	assert_int_equal(nr, 1);	/* the second was closed, not leaked */
	assert_int_equal(fstat(0, &a), 0);
	assert_int_equal(fstat(back[0], &b), 0);
	assert_true(a.st_ino == b.st_ino);
	close(back[0]);
	json_decref(got);
}

static void long_paths_connect(void **state)
{
	char dir[] = "/tmp/ctl-test-XXXXXX", deep[256], path[300];
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "control" };
	int l = socket(AF_UNIX, SOCK_SEQPACKET, 0), fd;
	char back[256];

	assert_non_null(mkdtemp(dir));
	snprintf(deep, sizeof(deep), "%s/%0150d", dir, 0);
	mkdir(deep, 0700);
	assert_non_null(getcwd(back, sizeof(back)));
	assert_int_equal(chdir(deep), 0);
	assert_int_equal(bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(chdir(back), 0);
	listen(l, 1);
	snprintf(path, sizeof(path), "%s/control", deep);
	fd = ctl_connect(path, NULL);
	assert_true(fd >= 0);
	close(fd);
	close(l);
	unlink(path);
	rmdir(deep);
	rmdir(dir);
	assert_int_equal(ctl_connect("/nonexistent/control", NULL), -2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answer_after_progress, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_travel_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(strange_answers_are_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(too_long_packets_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_travel, setup, teardown),
		cmocka_unit_test(long_paths_connect),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
