/* SPDX-License-Identifier: MIT */
/* guest_rt.S - what a bare-metal test guest does with exceptions; guest.h. */
#include "tests/lib/guest_layout.h"

	.section .rodata.guest, "a", @progbits
	.balign	16
	.globl	guest_rt, guest_rt_end
guest_rt:
	.set	vec, 0
	.rept	256
	.balign	16
	.if !((vec == 8) | ((vec >= 10) & (vec <= 14)) | (vec == 17))
	pushq	$0
	.endif
	pushq	$vec
	jmp	common
	.set	vec, vec + 1
	.endr

	/* stack: vector, error, rip, cs, rflags, rsp, ss */
common:
	pushq	%rax
	pushq	%rbx
	movq	G_LOGPTR, %rbx
	movq	16(%rsp), %rax
	movq	%rax, G_REC_VECTOR(%rbx)
	movq	24(%rsp), %rax
	movq	%rax, G_REC_ERROR(%rbx)
	movq	32(%rsp), %rax
	movq	%rax, G_REC_RIP(%rbx)
	movq	40(%rsp), %rax
	movq	%rax, G_REC_CS(%rbx)
	movq	48(%rsp), %rax
	movq	%rax, G_REC_RFLAGS(%rbx)
	movq	56(%rsp), %rax
	movq	%rax, G_REC_RSP(%rbx)
	movq	%cr2, %rax
	movq	%rax, G_REC_CR2(%rbx)
	movq	%dr6, %rax
	movq	%rax, G_REC_DR6(%rbx)
	addq	$G_REC_SIZE, %rbx
	cmpq	$G_LOG + 0xf000, %rbx
	ja	end
	movq	%rbx, G_LOGPTR
	movq	16(%rsp), %rbx
	cmpq	$0, G_HANDLERS(, %rbx, 8)
	je	recover
	/* the handler finds vector and error on the stack, as they were pushed */
	movq	G_HANDLERS(, %rbx, 8), %rax
	xchgq	%rax, 8(%rsp)
	popq	%rbx
	ret

recover:
	movq	G_RECOVER, %rax
	testq	%rax, %rax
	jz	end
	movq	$0, G_RECOVER
	movq	%rax, 32(%rsp)
	testb	$3, 40(%rsp)
	jz	1f
	movq	$G_CS, 40(%rsp)		/* from user mode: a fresh stack */
	movq	$G_STACK, 56(%rsp)
	movq	$G_SS, 64(%rsp)
1:	andq	$~0x40100, 48(%rsp)	/* AC, TF */
	popq	%rbx
	popq	%rax
	addq	$16, %rsp
	iretq

end:
	outb	%al, $G_PORT_END
	jmp	end
	.balign	16
guest_rt_end:

	.section .note.GNU-stack, "", @progbits
