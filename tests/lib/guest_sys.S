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

/*
 * SYSCALL and SYSRET, hot, with all kinds of flags; then with registers of theirs
 * changed.  What each side finds is compared with what it must be; differences
 * gather in r14.  User: r12 counts, r15 has the flags before the call.
 */
#define FLAGS	(G_RESULT + 0x200)	/* R11 of the SYSRET */
#define MASK	(G_RESULT + 0x208)
#define CALL_CS	(G_RESULT + 0x210)
#define ENTRIES	(G_RESULT + 0x218)	/* by the second LSTAR */
#define RETURN	(G_RESULT + 0x220)	/* where the user side began */
#define UDS	(G_RESULT + 16)		/* 2 to 7: events */
#define GPS	(G_RESULT + 24)
#define STEPS	(G_RESULT + 32)
#define IRQS	(G_RESULT + 40)
#define PFS	(G_RESULT + 48)
#define READS	(G_RESULT + 56)
#define TIMES	50
#define USABLE	0x247ed5		/* flags, but TF */

	.macro	DIFFER reg, want:vararg		/* clobbers the register */
	xorq	\want, \reg
	orq	\reg, %r14
	.endm

	.macro	CALLS n, back
	leaq	\back(%rip), %rax
	movq	%rax, RETURN
	movl	$\n, %r12d
	USER	10b
	.endm

	PROG	hot_calls
	jmp	1f
	/* --- user mode */
10:	pushfq
	popq	%r15
	syscall
12:	pushfq
	popq	%rax
	movq	%rcx, %rdi
	movl	%cs, %ebx
	DIFFER	%rbx, $G_UCS
	movl	%ss, %ebx
	DIFFER	%rbx, $G_USS
	leaq	12b(%rip), %rbx
	DIFFER	%rdi, %rbx
	DIFFER	%r11, %r13			/* which SYSRET leaves alone */
	orl	$2, %r13d
	DIFFER	%rax, %r13
	decl	%r12d
	jnz	10b
	int	$0x80
	/* --- the kernel's entry, and a second one */
20:	pushfq
	popq	%rax
	movq	%r11, %rdx
	DIFFER	%rdx, %r15
	movl	MASK, %edx
	notl	%edx
	andl	%edx, %r15d
	orl	$2, %r15d
	DIFFER	%rax, %r15
	movl	%cs, %eax
	DIFFER	%rax, CALL_CS
	movl	%ss, %eax
	subl	$8, %eax
	DIFFER	%rax, CALL_CS
	movq	%rsp, %rax
	DIFFER	%rax, $G_USTACK
	imull	$1103515245, FLAGS, %eax
	addl	$12345, %eax
	movl	%eax, FLAGS
	shrl	$9, %eax
	andl	$USABLE, %eax
	movq	%rax, %r11
	movq	%rax, %r13
21:	sysretq
22:	movl	ENTRIES, %eax
	leal	1(%rax), %eax			/* not INC: flags */
	movl	%eax, ENTRIES
	jmp	20b
	/* --- #UD, #GP, INT 0x80: what was tried has ended */
30:	incl	UDS
	jmp	33f
31:	incl	GPS
33:	movl	$G_STACK, %esp
	pushq	$2
	popfq
	jmp	*RETURN
	/* --- #DB and an interrupt */
34:	incl	STEPS
	andq	$~0x100, 32(%rsp)
	addq	$16, %rsp
	iretq
35:	incl	IRQS
	EOI_AND_RETURN

	.macro	AGAIN first, next
	leaq	\next(%rip), %rax
	movq	%rax, RETURN
	\first
	.endm

1:	leaq	20b(%rip), %rax
	cdq
	movl	$0xc0000082, %ecx
	wrmsr					/* LSTAR */
	MSR_PUT	0xc0000081, 0, 0x001b0008	/* STAR */
	MSR_PUT	0xc0000084, 0x40700		/* SFMASK: AC DF IF TF */
	movq	$0x40700, MASK
	movq	$G_CS, CALL_CS
	movq	$0, ENTRIES
	HANDLER	6, 30b
	HANDLER	13, 31b
	HANDLER	0x80, 33b
	HANDLER	1, 34b
	HANDLER	0x41, 35b
	xorl	%r14d, %r14d
	CALLS	100, 2f
2:	MSR_PUT	0xc0000084, 0
	movq	$0, MASK
	CALLS	100, 3f
3:	MSR_PUT	0xc0000084, 0xffffffff
	movl	$0xffffffff, %eax
	movq	%rax, MASK
	CALLS	100, 4f
4:	MSR_PUT	0xc0000081, 0, 0x00180103
	movq	$0x100, CALL_CS
	CALLS	50, 5f
5:	leaq	22b(%rip), %rax
	cdq
	movl	$0xc0000082, %ecx
	wrmsr
	CALLS	50, 6f
6:	movl	ENTRIES, %eax
	movq	%rax, G_RESULT + 8		/* 1: 50 */
	movq	%r14, G_RESULT			/* 0: no difference */
	/* each so often that it is hot: without EFER.SCE */
	MSR_PUT	0xc0000080, 0xd00
	movl	$TIMES, %ebp
7:	AGAIN	"jmp 21b", 8f			/* #UD */
8:	AGAIN	"USER 10b", 9f			/* #UD */
9:	decl	%ebp
	jnz	7b
	MSR_PUT	0xc0000080, 0xd01
	/* with TF; and with an interrupt that waits for IF */
	APIC_ON
	movl	$TIMES, %ebp
7:	leaq	13f + G_USER(%rip), %rcx
	movl	$0x102, %r11d
	movl	$G_USTACK, %esp
	AGAIN	"jmp 21b", 8f			/* #DB behind the next one */
8:	SELF_IPI 0x41
	leaq	13f + G_USER(%rip), %rcx
	movl	$0x202, %r11d
	movl	$G_USTACK, %esp
	AGAIN	"jmp 21b", 9f
9:	decl	%ebp
	jnz	7b
	/* with AC, which SMAP asks for: masked, user pages fault; else they do not */
	leaq	25f(%rip), %rax
	cdq
	movl	$0xc0000082, %ecx
	wrmsr
	HANDLER	14, 26f
	CR_SET	cr4, CR4_SMAP
	MSR_PUT	0xc0000084, 0x40700
	movl	$TIMES, %ebp
7:	AGAIN	"USER 24f", 8f
8:	decl	%ebp
	jnz	7b
	MSR_PUT	0xc0000084, 0
	movl	$TIMES, %ebp
7:	AGAIN	"USER 24f", 8f
8:	decl	%ebp
	jnz	7b
	CR_CLEAR cr4, CR4_SMAP
	jmp	27f
24:	pushq	$0x40002
	popfq
	syscall
25:	movl	$G_STACK, %esp
	movb	G_UPAGE, %bl
	incl	READS
	jmp	33b
26:	incl	PFS
	jmp	33b
27:
	/* to an address that is none, and by a user */
	movl	$TIMES, %ebp
7:	movabsq	$0x800000000000, %rcx
	AGAIN	"jmp 21b", 8f			/* #GP */
8:	leaq	13f + G_USER(%rip), %rcx
	movl	$2, %r11d
	AGAIN	"USER 21b", 9f			/* #GP */
9:	decl	%ebp
	jnz	7b
	jmp	8f
13:	nop
	int	$0x80
8:
	END	hot_calls

/*
 * Under SMAP the same code, in a user page, run by both levels and by the kernel with
 * AC set and clear, each time hot: it may know where its TLB is.
 */
#define READER	(G_UPAGE + 0x5000)

	PROG	levels
	CR_SET	cr4, CR4_SMAP
	stac
	movl	$0x4603068b, READER		/* movl (%rsi), %eax; addl 4(%rsi), %eax; */
	movl	$0x03e7ff04, READER + 4		/* jmp *%rdi */
	movl	$0x11, G_UPAGE
	movl	$0x22, G_UPAGE + 4
	clac
	movl	$0x100, G_KPAGE
	movl	$0x200, G_KPAGE + 4
	xorl	%r14d, %r14d
	movl	$READER, %r13d

	.macro	READS_ page, times
	movl	$\page, %esi
	leaq	77f(%rip), %rdi
	movl	$\times, %r12d
78:	jmp	*%r13
77:	addl	%eax, %r14d
	decl	%r12d
	jnz	78b
	.endm

	READS_	G_KPAGE, 40			/* kernel */
	movl	$G_KPAGE, %esi
	UFAULT	jmp *%r13
	READS_	G_KPAGE, 40
	leaq	2f(%rip), %rax
	movq	%rax, G_RECOVER
	USER	1f
1:	READS_	G_UPAGE, 40			/* user */
	movl	$G_KPAGE, %esi
	jmp	*%r13				/* #PF, and on at 2 */
2:	READS_	G_KPAGE, 40			/* kernel again */
	movl	$G_UPAGE, %esi
	FAULT	jmp *%r13
	stac
	READS_	G_UPAGE, 40			/* with AC */
	READS_	G_KPAGE, 40
	clac
	movl	$G_UPAGE, %esi
	FAULT	jmp *%r13
	READS_	G_KPAGE, 40
	movl	%r14d, %eax
	movq	%rax, G_RESULT			/* 0: 200 * 0x300 + 80 * 0x33 */
	END	levels

	/* selectors to memory and to registers of all sizes, hot */
	PROG	selectors
	movl	$30, %ebp
1:	movq	$-1, G_RESULT
	movw	%ss, G_RESULT			/* 0: 16 bits */
	movq	$-1, %rax
	movw	%ss, %ax
	movq	%rax, G_RESULT + 8		/* 1: 16 bits */
	movq	$-1, %r9
	movw	%cs, %r9w
	movq	%r9, G_RESULT + 16		/* 2: 16 bits */
	movq	$-1, %r10
	movl	%cs, %r10d
	movq	%r10, G_RESULT + 24		/* 3 */
	movq	$-1, %rbx
	movq	%ss, %rbx
	movq	%rbx, G_RESULT + 32		/* 4 */
	movq	$-1, G_RESULT + 40
	movl	$G_RESULT, %ecx
	movw	%cs, 40(%rcx)			/* 5: 16 bits */
	movq	$-1, G_KPAGE
	movw	%cs, G_KPAGE
	decl	%ebp
	jnz	1b
	andq	$~2, G_PTE(G_KPAGE)
	invlpg	G_KPAGE
	FAULT	movw %ss, G_KPAGE
	movq	G_KPAGE, %rax
	movq	%rax, G_RESULT + 48		/* 6: as it was */
	END	selectors

/* --- XSAVE within a page and across two -------------------------------------------------- */

#define AREA	(G_KPAGE + 0x40000)	/* in one page */
#define SPLIT	(G_KPAGE + 0x50e80)	/* in two: the header is in the first */
#define CLEAN	(G_KPAGE + 0x60000)
#define SIZE	832
#define MXCSR_AT 24

	/* Both areas filled; the header tells of all, and of a component that none is. */
	.macro	FILL area
	movl	$\area, %edi
	movl	$SIZE, %ecx
	movb	$0xa5, %al
	rep stosb
	movl	$\area + 520, %edi
	movl	$56, %ecx
	xorl	%eax, %eax
	rep stosb
	movq	$0x207, \area + 512
	.endm

	/* The same instruction on both; what differs goes to r14. */
	.macro	SAME insn, mask
	FILL	AREA
	FILL	SPLIT
	movl	$\mask, %eax
	xorl	%edx, %edx
	\insn	AREA
	\insn	SPLIT
	movl	$AREA, %esi
	movl	$SPLIT, %edi
	movl	$SIZE, %ecx
	repe cmpsb
	setne	%al
	orb	%al, %r14b
	incl	%r15d
	.endm

	.macro	FAULT7 insn:vararg		/* with a mask of all */
	leaq	77f(%rip), %rax
	movq	%rax, G_RECOVER
	movl	$7, %eax
	\insn
77:
	.endm

	PROG	xsave_areas
	cld
	CR_SET	cr4, CR4_OSXSAVE
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	movl	$7, %eax
	xsetbv
	xorl	%r14d, %r14d
	xorl	%r15d, %r15d
	movl	$CLEAN, %edi
	movl	$SIZE, %ecx
	xorl	%eax, %eax
	rep stosb
	movl	$CLEAN, %edi
	movw	$0x37f, (%rdi)
	movl	$0x1f80, 24(%rdi)
	xorl	%ebx, %ebx
1:	movl	$7, %eax			/* all as after a reset */
	xorl	%edx, %edx
	xrstor	CLEAN
	cmpl	$1, %ebx
	jb	2f
	fld1
	je	2f
	pcmpeqd	%xmm3, %xmm3
	cmpl	$3, %ebx
	jb	2f
	vinsertf128 $1, %xmm3, %ymm3, %ymm5
	je	2f
	pushq	$0x5f80
	ldmxcsr	(%rsp)
	popq	%rax
2:	SAME	xsave, 7
	SAME	xsave, 3
	SAME	xsave, 1
	SAME	xsave, 2
	SAME	xsave, 4
	SAME	xsaveopt, 0
	SAME	xsaveopt, 2
	SAME	xsaveopt, 6
	SAME	xsaveopt, 3
	movq	AREA + 512, %rax
	movq	%rax, G_RESULT + 32(, %rbx, 8)	/* 4 to 8: bits of what was in use */
	SAME	xsaveopt, 7
	/* both bring back the same */
	andq	$7, AREA + 512
	andq	$7, SPLIT + 512
	movl	$7, %eax
	xrstor	AREA
	xsave	AREA
	xrstor	SPLIT
	xsave	SPLIT
	movl	$AREA, %esi
	movl	$SPLIT, %edi
	movl	$SIZE, %ecx
	repe cmpsb
	setne	%al
	orb	%al, %r14b
	incl	%ebx
	cmpl	$5, %ebx
	jb	1b
	movq	%r14, G_RESULT			/* 0: all the same */
	movq	%r15, G_RESULT + 8		/* 1: 50 */
	movl	MXCSR_AT + AREA, %eax
	movq	%rax, G_RESULT + 16		/* 2 */
	/* what an image may not be, in both; state stays */
	.macro	BAD off, byte
	movb	$\byte, AREA + \off
	FAULT7	xrstor AREA
	movb	$0, AREA + \off
	movb	$\byte, SPLIT + \off
	FAULT7	xrstor SPLIT
	movb	$0, SPLIT + \off
	.endm
	BAD	513, 2
	BAD	520, 1
	BAD	528, 1
	BAD	MXCSR_AT + 2, 1
	FAULT7	xsave AREA + 8
	andq	$~2, G_PTE(AREA)
	invlpg	AREA
	FAULT7	xsaveopt AREA
	movl	$7, %eax
	xrstor	AREA
	xsave	SPLIT
	movl	SPLIT + MXCSR_AT, %eax
	movq	%rax, G_RESULT + 24		/* 3 */
	END	xsave_areas

	.section .note.GNU-stack, "", @progbits
