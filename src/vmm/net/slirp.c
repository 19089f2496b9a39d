// SPDX-License-Identifier: MIT
/*
 * slirp.c - user-mode NAT: libslirp on our event loop.
 *
 * Theory of operation.  libslirp terminates the guest's connections and makes them
 * ordinary sockets of this process, which slirp_poll.c waits for.
 *
 *	guest --> send: policy, bookkeeping --> slirp_input --> sockets
 *	guest <-- deliver (queue while there are no buffers) <-- send_packet
 *
 * libslirp drops nothing by itself when the guest has no receive buffers, and a
 * lost TCP segment costs a slow retransmission; so frames wait in a bounded queue.
 *
 * libslirp learns the guest's Ethernet address from ARP.  A forwarded connection
 * may come before the guest said anything, so we announce the guest ourselves.
 *
 * #syscalls socket connect bind listen accept recvfrom sendto setsockopt
 * #syscalls getsockname getsockopt ioctl shutdown recv send
 * libslirp asks how much a datagram holds:
 * #ioctls FIONREAD
 */
#include "vmm/net/slirp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "proto/spec.h"
#include "vmm/net/flows.h"
#include "vmm/net/frame.h"
#include "vmm/net/nat.h"
#include "vmm/net/policy.h"
#include "vmm/state.h"

/*
 * TCP segments between guest and libslirp.  Its windows end at 65535 bytes, and it
 * tells the guest of a window that opens again only where two segments fit.  A
 * guest stops when less than one is left.  So with more than 65535 / 3 bytes a guest
 * whose peer reads slowly would wait for its own probes, each later than the last.
 */
#define NAT_MSS	16384

struct queued {
	struct list node;
	size_t len;
	uint8_t frame[];
};

/* --- to the guest -------------------------------------------------------------- */

static void enqueue(struct nat *n, const void *frame, size_t len)
{
	struct queued *q;

	if (n->queue_bytes + len > LIMIT_NET_BACKLOG) {
		log_once(n->full_logged, "net", "the guest takes no frames; dropping");
		return;
	}
	q = malloc(sizeof(*q) + len);
	if (!q)
		return;
	q->len = len;
	memcpy(q->frame, frame, len);
	list_add_tail(&n->queue, &q->node);
	n->queue_bytes += len;
}

static void dequeue(struct nat *n, struct queued *q)
{
	list_del(&q->node);
	n->queue_bytes -= q->len;
	free(q);
}

static void deliver(struct nat *n, const void *frame, size_t len)
{
	int ret = -EAGAIN;

	if (!n->netif.to_guest.rx)
		return;
	if (list_empty(&n->queue))
		ret = n->netif.to_guest.rx(n->netif.to_guest.arg, frame, len);
	if (ret == -EAGAIN)
		enqueue(n, frame, len);
}

static void nat_can_rx(struct netif *netif)
{
	struct nat *n = to_nat(netif);

	while (!list_empty(&n->queue)) {
		struct queued *q = list_first(&n->queue, struct queued, node);

		if (n->netif.to_guest.rx(n->netif.to_guest.arg, q->frame, q->len) == -EAGAIN)
			return;
		dequeue(n, q);
	}
}

static void offer_held(void *arg, const uint8_t *frame, size_t len)
{
	deliver(arg, frame, len);
}

static void arm_hold(struct nat *n)
{
	if (n->hold.nr && list_empty(&n->hold_timer.node))
		loop_timer_set(n->loop, &n->hold_timer, io_now_ns() + HOLD_EVERY_NS);
}

static void hold_timer(struct loop_timer *t)
{
	struct nat *n = container_of(t, struct nat, hold_timer);

	pthread_mutex_lock(n->lock);
	hold_again(&n->hold, io_now_ns(), offer_held, n);
	arm_hold(n);
	pthread_mutex_unlock(n->lock);
}

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
	struct nat *n = opaque;
	struct frame f;

	/* Only read; frames of libslirp are sound. */
	if (frame_parse(&f, (uint8_t *)(uintptr_t)buf, len)) {
		policy_learn(n->policy, &f);
		if (f.proto == IP_TCP)
			n->quiet = 0;	/* it may have to say it again */
		hold_to_guest(&n->hold, &f, io_now_ns());
		arm_hold(n);
	}
	deliver(n, buf, len);
	return len;
}

/* --- from the guest -------------------------------------------------------------- */

static void announce(struct nat *n)
{
	static const uint8_t ip[4] = { 10, 0, 2, 15 };
	uint8_t arp[FRAME_ARP_LEN];

	frame_make_arp(arp, n->guest_mac, ip);
	slirp_input(n->slirp, arp, sizeof(arp));
}

/* "Connection refused" beats a time-out. */
static void refuse(struct nat *n, struct frame *f)
{
	uint8_t out[FRAME_TCP_MAX];
	struct frame_tcp t = {
		.src = f->dst, .dst = f->src, .sport = f->dport, .dport = f->sport,
		.ack = f->seq + 1, .flags = TCP_RST | TCP_ACK,
	};

	if (f->proto == IP_UDP && f->dport == 53 && frame_refuse_dns(f))
		deliver(n, f->eth, (size_t)(f->l4 - f->eth) + f->l4_len);
	if (f->proto != IP_TCP)
		return;
	memcpy(t.dst_mac, f->eth + 6, 6);
	deliver(n, out, frame_make_tcp(out, &t));
}

/* What may open a socket, while there are too many. */
static bool too_many(struct nat *n, const struct frame *f)
{
	bool opens = f->proto == IP_TCP ? (f->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN
					: f->type != ETH_ARP;

	if (!opens || nat_may_open(n))
		return false;
	log_once(n->sockets_logged, "net",
		 "the guest has %u connections; no more until some end", n->nr_watches);
	return true;
}

static void nat_send(struct netif *netif, uint8_t *frame, size_t len)
{
	struct nat *n = to_nat(netif);
	struct frame f;

	if (!frame_parse(&f, frame, len))
		return;
	switch (policy_check(n->policy, &f)) {
	case POLICY_DROP: return;
	case POLICY_REFUSE: refuse(n, &f); return;
	case POLICY_PASS: break;
	}
	if (too_many(n, &f))
		return;
	if (memcmp(n->guest_mac, frame + 6, 6) && f.type == ETH_IP4) {
		memcpy(n->guest_mac, frame + 6, 6);
		announce(n);
	}
	if (hold_from_guest(&n->hold, &f, io_now_ns()))
		return;
	/*
	 * libslirp empties the buffers of a connection when a segment size comes with
	 * a SYN: also with one that is said again since the answer was lost.
	 */
	if (f.proto == IP_TCP && flows_note(n->flows, &f))
		frame_blank_options(&f);
	slirp_input(n->slirp, frame, len);
	nat_schedule(n);
}

/* --- state ------------------------------------------------------------------------------ */

static void nat_save(struct netif *netif, struct state_w *w)
{
	struct nat *n = to_nat(netif);

	state_put_bytes(w, n->guest_mac, sizeof(n->guest_mac));
	flows_save(n->flows, w);
	policy_save(n->policy, w);
}

/* The other ends of the guest's connections stayed behind. */
static void reset_flow(void *arg, const struct flow *f)
{
	struct nat *n = arg;
	uint8_t out[FRAME_TCP_MAX];
	struct frame_tcp t = {
		.src = f->remote, .dst = f->local, .sport = f->rport,
		.dport = f->lport, .seq = f->next, .flags = TCP_RST,
	};

	memcpy(t.dst_mac, n->guest_mac, 6);
	enqueue(n, out, frame_make_tcp(out, &t));
}

static void nat_load(struct netif *netif, struct state_r *r)
{
	struct nat *n = to_nat(netif);

	state_get_bytes(r, n->guest_mac, sizeof(n->guest_mac));
	flows_load(r, reset_flow, n);
	if (r->version >= 2)
		policy_load(n->policy, r);
	n->hold.off = true;	/* it has booted long ago */
	if (!r->bad)
		announce(n);
}

/* --- life --------------------------------------------------------------------------------- */

static void nat_free(struct netif *netif)
{
	struct nat *n = to_nat(netif);

	n->netif.to_guest.rx = NULL;
	if (n->slirp)
		slirp_cleanup(n->slirp);
	nat_poll_done(n);
	while (!list_empty(&n->queue))
		dequeue(n, list_first(&n->queue, struct queued, node));
	loop_timer_cancel(n->loop, &n->hold_timer);
	policy_free(n->policy);
	flows_free(n->flows);
	free(n);
}

static const struct netif_ops nat_ops = {
	.name = "slirp",
	.send = nat_send,
	.can_rx = nat_can_rx,
	.forward_add = nat_forward_add,
	.forward_rm = nat_forward_rm,
	.forward_get = nat_forward_get,
	.save = nat_save,
	.load = nat_load,
	.free = nat_free,
};

static void cb_guest_error(const char *msg, void *opaque)
{
	log_debug("net", "guest: %s", msg);
}

/* A guest can provoke them at will, so they go where nobody looks by default. */
static void quiet_log(const gchar *domain, GLogLevelFlags level, const gchar *msg, gpointer arg)
{
	log_debug("net", "slirp: %s", msg);
}

static int start_slirp(struct nat *n, struct err *err)
{
	SlirpConfig cfg = {
		.version = 4,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(NAT_NET4),
		.vnetmask.s_addr = htonl(NAT_MASK4),
		.vhost.s_addr = htonl(NAT_GATEWAY4),
		.vdhcp_start.s_addr = htonl(NAT_GUEST4),
		.vnameserver.s_addr = htonl(NAT_DNS4),
		.in6_enabled = true,
		.vprefix_len = 64,
		.if_mtu = NETIF_MTU,
		.if_mru = 40 + NAT_MSS,	/* what it takes is not bounded by it */
	};

	inet_pton(AF_INET6, NAT_NET6, &cfg.vprefix_addr6);
	inet_pton(AF_INET6, NAT_GATEWAY6, &cfg.vhost6);
	inet_pton(AF_INET6, NAT_DNS6, &cfg.vnameserver6);
	g_log_set_handler("Slirp", G_LOG_LEVEL_MASK, quiet_log, NULL);
	n->slirp = slirp_new(&cfg, &n->cb, n);
	if (!n->slirp)
		return err_set(err, EINVAL, "libslirp refused its configuration");
	announce(n);
	nat_schedule(n);
	return 0;
}

static int add_forwards(struct nat *n, const struct spec *spec, struct err *err)
{
	uint16_t port;
	int ret = 0;

	for (unsigned i = 0; i < spec->nr_ports && !ret; i++)
		ret = nat_forward_add(&n->netif, &spec->port[i], &port, err);
	return ret;
}

/* Half of the process's descriptors at most: sockets and disks need some too. */
static unsigned socket_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return LIMIT_NET_SOCKETS / 8;
	return MIN(lim.rlim_cur / 2, (rlim_t)LIMIT_NET_SOCKETS);
}

struct netif *netif_slirp_new(struct loop *loop, pthread_mutex_t *lock,
			      const struct spec *spec, struct err *err)
{
	struct nat *n = calloc(1, sizeof(*n));
	int ret = 0;

	if (!n) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	n->netif.ops = &nat_ops;
	n->cb.send_packet = cb_send_packet;
	n->cb.guest_error = cb_guest_error;
	n->loop = loop;
	n->lock = lock;
	n->max_sockets = socket_limit();
	memcpy(n->guest_mac, spec->mac, 6);
	nat_poll_init(n);
	list_init(&n->queue);
	loop_timer_init(&n->hold_timer, hold_timer);
	n->flows = flows_new();
	n->policy = policy_new(spec->net_allow, spec->net_host_loopback, err);
	if (!n->flows)
		ret = err_set(err, ENOMEM, "out of memory");
	if (!n->policy)
		ret = -EINVAL;
	if (!ret)
		ret = start_slirp(n, err);
	if (!ret)
		ret = add_forwards(n, spec, err);
	if (!ret)
		return &n->netif;
	nat_free(&n->netif);
	return NULL;
}
