// SPDX-License-Identifier: MIT
/*
 * native.c - the hardware oracle: runs code on the real CPU under full control of
 * its registers.
 *
 * Entry saves our own registers in a context page at a fixed low address,
 * loads x87, SSE and AVX state with XRSTOR, then flags and all sixteen GPRs, and
 * jumps.  The sequence ends by jumping to SEQ_EXIT, which leads back into the
 * exit half below, or by a fault: then a signal handler on its own stack takes
 * the interrupted state out of the signal frame, whose trap number, error
 * code and CR2 are the hardware's own, and resumes behind the exit half.
 *
 * The code pages are written through a second mapping of the same memfd.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/lib/native.h"

#define CTX 0x5a5a0000u
#define PAGE 4096u
#define CTX_STR "0x5a5a0000"

/* Offsets are used by the assembly below. */
struct native_ctx {
	uint64_t gpr[16];		/* 0 */
	uint64_t rip, rflags;		/* 128 136 */
	uint64_t out_gpr[16];		/* 144 */
	uint64_t out_rflags;		/* 272 */
	uint64_t host_rsp;		/* 280 */
	uint32_t host_mxcsr;		/* 288 */
	uint16_t host_fcw;		/* 292 */
	uint16_t running;		/* 294 */
	uint64_t exit;			/* 296: where SEQ_EXIT leads */
	uint64_t pad[2];
	uint8_t in[SEQ_XSAVE];		/* 320 */
	uint8_t out[SEQ_XSAVE];		/* 1152 */
	int vector;
	uint32_t error;
	uint64_t cr2, out_rip;
	struct sigaction old[6];
};

_Static_assert(offsetof(struct native_ctx, out_rflags) == 272, "");
_Static_assert(offsetof(struct native_ctx, running) == 294, "");
_Static_assert(offsetof(struct native_ctx, in) == 320, "");
_Static_assert(offsetof(struct native_ctx, out) == 1152, "");

struct native {
	uint8_t *code;			/* writable view */
	int fd;
	void *stack;
	bool armed;			/* signal handlers are in place */
	stack_t old_stack;
	uint8_t last_code[SEQ_CODE_SIZE];
};

static const int signals[6] = {
	SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS,
};

static struct native_ctx *ctx(void)
{
	return (struct native_ctx *)(uintptr_t)CTX;
}

void native_enter(void);
void native_exit(void);
void native_resume(void);

asm(".text\n"
    ".globl native_enter, native_exit, native_resume\n"
    "native_enter:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	mov %rsp, " CTX_STR "+280\n"
    "	stmxcsr " CTX_STR "+288\n"
    "	fnstcw " CTX_STR "+292\n"
    "	mov $7, %eax; xor %edx, %edx\n"
    "	xrstor64 " CTX_STR "+320\n"
    "	mov " CTX_STR "+8, %rcx;   mov " CTX_STR "+16, %rdx\n"
    "	mov " CTX_STR "+24, %rbx;  mov " CTX_STR "+40, %rbp\n"
    "	mov " CTX_STR "+48, %rsi;  mov " CTX_STR "+56, %rdi\n"
    "	mov " CTX_STR "+64, %r8;   mov " CTX_STR "+72, %r9\n"
    "	mov " CTX_STR "+80, %r10;  mov " CTX_STR "+88, %r11\n"
    "	mov " CTX_STR "+96, %r12;  mov " CTX_STR "+104, %r13\n"
    "	mov " CTX_STR "+112, %r14; mov " CTX_STR "+120, %r15\n"
    "	mov " CTX_STR "+0, %rax\n"
    "	pushq " CTX_STR "+136; popfq\n"
    "	mov " CTX_STR "+32, %rsp\n"
    "	jmp *" CTX_STR "+128\n"
    "native_exit:\n"
    "	mov %rax, " CTX_STR "+144; mov %rcx, " CTX_STR "+152\n"
    "	mov %rdx, " CTX_STR "+160; mov %rbx, " CTX_STR "+168\n"
    "	mov %rsp, " CTX_STR "+176; mov %rbp, " CTX_STR "+184\n"
    "	mov %rsi, " CTX_STR "+192; mov %rdi, " CTX_STR "+200\n"
    "	mov %r8, " CTX_STR "+208;  mov %r9, " CTX_STR "+216\n"
    "	mov %r10, " CTX_STR "+224; mov %r11, " CTX_STR "+232\n"
    "	mov %r12, " CTX_STR "+240; mov %r13, " CTX_STR "+248\n"
    "	mov %r14, " CTX_STR "+256; mov %r15, " CTX_STR "+264\n"
    "	mov " CTX_STR "+280, %rsp\n"
    "	pushfq; popq " CTX_STR "+272\n"
    "	mov $7, %eax; xor %edx, %edx\n"
    "	xsave64 " CTX_STR "+1152\n"
    "native_resume:\n"
    "	pushq $0x202; popfq\n"
    "	fninit\n"
    "	fldcw " CTX_STR "+292\n"
    "	ldmxcsr " CTX_STR "+288\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n");

/* Where ucontext keeps each GPR, in encoding order. */
static const int greg_of[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* Not ours: to who had the signal before, an engine under test perhaps. */
static void before(const struct native_ctx *c, int sig, siginfo_t *si, void *arg)
{
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		if (signals[i] == sig && c->old[i].sa_flags & SA_SIGINFO) {
			c->old[i].sa_sigaction(sig, si, arg);
			return;
		}
	signal(sig, SIG_DFL);
}

static void on_fault(int sig, siginfo_t *si, void *arg)
{
	struct native_ctx *c = ctx();
	ucontext_t *uc = arg;
	greg_t *g = uc->uc_mcontext.gregs;

	if (!c->running) {
		before(c, sig, si, arg);
		return;
	}
	for (int i = 0; i < 16; i++)
		c->out_gpr[i] = g[greg_of[i]];
	c->out_rip = g[REG_RIP];
	c->out_rflags = g[REG_EFL];
	c->vector = g[REG_TRAPNO];
	c->error = g[REG_ERR];
	c->cr2 = g[REG_CR2];
	memcpy(c->out, uc->uc_mcontext.fpregs, SEQ_XSAVE);
	g[REG_RIP] = (uintptr_t)native_resume;
	g[REG_RSP] = c->host_rsp;
	g[REG_EFL] = 0x202;
}

static bool map_at(uintptr_t at, size_t len, int prot, int fd, off_t off)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	return mmap((void *)at, len, prot, flags | MAP_FIXED_NOREPLACE, fd, off) ==
	       (void *)at;
}

static bool map_all(struct native *n)
{
	static const uint8_t jmp_exit[] = { 0xff, 0x24, 0x25 };
	const uint32_t slot = CTX + offsetof(struct native_ctx, exit);
	const size_t len = SEQ_CODE_SIZE + PAGE;

	n->fd = memfd_create("seq", MFD_CLOEXEC);
	if (n->fd < 0 || ftruncate(n->fd, len))
		return false;
	n->code = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, n->fd, 0);
	if (n->code == MAP_FAILED)
		return false;
	if (!map_at(SEQ_CODE, SEQ_CODE_SIZE, PROT_READ | PROT_EXEC, n->fd, 0) ||
	    !map_at(SEQ_EXIT, PAGE, PROT_READ | PROT_EXEC, n->fd, SEQ_CODE_SIZE) ||
	    !map_at(SEQ_DATA, SEQ_DATA_SIZE, PROT_READ | PROT_WRITE, -1, 0) ||
	    !map_at(CTX, PAGE, PROT_READ | PROT_WRITE, -1, 0))
		return false;
	memset(n->code, 0xcc, len);
	memcpy(n->code + SEQ_CODE_SIZE, jmp_exit, sizeof(jmp_exit));
	memcpy(n->code + SEQ_CODE_SIZE + 3, &slot, 4);
	ctx()->exit = (uintptr_t)native_exit;
	return true;
}

struct native *native_new(void)
{
	struct native *n = calloc(1, sizeof(*n));
	struct sigaction sa = { .sa_sigaction = on_fault,
				.sa_flags = SA_SIGINFO | SA_ONSTACK };

	if (!n)
		return NULL;
	n->fd = -1;
	n->stack = malloc(1 << 16);
	if (!n->stack || !map_all(n)) {
		native_free(n);
		return NULL;
	}
	stack_t st = { .ss_sp = n->stack, .ss_size = 1 << 16 };

	sigaltstack(&st, &n->old_stack);
	n->armed = true;
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		sigaction(signals[i], &sa, &ctx()->old[i]);
	return n;
}

void native_free(struct native *n)
{
	const size_t len = SEQ_CODE_SIZE + PAGE;

	if (!n)
		return;
	if (n->armed) {
		for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
			sigaction(signals[i], &ctx()->old[i], NULL);
		sigaltstack(&n->old_stack, NULL);
	}
	if (n->code && n->code != MAP_FAILED) {
		munmap(n->code, len);
		munmap((void *)(uintptr_t)SEQ_CODE, SEQ_CODE_SIZE);
		munmap((void *)(uintptr_t)SEQ_EXIT, PAGE);
		munmap((void *)(uintptr_t)SEQ_DATA, SEQ_DATA_SIZE);
		munmap((void *)(uintptr_t)CTX, PAGE);
	}
	if (n->fd >= 0)
		close(n->fd);
	free(n->stack);
	free(n);
}

void native_run(struct native *n, const struct seq_in *in, struct seq_out *out)
{
	struct native_ctx *c = ctx();

	if (memcmp(n->last_code, in->code, SEQ_CODE_SIZE)) {
		memcpy(n->code, in->code, SEQ_CODE_SIZE);
		memcpy(n->last_code, in->code, SEQ_CODE_SIZE);
	}
	memcpy((void *)(uintptr_t)SEQ_DATA, in->data, SEQ_DATA_SIZE);
	memcpy(c->gpr, in->gpr, sizeof(c->gpr));
	memcpy(c->in, in->xsave, SEQ_XSAVE);
	memset(c->out + 512, 0, 64);
	c->rip = in->rip;
	c->rflags = in->rflags;
	c->vector = -1;
	c->error = 0;
	c->cr2 = 0;
	c->out_rip = SEQ_EXIT;
	c->running = 1;
	native_enter();
	c->running = 0;

	memcpy(out->gpr, c->out_gpr, sizeof(out->gpr));
	out->rip = c->out_rip;
	out->rflags = c->out_rflags & ~0x10000ull;	/* RF: of the signal frame */
	out->vector = c->vector;
	out->error = vector_has_error(c->vector) ? c->error : 0;
	out->cr2 = c->vector == 14 ? c->cr2 : 0;
	memcpy(out->xsave, c->out, SEQ_XSAVE);
	seq_xsave_normalise(out->xsave);
	memcpy(out->data, (void *)(uintptr_t)SEQ_DATA, SEQ_DATA_SIZE);
}

bool vector_has_error(int vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

void seq_xsave_normalise(uint8_t x[SEQ_XSAVE])
{
	uint64_t bv;

	memcpy(&bv, x + 512, 8);
	if (!(bv & 1)) {
		memset(x, 0, 24);
		memset(x + 32, 0, 128);
		x[0] = 0x7f;
		x[1] = 0x03;
	}
	if (!(bv & 2))
		memset(x + 160, 0, 256);
	if (!(bv & 4))
		memset(x + 576, 0, 256);
	/* FOP, FIP, FDP, MXCSR_MASK, high part of each ST slot, unused bytes */
	memset(x + 5, 0, 19);
	memset(x + 28, 0, 4);
	for (int i = 0; i < 8; i++)
		memset(x + 32 + 16 * i + 10, 0, 6);
	memset(x + 416, 0, 160);
	x[512] = 7;
}
