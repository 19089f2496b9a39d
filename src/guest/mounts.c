// SPDX-License-Identifier: MIT
/*
 * mounts.c - mounts of the running system; see boot.h.
 *
 * Runs after chroot into the image, so that a symbolic link in it leads nowhere
 * but into it.  An image without one of the mount points gets it; a read-only
 * image without it does without the mount.
 */
#include "guest/boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/guest.h"

static const struct {
	const char *path, *type, *data;
	unsigned long flags;
	mode_t mode;		/* of a created mount point */
	bool optional;
} system_mounts[] = {
	{ "/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, false },
	{ "/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, false },
	{ "/dev", "devtmpfs", "mode=0755", MS_NOSUID, 0755, false },
	{ "/dev/pts", "devpts", "gid=5,mode=0620,ptmxmode=0666",
	  MS_NOSUID | MS_NOEXEC, 0755, false },
	{ "/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, 01777, false },
	{ "/dev/mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 01777,
	  true },
	{ "/run", "tmpfs", "mode=0755", MS_NOSUID | MS_NODEV, 0755, false },
	{ "/sys/fs/cgroup", "cgroup2", "nsdelegate",
	  MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, true },
};

static const struct {
	const char *from, *to;
} dev_links[] = {
	{ "/dev/fd", "/proc/self/fd" },
	{ "/dev/stdin", "/proc/self/fd/0" },
	{ "/dev/stdout", "/proc/self/fd/1" },
	{ "/dev/stderr", "/proc/self/fd/2" },
};

void mounts_system(struct guest *g)
{
	for (size_t i = 0; i < sizeof(system_mounts) / sizeof(system_mounts[0]);
	     i++) {
		const char *path = system_mounts[i].path;

		mkdir(path, system_mounts[i].mode);
		if (mount(system_mounts[i].type, path, system_mounts[i].type,
			  system_mounts[i].flags, system_mounts[i].data) &&
		    !system_mounts[i].optional)
			guest_log(g, "mount %s: %s", path, strerror(errno));
	}
	for (size_t i = 0; i < sizeof(dev_links) / sizeof(dev_links[0]); i++)
		if (symlink(dev_links[i].to, dev_links[i].from))
			continue;
	mkdir("/run/lock", 01777);
	g->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	g->random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	g->pts = open("/dev/pts", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int mounts_mkdir(const char *path)
{
	char part[4096];

	if (path[0] != '/' || strlen(path) >= sizeof(part))
		return -EINVAL;
	for (size_t i = 1; ; i++) {
		if (path[i] && path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0755) && errno != EEXIST)
			return -errno;
		if (!path[i])
			return 0;
	}
}

static bool serial_is(const char *disk, const char *serial)
{
	char path[320], have[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/serial", disk);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, have, sizeof(have) - 1);
	close(fd);
	if (n < 0)
		return false;
	have[n] = '\0';
	have[strcspn(have, "\n")] = '\0';
	return !strcmp(have, serial);
}

int mounts_find_disk(const char *serial, char *dev, size_t size)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *e;
	int r = -ENOENT;

	while (r && dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || !serial_is(e->d_name, serial))
			continue;
		if (snprintf(dev, size, "/dev/%s", e->d_name) < (int)size &&
		    !access(dev, F_OK))
			r = 0;
	}
	if (dir)
		closedir(dir);
	return r;
}

/* What e2fsck keeps is not part of the directory that was copied. */
static void drop_lost_found(const char *path)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return;
	unlinkat(dir, "lost+found", AT_REMOVEDIR);
	close(dir);
}

int mounts_disk(const struct guest *g, const char *serial, const char *path,
		bool ro)
{
	char dev[64];
	int r = mounts_find_disk(serial, dev, sizeof(dev));

	if (!r)
		r = mounts_mkdir(path);
	if (!r && mount(dev, path, "ext4", ro ? MS_RDONLY : 0, NULL))
		r = -errno;
	if (!r && !ro)
		drop_lost_found(path);
	return r;
}

int mounts_live(const char *tag, const char *path, bool ro)
{
	int r = mounts_mkdir(path);

	if (!r && mount(tag, path, "virtiofs",
			MS_NOSUID | MS_NODEV | (ro ? MS_RDONLY : 0), NULL))
		r = -errno;
	return r;
}

static void mount_each(const struct guest *g, const char *list, const char *key)
{
	const struct doc *d = &g->config;
	unsigned id = doc_first(d, doc_get(d, DOC_ROOT, list));

	for (; id; id = doc_next(d, id)) {
		const char *name = doc_str(d, doc_get(d, id, key));
		const char *path = doc_str(d, doc_get(d, id, "path"));
		bool ro = doc_bool(d, doc_get(d, id, "ro"), false);
		int r = -EINVAL;

		if (name && path)
			r = *key == 's' ? mounts_disk(g, name, path, ro) :
					  mounts_live(name, path, ro);
		if (r)
			guest_log(g, "mount %s on %s: %s", name ? name : "?",
				  path ? path : "?", strerror(-r));
	}
}

void mounts_config(const struct guest *g)
{
	mount_each(g, "disks", "serial");
	mount_each(g, "fs", "tag");
}
