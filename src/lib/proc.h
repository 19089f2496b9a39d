/* SPDX-License-Identifier: MIT */
/*
 * proc.h - which process is meant by a pid.  For src/lib only.
 *
 * Pids come back.  A process is the one that was meant when it began at the
 * same time (in clock ticks after the boot of the same kernel) and, where that
 * may be seen, runs the same program.
 */
#ifndef LIB_PROC_H
#define LIB_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_id {
	pid_t pid;
	uint64_t start;		/* field 22 of /proc/PID/stat */
	char boot[40];		/* the kernel's boot_id */
	uint64_t dev, ino;	/* of the program; 0: not known */
};

enum proc_state {
	PROC_LIVE,		/* this very process */
	PROC_DEAD,		/* gone, or a zombie */
	PROC_RECYCLED,		/* another process has the pid */
	PROC_UNKNOWN,		/* that could not be found out now: nobody's to clear away */
};

/* What pid is right now; -ESRCH when it is gone. */
int proc_identify(pid_t pid, struct proc_id *id);
enum proc_state proc_check(const struct proc_id *id);
/* Resident bytes; 0 when that cannot be read. */
uint64_t proc_rss(pid_t pid);
/* Milliseconds since the process began. */
uint64_t proc_uptime_ms(const struct proc_id *id);
/*
 * A descriptor of the process, checked to be the one meant after it was opened:
 * signals through it reach nobody else.  -ESRCH when it is dead or recycled.
 */
int proc_open(const struct proc_id *id);
int proc_signal(int pidfd, int signo);
/* 1 when it ended, 0 after timeout_ms (-1: wait for ever), -errno. */
int proc_wait(int pidfd, int64_t timeout_ms);

#endif
