// SPDX-License-Identifier: MIT
/* softbox.c - see softbox.h. */
#include "tests/lib/softbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vmm/soft/insn.h"

#define MEMORY (64u << 20)

/*
 * Below RSP here: vector, error, then what the CPU pushed.  Log entries are 64
 * bytes after the count.
 */
GUEST(box_handler,
	"push %rax; push %rbx; push %rcx\n"
	"mov $0x20000, %ebx\n"		/* BOX_LOG */
	"mov (%rbx), %rax; incq (%rbx)\n"
	"cmp $500, %rax; ja 1f\n"
	"shl $6, %rax; lea 64(%rbx,%rax), %rbx\n"
	"mov 24(%rsp), %rcx; mov %rcx, (%rbx)\n"
	"mov 32(%rsp), %rax; mov %rax, 8(%rbx)\n"
	"mov 40(%rsp), %rax; mov %rax, 16(%rbx)\n"
	"mov 48(%rsp), %rax; mov %rax, 24(%rbx)\n"
	"mov 56(%rsp), %rax; mov %rax, 32(%rbx)\n"
	"mov 64(%rsp), %rax; mov %rax, 40(%rbx)\n"
	"mov 72(%rsp), %rax; mov %rax, 48(%rbx)\n"
	"mov %cr2, %rax; mov %rax, 56(%rbx)\n"
	"1: mov 24(%rsp), %rcx\n"
	"cmp $32, %rcx; jae 2f\n"
	"cmp $1, %rcx; jne 3f; orl $0x10000, 56(%rsp); jmp 2f; 3:\n"	/* RF */
	"cmp $3, %rcx; je 2f\n"
	"mov %r15, 40(%rsp)\n"
	"2: pop %rcx; pop %rbx; pop %rax; add $16, %rsp; iretq");

static void put(struct box *b, uint64_t gpa, const void *p, size_t n)
{
	memcpy(b->mem.base + gpa, p, n);
}

uint64_t *box_u64(struct box *b, uint64_t gpa)
{
	return (uint64_t *)(void *)(b->mem.base + gpa);
}

static void make_pages(struct box *b)
{
	uint64_t *pml4 = box_u64(b, BOX_PML4), *pdpt = box_u64(b, BOX_PML4 + 0x1000);
	uint64_t *pd = box_u64(b, BOX_PML4 + 0x2000), *upd = box_u64(b, BOX_PML4 + 0x3000);
	uint64_t *pd2 = box_u64(b, BOX_PML4 + 0x4000), *pt = box_u64(b, BOX_PT);

	memset(pml4, 0, 0x9000);
	pml4[0] = (BOX_PML4 + 0x1000) | 7;
	pdpt[0] = (BOX_PML4 + 0x2000) | 3;
	pdpt[1] = (BOX_PML4 + 0x3000) | 7;
	pdpt[2] = (BOX_PML4 + 0x4000) | 7;
	for (uint64_t k = 0; k < MEMORY >> 21; k++) {
		pd[k] = k << 21 | PTE_PS | 3;
		upd[k] = k << 21 | PTE_PS | 7;
	}
	pd2[0] = BOX_PT | 7;
	for (uint64_t k = 0; k < 512; k++)
		pt[k] = (BOX_FRAMES + (k << 12)) | 7;
}

static void make_tables(struct box *b)
{
	static const uint64_t gdt[] = {
		0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff,	/* 10 code, 18 data */
		0, 0x00cff3000000ffff, 0x00affb000000ffff, 0,	/* 28 data, 30 code */
		0x00008b0000000067 | (BOX_TSS & 0xffff) << 16, 0,	/* 40 TSS */
		0x00cffb000000ffff,				/* 50 32-bit user code */
	};
	uint64_t common = BOX_STUBS + 256 * 16;

	put(b, BOX_GDT, gdt, sizeof(gdt));
	memset(b->mem.base + BOX_TSS, 0, 0x68);
	put(b, BOX_TSS + 4, &(uint64_t){ BOX_RSP0 }, 8);
	put(b, BOX_TSS + 0x24, &(uint64_t){ BOX_IST1 }, 8);
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = BOX_STUBS + v * 16;
		bool code = v == 8 || (v >= 10 && v <= 14) || v == 17;
		uint8_t stub[16] = { 0x6a, 0, 0x68, v, 0, 0, 0, 0xe9 };
		uint64_t gate[2] = { (at & 0xffff) | BOX_CS << 16 | 0x8e00ull << 32 |
				     (at >> 16) << 48, 0 };
		int32_t rel = (int32_t)(common - (at + 12));

		if (code)	/* a NOP of two bytes */
			memcpy(stub, "\x66\x90", 2);
		if (v == 3 || v == 0x80)
			gate[0] |= 3ull << 45;
		memcpy(stub + 8, &rel, 4);
		put(b, at, stub, sizeof(stub));
		put(b, BOX_IDT + v * 16, gate, sizeof(gate));
	}
	put(b, common, box_handler_begin, (size_t)(box_handler_end - box_handler_begin));
}

static struct x86_segment flat(uint16_t sel, uint32_t attr)
{
	return (struct x86_segment){ .sel = sel, .limit = 0xffffffff, .attr = attr };
}

static void make_state(struct box *b)
{
	struct x86_state *s = &b->start;

	memset(s, 0, sizeof(*s));
	soft_get_state(b->cpu, s);
	s->rip = BOX_CODE;
	s->rflags = 2;
	s->gpr[X86_RSP] = BOX_STACK;
	s->seg[X86_CS] = flat(BOX_CS, 0xa09b);
	for (unsigned k = 0; k < X86_LDTR; k++)
		if (k != X86_CS)
			s->seg[k] = flat(BOX_SS, 0xc093);
	s->seg[X86_TR] = (struct x86_segment){ .sel = BOX_TR, .base = BOX_TSS,
					       .limit = 0x67, .attr = 0x8b };
	s->gdt = (struct x86_dtable){ .base = BOX_GDT, .limit = 0x57 };
	s->idt = (struct x86_dtable){ .base = BOX_IDT, .limit = 0xfff };
	s->cr0 = 0x80050033;
	s->cr3 = BOX_PML4;
	s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
	s->xcr0 = 1;
	s->tsc = 1;
}

void box_init(struct box *b)
{
	struct err err = ERR_INIT;
	uint32_t can[CPUID_NR_WORDS];

	memset(b, 0, sizeof(*b));
	soft_cpuid_can(can);
	if (mem_init(&b->mem, MEMORY, -1, &err) ||
	    cpu_model_init(&b->model, "host", can, 1000000, 1, &err)) {
		fprintf(stderr, "softbox: %s\n", err_message(&err));
		abort();
	}
	b->cpu = soft_new(&b->mem, &b->model);
	if (!b->cpu)
		abort();
	b->cpu->deliver = true;
	make_state(b);
}

void box_done(struct box *b)
{
	soft_free(b->cpu);
	mem_done(&b->mem);
}

void box_load(struct box *b, const uint8_t *begin, const uint8_t *end)
{
	struct err err = ERR_INIT;

	make_pages(b);
	make_tables(b);
	memset(b->mem.base + BOX_LOG, 0, 0x10000);
	memset(b->mem.base + BOX_DATA, 0, 0x100000 + 0x200000);
	memset(b->mem.base + BOX_CODE, 0xcc, 0x4000);
	put(b, BOX_CODE, begin, (size_t)(end - begin));
	blocks_flush(b->cpu);
	if (soft_set_state(b->cpu, &b->start, &err)) {
		fprintf(stderr, "softbox: %s\n", err_message(&err));
		abort();
	}
}

enum soft_stop box_go(struct box *b)
{
	return soft_run(b->cpu, 0, 0);
}

enum soft_stop box_run(struct box *b, const uint8_t *begin, const uint8_t *end)
{
	box_load(b, begin, end);
	return box_go(b);
}

uint64_t box_gpr(struct box *b, enum x86_gpr r)
{
	return b->cpu->gpr[r];
}

unsigned box_faults(struct box *b)
{
	return (unsigned)*box_u64(b, BOX_LOG);
}

const struct box_fault *box_fault(struct box *b, unsigned n)
{
	return (const void *)(b->mem.base + BOX_LOG + 64 + n * 64);
}
