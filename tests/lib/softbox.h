/* SPDX-License-Identifier: MIT */
/*
 * softbox.h - a small bare machine around the software CPU, for guest programs of
 * a few dozen instructions: flat long mode, page tables, GDT, IDT, TSS.
 *
 * Guest programs are assembled into the test with GUEST() and run at BOX_CODE
 * until HLT.  Exceptions are logged by a handler in the guest; after a fault it
 * goes on at the address in R15, after a trap or an interrupt where it was.
 *
 * Memory: all of the first GiB at its own address for CPL 0 (2 MiB pages), the same
 * once more at BOX_USER for CPL 3, and 512 small pages at BOX_PAGES whose entries
 * the tests change.
 */
#ifndef TEST_SOFTBOX_H
#define TEST_SOFTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/soft/soft.h"

#define BOX_GDT		0x1000ull
#define BOX_IDT		0x2000ull
#define BOX_TSS		0x3000ull
#define BOX_STUBS	0x4000ull
#define BOX_PML4	0x10000ull
#define BOX_PT		0x18000ull	/* of BOX_PAGES */
#define BOX_LOG		0x20000ull
#define BOX_CODE	0x100000ull
#define BOX_STACK	0x200000ull	/* grows down */
#define BOX_IST1	0x210000ull
#define BOX_RSP0	0x220000ull
#define BOX_DATA	0x300000ull
#define BOX_FRAMES	0x400000ull	/* RAM behind BOX_PAGES */
#define BOX_USER	0x40000000ull
#define BOX_PAGES	0x80000000ull

#define BOX_CS	0x10
#define BOX_SS	0x18
#define BOX_UCS	0x33	/* order as SYSRET wants it */
#define BOX_USS	0x2b
#define BOX_TR	0x40

struct box_fault {
	uint64_t vector, error, rip, cs, rflags, rsp, ss, cr2;
};

struct box {
	struct mem mem;
	struct cpu_model model;
	struct soft_cpu *cpu;
	struct x86_state start;
};

#define GUEST(name, text) \
	extern const uint8_t name##_begin[], name##_end[]; \
	__asm__(".pushsection .rodata\n.balign 16\n" \
		".globl " #name "_begin\n" #name "_begin:\n" text "\n" \
		".globl " #name "_end\n" #name "_end:\n.popsection\n")

void box_init(struct box *b);
void box_done(struct box *b);
/* Fresh state and memory, the program at BOX_CODE.  Returns why it stopped. */
enum soft_stop box_run(struct box *b, const uint8_t *begin, const uint8_t *end);
#define BOX_RUN(b, name) box_run(b, name##_begin, name##_end)
/* The two halves of it. */
void box_load(struct box *b, const uint8_t *begin, const uint8_t *end);
enum soft_stop box_go(struct box *b);

uint64_t box_gpr(struct box *b, enum x86_gpr r);
uint64_t *box_u64(struct box *b, uint64_t gpa);
unsigned box_faults(struct box *b);
const struct box_fault *box_fault(struct box *b, unsigned n);

#endif
