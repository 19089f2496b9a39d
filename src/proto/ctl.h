/* SPDX-License-Identifier: MIT */
/*
 * ctl.h - the control socket of a VMM.
 *
 * SOCK_SEQPACKET at vms/<pid>/control: one packet is one JSON document, at most
 * CTL_MAX bytes, descriptors as SCM_RIGHTS beside it.  A request is
 * {"op": "…", …}; the answer {"ok": true, …} or {"ok": false, "error":
 * {"code", "message", "errno", "causes": […]}}; long operations send
 * {"progress": {…}} packets first.  Requests on one connection are answered in order.  Operations:
 *
 *	status                  state, accel, engine, uptime, memory, ports, counters
 *	pause, resume           the guest's CPUs
 *	stop                    power button (ACPI); {"now": true} ends the VMM
 *	port_add, port_rm, port_ls
 *	snapshot                dir as a descriptor; {"keep_alive": bool}
 *	fork                    the new VM's descriptors, spec changes
 *	quit_when_agent_exits, detach
 *
 * The peer is checked with SO_PEERCRED: same user or root.
 */
#ifndef PROTO_CTL_H
#define PROTO_CTL_H

#include <jansson.h>

struct err;

#define CTL_MAX (256 * 1024)

/* Connects to PATH; a descriptor or -errno. */
int ctl_connect(const char *path, struct err *err);
/* Sends one document with descriptors. */
int ctl_send(int fd, const json_t *doc, const int *fds, unsigned nr_fds,
	     struct err *err);
/* Receives one; the caller owns *doc and the descriptors. 0 at EOF, else 1. */
int ctl_recv(int fd, json_t **doc, int *fds, unsigned *nr_fds, struct err *err);
/*
 * One request and its final answer.  progress (may be NULL) sees the progress
 * packets.  An {"ok": false} answer becomes err with its code.
 */
int ctl_call(int fd, const json_t *req, const int *fds, unsigned nr_fds,
	     void (*progress)(const json_t *p, void *arg), void *arg,
	     json_t **answer, struct err *err);
/* What an {"ok": false} answer says, as an error. */
int ctl_answer_error(const json_t *answer, struct err *err);
/* The {"ok": false} answer for an error. */
json_t *ctl_error(const struct err *err);

#endif
