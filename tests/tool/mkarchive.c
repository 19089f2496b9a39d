// SPDX-License-Identifier: MIT
/* mkarchive.c - an ext4 file, with layers on it, to an archive:
 * mkarchive OUT DISK [LAYER…] */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/io.h"
#include "image/image.h"

int main(int argc, char **argv)
{
	struct image_export_opts o = { 0 };
	struct err err = ERR_INIT;
	uint64_t start = io_now_ns(), entries;
	int disk[64], out;

	if (argc < 3 || argc > 60)
		return 2;
	o.name = argv[1];
	out = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (int i = 2; i < argc; i++) {
		disk[i - 2] = open(argv[i], O_RDONLY | O_CLOEXEC);
		if (disk[i - 2] < 0) {
			perror(argv[i]);
			return 1;
		}
	}
	if (out < 0) {
		perror(argv[1]);
		return 1;
	}
	if (image_export(disk, argc - 2, out, &o, &entries, &err)) {
		fprintf(stderr, "mkarchive: (%s): %s\n", err_code_name(err.code),
			err_message(&err));
		for (unsigned i = 0; err_cause(&err, i); i++)
			fprintf(stderr, "  caused by: %s\n", err_cause(&err, i));
		return 1;
	}
	printf("%llu entries, %.3f s\n", (unsigned long long)entries,
	       (double)(io_now_ns() - start) / 1e9);
	return 0;
}
