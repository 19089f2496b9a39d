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

	.section .note.GNU-stack, "", @progbits
