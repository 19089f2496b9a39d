// SPDX-License-Identifier: MIT
/*
 * bench_exec.c - what a command in a VM costs:
 *
 *	bench_exec [TARGET]
 *
 * Boots the base, or uses a running VM, and prints the round trip of `exec true`
 * (p50, p99) beside starting /bin/true on the host, and the throughput of stdin
 * and stdout.  A table, no verdict: the numbers belong to this machine.
 */
#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "machinen.h"

#define ROUNDS 100
#define BYTES  (16u << 20)

extern char **environ;

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static _Noreturn void fail(const char *what, const struct mn_error *err)
{
	fprintf(stderr, "bench_exec: %s: %s\n", what,
		err->code ? mn_error_message(err) : "not the expected end");
	exit(1);
}

static int count(const struct mn_event *ev, void *arg)
{
	if (ev->type == MN_EVENT_STDOUT || ev->type == MN_EVENT_STDERR)
		*(uint64_t *)arg += ev->len;
	return 0;
}

/* ms of one command; in and out are bytes of stdin, and what must come out. */
static double run(struct mn_vm *vm, const char *const *argv, int in, uint64_t out)
{
	MN_CONFIG(struct mn_exec, cfg);
	struct mn_error err = { .code = MN_OK };
	struct mn_exit end;
	uint64_t got = 0;
	double start = now_ms();

	cfg.argv = argv;
	cfg.use_stdin = in >= 0;
	cfg.stdin_fd = in;
	cfg.event = count;
	cfg.event_arg = &got;
	if (mn_exec(vm, &cfg, &end, &err) < 0 || end.status || got != out)
		fail(argv[0], &err);
	return now_ms() - start;
}

static void latency(struct mn_vm *vm)
{
	static const char *const argv[] = { "/bin/true", NULL };
	double guest[ROUNDS], host[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		guest[i] = run(vm, argv, -1, 0);
	for (int i = 0; i < ROUNDS; i++) {
		char *words[] = { (char[]){ "true" }, NULL };
		double start = now_ms();
		pid_t pid;

		if (!posix_spawn(&pid, "/bin/true", NULL, NULL, words, environ))
			waitpid(pid, NULL, 0);
		host[i] = now_ms() - start;
	}
	qsort(guest, ROUNDS, sizeof(*guest), compare);
	qsort(host, ROUNDS, sizeof(*host), compare);
	printf("%-24s %9.2f ms p50 %9.2f ms p99\n", "exec true",
	       guest[ROUNDS / 2], guest[ROUNDS * 99 / 100]);
	printf("%-24s %9.2f ms p50 %9.2f ms p99 %7.1f x\n", "true on the host",
	       host[ROUNDS / 2], host[ROUNDS * 99 / 100],
	       guest[ROUNDS / 2] / host[ROUNDS / 2]);
}

static void throughput(struct mn_vm *vm)
{
	static const char *const sink[] = { "sh", "-c", "cat >/dev/null", NULL };
	static const char *const source[] = { "head", "-c", "16M", "/dev/zero",
					      NULL };
	static const char *const both[] = { "cat", NULL };
	int fd = memfd_create("input", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, BYTES))
		exit(1);
	printf("%-24s %9.1f MB/s\n", "stdin", BYTES / 1e3 / run(vm, sink, fd, 0));
	printf("%-24s %9.1f MB/s\n", "stdout",
	       BYTES / 1e3 / run(vm, source, -1, BYTES));
	lseek(fd, 0, SEEK_SET);
	printf("%-24s %9.1f MB/s\n", "stdin to stdout",
	       BYTES / 1e3 / run(vm, both, fd, BYTES));
	close(fd);
}

int main(int argc, char **argv)
{
	MN_CONFIG(struct mn_boot, boot);
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	double start = now_ms();
	int ret;

	ret = argc > 1 ? mn_vm_open(argv[1], &vm, &err) :
			 mn_boot(&boot, &vm, &err);
	if (ret < 0)
		fail("VM", &err);
	if (argc < 2)
		printf("%-24s %9.0f ms\n", "boot", now_ms() - start);
	latency(vm);
	throughput(vm);
	mn_vm_free(vm);
	return 0;
}
