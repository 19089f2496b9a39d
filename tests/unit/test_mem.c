// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "vmm/bus.h"
#include "vmm/mem.h"

static void layout_and_bounds(void **state)
{
	struct mem m;
	uint64_t big = 5 * GIB;

	assert_int_equal(mem_init(&m, big, -1, NULL), 0);
	assert_int_equal(m.nr_ranges, 2);
	assert_true(m.span == MEM_HIGH_START + 2 * GIB);
	assert_ptr_equal(mem_ptr(&m, 0, MEM_LOW_END), m.base);
	assert_null(mem_ptr(&m, 0, MEM_LOW_END + 1));
	assert_non_null(mem_ptr(&m, MEM_LOW_END, 0));
	assert_null(mem_ptr(&m, MEM_LOW_END, 1));
	assert_null(mem_ptr(&m, MEM_HIGH_START - 1, 2));
	assert_ptr_equal(mem_ptr(&m, MEM_HIGH_START, 8), m.base + MEM_HIGH_START);
	assert_null(mem_ptr(&m, m.span - 4, 8));
	assert_null(mem_ptr(&m, UINT64_MAX - 3, 8));
	assert_null(mem_ptr(&m, 16, UINT64_MAX));
	mem_done(&m);
}

static void sizes_are_checked(void **state)
{
	static const uint64_t bad[] = { 0, 1, 64 * MIB + 1, 63 * MIB, UINT64_MAX };
	struct mem m;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = ERR_INIT;

		assert_int_equal(mem_init(&m, bad[i], -1, &e), -22);
		assert_int_equal(e.code, ERR_BOOT_MEMORY_INVALID);
	}
}

static void hole_and_guards_fault(void **state)
{
	struct mem m;
	int status;

	assert_int_equal(mem_init(&m, 64 * MIB, -1, NULL), 0);
	for (int i = 0; i < 2; i++) {
		pid_t pid = fork();

		if (!pid) {
			signal(SIGSEGV, SIG_DFL);
			m.base[i ? 64 * MIB : (uint64_t)-1] = 1;
			_exit(0);
		}
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
	}
	mem_done(&m);
}

static void bundle_file_is_private(void **state)
{
	int fd = memfd_create("memory", 0);
	struct err e = ERR_INIT;
	struct mem m;
	char c;

	assert_int_equal(ftruncate(fd, 64 * MIB - 1), 0);
	assert_int_equal(mem_init(&m, 64 * MIB, fd, &e), -74);
	assert_int_equal(e.code, ERR_SNAPSHOT_DAMAGED);
	assert_int_equal(ftruncate(fd, 64 * MIB), 0);
	assert_int_equal(pwrite(fd, "x", 1, 8 * MIB), 1);
	assert_int_equal(mem_init(&m, 64 * MIB, fd, NULL), 0);
	assert_int_equal(m.base[8 * MIB], 'x');
	assert_true(mem_write(&m, 8 * MIB, "y", 1));
	assert_int_equal(pread(fd, &c, 1, 8 * MIB), 1);
	assert_int_equal(c, 'x');
	mem_done(&m);
	close(fd);
}

static void hit(void *arg, gpa_t gpa, uint64_t len)
{
	*(uint64_t *)arg += len;
}

static void wrote_asks_the_code_map(void **state)
{
	struct mem m;
	uint64_t hits = 0;
	char c[3];

	assert_int_equal(mem_init(&m, 64 * MIB, -1, NULL), 0);
	mem_wrote(&m, 0, 10);			/* no map: nothing to do */
	assert_int_equal(mem_track_code(&m, NULL), 0);
	m.code_hit = hit;
	m.code_arg = &hits;
	m.code[5] = 1;
	mem_wrote(&m, 4 * PAGE_SIZE, PAGE_SIZE);
	assert_true(hits == 0);
	mem_wrote(&m, 4 * PAGE_SIZE + 1, PAGE_SIZE);
	assert_true(hits == PAGE_SIZE);
	assert_true(mem_write(&m, 6 * PAGE_SIZE - 1, "abc", 3));
	assert_true(hits == PAGE_SIZE + 3);
	assert_true(mem_read(&m, 6 * PAGE_SIZE - 1, c, 3));
	assert_memory_equal(c, "abc", 3);
	assert_false(mem_write(&m, 64 * MIB - 1, "ab", 2));
	assert_false(mem_read(&m, 64 * MIB - 1, c, 2));
	assert_int_equal(c[0], 0);
	mem_done(&m);
}

static int add(struct bus *b, uint64_t base, uint64_t size)
{
	struct bus_region r = { .name = "r", .base = base, .size = size,
				.min_len = 1, .max_len = 4 };

	return bus_add(b, &r, NULL);
}

static void bus_regions(void **state)
{
	struct bus b = { .nr = 0 };

	assert_int_equal(add(&b, 0x2000, 0x1000), 0);
	assert_int_equal(add(&b, 0x1000, 0x800), 0);
	assert_int_equal(add(&b, 0x3000, 0x10), 0);
	assert_int_equal(add(&b, 0x17ff, 2), -17);
	assert_int_equal(add(&b, 0x1fff, 2), -17);
	assert_int_equal(add(&b, 0x2000, 1), -17);
	assert_int_equal(add(&b, 0x100, 0x10000), -17);
	assert_int_equal(add(&b, 5, 0), -22);
	assert_int_equal(add(&b, UINT64_MAX, 2), -22);
	assert_true(bus_find(&b, 0x1000, 4)->base == 0x1000);
	assert_true(bus_find(&b, 0x2ffc, 4)->base == 0x2000);
	assert_null(bus_find(&b, 0x2ffe, 4));	/* not aligned */
	assert_null(bus_find(&b, 0x1800, 1));
	assert_null(bus_find(&b, 0x2000, 8));	/* too wide */
	assert_null(bus_find(&b, 0x300f, 2));
	assert_null(bus_find(&b, 0, 1));
	assert_null(bus_find(&b, UINT64_MAX, 1));
	for (unsigned i = 3; i < BUS_MAX_REGIONS; i++)
		assert_int_equal(add(&b, 0x10000 * i, 1), 0);
	assert_int_equal(add(&b, 0x9000000, 1), -28);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout_and_bounds),
		cmocka_unit_test(sizes_are_checked),
		cmocka_unit_test(hole_and_guards_fault),
		cmocka_unit_test(bundle_file_is_private),
		cmocka_unit_test(wrote_asks_the_code_map),
		cmocka_unit_test(bus_regions),
	};

	return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
