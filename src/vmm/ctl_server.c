// SPDX-License-Identifier: MIT
/*
 * ctl_server.c - clients of the control socket, on the loop thread.
 *
 * A client is in one of three states: reading (we wait for a request), busy (its
 * request is being worked on) and writing (its answer waits for room).  It is
 * read from in the first alone, so its requests are answered in order and it
 * cannot pile up work or memory here: at most one request and a few packets of
 * output each, LIMIT_CTL_CLIENTS in all.
 *
 * Progress packets are dropped while output waits; answers never are.
 *
 * The socket lies in a 0700 directory and is 0600.  SO_PEERCRED is looked at
 * all the same: descriptors get passed on.
 */
#include "vmm/ctl_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "proto/ctl.h"
#include "vmm/limits.h"
#include "vmm/merge.h"
#include "vmm/vm.h"

struct ctl_client {
	struct ctl_server *server;	/* borrowed */
	struct list node;
	struct loop_fd sock;		/* its fd is owned */
	struct ctl_req *req;		/* being worked on; owns itself */
	struct buf out;			/* one packet that waits for room */
	int out_fd[CTL_REQ_FDS];	/* borrowed from the VM: go with it */
	unsigned nr_out_fds;
	void (*gone)(struct vm *vm);	/* what its end means to somebody; or NULL */
	bool pins_layers;
};

struct ctl_server {
	struct vm *vm;			/* borrowed */
	struct loop_fd listener;	/* its fd is borrowed */
	struct list clients;
	unsigned nr_clients;
	char *packet;			/* CTL_MAX + 1 bytes, shared scratch */
};

static void free_req(struct ctl_req *req)
{
	for (unsigned i = 0; i < req->nr_fds; i++)
		io_close(req->fd[i]);
	json_decref(req->doc);
	free(req);
}

static void watch_listener(struct ctl_server *s)
{
	loop_mod(s->vm->loop, &s->listener,
		 s->nr_clients < LIMIT_CTL_CLIENTS ? EPOLLIN : 0);
}

/* A request still worked on stays, without a client to answer to. */
static void drop_client(struct ctl_client *c)
{
	struct vm *vm = c->server->vm;
	bool pinned = c->pins_layers;

	if (c->req)
		c->req->client = NULL;
	if (c->gone)
		c->gone(vm);
	loop_del(vm->loop, &c->sock);
	io_close(c->sock.fd);
	list_del(&c->node);
	c->server->nr_clients--;
	watch_listener(c->server);
	buf_done(&c->out);
	free(c);
	if (pinned)
		merge_settle(vm);
}

static void watch_client(struct ctl_client *c)
{
	uint32_t want = c->out.len ? EPOLLOUT : c->req ? 0 : EPOLLIN;

	loop_mod(c->server->vm->loop, &c->sock, want);
}

/* False: the client had to be dropped. */
static bool flush_client(struct ctl_client *c)
{
	ssize_t n;

	if (!c->out.len)
		return true;
	/* the socket does not block */
	n = io_send_fds(c->sock.fd, c->out.data, c->out.len, c->out_fd, c->nr_out_fds);
	if (n >= 0) {
		buf_clear(&c->out);
		c->nr_out_fds = 0;
	} else if (n != -EAGAIN && n != -ENOBUFS) {
		drop_client(c);
		return false;
	}
	watch_client(c);
	return true;
}

/* ---- answers ---- */

void ctl_progress(struct ctl_req *req, json_t *p)
{
	cleanup(json_putp) json_t *doc = json_pack("{s:o}", "progress", p);
	struct ctl_client *c = req->client;

	if (!c || c->out.len)
		return;
	json_print_compact(doc, &c->out);
	if (c->out.oom)
		buf_clear(&c->out);
	flush_client(c);
}

void ctl_give_fd(struct ctl_req *req, int fd)
{
	struct ctl_client *c = req->client;

	if (c && c->nr_out_fds < CTL_REQ_FDS)
		c->out_fd[c->nr_out_fds++] = fd;
}

static void answer(struct ctl_req *req, const json_t *doc)
{
	struct ctl_client *c = req->client;

	if (c) {
		c->req = NULL;
		/* A waiting progress packet makes way: the answer says more. */
		buf_clear(&c->out);
		json_print_compact(doc, &c->out);
		if (c->out.oom || c->out.len > CTL_MAX)
			drop_client(c);
		else
			flush_client(c);
	}
	free_req(req);
}

void ctl_ok(struct ctl_req *req, json_t *fields)
{
	cleanup(json_putp) json_t *doc = json_pack("{s:b}", "ok", 1);

	if (fields)
		json_object_update(doc, fields);
	json_decref(fields);
	answer(req, doc);
}

void ctl_fail(struct ctl_req *req, const struct err *err)
{
	cleanup(json_putp) json_t *doc = ctl_error(err);

	answer(req, doc);
}

void ctl_on_gone(struct ctl_req *req, void (*fn)(struct vm *vm))
{
	req->client->gone = fn;
}

void ctl_pin_layers(struct ctl_req *req)
{
	if (req->client)
		req->client->pins_layers = true;
}

bool ctl_pins_layers(const struct ctl_req *req)
{
	return req->client && req->client->pins_layers;
}

bool ctl_layers_pinned(const struct ctl_server *s)
{
	struct ctl_client *c;

	if (s)
		list_for_each(c, &s->clients, node)
			if (c->pins_layers)
				return true;
	return false;
}

int ctl_take_fd(struct ctl_req *req, unsigned i)
{
	int fd;

	if (i >= req->nr_fds || req->fd[i] < 0)
		return -ENOENT;
	fd = req->fd[i];
	req->fd[i] = -1;
	return fd;
}

/* ---- requests ---- */

static void run_op(struct ctl_req *req)
{
	const char *name = json_str_opt(req->doc, "op", "", NULL);
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < nr_ctl_ops; i++) {
		if (strcmp(ctl_ops[i].name, name))
			continue;
		ctl_ops[i].run(req);
		return;
	}
	err_set(&err, EOPNOTSUPP, "this VM does not know the operation \"%.40s\"", name);
	ctl_fail(req, &err);
}

/* Takes the request's first bytes and descriptors; runs it. */
static void on_packet(struct ctl_client *c, const char *data, size_t len,
		      struct ctl_req *req)
{
	struct err err = ERR_INIT;

	req->vm = c->server->vm;
	req->client = c;
	c->req = req;
	watch_client(c);
	if (len > CTL_MAX)
		err_set(&err, EMSGSIZE, "the request is too long");
	else
		req->doc = json_parse(data, len, &err);
	if (req->doc)
		run_op(req);
	else
		ctl_fail(req, &err);
}

static void on_readable(struct ctl_client *c)
{
	struct ctl_req *req = calloc(1, sizeof(*req));
	char *packet = c->server->packet;
	ssize_t n;

	if (!req) {
		drop_client(c);
		return;
	}
	req->nr_fds = CTL_REQ_FDS;
	n = io_recv_fds(c->sock.fd, packet, CTL_MAX + 1, req->fd, &req->nr_fds);
	if (n > 0) {
		on_packet(c, packet, n, req);
		return;
	}
	free_req(req);
	if (n != -EAGAIN)
		drop_client(c);
}

static void on_client(struct loop_fd *w, uint32_t events)
{
	struct ctl_client *c = container_of(w, struct ctl_client, sock);

	if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN))
		drop_client(c);
	else if (events & EPOLLOUT)
		flush_client(c);
	else if (events & EPOLLIN && !c->req)
		on_readable(c);
}

static bool peer_ok(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return false;
	return cred.uid == 0 || cred.uid == geteuid();
}

static void on_connect(struct loop_fd *w, uint32_t events)
{
	struct ctl_server *s = container_of(w, struct ctl_server, listener);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ctl_client *c;

	if (fd < 0)
		return;
	c = peer_ok(fd) ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		io_close(fd);
		return;
	}
	c->server = s;
	c->sock = (struct loop_fd){ .fd = fd, .events = EPOLLIN, .cb = on_client };
	if (loop_add(s->vm->loop, &c->sock) < 0) {
		io_close(fd);
		free(c);
		return;
	}
	list_add_tail(&s->clients, &c->node);
	s->nr_clients++;
	watch_listener(s);
}

struct ctl_server *ctl_server_new(struct vm *vm, int listen_fd, struct err *err)
{
	struct ctl_server *s = calloc(1, sizeof(*s));
	int ret;

	if (s)
		s->packet = malloc(CTL_MAX + 1);
	if (!s || !s->packet) {
		free(s);
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->vm = vm;
	list_init(&s->clients);
	s->listener = (struct loop_fd){ .fd = listen_fd, .events = EPOLLIN,
					.cb = on_connect };
	ret = io_set_nonblock(listen_fd, true);
	if (!ret)
		ret = loop_add(vm->loop, &s->listener);
	if (!ret)
		return s;
	err_set(err, -ret, "role \"control\" is not a socket to listen on");
	ctl_server_free(s);
	return NULL;
}

void ctl_server_free(struct ctl_server *s)
{
	struct ctl_client *c, *tmp;

	if (!s)
		return;
	list_for_each_safe(c, tmp, &s->clients, node) {
		struct ctl_req *req = c->req;

		drop_client(c);
		if (req)
			free_req(req);
	}
	loop_del(s->vm->loop, &s->listener);
	free(s->packet);
	free(s);
}
