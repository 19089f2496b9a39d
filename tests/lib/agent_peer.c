// SPDX-License-Identifier: MIT
/* agent_peer.c - the guest agent on the host; see agent_peer.h. */
#include "agent_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "guest/agent.h"
#include "guest/guest.h"

static _Noreturn void serve(int listen_fd, const char *config, bool pid1)
{
	struct guest g = { .console = -1, .kmsg = -1, .random = -1 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);	/* the test framework's handlers */
	g.pid1 = pid1;
	g.console = open("/dev/null", O_WRONLY | O_CLOEXEC);
	g.proc = open("/proc", O_PATH | O_CLOEXEC);
	/* the multiplexer beside devpts: the one inside may be root's alone */
	g.pts = open("/dev", O_PATH | O_CLOEXEC);
	if (config && doc_parse(&g.config, config, strlen(config)))
		_exit(3);
	_exit(agent_run(&g, listen_fd) ? 4 : 0);
}

static int listen_at(struct peer_agent *a)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd;

	strcpy(a->dir, "/tmp/agent-test-XXXXXX");
	assert_non_null(mkdtemp(a->dir));
	snprintf(a->path, sizeof(a->path), "%s/s", a->dir);
	memcpy(sun.sun_path, a->path, strlen(a->path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	assert_return_code(listen(fd, 256), errno);
	signal(SIGPIPE, SIG_IGN);
	return fd;
}

void peer_start(struct peer_agent *a, const char *config)
{
	int fd = listen_at(a);

	a->pid = fork();
	assert_true(a->pid >= 0);
	if (!a->pid)
		serve(fd, config, false);
	close(fd);
}

bool peer_start_pid1(struct peer_agent *a, const char *config)
{
	int fd = listen_at(a);

	a->pid = syscall(SYS_clone, SIGCHLD | CLONE_NEWPID |
			 (geteuid() ? CLONE_NEWUSER : 0), 0, 0, 0, 0);
	if (!a->pid)
		serve(fd, config, true);
	close(fd);
	if (a->pid > 0)
		return true;
	unlink(a->path);
	rmdir(a->dir);
	return false;
}

int peer_stop(struct peer_agent *a)
{
	int status = 0;

	kill(a->pid, SIGKILL);
	waitpid(a->pid, &status, 0);
	unlink(a->path);
	rmdir(a->dir);
	return status;
}

int peer_connect(const struct peer_agent *a)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sun.sun_path, a->path, strlen(a->path) + 1);
	assert_return_code(connect(fd, (struct sockaddr *)&sun, sizeof(sun)),
			   errno);
	return fd;
}

static int read_all(int fd, void *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		/* a test that hangs is a test that fails */
		assert_int_equal(poll(&p, 1, 20000), 1);
		n = read(fd, (char *)data + at, len - at);
		if (n <= 0)
			return 0;
		at += n;
	}
	return 1;
}

void peer_send(int fd, enum agent_frame type, const void *data, size_t len)
{
	uint8_t frame[AGENT_HEAD + AGENT_FRAME_MAX];

	assert_true(len <= AGENT_FRAME_MAX);
	agent_head_put(frame, type, len);
	if (len)
		memcpy(frame + AGENT_HEAD, data, len);
	/* the agent may have closed: what it said is still to be read */
	for (size_t at = 0; at < AGENT_HEAD + len; ) {
		ssize_t n = write(fd, frame + at, AGENT_HEAD + len - at);

		if (n <= 0)
			return;
		at += n;
	}
}

int peer_recv(int fd, enum agent_frame *type, struct buf *data)
{
	uint8_t head[AGENT_HEAD];
	uint32_t len;
	char *p;

	buf_clear(data);
	if (!read_all(fd, head, sizeof(head)))
		return 0;
	assert_true(agent_head_get(head, type, &len));
	p = buf_reserve(data, len + 1);
	assert_true(read_all(fd, p, len));
	p[len] = '\0';
	data->len = len;
	return 1;
}

int peer_request(const struct peer_agent *a, const char *json)
{
	struct buf b = BUF_INIT;
	enum agent_frame type;
	int fd = peer_connect(a);

	peer_send(fd, AGENT_REQ, json, strlen(json));
	assert_int_equal(peer_recv(fd, &type, &b), 1);
	if (type != AGENT_OK)
		print_message("# %s: %s\n", json, b.data);
	assert_int_equal(type, AGENT_OK);
	buf_done(&b);
	return fd;
}

int peer_refused(const struct peer_agent *a, const char *json)
{
	struct buf b = BUF_INIT;
	enum agent_frame type;
	int fd = peer_connect(a), num = 0;

	peer_send(fd, AGENT_REQ, json, strlen(json));
	assert_int_equal(peer_recv(fd, &type, &b), 1);
	assert_int_equal(type, AGENT_FAIL);
	assert_int_equal(sscanf(b.data, "{\"errno\":%d,", &num), 1);
	buf_done(&b);
	close(fd);
	return num;
}

struct feed {
	int fd;
	const uint8_t *data;
	size_t left;
	uint32_t window;
	int end;
};

static void feed(struct feed *f)
{
	while (f->left && f->window) {
		size_t n = MIN(f->left, (size_t)f->window);

		n = MIN(n, (size_t)60000);

		peer_send(f->fd, AGENT_STDIN, f->data, n);
		f->data += n;
		f->left -= n;
		f->window -= n;
	}
	if (!f->left && !f->end) {
		peer_send(f->fd, AGENT_STDIN, "", 0);
		f->end = 1;
	}
}

static uint32_t le32(const struct buf *b)
{
	const uint8_t *p = (const uint8_t *)b->data;

	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

void peer_collect(int fd, const void *input, size_t len, struct peer_result *r)
{
	struct feed f = { fd, input, len, AGENT_WINDOW, 0 };
	struct buf b = BUF_INIT;
	enum agent_frame type;

	*r = (struct peer_result){ .exits = 0 };
	feed(&f);
	while (peer_recv(fd, &type, &b)) {
		assert_int_equal(r->exits, 0);	/* EXIT is last */
		if (type == AGENT_STDOUT) {
			buf_add(&r->out, b.data, b.len);
		} else if (type == AGENT_STDERR) {
			buf_add(&r->err, b.data, b.len);
		} else if (type == AGENT_CREDIT) {
			f.window += le32(&b);
			assert_true(f.window <= AGENT_WINDOW);
			feed(&f);
		} else {
			assert_int_equal(type, AGENT_EXIT);
			r->status = le32(&b);
			r->by_signal = b.data[4];
			r->exits++;
		}
	}
	buf_add(&r->out, "", 0);
	buf_add(&r->err, "", 0);
	buf_done(&b);
	close(fd);
}

void peer_result_done(struct peer_result *r)
{
	buf_done(&r->out);
	buf_done(&r->err);
}

void peer_expect(int fd, const char *text)
{
	struct buf all = BUF_INIT, b = BUF_INIT;
	enum agent_frame type;

	while (!all.len || !strstr(all.data, text)) {
		assert_true(peer_recv(fd, &type, &b));
		if (type == AGENT_STDOUT)
			buf_add(&all, b.data, b.len);
	}
	buf_done(&all);
	buf_done(&b);
}
