// SPDX-License-Identifier: MIT
/*
 * spawn.c - starts machinen-vmm.
 *
 * It is a grandchild: the child between makes a session and ends at once, so
 * that the VMM belongs to no terminal, is nobody's zombie, and a library's user
 * gets no SIGCHLD that it did not ask for.  It keeps exactly the descriptors
 * that its launch document names, at numbers decided here, beside 0 to 3.
 *
 * Between fork and exec only async-signal-safe calls are made: other threads
 * of the caller may hold any lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/vm.h"

#define DOC_FD	 3
#define FIRST_FD 4	/* of the roles */

/* What the child tells: one of these on the pipe, then EOF. */
struct told {
	pid_t pid;	/* the grandchild; 0: num says why not */
	int num;
};

/* src[i] becomes descriptor first + i, whatever numbers they have now. */
static int place_fds(int *src, unsigned nr, int first)
{
	int above = first + (int)nr;

	for (unsigned i = 0; i < nr; i++) {
		src[i] = fcntl(src[i], F_DUPFD_CLOEXEC, above);
		if (src[i] < 0)
			return -errno;
	}
	for (unsigned i = 0; i < nr; i++)
		if (dup2(src[i], first + (int)i) < 0)
			return -errno;
	return 0;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Does not return.  fds: stdin, stdout, stderr, document, roles. */
static _Noreturn void become_vmm(const char *path, int *fds, unsigned nr, int tell)
{
	static const char *const argv[] = { "machinen-vmm", "--spec-fd", "3", NULL };
	int last = (int)nr;
	struct told told = { .pid = 0 };

	reset_signals();
	tell = fcntl(tell, F_DUPFD_CLOEXEC, last + 1);
	told.num = tell < 0 ? errno : -place_fds(fds, nr, 0);
	if (!told.num && dup3(tell, last, O_CLOEXEC) < 0)
		told.num = errno;
	if (!told.num) {
		tell = last;
		/* whatever else the caller had open */
		syscall(SYS_close_range, (unsigned)last + 1, ~0u, 0);
		if (!chdir("/"))
			execv(path, (char *const *)(uintptr_t)argv);
		told.num = errno;
	}
	if (write(tell, &told, sizeof(told)) < 0)
		_exit(126);
	_exit(127);
}

static _Noreturn void between(const char *path, int *fds, unsigned nr, int tell)
{
	struct told told;

	setsid();
	told.pid = fork();
	if (!told.pid)
		become_vmm(path, fds, nr, tell);
	told.num = told.pid < 0 ? errno : 0;
	if (told.pid < 0)
		told.pid = 0;
	if (write(tell, &told, sizeof(told)) < 0)
		_exit(1);
	_exit(0);
}

/* Both reports, in whatever order they come; EOF means that exec went well. */
static int listen_to(int fd, struct spawn *s)
{
	struct told told;
	ssize_t n;

	while ((n = io_read_full(fd, &told, sizeof(told))) == sizeof(told)) {
		if (told.pid)
			s->pid = told.pid;
		if (told.num)
			return -told.num;
	}
	return n < 0 ? (int)n : s->pid ? 0 : -EAGAIN;
}

static int fork_vmm(struct spawn *s, int *fds, unsigned nr)
{
	int tell[2], ret;
	pid_t pid;

	if (pipe2(tell, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (!pid)
		between(s->vmm, fds, nr, tell[1]);
	ret = pid < 0 ? -errno : 0;
	close(tell[1]);
	if (!ret) {
		ret = listen_to(tell[0], s);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(tell[0]);
	return ret;
}

int spawn_vmm(struct spawn *s, struct err *err)
{
	int fds[FIRST_FD + SPEC_MAX_FDS], doc[2], ret;
	cleanup(io_closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	s->pid = 0;
	s->doc = -1;
	if (null < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, doc) < 0)
		return err_set(err, errno, "cannot start machinen-vmm: %s",
			       strerror(errno));
	fds[0] = fds[1] = null;
	fds[2] = s->log;
	fds[DOC_FD] = doc[1];
	for (unsigned i = 0; i < s->fds->nr; i++)
		fds[FIRST_FD + i] = s->fds->fd[i].fd;
	ret = fork_vmm(s, fds, FIRST_FD + s->fds->nr);
	close(doc[1]);
	if (ret) {
		close(doc[0]);
		return err_code(err, ERR_BOOT_VMM_MISSING, -ret,
				"cannot run %s: %s", s->vmm, strerror(-ret));
	}
	for (unsigned i = 0; i < s->fds->nr; i++)
		s->fds->fd[i].fd = FIRST_FD + (int)i;
	s->doc = doc[0];
	return 0;
}
