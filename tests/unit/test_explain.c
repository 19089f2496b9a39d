// SPDX-License-Identifier: MIT
/* test_explain.c - what a crash says of the guest's CPU, whatever its tables hold. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "vmm/arch/x86/state.h"
#include "vmm/mem.h"

#define RAM	(64 * MIB)
#define PML4	0x1000u
#define PDPT	0x2000u
#define PD	0x3000u
#define PT	0x4000u
#define CODE	0x5000u
#define VA	0xffffffff81000000ull

static struct mem mem;
static struct x86_state state;

static void put64(gpa_t at, uint64_t v)
{
	assert_true(mem_write(&mem, at, &v, 8));
}

/* A kernel's address in a page of its own, and a large page beside it. */
static int make_guest(void **unused)
{
	static const uint8_t code[] = { 0x48, 0x89, 0xe5, 0x0f, 0x0b, 0xeb, 0xfe };
	struct err err = ERR_INIT;

	if (mem_init(&mem, RAM, -1, &err))
		return -1;
	put64(PML4 + 511 * 8, PDPT | 3);
	put64(PDPT + 510 * 8, PD | 3);
	put64(PD + 8 * 8, PT | 3);
	put64(PD + 9 * 8, 0x83);
	put64(PT, CODE | 3);
	mem_write(&mem, CODE, code, sizeof(code));
	memset(&state, 0, sizeof(state));
	state.cr0 = 0x80050033;
	state.cr3 = PML4 | 0x18;
	state.cr4 = 0x6f0;
	state.efer = 0xd01;
	state.rip = VA + 3;
	state.gpr[X86_RAX] = 0xabcdef;
	state.seg[X86_CS].sel = 0x10;
	state.seg[X86_SS].attr = 0xc0f3;
	return 0;
}

static int drop_guest(void **unused)
{
	mem_done(&mem);
	return 0;
}

static bool says(const struct err *err, const char *what)
{
	bool found = strstr(err_message(err), what);

	for (unsigned i = 0; err_cause(err, i); i++)
		found |= strstr(err_cause(err, i), what) != NULL;
	if (!found) {
		printf("# not said: %s\n#   %s\n", what, err_message(err));
		for (unsigned i = 0; err_cause(err, i); i++)
			printf("#   %s\n", err_cause(err, i));
	}
	return found;
}

static void explain(struct err *err)
{
	*err = (struct err)ERR_INIT;
	err_set(err, EIO, "the reason");
	x86_explain(&state, &mem, err);
	assert_true(says(err, "the reason"));
}

static void registers_and_code(void **unused)
{
	struct err err;

	explain(&err);
	assert_true(says(&err, "at rip 0xffffffff81000003 (cs 0x10, privilege 3)"));
	assert_true(says(&err, "code: 48 89 e5 <0f> 0b eb fe 00"));
	assert_true(says(&err, "rax 0xabcdef "));
	assert_true(says(&err, "cr3 0x1018 "));
}

static void code_in_a_large_page(void **unused)
{
	struct err err;

	state.rip = VA + 2 * MIB + CODE + 3;
	explain(&err);
	assert_true(says(&err, "<0f> 0b eb fe"));
}

static void code_without_paging(void **unused)
{
	struct err err;

	state.cr0 = 0x33;
	state.rip = CODE + 3;
	explain(&err);
	assert_true(says(&err, "<0f> 0b eb fe"));
}

/* At the edge of what is mapped, the rest is left out. */
static void code_that_begins_a_page(void **unused)
{
	struct err err;

	state.rip = VA;
	explain(&err);
	assert_true(says(&err, "code: <48> 89 e5 0f"));
}

static void no_code_to_be_read(void **unused)
{
	static const uint64_t nowhere[] = { 0, VA - 4096, 0x7fffffffffff, ~0ull };
	struct err err;

	for (unsigned i = 0; i < ARRAY_LEN(nowhere); i++) {
		state.rip = nowhere[i];
		explain(&err);
		assert_true(says(&err, "none can be read"));
	}
	state.rip = VA;
	put64(PT, 0xffffffffff000 | 3);		/* a frame that is no RAM */
	explain(&err);
	assert_true(says(&err, "none can be read"));
	state.cr3 = ~0ull;
	explain(&err);
	assert_true(says(&err, "none can be read"));
	state.cr4 |= 1 << 12;
	explain(&err);
	assert_true(says(&err, "none can be read"));
}

static void nothing_was_kept(void **unused)
{
	struct err err;

	memset(&state, 0, sizeof(state));
	state.rip = 0xfff0;
	state.cr0 = 0x60000010;
	explain(&err);
	assert_true(says(&err, "kept none of the guest's registers"));
}

/* All of it fits, at the widest. */
static void wide_values_fit(void **unused)
{
	struct err err;

	memset(state.gpr, 0xff, sizeof(state.gpr));
	state.cr2 = state.cr0 = state.efer = state.gdt.base = state.idt.base = ~0ull;
	state.rflags = state.rip = ~0ull;
	explain(&err);
	assert_true(says(&err, "r15 0xffffffffffffffff"));
	assert_true(says(&err, "idt 0xffffffffffffffff"));
	assert_true(says(&err, "at rip 0xffffffffffffffff"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, make_guest, drop_guest)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers_and_code), T(code_in_a_large_page), T(code_without_paging),
		T(code_that_begins_a_page), T(no_code_to_be_read), T(nothing_was_kept),
		T(wide_values_fit),
	};

	return cmocka_run_group_tests_name("explain", tests, NULL, NULL);
}
