// SPDX-License-Identifier: MIT
/*
 * storm.c - work on integers, x87, SSE and AVX, flags and strings, that must come out the
 * same each time while a timer's handler, on a stack of its own, destroys all of that;
 * then with other threads and processes on the CPU besides.
 */
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile unsigned nr_signals;
static volatile int bad_entry;

static void on_alarm(int sig, siginfo_t *info, void *arg)
{
	uint64_t flags;
	uint16_t fcw;
	uint32_t mxcsr;

	(void)sig; (void)info; (void)arg;
	__asm__ volatile("pushfq\n pop %0\n fnstcw %1\n stmxcsr %2" : "=r" (flags), "=m" (fcw), "=m" (mxcsr));
	if (flags & 0x400 || fcw != 0x37f || (mxcsr & ~0x3fu) != 0x1f80)
		bad_entry = 1;
	__asm__ volatile("fninit\n fldpi\n fldl2e\n vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n"
			 "vmovdqa %%ymm0, %%ymm3\n vmovdqa %%ymm0, %%ymm7\n vmovdqa %%ymm0, %%ymm12\n"
			 "vzeroall\n vpcmpeqd %%xmm9, %%xmm9, %%xmm9\n stc\n" : : :
			 "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
			 "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");
	nr_signals++;
}

static uint64_t work(void)
{
	static __thread uint64_t buf[512], to[512];
	uint64_t h = 1, carry = 0;
	long double x = 1;
	double d = 1;
	__m256i v = _mm256_set1_epi32(0x1234567), sum = _mm256_setzero_si256();
	uint64_t lanes[4];

	for (uint64_t k = 0; k < 20000; k++) {
		uint64_t t;

		__asm__ volatile("add %3, %0\n adc %4, %1\n setc %b2\n movzbl %b2, %k2\n rcl $7, %0\n sbb %2, %1\n"
			: "+r" (h), "+r" (carry), "=&q" (t) : "r" (k * 0x9e3779b97f4a7c15ul), "r" (h) : "cc");
		x = x * 1.0000001L + k / 3.0L;
		d = d * 0.999 + (double)k / 7;
		v = _mm256_add_epi32(_mm256_slli_epi32(v, 1), _mm256_xor_si256(v, sum));
		sum = _mm256_add_epi64(sum, _mm256_mul_epu32(v, v));
		if (k % 64 == 0) {
			uint64_t *s = buf + 511, *e = to + 511, n = 512;

			buf[k / 64 & 511] = h;
			__asm__ volatile("std\n rep movsq\n cld" : "+S" (s), "+D" (e), "+c" (n) : : "memory");
			h ^= to[(k / 64 * 7) & 511];
		}
	}
	_mm256_storeu_si256((__m256i *)(void *)lanes, sum);
	memset(buf, 0, sizeof(buf));
	return h ^ carry ^ (uint64_t)(int64_t)(x * 1000) ^ (uint64_t)(d * 1e6) ^ lanes[0] ^ lanes[1] * 3 ^ lanes[3];
}

static void *thread(void *arg)
{
	for (int k = 0; k < 60; k++)
		if (work() != *(uint64_t *)arg)
			return arg;
	return NULL;
}

int main(void)
{
	struct sigaction sa = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct itimerval tv = { .it_interval.tv_usec = 150, .it_value.tv_usec = 150 };
	stack_t ss = { .ss_sp = malloc(65536), .ss_size = 65536 };
	uint64_t right = work();
	pthread_t id[4];
	int wrong = 0, status;

	printf("work %016lx\n", right);
	fflush(stdout);
	sigaltstack(&ss, NULL);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &tv, NULL);
	for (int k = 0; k < 300 || nr_signals < 2000; k++)
		wrong += work() != right;
	printf("under signals: %d wrong, entry %s\n", wrong, bad_entry ? "wrong" : "right");
	memset(&tv, 0, sizeof(tv));
	setitimer(ITIMER_REAL, &tv, NULL);
	for (int k = 0; k < 4; k++)
		pthread_create(&id[k], NULL, thread, &right);
	for (int k = 0; k < 200; k++) {
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (pid == 0)
			_exit(work() != right);
		waitpid(pid, &status, 0);
		wrong += status != 0;
	}
	for (int k = 0; k < 4; k++) {
		void *r;

		pthread_join(id[k], &r);
		wrong += r != NULL;
	}
	printf("beside others: %d wrong\n", wrong);
	fprintf(stderr, "%u signals\n", nr_signals);
	return wrong || bad_entry;
}
