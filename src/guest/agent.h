/* SPDX-License-Identifier: MIT */
/*
 * agent.h - the agent's loop and its sessions.
 *
 * One process, one epoll set, any number of sessions.  Nothing in here blocks:
 * what could (files, mounts, sync) runs in a forked worker that takes the
 * connection over, and commands are children from the start.
 *
 *  1. A session lives from accept until session_close(); the struct is freed
 *     only after the batch of events in which that happened.
 *  2. A watch whose descriptor was closed gets no further callback.
 *  3. The main CMD's session outlives its connection: without one its output
 *     goes to the console (`raw`).
 */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/list.h"
#include "proto/agent.h"

struct agent;
struct doc;
struct guest;
struct watch;

typedef void watch_cb(struct watch *w, uint32_t events);

struct watch {
	int fd;			/* owned; -1: none */
	uint32_t events;	/* EPOLLIN, …; 0: not in the set */
	watch_cb *cb;
};

enum session_state {
	SESSION_REQUEST,	/* waits for AGENT_REQ */
	SESSION_EXEC,		/* frames belong to a command */
	SESSION_LINGER,		/* all is said; waits for the host to close */
};

struct session {
	struct list node;
	struct agent *a;	/* borrowed */
	enum session_state state;
	struct watch conn;	/* the host; the console when raw */
	bool raw;		/* conn takes bytes, not frames */
	bool closed;		/* on the dead list */
	struct buf in;		/* a frame that is not complete */
	struct buf out;		/* gathered, or not taken by conn yet */
	bool blocked;		/* conn is full */
	struct list dirty;	/* gathered something in this batch */

	/* SESSION_EXEC */
	pid_t pid;		/* 0: none, or reaped */
	bool main, tty;
	bool exited;
	int status;		/* wait status, once exited */
	struct watch std[3];	/* our ends of the child's streams */
	struct buf stdin_buf;	/* accepted, not yet taken by the child */
	bool stdin_end;
	uint32_t credit;	/* taken, not yet told */
	uint32_t owed;		/* of this connection, not yet given back */
	int64_t deadline;	/* ms, 0: none; of drain or linger */
};

enum stop_stage { STOP_NO, STOP_TERM, STOP_KILL, STOP_DONE };

struct agent {
	struct guest *g;	/* borrowed */
	int ep;
	struct watch listen, signals, announce;
	struct list sessions, dead, dirty;
	unsigned nr_sessions;
	struct session *main;	/* borrowed; the main CMD's */
	bool main_ended;
	enum stop_stage stop;
	int64_t stop_deadline;
	uint8_t scratch[AGENT_HEAD + AGENT_FRAME_MAX];
};

/*
 * Serves listen_fd (-1: no host to talk to) and, when the configuration has one,
 * runs CMD.  Returns 0 when the VM is to power off, every process ended.
 */
int agent_run(struct guest *g, int listen_fd);

/* The loop's parts. */
/*
 * 0 or -errno; on failure fd stays the caller's.  No events: not in the epoll
 * set at all, for it would report a hang-up over and over.
 */
int watch_add(struct agent *a, struct watch *w, int fd, uint32_t events,
	      watch_cb *cb);
int watch_mod(struct agent *a, struct watch *w, uint32_t events);
void watch_close(struct agent *a, struct watch *w);
int64_t agent_now_ms(void);
/* Begins to end all processes; agent_run() returns when none is left. */
void agent_stop(struct agent *a);

/* session.c */
struct session *session_new(struct agent *a, int fd);
void session_close(struct session *s);
/* The host is gone: hangs the session up; the main CMD's goes to the console. */
void session_drop(struct session *s);
/* Queues a frame; the session may be closed when it returns. */
void session_send(struct session *s, enum agent_frame type, const void *data,
		  size_t len);
/* Frame in a->scratch after AGENT_HEAD bytes: sent without a copy. */
void session_send_scratch(struct session *s, enum agent_frame type, size_t len);
void session_ok(struct session *s);
void session_fail(struct session *s, int error, const char *message);
/* All frames are queued: close once they are out and the host has closed. */
void session_linger(struct session *s);
/* The connection becomes the console, or a host again. */
void session_console(struct session *s);
void session_adopt(struct session *s, int fd);
void session_expired(struct session *s);
/* The batch is over: what was gathered goes out. */
void session_flush_all(struct agent *a);

/* exec.c */
void exec_request(struct session *s, const struct doc *d);
void exec_main_join(struct session *s, const struct doc *d);
void exec_boot(struct agent *a);
void exec_frame(struct session *s, enum agent_frame type, const uint8_t *data,
		size_t len);
void exec_reaped(struct session *s, int status);
void exec_unblocked(struct session *s);	/* conn took everything */
void exec_hangup(struct session *s);	/* conn is gone */
void exec_expired(struct session *s);
void exec_close(struct session *s);

/* worker.c: operations on files, each in a forked process */
void worker_request(struct session *s, const struct doc *d);

/* thaw.c */
void thaw_request(struct session *s, const struct doc *d);
void clock_request(struct session *s, const struct doc *d);
void stats_request(struct session *s, const struct doc *d);

#endif
