// SPDX-License-Identifier: MIT
/*
 * spawn.c - the life of a command between fork and exec; see spawn.h.
 *
 * Everything that reads the guest's file system on behalf of a command happens
 * here, in the child.  What goes wrong is told the way a shell tells it: on the
 * command's own stderr and by its exit status.
 */
#include "guest/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/guest.h"
#include "guest/user.h"

#define SPAWN_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define SPAWN_NOFILE_SOFT 1024		/* what programs using select() expect */
#define SPAWN_NOFILE_HARD 524288

enum { STATUS_REFUSED = 126, STATUS_NOT_FOUND = 127 };

static _Noreturn void give_up(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	dprintf(2, "machinen: ");
	vdprintf(2, fmt, ap);
	dprintf(2, "\n");
	va_end(ap);
	_exit(status);
}

void spawn_reset(const struct guest *g)
{
	struct rlimit nofile = { SPAWN_NOFILE_SOFT, SPAWN_NOFILE_HARD };
	sigset_t none;
	int fd;

	/* PID 1 changed no other: the kernel starts it with the defaults */
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!g->pid1)
		return;
	setrlimit(RLIMIT_NOFILE, &nofile);
	fd = openat(g->proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "0", 1) < 0)
			guest_log(g, "oom_score_adj: %s", strerror(errno));
		close(fd);
	}
}

static void take_fds(const struct spawn *s)
{
	int fd[3];

	/* first above 2, so that no dup2 closes one still needed */
	for (int i = 0; i < 3; i++)
		fd[i] = fcntl(s->fd[i], F_DUPFD_CLOEXEC, 3);
	for (int i = 0; i < 3; i++)
		dup2(fd[i], i);
	setsid();
	if (s->tty)
		ioctl(0, TIOCSCTTY, 0);
}

static void env_default(char ***env, const char *key, const char *value)
{
	char assign[512];

	if (!value || !*value || guest_env_get(*env, key))
		return;
	snprintf(assign, sizeof(assign), "%s=%s", key, value);
	guest_env_add(env, assign);
}

static char **make_env(const struct guest *g, const struct spawn *s,
		       const struct user *u)
{
	char **env = NULL;

	for (char **e = g->env; e && *e; e++)
		guest_env_add(&env, *e);
	for (char **e = s->env; e && *e; e++)
		if (guest_env_add(&env, *e))
			give_up(STATUS_REFUSED, "not an assignment: %s", *e);
	env_default(&env, "PATH", SPAWN_PATH);
	env_default(&env, "HOME", u->home);
	env_default(&env, "USER", u->name);
	env_default(&env, "LOGNAME", u->name);
	env_default(&env, "SHELL", s->login ? u->shell : NULL);
	env_default(&env, "TERM", s->tty ? (s->term ? s->term : "linux") : NULL);
	return env;
}

static void become(const struct spawn *s, const struct user *u)
{
	if (s->tty && fchown(0, u->uid, -1))
		give_up(STATUS_REFUSED, "terminal: %s", strerror(errno));
	if (geteuid() || (!u->uid && !u->gid && u->nr_groups == 1)) {
		if (geteuid() && u->uid != geteuid())
			give_up(STATUS_REFUSED, "user: %s", strerror(EPERM));
		return;
	}
	if (setgroups(u->nr_groups, u->groups) || setgid(u->gid) ||
	    setuid(u->uid))
		give_up(STATUS_REFUSED, "user %u: %s", u->uid, strerror(errno));
}

static void enter_cwd(const struct guest *g, const struct spawn *s,
		      const struct user *u)
{
	const char *cwd = s->cwd ? s->cwd : g->cwd;

	if (cwd) {
		if (chdir(cwd))
			give_up(STATUS_REFUSED, "directory %s: %s", cwd,
				strerror(errno));
	} else if (chdir(s->login ? u->home : "/") && chdir("/")) {
		give_up(STATUS_REFUSED, "directory /: %s", strerror(errno));
	}
}

/* execve, and for a text file without an interpreter line the shell on it. */
static void exec_file(const char *path, char **argv, char **env)
{
	size_t nr = 0;
	char **sh;

	execve(path, argv, env);
	if (errno != ENOEXEC)
		return;
	while (argv[nr])
		nr++;
	sh = calloc(nr + 3, sizeof(*sh));
	if (!sh)
		return;
	sh[0] = (char[]){ "/bin/sh" };
	sh[1] = strdup(path);
	for (size_t i = 1; i < nr; i++)
		sh[i + 1] = argv[i];
	execve("/bin/sh", sh, env);
	errno = ENOEXEC;
}

/* Tries each directory of PATH; what was found but not allowed is remembered. */
static int exec_path(const char *name, char **argv, char **env)
{
	const char *dir = guest_env_get(env, "PATH");
	int error = ENOENT;

	while (dir) {
		size_t len = strcspn(dir, ":");
		char path[4096];

		if (snprintf(path, sizeof(path), "%.*s%s%s", (int)len, dir,
			     len ? "/" : "", name) < (int)sizeof(path)) {
			exec_file(path, argv, env);
			if (errno != ENOENT && errno != ENOTDIR)
				error = errno;
		}
		dir = dir[len] ? dir + len + 1 : NULL;
	}
	return error;
}

static _Noreturn void exec_argv(const char *file, char **argv, char **env)
{
	int error;

	if (strchr(file, '/')) {
		exec_file(file, argv, env);
		error = errno;
	} else {
		error = *file ? exec_path(file, argv, env) : ENOENT;
	}
	if (error == ENOENT || error == ENOTDIR)
		give_up(STATUS_NOT_FOUND, "%s: command not found", file);
	give_up(STATUS_REFUSED, "%s: %s", file, strerror(error));
}

_Noreturn void spawn_exec(const struct guest *g, const struct spawn *s)
{
	char sh[] = "/bin/sh", dash_c[] = "-c", *line = NULL;
	char login[300];
	struct user u;
	char **env;
	int r;

	spawn_reset(g);
	take_fds(s);
	umask(022);
	r = user_find(&u, s->user);
	if (r)
		give_up(STATUS_REFUSED, "user %s: %s", s->user,
			r == -ENOENT ? "no such user or group" : strerror(-r));
	env = make_env(g, s, &u);
	become(s, &u);
	enter_cwd(g, s, &u);
	if (s->argv && s->argv[0])
		exec_argv(s->argv[0], s->argv, env);
	if (s->login) {
		const char *base = strrchr(u.shell, '/');

		snprintf(login, sizeof(login), "-%s", base ? base + 1 : u.shell);
		exec_argv(u.shell, (char *[]){ login, NULL }, env);
	}
	line = strdup(s->shell ? s->shell : "");
	exec_argv(sh, (char *[]){ sh, dash_c, line, NULL }, env);
}
