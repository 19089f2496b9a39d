// SPDX-License-Identifier: MIT
/*
 * vsock.c - virtio socket device (virtio 1.2, section 5.10): streams between
 * Unix sockets of the host and ports of the guest.
 *
 * Theory of operation.  Host clients connect to one listening socket and name the
 * guest's port; connections begun by the guest are refused.  Each has an entry
 * that its host port leads to, so a packet finds its connection by index.
 *
 *	guest tx --> tx_packet --> conn_*: socket, or buffer within its window
 *	guest rx <-- vsock_feed <-- line of ready connections
 *
 * All that goes to the guest needs one of its receive buffers, which may be
 * missing for any time.  So nothing is sent from where it arises: a connection
 * notes what it owes (OWE_*, readable socket) and stands in line; vsock_feed()
 * serves the line round-robin while there are buffers.  Data go from the socket
 * straight into up to VSOCK_BATCH receive buffers with one readv(2).
 *
 * Answers to packets of no connection have no entry to be noted in.  They go to a
 * short queue, and while that is full no packet is taken from the guest: it has
 * to give us receive buffers first (5.10.6.1 allows this).
 *
 * Snapshots: connections are the host's and do not travel.  After a load the
 * driver gets a transport reset event and drops its side.  It would drop what is
 * made meanwhile, too, so new connections wait until it gives the event's buffer
 * back, which it does when it is through.
 *
 * A driver's reset comes on a vCPU thread, where sockets cannot be taken from the
 * loop: it only marks the device, and vsock_enter() on the loop does the rest
 * before anything else happens.
 */
#include "vmm/dev/vsock.h"

#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/wire.h"
#include "vmm/dev/devices.h"
#include "vmm/state.h"

#define EVENT_TRANSPORT_RESET 0

enum { Q_RX, Q_TX, Q_EVENT, NR_QUEUES };

static struct vsock *to_vsock(struct virtio_dev *dev)
{
	return container_of(dev, struct vsock, dev);
}

/* --- headers ------------------------------------------------------------------ */

static void hdr_decode(struct vsock_hdr *h, const uint8_t raw[VSOCK_HDR_LEN])
{
	struct wire_r r;

	wire_r_init(&r, raw, VSOCK_HDR_LEN);
	h->src_cid = wire_u64(&r);
	h->dst_cid = wire_u64(&r);
	h->src_port = wire_u32(&r);
	h->dst_port = wire_u32(&r);
	h->len = wire_u32(&r);
	h->type = wire_u16(&r);
	h->op = wire_u16(&r);
	h->flags = wire_u32(&r);
	h->buf_alloc = wire_u32(&r);
	h->fwd_cnt = wire_u32(&r);
}

static void hdr_encode(const struct vsock_hdr *h, uint8_t raw[VSOCK_HDR_LEN])
{
	struct wire_w w;

	wire_w_init(&w, raw, VSOCK_HDR_LEN);
	wire_put_u64(&w, h->src_cid);
	wire_put_u64(&w, h->dst_cid);
	wire_put_u32(&w, h->src_port);
	wire_put_u32(&w, h->dst_port);
	wire_put_u32(&w, h->len);
	wire_put_u16(&w, h->type);
	wire_put_u16(&w, h->op);
	wire_put_u32(&w, h->flags);
	wire_put_u32(&w, h->buf_alloc);
	wire_put_u32(&w, h->fwd_cnt);
}

/* --- to the guest ------------------------------------------------------------- */

void vsock_ready(struct conn *c)
{
	list_del(&c->ready);
	list_add_tail(&c->v->ready, &c->ready);
}

/* A receive buffer that holds a header and at least one byte. */
static bool rx_pop(struct vsock *v, struct chain *c)
{
	if (!virtq_pop(&v->dev.vq[Q_RX], c))
		return false;
	if (chain_space(c) > VSOCK_HDR_LEN)
		return true;
	virtio_broken(&v->dev, "receive buffer smaller than a header");
	return false;
}

static void rx_push(struct vsock *v, struct chain *c, const struct vsock_hdr *h)
{
	uint8_t raw[VSOCK_HDR_LEN];

	hdr_encode(h, raw);
	chain_write(c, raw, sizeof(raw));
	chain_skip_in(c, h->len);
	virtq_push(&v->dev.vq[Q_RX], c);
}

static struct vsock_hdr hdr_for(struct conn *c, enum vsock_op op)
{
	c->told_fwd = c->fwd;
	c->owe &= ~OWE_CREDIT;	/* every packet tells it */
	return (struct vsock_hdr){
		.src_cid = VSOCK_HOST_CID, .dst_cid = c->v->cid,
		.src_port = c->host_port, .dst_port = c->guest_port,
		.type = VSOCK_TYPE_STREAM, .op = op,
		.buf_alloc = c->alloc, .fwd_cnt = c->fwd,
	};
}

static bool send_control(struct conn *c, enum vsock_op op, uint32_t flags)
{
	struct chain *ch = &c->v->batch[0];
	struct vsock_hdr h;

	if (!rx_pop(c->v, ch))
		return false;
	h = hdr_for(c, op);
	h.flags = flags;
	rx_push(c->v, ch, &h);
	return true;
}

static bool send_rsts(struct vsock *v)
{
	while (v->nr_rsts) {
		const struct vsock_hdr *to = &v->rst[v->rst_first].to;
		struct vsock_hdr h = {
			.src_cid = to->dst_cid, .dst_cid = v->cid,
			.src_port = to->dst_port, .dst_port = to->src_port,
			.type = to->type, .op = VSOCK_OP_RST,
		};

		if (!rx_pop(v, &v->batch[0]))
			return false;
		rx_push(v, &v->batch[0], &h);
		v->rst_first = (v->rst_first + 1) % VSOCK_RSTS;
		v->nr_rsts--;
	}
	return true;
}

/* Receive buffers for up to `want` bytes; their number, pieces in iov[]. */
static unsigned take_buffers(struct vsock *v, size_t want, struct iovec *iov,
			     unsigned *nr_iov, size_t *room)
{
	unsigned n = 0;

	*nr_iov = 0;
	*room = 0;
	while (n < VSOCK_BATCH && *room < want) {
		struct chain *c = &v->batch[n];
		size_t len;

		if (*nr_iov + 2 > LIMIT_QUEUE_SIZE || !rx_pop(v, c))
			break;
		n++;
		len = MIN(chain_space(c) - VSOCK_HDR_LEN, want - *room);
		c->in_pos = VSOCK_HDR_LEN;	/* the header is written last */
		*nr_iov += chain_in_iov(c, len, iov + *nr_iov,
					LIMIT_QUEUE_SIZE - *nr_iov);
		c->in_pos = 0;
		*room += len;
	}
	return n;
}

/* `len` bytes lie in the first of n buffers taken; the rest goes back. */
static void give_buffers(struct conn *c, unsigned n, size_t len)
{
	struct vsock *v = c->v;
	unsigned used = 0;

	while (len) {
		struct chain *ch = &v->batch[used++];
		struct vsock_hdr h = hdr_for(c, VSOCK_OP_RW);

		h.len = MIN(chain_space(ch) - VSOCK_HDR_LEN, len);
		len -= h.len;
		c->sent += h.len;
		rx_push(v, ch, &h);
	}
	while (n > used)
		virtq_unpop(&v->dev.vq[Q_RX], &v->batch[--n]);
}

/* False: the guest has no buffers. */
static bool feed_data(struct conn *c)
{
	struct iovec iov[LIMIT_QUEUE_SIZE];
	size_t want = conn_may_read(c), room;
	unsigned nr, n;
	ssize_t got;

	if (!want) {
		conn_watch(c, false);
		return true;
	}
	n = take_buffers(c->v, want, iov, &nr, &room);
	if (!n) {
		conn_watch(c, false);
		return false;
	}
	got = conn_read(c, iov, nr);
	give_buffers(c, n, MAX(got, 0));
	if (got > 0 && ((size_t)got == room || c->hup))
		vsock_ready(c);		/* there may be more; others first */
	return true;
}

/* One turn of a connection.  False: no buffers, it stays first in line. */
static bool feed_conn(struct conn *c)
{
	if (c->owe & OWE_REQUEST) {
		if (!send_control(c, VSOCK_OP_REQUEST, 0))
			return false;
		c->owe &= ~OWE_REQUEST;
	}
	if (c->state == CONN_OPEN && !feed_data(c))
		return false;
	if (c->owe & OWE_SHUTDOWN) {
		if (!send_control(c, VSOCK_OP_SHUTDOWN, c->told_shut))
			return false;
		c->owe &= ~OWE_SHUTDOWN;
	}
	if (c->owe & OWE_CREDIT &&
	    !send_control(c, VSOCK_OP_CREDIT_UPDATE, 0))
		return false;
	if (c->owe & OWE_RST) {
		if (!send_control(c, VSOCK_OP_RST, 0))
			return false;
		conn_free(c);
	}
	return true;
}

/* The line does not move: its sockets must not wake the loop meanwhile. */
static void stop_reading(struct vsock *v)
{
	struct conn *c;

	list_for_each(c, &v->ready, ready)
		conn_watch(c, false);
}

void vsock_feed(struct vsock *v)
{
	bool go = virtio_live(&v->dev) && send_rsts(v);

	while (go && !list_empty(&v->ready)) {
		struct conn *c = list_first(&v->ready, struct conn, ready);

		list_del(&c->ready);
		go = feed_conn(c);
		if (!go)
			list_add(&v->ready, &c->ready);
	}
	if (!go)
		stop_reading(v);
	virtq_signal(&v->dev.vq[Q_RX]);
}

/* --- from the guest -------------------------------------------------------------- */

static void refuse(struct vsock *v, const struct vsock_hdr *h)
{
	if (h->op == VSOCK_OP_RST)
		return;		/* never answer a reset with one */
	v->rst[(v->rst_first + v->nr_rsts++) % VSOCK_RSTS].to = *h;
}

static void to_conn(struct conn *c, const struct vsock_hdr *h, struct chain *ch)
{
	bool stuck = !conn_may_read(c);

	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (stuck && conn_may_read(c))
		vsock_ready(c);
	switch (h->op) {
	case VSOCK_OP_RESPONSE: conn_accepted(c); break;
	case VSOCK_OP_RW: conn_data(c, ch, h->len); break;
	case VSOCK_OP_SHUTDOWN: conn_shutdown(c, h->flags); break;
	case VSOCK_OP_RST: conn_guest_reset(c); return;
	case VSOCK_OP_CREDIT_UPDATE: break;
	case VSOCK_OP_CREDIT_REQUEST:
		c->owe |= OWE_CREDIT;
		vsock_ready(c);
		break;
	default: conn_abort(c); break;
	}
}

static void tx_packet(struct vsock *v, struct chain *ch)
{
	uint8_t raw[VSOCK_HDR_LEN];
	struct vsock_hdr h;
	struct conn *c;

	if (chain_read(ch, raw, sizeof(raw)) < sizeof(raw))
		return;
	hdr_decode(&h, raw);
	if (h.src_cid != v->cid)
		return;		/* not even the sender's address is right */
	if (h.dst_cid != VSOCK_HOST_CID || h.type != VSOCK_TYPE_STREAM) {
		refuse(v, &h);
		return;
	}
	c = vsock_find(v, h.dst_port, h.src_port);
	if (!c)
		refuse(v, &h);
	else if (h.len > chain_left(ch))
		conn_abort(c);
	else
		to_conn(c, &h, ch);
}

static void tx(struct vsock *v)
{
	struct virtq *vq = &v->dev.vq[Q_TX];
	struct chain *ch = &v->batch[0];
	bool full;

	do {
		while (v->nr_rsts < VSOCK_RSTS && virtq_pop(vq, ch)) {
			tx_packet(v, ch);
			virtq_push(vq, ch);
		}
		full = v->nr_rsts == VSOCK_RSTS;
		virtq_signal(vq);
		vsock_feed(v);
	} while (full && v->nr_rsts < VSOCK_RSTS);
}

static void tell_reset(struct vsock *v)
{
	struct virtq *vq = &v->dev.vq[Q_EVENT];
	uint32_t id = EVENT_TRANSPORT_RESET;
	struct chain *ch = &v->batch[0];

	if (!v->tell_reset || !virtq_pop(vq, ch))
		return;
	chain_write(ch, &id, sizeof(id));
	virtq_bell_next(vq);	/* its buffer comes back behind the others */
	virtq_push(vq, ch);
	virtq_signal(vq);
	v->tell_reset = false;
	v->told_reset = true;
}

static void event_notify(struct vsock *v)
{
	if (v->tell_reset) {
		tell_reset(v);
	} else if (v->told_reset) {
		v->told_reset = false;
		vsock_accept_again(v);
	}
}

static void vsock_do_reset(struct vsock *v)
{
	v->reset_pending = false;
	vsock_drop_all(v);
}

static void vsock_notify(struct virtio_dev *dev, struct virtq *vq)
{
	struct vsock *v = to_vsock(dev);

	if (v->reset_pending)
		vsock_do_reset(v);
	if (vq->index == Q_EVENT)
		event_notify(v);
	else
		tx(v);		/* fresh receive buffers may free the way for it */
}

void vsock_enter(struct vsock *v)
{
	virtio_lock(&v->dev);
	if (v->reset_pending)
		vsock_do_reset(v);
}

void vsock_leave(struct vsock *v)
{
	virtio_unlock(&v->dev);
}

/* --- life ------------------------------------------------------------------------- */

static void vsock_reset(struct virtio_dev *dev)
{
	struct vsock *v = to_vsock(dev);

	v->nr_rsts = 0;
	v->tell_reset = v->told_reset = false;
	v->reset_pending = true;
	loop_post(dev->env.loop, &v->reset_work);
}

static void reset_posted(struct loop_work *w)
{
	struct vsock *v = container_of(w, struct vsock, reset_work);

	vsock_enter(v);
	vsock_leave(v);
}

static void vsock_config_read(struct virtio_dev *dev, unsigned off, void *dst, unsigned len)
{
	uint64_t cid = to_vsock(dev)->cid;

	memcpy(dst, (const char *)&cid + off, len);
}

static int vsock_init(struct virtio_dev *dev, const void *arg, struct err *err)
{
	const struct vsock_config *cfg = arg;
	struct vsock *v = to_vsock(dev);

	v->cid = cfg->cid;
	v->reset_work.cb = reset_posted;
	list_init(&v->ready);
	return vsock_listen(v, cfg->listen_fd, err);
}

static void vsock_done(struct virtio_dev *dev)
{
	struct vsock *v = to_vsock(dev);

	if (!v->reset_work.cb)
		return;		/* init was not reached */
	vsock_unlisten(v);
	vsock_drop_all(v);
	loop_unpost(dev->env.loop, &v->reset_work);
}

static void vsock_save(struct virtio_dev *dev, struct state_w *w)
{
	state_put_u8(w, to_vsock(dev)->tell_reset);
}

/* The context id is the new VM's own, from its spec; the event makes the driver
 * read it again. */
static void vsock_load(struct virtio_dev *dev, struct state_r *r)
{
	struct vsock *v = to_vsock(dev);

	state_get_u8(r);
	vsock_drop_all(v);
	v->nr_rsts = 0;
	v->tell_reset = true;
	vsock_hold(v);
}

const struct virtio_class vsock_class = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.nr_queues = NR_QUEUES,
	.size = sizeof(struct vsock),
	.config_size = sizeof(uint64_t),
	.init = vsock_init,
	.done = vsock_done,
	.reset = vsock_reset,
	.notify = vsock_notify,
	.config_read = vsock_config_read,
	.save = vsock_save,
	.load = vsock_load,
	.state_version = 1,
};
