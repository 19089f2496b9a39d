// SPDX-License-Identifier: MIT
/* port.c - port forwards in words; see cmd.h. */
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

int port_parse(const char *word, struct mn_port *p, bool json)
{
	size_t len = strcspn(word, "/");
	const char *guest = memrchr(word, ':', len), *host;

	*p = (struct mn_port){ .udp = !strcmp(word + len, "/udp") };
	if ((word[len] && !p->udp && strcmp(word + len, "/tcp")) || !guest)
		return out_usage_error(MN_BOOT_PORT_FORWARD_INVALID, json,
				       "\"%s\": must be [ADDR:]HOST:GUEST[/tcp|udp]", word);
	host = memrchr(word, ':', (size_t)(guest - word));
	if (host && host - word < (ptrdiff_t)sizeof(p->host_addr))
		memcpy(p->host_addr, word, (size_t)(host - word));
	host = host ? host + 1 : word;
	if (!number(host, (size_t)(guest - host), &p->host_port) ||
	    !number(guest + 1, len - (size_t)(guest + 1 - word), &p->guest_port) ||
	    !p->guest_port)
		return out_usage_error(MN_PARSE_PORT_INVALID, json,
				       "\"%s\": a port is 1 to 65535, or 0 on the host for any free one",
				       word);
	return 0;
}
