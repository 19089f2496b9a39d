// SPDX-License-Identifier: MIT
/*
 * cpu_rows.c - what a CPU is slow at, one row each: "NAME MICROSECONDS".
 *
 * One static program, run natively and as the init of a guest (where it powers
 * off at the end), so that every column of the table runs the very same code.
 * Each row runs for about the same native time; the best of three counts.
 */
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

static void integer_loop(void)
{
	uint64_t a = 1, b = 2;

	for (int i = 0; i < 20000000; i++) {
		a = a * 6364136223846793005ull + b;
		b ^= a >> 33;
	}
	sink = a + b;
}

static void sieve(void)
{
	enum { N = 2000000 };
	static uint8_t composite[N];

	memset(composite, 0, N);
	for (unsigned i = 2; i * i < N; i++)
		for (unsigned j = composite[i] ? N : i * i; j < N; j += i)
			composite[j] = 1;
	for (unsigned i = 2; i < N; i++)
		sink += !composite[i];
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void quicksort(void)
{
	enum { N = 150000 };
	static uint32_t v[N];
	uint32_t r = 1;

	for (int i = 0; i < N; i++)
		v[i] = r = r * 1664525 + 1013904223;
	qsort(v, N, sizeof(*v), compare);
	sink = v[N / 2];
}

static void matrix(void)
{
	enum { N = 200 };
	static double a[N][N], b[N][N], c[N][N];

	for (int i = 0; i < N * N; i++)
		(&a[0][0])[i] = i % 7, (&b[0][0])[i] = i % 11;
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			double s = 0;

			for (int k = 0; k < N; k++)
				s += a[i][k] * b[k][j];
			c[i][j] = s;
		}
	sink = (uint64_t)c[N / 2][N / 3];
}

static void pointer_chase(void)
{
	enum { N = 1 << 16 };
	static uint32_t next[N];
	uint32_t at = 0;

	for (uint32_t i = 0; i < N; i++)
		next[i] = (i * 40503u + 12345u) & (N - 1);
	for (int i = 0; i < 5000000; i++)
		at = next[at];
	sink = at;
}

/* A loop of a little stack machine: dispatch through a switch. */
static void bytecode(void)
{
	enum { PUSH, ADD, DUP, XOR, DEC, JNZ, END };
	static const uint8_t code[] = { DUP, ADD, PUSH, 7, XOR, DEC, JNZ, 0, END };
	uint64_t acc = 1, n = 3000000;
	const uint8_t *pc = code;

	for (;;) {
		switch (*pc++) {
		case PUSH: acc += *pc++; break;
		case ADD: acc += acc >> 3; break;
		case DUP: acc ^= acc << 1; break;
		case XOR: acc ^= n; break;
		case DEC: n--; break;
		case JNZ:
			pc = n ? code + *pc : pc + 1;
			break;
		case END: sink = acc; return;
		}
	}
}

static __attribute__((noinline)) unsigned fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static void recursion(void)
{
	sink = fib(32);
}

static void copy(void)
{
	static char a[1 << 20], b[1 << 20];

	for (int i = 0; i < 400; i++) {
		memcpy(b, a, sizeof(a));
		__asm__ volatile("" : : "r"(b) : "memory");
	}
}

static void square_root_sine(void)
{
	double s = 0;

	for (int i = 1; i < 1000000; i++)
		s += sqrt(i) * sin(i);
	sink = (uint64_t)(int64_t)s;
}

static void getppid_calls(void)
{
	for (int i = 0; i < 200000; i++)
		syscall(SYS_getppid);
}

static void fork_wait(void)
{
	for (int i = 0; i < 200; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}

static void fork_exec(void)
{
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			execl("/proc/self/exe", "cpu_rows", "exit", NULL);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
	}
}

static void page_faults(void)
{
	enum { PAGES = 20000 };
	char *p = mmap(NULL, PAGES * 4096ul, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, PAGES * 4096ul, MADV_NOHUGEPAGE);
	for (int i = 0; i < PAGES; i++)
		p[i * 4096ul] = 1;
	munmap(p, PAGES * 4096ul);
}

static void context_switches(void)
{
	int a[2], b[2];
	char c = 0;
	pid_t pid;

	if (pipe(a) || pipe(b))
		return;
	pid = fork();
	if (pid == 0) {
		while (read(a[0], &c, 1) == 1 && c != 'q')
			if (write(b[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	for (int i = 0; i < 10000; i++)
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			break;
	c = 'q';
	if (write(a[1], &c, 1) == 1)
		waitpid(pid, NULL, 0);
	close(a[0]); close(a[1]); close(b[0]); close(b[1]);
}

static const struct row {
	const char *name;
	void (*run)(void);
} rows[] = {
	{ "integer-loop", integer_loop }, { "sieve", sieve },
	{ "quicksort", quicksort }, { "pointer-chase", pointer_chase },
	{ "bytecode", bytecode }, { "recursion", recursion },
	{ "matrix-double", matrix }, { "sqrt-sin", square_root_sine },
	{ "memcpy", copy }, { "getppid", getppid_calls },
	{ "fork+wait", fork_wait }, { "fork+exec", fork_exec },
	{ "page-faults", page_faults }, { "context-switch", context_switches },
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "exit"))
		return 0;
	if (getpid() == 1) {
		mkdir("/proc", 0755);
		mount("proc", "/proc", "proc", 0, NULL);
	}
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		double best = 1e18;

		for (int k = 0; k < 3; k++) {
			double start = now(), took;

			rows[i].run();
			took = now() - start;
			best = took < best ? took : best;
		}
		printf("row %s %.0f\n", rows[i].name, best);
		fflush(stdout);
	}
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 0;
}
