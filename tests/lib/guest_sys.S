/* SPDX-License-Identifier: MIT */
/*
 * guest_sys.S - more programs for tests/cpu/test_system.c (see guest_progs.S): what
 * the software CPU remembers of descriptors, tables and pages, and must notice to
 * have changed.
 */
#include "tests/lib/guest_asm.h"

	.section .rodata.guest, "a", @progbits

#define ONE	(G_KPAGE + 0x10000)	/* frames with a function each */
#define TWO	(G_KPAGE + 0x11000)
#define TABLES	(G_KPAGE + 0x20000)	/* of MANY pages */
#define MANY	0x800000
#define NR_MANY	5120

	/*
	 * The same function at so many addresses that nobody can remember them all; then
	 * every 16th is another one, and is called after INVLPG.
	 */
	PROG	many_code_pages
	movl	$0x00c3c3ff, ONE	/* incl %ebx; ret */
	movl	$0xc310c383, TWO	/* addl $16, %ebx; ret */
	movl	$TABLES, %edi
	movl	$NR_MANY, %ecx
	movl	$ONE | 3, %eax
	rep stosq
	movl	$TABLES | 3, %eax
	movl	$G_PD + 8 * (MANY >> 21), %edi
1:	movq	%rax, (%rdi)
	addl	$8, %edi
	addl	$0x1000, %eax
	cmpl	$(TABLES + NR_MANY * 8) | 3, %eax
	jb	1b
	xorl	%ebx, %ebx
	movl	$3, %r12d
2:	movl	$MANY, %esi
3:	call	*%rsi
	addl	$0x1000, %esi
	cmpl	$MANY + NR_MANY * 0x1000, %esi
	jb	3b
	decl	%r12d
	jnz	2b
	movq	%rbx, G_RESULT			/* 0: three times all */
	xorl	%ebx, %ebx
	movl	$MANY, %esi
	movl	$TABLES, %edi
4:	movq	$TWO | 3, (%rdi)
	invlpg	(%rsi)
	call	*%rsi
	addl	$0x10000, %esi
	addl	$128, %edi
	cmpl	$MANY + NR_MANY * 0x1000, %esi
	jb	4b
	movq	%rbx, G_RESULT + 8		/* 1: all */
	END	many_code_pages

/*
 * An instruction of which three bytes are in one page and two in the next: the same
 * first page before two second ones, each of which changes when the code is hot.
 */
#define FRAME	(G_KPAGE + 0x10000)	/* the first page, then three second ones */
#define NEAR	(G_KPAGE + 0x80000)	/* FRAME, FRAME + 0x1000 */
#define FAR	(G_KPAGE + 0x90000)	/* FRAME, FRAME + 0x2000 */
#define MOVE	0xffd

	PROG	straddling
	HANDLER	14, 9f
	movw	$0xd1ff, FRAME + MOVE - 2	/* call *%rcx */
	movl	$0x000000b8, FRAME + MOVE	/* movl $0x....0000, %eax; ret */
	movl	$0x00c30001, FRAME + 0x1000
	movl	$0x00c30002, FRAME + 0x2000
	movl	$0x00c30003, FRAME + 0x3000
	movq	$FRAME | 3, G_PTE(NEAR)
	movq	$(FRAME + 0x1000) | 3, G_PTE(NEAR + 0x1000)
	movq	$FRAME | 3, G_PTE(FAR)
	movq	$(FRAME + 0x2000) | 3, G_PTE(FAR + 0x1000)
	leaq	7f(%rip), %rcx
	xorl	%ebx, %ebx
	call	5f
	movq	%rbx, G_RESULT			/* 0: 100 * (1 + 2) */
	movb	$4, FRAME + 0x1000		/* the bytes in the second page */
	call	6f
	movq	%rbx, G_RESULT + 8		/* 1: 4 + 2 */
	movb	$5, FRAME + MOVE + 1		/* those in the first */
	call	6f
	movq	%rbx, G_RESULT + 16		/* 2 */
	movq	%rdx, G_RESULT + 24		/* 3: 2 * 5 */
	movq	$(FRAME + 0x3000) | 3, G_PTE(FAR + 0x1000)
	invlpg	FAR + 0x1000
	call	6f
	movq	%rbx, G_RESULT + 32		/* 4: 4 + 3 */
	movq	$(FRAME + 0x2000) | 3, G_PTE(FAR + 0x1000)
	invlpg	FAR + 0x1fff
	call	6f
	movq	%rbx, G_RESULT + 40		/* 5: 4 + 2 */
	btsq	$63, G_PTE(NEAR + 0x1000)
	invlpg	NEAR + 0x1000
	call	6f
	movq	%rbx, G_RESULT + 48		/* 6: 0 + 2, and a fault */
	jmp	8f

	/* a hundred times both, through the call that comes before */
5:	movl	$100, %r12d
	jmp	1f
6:	movl	$1, %r12d
1:	xorl	%ebx, %ebx
	xorl	%edx, %edx
2:	movl	$NEAR + MOVE - 2, %esi
	call	3f
	movl	$FAR + MOVE - 2, %esi
	call	3f
	decl	%r12d
	jnz	2b
	ret
3:	call	*%rsi
	movzwl	%ax, %ebp
	addl	%ebp, %edx
	shrl	$16, %eax
	addl	%eax, %ebx
	ret
7:	ret
9:	movq	16(%rsp), %rax
	movq	%rax, G_RESULT + 56		/* 7: where it was */
	btrq	$63, G_PTE(NEAR + 0x1000)
	invlpg	NEAR + 0x1000
	leaq	7b(%rip), %rax
	movq	%rax, 16(%rsp)
	xorl	%eax, %eax
	addq	$16, %rsp
	iretq
8:	END	straddling

	.section .note.GNU-stack, "", @progbits
