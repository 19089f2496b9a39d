/* SPDX-License-Identifier: MIT */
/* guest_asm.h - what bare-metal programs (guest_*.S) are written with. */
#ifndef TEST_GUEST_ASM_H
#define TEST_GUEST_ASM_H

#include "tests/lib/guest_layout.h"

#define CR0_TS 8
#define CR0_EM 4
#define CR0_WP 0x10000
#define CR4_TSD 4
#define CR4_DE 8
#define CR4_PGE 0x80
#define CR4_OSXMMEXCPT 0x400
#define CR4_FSGSBASE 0x10000
#define CR4_PCIDE 0x20000
#define CR4_OSXSAVE 0x40000
#define CR4_SMEP 0x100000
#define CR4_SMAP 0x200000

	.macro	PROG name
	.balign	16
	.globl	prog_\name
prog_\name:
	.endm

	.macro	END name
	outb	%al, $G_PORT_END
	jmp	. - 2
	.globl	prog_\name\()_end
prog_\name\()_end:
	.endm

	/* Runs what is to fault; goes on behind it.  Clobbers rax. */
	.macro	FAULT insn:vararg
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	\insn
77:
	.endm

	/* To user mode, at the label's copy there; flags are immediate. */
	.macro	USER label, flags=2
	pushq	$G_USS
	pushq	$G_USTACK
	pushq	$\flags
	pushq	$G_UCS
	leaq	\label(%rip), %rax
	addq	$G_USER, %rax
	pushq	%rax
	iretq
	.endm

	/* The same in user mode; comes back to level 0. */
	.macro	UFAULT insn:vararg
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	USER	78f
78:	\insn
	ud2
77:
	.endm

	.macro	HANDLER vector, label
	leaq	\label(%rip), %rax
	movq	%rax, G_HANDLERS + 8 * \vector
	.endm

	.macro	CR_SET cr, bits
	movq	%\cr, %rax
	orq	$\bits, %rax
	movq	%rax, %\cr
	.endm

	.macro	CR_CLEAR cr, bits
	movq	%\cr, %rax
	andq	$~\bits, %rax
	movq	%rax, %\cr
	.endm

	.macro	MSR_PUT msr, lo, hi=0
	movl	$\msr, %ecx
	movl	$\lo, %eax
	movl	$\hi, %edx
	wrmsr
	.endm

	/* x2APIC, enabled */
	.macro	APIC_ON
	movl	$0x1b, %ecx
	rdmsr
	orl	$0xc00, %eax
	wrmsr
	MSR_PUT	0x80f, 0x1ff
	.endm

	.macro	SELF_IPI vector
	MSR_PUT	0x83f, \vector
	.endm

	.macro	EOI_AND_RETURN
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	MSR_PUT	0x80b, 0
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq
	.endm

#endif
