/* SPDX-License-Identifier: MIT */
/*
 * guest_board.S - bare-metal programs that meet the board: doorbells, interrupt
 * lines, another CPU, a clock.  tests/cpu/test_accel.c plays the other side.
 */
#include "tests/lib/guest_asm.h"

#define DEVICES	0x800000	/* virtual: the first 2 MiB of the virtio window */
#define IOAPIC	0xa00000	/* virtual, in the page behind */

	.section .rodata.guest, "a", @progbits

	PROG	rings_doorbells
	movl	$0xd0000083, %eax
	movq	%rax, G_PD + 8 * 4
	movl	$7, DEVICES + 0x1050
	movl	$8, DEVICES + 0x1050		/* not this one's */
	movl	$7, DEVICES + 0x2050		/* nor that */
	movl	$7, DEVICES + 0x1050
	END	rings_doorbells

	/* The other side raises line 9 when asked to; three times. */
	PROG	hears_lines
	APIC_ON
	MSR_PUT	0x835, 0x10000			/* KVM's PIC is on LINT0 at reset */
	HANDLER	0x42, 9f
	movl	$0xfec00083, %eax
	movq	%rax, G_PD + 8 * 5
	movl	$0x10 + 2 * 9, IOAPIC
	movl	$0x42, IOAPIC + 0x10		/* edge, to CPU 0 */
1:	outb	%al, $G_PORT_ASK
	sti
	hlt
	cli
	cmpq	$3, G_RESULT
	jb	1b
	jmp	8f
9:	incq	G_RESULT
	EOI_AND_RETURN
8:	END	hears_lines

	PROG	writes_pages
	movb	$1, G_KPAGE + 0x3000
	movb	$1, G_UPAGE + 0x7fff
	movb	$1, G_LARGE + 0x5000
	END	writes_pages

	/* What CPU 1 does in real mode, copied to G_AP; then it is called. */
	PROG	calls_another
	leaq	other(%rip), %rsi
	movl	$G_AP, %edi
	movl	$other_end - other, %ecx
	rep movsb
	APIC_ON
	MSR_PUT	0x830, 0x4500, 1		/* INIT */
	MSR_PUT	0x830, 0x4600 + (G_AP >> 12), 1	/* SIPI */
	jmp	8f
	.code16
other:	movw	$G_RESULT >> 4, %ax
	movw	%ax, %ds
	movw	$0x1234, 0
	outb	%al, $G_PORT_END
	hlt
other_end:
	.code64
8:	END	calls_another

	/* Between the two looks it is stopped, and started again. */
	PROG	looks_at_clock
	MSR_PUT	0x4b564d01, G_KPAGE + 1
	movb	G_KPAGE + 29, %al		/* flags */
	movb	%al, G_RESULT
	outb	%al, $G_PORT_ASK
	movb	G_KPAGE + 29, %al
	movb	%al, G_RESULT + 8
	END	looks_at_clock

	.section .note.GNU-stack, "", @progbits
