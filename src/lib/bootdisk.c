// SPDX-License-Identifier: MIT
/*
 * bootdisk.c - the root disk of a boot: the image's prepared disk from the
 * cache, and a file of this VM's own for what it writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/cache.h"
#include "layer/layer.h"
#include "lib/install.h"
#include "lib/vm.h"

#define DISK_MIN   (2 * GIB)
#define DISK_GROUP (128 * MIB)	/* of ext4 with blocks of 4 KiB */

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct booting *b = arg;

	lib_progress(b->cfg->event, b->cfg->event_arg, "preparing the disk", done, total);
}

int boot_image_path(char path[PATH_MAX], const char *image, const char *base,
		    struct err *err)
{
	if (image)
		return lib_path(path, err, "%s", image);
	return lib_path(path, err, "%s/base.tar.zst", base);
}

/*
 * A prepared disk has 2 GiB, and disks grow but never shrink: who wants a smaller
 * one has it prepared in that size, in whole block groups, and grown to the rest.
 */
uint64_t boot_min_size(uint64_t disk_size)
{
	if (!disk_size || disk_size >= DISK_MIN)
		return 0;
	return MAX(ALIGN_DOWN(disk_size, DISK_GROUP), DISK_GROUP);
}

static int disk_size(struct booting *b, const struct image_info *info,
		     uint64_t *size)
{
	uint64_t half = info->content / 2;

	*size = b->cfg->disk_size ? ALIGN_UP(b->cfg->disk_size, 4096) :
		MAX(DISK_MIN, ALIGN_UP(2 * info->content + half, MIB));
	if (*size < info->disk_size && b->cfg->disk_size)
		return err_code(b->err, ERR_PROVISION_DISK_TOO_SMALL, ENOSPC,
				"the image needs a disk of at least %llu MiB, --disk-size says %llu",
				(unsigned long long)(ALIGN_UP(info->disk_size, MIB) / MIB),
				(unsigned long long)(*size / MIB));
	*size = MAX(*size, info->disk_size);
	return 0;
}

int boot_layer(struct booting *b, struct spec_disk *d, int base)
{
	char name[SPEC_ID_MAX + 8];
	int fd, ret;

	snprintf(name, sizeof(name), "%s.layer", d->id);
	fd = openat(b->vm->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ret = fd < 0 ? -errno : layer_create(fd, base, true, d->size, b->err);
	if (ret) {
		io_close(fd);
		io_close(base);
		return lib_host_err(b->err, ret, b->reg.path, "cannot make a disk in");
	}
	d->nr_layers = 2;
	snprintf(name, sizeof(name), "%s.1", d->id);
	ret = booting_role(b, fd, name);
	if (ret) {
		io_close(base);
		return ret;
	}
	snprintf(name, sizeof(name), "%s.0", d->id);
	return booting_role(b, base, name);
}

int boot_disk(struct booting *b)
{
	struct cache_disk disk = CACHE_DISK_INIT;
	struct image_opts opts = { .min_size = boot_min_size(b->cfg->disk_size),
				   .progress = on_progress, .arg = b };
	char cache[PATH_MAX], path[PATH_MAX];
	struct spec_disk *d = &b->spec.disk[0];
	int ret = boot_image_path(path, b->cfg->image, b->base, b->err);

	if (!ret)
		ret = home_path(cache, "cache", b->err);
	if (!ret)
		ret = cache_get(cache, path, &opts, &disk, b->err);
	if (ret)
		return ret;
	snprintf(b->vm->reg.image, sizeof(b->vm->reg.image), "%s",
		 b->cfg->image ? b->cfg->image : "base");
	memcpy(b->vm->reg.image_sha256, disk.info.hash, sizeof(disk.info.hash));
	*d = (struct spec_disk){ .id = strdup("root"), .nr_layers = 1 };
	b->spec.nr_disks = 1;
	ret = disk_size(b, &disk.info, &d->size);
	b->vm->config = disk.info.config;
	disk.info.config = (struct image_config){ .cmd = NULL };
	if (!ret) {
		ret = boot_layer(b, d, disk.fd);
		disk.fd = -1;
	}
	cache_disk_done(&disk);
	if (!ret && b->cfg->need_cmd && !b->cfg->cmd && !b->vm->config.cmd)
		ret = err_code(b->err, ERR_BOOT_CMD_MISSING, EINVAL,
			       "no command was given and none is baked into the image; say what to run after --");
	return ret;
}
