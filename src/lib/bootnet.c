// SPDX-License-Identifier: MIT
/*
 * bootnet.c - what a boot says of the network: policy and port forwards.
 *
 * Rules are taken apart by the VMM, which enforces them; here they are only
 * passed on.  The same goes for the host's ports: the one that binds them knows
 * whether they are free, and who holds a busy one is looked up afterwards.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "lib/holder.h"
#include "lib/vm.h"

static int copy_rules(struct booting *b)
{
	const char *const *from = b->cfg->net_allow;
	size_t nr = 0;

	while (from[nr])
		nr++;
	if (nr > SPEC_MAX_ALLOW)
		return err_code(b->err, ERR_PARSE_FLAG_MALFORMED, E2BIG,
				"a VM has at most %d network rules", SPEC_MAX_ALLOW);
	b->spec.net_allow = calloc(nr + 1, sizeof(char *));
	for (size_t i = 0; b->spec.net_allow && i < nr; i++) {
		b->spec.net_allow[i] = strdup(from[i]);
		if (!b->spec.net_allow[i])
			nr = 0;
	}
	return b->spec.net_allow && b->spec.net_allow[0] ? 0 :
	       err_set(b->err, ENOMEM, "out of memory");
}

int boot_check_net(struct booting *b)
{
	const struct mn_boot *cfg = b->cfg;
	bool rules = cfg->net_allow && cfg->net_allow[0];

	if (cfg->no_net && (rules || cfg->net_host_loopback))
		return err_code(b->err, ERR_PARSE_FLAG_MALFORMED, EINVAL,
				"a VM without network has no network policy");
	b->spec.net_host_loopback = cfg->net_host_loopback;
	return rules ? copy_rules(b) : 0;
}

/* Would both be one place to listen at?  All of a family's addresses hold each. */
static bool addrs_meet(const char *a, const char *b)
{
	struct in6_addr x = IN6ADDR_ANY_INIT, y = IN6ADDR_ANY_INIT;
	bool v6 = strchr(a, ':');

	if (v6 != !!strchr(b, ':') || inet_pton(v6 ? AF_INET6 : AF_INET, a, &x) != 1 ||
	    inet_pton(v6 ? AF_INET6 : AF_INET, b, &y) != 1)
		return !strcmp(a, b);
	return !memcmp(&x, &y, sizeof(x)) || !memcmp(&x, &in6addr_any, sizeof(x)) ||
	       !memcmp(&y, &in6addr_any, sizeof(y));
}

/* The forwards of the start; two of one call may not want the same host port. */
int boot_check_ports(struct booting *b)
{
	const struct mn_boot *cfg = b->cfg;

	if (cfg->nr_ports > SPEC_MAX_PORTS)
		return err_code(b->err, ERR_BOOT_PORT_FORWARD_INVALID, E2BIG,
				"a VM has at most %d port forwards", SPEC_MAX_PORTS);
	if (cfg->nr_ports && cfg->no_net)
		return err_code(b->err, ERR_BOOT_PORT_FORWARD_INVALID, EINVAL,
				"a VM without network forwards no ports");
	for (size_t i = 0; i < cfg->nr_ports; i++) {
		const struct mn_port *p = &cfg->ports[i];
		const char *addr = *p->host_addr ? p->host_addr : "127.0.0.1";
		struct spec_port *to = &b->spec.port[i];

		if (!p->guest_port)
			return err_code(b->err, ERR_BOOT_PORT_FORWARD_INVALID, EINVAL,
					"a guest port is 1 to 65535");
		for (size_t k = 0; k < i; k++)
			if (p->host_port && b->spec.port[k].host_port == p->host_port &&
			    b->spec.port[k].udp == p->udp &&
			    addrs_meet(b->spec.port[k].host_addr, addr))
				return err_code(b->err, ERR_BOOT_PORT_FORWARD_CONFLICT, EINVAL,
						"host port %s:%u is forwarded twice", addr,
						p->host_port);
		*to = (struct spec_port){ .host_addr = strdup(addr), .udp = p->udp,
					  .host_port = p->host_port,
					  .guest_port = p->guest_port };
		b->spec.nr_ports++;
	}
	return 0;
}

/* Adds who holds the port; the VMM knows only that somebody does. */
int boot_port_in_use(struct booting *b, const char *said)
{
	char holder[HOLDER_TEXT];

	for (unsigned i = 0; i < b->spec.nr_ports; i++) {
		const struct spec_port *p = &b->spec.port[i];

		if (p->host_port && holder_find(p, holder))
			return err_code(b->err, ERR_BOOT_PORT_FORWARD_IN_USE, EADDRINUSE,
					"%s; %s holds host port %u", said, holder,
					p->host_port);
	}
	return err_code(b->err, ERR_BOOT_PORT_FORWARD_IN_USE, EADDRINUSE, "%s", said);
}
