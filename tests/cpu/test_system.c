// SPDX-License-Identifier: MIT
/*
 * test_system.c - bare-metal programs with known answers: paging, faults and
 * their error codes, stacks, system calls, debugging, interrupts, timers, code that
 * changes, modes of the FPU.
 *
 * The programs are in tests/lib/guest_progs.S, guest_code.S and guest_sys.S; the third time they
 * run, the interpreter checks the translator's every step.  BACKEND=kvm
 * runs them on KVM, which must give the same answers.  Where KVM's own CPU is QEMU's
 * emulation (tests/lab), those programs are left out that show its flaws.
 */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "tests/lib/guest.h"
#include "tests/lib/lockstep.h"

#define ANY	(~0ull)

/* What the log must say: vector, error code, CR2 (#PF alone). */
struct expect {
	uint8_t vector;
	uint32_t error;
	uint64_t cr2;
};

struct answer {
	unsigned index;		/* at G_RESULT */
	uint64_t value;
};

struct program {
	const char *name;
	const uint8_t *code, *end;
	const struct expect *log;
	unsigned nr_log;
	const struct answer *answer;
	unsigned nr_answers;
	enum accel_exit exit;
};

#define K G_KPAGE
#define SMALL (K + 0x20000)
#define PF(error, cr2) { 14, error, cr2 }
#define GP(error) { 13, error, ANY }
#define V(vector) { vector, 0, ANY }

static const struct expect page_faults_log[] = {
	PF(0, 0x1000000), PF(2, 0x1000008), PF(3, K), PF(3, K), PF(0x11, K + 0x1000),
	PF(9, K + 0x2000), PF(5, K), PF(7, K), PF(4, 0x1000000), PF(6, 0x1000010),
	PF(0x15, G_UPAGE), PF(0x15, K), PF(0x14, 0x1000000),
	PF(0, K + 0x4000), PF(2, K + 0x4000), PF(2, K + 0x4000),
};
static const struct answer page_faults_answers[] = { { 0, 0x5a } };

static const struct expect smep_smap_log[] = {
	PF(0x11, G_UPAGE), PF(1, G_UPAGE + 0x1000), PF(3, G_UPAGE + 0x1000),
	PF(1, G_UPAGE + 0x1000), V(6),
};
static const struct answer smep_smap_answers[] = { { 0, 0x22 }, { 1, 0x33 } };

static const struct expect accessed_dirty_log[] = { PF(3, K), V(0) };
static const struct answer accessed_dirty_answers[] = {
	{ 0, 0 }, { 1, 0x20 }, { 2, 0x60 }, { 3, 0 }, { 4, 0x20 }, { 5, 0x20 }, { 6, 0 },
	{ 7, 0x20 }, { 8, 0x60 }, { 9, 0x20 }, { 10, 0x20 }, { 11, 0x60 },
};

static const struct expect one_base_log[] = {
	PF(3, G_KPAGE + 0x80010), PF(2, G_KPAGE + 0x81000),
};
static const struct answer one_base_answers[] = {
	{ 0, 0x11 }, { 1, 0x44 }, { 2, 0x20 }, { 3, 0x33 }, { 4, 0x36 },
	{ 5, 0x6600000055 }, { 6, 0xff }, { 7, 19 }, { 8, 8 }, { 9, 0x1235 },
};

static const struct answer tlb_answers[] = {
	{ 0, 0x11 }, { 1, 0x22 }, { 2, 0x33 }, { 3, 0x22 }, { 4, 8 * 0x33 },
	{ 5, 8 * 0x11 }, { 6, 0x22 },
};

static const struct expect stacks_log[] = {
	V(3), V(3), V(3), V(0x80),
};
/* Frame of five words, vector and error code below the top. */
static const struct answer stacks_answers[] = {
	{ 0, G_STACK - 16 - 56 }, { 1, G_IST - 56 }, { 2, G_STACK - 0x4000 - 56 },
};

static const struct expect soft_ints_log[] = {
	V(3), V(0x80), V(6), V(1), GP(0x81 * 8 + 2), GP(13 * 8 + 2), V(3), V(0x80), GP(0),
	GP(0), GP(0), GP(0), V(1), V(0), GP(0), GP(0), GP(0), GP(0), GP(0), GP(0),
};

static const struct expect double_fault_log[] = { V(8), PF(0, 0x1000000) };

static const struct expect segments_log[] = {
	{ 11, G_SEL_ABSENT, ANY }, GP(0x1000), GP(G_CS), GP(G_USS & ~3), GP(G_TR), GP(0),
	GP(G_UCS & ~3), V(6), GP(G_SS),
};
static const struct answer segments_answers[] = { { 0, 0 }, { 1, 1 }, { 2, G_USS } };

static const struct expect syscalls_log[] = { V(0x80), V(6) };
static const struct answer syscalls_answers[] = {
	{ 0, G_USTACK }, { 1, 0x603 }, { 2, 0 }, { 3, G_CS }, { 4, G_SS }, { 5, 0x46 },
	{ 6, G_UCS }, { 7, G_USS }, { 8, 0x603 },
};

static const struct expect gs_base_log[] = { V(6), GP(0) };
static const struct answer gs_base_answers[] = {
	{ 0, 0x1234 }, { 1, 0x5678 }, { 2, K }, { 3, 0x1234 }, { 4, K },
	{ 5, 0x123456789a },
};

static const struct expect entry_code_log[] = {
	V(6), V(6), GP(0), GP(0), PF(4, 0x1000000), PF(4, 0x1000010), PF(6, 0x1000000),
};
static const struct answer entry_code_answers[] = {
	{ 0, 0x4321 }, { 1, G_USS }, { 2, G_SS }, { 3, 0xffffffffffff0000 | G_CS },
	{ 4, 0x77 }, { 5, 0 }, { 6, 0 }, { 7, 0x95 },
};

static const struct expect returns_log[] = { { 14, 0x15, ANY } };
static const struct answer returns_answers[] = {
	{ 0, 1 }, { 1, 2 }, { 2, 1 }, { 3, 3 }, { 4, 4 },
};

static const struct expect single_step_log[] = {
	V(1), V(1), V(1), V(1), V(1), V(1), V(1), V(1), V(1), V(1), V(1),
};
static const struct answer single_step_answers[] = { { 0, 11 }, { 1, K + 3 } };

static const struct expect breakpoints_log[] = { V(1), V(1), V(1), V(1), V(1) };
static const struct answer breakpoints_answers[] = {
	{ 0, 0xffff0ff1 }, { 1, 0xffff0ff2 }, { 2, 0xffff0ff4 }, { 3, 0xffff0ff2 },
	{ 4, 0xffff2ff0 }, { 16, 1 }, { 18, 0x400 },
};

static const struct expect self_modifying_log[] = { V(6) };
static const struct answer self_modifying_answers[] = {
	{ 0, 7 }, { 1, 9 }, { 2, 4950 }, { 3, 5 }, { 4, 0x21 }, { 5, 0x43 }, { 6, 1 },
	{ 7, 0x201 }, { 8, 1 }, { 9, 2 },
};

#define HOLE (K + 0x5000)
static const struct expect string_faults_log[] = {
	PF(2, HOLE), PF(2, HOLE), PF(0, HOLE + 31), PF(0, HOLE), PF(0x10, HOLE),
};
static const struct answer string_faults_answers[] = {
	{ 0, 48 }, { 1, HOLE }, { 2, 6 }, { 3, HOLE - 4 }, { 4, 16 }, { 5, K + 0x800 },
	{ 6, 97 }, { 7, HOLE }, { 32, 0 }, { 33, 0x0102030405060708 }, { 34, 0x77 },
};

static const struct expect interrupts_log[] = {
	V(0x40), V(0x40), V(0x81), V(0x80), V(0x40), V(0x80), V(0x40), GP(0x82 * 8 + 2),
};
static const struct answer interrupts_answers[] = {
	{ 0, 0 }, { 1, 1 }, { 2, 2 }, { 3, 2 }, { 4, 5 }, { 5, 5 }, { 6, 6 }, { 7, 7 },
};

static const struct answer timers_answers[] = {
	{ 0, 1 }, { 1, 0 }, { 2, 0 }, { 3, 0 }, { 4, 2 }, { 5, 1 },
};

static const struct expect fpu_modes_log[] = {
	V(7), V(7), V(7), V(7), V(6), V(7), V(6), V(6), V(6), V(6), V(6), GP(0),
	V(7), V(7), V(16), V(16), V(19), V(6), GP(0), GP(0), GP(0), GP(0), GP(0),
};
static const struct answer fpu_modes_answers[] = { { 0, 7 }, { 1, 1 }, { 2, 0x1d84 } };

/* Rounds r: 3 r three times, and the round before once. */
#define ROUNDS 2100ull
static const struct answer code_generator_answers[] = {
	{ 0, 9 * (ROUNDS * (ROUNDS - 1) / 2) + 3 * ((ROUNDS - 1) * (ROUNDS - 2) / 2) },
};
static const struct answer faults_in_blocks_answers[] = {
	{ 0, 0 }, { 1, 0 }, { 2, 1024 }, { 3, 640 },
};
static const struct expect hot_permissions_log[] = {
	PF(3, SMALL), PF(2, SMALL), PF(0x11, SMALL + 0x8000), PF(0x10, SMALL + 0x8000),
	PF(3, SMALL), PF(3, SMALL), PF(3, SMALL),
};
static const struct answer hot_permissions_answers[] = {
	{ 0, 7 }, { 32, 3 }, { 33, 2 }, { 34, 0x11 }, { 35, 0x10 }, { 36, 3 }, { 37, 3 },
	{ 38, 3 },
};
static const struct expect changed_returns_log[] = { PF(0x11, SMALL + 0x4003) };
static const struct answer changed_returns_answers[] = {
	{ 0, 1 }, { 1, 2 }, { 2, 2 }, { 3, 3 }, { 4, 1 }, { 5, 4 }, { 6, 0x77 }, { 7, 0x88 },
	{ 8, 1 }, { 9, 2 }, { 10, 45150 }, { 11, 45150 }, { 32, 0 },
};
static const struct expect changed_ways_log[] = {
	PF(0x11, SMALL + 0x7000), V(6), V(6), V(6), V(6), V(6), V(6), V(6), V(6), V(6),
};
static const struct answer changed_ways_answers[] = {
	{ 0, 1111 }, { 1, 2222 }, { 2, 1111 }, { 3, 5555 }, { 4, 1111 }, { 5, 1111 }, { 6, 2222 },
	{ 7, 1111 }, { 8, 3333 }, { 9, 1111 }, { 10, 3333 }, { 11, 1111 }, { 12, 3333 },
	{ 13, 2222 }, { 14, 1111 }, { 15, 3333 },
};
static const struct expect both_levels_log[] = {
	V(6), PF(1, G_UPAGE + 0x9000), V(6), V(6), PF(1, G_UPAGE + 0x9000), PF(5, SMALL),
	PF(1, G_UPAGE + 0x9000), V(6),
};
static const struct answer both_levels_answers[] = {
	{ 0, 100 }, { 1, 0 }, { 2, 300 }, { 3, 100 }, { 4, 100 }, { 5, 0 }, { 6, 300 },
	{ 7, 0 }, { 8, 100 }, { 9, 100 },
};
static const struct answer interrupt_storm_answers[] = { { 1, 0 }, { 2, 1 } };
static const struct expect straddling_log[] = { PF(0x11, K + 0x81000) };
static const struct answer straddling_answers[] = {
	{ 0, 300 }, { 1, 6 }, { 2, 6 }, { 3, 10 }, { 4, 7 }, { 5, 6 }, { 6, 2 },
	{ 7, K + 0x80ffd },
};
static const struct answer hot_calls_answers[] = {
	{ 0, 0 }, { 1, 50 }, { 2, 100 }, { 3, 100 }, { 4, 50 }, { 5, 50 }, { 6, 50 }, { 7, 50 },
};
static const struct expect levels_log[] = {
	PF(5, K), PF(5, K), PF(1, G_UPAGE), PF(1, G_UPAGE),
};
static const struct answer levels_answers[] = { { 0, 200 * 0x300 + 80 * 0x33 } };
static const struct expect selectors_log[] = { PF(3, K) };
static const struct answer selectors_answers[] = {
	{ 0, ~0xffffull | G_SS }, { 1, ~0xffffull | G_SS }, { 2, ~0xffffull | G_CS },
	{ 3, G_CS }, { 4, G_SS }, { 5, ~0xffffull | G_CS }, { 6, ~0xffffull | G_CS },
};
static const struct expect xsave_areas_log[] = {
	GP(0), GP(0), GP(0), GP(0), GP(0), GP(0), GP(0), GP(0), GP(0), PF(3, K + 0x40000),
};
static const struct answer xsave_areas_answers[] = {
	{ 0, 0 }, { 1, 50 }, { 2, 0x5f80 }, { 3, 0x5f80 },
	{ 5, 0x205 }, { 6, 0x207 }, { 7, 0x207 }, { 8, 0x207 },
};
static const struct answer short_start_answers[] = { { 0, 40 * 2 * 4950 } };
static const struct answer many_code_pages_answers[] = { { 0, 3 * 5120 }, { 1, 5120 } };

static const struct expect general_protection_log[] = {
	GP(0), PF(0x10, 0x7ffffffffffd), GP(0), GP(0), GP(0), GP(0), GP(0), GP(0),
	GP(0), GP(0), V(6), GP(0), V(6),
};

#define DECLARE(n) extern const uint8_t prog_##n[], prog_##n##_end[]
DECLARE(page_faults); DECLARE(smep_smap); DECLARE(accessed_dirty); DECLARE(tlb);
DECLARE(one_base); DECLARE(short_start); DECLARE(jump_to_nowhere);
DECLARE(stacks); DECLARE(soft_ints); DECLARE(double_fault); DECLARE(triple_fault);
DECLARE(segments); DECLARE(syscalls); DECLARE(gs_base); DECLARE(single_step);
DECLARE(breakpoints); DECLARE(self_modifying); DECLARE(string_faults);
DECLARE(interrupts); DECLARE(timers); DECLARE(interrupted_work); DECLARE(fpu_modes);
DECLARE(general_protection); DECLARE(entry_code); DECLARE(returns);
DECLARE(code_generator); DECLARE(faults_in_blocks); DECLARE(hot_permissions);
DECLARE(changed_returns); DECLARE(interrupt_storm); DECLARE(many_code_pages);
DECLARE(straddling); DECLARE(hot_calls); DECLARE(changed_ways);
DECLARE(xsave_areas); DECLARE(selectors); DECLARE(levels);
DECLARE(both_levels);

#define CODE(n) .name = #n, .code = prog_##n, .end = prog_##n##_end
#define LOG(n) .log = n##_log, .nr_log = ARRAY_LEN(n##_log)
#define ANSWER(n) .answer = n##_answers, .nr_answers = ARRAY_LEN(n##_answers)
#define WHOLE_LOG ~0u	/* anything */

static const struct program programs[] = {
	{ CODE(page_faults), LOG(page_faults), ANSWER(page_faults) },
	{ CODE(smep_smap), LOG(smep_smap), ANSWER(smep_smap) },
	{ CODE(accessed_dirty), LOG(accessed_dirty), ANSWER(accessed_dirty) },
	{ CODE(tlb), ANSWER(tlb), .nr_log = 0 },
	{ CODE(one_base), LOG(one_base), ANSWER(one_base) },
	{ CODE(stacks), LOG(stacks), ANSWER(stacks) },
	{ CODE(soft_ints), LOG(soft_ints) },
	{ CODE(double_fault), LOG(double_fault) },
	{ CODE(triple_fault), .exit = ACCEL_EXIT_SHUTDOWN },
	{ CODE(segments), LOG(segments), ANSWER(segments) },
	{ CODE(syscalls), LOG(syscalls), ANSWER(syscalls) },
	{ CODE(gs_base), LOG(gs_base), ANSWER(gs_base) },
	{ CODE(entry_code), LOG(entry_code), ANSWER(entry_code) },
	{ CODE(returns), LOG(returns), ANSWER(returns) },
	{ CODE(single_step), LOG(single_step), ANSWER(single_step) },
	{ CODE(breakpoints), LOG(breakpoints), ANSWER(breakpoints) },
	{ CODE(self_modifying), LOG(self_modifying), ANSWER(self_modifying) },
	{ CODE(string_faults), LOG(string_faults), ANSWER(string_faults) },
	{ CODE(interrupts), LOG(interrupts), ANSWER(interrupts) },
	{ CODE(timers), ANSWER(timers), .nr_log = WHOLE_LOG },
	{ CODE(fpu_modes), LOG(fpu_modes), ANSWER(fpu_modes) },
	{ CODE(general_protection), LOG(general_protection) },
	{ CODE(code_generator), ANSWER(code_generator) },
	{ CODE(faults_in_blocks), ANSWER(faults_in_blocks), .nr_log = WHOLE_LOG },
	{ CODE(hot_permissions), LOG(hot_permissions), ANSWER(hot_permissions) },
	{ CODE(both_levels), LOG(both_levels), ANSWER(both_levels) },
	{ CODE(changed_returns), LOG(changed_returns), ANSWER(changed_returns) },
	{ CODE(changed_ways), LOG(changed_ways), ANSWER(changed_ways) },
	{ CODE(interrupt_storm), ANSWER(interrupt_storm), .nr_log = WHOLE_LOG },
	{ CODE(many_code_pages), ANSWER(many_code_pages) },
	{ CODE(short_start), ANSWER(short_start) },
	{ CODE(straddling), LOG(straddling), ANSWER(straddling) },
	{ CODE(hot_calls), ANSWER(hot_calls), .nr_log = WHOLE_LOG },
	{ CODE(levels), LOG(levels), ANSWER(levels) },
	{ CODE(selectors), LOG(selectors), ANSWER(selectors) },
	{ CODE(xsave_areas), LOG(xsave_areas), ANSWER(xsave_areas) },
};

static void print_log(const struct guest *g)
{
	for (unsigned i = 0; i < g->nr_log && i < 64; i++) {
		const struct guest_record *r = &g->log[i];

		printf("#   %2u: vector %llu error %llx rip +%llx cs %llx rflags %llx cr2 %llx dr6 %llx\n",
		       i, (unsigned long long)r->vector, (unsigned long long)r->error,
		       (unsigned long long)(r->rip - G_CODE), (unsigned long long)r->cs,
		       (unsigned long long)r->rflags, (unsigned long long)r->cr2,
		       (unsigned long long)r->dr6);
	}
}

static bool log_right(const struct guest *g, const struct program *p)
{
	unsigned n = p->nr_log == WHOLE_LOG ? 0 : MIN(p->nr_log, g->nr_log);

	if (p->nr_log != WHOLE_LOG && g->nr_log != p->nr_log) {
		printf("# %s: %u events, expected %u\n", p->name, g->nr_log, p->nr_log);
		return false;
	}
	for (unsigned i = 0; i < n; i++) {
		const struct guest_record *r = &g->log[i];
		const struct expect *e = &p->log[i];

		if (r->vector != e->vector || (uint32_t)r->error != e->error ||
		    (e->cr2 != ANY && r->cr2 != e->cr2)) {
			printf("# %s: event %u: expected vector %u error %x cr2 %llx\n",
			       p->name, i, e->vector, e->error,
			       (unsigned long long)e->cr2);
			return false;
		}
	}
	return true;
}

static bool answers_right(const struct guest *g, const struct program *p)
{
	bool right = true;

	for (unsigned i = 0; i < p->nr_answers; i++) {
		uint64_t got = g->result[p->answer[i].index];

		if (got == p->answer[i].value)
			continue;
		printf("# %s: result %u is %llx, expected %llx\n", p->name,
		       p->answer[i].index, (unsigned long long)got,
		       (unsigned long long)p->answer[i].value);
		right = false;
	}
	return right;
}

static bool run_program(struct guest *g, const struct program *p)
{
	bool right;

	guest_run(g, p->code, (uint64_t)(p->end - p->code));
	right = !g->hung && g->exit == p->exit;
	if (!right)
		printf("# %s: exit %d, hung %d, rip +%llx\n", p->name, g->exit, g->hung,
		       (unsigned long long)(g->state->rip - G_CODE));
	right = log_right(g, p) & answers_right(g, p) & right;
	if (!right)
		print_log(g);
	return right;
}

enum how { INTERPRETER, TRANSLATOR, LOCKSTEP, NR_HOWS };
static const char *const how_names[] = { "interpreter", "translator", "lockstep" };

/* A program on an engine; the work under interruption where program is NULL. */
struct job {
	const struct program *program;
	enum how how;
	struct lockstep *lockstep;	/* while it runs */
	unsigned differences;
};

static bool on_kvm(void)
{
	const char *backend = getenv("BACKEND");

	return backend && !strcmp(backend, "kvm");
}

static void differs(void *arg, const char *report)
{
	struct job *job = arg;

	job->differences++;
	printf("# %s\n", report);
}

/* cmocka sets its own SIGFPE handler before each test, so each makes its guest. */
static struct guest *make_guest(struct job *job)
{
	const struct lockstep_calls calls = { .differs = differs, .arg = job };
	struct guest *g = guest_new(on_kvm() ? &accel_kvm : &accel_soft,
				    job->how == INTERPRETER ? SPEC_ENGINE_INTERP : SPEC_ENGINE_JIT);

	assert_non_null(g);
	if (job->how == LOCKSTEP && !on_kvm())
		job->lockstep = lockstep_attach(g->vm.vcpu[0].accel_vcpu, &calls);
	return g;
}

static void free_guest(struct job *job, struct guest *g)
{
	if (job->lockstep && !(job->program && job->program->exit))
		assert_true(lockstep_stat(job->lockstep)->instructions > 0);
	lockstep_detach(job->lockstep);
	job->lockstep = NULL;
	guest_free(g);
	assert_int_equal(job->differences, 0);
}

static void gives_known_answers(void **state)
{
	struct job *job = *state;
	struct guest *g = make_guest(job);
	bool right = run_program(g, job->program);

	free_guest(job, g);
	assert_true(right);
}

/* A loop of integer, SSE and x87 work; what comes out must not depend on what
 * interrupts it. */
static void work_survives_interruption(void **state)
{
	struct guest *g = make_guest(*state);
	uint64_t r[34];

	guest_run(g, prog_interrupted_work,
		  (uint64_t)(prog_interrupted_work_end - prog_interrupted_work));
	memcpy(r, g->result, sizeof(r));
	if (!g->ended) {
		printf("# exit %d, hung %d, %llu interrupts, %llu steps\n", g->exit,
		       g->hung, (unsigned long long)r[32], (unsigned long long)r[33]);
		print_log(g);
	}
	assert_true(g->ended);
	free_guest(*state, g);
	assert_int_equal(r[1], 0);
	assert_int_equal(r[2], r[0]);
	assert_true(r[32] >= 20);	/* interrupts */
	assert_true(r[33] >= 380000);	/* steps */
}

/* What KVM cannot run: the guest is told from, not the host's fault. */
static void kvm_says_where_it_gave_up(void **state)
{
	struct guest *g = make_guest(*state);
	struct err err;

	guest_run(g, prog_jump_to_nowhere,
		  (uint64_t)(prog_jump_to_nowhere_end - prog_jump_to_nowhere));
	assert_int_equal(g->exit, ACCEL_EXIT_ERROR);
	err = g->err;
	x86_explain(g->state, &g->vm.mem, &err);
	printf("# %s\n", err_message(&err));
	for (unsigned i = 0; err_cause(&err, i); i++)
		printf("#   %s\n", err_cause(&err, i));
	assert_non_null(strstr(err_message(&err), "at rip 0x100000 "));
	assert_non_null(strstr(err_message(&g->err), "KVM "));
	free_guest(*state, g);
}

#define NR_JOBS (ARRAY_LEN(programs) + 1)

/* What QEMU 10's emulated CPU does otherwise than the real ones. */
static const struct {
	const char *program, *flaw;
} tcg_flaws[] = {
	{ "page_faults", "no P in the error code for reserved bits of a PTE" },
	{ "tlb", "no PCID" },
	{ "soft_ints", "WBINVD of user code is #UD" },
	{ "gs_base", "addresses in MSRs need not be canonical" },
	{ "single_step", "a step too many in REP" },
	{ "fpu_modes", "no SSE exceptions; FXRSTOR takes any MXCSR" },
	{ "changed_ways", "no PCID" },
	{ "hot_calls", "SYSCALL loses the arithmetic flags" },
	{ "xsave_areas", "SSE is never in its initial state" },
};

static bool on_emulated_cpu(void)
{
	char brand[48] = "";

	for (unsigned i = 0; i < 3; i++) {
		unsigned r[4] = { 0 };

		__get_cpuid(0x80000002 + i, &r[0], &r[1], &r[2], &r[3]);
		memcpy(brand + 16 * i, r, sizeof(r));
	}
	return !strncmp(brand, "QEMU TCG", 8);
}

static bool left_out(const struct program *p)
{
	if (!on_kvm() || !on_emulated_cpu())
		return false;
	for (unsigned i = 0; i < ARRAY_LEN(tcg_flaws); i++) {
		if (strcmp(tcg_flaws[i].program, p->name))
			continue;
		printf("# left out: %s: QEMU's emulated CPU: %s\n", p->name,
		       tcg_flaws[i].flaw);
		return true;
	}
	return false;
}

static unsigned add_tests(struct CMUnitTest *test, struct job *job, char (*name)[64],
			  enum how how)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NR_JOBS; i++) {
		const struct program *p = i < ARRAY_LEN(programs) ? &programs[i] : NULL;

		if (p && left_out(p))
			continue;
		job[n] = (struct job){ .program = p, .how = how };
		snprintf(name[n], sizeof(name[n]), "%s: %s",
			 on_kvm() ? "kvm" : how_names[how],
			 p ? p->name : "work_survives_interruption");
		test[n] = (struct CMUnitTest){
			.name = name[n], .initial_state = &job[n],
			.test_func = p ? gives_known_answers : work_survives_interruption,
		};
		n++;
	}
	return n;
}

int main(void)
{
	static struct CMUnitTest tests[NR_HOWS * NR_JOBS];
	static struct job jobs[NR_HOWS * NR_JOBS];
	static char names[NR_HOWS * NR_JOBS][64];
	unsigned n = add_tests(tests, jobs, names, INTERPRETER);

	for (enum how how = TRANSLATOR; how < NR_HOWS && !on_kvm(); how++)
		n += add_tests(tests + n, jobs + n, names + n, how);
	if (on_kvm())
		tests[n++] = (struct CMUnitTest)cmocka_unit_test_prestate(
			kvm_says_where_it_gave_up, &jobs[0]);
	return _cmocka_run_group_tests("system", tests, n, NULL, NULL);
}
