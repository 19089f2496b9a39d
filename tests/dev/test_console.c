// SPDX-License-Identifier: MIT
/* virtio-console between a fake driver and a real struct console. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/io.h"
#include "tests/lib/vdriver.h"
#include "vmm/console.h"
#include "vmm/dev/console.h"
#include "vmm/dev/devices.h"
#include "vmm/state.h"

enum { RX, TX };

struct ctx {
	struct vdriver d;
	struct console *console;
	int log_fd, tty, peer;
};

static void start(struct ctx *c)
{
	struct console_config cfg;
	int pair[2];

	memset(c, 0, sizeof(*c));
	vd_init_host(&c->d);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	c->tty = pair[0];
	c->peer = pair[1];
	c->log_fd = memfd_create("log", 0);
	c->console = console_new(c->d.loop, &c->d.lock, c->log_fd, c->tty, NULL);
	assert_non_null(c->console);
	cfg.console = c->console;
	vd_attach(&c->d, &console_class, "", &cfg);
	vd_start(&c->d, ~0ull);
}

static void finish(struct ctx *c)
{
	virtio_free(c->d.dev);
	c->d.dev = NULL;
	console_free(c->console);
	vd_done(&c->d);
	close(c->log_fd);
	close(c->tty);
	close(c->peer);
}

static void put(struct ctx *c, const void *data, uint32_t len)
{
	struct vd_buf b = { vd_alloc(&c->d, len, 1), len, false };

	memcpy(vd_ptr(&c->d, b.gpa, len), data, len);
	vd_add(&c->d, TX, &b, 1);
	vd_kick(&c->d, TX);
}

static void output_reaches_log_and_stream(void **state)
{
	char buf[64];
	struct ctx c;

	start(&c);
	put(&c, "hello ", 6);
	put(&c, "world", 5);
	vd_used(&c.d, TX, NULL);
	vd_used(&c.d, TX, NULL);
	vd_settle(&c.d);
	assert_int_equal(pread(c.log_fd, buf, sizeof(buf), 0), 11);
	assert_memory_equal(buf, "hello world", 11);
	assert_int_equal(read(c.peer, buf, sizeof(buf)), 11);
	assert_memory_equal(buf, "hello world", 11);
	finish(&c);
}

static void input_waits_for_buffers(void **state)
{
	struct vd_buf b[4];
	char got[16] = "";
	uint32_t len, n = 0;
	struct ctx c;

	start(&c);
	assert_int_equal(write(c.peer, "typed text", 10), 10);
	vd_settle(&c.d);
	for (unsigned i = 0; i < 4; i++) {
		b[i] = (struct vd_buf){ vd_alloc(&c.d, 4, 1), 4, true };
		vd_add(&c.d, RX, &b[i], 1);
	}
	vd_kick(&c.d, RX);
	for (unsigned i = 0; i < 3; i++) {
		vd_used(&c.d, RX, &len);
		memcpy(got + n, vd_ptr(&c.d, b[i].gpa, len), len);
		n += len;
	}
	assert_string_equal(got, "typed text");
	vd_settle(&c.d);
	assert_false(vd_has_used(&c.d, RX));
	finish(&c);
}

struct progress {
	struct ctx *c;
	uint16_t want;
};

static bool all_sent(void *arg)
{
	struct progress *p = arg;

	return p->c->d.dev->vq[TX].next_used == p->want;
}

/* A reader that stops delays the guest, does not lose a byte, then carries on. */
static void slow_reader_holds_the_guest(void **state)
{
	static char line[4096], in[65536];
	struct progress p;
	size_t total = 0, pos = 0;
	struct ctx c;
	ssize_t n;

	start(&c);
	for (unsigned i = 0; i < 200; i++) {
		memset(line, 'a' + i % 26, sizeof(line));
		put(&c, line, sizeof(line));
	}
	vd_settle(&c.d);
	assert_true(c.d.dev->vq[TX].next_used < 200);
	p = (struct progress){ &c, 200 };
	while (total < 200 * sizeof(line)) {
		vd_turn(&c.d);
		n = read(c.peer, in, sizeof(in));
		for (ssize_t i = 0; i < n; i++, pos++)
			assert_int_equal(in[i], 'a' + (pos / sizeof(line)) % 26);
		total += MAX(n, 0);
	}
	vd_until(&c.d, all_sent, &p);
	finish(&c);
}

/* … but not for ever: its kernel spins meanwhile. */
static void stuck_reader_is_given_up(void **state)
{
	static char line[4096];
	struct progress p;
	struct ctx c;

	start(&c);
	for (unsigned i = 0; i < 200; i++)
		put(&c, line, sizeof(line));
	p = (struct progress){ &c, 200 };
	vd_until(&c.d, all_sent, &p);
	finish(&c);
}

static void size_is_config(void **state)
{
	struct ctx c;
	uint32_t gen;

	start(&c);
	assert_int_equal(vd_config(&c.d, 0, 2), 80);
	assert_int_equal(vd_config(&c.d, 2, 2), 24);
	gen = vd_read(&c.d, VD_GENERATION);
	console_dev_resize(c.d.dev, 132, 43);
	assert_int_equal(vd_config(&c.d, 0, 2), 132);
	assert_int_equal(vd_config(&c.d, 2, 2), 43);
	assert_true(vd_read(&c.d, VD_GENERATION) != gen);
	assert_true(vd_read(&c.d, VD_ISR) & VIRTIO_ISR_CONFIG);
	finish(&c);
}

/* A chain that went out half way is not repeated by a VM restored from it. */
static void half_sent_chain_is_saved(void **state)
{
	static char big[256 << 10], in[1 << 20];
	struct console_config cfg;
	struct buf b = BUF_INIT;
	struct state_w w;
	struct state_r r;
	struct ctx c;
	size_t pos = 0;
	struct progress p = { &c, 1 };

	start(&c);
	for (unsigned i = 0; i < sizeof(big); i++)
		big[i] = i / 251;
	put(&c, big, sizeof(big));
	vd_settle(&c.d);
	assert_int_equal(c.d.dev->vq[TX].next_used, 0);
	state_w_init(&w, &b);
	virtio_save(c.d.dev, 0, &w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	virtio_free(c.d.dev);
	cfg.console = c.console;
	vd_attach(&c.d, &console_class, "", &cfg);
	assert_int_equal(state_r_init(&r, b.data, b.len, NULL), 0);
	assert_int_equal(virtio_load(c.d.dev, 0, &r, NULL), 0);
	virtio_kick_queues(c.d.dev);
	while (pos < sizeof(big)) {
		ssize_t n = read(c.peer, in + pos, sizeof(in) - pos);

		pos += MAX(n, 0);
		vd_turn(&c.d);
	}
	vd_until(&c.d, all_sent, &p);
	assert_int_equal(pos, sizeof(big));
	assert_memory_equal(in, big, sizeof(big));
	buf_done(&b);
	finish(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_reaches_log_and_stream),
		cmocka_unit_test(input_waits_for_buffers),
		cmocka_unit_test(slow_reader_holds_the_guest),
		cmocka_unit_test(stuck_reader_is_given_up),
		cmocka_unit_test(size_is_config),
		cmocka_unit_test(half_sent_chain_is_saved),
	};

	return cmocka_run_group_tests_name("console", tests, NULL, NULL);
}
