/* SPDX-License-Identifier: MIT */
/* port_ops.h - port forwards of a running VM over the control socket. */
#ifndef VMM_PORT_OPS_H
#define VMM_PORT_OPS_H

#include <jansson.h>

struct ctl_req;
struct vm;

void op_port_add(struct ctl_req *req);
void op_port_rm(struct ctl_req *req);
void op_port_ls(struct ctl_req *req);
/* [{"host_addr", "host_port", "guest_port", "proto"}]; empty without network. */
json_t *ports_to_json(struct vm *vm);

#endif
