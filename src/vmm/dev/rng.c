// SPDX-License-Identifier: MIT
/*
 * rng.c - virtio entropy device (virtio 1.2, section 5.4).
 *
 * One queue of device-writable buffers, each filled from getrandom(2).  The
 * driver tolerates short buffers, so one chain never costs more than a stack
 * buffer's worth of work.
 *
 * #syscalls getrandom
 */
#include <sys/random.h>

#include "vmm/dev/devices.h"
#include "vmm/virtio/virtio.h"

static void rng_notify(struct virtio_dev *dev, struct virtq *vq)
{
	struct chain c;

	while (virtq_pop(vq, &c)) {
		uint8_t buf[256];
		ssize_t n = getrandom(buf, MIN(chain_space(&c), sizeof(buf)), 0);

		if (n > 0)
			chain_write(&c, buf, n);
		virtq_push(vq, &c);
	}
	virtq_signal(vq);
}

const struct virtio_class rng_class = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.nr_queues = 1,
	.size = sizeof(struct virtio_dev),
	.notify = rng_notify,
};
