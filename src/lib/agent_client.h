/* SPDX-License-Identifier: MIT */
/*
 * agent_client.h - the host's end of the agent protocol (proto/agent.h).  For
 * src/lib only.
 *
 * These calls block; a session that moves several streams at once uses the
 * descriptor itself with agent_head_put() and agent_head_get().
 */
#ifndef LIB_AGENT_CLIENT_H
#define LIB_AGENT_CLIENT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/agent.h"

/*
 * A connection that the guest's agent accepted, through the socket "agent" in
 * the directory `dir`.  Tries again until `deadline` (CLOCK_MONOTONIC ns; 0:
 * once) while the guest does not listen, unless pidfd (-1: none) says that the
 * VMM is gone.  A descriptor, or -ETIMEDOUT, -ESRCH, -errno with
 * EXEC_AGENT_UNAVAILABLE.
 */
int agent_connect(int dir, int pidfd, uint64_t deadline, struct err *err);

/* One frame; 0 or -errno. */
int agent_send(int fd, enum agent_frame type, const void *data, size_t len);
int agent_send_json(int fd, const json_t *doc);
/*
 * One frame into data (AGENT_FRAME_MAX bytes): 1, 0 at the end of the stream,
 * or -errno.
 */
int agent_recv(int fd, enum agent_frame *type, void *data, uint32_t *len);

/*
 * The answer to a request: 0 with its document (owned by the caller; may be
 * NULL), or the agent's errno and message as an error with `code`.
 */
int agent_answer(int fd, json_t **answer, enum err_code code, struct err *err);
/* Connects, sends the request, waits for its answer; the descriptor stays open. */
int agent_request(int dir, int pidfd, const json_t *req, json_t **answer,
		  struct err *err);
/* An AGENT_FAIL frame's document as an error. */
int agent_fail(const void *data, size_t len, enum err_code code, struct err *err);

#endif
