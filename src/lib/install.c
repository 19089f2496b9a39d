// SPDX-License-Identifier: MIT
/*
 * install.c - `machinen install`: kernel and base into $MACHINEN_HOME/base.
 *
 * All work is done in base/.new.PID under a lock on base/.lock; a rename makes
 * it base/<version>, and replacing the link base/current makes it the one in
 * use.  A crash leaves only a .new directory, which the next run, holding the
 * lock and thus being alone, removes.  Whether there is anything to do is seen
 * from the manifest and the files' sizes, without reading them.
 */
#include "lib/install.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/lib.h"

#define MANIFEST_VERSION 1
#define MANIFEST_MAX     (1u << 20)

int base_find(char dir[PATH_MAX], struct err *err)
{
	const char *given = getenv("MACHINEN_ASSETS_DIR");
	char real[PATH_MAX], path[PATH_MAX + 16];
	int ret;

	if (given && *given)
		snprintf(dir, PATH_MAX, "%s", given);
	else if ((ret = home_path(dir, "base/current", err)))
		return ret;
	if (realpath(dir, real)) {
		snprintf(path, sizeof(path), "%s/manifest.json", real);
		if (!access(path, R_OK)) {
			memcpy(dir, real, sizeof(real));
			return 0;
		}
	}
	return err_code(err, ERR_PROVISION_BASE_NOT_FOUND, ENOENT,
			given && *given ?
			"MACHINEN_ASSETS_DIR=%s holds no base" :
			"there is no base in %s; run: machinen install", dir);
}

int file_digest(const char *path, char hex[65], uint64_t *size, struct err *err)
{
	cleanup(io_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char sum[32], chunk[65536];
	ssize_t n = -EIO;

	*size = 0;
	if (fd >= 0 && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		while ((n = io_read_full(fd, chunk, sizeof(chunk))) > 0) {
			EVP_DigestUpdate(md, chunk, (size_t)n);
			*size += (uint64_t)n;
		}
	if (!n)
		EVP_DigestFinal_ex(md, sum, NULL);
	EVP_MD_CTX_free(md);
	if (n)
		return err_set(err, EIO, "cannot read %s", path);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	return 0;
}

static int manifest_file(json_t *files, const char *dir, const char *name,
			 struct err *err)
{
	char path[PATH_MAX], hex[65];
	uint64_t size;
	int ret;

	ret = lib_path(path, err, "%s/%s", dir, name);
	if (!ret)
		ret = file_digest(path, hex, &size, err);
	if (!ret)
		json_object_set_new(files, name,
				    json_pack("{s:I, s:s}", "size",
					      (json_int_t)size, "sha256", hex));
	return ret;
}

static int manifest_modules(json_t *files, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct dirent *de;
	int ret = lib_path(path, err, "%s/modules", dir);
	DIR *d = ret ? NULL : opendir(path);

	if (!d)
		return err_set(err, errno, "cannot read %s", path);
	while (!ret && (de = readdir(d))) {
		char name[300];

		if (de->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "modules/%s", de->d_name);
		ret = manifest_file(files, dir, name, err);
	}
	closedir(d);
	return ret;
}

static int write_manifest(struct installing *in, const char *version)
{
	json_t *files = json_object(), *doc;
	struct buf text = BUF_INIT;
	char path[PATH_MAX];
	int ret;

	ret = manifest_file(files, in->dir, "vmlinuz", in->err);
	if (!ret)
		ret = manifest_file(files, in->dir, "base.tar.zst", in->err);
	if (!ret)
		ret = manifest_modules(files, in->dir, in->err);
	doc = json_pack("{s:i, s:s, s:s, s:s, s:o}", "schema_version",
			MANIFEST_VERSION, "version", version, "kernel", in->release,
			"image", "base.tar.zst", "files", files);
	json_print(doc, &text);
	json_decref(doc);
	if (!ret && text.oom)
		ret = err_set(in->err, ENOMEM, "out of memory");
	if (!ret)
		ret = lib_path(path, in->err, "%s/manifest.json", in->dir);
	if (!ret) {
		ret = io_write_file(AT_FDCWD, path, text.data, text.len, 0600);
		if (ret)
			lib_host_err(in->err, ret, in->dir, "cannot write");
	}
	buf_done(&text);
	return ret;
}

/* Fills out from the manifest; 0 when every file is there with its size. */
static int check_base(const char *dir, struct mn_installed *out, struct err *err)
{
	struct buf text = BUF_INIT;
	char path[PATH_MAX + 300];
	json_t *doc = NULL, *file;
	const char *name;
	struct stat st;
	int ret;

	snprintf(path, sizeof(path), "%s/manifest.json", dir);
	ret = io_read_file(AT_FDCWD, path, MANIFEST_MAX, &text);
	if (!ret)
		doc = json_parse(text.data, text.len, err);
	buf_done(&text);
	if (!doc)
		return err_set(err, EINVAL, "%s cannot be read", path);
	snprintf(out->version, sizeof(out->version), "%s",
		 json_str(doc, "version", err));
	snprintf(out->kernel, sizeof(out->kernel), "%s", json_str(doc, "kernel", err));
	snprintf(out->path, sizeof(out->path), "%s", dir);
	json_object_foreach(json_object_get(doc, "files"), name, file) {
		int64_t size = json_int(file, "size", 0, INT64_MAX, err);

		snprintf(path, sizeof(path), "%s/%s", dir, name);
		if (stat(path, &st) < 0 || st.st_size != size)
			ret = err_set(err, EINVAL, "%s is damaged", path);
		out->bytes += (uint64_t)size;
	}
	json_decref(doc);
	return ret ? ret : -err->num;
}

static int host_codename(struct installing *in)
{
	struct buf text = BUF_INIT;
	const char *p = NULL;
	size_t n = 0;

	if (!io_read_file(AT_FDCWD, "/etc/os-release", 65536, &text) && text.data)
		p = strstr(text.data, "\nVERSION_CODENAME=");
	if (p) {
		p += strlen("\nVERSION_CODENAME=");
		p += *p == '"';
		n = strcspn(p, "\"\n");
	}
	if (n && n < sizeof(in->codename))
		snprintf(in->codename, sizeof(in->codename), "%.*s", (int)n, p);
	buf_done(&text);
	if (!*in->codename)
		return err_set(in->err, ENOENT,
			       "/etc/os-release names no release; a Debian host is needed, or set MACHINEN_ASSETS_DIR to a base");
	return 0;
}

/* Leftovers of runs that died; their lock is gone, ours is held. */
static void remove_stale(int basefd)
{
	int fd = openat(basefd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *de;

	while (d && (de = readdir(d)))
		if (!strncmp(de->d_name, ".new.", 5) ||
		    !strncmp(de->d_name, ".old.", 5))
			io_remove_tree(basefd, de->d_name);
	if (d)
		closedir(d);
}

/* .new.PID/base becomes <version>, and current points at it. */
static int publish(struct installing *in, int basefd, const char *version)
{
	char old[64], link[64];

	snprintf(old, sizeof(old), ".old.%d", getpid());
	snprintf(link, sizeof(link), ".new.%d.link", getpid());
	if (renameat(basefd, version, basefd, old) < 0 && errno != ENOENT)
		return err_set(in->err, errno, "cannot replace base %s", version);
	if (renameat(AT_FDCWD, in->dir, basefd, version) < 0)
		return err_set(in->err, errno, "cannot rename %s", in->dir);
	unlinkat(basefd, link, 0);
	if (symlinkat(version, basefd, link) < 0 ||
	    renameat(basefd, link, basefd, "current") < 0)
		return err_set(in->err, errno, "cannot make base/current");
	io_remove_tree(basefd, old);
	return 0;
}

static int install_steps(struct installing *in, int basefd,
			 struct mn_installed *out)
{
	uint64_t since = io_now_ns();
	char version[256];
	int ret = host_codename(in);

	if (!ret && (mkdir(in->tmp, 0700) < 0 || mkdir(in->dir, 0700) < 0))
		ret = lib_host_err(in->err, -errno, in->tmp, "cannot create");
	if (!ret)
		ret = install_kernel(in);
	if (!ret)
		ret = lib_phase(in->event, in->event_arg, "kernel", &since);
	if (!ret)
		ret = install_base(in);
	if (!ret)
		ret = lib_phase(in->event, in->event_arg, "base", &since);
	if (ret)
		return ret;
	snprintf(version, sizeof(version), "%s-%s", in->codename, in->release);
	ret = write_manifest(in, version);
	if (!ret)
		ret = publish(in, basefd, version);
	if (!ret) {
		char dir[PATH_MAX];

		ret = home_path(dir, "base/current", in->err);
		if (!ret)
			ret = check_base(dir, out, in->err);
		out->fetched = true;
	}
	return ret;
}

static int install_locked(const struct mn_install *cfg, int basefd,
			  struct mn_installed *out, struct err *err)
{
	struct installing in = { .event = cfg->event,
				 .event_arg = cfg->event_arg, .err = err };
	char dir[PATH_MAX];
	int ret;

	ret = home_path(dir, "base", err);
	if (ret)
		return ret;
	ret = lib_path(in.tmp, err, "%s/.new.%d", dir, getpid());
	if (!ret)
		ret = lib_path(in.dir, err, "%s/base", in.tmp);
	if (ret)
		return ret;
	remove_stale(basefd);
	ret = install_steps(&in, basefd, out);
	io_remove_tree(AT_FDCWD, in.tmp);
	return ret;
}

static int install(const struct mn_install *cfg, struct mn_installed *out,
		   struct err *err)
{
	cleanup(io_closep) int basefd = -1;
	cleanup(io_closep) int lock = -1;
	struct err seen = ERR_INIT;
	char dir[PATH_MAX];
	int ret;

	if (!cfg->force && !base_find(dir, &seen) && !check_base(dir, out, &seen))
		return 0;
	memset(out, 0, sizeof(*out));
	basefd = home_open("base", err);
	if (basefd < 0)
		return basefd;
	lock = openat(basefd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return err_set(err, errno, "cannot lock the base directory");
	/* somebody else may have done it while we waited */
	err_clear(&seen);
	if (!cfg->force && !base_find(dir, &seen) && !check_base(dir, out, &seen))
		return 0;
	memset(out, 0, sizeof(*out));
	ret = install_locked(cfg, basefd, out, err);
	if (ret)
		err_wrap_code(err, ERR_INSTALL_FAILED, ret,
			      "kernel and base were not installed; check the network and `apt-get update`, then run machinen install again, or set MACHINEN_ASSETS_DIR to a directory that holds a base");
	return ret;
}

int mn_install(const struct mn_install *cfg, struct mn_installed *out,
	       struct mn_error *err)
{
	struct err e = ERR_INIT;
	struct mn_install own;
	struct mn_installed result = { .size = sizeof(result) };
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	if (!ret)
		ret = install(&own, &result, &e);
	if (out) {
		result.size = out->size;
		memcpy(out, &result, MIN(out->size, sizeof(result)));
	}
	return lib_return(err, &e, ret);
}
