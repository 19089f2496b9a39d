/* SPDX-License-Identifier: MIT */
/*
 * probe_guest.S - the guest that kvm_probe.c runs to see whether KVM works.
 *
 * Loaded at 0x10000 and entered in long mode with everything mapped one to one
 * and reachable from user mode, interrupts off, GDT and IDT in place.  It says
 * which step it begins by writing the step's number to port 0x80, and 0xff when
 * it has done all.  Every handler is a stub that leaves the vector in r14.
 */
#define STEP(n)	movb $n, %al; outb %al, $0x80

	.section .rodata
	.balign 16
	.globl kvm_probe_guest, kvm_probe_guest_end
	.hidden kvm_probe_guest, kvm_probe_guest_end
	.globl kvm_probe_bp, kvm_probe_pf, kvm_probe_timer
	.hidden kvm_probe_bp, kvm_probe_pf, kvm_probe_timer
kvm_probe_guest:
	STEP(1)				/* privileged operations */
	movq %cr3, %rax
	movq %rax, %cr3
	invlpg 0x2000
	movl $0xc0000102, %ecx		/* KERNEL_GS_BASE */
	xorl %edx, %edx
	movl $0x1234, %eax
	wrmsr
	swapgs
	movl $0xc0000101, %ecx
	rdmsr
	cmpl $0x1234, %eax
	jne fail
	swapgs
	cli
	pushfq
	popq %rax

	STEP(2)				/* int3 */
	xorl %r14d, %r14d
	int3
	cmpl $3, %r14d
	jne fail

	STEP(3)				/* cmpxchg16b */
	movl $0x7000, %esi
	movq $1, (%rsi)
	movq $2, 8(%rsi)
	movl $1, %eax
	movl $2, %edx
	movl $3, %ebx
	movl $4, %ecx
	lock cmpxchg16b (%rsi)
	jne fail
	cmpq $3, (%rsi)
	jne fail

	STEP(4)				/* XSAVE */
	movl $3, %eax
	xorl %edx, %edx
	xorl %ecx, %ecx
	xsetbv
	movl $0x7800, %esi
	fninit
	xsave64 (%rsi)
	xrstor64 (%rsi)

	STEP(5)				/* a page fault, handled */
	xorl %r14d, %r14d
	leaq 1f(%rip), %r15
	movq 0x40000000, %rax
1:	cmpl $14, %r14d
	jne fail
	movq %cr2, %rax
	cmpq $0x40000000, %rax
	jne fail

	STEP(6)				/* to user mode and back */
	leaq 1f(%rip), %rcx
	movl $2, %r11d
	movq %rsp, %r13
	movl $0x7700, %esp
	sysretq
1:	syscall
	/* LSTAR points here (kvm_probe_sys) */
	.globl kvm_probe_sys
	.hidden kvm_probe_sys
kvm_probe_sys:
	movq %r13, %rsp
	movl $0x20, %eax
	movw %cs, %ax
	testb $3, %al
	jne fail

	STEP(7)				/* a timer interrupt, and HLT */
	xorl %r14d, %r14d
	xorl %edx, %edx
	movl $0x80f, %ecx		/* x2APIC spurious vector: on */
	movl $0x1ff, %eax
	wrmsr
	movl $0x83e, %ecx		/* divide by 1 */
	movl $0xb, %eax
	wrmsr
	movl $0x832, %ecx		/* LVT timer: one shot, vector 0x40 */
	movl $0x40, %eax
	wrmsr
	movl $0x838, %ecx		/* initial count */
	movl $20000, %eax
	wrmsr
1:	sti
	hlt
	cli
	cmpl $0x40, %r14d
	jne 1b
	movl $0x80b, %ecx		/* EOI */
	xorl %eax, %eax
	wrmsr

	STEP(8)				/* kernel code at a usable speed */
	movl $1000000, %ecx
1:	decl %ecx
	jne 1b

	STEP(0xff)
1:	cli
	hlt
	jmp 1b
fail:
	STEP(0xfe)
1:	cli
	hlt
	jmp 1b

kvm_probe_bp:
	movl $3, %r14d
	iretq
kvm_probe_pf:
	movl $14, %r14d
	addq $8, %rsp
	movq %r15, (%rsp)
	iretq
kvm_probe_timer:
	movl $0x40, %r14d
	iretq
kvm_probe_guest_end:
	.section .note.GNU-stack, "", @progbits
