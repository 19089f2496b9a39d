// SPDX-License-Identifier: MIT
/* port.c - port forwards in words; see cmd.h. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"

static bool number(const char *s, size_t len, uint16_t *out)
{
	char text[8] = "";
	uint64_t v;

	if (!len || len >= sizeof(text))
		return false;
	memcpy(text, s, len);
	if (!opt_uint(text, &v) || v > 65535)
		return false;
	*out = (uint16_t)v;
	return true;
}

/* "ADDR:" or "[ADDR]:"; *rest is what follows.  False: not an address. */
static bool address(const char *word, const char *guest, struct mn_port *p, const char **rest)
{
	const char *host = memrchr(word, ':', (size_t)(guest - word));
	size_t len = host ? (size_t)(host - word) : 0;
	struct in6_addr any;

	*rest = host ? host + 1 : word;
	if (!host)
		return true;
	if (len > 2 && *word == '[' && word[len - 1] == ']') {
		word++;
		len -= 2;
	}
	if (!len || len >= sizeof(p->host_addr))
		return false;
	memcpy(p->host_addr, word, len);
	return inet_pton(AF_INET, p->host_addr, &any) == 1 ||
	       inet_pton(AF_INET6, p->host_addr, &any) == 1;
}

int port_parse(const char *word, struct mn_port *p, bool json)
{
	size_t len = strcspn(word, "/");
	const char *guest = memrchr(word, ':', len), *host;

	*p = (struct mn_port){ .udp = !strcmp(word + len, "/udp") };
	if ((word[len] && !p->udp && strcmp(word + len, "/tcp")) || !guest ||
	    !address(word, guest, p, &host))
		return out_usage_error(MN_BOOT_PORT_FORWARD_INVALID, json,
				       "\"%s\": must be [ADDR:]HOST:GUEST[/tcp|udp]", word);
	if (!number(host, (size_t)(guest - host), &p->host_port) ||
	    !number(guest + 1, len - (size_t)(guest + 1 - word), &p->guest_port) ||
	    !p->guest_port)
		return out_usage_error(MN_PARSE_PORT_INVALID, json,
				       "\"%s\": a port is 1 to 65535, or 0 on the host for any free one",
				       word);
	return 0;
}

const char *port_host(const struct mn_port *p, char text[PORT_TEXT])
{
	const char *addr = *p->host_addr ? p->host_addr : "127.0.0.1";
	bool v6 = strchr(addr, ':');

	snprintf(text, PORT_TEXT, "%s%s%s:%u", v6 ? "[" : "", addr, v6 ? "]" : "", p->host_port);
	return text;
}
