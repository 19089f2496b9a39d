// SPDX-License-Identifier: MIT
/*
 * restore.c - a VM from a state file and memory.
 *
 * The state file comes from a bundle that anybody may have made.  state_r_init()
 * checks its structure; the "vm" section is parsed and compared with the launch
 * spec before anything is built by it; each loader checks its own values.  A VM
 * whose loading failed half-way never runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/board.h"
#include "vmm/arch/x86/state.h"
#include "vmm/dev/devices.h"
#include "vmm/snapshot.h"
#include "vmm/vm.h"

#define STATE_MAX	(64u << 20)
#define TEXT_MAX	(64u << 10)

/* ---- opening ---- */

static char *get_text(struct state_r *r)
{
	uint32_t n;
	const void *p = state_get_blob(r, &n, TEXT_MAX);

	return p ? strndup(p, n) : NULL;
}

static int read_vm_section(struct restore *r, struct err *err)
{
	char *json, *arch;
	int ret;

	if (state_find(&r->r, "vm", 0) < 0)
		return err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
				"the state file does not say what VM it is of");
	arch = get_text(&r->r);
	json = get_text(&r->r);
	r->features = get_text(&r->r);
	for (unsigned i = 0; i < CPUID_NR_WORDS; i++)
		r->word[i] = state_get_u32(&r->r);
	r->tsc_khz = state_get_u64(&r->r);
	ret = state_close(&r->r, err);
	if (!ret && (!arch || !json || !r->features))
		ret = err_set(err, ENOMEM, "out of memory");
	if (!ret && strcmp(arch, "x86_64"))
		ret = err_code(err, ERR_SNAPSHOT_ARCH_MISMATCH, ENOTSUP,
			       "the bundle is of a %.20s machine", arch);
	if (!ret && (r->tsc_khz < 100000 || r->tsc_khz > 100000000))
		ret = err_code(err, ERR_SNAPSHOT_DAMAGED, EBADMSG,
			       "the state file has an impossible TSC frequency");
	if (!ret)
		ret = spec_parse(&r->spec, json, strlen(json), err);
	if (ret && ret != -ENOMEM)
		err_wrap_code(err, ERR_SNAPSHOT_DAMAGED, ret,
			      "the bundle's state cannot be used");
	free(json);
	free(arch);
	return ret;
}

static struct restore *restore_new(struct err *err)
{
	struct restore *r = calloc(1, sizeof(*r));

	if (!r) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	r->mem_fd = r->mem.file_fd = -1;
	return r;
}

static struct restore *parse(struct restore *r, struct err *err)
{
	int ret = state_r_init(&r->r, r->state.data, r->state.len, err);

	if (!ret)
		ret = read_vm_section(r, err);
	if (!ret)
		return r;
	restore_free(r);
	return NULL;
}

/* A descriptor of our own for a role, or for that name in role "bundle". */
static int open_file(const struct spec_fds *fds, const char *name, struct err *err)
{
	int fd = spec_fds_get(fds, "%s", name), dir = spec_fds_get(fds, "bundle");

	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	else if (dir >= 0)
		fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	else
		return err_code(err, ERR_BOOT_SNAPSHOT_NOT_FOUND, ENOENT,
				"no bundle to restore from");
	return fd < 0 ? err_code(err, ERR_SNAPSHOT_DAMAGED, errno,
				 "the bundle's file %s cannot be opened", name) : fd;
}

static int read_file(const struct spec_fds *fds, const char *name, struct buf *out,
		     struct err *err)
{
	cleanup(io_closep) int fd = open_file(fds, name, err);
	off_t len = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	char *p;

	if (fd < 0)
		return fd;
	if (len <= 0 || len > (off_t)STATE_MAX)
		return err_code(err, ERR_SNAPSHOT_DAMAGED, EFBIG,
				"the bundle's file %s is not a sensible one", name);
	p = buf_reserve(out, len);
	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	len = io_pread_full(fd, p, len, 0);
	if (len < 0)
		return err_set(err, -len, "cannot read the bundle's file %s", name);
	out->len = len;
	return 0;
}

struct restore *restore_open(const struct spec_fds *fds, struct err *err)
{
	bool sums = spec_fds_get(fds, "sums") >= 0 || spec_fds_get(fds, "bundle") >= 0;
	struct restore *r = restore_new(err);
	int ret = r ? read_file(fds, "state", &r->state, err) : -ENOMEM;

	if (!ret && sums)
		ret = read_file(fds, "sums", &r->sums, err);
	if (!ret)
		ret = r->mem_fd = open_file(fds, "memory", err);
	if (ret >= 0)
		return parse(r, err);
	restore_free(r);
	return NULL;
}

struct restore *restore_from(struct buf *state, struct vm *source, struct err *err)
{
	struct restore *r = restore_new(err);

	if (!r)
		return NULL;
	r->state = *state;
	*state = (struct buf)BUF_INIT;
	mem_move(&r->mem, &source->mem);
	r->host_khz = source->host_khz;
	r->source = source;
	return parse(r, err);
}

void restore_free(struct restore *r)
{
	if (!r)
		return;
	if (r->mem.base)
		mem_done(&r->mem);
	io_close(r->mem_fd);
	spec_done(&r->spec);
	free(r->features);
	buf_done(&r->state);
	buf_done(&r->sums);
	free(r);
}

/* ---- the same machine? ---- */

static int differs(struct err *err, const char *what)
{
	return err_code(err, ERR_SNAPSHOT_DAMAGED, EINVAL,
			"the snapshot is of a VM with other %s than this one's", what);
}

int restore_check(const struct restore *r, const struct spec *spec, struct err *err)
{
	const struct spec *old = &r->spec;

	if (old->memory_mib != spec->memory_mib)
		return differs(err, "memory");
	if (old->cpus != spec->cpus)
		return differs(err, "CPUs");
	if (old->nr_disks != spec->nr_disks)
		return differs(err, "disks");
	for (unsigned i = 0; i < old->nr_disks; i++)
		if (strcmp(old->disk[i].id, spec->disk[i].id) ||
		    old->disk[i].readonly != spec->disk[i].readonly)
			return differs(err, "disks");
	if (old->nr_fs != spec->nr_fs)
		return differs(err, "live mounts");
	for (unsigned i = 0; i < old->nr_fs; i++)
		if (strcmp(old->fs[i].id, spec->fs[i].id))
			return differs(err, "live mounts");
	if (old->net != spec->net)
		return differs(err, "network devices");
	return 0;
}

/* No more than the guest was started with, and no less. */
int restore_model(const struct restore *r, const struct accel *accel,
		  struct cpu_model *m, struct err *err)
{
	uint32_t can[CPUID_NR_WORDS] = { 0 };
	struct buf missing = BUF_INIT;
	int ret = accel_check_cpus(accel, r->spec.cpus, err);

	if (ret)
		return ret;
	accel->cpuid_can(can);
	for (unsigned i = 0; i < CPUID_NR_WORDS; i++)
		can[i] &= r->word[i];
	ret = cpu_model_init(m, r->spec.cpu_model, can, r->tsc_khz, r->spec.cpus, err);
	if (ret)
		err_wrap_code(err, ERR_SNAPSHOT_CPU_MISMATCH, ret,
			      "the snapshot's CPU model cannot be had here");
	else if (cpu_model_missing(m, r->features, &missing))
		ret = err_code(err, ERR_SNAPSHOT_CPU_MISMATCH, ENOTSUP,
			       "this host (%s) lacks CPU features that the guest uses: %s",
			       accel->name, missing.data ? missing.data : "");
	buf_done(&missing);
	return ret;
}

/* ---- loading ---- */

static int load_vcpus(struct restore *r, struct vm *vm, struct err *err)
{
	struct x86_state *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64));
	int ret = s ? 0 : err_set(err, ENOMEM, "out of memory");

	for (unsigned i = 0; i < vm->nr_vcpus && !ret; i++) {
		memset(s, 0, sizeof(*s));
		ret = x86_state_load(&r->r, s, i, err);
		if (!ret)
			ret = vm->accel->vcpu_set(&vm->vcpu[i], s, err);
	}
	free(s);
	return ret;
}

static int load_controllers(struct restore *r, struct vm *vm, struct err *err)
{
	struct x86_ioapic_state ioapic;
	struct x86_clock_state clock;
	int ret = x86_ioapic_load(&r->r, &ioapic, err);

	if (!ret)
		ret = x86_clock_load(&r->r, &clock, err);
	if (!ret)
		ret = vm->accel->board_set(vm, &ioapic, &clock, err);
	return ret;
}

/* Clock before vCPUs: their TSCs are set relative to it. */
int restore_load(struct restore *r, struct vm *vm, struct err *err)
{
	int ret = load_controllers(r, vm, err);

	if (!ret)
		ret = board_load(vm, &r->r, err);
	if (!ret)
		ret = load_vcpus(r, vm, err);
	if (!ret)
		ret = devices_load(vm, &r->r, err);
	if (!ret)
		ret = state_r_finish(&r->r, err);
	if (ret)
		return err_wrap_code(err, ERR_SNAPSHOT_DAMAGED, ret,
				     "the snapshot cannot be loaded");
	board_new_generation(vm, vm->spec.vmgenid);
	devices_resume(vm);
	return 0;
}
