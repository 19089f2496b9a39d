// SPDX-License-Identifier: MIT
/*
 * bootk.c - boots a kernel with nothing around the VM, its console on stdout:
 *
 *	bootk [-a kvm|soft] [-e interp|jit] [-l MILLIONS] [-m MIB] [-c CPUS] [-d DISK]... KERNEL INITRD|- CMDLINE
 *
 * Exit status: enum vm_end.  For bringing up kernels, CPUs and boards.  -l checks
 * the translator by the interpreter as it goes (tests/lib/lockstep.h), and exits
 * with status 3 and a report at the first difference, with 0 when so many millions
 * of instructions agreed (0: to the end).
 */
#include <errno.h>
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
#include "tests/lib/lockstep.h"
#include "vmm/accel.h"
#include "vmm/soft/soft.h"
#include "vmm/vcpu.h"
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

static int parse(struct spec *s, struct spec_fds *fds, long *check, int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "a:e:l:m:c:d:")) != -1) {
		if (opt == 'a')
			s->accel = strcmp(optarg, "kvm") ? SPEC_ACCEL_SOFT : SPEC_ACCEL_KVM;
		else if (opt == 'e')
			s->engine = strcmp(optarg, "jit") ? SPEC_ENGINE_INTERP : SPEC_ENGINE_JIT;
		else if (opt == 'l')
			*check = atol(optarg);
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

static void differs(void *arg, const char *report)
{
	fprintf(stderr, "\nbootk: %s", report);
	fflush(stdout);
	_exit(3);
}

static void print_checked(const struct lockstep *l)
{
	const struct lockstep_stat *st = lockstep_stat(l);

	fprintf(stderr, "bootk: %llu segments of %llu instructions agree, %llu pages written, "
		"%llu segments through several blocks, %llu too long to compare\n", (unsigned long long)st->segments,
		(unsigned long long)st->instructions, (unsigned long long)st->pages,
		(unsigned long long)st->linked, (unsigned long long)st->too_long);
}

static void enough(void *arg)
{
	struct lockstep **l = arg;

	print_checked(*l);
	fflush(stdout);
	_exit(0);
}

/* NULL: no translator to check. */
static struct lockstep *check_translator(struct vm *vm, long millions, struct lockstep **l)
{
	struct soft_vm *svm = vm->accel == &accel_soft ? vm->accel_vm : NULL;
	const struct lockstep_calls calls = {
		.differs = differs, .enough = millions ? enough : NULL, .arg = l,
		.instructions = (uint64_t)millions * 1000000,
	};

	if (svm && svm->cpu[0] && svm->cpu[0]->jit)
		*l = lockstep_attach(svm->cpu[0], &calls);
	return *l;
}

int main(int argc, char **argv)
{
	struct lockstep *lockstep = NULL;
	long check = -1;
	struct err err = ERR_INIT;
	struct spec_fds fds = { .nr = 0 };
	struct spec spec;
	struct vm *vm;
	uint64_t start = io_now_ns();
	enum vm_end end = VM_END_CRASHED;

	log_setup(getenv("MACHINEN_LOG"));
	spec_init(&spec);
	spec.cpu_model = strdup("portable");
	if (parse(&spec, &fds, &check, argc, argv)) {
		fprintf(stderr, "usage: bootk [-a kvm|soft] [-e interp|jit] [-l MILLIONS] [-m MIB] "
			"[-c CPUS] [-d DISK]... KERNEL INITRD|- CMDLINE\n");
		return 64;
	}
	vm = vm_new(&spec, &fds, NULL, &err);
	if (vm && check >= 0 && !check_translator(vm, check, &lockstep))
		err_set(&err, ENOTSUP, "no translator to check");
	else if (vm && !vm_start(vm, &err))
		end = vm_run(vm);
	if (err.num)
		fprintf(stderr, "bootk: %s: %s\n", err_message(&err),
			err_cause(&err, 0) ? err_cause(&err, 0) : "");
	if (vm)
		print_stats(vm);
	if (lockstep)
		print_checked(lockstep);
	fprintf(stderr, "bootk: %s after %.3f s\n", vm_end_name(end),
		(double)(io_now_ns() - start) / 1e9);
	lockstep_detach(lockstep);
	vm_free(vm);
	return end;
}
