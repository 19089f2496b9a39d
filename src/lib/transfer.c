// SPDX-License-Identifier: MIT
/*
 * transfer.c - DATA frames to and from a guest; see transfer.h.
 *
 * While data is sent, the guest may refuse (its disk is full, say) and then
 * still reads on; so the sender looks for an answer before each frame, and
 * poll() watches both directions while the connection is full.
 */
#include "lib/transfer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/util.h"
#include "lib/agent_client.h"

void transfer_init(struct transfer *t, int fd, struct err *err)
{
	t->fd = fd;
	t->ended = false;
	t->len = 0;
	t->bytes = 0;
	t->err = err;
	t->progress = NULL;
	t->arg = NULL;
}

static int broken(struct transfer *t, int ret)
{
	return err_code(t->err, ERR_EXEC_AGENT_UNAVAILABLE,
			ret ? -ret : ECONNRESET,
			"the connection to the guest broke off");
}

/* The guest's word on a transfer that it has not finished. */
static int refusal(struct transfer *t)
{
	enum agent_frame type;
	int ret = agent_recv(t->fd, &type, t->data, &t->len);

	if (ret <= 0)
		return broken(t, ret);
	if (type == AGENT_FAIL)
		return agent_fail(t->data, t->len, ERR_HOST_FAILED, t->err);
	return err_code(t->err, ERR_EXEC_PROTOCOL, EPROTO,
			"the guest agent sent frame %d in a transfer", type);
}

/* Room to write: 0; an answer instead: what it says. */
static int wait_room(struct transfer *t)
{
	struct pollfd p = { .fd = t->fd, .events = POLLIN | POLLOUT };

	while (poll(&p, 1, -1) < 0)
		if (errno != EINTR)
			return broken(t, -errno);
	return p.revents & POLLOUT && !(p.revents & POLLIN) ? 0 : refusal(t);
}

static int send_frame(struct transfer *t, enum agent_frame type,
		      const void *data, size_t len)
{
	uint8_t head[AGENT_HEAD];
	struct iovec iov[2] = { { head, sizeof(head) },
				{ (void *)(uintptr_t)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	agent_head_put(head, type, (uint32_t)len);
	while (iov[0].iov_len || iov[1].iov_len) {
		int ret = wait_room(t);
		ssize_t n;

		if (ret)
			return ret;
		n = sendmsg(t->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return errno == EPIPE ? refusal(t) : broken(t, -errno);
		for (int i = 0; i < 2; i++) {
			size_t take = MIN((size_t)n, iov[i].iov_len);

			iov[i].iov_base = (char *)iov[i].iov_base + take;
			iov[i].iov_len -= take;
			n -= (ssize_t)take;
		}
	}
	return 0;
}

static int moved(struct transfer *t, size_t len)
{
	int ret;

	t->bytes += len;
	ret = t->progress ? t->progress(t->bytes, t->arg) : 0;
	return ret < 0 ? err_set(t->err, -ret, "the transfer was stopped") : 0;
}

int transfer_send(struct transfer *t, const void *data, size_t len)
{
	const char *p = data;
	int ret = 0;

	while (!ret && len) {
		size_t n = MIN(len, (size_t)AGENT_FRAME_MAX);

		ret = send_frame(t, AGENT_DATA, p, n);
		if (!ret)
			ret = moved(t, n);
		p += n;
		len -= n;
	}
	return ret;
}

int transfer_finish(struct transfer *t)
{
	int ret = send_frame(t, AGENT_EOF, NULL, 0);

	return ret ? ret : agent_answer(t->fd, NULL, ERR_HOST_FAILED, t->err);
}

ssize_t transfer_recv(struct transfer *t)
{
	enum agent_frame type;
	int ret;

	if (t->ended)
		return 0;
	do {
		ret = agent_recv(t->fd, &type, t->data, &t->len);
		if (ret <= 0)
			return broken(t, ret);
	} while (type == AGENT_DATA && !t->len);
	if (type == AGENT_EOF) {
		t->ended = true;
		return 0;
	}
	if (type == AGENT_FAIL)
		return agent_fail(t->data, t->len, ERR_HOST_FAILED, t->err);
	if (type != AGENT_DATA)
		return err_code(t->err, ERR_EXEC_PROTOCOL, EPROTO,
				"the guest agent sent frame %d in a transfer",
				type);
	ret = moved(t, t->len);
	return ret ? ret : (ssize_t)t->len;
}
