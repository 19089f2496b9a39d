// SPDX-License-Identifier: MIT
/*
 * cpu_rows.c - what a CPU is slow at, one row each:
 *
 *	row NAME CLASS MICROSECONDS CHECK
 *
 * One static program, run natively and as the init of a guest (where it powers
 * off at the end), so that every column of the table runs the very same code.
 * Rows of class "program" run the host's own programs, which the guest finds
 * at the same paths.  The best of three counts; CHECK is what the row has
 * computed, and differs where a CPU computes wrongly.  The environment's ROWS, a
 * list of names or classes with commas, chooses.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
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

/* tests/bench/cpu divides by the first two */
enum { SYSTEM_CALLS = 200000, FAULTS = 20000, DATA_SIZE = 3 << 20 };

static uint64_t integer_loop(void)
{
	uint64_t a = 1, b = 2;

	for (int i = 0; i < 20000000; i++) {
		a = a * 6364136223846793005ull + b;
		b ^= a >> 33;
	}
	return a + b;
}

static uint64_t sieve(void)
{
	enum { N = 2000000 };
	static uint8_t composite[N];
	uint64_t primes = 0;

	memset(composite, 0, N);
	for (unsigned i = 2; i * i < N; i++)
		for (unsigned j = composite[i] ? N : i * i; j < N; j += i)
			composite[j] = 1;
	for (unsigned i = 2; i < N; i++)
		primes += !composite[i];
	return primes;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t quicksort(void)
{
	enum { N = 150000 };
	static uint32_t v[N];
	uint32_t r = 1;

	for (int i = 0; i < N; i++)
		v[i] = r = r * 1664525 + 1013904223;
	qsort(v, N, sizeof(*v), compare);
	for (int i = 0; i < N; i++)
		r = r * 31 + v[i];
	return r;
}

static uint64_t matrix(void)
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
	return (uint64_t)c[N / 2][N / 3];
}

static uint64_t pointer_chase(void)
{
	enum { N = 1 << 16 };
	static uint32_t next[N];
	uint32_t at = 0;

	for (uint32_t i = 0; i < N; i++)
		next[i] = (i * 40503u + 12345u) & (N - 1);
	for (int i = 0; i < 5000000; i++)
		at = next[at];
	return at;
}

/* A loop of a little stack machine: dispatch through a switch. */
static uint64_t bytecode(void)
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
		case END: return acc;
		}
	}
}

static __attribute__((noinline)) unsigned fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t recursion(void)
{
	return fib(32);
}

static uint64_t copy(void)
{
	static char a[1 << 20], b[1 << 20];

	for (size_t i = 0; i < sizeof(a); i++)
		a[i] = (char)(i * 7);
	for (int i = 0; i < 400; i++) {
		memcpy(b, a, sizeof(a));
		__asm__ volatile("" : : "r"(b) : "memory");
	}
	return memcmp(a, b, sizeof(a)) == 0;
}

static uint64_t square_root_sine(void)
{
	double s = 0;

	for (int i = 1; i < 1000000; i++)
		s += sqrt(i) * sin(i);
	return (uint64_t)(int64_t)s;
}

static uint64_t getppid_calls(void)
{
	uint64_t same = 0;
	long first = syscall(SYS_getppid);

	for (int i = 0; i < SYSTEM_CALLS; i++)
		same += syscall(SYS_getppid) == first;
	return same;
}

/* The child's exit status, or -1. */
static int reap(pid_t pid)
{
	int st;

	return waitpid(pid, &st, 0) == pid && WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

static uint64_t fork_wait(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 200; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(i);
		sum += (uint64_t)reap(pid);
	}
	return sum;
}

static uint64_t fork_exec(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			execl("/proc/self/exe", "cpu_rows", "exit", NULL);
			_exit(127);
		}
		sum += (uint64_t)reap(pid);
	}
	return sum;
}

static uint64_t page_faults(void)
{
	char *p = mmap(NULL, FAULTS * 4096ul, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t zero = 0;

	madvise(p, FAULTS * 4096ul, MADV_NOHUGEPAGE);
	for (int i = 0; i < FAULTS; i++) {
		zero += p[i * 4096ul + 1] == 0;
		p[i * 4096ul] = 1;
	}
	munmap(p, FAULTS * 4096ul);
	return zero;
}

static uint64_t context_switches(void)
{
	int a[2], b[2];
	char c = 0;
	pid_t pid;

	if (pipe(a) || pipe(b))
		return 0;
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
	if (write(a[1], &c, 1) != 1)
		return 0;
	close(a[0]); close(a[1]); close(b[0]); close(b[1]);
	return reap(pid) == 0;
}

/* --- the host's programs -------------------------------------------------------- */

/* FNV-1a; 0 for a file that is not there. */
static uint64_t file_hash(const char *path)
{
	uint64_t h = 0xcbf29ce484222325;
	FILE *f = fopen(path, "r");
	int c;

	if (!f)
		return 0;
	while ((c = getc_unlocked(f)) != EOF)
		h = (h ^ (uint8_t)c) * 0x100000001b3;
	fclose(f);
	return h;
}

/* Words, lines and numbers that compress about as prose does. */
static void make_data(void)
{
	FILE *f = fopen("data", "w");
	uint32_t r = 1;

	for (size_t n = 0; f && n < DATA_SIZE;) {
		char word[32];
		uint32_t w;
		int len;

		r = r * 1664525 + 1013904223;
		w = r >> 18;
		w = w % (1 + w % 4096);		/* small ones are common */
		len = snprintf(word, sizeof(word), w % 7 ? "w%xord%c" : "%u%c",
			       w * 2654435761u >> 12, r >> 8 & 15 ? ' ' : '\n');
		fwrite(word, 1, (size_t)len, f);
		n += (size_t)len;
	}
	if (f)
		fclose(f);
}

/* argv's output, in file "out", as a number; 0 when it fails. */
static uint64_t program(const char *const *argv)
{
	static const char *const env[] = { "PATH=/usr/bin:/bin", "LC_ALL=C",
					   "TMPDIR=.", NULL };
	pid_t pid;

	unlink("out");
	pid = fork();
	if (pid == 0) {
		int fd = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0644);

		dup2(fd, 1);
		execve(argv[0], (char *const *)(uintptr_t)argv,
		       (char *const *)(uintptr_t)env);
		_exit(127);
	}
	return reap(pid) ? 0 : file_hash("out");
}

#define PROGRAM(name, ...) \
	static uint64_t name(void) \
	{ \
		static const char *const argv[] = { __VA_ARGS__, NULL }; \
		return program(argv); \
	}

PROGRAM(sha256sum, "/usr/bin/sha256sum", "data", "data", "data", "data")
PROGRAM(gzip, "/usr/bin/gzip", "-6", "-n", "-c", "data")
PROGRAM(zstd, "/usr/bin/zstd", "-6", "-q", "--single-thread", "-c", "data")
PROGRAM(perl, "/usr/bin/perl", "work.pl", "data")
PROGRAM(python3, "/usr/bin/python3", "-I", "-B", "work.py", "data")
PROGRAM(node_start, "/usr/bin/node", "-p", "[3, 1, 2].sort().join('-')")
PROGRAM(gcc_compile, "/usr/bin/gcc", "-O2", "-c", "-o", "out", "cpu_rows.c")

/* As in the guest, which has one CPU. */
static void stay_on_one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* --- the table -------------------------------------------------------------------- */

static const struct row {
	const char *name, *class;
	uint64_t (*run)(void);
	const char *needs;
} rows[] = {
	{ "integer-loop", "integer", integer_loop },
	{ "sieve", "integer", sieve },
	{ "quicksort", "integer", quicksort },
	{ "pointer-chase", "integer", pointer_chase },
	{ "bytecode", "integer", bytecode },
	{ "recursion", "integer", recursion },
	{ "memcpy", "integer", copy },
	{ "matrix-double", "float", matrix },
	{ "sqrt-sin", "float", square_root_sine },
	{ "sha256sum", "program", sha256sum, "/usr/bin/sha256sum" },
	{ "gzip", "program", gzip, "/usr/bin/gzip" },
	{ "zstd", "program", zstd, "/usr/bin/zstd" },
	{ "perl", "program", perl, "/usr/bin/perl" },
	{ "python3", "program", python3, "/usr/bin/python3" },
	{ "node-start", "program", node_start, "/usr/bin/node" },
	{ "gcc-compile", "program", gcc_compile, "/usr/bin/gcc" },
	{ "getppid", "system", getppid_calls },
	{ "fork+wait", "system", fork_wait },
	{ "fork+exec", "system", fork_exec },
	{ "page-faults", "system", page_faults },
	{ "context-switch", "system", context_switches },
};

/* Is word one of the list's, which has commas in between? */
static bool in_list(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p++)
		if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
			return true;
	return false;
}

static bool wanted(const struct row *r)
{
	const char *list = getenv("ROWS");

	if (r->needs && access(r->needs, X_OK))
		return false;
	return !list || in_list(list, r->name) || in_list(list, r->class);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void measure(const struct row *r)
{
	double best = 1e18;
	uint64_t check = 0;

	for (int k = 0; k < 3; k++) {
		double start = now(), took;

		check = r->run();
		took = now() - start;
		best = took < best ? took : best;
	}
	printf("row %s %s %.0f %016llx\n", r->name, r->class, best,
	       (unsigned long long)check);
	fflush(stdout);
}

static void set_up_guest(void)
{
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mkdir("/dev", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	if (chdir("/bench"))
		puts("no programs here");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "exit"))
		return 3;
	if (getpid() == 1)
		set_up_guest();
	stay_on_one_cpu();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		if (!wanted(&rows[i]))
			continue;
		if (rows[i].needs && access("data", R_OK))
			make_data();
		measure(&rows[i]);
	}
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 0;
}
