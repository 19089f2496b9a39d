// SPDX-License-Identifier: MIT
/*
 * bootk.c - boots a kernel with nothing around the VM, its console on stdout:
 *
 *	bootk [-a kvm|soft] [-e interp|jit] [-m MIB] [-c CPUS] [-d DISK]... KERNEL INITRD|- CMDLINE
 *
 * Exit status: enum vm_end.  For bringing up kernels, CPUs and boards.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "proto/spec.h"
#include "vmm/accel.h"
#include "vmm/vm.h"

static void add_disk(struct spec *s, struct spec_fds *fds, const char *path)
{
	struct spec_disk *d = &s->disk[s->nr_disks];
	char id[16];

	snprintf(id, sizeof(id), "disk%u", s->nr_disks++);
	d->id = strdup(id);
	d->nr_layers = 1;
	spec_fds_add(fds, open(path, O_RDWR), "%s.0", id);
}

/* A terminal or pipe is a stream; a regular file is a log. */
static void add_console(struct spec_fds *fds)
{
	struct stat st;

	if (!fstat(STDOUT_FILENO, &st) && S_ISREG(st.st_mode))
		spec_fds_add(fds, open("/proc/self/fd/1", O_RDWR), "console");
	else
		spec_fds_add(fds, dup(STDOUT_FILENO), "tty");
}

static int parse(struct spec *s, struct spec_fds *fds, int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "a:e:m:c:d:")) != -1) {
		if (opt == 'a')
			s->accel = strcmp(optarg, "kvm") ? SPEC_ACCEL_SOFT : SPEC_ACCEL_KVM;
		else if (opt == 'e')
			s->engine = strcmp(optarg, "jit") ? SPEC_ENGINE_INTERP : SPEC_ENGINE_JIT;
		else if (opt == 'm')
			s->memory_mib = (uint32_t)atoi(optarg);
		else if (opt == 'c')
			s->cpus = (uint32_t)atoi(optarg);
		else if (opt == 'd' && s->nr_disks < SPEC_MAX_DISKS)
			add_disk(s, fds, optarg);
		else
			return -1;
	}
	if (argc - optind != 3)
		return -1;
	spec_fds_add(fds, open(argv[optind], O_RDONLY), "kernel");
	s->has_initrd = strcmp(argv[optind + 1], "-") != 0;
	if (s->has_initrd)
		spec_fds_add(fds, open(argv[optind + 1], O_RDONLY), "initrd");
	free(s->cmdline);
	s->cmdline = strdup(argv[optind + 2]);
	add_console(fds);
	return 0;
}

/* What the backend counted, on one line. */
static void print_stats(struct vm *vm)
{
	json_t *o = json_object();
	char *text;

	if (vm->accel && vm->accel->stats)
		vm->accel->stats(vm, o);
	text = json_dumps(o, JSON_COMPACT);
	fprintf(stderr, "bootk: %s\n", text ? text : "");
	free(text);
	json_decref(o);
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct spec_fds fds = { .nr = 0 };
	struct spec spec;
	struct vm *vm;
	uint64_t start = io_now_ns();
	enum vm_end end = VM_END_CRASHED;

	log_setup(getenv("MACHINEN_LOG"));
	spec_init(&spec);
	spec.cpu_model = strdup("portable");
	if (parse(&spec, &fds, argc, argv)) {
		fprintf(stderr, "usage: bootk [-a kvm|soft] [-e interp|jit] [-m MIB] "
			"[-c CPUS] [-d DISK]... KERNEL INITRD|- CMDLINE\n");
		return 64;
	}
	vm = vm_new(&spec, &fds, NULL, &err);
	if (vm && !vm_start(vm, &err))
		end = vm_run(vm);
	if (err.num)
		fprintf(stderr, "bootk: %s: %s\n", err_message(&err),
			err_cause(&err, 0) ? err_cause(&err, 0) : "");
	if (vm)
		print_stats(vm);
	fprintf(stderr, "bootk: %s after %.3f s\n", vm_end_name(end),
		(double)(io_now_ns() - start) / 1e9);
	vm_free(vm);
	return end;
}
