// SPDX-License-Identifier: MIT
/*
 * bootkernel.c - what a boot starts with: kernel, initramfs, command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "image/cpio.h"
#include "lib/install.h"
#include "lib/vm.h"

/* Each word's reason is in docs/device.md, "Kernel command line". */
#define CMDLINE \
	"console=ttyS0 console=hvc0 8250.nr_uarts=1 reboot=a panic=-1 " \
	"tsc=reliable nowatchdog sysctl.vm.compaction_proactiveness=0 " \
	"pci=off quiet"

/* Those that a VM's devices need, and no others: loading costs boot time. */
static void pick_modules(const struct booting *b, const char *names[16])
{
	unsigned n = 0;

	names[n++] = "crc32c_generic";
	names[n++] = "crc32c_intel";
	names[n++] = "virtio_mmio";
	names[n++] = "virtio_blk";
	names[n++] = "ext4";
	names[n++] = "virtio_console";
	names[n++] = "virtio_rng";
	names[n++] = "vmw_vsock_virtio_transport";
	if (b->spec.net)
		names[n++] = "virtio_net";
	if (b->spec.nr_fs)
		names[n++] = "virtiofs";
	names[n++] = "virtio_balloon";
	names[n++] = "overlay";
	names[n] = NULL;
}

/* The last part of a VM's name as a host name: letters, digits and dashes. */
void boot_host_name(const char *name, char out[64])
{
	const char *slash = strrchr(name, '/');
	size_t n = 0;

	for (const char *p = slash ? slash + 1 : name; *p && n < 63; p++) {
		bool plain = (*p >= '0' && *p <= '9') ||
			     ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z');

		if (plain || n)
			out[n++] = plain ? *p : '-';
	}
	while (n && out[n - 1] == '-')
		n--;
	out[n] = '\0';
	if (!n)
		strcpy(out, "machinen");
}

/* NULL when anything is lost: a command runs with all of its words or not at all. */
static json_t *both(const char *const *a, const char *const *more)
{
	json_t *j = json_strings(a), *tail = json_strings(more);

	if (!j || !tail || json_array_extend(j, tail)) {
		json_decref(j);
		j = NULL;
	}
	json_decref(tail);
	return j;
}

static json_t *mount_disks(const struct booting *b)
{
	json_t *j = json_array();

	for (size_t i = 0; i < b->cfg->nr_mounts; i++) {
		if (!json_array_append_new(j, json_pack("{s:s, s:s}",
				"serial", b->spec.disk[i + 1].id,
				"path", b->cfg->mounts[i].guest)))
			continue;
		json_decref(j);
		return NULL;
	}
	return j;
}

/* What PID 1 reads: docs/protocol.md, "boot configuration". */
static json_t *guest_config(const struct booting *b)
{
	const struct image_config *baked = &b->vm->config;
	const struct mn_boot *cfg = b->cfg;
	const char *cwd = cfg->cwd ? cfg->cwd : baked->cwd;
	const char *const *cmd = cfg->cmd || !cfg->detach ? cfg->cmd :
				 (const char *const *)baked->cmd;
	struct timespec now;
	char name[64];
	json_t *j;

	clock_gettime(CLOCK_REALTIME, &now);
	boot_host_name(b->vm->reg.name, name);
	j = json_pack("{s:{s:s}, s:o, s:o, s:s, s:I}", "root", "serial", "root",
		      "env", both((const char *const *)baked->env, cfg->env),
		      "disks", mount_disks(b), "hostname", name, "time_ns",
		      (json_int_t)now.tv_sec * 1000000000 + now.tv_nsec);
	if (cwd)
		json_put(&j, "cwd", json_string(cwd));
	if (cmd)
		json_put(&j, "cmd", json_pack("{s:o}", "argv", json_strings(cmd)));
	return j;
}

/* A user's own initramfs comes first, so that ours has the last word on /init. */
static int add_initrd(struct booting *b, int to)
{
	cleanup(io_closep) int fd = -1;
	static const char pad[4];
	struct stat st;
	off_t at;

	if (!b->cfg->initrd)
		return 0;
	fd = open(b->cfg->initrd, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_code(b->err, ERR_BOOT_KERNEL_NOT_FOUND, fd < 0 ? errno : EINVAL,
				"cannot read the initramfs %s", b->cfg->initrd);
	while ((at = lseek(to, 0, SEEK_CUR)) < st.st_size)
		if (sendfile(to, fd, NULL, (size_t)(st.st_size - at)) <= 0)
			return err_set(b->err, EIO, "cannot read %s", b->cfg->initrd);
	return io_write_full(to, pad, (size_t)(ALIGN_UP(at, 4) - at));
}

static int make_initrd(struct booting *b)
{
	char init[PATH_MAX], modules[PATH_MAX];
	struct buf text = BUF_INIT;
	const char *names[16];
	struct initramfs in = { .init = init, .modules = modules, .wanted = names };
	json_t *config;
	int fd, ret;

	ret = home_program(init, "init", b->err);
	if (!ret)
		ret = lib_path(modules, b->err, "%s/modules", b->base);
	if (ret)
		return ret;
	fd = memfd_create("initrd", MFD_CLOEXEC);
	if (fd < 0)
		return err_set(b->err, errno, "no memory for the initramfs");
	pick_modules(b, names);
	config = guest_config(b);
	json_print_compact(config, &text);
	json_decref(config);
	in.config = text.data;
	in.config_len = text.len;
	ret = text.oom || !text.len ?
	      err_set(b->err, EINVAL, "environment or command is not UTF-8") :
	      add_initrd(b, fd);
	if (!ret)
		ret = initramfs_write(&in, fd, b->err);
	buf_done(&text);
	if (ret) {
		io_close(fd);
		return ret;
	}
	b->spec.has_initrd = true;
	return booting_role(b, fd, "initrd");
}

static int open_kernel(struct booting *b)
{
	char path[PATH_MAX];
	struct stat st;
	int ret, fd;

	ret = b->cfg->kernel ? lib_path(path, b->err, "%s", b->cfg->kernel) :
			       lib_path(path, b->err, "%s/vmlinuz", b->base);
	if (ret)
		return ret;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		int num = fd < 0 ? errno : EINVAL;

		io_close(fd);
		return err_code(b->err, ERR_BOOT_KERNEL_NOT_FOUND, num,
				"cannot read the kernel %s: %s", path, strerror(num));
	}
	boot_identify_kernel(b, fd);
	return booting_role(b, fd, "kernel");
}

int boot_kernel(struct booting *b)
{
	const char *more = b->cfg->append ? b->cfg->append : "";
	int ret = open_kernel(b);

	if (!ret && strlen(CMDLINE) + strlen(more) + 32 > SPEC_CMDLINE_MAX)
		ret = err_set(b->err, E2BIG, "the kernel command line is too long");
	if (!ret && asprintf(&b->spec.cmdline, "%s%s%s", CMDLINE, *more ? " " : "",
			     more) < 0) {
		b->spec.cmdline = NULL;
		ret = err_set(b->err, ENOMEM, "out of memory");
	}
	return ret ? ret : make_initrd(b);
}
