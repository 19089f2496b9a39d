// SPDX-License-Identifier: MIT
/* test_verdict.c - what is remembered of a probe, and what is not believed. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "vmm/verdict.h"

#define HERE "probe 1 boot 1234 kernel 6.1"

static int make_file(void **state)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	*state = (void *)(intptr_t)fd;
	return fd < 0;
}

static int drop_file(void **state)
{
	close((int)(intptr_t)*state);
	return 0;
}

static void works_is_remembered(void **state)
{
	int fd = (int)(intptr_t)*state, ret = -1;
	struct err err = ERR_INIT;

	assert_false(verdict_get(fd, HERE, &ret, &err));
	verdict_put(fd, HERE, 0, NULL);
	assert_true(verdict_get(fd, HERE, &ret, &err));
	assert_int_equal(ret, 0);
}

static void failure_is_remembered_with_its_reason(void **state)
{
	int fd = (int)(intptr_t)*state, ret = 0;
	struct err err = ERR_INIT, got = ERR_INIT;

	err_set(&err, ENOTSUP, "KVM fails at int3");
	verdict_put(fd, HERE, -ENOTSUP, &err);
	assert_true(verdict_get(fd, HERE, &ret, &got));
	assert_int_equal(ret, -ENOTSUP);
	assert_string_equal(err_message(&got), "KVM fails at int3");
	/* a shorter one leaves nothing of it */
	verdict_put(fd, HERE, 0, NULL);
	assert_true(verdict_get(fd, HERE, &ret, &got));
	assert_int_equal(ret, 0);
}

static void another_boot_is_probed_anew(void **state)
{
	int fd = (int)(intptr_t)*state, ret;
	struct err err = ERR_INIT;

	verdict_put(fd, HERE, 0, NULL);
	assert_false(verdict_get(fd, "probe 1 boot 5678 kernel 6.1", &ret, &err));
	assert_false(verdict_get(fd, HERE "0", &ret, &err));
	assert_false(verdict_get(fd, "probe 1", &ret, &err));
}

static void what_others_can_write_is_not_believed(void **state)
{
	int fd = (int)(intptr_t)*state, ret;
	struct err err = ERR_INIT;

	verdict_put(fd, HERE, 0, NULL);
	fchmod(fd, 0620);
	assert_false(verdict_get(fd, HERE, &ret, &err));
	fchmod(fd, 0602);
	assert_false(verdict_get(fd, HERE, &ret, &err));
	fchmod(fd, 0644);
	assert_true(verdict_get(fd, HERE, &ret, &err));
	if (geteuid() == 0) {
		assert_int_equal(fchown(fd, 12345, 0), 0);
		assert_false(verdict_get(fd, HERE, &ret, &err));
	}
	assert_false(verdict_get(-1, HERE, &ret, &err));
}

/* Whatever a writer that was cut off left; also what no writer would write. */
static void torn_files_hold_nothing(void **state)
{
	static const char *const bad[] = {
		"machinen verdict 1\n" HERE "\n95 why\nend\nend\n",
		"machinen verdict 1\n" HERE "\n0 why\nend\n",
		"machinen verdict 1\n" HERE "\n-95 why\nend\n",
		"machinen verdict 1\n" HERE "\nmaybe\nend\n",
		"machinen verdict 2\n" HERE "\nok\nend\n", "\n\n\n\n",
	};
	int fd = (int)(intptr_t)*state, ret;
	struct err err = ERR_INIT;
	off_t len;

	err_set(&err, ENOTSUP, "why not");
	verdict_put(fd, HERE, -ENOTSUP, &err);
	len = lseek(fd, 0, SEEK_END);
	assert_true(len > 0);
	while (len-- > 0) {
		assert_int_equal(ftruncate(fd, len), 0);
		assert_false(verdict_get(fd, HERE, &ret, &err));
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(ftruncate(fd, 0), 0);
		io_pwrite_full(fd, bad[i], strlen(bad[i]), 0);
		assert_false(verdict_get(fd, HERE, &ret, &err));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(works_is_remembered, make_file, drop_file),
		cmocka_unit_test_setup_teardown(failure_is_remembered_with_its_reason,
						make_file, drop_file),
		cmocka_unit_test_setup_teardown(another_boot_is_probed_anew, make_file,
						drop_file),
		cmocka_unit_test_setup_teardown(what_others_can_write_is_not_believed,
						make_file, drop_file),
		cmocka_unit_test_setup_teardown(torn_files_hold_nothing, make_file,
						drop_file),
	};

	return cmocka_run_group_tests_name("verdict", tests, NULL, NULL);
}
