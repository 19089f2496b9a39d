/* SPDX-License-Identifier: MIT */
/*
 * ctl_server.h - the VMM's end of the control socket (proto/ctl.h).
 *
 * An operation is a row in ctl_ops.c and a function that gets a request and
 * answers it exactly once, at once or later, always on the loop thread and not
 * under vm->lock.  The request lives until it is answered; if the client leaves
 * before that, the answer goes nowhere.
 */
#ifndef VMM_CTL_SERVER_H
#define VMM_CTL_SERVER_H

#include <jansson.h>
#include <stdbool.h>

struct ctl_client;
struct ctl_server;
struct err;
struct vm;

#define CTL_REQ_FDS 64

struct ctl_req {
	struct vm *vm;			/* borrowed */
	json_t *doc;			/* owned: the request */
	int fd[CTL_REQ_FDS];		/* owned; take one with ctl_take_fd() */
	unsigned nr_fds;
	struct ctl_client *client;	/* NULL: gone */
};

struct ctl_op {
	const char *name;
	void (*run)(struct ctl_req *req);
};

extern const struct ctl_op ctl_ops[];
extern const unsigned nr_ctl_ops;

/* listen_fd is borrowed: a listening SOCK_SEQPACKET socket. */
struct ctl_server *ctl_server_new(struct vm *vm, int listen_fd, struct err *err);
void ctl_server_free(struct ctl_server *s);

/* Each ends the request.  `fields` (may be NULL) is stolen: an object whose
 * fields join the answer. */
void ctl_ok(struct ctl_req *req, json_t *fields);
void ctl_fail(struct ctl_req *req, const struct err *err);
/* Sent before the answer; `p` is stolen.  Dropped for a slow reader. */
void ctl_progress(struct ctl_req *req, json_t *p);
/* Calls fn once when the connection of this request ends; before the answer. */
void ctl_on_gone(struct ctl_req *req, void (*fn)(struct vm *vm));
/*
 * The files of the disks stay those they are while this connection lasts: it knows
 * layers by their number.  merge.c has to do it.
 */
void ctl_pin_layers(struct ctl_req *req);
bool ctl_layers_pinned(const struct ctl_server *s);
/* Is it this very connection that pins them? */
bool ctl_pins_layers(const struct ctl_req *req);
/* Goes beside the answer that follows at once; stays the VM's. */
void ctl_give_fd(struct ctl_req *req, int fd);
/* The i-th descriptor, now the caller's; -ENOENT when there are fewer. */
int ctl_take_fd(struct ctl_req *req, unsigned i);

#endif
