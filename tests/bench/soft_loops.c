// SPDX-License-Identifier: MIT
/* soft_loops.c - guest instructions a second on small loops; prints a table. */
#include <stdio.h>
#include <time.h>

#include "tests/lib/softbox.h"

GUEST(loop_alu, "mov $50000000, %ecx\n1: add %rcx, %rax; xor %rax, %rbx; lea (%rbx,%rax,2), %rdx\n"
		"dec %ecx; jnz 1b; hlt");
GUEST(loop_mem, "mov $0x300000, %esi; mov $20000000, %ecx\n1: mov (%rsi), %rax; add $3, %rax\n"
		"mov %rax, (%rsi); add %eax, 8(%rsi); dec %ecx; jnz 1b; hlt");
GUEST(loop_call, "mov $20000000, %ecx\n1: call 2f; dec %ecx; jnz 1b; hlt\n2: push %rbp; mov %rsp, %rbp\n"
		 "pop %rbp; ret");
GUEST(loop_indirect, "mov $20000000, %ecx; lea 2f(%rip), %rbx\n1: jmp *%rbx\n2: dec %ecx; jnz 1b; hlt");
GUEST(loop_sse, "mov $20000000, %ecx\n1: mulsd %xmm1, %xmm0; addsd %xmm2, %xmm0; dec %ecx; jnz 1b; hlt");

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void bench(struct box *b, const char *name, const uint8_t *begin, const uint8_t *end)
{
	double t;
	uint64_t n;

	box_load(b, begin, end);
	n = b->cpu->icount;
	t = now();
	box_go(b);
	t = now() - t;
	n = b->cpu->icount - n;
	printf("%-10s %7.1f million instructions/s\n", name, (double)n / t / 1e6);
}

int main(void)
{
	struct box b;

	box_init(&b);
	bench(&b, "alu", loop_alu_begin, loop_alu_end);
	bench(&b, "memory", loop_mem_begin, loop_mem_end);
	bench(&b, "call", loop_call_begin, loop_call_end);
	bench(&b, "indirect", loop_indirect_begin, loop_indirect_end);
	bench(&b, "sse", loop_sse_begin, loop_sse_end);
	box_done(&b);
	return 0;
}
