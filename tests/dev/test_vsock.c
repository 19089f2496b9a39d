// SPDX-License-Identifier: MIT
/* virtio-vsock: Unix sockets on one side, a guest's driver on the other. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/io.h"
#include "tests/lib/vdriver.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/vsock.h"
#include "vmm/state.h"

enum { RX, TX, EVENT };
#define CID 33
#define RXBUF 4096
#define GUEST_WINDOW (128u << 10)

struct ctx {
	struct vdriver d;
	int listen_fd;
	struct sockaddr_un addr;
	socklen_t addr_len;
	gpa_t rx_buf[256];	/* by head descriptor */
	gpa_t tx_buf;
};

static void listen_somewhere(struct ctx *c)
{
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	c->addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* The kernel picks an abstract name. */
	assert_int_equal(bind(c->listen_fd, (void *)&c->addr, sizeof(sa_family_t)), 0);
	c->addr_len = sizeof(c->addr);
	getsockname(c->listen_fd, (void *)&c->addr, &c->addr_len);
	assert_int_equal(listen(c->listen_fd, 512), 0);
}

static void give_rx(struct ctx *c, unsigned n, uint32_t len)
{
	while (n--) {
		struct vd_buf b = { vd_alloc(&c->d, len, 16), len, true };
		uint16_t head = vd_add(&c->d, RX, &b, 1);

		c->rx_buf[head] = b.gpa;
	}
	vd_kick(&c->d, RX);
}

static void start_bare(struct ctx *c)
{
	struct vsock_config cfg = { .cid = CID };

	memset(c, 0, sizeof(*c));
	listen_somewhere(c);
	cfg.listen_fd = c->listen_fd;
	vd_init(&c->d, &vsock_class, "", &cfg);
	vd_start(&c->d, ~0ull);
	c->tx_buf = vd_alloc(&c->d, VSOCK_HDR_LEN + (256u << 10), 16);
}

static void start(struct ctx *c)
{
	start_bare(c);
	give_rx(c, 200, RXBUF);
	vd_settle(&c->d);
}

static void finish(struct ctx *c)
{
	vd_done(&c->d);
	close(c->listen_fd);
}

static int dial(struct ctx *c)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (void *)&c->addr, c->addr_len), 0);
	io_set_nonblock(fd, true);
	return fd;
}

static void say(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

/* Next packet for the guest, waiting for it; payload (if wanted) into buf. */
static struct vsock_hdr recv_packet(struct ctx *c, void *buf)
{
	uint32_t len;
	uint16_t head = vd_used(&c->d, RX, &len);
	gpa_t gpa = c->rx_buf[head];
	struct vsock_hdr h;
	struct vd_buf b = { gpa, RXBUF, true };

	assert_true(len >= VSOCK_HDR_LEN);
	memcpy(&h, vd_ptr(&c->d, gpa, 44), 44);
	assert_int_equal(h.len, len - VSOCK_HDR_LEN);
	assert_int_equal(h.src_cid, VSOCK_HOST_CID);
	assert_int_equal(h.dst_cid, CID);
	if (buf)
		memcpy(buf, vd_ptr(&c->d, gpa + VSOCK_HDR_LEN, h.len), h.len);
	/* Round robin descriptors: the same buffer becomes the next. */
	head = vd_add(&c->d, RX, &b, 1);
	c->rx_buf[head] = gpa;
	vd_kick(&c->d, RX);
	return h;
}

static struct vsock_hdr expect(struct ctx *c, enum vsock_op op)
{
	struct vsock_hdr h = recv_packet(c, NULL);

	assert_int_equal(h.op, op);
	return h;
}

static bool packet_waits(struct ctx *c)
{
	vd_settle(&c->d);
	return vd_has_used(&c->d, RX);
}

/* Guest's answer on the connection that `to` (from the host) belongs to. */
struct guest {
	uint32_t host_port, port, fwd, alloc;
};

static void send_raw(struct ctx *c, const struct vsock_hdr *h, const void *data, uint32_t len)
{
	struct vd_buf b = { c->tx_buf, VSOCK_HDR_LEN + len, false };

	memcpy(vd_ptr(&c->d, c->tx_buf, 44), h, 44);
	if (len)
		memcpy(vd_ptr(&c->d, c->tx_buf + VSOCK_HDR_LEN, len), data, len);
	vd_add(&c->d, TX, &b, 1);
	vd_kick(&c->d, TX);
	vd_used(&c->d, TX, NULL);
}

static void send_packet(struct ctx *c, const struct guest *g, enum vsock_op op,
			uint32_t flags, const void *data, uint32_t len)
{
	struct vsock_hdr h = {
		.src_cid = CID, .dst_cid = VSOCK_HOST_CID,
		.src_port = g->port, .dst_port = g->host_port, .len = len,
		.type = VSOCK_TYPE_STREAM, .op = op, .flags = flags,
		.buf_alloc = g->alloc, .fwd_cnt = g->fwd,
	};

	send_raw(c, &h, data, len);
}

struct readable {
	int fd;
};

static bool is_readable(void *arg)
{
	struct readable *r = arg;
	char b;

	return recv(r->fd, &b, 1, MSG_PEEK) >= 0 || errno != EAGAIN;
}

static size_t hear(struct ctx *c, int fd, void *buf, size_t max)
{
	struct readable r = { fd };
	ssize_t n;

	vd_until(&c->d, is_readable, &r);
	n = recv(fd, buf, max, 0);
	return n < 0 ? 0 : n;
}

static int open_conn(struct ctx *c, struct guest *g)
{
	int fd = dial(c);
	struct vsock_hdr h;
	char line[64] = "", want[64];
	size_t n = 0;

	say(fd, "CONNECT 1024\n", 13);
	h = expect(c, VSOCK_OP_REQUEST);
	assert_int_equal(h.dst_port, 1024);
	assert_int_equal(h.type, VSOCK_TYPE_STREAM);
	*g = (struct guest){ h.src_port, 1024, 0, GUEST_WINDOW };
	send_packet(c, g, VSOCK_OP_RESPONSE, 0, NULL, 0);
	snprintf(want, sizeof(want), "OK %u\n", h.src_port);
	while (n < strlen(want))
		n += hear(c, fd, line + n, strlen(want) - n);
	assert_string_equal(line, want);
	return fd;
}

/* Most tests: a device, and one connection through it. */
static int start_conn(struct ctx *c, struct guest *g)
{
	start(c);
	return open_conn(c, g);
}

static void talk_both_ways(void **state)
{
	struct ctx c;
	struct guest g;
	char buf[RXBUF];
	struct vsock_hdr h;
	int fd;

	start(&c);
	assert_int_equal(vd_config(&c.d, 0, 8), CID);
	fd = open_conn(&c, &g);
	say(fd, "hello", 5);
	h = recv_packet(&c, buf);
	assert_int_equal(h.op, VSOCK_OP_RW);
	assert_int_equal(h.len, 5);
	assert_memory_equal(buf, "hello", 5);
	send_packet(&c, &g, VSOCK_OP_RW, 0, "world!", 6);
	assert_int_equal(hear(&c, fd, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "world!", 6);
	close(fd);
	finish(&c);
}

/* What follows the CONNECT line at once belongs to the stream. */
static void eager_client(void **state)
{
	struct ctx c;
	struct guest g;
	struct vsock_hdr h;
	char buf[RXBUF];
	int fd;

	start(&c);
	fd = dial(&c);
	say(fd, "CONN", 4);
	vd_settle(&c.d);
	say(fd, "ECT 7\nabc", 9);
	h = expect(&c, VSOCK_OP_REQUEST);
	assert_int_equal(h.dst_port, 7);
	assert_false(packet_waits(&c));
	g = (struct guest){ h.src_port, 7, 0, GUEST_WINDOW };
	send_packet(&c, &g, VSOCK_OP_RESPONSE, 0, NULL, 0);
	h = recv_packet(&c, buf);
	assert_int_equal(h.len, 3);
	assert_memory_equal(buf, "abc", 3);
	close(fd);
	finish(&c);
}

static void bad_lines(void **state)
{
	static const char *const lines[] = {
		"\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "connect 1\n",
		"CONNECT 4294967296\n", "CONNECT 99999999999999999999\n",
		"CONNECT 1 \n", "CONNECT 1\r\n",
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	};
	struct ctx c;
	char b;

	start(&c);
	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		int fd = dial(&c);

		say(fd, lines[i], strlen(lines[i]));
		assert_int_equal(hear(&c, fd, &b, 1), 0);
		close(fd);
	}
	assert_false(packet_waits(&c));
	finish(&c);
}

static void nobody_listens(void **state)
{
	struct ctx c;
	struct vsock_hdr h;
	struct guest g;
	char b;
	int fd;

	start(&c);
	fd = dial(&c);
	say(fd, "CONNECT 9\n", 10);
	h = expect(&c, VSOCK_OP_REQUEST);
	g = (struct guest){ h.src_port, 9, 0, 0 };
	send_packet(&c, &g, VSOCK_OP_RST, 0, NULL, 0);
	assert_int_equal(hear(&c, fd, &b, 1), 0);
	close(fd);
	assert_false(packet_waits(&c));
	/* And while no driver is there at all. */
	vd_write(&c.d, VD_STATUS, 0);
	fd = dial(&c);
	say(fd, "CONNECT 9\n", 10);
	assert_int_equal(hear(&c, fd, &b, 1), 0);
	close(fd);
	finish(&c);
}

static void guest_initiative_is_refused(void **state)
{
	struct ctx c;
	struct guest g = { 5000, 77, 0, 1000 };
	struct vsock_hdr h;

	start(&c);
	send_packet(&c, &g, VSOCK_OP_REQUEST, 0, NULL, 0);
	h = expect(&c, VSOCK_OP_RST);
	assert_int_equal(h.src_port, 5000);
	assert_int_equal(h.dst_port, 77);
	send_packet(&c, &g, VSOCK_OP_RST, 0, NULL, 0);	/* not answered */
	assert_false(packet_waits(&c));
	finish(&c);
}

static void host_half_close(void **state)
{
	struct ctx c;
	struct guest g;
	struct vsock_hdr h;
	char buf[16];
	int fd;

	fd = start_conn(&c, &g);
	say(fd, "last", 4);
	shutdown(fd, SHUT_WR);
	assert_int_equal(recv_packet(&c, buf).len, 4);
	h = expect(&c, VSOCK_OP_SHUTDOWN);
	assert_int_equal(h.flags, VSOCK_SHUT_SEND);
	/* The other direction still works. */
	send_packet(&c, &g, VSOCK_OP_RW, 0, "answer", 6);
	assert_int_equal(hear(&c, fd, buf, sizeof(buf)), 6);
	send_packet(&c, &g, VSOCK_OP_SHUTDOWN, VSOCK_SHUT_BOTH, NULL, 0);
	expect(&c, VSOCK_OP_RST);
	assert_int_equal(hear(&c, fd, buf, sizeof(buf)), 0);
	assert_false(packet_waits(&c));
	close(fd);
	finish(&c);
}

static void guest_half_close(void **state)
{
	struct ctx c;
	struct guest g;
	struct vsock_hdr h;
	char buf[16];
	int fd;

	fd = start_conn(&c, &g);
	send_packet(&c, &g, VSOCK_OP_RW, 0, "bye", 3);
	send_packet(&c, &g, VSOCK_OP_SHUTDOWN, VSOCK_SHUT_SEND, NULL, 0);
	assert_int_equal(hear(&c, fd, buf, sizeof(buf)), 3);
	assert_int_equal(hear(&c, fd, buf, sizeof(buf)), 0);
	say(fd, "still here", 10);
	assert_int_equal(recv_packet(&c, buf).len, 10);
	close(fd);
	h = expect(&c, VSOCK_OP_SHUTDOWN);
	assert_int_equal(h.flags, VSOCK_SHUT_BOTH);
	send_packet(&c, &g, VSOCK_OP_RST, 0, NULL, 0);
	assert_false(packet_waits(&c));
	finish(&c);
}

static void client_dies(void **state)
{
	struct ctx c;
	struct guest g;
	struct vsock_hdr h;
	char buf[16];
	int fd;

	fd = start_conn(&c, &g);
	say(fd, "words", 5);
	close(fd);
	assert_int_equal(recv_packet(&c, buf).len, 5);
	h = expect(&c, VSOCK_OP_SHUTDOWN);
	assert_int_equal(h.flags, VSOCK_SHUT_BOTH);
	send_packet(&c, &g, VSOCK_OP_RW, 0, "late", 4);	/* crossed: dropped */
	assert_false(packet_waits(&c));
	send_packet(&c, &g, VSOCK_OP_SHUTDOWN, VSOCK_SHUT_BOTH, NULL, 0);
	expect(&c, VSOCK_OP_RST);
	finish(&c);
}

static void guest_reset_flushes(void **state)
{
	static char big[200 << 10];
	struct ctx c;
	struct guest g;
	size_t n = 0, k;
	int fd, small = 4096;

	fd = start_conn(&c, &g);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (unsigned i = 0; i < sizeof(big); i++)
		big[i] = i * 7;
	send_packet(&c, &g, VSOCK_OP_RW, 0, big, sizeof(big));
	send_packet(&c, &g, VSOCK_OP_RST, 0, NULL, 0);
	while ((k = hear(&c, fd, big + n, sizeof(big) - n)))
		n += k;
	assert_int_equal(n, sizeof(big));
	for (unsigned i = 0; i < sizeof(big); i++)
		assert_int_equal(big[i], (char)(i * 7));
	close(fd);
	finish(&c);
}

/* A guest that sends more than its window is cut off, nobody else is. */
static void credit_overrun(void **state)
{
	static char big[128 << 10];
	struct ctx c;
	struct guest g, other;
	int fd, fd2;
	char b[8];

	fd = start_conn(&c, &g);
	fd2 = open_conn(&c, &other);
	for (unsigned i = 0; i < 100; i++) {
		send_packet(&c, &g, VSOCK_OP_RW, 0, big, sizeof(big));
		if (packet_waits(&c) && recv_packet(&c, NULL).op == VSOCK_OP_RST)
			break;
		assert_true(i < 20);
	}
	send_packet(&c, &other, VSOCK_OP_RW, 0, "fine", 4);
	assert_int_equal(hear(&c, fd2, b, 8), 4);
	close(fd);
	close(fd2);
	finish(&c);
}

/* The sender in the guest keeps to what we grant and never runs dry. */
static void guest_to_host_credit(void **state)
{
	static char chunk[60 << 10], in[256 << 10];
	uint32_t alloc, fwd = 0, sent = 0, got = 0, total = 8u << 20;
	struct ctx c;
	struct guest g;
	struct vsock_hdr h;
	int fd;

	fd = start_conn(&c, &g);
	alloc = LIMIT_VSOCK_WINDOW;
	while (got < total) {
		uint32_t room = alloc - (sent - fwd);
		uint32_t n = MIN(room, (uint32_t)sizeof(chunk));
		ssize_t k;

		n = MIN(n, total - sent);
		if (n) {
			send_packet(&c, &g, VSOCK_OP_RW, 0, chunk, n);
			sent += n;
		}
		k = recv(fd, in, sizeof(in), 0);
		got += MAX(k, 0);
		vd_turn(&c.d);
		while (vd_has_used(&c.d, RX)) {
			h = expect(&c, VSOCK_OP_CREDIT_UPDATE);
			assert_true(h.fwd_cnt - fwd <= sent - fwd);
			fwd = h.fwd_cnt;
			alloc = h.buf_alloc;
		}
	}
	assert_int_equal(got, total);
	close(fd);
	finish(&c);
}

static void host_to_guest_credit(void **state)
{
	static char big[512 << 10], buf[RXBUF];
	struct ctx c;
	struct guest g;
	uint32_t got = 0, sent = 0;
	int fd;

	fd = start_conn(&c, &g);
	while (sent < sizeof(big) || got < sizeof(big)) {
		ssize_t n = send(fd, big + sent, sizeof(big) - sent, MSG_NOSIGNAL);

		sent += MAX(n, 0);
		vd_turn(&c.d);
		while (packet_waits(&c)) {
			struct vsock_hdr h = recv_packet(&c, buf);

			assert_int_equal(h.op, VSOCK_OP_RW);
			got += h.len;
			assert_true(got - g.fwd <= GUEST_WINDOW);
		}
		if (got - g.fwd == GUEST_WINDOW) {
			/* Full: silence until we grant more. */
			assert_false(packet_waits(&c));
			g.fwd = got;
			send_packet(&c, &g, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
		}
	}
	assert_int_equal(got, sizeof(big));
	close(fd);
	finish(&c);
}

static void hostile_credit(void **state)
{
	struct ctx c;
	struct guest g;
	char buf[RXBUF];
	int fd;

	fd = start_conn(&c, &g);
	g.fwd = 1000;		/* more than was ever sent */
	send_packet(&c, &g, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	say(fd, "x", 1);
	assert_false(packet_waits(&c));
	g.fwd = 0;
	g.alloc = 0;
	send_packet(&c, &g, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	assert_false(packet_waits(&c));
	g.alloc = ~0u;
	send_packet(&c, &g, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	assert_int_equal(recv_packet(&c, buf).len, 1);
	send_packet(&c, &g, VSOCK_OP_CREDIT_REQUEST, 0, NULL, 0);
	assert_int_equal(expect(&c, VSOCK_OP_CREDIT_UPDATE).buf_alloc, LIMIT_VSOCK_WINDOW);
	close(fd);
	finish(&c);
}

static void hostile_packets(void **state)
{
	struct ctx c;
	struct guest g;
	struct vsock_hdr h;
	struct vd_buf tiny = { 0, 43, false };
	int fd;

	fd = start_conn(&c, &g);
	tiny.gpa = c.tx_buf;
	vd_add(&c.d, TX, &tiny, 1);
	vd_kick(&c.d, TX);
	vd_used(&c.d, TX, NULL);
	h = (struct vsock_hdr){
		.src_cid = CID + 1, .dst_cid = VSOCK_HOST_CID, .src_port = 1024,
		.dst_port = g.host_port, .type = 1, .op = VSOCK_OP_RST,
	};
	send_raw(&c, &h, NULL, 0);		/* not from this guest */
	h.src_cid = CID;
	h.src_port = 1025;
	send_raw(&c, &h, NULL, 0);		/* not this connection */
	h.op = 200;
	send_raw(&c, &h, NULL, 0);
	expect(&c, VSOCK_OP_RST);
	h.op = VSOCK_OP_RW;
	h.type = 2;
	send_raw(&c, &h, NULL, 0);
	assert_int_equal(expect(&c, VSOCK_OP_RST).type, 2);
	h.type = 1;
	h.dst_cid = 99;
	send_raw(&c, &h, NULL, 0);
	/* From whom it was meant for, in the guest's eyes. */
	vd_used(&c.d, RX, NULL);
	/* Length beyond the chain. */
	h.dst_cid = VSOCK_HOST_CID;
	h.src_port = 1024;
	h.len = ~0u;
	h.buf_alloc = GUEST_WINDOW;
	send_raw(&c, &h, NULL, 0);
	expect(&c, VSOCK_OP_RST);
	close(fd);
	/* A receive buffer without room for a header. */
	give_rx(&c, 1, 20);
	finish(&c);
}

static void tiny_receive_buffer_breaks(void **state)
{
	struct ctx c;
	struct guest g = { 5000, 77, 0, 1000 };

	start_bare(&c);
	give_rx(&c, 1, VSOCK_HDR_LEN);
	send_packet(&c, &g, VSOCK_OP_REQUEST, 0, NULL, 0);
	vd_settle(&c.d);
	assert_true(vd_status(&c.d) & VIRTIO_S_NEEDS_RESET);
	finish(&c);
}

/* No receive buffers: refusals queue up, then the guest's sending stops. */
static void resets_are_bounded(void **state)
{
	struct vsock_hdr h = {
		.src_cid = CID, .dst_cid = VSOCK_HOST_CID, .src_port = 1,
		.dst_port = 2, .type = 1, .op = VSOCK_OP_REQUEST,
	};
	struct vd_buf b;
	struct ctx c;

	start_bare(&c);
	b = (struct vd_buf){ c.tx_buf, VSOCK_HDR_LEN, false };
	memcpy(vd_ptr(&c.d, c.tx_buf, 44), &h, 44);
	for (unsigned i = 0; i < 200; i++)
		vd_add(&c.d, TX, &b, 1);
	vd_kick(&c.d, TX);
	vd_settle(&c.d);
	assert_int_equal(c.d.dev->vq[TX].next_used, VSOCK_RSTS);
	give_rx(&c, 200, RXBUF);
	for (unsigned i = 0; i < 200; i++)
		vd_used(&c.d, RX, NULL);
	assert_int_equal(c.d.dev->vq[TX].next_used, 200);
	finish(&c);
}

static unsigned live_conns(struct ctx *c)
{
	return container_of(c->d.dev, struct vsock, dev)->nr_conns;
}

static void driver_reset_drops_connections(void **state)
{
	struct ctx c;
	struct guest g;
	char b;
	int fd;

	fd = start_conn(&c, &g);
	vd_write(&c.d, VD_STATUS, 0);
	assert_int_equal(hear(&c, fd, &b, 1), 0);
	assert_int_equal(live_conns(&c), 0);
	close(fd);
	vd_start(&c.d, ~0ull);
	give_rx(&c, 200, RXBUF);
	fd = open_conn(&c, &g);
	close(fd);
	finish(&c);
}

static void load_tells_the_guest(void **state)
{
	struct ctx c;
	struct guest g;
	struct buf b = BUF_INIT;
	struct vsock_config cfg = { .cid = CID + 5 };
	struct vd_buf event;
	struct state_w w;
	struct state_r r;
	int fd;

	fd = start_conn(&c, &g);
	event = (struct vd_buf){ vd_alloc(&c.d, 4, 4), 4, true };
	memset(vd_ptr(&c.d, event.gpa, 4), 0xff, 4);
	vd_add(&c.d, EVENT, &event, 1);
	vd_kick(&c.d, EVENT);
	vd_settle(&c.d);
	state_w_init(&w, &b);
	virtio_save(c.d.dev, 0, &w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	assert_int_equal(live_conns(&c), 1);	/* the source keeps its own */
	virtio_free(c.d.dev);
	cfg.listen_fd = c.listen_fd;
	vd_attach(&c.d, &vsock_class, "", &cfg);
	assert_int_equal(state_r_init(&r, b.data, b.len, NULL), 0);
	assert_int_equal(virtio_load(c.d.dev, 0, &r, NULL), 0);
	assert_false(vd_has_used(&c.d, EVENT));
	virtio_kick_queues(c.d.dev);
	vd_used(&c.d, EVENT, NULL);
	assert_int_equal(*(uint32_t *)vd_ptr(&c.d, event.gpa, 4), 0);
	assert_int_equal(vd_config(&c.d, 0, 8), CID + 5);
	close(fd);
	buf_done(&b);
	finish(&c);
}

#define MANY 400

/* Hundreds at once, each with its own bytes both ways. */
static void many_connections(void **state)
{
	static struct guest g[MANY];
	static int fd[MANY];
	struct rlimit lim = { 4096, 4096 };
	struct ctx c;
	char buf[RXBUF];

	setrlimit(RLIMIT_NOFILE, &lim);
	start(&c);
	for (unsigned i = 0; i < MANY; i++)
		fd[i] = open_conn(&c, &g[i]);
	assert_int_equal(live_conns(&c), MANY);
	for (unsigned i = 0; i < MANY; i++)
		say(fd[i], &i, sizeof(i));
	for (unsigned n = 0; n < MANY; n++) {
		struct vsock_hdr h = recv_packet(&c, buf);
		unsigned i;

		assert_int_equal(h.op, VSOCK_OP_RW);
		assert_int_equal(h.len, sizeof(i));
		memcpy(&i, buf, sizeof(i));
		assert_true(i < MANY);
		assert_int_equal(h.src_port, g[i].host_port);
		send_packet(&c, &g[i], VSOCK_OP_RW, 0, buf, sizeof(i));
	}
	for (unsigned i = 0; i < MANY; i++) {
		unsigned back;

		assert_int_equal(hear(&c, fd[i], &back, sizeof(back)), sizeof(back));
		assert_int_equal(back, i);
		close(fd[i]);
		expect(&c, VSOCK_OP_SHUTDOWN);
		send_packet(&c, &g[i], VSOCK_OP_RST, 0, NULL, 0);
	}
	assert_int_equal(live_conns(&c), 0);
	finish(&c);
}

/* A full line and no buffers: the loop sleeps instead of spinning. */
static void starved_loop_sleeps(void **state)
{
	struct ctx c;
	struct guest g[3];
	int fd[3];

	start_bare(&c);
	give_rx(&c, 3, RXBUF);
	for (unsigned i = 0; i < 3; i++)
		fd[i] = open_conn(&c, &g[i]);
	/* open_conn put the buffers back: use them up. */
	for (unsigned i = 0; i < 3; i++) {
		say(fd[i], "0123456789", 10);
		vd_settle(&c.d);
	}
	for (unsigned i = 0; i < 3; i++) {
		say(fd[i], "more", 4);
		vd_settle(&c.d);
	}
	/* epoll would report at once what is still watched. */
	for (unsigned i = 0; i < 3; i++) {
		struct vsock *v = container_of(c.d.dev, struct vsock, dev);
		struct conn *conn = vsock_find(v, g[i].host_port, 1024);

		assert_non_null(conn);
		assert_int_equal(conn->sock.events, 0);
	}
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(recv_packet(&c, NULL).op, VSOCK_OP_RW);
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
	finish(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(talk_both_ways),
		cmocka_unit_test(eager_client),
		cmocka_unit_test(bad_lines),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(guest_initiative_is_refused),
		cmocka_unit_test(host_half_close),
		cmocka_unit_test(guest_half_close),
		cmocka_unit_test(client_dies),
		cmocka_unit_test(guest_reset_flushes),
		cmocka_unit_test(credit_overrun),
		cmocka_unit_test(guest_to_host_credit),
		cmocka_unit_test(host_to_guest_credit),
		cmocka_unit_test(hostile_credit),
		cmocka_unit_test(hostile_packets),
		cmocka_unit_test(tiny_receive_buffer_breaks),
		cmocka_unit_test(resets_are_bounded),
		cmocka_unit_test(driver_reset_drops_connections),
		cmocka_unit_test(load_tells_the_guest),
		cmocka_unit_test(many_connections),
		cmocka_unit_test(starved_loop_sleeps),
	};

	return cmocka_run_group_tests_name("vsock", tests, NULL, NULL);
}
