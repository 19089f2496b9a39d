// SPDX-License-Identifier: MIT
/*
 * cache.c - prepared disks by content.
 *
 * A disk is found by the hash of its archive's bytes, and the hash by what
 * stat(2) says about the archive, so the second boot of an image reads two
 * small files.  An archive that was changed so shortly before that a further
 * change would not move its times is not remembered (RACY_NS).
 *
 * A disk is built in a directory of its own, made durable, and appears by one
 * rename; whoever comes second to that rename uses the first one's.  A builder
 * holds a lock on its directory, so what a dead one left is recognised and
 * removed by the next.
 *
 * What is found is not trusted blindly: size and modification time of the disk
 * must be those recorded, or it is thrown away and built again.
 */
#include "image/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "image/hostdir.h"

#define FORMAT	      1		/* of disks and manifests; in their names */
#define MANIFEST_MAX  (1u << 20)
#define RACY_NS	      (100 * 1000000ll)	/* coarsest clock tick, generously */
#define NAME_LEN      128u

struct job {
	const char *cache, *path;	/* borrowed */
	const struct image_opts *o;	/* borrowed; may be NULL */
	bool is_dir;
	int dir_fd;		/* of the cache; owned */
	int in_fd;		/* archive or directory; owned */
	int lock_fd;		/* owned */
	char key[IMAGE_HASH_LEN];
	char name[NAME_LEN];	/* of the disk's directory; "" while unknown */
	struct err *err;
};

static int host_failed(struct job *j, int num, const char *what)
{
	if (num == ENOSPC || num == EDQUOT)
		return err_code(j->err, ERR_HOST_NO_SPACE, num,
				"no space left in %s", j->cache);
	return err_code(j->err, ERR_HOST_FAILED, num, "cannot %s in %s: %s",
			what, j->cache, strerror(num));
}

void cache_disk_done(struct cache_disk *d)
{
	io_close(d->fd);
	d->fd = -1;
	image_info_done(&d->info);
}

static void hex(char *out, const uint8_t digest[32])
{
	for (unsigned i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void disk_name(struct job *j, const char *hash)
{
	uint64_t mib = j->o ? j->o->min_size / MIB : 0;
	int n = snprintf(j->name, sizeof(j->name), "disk-%d-%s", FORMAT, hash);

	if (mib)
		snprintf(j->name + n, sizeof(j->name) - n, "-%" PRIu64, mib);
}

/* What tells one state of an archive from another without reading it. */
static void archive_key(struct job *j, const struct stat *st)
{
	uint8_t digest[32];
	char text[256];
	int n = snprintf(text, sizeof(text), "%ju %ju %jd %jd.%09ld %jd.%09ld",
			 (uintmax_t)st->st_dev, (uintmax_t)st->st_ino,
			 (intmax_t)st->st_size, (intmax_t)st->st_mtim.tv_sec,
			 st->st_mtim.tv_nsec, (intmax_t)st->st_ctim.tv_sec,
			 st->st_ctim.tv_nsec);

	SHA256((const uint8_t *)text, n, digest);
	hex(j->key, digest);
}

static bool is_hash(const char *s)
{
	return strspn(s, "0123456789abcdef") == IMAGE_HASH_LEN - 1 &&
	       !s[IMAGE_HASH_LEN - 1];
}

/* The hash remembered for the archive's key, into j->name. */
static int recall(struct job *j)
{
	struct buf text = BUF_INIT;
	char path[NAME_LEN];
	int ret;

	snprintf(path, sizeof(path), "seen/%s", j->key);
	ret = io_read_file(j->dir_fd, path, IMAGE_HASH_LEN, &text);
	if (!ret && (!text.data || !is_hash(text.data)))
		ret = -EBADMSG;
	if (!ret)
		disk_name(j, text.data);
	buf_done(&text);
	return ret;
}

/* Failing to remember costs time alone. */
static void remember(struct job *j, const char *hash)
{
	char path[NAME_LEN], before[IMAGE_HASH_LEN];
	struct timespec now;
	struct stat st;

	if (fstat(j->in_fd, &st) < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	if ((now.tv_sec - st.st_ctim.tv_sec) * (int64_t)NSEC_PER_SEC +
	    now.tv_nsec - st.st_ctim.tv_nsec < RACY_NS)
		return;
	memcpy(before, j->key, sizeof(before));
	archive_key(j, &st);
	if (strcmp(before, j->key))
		return;		/* changed while it was read */
	snprintf(path, sizeof(path), "seen/%s", j->key);
	io_write_file(j->dir_fd, path, hash, strlen(hash), 0600);
}

static int print_manifest(const struct image_info *i, const struct stat *st,
			  struct buf *out)
{
	cleanup(json_putp) json_t *j = NULL;
	struct buf config = BUF_INIT;
	json_t *c = NULL;

	if (!image_config_print(&i->config, &config))
		c = json_parse(config.data, config.len, NULL);
	buf_done(&config);
	j = json_pack("{s:i,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}",
		      "schema_version", FORMAT, "hash", i->hash,
		      "archive_size", (json_int_t)i->archive_size,
		      "content", (json_int_t)i->content,
		      "entries", (json_int_t)i->entries,
		      "disk_size", (json_int_t)i->disk_size,
		      "disk_mtime", (json_int_t)st->st_mtim.tv_sec,
		      "disk_mtime_nsec", (json_int_t)st->st_mtim.tv_nsec,
		      "config", c);
	if (!j)
		return -ENOMEM;
	json_print(j, out);
	return out->oom ? -ENOMEM : 0;
}

static int parse_info(struct image_info *i, const json_t *j,
		      const struct stat *st, struct err *err)
{
	struct buf config = BUF_INIT;
	json_t *c;
	int ret;

	snprintf(i->hash, sizeof(i->hash), "%s", json_str(j, "hash", err));
	i->archive_size = json_int(j, "archive_size", 0, INT64_MAX, err);
	i->content = json_int(j, "content", 0, INT64_MAX, err);
	i->entries = json_int(j, "entries", 0, INT64_MAX, err);
	i->disk_size = json_int(j, "disk_size", 0, INT64_MAX, err);
	if (json_int(j, "disk_mtime", INT64_MIN, INT64_MAX, err) !=
	    st->st_mtim.tv_sec ||
	    json_int(j, "disk_mtime_nsec", 0, NSEC_PER_SEC, err) !=
	    st->st_mtim.tv_nsec ||
	    i->disk_size != (uint64_t)st->st_size)
		return -ESTALE;
	c = json_obj_opt(j, "config", err);
	if (err->num || !c || !is_hash(i->hash))
		return -EBADMSG;
	json_print_compact(c, &config);
	ret = config.oom ? -ENOMEM :
	      image_config_parse(&i->config, config.data, config.len, err);
	buf_done(&config);
	return ret;
}

/* Opens a complete disk; -ENOENT, or another error when it is not usable. */
static int open_disk(struct job *j, struct cache_disk *out)
{
	struct buf text = BUF_INIT;
	char path[NAME_LEN + 32];
	struct err err = ERR_INIT;
	struct stat st;
	json_t *m;
	int ret;

	snprintf(path, sizeof(path), "%s/disk", j->name);
	out->fd = openat(j->dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (out->fd < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/manifest.json", j->name);
	ret = fstat(out->fd, &st) < 0 ? -errno :
	      io_read_file(j->dir_fd, path, MANIFEST_MAX, &text);
	m = ret ? NULL : json_parse(text.data, text.len, &err);
	if (!ret)
		ret = m ? parse_info(&out->info, m, &st, &err) : -EBADMSG;
	json_decref(m);
	buf_done(&text);
	if (ret)
		cache_disk_done(out);
	return ret;
}

/* One byte of the lock file a key; waits for the holder. */
static int lock_key(struct job *j)
{
	char part[16] = "";
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };

	memcpy(part, j->key, 15);
	fl.l_start = strtoll(part, NULL, 16);
	j->lock_fd = openat(j->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (j->lock_fd < 0)
		return host_failed(j, errno, "open the lock");
	while (fcntl(j->lock_fd, F_OFD_SETLKW, &fl) < 0)
		if (errno != EINTR)
			return host_failed(j, errno, "lock");
	return 0;
}

static void remove_if_dead(struct job *j, const char *name)
{
	cleanup(io_closep) int fd = openat(j->dir_fd, name, O_RDONLY |
					   O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
		io_remove_tree(j->dir_fd, name);
}

static void remove_leftovers(struct job *j)
{
	int fd = openat(j->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		io_close(fd);
		return;
	}
	while ((de = readdir(d)))
		if (!strncmp(de->d_name, "tmp-", 4))
			remove_if_dead(j, de->d_name);
	closedir(d);
}

/* A new locked directory, or -EAGAIN when it was taken for a leftover. */
static int try_tmp(struct job *j, char *tmp, size_t len)
{
	uint64_t r = io_now_ns();
	struct stat st;
	int fd;

	if (getrandom(&r, sizeof(r), 0) < 0)
		r = io_now_ns();
	snprintf(tmp, len, "tmp-%d-%016" PRIx64, getpid(), r);
	if (mkdirat(j->dir_fd, tmp, 0700) < 0)
		return host_failed(j, errno, "make a directory");
	fd = openat(j->dir_fd, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return host_failed(j, errno, "open a directory");
	/* until it is locked, another builder may clear it away */
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 ||
	    !st.st_nlink) {
		io_close(fd);
		return -EAGAIN;
	}
	return fd;
}

/* A directory to build in; returns its locked descriptor. */
static int make_tmp(struct job *j, char *tmp, size_t len)
{
	int fd;

	remove_leftovers(j);
	for (unsigned i = 0; i < 100; i++) {
		fd = try_tmp(j, tmp, len);
		if (fd != -EAGAIN)
			return fd;
	}
	return host_failed(j, EAGAIN, "make a directory");
}

static int write_manifest(struct job *j, int tmp_fd, int disk_fd,
			  const struct image_info *info)
{
	struct buf text = BUF_INIT;
	struct stat st;
	int ret;

	/* a cached disk must not lose bytes in a crash that spares its name */
	if (fdatasync(disk_fd) < 0 || fchmod(disk_fd, 0400) < 0 ||
	    fstat(disk_fd, &st) < 0)
		return host_failed(j, errno, "write the disk");
	ret = print_manifest(info, &st, &text);
	if (!ret)
		ret = io_write_file(tmp_fd, "manifest.json", text.data,
				    text.len, 0600);
	buf_done(&text);
	if (ret == -ENOENT)
		return 0;	/* the directory was deleted: see place() */
	return ret ? host_failed(j, -ret, "write the manifest") : 0;
}

/* Leaves the disk open for reading in out, whatever becomes of its name. */
static int build_in(struct job *j, int tmp_fd, struct cache_disk *out)
{
	cleanup(io_closep) int fd = openat(tmp_fd, "disk", O_RDWR | O_CREAT |
					   O_EXCL | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0 && errno == ENOENT)
		return -EAGAIN;		/* the directory was deleted */
	if (fd < 0)
		return host_failed(j, errno, "create the disk");
	out->fd = openat(tmp_fd, "disk", O_RDONLY | O_CLOEXEC);
	if (out->fd < 0)
		return host_failed(j, errno, "open the disk");
	if (j->is_dir)
		ret = image_build_dir(j->in_fd, fd, j->o, &out->info, j->err);
	else
		ret = image_build(j->in_fd, fd, j->o, &out->info, j->err);
	return ret ? ret : write_manifest(j, tmp_fd, fd, &out->info);
}

/* Somebody who deletes the cache meanwhile costs the next boot its time. */
static int place(struct job *j, const char *tmp)
{
	if (renameat(j->dir_fd, tmp, j->dir_fd, j->name) < 0 &&
	    errno != EEXIST && errno != ENOTEMPTY && errno != ENOENT)
		return host_failed(j, errno, "place the disk");
	return 0;
}

static int try_build(struct job *j, struct cache_disk *out)
{
	char tmp[NAME_LEN];
	int fd = make_tmp(j, tmp, sizeof(tmp)), ret;

	if (fd < 0)
		return fd;
	ret = build_in(j, fd, out);
	if (!ret) {
		disk_name(j, out->info.hash);
		ret = place(j, tmp);
	}
	if (!ret && !j->is_dir)
		remember(j, out->info.hash);
	io_remove_tree(j->dir_fd, tmp);
	io_close(fd);
	if (ret)
		cache_disk_done(out);
	else
		out->fresh = true;
	return ret;
}

static int build(struct job *j, struct cache_disk *out)
{
	int ret = -EAGAIN;

	for (unsigned i = 0; ret == -EAGAIN && i < 100; i++)
		ret = try_build(j, out);
	return ret == -EAGAIN ? host_failed(j, EAGAIN, "build the disk") : ret;
}

static int open_cache(struct job *j)
{
	int ret = io_mkdir_all(j->cache, 0700);

	if (ret)
		return host_failed(j, -ret, "make the cache directory");
	j->dir_fd = open(j->cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->dir_fd < 0)
		return host_failed(j, errno, "open the cache directory");
	if (mkdirat(j->dir_fd, "seen", 0700) < 0 && errno != EEXIST)
		return host_failed(j, errno, "make a directory");
	return 0;
}

static int open_archive(struct job *j)
{
	struct stat st;

	j->in_fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (j->in_fd < 0 || fstat(j->in_fd, &st) < 0)
		return err_code(j->err, errno == ENOENT || errno == ENOTDIR ?
				ERR_BOOT_IMAGE_NOT_FOUND : ERR_HOST_FAILED,
				errno, "cannot open image %s: %s", j->path,
				strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_code(j->err, ERR_BOOT_IMAGE_INVALID, EINVAL,
				"image %s is not a file", j->path);
	archive_key(j, &st);
	return 0;
}

static int open_dir(struct job *j)
{
	uint8_t digest[32];
	int ret;

	j->in_fd = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->in_fd < 0)
		return err_code(j->err, errno == ENOENT || errno == ENOTDIR ?
				ERR_BOOT_MOUNT_HOST_NOT_FOUND : ERR_HOST_FAILED,
				errno, "cannot open directory %s: %s", j->path,
				strerror(errno));
	ret = hostdir_digest(j->in_fd, digest, j->err);
	hex(j->key, digest);
	disk_name(j, j->key);
	return ret;
}

/* Looks up what is known; 0 when `out` is open. */
static int look(struct job *j, struct cache_disk *out)
{
	int ret = j->is_dir ? 0 : recall(j);

	return ret ? ret : open_disk(j, out);
}

static int get(struct job *j, struct cache_disk *out)
{
	int ret = open_cache(j);

	if (!ret)
		ret = j->is_dir ? open_dir(j) : open_archive(j);
	if (ret || !look(j, out))
		return ret;
	ret = lock_key(j);
	/* while waiting, the holder may have built it */
	if (ret || !look(j, out))
		return ret;
	/* there, but not usable: out of the way */
	if (*j->name)
		io_remove_tree(j->dir_fd, j->name);
	return build(j, out);
}

static void job_done(struct job *j)
{
	io_close(j->dir_fd);
	io_close(j->in_fd);
	io_close(j->lock_fd);
}

int cache_get(const char *cache, const char *archive, const struct image_opts *o,
	      struct cache_disk *out, struct err *err)
{
	struct job j = { .cache = cache, .path = archive, .o = o, .err = err,
			 .dir_fd = -1, .in_fd = -1, .lock_fd = -1 };
	int ret;

	*out = (struct cache_disk)CACHE_DISK_INIT;
	ret = get(&j, out);
	job_done(&j);
	if (ret)
		err_wrap(err, ret, "image %s", archive);
	return ret;
}

int cache_get_dir(const char *cache, const char *dir, const struct image_opts *o,
		  struct cache_disk *out, struct err *err)
{
	struct job j = { .cache = cache, .path = dir, .o = o, .err = err,
			 .is_dir = true, .dir_fd = -1, .in_fd = -1,
			 .lock_fd = -1 };
	int ret;

	*out = (struct cache_disk)CACHE_DISK_INIT;
	ret = get(&j, out);
	job_done(&j);
	if (ret)
		err_wrap(err, ret, "directory %s", dir);
	return ret;
}

int cache_find(const char *cache, const char *archive,
	       const struct image_opts *o, struct cache_disk *out)
{
	struct job j = { .cache = cache, .path = archive, .o = o,
			 .dir_fd = -1, .in_fd = -1, .lock_fd = -1 };
	int ret;

	*out = (struct cache_disk)CACHE_DISK_INIT;
	ret = open_archive(&j);
	if (!ret) {
		j.dir_fd = open(cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ret = j.dir_fd < 0 ? -errno : look(&j, out);
	}
	job_done(&j);
	return ret;
}
