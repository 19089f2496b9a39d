/* SPDX-License-Identifier: MIT */
/* dev/console.h - what virtio-console is made from. */
#ifndef VMM_DEV_CONSOLE_H
#define VMM_DEV_CONSOLE_H

#include <stdint.h>

struct console;
struct virtio_dev;

struct console_config {
	struct console *console;	/* borrowed; outlives the device */
};

/* The terminal on the other side has another size; under vm->lock. */
void console_dev_resize(struct virtio_dev *dev, uint16_t cols, uint16_t rows);

#endif
