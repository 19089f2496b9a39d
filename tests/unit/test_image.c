// SPDX-License-Identifier: MIT
/*
 * Archives to disks and back: random trees compared entry by entry, the shapes
 * ext4 finds hard, and archives that want to do harm.
 */
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

#include "../lib/image_tar.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/image.h"
#include "layer/layer.h"

static uint64_t rng_state;

static uint32_t rnd(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (rng_state >> 11) % below;
}

static int build(int tar, int disk, struct image_info *info, struct err *err)
{
	struct image_opts o = { .min_size = 64 * MIB };

	lseek(tar, 0, SEEK_SET);
	err_clear(err);
	return image_build(tar, disk, &o, info, err);
}

static void print_err(const struct err *e)
{
	print_message("# (%s) %s\n", err_code_name(e->code), err_message(e));
	for (unsigned i = 0; err_cause(e, i); i++)
		print_message("#   %s\n", err_cause(e, i));
}

/* Builds, checks, exports, compares. */
static void round_trip(int tar)
{
	struct image_export_opts o = { .name = "x.tar" };
	int disk = tar_tmpfile(), back = tar_tmpfile();
	struct err err = ERR_INIT;
	struct image_info info;

	if (build(tar, disk, &info, &err)) {
		print_err(&err);
		fail();
	}
	assert_int_equal(tar_fsck(disk), 0);
	if (image_export(&disk, 1, back, &o, NULL, &err)) {
		print_err(&err);
		fail();
	}
	tar_same(tar, back);
	image_info_done(&info);
	close(disk);
	close(back);
}

/* --- random trees ------------------------------------------------------------ */

struct maker {
	struct archive *a;
	bool pax;
	char *dirs[256];
	unsigned nr_dirs;
	char *files[1024];
	unsigned nr_files, count;
};

static char *new_path(struct maker *m)
{
	static const char *const odd[] = { "ü", "日本", " ", "a b", "\t", "-", "~" };
	const char *dir = m->dirs[rnd(m->nr_dirs)];
	char name[300];
	char *path = NULL;
	size_t len = 0;

	len = snprintf(name, sizeof(name), "%u%s", m->count++,
		       rnd(8) ? "" : odd[rnd(ARRAY_LEN(odd))]);
	if (!rnd(20))
		for (; len < 255; len++)
			name[len] = 'x';
	name[len] = '\0';
	assert_true(asprintf(&path, "%s%s", dir, name) > 0);
	return path;
}

static void decorate(struct maker *m, struct archive_entry *e)
{
	uint8_t value[300];

	archive_entry_set_uid(e, rnd(4) ? rnd(2000) : rnd(2000000));
	archive_entry_set_gid(e, rnd(4) ? rnd(2000) : rnd(2000000));
	archive_entry_set_mtime(e, rnd(2000000000), m->pax ? rnd(1000000000) : 0);
	if (!m->pax || rnd(3))
		return;
	for (unsigned i = 0; i < sizeof(value); i++)
		value[i] = rnd(256);
	archive_entry_xattr_add_entry(e, "user.one", value, rnd(40));
	if (!rnd(3))
		archive_entry_xattr_add_entry(e, "trusted.two", value, rnd(300));
	if (!rnd(3))
		archive_entry_xattr_add_entry(e, "security.capability",
			"\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
}

static void add_acl(struct archive_entry *e, bool dir)
{
	int type = ARCHIVE_ENTRY_ACL_TYPE_ACCESS;

	archive_entry_acl_add_entry(e, type, 7, ARCHIVE_ENTRY_ACL_USER_OBJ, -1, "");
	archive_entry_acl_add_entry(e, type, 4, ARCHIVE_ENTRY_ACL_USER, 7, "7");
	archive_entry_acl_add_entry(e, type, 5, ARCHIVE_ENTRY_ACL_USER, 1001, "1001");
	archive_entry_acl_add_entry(e, type, 5, ARCHIVE_ENTRY_ACL_GROUP_OBJ, -1, "");
	archive_entry_acl_add_entry(e, type, 5, ARCHIVE_ENTRY_ACL_MASK, -1, "");
	archive_entry_acl_add_entry(e, type, 5, ARCHIVE_ENTRY_ACL_OTHER, -1, "");
	if (!dir)
		return;
	type = ARCHIVE_ENTRY_ACL_TYPE_DEFAULT;
	archive_entry_acl_add_entry(e, type, 7, ARCHIVE_ENTRY_ACL_USER_OBJ, -1, "");
	archive_entry_acl_add_entry(e, type, 5, ARCHIVE_ENTRY_ACL_GROUP_OBJ, -1, "");
	archive_entry_acl_add_entry(e, type, 0, ARCHIVE_ENTRY_ACL_OTHER, -1, "");
}

static void random_file(struct maker *m, char *path)
{
	static const uint32_t edge[] = { 0, 1, 4095, 4096, 4097, 8192 };
	static uint8_t data[300000];
	struct archive_entry *e = tar_entry(path, S_IFREG | rnd(07777));
	size_t len = rnd(3) ? rnd(20000) : rnd(2) ? edge[rnd(6)] : rnd(sizeof(data));

	for (size_t i = 0; i < len; i += 97)
		data[i] = rnd(256);
	decorate(m, e);
	if (m->pax && !rnd(12)) {
		archive_entry_set_mode(e, S_IFREG | 0755);
		add_acl(e, false);
	}
	if (m->pax && !rnd(6)) {
		uint64_t off = 0;

		len = sizeof(data);
		for (unsigned n = rnd(40); n && off + 9000 < len; n--) {
			uint64_t size = 1 + rnd(8000);

			memset(data + off, 0, 8192);
			off += rnd(8192);
			size = MIN(size, len - off);
			archive_entry_sparse_add_entry(e, off, size);
			off += size;
		}
		memset(data + off, 0, len - off);
	}
	if (m->nr_files < ARRAY_LEN(m->files))
		m->files[m->nr_files++] = strdup(path);
	tar_put(m->a, e, data, len);
}

static void random_dir(struct maker *m, char *path)
{
	struct archive_entry *e;
	char *dir = NULL;

	e = tar_entry(path, S_IFDIR | (rnd(07777) & ~0u));
	decorate(m, e);
	if (m->pax && !rnd(12)) {
		archive_entry_set_mode(e, S_IFDIR | 0755);
		add_acl(e, true);
	}
	tar_put(m->a, e, NULL, 0);
	assert_true(asprintf(&dir, "%s/", path) > 0);
	if (m->nr_dirs < ARRAY_LEN(m->dirs) && strlen(dir) < (m->pax ? 8000 : 2000))
		m->dirs[m->nr_dirs++] = dir;
	else
		free(dir);
}

static void random_special(struct maker *m, char *path)
{
	static const unsigned type[] = { S_IFCHR, S_IFBLK, S_IFIFO };
	unsigned t = type[rnd(3)];
	struct archive_entry *e = tar_entry(path, t | rnd(0777));

	decorate(m, e);
	if (t != S_IFIFO) {
		archive_entry_set_rdevmajor(e, rnd(2) ? rnd(256) : rnd(4096));
		archive_entry_set_rdevminor(e, rnd(2) ? rnd(256) :
					      rnd(m->pax ? 1 << 20 : 1 << 16));
	}
	tar_put(m->a, e, NULL, 0);
}

static void random_link(struct maker *m, char *path)
{
	static const unsigned edge[] = { 1, 58, 59, 60, 61, 99, 100, 101, 1000, 4095 };
	char target[4096];
	unsigned len = edge[rnd(m->pax ? 10 : 6)];

	if (m->nr_files && rnd(2)) {
		tar_hardlink(m->a, path, m->files[rnd(m->nr_files)]);
		return;
	}
	memset(target, 'a' + rnd(26), len);
	target[len] = '\0';
	tar_symlink(m->a, path, target);
}

static void random_tree(int fd, unsigned seed, const char *format,
			const char *filter)
{
	struct maker m = { .a = tar_begin(fd, format, filter),
			   .pax = !strcmp(format, "pax") };

	rng_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	m.dirs[m.nr_dirs++] = strdup(rnd(2) ? "./" : "");
	tar_dir(m.a, "./");
	for (unsigned i = 0; i < 250; i++) {
		char *path = new_path(&m);
		unsigned what = rnd(10);

		if (what < 5)
			random_file(&m, path);
		else if (what < 7)
			random_dir(&m, path);
		else if (what < 8)
			random_special(&m, path);
		else
			random_link(&m, path);
		free(path);
	}
	tar_end(m.a);
	for (unsigned i = 0; i < m.nr_dirs; i++)
		free(m.dirs[i]);
	for (unsigned i = 0; i < m.nr_files; i++)
		free(m.files[i]);
}

static void random_trees_come_back(void **state)
{
	static const char *const filter[] = { "", "gzip", "zstd", "xz" };

	for (unsigned seed = 0; seed < 12; seed++) {
		int tar = tar_tmpfile();

		random_tree(tar, seed, seed % 4 == 3 ? "gnutar" : "pax",
			    filter[seed % ARRAY_LEN(filter)]);
		round_trip(tar);
		close(tar);
	}
}

/* Makes a good disk; how many entries it has.  Closes tar. */
static uint64_t builds(int tar)
{
	int disk = tar_tmpfile();
	struct err err = ERR_INIT;
	struct image_info info;
	uint64_t entries;

	assert_int_equal(build(tar, disk, &info, &err), 0);
	assert_int_equal(tar_fsck(disk), 0);
	entries = info.entries;
	image_info_done(&info);
	close(tar);
	close(disk);
	return entries;
}

/* --- shapes ------------------------------------------------------------------ */

static void hundred_thousand_files(void **state)
{
	int tar = tar_tmpfile();
	struct archive *a = tar_begin(tar, "ustar", "");
	char path[64];

	for (unsigned i = 0; i < 100000; i++) {
		/* half of them in one directory */
		snprintf(path, sizeof(path), "%s/file-%u",
			 i % 2 ? "one" : i % 4 ? "two/x" : "three", i);
		tar_file(a, path, path, 1 + i % 40);
	}
	tar_end(a);
	assert_int_equal(builds(tar), 100000 + 4);
}

static void wide_directories(void **state)
{
	/* names of 255 bytes: an interior level of the hash tree beyond 7,600 */
	int tar = tar_tmpfile();
	struct archive *a = tar_begin(tar, "pax", "");
	char path[300];

	memset(path, 'n', sizeof(path));
	memcpy(path, "d/", 2);
	path[2 + 255] = '\0';
	for (unsigned i = 0; i < 12000; i++) {
		char digits[8];

		snprintf(digits, sizeof(digits), "%07u", i);
		memcpy(path + 2, digits, 7);
		tar_symlink(a, path, "x");
	}
	tar_end(a);
	assert_true(builds(tar) >= 12000);
}

static void many_subdirectories(void **state)
{
	/* more than a link count holds */
	int tar = tar_tmpfile();
	struct archive *a = tar_begin(tar, "ustar", "");
	char path[64];

	for (unsigned i = 0; i < 66000; i++) {
		snprintf(path, sizeof(path), "d/%u/", i);
		tar_dir(a, path);
	}
	tar_end(a);
	assert_true(builds(tar) >= 66000);
}

static void deep_tree(void **state)
{
	int tar = tar_tmpfile();
	struct archive *a = tar_begin(tar, "pax", "zstd");
	char path[2048] = "";

	tar_dir(a, "./");
	for (unsigned i = 0; i < 500; i++) {
		snprintf(path + strlen(path), 4, "%s%u", i ? "/" : "", i % 10);
		tar_dir(a, path);
	}
	strcat(path, "/end");
	tar_file(a, path, "x", 1);
	tar_end(a);
	round_trip(tar);
	close(tar);
}

/* Thousands of pieces: an extent tree of two levels. */
static void very_sparse_file(void **state)
{
	int tar = tar_tmpfile();
	struct archive *a = tar_begin(tar, "pax", "zstd");
	struct archive_entry *e = tar_entry("sparse", S_IFREG | 0600);
	size_t size = 64 * MIB;
	uint8_t *data = calloc(1, size);

	tar_dir(a, "./");
	for (size_t off = 8192; off < size; off += 16384) {
		archive_entry_sparse_add_entry(e, off, 4096);
		memset(data + off, off / 16384 | 1, 4096);
	}
	tar_put(a, e, data, size);
	/* a hole of a terabyte with nothing in it */
	e = tar_entry("hole", S_IFREG | 0600);
	archive_entry_set_size(e, 1 << 20);
	archive_entry_sparse_add_entry(e, 0, 0);
	tar_put(a, e, data, 1 << 20);
	tar_end(a);
	free(data);
	round_trip(tar);
	close(tar);
}

/* Longer than one extent, over the places ext4 keeps for itself. */
static void large_file_crosses_groups(void **state)
{
	int tar = tar_tmpfile();
	struct archive *a = tar_begin(tar, "pax", "zstd");
	struct archive_entry *e = tar_entry("large", S_IFREG | 0600);
	size_t size = 300 * MIB;
	uint32_t *data = calloc(1, size);

	tar_dir(a, "./");
	for (size_t i = 0; i < size / 4; i += 256)
		data[i] = i;
	tar_put(a, e, data, size);
	tar_end(a);
	free(data);
	round_trip(tar);
	close(tar);
}

static void later_entries_replace(void **state)
{
	int tar = tar_tmpfile(), want = tar_tmpfile(), disk = tar_tmpfile();
	int back = tar_tmpfile();
	struct image_export_opts o = { .name = "x.tar" };
	struct archive *a = tar_begin(tar, "pax", "");
	struct err err = ERR_INIT;
	struct image_info info;

	tar_dir(a, "./");
	tar_file(a, "f", "old", 3);
	tar_hardlink(a, "g", "f");
	tar_dir(a, "empty");
	tar_symlink(a, "l", "x");
	tar_file(a, "f", "new", 3);
	tar_file(a, "empty", "file", 4);
	tar_dir(a, "l");
	tar_file(a, "l/in", "x", 1);
	tar_put(a, tar_entry("l", S_IFDIR | 0700), NULL, 0);
	tar_end(a);
	assert_int_equal(build(tar, disk, &info, &err), 0);
	image_info_done(&info);
	assert_int_equal(tar_fsck(disk), 0);
	assert_int_equal(image_export(&disk, 1, back, &o, NULL, &err), 0);

	a = tar_begin(want, "pax", "");
	tar_dir(a, "./");
	tar_file(a, "f", "new", 3);
	tar_file(a, "g", "old", 3);
	tar_file(a, "empty", "file", 4);
	tar_put(a, tar_entry("l", S_IFDIR | 0700), NULL, 0);
	tar_file(a, "l/in", "x", 1);
	tar_end(a);
	tar_same(want, back);
	close(tar);
	close(want);
	close(disk);
	close(back);
}

static void same_input_same_bytes(void **state)
{
	int tar = tar_tmpfile(), disk[2] = { tar_tmpfile(), tar_tmpfile() };
	static uint8_t a[MIB], b[MIB];
	struct err err = ERR_INIT;
	struct image_info info;
	off_t size;

	random_tree(tar, 3, "pax", "gzip");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(build(tar, disk[i], &info, &err), 0);
		image_info_done(&info);
	}
	size = lseek(disk[0], 0, SEEK_END);
	for (off_t off = 0; off < size; off += sizeof(a)) {
		assert_int_equal(pread(disk[0], a, sizeof(a), off), sizeof(a));
		assert_int_equal(pread(disk[1], b, sizeof(b), off), sizeof(b));
		if (memcmp(a, b, sizeof(a)))
			fail_msg("differs in MiB %ld", (long)(off / sizeof(a)));
	}
	close(tar);
	close(disk[0]);
	close(disk[1]);
}

/* --- hostile ----------------------------------------------------------------- */

static void refused(int tar, const char *says)
{
	int disk = tar_tmpfile();
	struct err err = ERR_INIT;
	struct image_info info;
	bool found = false;

	assert_true(build(tar, disk, &info, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_IMAGE_INVALID);
	for (unsigned i = 0; err_cause(&err, i); i++)
		found |= strstr(err_cause(&err, i), says) != NULL;
	if (!found) {
		print_err(&err);
		fail_msg("nothing says '%s'", says);
	}
	close(disk);
	close(tar);
}

#define REFUSED(says, ...) \
	do { \
		int _tar = tar_tmpfile(); \
		struct archive *a = tar_begin(_tar, "pax", ""); \
		__VA_ARGS__; \
		tar_end(a); \
		refused(_tar, says); \
	} while (0)

static void hostile_paths_are_refused(void **state)
{
	char name[400], *deep = calloc(1, 70000);

	REFUSED("entry '/etc/passwd'", tar_file(a, "/etc/passwd", "x", 1));
	REFUSED("absolute", tar_file(a, "//x", "x", 1));
	REFUSED("entry 'a/../../x'", tar_file(a, "a/../../x", "x", 1));
	REFUSED("'..'", tar_file(a, "..", "x", 1));
	REFUSED("'..'", tar_dir(a, "a/.."));
	REFUSED("through 'l'", tar_symlink(a, "l", "/tmp"); tar_file(a, "l/x", "x", 1));
	REFUSED("through 'f'", tar_file(a, "f", "x", 1); tar_file(a, "f/x", "x", 1));
	REFUSED("does not exist", tar_hardlink(a, "x", "nowhere"));
	REFUSED("absolute", tar_hardlink(a, "x", "/etc/shadow"));
	REFUSED("'..'", tar_hardlink(a, "x", "../../etc/shadow"));
	REFUSED("is a directory", tar_dir(a, "d"); tar_hardlink(a, "x", "d"));
	REFUSED("through 'l'", tar_symlink(a, "l", "/etc");
		tar_hardlink(a, "x", "l/shadow"));
	REFUSED("not empty", tar_file(a, "d/x", "x", 1); tar_file(a, "d", "x", 1));
	REFUSED("root must be", tar_file(a, "./.", "x", 1));
	REFUSED("lost+found", tar_file(a, "lost+found", "x", 1));
	REFUSED("lost+found", tar_file(a, "f", "x", 1);
		tar_hardlink(a, "lost+found", "f"));
	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	REFUSED("256 bytes", tar_file(a, name, "x", 1));
	for (unsigned i = 0; i < 34000; i++)
		strcpy(deep + 2 * i, "d/");
	REFUSED("too long", tar_dir(a, deep));
	free(deep);
}

static void hostile_metadata_is_refused(void **state)
{
	static uint8_t big[20000];
	struct archive_entry *e;

	REFUSED("owner", e = tar_entry("x", S_IFREG | 0644);
		archive_entry_set_uid(e, 1ll << 32); tar_put(a, e, NULL, 0));
	REFUSED("device number", e = tar_entry("x", S_IFCHR | 0644);
		archive_entry_set_rdevmajor(e, 1 << 13); tar_put(a, e, NULL, 0));
	REFUSED("attributes", e = tar_entry("x", S_IFREG | 0644);
		archive_entry_xattr_add_entry(e, "user.x", big, 20000);
		tar_put(a, e, NULL, 0));
	REFUSED("attributes", e = tar_entry("x", S_IFREG | 0644);
		archive_entry_xattr_add_entry(e, "user.x", big, 6000);
		tar_put(a, e, NULL, 0));
	REFUSED("device nodes", for (unsigned i = 0; i < 5000; i++) {
			char name[16];

			snprintf(name, sizeof(name), "%u", i);
			tar_put(a, tar_entry(name, S_IFCHR | 0666), NULL, 0);
		});
}

static void floods_are_refused(void **state)
{
	struct image_opts o = { .min_size = 64 * MIB, .max_entries = 1000 };
	int tar = tar_tmpfile(), disk = tar_tmpfile();
	struct archive *a = tar_begin(tar, "ustar", "zstd");
	struct err err = ERR_INIT;
	struct image_info info;
	char *zero = calloc(1, MIB);
	struct archive_entry *e;

	for (unsigned i = 0; i < 1001; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%u", i);
		tar_dir(a, name);
	}
	tar_end(a);
	lseek(tar, 0, SEEK_SET);
	assert_int_equal(image_build(tar, disk, &o, &info, &err), -EINVAL);
	assert_non_null(strstr(err_cause(&err, 0), "entry '1000/'"));
	close(tar);

	/* two gigabytes of zeroes in a few kilobytes */
	tar = tar_tmpfile();
	a = tar_begin(tar, "pax", "zstd");
	e = tar_entry("bomb", S_IFREG | 0644);
	archive_entry_set_size(e, 2 * GIB);
	assert_int_equal(archive_write_header(a, e), 0);
	for (unsigned i = 0; i < 2048; i++)
		archive_write_data(a, zero, MIB);
	archive_entry_free(e);
	tar_end(a);
	refused(tar, "expands more than");

	tar = tar_tmpfile();
	a = tar_begin(tar, "pax", "");
	tar_file(a, "f", zero, MIB);
	tar_end(a);
	lseek(tar, 0, SEEK_SET);
	o = (struct image_opts){ .max_content = MIB / 2 };
	assert_true(image_build(tar, disk, &o, &info, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_IMAGE_INVALID);
	free(zero);
	close(tar);
	close(disk);
}

static void damaged_archives_are_refused(void **state)
{
	static const char *const filter[] = { "", "gzip", "zstd", "xz" };
	static uint8_t data[MIB * 32];

	for (unsigned f = 0; f < ARRAY_LEN(filter); f++) {
		int tar = tar_tmpfile();
		ssize_t size;

		random_tree(tar, f, "pax", filter[f]);
		size = pread(tar, data, sizeof(data), 0);
		assert_true(size > 10000 && size < (ssize_t)sizeof(data));
		for (unsigned i = 0; i < 12; i++) {
			/* cut; an uncompressed one between entries, too */
			ssize_t cut = 1 + rnd(size - 1);
			int part = tar_tmpfile();

			if (i % 2 && !*filter[f])
				cut = ALIGN_DOWN(cut, 512);
			io_pwrite_full(part, data, cut, 0);
			refused(part, "");
		}
		close(tar);
	}
	refused(tar_tmpfile(), "");
}

static void mutations_do_no_harm(void **state)
{
	static uint8_t good[MIB * 32], bad[MIB * 32];
	int tar = tar_tmpfile();
	unsigned accepted = 0;
	ssize_t size;

	random_tree(tar, 9, "pax", "");
	size = pread(tar, good, sizeof(good), 0);
	for (unsigned i = 0; i < 60; i++) {
		int disk = tar_tmpfile(), part = tar_tmpfile();
		struct err err = ERR_INIT;
		struct image_info info;
		int ret;

		rng_state = i + 1;
		memcpy(bad, good, size);
		for (unsigned n = 1 + rnd(6); n; n--)
			bad[rnd(2) ? rnd(size) : 512 * rnd(size / 512) + rnd(512)] =
				rnd(256);
		assert_int_equal(io_pwrite_full(part, bad, size, 0), 0);
		ret = build(part, disk, &info, &err);
		if (!ret) {
			accepted++;
			if (accepted % 8 == 0)
				assert_int_equal(tar_fsck(disk), 0);
			image_info_done(&info);
		} else {
			assert_int_equal(err.code, ERR_BOOT_IMAGE_INVALID);
		}
		close(disk);
		close(part);
	}
	assert_true(accepted > 2);
	close(tar);
}

static void full_disk_is_said(void **state)
{
	int tar = tar_tmpfile(), full = open("/dev/full", O_RDWR);
	struct err err = ERR_INIT;
	struct image_info info;

	random_tree(tar, 1, "pax", "");
	assert_true(build(tar, full, &info, &err) < 0);
	assert_int_equal(err.code, ERR_HOST_NO_SPACE);
	close(tar);
	close(full);
}

/* --- configuration ----------------------------------------------------------- */

static int with_config(const char *text, struct image_info *info, struct err *err)
{
	int tar = tar_tmpfile(), disk = tar_tmpfile(), ret;
	struct archive *a = tar_begin(tar, "pax", "");

	tar_dir(a, "bin");
	tar_file(a, "./machinen-config.json", text, strlen(text));
	tar_end(a);
	ret = build(tar, disk, info, err);
	close(tar);
	close(disk);
	return ret;
}

static void configuration_is_read(void **state)
{
	struct err err = ERR_INIT;
	struct image_info info;

	assert_int_equal(with_config("{\"cmd\":[\"/a\",\"b\"],\"env\":{\"K\":\"v\","
				     "\"L\":\"\"},\"cwd\":\"/srv\"}", &info, &err), 0);
	assert_string_equal(info.config.cmd[1], "b");
	assert_null(info.config.cmd[2]);
	assert_string_equal(info.config.env[0], "K=v");
	assert_string_equal(info.config.env[1], "L=");
	assert_string_equal(info.config.cwd, "/srv");
	image_info_done(&info);
	assert_int_equal(with_config("{\"cmd\":\"a | b\"}", &info, &err), 0);
	assert_string_equal(info.config.cmd[2], "a | b");
	assert_null(info.config.env);
	image_info_done(&info);
	assert_int_equal(with_config("{}", &info, &err), 0);
	image_info_done(&info);
}

static void bad_configuration_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "[]", "{", "{\"cmd\":1}", "{\"cmd\":[]}", "{\"cmd\":[\"\"]}",
		"{\"cmd\":[1]}", "{\"env\":{\"A\":1}}", "{\"env\":{\"A B\":\"\"}}",
		"{\"env\":{\"\":\"\"}}", "{\"env\":[\"A\"]}", "{\"env\":[\"1A=\"]}",
		"{\"env\":\"A=b\"}", "{\"cwd\":\"a\"}", "{\"cwd\":1}",
		"{\"schema_version\":2}", "{\"comand\":[\"/a\"]}",
		"{\"cmd\":[\"a\\u0000b\"]}",
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct err err = ERR_INIT;
		struct image_info info;

		if (with_config(bad[i], &info, &err) != -EINVAL ||
		    err.code != ERR_BOOT_IMAGE_INVALID)
			fail_msg("accepted: %s", bad[i]);
	}
}

/* --- export ------------------------------------------------------------------ */

static void export_puts_configuration_in(void **state)
{
	static char run[] = "/run", *cmd[] = { run, NULL };
	const struct image_config config = { .cmd = cmd };
	struct image_export_opts o = { .name = "x.tar.gz", .config = &config };
	int tar = tar_tmpfile(), disk = tar_tmpfile();
	static uint8_t a[MIB * 32], b[MIB * 32];
	struct err err = ERR_INIT;
	struct image_info info;
	ssize_t size[2];

	random_tree(tar, 2, "pax", "zstd");
	assert_int_equal(build(tar, disk, &info, &err), 0);
	image_info_done(&info);
	for (unsigned i = 0; i < 2; i++) {
		int out = tar_tmpfile(), again = tar_tmpfile();

		assert_int_equal(image_export(&disk, 1, out, &o, NULL, &err), 0);
		size[i] = pread(out, i ? b : a, sizeof(a), 0);
		assert_int_equal(build(out, again, &info, &err), 0);
		assert_string_equal(info.config.cmd[0], "/run");
		image_info_done(&info);
		close(out);
		/* what was put in replaces what an image had */
		close(disk);
		disk = again;
	}
	assert_int_equal(size[0], size[1]);
	assert_memory_equal(a, b, size[0]);
	close(disk);
	close(tar);
}

static void export_reads_through_layers(void **state)
{
	struct image_export_opts o = { .name = "x.tar" };
	int tar[2], raw[2], top = tar_tmpfile(), back = tar_tmpfile(), fd[2];
	struct err err = ERR_INIT;
	static uint8_t data[MIB];
	struct layer_stack *s;
	struct image_info info;
	struct iovec iov = { data, sizeof(data) };

	for (unsigned i = 0; i < 2; i++) {
		tar[i] = tar_tmpfile();
		raw[i] = tar_tmpfile();
		random_tree(tar[i], 20 + i, "pax", "");
		assert_int_equal(build(tar[i], raw[i], &info, &err), 0);
	}
	/* the second file system, written over the first in a larger layer */
	assert_int_equal(layer_create(top, raw[0], true, 2 * info.disk_size, &err), 0);
	fd[0] = dup(raw[0]);
	fd[1] = dup(top);
	s = layer_stack_open(fd, 2, 0, false, NULL, &err);
	for (uint64_t off = 0; off < info.disk_size; off += sizeof(data)) {
		assert_int_equal(pread(raw[1], data, sizeof(data), off),
				 sizeof(data));
		assert_int_equal(layer_write(s, &iov, 1, off), 0);
	}
	layer_stack_free(s);
	fd[0] = raw[0];
	fd[1] = top;
	if (image_export(fd, 2, back, &o, NULL, &err))
		print_err(&err);
	tar_same(tar[1], back);
	for (unsigned i = 0; i < 2; i++) {
		close(tar[i]);
		close(raw[i]);
	}
	close(top);
	close(back);
	image_info_done(&info);
}

static void export_refuses_a_live_journal(void **state)
{
	struct image_export_opts o = { .name = "x.tar" };
	int tar = tar_tmpfile(), disk = tar_tmpfile(), out = tar_tmpfile();
	struct err err = ERR_INIT;
	struct image_info info;
	char cmd[200];

	random_tree(tar, 1, "pax", "");
	assert_int_equal(build(tar, disk, &info, &err), 0);
	image_info_done(&info);
	snprintf(cmd, sizeof(cmd), "PATH=$PATH:/sbin:/usr/sbin debugfs -w -R "
		 "'feature needs_recovery' /proc/%d/fd/%d >/dev/null 2>&1",
		 getpid(), disk);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(image_export(&disk, 1, out, &o, NULL, &err), -EBUSY);
	close(tar);
	close(disk);
	close(out);
}

/* Random bytes in what a guest could have written. */
static void export_survives_damage(void **state)
{
	struct image_export_opts o = { .name = "x.tar" };
	int tar = tar_tmpfile(), disk = tar_tmpfile();
	struct err err = ERR_INIT;
	struct image_info info;
	static uint8_t good[4096];

	random_tree(tar, 4, "pax", "");
	assert_int_equal(build(tar, disk, &info, &err), 0);
	image_info_done(&info);
	for (unsigned i = 0; i < 60; i++) {
		uint32_t blk;
		off_t off = 0;
		int out = tar_tmpfile();

		rng_state = i + 1;
		do {
			blk = rnd(16384);
			off = lseek(disk, blk * 4096ll, SEEK_DATA);
		} while (off < 0);
		off = ALIGN_DOWN(off, 4096);
		assert_int_equal(pread(disk, good, 4096, off), 4096);
		for (unsigned n = 1 + rnd(8); n; n--) {
			uint8_t byte = rnd(256);

			assert_int_equal(pwrite(disk, &byte, 1, off + rnd(4096)), 1);
		}
		err_clear(&err);
		if (image_export(&disk, 1, out, &o, NULL, &err))
			assert_true(err.num > 0);
		assert_int_equal(pwrite(disk, good, 4096, off), 4096);
		close(out);
	}
	close(tar);
	close(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_trees_come_back),
		cmocka_unit_test(hundred_thousand_files),
		cmocka_unit_test(wide_directories),
		cmocka_unit_test(many_subdirectories),
		cmocka_unit_test(deep_tree),
		cmocka_unit_test(very_sparse_file),
		cmocka_unit_test(large_file_crosses_groups),
		cmocka_unit_test(later_entries_replace),
		cmocka_unit_test(same_input_same_bytes),
		cmocka_unit_test(hostile_paths_are_refused),
		cmocka_unit_test(hostile_metadata_is_refused),
		cmocka_unit_test(floods_are_refused),
		cmocka_unit_test(damaged_archives_are_refused),
		cmocka_unit_test(mutations_do_no_harm),
		cmocka_unit_test(full_disk_is_said),
		cmocka_unit_test(configuration_is_read),
		cmocka_unit_test(bad_configuration_is_refused),
		cmocka_unit_test(export_puts_configuration_in),
		cmocka_unit_test(export_reads_through_layers),
		cmocka_unit_test(export_refuses_a_live_journal),
		cmocka_unit_test(export_survives_damage),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
