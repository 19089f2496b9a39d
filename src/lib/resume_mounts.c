// SPDX-License-Identifier: MIT
/*
 * resume_mounts.c - directories of the host for a VM that runs already; see resume.h.
 *
 * A copy mount of a fork is copied in by the agent, into the sibling's root disk.  A
 * disk of its own, as at boot, would have to be plugged in: the machine has no bus
 * that tells of it, and a guest that was booted without a slot for it never looks.
 * The agent is there in every guest, whatever its kernel, and the content ends up
 * where a copy mount's does: in the sibling's own layer, and in its bundles.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "lib/install.h"
#include "lib/resume.h"

/* --- copy mounts ------------------------------------------------------------ */

int resume_mounts(struct booting *b)
{
	const struct mn_boot *cfg = b->cfg;
	struct mn_copy copy = { .size = sizeof(copy), .parents = true,
				.event = cfg->event, .event_arg = cfg->event_arg };
	int ret = 0;

	for (size_t i = 0; !ret && i < cfg->nr_mounts; i++) {
		const struct mn_mount *m = &cfg->mounts[i];

		ret = copy_mount(b->vm, m->host, m->guest, &copy, b->err);
		if (ret) {
			struct err why = *b->err;

			*b->err = (struct err)ERR_INIT;
			err_set(b->err, why.num, "%s", err_message(&why));
			err_wrap_code(b->err, why.code == ERR_FILES_GUEST_NOT_FOUND ?
				      ERR_BOOT_MOUNT_INVALID : why.code, ret,
				      "cannot copy %s to %s in the new VM", m->host, m->guest);
		}
	}
	return ret;
}

/* --- live mounts ------------------------------------------------------------ */

static struct spec_fs *find(struct spec *s, const char *guest)
{
	for (unsigned i = 0; i < s->nr_fs; i++)
		if (!strcmp(s->fs[i].guest, guest))
			return &s->fs[i];
	return NULL;
}

static int unknown(struct booting *b, const char *guest)
{
	char have[512] = "";

	for (unsigned i = 0; i < b->spec.nr_fs; i++) {
		size_t len = strlen(have);

		snprintf(have + len, sizeof(have) - len, "%s%.100s", i ? ", " : "",
			 b->spec.fs[i].guest);
	}
	return err_code(b->err, ERR_BOOT_LIVE_MOUNT_OVERRIDE_UNKNOWN, ENOENT,
			"the guest has no live mount on %.200s; it has %s", guest,
			*have ? have : "none");
}

static int map(struct booting *b, const struct mn_live_mount *m)
{
	struct spec_fs *fs = find(&b->spec, m->guest);
	char role[SPEC_ID_MAX + 8];
	int fd;

	if (!fs)
		return unknown(b, m->guest);
	snprintf(role, sizeof(role), "fs.%s", fs->id);
	if (spec_fds_get(&b->fds, "%s", role) >= 0)
		return err_code(b->err, ERR_BOOT_MOUNT_INVALID, EEXIST,
				"two directories for the live mount on %s", m->guest);
	fd = open(m->host, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_code(b->err, ERR_BOOT_MOUNT_HOST_NOT_FOUND, errno,
				"cannot mount %s: %s", m->host, strerror(errno));
	fs->readonly = m->readonly;
	return booting_role(b, fd, role);
}

int resume_live_mounts(struct booting *b, const struct mn_resume *cfg)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < cfg->nr_live_mounts; i++)
		ret = map(b, &cfg->live_mounts[i]);
	return ret;
}

/* --- the image -------------------------------------------------------------- */

int resume_check_image(struct booting *b)
{
	const char *path = b->cfg->image;
	struct reg_vm *reg = &b->vm->reg;
	char hex[65];
	uint64_t size;

	if (!path)
		return 0;
	if (access(path, F_OK))
		return err_code(b->err, ERR_BOOT_IMAGE_NOT_FOUND, errno, "image %s: %s",
				path, strerror(errno));
	if (file_digest(path, hex, &size, b->err))
		return -b->err->num;
	if (strcmp(hex, reg->image_sha256))
		return err_code(b->err, ERR_BOOT_IMAGE_INVALID, EINVAL,
				"the guest runs from another image than %.200s: %.200s%s%.12s; a running guest's root cannot be exchanged, boot the image instead",
				path, reg->image, *reg->image_sha256 ? ", sha256 " : "",
				reg->image_sha256);
	snprintf(reg->image, sizeof(reg->image), "%s", path);
	return 0;
}
