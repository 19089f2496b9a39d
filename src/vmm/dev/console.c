// SPDX-License-Identifier: MIT
/*
 * console.c - virtio console device (virtio 1.2, section 5.3), one port.
 *
 * Bytes go to and come from struct console (vmm/console.h), which never blocks.
 * Output it does not accept yet stays in the ring: the chain is put back and
 * `tx_skip` remembers how much of it went out, so nothing is kept outside guest
 * memory and a snapshot has one number to save.
 *
 * A Linux guest spins with interrupts off until its console output is taken.  A
 * reader on the host that stopped reading must not freeze the guest for good, so
 * after STALL_NS without progress output is dropped until the reader is back.
 *
 * Not offered: several ports (a VM has one console, everything else is vsock's)
 * and emergency write.
 */
#include "vmm/dev/console.h"

#include <string.h>

#include "base/io.h"
#include "base/loop.h"
#include "base/wire.h"
#include "vmm/console.h"
#include "vmm/dev/devices.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"

#define CONSOLE_F_SIZE	BIT(0)
#define CONSOLE_CONFIG_LEN 12
#define STALL_NS	(NSEC_PER_SEC / 2)
#define BOUNCE		4096

enum { Q_RX, Q_TX, NR_QUEUES };

struct con {
	struct virtio_dev dev;
	struct console *console;	/* borrowed */
	struct console_listener listener;
	struct loop_timer stall;	/* armed while output waits */
	uint32_t tx_skip;		/* of the next chain: went out already */
	size_t burst;			/* bytes taken at this visit */
	bool dropping;
	uint16_t cols, rows;
};

static struct con *to_con(struct virtio_dev *dev)
{
	return container_of(dev, struct con, dev);
}

static void con_rx(struct con *con)
{
	struct virtq *vq = &con->dev.vq[Q_RX];
	uint8_t buf[BOUNCE];
	struct chain c;

	while (virtq_pop(vq, &c)) {
		size_t n = console_read(con->console, buf,
					MIN(chain_space(&c), sizeof(buf)));

		if (!n && chain_space(&c)) {
			virtq_unpop(vq, &c);
			break;
		}
		chain_write(&c, buf, n);
		virtq_push(vq, &c);
	}
	virtq_signal(vq);
}

enum tx { TX_DONE, TX_WAIT, TX_YIELD };

static enum tx tx_chain(struct con *con, struct chain *c)
{
	uint8_t buf[BOUNCE];

	chain_skip_out(c, con->tx_skip);
	while (chain_left(c)) {
		size_t n = chain_read(c, buf, sizeof(buf));
		size_t done = console_write(con->console, buf, n);

		con->tx_skip += done;
		con->burst += n;
		if (done < n && !con->dropping)
			return TX_WAIT;
		if (con->burst > LIMIT_CONSOLE_BURST) {
			con->tx_skip += n - done;
			return TX_YIELD;
		}
	}
	return TX_DONE;
}

/* A chain may name the same 4 GiB of RAM over and over: others get a turn. */
static void con_tx(struct con *con)
{
	struct virtq *vq = &con->dev.vq[Q_TX];
	enum tx how = TX_DONE;
	struct chain c;

	con->burst = 0;
	while (how == TX_DONE && virtq_pop(vq, &c)) {
		how = tx_chain(con, &c);
		if (how == TX_DONE) {
			con->tx_skip = 0;
			virtq_push(vq, &c);
		} else {
			virtq_unpop(vq, &c);
		}
	}
	if (how == TX_WAIT)
		loop_timer_set(con->dev.env.loop, &con->stall, io_now_ns() + STALL_NS);
	else if (how == TX_YIELD)
		virtio_ring_bell(&con->dev);
	virtq_signal(vq);
}

static void con_notify(struct virtio_dev *dev, struct virtq *vq)
{
	if (vq->index == Q_RX)
		con_rx(to_con(dev));
	else if (list_empty(&to_con(dev)->stall.node))
		con_tx(to_con(dev));
}

/* Under vm->lock already. */
static void con_event(struct console_listener *l)
{
	struct con *con = container_of(l, struct con, listener);

	con->dropping = false;
	loop_timer_cancel(con->dev.env.loop, &con->stall);
	con_tx(con);
	con_rx(con);
}

static void con_stalled(struct loop_timer *t)
{
	struct con *con = container_of(t, struct con, stall);

	virtio_lock(&con->dev);
	con->dropping = true;
	con_tx(con);
	virtio_unlock(&con->dev);
}

/* The stall timer stays as it is, for it is the loop's; it finds no work. */
static void con_reset(struct virtio_dev *dev)
{
	to_con(dev)->tx_skip = 0;
}

static void con_config_read(struct virtio_dev *dev, unsigned off, void *dst, unsigned len)
{
	uint8_t cfg[CONSOLE_CONFIG_LEN];
	struct wire_w w;

	wire_w_init(&w, cfg, sizeof(cfg));
	wire_put_u16(&w, to_con(dev)->cols);
	wire_put_u16(&w, to_con(dev)->rows);
	wire_put_u32(&w, 1);	/* max_nr_ports */
	wire_put_u32(&w, 0);	/* emerg_wr */
	memcpy(dst, cfg + off, len);
}

void console_dev_resize(struct virtio_dev *dev, uint16_t cols, uint16_t rows)
{
	to_con(dev)->cols = cols;
	to_con(dev)->rows = rows;
	virtio_config_changed(dev);
}

static int con_init(struct virtio_dev *dev, const void *arg, struct err *err)
{
	const struct console_config *cfg = arg;
	struct con *con = to_con(dev);

	con->console = cfg->console;
	con->cols = 80;
	con->rows = 24;
	loop_timer_init(&con->stall, con_stalled);
	con->listener.event = con_event;
	console_listen(con->console, &con->listener);
	return 0;
}

static void con_done(struct virtio_dev *dev)
{
	struct con *con = to_con(dev);

	if (!con->console)
		return;		/* init was not reached */
	console_listen(con->console, NULL);
	loop_timer_cancel(dev->env.loop, &con->stall);
}

static void con_save(struct virtio_dev *dev, struct state_w *w)
{
	const struct con *con = to_con(dev);

	state_put_u32(w, con->tx_skip);
	state_put_u16(w, con->cols);
	state_put_u16(w, con->rows);
}

static void con_load(struct virtio_dev *dev, struct state_r *r)
{
	struct con *con = to_con(dev);

	con->tx_skip = state_get_u32(r);
	con->cols = state_get_u16(r);
	con->rows = state_get_u16(r);
}

const struct virtio_class console_class = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.nr_queues = NR_QUEUES,
	.size = sizeof(struct con),
	.config_size = CONSOLE_CONFIG_LEN,
	.features = CONSOLE_F_SIZE,
	.init = con_init,
	.done = con_done,
	.reset = con_reset,
	.notify = con_notify,
	.config_read = con_config_read,
	.save = con_save,
	.load = con_load,
	.state_version = 1,
};
