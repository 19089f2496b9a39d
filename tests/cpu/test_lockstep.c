// SPDX-License-Identifier: MIT
/*
 * test_lockstep.c - does lockstep see what it is for?  A wrong translation is
 * made of a right one by changing a byte of host code, and must be reported; the right
 * one must not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "tests/lib/lockstep.h"
#include "tests/lib/softbox.h"
#include "vmm/soft/jit.h"

/* 200 rounds of everything that may be spoiled below. */
GUEST(work, "mov $200, %ecx; mov $0x300000, %edi; xor %eax, %eax; mov $3, %edx\n"
	    "cvtsi2sd %edx, %xmm1; movapd %xmm1, %xmm0; jmp 1f\n"
	    "1: add $0x51, %rax; movl $0x11223344, (%rdi); addsd %xmm1, %xmm0\n"
	    "cmp $0x7a000010, %eax; setb %dl; add %edx, %eax; dec %ecx; jnz 1b; hlt");

struct seen {
	unsigned differences;
	char *report;
};

static void differs(void *arg, const char *report)
{
	struct seen *s = arg;

	s->differences++;
	s->report = strdup(report);
}

/* Replaces the last byte of a sequence in all that is translated. */
static unsigned spoil(struct jit *j, const uint8_t *bytes, size_t n, uint8_t last)
{
	unsigned done = 0;

	for (size_t at = j->thunks; at + n <= j->used; at++) {
		if (memcmp(j->rw + at, bytes, n))
			continue;
		j->rw[at + n - 1] = last;
		done++;
	}
	return done;
}

static void go(struct box *b)
{
	b->cpu->rip = BOX_CODE;
	b->cpu->halted = false;
	assert_int_equal(box_go(b), SOFT_STOP_HLT);
}

/* Runs right, then with the sequence's last byte replaced. */
static struct seen run_spoiled(const uint8_t *bytes, size_t n, uint8_t last)
{
	struct seen seen = { 0 };
	const struct lockstep_calls calls = { .differs = differs, .arg = &seen };
	struct lockstep *l;
	struct box b;

	box_init(&b);
	b.cpu->bare = true;
	b.start.cr4 |= CR4_OSXSAVE;	/* else vector code is the interpreter's */
	b.start.xcr0 = b.model.xcr0_mask;
	assert_int_equal(jit_init(b.cpu), 0);
	l = lockstep_attach(b.cpu, &calls);
	assert_non_null(l);
	box_load(&b, work_begin, work_end);
	go(&b);
	go(&b);
	assert_int_equal(seen.differences, 0);
	assert_true(lockstep_stat(l)->instructions > 2 * 200 * 5);
	if (n) {
		assert_int_not_equal(spoil(b.cpu->jit, bytes, n, last), 0);
		go(&b);
	}
	lockstep_detach(l);
	box_done(&b);
	return seen;
}

static void expect(const uint8_t *bytes, size_t n, uint8_t last, const char *what)
{
	struct seen seen = run_spoiled(bytes, n, last);

	assert_int_equal(seen.differences, 1);
	assert_non_null(strstr(seen.report, what));
	free(seen.report);
}

static void test_right_code_is_not_reported(void **state)
{
	run_spoiled(NULL, 0, 0);
}

/* add rax, imm8 */
static void test_register(void **state)
{
	static const uint8_t add[] = { 0x48, 0x83, 0xc0, 0x51 };

	expect(add, sizeof(add), 0x52, "rax");
}

/* the immediate that a store stores */
static void test_memory(void **state)
{
	static const uint8_t imm[] = { 0x44, 0x33, 0x22, 0x11 };

	expect(imm, sizeof(imm), 0x10, "memory at gpa 0x300000");
}

/* what a comparison compares with: a flag, then a register */
static void test_flags(void **state)
{
	static const uint8_t imm[] = { 0x10, 0, 0, 0x7a };

	expect(imm, sizeof(imm), 0, "rdx");
}

/* addsd to mulsd */
static void test_vector_register(void **state)
{
	static const uint8_t addsd[] = { 0x0f, 0x58 };

	expect(addsd, sizeof(addsd), 0x59, "XSAVE area");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right_code_is_not_reported),
		cmocka_unit_test(test_register),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_vector_register),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
