// SPDX-License-Identifier: MIT
/* build.c - what building from an archive and from a directory share. */
#include "image/build.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/util.h"
#include "image/ext4.h"

#define DEFAULT_SIZE	(2 * GIB)
#define DEFAULT_CONTENT	(128 * GIB)
#define DEFAULT_ENTRIES	1000000u
#define MAX_DEVICES	4096u	/* nobody ships more; a flood of them does */
#define MAX_XATTRS	(16u << 10)	/* ext4 takes less, see ext4.c */

int build_init(struct build *b, int out_fd, const struct image_opts *o,
	       struct err *err)
{
	struct tree_limits limits = { .devices = MAX_DEVICES,
				      .xattrs = MAX_XATTRS };

	*b = (struct build){ .config = BUF_INIT };
	if (o)
		b->opts = *o;
	if (!b->opts.min_size)
		b->opts.min_size = DEFAULT_SIZE;
	if (!b->opts.max_content)
		b->opts.max_content = DEFAULT_CONTENT;
	if (!b->opts.max_entries)
		b->opts.max_entries = DEFAULT_ENTRIES;
	limits.entries = b->opts.max_entries;
	if (tree_init(&b->tree, &limits) ||
	    space_init(&b->space, out_fd, b->opts.max_content))
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

void build_done(struct build *b)
{
	tree_done(&b->tree);
	space_done(&b->space);
	buf_done(&b->config);
}

void image_info_done(struct image_info *i)
{
	image_config_done(&i->config);
}

int build_finish(struct build *b, const uint8_t digest[32], const char *label,
		 struct image_info *out, struct err *err)
{
	const struct ext4_opts o = { .min_size = b->opts.min_size,
				     .seed = digest, .label = label };
	int ret = 0;

	for (unsigned i = 0; i < 32; i++)
		snprintf(out->hash + 2 * i, 3, "%02x", digest[i]);
	out->content = b->space.used * SPACE_BLOCK;
	out->entries = b->tree.nr_entries;
	if (b->has_config)
		ret = image_config_parse(&out->config, b->config.data,
					 b->config.len, err);
	if (ret)
		return err_wrap_code(err, ERR_BOOT_IMAGE_INVALID, ret,
				     "/" IMAGE_CONFIG_PATH " is not acceptable");
	ret = ext4_write(&b->tree, &b->space, &o, &out->disk_size, err);
	if (ret)
		image_config_done(&out->config);
	return ret;
}
