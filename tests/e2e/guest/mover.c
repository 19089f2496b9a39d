// SPDX-License-Identifier: MIT
/*
 * mover.c - a guest program whose state lives where a move between CPU backends may
 * lose it: x87 and vector registers with odd control words, timers, open files.
 *
 *	mover FILE
 *
 * Every round loads all x87, XMM and YMM registers, spends its time in one loop
 * over them, and compares them with what integer arithmetic says.  The loop uses
 * no memory, so a snapshot finds the values in registers and nowhere else.
 * FILE gets the number of rounds so far; a difference ends the program with
 * "wrong: …" in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define TURNS	  2000000ull
#define TICK_NS	  10000000ull
#define LATE_NS	  500000000ull		/* of the timer, on a loaded host */
#define X87_START 0x4000000000000001ull	/* its low bit is lost at 53 bits of mantissa */
#define X87_WORD  0x0f7f		/* 64 bits, towards zero, all masked */
#define SSE_WORD  0x5f80		/* upwards, all masked */

struct vectors {
	uint64_t ymm[16][4];
	uint64_t step[4];
} __attribute__((aligned(32)));

static int out;

static void say(const char *fmt, ...)
{
	char text[200];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (pwrite(out, text, n, 0) != n)	/* over the last: never empty */
		exit(2);
}

static void wrong(const char *what, uint64_t got, uint64_t wanted)
{
	say("wrong: %s is %#llx, not %#llx\n", what, (unsigned long long)got,
	    (unsigned long long)wanted);
	exit(1);
}

static void check(const char *what, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		wrong(what, got, wanted);
}

/*
 * Register 15 is the step of all; st(1) the step of st(0), above six that wait.
 * The same in 256 and in 128 bits: a kernel that found no usable XSAVE, as guests of
 * QEMU's emulated SVM do, has no AVX.
 */
#define ALL(m, to) \
	m(0, to) m(1, to) m(2, to) m(3, to) m(4, to) m(5, to) m(6, to) m(7, to) \
	m(8, to) m(9, to) m(10, to) m(11, to) m(12, to) m(13, to) m(14, to)
#define LOAD(n, r)  "movdqa 32*" #n "(%1), %%" r #n "\n"
#define STORE(n, r) "movdqa %%" r #n ", 32*" #n "(%1)\n"
#define VLOAD(n, r) "v" LOAD(n, r)
#define VSTORE(n, r) "v" STORE(n, r)
#define X87_LOAD "fldt 112(%2)\n fldt 96(%2)\n fldt 80(%2)\n fldt 64(%2)\n" \
		 "fldt 48(%2)\n fldt 32(%2)\n fldt 16(%2)\n fldt (%2)\n"
#define X87_STORE "fstpt (%2)\n fstpt 16(%2)\n fstpt 32(%2)\n fstpt 48(%2)\n" \
		  "fstpt 64(%2)\n fstpt 80(%2)\n fstpt 96(%2)\n fstpt 112(%2)\n"
#define CLOBBERS "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
		 "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", \
		 "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", \
		 "st(7)"

static void churn_avx(struct vectors *v, long double *x)
{
	uint64_t n = TURNS;

	__asm__ volatile(X87_LOAD ALL(VLOAD, "ymm")
		"vmovdqa 512(%1), %%ymm15\n"
		"1: fadd %%st(1), %%st\n"
		"vpaddq %%ymm15, %%ymm0, %%ymm0\n vpaddq %%ymm15, %%ymm3, %%ymm3\n"
		"vpaddq %%ymm15, %%ymm7, %%ymm7\n vpaddq %%ymm15, %%ymm14, %%ymm14\n"
		"dec %0\n jnz 1b\n"
		ALL(VSTORE, "ymm") "vmovdqa %%ymm15, 480(%1)\n" X87_STORE "vzeroupper\n"
		: "+r"(n) : "r"(v), "r"(x) : CLOBBERS);
}

static void churn_sse(struct vectors *v, long double *x)
{
	uint64_t n = TURNS;

	__asm__ volatile(X87_LOAD ALL(LOAD, "xmm")
		"movdqa 512(%1), %%xmm15\n"
		"1: fadd %%st(1), %%st\n"
		"paddq %%xmm15, %%xmm0\n paddq %%xmm15, %%xmm3\n"
		"paddq %%xmm15, %%xmm7\n paddq %%xmm15, %%xmm14\n"
		"dec %0\n jnz 1b\n"
		ALL(STORE, "xmm") "movdqa %%xmm15, 480(%1)\n" X87_STORE
		: "+r"(n) : "r"(v), "r"(x) : CLOBBERS);
}

static unsigned lanes;		/* of 64 bits: 4 with AVX, 2 without */

static uint64_t fill(unsigned reg, unsigned lane, uint64_t round)
{
	return (round << 32 | reg << 8 | lane) * 0x9e3779b97f4a7c15ull;
}

/* Registers that the loop adds to; the others must stay what they were. */
static int moves(unsigned reg)
{
	return reg == 0 || reg == 3 || reg == 7 || reg == 14;
}

static void vectors_right(const struct vectors *v, uint64_t round)
{
	for (unsigned i = 0; i < 15; i++)
		for (unsigned l = 0; l < lanes; l++)
			check("a vector register", v->ymm[i][l], fill(i, l, round) +
			      (moves(i) ? TURNS * v->step[l] : 0));
	for (unsigned l = 0; l < lanes; l++)
		check("register 15", v->ymm[15][l], v->step[l]);
}

static void x87_right(const long double *x, uint64_t round)
{
	check("st(0)", (uint64_t)x[0], X87_START + 2 * TURNS);
	check("st(1)", (uint64_t)x[1], 2);
	for (unsigned i = 2; i < 8; i++)
		check("an x87 register", (uint64_t)x[i], X87_START + i * round);
}

static void control_right(void)
{
	uint16_t fcw = 0;
	uint32_t mxcsr = 0;

	__asm__ volatile("fnstcw %0\n stmxcsr %1" : "=m"(fcw), "=m"(mxcsr));
	check("the x87 control word", fcw, X87_WORD);
	check("MXCSR", mxcsr & ~0x3fu, SSE_WORD);
}

static void compute(uint64_t round)
{
	struct vectors v;
	long double x[8] = { X87_START, 2 };

	for (unsigned i = 0; i < 16; i++)
		for (unsigned l = 0; l < 4; l++)
			v.ymm[i][l] = fill(i, l, round);
	for (unsigned l = 0; l < 4; l++)
		v.step[l] = fill(99, l, round);
	for (unsigned i = 2; i < 8; i++)
		x[i] = X87_START + i * round;
	if (lanes == 4)
		churn_avx(&v, x);
	else
		churn_sse(&v, x);
	vectors_right(&v, round);
	x87_right(x, round);
	control_right();
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A timer that has gone off as often as time has passed since it was set. */
struct ticker {
	int fd;
	uint64_t begun, seen, last;
};

static void ticker_start(struct ticker *t)
{
	const struct itimerspec every = { { 0, TICK_NS }, { 0, TICK_NS } };

	t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	t->begun = t->last = now_ns();
	t->seen = 0;
	if (t->fd < 0 || timerfd_settime(t->fd, 0, &every, NULL))
		exit(2);
}

static void ticker_check(struct ticker *t)
{
	uint64_t n = 0, now;

	if (read(t->fd, &n, sizeof(n)) != sizeof(n) && errno != EAGAIN)
		wrong("reading a timer", errno, 0);
	t->seen += n;
	now = now_ns();
	if (now < t->last)
		wrong("monotonic time", now, t->last);
	t->last = now;
	if (t->seen * TICK_NS > now - t->begun ||
	    t->seen * TICK_NS + LATE_NS < now - t->begun)
		wrong("the timer's count", t->seen, (now - t->begun) / TICK_NS);
}

/* A file without a name: nobody but its descriptor remembers it. */
static int hidden_file(void)
{
	int fd = open("/root/hidden", O_RDWR | O_CREAT | O_TRUNC, 0600);

	for (uint64_t i = 0; i < 4096; i++)
		if (write(fd, &i, sizeof(i)) != sizeof(i))
			exit(2);
	unlink("/root/hidden");
	return fd;
}

static void hidden_check(int fd, uint64_t round)
{
	uint64_t got = 0;

	if (pread(fd, &got, sizeof(got), (off_t)(round % 4096 * 8)) != sizeof(got))
		wrong("a read of an open file", errno, 0);
	check("an open file", got, round % 4096);
}

int main(int argc, char **argv)
{
	static const uint16_t fcw = X87_WORD;
	static const uint32_t mxcsr = SSE_WORD;
	struct ticker ticker;
	int hidden;

	lanes = __builtin_cpu_supports("avx") ? 4 : 2;
	out = open(argc == 2 ? argv[1] : "", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (out < 0)
		return 2;
	hidden = hidden_file();
	__asm__ volatile("fldcw %0\n ldmxcsr %1" : : "m"(fcw), "m"(mxcsr));
	ticker_start(&ticker);
	for (uint64_t round = 1;; round++) {
		compute(round);
		ticker_check(&ticker);
		hidden_check(hidden, round);
		say("%-16llu\n", (unsigned long long)round);
	}
}
