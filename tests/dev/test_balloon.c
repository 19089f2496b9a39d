// SPDX-License-Identifier: MIT
/* virtio-balloon: pages really go, and only whole ones of RAM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/lib/vdriver.h"
#include "vmm/dev/balloon.h"
#include "vmm/dev/devices.h"

enum { INFLATE, DEFLATE, STATS, REPORTING };
#define AREA (16ull << 20)	/* of guest RAM, to play with */

static int setup(void **state)
{
	struct vdriver *d = malloc(sizeof(*d));

	vd_init(d, &balloon_class, "", NULL);
	vd_start(d, ~0ull);
	memset(vd_ptr(d, AREA, 1 << 20), 0x5a, 1 << 20);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	vd_done(*state);
	free(*state);
	return 0;
}

static bool is_gone(struct vdriver *d, gpa_t gpa)
{
	return *(volatile uint8_t *)vd_ptr(d, gpa, 1) == 0;
}

static void inflation_frees_pages(void **state)
{
	struct vdriver *d = *state;
	struct vd_buf b = { vd_alloc(d, 16, 4), 16, false };
	uint32_t *pfn = vd_ptr(d, b.gpa, 16);

	pfn[0] = AREA >> 12;
	pfn[1] = (AREA >> 12) + 2;
	pfn[2] = VD_RAM >> 12;		/* outside */
	pfn[3] = ~0u;
	vd_add(d, INFLATE, &b, 1);
	vd_kick(d, INFLATE);
	vd_used(d, INFLATE, NULL);
	assert_true(is_gone(d, AREA));
	assert_false(is_gone(d, AREA + 4096));
	assert_true(is_gone(d, AREA + 8192));
	vd_add(d, DEFLATE, &b, 1);
	vd_kick(d, DEFLATE);
	vd_used(d, DEFLATE, NULL);
	assert_true(virtio_live(d->dev));
}

static void reporting_frees_ranges(void **state)
{
	struct vdriver *d = *state;
	struct vd_buf b[] = {
		{ AREA, 64 << 10, true },
		{ AREA + (128 << 10) + 100, 8192, true },	/* one whole page in it */
	};

	vd_add(d, REPORTING, b, 2);
	vd_kick(d, REPORTING);
	vd_used(d, REPORTING, NULL);
	assert_true(is_gone(d, AREA));
	assert_true(is_gone(d, AREA + (64 << 10) - 1));
	assert_false(is_gone(d, AREA + (64 << 10)));
	assert_false(is_gone(d, AREA + (128 << 10) + 100));
	assert_true(is_gone(d, AREA + (128 << 10) + 4096));
	assert_false(is_gone(d, AREA + (128 << 10) + 8192));
}

/* Without the statistics queue, reporting is the third one. */
static void queues_move_up(void **state)
{
	struct vdriver *d = *state;
	struct vd_buf b = { AREA, 4096, true };

	vd_start(d, ~BIT(1));
	vd_add(d, STATS, &b, 1);
	vd_kick(d, STATS);
	vd_used(d, STATS, NULL);
	assert_true(is_gone(d, AREA));
}

static void statistics(void **state)
{
	struct vdriver *d = *state;
	struct vd_buf b = { vd_alloc(d, 64, 2), 23, false };
	uint8_t *p = vd_ptr(d, b.gpa, 64);
	uint64_t free_bytes = 123456, total = 999999;

	assert_false(balloon_stats(d->dev).known);
	vd_settle(d);
	p[0] = 4;
	memcpy(p + 2, &free_bytes, 8);
	p[10] = 5;
	memcpy(p + 12, &total, 8);
	/* … and three bytes of a third one, which do not count. */
	vd_add(d, STATS, &b, 1);
	vd_kick(d, STATS);
	vd_used(d, STATS, NULL);	/* they were wanted */
	assert_true(balloon_stats(d->dev).known);
	assert_int_equal(balloon_stats(d->dev).free, 123456);
	assert_int_equal(balloon_stats(d->dev).total, 999999);
}

static void target_is_config(void **state)
{
	struct vdriver *d = *state;

	balloon_set_target(d->dev, 10 << 20);
	assert_int_equal(vd_config(d, 0, 4), 2560);
	assert_true(vd_read(d, VD_ISR) & VIRTIO_ISR_CONFIG);
	vd_config_write(d, 4, 4, 2560);
	assert_int_equal(vd_config(d, 4, 4), 2560);
	vd_config_write(d, 0, 4, 1);
	assert_int_equal(vd_config(d, 0, 4), 2560);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(inflation_frees_pages), T(reporting_frees_ranges),
		T(queues_move_up), T(statistics), T(target_is_config),
	};

	return cmocka_run_group_tests_name("balloon", tests, NULL, NULL);
}
