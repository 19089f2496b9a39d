// SPDX-License-Identifier: MIT
/*
 * flatten.c - several layers become one, and looking into a layer.
 *
 * Runs beside a VM that goes on in a layer above, or on the files of a bundle:
 * the layers are only read.  Clusters of zeroes stay holes.
 */
#include "layer/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "layer/file.h"

#define CHUNK (256u * LAYER_CLUSTER)

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* Writes a run of clusters but for those that are zero. */
static int write_run(struct layer *out, const uint8_t *data, uint64_t cluster,
		     uint64_t nr)
{
	for (uint64_t i = 0, n; i < nr; i += n) {
		int ret;

		n = 1;
		if (all_zero(data + i * LAYER_CLUSTER, LAYER_CLUSTER))
			continue;
		while (i + n < nr && !all_zero(data + (i + n) * LAYER_CLUSTER,
					       LAYER_CLUSTER))
			n++;
		ret = io_pwrite_full(out->fd, data + i * LAYER_CLUSTER,
				     n * LAYER_CLUSTER, out->h.data_off +
				     (cluster + i) * LAYER_CLUSTER);
		if (ret)
			return ret;
	}
	layer_mark(out, cluster, nr, true);
	return 0;
}

/* Which of the layers has the cluster, topmost first; -1: none. */
static int find(struct layer *const *l, unsigned nr, uint64_t cluster)
{
	for (unsigned i = nr; i--;)
		if (layer_has(l[i], cluster))
			return i;
	return -1;
}

static int merge(struct layer *const *l, unsigned nr, struct layer *out,
		 uint8_t *buf)
{
	for (uint64_t c = 0, n; c < out->h.clusters; c += n) {
		int who = find(l, nr, c), ret;
		ssize_t got;

		n = 1;
		if (who < 0)
			continue;
		while (n < CHUNK / LAYER_CLUSTER && find(l, nr, c + n) == who)
			n++;
		n = MIN(n, out->h.clusters - c);
		got = io_pread_full(l[who]->fd, buf, n * LAYER_CLUSTER,
				    l[who]->h.data_off + c * LAYER_CLUSTER);
		if (got < 0)
			return got;
		memset(buf + got, 0, n * LAYER_CLUSTER - got);
		ret = write_run(out, buf, c, n);
		if (ret)
			return ret;
	}
	return 0;
}

static int make_output(struct layer *const *l, unsigned nr, int fd,
		       struct layer **out, struct err *err)
{
	struct fmt_header h = l[0]->h;
	uint8_t page[FMT_PAGE];
	int ret, copy;

	h.size = l[nr - 1]->h.size;
	if (fmt_derive(&h) ||
	    getrandom(h.uuid, sizeof(h.uuid), 0) != sizeof(h.uuid))
		return err_set(err, EINVAL, "cannot make a disk layer");
	fmt_header_print(&h, page);
	ret = ftruncate(fd, h.data_off + h.clusters * LAYER_CLUSTER) < 0 ?
	      -errno : io_pwrite_full(fd, page, sizeof(page), 0);
	copy = ret ? -1 : dup(fd);
	if (copy < 0)
		return err_set(err, ret ? -ret : errno,
			       "cannot write a disk layer");
	*out = layer_open(copy, err);
	return *out ? 0 : -EIO;
}

static int flatten(struct layer *const *l, unsigned nr, int out_fd,
		   struct err *err)
{
	uint8_t *buf = malloc(CHUNK);
	struct layer *out = NULL;
	int ret = buf ? make_output(l, nr, out_fd, &out, err) :
			err_set(err, ENOMEM, "out of memory");

	if (!ret) {
		ret = merge(l, nr, out, buf);
		if (!ret)
			ret = layer_sync(out, &layer_plain_io);
		if (!ret)
			ret = layer_put_record(out, &layer_plain_io, true);
		if (!ret && fdatasync(out_fd) < 0)
			ret = -errno;
		if (ret == -ENOSPC || ret == -EDQUOT)
			err_code(err, ERR_HOST_NO_SPACE, -ret,
				 "no space left for a disk layer");
		else if (ret)
			err_set(err, -ret, "cannot merge disk layers: %s",
				strerror(-ret));
	}
	layer_close(out);
	free(buf);
	return ret;
}

static struct layer *open_copy(int fd, struct err *err)
{
	int copy = dup(fd);

	if (copy < 0) {
		err_set(err, errno, "cannot open a disk layer");
		return NULL;
	}
	return layer_open(copy, err);
}

int layer_flatten(const int *fd, unsigned nr, int out_fd, struct err *err)
{
	struct layer *l[LAYER_MAX_DEPTH] = { NULL };
	int ret = 0;

	if (!nr || nr > LAYER_MAX_DEPTH)
		return err_set(err, EINVAL, "a stack of %u disk layers", nr);
	for (unsigned i = 0; i < nr && !ret; i++) {
		l[i] = open_copy(fd[i], err);
		if (!l[i])
			ret = -EBADMSG;
		else if (i && (l[i]->h.parent != FMT_PARENT_LAYER ||
			       memcmp(l[i]->h.parent_id, l[i - 1]->h.uuid, 16)))
			ret = err_set(err, EBADMSG, "disk layer %u was made over "
				      "another layer", i + 1);
	}
	if (!ret)
		ret = flatten(l, nr, out_fd, err);
	for (unsigned i = 0; i < nr; i++)
		layer_close(l[i]);
	return ret;
}

int layer_inspect(int fd, struct layer_info *out, struct err *err)
{
	struct layer *l = open_copy(fd, err);

	if (!l)
		return -EBADMSG;
	*out = (struct layer_info){ .size = l->h.size, .sealed = l->sealed,
				    .clean = l->record };
	memcpy(out->uuid, l->h.uuid, 16);
	for (uint64_t w = 0; w < (l->h.clusters + 63) / 64; w++)
		out->allocated += __builtin_popcountll(l->map[w]) *
				  (uint64_t)LAYER_CLUSTER;
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
