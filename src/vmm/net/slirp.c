// SPDX-License-Identifier: MIT
/*
 * slirp.c - user-mode NAT: libslirp on our event loop.
 *
 * Theory of operation.  libslirp terminates the guest's connections and makes them
 * ordinary sockets of this process.  It is written for poll(2): before sleeping it
 * wants to say which descriptors it waits for and how long (fill), after waking to
 * be told which are ready (poll).  We turn that into a *pass* that runs at most
 * once a turn of the loop, whenever a frame, a socket or a timer gave it a reason:
 *
 *	slirp_pollfds_poll(what epoll reported)  then  slirp_pollfds_fill(),
 *
 * and the descriptors it names are kept registered with epoll as `struct watch`,
 * changed only where its wishes changed.  It has no threads and no main loop.
 *
 *	guest --> send: policy, bookkeeping --> slirp_input --> sockets
 *	guest <-- deliver (queue while there are no buffers) <-- send_packet
 *
 * libslirp drops nothing by itself when the guest has no receive buffers, and a
 * lost TCP segment costs a slow retransmission; so frames wait in a bounded queue.
 *
 * Its timers tick twice a second as long as there is any TCP socket, a listening
 * one included.  Only listening sockets and nothing moving for QUIET_TICKS: the
 * tick stops until something happens.
 *
 * libslirp learns the guest's Ethernet address from ARP.  A forwarded connection
 * may come before the guest said anything, so we announce the guest ourselves.
 *
 * #syscalls socket connect bind listen accept recvfrom sendto setsockopt
 * #syscalls getsockname getsockopt ioctl shutdown recv send
 * libslirp asks how much a datagram holds:
 * #ioctls FIONREAD
 */
#include <arpa/inet.h>
#include <errno.h>
#include <glib.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* GLib's, which evaluate twice; base/util.h has its own. */
#undef MIN
#undef MAX

#include "base/err.h"
#include "base/io.h"
#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "proto/spec.h"
#include "vmm/limits.h"
#include "vmm/net/flows.h"
#include "vmm/net/frame.h"
#include "vmm/net/hold.h"
#include "vmm/net/nat.h"
#include "vmm/net/netif.h"
#include "vmm/net/policy.h"
#include "vmm/state.h"

#define TICK_MS		500
#define QUIET_TICKS	240	/* two minutes: longer than any closing state */
#define LISTEN_BACKLOG	128

struct watch {
	struct list node;		/* nat->watches */
	struct nat *nat;		/* borrowed */
	struct loop_fd w;		/* fd is libslirp's */
	unsigned round;			/* of the last fill that named it */
	int idx;			/* in nat->poll[] */
	uint32_t ready;			/* EPOLL* reported since the last pass */
};

struct queued {
	struct list node;
	size_t len;
	uint8_t frame[];
};

struct forward {
	struct netif_forward f;
	struct sockaddr_storage addr;	/* of the host side, port filled in */
	socklen_t addr_len;
	int fd;				/* libslirp's listening socket */
};

struct nat {
	struct netif netif;
	struct loop *loop;		/* borrowed */
	pthread_mutex_t *lock;		/* borrowed: vm->lock */
	Slirp *slirp;			/* owned */
	struct policy *policy;		/* owned */
	struct flows *flows;		/* owned */
	struct hold hold;
	uint8_t guest_mac[6];

	struct list watches;
	struct watch **by_fd;		/* owned array */
	size_t nr_by_fd;
	struct watch **poll;		/* owned array: what fill gave an index */
	unsigned nr_poll, cap_poll;
	unsigned round, busy_polls;	/* busy: not forwards' listening sockets */
	unsigned nr_fds, max_fds;	/* sockets libslirp has, may have */
	int last_fd;			/* of the newest watch */

	struct loop_work pass;
	struct loop_timer tick, hold_timer;
	unsigned quiet;			/* ticks without anything moving */

	struct list queue;		/* struct queued */
	size_t queue_bytes;
	bool full_logged, sockets_logged;

	struct forward forward[LIMIT_NET_FORWARDS];
	unsigned nr_forwards;
};

/* libslirp's timers (router advertisements). */
struct nat_timer {
	struct loop_timer t;
	struct nat *nat;
	SlirpTimerCb cb;
	void *opaque;
};

static struct nat *to_nat(struct netif *n)
{
	return container_of(n, struct nat, netif);
}

static void schedule(struct nat *n)
{
	n->quiet = 0;
	loop_post(n->loop, &n->pass);
}

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

	if (!opens || n->nr_fds < n->max_fds)
		return false;
	log_once(n->sockets_logged, "net",
		 "the guest has %u connections; no more until some end", n->nr_fds);
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
	if (f.proto == IP_TCP && !f.fragment)
		flows_note(n->flows, &f);
	slirp_input(n->slirp, frame, len);
	schedule(n);
}

/* --- descriptors and time ----------------------------------------------------------- */

static struct watch *watch_of(struct nat *n, int fd)
{
	return (size_t)fd < n->nr_by_fd ? n->by_fd[fd] : NULL;
}

static void watch_ready(struct loop_fd *w, uint32_t events)
{
	struct watch *x = container_of(w, struct watch, w);

	x->ready |= events;
	schedule(x->nat);
}

static struct watch *watch_new(struct nat *n, int fd)
{
	struct watch *x = calloc(1, sizeof(*x));
	struct watch **bigger;

	if (x && (size_t)fd >= n->nr_by_fd) {
		size_t nr = fd + 64;

		bigger = realloc(n->by_fd, nr * sizeof(struct watch *));
		if (!bigger) {
			free(x);
			return NULL;
		}
		memset(bigger + n->nr_by_fd, 0, (nr - n->nr_by_fd) * sizeof(struct watch *));
		n->by_fd = bigger;
		n->nr_by_fd = nr;
	}
	if (!x)
		return NULL;
	x->nat = n;
	x->idx = -1;
	x->w = (struct loop_fd){ .fd = fd, .cb = watch_ready };
	list_add_tail(&n->watches, &x->node);
	n->by_fd[fd] = x;
	n->last_fd = fd;
	return x;
}

static void watch_free(struct watch *x)
{
	struct nat *n = x->nat;

	loop_del(n->loop, &x->w);
	if (x->idx >= 0 && (unsigned)x->idx < n->nr_poll && n->poll[x->idx] == x)
		n->poll[x->idx] = NULL;
	n->by_fd[x->w.fd] = NULL;
	list_del(&x->node);
	free(x);
}

/* Both callbacks mean that a watch of that number is of another socket. */
static void cb_register(int fd, void *opaque)
{
	struct nat *n = opaque;
	struct watch *x = watch_of(n, fd);

	if (x)
		watch_free(x);
	n->nr_fds++;
}

static void cb_unregister(int fd, void *opaque)
{
	struct nat *n = opaque;
	struct watch *x = watch_of(n, fd);

	if (x)
		watch_free(x);
	if (n->nr_fds)
		n->nr_fds--;
}

static bool is_forward(const struct nat *n, int fd)
{
	for (unsigned i = 0; i < n->nr_forwards; i++)
		if (n->forward[i].fd == fd)
			return true;
	return false;
}

static int cb_add_poll(int fd, int events, void *opaque)
{
	struct nat *n = opaque;
	struct watch *x = watch_of(n, fd);
	uint32_t want = (events & SLIRP_POLL_IN ? EPOLLIN : 0) |
			(events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
			(events & SLIRP_POLL_PRI ? EPOLLPRI : 0);

	if (n->nr_poll == n->cap_poll) {
		unsigned cap = n->cap_poll * 2 + 64;
		struct watch **p = realloc(n->poll, cap * sizeof(struct watch *));

		if (!p)
			return -1;
		n->poll = p;
		n->cap_poll = cap;
	}
	if (!x)
		x = watch_new(n, fd);
	if (!x)
		return -1;
	if (x->w.added) {
		loop_mod(n->loop, &x->w, want);
	} else {
		x->w.events = want;
		loop_add(n->loop, &x->w);
	}
	x->round = n->round;
	x->idx = n->nr_poll;
	n->poll[n->nr_poll++] = x;
	n->busy_polls += !is_forward(n, fd);
	return x->idx;
}

static int cb_revents(int idx, void *opaque)
{
	struct nat *n = opaque;
	const struct watch *x = idx >= 0 && (unsigned)idx < n->nr_poll ? n->poll[idx] : NULL;
	uint32_t e = x ? x->ready : 0;

	return (e & EPOLLIN ? SLIRP_POLL_IN : 0) |
	       (e & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (e & EPOLLPRI ? SLIRP_POLL_PRI : 0) |
	       (e & EPOLLERR ? SLIRP_POLL_ERR : 0) |
	       (e & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

/* What libslirp did not name is not to wake us. */
static void drop_unnamed(struct nat *n)
{
	struct watch *x;

	list_for_each(x, &n->watches, node) {
		x->ready = 0;
		if (x->round == n->round)
			continue;
		x->idx = -1;
		loop_del(n->loop, &x->w);
	}
}

static void set_tick(struct nat *n, uint32_t ms)
{
	/* Above TICK_MS it has no timer running and only means "now and then". */
	if (ms > TICK_MS || (!n->busy_polls && n->quiet > QUIET_TICKS))
		loop_timer_cancel(n->loop, &n->tick);
	else
		loop_timer_set(n->loop, &n->tick, io_now_ns() + ms * 1000000ull);
}

static void fill(struct nat *n)
{
	uint32_t ms = UINT32_MAX;

	n->round++;
	n->nr_poll = 0;
	n->busy_polls = 0;
	slirp_pollfds_fill(n->slirp, &ms, cb_add_poll, n);
	drop_unnamed(n);
	set_tick(n, ms);
}

static void run_pass(struct nat *n)
{
	pthread_mutex_lock(n->lock);
	slirp_pollfds_poll(n->slirp, 0, cb_revents, n);
	fill(n);
	pthread_mutex_unlock(n->lock);
}

static void pass_posted(struct loop_work *w)
{
	run_pass(container_of(w, struct nat, pass));
}

static void ticked(struct loop_timer *t)
{
	struct nat *n = container_of(t, struct nat, tick);

	n->quiet++;
	run_pass(n);
}

static void nat_timer_fired(struct loop_timer *t)
{
	struct nat_timer *x = container_of(t, struct nat_timer, t);

	pthread_mutex_lock(x->nat->lock);
	x->cb(x->opaque);
	pthread_mutex_unlock(x->nat->lock);
}

static void *cb_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct nat_timer *x = g_malloc0(sizeof(*x));

	x->nat = opaque;
	x->cb = cb;
	x->opaque = cb_opaque;
	loop_timer_init(&x->t, nat_timer_fired);
	return x;
}

static void cb_timer_free(void *timer, void *opaque)
{
	struct nat_timer *x = timer;

	loop_timer_cancel(x->nat->loop, &x->t);
	g_free(x);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct nat_timer *x = timer;

	loop_timer_set(x->nat->loop, &x->t, expire_ms * 1000000ull);
}

static int64_t cb_clock(void *opaque)
{
	return io_now_ns();
}

static void cb_notify(void *opaque)
{
	schedule(opaque);
}

static void cb_guest_error(const char *msg, void *opaque)
{
	log_debug("net", "guest: %s", msg);
}

static const SlirpCb callbacks = {
	.send_packet = cb_send_packet,
	.guest_error = cb_guest_error,
	.clock_get_ns = cb_clock,
	.timer_new = cb_timer_new,
	.timer_free = cb_timer_free,
	.timer_mod = cb_timer_mod,
	.register_poll_fd = cb_register,
	.unregister_poll_fd = cb_unregister,
	.notify = cb_notify,
};

/* A guest can provoke them at will, so they go where nobody looks by default. */
static void quiet_log(const gchar *domain, GLogLevelFlags level, const gchar *msg, gpointer arg)
{
	log_debug("net", "slirp: %s", msg);
}

/* --- forwards ------------------------------------------------------------------------ */

static int host_address(struct forward *w, const char *text, uint16_t port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&w->addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&w->addr;

	memset(&w->addr, 0, sizeof(w->addr));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		w->addr_len = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
		return -EINVAL;
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	w->addr_len = sizeof(*v6);
	return 0;
}

static int hostfwd_flags(const struct forward *w)
{
	return (w->f.udp ? SLIRP_HOSTFWD_UDP : 0) |
	       (w->addr.ss_family == AF_INET6 ? SLIRP_HOSTFWD_V6ONLY : 0);
}

/*
 * libslirp listens with a backlog of one and does not tell the port it got.  The
 * socket is the one that its next fill names for the first time.
 */
static void learn_listener(struct nat *n, struct forward *w)
{
	n->last_fd = -1;
	fill(n);
	w->fd = n->last_fd;
	if (w->fd < 0)
		return;
	w->addr_len = sizeof(w->addr);
	getsockname(w->fd, (struct sockaddr *)&w->addr, &w->addr_len);
	w->f.host_port = ntohs(w->addr.ss_family == AF_INET
		? ((struct sockaddr_in *)&w->addr)->sin_port
		: ((struct sockaddr_in6 *)&w->addr)->sin6_port);
	if (!w->f.udp)
		listen(w->fd, LISTEN_BACKLOG);
}

static int forward_failed(const struct forward *w, int num, struct err *err)
{
	enum err_code code = num == EADDRINUSE ? ERR_BOOT_PORT_FORWARD_IN_USE
					       : ERR_BOOT_PORT_FORWARD_INVALID;

	if (num == EADDRINUSE)
		return err_code(err, code, num, "%s port %u is in use on the host",
				w->f.host_addr, w->f.host_port);
	return err_code(err, code, num, "cannot listen on %s port %u: %s",
			w->f.host_addr, w->f.host_port, strerror(num));
}

/* libslirp cannot lead from one family to the other. */
static socklen_t guest_address(const struct forward *w, uint16_t port,
			       struct sockaddr_storage *ss)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	ss->ss_family = w->addr.ss_family;
	if (ss->ss_family == AF_INET) {
		v4->sin_port = htons(port);
		v4->sin_addr.s_addr = htonl(0x0a00020f);
		return sizeof(*v4);
	}
	v6->sin6_port = htons(port);
	inet_pton(AF_INET6, "fec0::15", &v6->sin6_addr);
	return sizeof(*v6);
}

/*
 * libslirp takes a guest's datagram for an answer through the first forward whose
 * guest address and port it comes from: a second one would never answer.
 */
static const struct forward *same_udp(const struct nat *n, const struct forward *w)
{
	for (unsigned i = 0; w->f.udp && i < n->nr_forwards; i++) {
		const struct forward *o = &n->forward[i];

		if (o->f.udp && o->f.guest_port == w->f.guest_port &&
		    o->addr.ss_family == w->addr.ss_family)
			return o;
	}
	return NULL;
}

static int nat_forward_add(struct netif *netif, const struct spec_port *p,
			   uint16_t *port, struct err *err)
{
	struct nat *n = to_nat(netif);
	struct sockaddr_storage guest;
	const char *addr = p->host_addr ? p->host_addr : "127.0.0.1";
	struct forward *w = &n->forward[n->nr_forwards];
	const struct forward *other;
	socklen_t len;

	if (n->nr_forwards == LIMIT_NET_FORWARDS)
		return err_code(err, ERR_BOOT_PORT_FORWARD_INVALID, ENOSPC,
				"a VM has at most %u port forwards", n->nr_forwards);
	*w = (struct forward){
		.f = { .host_port = p->host_port, .guest_port = p->guest_port, .udp = p->udp },
	};
	if (strlen(addr) >= sizeof(w->f.host_addr) || !p->guest_port ||
	    host_address(w, addr, p->host_port) < 0)
		return err_code(err, ERR_BOOT_PORT_FORWARD_INVALID, EINVAL,
				"%s is no address to forward from", addr);
	strcpy(w->f.host_addr, addr);
	other = same_udp(n, w);
	if (other)
		return err_code(err, ERR_BOOT_PORT_FORWARD_CONFLICT, EEXIST,
				"port %u of the guest already gets the datagrams of %s port %u",
				p->guest_port, other->f.host_addr, other->f.host_port);
	fill(n);
	len = guest_address(w, p->guest_port, &guest);
	errno = 0;
	if (slirp_add_hostxfwd(n->slirp, (struct sockaddr *)&w->addr, w->addr_len,
			       (struct sockaddr *)&guest, len, hostfwd_flags(w)) < 0)
		return forward_failed(w, errno ? errno : EIO, err);
	learn_listener(n, w);
	n->nr_forwards++;
	*port = w->f.host_port;
	schedule(n);
	return 0;
}

static int nat_forward_rm(struct netif *netif, const char *host_addr,
			  uint16_t host_port, bool udp)
{
	struct nat *n = to_nat(netif);

	for (unsigned i = 0; i < n->nr_forwards; i++) {
		struct forward *w = &n->forward[i];

		if (w->f.host_port != host_port || w->f.udp != udp ||
		    (host_addr && strcmp(host_addr, w->f.host_addr)))
			continue;
		slirp_remove_hostxfwd(n->slirp, (struct sockaddr *)&w->addr,
				      w->addr_len, hostfwd_flags(w));
		*w = n->forward[--n->nr_forwards];
		schedule(n);
		return 0;
	}
	return -ENOENT;
}

static bool nat_forward_get(struct netif *netif, unsigned i, struct netif_forward *f)
{
	struct nat *n = to_nat(netif);

	if (i >= n->nr_forwards)
		return false;
	*f = n->forward[i].f;
	return true;
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
	while (!list_empty(&n->watches))
		watch_free(list_first(&n->watches, struct watch, node));
	while (!list_empty(&n->queue))
		dequeue(n, list_first(&n->queue, struct queued, node));
	loop_timer_cancel(n->loop, &n->tick);
	loop_timer_cancel(n->loop, &n->hold_timer);
	loop_unpost(n->loop, &n->pass);
	policy_free(n->policy);
	flows_free(n->flows);
	free(n->by_fd);
	free(n->poll);
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

static int start_slirp(struct nat *n, struct err *err)
{
	SlirpConfig cfg = {
		.version = 4,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(0x0a000200),
		.vnetmask.s_addr = htonl(0xffffff00),
		.vhost.s_addr = htonl(0x0a000202),
		.vdhcp_start.s_addr = htonl(0x0a00020f),
		.vnameserver.s_addr = htonl(0x0a000203),
		.in6_enabled = true,
		.vprefix_len = 64,
		.if_mtu = NETIF_MTU,
		.if_mru = NETIF_MTU,
	};

	inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &cfg.vhost6);
	inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6);
	g_log_set_handler("Slirp", G_LOG_LEVEL_MASK, quiet_log, NULL);
	n->slirp = slirp_new(&cfg, &callbacks, n);
	if (!n->slirp)
		return err_set(err, EINVAL, "libslirp refused its configuration");
	announce(n);
	schedule(n);
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
	n->loop = loop;
	n->lock = lock;
	n->max_fds = socket_limit();
	n->pass.cb = pass_posted;
	memcpy(n->guest_mac, spec->mac, 6);
	list_init(&n->watches);
	list_init(&n->queue);
	loop_timer_init(&n->tick, ticked);
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
