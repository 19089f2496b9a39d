// SPDX-License-Identifier: MIT
/*
 * bench_image.c - archive to disk beside `tar x` and `mke2fs -d`, disk layers
 * beside a raw file, in one run: bench_image [ARCHIVE.tar]
 *
 * Without an archive it makes one in the shape of a small system: 8,000 files.
 * Works in $TMPDIR or /tmp; best of three.  tar runs as root or loses owners.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/cache.h"
#include "image/image.h"
#include "layer/layer.h"

#define RUNS	3
#define SIZE	(1ull << 30)
#define WRITES	20000u
#define CREATES 200u

static char dir[200];

static double now(void)
{
	return (double)io_now_ns() / 1e9;
}

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "bench_image: %s: %s\n", what, e ? err_message(e) : "");
	exit(1);
}

static void run(const char *fmt, const char *a, const char *b, const char *c)
{
	char cmd[2000];

	snprintf(cmd, sizeof(cmd), fmt, a, b, c);
	if (system(cmd))
		die(cmd, NULL);
}

static double best(double (*what)(const char *), const char *arg)
{
	double low = 1e9;

	for (int i = 0; i < RUNS; i++) {
		double t = what(arg);

		low = MIN(low, t);
	}
	return low;
}

static int new_file(const char *name)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path, NULL);
	return fd;
}

static double ours(const char *tar)
{
	struct err err = ERR_INIT;
	struct image_info info;
	int in = open(tar, O_RDONLY), out = new_file("ours");
	double t = now();

	if (image_build(in, out, NULL, &info, &err))
		die("build", &err);
	t = now() - t;
	image_info_done(&info);
	close(in);
	close(out);
	return t;
}

static double untar(const char *tar)
{
	double t;

	run("rm -rf %s/tree; mkdir %s/tree", dir, dir, "");
	t = now();
	run("tar -C %s/tree -xf %s %s", dir, tar, "");
	return now() - t;
}

static double mke2fs(const char *tar)
{
	double t;

	run("rm -f %s/theirs; truncate -s 4G %s/theirs %s", dir, dir, "");
	t = now();
	run("PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F -t ext4 -d %s/tree "
	    "%s/theirs >%s/log 2>&1", dir, dir, dir);
	return now() - t;
}

static double export(const char *name)
{
	struct image_export_opts o = { .name = name };
	struct err err = ERR_INIT;
	char path[300];
	int disk, out = new_file("export");
	double t;

	snprintf(path, sizeof(path), "%s/ours", dir);
	disk = open(path, O_RDONLY);
	t = now();
	if (image_export(&disk, 1, out, &o, NULL, &err))
		die("export", &err);
	t = now() - t;
	close(disk);
	close(out);
	return t;
}

static double cached(const char *tar)
{
	struct err err = ERR_INIT;
	struct cache_disk d;
	char path[300];
	double t;

	snprintf(path, sizeof(path), "%s/cache", dir);
	t = now();
	if (cache_get(path, tar, NULL, &d, &err))
		die("cache", &err);
	t = now() - t;
	cache_disk_done(&d);
	return t;
}

static void bench_archive(const char *tar)
{
	struct stat st;
	double mb, t, x, m;

	if (stat(tar, &st) < 0)
		die(tar, NULL);
	mb = (double)st.st_size / 1e6;
	printf("%-34s %10s %10s %8s\n", "archive to disk", "s", "MB/s", "ratio");
	t = best(ours, tar);
	printf("%-34s %10.3f %10.0f %8.2f\n", "one pass, with SHA-256", t, mb / t, 1.0);
	x = best(untar, tar);
	printf("%-34s %10.3f %10.0f %8.2f\n", "tar x", x, mb / x, x / t);
	m = best(mke2fs, tar);
	printf("%-34s %10.3f %10.0f %8.2f\n", "mke2fs -d", m, mb / m, m / t);
	printf("%-34s %10.3f %10.0f %8.2f\n", "tar x + mke2fs -d", x + m,
	       mb / (x + m), (x + m) / t);
	x = best(export, "x.tar");
	printf("%-34s %10.3f %10.0f\n", "disk to archive", x, mb / x);
	printf("%-34s %10.3f\n", "cache, first use (durable)", cached(tar));
	printf("%-34s %10.5f\n\n", "cache, second use", best(cached, tar));
}

static double create_layers(int base)
{
	struct err err = ERR_INIT;
	int fd[CREATES];
	double t;

	for (unsigned i = 0; i < CREATES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "l%u", i);
		fd[i] = new_file(name);
	}
	t = now();
	for (unsigned i = 0; i < CREATES; i++)
		if (layer_create(fd[i], base, true, SIZE, &err))
			die("layer", &err);
	t = now() - t;
	for (unsigned i = 0; i < CREATES; i++)
		close(fd[i]);
	run("rm -f %s/l*%s%s", dir, "", "");
	return t / CREATES;
}

static struct layer_stack *make_stack(const char *base, unsigned depth)
{
	struct err err = ERR_INIT;
	struct layer_stack *s;
	static uint8_t data[4096];
	int fd[2] = { open(base, O_RDONLY), new_file("l0") };

	if (layer_create(fd[1], fd[0], true, SIZE, &err))
		die("layer", &err);
	s = layer_stack_open(fd, 2, 0, false, NULL, &err);
	for (unsigned i = 1; s && i < depth; i++) {
		char name[32];

		/* something in each, so that looking costs what it does */
		for (unsigned k = 0; k < 500; k++) {
			struct iovec iov = { data, sizeof(data) };

			layer_write(s, &iov, 1, (uint64_t)(k * 977 + i) % (SIZE / 4096) * 4096);
		}
		snprintf(name, sizeof(name), "l%u", i);
		if (layer_seal(s, new_file(name), &err))
			die("seal", &err);
	}
	if (!s)
		die("stack", &err);
	return s;
}

struct cost {
	double write, flush, read;
};

static uint64_t place(unsigned i)
{
	return (uint64_t)i * 2654435761u % (SIZE / 4096) * 4096;
}

static struct cost stack_cost(const char *base, unsigned depth)
{
	struct layer_stack *s = make_stack(base, depth);
	static uint8_t data[4096] = { 1 };
	struct iovec iov = { data, sizeof(data) };
	struct cost c;
	double t = now();

	for (unsigned i = 0; i < WRITES; i++)
		if (layer_write(s, &iov, 1, place(i)))
			die("write", NULL);
	c.write = (now() - t) / WRITES;
	t = now();
	layer_flush(s);
	c.flush = now() - t;
	t = now();
	for (unsigned i = 0; i < WRITES; i++)
		layer_read(s, &iov, 1, place(i * 3));
	c.read = (now() - t) / WRITES;
	layer_stack_free(s);
	run("rm -f %s/l*%s%s", dir, "", "");
	return c;
}

static struct cost raw_cost(void)
{
	static uint8_t data[4096] = { 1 };
	int fd = new_file("raw");
	struct cost c;
	double t;

	if (ftruncate(fd, SIZE) < 0)
		die("raw", NULL);
	t = now();
	for (unsigned i = 0; i < WRITES; i++)
		if (pwrite(fd, data, 4096, place(i)) != 4096)
			die("raw", NULL);
	c.write = (now() - t) / WRITES;
	t = now();
	fdatasync(fd);
	c.flush = now() - t;
	t = now();
	for (unsigned i = 0; i < WRITES; i++)
		if (pread(fd, data, 4096, place(i * 3)) != 4096)
			die("raw", NULL);
	c.read = (now() - t) / WRITES;
	close(fd);
	return c;
}

static void print_cost(const char *what, struct cost c, struct cost raw)
{
	printf("%-20s %10.2f %8.2f %10.2f %8.2f %10.1f\n", what, c.write * 1e6,
	       c.write / raw.write, c.read * 1e6, c.read / raw.read,
	       c.flush * 1e3);
}

static void bench_layers(void)
{
	static const unsigned depth[] = { 1, 4, 16 };
	int base = new_file("base");
	struct cost raw;
	char path[300], what[32];
	double t;

	if (ftruncate(base, SIZE) < 0)
		die("base", NULL);
	snprintf(path, sizeof(path), "%s/base", dir);
	run("cat %s/base >/dev/null %s%s", dir, "", "");	/* warm, as raw is */
	t = create_layers(base);
	printf("a fresh layer: %.1f us\n\n", t * 1e6);
	printf("%-20s %10s %8s %10s %8s %10s\n", "random 4 KiB, 1 GiB", "write us",
	       "ratio", "read us", "ratio", "flush ms");
	raw = raw_cost();
	print_cost("raw file", raw, raw);
	for (unsigned i = 0; i < ARRAY_LEN(depth); i++) {
		snprintf(what, sizeof(what), "%u layer%s", depth[i],
			 depth[i] > 1 ? "s" : "");
		print_cost(what, stack_cost(path, depth[i]), raw);
	}
	close(base);
}

static void make_tar(char *path, size_t len)
{
	snprintf(path, len, "%s/made.tar", dir);
	run("mkdir %s/made && cd %s/made && i=0; while [ $i -lt 80 ]; do "
	    "mkdir d$i; head -c 2000000 /dev/urandom | split -a 3 -b 20000 - d$i/f; "
	    "i=$((i+1)); done; cd %s/made && tar -cf ../made.tar . && cd .. && "
	    "rm -rf made", dir, dir, dir);
}

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");
	char made[300];

	snprintf(dir, sizeof(dir), "%s/bench-image-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		die(dir, NULL);
	if (argc < 2)
		make_tar(made, sizeof(made));
	bench_archive(argc < 2 ? made : argv[1]);
	bench_layers();
	io_remove_tree(AT_FDCWD, dir);
	return 0;
}
