// SPDX-License-Identifier: MIT
/* image_tar.c - making archives for tests, and comparing what is in them. */
#include "image_tar.h"

#include <fcntl.h>
#include <locale.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/util.h"

int tar_tmpfile(void)
{
	int fd = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

	if (fd < 0) {
		char path[] = "/tmp/mn-test-XXXXXX";

		fd = mkostemp(path, O_CLOEXEC);
		unlink(path);
	}
	assert_true(fd >= 0);
	return fd;
}

struct archive *tar_begin(int fd, const char *format, const char *filter)
{
	struct archive *a = archive_write_new();

	setlocale(LC_CTYPE, "C.UTF-8");
	assert_int_equal(archive_write_set_format_by_name(a, format), 0);
	if (*filter)
		assert_int_equal(archive_write_add_filter_by_name(a, filter), 0);
	archive_write_set_bytes_in_last_block(a, 1);
	assert_int_equal(archive_write_open_fd(a, fd), 0);
	return a;
}

void tar_end(struct archive *a)
{
	assert_int_equal(archive_write_close(a), 0);
	archive_write_free(a);
}

struct archive_entry *tar_entry(const char *path, unsigned mode)
{
	struct archive_entry *e = archive_entry_new();

	archive_entry_copy_pathname(e, path);
	archive_entry_set_mode(e, mode);
	archive_entry_set_mtime(e, 1700000000, 0);
	archive_entry_set_size(e, 0);
	return e;
}

void tar_put(struct archive *a, struct archive_entry *e, const void *data,
	     size_t len)
{
	if (len)
		archive_entry_set_size(e, len);
	if (archive_write_header(a, e) < ARCHIVE_WARN)
		fail_msg("%s: %s", archive_entry_pathname(e),
			 archive_error_string(a));
	if (len)
		assert_int_equal(archive_write_data(a, data, len), len);
	archive_entry_free(e);
}

void tar_file(struct archive *a, const char *path, const void *data, size_t len)
{
	tar_put(a, tar_entry(path, S_IFREG | 0644), data, len);
}

void tar_dir(struct archive *a, const char *path)
{
	tar_put(a, tar_entry(path, S_IFDIR | 0755), NULL, 0);
}

void tar_symlink(struct archive *a, const char *path, const char *target)
{
	struct archive_entry *e = tar_entry(path, S_IFLNK | 0777);

	archive_entry_copy_symlink(e, target);
	tar_put(a, e, NULL, 0);
}

void tar_hardlink(struct archive *a, const char *path, const char *target)
{
	struct archive_entry *e = tar_entry(path, S_IFREG | 0644);

	archive_entry_copy_hardlink(e, target);
	tar_put(a, e, NULL, 0);
}

/* --- describing ------------------------------------------------------------- */

struct line {
	char *path, *text;	/* owned */
	unsigned first;		/* of the names of one file: lowest line number */
};

struct lines {
	struct line *l;
	unsigned nr, cap;
};

static char *clean_path(const char *p)
{
	char *s, *end;

	while (p[0] == '.' && p[1] == '/')
		p += 2;
	s = strdup(p);
	for (end = s + strlen(s); end > s && end[-1] == '/';)
		*--end = '\0';
	return s;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_xattrs(struct buf *b, struct archive_entry *e)
{
	char *list[64];
	const char *name;
	const void *value;
	size_t len;
	unsigned n = 0;

	archive_entry_xattr_reset(e);
	while (n < 64 && !archive_entry_xattr_next(e, &name, &value, &len)) {
		struct buf x = BUF_INIT;

		buf_addf(&x, " %s=", name);
		for (size_t i = 0; i < len; i++)
			buf_addf(&x, "%02x", ((const uint8_t *)value)[i]);
		list[n++] = buf_steal(&x);
	}
	qsort(list, n, sizeof(*list), by_text);
	for (unsigned i = 0; i < n; i++) {
		/* libarchive may give one attribute under two headers */
		if (!i || strcmp(list[i], list[i - 1]))
			buf_adds(b, list[i]);
	}
	for (unsigned i = 0; i < n; i++)
		free(list[i]);
}

static void add_content(struct buf *b, struct archive *a)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t digest[32], data[65536];
	la_ssize_t n;

	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while ((n = archive_read_data(a, data, sizeof(data))) > 0)
		EVP_DigestUpdate(md, data, n);
	assert_int_equal(n, 0);
	EVP_DigestFinal_ex(md, digest, NULL);
	EVP_MD_CTX_free(md);
	buf_adds(b, " data=");
	for (unsigned i = 0; i < 8; i++)
		buf_addf(b, "%02x", digest[i]);
}

static char *describe_entry(struct archive *a, struct archive_entry *e)
{
	struct buf b = BUF_INIT;
	unsigned mode = archive_entry_mode(e);
	char *acl = archive_entry_acl_to_text(e, NULL,
			ARCHIVE_ENTRY_ACL_STYLE_EXTRA_ID |
			ARCHIVE_ENTRY_ACL_STYLE_SEPARATOR_COMMA);

	buf_addf(&b, "%o %lld:%lld %lld.%09ld", mode,
		 (long long)archive_entry_uid(e), (long long)archive_entry_gid(e),
		 (long long)archive_entry_mtime(e), archive_entry_mtime_nsec(e));
	if (S_ISREG(mode)) {
		buf_addf(&b, " size=%lld", (long long)archive_entry_size(e));
		add_content(&b, a);
	}
	if (S_ISLNK(mode))
		buf_addf(&b, " -> %s", archive_entry_symlink(e));
	if (S_ISCHR(mode) || S_ISBLK(mode))
		buf_addf(&b, " dev=%d:%d", (int)archive_entry_rdevmajor(e),
			 (int)archive_entry_rdevminor(e));
	if (acl && archive_entry_acl_types(e))
		buf_addf(&b, " acl=%s", acl);
	free(acl);
	add_xattrs(&b, e);
	return buf_steal(&b);
}

static struct line *find_line(struct lines *l, const char *path)
{
	for (unsigned i = l->nr; i--;)
		if (!strcmp(l->l[i].path, path))
			return &l->l[i];
	fail_msg("no entry '%s'", path);
	return NULL;
}

static void add_line(struct lines *l, struct archive *a, struct archive_entry *e)
{
	const char *link = archive_entry_hardlink(e);
	struct line n = { .path = clean_path(archive_entry_pathname(e)),
			  .first = l->nr };

	if (link) {
		char *target = clean_path(link);
		struct line *t = find_line(l, target);

		n.text = strdup(t->text);
		n.first = t->first;
		free(target);
	} else {
		n.text = describe_entry(a, e);
	}
	if (l->nr == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 64;
		l->l = realloc(l->l, l->cap * sizeof(*l->l));
	}
	l->l[l->nr++] = n;
}

/* "a = b" for each pair of names of one file, from the first in sort order. */
static char *join(struct lines *l)
{
	struct buf b = BUF_INIT;
	char **out = calloc(l->nr, sizeof(*out));

	for (unsigned i = 0; i < l->nr; i++) {
		const char *low = l->l[i].path;
		unsigned names = 0;
		struct buf one = BUF_INIT;

		for (unsigned k = l->l[i].first; k < l->nr; k++) {
			if (l->l[k].first != l->l[i].first)
				continue;
			names++;
			if (strcmp(l->l[k].path, low) < 0)
				low = l->l[k].path;
		}
		buf_addf(&one, "%s\t%s", l->l[i].path, l->l[i].text);
		if (names > 1)
			buf_addf(&one, " same=%s", low);
		out[i] = buf_steal(&one);
	}
	qsort(out, l->nr, sizeof(*out), by_text);
	for (unsigned i = 0; i < l->nr; i++) {
		buf_addf(&b, "%s\n", out[i]);
		free(out[i]);
	}
	free(out);
	return buf_steal(&b);
}

char *tar_describe(int fd)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	struct lines l = { .l = NULL };
	char *text;
	int ret;

	setlocale(LC_CTYPE, "C.UTF-8");
	archive_read_support_filter_all(a);
	archive_read_support_format_tar(a);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(archive_read_open_fd(a, fd, 65536), 0);
	while ((ret = archive_read_next_header(a, &e)) != ARCHIVE_EOF) {
		if (ret < ARCHIVE_WARN)
			fail_msg("%s", archive_error_string(a));
		add_line(&l, a, e);
	}
	archive_read_free(a);
	text = join(&l);
	for (unsigned i = 0; i < l.nr; i++) {
		free(l.l[i].path);
		free(l.l[i].text);
	}
	free(l.l);
	return text;
}

void tar_same(int fd_a, int fd_b)
{
	char *a = tar_describe(fd_a), *b = tar_describe(fd_b);
	char *pa = a, *pb = b;

	while (*pa && *pb) {
		char *na = strchr(pa, '\n'), *nb = strchr(pb, '\n');

		if (na - pa != nb - pb || memcmp(pa, pb, na - pa))
			fail_msg("entries differ:\n  %.*s\n  %.*s", (int)(na - pa),
				 pa, (int)(nb - pb), pb);
		pa = na + 1;
		pb = nb + 1;
	}
	if (*pa || *pb)
		fail_msg("only in one: %.200s", *pa ? pa : pb);
	free(a);
	free(b);
}

int tar_fsck(int fd)
{
	char cmd[256];
	int st;

	snprintf(cmd, sizeof(cmd), "PATH=$PATH:/sbin:/usr/sbin e2fsck -fn "
		 "/proc/%d/fd/%d >/tmp/mn-fsck.%d 2>&1 || { st=$?; cat "
		 "/tmp/mn-fsck.%d >&2; rm -f /tmp/mn-fsck.%d; exit $st; }; "
		 "rm -f /tmp/mn-fsck.%d", getpid(), fd, getpid(), getpid(),
		 getpid(), getpid());
	st = system(cmd);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 255;
}
