/* SPDX-License-Identifier: MIT */
/*
 * agent_peer.h - the guest agent on the host: its loop in a process of its own,
 * on a Unix socket instead of vsock, and a blocking client to talk to it.
 */
#ifndef TESTS_AGENT_PEER_H
#define TESTS_AGENT_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "proto/agent.h"

struct peer_agent {
	pid_t pid;
	char dir[64], path[96];
};

/* config: JSON of the boot configuration, or NULL. */
void peer_start(struct peer_agent *a, const char *config);
/*
 * The same as PID 1 of a namespace of its own, which is what it is in a guest;
 * false when this host does not let us make one.
 */
bool peer_start_pid1(struct peer_agent *a, const char *config);
/* Ends it if it has not ended; returns its wait status. */
int peer_stop(struct peer_agent *a);
int peer_connect(const struct peer_agent *a);

void peer_send(int fd, enum agent_frame type, const void *data, size_t len);
/* One frame into *data (cleared first); 0 at the end of the stream. */
int peer_recv(int fd, enum agent_frame *type, struct buf *data);
/* Reads output until text has come. */
void peer_expect(int fd, const char *text);
/* Sends a request and expects OK; returns the connection. */
int peer_request(const struct peer_agent *a, const char *json);
/* The same, expecting FAIL: its errno. */
int peer_refused(const struct peer_agent *a, const char *json);

struct peer_result {
	struct buf out, err;
	uint32_t status;
	int by_signal;
	unsigned exits;
};
/* Collects until the end of the stream; input may be NULL. */
void peer_collect(int fd, const void *input, size_t len, struct peer_result *r);
void peer_result_done(struct peer_result *r);

#endif
