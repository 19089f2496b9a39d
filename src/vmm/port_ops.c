// SPDX-License-Identifier: MIT
/*
 * port_ops.c - port forwards of a running VM over the control socket.  The
 * network backend has the list; here is only its translation.
 */
#include "vmm/port_ops.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/json.h"
#include "vmm/ctl_server.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/net.h"
#include "vmm/net/netif.h"
#include "vmm/vm.h"

/* NULL when the VM has no network. */
static struct netif *netif_of(struct vm *vm)
{
	struct virtio_dev *dev = devices_find(vm, &net_class, 0);

	return dev ? net_netif(dev) : NULL;
}

static json_t *forward_to_json(const struct netif_forward *f)
{
	return json_pack("{s:s, s:i, s:i, s:s}", "host_addr", f->host_addr,
			 "host_port", f->host_port, "guest_port", f->guest_port,
			 "proto", f->udp ? "udp" : "tcp");
}

json_t *ports_to_json(struct vm *vm)
{
	struct netif *n = netif_of(vm);
	json_t *list = json_array();
	struct netif_forward f;

	pthread_mutex_lock(&vm->lock);
	for (unsigned i = 0; n && n->ops->forward_get(n, i, &f); i++)
		json_array_append_new(list, forward_to_json(&f));
	pthread_mutex_unlock(&vm->lock);
	return list;
}

static int add(struct vm *vm, const struct spec_port *p, uint16_t *port, struct err *err)
{
	struct netif *n = netif_of(vm);
	int ret;

	if (!n)
		return err_code(err, ERR_BOOT_PORT_FORWARD_INVALID, ENETDOWN,
				"this VM has no network to forward a port to");
	pthread_mutex_lock(&vm->lock);
	ret = n->ops->forward_add(n, p, port, err);
	pthread_mutex_unlock(&vm->lock);
	return ret;
}

/* Answers with the forward as it became: port 0 is a number now. */
void op_port_add(struct ctl_req *req)
{
	struct err err = ERR_INIT;
	struct spec_port p;
	uint16_t port;

	spec_port_parse(&p, req->doc, &err);
	if (!err.num && !add(req->vm, &p, &port, &err)) {
		p.host_port = port;
		ctl_ok(req, json_pack("{s:o}", "port", spec_port_print(&p)));
	} else {
		ctl_fail(req, &err);
	}
	free(p.host_addr);
}

/* By host_port, and by host_addr where that is given. */
void op_port_rm(struct ctl_req *req)
{
	struct vm *vm = req->vm;
	struct netif *n = netif_of(vm);
	struct err err = ERR_INIT;
	uint16_t port = json_int(req->doc, "host_port", 1, 65535, &err);
	const char *addr = json_str_opt(req->doc, "host_addr", NULL, &err);
	const char *proto = json_str_opt(req->doc, "proto", "tcp", &err);
	int ret = -ENOENT;

	if (err.num) {
		ctl_fail(req, &err);
		return;
	}
	pthread_mutex_lock(&vm->lock);
	if (n)
		ret = n->ops->forward_rm(n, addr, port, proto[0] == 'u');
	pthread_mutex_unlock(&vm->lock);
	if (!ret) {
		ctl_ok(req, NULL);
		return;
	}
	err_code(&err, ERR_BOOT_PORT_FORWARD_INVALID, -ret,
		 "host port %u/%s is not forwarded", port, proto);
	ctl_fail(req, &err);
}

void op_port_ls(struct ctl_req *req)
{
	ctl_ok(req, json_pack("{s:o}", "ports", ports_to_json(req->vm)));
}
