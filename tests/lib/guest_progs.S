/* SPDX-License-Identifier: MIT */
/*
 * guest_progs.S - bare-metal programs; tests/cpu/test_system.c knows what each must
 * log and leave at G_RESULT.  They run where they are copied to (G_CODE): labels
 * are reached relative to rip.
 */
#include "tests/lib/guest_asm.h"

	.section .rodata.guest, "a", @progbits

/* --- page faults and their error codes ------------------------------------------ */

	PROG	page_faults
	FAULT	movq 0x1000000, %rbx
	FAULT	movq %rbx, 0x1000008
	andq	$~2, G_PTE(G_KPAGE)
	invlpg	G_KPAGE
	FAULT	movb $1, G_KPAGE
	CR_CLEAR cr0, CR0_WP
	movb	$0x5a, G_KPAGE
	CR_SET	cr0, CR0_WP
	FAULT	movb $2, G_KPAGE
	movzbl	G_KPAGE, %ebx
	movq	%rbx, G_RESULT
	btsq	$63, G_PTE(G_KPAGE + 0x1000)
	movb	$0xc3, G_KPAGE + 0x1000
	movl	$G_KPAGE + 0x1000, %ebx
	FAULT	jmp *%rbx
	btsq	$51, G_PTE(G_KPAGE + 0x2000)
	FAULT	movq G_KPAGE + 0x2000, %rbx
	UFAULT	movq G_KPAGE, %rbx
	UFAULT	movq %rbx, G_KPAGE
	UFAULT	movq 0x1000000, %rbx
	UFAULT	movq %rbx, 0x1000010
	btsq	$63, G_PTE(G_UPAGE)
	invlpg	G_UPAGE
	movl	$G_UPAGE, %ebx
	UFAULT	jmp *%rbx
	movl	$G_KPAGE, %ebx
	UFAULT	jmp *%rbx
	movl	$0x1000000, %ebx
	UFAULT	jmp *%rbx
	/* an access across a page boundary, the second page missing */
	andq	$~1, G_PTE(G_KPAGE + 0x4000)
	invlpg	G_KPAGE + 0x4000
	FAULT	movq G_KPAGE + 0x3ffd, %rbx
	FAULT	movq %rbx, G_KPAGE + 0x3ffd
	movdqu	%xmm0, G_KPAGE + 0x3ff0
	FAULT	movdqu %xmm0, G_KPAGE + 0x3ff1
	END	page_faults

	PROG	smep_smap
	CR_SET	cr4, CR4_SMEP
	movb	$0xc3, G_UPAGE
	movl	$G_UPAGE, %ebx
	FAULT	jmp *%rbx
	movb	$0x11, G_UPAGE + 0x1000
	CR_SET	cr4, CR4_SMAP
	FAULT	movb G_UPAGE + 0x1000, %bl
	FAULT	movb %bl, G_UPAGE + 0x1000
	stac
	movb	$0x22, G_UPAGE + 0x1000
	movzbl	G_UPAGE + 0x1000, %ebx
	movq	%rbx, G_RESULT
	clac
	FAULT	movb G_UPAGE + 0x1000, %bl
	/* user mode is not held back by either */
	UFAULT	movb $0x33, G_UPAGE + 0x1000
	stac
	movzbl	G_UPAGE + 0x1000, %ebx
	movq	%rbx, G_RESULT + 8
	END	smep_smap

/* --- accessed and dirty bits ------------------------------------------------------- */

	PROG	accessed_dirty
	movl	$G_PTE(G_KPAGE), %esi
	xorl	%ebx, %ebx
	.macro	NOTE_AD
	movq	(%rsi), %rax
	andq	$0x60, %rax
	movq	%rax, G_RESULT(, %rbx, 8)
	incl	%ebx
	.endm
	NOTE_AD				/* 0: untouched */
	movb	G_KPAGE, %al
	NOTE_AD				/* 1: read */
	movb	%al, G_KPAGE
	NOTE_AD				/* 2: written */
	andq	$~0x60, (%rsi)
	invlpg	G_KPAGE
	NOTE_AD				/* 3 */
	movb	G_KPAGE, %al
	NOTE_AD				/* 4 */
	andq	$~0x42, (%rsi)
	invlpg	G_KPAGE
	FAULT	movb %al, G_KPAGE
	NOTE_AD				/* 5: a write that faults leaves no D */
	movl	$G_PD + 16, %esi
	NOTE_AD				/* 6: large page */
	movb	G_LARGE, %al
	NOTE_AD				/* 7 */
	lock incl G_LARGE + 0x12345
	NOTE_AD				/* 8 */
	movl	$G_PML4, %esi
	NOTE_AD				/* 9: tables have A alone */
	/* a page walk is a read, whatever comes of it */
	movl	$G_PTE(G_KPAGE + 0x1000), %esi
	FAULT	divb G_KPAGE + 0x1000
	NOTE_AD				/* 10 */
	/* compare and exchange that fails still writes */
	movl	$G_PTE(G_KPAGE + 0x2000), %esi
	movl	$1, %eax
	cmpxchgl %ecx, G_KPAGE + 0x2000
	NOTE_AD				/* 11 */
	END	accessed_dirty

/* --- TLB ------------------------------------------------------------------------------ */

#define VA	(G_KPAGE + 0x80000)
#define PML4B	(G_KPAGE + 0x10000)

	/* several accesses through one base: what happens between them counts */
	PROG	one_base
	movl	$VA, %esi
	movq	$0x11, (%rsi)
	movq	$0x22, 8(%rsi)
	movq	$0x33, 0x1000(%rsi)
	movq	$0x44, 0x1008(%rsi)
	movl	$G_PTE(VA), %edi
	movq	(%rsi), %r12
	movq	$(VA + 0x1000) | 3, (%rdi)
	invlpg	(%rsi)
	movq	8(%rsi), %r13
	movq	$VA | 3, (%rdi)
	invlpg	(%rsi)
	movq	%r12, G_RESULT			/* 0: 0x11 */
	movq	%r13, G_RESULT + 8		/* 1: 0x44 */
	/* a write that is not come to leaves the page clean */
	movq	(%rsi), %rax
	cmpq	%rax, (%rsi)
	je	1f
	movq	%rax, 8(%rsi)
1:	movq	(%rdi), %rax
	andl	$0x60, %eax
	movq	%rax, G_RESULT + 16		/* 2: 0x20 */
	/* the same with one that is, in a range of which the page allows but reads */
	movq	$VA | 0x61, (%rdi)
	invlpg	(%rsi)
	xorl	%r12d, %r12d
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	addq	(%rsi), %r12
	addq	8(%rsi), %r12
	movq	%r12, 16(%rsi)
	ud2
77:	movq	%r12, G_RESULT + 24		/* 3: 0x33 */
	movq	$VA | 3, (%rdi)
	invlpg	(%rsi)
	/* a range across the end of a page, then one of which that page lacks */
	movl	$VA + 0x1000 - 12, %esi
	movl	$3, %ecx
2:	movq	$0x55, (%rsi)
	addl	$0x66, 4(%rsi)
	incq	12(%rsi)
	pushq	12(%rsi)
	popq	%r12
	decl	%ecx
	jnz	2b
	movq	(%rsi), %r13
	movq	%r12, G_RESULT + 32		/* 4: 0x36 */
	movq	%r13, G_RESULT + 40		/* 5: 0x66 in the upper half, 0x55 */
	andq	$~1, G_PTE(VA + 0x1000)
	invlpg	VA + 0x1000
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	movl	$0x77, (%rsi)
	movl	$0x88, 8(%rsi)
	movl	$0x99, 12(%rsi)
	ud2
77:	movl	8(%rsi), %eax
	addl	(%rsi), %eax
	movq	%rax, G_RESULT + 48		/* 6: 0xff */
	orq	$1, G_PTE(VA + 0x1000)
	/* PUSH and POP that move the stack to another page and back, and LEAVE */
	movq	%rsp, %rbp
	movl	$VA + 0x1008, %esp
	pushq	$1
	pushq	$2
	pushq	$3
	popq	%rax
	movq	(%rsp), %rbx
	leaq	8(%rsp), %rsp
	popq	%rcx
	leaq	(%rax, %rbx, 4), %rax
	leaq	(%rax, %rcx, 8), %rax
	movq	%rsp, %rdx
	movl	$VA + 0x1100, %esp
	pushq	%rbp
	movq	%rsp, %rbp
	subq	$32, %rsp
	movq	%rax, -8(%rbp)
	movq	%rdx, -16(%rbp)
	movq	24(%rsp), %rax
	subq	$VA + 0x1000, 16(%rsp)
	movq	-16(%rbp), %rdx
	leave
	movq	%rbp, %rsp
	movq	%rax, G_RESULT + 56		/* 7: 3 + 2 * 4 + 1 * 8 */
	movq	%rdx, G_RESULT + 64		/* 8: 8 */
	/* a PUSH from a page that the TLB does not have, the first of several */
	movq	$0x1234, VA + 0x2000
	movl	$VA + 0x2000, %esi
	invlpg	(%rsi)
	xorl	%edi, %edi
	jmp	1f
1:	movq	G_PTE(VA + 0x2000), %rdx	/* other windows */
	addq	G_PTE(VA + 0x2008), %rdx
	movq	VA(%rdi), %rdx
	addq	VA + 8(%rdi), %rdx
	pushq	(%rsi)
	pushq	$1
	popq	%rax
	popq	%rbx
	addq	%rbx, %rax
	movq	%rax, G_RESULT + 72		/* 9: 0x1235 */
	END	one_base

	PROG	tlb
	movq	$0x11, VA
	movq	$0x22, VA + 0x1000
	movq	$0x33, VA + 0x2000
	movq	VA, %rax
	movq	%rax, G_RESULT			/* 0: 0x11 */
	movq	$(VA + 0x1000) | 3, G_PTE(VA)
	invlpg	VA
	movq	VA, %rax
	movq	%rax, G_RESULT + 8		/* 1: 0x22 */
	movq	$(VA + 0x2000) | 3, G_PTE(VA)
	movq	%cr3, %rax
	movq	%rax, %cr3
	movq	VA, %rax
	movq	%rax, G_RESULT + 16		/* 2: 0x33 */
	/* global pages survive that, and go with CR4.PGE */
	movq	$VA | 0x103, G_PTE(VA)
	invlpg	VA
	movq	VA, %rax
	CR_CLEAR cr4, 0x80
	movq	$(VA + 0x1000) | 0x103, G_PTE(VA)
	CR_SET	cr4, 0x80
	movq	VA, %rax
	movq	%rax, G_RESULT + 24		/* 3: 0x22 */
	movq	$VA | 3, G_PTE(VA)
	invlpg	VA
	/* a second address space whose VA is the third page */
	cld
	movl	$G_PT0, %esi
	movl	$PML4B + 0x3000, %edi
	movl	$512, %ecx
	rep movsq
	movq	$(VA + 0x2000) | 3, PML4B + 0x3000 + (VA >> 12) * 8
	movl	$G_PD, %esi
	movl	$PML4B + 0x2000, %edi
	movl	$512, %ecx
	rep movsq
	movq	$(PML4B + 0x3000) | 7, PML4B + 0x2000
	movq	$(PML4B + 0x2000) | 7, PML4B + 0x1000
	movq	$(PML4B + 0x1000) | 7, PML4B
	CR_SET	cr4, CR4_PCIDE
	movl	$8, %ebp
	xorl	%ebx, %ebx
	xorl	%r8d, %r8d
1:	movq	$PML4B + 2, %rax
	btsq	$63, %rax
	movq	%rax, %cr3
	addq	VA, %rbx
	movq	$G_PML4 + 1, %rax
	btsq	$63, %rax
	movq	%rax, %cr3
	addq	VA, %r8
	decl	%ebp
	jnz	1b
	movq	%rbx, G_RESULT + 32		/* 4: 8 * 0x33 */
	movq	%r8, G_RESULT + 40		/* 5: 8 * 0x11 */
	/* without the bit, the space is flushed on the way in */
	movq	$(VA + 0x1000) | 3, PML4B + 0x3000 + (VA >> 12) * 8
	movq	$PML4B + 2, %rax
	movq	%rax, %cr3
	movq	VA, %rbx
	movq	%rbx, G_RESULT + 48		/* 6: 0x22 */
	FAULT	CR_CLEAR cr4, CR4_PCIDE		/* 7: not with a PCID in CR3... */
	END	tlb

/* --- exceptions, stacks ------------------------------------------------------------------ */

	PROG	stacks
	HANDLER	3, 1f
	movq	$G_STACK - 8, %rsp
	int3					/* 0: aligned down to 16 */
	movb	$1, G_IDT + 16 * 3 + 4		/* IST 1 */
	int3					/* 1 */
	movb	$0, G_IDT + 16 * 3 + 4
	USER	2f, 0x202			/* 2: RSP0; 3: rip is past INT3 */
2:	int3
	int	$0x80
1:	movq	G_RESULT + 0x100, %rax
	movq	%rsp, G_RESULT(, %rax, 8)
	incq	G_RESULT + 0x100
	addq	$16, %rsp
	iretq
	END	stacks

	PROG	soft_ints
	FAULT	int3
	FAULT	int $0x80
	FAULT	ud2
	FAULT	.byte 0xf1
	UFAULT	int $0x81
	UFAULT	int $13
	UFAULT	int3
	UFAULT	int $0x80
	UFAULT	hlt
	UFAULT	movq %cr0, %rax
	UFAULT	cli
	UFAULT	outb %al, $0x80
	UFAULT	.byte 0xf1
	xorl	%ecx, %ecx
	UFAULT	divl %ecx
	UFAULT	lidt G_UPAGE
	UFAULT	wbinvd
	UFAULT	movq %dr0, %rax
	UFAULT	rdmsr
	UFAULT	swapgs
	UFAULT	sysretq
	END	soft_ints

	PROG	double_fault
	movb	$0x0e, G_IDT + 16 * 14 + 5	/* page fault gate: not present */
	FAULT	movq 0x1000000, %rbx
	movb	$0x8e, G_IDT + 16 * 14 + 5
	FAULT	movq 0x1000000, %rbx
	END	double_fault

	PROG	triple_fault
	movq	$0, G_RESULT + 0x200
	lidt	G_RESULT + 0x200
	ud2
	END	triple_fault

/* Where neither RAM nor a device is. */
	PROG	jump_to_nowhere
	movl	$0xd0000003, %eax
	movq	%rax, G_PTE(G_KPAGE)
	invlpg	G_KPAGE
	movl	$G_KPAGE, %eax
	jmp	*%rax
	END	jump_to_nowhere

/* --- segments, IRET ------------------------------------------------------------------------ */

	PROG	segments
	movl	$G_SEL_ABSENT, %ebx
	FAULT	movl %ebx, %ds
	movl	$0x1000, %ebx
	FAULT	movl %ebx, %es
	movl	$G_CS, %ebx
	FAULT	movl %ebx, %ss			/* code in SS */
	movl	$G_USS, %ebx
	FAULT	movl %ebx, %ss			/* wrong DPL */
	movl	$G_TR, %ebx
	FAULT	ltr %bx				/* busy */
	xorl	%ebx, %ebx
	movl	%ebx, %ds
	movl	%ebx, %ss			/* null is fine at level 0 */
	movl	$G_SS, %ebx
	movl	%ebx, %ss
	movl	%ds, %ebx
	movq	%rbx, G_RESULT
	movq	$-1, %rbx
	pushq	$G_SS
	pushq	$G_STACK
	pushq	$2
	pushq	$G_CS
	movabsq	$0x8000000000000000, %rax
	pushq	%rax
	FAULT	iretq				/* not canonical */
	movq	$G_STACK, %rsp
	pushq	$G_USS
	pushq	$G_USTACK
	pushq	$2
	pushq	$G_UCS & ~3			/* user code, level 0 */
	pushq	$0
	FAULT	iretq
	movq	$G_STACK, %rsp
	/* far return to the same segment */
	pushq	$G_CS
	leaq	1f(%rip), %rax
	pushq	%rax
	lretq
	ud2
1:	movq	$1, G_RESULT + 8
	/* a user program loads user segments; loses them when null */
	movl	$G_USS, %ecx
	UFAULT	movl %ecx, %ds
	movl	%ds, %ebx
	movq	%rbx, G_RESULT + 16
	movl	$G_SS, %ecx
	UFAULT	movl %ecx, %ds
	END	segments

/* --- SYSCALL --------------------------------------------------------------------------------- */

	PROG	syscalls
	MSR_PUT	0xc0000081, 0, 0x001b0008	/* STAR */
	leaq	1f(%rip), %rax
	xorl	%edx, %edx
	movl	$0xc0000082, %ecx
	wrmsr					/* LSTAR */
	MSR_PUT	0xc0000084, 0x40700		/* SFMASK: AC DF IF TF */
	HANDLER	0x80, 3f
	USER	2f, 0x602
2:	stc
	syscall
4:	movl	%cs, %r12d
	movl	%ss, %r13d
	pushfq
	popq	%r14
	int	$0x80
1:	movq	%rsp, G_RESULT			/* the user's */
	movq	%r11, G_RESULT + 8
	leaq	4b + G_USER(%rip), %rax
	subq	%rcx, %rax
	movq	%rax, G_RESULT + 16
	movl	%cs, %eax
	movq	%rax, G_RESULT + 24
	movl	%ss, %eax
	movq	%rax, G_RESULT + 32
	movq	%rsp, %r10
	movl	$G_STACK, %esp
	pushfq
	popq	G_RESULT + 40
	movq	%r10, %rsp
	sysretq
3:	movq	%r12, G_RESULT + 48
	movq	%r13, G_RESULT + 56
	movq	%r14, G_RESULT + 64
	MSR_PUT	0xc0000080, 0xd00		/* EFER without SCE */
	UFAULT	syscall
	END	syscalls

	PROG	gs_base
	movq	$0x1234, G_KPAGE
	movq	$0x5678, G_KPAGE + 0x1000
	MSR_PUT	0xc0000101, G_KPAGE
	MSR_PUT	0xc0000102, G_KPAGE + 0x1000
	movq	%gs:0, %rax
	movq	%rax, G_RESULT
	swapgs
	movq	%gs:0, %rax
	movq	%rax, G_RESULT + 8
	movl	$0xc0000102, %ecx
	rdmsr
	movq	%rax, G_RESULT + 16
	FAULT	rdfsbase %rbx
	CR_SET	cr4, CR4_FSGSBASE
	movq	$G_KPAGE, %rbx
	wrfsbase %rbx
	movq	%fs:0, %rax
	movq	%rax, G_RESULT + 24
	movabsq	$0x800000000000, %rbx
	FAULT	wrgsbase %rbx
	movl	$0xc0000100, %ecx
	rdmsr
	movq	%rax, G_RESULT + 32
	movabsq	$0x123456789a, %rbx
	wrfsbase %rbx
	rdfsbase %rax
	movq	%rax, G_RESULT + 40
	END	gs_base

/* --- what kernels do at entry and exit, and who may not --------------------------------------- */

	PROG	entry_code
	UFAULT	clac
	UFAULT	stac
	UFAULT	cli
	UFAULT	sti
	UFAULT	pushq 0x1000000
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	USER	78f
78:	movl	$0x1000008, %esp		/* the operand is read first */
	pushq	0x1000010
	ud2
77:	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	USER	78f
78:	movl	$0x1000008, %esp
	pushq	G_UPAGE
	ud2
77:	movq	$0x4321, G_KPAGE
	pushq	G_KPAGE
	popq	%rax
	movq	%rax, G_RESULT
	movl	$G_USS, %eax
	movl	%eax, %ds
	movq	$-1, %rbx
	movl	%ds, %ebx
	movq	%rbx, G_RESULT + 8
	movq	$-1, %r9
	movl	%ss, %r9d
	movq	%r9, G_RESULT + 16
	movq	$-1, %r9
	movw	%cs, %r9w
	movq	%r9, G_RESULT + 24
	MSR_PUT	0xc0000103, 0x77		/* TSC_AUX */
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	movq	%rax, %rbx
	rdtscp
	movq	%rcx, G_RESULT + 32
	shlq	$32, %rdx
	orq	%rdx, %rax
	subq	%rbx, %rax
	shrq	$32, %rax			/* not backwards, not by seconds */
	movq	%rax, G_RESULT + 40
	std
	cld
	pushfq
	popq	%rax
	andl	$0x400, %eax
	movq	%rax, G_RESULT + 48
	/* flags live on through all of them */
	CR_SET	cr4, CR4_SMAP
	xorl	%eax, %eax
	subl	$1, %eax			/* CF SF AF PF */
	stac
	lfence
	cld
	swapgs
	movl	%ds, %ecx
	swapgs
	clac
	pushq	G_KPAGE
	popq	%rcx
	pushfq
	popq	%rax
	andl	$0x408d5, %eax
	movq	%rax, G_RESULT + 56
	END	entry_code

/* --- returns whose address is no longer what it was at the call ------------------------------- */

	/* The callee does nothing while r14 is 0: three rounds translate and link. */
	.macro	RETURNS callee, result
	leaq	\callee(%rip), %rbx
	movl	$3, %r13d
	xorl	%r14d, %r14d
77:	call	*%r12
	decl	%r13d
	jnz	77b
	incl	%r14d
	call	*%r12
	movq	%rax, G_RESULT + 8 * \result
	.endm

	PROG	returns
	movl	$0x00b8d3ff, G_KPAGE		/* call *%rbx; mov $1, %eax; ret */
	movl	$0xc3000000, G_KPAGE + 4
	movb	$1, G_KPAGE + 3
	movl	$0x00b8d3ff, G_KPAGE + 0x1000	/* the same with 2 */
	movl	$0xc3000000, G_KPAGE + 0x1004
	movb	$2, G_KPAGE + 0x1003
	movl	$G_KPAGE, %r12d
	RETURNS	1f, 0
	RETURNS	2f, 1				/* the page is another one now */
	RETURNS	3f, 2				/* and again the first, by CR3 */
	RETURNS	4f, 3				/* written over */
	RETURNS	5f, 4				/* not by way of the call */
	/* user code finds no entry of the kernel's, at the same place of its stack */
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	movl	$3, %r13d
88:	call	1f
99:	decl	%r13d
	jnz	88b
	USER	78f
78:	leaq	99b - G_USER(%rip), %rax
	movl	$3, %r13d
	pushq	%rax
	ret
77:	jmp	9f
1:	ret
2:	testl	%r14d, %r14d
	jz	1b
	movq	$(G_KPAGE + 0x1003), G_PTE(G_KPAGE)
	invlpg	G_KPAGE
	ret
3:	testl	%r14d, %r14d
	jz	1b
	movq	$(G_KPAGE + 3), G_PTE(G_KPAGE)
	movq	%cr3, %rax
	movq	%rax, %cr3
	ret
4:	testl	%r14d, %r14d
	jz	1b
	movb	$3, G_KPAGE + 3
	ret
5:	testl	%r14d, %r14d
	jz	1b
	leaq	6f(%rip), %rax
	movq	%rax, (%rsp)
	ret
6:	movl	$4, %eax
	ret
9:
	END	returns

/* --- debugging ---------------------------------------------------------------------------------- */

	PROG	single_step
	HANDLER	1, 9f
	movl	$G_SS, %ebx
	movl	$3, %ecx
	movl	$G_KPAGE, %edi
	cld
	pushfq
	orq	$0x100, (%rsp)
	popfq
	nop					/* 1: a trap behind each */
	movl	$1, %edx			/* 2 */
	movl	%ebx, %ss			/* held back */
	nop					/* 3 */
	rep stosb				/* 4 5 6: each round */
	jmp	1f				/* 7 */
	ud2
1:	cpuid					/* 8 */
	pushfq					/* 9 */
	andq	$~0x100, (%rsp)			/* 10 */
	popfq					/* 11 */
	nop
	movq	%rdi, G_RESULT + 8
	jmp	8f
9:	incq	G_RESULT
	addq	$16, %rsp
	iretq
8:	END	single_step

	PROG	breakpoints
	HANDLER	1, 9f
	leaq	1f(%rip), %rax
	movq	%rax, %dr0
	movl	$G_KPAGE, %eax
	movq	%rax, %dr1
	movl	$G_KPAGE + 0x1000, %eax
	movq	%rax, %dr2
	/* 0: execution; 1: write of 4 bytes; 2: read or write of 8 */
	movl	$0x15 | 0xd << 20 | 0xb << 24, %eax
	movq	%rax, %dr7
	nop
1:	incq	G_RESULT + 0x80			/* a fault, once */
	movl	G_KPAGE, %eax			/* a read: nothing */
	movb	$1, G_KPAGE + 3			/* a trap */
	movb	$1, G_KPAGE + 4
	movq	G_KPAGE + 0x1007, %rax		/* touches the last byte */
	movq	G_KPAGE + 0x1008, %rax
	movl	$2, %ecx
	movl	$G_KPAGE - 2, %edi
	movl	$G_KPAGE + 0x100, %esi
	rep movsw				/* second word hits */
	xorl	%eax, %eax
	movq	%rax, %dr7
	movb	$1, G_KPAGE
	movl	$0x2000, %eax			/* general detect */
	movq	%rax, %dr7
	movq	%dr0, %rax
	movq	%dr7, %rax
	movq	%rax, G_RESULT + 0x90
	jmp	8f
9:	movq	G_RESULT + 0x88, %rax
	movq	%dr6, %rbx
	movq	%rbx, G_RESULT(, %rax, 8)
	incq	G_RESULT + 0x88
	movl	$0xffff0ff0, %ebx
	movq	%rbx, %dr6
	btsq	$16, 32(%rsp)			/* RF */
	addq	$16, %rsp
	iretq
8:	END	breakpoints

/* --- code that changes -------------------------------------------------------------------------------- */

#define ALIAS	(G_KPAGE + 0x90000)
#define FRESH	(G_KPAGE + 0xa0000)

	PROG	self_modifying
	/* behind a jump */
	movb	$7, 1f + 1(%rip)
	jmp	1f
1:	movl	$1, %eax
	movq	%rax, G_RESULT
	/* the very next instruction */
	movb	$9, 2f + 1(%rip)
2:	movl	$1, %eax
	movq	%rax, G_RESULT + 8
	/* a loop that counts in its own immediate */
	movl	$100, %ecx
	xorl	%ebx, %ebx
3:	addl	$0, %ebx
	incb	3b + 2(%rip)
	loop	3b
	movq	%rbx, G_RESULT + 16		/* 0 + 1 + ... + 99 */
	/* through another virtual address */
	leaq	4f(%rip), %rax
	andq	$~0xfff, %rax
	orq	$3, %rax
	movq	%rax, G_PTE(ALIAS)
	leaq	4f(%rip), %rdi
	andl	$0xfff, %edi
	call	4f
	movb	$5, ALIAS + 1(%rdi)
	call	4f
	movq	%rax, G_RESULT + 24
	/* a page filled twice with different code, executed each time */
	movl	$2, %ebp
	leaq	5f(%rip), %rbx
6:	movq	%rbx, %rsi
	movl	$FRESH, %edi
	movl	$16, %ecx
	cld
	rep movsb
	movl	$FRESH, %eax
	call	*%rax
	addq	$16, %rbx
	decl	%ebp
	jnz	6b
	movq	%r8, G_RESULT + 32		/* 0x21 */
	movq	%r9, G_RESULT + 40		/* 0x43 */
	/* an instruction across two pages, its second half changes */
	movb	$0xb8, FRESH + 0xffe		/* mov $imm32, %eax */
	movb	$1, FRESH + 0xfff
	movl	$0, FRESH + 0x1000
	movb	$0xc3, FRESH + 0x1003
	movl	$FRESH + 0xffe, %ebx
	call	*%rbx
	movq	%rax, G_RESULT + 48		/* 1 */
	movb	$2, FRESH + 0x1000
	call	*%rbx
	movq	%rax, G_RESULT + 56		/* 0x201 */
	/* bytes across two pages that are no instruction, until the second changes */
	movb	$0x0f, FRESH + 0xfff
	movb	$0x04, FRESH + 0x1000
	leaq	7f(%rip), %rax
	movq	%rax, G_RECOVER
	movl	$FRESH + 0xfff, %ebx
	jmp	*%rbx				/* #UD */
7:	movb	$0x1f, FRESH + 0x1000		/* nopl (%rax) */
	movb	$0x00, FRESH + 0x1001
	movb	$0xc3, FRESH + 0x1002
	call	*%rbx
	/* a page that gets mapped elsewhere under running code */
	movb	$0xb0, FRESH + 0x2000
	movb	$1, FRESH + 0x2001
	movb	$0xc3, FRESH + 0x2002
	movb	$0xb0, FRESH + 0x3000
	movb	$2, FRESH + 0x3001
	movb	$0xc3, FRESH + 0x3002
	movl	$FRESH + 0x2000, %ebx
	xorl	%eax, %eax
	call	*%rbx
	movq	%rax, G_RESULT + 64		/* 1 */
	movq	$(FRESH + 0x3000) | 3, G_PTE(FRESH + 0x2000)
	invlpg	FRESH + 0x2000
	call	*%rbx
	movq	%rax, G_RESULT + 72		/* 2 */
	jmp	8f
4:	movl	$1, %eax
	ret
	.balign	16
5:	movl	$0x21, %r8d
	ret
	.balign	16
	movl	$0x43, %r9d
	ret
	.balign	16
8:	END	self_modifying

/* --- string instructions that fault half way ------------------------------------------------------------ */

#define HOLE	(G_KPAGE + 0x5000)

	PROG	string_faults
	HANDLER	14, 9f
	/* a source to recognise */
	movl	$256, %ecx
1:	leal	0x11(%rcx), %eax
	movb	%al, G_KPAGE(%rcx)
	loop	1b
	cld
	.macro	PUNCH
	andq	$~1, G_PTE(HOLE)
	invlpg	HOLE
	.endm
	PUNCH
	movl	$G_KPAGE + 1, %esi
	movl	$HOLE - 16, %edi
	movl	$64, %ecx
	rep movsb				/* fault 0 */
	movl	$G_KPAGE + 1, %esi
	movl	$HOLE - 16, %edi
	movl	$64, %ecx
	repe cmpsb
	movq	%rcx, G_RESULT + 0x100		/* 0: equal */
	PUNCH
	movl	$HOLE - 20, %edi
	movl	$8, %ecx
	movabsq	$0x0102030405060708, %rax
	rep stosq				/* fault 1: third element, across */
	movq	HOLE - 4, %rax
	movq	%rax, G_RESULT + 0x108
	PUNCH
	std
	movl	$HOLE + 31, %esi
	movl	$G_KPAGE + 0x800, %edi
	movl	$16, %ecx
	rep movsb				/* fault 2: at once */
	cld
	PUNCH
	movl	$HOLE - 3, %edi
	movl	$100, %ecx
	movb	$0xee, %al
	repne scasb				/* fault 3 */
	/* an instruction whose second half is on the missing page */
	movb	$0xb8, HOLE - 2
	movb	$0x77, HOLE - 1
	movl	$0, HOLE
	movb	$0xc3, HOLE + 3
	PUNCH
	movl	$HOLE - 2, %ebx
	call	*%rbx				/* fault 4 */
	movq	%rax, G_RESULT + 0x110		/* 0x77 */
	jmp	8f
9:	movq	G_RESULT + 0x118, %rbx
	movq	%rcx, G_RESULT(%rbx)
	movq	%rdi, G_RESULT + 8(%rbx)
	addq	$16, %rbx
	movq	%rbx, G_RESULT + 0x118
	orq	$1, G_PTE(HOLE)
	movl	$HOLE - 2, %ebx
	addq	$16, %rsp
	iretq
8:	END	string_faults

/* --- interrupts ---------------------------------------------------------------------------------------------- */

	PROG	interrupts
	APIC_ON
	HANDLER	0x40, 9f
	HANDLER	0x80, 9f
	HANDLER	0x81, 9f
	SELF_IPI 0x40
	nop
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT			/* 0: none yet */
	sti
	nop					/* the shadow */
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 8		/* 1: one */
	SELF_IPI 0x40
	nop
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 16		/* 2: two */
	cli
	SELF_IPI 0x40
	SELF_IPI 0x80
	SELF_IPI 0x81
	sti
	cli					/* no window */
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 24		/* 3: two */
	sti
	nop
	nop
	cli
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 32		/* 4: five, the highest first */
	/* task priority */
	movl	$8, %eax
	movq	%rax, %cr8
	sti
	SELF_IPI 0x80
	nop
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 40		/* 5: five */
	xorl	%eax, %eax
	movq	%rax, %cr8
	nop
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 48		/* 6: six */
	/* into user mode and from there */
	cli
	SELF_IPI 0x40
	leaq	1f(%rip), %rax
	movq	%rax, G_RECOVER
	USER	2f, 0x202
2:	int	$0x82				/* #GP: back */
1:	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 56		/* 7: seven */
	jmp	8f
9:	incq	G_RESULT + 0x100
	EOI_AND_RETURN
8:	END	interrupts

	PROG	timers
	APIC_ON
	HANDLER	0x41, 9f
	MSR_PUT	0x83e, 0xb			/* divide by 1 */
	MSR_PUT	0x832, 0x41			/* one shot */
	MSR_PUT	0x838, 20000
	sti
	hlt
	cli
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT			/* 1 */
	movl	$0x839, %ecx
	rdmsr
	movq	%rax, G_RESULT + 8		/* 0: run down */
	MSR_PUT	0x832, 0x40041			/* TSC deadline */
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	addq	$100000, %rax
	movq	%rax, %rbx
	movq	%rax, %rdx
	shrq	$32, %rdx
	movl	$0x6e0, %ecx
	wrmsr
	sti
	hlt
	cli
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	subq	%rbx, %rax
	sets	%al
	movzbl	%al, %eax
	movq	%rax, G_RESULT + 16		/* 0: not early */
	movl	$0x6e0, %ecx
	rdmsr
	movq	%rax, G_RESULT + 24		/* 0: disarmed */
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 32		/* 2 */
	MSR_PUT	0x832, 0x20041			/* periodic */
	MSR_PUT	0x838, 1000000
	sti
1:	cmpq	$12, G_RESULT + 0x100
	jb	1b
	cli
	MSR_PUT	0x838, 0
	movq	$1, G_RESULT + 40
	jmp	8f
9:	incq	G_RESULT + 0x100
	EOI_AND_RETURN
8:	END	timers

	/* The same work, alone and under a storm of interrupts. */
	.macro	WORK
	movl	$20000, %ecx
	movabsq	$0x9e3779b97f4a7c15, %rbx
	movl	$1, %eax
	cvtsi2sd %eax, %xmm1
	movapd	%xmm1, %xmm0
1:	imulq	%rbx, %rax
	addq	%rcx, %rax
	rorq	$13, %rax
	adcq	$0, %rbx
	pushq	%rax
	addl	%ecx, (%rsp)
	popq	%rdx
	xorq	%rdx, %rbx
	lahf
	movzbl	%ah, %edx
	addq	%rdx, %rbx
	cvtsi2sd %rbx, %xmm2
	addsd	%xmm2, %xmm0
	fld1
	fadd	%st, %st
	fstpl	G_RESULT + 0x200
	addsd	G_RESULT + 0x200, %xmm0
	movl	%ecx, G_KPAGE(, %rcx, 4)
	loop	1b
	movq	%xmm0, %rdx
	xorq	%rdx, %rax
	xorq	%rbx, %rax
	.endm

	PROG	interrupted_work
	WORK
	movq	%rax, G_RESULT
	APIC_ON
	HANDLER	0x41, 9f
	MSR_PUT	0x83e, 0xb
	MSR_PUT	0x832, 0x20041
	MSR_PUT	0x838, 1000000
	sti
2:	WORK
	xorq	G_RESULT, %rax
	orq	%rax, G_RESULT + 8		/* 0: the same each time */
	cmpq	$20, G_RESULT + 0x100
	jb	2b
	cli
	MSR_PUT	0x838, 0
	/* and with a trap after every instruction */
	HANDLER	1, 7f
	pushfq
	orq	$0x100, (%rsp)
	popfq
	WORK
	pushfq
	andq	$~0x100, (%rsp)
	popfq
	movq	%rax, G_RESULT + 16		/* the same */
	jmp	8f
9:	incq	G_RESULT + 0x100
	movq	$G_LOG, G_LOGPTR
	EOI_AND_RETURN
7:	incq	G_RESULT + 0x108
	movq	$G_LOG, G_LOGPTR
	addq	$16, %rsp
	iretq
8:	END	interrupted_work

/* --- modes of the FPU ------------------------------------------------------------------------------------------- */

	PROG	fpu_modes
	CR_SET	cr0, CR0_TS
	FAULT	movaps %xmm0, %xmm1
	FAULT	fld1
	FAULT	fwait
	FAULT	movq %mm0, %mm1
	clts
	fninit
	CR_SET	cr0, CR0_EM
	FAULT	movaps %xmm0, %xmm1
	FAULT	fld1
	FAULT	movq %mm0, %mm1
	CR_CLEAR cr0, CR0_EM
	movl	$0, %ecx
	FAULT	xgetbv
	FAULT	vaddps %ymm0, %ymm1, %ymm2
	FAULT	xsave G_KPAGE
	CR_SET	cr4, CR4_OSXSAVE
	FAULT	vaddps %ymm0, %ymm1, %ymm2	/* XCR0 is 1 */
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	movl	$5, %eax
	leaq	1f(%rip), %rbx
	movq	%rbx, G_RECOVER
	xsetbv					/* AVX without SSE */
1:	xorl	%ecx, %ecx
	xorl	%edx, %edx
	movl	$7, %eax
	xsetbv
	vxorps	%ymm0, %ymm0, %ymm0
	xgetbv
	movq	%rax, G_RESULT
	CR_SET	cr0, CR0_TS
	FAULT	vaddps %ymm0, %ymm1, %ymm2
	FAULT	xrstor G_KPAGE
	clts
	/* exceptions of x87 and SSE */
	fninit
	movw	$0x37b, G_KPAGE			/* divide by zero unmasked */
	fldcw	G_KPAGE
	fld1
	fldz
	fdivrp
	FAULT	fwait
	FAULT	fld1
	fnclex
	fninit
	movl	$0x1d80, G_KPAGE
	ldmxcsr	G_KPAGE
	movl	$1, %ebx
	cvtsi2ss %ebx, %xmm0
	xorps	%xmm1, %xmm1
	FAULT	divss %xmm1, %xmm0
	cvttss2si %xmm0, %rbx
	movq	%rbx, G_RESULT + 8		/* unchanged: 1 */
	stmxcsr	G_KPAGE
	movl	G_KPAGE, %ebx
	movq	%rbx, G_RESULT + 16		/* 0x1d84: flag set */
	CR_CLEAR cr4, CR4_OSXMMEXCPT
	FAULT	divss %xmm1, %xmm0
	CR_SET	cr4, CR4_OSXMMEXCPT
	movl	$0x10000, G_KPAGE
	FAULT	ldmxcsr G_KPAGE
	FAULT	movaps G_KPAGE + 8, %xmm0
	FAULT	fxrstor G_KPAGE + 8
	FAULT	xrstor G_KPAGE + 16
	/* an image whose header asks for a component that is off */
	movl	$G_KPAGE + 0x1000, %edi
	xorl	%eax, %eax
	movl	$832 / 8, %ecx
	rep stosq
	movq	$0x40, G_KPAGE + 0x1000 + 512
	movl	$-1, %eax
	movl	$-1, %edx
	leaq	2f(%rip), %rbx
	movq	%rbx, G_RECOVER
	xrstor	G_KPAGE + 0x1000
2:	nop
	END	fpu_modes

	PROG	general_protection
	movabsq	$0x800000000000, %rbx
	FAULT	movq (%rbx), %rcx
	movabsq	$0x7ffffffffffd, %rbx
	movq	%rbx, %rsi
	FAULT	jmp *%rbx			/* not mapped: #PF */
	movl	$0xdead, %ecx
	FAULT	rdmsr
	FAULT	wrmsr
	FAULT	MSR_PUT 0xc0000080, 0xd02		/* EFER: reserved bit */
	FAULT	CR_SET cr4, 0x40000000
	FAULT	CR_CLEAR cr4, 0x20		/* PAE in long mode */
	FAULT	CR_CLEAR cr0, 1			/* PG without PE */
	movl	$G_KPAGE + 8, %ebx
	FAULT	lock cmpxchg16b (%rbx)
	CR_SET	cr4, CR4_TSD
	UFAULT	rdtsc
	rdtsc
	CR_CLEAR cr4, CR4_TSD
	FAULT	.byte 0xf0, 0x90		/* lock nop */
	FAULT	.byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, \
		      0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90
	FAULT	.byte 0x06			/* push es: not in 64-bit mode */
	END	general_protection

	.section .note.GNU-stack, "", @progbits
