// SPDX-License-Identifier: MIT
/*
 * net.c - virtio network device (virtio 1.2, section 5.1): two queues, frames to
 * and from a struct netif.
 *
 * Guest to host: a frame is copied once, out of its pieces into `frame`; from
 * there on nothing reads guest memory.  A checksum the guest left to us is
 * completed in the copy, where its position is bounded by what was copied.
 * Segmentation offload costs us nothing: the backend terminates TCP and takes a
 * segment of up to 64 KiB as it is.
 *
 * Host to guest: with mergeable buffers a frame may take several, which the
 * driver must see appear at once.  How many it takes is found by a first walk
 * that pops and puts back, so that no more than one chain is in memory (a
 * chain is 6 KiB of arrays); the second walk fills.  The guest may change its
 * rings in between; then the second walk comes up short and the device stops.
 * Frames from the backend carry checksums we made ourselves, so the guest is told
 * not to look (DATA_VALID).
 *
 * Not offered: several queue pairs (one loop thread serves them all), the control
 * queue (the backend sends nothing to filter).
 */
#include "vmm/dev/net.h"

#include <errno.h>
#include <string.h>

#include "base/wire.h"
#include "vmm/dev/devices.h"
#include "vmm/net/frame.h"
#include "vmm/net/netif.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"

#define NET_F_CSUM		BIT(0)
#define NET_F_GUEST_CSUM	BIT(1)
#define NET_F_MTU		BIT(3)
#define NET_F_MAC		BIT(5)
#define NET_F_HOST_TSO4		BIT(11)
#define NET_F_MRG_RXBUF		BIT(15)
#define NET_F_STATUS		BIT(16)

#define HDR_LEN			12	/* 5.1.6, with num_buffers */
#define HDR_F_NEEDS_CSUM	1u
#define HDR_F_DATA_VALID	2u
#define GSO_NONE		0u
#define GSO_TCPV4		1u
#define GSO_ECN			0x80u

#define NET_CONFIG_LEN		12
#define NET_S_LINK_UP		1u

enum { Q_RX, Q_TX, NR_QUEUES };

struct net {
	struct virtio_dev dev;
	struct netif *netif;		/* owned */
	uint8_t mac[6];
	bool link_up;
	uint8_t frame[NETIF_FRAME_MAX];
};

static struct net *to_net(struct virtio_dev *dev)
{
	return container_of(dev, struct net, dev);
}

struct netif *net_netif(struct virtio_dev *dev)
{
	return to_net(dev)->netif;
}

/* --- from the guest ------------------------------------------------------------ */

struct tx_hdr {
	uint8_t flags, gso_type;
	uint16_t csum_start, csum_offset;
};

static bool tx_header(struct chain *c, struct tx_hdr *h)
{
	uint8_t raw[HDR_LEN];
	struct wire_r r;

	if (chain_read(c, raw, sizeof(raw)) < sizeof(raw))
		return false;
	wire_r_init(&r, raw, sizeof(raw));
	h->flags = wire_u8(&r);
	h->gso_type = wire_u8(&r);
	wire_u16(&r);		/* hdr_len and gso_size: we do not segment */
	wire_u16(&r);
	h->csum_start = wire_u16(&r);
	h->csum_offset = wire_u16(&r);
	return true;
}

/* Completes what the guest began: the field holds the pseudo header's sum. */
static bool finish_checksum(uint8_t *frame, size_t len, const struct tx_hdr *h)
{
	size_t at = (size_t)h->csum_start + h->csum_offset;
	uint16_t sum;

	if (h->csum_start >= len || at + 2 > len)
		return false;
	sum = frame_fold(frame_sum(frame + h->csum_start, len - h->csum_start, 0));
	if (!sum)
		sum = 0xffff;	/* zero means "none" in UDP; both are zero in TCP */
	memcpy(frame + at, &sum, sizeof(sum));
	return true;
}

/* Offloads only as negotiated; what breaks the rules is a lost frame. */
static bool tx_allowed(const struct net *n, const struct tx_hdr *h)
{
	uint8_t gso = h->gso_type & ~GSO_ECN;

	if (h->flags & HDR_F_NEEDS_CSUM && !virtio_has(&n->dev, NET_F_CSUM))
		return false;
	if (gso == GSO_NONE)
		return true;
	return gso == GSO_TCPV4 && virtio_has(&n->dev, NET_F_HOST_TSO4) &&
	       h->flags & HDR_F_NEEDS_CSUM;
}

static void tx_frame(struct net *n, struct chain *c)
{
	struct tx_hdr h;
	size_t len;

	if (!tx_header(c, &h) || !tx_allowed(n, &h) ||
	    chain_left(c) > sizeof(n->frame) || !n->link_up)
		return;
	len = chain_read(c, n->frame, sizeof(n->frame));
	if (len < ETH_HDR)
		return;
	if (h.flags & HDR_F_NEEDS_CSUM && !finish_checksum(n->frame, len, &h))
		return;
	n->netif->ops->send(n->netif, n->frame, len);
}

static void net_tx(struct net *n)
{
	struct virtq *vq = &n->dev.vq[Q_TX];
	struct chain c;

	while (virtq_pop(vq, &c)) {
		tx_frame(n, &c);
		virtq_push(vq, &c);
	}
	virtq_signal(vq);
}

/* --- to the guest ---------------------------------------------------------------- */

/* How many buffers hold `len` bytes; 0: more than there are now. */
static unsigned count_buffers(struct virtq *vq, size_t len)
{
	unsigned n = 0;
	size_t room = 0;
	struct chain c;

	while (room < len && virtq_pop(vq, &c)) {
		room += c.in_len;
		n++;
	}
	for (unsigned i = 0; i < n; i++)
		virtq_unpop(vq, &c);
	return room < len ? 0 : n;
}

static void put_header(struct net *n, struct chain *c, unsigned buffers)
{
	uint8_t raw[HDR_LEN] = { 0 };
	struct wire_w w;

	wire_w_init(&w, raw, sizeof(raw));
	wire_put_u8(&w, virtio_has(&n->dev, NET_F_GUEST_CSUM) ? HDR_F_DATA_VALID : 0);
	wire_put_u8(&w, GSO_NONE);
	wire_put_u64(&w, 0);
	wire_put_u16(&w, buffers);
	chain_write(c, raw, sizeof(raw));
}

/* n > 1 only with mergeable buffers. */
static int fill_buffers(struct net *net, unsigned n, const uint8_t *frame, size_t len)
{
	struct virtq *vq = &net->dev.vq[Q_RX];
	size_t done = 0;
	struct chain c;

	for (unsigned i = 0; i < n; i++) {
		if (!virtq_pop(vq, &c))
			break;
		if (!i)
			put_header(net, &c, n);
		done += chain_write(&c, frame + done, len - done);
		virtq_fill(vq, &c);
	}
	if (done < len) {
		virtio_broken(&net->dev, "receive buffers changed while in use");
		return -ENETDOWN;
	}
	virtq_publish(vq);
	return 0;
}

static int net_rx(void *arg, const void *frame, size_t len)
{
	struct net *n = arg;
	struct virtq *vq = &n->dev.vq[Q_RX];
	unsigned buffers;
	int ret;

	if (!virtio_live(&n->dev) || !vq->ready || !n->link_up)
		return -ENETDOWN;
	buffers = count_buffers(vq, HDR_LEN + len);
	if (!buffers)
		return virtio_live(&n->dev) ? -EAGAIN : -ENETDOWN;
	if (buffers > 1 && !virtio_has(&n->dev, NET_F_MRG_RXBUF))
		return 0;	/* too large for this driver: lost */
	ret = fill_buffers(n, buffers, frame, len);
	virtq_signal(vq);
	return ret;
}

static void net_notify(struct virtio_dev *dev, struct virtq *vq)
{
	struct net *n = to_net(dev);

	if (vq->index == Q_RX)
		n->netif->ops->can_rx(n->netif);
	else
		net_tx(n);
}

/* --- configuration, life ---------------------------------------------------------- */

static void net_config_read(struct virtio_dev *dev, unsigned off, void *dst, unsigned len)
{
	const struct net *n = to_net(dev);
	uint8_t cfg[NET_CONFIG_LEN];
	struct wire_w w;

	wire_w_init(&w, cfg, sizeof(cfg));
	wire_put_bytes(&w, n->mac, sizeof(n->mac));
	wire_put_u16(&w, n->link_up ? NET_S_LINK_UP : 0);
	wire_put_u16(&w, 1);		/* max_virtqueue_pairs */
	wire_put_u16(&w, NETIF_MTU);
	memcpy(dst, cfg + off, len);
}

void net_set_link(struct virtio_dev *dev, bool up)
{
	to_net(dev)->link_up = up;
	virtio_config_changed(dev);
}

static int net_init(struct virtio_dev *dev, const void *arg, struct err *err)
{
	const struct net_config *cfg = arg;
	struct net *n = to_net(dev);

	n->netif = cfg->netif;
	n->netif->to_guest = (struct netif_rx){ .rx = net_rx, .arg = n };
	memcpy(n->mac, cfg->mac, sizeof(n->mac));
	n->link_up = true;
	return 0;
}

static void net_done(struct virtio_dev *dev)
{
	netif_free(to_net(dev)->netif);
}

/* The address is the new VM's own, from its spec. */
static void net_save(struct virtio_dev *dev, struct state_w *w)
{
	struct net *n = to_net(dev);

	state_put_u8(w, n->link_up);
	n->netif->ops->save(n->netif, w);
}

static void net_load(struct virtio_dev *dev, struct state_r *r)
{
	struct net *n = to_net(dev);

	n->link_up = state_get_u8(r) & 1;
	n->netif->ops->load(n->netif, r);
}

const struct virtio_class net_class = {
	.name = "net",
	.id = VIRTIO_ID_NET,
	.nr_queues = NR_QUEUES,
	.size = sizeof(struct net),
	.config_size = NET_CONFIG_LEN,
	.features = NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_MTU | NET_F_MAC |
		    NET_F_HOST_TSO4 | NET_F_MRG_RXBUF | NET_F_STATUS,
	.init = net_init,
	.done = net_done,
	.notify = net_notify,
	.config_read = net_config_read,
	.save = net_save,
	.load = net_load,
	.state_version = 2,	/* 2: what the policy has learned */
};
