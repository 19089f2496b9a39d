// SPDX-License-Identifier: MIT
/*
 * install_kernel.c - the kernel of a base: Debian's, built for clouds.
 *
 * An installed kernel package is used as it is; else the package is downloaded
 * by apt, which verifies it, and unpacked.  Both give a tree with boot/ and
 * lib/modules/, from which vmlinuz and the modules that guests need are kept.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/deb.h"
#include "lib/install.h"
#include "lib/kmod.h"
#include "lib/lib.h"

#define META_PACKAGE "linux-image-cloud-amd64"
#define KERNEL_GLOB  "/boot/vmlinuz-*-cloud-amd64"

static bool wanted(const char *path)
{
	return !strncmp(path, "boot/vmlinuz-", 13) ||
	       !strncmp(path, "lib/modules/", 12) ||
	       !strncmp(path, "usr/lib/modules/", 16);
}

/* The package that the meta package stands for, from its Depends field. */
static int resolve(struct installing *in, char *name, size_t size)
{
	static const char *const show[] = {
		"apt-cache", "show", "--no-all-versions", META_PACKAGE, NULL,
	};
	struct buf text = BUF_INIT;
	const char *p = NULL;
	size_t n = 0;
	int ret = apt_run(in, show, NULL, &text);

	if (!ret && text.data)
		p = strstr(text.data, "\nDepends: linux-image-");
	if (p) {
		p += strlen("\nDepends: ");
		n = strcspn(p, " ,\n");
	}
	if (!ret && (!p || n >= size))
		ret = err_set(in->err, ENOENT, "apt knows no package "
			      META_PACKAGE);
	if (!ret) {
		memcpy(name, p, n);
		name[n] = '\0';
	}
	buf_done(&text);
	return ret;
}

static int fetch(struct installing *in, char deb[PATH_MAX])
{
	char name[128];
	const char *const get[] = { "apt-get", "download", name, NULL };
	char pattern[PATH_MAX];
	glob_t found = { .gl_pathc = 0 };
	int ret = resolve(in, name, sizeof(name));

	if (ret)
		return ret;
	lib_note(in->event, in->event_arg, "downloading the kernel");
	ret = apt_run(in, get, in->tmp, NULL);
	if (ret)
		return ret;
	ret = lib_path(pattern, in->err, "%s/*.deb", in->tmp);
	if (ret)
		return ret;
	if (!glob(pattern, 0, NULL, &found) && found.gl_pathc == 1)
		snprintf(deb, PATH_MAX, "%s", found.gl_pathv[0]);
	else
		ret = err_set(in->err, ENOENT, "apt-get download left no package");
	globfree(&found);
	return ret;
}

static int copy_file(const char *from, const char *to, struct err *err)
{
	cleanup(io_closep) int in = open(from, O_RDONLY | O_CLOEXEC);
	cleanup(io_closep) int out = -1;
	ssize_t n;

	if (in < 0)
		return err_set(err, errno, "cannot open %s: %s", from, strerror(errno));
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return err_set(err, errno, "cannot create %s: %s", to, strerror(errno));
	while ((n = sendfile(out, in, NULL, 1u << 30)) > 0)
		;
	return n < 0 ? err_set(err, errno, "cannot write %s: %s", to, strerror(errno)) : 0;
}

/* The newest kernel below root that can be read and has its modules. */
static int pick(struct installing *in, const char *root, char kernel[PATH_MAX],
		char modules[PATH_MAX])
{
	static const char *const places[] = { "lib/modules", "usr/lib/modules" };
	char pattern[PATH_MAX];
	glob_t found = { .gl_pathc = 0 };
	struct stat st;

	*kernel = '\0';
	if (lib_path(pattern, in->err, "%s" KERNEL_GLOB, root) ||
	    glob(pattern, 0, NULL, &found))
		found.gl_pathc = 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *path = found.gl_pathv[i];
		const char *release = strstr(path, "/vmlinuz-") + 9;

		if (*kernel && strverscmp(release, in->release) < 0)
			continue;
		for (size_t k = 0; k < ARRAY_LEN(places); k++) {
			if (lib_path(pattern, in->err, "%s/%s/%s", root,
				     places[k], release) ||
			    access(path, R_OK) || stat(pattern, &st) < 0)
				continue;
			memcpy(modules, pattern, sizeof(pattern));
			snprintf(kernel, PATH_MAX, "%s", path);
			snprintf(in->release, sizeof(in->release), "%s", release);
			break;
		}
	}
	globfree(&found);
	return *kernel ? 0 : -ENOENT;
}

static int fetch_tree(struct installing *in, char root[PATH_MAX])
{
	char deb[PATH_MAX];
	int ret = fetch(in, deb);

	if (ret && !in->private_apt) {
		/* no lists, or older than the server's: try with fresh ones */
		err_clear(in->err);
		ret = apt_own_lists(in);
		if (!ret)
			ret = fetch(in, deb);
	}
	if (ret)
		return err_wrap(in->err, ret, "cannot download the kernel package");
	lib_note(in->event, in->event_arg, "unpacking the kernel");
	ret = lib_path(root, in->err, "%s/kernel", in->tmp);
	if (!ret)
		ret = deb_unpack(deb, root, wanted, in->err);
	unlink(deb);
	return ret;
}

int install_kernel(struct installing *in)
{
	char root[PATH_MAX] = "", kernel[PATH_MAX], modules[PATH_MAX], path[PATH_MAX];
	int ret = pick(in, root, kernel, modules);

	if (ret) {
		ret = fetch_tree(in, root);
		if (ret)
			return ret;
		if (pick(in, root, kernel, modules))
			return err_set(in->err, ENOENT,
				       "the kernel package holds no kernel for clouds");
	}
	ret = lib_path(path, in->err, "%s/vmlinuz", in->dir);
	if (!ret)
		ret = copy_file(kernel, path, in->err);
	if (!ret)
		ret = lib_path(path, in->err, "%s/modules", in->dir);
	if (ret)
		return ret;
	if (mkdir(path, 0700) < 0)
		return err_set(in->err, errno, "cannot create %s: %s", path,
			       strerror(errno));
	return kmod_collect(modules, path, in->err);
}
