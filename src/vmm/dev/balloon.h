/* SPDX-License-Identifier: MIT */
/* balloon.h - memory the guest gives back, and what it says about the rest. */
#ifndef VMM_DEV_BALLOON_H
#define VMM_DEV_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

struct virtio_dev;

/* Bytes, as the guest's kernel said last; zero where it did not say. */
struct balloon_stats {
	bool known;
	uint64_t free, total, available, caches;
};

/* The last answer; also asks for a fresh one, which comes later.  Under vm->lock. */
struct balloon_stats balloon_stats(struct virtio_dev *dev);
/* How much the guest is to give up.  Under vm->lock. */
void balloon_set_target(struct virtio_dev *dev, uint64_t bytes);

#endif
