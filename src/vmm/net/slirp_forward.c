// SPDX-License-Identifier: MIT
/*
 * slirp_forward.c - port forwards of the NAT.
 *
 * libslirp listens and connects; what it does not do is done around it: it tells
 * neither the port it got nor the socket, has a backlog of one, and answers
 * through the wrong one of two UDP forwards.
 *
 * #syscalls socket bind listen getsockname setsockopt
 */
#include "vmm/net/slirp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "proto/spec.h"
#include "vmm/net/nat.h"

#define LISTEN_BACKLOG	128

bool nat_is_listener(const struct nat *n, int fd)
{
	for (unsigned i = 0; i < n->nr_forwards; i++)
		if (n->forward[i].fd == fd)
			return !n->forward[i].f.udp;
	return false;
}

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
 * socket is the newest one after the next fill.
 */
static void learn_listener(struct nat *n, struct forward *w)
{
	nat_fill(n);
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
		v4->sin_addr.s_addr = htonl(NAT_GUEST4);
		return sizeof(*v4);
	}
	v6->sin6_port = htons(port);
	inet_pton(AF_INET6, NAT_GUEST6, &v6->sin6_addr);
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

int nat_forward_add(struct netif *netif, const struct spec_port *p,
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
	nat_fill(n);
	len = guest_address(w, p->guest_port, &guest);
	errno = 0;
	n->last_fd = -1;
	if (slirp_add_hostxfwd(n->slirp, (struct sockaddr *)&w->addr, w->addr_len,
			       (struct sockaddr *)&guest, len, hostfwd_flags(w)) < 0)
		return forward_failed(w, errno ? errno : EIO, err);
	learn_listener(n, w);
	n->nr_forwards++;
	*port = w->f.host_port;
	nat_schedule(n);
	return 0;
}

int nat_forward_rm(struct netif *netif, const char *host_addr,
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
		nat_schedule(n);
		return 0;
	}
	return -ENOENT;
}

bool nat_forward_get(struct netif *netif, unsigned i, struct netif_forward *f)
{
	struct nat *n = to_nat(netif);

	if (i >= n->nr_forwards)
		return false;
	*f = n->forward[i].f;
	return true;
}
