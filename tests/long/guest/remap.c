// SPDX-License-Identifier: MIT
/*
 * remap.c - pages that change hands while loops over them are hot: other frames at the
 * same address, permissions that go and come, addresses that agree in their low 32 bits,
 * copies on write between processes, code under two names.  Prints what it read.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	4096ul
#define PAGES	64
#define HERE	0x300000000ul
#define FAR	(HERE + 0x500000000ul)	/* the same low 32 bits */

static sigjmp_buf out;
static volatile uintptr_t fault_at;
static volatile int fault_code;

static void on_fault(int sig, siginfo_t *info, void *arg)
{
	(void)arg;
	fault_at = (uintptr_t)info->si_addr;
	fault_code = sig * 16 + info->si_code;
	siglongjmp(out, 1);
}

static void *map(uintptr_t at, size_t n, int prot, int fd, off_t off)
{
	void *p = mmap((void *)at, n, prot, MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd, off);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

static uint64_t sum(const volatile uint64_t *p, size_t n)
{
	uint64_t s = 0;

	for (size_t k = 0; k < n; k++)
		s = s * 31 + p[k];
	return s;
}

/* frames of a file come and go below hot loops */
static void frames(int fd)
{
	volatile uint64_t *p = map(HERE, PAGES * PAGE, PROT_READ | PROT_WRITE, fd, 0), h = 0;
	volatile uint64_t *q = map(FAR, PAGES * PAGE, PROT_READ | PROT_WRITE, fd, PAGES * PAGE);
	uint64_t s = 0;

	for (unsigned r = 0; r < 3000; r++) {
		unsigned a = r * 7 % PAGES, b = r * 13 % (2 * PAGES);

		map(HERE + a * PAGE, PAGE, PROT_READ | PROT_WRITE, fd, (off_t)(b * PAGE));
		for (unsigned k = 0; k < 200; k++) {
			unsigned n = k * 37 % PAGES * 512 + k;

			p[n] += q[n] + r;	/* two pages of one slot */
			q[n ^ 3] ^= p[n] >> 7;
		}
		s = s * 31 + p[a * 512 + 5];
		if (r % 100 == 0)
			madvise((void *)(HERE + a * PAGE), PAGE, MADV_DONTNEED);
		h += s;
	}
	printf("frames %016lx %016lx %016lx\n", (uint64_t)h, sum(p, PAGES * 512), sum(q, PAGES * 512));
}

static uint64_t touch(volatile uint8_t *p, int how)
{
	if (sigsetjmp(out, 1))
		return fault_at * 3 + (unsigned)fault_code;
	switch (how) {
	case 0: return *(volatile uint64_t *)p;
	case 1: *(volatile uint64_t *)p = 5; return 1;
	case 2: __sync_fetch_and_add((uint64_t *)(uintptr_t)p, 3); return 2;
	default: return ((uint64_t (*)(void))(uintptr_t)p)();
	}
}

/* what may be done to a page, before and after */
static void permissions(void)
{
	static const int prot[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
				    PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC };
	static const uint8_t code[] = { 0xb8, 7, 0, 0, 0, 0xc3 };
	uint64_t s = 0;

	for (unsigned r = 0; r < 4000; r++) {
		uint8_t *p = (uint8_t *)HERE + r % 5 * PAGE;

		map((uintptr_t)p, PAGE, PROT_READ | PROT_WRITE, -1, 0);
		memcpy(p + 64, code, sizeof(code));
		for (unsigned k = 0; k < 6; k++) {
			mprotect(p, PAGE, prot[(r * 3 + k * k) % 5]);
			for (int how = 0; how < 4; how++)
				for (int again = 0; again < 3; again++)
					s = s * 31 + touch(p + (how == 3 ? 64 : how == 2 ? PAGE - 8 : 128), how);
		}
		if (r % 3 == 0) {
			munmap(p, PAGE);
			s = s * 31 + touch(p, (int)(r & 3));
		}
	}
	printf("permissions %016lx\n", s);
}

/* a function under two names that is written anew, in whole and in part */
static void code(int fd)
{
	uint8_t *x = map(HERE, 4 * PAGE, PROT_READ | PROT_EXEC, fd, 0);
	uint8_t *w = map(FAR, 4 * PAGE, PROT_READ | PROT_WRITE, fd, 0);
	uint64_t s = 0;

	for (uint32_t r = 0; r < 20000; r++) {
		uint32_t at = r * 61 % (4 * PAGE - 32);
		uint64_t (*fn)(uint64_t) = (uint64_t (*)(uint64_t))(uintptr_t)(x + at);

		if (r % 4 == 3)
			at = PAGE - 3 + r % 3 * PAGE, fn = (uint64_t (*)(uint64_t))(uintptr_t)(x + at);
		memcpy(w + at, "\x48\x8d\x87\0\0\0\0\x48\x35\0\0\0\0\xc3", 14);	/* lea n(%rdi), %rax; xor n, %rax */
		memcpy(w + at + 3, &r, 4);
		for (int k = 0; k < 30; k++) {
			if (k % 10 == 9)
				w[at + 9] = (uint8_t)(k + r);
			s = s * 31 + fn(s);
		}
	}
	printf("code %016lx\n", s);
}

/* what each process writes is its own, code too, in a tree of processes */
static uint64_t family(unsigned depth, uint8_t *page)
{
	uint64_t s = 0;
	int pipes[2];

	for (unsigned k = 0; depth && k < 3; k++) {
		uint64_t got = 0;
		pid_t pid;

		if (pipe(pipes))
			exit(2);
		page[1] = (uint8_t)(depth * 8 + k);
		for (int n = 0; n < 20; n++)
			s = s * 31 + ((uint64_t (*)(void))(uintptr_t)page)();
		pid = fork();
		if (pid == 0) {
			page[1]++;
			*(uint32_t *)(page + 1024) += depth;
			got = family(depth - 1, page) + ((uint64_t (*)(void))(uintptr_t)page)();
			_exit(write(pipes[1], &got, 8) != 8);
		}
		for (int n = 0; n < 20; n++)
			s = s * 31 + ((uint64_t (*)(void))(uintptr_t)page)();
		if (read(pipes[0], &got, 8) != 8)
			exit(2);
		waitpid(pid, NULL, 0);
		close(pipes[0]);
		close(pipes[1]);
		s = s * 31 + got + *(uint32_t *)(page + 1024) + page[1];
	}
	return s;
}

int main(void)
{
	static char alt[65536];
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	int fd = (int)syscall(SYS_memfd_create, "frames", 0);
	uint8_t *page;

	sigaltstack(&ss, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	setvbuf(stdout, NULL, _IONBF, 0);
	if (ftruncate(fd, 2 * PAGES * PAGE))
		return 2;
	frames(fd);
	permissions();
	code(fd);
	page = map(HERE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, -1, 0);
	memcpy(page, "\xb8\0\0\0\0\xc3", 6);
	for (int r = 0; r < 3; r++)
		printf("family %016lx\n", family(4, page));
	return 0;
}
