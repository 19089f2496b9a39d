// SPDX-License-Identifier: MIT
/* Memory for host code: written here, run there, copied on write between VMs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/soft/codemem.h"

#define SIZE  (4u << 20)
#define CHUNK CODEMEM_CHUNK

/* mov eax, n; ret */
static bool put(struct codemem *c, size_t off, uint8_t n)
{
	const uint8_t code[] = { 0xb8, n, 0, 0, 0, 0xc3 };

	if (!codemem_own(c, off, sizeof(code)))
		return false;
	memcpy(c->rw + off, code, sizeof(code));
	return true;
}

static int call(const struct codemem *c, size_t off)
{
	return ((int (*)(void))(uintptr_t)(c->rx + off))();
}

static bool protects(const void *p, int prot)
{
	return mprotect((void *)((uintptr_t)p & ~4095ull), 4096, prot) < 0;
}

/* Runs `f` in a child; its result. */
static bool child(struct codemem *c, bool (*f)(struct codemem *c))
{
	int status = 1;
	pid_t pid = fork();

	if (!pid)
		_exit(f(c) ? 0 : 1);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return !status;
}

static int setup(void **state)
{
	struct codemem *c = calloc(1, sizeof(*c));

	*state = c;
	return c && !codemem_init(c, SIZE, 0) && put(c, 0, 1) && put(c, CHUNK, 2) ? 0 : -1;
}

static int teardown(void **state)
{
	codemem_done(*state);
	free(*state);
	return 0;
}

static void test_alone(void **state)
{
	struct codemem *c = *state;

	assert_int_equal(call(c, 0), 1);
	put(c, 0, 7);
	assert_int_equal(call(c, 0), 7);
	assert_int_equal(call(c, CHUNK), 2);
	codemem_renew(c, 0);		/* nothing is shared: nothing to do */
	assert_int_equal(call(c, 0), 7);
}

static bool write_and_look(struct codemem *c)
{
	bool as_was = call(c, 0) == 1 && call(c, CHUNK) == 2;

	return put(c, 0, 11) && put(c, 2 * CHUNK, 13) && as_was && call(c, 0) == 11 &&
	       call(c, CHUNK) == 2 && call(c, 2 * CHUNK) == 13;
}

static void test_copies(void **state)
{
	struct codemem *c = *state;

	assert_int_equal(codemem_share(c, CHUNK + 6), 0);
	assert_true(child(c, write_and_look));
	assert_int_equal(call(c, 0), 1);
	assert_int_equal(c->rx[2 * CHUNK], 0);
	assert_true(put(c, CHUNK, 3));
	assert_int_equal(call(c, 0), 1);
	assert_int_equal(call(c, CHUNK), 3);
}

static bool cannot_be_written(struct codemem *c)
{
	return protects(c->rx, PROT_READ | PROT_WRITE) &&
	       protects(c->rx + CHUNK, PROT_READ | PROT_WRITE);
}

/* What another VM executes cannot be made writable, by whatever means. */
static void test_sealed(void **state)
{
	struct codemem *c = *state;
	const uint8_t *own;

	assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
	assert_true(cannot_be_written(c));
	assert_true(child(c, cannot_be_written));
	assert_true(put(c, 0, 5));
	own = c->rx;
	assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
	assert_true(child(c, cannot_be_written));
	assert_ptr_equal(own, c->rx);
	assert_int_equal(call(c, 0), 5);
	assert_int_equal(call(c, CHUNK), 2);
}

/* Where a sandbox lets no file be opened, what was written is mapped anew. */
static bool no_read_only(struct codemem *c)
{
	struct rlimit limit;
	int next = dup(0);

	close(next);
	if (next < 0 || getrlimit(RLIMIT_NOFILE, &limit))
		return false;
	limit.rlim_cur = (rlim_t)next + 1;	/* room for the memfd alone */
	return !setrlimit(RLIMIT_NOFILE, &limit) && put(c, 0, 6) && put(c, 3 * CHUNK, 8) &&
	       c->ro_fd < 0 && !codemem_share(c, 4 * CHUNK) &&
	       cannot_be_written(c) && protects(c->rx + 3 * CHUNK, PROT_WRITE) &&
	       call(c, 0) == 6 && call(c, CHUNK) == 2 && call(c, 3 * CHUNK) == 8;
}

static void test_without_read_only(void **state)
{
	struct codemem *c = *state;

	assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
	assert_true(child(c, no_read_only));
}

/* A fork of a fork of a fork, each of which changes something. */
static bool chain(struct codemem *c)
{
	static uint8_t depth;
	bool ok = put(c, CHUNK, (uint8_t)(100 + depth)) &&
		  put(c, (3u + depth) * CHUNK, depth) && call(c, 0) == 1;

	if (ok && ++depth < 4)
		ok = !codemem_share(c, 8 * CHUNK) && child(c, chain);
	else
		depth = 4;
	return ok && call(c, 3 * CHUNK) == 0 && call(c, 0) == 1 &&
	       call(c, CHUNK) >= 100;
}

static void test_chain(void **state)
{
	struct codemem *c = *state;

	assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
	assert_true(child(c, chain));
	assert_int_equal(call(c, CHUNK), 2);
}

/* Shared twice without a write in between. */
static void test_fan(void **state)
{
	struct codemem *c = *state;

	for (int k = 0; k < 3; k++) {
		assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
		assert_true(child(c, write_and_look));
	}
	assert_int_equal(call(c, 0), 1);
}

static bool renewed(struct codemem *c)
{
	codemem_renew(c, 6);
	return call(c, 0) == 1 && c->rx[CHUNK] == 0 && put(c, CHUNK, 9) &&
	       call(c, CHUNK) == 9 && put(c, SIZE - CHUNK, 4) &&
	       call(c, SIZE - CHUNK) == 4;
}

static void test_renew(void **state)
{
	struct codemem *c = *state;

	assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
	assert_true(child(c, renewed));
	assert_int_equal(call(c, CHUNK), 2);
}

static void test_fault(void **state)
{
	struct codemem *c = *state;

	assert_false(codemem_fault(c, c->rw));		/* it could be written */
	assert_int_equal(codemem_share(c, 2 * CHUNK), 0);
	assert_false(codemem_fault(c, c->rx));
	assert_false(codemem_fault(c, c->rw + SIZE));
	assert_false(codemem_fault(c, NULL));
	assert_true(codemem_fault(c, c->rw + 5));
	assert_false(codemem_fault(c, c->rw + 5));
	c->rw[1] = 77;
	assert_int_equal(call(c, 0), 77);
	assert_true(codemem_fault(c, c->rw + SIZE - 1));
	c->rw[SIZE - 1] = 1;
	assert_int_equal(c->rx[SIZE - 1], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sealed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
