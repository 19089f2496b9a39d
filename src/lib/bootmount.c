// SPDX-License-Identifier: MIT
/*
 * bootmount.c - copy mounts of a boot: a host directory becomes a disk like an
 * image does, cached by what is in it, under a layer of this VM's own.  The guest
 * writes to the layer, so the host's directory never changes.
 *
 * Mount points lie below /mnt: there no program keeps anything that a mount could
 * hide, and the guest makes them inside of its own root, so a link leads nowhere
 * else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/cache.h"
#include "lib/vm.h"

#define MOUNT_ROOT "/mnt/"

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct booting *b = arg;

	lib_progress(b->cfg->event, b->cfg->event_arg, "copying the mount", done, total);
}

/* Absolute, below /mnt/, no empty part, neither "." nor "..". */
static int check_guest(const char *path, struct err *err)
{
	if (strlen(path) >= PATH_MAX)
		return err_code(err, ERR_MOUNT_PATH_INVALID, ENAMETOOLONG,
				"the mount point is too long");
	for (const char *p = path; *p == '/'; ) {
		size_t n = strcspn(++p, "/");

		if (n == 2 && !memcmp(p, "..", 2))
			return err_code(err, ERR_MOUNT_PATH_ESCAPE, EINVAL,
					"mount point \"%s\" leads out with \"..\"", path);
		if (!n || (n == 1 && *p == '.'))
			return err_code(err, ERR_MOUNT_PATH_INVALID, EINVAL,
					"mount point \"%s\" has an empty part", path);
		p += n;
	}
	if (strncmp(path, MOUNT_ROOT, strlen(MOUNT_ROOT)))
		return err_code(err, ERR_MOUNT_PATH_INVALID, EINVAL,
				"mount point \"%s\": must lie below " MOUNT_ROOT, path);
	return 0;
}

static int check_host(const char *host, struct err *err)
{
	struct stat st;

	if (stat(host, &st) < 0)
		return err_code(err, ERR_BOOT_MOUNT_HOST_NOT_FOUND, errno,
				"cannot mount %s: %s", host, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_code(err, ERR_BOOT_MOUNT_HOST_NOT_FOUND, ENOTDIR,
				"cannot mount %s: only directories are mounted; machinen cp copies a file",
				host);
	return 0;
}

int boot_check_mounts(struct booting *b)
{
	const struct mn_boot *cfg = b->cfg;
	int ret = 0;

	if (cfg->nr_mounts > SPEC_MAX_DISKS - 1)
		return err_code(b->err, ERR_BOOT_MOUNT_INVALID, E2BIG,
				"a VM has at most %d copy mounts", SPEC_MAX_DISKS - 1);
	for (size_t i = 0; !ret && i < cfg->nr_mounts; i++) {
		const struct mn_mount *m = &cfg->mounts[i];

		if (!m->host || !*m->host || !m->guest)
			return err_code(b->err, ERR_BOOT_MOUNT_INVALID, EINVAL,
					"a mount needs a host directory and a mount point");
		ret = check_guest(m->guest, b->err);
		for (size_t k = 0; !ret && k < i; k++)
			if (!strcmp(cfg->mounts[k].guest, m->guest))
				ret = err_code(b->err, ERR_BOOT_MOUNT_INVALID, EEXIST,
					       "two mounts on %s", m->guest);
		if (!ret)
			ret = check_host(m->host, b->err);
	}
	return ret;
}

static int add_mount(struct booting *b, const char *cache, const char *host)
{
	struct image_opts opts = { .progress = on_progress, .arg = b };
	struct spec_disk *d = &b->spec.disk[b->spec.nr_disks];
	struct cache_disk disk = CACHE_DISK_INIT;
	int ret = cache_get_dir(cache, host, &opts, &disk, b->err);

	if (ret)
		return ret;
	*d = (struct spec_disk){ .size = disk.info.disk_size };
	if (asprintf(&d->id, "mount%u", b->spec.nr_disks - 1) < 0)
		ret = err_set(b->err, ENOMEM, "out of memory");
	if (ret)
		d->id = NULL;
	b->spec.nr_disks++;
	if (!ret)
		ret = boot_layer(b, d, disk.fd);
	disk.fd = -1;
	cache_disk_done(&disk);
	return ret;
}

int boot_mounts(struct booting *b)
{
	char cache[PATH_MAX];
	int ret = b->cfg->nr_mounts ? home_path(cache, "cache", b->err) : 0;

	for (size_t i = 0; !ret && i < b->cfg->nr_mounts; i++)
		ret = add_mount(b, cache, b->cfg->mounts[i].host);
	return ret;
}
