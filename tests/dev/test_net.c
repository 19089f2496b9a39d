// SPDX-License-Identifier: MIT
/* virtio-net over a backend that only remembers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/fakenet.h"
#include "tests/lib/vdriver.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/net.h"
#include "vmm/net/frame.h"

enum { RX, TX };
#define HDR 12
#define F_CSUM BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_TSO4 BIT(11)
#define F_MRG BIT(15)

struct ctx {
	struct vdriver d;
	struct fakenet *net;
	gpa_t buf, rx_buf[256];
};

static void start(struct ctx *c, uint64_t want)
{
	struct net_config cfg = { .mac = { 2, 4, 6, 8, 10, 12 } };

	memset(c, 0, sizeof(*c));
	c->net = fakenet_new();
	cfg.netif = &c->net->netif;
	vd_init(&c->d, &net_class, "", &cfg);
	vd_start(&c->d, want);
	c->buf = vd_alloc(&c->d, HDR + (128 << 10), 16);
}

static void send(struct ctx *c, const void *hdr, size_t len, unsigned parts)
{
	struct vd_buf b[8];
	size_t all = HDR + len;

	memcpy(vd_ptr(&c->d, c->buf, HDR), hdr, HDR);
	for (unsigned i = 0; i < parts; i++) {
		size_t from = all * i / parts, to = all * (i + 1) / parts;

		b[i] = (struct vd_buf){ c->buf + from, to - from, false };
	}
	vd_add(&c->d, TX, b, parts);
	vd_kick(&c->d, TX);
	vd_used(&c->d, TX, NULL);
}

static uint8_t *payload(struct ctx *c)
{
	return vd_ptr(&c->d, c->buf + HDR, 128 << 10);
}

static const uint8_t plain[HDR];

static void config_space(void **state)
{
	struct ctx c;

	start(&c, ~0ull);
	assert_int_equal(vd_config(&c.d, 0, 1), 2);
	assert_int_equal(vd_config(&c.d, 5, 1), 12);
	assert_int_equal(vd_config(&c.d, 6, 2), 1);
	assert_int_equal(vd_config(&c.d, 8, 2), 1);
	assert_int_equal(vd_config(&c.d, 10, 2), NETIF_MTU);
	net_set_link(c.d.dev, false);
	assert_int_equal(vd_config(&c.d, 6, 2), 0);
	assert_true(vd_read(&c.d, VD_ISR) & VIRTIO_ISR_CONFIG);
	send(&c, plain, 100, 1);
	assert_int_equal(c.net->sent, 0);
	vd_done(&c.d);
}

static void frames_go_out(void **state)
{
	struct ctx c;

	start(&c, ~0ull);
	for (unsigned i = 0; i < 3000; i++)
		payload(&c)[i] = i * 3;
	for (unsigned parts = 1; parts <= 8; parts++) {
		send(&c, plain, 1514, parts);
		assert_int_equal(c.net->sent, parts);
		assert_int_equal(c.net->last_len, 1514);
		assert_memory_equal(c.net->last, payload(&c), 1514);
	}
	/* Runts and giants are lost, the driver gets its buffers back. */
	send(&c, plain, 0, 1);
	send(&c, plain, 13, 1);
	send(&c, plain, NETIF_FRAME_MAX + 1, 4);
	assert_int_equal(c.net->sent, 8);
	send(&c, plain, NETIF_FRAME_MAX, 4);
	assert_int_equal(c.net->sent, 9);
	vd_done(&c.d);
}

static void short_header(void **state)
{
	struct ctx c;
	struct vd_buf b;

	start(&c, ~0ull);
	b = (struct vd_buf){ c.buf, HDR - 1, false };
	vd_add(&c.d, TX, &b, 1);
	vd_kick(&c.d, TX);
	vd_used(&c.d, TX, NULL);
	assert_int_equal(c.net->sent, 0);
	vd_done(&c.d);
}

/* The guest leaves the checksum to us: position and sum. */
static void checksum_is_completed(void **state)
{
	uint8_t hdr[HDR] = { 1, 0, [6] = 34, [8] = 16 };
	struct ctx c;
	uint32_t sum;

	start(&c, ~0ull);
	for (unsigned i = 0; i < 101; i++)
		payload(&c)[i] = i * 7;
	payload(&c)[50] = 0x12;		/* the pseudo header's share */
	payload(&c)[51] = 0x34;
	send(&c, hdr, 101, 2);
	assert_int_equal(c.net->sent, 1);
	/* Data with checksum and the share together give zero. */
	sum = frame_sum(c.net->last + 34, 101 - 34, 0);
	sum = frame_sum("\x12\x34", 2, sum);
	assert_int_equal(frame_fold(sum), 0);
	vd_done(&c.d);
}

static void hostile_offload_headers(void **state)
{
	static const uint8_t bad[][HDR] = {
		{ 1, 0, [6] = 0xff, [7] = 0xff },		/* start past the end */
		{ 1, 0, [6] = 100, [8] = 0 },			/* … at the end */
		{ 1, 0, [6] = 0, [8] = 99 },			/* half a field */
		{ 1, 0, [6] = 0xff, [7] = 0xff, [8] = 0xff, [9] = 0xff },
		{ 0, 1 },					/* TSO without checksum */
		{ 1, 3 },					/* UFO: never offered */
		{ 1, 4 },					/* TSO6: not offered */
		{ 1, 0x7f },
	};
	struct ctx c;

	start(&c, ~0ull);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		send(&c, bad[i], 100, 1);
		assert_int_equal(c.net->sent, 0);
	}
	vd_start(&c.d, ~(F_CSUM | F_TSO4));
	send(&c, (uint8_t[HDR]){ 1, 0, [6] = 34, [8] = 16 }, 100, 1);
	send(&c, (uint8_t[HDR]){ 1, 1, [6] = 34, [8] = 16 }, 100, 1);
	assert_int_equal(c.net->sent, 0);
	vd_done(&c.d);
}

static void give_rx(struct ctx *c, unsigned n, uint32_t len)
{
	while (n--) {
		struct vd_buf b = { vd_alloc(&c->d, len, 1), len, true };

		c->rx_buf[vd_add(&c->d, RX, &b, 1)] = b.gpa;
	}
	vd_kick(&c->d, RX);
	vd_settle(&c->d);
}

static int rx(struct ctx *c, const void *frame, size_t len)
{
	return c->net->netif.to_guest.rx(c->net->netif.to_guest.arg, frame, len);
}

static void frames_come_in(void **state)
{
	static uint8_t frame[60000], got[70000];
	struct ctx c;
	size_t n = 0;
	uint32_t len;
	uint16_t buffers;

	start(&c, ~0ull);
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = i * 11;
	assert_int_equal(rx(&c, frame, 60), -EAGAIN);
	give_rx(&c, 1, 1526);
	assert_true(c.net->rooms > 0);
	assert_int_equal(rx(&c, frame, 1514), 0);
	gpa_t gpa = c.rx_buf[vd_used(&c.d, RX, &len)];

	assert_int_equal(len, 1526);
	assert_memory_equal(vd_ptr(&c.d, gpa + HDR, 1514), frame, 1514);
	assert_int_equal(*(uint8_t *)vd_ptr(&c.d, gpa, 1), 2);	/* checked */
	/* A large one over many, or not at all. */
	give_rx(&c, 39, 1536);
	assert_int_equal(rx(&c, frame, sizeof(frame)), -EAGAIN);
	assert_false(vd_has_used(&c.d, RX));
	give_rx(&c, 1, 1536);
	assert_int_equal(rx(&c, frame, sizeof(frame)), 0);
	memcpy(&buffers, vd_ptr(&c.d, c.rx_buf[1] + 10, 2), 2);
	assert_int_equal(buffers, 40);
	for (unsigned i = 0; i < 40; i++) {
		gpa = c.rx_buf[vd_used(&c.d, RX, &len)];
		memcpy(got + n, vd_ptr(&c.d, gpa, len), len);
		n += len;
	}
	assert_int_equal(n, HDR + sizeof(frame));
	assert_memory_equal(got + HDR, frame, sizeof(frame));
	vd_done(&c.d);
}

static void without_mergeable_buffers(void **state)
{
	static uint8_t frame[3000];
	struct ctx c;

	start(&c, ~(F_MRG | F_GUEST_CSUM));
	give_rx(&c, 4, 1526);
	assert_int_equal(rx(&c, frame, 3000), 0);	/* lost */
	vd_settle(&c.d);
	assert_false(vd_has_used(&c.d, RX));
	assert_int_equal(rx(&c, frame, 1000), 0);
	assert_int_equal(*(uint8_t *)vd_ptr(&c.d, c.rx_buf[vd_used(&c.d, RX, NULL)], 1), 0);
	vd_done(&c.d);
}

static void no_driver_no_frames(void **state)
{
	static uint8_t frame[100];
	struct ctx c;

	start(&c, ~0ull);
	give_rx(&c, 4, 1526);
	vd_write(&c.d, VD_STATUS, 0);
	assert_int_equal(rx(&c, frame, 100), -ENETDOWN);
	vd_done(&c.d);
}

static void tiny_receive_buffers(void **state)
{
	static uint8_t frame[50];
	struct ctx c;

	start(&c, ~0ull);
	give_rx(&c, 100, 1);	/* not even the header fits into one */
	assert_int_equal(rx(&c, frame, sizeof(frame)), 0);
	assert_true(virtio_live(c.d.dev));
	vd_done(&c.d);
}

static void backend_is_freed(void **state)
{
	bool freed = false;
	struct ctx c;

	start(&c, ~0ull);
	c.net->freed = &freed;
	vd_done(&c.d);
	assert_true(freed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(config_space),
		cmocka_unit_test(frames_go_out),
		cmocka_unit_test(short_header),
		cmocka_unit_test(checksum_is_completed),
		cmocka_unit_test(hostile_offload_headers),
		cmocka_unit_test(frames_come_in),
		cmocka_unit_test(without_mergeable_buffers),
		cmocka_unit_test(no_driver_no_frames),
		cmocka_unit_test(tiny_receive_buffers),
		cmocka_unit_test(backend_is_freed),
	};

	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
