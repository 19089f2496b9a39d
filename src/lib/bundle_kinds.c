// SPDX-License-Identifier: MIT
/*
 * bundle_kinds.c - which pages of a bundle's memory its disks have as well: the
 * guest's page cache, for the most part.
 *
 * Pages are told apart by 64 bits of a hash, not by their bytes.  That is enough
 * for a number that people look at, and nothing else is done with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "lib/bundle.h"
#include "lib/lib.h"
#include "proto/memsum.h"

struct set {
	uint64_t *key;		/* owned; sorted when it is complete */
	size_t nr, room;
	uint64_t hits;
};

static uint64_t hash(const uint8_t *page)
{
	uint64_t h = 0xcbf29ce484222325, word;

	for (unsigned i = 0; i < MEMSUM_PAGE; i += sizeof(word)) {
		memcpy(&word, page + i, sizeof(word));
		h = (h ^ word) * 0x9e3779b97f4a7c15;
		h ^= h >> 29;
	}
	return h;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int add(void *arg, uint64_t nr, const uint8_t *page)
{
	struct set *s = arg;

	if (s->nr == s->room) {
		size_t room = s->room ? 2 * s->room : 65536;
		uint64_t *key = realloc(s->key, room * sizeof(*key));

		if (!key)
			return -ENOMEM;
		s->key = key;
		s->room = room;
	}
	s->key[s->nr++] = hash(page);
	return 0;
}

static int look(void *arg, uint64_t nr, const uint8_t *page)
{
	struct set *s = arg;
	uint64_t key = hash(page);

	s->hits += bsearch(&key, s->key, s->nr, sizeof(key), compare) != NULL;
	return 0;
}

/* All files with that check. */
static int walk_files(const struct bundle *b, const char *check, struct set *s,
		      int (*page)(void *, uint64_t, const uint8_t *), struct err *err)
{
	struct bundle_walk w = { .page = page, .arg = s };
	const json_t *f;
	size_t i;
	int ret = 0;

	json_array_foreach(json_object_get(b->meta, "files"), i, f) {
		int fd;

		if (ret || strcmp(json_str_opt(f, "check", "", NULL), check))
			continue;
		fd = bundle_open_file(b, f, err);
		ret = fd < 0 ? fd : bundle_walk_pages(fd, &w);
		io_close(fd);
		if (fd >= 0 && ret)
			err_set(err, -ret, "cannot read %s of the bundle: %s",
				json_str_opt(f, "name", "", NULL), strerror(-ret));
	}
	return ret;
}

int bundle_shared_pages(const struct bundle *b, uint64_t *pages, struct err *err)
{
	struct set s = { .nr = 0 };
	int ret = walk_files(b, "pages", &s, add, err);

	if (!ret && s.nr) {
		qsort(s.key, s.nr, sizeof(*s.key), compare);
		ret = walk_files(b, "sums", &s, look, err);
	}
	free(s.key);
	*pages = s.hits;
	return ret;
}
