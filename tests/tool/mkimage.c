// SPDX-License-Identifier: MIT
/* mkimage.c - ARCHIVE or DIRECTORY to an ext4 file: mkimage INPUT OUT [MIN-MIB] */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"
#include "image/image.h"

int main(int argc, char **argv)
{
	struct image_opts o = { 0 };
	struct image_info info;
	struct err err = ERR_INIT;
	uint64_t start = io_now_ns();
	struct stat st;
	int in, out, ret;

	if (argc < 3)
		return 2;
	if (argc > 3)
		o.min_size = strtoull(argv[3], NULL, 10) << 20;
	in = open(argv[1], O_RDONLY | O_CLOEXEC);
	out = open(argv[2], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (in < 0 || out < 0 || fstat(in, &st) < 0) {
		perror(argv[in < 0 ? 1 : 2]);
		return 1;
	}
	if (S_ISDIR(st.st_mode))
		ret = image_build_dir(in, out, &o, &info, &err);
	else
		ret = image_build(in, out, &o, &info, &err);
	if (ret) {
		fprintf(stderr, "mkimage: (%s): %s\n", err_code_name(err.code),
			err_message(&err));
		for (unsigned i = 0; err_cause(&err, i); i++)
			fprintf(stderr, "  caused by: %s\n", err_cause(&err, i));
		return 1;
	}
	printf("%s %llu entries, %llu MiB content, %llu MiB disk, %.3f s\n",
	       info.hash, (unsigned long long)info.entries,
	       (unsigned long long)info.content >> 20,
	       (unsigned long long)info.disk_size >> 20,
	       (double)(io_now_ns() - start) / 1e9);
	image_info_done(&info);
	return 0;
}
