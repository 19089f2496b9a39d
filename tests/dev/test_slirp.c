// SPDX-License-Identifier: MIT
/*
 * The NAT between a guest made of hand-written frames and real sockets on the
 * loopback.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/util.h"
#include "proto/spec.h"
#include "vmm/dev/devices.h"
#include "vmm/net/frame.h"
#include "vmm/net/netif.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"

#define MAX_FRAMES 512
#define TEXT(s) ((char *)(uintptr_t)(s))

struct got {
	size_t len;
	uint8_t *data;		/* owned */
	struct frame f;
};

struct ctx {
	struct loop *loop;
	pthread_mutex_t lock;
	struct spec spec;
	struct netif *net;
	struct got got[MAX_FRAMES];
	unsigned nr, seen;
	bool no_buffers;
	int sock;		/* on the host */
	uint8_t mac[6];		/* of the guest */
	uint16_t port;		/* of sock */
};

static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

static int on_rx(void *arg, const void *frame, size_t len)
{
	struct ctx *c = arg;
	struct got *g = &c->got[c->nr];

	if (c->no_buffers)
		return -EAGAIN;
	assert_true(c->nr < MAX_FRAMES);
	g->len = len;
	g->data = malloc(len);
	memcpy(g->data, frame, len);
	assert_true(frame_parse(&g->f, g->data, len));
	c->nr++;
	return 0;
}

static void open_net(struct ctx *c)
{
	struct err err = ERR_INIT;

	c->net = netif_slirp_new(c->loop, &c->lock, &c->spec, &err);
	if (!c->net)
		fail_msg("%s", err_message(&err));
	c->net->to_guest = (struct netif_rx){ on_rx, c };
}

static void start_with(struct ctx *c, bool loopback, char **allow)
{
	memset(c, 0, sizeof(*c));
	c->sock = -1;
	c->loop = loop_new(NULL);
	pthread_mutex_init(&c->lock, NULL);
	c->spec.net = true;
	c->spec.net_host_loopback = loopback;
	c->spec.net_allow = allow;
	memcpy(c->spec.mac, mac, 6);
	memcpy(c->mac, mac, 6);
	open_net(c);
}

static void start(struct ctx *c)
{
	start_with(c, true, NULL);
}

static void finish(struct ctx *c)
{
	netif_free(c->net);
	loop_free(c->loop);
	io_close(c->sock);
	for (unsigned i = 0; i < c->nr; i++)
		free(c->got[i].data);
}

struct stopper {
	struct loop_work work;
	struct loop *loop;
};

static void stop(struct loop_work *w)
{
	loop_stop(container_of(w, struct stopper, work)->loop);
}

static void turn(struct ctx *c)
{
	struct stopper s = { .work.cb = stop, .loop = c->loop };

	loop_post(c->loop, &s.work);
	assert_int_equal(loop_run(c->loop), 0);
}

static void input(struct ctx *c, void *frame, size_t len)
{
	pthread_mutex_lock(&c->lock);
	c->net->ops->send(c->net, frame, len);
	pthread_mutex_unlock(&c->lock);
	turn(c);
}

/* The next frame that fits, within 10 s. */
static struct frame *await(struct ctx *c, uint8_t proto, uint8_t flags)
{
	uint64_t end = io_now_ns() + 10 * NSEC_PER_SEC;

	for (;;) {
		while (c->seen < c->nr) {
			struct frame *f = &c->got[c->seen++].f;

			if (f->type != ETH_ARP && f->proto == proto &&
			    (proto != IP_TCP || (f->flags & flags) == flags))
				return f;
		}
		if (io_now_ns() > end)
			fail_msg("no frame of protocol %u, flags %x", proto, flags);
		turn(c);
	}
}

static void settle(struct ctx *c)
{
	for (unsigned i = 0; i < 20; i++)
		turn(c);
}

/* --- the guest's stack ---------------------------------------------------------- */

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

/* IP and transport checksums of a whole IPv4 frame. */
static void seal(uint8_t *frame, size_t len, unsigned at)
{
	uint8_t *ip = frame + ETH_HDR, tail[4] = { 0, ip[9] };
	uint16_t sum = frame_fold(frame_sum(ip, 20, 0));

	memcpy(ip + 10, &sum, 2);
	put16(tail + 2, len - 34);
	sum = frame_fold(frame_sum(ip + 20, len - 34,
				   frame_sum(tail, 4, frame_sum(ip + 12, 8, 0))));
	memcpy(frame + 34 + at, &sum, 2);
}

static void ip_head(const struct ctx *c, uint8_t *frame, size_t len, uint8_t proto, const uint8_t dst[4])
{
	uint8_t *ip = frame + ETH_HDR;

	memset(frame, 0, ETH_HDR + 20);
	memcpy(frame, "\x52\x55\x0a\0\2\2", 6);
	memcpy(frame + 6, c->mac, 6);
	put16(frame + 12, ETH_IP4);
	ip[0] = 0x45;
	put16(ip + 2, len - ETH_HDR);
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, "\x0a\0\2\x0f", 4);
	memcpy(ip + 16, dst, 4);
}

static const uint8_t gateway[4] = { 10, 0, 2, 2 };

static void send_udp(struct ctx *c, const uint8_t dst[4], uint16_t sport, uint16_t dport,
		     const void *data, size_t n)
{
	uint8_t frame[2048];
	size_t len = ETH_HDR + 28 + n;

	ip_head(c, frame, len, IP_UDP, dst);
	put16(frame + 34, sport);
	put16(frame + 36, dport);
	put16(frame + 38, 8 + n);
	put16(frame + 40, 0);
	memcpy(frame + 42, data, n);
	seal(frame, len, 6);
	input(c, frame, len);
}

struct tcp {
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t dst[4];
};

/* len: with options, which are left zero */
static void tcp_head(uint8_t *p, const struct tcp *t, unsigned len, unsigned flags)
{
	memset(p, 0, len);
	put16(p, t->sport);
	put16(p + 2, t->dport);
	put16(p + 4, t->seq >> 16);
	put16(p + 6, t->seq);
	put16(p + 8, t->ack >> 16);
	put16(p + 10, t->ack);
	p[12] = (uint8_t)(len / 4 << 4);
	p[13] = (uint8_t)flags;
	put16(p + 14, 65535);
}

static void send_tcp(struct ctx *c, struct tcp *t, uint8_t flags, const void *data, size_t n)
{
	static uint8_t frame[NETIF_FRAME_MAX];
	size_t len = ETH_HDR + 40 + n;
	uint8_t *p = frame + 34;

	ip_head(c, frame, len, IP_TCP, t->dst);
	tcp_head(p, t, 20, flags);
	if (n)
		memcpy(p + 20, data, n);
	seal(frame, len, 16);
	input(c, frame, len);
	t->seq += n + !!(flags & (TCP_SYN | TCP_FIN));
}

/* --- the host's side -------------------------------------------------------------- */

static void host_socket(struct ctx *c, int type)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t len = sizeof(sa);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->sock = socket(AF_INET, type | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(c->sock, (void *)&sa, sizeof(sa)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(c->sock, 64), 0);
	getsockname(c->sock, (void *)&sa, &len);
	c->port = ntohs(sa.sin_port);
}

static ssize_t await_data(struct ctx *c, int fd, void *buf, size_t max)
{
	uint64_t end = io_now_ns() + 10 * NSEC_PER_SEC;
	ssize_t n;

	while ((n = recv(fd, buf, max, MSG_DONTWAIT)) < 0 && errno == EAGAIN) {
		if (io_now_ns() > end)
			fail_msg("no data");
		turn(c);
	}
	return n;
}

static int await_accept(struct ctx *c)
{
	uint64_t end = io_now_ns() + 10 * NSEC_PER_SEC;
	int fd;

	while ((fd = accept4(c->sock, NULL, NULL, SOCK_NONBLOCK)) < 0) {
		if (io_now_ns() > end)
			fail_msg("no connection");
		turn(c);
	}
	return fd;
}

static int dial(uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (void *)&sa, sizeof(sa)) < 0)
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

/* Through the NAT to the host's listening socket: the accepted connection. */
static int connect_out(struct ctx *c, struct tcp *t, uint16_t sport)
{
	struct frame *f;
	int fd;

	*t = (struct tcp){ .sport = sport, .dport = c->port, .seq = 1000 };
	memcpy(t->dst, gateway, 4);
	send_tcp(c, t, TCP_SYN, NULL, 0);
	fd = await_accept(c);
	f = await(c, IP_TCP, TCP_SYN | TCP_ACK);
	assert_int_equal(f->ack, t->seq);
	t->ack = f->seq + 1;
	send_tcp(c, t, TCP_ACK, NULL, 0);
	return fd;
}

/* --- tests ------------------------------------------------------------------------- */

static void udp_out_and_back(void **state)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	struct ctx c;
	struct frame *f;
	char buf[32];

	start(&c);
	host_socket(&c, SOCK_DGRAM);
	send_udp(&c, gateway, 4000, c.port, "ping", 4);
	assert_int_equal(await_data(&c, c.sock, buf, 0), 0);
	close(c.sock);
	host_socket(&c, SOCK_DGRAM);
	send_udp(&c, gateway, 4001, c.port, "ping", 4);
	for (ssize_t n = -1; n < 0; turn(&c))
		n = recvfrom(c.sock, buf, sizeof(buf), 0, (void *)&from, &len);
	assert_memory_equal(buf, "ping", 4);
	assert_int_equal(sendto(c.sock, "pong!", 5, 0, (void *)&from, len), 5);
	f = await(&c, IP_UDP, 0);
	assert_int_equal(f->sport, c.port);
	assert_int_equal(f->dport, 4001);
	assert_memory_equal(f->l4 + 8, "pong!", 5);
	finish(&c);
}

static void host_loopback_is_closed_by_default(void **state)
{
	static const uint8_t targets[][4] = {
		{ 10, 0, 2, 2 }, { 127, 0, 0, 1 }, { 0, 0, 0, 0 }, { 10, 0, 2, 3 },
		{ 255, 255, 255, 255 }, { 10, 0, 2, 255 }, { 10, 0, 2, 77 },
	};
	struct ctx c;
	char b;

	start_with(&c, false, NULL);
	host_socket(&c, SOCK_STREAM);
	for (unsigned i = 0; i < ARRAY_LEN(targets); i++) {
		struct tcp t = { .sport = 3000 + i, .dport = c.port, .seq = 1 };

		memcpy(t.dst, targets[i], 4);
		send_tcp(&c, &t, TCP_SYN, NULL, 0);
		settle(&c);
		assert_int_equal(accept(c.sock, NULL, NULL), -1);
	}
	close(c.sock);
	host_socket(&c, SOCK_DGRAM);
	for (unsigned i = 0; i < ARRAY_LEN(targets); i++) {
		send_udp(&c, targets[i], 3000, c.port, "x", 1);
		settle(&c);
		assert_int_equal(recv(c.sock, &b, 1, MSG_DONTWAIT), -1);
	}
	finish(&c);
}

static void tcp_both_ways(void **state)
{
	static uint8_t big[60000], in[60000];
	struct ctx c;
	struct frame *f;
	struct tcp t;
	size_t n = 0;
	int fd;

	start(&c);
	host_socket(&c, SOCK_STREAM);
	fd = connect_out(&c, &t, 5000);
	for (unsigned i = 0; i < sizeof(big); i++)
		big[i] = i * 13;
	/* One segment of 60000 bytes, as segmentation offload makes them. */
	send_tcp(&c, &t, TCP_ACK, big, sizeof(big));
	while (n < sizeof(big))
		n += await_data(&c, fd, in + n, sizeof(in) - n);
	assert_memory_equal(big, in, sizeof(big));
	assert_int_equal(send(fd, "reply", 5, 0), 5);
	do
		f = await(&c, IP_TCP, TCP_ACK);
	while (f->l4_len == 20);
	assert_memory_equal(f->l4 + f->l4_len - 5, "reply", 5);
	t.ack += 5;
	send_tcp(&c, &t, TCP_ACK | TCP_FIN, NULL, 0);
	assert_int_equal(await_data(&c, fd, in, 1), 0);
	close(fd);
	finish(&c);
}

static uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

/* What libslirp says last of its window; what it said is forgotten. */
static uint16_t last_window(struct ctx *c, uint16_t win)
{
	settle(c);
	for (unsigned i = 0; i < c->nr; i++) {
		if (c->got[i].f.proto == IP_TCP)
			win = get16(c->got[i].f.l4 + 14);
		free(c->got[i].data);
	}
	c->nr = c->seen = 0;
	return win;
}

/*
 * A window that opens again is told, for a guest that has less left than a segment
 * says nothing that would be answered.
 */
static void windows_open_again(void **state)
{
	static uint8_t data[65535];
	uint64_t end = io_now_ns() + 10 * NSEC_PER_SEC;
	struct ctx c;
	struct tcp t;
	uint16_t mss, win = 65535;
	int fd;

	start(&c);
	host_socket(&c, SOCK_STREAM);
	fd = connect_out(&c, &t, 5006);
	mss = get16(c.got[c.seen - 1].f.l4 + 22);	/* first option of the SYN */
	assert_in_range(mss, 1000, 65480);
	while (win >= mss) {
		send_tcp(&c, &t, TCP_ACK, data, mss);
		win = last_window(&c, win - mss);
	}
	while (win < mss) {
		if (io_now_ns() > end)
			fail_msg("the window stays at %u, and a segment has %u", win, mss);
		while (recv(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
			;
		win = last_window(&c, win);
	}
	close(fd);
	finish(&c);
}

/* Frames wait while the guest has no buffers, and come in order after. */
static void no_buffers_no_loss(void **state)
{
	struct ctx c;
	struct tcp t;
	struct frame *f;
	int fd;

	start(&c);
	host_socket(&c, SOCK_STREAM);
	fd = connect_out(&c, &t, 5001);
	c.no_buffers = true;
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(send(fd, "12345", 5, 0), 5);
		settle(&c);
	}
	c.no_buffers = false;
	c.seen = c.nr;
	c.net->ops->can_rx(c.net);
	for (unsigned n = 0; n < 25; n += f->l4_len - 20) {
		do
			f = await(&c, IP_TCP, TCP_ACK);
		while (f->l4_len <= 20);
		assert_int_equal(f->seq, t.ack + n);
	}
	close(fd);
	finish(&c);
}

/* One answer from `port` of the guest to a connection through the host's `fwd`. */
static void answer_forward(struct ctx *c, uint16_t fwd, uint16_t port, struct tcp *t)
{
	int fd = dial(fwd);
	struct frame *f = await(c, IP_TCP, TCP_SYN);
	char buf[8];

	assert_int_equal(f->dport, port);
	*t = (struct tcp){ .sport = port, .dport = f->sport, .seq = 77, .ack = f->seq + 1 };
	memcpy(t->dst, f->src.b + 12, 4);
	send_tcp(c, t, TCP_SYN | TCP_ACK, NULL, 0);
	send_tcp(c, t, TCP_ACK, "hi", 2);
	assert_int_equal(await_data(c, fd, buf, 8), 2);
	assert_memory_equal(buf, "hi", 2);
	close(fd);
}

static void forwards(void **state)
{
	struct spec_port p = { .guest_port = 80 };
	struct netif_forward got;
	struct err err = ERR_INIT;
	struct ctx c;
	uint16_t port, second;
	struct tcp t;

	start(&c);
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &port, &err), 0);
	assert_true(port > 0);
	assert_true(c.net->ops->forward_get(c.net, 0, &got));
	assert_string_equal(got.host_addr, "127.0.0.1");
	assert_int_equal(got.host_port, port);
	assert_int_equal(got.guest_port, 80);
	p.host_port = port;
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &second, &err), -EADDRINUSE);
	assert_int_equal(err.code, ERR_BOOT_PORT_FORWARD_IN_USE);
	p.host_addr = TEXT("not an address");
	assert_true(c.net->ops->forward_add(c.net, &p, &second, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_PORT_FORWARD_INVALID);

	answer_forward(&c, port, 80, &t);
	assert_int_equal(c.net->ops->forward_rm(c.net, NULL, port, true), -ENOENT);
	assert_int_equal(c.net->ops->forward_rm(c.net, NULL, port, false), 0);
	assert_false(c.net->ops->forward_get(c.net, 0, &got));
	p = (struct spec_port){ .host_port = port, .guest_port = 80 };
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &second, &err), 0);
	finish(&c);
}

/* Both ways, also while the guest may not reach the host's loopback by itself. */
static void udp_forward(void **state)
{
	struct spec_port p = { .guest_port = 53, .udp = true };
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct err err = ERR_INIT;
	struct ctx c;
	struct frame *f;
	uint16_t port, other;
	char buf[8];

	start_with(&c, false, NULL);
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &port, NULL), 0);
	/* Whose answers would leave from the first one's port. */
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &other, &err), -EEXIST);
	assert_int_equal(err.code, ERR_BOOT_PORT_FORWARD_CONFLICT);
	settle(&c);
	host_socket(&c, SOCK_DGRAM);
	sa.sin_port = htons(port);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	/* Connected: nothing but an answer from that very port gets in. */
	assert_int_equal(connect(c.sock, (void *)&sa, sizeof(sa)), 0);
	assert_int_equal(sendto(c.sock, "q", 1, 0, NULL, 0), 1);
	f = await(&c, IP_UDP, 0);
	assert_int_equal(f->dport, 53);
	send_udp(&c, f->src.b + 12, 53, f->sport, "answer", 6);
	assert_int_equal(await_data(&c, c.sock, buf, 8), 6);
	finish(&c);
}

/* Nobody listens yet: the guest's refusal is kept back, the SYN comes again. */
static void early_connection_is_held(void **state)
{
	struct spec_port p = { .guest_port = 80 };
	struct ctx c;
	struct frame *f;
	uint16_t port;
	struct tcp t;
	char b[8];
	int fd;

	start(&c);
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &port, NULL), 0);
	fd = dial(port);
	for (unsigned i = 0; i < 2; i++) {
		f = await(&c, IP_TCP, TCP_SYN);
		t = (struct tcp){ .sport = 80, .dport = f->sport, .ack = f->seq + 1 };
		memcpy(t.dst, f->src.b + 12, 4);
		send_tcp(&c, &t, TCP_RST | TCP_ACK, NULL, 0);
		settle(&c);
		assert_int_equal(recv(fd, b, 1, MSG_DONTWAIT), -1);
		assert_int_equal(errno, EAGAIN);
	}
	f = await(&c, IP_TCP, TCP_SYN);
	t = (struct tcp){ .sport = 80, .dport = f->sport, .seq = 9, .ack = f->seq + 1 };
	memcpy(t.dst, f->src.b + 12, 4);
	send_tcp(&c, &t, TCP_SYN | TCP_ACK, NULL, 0);
	send_tcp(&c, &t, TCP_ACK, "up", 2);
	assert_int_equal(await_data(&c, fd, b, 8), 2);
	/* From here on a reset is a reset. */
	send_tcp(&c, &t, TCP_RST | TCP_ACK, NULL, 0);
	assert_true(await_data(&c, fd, b, 8) <= 0);
	close(fd);
	finish(&c);
}

static void policy_answers_at_once(void **state)
{
	char *allow[] = { TEXT("10.9.9.9"), NULL };
	struct tcp t = { .sport = 6000, .dport = 80, .seq = 42, .dst = { 10, 0, 2, 2 } };
	static const uint8_t dns[4] = { 10, 0, 2, 3 };
	static const char query[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\1a\1b\0\0\1\0\1";
	struct ctx c;
	struct frame *f;

	start_with(&c, true, allow);
	host_socket(&c, SOCK_STREAM);
	t.dport = c.port;
	send_tcp(&c, &t, TCP_SYN, NULL, 0);
	f = await(&c, IP_TCP, TCP_RST);
	assert_int_equal(f->ack, 43);
	assert_int_equal(f->dport, 6000);
	assert_int_equal(accept(c.sock, NULL, NULL), -1);
	send_udp(&c, dns, 7000, 53, query, sizeof(query) - 1);
	f = await(&c, IP_UDP, 0);
	assert_int_equal(f->sport, 53);
	assert_int_equal(f->l4[8 + 3] & 15, 5);
	finish(&c);
}

/* With a maximum segment size, as in every SYN. */
static void send_syn(struct ctx *c, struct tcp *t, uint8_t flags)
{
	uint8_t frame[ETH_HDR + 44];
	uint8_t *p = frame + 34;

	ip_head(c, frame, sizeof(frame), IP_TCP, t->dst);
	tcp_head(p, t, 24, flags);
	memcpy(p + 20, "\2\4\5\xb4", 4);
	seal(frame, sizeof(frame), 16);
	input(c, frame, sizeof(frame));
}

/*
 * A guest that lost our ACK says its SYN again, and what was sent meanwhile has to
 * come again, too: libslirp would forget it over the option.
 */
static void repeated_syn_forgets_no_data(void **state)
{
	struct spec_port p = { .guest_port = 80 };
	struct frame *f;
	uint16_t port;
	struct ctx c;
	struct tcp t;
	int fd;

	start(&c);
	/* in */
	assert_int_equal(c.net->ops->forward_add(c.net, &p, &port, NULL), 0);
	fd = dial(port);
	f = await(&c, IP_TCP, TCP_SYN);
	t = (struct tcp){ .sport = 80, .dport = f->sport, .seq = 77, .ack = f->seq + 1 };
	memcpy(t.dst, f->src.b + 12, 4);
	send_syn(&c, &t, TCP_SYN | TCP_ACK);
	assert_int_equal(send(fd, "alive", 5, 0), 5);
	do
		f = await(&c, IP_TCP, TCP_ACK);
	while (f->l4_len != 25);
	send_syn(&c, &t, TCP_SYN | TCP_ACK);
	do
		f = await(&c, IP_TCP, TCP_ACK);
	while (f->l4_len != 25);
	assert_memory_equal(f->l4 + 20, "alive", 5);
	close(fd);
	/* out */
	host_socket(&c, SOCK_STREAM);
	t = (struct tcp){ .sport = 5007, .dport = c.port, .seq = 1000 };
	memcpy(t.dst, gateway, 4);
	send_syn(&c, &t, TCP_SYN);
	fd = await_accept(&c);
	f = await(&c, IP_TCP, TCP_SYN | TCP_ACK);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	settle(&c);
	send_syn(&c, &t, TCP_SYN);
	t.seq++;
	t.ack = f->seq + 1;
	send_tcp(&c, &t, TCP_ACK, NULL, 0);
	do
		f = await(&c, IP_TCP, TCP_ACK);
	while (f->l4_len < 25);
	assert_memory_equal(f->l4 + f->l4_len - 5, "hello", 5);
	close(fd);
	finish(&c);
}

/* The VM was saved and is loaded into a new process: another NAT, no sockets. */
static void restore(struct ctx *c)
{
	struct buf b = BUF_INIT;
	struct state_w w;
	struct state_r r;

	state_w_init(&w, &b);
	state_begin(&w, "net", 0, net_class.state_version, true);
	c->net->ops->save(c->net, &w);
	state_end(&w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	netif_free(c->net);
	c->seen = c->nr;
	open_net(c);
	assert_int_equal(state_r_init(&r, b.data, b.len, NULL), 0);
	assert_int_equal(state_find(&r, "net", 0), 0);
	c->net->ops->load(c->net, &r);
	assert_int_equal(state_close(&r, NULL), 0);
	c->net->ops->can_rx(c->net);
	buf_done(&b);
}

static void restored_connections_are_reset(void **state)
{
	struct ctx c;
	struct frame *f;
	struct tcp t;
	int fd;

	start(&c);
	host_socket(&c, SOCK_STREAM);
	fd = connect_out(&c, &t, 5002);
	restore(&c);
	close(fd);
	f = await(&c, IP_TCP, TCP_RST);
	assert_int_equal(f->seq, t.ack);
	assert_int_equal(f->dport, 5002);
	assert_int_equal(f->sport, t.dport);
	/* And a new one works. */
	fd = connect_out(&c, &t, 5003);
	close(fd);
	finish(&c);
}

/* Forwards are the new VM's; a connection that came through an old one is reset. */
static void forwards_after_a_restore(void **state)
{
	struct spec_port old = { .guest_port = 80 }, new = { .guest_port = 81 };
	struct netif_forward got;
	uint16_t port;
	struct frame *f;
	struct ctx c;
	struct tcp t;

	start(&c);
	assert_int_equal(c.net->ops->forward_add(c.net, &old, &port, NULL), 0);
	answer_forward(&c, port, 80, &t);
	c.spec.port[0] = new;
	c.spec.nr_ports = 1;
	restore(&c);
	f = await(&c, IP_TCP, TCP_RST);
	assert_int_equal(f->dport, 80);
	assert_int_equal(f->sport, t.dport);
	assert_true(c.net->ops->forward_get(c.net, 0, &got));
	assert_int_equal(got.guest_port, 81);
	assert_false(c.net->ops->forward_get(c.net, 1, &got));
	answer_forward(&c, got.host_port, 81, &t);
	finish(&c);
}

/* A guest that thaws gets an address of its own, and says so by using it. */
static void frames_follow_the_guests_new_address(void **state)
{
	static const uint8_t fresh[6] = { 0x52, 0x54, 0, 9, 9, 9 };
	struct spec_port p = { .guest_port = 80 };
	struct netif_forward got;
	struct frame *f;
	struct ctx c;

	start(&c);
	host_socket(&c, SOCK_DGRAM);
	c.spec.port[0] = p;
	c.spec.nr_ports = 1;
	restore(&c);
	assert_true(c.net->ops->forward_get(c.net, 0, &got));
	close(dial(got.host_port));
	f = await(&c, IP_TCP, TCP_SYN);
	assert_memory_equal(f->eth, mac, 6);
	memcpy(c.mac, fresh, 6);
	send_udp(&c, gateway, 4000, c.port, "x", 1);
	close(dial(got.host_port));
	do
		f = await(&c, IP_TCP, TCP_SYN);
	while (!memcmp(f->eth, mac, 6));
	assert_memory_equal(f->eth, fresh, 6);
	finish(&c);
}

/* A socket of the guest that was open before goes on with the same port. */
static void udp_goes_on_after_a_restore(void **state)
{
	struct sockaddr_in from;
	struct frame *f;
	struct ctx c;
	char buf[32];

	start(&c);
	host_socket(&c, SOCK_DGRAM);
	for (unsigned i = 0; i < 2; i++) {
		socklen_t len = sizeof(from);
		ssize_t n;

		send_udp(&c, gateway, 4001, c.port, "ping", 4);
		while ((n = recvfrom(c.sock, buf, sizeof(buf), 0, (void *)&from, &len)) < 0)
			turn(&c);
		assert_int_equal(sendto(c.sock, "pong!", 5, 0, (void *)&from, len), 5);
		f = await(&c, IP_UDP, 0);
		assert_int_equal(f->sport, c.port);
		assert_int_equal(f->dport, 4001);
		assert_memory_equal(f->l4 + 8, "pong!", 5);
		if (!i)
			restore(&c);
	}
	finish(&c);
}

static void echo_before_and_after_a_restore(void **state)
{
	struct frame *f;
	struct ctx c;

	start_with(&c, false, NULL);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t frame[ETH_HDR + 28];
		uint16_t sum;

		ip_head(&c, frame, sizeof(frame), IP_ICMP, gateway);
		memcpy(frame + 34, "\x08\0\0\0\x12\x34\0\1", 8);
		sum = frame_fold(frame_sum(frame + 34, 8, 0));
		memcpy(frame + 36, &sum, 2);
		sum = frame_fold(frame_sum(frame + ETH_HDR, 20, 0));
		memcpy(frame + ETH_HDR + 10, &sum, 2);
		input(&c, frame, sizeof(frame));
		f = await(&c, IP_ICMP, 0);
		assert_int_equal(f->l4[0], 0);
		assert_memory_equal(f->l4 + 4, "\x12\x34\0\1", 4);
		if (!i)
			restore(&c);
	}
	finish(&c);
}

static void garbage_frames(void **state)
{
	static uint8_t frame[NETIF_FRAME_MAX];
	unsigned seed = 11;
	struct ctx c;
	struct tcp t;

	start_with(&c, false, NULL);
	for (unsigned i = 0; i < 20000; i++) {
		size_t len = rand_r(&seed) % (i % 50 ? 200 : sizeof(frame));

		ip_head(&c, frame, len < 34 ? 34 : len, i % 3 ? IP_TCP : IP_UDP, gateway);
		for (size_t k = ETH_HDR + rand_r(&seed) % 40; k < len; k++)
			frame[k] = rand_r(&seed);
		switch (rand_r(&seed) % 8) {
		case 0: put16(frame + 12, ETH_ARP); break;
		case 1: put16(frame + 12, ETH_IP6); frame[14] = 0x60; break;
		case 2: put16(frame + 12, 0x8100); break;
		case 3: frame[20] = rand_r(&seed); break;	/* fragments */
		case 4: frame[14] = 0x40 | (rand_r(&seed) & 15); break;
		case 5: frame[46] = 5 << 4; put16(frame + 38, len - 34); break;
		}
		/* With a good header checksum more of it is looked at. */
		put16(frame + 24, 0);
		if (len >= 34 && i & 1)
			seal(frame, len, 6);
		pthread_mutex_lock(&c.lock);
		c.net->ops->send(c.net, frame, len);
		pthread_mutex_unlock(&c.lock);
		if (!(i % 64))
			turn(&c);
		while (c.nr > c.seen && c.nr > MAX_FRAMES / 2)
			free(c.got[--c.nr].data);
		c.seen = MIN(c.seen, c.nr);
	}
	finish(&c);
	/* Still a network. */
	start(&c);
	host_socket(&c, SOCK_STREAM);
	close(connect_out(&c, &t, 5004));
	finish(&c);
}

/* Ten thousand connections: the process keeps descriptors for itself. */
static void connections_are_bounded(void **state)
{
	struct ctx c;
	int fd;

	start(&c);
	host_socket(&c, SOCK_STREAM);
	for (unsigned i = 0; i < 10000; i++) {
		struct tcp t = { .sport = 1024 + i, .dport = 9, .seq = 1, .dst = { 192, 0, 2, 1 } };

		send_tcp(&c, &t, TCP_SYN, NULL, 0);
		while (c.nr > MAX_FRAMES / 2)
			free(c.got[--c.nr].data);
		c.seen = MIN(c.seen, c.nr);
	}
	fd = dup(c.sock);
	assert_true(fd >= 0);
	close(fd);
	finish(&c);
}

/*
 * Nor do those who come through a forward take all of them, also while the guest
 * does not answer: they wait outside until others have gone.
 */
static void forwarded_connections_are_bounded(void **state)
{
	struct netif_forward got;
	struct rlimit all, few;
	unsigned syns = 0;
	struct ctx c;
	int fd[120];

	getrlimit(RLIMIT_NOFILE, &all);
	few = (struct rlimit){ 128, all.rlim_max };
	start(&c);
	c.spec.port[0] = (struct spec_port){ .guest_port = 80 };
	c.spec.nr_ports = 1;
	setrlimit(RLIMIT_NOFILE, &few);
	restore(&c);		/* one that boots would hold them */
	setrlimit(RLIMIT_NOFILE, &all);
	assert_true(c.net->ops->forward_get(c.net, 0, &got));
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = dial(got.host_port);
		turn(&c);
	}
	for (unsigned i = c.seen; i < c.nr; i++)
		syns += c.got[i].f.proto == IP_TCP && c.got[i].f.flags == TCP_SYN;
	assert_in_range(syns, 32, 64);
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
		struct frame *f = await(&c, IP_TCP, TCP_SYN);
		struct tcp t = { .sport = 80, .dport = f->sport, .ack = f->seq + 1 };

		memcpy(t.dst, f->src.b + 12, 4);
		send_tcp(&c, &t, TCP_RST | TCP_ACK, NULL, 0);
	}
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++)
		close(fd[i]);
	finish(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(udp_out_and_back),
		cmocka_unit_test(host_loopback_is_closed_by_default),
		cmocka_unit_test(tcp_both_ways),
		cmocka_unit_test(windows_open_again),
		cmocka_unit_test(no_buffers_no_loss),
		cmocka_unit_test(forwards),
		cmocka_unit_test(udp_forward),
		cmocka_unit_test(early_connection_is_held),
		cmocka_unit_test(policy_answers_at_once),
		cmocka_unit_test(repeated_syn_forgets_no_data),
		cmocka_unit_test(restored_connections_are_reset),
		cmocka_unit_test(forwards_after_a_restore),
		cmocka_unit_test(frames_follow_the_guests_new_address),
		cmocka_unit_test(udp_goes_on_after_a_restore),
		cmocka_unit_test(echo_before_and_after_a_restore),
		cmocka_unit_test(garbage_frames),
		cmocka_unit_test(connections_are_bounded),
		cmocka_unit_test(forwarded_connections_are_bounded),
	};

	return cmocka_run_group_tests_name("slirp", tests, NULL, NULL);
}
