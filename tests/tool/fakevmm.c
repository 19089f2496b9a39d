// SPDX-License-Identifier: MIT
/*
 * fakevmm.c - a machinen-vmm without a machine, for tests of library and commands.
 *
 * It reads the launch document, answers on the control socket and bridges the
 * agent socket, like the real one; but behind it, instead of a guest, runs the
 * real agent's loop as a process of the host.  So exec, stdin, signals, exit
 * statuses and lifetimes are the real thing, in milliseconds.
 *
 * FAKEVMM=word,… makes it misbehave: fail (report a failure), die (end before it
 * is ready), mute (no agent), crash (end when the agent is connected to),
 * stubborn (ignore stop and SIGTERM).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "guest/agent.h"
#include "guest/guest.h"
#include "proto/ctl.h"
#include "proto/spec.h"

struct fake {
	struct spec spec;
	struct spec_fds fds;
	pid_t agent;
	struct sockaddr_un inner;	/* the agent's own socket */
	socklen_t inner_len;
	bool paused, detached;
};

static bool told_to(const char *what)
{
	const char *s = getenv("FAKEVMM");

	return s && strstr(s, what);
}

/* The text of one file of the initramfs. */
static char *initrd_file(int fd, const char *want)
{
	struct buf b = BUF_INIT;
	size_t at = 0;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (io_read_file(AT_FDCWD, path, 64u << 20, &b))
		return NULL;
	while (at + 110 < b.len) {
		char size[9] = "", name[9] = "";
		size_t len, nlen;

		memcpy(size, b.data + at + 54, 8);
		memcpy(name, b.data + at + 94, 8);
		len = strtoul(size, NULL, 16);
		nlen = strtoul(name, NULL, 16);
		if (!strcmp(b.data + at + 110, want))
			return strndup(b.data + at + ((110 + nlen + 3) & ~3ul), len);
		at += ((110 + nlen + 3) & ~3ul) + ((len + 3) & ~3ul);
	}
	return NULL;
}

static _Noreturn void be_agent(struct fake *f, int listen_fd, pid_t parent)
{
	struct guest g = { .console = spec_fds_get(&f->fds, "console"),
			   .kmsg = -1, .random = -1 };
	char *config = initrd_file(spec_fds_get(&f->fds, "initrd"), "config");

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);	/* it went before the line above */
	g.proc = open("/proc", O_PATH | O_CLOEXEC);
	g.pts = open("/dev", O_PATH | O_CLOEXEC);
	if (config && doc_parse(&g.config, config, strlen(config)))
		_exit(3);
	for (char **e = doc_strv(&g.config, doc_get(&g.config, DOC_ROOT, "env"));
	     e && *e; e++)
		guest_env_add(&g.env, *e);
	if (dprintf(g.console, "fake kernel: hello from %s\n",
		    doc_str(&g.config, doc_get(&g.config, DOC_ROOT, "hostname"))) < 0)
		_exit(5);
	_exit(agent_run(&g, listen_fd) ? 4 : 0);
}

static void start_agent(struct fake *f)
{
	pid_t parent = getpid();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	f->inner.sun_family = AF_UNIX;
	f->inner_len = sizeof(f->inner);
	if (bind(fd, (struct sockaddr *)&f->inner, sizeof(sa_family_t)) ||
	    getsockname(fd, (struct sockaddr *)&f->inner, &f->inner_len) ||
	    listen(fd, 256))
		_exit(6);
	f->agent = fork();
	if (!f->agent)
		be_agent(f, fd, parent);
	close(fd);
}

/* Copies until EOF, then half-closes. */
static void copy(int from, int to)
{
	char data[65536];
	ssize_t n;

	while ((n = read(from, data, sizeof(data))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && io_write_full(to, data, (size_t)n))
			break;
	shutdown(to, SHUT_WR);
}

static _Noreturn void bridge(struct fake *f, int host)
{
	int in = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char c = 0;

	while (c != '\n' && read(host, &c, 1) == 1)
		;
	if (connect(in, (struct sockaddr *)&f->inner, f->inner_len))
		_exit(1);
	if (io_write_full(host, "OK 1\n", 5))
		_exit(1);
	if (!fork()) {
		copy(host, in);
		_exit(0);
	}
	copy(in, host);
	_exit(0);
}

static void on_agent(struct fake *f, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0 && told_to("crash"))
		_exit(5);
	if (fd >= 0 && !told_to("mute") && !fork()) {
		signal(SIGCHLD, SIG_IGN);
		bridge(f, fd);
	}
	io_close(fd);
}

static void on_control(struct fake *f, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct err err = ERR_INIT;
	json_t *req = NULL, *ans;
	const char *op;
	unsigned n = 0;

	if (ctl_recv(fd, &req, NULL, &n, &err) <= 0) {
		io_close(fd);
		return;
	}
	op = json_str_opt(req, "op", "", NULL);
	if (!strcmp(op, "pause") || !strcmp(op, "resume"))
		f->paused = *op == 'p';
	f->detached |= !strcmp(op, "detach");
	ans = json_pack("{s:b, s:s, s:s, s:[]}", "ok", 1, "state",
			f->paused ? "paused" : "running", "accel", "soft", "ports");
	ctl_send(fd, ans, NULL, 0, &err);
	if (!strcmp(op, "stop") && !told_to("stubborn"))
		_exit(4);
	json_decref(req);
	json_decref(ans);
	close(fd);
}

static void serve(struct fake *f)
{
	struct pollfd p[3] = {
		{ .fd = spec_fds_get(&f->fds, "agent"), .events = POLLIN },
		{ .fd = spec_fds_get(&f->fds, "control"), .events = POLLIN },
		{ .fd = spec_fds_get(&f->fds, "alive"), .events = POLLIN },
	};
	int status;

	for (;;) {
		p[2].fd = f->detached ? -1 : p[2].fd;
		poll(p, 3, 20);
		if (p[0].revents)
			on_agent(f, p[0].fd);
		if (p[1].revents)
			on_control(f, p[1].fd);
		if (p[2].revents)
			_exit(4);
		if (waitpid(f->agent, &status, WNOHANG) == f->agent)
			_exit(0);
	}
}

static void become(struct fake *f, int spec_fd)
{
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	ssize_t n;

	do {
		char *p = buf_reserve(&b, 65536);

		n = io_read_full(spec_fd, p, 65536);
		b.len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	if (spec_launch_parse(&f->spec, &f->fds, b.data, b.len, &err)) {
		fprintf(stderr, "fakevmm: %s\n", err_message(&err));
		_exit(1);
	}
	for (unsigned i = 0; i < f->fds.nr; i++)
		if (fcntl(f->fds.fd[i].fd, F_GETFD) < 0)
			_exit(7);	/* a role without its descriptor */
}

int main(int argc, char **argv)
{
	struct fake f = { .paused = false };
	int ready;

	if (argc != 3 || strcmp(argv[1], "--spec-fd"))
		return 2;
	become(&f, atoi(argv[2]));
	ready = spec_fds_get(&f.fds, "ready");
	if (told_to("die"))
		_exit(1);
	if (told_to("fail")) {
		dprintf(ready, "failed BOOT_ACCEL_UNAVAILABLE no CPU today\n");
		_exit(1);
	}
	if (told_to("stubborn"))
		signal(SIGTERM, SIG_IGN);
	start_agent(&f);
	dprintf(ready, "ready\n");
	close(ready);
	serve(&f);
	return 0;
}
