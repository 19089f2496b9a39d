// SPDX-License-Identifier: MIT
/* The cache of prepared disks, and disks made of host directories. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/image_tar.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/cache.h"

struct env {
	char home[64];
	char cache[80];
	char tar[80];
};

static void write_tar(const struct env *e, const char *content)
{
	int fd = open(e->tar, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	/* long ago, so that it is remembered at once */
	const struct timeval old[2] = { { 1000000, 0 }, { 1000000, 0 } };
	struct archive *a = tar_begin(fd, "pax", "");

	tar_dir(a, "./");
	tar_file(a, "f", content, strlen(content));
	tar_file(a, "machinen-config.json", "{\"cmd\":[\"/f\"]}", 14);
	tar_end(a);
	close(fd);
	utimes(e->tar, old);
	usleep(150000);		/* until a change would move the change time */
}

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	strcpy(e->home, "/tmp/mn-cache-XXXXXX");
	assert_non_null(mkdtemp(e->home));
	snprintf(e->cache, sizeof(e->cache), "%s/cache", e->home);
	snprintf(e->tar, sizeof(e->tar), "%s/x.tar", e->home);
	write_tar(e, "one");
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	io_remove_tree(AT_FDCWD, e->home);
	free(e);
	return 0;
}

/* Opens it; how it was got is returned in *fresh. */
static void get(const struct env *e, bool want_fresh, char hash[IMAGE_HASH_LEN])
{
	struct cache_disk d;
	struct err err = ERR_INIT;
	struct stat st;

	if (cache_get(e->cache, e->tar, NULL, &d, &err))
		fail_msg("%s: %s", err_message(&err), err_cause(&err, 0));
	assert_int_equal(d.fresh, want_fresh);
	fstat(d.fd, &st);
	assert_int_equal(st.st_size, d.info.disk_size);
	assert_string_equal(d.info.config.cmd[0], "/f");
	assert_int_equal(tar_fsck(d.fd), 0);
	if (hash)
		strcpy(hash, d.info.hash);
	cache_disk_done(&d);
}

static unsigned count_files(const struct env *e, const char *prefix)
{
	char cmd[400];
	unsigned n = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "ls -d %s/%s* 2>/dev/null | wc -l", e->cache,
		 prefix);
	f = popen(cmd, "r");
	assert_int_equal(fscanf(f, "%u", &n), 1);
	pclose(f);
	return n;
}

static void second_use_builds_nothing(void **state)
{
	char a[IMAGE_HASH_LEN], b[IMAGE_HASH_LEN];
	struct cache_disk d;

	assert_int_equal(cache_find("/nonexistent", ((struct env *)*state)->tar,
				    NULL, &d), -ENOENT);
	get(*state, true, a);
	get(*state, false, b);
	assert_string_equal(a, b);
	assert_int_equal(cache_find(((struct env *)*state)->cache,
				    ((struct env *)*state)->tar, NULL, &d), 0);
	cache_disk_done(&d);
	assert_int_equal(count_files(*state, "disk-"), 1);
	assert_int_equal(count_files(*state, "tmp-"), 0);
}

static void changed_archive_is_another_disk(void **state)
{
	char a[IMAGE_HASH_LEN], b[IMAGE_HASH_LEN];
	struct env *e = *state;

	get(e, true, a);
	write_tar(e, "two");	/* same size, same modification time */
	get(e, true, b);
	assert_string_not_equal(a, b);
	write_tar(e, "one");	/* known content under new times */
	get(e, true, b);
	assert_string_equal(a, b);
	assert_int_equal(count_files(e, "disk-"), 2);
}

static void spoilt_disk_is_built_again(void **state)
{
	struct env *e = *state;
	char cmd[400];

	get(e, true, NULL);
	snprintf(cmd, sizeof(cmd), "for f in %s/disk-*/disk; do chmod u+w $f; "
		 "printf x | dd of=$f conv=notrunc status=none; done", e->cache);
	assert_int_equal(system(cmd), 0);
	get(e, true, NULL);
	snprintf(cmd, sizeof(cmd), "for f in %s/disk-*/manifest.json; do "
		 "head -c 40 $f >$f.x; mv $f.x $f; done", e->cache);
	assert_int_equal(system(cmd), 0);
	get(e, true, NULL);
	snprintf(cmd, sizeof(cmd), "rm %s/disk-*/disk", e->cache);
	assert_int_equal(system(cmd), 0);
	get(e, true, NULL);
	snprintf(cmd, sizeof(cmd), "for f in %s/seen/*; do echo zz >$f; done",
		 e->cache);
	assert_int_equal(system(cmd), 0);
	get(e, true, NULL);
	get(e, false, NULL);
}

static void failure_leaves_nothing(void **state)
{
	struct env *e = *state;
	struct cache_disk d;
	struct err err = ERR_INIT;
	int fd = open(e->tar, O_WRONLY | O_TRUNC);

	assert_int_equal(io_write_full(fd, "not a tar", 9), 0);
	close(fd);
	assert_true(cache_get(e->cache, e->tar, NULL, &d, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_IMAGE_INVALID);
	assert_int_equal(count_files(e, "disk-") + count_files(e, "tmp-"), 0);
	unlink(e->tar);
	err_clear(&err);
	assert_int_equal(cache_get(e->cache, e->tar, NULL, &d, &err), -ENOENT);
	assert_int_equal(err.code, ERR_BOOT_IMAGE_NOT_FOUND);
	err_clear(&err);
	assert_true(cache_get(e->cache, e->home, NULL, &d, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_IMAGE_INVALID);
}

static void what_dead_builders_left_goes(void **state)
{
	struct env *e = *state;
	char path[200];

	snprintf(path, sizeof(path), "%s/tmp-1-2", e->cache);
	io_mkdir_all(path, 0700);
	get(e, true, NULL);
	assert_int_equal(count_files(e, "tmp-"), 0);
}

static void *getter(void *arg)
{
	const struct env *e = arg;
	struct cache_disk d;
	bool fresh;

	if (cache_get(e->cache, e->tar, NULL, &d, NULL))
		return (void *)2;
	fresh = d.fresh;
	cache_disk_done(&d);
	return (void *)(uintptr_t)fresh;
}

/* Threads of several processes want one disk; one of them builds it. */
static void many_at_once_build_one(void **state)
{
	unsigned built = 0;

	for (unsigned p = 0; p < 4; p++) {
		if (fork())
			continue;
		pthread_t t[4];

		for (unsigned i = 0; i < 4; i++)
			pthread_create(&t[i], NULL, getter, *state);
		for (unsigned i = 0; i < 4; i++) {
			void *ret;

			pthread_join(t[i], &ret);
			built += (uintptr_t)ret;
		}
		_exit(built);
	}
	for (unsigned p = 0; p < 4; p++) {
		int st;

		wait(&st);
		built += WEXITSTATUS(st);
	}
	assert_int_equal(built, 1);
	assert_int_equal(count_files(*state, "disk-"), 1);
}

static void deleting_meanwhile_is_harmless(void **state)
{
	struct env *e = *state;
	char cmd[400];
	pid_t pid = fork();

	if (!pid) {
		snprintf(cmd, sizeof(cmd), "for i in $(seq 60); do rm -rf %s/disk-* "
			 "%s/tmp-* %s/seen/*; sleep 0.01; done", e->cache, e->cache, e->cache);
		_exit(system(cmd));
	}
	for (unsigned i = 0; i < 40; i++) {
		struct cache_disk d;
		struct err err = ERR_INIT;
		int ret = cache_get(e->cache, e->tar, NULL, &d, &err);

		if (ret)
			fail_msg("%s: %s", err_message(&err), err_cause(&err, 0));
		if (i % 8 == 0)
			assert_int_equal(tar_fsck(d.fd), 0);
		cache_disk_done(&d);
	}
	waitpid(pid, NULL, 0);
}

/* --- directories ------------------------------------------------------------- */

static void make_dir(const struct env *e, char *dir, size_t len)
{
	char cmd[800];

	snprintf(dir, len, "%s/dir", e->home);
	snprintf(cmd, sizeof(cmd), "mkdir -p %s/a/b && cd %s && echo hi >a/f && "
		 "ln a/f a/b/g && ln -s /etc/passwd out && mkfifo p && "
		 "chmod 4755 a/f && truncate -s 10M sparse && "
		 "printf x | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none "
		 "&& touch -d '2001-02-03 04:05:06.789' a/f", dir, dir);
	assert_int_equal(system(cmd), 0);
}

static void directory_becomes_a_disk(void **state)
{
	struct image_export_opts o = { .name = "x.tar" };
	int back = tar_tmpfile(), want = tar_tmpfile();
	struct env *e = *state;
	struct err err = ERR_INIT;
	struct cache_disk d;
	char dir[100], cmd[300];

	make_dir(e, dir, sizeof(dir));
	if (cache_get_dir(e->cache, dir, NULL, &d, &err))
		fail_msg("%s: %s", err_message(&err), err_cause(&err, 0));
	assert_true(d.fresh);
	assert_int_equal(tar_fsck(d.fd), 0);
	assert_int_equal(image_export(&d.fd, 1, back, &o, NULL, &err), 0);
	snprintf(cmd, sizeof(cmd), "tar -C %s --format=pax --sparse -cf "
		 "/proc/%d/fd/%d .", dir, getpid(), want);
	assert_int_equal(system(cmd), 0);
	tar_same(want, back);
	assert_true(d.info.content < 64 * KIB);	/* the hole stayed one */
	cache_disk_done(&d);

	assert_int_equal(cache_get_dir(e->cache, dir, NULL, &d, &err), 0);
	assert_false(d.fresh);
	cache_disk_done(&d);
	snprintf(cmd, sizeof(cmd), "echo ho >%s/a/f", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(cache_get_dir(e->cache, dir, NULL, &d, &err), 0);
	assert_true(d.fresh);
	cache_disk_done(&d);
	close(back);
	close(want);
}

static void missing_directory_is_said(void **state)
{
	struct env *e = *state;
	struct cache_disk d;
	struct err err = ERR_INIT;

	assert_int_equal(cache_get_dir(e->cache, "/nonexistent/x", NULL, &d, &err),
			 -ENOENT);
	assert_int_equal(err.code, ERR_BOOT_MOUNT_HOST_NOT_FOUND);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(second_use_builds_nothing),
		T(changed_archive_is_another_disk),
		T(spoilt_disk_is_built_again),
		T(failure_leaves_nothing),
		T(what_dead_builders_left_goes),
		T(many_at_once_build_one),
		T(deleting_meanwhile_is_harmless),
		T(directory_becomes_a_disk),
		T(missing_directory_is_said),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
