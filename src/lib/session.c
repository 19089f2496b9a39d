// SPDX-License-Identifier: MIT
/*
 * session.c - a command in a VM: starting it, moving its streams.
 *
 * One poll loop, run by mn_exec_wait(), owns the connection.  Whatever others
 * want of it (a resize, a signal, to end) comes as a small record through a
 * pipe, so that any thread and any signal handler may ask.  Output goes to the
 * callback as it comes; a callback that takes its time stops the guest's
 * command, and nothing else.  Of stdin at most AGENT_WINDOW bytes are on their
 * way that the command did not take (proto/agent.h), so it never stands in the
 * way of a signal.
 */
#include "lib/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "base/wire.h"
#include "lib/agent_client.h"
#include "lib/vm.h"

#define STDIN_CHUNK 32768u
#define END_MS	    500

enum order { ORDER_RESIZE, ORDER_SIGNAL, ORDER_CANCEL };

/* Written with one write(2): smaller than PIPE_BUF, so never mixed. */
struct order_msg {
	enum order what;
	uint16_t a, b;
};

struct mn_session {
	struct mn_exec cfg;	/* pointers in it are not used after the start */
	int conn;		/* owned; non-blocking */
	int order_rd, order_wr;	/* owned */
	int stdin_fd;		/* borrowed; -1 when at its end */
	uint32_t credit;	/* bytes of stdin that may be sent */
	uint64_t deadline;	/* 0: none */
	int dir, pidfd;		/* owned: the VM's, to learn how it ended */
	struct buf in, out;	/* of the connection */
	bool ended;
	struct mn_exit exit;
};

int session_probe(struct mn_vm *vm, uint64_t deadline, struct err *err)
{
	int fd = agent_connect(vm->dir, vm->pidfd, deadline, err);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static void add_what(json_t **j, const struct mn_exec *cfg)
{
	if (cfg->argv)
		json_put(j, "argv", json_strings(cfg->argv));
	else if (cfg->shell)
		json_put(j, "shell", json_string(cfg->shell));
	else
		json_put(j, "login", json_true());
	if (cfg->env)
		json_put(j, "env", json_strings(cfg->env));
	if (cfg->cwd)
		json_put(j, "cwd", json_string(cfg->cwd));
	if (cfg->user)
		json_put(j, "user", json_string(cfg->user));
}

static json_t *request(const struct mn_exec *cfg)
{
	json_t *j = json_pack("{s:s}", "op", cfg->join ? "main" :
			      cfg->main ? "run" : "exec");

	if (!cfg->join)
		add_what(&j, cfg);
	if (cfg->tty)
		json_put(&j, "tty", json_pack("{s:i, s:i, s:s}",
			"rows", cfg->rows ? cfg->rows : 24,
			"cols", cfg->cols ? cfg->cols : 80,
			"term", cfg->term ? cfg->term : "xterm"));
	return j;
}

static int start(struct mn_vm *vm, struct mn_session *s, struct err *err)
{
	cleanup(json_putp) json_t *req = request(&s->cfg), *answer = NULL;
	int order[2];

	if (!req)
		return err_code(err, ERR_EXEC_PROTOCOL, EILSEQ,
				"the command cannot be sent: it has to be UTF-8 text");
	if (pipe2(order, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set(err, errno, "no pipe: %s", strerror(errno));
	s->order_rd = order[0];
	s->order_wr = order[1];
	s->conn = agent_request(vm->dir, vm->pidfd, req, s->cfg.join ? &answer : NULL,
				err);
	if (s->conn < 0)
		return s->conn;
	if (s->cfg.join)
		s->cfg.tty = json_is_true(json_object_get(answer, "tty"));
	return io_set_nonblock(s->conn, true);
}

static int exec_start(struct mn_vm *vm, const struct mn_exec *cfg,
		      struct mn_session **out, struct err *err)
{
	struct mn_session *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	s->conn = s->order_rd = s->order_wr = -1;
	s->dir = fcntl(vm->dir, F_DUPFD_CLOEXEC, 0);
	s->pidfd = fcntl(vm->pidfd, F_DUPFD_CLOEXEC, 0);
	ret = lib_config(&s->cfg, sizeof(s->cfg), cfg, err);
	if (!ret)
		ret = start(vm, s, err);
	if (ret) {
		mn_exec_free(s);
		return ret;
	}
	s->stdin_fd = s->cfg.use_stdin ? s->cfg.stdin_fd : -1;
	s->credit = AGENT_WINDOW;
	if (s->cfg.timeout_ms)
		s->deadline = io_now_ns() + s->cfg.timeout_ms * 1000000;
	*out = s;
	return 0;
}

int mn_exec_start(struct mn_vm *vm, const struct mn_exec *cfg,
		  struct mn_session **session, struct mn_error *err)
{
	struct err e = ERR_INIT;

	*session = NULL;
	return lib_return(err, &e, exec_start(vm, cfg, session, &e));
}

/* --- what goes to the guest ----------------------------------------------- */

static void put_frame(struct mn_session *s, enum agent_frame type,
		      const void *data, size_t len)
{
	uint8_t head[AGENT_HEAD];

	agent_head_put(head, type, (uint32_t)len);
	buf_add(&s->out, head, sizeof(head));
	buf_add(&s->out, data, len);
}

static int take_order(struct mn_session *s, struct err *err)
{
	struct order_msg m;
	uint8_t data[4];
	struct wire_w w;

	if (read(s->order_rd, &m, sizeof(m)) != sizeof(m))
		return 0;
	wire_w_init(&w, data, sizeof(data));
	switch (m.what) {
	case ORDER_RESIZE:
		wire_put_u16(&w, m.a);
		wire_put_u16(&w, m.b);
		put_frame(s, AGENT_WINSIZE, data, wire_len(&w));
		return 0;
	case ORDER_SIGNAL:
		wire_put_u8(&w, (uint8_t)m.a);
		put_frame(s, AGENT_SIGNAL, data, wire_len(&w));
		return 0;
	case ORDER_CANCEL:
		return err_set(err, ECANCELED, "cancelled");
	}
	return 0;
}

static int output(struct mn_session *s, enum mn_event_type type,
		  const void *data, size_t len)
{
	struct mn_event ev = { .type = type, .data = data, .len = len };

	return len && s->cfg.event ? s->cfg.event(&ev, s->cfg.event_arg) : 0;
}

static int take_stdin(struct mn_session *s)
{
	char data[STDIN_CHUNK];
	ssize_t n = read(s->stdin_fd, data, MIN(sizeof(data), (size_t)s->credit));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		s->stdin_fd = -1;
		n = 0;
	}
	s->credit -= (uint32_t)n;
	put_frame(s, AGENT_STDIN, data, (size_t)n);
	return output(s, MN_EVENT_STDIN, data, (size_t)n);
}

static int flush_out(struct mn_session *s)
{
	ssize_t n = send(s->conn, s->out.data, s->out.len, MSG_NOSIGNAL);

	if (n < 0)
		/* the answer, if there is one, is still to be read */
		return errno == EAGAIN || errno == EINTR ? 0 :
		       errno == EPIPE ? (buf_clear(&s->out), 0) : -errno;
	buf_drop(&s->out, (size_t)n);
	return 0;
}

/* --- what comes from the guest -------------------------------------------- */

static int take_frame(struct mn_session *s, enum agent_frame type,
		      const uint8_t *data, uint32_t len, struct err *err)
{
	struct wire_r r;
	uint32_t more;

	wire_r_init(&r, data, len);
	switch (type) {
	case AGENT_STDOUT:
		return output(s, MN_EVENT_STDOUT, data, len);
	case AGENT_STDERR:
		return output(s, MN_EVENT_STDERR, data, len);
	case AGENT_CREDIT:
		more = wire_u32(&r);
		if (r.bad || more > AGENT_WINDOW - s->credit)
			break;
		s->credit += more;
		return 0;
	case AGENT_EXIT:
		s->exit.status = (int)(wire_u32(&r) & 0xff);
		s->exit.signaled = wire_u8(&r);
		if (r.bad)
			break;
		s->ended = true;
		return 0;
	case AGENT_FAIL:
		return agent_fail(data, len, ERR_EXEC_PROTOCOL, err);
	default:
		break;
	}
	return err_code(err, ERR_EXEC_PROTOCOL, EPROTO,
			"the guest agent sent an unexpected frame %d of %u bytes",
			type, len);
}

static int take_frames(struct mn_session *s, struct err *err)
{
	size_t at = 0;
	int ret = 0;

	while (!ret && !s->ended && s->in.len - at >= AGENT_HEAD) {
		const uint8_t *p = (const uint8_t *)s->in.data + at;
		enum agent_frame type;
		uint32_t len;

		if (!agent_head_get(p, &type, &len))
			return err_code(err, ERR_EXEC_PROTOCOL, EPROTO,
					"the guest agent's stream is garbled");
		if (s->in.len - at - AGENT_HEAD < len)
			break;
		ret = take_frame(s, type, p + AGENT_HEAD, len, err);
		at += AGENT_HEAD + len;
	}
	buf_drop(&s->in, at);
	return ret;
}

/* It says how it ended a moment after its sockets have closed. */
static int went_away(struct mn_session *s, struct err *err)
{
	static const char gone[] = "the VM went away before the command ended";
	struct buf why = BUF_INIT;
	int ret;

	proc_wait(s->pidfd, END_MS);
	vm_end_words(s->dir, &why);
	ret = err_code(err, ERR_EXEC_AGENT_UNAVAILABLE, ECONNRESET, "%s",
		       why.len && !why.oom ? why.data : gone);
	if (why.len && !why.oom)
		err_wrap(err, ret, gone);
	buf_done(&why);
	return ret;
}

static int read_conn(struct mn_session *s, struct err *err)
{
	char *p = buf_reserve(&s->in, AGENT_FRAME_MAX + AGENT_HEAD);
	ssize_t n = p ? recv(s->conn, p, AGENT_FRAME_MAX + AGENT_HEAD, 0) : -1;

	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return went_away(s, err);
	s->in.len += (size_t)n;
	return take_frames(s, err);
}

/* --- the loop ------------------------------------------------------------- */

static int step(struct mn_session *s, struct err *err)
{
	bool feed = s->stdin_fd >= 0 && s->credit && s->out.len < STDIN_CHUNK;
	struct pollfd p[3] = {
		{ .fd = s->conn, .events = (short)(POLLIN | (s->out.len ? POLLOUT : 0)) },
		{ .fd = s->order_rd, .events = POLLIN },
		{ .fd = feed ? s->stdin_fd : -1, .events = POLLIN },
	};
	uint64_t now = io_now_ns();
	int ret, left = -1;

	if (s->deadline && now >= s->deadline)
		return err_code(err, ERR_EXEC_TIMEOUT, ETIMEDOUT,
				"the command did not end in %.1f s",
				(double)s->cfg.timeout_ms / 1000);
	if (s->deadline)
		left = (int)MIN((s->deadline - now) / 1000000 + 1, 3600000ull);
	ret = poll(p, 3, left);
	if (ret < 0)
		return errno == EINTR ? 0 : err_set(err, errno, "poll failed");
	ret = 0;
	if (p[1].revents)
		ret = take_order(s, err);
	if (!ret && p[2].revents)
		ret = take_stdin(s);
	if (!ret && p[0].revents & (POLLIN | POLLHUP | POLLERR))
		ret = read_conn(s, err);
	if (!ret && s->out.len && !s->ended && flush_out(s) < 0)
		ret = err_code(err, ERR_EXEC_AGENT_UNAVAILABLE, EIO,
			       "the connection to the VM broke");
	if (!ret && s->out.oom)
		ret = err_set(err, ENOMEM, "out of memory");
	return ret;
}

int mn_exec_wait(struct mn_session *s, struct mn_exit *exit, struct mn_error *err)
{
	struct err e = ERR_INIT;
	int ret = 0;

	if (s->stdin_fd < 0 && !s->ended)
		put_frame(s, AGENT_STDIN, "", 0);
	while (!ret && !s->ended)
		ret = step(s, &e);
	if (!ret && exit)
		*exit = s->exit;
	return lib_return(err, &e, ret);
}

static void order(struct mn_session *s, enum order what, uint16_t a, uint16_t b)
{
	struct order_msg m = { .what = what, .a = a, .b = b };
	int saved = errno;

	/* a full pipe means that 64 KiB of orders wait: one more changes nothing */
	if (write(s->order_wr, &m, sizeof(m)) < 0)
		errno = saved;
}

void mn_exec_resize(struct mn_session *s, uint16_t rows, uint16_t cols)
{
	order(s, ORDER_RESIZE, rows, cols);
}

void mn_exec_signal(struct mn_session *s, int signo)
{
	order(s, ORDER_SIGNAL, (uint16_t)signo, 0);
}

void mn_exec_cancel(struct mn_session *s)
{
	order(s, ORDER_CANCEL, 0, 0);
}

bool mn_exec_has_tty(const struct mn_session *s)
{
	return s->cfg.tty;
}

void mn_exec_free(struct mn_session *s)
{
	if (!s)
		return;
	io_close(s->conn);
	io_close(s->order_rd);
	io_close(s->order_wr);
	io_close(s->dir);
	io_close(s->pidfd);
	buf_done(&s->in);
	buf_done(&s->out);
	free(s);
}

int mn_exec(struct mn_vm *vm, const struct mn_exec *cfg, struct mn_exit *exit,
	    struct mn_error *err)
{
	struct mn_session *s;
	int ret = mn_exec_start(vm, cfg, &s, err);

	if (ret)
		return ret;
	ret = mn_exec_wait(s, exit, err);
	mn_exec_free(s);
	return ret;
}
