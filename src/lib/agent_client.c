// SPDX-License-Identifier: MIT
/* agent_client.c - the host's end of the agent protocol; see agent_client.h. */
#include "lib/agent_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/proc.h"
#include "lib/vm.h"

#define RETRY_FIRST_MS 2
#define RETRY_MAX_MS   40
#define HELLO_MAX      64	/* bytes of "OK <port>\n" */

/* -EAGAIN when nothing came until the deadline (0: wait for ever). */
static int wait_readable(int fd, int pidfd, uint64_t deadline)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
			       { .fd = pidfd, .events = POLLIN } };

	for (;;) {
		uint64_t now = io_now_ns();
		int left = !deadline ? -1 : now >= deadline ? 0 :
			   (int)MIN((deadline - now) / 1000000 + 1, 3600000ull);
		int n = poll(p, 2, left);

		if (n > 0)
			return p[0].revents ? 0 : -ESRCH;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n && deadline && io_now_ns() >= deadline)
			return -ETIMEDOUT;
	}
}

/* Reads "OK <n>\n", byte by byte: what follows belongs to the protocol. */
static int read_hello(int fd, int pidfd, uint64_t deadline)
{
	char line[HELLO_MAX];
	size_t len = 0;

	for (;;) {
		int ret = wait_readable(fd, pidfd, deadline);
		ssize_t n;

		if (ret)
			return ret;
		n = read(fd, line + len, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		if (line[len] == '\n')
			return len >= 2 && !memcmp(line, "OK", 2) ? 0 : -EPROTO;
		if (++len == sizeof(line))
			return -EPROTO;
	}
}

static int connect_once(int dir, int pidfd, uint64_t deadline)
{
	struct err err = ERR_INIT;
	int fd = socket_connect(dir, "agent", SOCK_STREAM, &err), ret;
	char hello[32];
	int n = snprintf(hello, sizeof(hello), "CONNECT %d\n", AGENT_PORT);

	if (fd < 0)
		return fd;
	ret = send(fd, hello, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -errno;
	if (!ret)
		ret = read_hello(fd, pidfd, deadline);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

int agent_connect(int dir, int pidfd, uint64_t deadline, struct err *err)
{
	int wait_ms = RETRY_FIRST_MS, ret;

	for (;;) {
		ret = connect_once(dir, pidfd, deadline);
		if (ret >= 0)
			return ret;
		if (ret == -ESRCH || ret == -EPROTO || ret == -ETIMEDOUT || !deadline)
			break;
		if (pidfd >= 0 && proc_wait(pidfd, wait_ms) > 0) {
			ret = -ESRCH;
			break;
		}
		if (pidfd < 0)
			poll(NULL, 0, wait_ms);
		wait_ms = MIN(2 * wait_ms, RETRY_MAX_MS);
		if (io_now_ns() >= deadline) {
			ret = -ETIMEDOUT;
			break;
		}
	}
	if (ret == -ESRCH)
		return err_code(err, ERR_EXEC_AGENT_UNAVAILABLE, ESRCH,
				"the VM has ended");
	return err_code(err, ERR_EXEC_AGENT_UNAVAILABLE, -ret,
			"the guest agent does not answer: %s", strerror(-ret));
}

int agent_send(int fd, enum agent_frame type, const void *data, size_t len)
{
	uint8_t head[AGENT_HEAD];
	struct iovec iov[2] = { { head, sizeof(head) },
				{ (void *)(uintptr_t)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (len > AGENT_FRAME_MAX)
		return -E2BIG;
	agent_head_put(head, type, (uint32_t)len);
	while (iov[0].iov_len || iov[1].iov_len) {
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (int i = 0; i < 2; i++) {
			size_t take = MIN((size_t)n, iov[i].iov_len);

			iov[i].iov_base = (char *)iov[i].iov_base + take;
			iov[i].iov_len -= take;
			n -= (ssize_t)take;
		}
	}
	return 0;
}

int agent_send_json(int fd, const json_t *doc)
{
	struct buf text = BUF_INIT;
	int ret;

	json_print_compact(doc, &text);
	ret = text.oom ? -ENOMEM : !text.len ? -EILSEQ :
	      agent_send(fd, AGENT_REQ, text.data, text.len);
	buf_done(&text);
	return ret;
}

int agent_recv(int fd, enum agent_frame *type, void *data, uint32_t *len)
{
	uint8_t head[AGENT_HEAD];
	ssize_t n = io_read_full(fd, head, sizeof(head));

	if (n <= 0)
		return (int)n;
	if (n != sizeof(head) || !agent_head_get(head, type, len))
		return -EPROTO;
	n = io_read_full(fd, data, *len);
	return n < 0 ? (int)n : n == *len ? 1 : -EPROTO;
}

int agent_fail(const void *data, size_t len, enum err_code code, struct err *err)
{
	cleanup(json_putp) json_t *doc = json_parse(data, len, NULL);
	int num = (int)json_int_opt(doc, "errno", 1, 4095, EIO, NULL);

	return err_code(err, code, num, "%s",
			json_str_opt(doc, "message", "the guest refused", NULL));
}

int agent_answer(int fd, json_t **answer, enum err_code code, struct err *err)
{
	char data[AGENT_FRAME_MAX];
	enum agent_frame type;
	uint32_t len;
	int ret = agent_recv(fd, &type, data, &len);

	if (ret <= 0)
		return err_code(err, ret == -EPROTO ? ERR_EXEC_PROTOCOL :
				ERR_EXEC_AGENT_UNAVAILABLE, ret ? -ret : ECONNRESET,
				"the guest agent went away");
	if (type == AGENT_FAIL)
		return agent_fail(data, len, code, err);
	if (type != AGENT_OK)
		return err_code(err, ERR_EXEC_PROTOCOL, EPROTO,
				"the guest agent answered with frame %d", type);
	if (answer) {
		*answer = json_parse(data, len, err);
		if (!*answer)
			return err_code(err, ERR_EXEC_PROTOCOL, EPROTO,
					"the guest agent's answer is no JSON");
	}
	return 0;
}

int agent_request(int dir, int pidfd, const json_t *req, json_t **answer,
		  struct err *err)
{
	int fd = agent_connect(dir, pidfd, 0, err);
	int ret;

	if (fd < 0)
		return fd;
	ret = agent_send_json(fd, req);
	if (ret)
		err_code(err, ERR_EXEC_AGENT_UNAVAILABLE, -ret,
			 "cannot send to the guest agent: %s", strerror(-ret));
	else
		ret = agent_answer(fd, answer, ERR_EXEC_NONZERO_EXIT, err);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}
