// SPDX-License-Identifier: MIT
/* Files and trees through the agent, with the library's end of the transfer. */
#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/agent_peer.h"
#include "base/err.h"
#include "base/util.h"
#include "guest/tar.h"
#include "lib/copy.h"

struct fixture {
	struct peer_agent agent;
	char dir[64];		/* scratch on both sides */
};

static struct fixture *fix(void **state)
{
	return *state;
}

static void run(void **state, const char *script)
{
	char cmd[8192];

	snprintf(cmd, sizeof(cmd), "cd %s && { %s\n}", fix(state)->dir, script);
	assert_int_equal(system(cmd), 0);
}

/* json with every @ replaced by the scratch directory. */
static int request(void **state, const char *json)
{
	char text[1024] = "";
	int fd = peer_connect(&fix(state)->agent);

	for (const char *p = json; *p; p++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%.*s",
			 *p == '@' ? 64 : 1, *p == '@' ? fix(state)->dir : p);
	peer_send(fd, AGENT_REQ, text, strlen(text));
	return fd;
}

static void path_of(void **state, const char *name, char out[256])
{
	snprintf(out, 256, "%s/%s", fix(state)->dir, name);
}

/* The agent's answer at the end of a transfer: 0 or its errno, negative. */
static int answer(int fd)
{
	struct buf b = BUF_INIT;
	enum agent_frame type;
	int num = 0;

	assert_int_equal(peer_recv(fd, &type, &b), 1);
	if (type == AGENT_FAIL)
		assert_int_equal(sscanf(b.data, "{\"errno\":%d", &num), 1);
	else
		assert_int_equal(type, AGENT_OK);
	buf_done(&b);
	return -num;
}

static la_ssize_t on_write(struct archive *a, void *arg, const void *data,
			   size_t len)
{
	peer_send(*(int *)arg, AGENT_DATA, data, len);
	return (la_ssize_t)len;
}

static int push(void **state, const char *json, const char *from)
{
	struct archive *a = archive_write_new();
	struct err err = ERR_INIT;
	int fd = request(state, json), r;
	char path[256];

	path_of(state, from, path);
	archive_write_set_format_pax(a);
	archive_write_set_options(a, "hdrcharset=BINARY,xattrheader=SCHILY");
	archive_write_set_bytes_per_block(a, 65536);
	archive_write_open(a, &fd, NULL, on_write, NULL);
	r = copy_pack(a, path, &err);
	assert_int_equal(r, 0);
	archive_write_free(a);
	peer_send(fd, AGENT_EOF, "", 0);
	r = answer(fd);
	close(fd);
	return r;
}

struct source {
	int fd;
	struct buf data;
};

static la_ssize_t on_read(struct archive *a, void *arg, const void **data)
{
	struct source *s = arg;
	enum agent_frame type;

	if (!peer_recv(s->fd, &type, &s->data) || type == AGENT_FAIL)
		return -1;
	*data = s->data.data;
	return type == AGENT_EOF ? 0 : (la_ssize_t)s->data.len;
}

static int unpack(void **state, int fd, const char *to, struct err *err)
{
	struct source s = { .fd = fd };
	struct archive *a = archive_read_new();
	int dir = open(fix(state)->dir, O_RDONLY | O_DIRECTORY), r = -EBADMSG;

	*err = (struct err)ERR_INIT;
	archive_read_support_format_tar(a);
	if (archive_read_open(a, &s, NULL, on_read, NULL) == ARCHIVE_OK)
		r = copy_unpack(a, dir, to, err);
	archive_read_free(a);
	buf_done(&s.data);
	close(dir);
	return r;
}

static int pull(void **state, const char *json, const char *to)
{
	int fd = request(state, json), r = answer(fd);
	struct err err;

	if (!r)
		r = unpack(state, fd, to, &err);
	close(fd);
	return r;
}

static const char make_tree[] =
	"mkdir -p src/a/b src/empty src/ro; echo hi >src/a/f; : >src/a/none;"
	"head -c 3000000 /dev/urandom >src/big; ln src/big src/a/again;"
	"ln -s ../nowhere src/a/link; mkfifo src/pipe; chmod 741 src/a/f;"
	"chmod 555 src/ro; touch -d '2001-02-03 04:05:06.789' src/a/f;"
	"touch -h -d '2002-02-03 04:05:06.123456789' src/a/link;"
	"n=$(printf %0180d 7); mkdir src/$n; echo long >src/$n/$n;"
	"ln -s $n/$n src/longlink; printf x >\"src/sp ace\xff\";"
	"truncate -s 40M src/sparse; echo mid |"
	" dd of=src/sparse bs=1 seek=20000000 conv=notrunc status=none;"
	"truncate -s 5M src/hole; touch -d 2003-01-01 src/a src";

/* Everything of a tree that a copy must keep, inode numbers as groups. */
static const char list_tree[] =
	"list() { (cd $1 && find . -printf '%P|%y|%m|%U|%G|%T@|%l|%n\n' |"
	" sort; find . -type f -print0 | sort -z | xargs -0 sha256sum); };";

static void trees_survive_both_ways(void **state)
{
	char script[4096];
	run(state, make_tree);
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/copy\",\"name\":"
			      "\"src\"}", "src"), 0);
	assert_int_equal(pull(state, "{\"op\":\"get\",\"path\":\"@/copy\"}", "back"), 0);
	snprintf(script, sizeof(script), "%s%s", list_tree,
		 "list src >1; list copy >2; list back >3;"
		 "diff 1 2 && diff 1 3; test copy/big -ef copy/a/again &&"
		 "test back/big -ef back/a/again &&"
		 "for d in copy back; do"
		 " test $(du -k $d/sparse | cut -f1) -lt 1000 &&"
		 " test $(du -k $d/hole | cut -f1) -lt 100 || exit 1; done");
	run(state, script);
}

static void into_a_directory_that_exists(void **state)
{
	run(state, "mkdir -p one/sub there; echo 1 >one/sub/x; chmod 700 there;"
	    "echo old >there/keep");
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/there\","
			      "\"name\":\"one\"}", "one"), 0);
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/there\"}",
			      "one"), 0);
	run(state, "grep -q 1 there/one/sub/x && grep -q 1 there/sub/x &&"
	    "grep -q old there/keep && test $(stat -c %a there) = 700");
}

static void single_files(void **state)
{
	run(state, "echo data >file; chmod 640 file; mkdir d; ln -s d dlink;"
	    "echo target >t; ln -s t tlink");
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/new\","
			      "\"name\":\"file\"}", "file"), 0);
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/dlink\","
			      "\"name\":\"file\"}", "file"), 0);
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/tlink\","
			      "\"name\":\"file\"}", "file"), 0);
	assert_int_equal(pull(state, "{\"op\":\"get\",\"path\":\"@/new\"}",
			      "here"), 0);
	run(state, "cmp file new && cmp file d/file && cmp file t &&"
	    "test -L tlink && cmp file here && test $(stat -c %a here) = 640");
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/no/such/dir\","
			      "\"name\":\"file\"}", "file"), -ENOENT);
	assert_int_equal(push(state, "{\"op\":\"put\",\"path\":\"@/no/such/dir\","
			      "\"name\":\"file\",\"parents\":true}", "file"), 0);
	run(state, "cmp file no/such/dir");
	assert_int_equal(pull(state, "{\"op\":\"get\",\"path\":\"@/absent\"}",
			      "x"), -ENOENT);
}

static void tar_block(struct buf *tar, char type, const char *name,
		      const char *link, const char *data)
{
	struct tar_head h = { .type = type };
	size_t len = strlen(data);

	snprintf(h.name, sizeof(h.name), "%s", name);
	snprintf(h.linkname, sizeof(h.linkname), "%s", link);
	tar_put_number(h.mode, 8, 0644);
	tar_put_number(h.uid, 8, geteuid());
	tar_put_number(h.gid, 8, getegid());
	tar_put_number(h.mtime, 12, 0);
	tar_put_number(h.size, 12, len);
	memcpy(h.magic, "ustar", 6);
	snprintf(h.sum, sizeof(h.sum), "%06o", tar_checksum(&h));
	buf_add(tar, &h, sizeof(h));
	buf_add(tar, data, len);
	while (tar->len % TAR_BLOCK)
		buf_add(tar, "", 1);
}

/* Sends a stream as it is: the errno of the refusal, or 0. */
static int put_raw(void **state, const struct buf *tar)
{
	int fd = request(state, "{\"op\":\"put\",\"path\":\"@/jail\"}"), num = 0;
	struct buf b = BUF_INIT;
	enum agent_frame type;

	peer_send(fd, AGENT_DATA, tar->data, tar->len);
	peer_send(fd, AGENT_EOF, "", 0);
	assert_int_equal(peer_recv(fd, &type, &b), 1);
	if (type == AGENT_FAIL)
		sscanf(b.data, "{\"errno\":%d", &num);
	buf_done(&b);
	close(fd);
	return num;
}

static void no_name_leads_out(void **state)
{
	struct buf tar = BUF_INIT;

	run(state, "mkdir jail outside; ln -s ../outside jail/old;"
	    "echo safe >outside/f");
	tar_block(&tar, '0', "../outside/f", "", "bad");
	assert_int_equal(put_raw(state, &tar), EBADMSG);
	buf_clear(&tar);
	tar_block(&tar, '0', "old/f", "", "bad");
	assert_int_equal(put_raw(state, &tar), EXDEV);
	buf_clear(&tar);
	tar_block(&tar, '2', "new", "/etc", "");
	tar_block(&tar, '0', "new/machinen-test", "", "bad");
	assert_int_equal(put_raw(state, &tar), EXDEV);
	buf_clear(&tar);
	tar_block(&tar, '1', "hard", "old/f", "");
	assert_int_equal(put_raw(state, &tar), EXDEV);
	buf_clear(&tar);
	tar_block(&tar, '0', "/abs/f", "", "inside");
	assert_int_equal(put_raw(state, &tar), 0);
	buf_done(&tar);
	run(state, "grep -q safe outside/f && grep -q inside jail/abs/f &&"
	    "test ! -e /etc/machinen-test");
}

static void damaged_streams_are_refused(void **state)
{
	struct buf tar = BUF_INIT;

	tar_block(&tar, '0', "x", "", "some data");
	tar.data[3] ^= 1;	/* the checksum does not fit any more */
	assert_int_equal(put_raw(state, &tar), EBADMSG);
	buf_clear(&tar);
	tar_block(&tar, '0', "x", "", "some data");
	tar.len = TAR_BLOCK + 4;	/* breaks off in a file */
	assert_int_equal(put_raw(state, &tar), EBADMSG);
	buf_clear(&tar);
	tar_block(&tar, 'x', "PaxHeader", "", "99 path=short\n");
	tar_block(&tar, '0', "x", "", "");
	assert_int_equal(put_raw(state, &tar), EBADMSG);
	buf_done(&tar);
}

static void hostile_guest_is_kept_in(void **state)
{
	static const struct {
		char type;
		const char *name, *link;
	} evil[] = {
		{ '0', "../escaped", "" }, { '0', "./a/../../escaped", "" },
		{ '1', "hard", "../../etc/passwd" }, { '3', "dev", "" },
	};

	for (size_t i = 0; i < ARRAY_LEN(evil); i++) {
		struct buf tar = BUF_INIT;
		struct err err;
		int sv[2];

		tar_block(&tar, evil[i].type, evil[i].name, evil[i].link,
			  evil[i].type == '0' ? "bad" : "");
		buf_add(&tar, (char[1024]){ 0 }, 1024);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
		peer_send(sv[0], AGENT_DATA, tar.data, tar.len);
		peer_send(sv[0], AGENT_EOF, "", 0);
		run(state, "mkdir -p pulled");
		if (evil[i].type != '3')
			assert_true(unpack(state, sv[1], "pulled", &err) < 0);
		else
			unpack(state, sv[1], "pulled", &err);
		close(sv[0]);
		close(sv[1]);
		buf_done(&tar);
	}
	run(state, "test ! -e escaped && test ! -e pulled/hard &&"
	    "test ! -e pulled/dev");
}

static void write_and_read(void **state)
{
	static char data[100000];
	struct buf b = BUF_INIT, all = BUF_INIT;
	enum agent_frame type;
	int fd;

	memset(data, 'x', sizeof(data));
	fd = request(state, "{\"op\":\"write\",\"path\":\"@/w/deep/file\","
		     "\"parents\":true,\"mode\":384}");
	peer_send(fd, AGENT_DATA, data, sizeof(data));
	peer_send(fd, AGENT_DATA, data, sizeof(data));
	peer_send(fd, AGENT_EOF, "", 0);
	assert_int_equal(answer(fd), 0);
	close(fd);
	fd = request(state, "{\"op\":\"write\",\"path\":\"@/w/deep/file\","
		     "\"append\":true}");
	peer_send(fd, AGENT_DATA, "end", 3);
	peer_send(fd, AGENT_EOF, "", 0);
	assert_int_equal(answer(fd), 0);
	close(fd);
	run(state, "test $(stat -c %s.%a w/deep/file) = 200003.600");
	fd = request(state, "{\"op\":\"read\",\"path\":\"@/w/deep/file\"}");
	assert_int_equal(answer(fd), 0);
	while (peer_recv(fd, &type, &b) && type == AGENT_DATA)
		buf_add(&all, b.data, b.len);
	assert_int_equal(type, AGENT_EOF);
	assert_int_equal(all.len, 200003);
	assert_string_equal(all.data + 199999, "xend");
	close(fd);
	buf_done(&b);
	buf_done(&all);
}

/* The guest refuses early and reads on, so the host finds out and never hangs. */
static void refusal_stops_a_long_write(void **state)
{
	static char data[AGENT_FRAME_MAX];
	int fd = request(state, "{\"op\":\"write\",\"path\":\"/dev/full\"}");

	for (int i = 0; i < 100; i++)
		peer_send(fd, AGENT_DATA, data, sizeof(data));
	peer_send(fd, AGENT_EOF, "", 0);
	assert_int_equal(answer(fd), -ENOSPC);
	close(fd);
}

static void secrets_stay_secret(void **state)
{
	struct peer_result r;
	struct buf b = BUF_INIT;
	enum agent_frame type;
	int fd = request(state, "{\"op\":\"secrets\",\"path\":\"@/sec\","
			 "\"env\":[\"TOKEN=t0p\"]}");

	assert_int_equal(peer_recv(fd, &type, &b), 1);
	assert_int_equal(type, AGENT_OK);
	close(fd);
	buf_done(&b);
	run(state, "test $(stat -c %a sec) = 600 && grep -qx TOKEN=t0p sec");
	peer_collect(peer_request(&fix(state)->agent, "{\"op\":\"exec\","
				  "\"shell\":\"echo $TOKEN\"}"), NULL, 0, &r);
	assert_string_equal(r.out.data, "t0p\n");
	peer_result_done(&r);
	assert_int_equal(peer_refused(&fix(state)->agent,
				      "{\"op\":\"secrets\",\"env\":[\"none\"]}"),
			 EINVAL);
}

static int start(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	peer_start(&f->agent, NULL);
	strcpy(f->dir, "/tmp/agent-files-XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static int stop(void **state)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "chmod -R u+w %s; rm -rf %s",
		 fix(state)->dir, fix(state)->dir);
	peer_stop(&fix(state)->agent);
	free(*state);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trees_survive_both_ways),
		cmocka_unit_test(into_a_directory_that_exists),
		cmocka_unit_test(single_files),
		cmocka_unit_test(no_name_leads_out),
		cmocka_unit_test(damaged_streams_are_refused),
		cmocka_unit_test(hostile_guest_is_kept_in),
		cmocka_unit_test(write_and_read),
		cmocka_unit_test(refusal_stops_a_long_write),
		cmocka_unit_test(secrets_stay_secret),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
