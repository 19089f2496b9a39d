// SPDX-License-Identifier: MIT
/*
 * agent.c - the agent's loop: connections, children, the end; see agent.h.
 *
 * Children are reaped from a signalfd.  PID 1 also gets every orphan of the
 * system; a pid that belongs to no session is reaped and forgotten.
 *
 * The end: SIGTERM to everything, SIGKILL after a grace time, and done when
 * PID 1 has no child left, which means that no user process is left.  Sessions
 * go on meanwhile, so the exit status of what is killed still reaches the host.
 */
#include "guest/agent.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/guest.h"

#define AGENT_SESSIONS_MAX	4096	/* below what PID 1 may open */
#define AGENT_BATCH		32
#define AGENT_STOP_GRACE_MS	700
#define AGENT_STOP_KILL_MS	2000

int64_t agent_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

int watch_add(struct agent *a, struct watch *w, int fd, uint32_t events,
	      watch_cb *cb)
{
	*w = (struct watch){ .fd = fd, .cb = cb };
	if (watch_mod(a, w, events) == 0)
		return 0;
	w->fd = -1;
	return -errno;
}

int watch_mod(struct agent *a, struct watch *w, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };
	int op = !events ? EPOLL_CTL_DEL :
		 w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (w->fd < 0 || w->events == events)
		return 0;
	w->events = events;
	/* EPERM: a file or /dev/null, which is always ready */
	return epoll_ctl(a->ep, op, w->fd, &e) && errno != EPERM ? -errno : 0;
}

void watch_close(struct agent *a, struct watch *w)
{
	if (w->fd < 0)
		return;
	/* explicit: a child that has not reached exec yet holds a duplicate */
	watch_mod(a, w, 0);
	close(w->fd);
	w->fd = -1;
}

static void on_accept(struct watch *w, uint32_t events)
{
	struct agent *a = container_of(w, struct agent, listen);
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (a->nr_sessions >= AGENT_SESSIONS_MAX || !session_new(a, fd))
		close(fd);
}

static struct session *by_pid(struct agent *a, pid_t pid)
{
	for (struct list *n = a->sessions.next; n != &a->sessions; n = n->next) {
		struct session *s = list_entry(n, struct session, node);

		if (s->pid == pid)
			return s;
	}
	return NULL;
}

static void reap(struct agent *a)
{
	struct session *s;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		s = by_pid(a, pid);
		if (s)
			exec_reaped(s, status);
	}
	if (pid < 0 && errno == ECHILD && a->stop != STOP_NO)
		a->stop = STOP_DONE;
}

/* The signals by which programs in the guest ask init to shut down. */
static void on_signal(struct watch *w, uint32_t events)
{
	struct agent *a = container_of(w, struct agent, signals);
	struct signalfd_siginfo info;

	while (read(w->fd, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			agent_stop(a);
	reap(a);
}

static int signals_open(struct agent *a)
{
	static const int asked[] = {
		SIGCHLD, SIGTERM, SIGINT, SIGPWR, SIGUSR1, SIGUSR2
	};
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(asked); i++)
		sigaddset(&set, asked[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	return watch_add(a, &a->signals, fd, EPOLLIN, on_signal);
}

void agent_stop(struct agent *a)
{
	if (a->stop != STOP_NO)
		return;
	a->stop = STOP_TERM;
	a->stop_deadline = agent_now_ms() + AGENT_STOP_GRACE_MS;
	if (a->g->pid1) {
		kill(-1, SIGTERM);
		kill(-1, SIGCONT);
	}
	reap(a);
}

static void stop_expired(struct agent *a)
{
	if (a->stop == STOP_TERM && a->g->pid1) {
		kill(-1, SIGKILL);
		a->stop = STOP_KILL;
		a->stop_deadline = agent_now_ms() + AGENT_STOP_KILL_MS;
	} else {
		a->stop = STOP_DONE;	/* stuck in the kernel: go without it */
	}
}

static void on_announced(struct watch *w, uint32_t events)
{
	watch_close(container_of(w, struct agent, announce), w);
}

/* Tells the host that connections are accepted from now on; see proto/agent.h. */
static void announce(struct agent *a)
{
	struct sockaddr_vm host = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST,
		.svm_port = AGENT_PORT,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return;
	if (!connect(fd, (struct sockaddr *)&host, sizeof(host)) ||
	    errno != EINPROGRESS ||
	    watch_add(a, &a->announce, fd, EPOLLOUT, on_announced))
		close(fd);
}

static int next_timeout(struct agent *a)
{
	int64_t at = a->stop != STOP_NO ? a->stop_deadline : 0, left;

	for (struct list *n = a->sessions.next; n != &a->sessions; n = n->next) {
		struct session *s = list_entry(n, struct session, node);

		if (s->deadline && (!at || s->deadline < at))
			at = s->deadline;
	}
	if (!at)
		return -1;
	left = at - agent_now_ms();
	return left > 0 ? (int)left : 0;
}

static void run_timers(struct agent *a)
{
	int64_t now = agent_now_ms();
	struct list *next;

	for (struct list *n = a->sessions.next; n != &a->sessions; n = next) {
		struct session *s = list_entry(n, struct session, node);

		next = n->next;
		if (s->deadline && s->deadline <= now)
			session_expired(s);
	}
	if (a->stop != STOP_NO && a->stop != STOP_DONE && a->stop_deadline <= now)
		stop_expired(a);
}

static void bury(struct agent *a)
{
	while (!list_empty(&a->dead)) {
		struct session *s = list_entry(a->dead.next, struct session, node);

		list_del(&s->node);
		buf_done(&s->in);
		buf_done(&s->out);
		buf_done(&s->stdin_buf);
		free(s);
	}
}

/* Exits still on their way to the host are waited for, within their deadlines. */
static bool finished(const struct agent *a)
{
	if (a->stop != STOP_DONE)
		return false;
	for (struct list *n = a->sessions.next; n != &a->sessions; n = n->next)
		if (list_entry(n, struct session, node)->deadline)
			return false;
	return true;
}

static void loop(struct agent *a)
{
	struct epoll_event e[AGENT_BATCH];

	while (!finished(a)) {
		int n = epoll_wait(a->ep, e, AGENT_BATCH, next_timeout(a));

		for (int i = 0; i < n; i++) {
			struct watch *w = e[i].data.ptr;

			if (w->fd >= 0 && w->events)
				w->cb(w, e[i].events);
		}
		run_timers(a);
		session_flush_all(a);
		bury(a);
		if (a->main_ended && !a->main)
			agent_stop(a);
	}
}

int agent_run(struct guest *g, int listen_fd)
{
	struct agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->g = g;
	a->listen.fd = a->signals.fd = a->announce.fd = -1;
	list_init(&a->sessions);
	list_init(&a->dead);
	list_init(&a->dirty);
	a->ep = epoll_create1(EPOLL_CLOEXEC);
	r = a->ep < 0 ? -errno : signals_open(a);
	if (!r && listen_fd >= 0)
		r = watch_add(a, &a->listen, listen_fd, EPOLLIN, on_accept);
	if (!r && g->pid1 && listen_fd >= 0)
		announce(a);
	if (!r) {
		exec_boot(a);
		loop(a);
	}
	while (!list_empty(&a->sessions))
		session_close(list_entry(a->sessions.next, struct session, node));
	bury(a);
	watch_close(a, &a->listen);
	watch_close(a, &a->signals);
	watch_close(a, &a->announce);
	if (a->ep >= 0)
		close(a->ep);
	free(a);
	return r;
}
