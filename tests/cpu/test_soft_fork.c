// SPDX-License-Identifier: MIT
/*
 * test_soft_fork.c - translated code across a fork of the VMM: the child's CPU
 * goes on with it, and neither sees what the other does to its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/softbox.h"
#include "vmm/soft/insn.h"
#include "vmm/soft/jit.h"

static struct box box;

/* The byte at BOX_CODE + 1 is added a thousand times, in integers and in SSE. */
GUEST(work, "mov $3, %bl; movzx %bl, %ebx; mov $1000, %ecx; xor %eax, %eax\n"
	    "pxor %xmm0, %xmm0; movq %rbx, %xmm1\n"
	    "1: add %rbx, %rax; call 2f; dec %ecx; jnz 1b\n"
	    "movq %xmm0, %rdx; hlt\n"
	    "2: paddq %xmm1, %xmm0; ret");

/* Runs it from the start; what both sums are, or 0 when they differ. */
static uint64_t sum(void)
{
	if (soft_set_state(box.cpu, &box.start, NULL) || box_go(&box) != SOFT_STOP_HLT)
		return 0;
	return box_gpr(&box, X86_RAX) == box_gpr(&box, X86_RDX) ?
	       box_gpr(&box, X86_RAX) : 0;
}

static void change(uint8_t addend)
{
	box.mem.base[BOX_CODE + 1] = addend;
	block_wrote(box.cpu, BOX_CODE + 1, 1);
}

static uint64_t translated(void)
{
	return box.cpu->jit->stat.translated;
}

static void inherit(void)
{
	box.cpu->svm->hub.nr = 0;
	soft_cpu_inherit(box.cpu, box.cpu->svm, 0, &box.model);
	box.cpu->bare = box.cpu->deliver = true;
	jit_thread(box.cpu);
}

/* What `f` returns in a forked process whose CPU has taken over. */
static int in_sibling(int (*f)(void))
{
	int status = 0;
	pid_t pid;

	assert_int_equal(fp_fork(box.cpu), 0);
	assert_int_equal(jit_fork(box.cpu), 0);
	blocks_fork(box.cpu, true);
	pid = fork();
	if (!pid) {
		inherit();
		_exit(f());
	}
	jit_forked(box.cpu);
	blocks_fork(box.cpu, false);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Nothing is translated again, nor decoded, nor looked up in page tables. */
static int goes_on(void)
{
	uint64_t before = translated();

	return sum() == 3000 && translated() == before && !box.cpu->stat.decoded &&
	       !box.cpu->stat.tlb_walk ? 0 : 1;
}

/* Translations of addresses are of no use to a state that maps them otherwise. */
static int has_another_state(void)
{
	box.start.cr0 ^= CR0_WP;
	return sum() == 3000 && box.cpu->stat.tlb_walk ? 0 : 1;
}

static int changes_its_own(void)
{
	change(5);
	if (sum() != 5000)
		return 1;
	change(6);
	return sum() == 6000 ? 0 : 2;
}

static int forks_on(void)
{
	change(9);
	if (sum() != 9000 || in_sibling(changes_its_own))
		return 1;
	return sum() == 9000 ? 0 : 2;
}

static int empties_all(void)
{
	blocks_flush(box.cpu);
	return sum() == 3000 ? 0 : 1;
}

static void test_siblings(void **state)
{
	uint64_t before;

	assert_int_equal(jit_init(box.cpu), 0);	/* here: cmocka has its own handlers */
	box.cpu->jit->heat = 1;
	box_load(&box, work_begin, work_end);
	box.start.cr4 |= CR4_OSFXSR;
	assert_int_equal(sum(), 3000);
	assert_int_equal(sum(), 3000);		/* all links are made */
	before = translated();
	assert_true(before > 0);
	assert_int_equal(in_sibling(goes_on), 0);
	assert_int_equal(in_sibling(has_another_state), 0);
	assert_int_equal(in_sibling(changes_its_own), 0);
	assert_int_equal(in_sibling(forks_on), 0);
	assert_int_equal(in_sibling(empties_all), 0);
	assert_int_equal(sum(), 3000);
	assert_int_equal(translated(), before);
	change(7);
	assert_int_equal(sum(), 7000);
}

static int setup(void **state)
{
	box_init(&box);
	return 0;
}

static int teardown(void **state)
{
	box_done(&box);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siblings),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
