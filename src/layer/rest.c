// SPDX-License-Identifier: MIT
/* rest.c - a layer by itself: looking into it, bringing it to rest. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "layer/file.h"

static struct layer *open_copy(int fd, struct err *err)
{
	int copy = dup(fd);

	if (copy < 0) {
		err_set(err, errno, "cannot open a disk layer");
		return NULL;
	}
	return layer_open(copy, err);
}

uint64_t layer_clusters(const struct layer *l)
{
	uint64_t sum = 0;

	for (uint64_t w = 0; w < (l->h.clusters + 63) / 64; w++)
		sum += __builtin_popcountll(__atomic_load_n(&l->map[w],
							    __ATOMIC_RELAXED));
	return sum;
}

int layer_inspect(int fd, struct layer_info *out, struct err *err)
{
	struct layer *l = open_copy(fd, err);

	if (!l)
		return -EBADMSG;
	*out = (struct layer_info){ .size = l->h.size, .sealed = l->sealed,
				    .clean = l->record };
	memcpy(out->uuid, l->h.uuid, 16);
	out->allocated = layer_clusters(l) * LAYER_CLUSTER;
	layer_close(l);
	return 0;
}

int layer_rest(int fd, struct err *err)
{
	struct layer *l = open_copy(fd, err);
	int ret = 0;

	if (!l)
		return -EBADMSG;
	if (!l->record || !l->sealed) {
		l->unsynced = true;
		ret = layer_sync(l, &layer_plain_io);
		if (!ret)
			ret = layer_put_record(l, &layer_plain_io, true);
		if (!ret)
			ret = layer_plain_io.sync(NULL, fd);
	}
	layer_close(l);
	return ret ? err_set(err, -ret, "cannot flush a disk layer: %s",
			     strerror(-ret)) : 0;
}
