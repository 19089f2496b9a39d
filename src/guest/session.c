// SPDX-License-Identifier: MIT
/*
 * session.c - one connection: frames in, frames out, requests; see agent.h.
 *
 * Reading goes through the agent's one scratch buffer, and only an incomplete
 * frame is kept with the session, so an idle session costs a few hundred bytes.
 * Writing gathers what is small until the batch of events ends, as each write
 * is a packet and each packet an exit to the VMM: the end of a short command is
 * one packet, not three.  What the connection does not take is kept, and while
 * it is `blocked` the producer (a command's output) is not read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/guest.h"

#define SESSION_LINGER_MS 1000
#define SESSION_GATHER 4096	/* less than this waits for the batch to end */

static void on_conn(struct watch *w, uint32_t events);

static const struct {
	const char *op;
	void (*run)(struct session *s, const struct doc *d);
} operations[] = {
	{ "exec", exec_request }, { "run", exec_request },
	{ "main", exec_main_join },
	{ "thaw", thaw_request }, { "clock", clock_request }, { "stats", stats_request },
	{ "put", worker_request }, { "get", worker_request },
	{ "write", worker_request }, { "read", worker_request },
	{ "sync", worker_request }, { "freeze", worker_request },
	{ "mount", worker_request }, { "secrets", worker_request },
};

struct session *session_new(struct agent *a, int fd)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->a = a;
	s->conn.fd = -1;
	for (int i = 0; i < 3; i++)
		s->std[i].fd = -1;
	if (fd >= 0 && watch_add(a, &s->conn, fd, EPOLLIN | EPOLLRDHUP, on_conn)) {
		free(s);
		return NULL;
	}
	list_init(&s->dirty);
	list_add_tail(&a->sessions, &s->node);
	a->nr_sessions++;
	return s;
}

void session_close(struct session *s)
{
	if (s->closed)
		return;
	s->closed = true;
	s->deadline = 0;
	watch_close(s->a, &s->conn);
	exec_close(s);
	list_del(&s->dirty);
	list_del(&s->node);
	list_add_tail(&s->a->dead, &s->node);
	s->a->nr_sessions--;
}

/* The connection is gone, or of no use. */
static void forget_output(struct session *s)
{
	buf_done(&s->out);
	s->blocked = false;
	list_del(&s->dirty);
}

void session_drop(struct session *s)
{
	watch_close(s->a, &s->conn);
	forget_output(s);
	if (s->state == SESSION_EXEC)
		exec_hangup(s);
	else
		session_close(s);
}

/* Output goes to the console from here on. */
void session_console(struct session *s)
{
	int fd = s->a->g->console;

	s->raw = true;
	forget_output(s);
	buf_clear(&s->in);
	fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (fd >= 0 && watch_add(s->a, &s->conn, fd, 0, on_conn))
		close(fd);
}

void session_adopt(struct session *s, int fd)
{
	watch_close(s->a, &s->conn);
	forget_output(s);
	s->raw = false;
	if (watch_add(s->a, &s->conn, fd, EPOLLIN | EPOLLRDHUP, on_conn))
		close(fd);
}

static void wait_writable(struct session *s, bool on)
{
	uint32_t in = s->raw ? 0 : EPOLLIN | EPOLLRDHUP;

	watch_mod(s->a, &s->conn, in | (on ? EPOLLOUT : 0));
}

/* Writes what is gathered; what is left then waits for EPOLLOUT. */
static void flush(struct session *s)
{
	ssize_t n = write(s->conn.fd, s->out.data, s->out.len);
	bool was_blocked = s->blocked;

	list_del(&s->dirty);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		session_drop(s);
		return;
	}
	if (n > 0)
		buf_drop(&s->out, n);
	s->blocked = s->out.len > 0;
	wait_writable(s, s->blocked);
	if (s->blocked)
		return;
	buf_done(&s->out);
	if (s->state == SESSION_EXEC && was_blocked)
		exec_unblocked(s);
	else if (s->state == SESSION_LINGER && s->raw)
		session_close(s);
	else if (s->state == SESSION_LINGER)
		shutdown(s->conn.fd, SHUT_WR);
}

void session_flush_all(struct agent *a)
{
	while (!list_empty(&a->dirty))
		flush(list_entry(a->dirty.next, struct session, dirty));
}

/* Big pieces go out at once, without a copy when the connection takes them. */
static void push(struct session *s, const void *data, size_t len)
{
	ssize_t n = 0;

	if (s->conn.fd < 0)
		return;
	if (!s->out.len && len >= SESSION_GATHER) {
		n = write(s->conn.fd, data, len);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			session_drop(s);
			return;
		}
		n = n < 0 ? 0 : n;
		if ((size_t)n == len)
			return;
	}
	buf_add(&s->out, (const char *)data + n, len - n);
	if (s->out.oom) {
		session_drop(s);
	} else if (s->blocked) {
		return;
	} else if (s->out.len >= SESSION_GATHER || n) {
		flush(s);
	} else {
		list_del(&s->dirty);
		list_add_tail(&s->a->dirty, &s->dirty);
	}
}

void session_send_scratch(struct session *s, enum agent_frame type, size_t len)
{
	uint8_t *frame = s->a->scratch;

	if (s->raw) {
		if (type == AGENT_STDOUT || type == AGENT_STDERR)
			push(s, frame + AGENT_HEAD, len);
		return;
	}
	agent_head_put(frame, type, len);
	push(s, frame, AGENT_HEAD + len);
}

void session_send(struct session *s, enum agent_frame type, const void *data,
		  size_t len)
{
	memcpy(s->a->scratch + AGENT_HEAD, data, len);
	session_send_scratch(s, type, len);
}

void session_ok(struct session *s)
{
	session_send(s, AGENT_OK, "{}", 2);
}

void session_fail(struct session *s, int error, const char *message)
{
	char json[256];

	/* messages are ours: nothing in them needs escaping */
	snprintf(json, sizeof(json), "{\"errno\":%d,\"message\":\"%s\"}", error,
		 message);
	session_send(s, AGENT_FAIL, json, strlen(json));
	session_linger(s);
}

void session_linger(struct session *s)
{
	if (s->closed)
		return;
	s->state = SESSION_LINGER;
	s->deadline = agent_now_ms() + SESSION_LINGER_MS;
	if (s->conn.fd < 0 || (s->raw && !s->out.len))
		session_close(s);
	else if (!s->out.len)
		shutdown(s->conn.fd, SHUT_WR);
}

void session_expired(struct session *s)
{
	s->deadline = 0;
	if (s->state == SESSION_EXEC)
		exec_expired(s);
	else
		session_close(s);
}

static void request(struct session *s, const uint8_t *data, size_t len)
{
	struct doc d;
	const char *op;
	int r = doc_parse(&d, data, len);

	if (r) {
		session_fail(s, -r, "the request is not understood");
		return;
	}
	op = doc_str(&d, doc_get(&d, DOC_ROOT, "op"));
	if (op && !strcmp(op, "poweroff")) {
		session_ok(s);
		session_linger(s);
		agent_stop(s->a);
		doc_done(&d);
		return;
	}
	for (size_t i = 0; op && i < ARRAY_LEN(operations); i++) {
		if (strcmp(op, operations[i].op))
			continue;
		operations[i].run(s, &d);
		doc_done(&d);
		return;
	}
	session_fail(s, ENOSYS, "the request is not known");
	doc_done(&d);
}

static void frame(struct session *s, enum agent_frame type, const uint8_t *data,
		  size_t len)
{
	if (s->state == SESSION_EXEC)
		exec_frame(s, type, data, len);
	else if (s->state == SESSION_REQUEST && type == AGENT_REQ)
		request(s, data, len);
	else if (s->state == SESSION_REQUEST)
		session_fail(s, EPROTO, "a request must come first");
}

/* Handles the complete frames of s->in; what is left is the start of one. */
static void parse(struct session *s)
{
	struct buf in = s->in;	/* taken over: a handler may close the session */
	size_t at = 0;

	s->in = (struct buf)BUF_INIT;
	while (!s->closed && s->conn.fd >= 0 && in.len - at >= AGENT_HEAD) {
		const uint8_t *p = (const uint8_t *)in.data + at;
		enum agent_frame type;
		uint32_t len;

		if (!agent_head_get(p, &type, &len)) {
			session_drop(s);
			break;
		}
		if (in.len - at - AGENT_HEAD < len)
			break;
		at += AGENT_HEAD + len;
		if (s->state == SESSION_REQUEST && in.len > at)
			buf_add(&s->in, in.data + at, in.len - at);
		frame(s, type, p + AGENT_HEAD, len);
		buf_clear(&s->in);
	}
	if (!s->closed && s->conn.fd >= 0 && at < in.len)
		buf_add(&s->in, in.data + at, in.len - at);
	buf_done(&in);
}

static void on_conn(struct watch *w, uint32_t events)
{
	struct session *s = container_of(w, struct session, conn);
	ssize_t n;

	if (s->raw && events & (EPOLLHUP | EPOLLERR))
		watch_close(s->a, &s->conn);
	else if (s->blocked && events & EPOLLOUT)
		flush(s);
	if (s->closed || s->conn.fd < 0 || s->raw ||
	    !(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		return;
	n = read(s->conn.fd, s->a->scratch, sizeof(s->a->scratch));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		session_drop(s);
		return;
	}
	if (s->state == SESSION_LINGER)
		return;
	buf_add(&s->in, s->a->scratch, n);
	if (s->in.oom)
		session_drop(s);
	else
		parse(s);
}
