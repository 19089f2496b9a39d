/* SPDX-License-Identifier: MIT */
/*
 * vsock.h - virtio-vsock: how it is made, and what its two halves share.
 *
 * vsock.c is the device: queues, packet headers, dispatch.  vsock_conn.c is the
 * connections: Unix sockets, buffers, flow control, closing.  Nobody else needs
 * more than struct vsock_config.
 */
#ifndef VMM_DEV_VSOCK_H
#define VMM_DEV_VSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/loop.h"
#include "vmm/limits.h"
#include "vmm/virtio/virtio.h"

struct vsock_config {
	uint64_t cid;		/* the guest's, 3 and up */
	int listen_fd;		/* listening SOCK_STREAM; duplicated; -1: none */
};

#define VSOCK_HOST_CID	2
#define VSOCK_HDR_LEN	44
#define VSOCK_TYPE_STREAM 1
#define VSOCK_SHUT_RCV	1u	/* the sender of the packet receives no more */
#define VSOCK_SHUT_SEND	2u	/* … sends no more */
#define VSOCK_SHUT_BOTH	3u

enum vsock_op {
	VSOCK_OP_INVALID, VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE, VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN, VSOCK_OP_RW, VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
};

/* 5.10.6; in the order it lies in memory. */
struct vsock_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt;
};

enum conn_state {
	CONN_LINE,	/* the client has not said "CONNECT port" yet */
	CONN_REQUEST,	/* the guest has not answered yet */
	CONN_OPEN,
	CONN_CLOSING,	/* the socket is closed; waiting for the guest's reset */
	CONN_FLUSH,	/* the guest is gone; the socket still gets what it sent */
	CONN_RESET,	/* a reset is owed to the guest, then it is freed */
};

/* What a connection owes the guest, beside data. */
#define OWE_REQUEST	1u
#define OWE_CREDIT	2u
#define OWE_SHUTDOWN	4u
#define OWE_RST		8u

struct conn {
	struct vsock *v;		/* borrowed */
	enum conn_state state;
	uint32_t host_port, guest_port;
	struct list ready;		/* v->ready, or alone */
	unsigned owe;			/* OWE_* */
	struct loop_fd sock;		/* sock.fd owned; -1 once closed */
	struct loop_timer timer;	/* opening and closing take only so long */
	char line[32];
	unsigned line_len;
	bool host_eof;			/* the client sends no more */
	bool hup;			/* not watched any more: would spin */
	uint8_t told_shut;		/* VSOCK_SHUT_* for the next SHUTDOWN */
	uint8_t guest_shut;		/* VSOCK_SHUT_* the guest said */
	/* host to guest: what the guest can take */
	uint32_t sent, peer_alloc, peer_fwd;
	/* guest to host: what we can take */
	uint32_t alloc;			/* window granted */
	uint32_t received, fwd;		/* bytes from the guest, of them passed on */
	uint32_t told_fwd;		/* fwd in the last packet sent */
	struct buf out;			/* not accepted by the socket yet */
	size_t out_off;
};

struct vsock_rst {
	struct vsock_hdr to;		/* the packet that is answered */
};

#define VSOCK_BATCH	16
#define VSOCK_RSTS	64

struct vsock {
	struct virtio_dev dev;
	uint64_t cid;
	struct loop_fd listener;	/* listener.fd owned; -1: none */
	struct loop_timer accept_retry;
	struct conn *conn[LIMIT_VSOCK_CONNS];	/* owned; index is in host_port */
	unsigned nr_conns, next_slot;
	uint32_t port_round;
	size_t granted;			/* windows given to connections */
	struct list ready;		/* connections with something for the guest */
	struct vsock_rst rst[VSOCK_RSTS];	/* resets for no connection */
	unsigned rst_first, nr_rsts;
	bool tell_reset;		/* a transport reset event is owed */
	bool told_reset;		/* and the driver has not given its buffer back */
	bool reset_pending;		/* the driver reset us: drop connections */
	bool complained;		/* about credit */
	struct loop_work reset_work;
	struct chain batch[VSOCK_BATCH];
};

/* --- vsock.c, for the connections ------------------------------------------- */

/* Puts c last in line for the guest's receive buffers. */
void vsock_ready(struct conn *c);
/* Serves the line as far as the guest has buffers. */
void vsock_feed(struct vsock *v);
/* Under vm->lock: what every callback does first. */
void vsock_enter(struct vsock *v);
void vsock_leave(struct vsock *v);

/* --- vsock_conn.c, for the device --------------------------------------------- */

/* No new connections for now; vsock_accept_again() ends that. */
void vsock_hold(struct vsock *v);
void vsock_accept_again(struct vsock *v);
int vsock_listen(struct vsock *v, int fd, struct err *err);
void vsock_unlisten(struct vsock *v);
void vsock_drop_all(struct vsock *v);
struct conn *vsock_find(struct vsock *v, uint32_t host_port, uint32_t guest_port);

void conn_free(struct conn *c);
/* Socket closed, a reset owed. */
void conn_abort(struct conn *c);
/* How many bytes the guest takes now; 0 when nothing is to be read. */
size_t conn_may_read(const struct conn *c);
/* Into the pieces; what readv(2) gives, -errno.  End and errors are acted on. */
ssize_t conn_read(struct conn *c, const struct iovec *iov, unsigned nr);
/* Watch the socket for what can be acted on. */
void conn_watch(struct conn *c, bool in);
/* Packets from the guest. */
void conn_accepted(struct conn *c);
void conn_data(struct conn *c, struct chain *ch, uint32_t len);
void conn_shutdown(struct conn *c, uint32_t flags);
void conn_guest_reset(struct conn *c);

#endif
