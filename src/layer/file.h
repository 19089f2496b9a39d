/* SPDX-License-Identifier: MIT */
/* file.h - one layer in memory.  For src/layer alone. */
#ifndef LAYER_FILE_H
#define LAYER_FILE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "layer/format.h"
#include "layer/layer.h"

/* One page of the map: which of its two slots counts. */
struct layer_page {
	uint64_t seq;		/* of the slot that counts; 0: both blank */
	uint8_t slot;
	bool unsettled;		/* that slot is not marked durable */
	bool collected;		/* a flush holds a copy of it */
	bool dirty;		/* atomic: the map in memory is ahead */
};

struct layer {
	int fd;			/* owned */
	struct fmt_header h;
	uint64_t *map;		/* owned; bit set: the cluster is here; atomic */
	struct layer_page *page;	/* owned */
	bool record;		/* the file holds a closing record */
	bool sealed;
	bool unsynced;		/* atomic: something was written since a sync */
	uint8_t boot_id[16];	/* read once: a sandboxed VMM cannot later */
	int broken;		/* -errno of a failed sync: nothing is sure after */
	pthread_mutex_t lock;	/* one flush at a time */
};

/* Takes fd over, also on failure.  Checks everything. */
struct layer *layer_open(int fd, struct err *err);
void layer_close(struct layer *l);

static inline bool layer_has(const struct layer *l, uint64_t cluster)
{
	return cluster < l->h.clusters &&
	       __atomic_load_n(&l->map[cluster / 64], __ATOMIC_ACQUIRE) >>
	       (cluster % 64) & 1;
}

/* Makes an empty file one of a fresh layer; fills in what follows from h->size. */
int layer_write_header(int fd, struct fmt_header *h, const struct layer_io *io,
		       struct err *err);
/* How many clusters are here. */
uint64_t layer_clusters(const struct layer *l);

/* After the data is in the file. */
void layer_mark(struct layer *l, uint64_t cluster, uint64_t nr, bool here);
/* Writes out the map without waiting for the disk (seal). */
int layer_publish(struct layer *l, const struct layer_io *io);
/* Data, then map, each durable. */
int layer_sync(struct layer *l, const struct layer_io *io);
/* After a sync: says that the layer is at rest. */
int layer_put_record(struct layer *l, const struct layer_io *io, bool sealed);

#endif
