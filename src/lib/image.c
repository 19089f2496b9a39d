// SPDX-License-Identifier: MIT
/* image.c - mn_image_inspect: what an archive is and holds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/util.h"
#include "image/cache.h"
#include "lib/lib.h"

/* Nothing but building its disk says whether an archive is good; it is dropped. */
static int try_build(const char *cache, const char *path, struct image_info *info,
		     struct err *err)
{
	cleanup(io_closep) int in = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup(io_closep) int out = -1;
	int ret;

	if (in < 0)
		return err_code(err, errno == ENOENT ? ERR_BOOT_IMAGE_NOT_FOUND :
				ERR_HOST_FAILED, errno, "cannot open image %s: %s", path,
				strerror(errno));
	ret = io_mkdir_all(cache, 0700);
	if (!ret) {
		out = open(cache, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		ret = out < 0 ? -errno : 0;
	}
	if (ret)
		return lib_host_err(err, ret, cache, "cannot make a file in");
	ret = image_build(in, out, NULL, info, err);
	return ret ? err_wrap(err, ret, "image %s", path) : 0;
}

static int inspect(const char *path, struct mn_image *image, struct err *err)
{
	struct cache_disk disk = CACHE_DISK_INIT;
	struct mn_image all = { .size = sizeof(all) };
	struct image_info *i = &disk.info;
	char cache[PATH_MAX];
	int ret = home_path(cache, "cache", err);

	if (ret)
		return ret;
	all.cached = !cache_find(cache, path, NULL, &disk);
	if (!all.cached)
		ret = try_build(cache, path, i, err);
	if (!ret) {
		snprintf(all.hash, sizeof(all.hash), "%s", i->hash);
		all.bytes = i->archive_size;
		all.content_bytes = i->content;
		all.entries = i->entries;
		all.cmd = i->config.cmd;
		all.env = i->config.env;
		all.cwd = i->config.cwd;
		i->config = (struct image_config){ .cmd = NULL };
		all.size = image->size;
		memcpy(image, &all, MIN(image->size, sizeof(all)));
	}
	cache_disk_done(&disk);
	return ret;
}

int mn_image_inspect(const char *path, struct mn_image *image, struct mn_error *err)
{
	struct err e = ERR_INIT;

	return lib_return(err, &e, inspect(path, image, &e));
}

void mn_image_done(struct mn_image *image)
{
	struct image_config c = { .cmd = image->cmd, .env = image->env,
				  .cwd = image->cwd };

	image_config_done(&c);
	image->cmd = image->env = NULL;
	image->cwd = NULL;
}
