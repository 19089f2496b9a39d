// SPDX-License-Identifier: MIT
/* The agent as PID 1: what its VM does to it, and how it ends the VM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/agent_peer.h"

static void start(struct peer_agent *a, const char *config)
{
	if (!peer_start_pid1(a, config)) {
		print_message("# no PID namespaces here\n");
		skip();
	}
}

static void sh(struct peer_agent *a, const char *json, struct peer_result *r)
{
	peer_collect(peer_request(a, json), NULL, 0, r);
	assert_int_equal(r->exits, 1);
}

static int ended(struct peer_agent *a)
{
	int status;

	assert_int_equal(waitpid(a->pid, &status, 0), a->pid);
	unlink(a->path);
	rmdir(a->dir);
	return status;
}

static void killing_everything_leaves_the_agent(void **state)
{
	struct peer_agent a;
	struct peer_result r;
	int other;

	start(&a, NULL);
	other = peer_request(&a, "{\"op\":\"exec\",\"argv\":[\"sleep\",\"60\"]}");
	sh(&a, "{\"op\":\"exec\",\"shell\":\"kill -9 -1; echo alone; exit 3\"}", &r);
	assert_string_equal(r.out.data, "alone\n");
	assert_int_equal(r.status, 3);
	peer_result_done(&r);
	peer_collect(other, NULL, 0, &r);
	assert_int_equal(r.status, 128 + 9);
	peer_result_done(&r);
	sh(&a, "{\"op\":\"exec\",\"shell\":\"kill -9 1; kill -SEGV 1; echo $PPID\"}",
	   &r);
	assert_string_equal(r.out.data, "1\n");
	peer_result_done(&r);
	peer_stop(&a);
}

static void orphans_are_reaped(void **state)
{
	struct peer_agent a;
	struct peer_result r;

	start(&a, NULL);
	sh(&a, "{\"op\":\"exec\",\"shell\":\"for i in 1 2 3 4 5 6 7 8; do"
	   " (true &) ; done\"}", &r);
	peer_result_done(&r);
	/* a zombie would still take a signal */
	sh(&a, "{\"op\":\"exec\",\"shell\":\"sleep 0.2; i=2; while test $i -lt $$;"
	   " do kill -0 $i 2>/dev/null && echo $i; i=$((i+1)); done\"}", &r);
	assert_string_equal(r.out.data, "");
	peer_result_done(&r);
	peer_stop(&a);
}

static void poweroff_ends_the_stubborn(void **state)
{
	struct peer_agent a;
	struct peer_result r;
	int fd;

	start(&a, NULL);
	fd = peer_request(&a, "{\"op\":\"exec\",\"shell\":"
			  "\"trap '' TERM HUP; echo up; sleep 60 & sleep 60\"}");
	peer_expect(fd, "up");
	close(peer_request(&a, "{\"op\":\"poweroff\"}"));
	peer_collect(fd, NULL, 0, &r);
	assert_int_equal(r.exits, 1);	/* even then the host is told */
	assert_int_equal(r.status, 128 + 9);
	peer_result_done(&r);
	assert_int_equal(ended(&a), 0);
}

static void init_signals_power_off(void **state)
{
	struct peer_agent a;
	struct peer_result r;

	start(&a, NULL);
	sh(&a, "{\"op\":\"exec\",\"shell\":\"kill -USR2 1; sleep 60\"}", &r);
	assert_int_equal(r.status, 128 + 15);
	peer_result_done(&r);
	assert_int_equal(ended(&a), 0);
}

static void end_of_main_takes_the_rest_along(void **state)
{
	struct peer_agent a;
	struct peer_result r;
	int fd;

	start(&a, "{\"cmd\":{\"shell\":\"sleep 0.3; exit 3\"}}");
	fd = peer_request(&a, "{\"op\":\"exec\",\"argv\":[\"sleep\",\"60\"]}");
	peer_collect(fd, NULL, 0, &r);
	assert_int_equal(r.status, 128 + 15);
	peer_result_done(&r);
	assert_int_equal(ended(&a), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killing_everything_leaves_the_agent),
		cmocka_unit_test(orphans_are_reaped),
		cmocka_unit_test(poweroff_ends_the_stubborn),
		cmocka_unit_test(init_signals_power_off),
		cmocka_unit_test(end_of_main_takes_the_rest_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
