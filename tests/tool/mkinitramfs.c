// SPDX-License-Identifier: MIT
/*
 * mkinitramfs.c - writes the initramfs of a boot by hand, for trying a guest
 * under another VMM:  mkinitramfs OUT INIT MODULES CONFIG-JSON MODULE...
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "image/cpio.h"

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct initramfs in;
	int fd;

	if (argc < 5) {
		fprintf(stderr, "usage: mkinitramfs OUT INIT MODULES CONFIG MODULE...\n");
		return 2;
	}
	in = (struct initramfs){
		.init = argv[2], .modules = argv[3], .config = argv[4],
		.config_len = strlen(argv[4]),
		.wanted = (const char *const *)&argv[5],
	};
	fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || initramfs_write(&in, fd, &err)) {
		fprintf(stderr, "mkinitramfs: %s\n", err_message(&err));
		return 1;
	}
	return 0;
}
