// SPDX-License-Identifier: MIT
/*
 * exec.c - commands: streams between a connection and a child; see agent.h.
 *
 * std[0] is where the child's input is written, std[1] and std[2] where its
 * output is read; on a terminal std[0] and std[1] are two descriptors of the
 * master and there is no std[2].
 *
 * The end of a command is the end of its process.  Its output is whatever is in
 * the pipes by then, and what comes until they end, for at most EXEC_DRAIN_MS:
 * a background process that kept the pipe must not keep the session.  EXIT is
 * sent after that, once and last.
 *
 * The host hanging up sends SIGHUP to the command's process group.  The main CMD
 * is an exception: a VM resumed from a bundle has lost the connection of the
 * boot that started CMD, and CMD must not notice.
 */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/wire.h"
#include "guest/agent.h"
#include "guest/guest.h"
#include "guest/spawn.h"

#define EXEC_DRAIN_MS	100
#define EXEC_READ	(64u << 10)

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static void on_stdin(struct watch *w, uint32_t events);
static void on_stdout(struct watch *w, uint32_t events);
static void on_stderr(struct watch *w, uint32_t events);

static void set_winsize(int fd, unsigned rows, unsigned cols)
{
	struct winsize ws = { .ws_row = rows, .ws_col = cols };

	ioctl(fd, TIOCSWINSZ, &ws);
}

/* ours[] and theirs[] are filled with descriptors; 0 or -errno. */
static int open_tty(struct session *s, const struct doc *d, unsigned tty,
		    int ours[3], int theirs[3])
{
	int master, unlock = 0;

	master = openat(s->a->g->pts, "ptmx",
			O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		return -errno;
	ours[0] = master;
	ours[1] = fcntl(master, F_DUPFD_CLOEXEC, 3);
	if (ours[1] < 0 || ioctl(master, TIOCSPTLCK, &unlock))
		return -errno;
	theirs[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (theirs[0] < 0)
		return -errno;
	set_winsize(master, doc_int(d, doc_get(d, tty, "rows"), 24),
		    doc_int(d, doc_get(d, tty, "cols"), 80));
	return 0;
}

static int open_pipes(int ours[3], int theirs[3])
{
	for (int i = 0; i < 3; i++) {
		int p[2];

		if (pipe2(p, O_CLOEXEC))
			return -errno;
		ours[i] = i ? p[0] : p[1];
		theirs[i] = i ? p[1] : p[0];
		/* our ends alone: the child's programs expect blocking ones */
		if (fcntl(ours[i], F_SETFL, O_NONBLOCK))
			return -errno;
	}
	return 0;
}

static void close_fds(int fd[3])
{
	for (int i = 0; i < 3; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static int fork_command(struct session *s, const struct doc *d, unsigned cmd,
			const int theirs[3])
{
	unsigned tty = doc_get(d, cmd, "tty");
	struct spawn sp = {
		.argv = doc_strv(d, doc_get(d, cmd, "argv")),
		.shell = doc_str(d, doc_get(d, cmd, "shell")),
		.env = doc_strv(d, doc_get(d, cmd, "env")),
		.cwd = doc_str(d, doc_get(d, cmd, "cwd")),
		.user = doc_str(d, doc_get(d, cmd, "user")),
		.term = doc_str(d, doc_get(d, tty, "term")),
		.login = doc_bool(d, doc_get(d, cmd, "login"), false),
		.tty = s->tty,
	};
	int r = -EINVAL;

	for (int i = 0; i < 3; i++)
		sp.fd[i] = s->tty ? theirs[0] : theirs[i];
	if (sp.argv && sp.env && (sp.argv[0] || sp.shell || sp.login)) {
		r = fork();
		if (!r)
			spawn_exec(s->a->g, &sp);
		if (r < 0)
			r = -errno;
	}
	free(sp.argv);
	free(sp.env);
	return r;
}

static void watch_streams(struct session *s, int ours[3])
{
	watch_cb *const cb[3] = { on_stdin, on_stdout, on_stderr };

	for (int i = 0; i < 3; i++)
		if (ours[i] >= 0 && watch_add(s->a, &s->std[i], ours[i],
					      i ? EPOLLIN : 0, cb[i]))
			close(ours[i]);
}

/* Starts the command that object cmd describes; 0 or -errno. */
static int start(struct session *s, const struct doc *d, unsigned cmd)
{
	int ours[3] = { -1, -1, -1 }, theirs[3] = { -1, -1, -1 };
	unsigned tty = doc_get(d, cmd, "tty");
	int r;

	s->tty = doc_first(d, tty) || doc_bool(d, tty, false);
	r = s->tty ? open_tty(s, d, tty, ours, theirs) : open_pipes(ours, theirs);
	if (!r)
		r = fork_command(s, d, cmd, theirs);
	close_fds(theirs);
	if (r < 0) {
		close_fds(ours);
		return r;
	}
	s->pid = r;
	s->state = SESSION_EXEC;
	watch_streams(s, ours);
	return 0;
}

void exec_request(struct session *s, const struct doc *d)
{
	const char *op = doc_str(d, doc_get(d, DOC_ROOT, "op"));
	bool is_main = !strcmp(op, "run");
	int r;

	if (s->a->stop != STOP_NO) {
		session_fail(s, ESHUTDOWN, "the VM is powering off");
		return;
	}
	if (is_main && (s->a->main || s->a->main_ended)) {
		session_fail(s, EBUSY, "the VM has a main command already");
		return;
	}
	r = start(s, d, DOC_ROOT);
	if (r) {
		session_fail(s, -r, strerror(-r));
		return;
	}
	s->main = is_main;
	if (is_main)
		s->a->main = s;
	session_ok(s);
}

/* The command of the configuration: a detached VM's. */
void exec_boot(struct agent *a)
{
	const struct doc *d = &a->g->config;
	unsigned cmd = doc_get(d, DOC_ROOT, "cmd");
	struct session *s;
	int r = -ENOMEM;

	if (!cmd)
		return;
	s = session_new(a, -1);
	if (s) {
		session_console(s);
		r = start(s, d, cmd);
	}
	if (!r) {
		s->main = true;
		s->stdin_end = !s->tty;
		if (!s->tty)
			watch_close(a, &s->std[0]);
		a->main = s;
		return;
	}
	guest_log(a->g, "command not started: %s", strerror(-r));
	if (s)
		session_close(s);
	a->main_ended = true;
}

/*
 * The connection of s becomes that of the main CMD's session; s itself goes.
 */
void exec_main_join(struct session *s, const struct doc *d)
{
	struct session *m = s->a->main;
	unsigned tty = doc_get(d, DOC_ROOT, "tty");
	int fd;

	if (!m || (!m->raw && m->conn.fd >= 0)) {
		session_fail(s, m ? EBUSY : ESRCH, m ?
			     "the main command is attached elsewhere" :
			     "the VM has no main command");
		return;
	}
	fd = fcntl(s->conn.fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0) {
		session_fail(s, errno, strerror(errno));
		return;
	}
	session_adopt(m, fd);
	m->credit = m->owed = 0;
	if (m->tty && tty && m->std[0].fd >= 0)
		set_winsize(m->std[0].fd, doc_int(d, doc_get(d, tty, "rows"), 24),
			    doc_int(d, doc_get(d, tty, "cols"), 80));
	session_close(s);
	session_send(m, AGENT_OK, m->tty ? "{\"tty\":true}" : "{}",
		     m->tty ? 12 : 2);
	exec_unblocked(m);
}

static void send_credit(struct session *s)
{
	uint8_t word[4];
	struct wire_w w;

	/* while output waits, credit waits with it and is told in one frame */
	if (s->blocked || s->conn.fd < 0)
		return;
	/* what an earlier connection sent, or we added, is not given back */
	s->credit = MIN(s->credit, s->owed);
	if (!s->credit)
		return;
	wire_w_init(&w, word, sizeof(word));
	wire_put_u32(&w, s->credit);
	s->owed -= s->credit;
	s->credit = 0;
	session_send(s, AGENT_CREDIT, word, sizeof(word));
}

static void stdin_closed(struct session *s)
{
	s->credit += s->stdin_buf.len;
	buf_done(&s->stdin_buf);
	watch_close(s->a, &s->std[0]);
}

/* Moves input on; what the child does not take waits for EPOLLOUT. */
static void feed(struct session *s)
{
	struct buf *b = &s->stdin_buf;
	ssize_t n;

	while (b->len && s->std[0].fd >= 0) {
		n = write(s->std[0].fd, b->data, b->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			stdin_closed(s);	/* it reads no more: drop it */
			break;
		}
		buf_drop(b, n);
		s->credit += n;
	}
	if (!b->len && s->stdin_end && !s->tty)
		watch_close(s->a, &s->std[0]);
	watch_mod(s->a, &s->std[0], b->len ? EPOLLOUT : 0);
	if (s->credit >= AGENT_WINDOW / 4 || (s->credit && !b->len))
		send_credit(s);
}

static void on_stdin(struct watch *w, uint32_t events)
{
	struct session *s = container_of(w, struct session, std[0]);

	if (events & EPOLLOUT)
		feed(s);
	else if (events & (EPOLLERR | EPOLLHUP))
		stdin_closed(s);
}

static void signal_group(pid_t pid, int sig)
{
	/* the child makes the group itself, perhaps a moment from now */
	if (kill(-pid, sig) && errno == ESRCH)
		kill(pid, sig);
}

static void take_stdin(struct session *s, const uint8_t *data, size_t len)
{
	if (s->stdin_end)
		return;
	s->owed += len;
	if (s->stdin_buf.len + len > 2 * AGENT_WINDOW) {
		session_close(s);	/* a host that ignores the window */
		return;
	}
	if (s->std[0].fd < 0)
		s->credit += len;	/* nobody reads it */
	else if (len)
		buf_add(&s->stdin_buf, data, len);
	if (!len) {
		s->stdin_end = true;
		/* a terminal has no end of file but the character for it */
		if (s->tty)
			buf_add(&s->stdin_buf, "\x04", 1);
	}
	feed(s);
}

void exec_frame(struct session *s, enum agent_frame type, const uint8_t *data,
		size_t len)
{
	struct wire_r r;

	wire_r_init(&r, data, len);
	if (type == AGENT_STDIN) {
		take_stdin(s, data, len);
	} else if (type == AGENT_WINSIZE && s->tty && s->std[1].fd >= 0) {
		unsigned rows = wire_u16(&r), cols = wire_u16(&r);

		if (!r.bad)
			set_winsize(s->std[1].fd, rows, cols);
	} else if (type == AGENT_SIGNAL && s->pid) {
		int sig = wire_u8(&r);

		if (!r.bad && sig > 0 && sig < NSIG)
			signal_group(s->pid, sig);
	}
}

static void finish(struct session *s)
{
	int code = WIFSIGNALED(s->status) ? 128 + WTERMSIG(s->status) :
					    WEXITSTATUS(s->status);
	uint8_t frame[5];
	struct wire_w w;

	for (int i = 0; i < 3; i++)
		watch_close(s->a, &s->std[i]);
	wire_w_init(&w, frame, sizeof(frame));
	wire_put_u32(&w, code);
	wire_put_u8(&w, WIFSIGNALED(s->status));
	if (s->main) {
		s->a->main = NULL;
		s->a->main_ended = true;
		if (s->raw && s->a->g->console >= 0)
			dprintf(s->a->g->console,
				"machinen: command ended with status %d\n", code);
		s->main = false;
	}
	session_send(s, AGENT_EXIT, frame, sizeof(frame));
	session_linger(s);
}

/* Everything was read and sent? */
static void try_finish(struct session *s)
{
	if (s->state == SESSION_EXEC && s->exited && !s->closed &&
	    s->std[1].fd < 0 && s->std[2].fd < 0)
		finish(s);
}

/*
 * Reads one piece of output and sends it.  False when nothing more can be done
 * now: no data, the end, or the connection is full.
 */
static bool pump(struct session *s, int i)
{
	uint8_t *data = s->a->scratch + AGENT_HEAD;
	struct watch *w = &s->std[i];
	ssize_t n;

	if (w->fd < 0 || s->blocked || s->closed)
		return false;
	n = read(w->fd, data, EXEC_READ);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	/* a master gives EIO when the last slave is closed */
	if (n <= 0) {
		watch_close(s->a, w);
		n = 0;
	}
	session_send_scratch(s, i == 1 ? AGENT_STDOUT : AGENT_STDERR, n);
	if (s->blocked) {
		watch_mod(s->a, &s->std[1], 0);
		watch_mod(s->a, &s->std[2], 0);
	}
	return n > 0;
}

static void on_output(struct session *s, int i)
{
	/* events of this batch from before the connection filled up */
	if (s->blocked)
		return;
	pump(s, i);
	try_finish(s);
}

static void on_stdout(struct watch *w, uint32_t events)
{
	on_output(container_of(w, struct session, std[1]), 1);
}

static void on_stderr(struct watch *w, uint32_t events)
{
	on_output(container_of(w, struct session, std[2]), 2);
}

void exec_unblocked(struct session *s)
{
	watch_mod(s->a, &s->std[1], EPOLLIN);
	watch_mod(s->a, &s->std[2], EPOLLIN);
	send_credit(s);
	if (s->exited)
		s->deadline = agent_now_ms() + EXEC_DRAIN_MS;
}

void exec_reaped(struct session *s, int status)
{
	s->pid = 0;
	s->exited = true;
	s->status = status;
	for (int i = 1; i < 3; i++)
		while (pump(s, i))
			;
	s->deadline = agent_now_ms() + EXEC_DRAIN_MS;
	try_finish(s);
}

void exec_expired(struct session *s)
{
	if (s->blocked)		/* the host is slow, and decides how slow */
		return;
	watch_close(s->a, &s->std[1]);
	watch_close(s->a, &s->std[2]);
	try_finish(s);
}

void exec_hangup(struct session *s)
{
	if (s->main) {
		session_console(s);
		exec_unblocked(s);
	} else {
		session_close(s);
	}
}

void exec_close(struct session *s)
{
	if (s->pid) {
		signal_group(s->pid, SIGHUP);
		signal_group(s->pid, SIGCONT);
		s->pid = 0;
	}
	for (int i = 0; i < 3; i++)
		watch_close(s->a, &s->std[i]);
}
