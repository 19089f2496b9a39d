// SPDX-License-Identifier: MIT
/* Digests of base disks are remembered for as long as the file is the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fcntl.h>

#include <cmocka.h>

#include "base/io.h"
#include "lib/bundle.h"

static char home[] = "/tmp/test_bundle_seen.XXXXXX";
static int disk;

static void put(char c)
{
	assert_int_equal(pwrite(disk, &c, 1, 5000), 1);
}

static void set_time(time_t sec, long nsec)
{
	struct timespec t[2] = { { .tv_sec = sec }, { .tv_sec = sec, .tv_nsec = nsec } };

	assert_int_equal(futimens(disk, t), 0);
}

static bool right(void)
{
	char known[BUNDLE_SUM_LEN], sum[BUNDLE_SUM_LEN];

	assert_int_equal(bundle_sum_base(disk, known, NULL, NULL), 0);
	assert_int_equal(bundle_sum_pages(disk, sum, NULL, NULL), 0);
	return !strcmp(known, sum);
}

static int setup(void **state)
{
	char path[64];

	if (!mkdtemp(home) || setenv("MACHINEN_HOME", home, 1))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", home);
	disk = open(path, O_RDWR | O_CREAT, 0600);
	return disk < 0 || ftruncate(disk, 1 << 20) < 0;
}

static int teardown(void **state)
{
	close(disk);
	return io_remove_tree(AT_FDCWD, home);
}

static void test_remembered(void **state)
{
	put('a');
	set_time(1000, 7);
	assert_true(right());
	put('b');
	set_time(1000, 7);
	assert_false(right());		/* who does that is not believed to exist */
	set_time(1000, 8);
	assert_true(right());
	assert_int_equal(ftruncate(disk, 2 << 20), 0);
	set_time(1000, 8);
	assert_true(right());
}

static void test_just_written(void **state)
{
	struct stat st;

	put('c');
	assert_int_equal(fstat(disk, &st), 0);
	assert_true(right());
	put('d');
	set_time(st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	assert_true(right());
}

static void test_damaged_memory(void **state)
{
	char command[128];

	set_time(2000, 1);
	assert_true(right());
	snprintf(command, sizeof(command),
		 "for f in %s/cache/sums/*; do echo rubbish >$f; done", home);
	assert_int_equal(system(command), 0);
	assert_true(right());
	snprintf(command, sizeof(command), "rm -r %s/cache/sums && : >%s/cache/sums",
		 home, home);
	assert_int_equal(system(command), 0);
	assert_true(right());		/* no place to remember it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_remembered),
		cmocka_unit_test(test_just_written),
		cmocka_unit_test(test_damaged_memory),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
