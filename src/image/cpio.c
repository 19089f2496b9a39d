// SPDX-License-Identifier: MIT
/* cpio.c - writer of "newc" archives; see cpio.h. */
#include "image/cpio.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

#define CPIO_NAME_MAX 256

void cpio_init(struct cpio *c, int fd)
{
	*c = (struct cpio){ .fd = fd, .ino = 1 };
}

static void put(struct cpio *c, const void *data, size_t len)
{
	if (!c->error)
		c->error = io_write_full(c->fd, data, len);
	c->size += len;
}

static void pad(struct cpio *c)
{
	put(c, "\0\0\0", -c->size & 3);
}

static void head(struct cpio *c, const char *name, mode_t mode, uint64_t len,
		 unsigned major, unsigned minor)
{
	size_t name_len = strlen(name) + 1;
	char text[128];

	if (len > UINT32_MAX || name_len > CPIO_NAME_MAX) {
		if (!c->error)
			c->error = -EFBIG;
		return;
	}
	/* magic ino mode uid gid nlink mtime size dev(2) rdev(2) name check */
	snprintf(text, sizeof(text),
		 "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		 c->ino++, (unsigned)mode, 0, 0, S_ISDIR(mode) ? 2 : 1, 0,
		 (unsigned)len, 0, 0, major, minor, (unsigned)name_len, 0);
	put(c, text, strlen(text));
	put(c, name, name_len);
	pad(c);
}

void cpio_dir(struct cpio *c, const char *name, mode_t perm)
{
	head(c, name, S_IFDIR | perm, 0, 0, 0);
}

void cpio_dev(struct cpio *c, const char *name, mode_t mode, unsigned major,
	      unsigned minor)
{
	head(c, name, mode, 0, major, minor);
}

void cpio_file(struct cpio *c, const char *name, mode_t perm, const void *data,
	       size_t len)
{
	head(c, name, S_IFREG | perm, len, 0, 0);
	put(c, data, len);
	pad(c);
}

void cpio_file_fd(struct cpio *c, const char *name, mode_t perm, int fd)
{
	char data[32 << 10];
	struct stat st;
	uint64_t at = 0;

	if (fstat(fd, &st)) {
		c->error = c->error ? c->error : -errno;
		return;
	}
	head(c, name, S_IFREG | perm, st.st_size, 0, 0);
	while (!c->error && at < (uint64_t)st.st_size) {
		size_t want = sizeof(data);
		ssize_t n;

		if (want > st.st_size - at)
			want = st.st_size - at;
		n = io_pread_full(fd, data, want, at);
		if (n <= 0) {	/* it shrank: the head has promised more */
			c->error = n < 0 ? (int)n : -EIO;
			return;
		}
		put(c, data, n);
		at += n;
	}
	pad(c);
}

int cpio_finish(struct cpio *c)
{
	head(c, "TRAILER!!!", 0, 0, 0, 0);
	while (!c->error && c->size & 511)
		put(c, "", 1);
	return c->error;
}
