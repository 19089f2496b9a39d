/* SPDX-License-Identifier: MIT */
/* blk.h - what virtio-blk is made from. */
#ifndef VMM_DEV_BLK_H
#define VMM_DEV_BLK_H

struct disk;
struct virtio_dev;

struct blk_config {
	struct disk *disk;	/* taken over, also when virtio_new() fails */
};

/* The disk, for sealing its layer; borrowed. */
struct disk *blk_disk(struct virtio_dev *dev);

#endif
