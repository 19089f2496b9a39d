// SPDX-License-Identifier: MIT
/*
 * freeze.c - the pause of a snapshot or fork: park, drain, save, seal, fork.
 * docs/snapshot.md tells what each is for.
 *
 * Everything that can be found wrong is found before the first disk is sealed,
 * for up to there nothing has happened to the VM.
 *
 * #syscalls clone close_range lseek
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/board.h"
#include "vmm/arch/x86/state.h"
#include "vmm/dev/blk.h"
#include "vmm/dev/devices.h"
#include "vmm/disk/disk.h"
#include "vmm/merge.h"
#include "vmm/snapshot.h"
#include "vmm/verify.h"
#include "vmm/vm.h"

/* ---- sections ---- */

static int save_vm_section(struct vm *vm, struct state_w *w, struct err *err)
{
	struct buf spec = BUF_INIT, features = BUF_INIT;
	bool restore = vm->spec.restore;
	int ret;

	vm->spec.restore = false;
	ret = spec_print(&vm->spec, &spec);
	vm->spec.restore = restore;
	cpu_model_features(&vm->model, &features);
	if (!ret && features.oom)
		ret = -ENOMEM;
	if (!ret) {
		state_begin(w, "vm", 0, 1, true);
		state_put_blob(w, "x86_64", 6);
		state_put_blob(w, spec.data, spec.len);
		state_put_blob(w, features.data, features.len);
		for (unsigned i = 0; i < CPUID_NR_WORDS; i++)
			state_put_u32(w, vm->model.word[i]);
		state_put_u64(w, vm->model.tsc_khz);
		state_end(w);
	}
	buf_done(&spec);
	buf_done(&features);
	return ret ? err_set(err, -ret, "cannot write the VM's spec") : 0;
}

static int save_vcpus(struct vm *vm, struct state_w *w, struct err *err)
{
	struct x86_state *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64));
	int ret = s ? 0 : err_set(err, ENOMEM, "out of memory");

	for (unsigned i = 0; i < vm->nr_vcpus && !ret; i++) {
		memset(s, 0, sizeof(*s));
		ret = vm->accel->vcpu_get(&vm->vcpu[i], s, err);
		if (!ret)
			x86_state_save(w, s, i);
	}
	free(s);
	return ret;
}

int snapshot_save(struct vm *vm, struct buf *out, struct err *err)
{
	struct x86_ioapic_state ioapic = { .id = 0 };
	struct x86_clock_state clock = { .tsc_khz = 0 };
	struct state_w w;
	int ret;

	state_w_init(&w, out);
	ret = save_vm_section(vm, &w, err);
	if (!ret)
		ret = save_vcpus(vm, &w, err);
	if (!ret)
		ret = vm->accel->board_get(vm, &ioapic, &clock, err);
	if (ret)
		return ret;
	x86_ioapic_save(&w, &ioapic);
	x86_clock_save(&w, &clock);
	board_save(vm, &w);
	devices_save(vm, &w);
	return state_w_finish(&w, err);
}

/* ---- disks ---- */

static struct disk *disk_of(struct vm *vm, unsigned i)
{
	struct virtio_dev *dev = devices_find(vm, &blk_class, i);

	return dev ? blk_disk(dev) : NULL;
}

/* What would make sealing fail, before anything is done. */
static int check_disks(struct vm *vm, const struct spec_fds *fds, struct err *err)
{
	for (unsigned i = 0; i < vm->spec.nr_disks; i++) {
		const struct spec_disk *s = &vm->spec.disk[i];
		struct disk *d = disk_of(vm, i);

		if (s->readonly)
			continue;
		if (!d || !d->ops->seal)
			return err_set(err, ENOTSUP, "disk %s is a plain file: it cannot "
				       "be in a snapshot", s->id);
		if (spec_fds_get(fds, "seal.%s", s->id) < 0)
			return err_set(err, EINVAL, "role seal.%s is missing", s->id);
		if (s->nr_layers >= SPEC_MAX_LAYERS || vm->fds.nr == SPEC_MAX_FDS)
			return err_set(err, EMFILE, "disk %s has %u layers, which is "
				       "the most there can be", s->id, s->nr_layers);
	}
	return 0;
}

/* The disk gets the descriptor, the VM's list of layers a copy of it. */
static int seal_disk(struct vm *vm, unsigned i, const struct spec_fds *fds,
		     struct err *err)
{
	struct spec_disk *s = &vm->spec.disk[i];
	struct disk *d = disk_of(vm, i);
	int fd = fcntl(spec_fds_get(fds, "seal.%s", s->id), F_DUPFD_CLOEXEC, 0);
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0), ret;

	ret = fd < 0 || own < 0 ? err_set(err, errno, "no descriptor for a layer") : 0;
	if (!ret)
		ret = spec_fds_add(&vm->fds, own, "%s.%u", s->id, s->nr_layers);
	if (!ret) {
		ret = d->ops->seal(d, fd, err);
		if (!ret) {
			s->nr_layers++;
			return 0;
		}
		spec_fds_drop(&vm->fds, "%s.%u", s->id, s->nr_layers);
	}
	io_close(own);
	io_close(fd);
	return err_wrap(err, ret, "disk %s cannot be sealed", s->id);
}

static int seal_disks(struct vm *vm, struct freeze *f, const struct spec_fds *fds,
		      bool seal, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < vm->spec.nr_disks && !ret; i++) {
		f->layers[i] = vm->spec.disk[i].nr_layers;
		if (seal && !vm->spec.disk[i].readonly)
			ret = seal_disk(vm, i, fds, err);
	}
	return ret;
}

int freeze_flush(struct vm *vm)
{
	int ret = 0;

	for (unsigned i = 0; i < vm->spec.nr_disks && !ret; i++) {
		struct disk *d = disk_of(vm, i);

		if (d && !vm->spec.disk[i].readonly)
			ret = d->ops->flush(d);
	}
	return ret;
}

/* ---- the pause ---- */

static void phase(struct freeze *f, enum freeze_phase p)
{
	uint64_t now = io_now_ns();

	f->phase_ns[p] = now - f->mark;
	f->mark = now;
}

int freeze_begin(struct vm *vm, struct freeze *f, const struct spec_fds *fds,
		 bool seal, struct err *err)
{
	int ret = seal ? check_disks(vm, fds, err) : 0;

	*f = (struct freeze){ .begun = 0 };
	if (ret)
		return ret;
	verify_hold(vm->verify);
	merge_hold(vm->merge);
	f->mark = f->begun = io_now_ns();
	vcpu_park_all(vm);
	phase(f, FREEZE_PARK);
	pool_drain(vm->pool);
	pthread_mutex_lock(&vm->lock);
	devices_drain(vm);
	phase(f, FREEZE_DRAIN);
	ret = snapshot_save(vm, &f->state, err);
	phase(f, FREEZE_SAVE);
	if (!ret)
		ret = seal_disks(vm, f, fds, seal, err);
	phase(f, FREEZE_SEAL);
	pthread_mutex_unlock(&vm->lock);
	if (!ret)
		return 0;
	freeze_end(vm, f);
	return err_wrap_code(err, ERR_SNAPSHOT_DUMP_FAILED, ret,
			     "the VM cannot be frozen");
}

/* The backend's caches go along into a sibling. */
static pid_t fork_vm(struct vm *vm, bool sibling)
{
	int ret = sibling && vm->accel->fork_begin ? vm->accel->fork_begin(vm) : 0;
	pid_t pid;

	if (ret)
		return ret;
	pid = fork();
	if (pid < 0)
		pid = -errno;
	if (pid && sibling && vm->accel->fork_end)
		vm->accel->fork_end(vm);
	return pid;
}

int freeze_fork(struct vm *vm, struct freeze *f, bool sibling, struct err *err)
{
	pid_t pid = fork_vm(vm, sibling);

	if (pid < 0) {
		pid = err_code(err, ERR_SNAPSHOT_DUMP_FAILED, -pid,
			       "cannot make a copy of the VM: %s", strerror(-pid));
		freeze_end(vm, f);
	} else if (pid) {
		phase(f, FREEZE_FORK);
	}
	return pid;
}

static unsigned long long us(uint64_t ns)
{
	return ns / 1000;
}

void freeze_end(struct vm *vm, struct freeze *f)
{
	pthread_mutex_lock(&vm->lock);
	devices_resume(vm);
	pthread_mutex_unlock(&vm->lock);
	vcpu_unpark_all(vm);
	verify_release(vm->verify);
	merge_release(vm->merge);
	f->mark = io_now_ns();
	buf_done(&f->state);
	log_info("snapshot", "paused for %llu us: park %llu, drain %llu, save %llu, "
		 "seal %llu, fork %llu", us(f->mark - f->begun),
		 us(f->phase_ns[FREEZE_PARK]), us(f->phase_ns[FREEZE_DRAIN]),
		 us(f->phase_ns[FREEZE_SAVE]), us(f->phase_ns[FREEZE_SEAL]),
		 us(f->phase_ns[FREEZE_FORK]));
}

json_t *freeze_phases(const struct freeze *f)
{
	static const char *const names[] = {
		[FREEZE_PARK] = "park_us", [FREEZE_DRAIN] = "drain_us",
		[FREEZE_SAVE] = "save_us", [FREEZE_SEAL] = "seal_us",
		[FREEZE_FORK] = "fork_us",
	};
	json_t *o = json_object();

	_Static_assert(ARRAY_LEN(names) == FREEZE_PHASES, "a name a phase");
	for (unsigned i = 0; i < FREEZE_PHASES; i++)
		json_object_set_new(o, names[i], json_integer(f->phase_ns[i] / 1000));
	json_object_set_new(o, "pause_us", json_integer((f->mark - f->begun) / 1000));
	return o;
}

json_t *freeze_disks(const struct vm *vm, const struct freeze *f)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < vm->spec.nr_disks; i++)
		json_array_append_new(list, json_pack("{s:s, s:i}", "id",
			vm->spec.disk[i].id, "layers", f->layers[i]));
	return list;
}

/* ---- in the child ---- */

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void freeze_close_all_but(const int *fds, unsigned nr)
{
	int keep[SPEC_MAX_FDS + 8];
	int from = 3;

	ASSERT(nr <= ARRAY_LEN(keep));
	memcpy(keep, fds, nr * sizeof(*fds));
	qsort(keep, nr, sizeof(keep[0]), by_number);
	for (unsigned i = 0; i < nr; i++) {
		if (keep[i] < from)
			continue;
		if (keep[i] > from)
			close_range(from, keep[i] - 1, 0);
		from = keep[i] + 1;
	}
	close_range(from, ~0u, 0);
}
