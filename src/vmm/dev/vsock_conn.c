// SPDX-License-Identifier: MIT
/*
 * vsock_conn.c - the connections of virtio-vsock: their Unix sockets.
 *
 * A connection's life:
 *
 *	LINE --"CONNECT p"--> REQUEST --guest accepts--> OPEN
 *	OPEN --both sides shut, client gone--> CLOSING --guest resets--> freed
 *	OPEN --guest resets--> FLUSH --buffer empty--> freed
 *	any --violation, time out--> RESET --reset sent--> freed
 *
 * Guest to host: the guest may have `alloc` bytes under way that we have not
 * passed on (5.10.6.3).  They are written to the socket at once where possible,
 * else buffered; more than alloc is a violation and ends the connection, so the
 * buffer cannot outgrow it.  Passing on is told after each quarter of the window,
 * early enough that a sender never runs dry.
 *
 * Host to guest: the socket is read only as far as the guest has credit, so what
 * it cannot take stays in the socket and stops the client.
 *
 * A socket that hung up stays "ready" for epoll whatever is asked for.  Where we
 * cannot read it now (no credit), it is not watched any more (`hup`); from then on
 * the line of ready connections drives it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "vmm/dev/vsock.h"

#define PORT_BASE	0x40000000u	/* clear of ports that guests listen on */
#define PORT_SLOT_BITS	12
#define RETRY_NS	(100 * 1000 * 1000ull)
#define HOLD_NS		(2 * NSEC_PER_SEC)	/* for a driver to notice a transport reset */
#define READ_MAX	(64u << 10)	/* a turn */
_Static_assert(LIMIT_VSOCK_CONNS == 1 << PORT_SLOT_BITS, "slot is part of the port");

static struct loop *loop_of(struct conn *c)
{
	return c->v->dev.env.loop;
}

static void set_timer(struct conn *c, unsigned ms)
{
	loop_timer_set(loop_of(c), &c->timer, io_now_ns() + ms * 1000000ull);
}

/* --- the table -------------------------------------------------------------------- */

struct conn *vsock_find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
	struct conn *c = v->conn[host_port % LIMIT_VSOCK_CONNS];

	return c && c->host_port == host_port && c->guest_port == guest_port &&
	       c->state != CONN_LINE && c->state != CONN_FLUSH &&
	       c->state != CONN_RESET ? c : NULL;
}

static unsigned free_slot(struct vsock *v)
{
	while (v->conn[v->next_slot % LIMIT_VSOCK_CONNS])
		v->next_slot++;
	return v->next_slot++ % LIMIT_VSOCK_CONNS;
}

static void close_socket(struct conn *c)
{
	loop_del(loop_of(c), &c->sock);
	io_close(c->sock.fd);
	c->sock.fd = -1;
	buf_done(&c->out);
	c->out_off = 0;
}

void conn_free(struct conn *c)
{
	struct vsock *v = c->v;

	close_socket(c);
	loop_timer_cancel(loop_of(c), &c->timer);
	list_del(&c->ready);
	v->conn[c->host_port % LIMIT_VSOCK_CONNS] = NULL;
	v->nr_conns--;
	v->granted -= c->alloc;
	free(c);
	if (v->listener.fd >= 0)
		loop_mod(v->dev.env.loop, &v->listener, EPOLLIN);
}

void vsock_drop_all(struct vsock *v)
{
	for (unsigned i = 0; i < LIMIT_VSOCK_CONNS; i++)
		if (v->conn[i])
			conn_free(v->conn[i]);
}

/* --- closing ---------------------------------------------------------------------- */

void conn_abort(struct conn *c)
{
	close_socket(c);
	loop_timer_cancel(loop_of(c), &c->timer);
	c->state = CONN_RESET;
	c->owe = OWE_RST;
	vsock_ready(c);
}

static void owe_shutdown(struct conn *c, uint8_t flags)
{
	c->told_shut |= flags;
	c->owe |= OWE_SHUTDOWN;
	vsock_ready(c);
}

/* The client is gone.  The guest answers a full shutdown with a reset. */
static void client_gone(struct conn *c)
{
	if (c->guest_shut == VSOCK_SHUT_BOTH) {
		conn_abort(c);
		return;
	}
	close_socket(c);
	c->state = CONN_CLOSING;
	set_timer(c, LIMIT_VSOCK_CLOSE_MS);
	owe_shutdown(c, VSOCK_SHUT_BOTH);
}

/* The client sends no more: did it only shut that side, or leave? */
static void client_eof(struct conn *c)
{
	struct pollfd p = { .fd = c->sock.fd };

	c->host_eof = true;
	if (c->hup || (poll(&p, 1, 0) == 1 && p.revents & POLLHUP))
		client_gone(c);
	else
		owe_shutdown(c, VSOCK_SHUT_SEND);
}

/* All the guest sent has been passed on: now its shutdown takes effect. */
static void flushed(struct conn *c)
{
	if (c->state == CONN_FLUSH)
		conn_free(c);
	else if (c->guest_shut == VSOCK_SHUT_BOTH)
		conn_abort(c);
	else if (c->guest_shut & VSOCK_SHUT_SEND)
		shutdown(c->sock.fd, SHUT_WR);
}

/* --- guest to host ---------------------------------------------------------------- */

static size_t buffered(const struct conn *c)
{
	return c->out.len - c->out_off;
}

static void passed_on(struct conn *c, size_t n)
{
	c->fwd += n;
	if (c->fwd - c->told_fwd >= c->alloc / 4 && c->state == CONN_OPEN) {
		c->owe |= OWE_CREDIT;
		vsock_ready(c);
	}
}

/* As much as the socket takes; 0 or more, -errno when it is dead. */
static ssize_t send_some(struct conn *c, struct iovec *iov, unsigned nr)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n = sendmsg(c->sock.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/* Keeps the rest of a packet; only what is within the window comes here. */
static bool keep(struct conn *c, struct chain *ch, size_t len)
{
	void *p;

	if (c->out_off >= buffered(c)) {
		buf_drop(&c->out, c->out_off);
		c->out_off = 0;
	}
	p = buf_reserve(&c->out, len);
	if (!p)
		return false;
	c->out.len += chain_read(ch, p, len);
	conn_watch(c, c->sock.events & EPOLLIN);
	return true;
}

void conn_data(struct conn *c, struct chain *ch, uint32_t len)
{
	struct iovec iov[LIMIT_QUEUE_SIZE];
	ssize_t n = 0;

	if (c->state == CONN_CLOSING)
		return;		/* sent before it heard of our shutdown */
	if (c->state != CONN_OPEN || c->guest_shut & VSOCK_SHUT_SEND ||
	    len > c->alloc - (c->received - c->fwd)) {
		log_once(c->v->complained, "vsock",
			 "a guest packet outside its connection's window or life");
		conn_abort(c);
		return;
	}
	c->received += len;
	if (!buffered(c))
		n = send_some(c, iov, chain_out_iov(ch, len, iov, LIMIT_QUEUE_SIZE));
	if (n < 0) {
		client_gone(c);
		return;
	}
	chain_skip_out(ch, n);
	passed_on(c, n);
	if ((size_t)n < len && !keep(c, ch, len - n))
		conn_abort(c);
}

static void flush_out(struct conn *c)
{
	struct iovec iov = { c->out.data + c->out_off, buffered(c) };
	ssize_t n = buffered(c) ? send_some(c, &iov, 1) : 0;

	if (n < 0) {
		if (c->state == CONN_FLUSH)
			conn_free(c);
		else
			client_gone(c);
		return;
	}
	c->out_off += n;
	passed_on(c, n);
	if (buffered(c))
		return;
	buf_done(&c->out);
	c->out_off = 0;
	conn_watch(c, c->sock.events & EPOLLIN);
	flushed(c);
}

void conn_shutdown(struct conn *c, uint32_t flags)
{
	if (c->state == CONN_CLOSING)
		c->guest_shut |= flags & VSOCK_SHUT_BOTH;
	if (c->state != CONN_OPEN) {
		if (c->state != CONN_CLOSING || c->guest_shut == VSOCK_SHUT_BOTH)
			conn_abort(c);
		return;
	}
	c->guest_shut |= flags & VSOCK_SHUT_BOTH;
	if (c->guest_shut & VSOCK_SHUT_RCV) {
		/* The client's next write fails, as it would in one system. */
		conn_watch(c, false);
		shutdown(c->sock.fd, SHUT_RD);
	}
	if (!buffered(c))
		flushed(c);
}

void conn_guest_reset(struct conn *c)
{
	if (c->state != CONN_OPEN || !buffered(c) || c->hup) {
		conn_free(c);
		return;
	}
	c->state = CONN_FLUSH;
	c->owe = 0;
	list_del(&c->ready);
	conn_watch(c, false);
}

/* --- host to guest ---------------------------------------------------------------- */

size_t conn_may_read(const struct conn *c)
{
	uint32_t flying = c->sent - c->peer_fwd;

	if (c->host_eof || c->guest_shut & VSOCK_SHUT_RCV ||
	    flying >= c->peer_alloc)
		return 0;
	return MIN(c->peer_alloc - flying, READ_MAX);
}

ssize_t conn_read(struct conn *c, const struct iovec *iov, unsigned nr)
{
	ssize_t n = readv(c->sock.fd, iov, nr);

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		conn_watch(c, true);
		return 0;
	}
	if (n > 0)
		conn_watch(c, true);
	else if (!n)
		client_eof(c);
	else
		client_gone(c);
	return n;
}

void conn_watch(struct conn *c, bool in)
{
	uint32_t events = (in ? EPOLLIN : 0) | (buffered(c) ? EPOLLOUT : 0);

	if (c->sock.added)
		loop_mod(loop_of(c), &c->sock, events);
}

/* --- opening ---------------------------------------------------------------------- */

/* The guest said yes: so does the first line the client reads. */
void conn_accepted(struct conn *c)
{
	char ok[32];
	int n = snprintf(ok, sizeof(ok), "OK %u\n", c->host_port);
	struct iovec iov = { ok, n };

	if (c->state != CONN_REQUEST || c->owe & OWE_REQUEST) {
		conn_abort(c);
		return;
	}
	loop_timer_cancel(loop_of(c), &c->timer);
	c->state = CONN_OPEN;
	if (send_some(c, &iov, 1) != n)
		client_gone(c);
	else
		vsock_ready(c);		/* the client may have sent more */
}

/* "CONNECT <port>\n"; -1 when it is not. */
static int64_t parse_line(const char *line, unsigned len)
{
	static const char verb[] = "CONNECT ";
	uint64_t port = 0;
	unsigned i = sizeof(verb) - 1;

	if (len < sizeof(verb) + 1 || memcmp(line, verb, i) || len - i > 11)
		return -1;
	for (; i < len - 1; i++) {
		if (line[i] < '0' || line[i] > '9')
			return -1;
		port = port * 10 + (line[i] - '0');
	}
	return port <= UINT32_MAX ? (int64_t)port : -1;
}

static void got_line(struct conn *c)
{
	int64_t port = parse_line(c->line, c->line_len);

	if (port < 0 || !virtio_live(&c->v->dev)) {
		conn_free(c);
		return;
	}
	c->guest_port = port;
	c->state = CONN_REQUEST;
	c->owe |= OWE_REQUEST;
	conn_watch(c, false);
	set_timer(c, LIMIT_VSOCK_OPEN_MS);
	vsock_ready(c);
	vsock_feed(c->v);
}

/* Takes the line from the socket and not a byte of what follows it. */
static void read_line(struct conn *c)
{
	char *at = c->line + c->line_len;
	ssize_t n = recv(c->sock.fd, at, sizeof(c->line) - c->line_len,
			 MSG_PEEK | MSG_DONTWAIT);
	const char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_free(c);
		return;
	}
	end = memchr(at, '\n', n);
	if (end)
		n = end - at + 1;
	if (recv(c->sock.fd, at, n, MSG_DONTWAIT) != n) {
		conn_free(c);
		return;
	}
	c->line_len += n;
	if (end)
		got_line(c);
	else if (c->line_len == sizeof(c->line))
		conn_free(c);
}

/* --- events ----------------------------------------------------------------------- */

/* Hung up while we were not reading: see the top of the file. */
static void hung_up(struct conn *c)
{
	switch (c->state) {
	case CONN_LINE:
	case CONN_FLUSH:
		conn_free(c);
		break;
	case CONN_REQUEST:
		conn_abort(c);
		break;
	default:
		c->hup = true;
		loop_del(loop_of(c), &c->sock);
		if (c->host_eof || c->guest_shut & VSOCK_SHUT_RCV)
			client_gone(c);
		else
			vsock_ready(c);
	}
}

static void sock_event(struct loop_fd *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, sock);
	struct vsock *v = c->v;
	bool gone;

	virtio_lock(&v->dev);
	gone = v->reset_pending;
	virtio_unlock(&v->dev);
	vsock_enter(v);
	if (gone)
		goto out;	/* vsock_enter() freed it */
	if (events & (EPOLLHUP | EPOLLERR) && !(events & EPOLLIN && c->state == CONN_LINE))
		hung_up(c);
	else if (c->state == CONN_LINE)
		read_line(c);
	else if (events & EPOLLOUT)
		flush_out(c);
	else if (events & EPOLLIN)
		vsock_ready(c);
	vsock_feed(v);
out:
	vsock_leave(v);
}

static void timed_out(struct loop_timer *t)
{
	struct conn *c = container_of(t, struct conn, timer);
	struct vsock *v = c->v;

	virtio_lock(&v->dev);
	if (c->state == CONN_LINE)
		conn_free(c);
	else
		conn_abort(c);
	vsock_feed(v);
	virtio_unlock(&v->dev);
}

static uint32_t window(const struct vsock *v)
{
	return v->granted + LIMIT_VSOCK_WINDOW <= LIMIT_VSOCK_BUDGET
		       ? LIMIT_VSOCK_WINDOW : LIMIT_VSOCK_WINDOW_MIN;
}

static void conn_new(struct vsock *v, int fd)
{
	struct conn *c = calloc(1, sizeof(*c));
	unsigned slot;

	if (!c) {
		close(fd);
		return;
	}
	c->v = v;
	c->sock = (struct loop_fd){ .fd = fd, .events = EPOLLIN, .cb = sock_event };
	list_init(&c->ready);
	loop_timer_init(&c->timer, timed_out);
	if (loop_add(v->dev.env.loop, &c->sock) < 0) {
		close(fd);
		free(c);
		return;
	}
	slot = free_slot(v);
	/* A port is not used again soon: late packets find nobody. */
	c->host_port = PORT_BASE | (v->port_round++ & 0x3ffff) << PORT_SLOT_BITS | slot;
	c->alloc = window(v);
	v->granted += c->alloc;
	v->conn[slot] = c;
	v->nr_conns++;
	set_timer(c, LIMIT_VSOCK_OPEN_MS);
}

/* Out of slots or descriptors: the backlog waits. */
static void stop_accepting(struct vsock *v, bool retry)
{
	loop_mod(v->dev.env.loop, &v->listener, 0);
	if (retry)
		loop_timer_set(v->dev.env.loop, &v->accept_retry, io_now_ns() + RETRY_NS);
}

void vsock_accept_again(struct vsock *v)
{
	loop_timer_cancel(v->dev.env.loop, &v->accept_retry);
	if (v->listener.fd >= 0)
		loop_mod(v->dev.env.loop, &v->listener, EPOLLIN);
}

/* Not for ever: the guest may have no driver. */
void vsock_hold(struct vsock *v)
{
	if (v->listener.fd < 0)
		return;
	loop_mod(v->dev.env.loop, &v->listener, 0);
	loop_timer_set(v->dev.env.loop, &v->accept_retry, io_now_ns() + HOLD_NS);
}

static void accept_again(struct loop_timer *t)
{
	vsock_accept_again(container_of(t, struct vsock, accept_retry));
}

static void accept_some(struct loop_fd *w, uint32_t events)
{
	struct vsock *v = container_of(w, struct vsock, listener);
	int fd = 0;

	vsock_enter(v);
	while (v->nr_conns < LIMIT_VSOCK_CONNS && fd >= 0) {
		fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			conn_new(v, fd);
	}
	if (v->nr_conns == LIMIT_VSOCK_CONNS)
		stop_accepting(v, false);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		stop_accepting(v, true);
	vsock_leave(v);
}

int vsock_listen(struct vsock *v, int fd, struct err *err)
{
	int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int ret;

	v->listener = (struct loop_fd){ .fd = own, .events = EPOLLIN, .cb = accept_some };
	loop_timer_init(&v->accept_retry, accept_again);
	if (fd < 0)
		return 0;
	ret = own < 0 ? -errno : io_set_nonblock(own, true);
	if (!ret)
		ret = loop_add(v->dev.env.loop, &v->listener);
	return ret < 0 ? err_wrap(err, ret, "cannot listen on the agent socket") : 0;
}

void vsock_unlisten(struct vsock *v)
{
	loop_del(v->dev.env.loop, &v->listener);
	loop_timer_cancel(v->dev.env.loop, &v->accept_retry);
	io_close(v->listener.fd);
	v->listener.fd = -1;
}
