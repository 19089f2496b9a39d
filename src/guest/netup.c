// SPDX-License-Identifier: MIT
/*
 * netup.c - loopback and the network device; see boot.h.
 *
 * Addresses are static: the NAT behind the device hands out just these, so a
 * DHCP exchange would only cost time.  The configuration may say otherwise:
 * "net": {"addr", "prefix", "gw", "dns", "addr6", "prefix6", "gw6"}.
 *
 * /etc/resolv.conf is written at every boot, whatever the image has there: its
 * servers are those of the network where the image was made (mmdebstrap and docker
 * leave the host's), and rules for host names work only through our resolver.
 */
#include "guest/boot.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/guest.h"

#define RESOLV_MARK "# written by machinen at boot\n"

static const char *setting(const struct guest *g, const char *key,
			   const char *def)
{
	const struct doc *d = &g->config;
	const char *s = doc_str(d, doc_get(d, doc_get(d, DOC_ROOT, "net"), key));

	return s ? s : def;
}

static int link_flags(int sock, const char *name, short set, short clear)
{
	struct ifreq r = { .ifr_flags = 0 };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(sock, SIOCGIFFLAGS, &r))
		return -errno;
	r.ifr_flags = (r.ifr_flags | set) & ~clear;
	return ioctl(sock, SIOCSIFFLAGS, &r) ? -errno : 0;
}

/* The first interface that is a device: loopback and tunnels have none. */
static bool find_device(char name[IF_NAMESIZE])
{
	DIR *dir = opendir("/sys/class/net");
	struct dirent *e;
	bool found = false;

	while (!found && dir && (e = readdir(dir))) {
		char path[320];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/class/net/%s/device",
			 e->d_name);
		found = !access(path, F_OK);
		if (found)
			snprintf(name, IF_NAMESIZE, "%.15s", e->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

static struct sockaddr inet_of(const char *text)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr any;

	inet_pton(AF_INET, text, &in.sin_addr);
	memcpy(&any, &in, sizeof(any));
	return any;
}

static int ipv4_up(const struct guest *g, int sock, const char *name)
{
	const struct doc *d = &g->config;
	unsigned net = doc_get(d, DOC_ROOT, "net");
	int64_t prefix = doc_int(d, doc_get(d, net, "prefix"), 24);
	uint32_t mask = prefix > 0 && prefix <= 32 ? ~0u << (32 - prefix) : 0;
	struct rtentry route = {
		.rt_dst = inet_of("0.0.0.0"), .rt_genmask = inet_of("0.0.0.0"),
		.rt_gateway = inet_of(setting(g, "gw", "10.0.2.2")),
		.rt_flags = RTF_UP | RTF_GATEWAY,
	};
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(mask) };
	struct ifreq r = { .ifr_addr = inet_of(setting(g, "addr", "10.0.2.15")) };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(sock, SIOCSIFADDR, &r))
		return -errno;
	memcpy(&r.ifr_netmask, &in, sizeof(in));
	if (ioctl(sock, SIOCSIFNETMASK, &r) ||
	    link_flags(sock, name, IFF_UP | IFF_RUNNING, 0) ||
	    ioctl(sock, SIOCADDRT, &route))
		return -errno;
	return 0;
}

struct nl_req {
	struct nlmsghdr head;
	union {
		struct ifaddrmsg addr;
		struct rtmsg route;
	};
	char attrs[128];
};

static void nl_attr(struct nl_req *q, int type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((char *)q + NLMSG_ALIGN(q->head.nlmsg_len));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	q->head.nlmsg_len = NLMSG_ALIGN(q->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static int nl_send(int nl, struct nl_req *q)
{
	char answer[1024];
	struct nlmsghdr *h = (void *)answer;
	struct nlmsgerr *e = NLMSG_DATA(h);
	ssize_t n;

	q->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
	if (send(nl, q, q->head.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(nl, answer, sizeof(answer), 0);
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(*e)) || h->nlmsg_type != NLMSG_ERROR)
		return n < 0 ? -errno : -EPROTO;
	return e->error;
}

/* Without duplicate address detection, which would hold CMD back for a second. */
static int ipv6_up(const struct guest *g, const char *name)
{
	unsigned index = if_nametoindex(name);
	struct nl_req addr = {
		.head = { .nlmsg_len = NLMSG_LENGTH(sizeof(addr.addr)),
			  .nlmsg_type = RTM_NEWADDR },
		.addr = { .ifa_family = AF_INET6, .ifa_prefixlen = 64,
			  .ifa_flags = IFA_F_NODAD, .ifa_index = index },
	};
	struct nl_req route = {
		.head = { .nlmsg_len = NLMSG_LENGTH(sizeof(route.route)),
			  .nlmsg_type = RTM_NEWROUTE },
		.route = { .rtm_family = AF_INET6, .rtm_table = RT_TABLE_MAIN,
			   .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST },
	};
	struct in6_addr in;
	int nl, r;

	nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (nl < 0)
		return -errno;
	inet_pton(AF_INET6, setting(g, "addr6", "fec0::15"), &in);
	nl_attr(&addr, IFA_LOCAL, &in, sizeof(in));
	nl_attr(&addr, IFA_ADDRESS, &in, sizeof(in));
	r = nl_send(nl, &addr);
	inet_pton(AF_INET6, setting(g, "gw6", "fec0::2"), &in);
	nl_attr(&route, RTA_GATEWAY, &in, sizeof(in));
	nl_attr(&route, RTA_OIF, &index, sizeof(index));
	if (!r || r == -EEXIST)
		r = nl_send(nl, &route);
	close(nl);
	return r;
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC |
		      O_NOFOLLOW | O_NONBLOCK, 0644);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		ftruncate(fd, 0);
	close(fd);
}

static void write_resolv(const struct guest *g)
{
	static const char path[] = "/etc/resolv.conf";
	char text[128];

	snprintf(text, sizeof(text), RESOLV_MARK "nameserver %s\n",
		 setting(g, "dns", "10.0.2.3"));
	mkdir("/etc", 0755);
	unlink(path);		/* a link may lead anywhere */
	write_text(path, text);
	if (access("/etc/hosts", F_OK))
		write_text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
}

void net_up(struct guest *g)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char *name = g->netdev;
	int r;

	if (sock < 0)
		return;
	link_flags(sock, "lo", IFF_UP, 0);
	if (find_device(name)) {
		r = ipv4_up(g, sock, name);
		if (r)
			guest_log(g, "network %s: %s", name, strerror(-r));
		r = ipv6_up(g, name);
		if (r)
			guest_log(g, "network %s, IPv6: %s", name, strerror(-r));
		write_resolv(g);
	}
	close(sock);
}

/*
 * The kernel tells the others of a new address by itself then.  A server that
 * only waits would not be found by them otherwise.
 */
static void announce_changes(const struct guest *g)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "sys/net/ipv4/conf/%s/arp_notify", g->netdev);
	fd = openat(g->proc, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "1", 1) != 1)
		guest_log(g, "network %s: %s", g->netdev, strerror(errno));
	close(fd);
}

int net_set_mac(const struct guest *g, const char *mac)
{
	struct ifreq r = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	unsigned b[6];
	char end;
	int sock, ret = 0;

	if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3],
		   &b[4], &b[5], &end) != 6 || b[0] & 1)
		return -EINVAL;
	if (!g->netdev[0])
		return -ENODEV;
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	announce_changes(g);
	for (int i = 0; i < 6; i++)
		r.ifr_hwaddr.sa_data[i] = b[i];
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", g->netdev);
	if (ioctl(sock, SIOCSIFHWADDR, &r))
		ret = -errno;
	close(sock);
	return ret;
}
