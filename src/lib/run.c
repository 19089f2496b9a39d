// SPDX-License-Identifier: MIT
/*
 * run.c - runs a program of the host; see run.h.
 *
 * One poll loop collects stdout and splits stderr into lines, so that neither
 * blocks the other.  The last bytes of stderr are kept: they
 * are what a user needs when the program fails.
 */
#include "lib/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define OUTPUT_MAX (16u << 20)	/* of stdout that is kept */
#define TAIL_MAX   600		/* bytes of stderr in an error */

extern char **environ;

struct running {
	const struct run *r;
	pid_t pid;
	int out, errfd;		/* our ends; -1 when closed */
	struct buf lines;	/* stderr so far, the last TAIL_MAX and more */
	size_t line_start;	/* where the unfinished line begins in it */
};

static void close_end(int *fd)
{
	io_close(*fd);
	*fd = -1;
}

/* The caller's environment with LC_ALL set; the array is owned. */
static char **environment(void)
{
	size_t n = 0, at = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(n + 3, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "LC_ALL=", 7) &&
		    strncmp(environ[i], "DEBIAN_FRONTEND=", 16))
			env[at++] = environ[i];
	env[at++] = (char *)(uintptr_t)"LC_ALL=C.UTF-8";
	env[at] = (char *)(uintptr_t)"DEBIAN_FRONTEND=noninteractive";
	return env;
}

static int spawn(struct running *p, int out, int errfd)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	char **env = environment();
	sigset_t set;
	int ret;

	if (!env)
		return -ENOMEM;
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&at);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, 1);
	posix_spawn_file_actions_adddup2(&fa, errfd, 2);
	if (p->r->cwd)
		posix_spawn_file_actions_addchdir_np(&fa, p->r->cwd);
	sigemptyset(&set);
	posix_spawnattr_setsigmask(&at, &set);
	sigaddset(&set, SIGPIPE);
	posix_spawnattr_setsigdefault(&at, &set);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	ret = posix_spawnp(&p->pid, p->r->argv[0], &fa, &at,
			   (char *const *)(uintptr_t)p->r->argv, env);
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	free(env);
	return -ret;
}

static int start(struct running *p)
{
	int out[2] = { -1, -1 }, errp[2] = { -1, -1 };
	int ret = 0;

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(errp, O_CLOEXEC) < 0)
		ret = -errno;
	if (!ret)
		ret = spawn(p, out[1], errp[1]);
	io_close(out[1]);
	io_close(errp[1]);
	p->out = out[0];
	p->errfd = errp[0];
	return ret;
}

/* Hands complete lines on and forgets what is older than the tail. */
static int take_lines(struct running *p)
{
	char *nl;
	int ret = 0;

	while (!ret && p->line_start < p->lines.len &&
	       (nl = memchr(p->lines.data + p->line_start, '\n',
			    p->lines.len - p->line_start))) {
		*nl = '\0';
		if (p->r->line)
			ret = p->r->line(p->lines.data + p->line_start, p->r->arg);
		*nl = '\n';
		p->line_start = (size_t)(nl + 1 - p->lines.data);
	}
	if (p->line_start > 8 * TAIL_MAX) {
		size_t drop = p->line_start - TAIL_MAX;

		buf_drop(&p->lines, drop);
		p->line_start -= drop;
	}
	return ret;
}

static int read_some(int *fd, struct buf *to, size_t max)
{
	char chunk[8192];
	ssize_t n = read(*fd, chunk, sizeof(chunk));

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (!n)
		close_end(fd);
	else if (to && to->len + (size_t)n <= max)
		buf_add(to, chunk, (size_t)n);
	return 0;
}

static int pump(struct running *p)
{
	int ret = 0;

	while (!ret && (p->out >= 0 || p->errfd >= 0)) {
		struct pollfd fds[2] = {
			{ .fd = p->out, .events = POLLIN },
			{ .fd = p->errfd, .events = POLLIN },
		};

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[0].revents)
			ret = read_some(&p->out, p->r->output, OUTPUT_MAX);
		if (!ret && fds[1].revents)
			ret = read_some(&p->errfd, &p->lines, SIZE_MAX);
		if (!ret)
			ret = take_lines(p);
	}
	return ret;
}

/* Its last lines, as one cause: newlines become " / ". */
static void tail(struct running *p, struct err *err)
{
	size_t from = p->lines.len > TAIL_MAX ? p->lines.len - TAIL_MAX : 0;
	char text[3 * TAIL_MAX] = "";
	size_t n = 0;

	for (size_t i = from; i < p->lines.len; i++) {
		char c = p->lines.data[i];

		if (c == '\n' && i + 1 < p->lines.len) {
			memcpy(text + n, " / ", 3);
			n += 3;
		} else if (c != '\n' && c != '\r') {
			text[n++] = c;
		}
	}
	text[n] = '\0';
	err_set(err, EIO, "%s", n ? text : "it said nothing");
}

static int reap(struct running *p, int ret, struct err *err)
{
	int status;

	if (ret)
		kill(p->pid, SIGTERM);
	while (waitpid(p->pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_set(err, errno, "cannot wait for %s", p->r->argv[0]);
	if (ret)
		return err_wrap(err, ret, "%s was stopped", p->r->argv[0]);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	tail(p, err);
	if (WIFSIGNALED(status))
		return err_wrap(err, -EIO, "%s was ended by signal %d",
				p->r->argv[0], WTERMSIG(status));
	return err_wrap(err, -EIO, "%s failed with status %d", p->r->argv[0],
			WEXITSTATUS(status));
}

int run_program(const struct run *r, struct err *err)
{
	struct running p = { .r = r, .out = -1, .errfd = -1 };
	int ret = start(&p);

	if (ret)
		err_wrap(err, ret, "cannot run %s", r->argv[0]);
	else
		ret = reap(&p, pump(&p), err);
	io_close(p.out);
	io_close(p.errfd);
	buf_done(&p.lines);
	return ret;
}
