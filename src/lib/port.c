// SPDX-License-Identifier: MIT
/* port.c - port forwards of a running VM. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/util.h"
#include "lib/holder.h"
#include "lib/vm.h"

static json_t *request(const char *op, const struct mn_port *p)
{
	json_t *j = json_pack("{s:s, s:i, s:i, s:s}", "op", op, "host_port", p->host_port,
			      "guest_port", p->guest_port, "proto", p->udp ? "udp" : "tcp");

	if (*p->host_addr)
		json_put(&j, "host_addr", json_string(p->host_addr));
	return j;
}

/* Who is in the way, in front of the VMM's word on it. */
static int name_holder(const struct mn_port *p, struct err *e, int ret)
{
	struct spec_port want = { .host_port = p->host_port, .udp = p->udp };
	char holder[HOLDER_TEXT], addr[sizeof(p->host_addr)];

	snprintf(addr, sizeof(addr), "%s", *p->host_addr ? p->host_addr : "127.0.0.1");
	want.host_addr = addr;
	if (e->code != ERR_BOOT_PORT_FORWARD_IN_USE || !holder_find(&want, holder))
		return ret;
	return err_wrap_code(e, ERR_BOOT_PORT_FORWARD_IN_USE, ret,
			     "%s holds host port %u", holder, p->host_port);
}

int mn_port_add(struct mn_vm *vm, struct mn_port *port, struct mn_error *err)
{
	cleanup(json_putp) json_t *answer = NULL;
	struct err e = ERR_INIT;
	int ret = vm_ctl(vm, request("port_add", port), &answer, &e);
	const json_t *p = json_object_get(answer, "port");

	if (ret)
		ret = name_holder(port, &e, ret);
	if (!ret && p) {
		port->host_port = (uint16_t)json_int_opt(p, "host_port", 0, 65535,
							 port->host_port, NULL);
		snprintf(port->host_addr, sizeof(port->host_addr), "%s",
			 json_str_opt(p, "host_addr", "127.0.0.1", NULL));
	}
	return lib_return(err, &e, ret);
}

int mn_port_rm(struct mn_vm *vm, const struct mn_port *port, struct mn_error *err)
{
	struct err e = ERR_INIT;

	return lib_return(err, &e, vm_ctl(vm, request("port_rm", port), NULL, &e));
}
