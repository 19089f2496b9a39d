#!/bin/bash
# SPDX-License-Identifier: MIT
# Guests that crash, hang, flood or execute garbage end with a message, and
# leave nothing.  Most are a few instructions in an ELF file, given as the kernel.
. "$(dirname "$0")/lib.sh"
need_base

kernel() { # name, assembly on stdin -> $scratch/name
	{ printf '.text\n.globl _start\n_start:\n'; cat; } >"$scratch/$1.s"
	as -o "$scratch/$1.o" "$scratch/$1.s" &&
		ld -Ttext=0x1000000 -o "$scratch/$1" "$scratch/$1.o" 2>/dev/null
}

# kernel name, seconds, code pattern, message pattern
ends_with() {
	run machinen boot --timeout "$2" --memory 512 --kernel "$scratch/$1" -- true
	is "$1: status" "$status" 1
	like "$1: code" "$err" "^machinen: \(($3)\)"
	[ -z "${4:-}" ] || like "$1: reason" "$err" "$4"
	is "$1: nothing left" "$(find "$MACHINEN_HOME/vms" -mindepth 1 ! -name .lock ! -name names)" ""
}

kernel triple <<-'A'
	lidt none(%rip)
	ud2
none:	.fill 16
A
ends_with triple 60 BOOT_READINESS_FAILED 'triple fault'

kernel spin <<-'A'
1:	jmp 1b
A
ends_with spin 1 BOOT_TIMEOUT

kernel halt <<-'A'
	cli
	hlt
	jmp _start
A
ends_with halt 1 BOOT_TIMEOUT

# every port and every device register, all sizes, then a line and a crash
kernel poke <<-'A'
	xor %edx, %edx
1:	cmp $0x600, %edx	/* not where the guest powers off */
	jb 2f
	cmp $0x700, %edx
	jb 3f
2:	inb %dx, %al
	inl %dx, %eax
	mov $0xff, %eax
	outl %eax, %dx
	outb %al, %dx
3:	inc %edx
	cmp $0x10000, %edx
	jne 1b
	mov $0xd0000000, %rdi
4:	movb (%rdi), %al
	movl (%rdi), %eax
	movq (%rdi), %rax
	movl $-1, (%rdi)
	movq %rax, 1(%rdi)
	add $4, %rdi
	mov $0xd0020000, %rcx
	cmp %rcx, %rdi
	jb 4b
	lidt none(%rip)
	ud2
none:	.fill 16
A
run machinen boot --timeout 60 --memory 512 --kernel "$scratch/poke" -- true
ok "poke: ends by itself" [ "$status" = 1 ]
like "poke: code" "$err" '^machinen: \(BOOT_'

kernel flood <<-'A'
	mov $0x3f8, %edx
1:	mov $'x', %al
	outb %al, %dx
	jmp 1b
A
ends_with flood 2 BOOT_TIMEOUT 'xxxx'

for n in 1 2 3 4 5 6; do
	kernel "garbage$n" <<<"$(for i in {1..64}; do
		printf '.byte 0x%s\n' "$(printf '%s %s' "$n" "$i" | sha256sum |
			cut -c1-32 | sed 's/../&,0x/g; s/,0x$//')"
	done)"
	ends_with "garbage$n" 2 'BOOT_TIMEOUT|BOOT_READINESS_FAILED'
done

: >"$scratch/empty"
ends_with empty 5 BOOT_KERNEL_NOT_FOUND
head -c 100000 "$MACHINEN_ASSETS_DIR/vmlinuz" >"$scratch/cut"
ends_with cut 5 BOOT_KERNEL_NOT_FOUND

# an exit of the guest for each of its bytes, and some more
flood=$((1024 / ${TEST_SLOW:-1}))K
run machinen boot --timeout 300 -- sh -c "yes flood | head -c $flood >/dev/console; exit 3"
is "a flooded console: status" "$status" 3
finish
