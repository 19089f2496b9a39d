// SPDX-License-Identifier: MIT
/* Commands through the agent: streams, terminals, signals, the end. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/agent_peer.h"
#include "base/util.h"

static struct peer_agent *agent_of(void **state)
{
	return *state;
}

static void sh(void **state, const char *json, struct peer_result *r)
{
	peer_collect(peer_request(agent_of(state), json), NULL, 0, r);
	assert_int_equal(r->exits, 1);
}

static void streams_stay_apart(void **state)
{
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"shell\":\"echo out; echo err >&2; exit 3\"}",
	   &r);
	assert_string_equal(r.out.data, "out\n");
	assert_string_equal(r.err.data, "err\n");
	assert_int_equal(r.status, 3);
	assert_int_equal(r.by_signal, 0);
	peer_result_done(&r);
}

static void argv_is_taken_literally(void **state)
{
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"argv\":[\"printf\",\"%s|\",\"a b\",\"$x\","
	   "\"\\u00e9\\\"\"]}", &r);
	assert_string_equal(r.out.data, "a b|$x|\xc3\xa9\"|");
	peer_result_done(&r);
}

static void environment_and_directory(void **state)
{
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"shell\":\"echo $A $B; pwd\","
	   "\"env\":[\"A=1\",\"B=2\",\"A=3\"],\"cwd\":\"/usr\"}", &r);
	assert_string_equal(r.out.data, "3 2\n/usr\n");
	peer_result_done(&r);
	sh(state, "{\"op\":\"exec\",\"argv\":[\"pwd\"],\"cwd\":\"/no/such\"}", &r);
	assert_int_equal(r.status, 126);
	assert_non_null(strstr(r.err.data, "/no/such"));
	peer_result_done(&r);
}

static void what_cannot_start(void **state)
{
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"argv\":[\"no-such-program\"]}", &r);
	assert_int_equal(r.status, 127);
	assert_non_null(strstr(r.err.data, "no-such-program: command not found"));
	peer_result_done(&r);
	sh(state, "{\"op\":\"exec\",\"argv\":[\"/etc\"]}", &r);
	assert_int_equal(r.status, 126);
	peer_result_done(&r);
	sh(state, "{\"op\":\"exec\",\"argv\":[\"id\"],\"user\":\"nosuchuser\"}", &r);
	assert_int_equal(r.status, 126);
	peer_result_done(&r);
}

static void user_and_groups(void **state)
{
	struct peer_result r;

	if (geteuid())
		skip();
	sh(state, "{\"op\":\"exec\",\"shell\":\"id -un; id -u; echo $HOME\","
	   "\"user\":\"nobody\"}", &r);
	assert_string_equal(r.out.data, "nobody\n65534\n/nonexistent\n");
	peer_result_done(&r);
	sh(state, "{\"op\":\"exec\",\"shell\":\"id -u; id -g; id -G\","
	   "\"user\":\"4321:8765\"}", &r);
	assert_string_equal(r.out.data, "4321\n8765\n8765\n");
	peer_result_done(&r);
}

static void signals_end_commands(void **state)
{
	struct peer_result r;
	uint8_t term = SIGTERM;
	int fd;

	sh(state, "{\"op\":\"exec\",\"shell\":\"kill -KILL $$\"}", &r);
	assert_int_equal(r.status, 128 + SIGKILL);
	assert_int_equal(r.by_signal, 1);
	peer_result_done(&r);
	fd = peer_request(agent_of(state), "{\"op\":\"exec\",\"argv\":[\"sleep\",\"60\"]}");
	peer_send(fd, AGENT_SIGNAL, &term, 1);
	peer_collect(fd, NULL, 0, &r);
	assert_int_equal(r.status, 128 + SIGTERM);
	peer_result_done(&r);
}

/* Skips to EXIT. */
static int exit_status(int fd)
{
	struct buf b = BUF_INIT;
	enum agent_frame type = 0;
	int status;

	while (type != AGENT_EXIT)
		assert_true(peer_recv(fd, &type, &b));
	status = (uint8_t)b.data[0];
	buf_done(&b);
	close(fd);
	return status;
}

/* Input that nobody reads must not keep a signal from arriving. */
static void signal_overtakes_stdin(void **state)
{
	static uint8_t junk[60000];
	uint8_t sig = SIGINT;
	int fd = peer_request(agent_of(state),
			      "{\"op\":\"exec\",\"argv\":[\"sleep\",\"60\"]}");

	for (size_t at = 0; at + sizeof(junk) <= AGENT_WINDOW; at += sizeof(junk))
		peer_send(fd, AGENT_STDIN, junk, sizeof(junk));
	peer_send(fd, AGENT_SIGNAL, &sig, 1);
	assert_int_equal(exit_status(fd), 128 + SIGINT);
}

static void megabytes_through_cat(void **state)
{
	size_t len = 9u << 20;
	uint8_t *data = malloc(len);
	struct peer_result r;

	for (size_t i = 0; i < len; i++)
		data[i] = i * 2654435761u >> 13;
	peer_collect(peer_request(agent_of(state),
				  "{\"op\":\"exec\",\"argv\":[\"cat\"]}"),
		     data, len, &r);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.out.len, len);
	assert_memory_equal(r.out.data, data, len);
	peer_result_done(&r);
	free(data);
}

/* More output than any buffer holds, left alone while another command runs. */
static void slow_reader_holds_nobody_up(void **state)
{
	int slow = peer_request(agent_of(state), "{\"op\":\"exec\",\"shell\":"
				"\"head -c 8000000 /dev/zero; exit 5\"}");
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"argv\":[\"echo\",\"quick\"]}", &r);
	assert_string_equal(r.out.data, "quick\n");
	peer_result_done(&r);
	peer_collect(slow, NULL, 0, &r);
	assert_int_equal(r.out.len, 8000000);
	assert_int_equal(r.status, 5);
	peer_result_done(&r);
}

static void many_at_once(void **state)
{
	enum { N = 60 };
	struct peer_result r;
	int fd[N];

	for (int i = 0; i < N; i++) {
		char json[96];

		snprintf(json, sizeof(json),
			 "{\"op\":\"exec\",\"shell\":\"read x; exit %d\"}", i);
		fd[i] = peer_request(agent_of(state), json);
	}
	for (int i = N - 1; i >= 0; i--) {
		peer_collect(fd[i], "go\n", 3, &r);
		assert_int_equal(r.exits, 1);
		assert_int_equal(r.status, i);
		peer_result_done(&r);
	}
}

/* A daemon that keeps the pipes open does not keep the session. */
static void background_process_is_left_behind(void **state)
{
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"shell\":"
	   "\"sleep 3 & echo started; exit 4\"}", &r);
	assert_string_equal(r.out.data, "started\n");
	assert_int_equal(r.status, 4);
	peer_result_done(&r);
}

static void hangup_reaches_the_command(void **state)
{
	char path[128], json[512];
	struct peer_result r;
	int fd;

	snprintf(path, sizeof(path), "%s/hup", agent_of(state)->dir);
	snprintf(json, sizeof(json), "{\"op\":\"exec\",\"shell\":"
		 /* no command in the foreground: dash drops a signal at vfork */
		 "\"exec 2>/dev/null; trap 'echo hup >%s; exit' HUP;"
		 " sleep 60 & echo up; wait\"}", path);
	fd = peer_request(agent_of(state), json);
	peer_expect(fd, "up");	/* the trap is set */
	close(fd);
	snprintf(json, sizeof(json), "{\"op\":\"exec\",\"shell\":"
		 "\"until test -s %s; do sleep 0.05; done; cat %s; rm %s\"}",
		 path, path, path);
	sh(state, json, &r);
	assert_string_equal(r.out.data, "hup\n");
	peer_result_done(&r);
}

static void terminal(void **state)
{
	struct peer_result r;

	sh(state, "{\"op\":\"exec\",\"shell\":\"test -t 0 && test -t 1 && stty size;"
	   " echo $TERM; tty >/dev/null && echo yes\","
	   "\"tty\":{\"rows\":33,\"cols\":77,\"term\":\"dumb\"}}", &r);
	assert_string_equal(r.out.data, "33 77\r\ndumb\r\nyes\r\n");
	assert_int_equal(r.status, 0);
	peer_result_done(&r);
}

static void terminal_is_controlling(void **state)
{
	uint8_t size[4] = { 50, 0, 132, 0 };
	int fd = peer_request(agent_of(state), "{\"op\":\"exec\",\"shell\":"
		"\"trap 'stty size' WINCH; trap 'echo intr; exit 9' INT;"
		" echo ready; while :; do sleep 0.05; done\","
		"\"tty\":{\"rows\":24,\"cols\":80}}");

	peer_expect(fd, "ready");
	peer_send(fd, AGENT_WINSIZE, size, 4);
	peer_expect(fd, "50 132");
	peer_send(fd, AGENT_STDIN, "\x03", 1);
	peer_expect(fd, "intr");
	assert_int_equal(exit_status(fd), 9);
}

static void terminal_end_of_input(void **state)
{
	struct peer_result r;

	peer_collect(peer_request(agent_of(state), "{\"op\":\"exec\","
		     "\"argv\":[\"sh\"],\"tty\":{\"rows\":24,\"cols\":80}}"),
		     "exit 6\n", 7, &r);
	assert_int_equal(r.status, 6);
	peer_result_done(&r);
	peer_collect(peer_request(agent_of(state), "{\"op\":\"exec\","
		     "\"argv\":[\"cat\"],\"tty\":{\"rows\":24,\"cols\":80}}"),
		     NULL, 0, &r);
	assert_int_equal(r.status, 0);
	peer_result_done(&r);
}

static void login_shell(void **state)
{
	struct peer_result r;

	peer_collect(peer_request(agent_of(state), "{\"op\":\"exec\","
				  "\"login\":true}"),
		     "echo $0; exit 2\n", 16, &r);
	assert_int_equal(r.out.data[0], '-');
	assert_int_equal(r.status, 2);
	peer_result_done(&r);
}

static void requests_that_are_none(void **state)
{
	struct peer_agent *a = agent_of(state);
	struct buf b = BUF_INIT;
	enum agent_frame type;
	int fd;

	assert_int_equal(peer_refused(a, "{"), EINVAL);
	assert_int_equal(peer_refused(a, "[]"), ENOSYS);
	assert_int_equal(peer_refused(a, "{\"op\":\"dance\"}"), ENOSYS);
	assert_int_equal(peer_refused(a, "{\"op\":\"exec\"}"), EINVAL);
	assert_int_equal(peer_refused(a, "{\"op\":\"exec\",\"argv\":[1]}"), EINVAL);
	assert_int_equal(peer_refused(a, "{\"op\":\"main\"}"), ESRCH);
	fd = peer_connect(a);
	peer_send(fd, AGENT_STDIN, "x", 1);
	assert_int_equal(peer_recv(fd, &type, &b), 1);
	assert_int_equal(type, AGENT_FAIL);
	close(fd);
	fd = peer_connect(a);		/* a length out of bounds: closed */
	assert_int_equal(write(fd, "\xff\xff\xff\x7f\x01", 5), 5);
	assert_int_equal(peer_recv(fd, &type, &b), 0);
	close(fd);
	buf_done(&b);
}

static void stats_are_json(void **state)
{
	int fd = peer_connect(agent_of(state));
	struct buf b = BUF_INIT;
	enum agent_frame type;

	peer_send(fd, AGENT_REQ, "{\"op\":\"stats\"}", 14);
	assert_int_equal(peer_recv(fd, &type, &b), 1);
	assert_int_equal(type, AGENT_OK);
	assert_non_null(strstr(b.data, "\"MemTotal\":"));
	assert_null(strstr(b.data, ",,"));
	assert_int_equal(peer_recv(fd, &type, &b), 0);
	buf_done(&b);
	close(fd);
}

static void wait_exit(struct peer_agent *a)
{
	int status;

	assert_int_equal(waitpid(a->pid, &status, 0), a->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	a->pid = fork();		/* something for peer_stop() to end */
	if (!a->pid)
		_exit(0);
	peer_stop(a);
}

static void main_command_ends_the_vm(void **state)
{
	struct peer_agent a;
	struct peer_result r;

	peer_start(&a, NULL);
	peer_collect(peer_request(&a, "{\"op\":\"run\",\"shell\":\"echo m; exit 8\"}"),
		     NULL, 0, &r);
	assert_string_equal(r.out.data, "m\n");
	assert_int_equal(r.status, 8);
	peer_result_done(&r);
	wait_exit(&a);
}

/* The connection of the main command breaks; it goes on and is joined again. */
static void main_command_survives_its_connection(void **state)
{
	struct peer_agent a;
	struct peer_result r;
	int fd;

	peer_start(&a, NULL);
	fd = peer_request(&a, "{\"op\":\"run\",\"shell\":"
			  "\"trap 'exit 99' HUP; echo one; read x; echo $x; exit 8\"}");
	peer_expect(fd, "one");
	assert_int_equal(peer_refused(&a, "{\"op\":\"run\",\"shell\":\"true\"}"),
			 EBUSY);
	assert_int_equal(peer_refused(&a, "{\"op\":\"main\"}"), EBUSY);
	close(fd);
	sh((void *[]){ &a }, "{\"op\":\"exec\",\"shell\":\"sleep 0.1\"}", &r);
	peer_result_done(&r);
	peer_collect(peer_request(&a, "{\"op\":\"main\"}"), "two\n", 4, &r);
	assert_string_equal(r.out.data, "two\n");
	assert_int_equal(r.status, 8);
	peer_result_done(&r);
	wait_exit(&a);
}

static void configured_command_ends_the_vm(void **state)
{
	struct peer_agent a;

	peer_start(&a, "{\"cmd\":{\"shell\":\"echo gone; exit 3\"}}");
	wait_exit(&a);
}

static void poweroff_is_answered(void **state)
{
	struct peer_agent a;

	peer_start(&a, NULL);
	close(peer_request(&a, "{\"op\":\"poweroff\"}"));
	wait_exit(&a);
}

static int start(void **state)
{
	struct peer_agent *a = malloc(sizeof(*a));

	peer_start(a, NULL);
	*state = a;
	return 0;
}

static int stop(void **state)
{
	peer_stop(*state);
	free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_stay_apart),
		cmocka_unit_test(argv_is_taken_literally),
		cmocka_unit_test(environment_and_directory),
		cmocka_unit_test(what_cannot_start),
		cmocka_unit_test(user_and_groups),
		cmocka_unit_test(signals_end_commands),
		cmocka_unit_test(signal_overtakes_stdin),
		cmocka_unit_test(megabytes_through_cat),
		cmocka_unit_test(slow_reader_holds_nobody_up),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(background_process_is_left_behind),
		cmocka_unit_test(hangup_reaches_the_command),
		cmocka_unit_test(terminal),
		cmocka_unit_test(terminal_is_controlling),
		cmocka_unit_test(terminal_end_of_input),
		cmocka_unit_test(login_shell),
		cmocka_unit_test(requests_that_are_none),
		cmocka_unit_test(stats_are_json),
		cmocka_unit_test(main_command_ends_the_vm),
		cmocka_unit_test(main_command_survives_its_connection),
		cmocka_unit_test(configured_command_ends_the_vm),
		cmocka_unit_test(poweroff_is_answered),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
