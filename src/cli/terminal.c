// SPDX-License-Identifier: MIT
/*
 * terminal.c - a command of a VM on our own streams.
 *
 * Signals reach the session through a pointer that is set while it runs: the
 * calls made from the handler are safe there.  The terminal's mode is put back
 * on every way out that a program can see; SIGKILL leaves it raw, as with any
 * program.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/io.h"
#include "cli/cmd.h"

#define DETACH_KEY 0x1d		/* Ctrl-] */

/* What the signal handlers need; one command runs at a time in this program. */
static struct {
	struct mn_session *volatile session;
	volatile sig_atomic_t got;	/* last signal that was forwarded */
} now;

struct keys {
	bool on;	/* Ctrl-] twice leaves */
	bool seen;	/* the last byte was one */
	bool left;
};

static void on_signal(int signo)
{
	struct mn_session *s = now.session;
	struct winsize ws;

	if (signo == SIGWINCH) {
		if (s && !ioctl(0, TIOCGWINSZ, &ws))
			mn_exec_resize(s, ws.ws_row, ws.ws_col);
		return;
	}
	/*
	 * The second one does not wait for a command that ignores the first; and
	 * without our terminal there is nobody left to wait: the agent passes the
	 * hang-up on.
	 */
	if ((now.got || signo == SIGHUP) && s)
		mn_exec_cancel(s);
	now.got = signo;
	if (s)
		mn_exec_signal(s, signo);
}

static void catch_signals(bool tty)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGWINCH };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	for (int i = 0; i < 4; i++) {
		struct sigaction old;

		if (signals[i] == SIGWINCH && !tty)
			continue;
		/* started by nohup(1), it is to stay */
		if (signals[i] == SIGHUP && !sigaction(SIGHUP, NULL, &old) &&
		    old.sa_handler == SIG_IGN)
			continue;
		sigaction(signals[i], &sa, NULL);
	}
}

/* Looks for the key twice in a row, also across two reads. */
static int look_for_keys(struct keys *k, const unsigned char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		bool key = data[i] == DETACH_KEY;

		if (key && k->seen) {
			k->left = true;
			return -ECANCELED;
		}
		k->seen = key;
	}
	return 0;
}

static int on_event(const struct mn_event *ev, void *arg)
{
	struct keys *k = arg;

	if (ev->type == MN_EVENT_STDIN && k->on)
		return look_for_keys(k, ev->data, ev->len);
	if (ev->type == MN_EVENT_STDOUT)
		return io_write_full(1, ev->data, ev->len);
	if (ev->type == MN_EVENT_STDERR)
		return io_write_full(2, ev->data, ev->len);
	return 0;
}

bool terminal_both(void)
{
	return isatty(0) && isatty(1);
}

static bool make_raw(struct termios *saved)
{
	struct termios raw;

	if (tcgetattr(0, saved) < 0)
		return false;
	raw = *saved;
	cfmakeraw(&raw);
	return tcsetattr(0, TCSANOW, &raw) == 0;
}

static void set_tty(struct mn_exec *cfg)
{
	struct winsize ws;

	cfg->term = getenv("TERM");
	if (!ioctl(0, TIOCGWINSZ, &ws)) {
		cfg->rows = ws.ws_row;
		cfg->cols = ws.ws_col;
	}
}

/* The exit status for an error that ended a session. */
static int failed(const struct mn_error *err)
{
	if (err->num == ECANCELED && now.got)
		return 128 + now.got;
	if (err->num == EPIPE)
		return 128 + SIGPIPE;
	out_error(err, false);
	/* the guest said why the command could not be started */
	return err->code != MN_EXEC_NONZERO_EXIT ? 1 :
	       err->num == EACCES ? 126 : 127;
}

int terminal_exec(struct mn_vm *vm, struct mn_exec *cfg, bool detach_keys,
		  int *status)
{
	struct keys keys = { .on = detach_keys };
	struct mn_error err = { .code = MN_OK };
	struct mn_session *s;
	struct mn_exit end;
	struct termios saved;
	bool raw = false;
	int ret;

	cfg->use_stdin = true;
	cfg->stdin_fd = 0;
	cfg->event = on_event;
	cfg->event_arg = &keys;
	if (cfg->tty)
		set_tty(cfg);
	ret = mn_exec_start(vm, cfg, &s, &err);
	if (ret)
		return cfg->join && err.num == ESRCH ? -ESRCH : failed(&err);
	cfg->tty = cfg->tty && mn_exec_has_tty(s);
	now.got = 0;
	now.session = s;
	catch_signals(cfg->tty);
	if (cfg->tty)
		raw = make_raw(&saved);
	ret = mn_exec_wait(s, &end, &err);
	if (raw)
		tcsetattr(0, TCSADRAIN, &saved);
	now.session = NULL;
	mn_exec_free(s);
	if (keys.left) {
		fputs("\n", stderr);
		out_note("left; the VM runs on");
		*status = 0;
		return 0;
	}
	if (ret)
		return failed(&err);
	*status = end.status;
	return 0;
}

int terminal_session(const char *target, struct mn_exec *cfg, uint64_t tail,
		     bool detach_keys)
{
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	int status = 0, ret = mn_vm_open(target, &vm, &err);

	if (!ret && tail)
		ret = console_print(vm, tail, &err);
	ret = ret ? out_error(&err, false) :
		    terminal_exec(vm, cfg, detach_keys, &status);
	mn_vm_free(vm);
	return ret ? ret : status;
}
