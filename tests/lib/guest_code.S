/* SPDX-License-Identifier: MIT */
/*
 * guest_code.S - bare-metal programs about code that is hot when something happens to
 * it: written, remapped, forbidden, interrupted, faulting in its middle, returned
 * to.  tests/cpu/test_system.c knows the answers.
 */
#include "tests/lib/guest_asm.h"

#define SMALL	(G_KPAGE + 0x20000)	/* free supervisor pages from here */
#define BUF	(SMALL + 0x10000)
#define OTHER	(SMALL + 0x20000)	/* the same frames as SMALL, where mapped */
#define TABLES	(SMALL + 0x30000)

	.section .rodata.guest, "a", @progbits

/* --- a compiler at work ----------------------------------------------------------------- */

#define ROUNDS 2100

	/*
	 * Each round makes a function of twelve bytes in one of fifteen places, in one
	 * of seven ways, and calls it, the one before, and it twice again.
	 * r12: round; r13: sum; r14: its place; r15: the place before.
	 */
	PROG	code_generator
	movl	$SMALL, %ebx			/* four pages under a second name */
	xorl	%ecx, %ecx
1:	leaq	3(%rbx), %rax
	movq	%rax, G_PTE(OTHER)(, %rcx, 8)
	addl	$0x1000, %ebx
	incl	%ecx
	cmpl	$4, %ecx
	jb	1b
	xorl	%r12d, %r12d
	xorl	%r13d, %r13d
	leaq	none(%rip), %r15
round:	movb	$0xb8, BUF			/* mov $round, %eax */
	movl	%r12d, BUF + 1
	movabsq	$0x90c3c5014940048d, %rax	/* lea (%rax,%rax,2), %eax; add %rax, %r13; ret */
	movq	%rax, BUF + 5
	/* the place: page by three, offset by five, the last across two pages */
	movl	%r12d, %eax
	xorl	%edx, %edx
	movl	$3, %ecx
	divl	%ecx
	shll	$12, %edx
	leal	SMALL(%rdx), %r14d
	movl	%r12d, %eax
	xorl	%edx, %edx
	movl	$5, %ecx
	divl	%ecx
	leaq	places(%rip), %rax
	movzwl	(%rax,%rdx,2), %eax
	addl	%eax, %r14d
	/* the way */
	movl	%r12d, %eax
	xorl	%edx, %edx
	movl	$7, %ecx
	divl	%ecx
	movl	$BUF, %esi
	movl	%r14d, %edi
	movl	$12, %ecx
	movq	BUF, %rax
	movl	BUF + 8, %ebx
	cld
	cmpl	$1, %edx
	jb	way0
	je	way1
	cmpl	$3, %edx
	jb	way2
	je	way3
	cmpl	$5, %edx
	jb	way4
	je	way5
	/* 6: as devices do */
	movq	%rsi, G_DMA
	movq	%rdi, G_DMA + 8
	movq	%rcx, G_DMA + 16
	outb	%al, $G_PORT_DMA
	jmp	2f
way0:	movb	BUF - 1(%rcx), %al		/* byte by byte, backwards */
	movb	%al, -1(%rdi,%rcx)
	loop	way0
	jmp	2f
way1:	movq	%rax, (%rdi)
	movl	%ebx, 8(%rdi)
	jmp	2f
way2:	movq	%rax, OTHER - SMALL(%rdi)	/* under its other name */
	movl	%ebx, OTHER - SMALL + 8(%rdi)
	jmp	2f
way3:	rep movsb
	jmp	2f
way4:	movb	$0xcc, %al			/* traps first, then from its end */
	rep stosb
	movl	$12, %ecx
	decl	%edi
	leaq	11(%rsi), %rsi
	std
	rep movsb
	cld
	jmp	2f
way5:	lock xchgq %rax, (%rdi)
	movdqu	BUF, %xmm0
	movdqu	%xmm0, (%rdi)
2:	call	*%r14
	call	*%r15
	call	*%r14
	call	*%r14
	movq	%r14, %r15
	incl	%r12d
	cmpl	$ROUNDS, %r12d
	jb	round
	movq	%r13, G_RESULT
	jmp	8f
none:	ret
	.balign	2
places:	.word	0x010, 0x040, 0x7fb, 0x7c, 0xffa
8:	END	code_generator

/* --- blocks of which every access may fault -------------------------------------------------- */

	/*
	 * Twelve accesses to eight pages in one block, flags alive across all of them.
	 * rsi: first page.  Result in rax.
	 */
	.macro	TOUCH
	movq	%rsp, %r8
	leaq	0x5800(%rsi), %rsp
	movl	$0x1234, %edx
	xorl	%eax, %eax
	addq	(%rsi), %rax
	adcq	0x1000(%rsi), %rax
	movq	%rax, 0x2000(%rsi)
	adcq	%rdx, 0x3000(%rsi)
	movl	$7, %ebx
	setc	0x4001(%rsi)
	adcq	%rbx, %rax
	pushq	%rax
	pushfq
	popq	%rbx
	andl	$0x8d5, %ebx
	popq	%rcx
	leaq	(%rcx,%rbx,8), %rax
	movdqu	0x6ff9(%rsi), %xmm0		/* pages 6 and 7 */
	movq	%xmm0, %rcx
	sbbq	%rcx, %rax
	lock xaddq %rax, 0x7100(%rsi)
	adcq	0x7100(%rsi), %rax
	adcq	0x3000(%rsi), %rax
	adcb	0x4001(%rsi), %al
	movq	%r8, %rsp
	.endm

	PROG	faults_in_blocks
	movb	$1, G_IDT + 14 * 16 + 4		/* its own stack: the block's may be missing */
	HANDLER	14, 9f
	movl	$SMALL, %esi
	call	fill
	call	touch
	movq	%rax, %r12
	call	fill
	call	touch
	xorq	%r12, %rax
	movq	%rax, G_RESULT			/* 0: repeats */
	xorl	%ebp, %ebp			/* bit set of pages */
	movl	$~1, %r13d			/* missing */
1:	call	fill
	call	take
	call	touch
	xorq	%r12, %rax
	orq	%rax, G_RESULT + 8		/* 0: always the same */
	incl	%ebp
	cmpl	$256, %ebp
	jb	1b
	movl	$~2, %r13d			/* then read only */
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 16		/* 1024 faults */
	movq	$0, G_RESULT + 0x100
	xorl	%ebp, %ebp
2:	call	fill
	call	take
	call	touch
	xorq	%r12, %rax
	orq	%rax, G_RESULT + 8
	incl	%ebp
	cmpl	$256, %ebp
	jb	2b
	movq	G_RESULT + 0x100, %rax
	movq	%rax, G_RESULT + 24		/* five of them are written: 640 */
	jmp	8f

	.balign	64
touch:	TOUCH
	ret
	/* all pages there, and what is in them */
fill:	xorl	%ecx, %ecx
3:	orq	$3, G_PTE(SMALL)(, %rcx, 8)
	incl	%ecx
	cmpl	$8, %ecx
	jb	3b
	movl	$0x1000, %ecx
	movabsq	$0xc3a5c85c97cb3127, %rax
4:	movq	%rax, -8(%rsi,%rcx,8)
	imulq	$0x10001, %rax, %rax
	incq	%rax
	loop	4b
	ret
	/* takes r13 off the entries in bit set ebp */
take:	xorl	%ecx, %ecx
5:	btl	%ecx, %ebp
	jnc	6f
	movslq	%r13d, %rax
	andq	%rax, G_PTE(SMALL)(, %rcx, 8)
6:	movl	%ecx, %eax
	shll	$12, %eax
	invlpg	SMALL(%rax)
	incl	%ecx
	cmpl	$8, %ecx
	jb	5b
	ret
9:	pushq	%rax
	movq	%cr2, %rax
	shrq	$12, %rax
	orq	$3, G_PT0(, %rax, 8)
	incq	G_RESULT + 0x100
	movq	$G_LOG, G_LOGPTR
	popq	%rax
	addq	$16, %rsp
	iretq
8:	END	faults_in_blocks

/* --- what is taken from hot code must be gone -------------------------------------------------- */

#define DATA	SMALL
#define HOT	(SMALL + 0x8000)

	PROG	hot_permissions
	HANDLER	14, 9f
	leaq	hot(%rip), %rsi			/* the hot code, in a page of its own */
	movl	$HOT, %edi
	movl	$hot_end - hot, %ecx
	cld
	rep movsb
	movl	$HOT, %ebx
	movl	$DATA, %edi
	xorl	%ebp, %ebp
	call	warm
	/* 0: read only; the handler allows it again */
	andq	$~2, G_PTE(DATA)
	invlpg	DATA
	call	*%rbx
	/* 1: not there */
	andq	$~1, G_PTE(DATA)
	invlpg	DATA
	call	*%rbx
	/* 2, 3: another frame, by INVLPG, then the old one by CR3 */
	call	warm
	movq	$(DATA + 0x1000) | 0x63, G_PTE(DATA)
	invlpg	DATA
	movl	$0x1111, %eax
	call	*%rbx
	call	warm
	movq	DATA + 0x1000, %rax		/* its own name */
	movq	%rax, G_RESULT + 16
	movq	$DATA | 0x63, G_PTE(DATA)
	movq	%cr3, %rax
	movq	%rax, %cr3
	movl	$0x2222, %eax
	call	*%rbx
	movq	DATA + 0x1000, %rax
	movq	%rax, G_RESULT + 24		/* the same as before */
	/* 4: no longer code; the handler allows it again */
	btsq	$63, G_PTE(HOT)
	invlpg	HOT
	call	*%rbx
	/* 5: code that is not there */
	call	warm
	andq	$~1, G_PTE(HOT)
	invlpg	HOT
	call	*%rbx
	/* 6: WP back again */
	CR_CLEAR cr0, CR0_WP
	andq	$~2, G_PTE(DATA)
	invlpg	DATA
	call	warm
	CR_SET	cr0, CR0_WP
	call	*%rbx
	/* 7, 8: a user page, SMAP on, with and without AC */
	orq	$4, G_PTE(DATA)
	orq	$4, G_PD
	orq	$4, G_PDPT
	invlpg	DATA
	call	warm
	CR_SET	cr4, CR4_SMAP
	call	*%rbx
	stac
	call	warm
	clac
	call	*%rbx
	movq	%rbp, G_RESULT			/* faults */
	jmp	8f

	/* hot as can be */
warm:	movl	$60, %ecx
1:	call	*%rbx
	loop	1b
	ret
	.balign	16
hot:	movq	%rax, (%rdi)
	addq	%rax, 8(%rdi)
	addq	(%rdi), %rax
	ret
hot_end:

	/* notes the error code and repairs what vector 14 found */
9:	movq	8(%rsp), %rdx
	movq	%rdx, G_RESULT + 0x100(, %rbp, 8)
	incl	%ebp
	orq	$3, G_PTE(DATA)
	orq	$3, G_PTE(HOT)
	btrq	$63, G_PTE(HOT)
	cmpl	$6, %ebp
	jb	2f
	orq	$0x40000, 32(%rsp)		/* AC, for SMAP */
2:	addq	$16, %rsp
	iretq
8:	END	hot_permissions

/* --- code that both user mode and the kernel run ------------------------------------------------- */

#define UHOT	(G_UPAGE + 0x8000)
#define UDATA	(G_UPAGE + 0x9000)

	/* rcx times the number at rdi, by one of two ways; then to rbx */
	PROG	both_levels
	leaq	hot2(%rip), %rsi
	movl	$UHOT, %edi
	movl	$hot2_end - hot2, %ecx
	cld
	rep movsb
	movq	$1, UDATA
	movq	$3, DATA

	.macro	BY_USER data, way
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	leaq	78f(%rip), %rbx
	addq	$G_USER, %rbx
	movl	$\data, %edi
	movl	$\way, %esi
	movl	$100, %ecx
	xorl	%eax, %eax
	pushq	$G_USS
	pushq	$G_USTACK
	pushq	$2
	pushq	$G_UCS
	pushq	$UHOT
	iretq
78:	ud2
77:
	.endm

	.macro	BY_KERNEL data, way
	leaq	77f(%rip), %rbx
	movq	%rbx, G_RECOVER
	movl	$\data, %edi
	movl	$\way, %esi
	movl	$100, %ecx
	xorl	%eax, %eax
	movl	$UHOT, %edx
	jmp	*%rdx
77:
	.endm

	/* no flush of a TLB from here on */
	CR_SET	cr4, CR4_SMAP
	BY_USER	UDATA, 1
	movq	%rax, G_RESULT			/* 0: 100 */
	BY_KERNEL UDATA, 1			/* a fault */
	movq	%rax, G_RESULT + 8		/* 1: 0 */
	BY_KERNEL DATA, 1
	movq	%rax, G_RESULT + 16		/* 2: 300 */
	BY_USER	UDATA, 1
	movq	%rax, G_RESULT + 24		/* 3: 100 */
	BY_USER	UDATA, 0			/* a way that the kernel has not gone */
	movq	%rax, G_RESULT + 32		/* 4: 100 */
	BY_KERNEL UDATA, 0			/* a fault */
	movq	%rax, G_RESULT + 40		/* 5: 0 */
	BY_KERNEL DATA, 0
	movq	%rax, G_RESULT + 48		/* 6: 300 */
	BY_USER	DATA, 0				/* a fault */
	movq	%rax, G_RESULT + 56		/* 7: 0 */
	stac
	BY_KERNEL UDATA, 0
	movq	%rax, G_RESULT + 64		/* 8: 100 */
	clac
	BY_KERNEL UDATA, 1			/* a fault */
	BY_USER	UDATA, 0
	movq	%rax, G_RESULT + 72		/* 9: 100 */
	jmp	8f

	.balign	16
hot2:	testl	%esi, %esi
	jz	2f
	addq	(%rdi), %rax
1:	decl	%ecx
	jnz	hot2
	jmp	*%rbx
2:	addq	(%rdi), %rax
	jmp	1b
hot2_end:
8:	END	both_levels

/* --- what lies behind a call may change before the return --------------------------------------- */

#define CALLER	(SMALL + 0x4000)

	/*
	 * CALLER calls *%rbx and loads a number behind it.  Functions that change where
	 * it comes back to, or what is there, each of them called when it is hot.
	 */
	PROG	changed_returns
	HANDLER	14, 9f
	call	restore
	/* a second frame with 3 in it, and a third with 4 */
	movl	$CALLER, %esi
	movl	$CALLER + 0x1000, %edi
	movl	$0x400, %ecx
	rep movsq
	movl	$3, CALLER + 0x1000 + number - caller
	movl	$4, CALLER + 0x2000 + number - caller
	movq	$CALLER | 3, G_PTE(OTHER)
	/* page tables of which CALLER is the third frame */
	movl	$G_PML4, %esi
	movl	$TABLES, %edi
	movl	$0x800, %ecx
	rep movsq
	movq	$TABLES + 0x1000 + 7, TABLES
	movq	$TABLES + 0x2000 + 7, TABLES + 0x1000
	movq	$TABLES + 0x3000 + 7, TABLES + 0x2000
	movq	$CALLER + 0x2000 + 3, TABLES - G_PT0 + 0x3000 + G_PTE(CALLER)

	.macro	TRY fn, result
	leaq	\fn(%rip), %rbx
	movl	$CALLER, %eax
	call	*%rax
	movq	%rax, G_RESULT + 8 * \result
	call	restore
	.endm

	TRY	plain, 0			/* 1 */
	TRY	patch, 1			/* 2 */
	TRY	patch_alias, 2			/* 2 */
	TRY	remap, 3			/* 3 */
	TRY	forbid, 4			/* 1, by a fault */
	TRY	other_space, 5			/* 4 */
	movl	$G_PML4, %eax
	movq	%rax, %cr3
	TRY	skip, 6				/* 0x77 */
	TRY	two_up, 7			/* 0x88 */
	TRY	by_jump, 8			/* 1 */
	TRY	patch, 9			/* 2 */
	/* deeper than any stack of returns */
	movl	$300, %ecx
	xorl	%eax, %eax
	call	deep
	movq	%rax, G_RESULT + 80		/* 45150 */
	/* many returns were under way to one place when its way was found */
	movb	$0xc3, deepest(%rip)
	movl	$300, %ecx
	xorl	%eax, %eax
	call	deep
	movq	%rax, G_RESULT + 88
	jmp	8f

	/* CALLER as it was, at its own frame; and hot */
restore:
	movq	$CALLER | 3, G_PTE(CALLER)
	invlpg	CALLER
	leaq	caller(%rip), %rsi
	movl	$CALLER, %edi
	movl	$caller_end - caller, %ecx
	cld
	rep movsb
	leaq	plain(%rip), %rbx
	movl	$60, %r12d
1:	movl	$CALLER, %eax
	call	*%rax
	decl	%r12d
	jnz	1b
	ret

	.balign	16
caller:	nop
	call	*%rbx
back:	movl	$1, %eax
number = . - 4
	ret
caller_end:

plain:	ret
patch:	movb	$2, CALLER + number - caller
	ret
patch_alias:
	movb	$2, OTHER + number - caller
	ret
remap:	movq	$(CALLER + 0x1000) | 3, G_PTE(CALLER)
	invlpg	CALLER
	ret
forbid:	btsq	$63, G_PTE(CALLER)
	invlpg	CALLER
	ret
other_space:
	movl	$TABLES, %eax
	movq	%rax, %cr3
	ret
skip:	movl	$0x77, %eax
	addq	$5, (%rsp)
	ret
two_up:	movl	$0x88, %eax
	addq	$8, %rsp
	ret
by_jump:
	popq	%rdx
	jmp	*%rdx
deep:	addq	%rcx, %rax
	decl	%ecx
	jz	1f
	call	deep
1:
deepest: ret

9:	movq	16(%rsp), %rax			/* where: behind the call */
	subq	$CALLER + back - caller, %rax
	movq	%rax, G_RESULT + 0x100
	btrq	$63, G_PTE(CALLER)
	addq	$16, %rsp
	iretq
8:	END	changed_returns

/* --- ways out of a page, whose end is changed ----------------------------------------------------- */

#define WAY	(SMALL + 0x6000)
#define WAY_END	(WAY + 0x1000)		/* with 1 in it; the next frames have 2 and 3 */
#define UWAY	(WAY + G_USER)
#define UWAY_END (UWAY + 0x1000)

	/*
	 * Four kinds of branches lead from one page to the next, which returns a
	 * number.  `ways` takes each of them forty times and puts the numbers together.
	 */
	PROG	changed_ways
	HANDLER	14, 9f
	movl	$WAY, %edi
	call	make
	movl	$UWAY, %edi
	call	make
	movl	$G_PML4, %esi
	movl	$TABLES, %edi
	movl	$0xa00, %ecx
	rep movsq
	movq	$TABLES + 0x1000 + 7, TABLES
	movq	$TABLES + 0x2000 + 7, TABLES + 0x1000
	movq	$TABLES + 0x3000 + 7, TABLES + 0x2000
	movq	$TABLES + 0x4000 + 7, TABLES + 0x2008
	movq	$(UWAY_END + 0x2000) | 7, TABLES - G_PT0 + 0x3000 + G_PTE(UWAY_END)

	/* kernel code, in global pages */
	.macro	WAYS result
	movl	$WAY, %ebx
	call	ways
	movq	%r12, G_RESULT + 8 * \result
	.endm

	orq	$0x100, G_PTE(WAY)
	orq	$0x100, G_PTE(WAY_END)
	CR_SET	cr4, CR4_PGE
	WAYS	0				/* 1111 */
	movq	$(WAY_END + 0x1000) | 0x103, G_PTE(WAY_END)
	invlpg	WAY_END
	WAYS	1				/* 2222 */
	movq	$WAY_END | 0x103, G_PTE(WAY_END)
	invlpg	WAY_END
	WAYS	2				/* 1111 */
	movb	$5, WAY_END + 1
	WAYS	3				/* 5555 */
	movb	$1, WAY_END + 1
	WAYS	4
	btsq	$63, G_PTE(WAY_END)
	invlpg	WAY_END
	WAYS	5				/* 1111, after a fault */
	movq	$(WAY_END + 0x1000) | 0x103, G_PTE(WAY_END)
	CR_CLEAR cr4, CR4_PGE
	CR_SET	cr4, CR4_PGE
	WAYS	6				/* 2222 */

	/* user code, in two address spaces */
	.macro	UWAYS result
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	movl	$UWAY, %ebx
	USER	78f
78:	call	ways
	ud2
77:	movq	%r12, G_RESULT + 8 * \result
	.endm
	.macro	SPACE tables, pcid, keep
	movl	$\tables + \pcid, %eax
	.if	\keep
	btsq	$63, %rax
	.endif
	movq	%rax, %cr3
	.endm

	UWAYS	7				/* 1111 */
	SPACE	TABLES, 0, 0
	UWAYS	8				/* 3333 */
	SPACE	G_PML4, 0, 0
	UWAYS	9				/* 1111 */
	CR_SET	cr4, CR4_PCIDE
	SPACE	TABLES, 1, 0
	UWAYS	10				/* 3333 */
	SPACE	G_PML4, 0, 1
	UWAYS	11				/* 1111 */
	SPACE	TABLES, 1, 1
	UWAYS	12				/* 3333 */
	movq	$(UWAY_END + 0x1000) | 7, TABLES - G_PT0 + 0x3000 + G_PTE(UWAY_END)
	invlpg	UWAY_END
	UWAYS	13				/* 2222 */
	SPACE	G_PML4, 0, 1
	UWAYS	14				/* 1111 */
	movq	$(UWAY_END + 0x2000) | 7, G_PTE(UWAY_END)
	invlpg	UWAY_END
	UWAYS	15				/* 3333 */
	jmp	8f

	/* rdi: where the page of branches goes, and three ends behind it */
make:	leaq	way(%rip), %rsi
	movl	$way_end - way, %ecx
	leaq	0x1000(%rdi), %rdx
	rep movsb
	movl	$1, %ecx
1:	movb	$0xb8, (%rdx)			/* mov $n, %eax */
	movl	%ecx, 1(%rdx)
	movb	$0xc3, 5(%rdx)			/* ret */
	addq	$0x1000, %rdx
	incl	%ecx
	cmpl	$4, %ecx
	jb	1b
	ret

	/* rbx: where the four start; r12: what they say */
ways:	leaq	0x1000(%rbx), %rax
	movq	%rax, way_slot - way(%rbx)
	movl	$40, %r13d
1:	xorl	%r12d, %r12d
	movl	$4, %r14d
	movq	%rbx, %r15
2:	call	*%r15
	imull	$10, %r12d
	addl	%eax, %r12d
	addq	$16, %r15
	decl	%r14d
	jnz	2b
	decl	%r13d
	jnz	1b
	ret

	.balign	16
way:	call	way + 0x1000
	ret
	.balign	16
	call	*way_slot(%rip)
	ret
	.balign	16
	jmp	*way_slot(%rip)
	.balign	16
	testq	%rsp, %rsp
	jnz	way + 0x1000
	ret
	.balign	64
way_slot: .quad 0
way_end:

9:	btrq	$63, G_PTE(WAY_END)
	addq	$16, %rsp
	iretq
8:	END	changed_ways

/* --- interrupts wherever they may come ------------------------------------------------------------ */

#define STORM 1500

	/* Short blocks, calls, the stack, strings, flags across it all. */
	.macro	STORM_WORK
	movl	$3000, %ecx
	movl	$1, %eax
	movl	$0x1234567, %ebx
1:	call	2f
	testb	$1, %al
	jz	3f
	rcll	$3, %ebx
	jmp	4f
2:	addl	%ecx, %eax
	rorl	%eax
	pushfq
	popq	%rdx
	andl	$0x8d5, %edx
	xorl	%edx, %eax
	ret
3:	sbbl	%eax, %ebx
4:	movl	%ebx, SMALL(, %rcx, 4)
	pushq	%rcx
	leal	SMALL(, %rcx, 4), %esi
	movl	$SMALL + 0x8ffe, %edi		/* across a page */
	movl	$3, %ecx
	rep movsb
	movb	-1(%rdi), %dl
	adcb	%dl, %al
	popq	%rcx
	decl	%ecx
	jnz	1b
	movl	%eax, %eax
	shlq	$32, %rbx
	orq	%rbx, %rax
	.endm

	PROG	interrupt_storm
	cld
	STORM_WORK
	movq	%rax, G_RESULT
	APIC_ON
	HANDLER	0x41, 9f
	MSR_PUT	0x83e, 0xb			/* by one, once */
	MSR_PUT	0x832, 0x41
	MSR_PUT	0x838, 1000
	sti
5:	STORM_WORK
	xorq	G_RESULT, %rax
	orq	%rax, G_RESULT + 8		/* 0: always the same */
	cmpq	$STORM, G_RESULT + 0x100
	jb	5b
	cli
	movq	$1, G_RESULT + 16
	jmp	8f
	/* the next one soon, at another place */
9:	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	incq	G_RESULT + 0x100
	movq	$G_LOG, G_LOGPTR
	movl	$0x838, %ecx
	imull	$1103515245, G_RESULT + 0x100, %eax
	shrl	$18, %eax
	incl	%eax
	xorl	%edx, %edx
	wrmsr
	MSR_PUT	0x80b, 0
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq
8:	END	interrupt_storm

/* --- blocks that go while others remember them ------------------------------------------------ */

	/*
	 * A function of two blocks: a short instruction and a branch, which is linked to the
	 * other. The caller remembers the first. Both are changed, in this order.
	 */
	PROG	short_start
	cld
	leaq	6f(%rip), %rsi
	movl	$SMALL, %edi
	movl	$7f - 6f, %ecx
	rep movsb
	movl	$SMALL, %r14d
	xorl	%r12d, %r12d
	xorl	%r13d, %r13d
1:	movl	%r12d, SMALL + 5f - 6f - 6
	movl	%r12d, SMALL + 5f - 6f + 1
	movl	$40, %ebx
2:	movl	$5, %eax
	movl	$1, %ecx
	call	*%r14
	addq	%rax, %r13
	decl	%ebx
	jnz	2b
	incl	%r12d
	cmpl	$100, %r12d
	jb	1b
	movq	%r13, G_RESULT
	jmp	8f
6:	subl	%ecx, %eax
	ja	5f
	movl	$0x11223344, %eax
	nop
	ret
5:	movl	$0x11223344, %eax
	addl	%eax, %eax
	ret
7:
8:	END	short_start

	.section .note.GNU-stack, "", @progbits
