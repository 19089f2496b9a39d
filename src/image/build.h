/* SPDX-License-Identifier: MIT */
/* build.h - what building from an archive and from a directory share.  Included
 * by src/image alone. */
#ifndef IMAGE_BUILD_H
#define IMAGE_BUILD_H

#include "base/buf.h"
#include "image/image.h"
#include "image/space.h"
#include "image/tree.h"

struct build {
	struct tree tree;
	struct space space;
	struct image_opts opts;	/* defaults filled in */
	struct buf config;	/* text of the configuration file, when seen */
	bool has_config;
};

int build_init(struct build *b, int out_fd, const struct image_opts *o,
	       struct err *err);
void build_done(struct build *b);
/* Writes the file system and fills in `out`, whose hash comes from `digest`. */
int build_finish(struct build *b, const uint8_t digest[32], const char *label,
		 struct image_info *out, struct err *err);

#endif
