// SPDX-License-Identifier: MIT
/*
 * restore.c - mn_restore: a bundle becomes a running VM.
 *
 * The steps of a boot, with the bundle in place of image and kernel: its layers
 * are the lower part of each disk, a fresh layer takes the writes, and the VMM
 * maps the memory.  Nothing but the bundle is needed, and nothing of it changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "layer/layer.h"
#include "lib/bundle.h"
#include "lib/resume.h"

struct restoring {
	struct booting b;
	const struct mn_resume *cfg;	/* borrowed */
	const char *forked_from;	/* likewise */
	struct bundle bundle;
	char past[REG_NAME_MAX + 1];
};

static struct restoring *of(struct booting *b)
{
	return container_of(b, struct restoring, b);
}

/* Fields of the bundle that say what it is of. */
static int take_identity(struct booting *b)
{
	struct restoring *r = of(b);
	const json_t *meta = r->bundle.meta, *source = json_object_get(meta, "source");
	const json_t *kernel = json_object_get(meta, "kernel");
	const char *name = json_str_opt(source, "name", "", NULL);
	struct reg_vm *reg = &b->vm->reg;

	/* a name from outside must do as one here */
	if (*name && !registry_check_name(name, NULL))
		snprintf(r->past, sizeof(r->past), "%s", name);
	else
		snprintf(r->past, sizeof(r->past), "vm%d",
			 (int)json_int_opt(source, "pid", 1, INT32_MAX, 1, NULL));
	b->past = r->past;
	snprintf(reg->image, sizeof(reg->image), "%s",
		 json_str_opt(meta, "image", "", NULL));
	snprintf(reg->image_sha256, sizeof(reg->image_sha256), "%s",
		 json_str_opt(meta, "image_sha256", "", NULL));
	snprintf(reg->kernel, sizeof(reg->kernel), "%s",
		 json_str_opt(kernel, "version", "", NULL));
	snprintf(reg->kernel_sha256, sizeof(reg->kernel_sha256), "%s",
		 json_str_opt(kernel, "sha256", "", NULL));
	snprintf(reg->forked_from, sizeof(reg->forked_from), "%s", r->forked_from);
	reg->memory_mib = b->spec.memory_mib;
	reg->cpus = b->spec.cpus;
	return resume_check(b);
}

static int add_layer(struct booting *b, const char *role, int fd)
{
	return fd < 0 ? err_code(b->err, ERR_SNAPSHOT_DAMAGED, errno,
				 "cannot open %s of the bundle", role) :
			booting_role(b, fd, role);
}

static int restore_disk(struct booting *b, struct spec_disk *d)
{
	int dir = of(b)->bundle.dir, ret = 0, fd, below = -1;
	char role[40], name[48];

	for (unsigned k = 0; k < d->nr_layers && !ret; k++) {
		snprintf(role, sizeof(role), "%.19s.%u", d->id, k);
		below = openat(dir, role, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		ret = add_layer(b, role, below);
	}
	if (ret || d->readonly)
		return ret;
	if (d->nr_layers == SPEC_MAX_LAYERS)
		return err_set(b->err, EMFILE, "disk %s has too many layers", d->id);
	fd = resume_new_layer(b->vm->dir, d->id, name, sizeof(name), b->err);
	if (fd < 0)
		return fd;
	ret = layer_create(fd, below, d->nr_layers == 1, d->size, b->err);
	snprintf(role, sizeof(role), "%.19s.%u", d->id, d->nr_layers);
	d->nr_layers++;
	if (ret) {
		io_close(fd);
		return ret == -EBADMSG || ret == -EINVAL ?
		       err_wrap_code(b->err, ERR_SNAPSHOT_DAMAGED, ret,
				     "disk %s cannot go on", d->id) :
		       lib_host_err(b->err, ret, b->reg.path, "cannot make a disk in");
	}
	return booting_role(b, fd, role);
}

static int restore_disks(struct booting *b)
{
	struct restoring *r = of(b);
	int fd = fcntl(r->bundle.dir, F_DUPFD_CLOEXEC, 0);
	int ret = fd < 0 ? err_set(b->err, errno, "no descriptor") :
		  booting_role(b, fd, "bundle");

	for (unsigned i = 0; i < b->spec.nr_disks && !ret; i++)
		ret = restore_disk(b, &b->spec.disk[i]);
	return ret ? ret : resume_keep_lineage(b, json_object_get(r->bundle.meta,
								  "lineage"));
}

/* A bundle knows directories of no host: each live mount has to be given one. */
static int live_mounts(struct booting *b)
{
	int ret = resume_live_mounts(b, of(b)->cfg);

	for (unsigned i = 0; !ret && i < b->spec.nr_fs; i++)
		if (spec_fds_get(&b->fds, "fs.%s", b->spec.fs[i].id) < 0)
			ret = err_code(b->err, ERR_BOOT_MOUNT_HOST_NOT_FOUND, ENOENT,
				       "the guest has a live mount on %.200s; say --mount-live HOST:%.200s",
				       b->spec.fs[i].guest, b->spec.fs[i].guest);
	return ret;
}

static const struct boot_step steps[] = {
	{ NULL, take_identity },
	{ NULL, resume_check_image },
	{ NULL, live_mounts },
	{ NULL, boot_check_ports },
	{ NULL, boot_check_mounts },
	{ NULL, boot_find_vmm },
	{ NULL, boot_settle },
	{ "registry", boot_enter },
	{ "disk", restore_disks },
	{ NULL, boot_channels },
	{ "spawn", boot_launch },
	{ "vmm", boot_wait_ready },
	{ "thaw", resume_thaw },
	{ "mounts", resume_mounts },
};

/* What the launch spec has from the bundle; the rest is the new VM's own. */
static void take_spec(struct booting *b, struct spec *from)
{
	b->spec = *from;
	spec_init(from);
	b->spec.restore = true;
	b->spec.has_initrd = false;
	for (unsigned i = 0; i < b->spec.nr_ports; i++)
		free(b->spec.port[i].host_addr);
	memset(b->spec.port, 0, sizeof(b->spec.port));
	b->spec.nr_ports = 0;
	free(b->spec.name);
	b->spec.name = NULL;
}

int restore_vm(const struct mn_resume *cfg, const char *forked_from, struct mn_vm **vm,
	       struct err *err)
{
	uint64_t since = io_now_ns();
	struct restoring r = { .b.err = err, .cfg = cfg, .forked_from = forked_from };
	struct mn_boot boot;
	int ret;

	resume_config(cfg, &boot);
	spec_init(&r.b.spec);
	ret = bundle_open(&r.bundle, cfg->bundle, err);
	if (!ret)
		ret = lib_phase(cfg->event, cfg->event_arg, "check", &since);
	if (!ret) {
		spec_done(&r.b.spec);
		take_spec(&r.b, &r.bundle.spec);
		ret = boot_run(&r.b, &boot, steps, ARRAY_LEN(steps), vm);
	} else {
		spec_done(&r.b.spec);
	}
	bundle_done(&r.bundle);
	return ret;
}

int mn_restore(const struct mn_resume *cfg, struct mn_vm **vm, struct mn_error *err)
{
	struct err e = ERR_INIT;
	struct mn_resume own;
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	*vm = NULL;
	if (!ret && !own.bundle)
		ret = err_code(&e, ERR_BOOT_SNAPSHOT_NOT_FOUND, EINVAL, "no bundle was named");
	if (!ret)
		ret = restore_vm(&own, "", vm, &e);
	return lib_return(err, &e, ret);
}
