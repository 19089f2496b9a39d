// SPDX-License-Identifier: MIT
/*
 * main.c - machinen-vmm: one virtual machine.
 *
 *	machinen-vmm --spec-fd N
 *	machinen-vmm --probe		each CPU backend: "NAME ok" or "NAME why not"
 *	machinen-vmm --probe DIR	the same for what the bundle DIR needs of it
 *
 * The launch document (proto/spec.h) is read from descriptor N; everything else
 * the VM needs is named in it.  The program is started by the library and is
 * of little use by hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "proto/spec.h"
#include "vmm/accel.h"
#include "vmm/process.h"
#include "vmm/sandbox.h"
#include "vmm/snapshot.h"

#define LAUNCH_MAX (1u << 20)

static const char usage[] =
	"usage: machinen-vmm --spec-fd N | --probe [DIR]\n"
	"Runs one virtual machine, described by the document on descriptor N.\n"
	"Started by machinen; see machinen(1).\n";

static int read_launch(int fd, struct buf *text, struct err *err)
{
	char *p = buf_reserve(text, LAUNCH_MAX + 1);
	ssize_t n = p ? io_read_full(fd, p, LAUNCH_MAX + 1) : -ENOMEM;

	if (n < 0)
		return err_set(err, -n, "cannot read the launch document: %s",
			       strerror(-n));
	if (n > (ssize_t)LAUNCH_MAX)
		return err_set(err, EFBIG, "the launch document is too long");
	text->len = n;
	return 0;
}

static void print_error(const struct err *err)
{
	fprintf(stderr, "machinen-vmm: %s\n", err_message(err));
	for (unsigned i = 0; err_cause(err, i); i++)
		fprintf(stderr, "  caused by: %s\n", err_cause(err, i));
}

/*
 * What is large here is mostly empty for good: maps of layers, tables of connections.
 * calloc() clears what it takes from the heap and so makes it the process's own, but
 * not a mapping.  (By default it stops using those as soon as one is freed.)
 */
static void keep_empty_empty(void)
{
	mallopt(M_MMAP_THRESHOLD, 48 << 10);
}

/* A guest's connections are sockets of ours, far more than a shell's 1024. */
static void raise_nofile(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
}

static int run(int spec_fd)
{
	struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	struct spec spec;
	struct spec_fds fds;
	int ret;

	keep_empty_empty();
	raise_nofile();
	ret = sandbox_early(&err);
	if (!ret)
		ret = read_launch(spec_fd, &text, &err);
	if (!ret)
		ret = spec_launch_parse(&spec, &fds, text.data, text.len, &err);
	buf_done(&text);
	io_close(spec_fd);
	if (!ret)
		return process_run(&spec, &fds, NULL);
	print_error(&err);
	return PROCESS_FAILED;
}

/* dir: a bundle, or NULL. */
static int report(const char *dir)
{
	struct spec_fds fds = { .nr = 0 };
	struct restore *r = NULL;
	struct err err = ERR_INIT;
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (dir && (fd < 0 || spec_fds_add(&fds, fd, "bundle")))
		err_set(&err, errno, "%s: %s", dir, strerror(errno));
	else if (dir)
		r = restore_open(&fds, &err);
	if (err.num)
		print_error(&err);
	else
		accel_report(stdout, r);
	restore_free(r);
	spec_fds_done(&fds);
	io_close(fd);
	return err.num ? PROCESS_FAILED : 0;
}

static int parse_fd(const char *s)
{
	char *end;
	long fd = strtol(s, &end, 10);

	return *s && !*end && fd >= 0 && fd < 65536 ? (int)fd : -1;
}

int main(int argc, char **argv)
{
	log_setup(getenv("MACHINEN_LOG"));
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		puts("machinen-vmm " MN_VERSION);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc >= 2 && argc <= 3 && !strcmp(argv[1], "--probe"))
		return report(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "--spec-fd") && parse_fd(argv[2]) >= 0)
		return run(parse_fd(argv[2]));
	fputs(usage, stderr);
	return PROCESS_USAGE;
}
