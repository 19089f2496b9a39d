// SPDX-License-Identifier: MIT
/*
 * registry_gc.c - removes what dead VMs left in the registry.
 *
 * An unfinished directory (.new.*) belongs to whoever holds its flock, which
 * the kernel drops with the process: one that can be locked is abandoned.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/lib.h"
#include "lib/registry.h"

struct gc {
	struct registry *r;
	bool dry_run;
	int (*each)(const char *what, const char *path, void *arg);
	void *arg;
	int found;
};

static int tell(struct gc *gc, const char *what, const char *name)
{
	char path[PATH_MAX];

	gc->found++;
	if (!gc->each || lib_path(path, NULL, "%s/%s", gc->r->path, name))
		return 0;
	return gc->each(what, path, gc->arg);
}

static int gc_vm(const struct reg_vm *vm, enum proc_state state, void *arg)
{
	struct gc *gc = arg;
	char name[24];
	int ret;

	if (state != PROC_DEAD && state != PROC_RECYCLED)
		return 0;
	snprintf(name, sizeof(name), "%d", vm->id.pid);
	ret = tell(gc, "vm", name);
	if (!ret && !gc->dry_run)
		registry_remove(gc->r, vm);
	return ret;
}

static int gc_unfinished(struct gc *gc, const char *name)
{
	cleanup(io_closep) int fd = openat(gc->r->dir, name,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int ret;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	ret = tell(gc, "unfinished", name);
	if (!ret && !gc->dry_run)
		io_remove_tree(gc->r->dir, name);
	return ret;
}

/* A name that leads to no live VM of that name. */
static int gc_name(struct gc *gc, const char *file)
{
	char name[REG_NAME_MAX + 1], path[REG_NAME_MAX + 16];
	enum proc_state state;
	struct reg_vm vm;
	int ret;

	if (strlen(file) > REG_NAME_MAX)
		return 0;
	strcpy(name, file);
	for (char *p = name; *p; p++)
		*p = *p == '%' ? '/' : *p;
	ret = registry_look(gc->r, name, &vm, &state, NULL);
	if (ret ? ret != -ENOENT : state == PROC_LIVE)
		return 0;
	snprintf(path, sizeof(path), "names/%s", file);
	ret = tell(gc, "name", path);
	if (!ret && !gc->dry_run)
		unlinkat(gc->r->dir, path, 0);
	return ret;
}

static int walk(struct gc *gc, const char *sub,
		int (*one)(struct gc *gc, const char *name), const char *prefix)
{
	int fd = openat(gc->r->dir, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	int ret = 0;

	if (!dir)
		io_close(fd);
	while (dir && !ret && (de = readdir(dir)))
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..") &&
		    !strncmp(de->d_name, prefix, strlen(prefix)))
			ret = one(gc, de->d_name);
	if (dir)
		closedir(dir);
	return ret;
}

int registry_gc(struct registry *r, bool dry_run,
		int (*each)(const char *what, const char *path, void *arg),
		void *arg, struct err *err)
{
	struct gc gc = { .r = r, .dry_run = dry_run, .each = each, .arg = arg };
	int ret = registry_each(r, gc_vm, &gc, err);

	if (!ret)
		ret = walk(&gc, ".", gc_unfinished, ".new.");
	/* a name is written just before its VM's directory gets its name */
	while (!ret && flock(r->lock, LOCK_EX) < 0)
		ret = errno == EINTR ? 0 : -errno;
	if (!ret) {
		ret = walk(&gc, "names", gc_name, "");
		flock(r->lock, LOCK_UN);
	}
	return ret < 0 ? ret : gc.found;
}
