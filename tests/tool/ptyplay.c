// SPDX-License-Identifier: MIT
/*
 * ptyplay.c - plays a script against a program on a terminal of its own.
 *
 *	ptyplay ROWS COLS CMD... <script
 *
 * The script has one order a line:
 *
 *	send TEXT	types it; C escapes \r \n \t \\ and \xHH
 *	expect TEXT	waits until it is in what came after the last match
 *	absent TEXT	it is nowhere in what came since the start
 *	resize R C	the window's new size, as a window manager would
 *	mode raw|cooked	waits until the terminal is in that mode
 *	hangup		closes the terminal
 *
 * After the last order the program has to end by itself; its status is ours, and
 * all it wrote is our output.
 * 99, with the order and all output on stderr: the play went otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include "base/buf.h"
#include "base/io.h"

#define PATIENCE_NS 20000000000ull

struct play {
	int master;		/* -1 after a hangup */
	int slave;		/* likewise; keeps the modes readable to the end */
	pid_t pid;
	struct buf out;		/* all of it */
	size_t matched;		/* so far is what was expected */
	uint64_t deadline;	/* of the current order */
};

/* More output; false at its end, or when the time is over. */
static bool more(struct play *p, int wait_ms)
{
	struct pollfd fd = { .fd = p->master, .events = POLLIN };
	ssize_t n;
	char *at;

	if (io_now_ns() >= p->deadline)
		return false;
	if (poll(&fd, 1, wait_ms) <= 0)
		return true;
	at = buf_reserve(&p->out, 4096);
	n = at ? read(p->master, at, 4096) : -1;
	if (n > 0)
		p->out.len += (size_t)n;
	return n > 0;
}

static bool expect(struct play *p, const char *text, size_t len)
{
	char *hit;

	do {
		hit = memmem(p->out.data + p->matched, p->out.len - p->matched,
			     text, len);
		if (hit) {
			p->matched = (size_t)(hit - p->out.data) + len;
			return true;
		}
	} while (more(p, 1000));
	return false;
}

/* In place; the length, as \x00 is a byte like any other. */
static size_t unescape(char *s)
{
	static const char from[] = "rnt\\", to[] = "\r\n\t\\";
	char *out = s, *start = s, *known;

	for (; *s; s++) {
		if (*s != '\\' || !s[1]) {
			*out++ = *s;
			continue;
		}
		s++;
		known = strchr(from, *s);
		if (known) {
			*out++ = to[known - from];
		} else if (*s == 'x' && s[1] && s[2]) {
			char hex[3] = { s[1], s[2], '\0' };

			*out++ = (char)strtoul(hex, NULL, 16);
			s += 2;
		}
	}
	return (size_t)(out - start);
}

static bool resize(struct play *p, const char *size)
{
	struct winsize ws = { .ws_row = 0 };

	return sscanf(size, "%hu %hu", &ws.ws_row, &ws.ws_col) == 2 &&
	       !ioctl(p->master, TIOCSWINSZ, &ws);
}

/* The master's own attributes are those of the program's side. */
static bool mode(struct play *p, const char *want)
{
	struct termios t;

	do {
		if (tcgetattr(p->master, &t))
			return false;
		if (!!(t.c_lflag & ICANON) == !strcmp(want, "cooked"))
			return true;
	} while (more(p, 10));
	return false;
}

static bool hangup(struct play *p)
{
	close(p->slave);
	close(p->master);
	p->master = p->slave = -1;
	return true;
}

static bool obey(struct play *p, char *line)
{
	char *arg = strchr(line, ' ');

	if (arg)
		*arg++ = '\0';
	else
		arg = line + strlen(line);
	p->deadline = io_now_ns() + PATIENCE_NS;
	if (!strcmp(line, "send"))
		return !io_write_full(p->master, arg, unescape(arg));
	if (!strcmp(line, "expect"))
		return expect(p, arg, unescape(arg));
	if (!strcmp(line, "absent"))
		return !memmem(p->out.data, p->out.len, arg, strlen(arg));
	if (!strcmp(line, "resize"))
		return resize(p, arg);
	if (!strcmp(line, "mode"))
		return mode(p, arg);
	return !strcmp(line, "hangup") && hangup(p);
}

/* The program's status as a shell has it; -1 when it does not end. */
static int the_end(struct play *p)
{
	int status;

	p->deadline = io_now_ns() + PATIENCE_NS;
	while (!waitpid(p->pid, &status, WNOHANG))
		if (io_now_ns() >= p->deadline)
			return -1;
		else
			more(p, 10);	/* a full terminal would hold it up */
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int went_wrong(struct play *p, const char *line)
{
	fprintf(stderr, "ptyplay: %s\n--- all output:\n%.*s\n---\n", line,
		(int)p->out.len, p->out.data ? p->out.data : "");
	kill(p->pid, SIGKILL);
	return 99;
}

int main(int argc, char **argv)
{
	struct play p = { .out = BUF_INIT };
	struct winsize ws;
	char line[1024], told[1024];
	int status;

	if (argc < 4)
		return 2;
	ws = (struct winsize){ .ws_row = (unsigned short)atoi(argv[1]),
			       .ws_col = (unsigned short)atoi(argv[2]) };
	if (openpty(&p.master, &p.slave, NULL, NULL, &ws))
		return 99;
	p.pid = fork();
	if (!p.pid) {
		login_tty(p.slave);
		close(p.master);
		execvp(argv[3], argv + 3);
		_exit(127);
	}
	buf_add(&p.out, "", 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		memcpy(told, line, sizeof(told));
		if (*line && !obey(&p, line))
			return went_wrong(&p, told);
	}
	status = the_end(&p);
	if (status >= 0 && io_write_full(1, p.out.data, p.out.len))
		return 99;
	return status < 0 ? went_wrong(&p, "the program does not end") : status;
}
