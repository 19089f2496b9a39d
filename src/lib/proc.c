// SPDX-License-Identifier: MIT
/* proc.c - which process is meant by a pid; see proc.h. */
#include "lib/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/util.h"

/* Reads a small file of /proc as a string; its length or -errno. */
static ssize_t read_proc(const char *path, char *text, size_t size)
{
	cleanup(io_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = io_read_full(fd, text, size - 1);
	if (n >= 0)
		text[n] = '\0';
	return n;
}

/* The program's name may hold anything, so fields count from the last ')'. */
static int read_stat(pid_t pid, char *state, uint64_t *start)
{
	char path[64], text[1024], *p;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	n = read_proc(path, text, sizeof(text));
	if (n < 0)
		return n == -ENOENT ? -ESRCH : (int)n;
	p = strrchr(text, ')');
	if (!p || p[1] != ' ')
		return -ESRCH;
	p += 2;
	*state = *p;
	for (int field = 3; field < 22; field++) {
		p = strchr(p, ' ');
		if (!p)
			return -ESRCH;
		p++;
	}
	*start = strtoull(p, NULL, 10);
	return 0;
}

/* Empty when it cannot be read. */
static void read_boot(char boot[40])
{
	ssize_t n = read_proc("/proc/sys/kernel/random/boot_id", boot, 40);

	boot[n > 0 ? strcspn(boot, "\n") : 0] = '\0';
}

int proc_identify(pid_t pid, struct proc_id *id)
{
	char path[64], state;
	struct stat st;
	int ret;

	*id = (struct proc_id){ .pid = pid };
	ret = read_stat(pid, &state, &id->start);
	if (!ret && (state == 'Z' || state == 'X'))
		ret = -ESRCH;
	read_boot(id->boot);
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (!ret && !stat(path, &st)) {
		id->dev = st.st_dev;
		id->ino = st.st_ino;
	}
	return ret;
}

/* A program that may not be looked at (sandboxed) is taken for the right one. */
static bool same_program(const struct proc_id *id)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/exe", id->pid);
	if (!id->ino || stat(path, &st) < 0)
		return true;
	return st.st_dev == id->dev && st.st_ino == id->ino;
}

enum proc_state proc_check(const struct proc_id *id)
{
	char boot[40], state;
	uint64_t start;
	int ret = id->pid <= 0 ? -ESRCH : read_stat(id->pid, &state, &start);

	if (ret)
		return ret == -ESRCH ? PROC_DEAD : PROC_UNKNOWN;
	read_boot(boot);
	if (!*boot && *id->boot)
		return PROC_UNKNOWN;
	if (start != id->start || strcmp(boot, id->boot) || !same_program(id))
		return PROC_RECYCLED;
	return state == 'Z' || state == 'X' ? PROC_DEAD : PROC_LIVE;
}

uint64_t proc_rss(pid_t pid)
{
	unsigned long long size, pages;
	char path[64], text[256];

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	if (read_proc(path, text, sizeof(text)) < 0 ||
	    sscanf(text, "%llu %llu", &size, &pages) != 2)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t proc_uptime_ms(const struct proc_id *id)
{
	uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK), now, began;
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	now = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	began = id->start * 1000 / hz;
	return now > began ? now - began : 0;
}

int proc_open(const struct proc_id *id)
{
	int fd = (int)syscall(SYS_pidfd_open, id->pid, 0);
	enum proc_state state;

	if (fd < 0)
		return -errno;
	state = proc_check(id);
	if (state == PROC_LIVE)
		return fd;
	close(fd);
	return state == PROC_UNKNOWN ? -EIO : -ESRCH;
}

int proc_signal(int pidfd, int signo)
{
	return syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) < 0 ? -errno : 0;
}

int proc_wait(int pidfd, int64_t timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	uint64_t end = io_now_ns() + (uint64_t)MAX(timeout_ms, 0) * 1000000;

	for (;;) {
		uint64_t now = io_now_ns();
		int left = timeout_ms < 0 ? -1 :
			   now >= end ? 0 : (int)MIN((end - now + 999999) / 1000000,
						     3600000ull);
		int n = poll(&p, 1, left);

		if (n > 0)
			return 1;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n && timeout_ms >= 0 && io_now_ns() >= end)
			return 0;
	}
}
