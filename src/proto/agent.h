/* SPDX-License-Identifier: MIT */
/*
 * agent.h - the protocol between host library and guest agent.
 *
 * Guest side: vsock port 1024, context ids 2 (host) and the VM's.  Host side: the
 * Unix socket vms/<pid>/agent; the VMM bridges bytes and half-closes, nothing
 * more.  A host client writes "CONNECT <port>\n" first and reads "OK <n>\n",
 * which says that the guest accepted.  One connection is one request.
 *
 * Frames both ways: u32 length of payload (LE, at most AGENT_FRAME_MAX), u8 type,
 * payload.  The client's first frame is AGENT_REQ, JSON; docs/protocol.md lists
 * the operations and their fields:
 *
 *	{"op":"exec","argv":[…] | "shell":"…" | "login":true,"env":["K=V"…],
 *	 "cwd":"/","user":"name|uid[:group|gid]",
 *	 "tty":{"rows":24,"cols":80,"term":"xterm"}}
 *	{"op":"run", … as exec …}         becomes the VM's main CMD (boot): its end
 *	                                  powers the VM off
 *	{"op":"main"}                     joins the main CMD that runs already
 *	{"op":"put","path":"/x"}          then DATA frames: a tar stream, EOF
 *	{"op":"get","path":"/x"}          answered by DATA frames: a tar stream, EOF
 *	{"op":"write","path","mode","append","parents"}  DATA …, EOF
 *	{"op":"read","path"}              DATA …, EOF
 *	{"op":"mount","tag","path","ro"}  live mount
 *	{"op":"thaw","time_ns","entropy","hostname","mac","env","cwd"}
 *	{"op":"clock","time_ns"}
 *	{"op":"freeze"} {"op":"sync"} {"op":"stats"} {"op":"secrets"} {"op":"poweroff"}
 *
 * The agent answers AGENT_OK (JSON, {} or results) once the request is accepted,
 * or AGENT_FAIL (JSON {"errno":N,"message":"…"}) and closes.  put, write, sync,
 * mount and secrets answer AGENT_OK when they are through, or AGENT_FAIL; get and
 * read answer AGENT_OK first, and end with AGENT_EOF or AGENT_FAIL.
 *
 * After exec's OK: STDIN (host to guest; empty = end of file), STDOUT and STDERR
 * (guest to host; empty = end), WINSIZE, SIGNAL (host to guest), EXIT (guest to
 * host, once, last: u32 status in shell form, code or 128+N, with u8 1 when
 * signal N ended it).  The host then closes.
 *
 * Back-pressure: output is held back by the stream itself, as a side that does
 * not read stops the other.  STDIN is not, or a command that reads none would
 * keep SIGNAL and WINSIZE behind it from arriving: the host sends at most
 * AGENT_WINDOW bytes of STDIN more than CREDIT frames have given back.
 * The host closing the connection hangs the session up (SIGHUP); the main CMD
 * alone carries on, with its output on the console.
 *
 * Once it listens, the agent connects to the same port of the host (context id
 * 2) and closes again: the event to wait for before the first CONNECT.
 */
#ifndef PROTO_AGENT_H
#define PROTO_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_PORT	1024
#define AGENT_FRAME_MAX	(128u << 10)
#define AGENT_HEAD	5		/* bytes before the payload */
#define AGENT_WINDOW	(256u << 10)	/* of STDIN */

enum agent_frame {
	AGENT_REQ = 1, AGENT_OK, AGENT_FAIL,
	AGENT_STDIN, AGENT_STDOUT, AGENT_STDERR,
	AGENT_WINSIZE,		/* u16 rows, u16 cols */
	AGENT_SIGNAL,		/* u8 signal number */
	AGENT_EXIT,		/* u32 status, u8 by-signal */
	AGENT_DATA, AGENT_EOF,
	AGENT_CREDIT,		/* u32 bytes of STDIN that were taken */
};

/* Fills the five bytes before a payload of len bytes. */
void agent_head_put(uint8_t head[AGENT_HEAD], enum agent_frame type, uint32_t len);
/* False when the length or the type is out of bounds. */
bool agent_head_get(const uint8_t head[AGENT_HEAD], enum agent_frame *type,
		    uint32_t *len);

#endif
