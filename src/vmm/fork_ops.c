// SPDX-License-Identifier: MIT
/*
 * fork_ops.c - the control operation `fork`: a sibling VM from this one.
 *
 * The parent works out everything that can go wrong first: the sibling's spec, the
 * descriptor behind each of its roles, room for the layers.  Then comes the pause,
 * and the child is on its own: it keeps the descriptors of its roles, takes over
 * the memory, and runs process_run() as a restored VM, in this very call.
 *
 * The source's structures stay behind in the child as memory nobody uses; they
 * share their pages with the source.  Nothing of theirs is freed, because much
 * of what they name (eventfds, KVM descriptors) is shared with the source as well.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/util.h"
#include "layer/layer.h"
#include "vmm/ctl_server.h"
#include "vmm/process.h"
#include "vmm/snapshot.h"
#include "vmm/vm.h"

/* ---- the sibling's spec ---- */

/* The source's with what it must not have in common replaced. */
static json_t *base_spec(struct vm *vm)
{
	struct spec s = vm->spec;	/* shallow: nothing is freed through it */

	s.restore = true;
	s.has_initrd = false;
	s.nr_ports = 0;
	if (getrandom(s.mac + 3, 3, 0) != 3 ||
	    getrandom(s.vmgenid, sizeof(s.vmgenid), 0) != sizeof(s.vmgenid))
		return NULL;
	return spec_to_json(&s);
}

/* Number of layers is ours to say, whatever the request says. */
static int count_layers(struct vm *vm, struct spec *s, struct err *err)
{
	if (s->nr_disks != vm->spec.nr_disks)
		return err_set(err, EINVAL, "a sibling has the source's disks");
	for (unsigned i = 0; i < s->nr_disks; i++) {
		s->disk[i].nr_layers = vm->spec.disk[i].nr_layers;
		if (!vm->spec.disk[i].readonly)
			s->disk[i].nr_layers++;
	}
	s->restore = true;
	return 0;
}

static int make_spec(struct ctl_req *req, struct spec *s, struct err *err)
{
	cleanup(json_putp) json_t *o = base_spec(req->vm);
	json_t *changes = json_obj_opt(req->doc, "spec", err);
	int ret = err->num ? -err->num : 0;

	spec_init(s);
	if (!o)
		return err_set(err, ENOMEM, "cannot make the sibling's spec");
	if (!ret && changes && json_object_update_recursive(o, changes))
		ret = err_set(err, EINVAL, "the changes cannot be applied");
	if (!ret)
		ret = spec_parse_json(s, o, err);
	return ret ? ret : count_layers(req->vm, s, err);
}

/* ---- its descriptors ---- */

static int add_role(struct spec_fds *to, const struct spec_fds *from,
		    const char *role, struct err *err)
{
	int fd = spec_fds_get(from, "%s", role);
	int ret = fd < 0 ? 0 : spec_fds_add(to, fd, "%s", role);

	return ret ? err_set(err, -ret, "too many descriptors") : 0;
}

static int disk_roles(struct vm *vm, const struct spec_disk *d,
		      const struct spec_fds *given, struct spec_fds *out, struct err *err)
{
	unsigned old = d->readonly ? d->nr_layers : d->nr_layers - 1;
	int fd, ret = 0;

	for (unsigned i = 0; i < old && !ret; i++) {
		fd = spec_fds_get(&vm->fds, "%s.%u", d->id, i);
		ret = spec_fds_add(out, fd, "%s.%u", d->id, i);
	}
	if (!ret && !d->readonly) {
		fd = spec_fds_get(given, "top.%s", d->id);
		if (fd < 0)
			return err_set(err, EINVAL, "role top.%s is missing", d->id);
		ret = spec_fds_add(out, fd, "%s.%u", d->id, old);
	}
	return ret ? err_set(err, -ret, "too many descriptors") : 0;
}

/* What a request may not name: it is worked out here. */
static bool is_ours(const struct vm *vm, const char *role)
{
	if (!strncmp(role, "seal.", 5) || !strncmp(role, "top.", 4))
		return true;
	for (unsigned i = 0; i < vm->spec.nr_disks; i++) {
		size_t len = strlen(vm->spec.disk[i].id);

		if (!strncmp(role, vm->spec.disk[i].id, len) && role[len] == '.')
			return true;
	}
	return false;
}

/* Borrowed from the source and the request alike: the child keeps both. */
static int make_roles(struct vm *vm, const struct spec *s, const struct spec_fds *given,
		      struct spec_fds *out, struct err *err)
{
	char role[64];
	int ret = 0;

	for (unsigned i = 0; i < given->nr && !ret; i++)
		if (!is_ours(vm, given->fd[i].role))
			ret = add_role(out, given, given->fd[i].role, err);
	for (unsigned i = 0; i < s->nr_disks && !ret; i++)
		ret = disk_roles(vm, &s->disk[i], given, out, err);
	for (unsigned i = 0; i < s->nr_fs && !ret; i++) {
		snprintf(role, sizeof(role), "fs.%s", s->fs[i].id);
		if (spec_fds_get(out, "%s", role) < 0)
			ret = add_role(out, &vm->fds, role, err);
	}
	if (!ret && spec_fds_get(out, "log") < 0)
		ret = add_role(out, &vm->fds, "log", err);
	return ret;
}

/* ---- the child ---- */

/* Fresh layers get their headers here: they stand on what was just sealed. */
static int make_layers(const struct spec *s, const struct spec_fds *fds, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < s->nr_disks && !ret; i++) {
		const struct spec_disk *d = &s->disk[i];
		unsigned top = d->nr_layers - 1;

		if (!d->readonly)
			ret = layer_create(spec_fds_get(fds, "%s.%u", d->id, top),
					   spec_fds_get(fds, "%s.%u", d->id, top - 1),
					   top == 1, 0, err);
	}
	return ret;
}

static _Noreturn void child(struct vm *vm, struct freeze *f, struct spec *s,
			    struct spec_fds *fds)
{
	int keep[SPEC_MAX_FDS + 1];
	struct err err = ERR_INIT;
	struct restore *r;

	for (unsigned i = 0; i < fds->nr; i++)
		keep[i] = fds->fd[i].fd;
	keep[fds->nr] = vm->mem.file_fd;
	freeze_close_all_but(keep, fds->nr + 1);
	setsid();
	r = restore_from(&f->state, vm, &err);
	if (r && make_layers(s, fds, &err)) {
		restore_free(r);
		r = NULL;
	}
	if (!r)
		_exit(process_fail(s, fds, &err));
	_exit(process_run(s, fds, r));
}

/* ---- the source ---- */

static int fork_now(struct vm *vm, struct freeze *f, struct spec *s,
		    struct spec_fds *fds, struct spec_fds *given, struct err *err)
{
	int ret = freeze_begin(vm, f, given, true, err);

	if (!ret)
		ret = freeze_fork(vm, f, true, err);
	if (!ret)
		child(vm, f, s, fds);
	if (ret > 0)
		freeze_end(vm, f);
	return ret;
}

void op_fork(struct ctl_req *req)
{
	struct spec_fds given = { .nr = 0 }, fds = { .nr = 0 };
	struct err err = ERR_INIT;
	struct freeze f;
	struct spec s;
	int ret = make_spec(req, &s, &err);

	if (!ret)
		ret = ctl_take_roles(req, &given, &err);
	if (!ret)
		ret = make_roles(req->vm, &s, &given, &fds, &err);
	if (!ret)
		ret = fork_now(req->vm, &f, &s, &fds, &given, &err);
	if (ret > 0)
		ctl_ok(req, json_pack("{s:i, s:o, s:o}", "pid", ret,
				      "phases", freeze_phases(&f),
				      "disks", freeze_disks(req->vm, &f)));
	else
		ctl_fail(req, &err);
	spec_done(&s);
	spec_fds_done(&fds);
	spec_fds_close(&given);
}
