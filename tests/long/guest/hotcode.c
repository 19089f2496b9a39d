// SPDX-License-Identifier: MIT
/*
 * hotcode.c - random programs of many blocks that run hot: hotcode SEED PROGRAMS
 *
 * Each is a few functions of arithmetic, loads and stores, branches on any
 * condition, loops, calls direct and through pointers, string instructions and
 * vectors, and runs until a translator must have taken it up.  Its memory is three
 * areas whose addresses agree in the low 32 bits, with pages that may not be
 * touched; whoever does is shown to a handler with all registers, which lets the
 * page be used or goes on behind the instruction.  In between code is changed, in
 * place and under another name, and a timer interrupts.  Programs, addresses and
 * so results are the seed's alone: a line of hash per program, the same on any CPU
 * that does the same.
 *
 * Left out: arithmetic flags that a fault shows, OF after shifts (docs/cpu.md), and what
 * was executed when a signal of the timer came.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define AREAS		3
#define AREA(n)		(0x200000000ul + (n) * 0x100000000ul)
#define AREA_SIZE	0x8000ul
#define CODE		0x700010000ul
#define CODE_SIZE	0x10000ul
#define ALIAS		0x800010000ul	/* the code's other name, writable */
#define STACK		0x900000000ul
#define FUNCS		5
#define MAX_FAULTS	1000

enum { AX, CX, DX, BX, SP, BP, SI, DI, R8, R9, R10, R11, R12, R13, R14, R15 };

static const uint8_t bases[] = { BX, BP, R12, R13, R14 };
static const uint8_t values[] = { AX, CX, DX, SI, DI, R8, R9, R10, R11, R15 };

static uint64_t seed;
static uint8_t *pc;
static uint8_t insn_len[CODE_SIZE];	/* of the instruction that begins there */
static uint32_t patch[256], nr_patch;	/* offsets of immediates, 32 bits each */
static void *func[FUNCS];
static uint64_t fault_hash;
static volatile unsigned nr_faults, nr_alarms;
static sigjmp_buf given_up;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (uint32_t)((seed >> 33) % n);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ul;
	return h ^ h >> 29;
}

static unsigned base(void) { return bases[rnd(sizeof(bases))]; }
static unsigned value(void) { return values[rnd(sizeof(values))]; }

static uint8_t *begun;
static void begin(void) { begun = pc; }
static void end(void) { insn_len[begun - (uint8_t *)CODE] = (uint8_t)(pc - begun); }
static void b(unsigned v) { *pc++ = (uint8_t)v; }
static void d(uint32_t v) { memcpy(pc, &v, 4); pc += 4; }
static void q(uint64_t v) { memcpy(pc, &v, 8); pc += 8; }

/* sizes 0 to 3: 8, 16, 32, 64 bits; then [opcode] with ModRM for two registers */
static void rex(int size, unsigned reg, unsigned index, unsigned rm)
{
	unsigned r = (size == 3) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3;

	if (r || (size == 0 && rnd(2)))
		b(0x40 | r);
}

static void op_rr(int size, int wide_op, unsigned op, unsigned reg, unsigned rm)
{
	begin();
	if (size == 1)
		b(0x66);
	rex(size, reg, 0, rm);
	if (wide_op)
		b(0x0f);
	b(op);
	b(0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* an operand in memory: near one of the base registers, now and then far */
static void op_mem(int size, int wide_op, unsigned op, unsigned reg, int indexed)
{
	unsigned bs = base();
	int disp32 = rnd(3) == 0;

	begin();
	if (size == 1)
		b(0x66);
	rex(size, reg, indexed ? DX : 0, bs);
	if (wide_op)
		b(0x0f);
	b(op);
	if (indexed || (bs & 7) == SP) {
		b((disp32 ? 0x84 : 0x44) | (reg & 7) << 3);
		b((indexed ? rnd(4) << 6 | DX << 3 : SP << 3) | (bs & 7));
	} else {
		b((disp32 ? 0x80 : 0x40) | (reg & 7) << 3 | (bs & 7));
	}
	if (disp32)
		d(rnd(0x1800) - 0xc00);
	else
		b(rnd(256));
}

static void op_either(int size, int wide_op, unsigned op, unsigned reg)
{
	if (rnd(2))
		op_mem(size, wide_op, op, reg, 0);
	else
		op_rr(size, wide_op, op, reg, value());
}

static void mask_index(void)		/* and edx, 0x7ff */
{
	begin();
	b(0x81); b(0xe2); d(rnd(2) ? 0x7f8 : 0x7ff);
	end();
}

static void arith_rr(void)
{
	int size = (int)rnd(4);

	op_rr(size, 0, rnd(8) << 3 | (rnd(2) << 1) | (size > 0), value(), value());
	end();
}

static void arith_imm(void)
{
	unsigned rm = value();

	begin();
	rex(2 + (int)rnd(2), 0, 0, rm);
	b(0x81);
	b(0xc0 | rnd(8) << 3 | (rm & 7));
	if (nr_patch < 256)
		patch[nr_patch++] = (uint32_t)(pc - (uint8_t *)CODE);
	d(rnd(4) ? rnd(0x7fffffff) * 2 : rnd(256) - 128);
	end();
}

static void arith_mem(void)
{
	int size = (int)rnd(4), indexed = rnd(3) == 0;

	if (indexed)
		mask_index();
	op_mem(size, 0, rnd(8) << 3 | rnd(2) << 1 | (size > 0), value(), indexed);
	end();
}

static void mov_mem(void)
{
	int size = (int)rnd(4), indexed = rnd(4) == 0;

	if (indexed)
		mask_index();
	op_mem(size, 0, 0x88 | rnd(2) << 1 | (size > 0), value(), indexed);
	end();
}

/* OF after a shift by more than one is anything */
static void define_flags(void)
{
	op_rr(3, 0, 0x39, value(), value());
	end();
}

static void unary(void)
{
	int size = (int)rnd(4);

	switch (rnd(5)) {
	case 0:		/* not, neg */
		op_either(size, 0, 0xf6 | (size > 0), 2 + rnd(2));
		break;
	case 1:		/* inc, dec */
		op_either(size, 0, 0xfe | (size > 0), rnd(2));
		break;
	case 2:		/* shift by cl or 1 */
		op_either(size, 0, 0xd0 | rnd(2) << 1 | (size > 0),
				       "\0\1\2\3\4\5\7"[rnd(7)]);
		end();
		define_flags();
		return;
	case 3:		/* by a constant */
		op_either(size, 0, 0xc0 | (size > 0), "\0\1\2\3\4\5\7"[rnd(7)]);
		b(rnd(70));
		end();
		define_flags();
		return;
	default:	/* setcc */
		op_either(0, 1, 0x90 | rnd(16), 0);
	}
	end();
}

static void wide_op(void)
{
	static const uint8_t op[] = { 0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0xa3, 0xab, 0xb3, 0xbb, 0xa5, 0xad, 0xc1, 0xb1 };
	unsigned o = op[rnd(sizeof(op))];
	int size = 1 + (int)rnd(3);

	if (rnd(3) == 0)
		o = 0x40 | rnd(16);	/* cmovcc */
	if (o == 0xa3 || o == 0xab || o == 0xb3 || o == 0xbb || rnd(2))
		op_rr(size, 1, o, value(), value());
	else
		op_mem(size, 1, o, value(), 0);
	end();
	if (o == 0xa5 || o == 0xad)
		define_flags();
}

static void lock_op(void)
{
	static const uint8_t op[] = { 0x01, 0x09, 0x21, 0x29, 0x31 };
	unsigned bs = base(), reg = value();

	begin();
	b(0xf0);
	rex(2 + (int)rnd(2), reg, 0, bs);
	b(op[rnd(5)]);
	b(0x80 | (reg & 7) << 3 | ((bs & 7) == SP ? SP : (bs & 7)));
	if ((bs & 7) == SP)
		b(0x24);
	d(rnd(0x1000));
	end();
}

static void move_base(void)
{
	unsigned r = base();

	begin();
	if (rnd(3)) {	/* lea base, [base + n] */
		b(0x48 | (r >> 3) << 2 | r >> 3); b(0x8d);
		b(0x80 | (r & 7) << 3 | (r & 7));
		if ((r & 7) == SP)
			b(0x24);
		d(rnd(0x900) - 0x400);
	} else {	/* mov base, address */
		b(0x48 | r >> 3); b(0xb8 | (r & 7));
		q(AREA(rnd(AREAS)) + rnd(AREA_SIZE - 64));
	}
	end();
}

static void stack_op(void)
{
	unsigned v = value();

	if (rnd(2)) {	/* push, work on it, pop */
		begin(); if (v >> 3) b(0x41); b(0x50 | (v & 7)); end();
		begin(); b(0x48); b(0x81); b(0x04 | rnd(8) << 3); b(0x24); d(rnd(1 << 30)); end();
		v = value();
		begin(); if (v >> 3) b(0x41); b(0x58 | (v & 7)); end();
	} else {	/* pushfq; and the arithmetic ones, out or back */
		begin(); b(0x9c); end();
		begin(); b(0x48); b(0x81); b(0x24); b(0x24); d(0x8d5); end();
		begin();
		if (rnd(2)) {
			b(0x9d);
		} else {
			if (v >> 3) b(0x41);
			b(0x58 | (v & 7));
		}
		end();
	}
}

static void string_op(void)
{
	unsigned k;

	for (k = 0; k < 2; k++) {	/* rsi, rdi: mov r, address */
		begin(); b(0x48); b(0xb8 | (SI + k)); q(AREA(rnd(AREAS)) + rnd(AREA_SIZE + 64)); end();
	}
	begin(); b(0xb9); d(rnd(40)); end();
	begin();
	if (rnd(4)) b(0xf2 | rnd(2));
	if (rnd(2)) b(0x48);
	b("\xa4\xa5\xaa\xab\xac\xad\xa6\xa7\xae\xaf"[rnd(10)]);
	end();
}

static void vector_op(void)
{
	unsigned bs = base(), x = rnd(8), op;

	begin();
	switch (rnd(4)) {
	case 0:		/* movdqu both ways */
		b(0xf3); if (bs >> 3) b(0x41); b(0x0f); b(0x6f | rnd(2) << 4);
		break;
	case 1:		/* vpaddd, vpxor, vpsubb ymm, ymm, [mem] */
		op = "\xfe\xef\xf8"[rnd(3)] & 0xff;
		b(0xc4); b(0xc1 | (bs < 8) << 5); b(0x05 | (~rnd(8) & 15) << 3); b(op);
		break;
	case 2:		/* cvtsi2sd xmm, [mem]; addsd */
		b(0xf2); if (bs >> 3) b(0x41); b(0x0f); b(rnd(2) ? 0x2a : 0x10);
		break;
	default:	/* movd/movq [mem], movss */
		b(0xf3); if (bs >> 3) b(0x41); b(0x0f); b(0x7e);
	}
	b(0x80 | x << 3 | (bs & 7));
	if ((bs & 7) == SP) b(0x24);
	d(rnd(0x1000));
	end();
}

static void slot(void)
{
	static void (*const kind[])(void) = {
		arith_rr, arith_rr, arith_imm, arith_imm, arith_mem, arith_mem, mov_mem, mov_mem,
		mov_mem, unary, wide_op, wide_op, move_base, stack_op, vector_op, lock_op, string_op,
	};

	kind[rnd(sizeof(kind) / sizeof(*kind))]();
}

/* straight pieces with branches forward over some of it, in a loop */
static void body(void)
{
	uint8_t *from = NULL;
	unsigned k, n = 6 + rnd(14), jumps = 0;

	for (k = 0; k < n; k++) {
		if (from && rnd(2)) {
			int32_t rel = (int32_t)(pc - from);

			memcpy(from - 4, &rel, 4);
			from = NULL;
		}
		if (!from && rnd(3) == 0 && jumps++ < 8) {
			begin(); b(0x0f); b(0x80 | rnd(16)); d(0); end();
			from = pc;
		}
		slot();
	}
	if (from) {
		int32_t rel = (int32_t)(pc - from);

		memcpy(from - 4, &rel, 4);
	}
}

static void call(void *to)
{
	switch (rnd(3)) {
	case 0:
		begin(); b(0xe8); d((uint32_t)((uint8_t *)to - pc - 4)); end();
		break;
	case 1:
		begin(); b(0x48); b(0xb8); q((uintptr_t)to); end();
		begin(); b(0xff); b(0xd0); end();
		break;
	default:	/* through a pointer in the code's page: jmp over it */
		begin(); b(0xeb); b(8); end();
		q((uintptr_t)to);
		begin(); b(0xff); b(0x15); d((uint32_t)-14); end();
	}
}

static void function(unsigned n)
{
	uint8_t *top;

	/* anywhere, so that some straddle pages */
	pc += rnd(1600);
	func[n] = pc;
	begin(); b(0x6a); b(2 + rnd(2)); end();		/* push the count */
	top = pc;
	body();
	if (n && rnd(4))
		call(func[rnd(n)]);
	body();
	begin(); b(0x48); b(0xff); b(0x0c); b(0x24); end();	/* dec qword [rsp] */
	begin(); b(0x0f); b(0x85); d((uint32_t)(top - pc - 4)); end();
	if (n && rnd(2))
		call(func[n - 1]);
	begin(); b(0x48); b(0x8d); b(0x64); b(0x24); b(8); end();
	begin(); b(0xc3); end();
}

static void generate(void)
{
	memset((void *)ALIAS, 0xcc, CODE_SIZE);
	memset(insn_len, 0, sizeof(insn_len));
	nr_patch = 0;
	pc = (uint8_t *)CODE + 64;
	for (unsigned n = 0; n < FUNCS; n++)
		function(n);
	if (pc > (uint8_t *)CODE + CODE_SIZE)
		abort();
}

static void forbid(void)
{
	for (unsigned a = 0; a < AREAS; a++) {
		unsigned p = rnd(AREA_SIZE / 4096);

		mprotect((void *)AREA(a), AREA_SIZE, PROT_READ | PROT_WRITE);
		mprotect((char *)AREA(a) + p * 4096, 4096, rnd(2) ? PROT_NONE : PROT_READ);
	}
}

static void on_fault(int sig, siginfo_t *info, void *arg)
{
	ucontext_t *uc = arg;
	greg_t *g = uc->uc_mcontext.gregs;
	uintptr_t at = (uintptr_t)g[REG_RIP], to = (uintptr_t)info->si_addr;
	unsigned len = at - CODE < CODE_SIZE ? insn_len[at - CODE] : 0;

	if (!len) {
		printf("signal %d at %#lx for %#lx\n", sig, at, to);
		fflush(stdout);
		_exit(1);
	}
	for (int r = 0; r <= REG_RIP; r++)
		fault_hash = mix(fault_hash, (uint64_t)g[r]);
	fault_hash = mix(mix(mix(fault_hash, to), (uint64_t)g[REG_ERR]), (uint64_t)(g[REG_EFL] & 0x400));
	for (int x = 0; x < 8; x++)
		fault_hash = mix(fault_hash, uc->uc_mcontext.fpregs->_xmm[x].element[x & 3]);
	if (++nr_faults >= MAX_FAULTS)
		siglongjmp(given_up, 1);
	if ((fault_hash & 3) == 0 && ((to & 0xffffffff) < AREA_SIZE && to >= AREA(0) && to < AREA(AREAS))) {
		mprotect((void *)(to & ~4095ul), 4096, PROT_READ | PROT_WRITE);
		return;		/* again */
	}
	g[REG_EFL] = (g[REG_EFL] & ~0x8d5) | (greg_t)(fault_hash & 0x8d5);
	g[REG_RIP] += len;
}

static void on_alarm(int sig, siginfo_t *info, void *arg)
{
	__asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n vmovdqa %%ymm0, %%ymm5\n"
			 "cmp $1, %0" : : "r" (sig) : "xmm0", "xmm1", "xmm5", "cc");
	nr_alarms++;
}

/* all registers from `r`, call, all registers back */
static void enter(void *fn, uint64_t *r)
{
	__asm__ volatile(
		"push %%rbx\n push %%rbp\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n"
		"mov %%rsp, %%rax\n mov %2, %%rsp\n push %%rax\n push %1\n push %0\n"
		"mov 0(%1), %%rax\n mov 8(%1), %%rcx\n mov 16(%1), %%rdx\n mov 24(%1), %%rbx\n"
		"mov 40(%1), %%rbp\n mov 56(%1), %%rdi\n mov 64(%1), %%r8\n mov 72(%1), %%r9\n"
		"mov 80(%1), %%r10\n mov 88(%1), %%r11\n mov 96(%1), %%r12\n mov 104(%1), %%r13\n"
		"mov 112(%1), %%r14\n mov 120(%1), %%r15\n mov 48(%1), %%rsi\n"
		"vpxor %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n vmovdqa %%ymm0, %%ymm2\n"
		"vmovdqa %%ymm0, %%ymm3\n vmovdqa %%ymm0, %%ymm4\n vmovdqa %%ymm0, %%ymm5\n"
		"vmovdqa %%ymm0, %%ymm6\n vmovdqa %%ymm0, %%ymm7\n vmovdqa %%ymm0, %%ymm8\n"
		"vmovdqa %%ymm0, %%ymm9\n vmovdqa %%ymm0, %%ymm10\n vmovdqa %%ymm0, %%ymm11\n"
		"vmovdqa %%ymm0, %%ymm12\n vmovdqa %%ymm0, %%ymm13\n vmovdqa %%ymm0, %%ymm14\n vmovdqa %%ymm0, %%ymm15\n"
		"cmp %%al, %%al\n call *(%%rsp)\n"
		"push %%rsi\n mov 16(%%rsp), %%rsi\n"
		"mov %%rax, 0(%%rsi)\n mov %%rcx, 8(%%rsi)\n mov %%rdx, 16(%%rsi)\n mov %%rbx, 24(%%rsi)\n"
		"mov %%rbp, 40(%%rsi)\n mov %%rdi, 56(%%rsi)\n mov %%r8, 64(%%rsi)\n mov %%r9, 72(%%rsi)\n"
		"mov %%r10, 80(%%rsi)\n mov %%r11, 88(%%rsi)\n mov %%r12, 96(%%rsi)\n mov %%r13, 104(%%rsi)\n"
		"mov %%r14, 112(%%rsi)\n mov %%r15, 120(%%rsi)\n pop %%rax\n mov %%rax, 48(%%rsi)\n"
		"vmovdqu %%ymm0, 128(%%rsi)\n vmovdqu %%ymm3, 160(%%rsi)\n vmovdqu %%ymm6, 192(%%rsi)\n"
		"pushfq\n pop 224(%%rsi)\n andq $0xcd5, 224(%%rsi)\n cld\n"
		"pop %%rax\n pop %%rax\n pop %%rsp\n"
		"pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbp\n pop %%rbx\n vzeroupper\n"
		: : "r" (fn), "S" (r), "r" (STACK + 0x8000)
		: "rax", "rcx", "rdx", "rdi", "r8", "r9", "r10", "r11", "memory", "cc",
		  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
		  "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static uint64_t program(int verbose)
{
	uint64_t r[32];
	volatile uint64_t h = 0;

	generate();
	fault_hash = nr_faults = 0;
	for (unsigned a = 0; a < AREAS; a++) {
		mprotect((void *)AREA(a), AREA_SIZE, PROT_READ | PROT_WRITE);
		for (unsigned k = 0; k < AREA_SIZE / 8; k++)
			((uint64_t *)AREA(a))[k] = mix(k, seed + a);
	}
	for (volatile unsigned round = 0; round < 40 && nr_faults < MAX_FAULTS; round++) {
		if (round % 8 == 7)
			forbid();
		if (round % 10 == 9 && nr_patch) {
			uint32_t off = patch[rnd(nr_patch)], v = rnd(0x7fffffff);

			memcpy((void *)((round & 16 ? CODE : ALIAS) + off), &v, 4);
		}
		for (unsigned k = 0; k < 16; k++)
			r[k] = mix(k, seed);
		for (unsigned k = 0; k < sizeof(bases); k++)
			r[bases[k]] = AREA(rnd(AREAS)) + rnd(AREA_SIZE - 64);
		if (sigsetjmp(given_up, 1))
			break;
		enter(func[FUNCS - 1], r);
		for (unsigned k = 0; k <= 28; k++)
			h = k == SP ? h : mix(h, r[k]);
		if (verbose)
			printf("  round %u: %016lx, %u faults %016lx\n", round, h, nr_faults, fault_hash);
	}
	for (unsigned a = 0; a < AREAS; a++) {
		mprotect((void *)AREA(a), AREA_SIZE, PROT_READ | PROT_WRITE);
		for (unsigned k = 0; k < AREA_SIZE / 8; k++)
			h = mix(h, ((uint64_t *)AREA(a))[k]);
	}
	return mix(h, fault_hash);
}

static void map(uintptr_t at, size_t size, int prot, int fd)
{
	void *p = mmap((void *)at, size, prot, MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED),
		       fd, 0);

	if (p != (void *)at) {
		perror("mmap");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
	unsigned long n = argc > 2 ? strtoul(argv[2], NULL, 0) : 100;
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	struct itimerval tv = { .it_interval.tv_usec = 300, .it_value.tv_usec = 300 };
	stack_t alt = { .ss_size = 65536, .ss_sp = malloc(65536) };
	int fd = (int)syscall(SYS_memfd_create, "code", 0);

	if (ftruncate(fd, CODE_SIZE))
		return 2;
	for (unsigned a = 0; a < AREAS; a++)
		map(AREA(a), AREA_SIZE, PROT_READ | PROT_WRITE, -1);
	map(CODE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, fd);
	map(ALIAS, CODE_SIZE, PROT_READ | PROT_WRITE, fd);
	map(STACK, 0x10000, PROT_READ | PROT_WRITE, -1);
	sigaltstack(&alt, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sa.sa_sigaction = on_alarm;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &tv, NULL);
	for (unsigned long k = 0; k < n; k++) {
		seed = mix(first + k, 0x1234567);
		printf("%lu %016lx", first + k, program(argc > 3));
		printf(" %u\n", nr_faults);
	}
	fprintf(stderr, "%u timer signals\n", nr_alarms);
	return nr_alarms == 0;
}
