// SPDX-License-Identifier: MIT
/*
 * test_soft_system.c - system behaviour of the software CPU, by guest programs
 * with known answers: paging, faults, privilege changes, debug traps, interrupt
 * shadows, self-modifying code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/softbox.h"

static struct box box;

/* The n-th fault: its vector and error code. */
static void assert_fault(unsigned n, uint64_t vector, uint64_t error)
{
	assert_true(n < box_faults(&box));
	assert_int_equal(box_fault(&box, n)->vector, vector);
	assert_int_equal(box_fault(&box, n)->error, error);
}

static uint64_t *pte(unsigned page)
{
	return box_u64(&box, BOX_PT + page * 8);
}

#define RUN(name) assert_int_equal(BOX_RUN(&box, name), SOFT_STOP_HLT)
#define LOAD(name) box_load(&box, name##_begin, name##_end)
#define GO() assert_int_equal(box_go(&box), SOFT_STOP_HLT)
/* A program that expects one fault at 9f, and goes on after it. */
#define FAULTING(text) "lea 8f(%rip), %r15\n" text "\n8: hlt"

/* --- faults ------------------------------------------------------------------------ */

GUEST(divide, FAULTING("xor %ecx, %ecx; mov $5, %eax; cltd; 9: div %ecx"));
GUEST(divide_wide, FAULTING("mov $1, %ecx; mov $1, %edx; 9: div %ecx"));
GUEST(idiv_min, FAULTING("mov $-1, %rcx; mov $1, %rax; ror $1, %rax; cqo; 9: idiv %rcx"));
GUEST(idiv_fits, "mov $1, %rcx; mov $1, %rax; ror $1, %rax; cqo; idiv %rcx; hlt");
GUEST(undefined, FAULTING("ud2"));
GUEST(noncanonical, FAULTING("mov $1, %rax; shl $63, %rax; mov (%rax), %rbx"));
GUEST(noncanonical_stack, FAULTING("mov $1, %rbp; shl $63, %rbp; mov (%rbp), %rbx"));
GUEST(unknown_msr, FAULTING("mov $0x12345678, %ecx; rdmsr"));
GUEST(bad_cr4, FAULTING("mov $0x80000000, %eax; mov %rax, %cr4"));

static void test_faults(void **state)
{
	RUN(divide);
	assert_fault(0, VEC_DE, 0);
	assert_int_equal(box_fault(&box, 0)->rflags & FL_RF, FL_RF);
	RUN(divide_wide);
	assert_fault(0, VEC_DE, 0);
	RUN(idiv_min);
	assert_fault(0, VEC_DE, 0);
	RUN(idiv_fits);
	assert_int_equal(box_faults(&box), 0);
	assert_int_equal(box_gpr(&box, X86_RAX), 1ull << 63);
	RUN(undefined);
	assert_fault(0, VEC_UD, 0);
	RUN(noncanonical);
	assert_fault(0, VEC_GP, 0);
	RUN(noncanonical_stack);
	assert_fault(0, VEC_SS, 0);
	RUN(unknown_msr);
	assert_fault(0, VEC_GP, 0);
	RUN(bad_cr4);
	assert_fault(0, VEC_GP, 0);
}

/* --- paging -------------------------------------------------------------------------- */

GUEST(page_read, FAULTING("mov $0x80003008, %eax; mov (%rax), %rbx"));
GUEST(page_write, FAULTING("mov $0x80003008, %eax; mov %rbx, (%rax)"));
GUEST(page_rmw, FAULTING("mov $0x80003008, %eax; lock incq (%rax)"));
GUEST(page_exec, FAULTING("mov $0x80003000, %eax; movb $0xf4, (%rax); jmp *%rax"));
GUEST(page_cross, FAULTING("mov $0x80002ffc, %eax; mov $-1, %rbx; mov %rbx, (%rax)"));

static void test_page_faults(void **state)
{
	LOAD(page_read);
	*pte(3) = 0;
	GO();
	assert_fault(0, VEC_PF, 0);
	assert_int_equal(box_fault(&box, 0)->cr2, 0x80003008);

	LOAD(page_write);
	*pte(3) &= ~(uint64_t)PTE_W;
	GO();
	assert_fault(0, VEC_PF, PF_P | PF_W);

	LOAD(page_rmw);
	*pte(3) &= ~(uint64_t)PTE_W;
	GO();
	assert_fault(0, VEC_PF, PF_P | PF_W);

	LOAD(page_read);
	*pte(3) |= 1ull << 51;	/* beyond the physical width */
	GO();
	assert_fault(0, VEC_PF, PF_P | PF_RSVD);

	LOAD(page_exec);
	*pte(3) |= PTE_NX;
	GO();
	assert_fault(0, VEC_PF, PF_P | PF_I);
	assert_int_equal(box_fault(&box, 0)->rip, 0x80003000);

	LOAD(page_cross);
	*pte(3) = 0;
	GO();
	assert_fault(0, VEC_PF, PF_W);
	assert_int_equal(box_fault(&box, 0)->cr2, 0x80003000);
	assert_int_equal(*box_u64(&box, BOX_FRAMES + 0x2ff8), 0);	/* nothing written */
}

GUEST(no_wp, "mov %cr0, %rax; btr $16, %rax; mov %rax, %cr0\n"
	     "mov $0x80003008, %eax; movq $7, (%rax); hlt");
GUEST(smap, "lea 1f(%rip), %r15; mov %cr4, %rax; bts $21, %rax; mov %rax, %cr4\n"
	    "mov $0x80003008, %ecx; mov (%rcx), %rbx\n"
	    "1: stac; mov (%rcx), %rbx; clac; lea 2f(%rip), %r15; mov (%rcx), %rbx; 2: hlt");
GUEST(smep, FAULTING("mov %cr4, %rax; bts $20, %rax; mov %rax, %cr4\n"
		     "mov $0x80003000, %ecx; jmp *%rcx"));

static void test_protection(void **state)
{
	LOAD(no_wp);
	*pte(3) &= ~(uint64_t)PTE_W;
	GO();
	assert_int_equal(box_faults(&box), 0);
	assert_int_equal(*box_u64(&box, BOX_FRAMES + 0x3008), 7);

	RUN(smap);
	assert_int_equal(box_faults(&box), 2);
	assert_fault(0, VEC_PF, PF_P);
	assert_fault(1, VEC_PF, PF_P);

	RUN(smep);
	assert_fault(0, VEC_PF, PF_P | PF_I);
}

static void test_accessed_dirty(void **state)
{
	LOAD(page_read);
	GO();
	assert_int_equal(*pte(3) & (PTE_A | PTE_D), PTE_A);
	LOAD(page_write);
	GO();
	assert_int_equal(*pte(3) & (PTE_A | PTE_D), PTE_A | PTE_D);
}

/* Page 3's entry is at 0x18018. */
GUEST(remap, "mov $0x80003000, %ebx; mov (%rbx), %rax\n"
	     "movq $0x405007, 0x18018; invlpg (%rbx); mov (%rbx), %rdx\n"
	     "movq $0x406007, 0x18018; mov %cr3, %rcx; mov %rcx, %cr3; mov (%rbx), %rsi; hlt");
/* Code of the page changes with the mapping. */
GUEST(remap_code, "mov $0x80003000, %ebx\n"
		  "call *%rbx; mov %eax, %esi; call *%rbx; add %eax, %esi\n"
		  "movq $0x405007, 0x18018; invlpg (%rbx); call *%rbx; hlt");

static void test_remap(void **state)
{
	LOAD(remap);
	*box_u64(&box, 0x403000) = 3;
	*box_u64(&box, 0x405000) = 5;
	*box_u64(&box, 0x406000) = 6;
	GO();
	assert_int_equal(box_gpr(&box, X86_RAX), 3);
	assert_int_equal(box_gpr(&box, X86_RDX), 5);
	assert_int_equal(box_gpr(&box, X86_RSI), 6);

	LOAD(remap_code);
	*box_u64(&box, 0x403000) = 0xc300000003b8;	/* mov $3, %eax; ret */
	*box_u64(&box, 0x405000) = 0xc300000005b8;
	GO();
	assert_int_equal(box_gpr(&box, X86_RSI), 6);
	assert_int_equal(box_gpr(&box, X86_RAX), 5);
}

/* Two PCIDs see two mappings of page 3; 0x50000 is a copy of the tables. */
GUEST(pcid, "mov %cr4, %rax; bts $17, %rax; mov %rax, %cr4\n"
	    "mov $0x10001, %r8d; mov $0x50002, %r9d; mov $0x80003000, %ebx\n"
	    "bts $63, %r8; bts $63, %r9\n"
	    "mov %r8, %cr3; mov (%rbx), %rax\n"
	    "mov %r9, %cr3; mov (%rbx), %rcx\n"
	    "movq $0x407007, 0x18018\n"		/* of the first, not flushed */
	    "mov %r8, %cr3; mov (%rbx), %rdx\n"
	    "btr $63, %r8; mov %r8, %cr3; mov (%rbx), %rsi; hlt");

static void test_pcid(void **state)
{
	LOAD(pcid);
	for (unsigned k = 0; k < 0x9000; k += 8)
		*box_u64(&box, 0x50000 + k) = *box_u64(&box, BOX_PML4 + k);
	*box_u64(&box, 0x50000) = 0x51007;
	*box_u64(&box, 0x51000 + 16) = 0x54007;
	*box_u64(&box, 0x54000) = 0x58007;
	*box_u64(&box, 0x58018) = 0x405007;
	*box_u64(&box, 0x403000) = 3;
	*box_u64(&box, 0x405000) = 5;
	*box_u64(&box, 0x407000) = 7;
	GO();
	assert_int_equal(box_gpr(&box, X86_RAX), 3);
	assert_int_equal(box_gpr(&box, X86_RCX), 5);
	/* kept from before: allowed, and what this TLB does */
	assert_int_equal(box_gpr(&box, X86_RDX), 3);
	assert_int_equal(box_gpr(&box, X86_RSI), 7);
}

/* --- privilege -------------------------------------------------------------------------- */

/* To CPL 3 at label 3 by IRET; the user half lies 1 GiB higher. */
#define TO_USER \
	"lea 3f(%rip), %rax; add $0x40000000, %rax\n" \
	"pushq $0x2b; pushq $0x40180000; pushq $0x202; pushq $0x33; push %rax; iretq\n3: "

GUEST(user_fault, "lea 8f(%rip), %r15; add $0x40000000, %r15\n" TO_USER
		  "mov %cs, %ebx; mov 0x1000, %rax\n"
		  "8: lea 7f(%rip), %r15; hlt\n7: int $0x80; 1: jmp 1b");
GUEST(syscall, "mov $0xc0000081, %ecx; xor %eax, %eax; mov $0x00200010, %edx; wrmsr\n"
	       "mov $0xc0000082, %ecx; lea 5f(%rip), %rax; xor %edx, %edx; wrmsr\n"
	       "mov $0xc0000084, %ecx; mov $0x200, %eax; wrmsr; xor %edi, %edi\n" TO_USER
	       "stc; syscall; 4: inc %edi; mov %cs, %r10d; mov %ss, %r12d; pushfq; pop %r14\n"
	       "syscall; 1: jmp 1b\n"
	       "5: mov %cs, %r8d; mov %ss, %r9d; pushfq; pop %rbx\n"
	       "test %edi, %edi; jnz 6f; sysretq\n6: hlt");

static void test_privilege(void **state)
{
	LOAD(user_fault);
	/* INT 0x80 is logged and goes on; then the loop would not end: limit it */
	assert_int_equal(soft_run(box.cpu, 400, 0), SOFT_STOP_COUNT);
	assert_int_equal(box_gpr(&box, X86_RBX), BOX_UCS);
	assert_int_equal(box_faults(&box), 3);
	assert_fault(0, VEC_PF, PF_P | PF_U);
	assert_int_equal(box_fault(&box, 0)->cs, BOX_UCS);
	assert_int_equal(box_fault(&box, 0)->ss, BOX_USS);
	assert_int_equal(box_fault(&box, 0)->rsp, 0x40180000);
	assert_fault(1, VEC_GP, 0);	/* HLT */
	assert_fault(2, 0x80, 0);
	assert_int_equal(box.cpu->cpl, 3);

	LOAD(syscall);
	GO();
	assert_int_equal(box_gpr(&box, X86_R8), 0x10);
	assert_int_equal(box_gpr(&box, X86_R9), 0x18);
	assert_int_equal(box_gpr(&box, X86_R10), BOX_UCS);
	assert_int_equal(box_gpr(&box, X86_R12), BOX_USS);
	assert_int_equal(box_gpr(&box, X86_RBX) & FL_IF, 0);
	assert_int_equal(box_gpr(&box, X86_R14) & (FL_IF | FL_CF), FL_IF | FL_CF);
}

GUEST(ist, FAULTING("ud2"));
GUEST(double_fault, FAULTING("mov $0x80003010, %esp; ud2"));
GUEST(triple_fault, "lidt 1f(%rip); ud2\n1: .quad 0, 0");

static void test_delivery(void **state)
{
	LOAD(ist);
	box.mem.base[BOX_IDT + 6 * 16 + 4] = 1;
	GO();
	assert_fault(0, VEC_UD, 0);
	assert_int_equal(box_fault(&box, 0)->rsp, BOX_STACK);

	/* no stack to deliver #UD on: #PF, and for that neither: #DF on its IST */
	LOAD(double_fault);
	*pte(2) = *pte(3) = 0;
	box.mem.base[BOX_IDT + 8 * 16 + 4] = 1;
	GO();
	assert_fault(0, VEC_DF, 0);

	assert_int_equal(BOX_RUN(&box, triple_fault), SOFT_STOP_SHUTDOWN);
}

/* --- debug ------------------------------------------------------------------------------ */

GUEST(trap_flag, "pushfq; orl $0x100, (%rsp); popfq; nop; inc %eax; nop\n"
		 "pushfq; andl $~0x100, (%rsp); popfq; nop; hlt");
GUEST(trap_rep, "mov $0x300000, %edi; mov $3, %ecx\n"
		"pushfq; orl $0x100, (%rsp); popfq; rep stosb\n"
		"pushfq; andl $~0x100, (%rsp); popfq; hlt");
GUEST(break_exec, "lea 1f(%rip), %rax; mov %rax, %dr0; mov $0x402, %eax; mov %rax, %dr7\n"
		  "xor %eax, %eax; mov %rax, %dr6; nop; lea 2f(%rip), %r15; 1: inc %ebx; 2: hlt");
GUEST(break_data, "mov $0x300010, %eax; mov %rax, %dr1; mov $0x00d00408, %eax; mov %rax, %dr7\n"
		  "mov 0x300010, %ebx; movb $1, 0x300013; movb $1, 0x300014; nop; hlt");

static void test_debug(void **state)
{
	RUN(trap_flag);
	/* after nop, inc, nop, pushfq, andl, popfq */
	assert_int_equal(box_faults(&box), 6);
	assert_fault(0, VEC_DB, 0);
	assert_true(box.cpu->dr6 & DR6_BS);

	RUN(trap_rep);
	/* each iteration, then pushfq, andl, popfq */
	assert_int_equal(box_faults(&box), 6);

	RUN(break_exec);
	assert_int_equal(box_faults(&box), 1);
	assert_fault(0, VEC_DB, 0);
	assert_int_equal(box.cpu->dr6 & 15, 1);

	RUN(break_data);
	assert_int_equal(box_faults(&box), 1);
	assert_fault(0, VEC_DB, 0);
	assert_int_equal(box.cpu->dr6 & 15, 2);
}

/* --- self-modifying code ------------------------------------------------------------------- */

/* The store changes the immediate of the very next instruction. */
GUEST(smc_next, "movb $7, 1f+1(%rip); 1: mov $1, %eax\n hlt");
GUEST(smc_loop, "xor %ebx, %ebx; mov $100, %ecx\n"
		"1: mov %cl, 2f+1(%rip); 2: mov $0, %eax; movzx %al, %eax; add %eax, %ebx\n"
		"dec %ecx; jnz 1b; hlt");
GUEST(smc_lock, "lock addb $4, 1f+1(%rip); 1: mov $1, %eax\n hlt");
/* mov $imm, %eax across a page's end; its immediate lies in both pages */
GUEST(smc_straddle, "mov $0x102ffe, %ebx; movb $0xb8, (%rbx); movl $0x04030201, 1(%rbx); movb $0xc3, 5(%rbx)\n"
		    "call *%rbx; mov %eax, %esi; movb $9, 4(%rbx); call *%rbx; hlt");

static void test_self_modifying(void **state)
{
	RUN(smc_next);
	assert_int_equal(box_gpr(&box, X86_RAX), 7);
	RUN(smc_loop);
	assert_int_equal(box_gpr(&box, X86_RBX), 5050);
	RUN(smc_lock);
	assert_int_equal(box_gpr(&box, X86_RAX), 5);
	RUN(smc_straddle);
	assert_int_equal(box_gpr(&box, X86_RSI), 0x04030201);
	assert_int_equal(box_gpr(&box, X86_RAX), 0x09030201);
}

/* --- strings, bits, stack ------------------------------------------------------------------ */

GUEST(rep_fault, FAULTING("mov $0x80002ff0, %edi; mov $0x300000, %esi; mov $8, %ecx; rep movsq"));
GUEST(overlap, "mov $0x300000, %esi; mov $0x300001, %edi; movb $5, (%rsi); mov $100, %ecx; rep movsb; hlt");
GUEST(backwards, "std; mov $0x300009, %esi; mov $0x300109, %edi; mov $10, %ecx; rep movsb; cld; hlt");
GUEST(scan, "mov $0x300000, %edi; movb $9, 50(%rdi); mov $9, %eax; mov $100, %ecx; repne scasb; hlt");
GUEST(bit_string, "mov $0x300100, %ebx; mov $-9, %rax; bts %rax, (%rbx); setc %dl\n"
		  "mov $2049, %eax; lock bts %eax, (%rbx); bt %eax, (%rbx); setc %dh; hlt");
GUEST(push_pop, "mov %rsp, %rbp; push %rsp; pop %rax; pushq $-5; pop %rbx; pushw $3; pop %cx\n"
		"pushq $77; popq 8(%rsp); mov 8(%rsp), %rdx; sub %rsp, %rbp; hlt");
GUEST(cx16, FAULTING("mov $0x300008, %esi; lock cmpxchg16b (%rsi)"));
GUEST(mov_ss, "lea 8f(%rip), %r15; lea 2f(%rip), %rcx; mov %ss, %eax\n"
	      "pushfq; orl $0x100, (%rsp); mov %ds, %ebx; popfq; mov %eax, %ss; 1: nop; 2: nop\n"
	      "pushfq; andl $~0x100, (%rsp); popfq\n8: hlt");

static void test_memory(void **state)
{
	LOAD(rep_fault);
	*pte(3) = 0;
	for (unsigned k = 0; k < 8; k++)
		*box_u64(&box, BOX_DATA + k * 8) = k + 1;
	GO();
	assert_fault(0, VEC_PF, PF_W);
	assert_int_equal(box_fault(&box, 0)->cr2, 0x80003000);
	assert_int_equal(box_gpr(&box, X86_RCX), 6);
	assert_int_equal(box_gpr(&box, X86_RSI), 0x300010);
	assert_int_equal(box_gpr(&box, X86_RDI), 0x80003000);
	assert_int_equal(*box_u64(&box, BOX_FRAMES + 0x2ff8), 2);

	RUN(overlap);
	assert_int_equal(box.mem.base[BOX_DATA + 100], 5);
	LOAD(backwards);
	for (unsigned k = 0; k < 10; k++)
		box.mem.base[BOX_DATA + k] = k + 1;
	GO();
	for (unsigned k = 0; k < 10; k++)
		assert_int_equal(box.mem.base[BOX_DATA + 0x100 + k], k + 1);
	RUN(scan);
	assert_int_equal(box_gpr(&box, X86_RDI), 0x300033);
	assert_int_equal(box_gpr(&box, X86_RCX), 49);
	RUN(bit_string);
	assert_int_equal(box.mem.base[BOX_DATA + 0xfe], 0x80);
	assert_int_equal(box.mem.base[BOX_DATA + 0x200], 2);
	assert_int_equal(box_gpr(&box, X86_RDX) & 0xffff, 0x100);
	RUN(push_pop);
	assert_int_equal(box_gpr(&box, X86_RAX), BOX_STACK);
	assert_int_equal(box_gpr(&box, X86_RBX), -5);
	assert_int_equal(box_gpr(&box, X86_RCX), 3);
	assert_int_equal(box_gpr(&box, X86_RDX), 77);
	assert_int_equal(box_gpr(&box, X86_RBP), 0);
	RUN(cx16);
	assert_fault(0, VEC_GP, 0);
}

static void test_shadow(void **state)
{
	RUN(mov_ss);
	/* mov ss itself has no trap: the first comes after the nop behind it */
	assert_int_equal(box_fault(&box, 0)->rip, box_gpr(&box, X86_RCX));
}

/* --- interrupts ------------------------------------------------------------------------------ */

/* x2APIC on, then a self IPI with interrupts off, then `sti; nop`. */
#define X2APIC "mov $0x1b, %ecx; mov $0xfee00d00, %eax; xor %edx, %edx; wrmsr\n" \
	       "mov $0x80f, %ecx; mov $0x1ff, %eax; wrmsr\n"
GUEST(self_ipi, X2APIC "mov $0x83f, %ecx; mov $0x41, %eax; wrmsr\n"
		"lea 1f(%rip), %rbx; sti; 2: nop; 1: nop; hlt");
GUEST(sti_cli, X2APIC "mov $0x83f, %ecx; mov $0x41, %eax; wrmsr\n"
	       "sti; cli; nop; hlt");

static void test_interrupts(void **state)
{
	RUN(self_ipi);
	assert_fault(0, 0x41, 0);
	assert_int_equal(box_fault(&box, 0)->rip, box_gpr(&box, X86_RBX));
	RUN(sti_cli);
	assert_int_equal(box_faults(&box), 0);
}

static int setup(void **state)
{
	box_init(&box);
	return 0;
}

static int teardown(void **state)
{
	box_done(&box);
	return 0;
}

/* --- HLT -------------------------------------------------------------------------- */

GUEST(sleeper, "xor %ebx, %ebx; hlt; inc %ebx; hlt");

/* Leaving soft_run(), as for a kick, does not wake the guest. */
static void test_sleep_survives_a_kick(void **state)
{
	RUN(sleeper);
	assert_int_equal(soft_run(box.cpu, 0, 0), SOFT_STOP_HLT);
	assert_int_equal(box_gpr(&box, X86_RBX), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_page_faults),
		cmocka_unit_test(test_protection),
		cmocka_unit_test(test_accessed_dirty),
		cmocka_unit_test(test_remap),
		cmocka_unit_test(test_pcid),
		cmocka_unit_test(test_privilege),
		cmocka_unit_test(test_delivery),
		cmocka_unit_test(test_debug),
		cmocka_unit_test(test_self_modifying),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_sleep_survives_a_kick),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
