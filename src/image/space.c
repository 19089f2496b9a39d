// SPDX-License-Identifier: MIT
/*
 * space.c - blocks and buffered writing; see space.h.
 *
 * The files of an archive lie one after the other on the disk, so a thousand
 * small ones leave in one write: the buffer grows while writes follow each
 * other within a block's padding, and is written out when they jump.
 */
#include "image/space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define BUF_SIZE (1u << 20)
#define ZONE (1 + SPACE_GDT_BLOCKS)	/* superblock and descriptors */

int space_init(struct space *s, int fd, uint64_t max_bytes)
{
	*s = (struct space){
		.fd = fd, .next = ZONE, .max = max_bytes / SPACE_BLOCK,
	};
	s->buf = malloc(BUF_SIZE);
	return s->buf ? 0 : -ENOMEM;
}

void space_done(struct space *s)
{
	free(s->buf);
	s->buf = NULL;
}

bool space_is_backup(uint64_t group)
{
	static const unsigned base[] = { 3, 5, 7 };

	if (group <= 1)
		return true;
	for (unsigned i = 0; i < ARRAY_LEN(base); i++) {
		uint64_t n = base[i];

		while (n < group)
			n *= base[i];
		if (n == group)
			return true;
	}
	return false;
}

int space_alloc(struct space *s, uint64_t want, uint64_t *blk, uint32_t *len,
		struct err *err)
{
	uint64_t group = s->next / SPACE_GROUP, end;

	if (s->next % SPACE_GROUP < ZONE && space_is_backup(group))
		s->next = group * SPACE_GROUP + ZONE;
	/* up to the next group that begins with a superblock */
	end = (s->next / SPACE_GROUP + 1) * SPACE_GROUP;
	while (end - s->next < SPACE_RUN_MAX && !space_is_backup(end / SPACE_GROUP))
		end += SPACE_GROUP;
	want = MIN(want, end - s->next);
	want = MIN(want, (uint64_t)SPACE_RUN_MAX);
	if (s->used + want > s->max)
		return err_set(err, EFBIG, "more than %llu MiB of content",
			       (unsigned long long)(s->max * SPACE_BLOCK / MIB));
	*blk = s->next;
	*len = want;
	s->next += want;
	s->used += want;
	return 0;
}

static int write_error(int ret, struct err *err)
{
	if (ret == -ENOSPC || ret == -EDQUOT)
		return err_code(err, ERR_HOST_NO_SPACE, -ret,
				"no space left for the disk");
	return err_code(err, ERR_HOST_FAILED, -ret, "cannot write the disk: %s",
			strerror(-ret));
}

int space_flush(struct space *s, struct err *err)
{
	int ret = io_pwrite_full(s->fd, s->buf, s->len, s->pos);

	if (ret)
		return write_error(ret, err);
	s->pos += s->len;
	s->len = 0;
	return 0;
}

/* Blocks are handed out once and the file is new: they are zero already. */
static bool needless(const uint8_t *p, size_t len)
{
	return len >= SPACE_BLOCK && !p[0] && !memcmp(p, p + 1, len - 1);
}

int space_write(struct space *s, uint64_t off, const void *data, size_t len,
		struct err *err)
{
	uint64_t end = s->pos + s->len, gap = off - end;
	int ret;

	if (needless(data, len))
		return 0;
	if (s->len && (off < end || gap >= SPACE_BLOCK ||
		       s->len + gap + len > BUF_SIZE)) {
		ret = space_flush(s, err);
		if (ret)
			return ret;
	}
	if (!s->len) {
		s->pos = off;
		gap = 0;
	}
	if (len >= BUF_SIZE / 4 && !s->len) {
		ret = io_pwrite_full(s->fd, data, len, off);
		return ret ? write_error(ret, err) : 0;
	}
	memset(s->buf + s->len, 0, gap);
	memcpy(s->buf + s->len + gap, data, len);
	s->len += gap + len;
	return 0;
}
