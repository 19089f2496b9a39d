// SPDX-License-Identifier: MIT
/*
 * bundle_seen.c - digests of base disks, remembered; see bundle.h.
 *
 * A base disk is never changed, and is a few hundred MiB to read.  Its digest is kept
 * in home/cache/sums under what stat(2) says of the file: device, inode, size and
 * modification time, to the nanosecond.  Not the change time, which moves with
 * every bundle that links to the file.  What is wrong here, because somebody
 * changed a disk and set its time back, is found by `inspect --verify`.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/bundle.h"
#include "lib/lib.h"

#define RACY_NS (100 * 1000000ll)	/* coarsest clock tick, generously */

static int identity(int fd, struct stat *st, char key[BUNDLE_SUM_LEN])
{
	char text[128];
	int n;

	if (fstat(fd, st) < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%ju %ju %jd %jd.%09ld", (uintmax_t)st->st_dev,
		     (uintmax_t)st->st_ino, (intmax_t)st->st_size,
		     (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	return bundle_sum_data(text, (size_t)n, key);
}

static bool recall(int dir, const char *key, char hex[BUNDLE_SUM_LEN])
{
	struct buf text = BUF_INIT;
	bool ok = !io_read_file(dir, key, BUNDLE_SUM_LEN, &text) &&
		  text.len == BUNDLE_SUM_LEN - 1 &&
		  strspn(text.data, "0123456789abcdef") == text.len;

	if (ok)
		memcpy(hex, text.data, BUNDLE_SUM_LEN);
	buf_done(&text);
	return ok;
}

/* One more change might not move the time of a file that has just been written. */
static bool settled(const struct stat *st)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - st->st_mtim.tv_sec) * (int64_t)NSEC_PER_SEC +
	       now.tv_nsec - st->st_mtim.tv_nsec >= RACY_NS;
}

int bundle_sum_base(int fd, char hex[BUNDLE_SUM_LEN],
		    int (*step)(void *arg, uint64_t done), void *arg)
{
	char key[BUNDLE_SUM_LEN], after[BUNDLE_SUM_LEN];
	struct err none = ERR_INIT;
	cleanup(io_closep) int dir = home_open("cache/sums", &none);
	struct stat st;
	int ret = identity(fd, &st, key);

	if (!ret && dir >= 0 && recall(dir, key, hex))
		return 0;
	if (!ret)
		ret = bundle_sum_pages(fd, hex, step, arg);
	/* failing to remember costs time alone */
	if (!ret && dir >= 0 && settled(&st) && !identity(fd, &st, after) &&
	    !strcmp(key, after))
		io_write_file(dir, key, hex, strlen(hex), 0600);
	return ret;
}
