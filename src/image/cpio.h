/* SPDX-License-Identifier: MIT */
/*
 * cpio.h - writer of the "newc" archives that the kernel unpacks as initramfs,
 * and the initramfs of a boot.
 */
#ifndef IMAGE_CPIO_H
#define IMAGE_CPIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/* Errors are sticky; cpio_finish() tells. */
struct cpio {
	int fd;			/* borrowed */
	uint64_t size;		/* bytes written */
	unsigned ino;
	int error;
};

void cpio_init(struct cpio *c, int fd);
void cpio_dir(struct cpio *c, const char *name, mode_t perm);
void cpio_dev(struct cpio *c, const char *name, mode_t mode, unsigned major,
	      unsigned minor);
void cpio_file(struct cpio *c, const char *name, mode_t perm, const void *data,
	       size_t len);
/* The whole file from its start. */
void cpio_file_fd(struct cpio *c, const char *name, mode_t perm, int fd);
/* 0 or -errno. */
int cpio_finish(struct cpio *c);

struct initramfs {
	const char *init;	/* host path of the guest binary */
	const char *modules;	/* directory searched, with what is below it */
	const char *const *wanted;	/* NULL-terminated module names */
	const char *config;	/* JSON for /config; docs/protocol.md */
	size_t config_len;
};

/*
 * Writes /init, /config, /modules/NAME and /modules.list, which names each
 * wanted module after those it depends on.  A wanted module that is not there
 * is taken as built into the kernel; one that a found module depends on also.
 */
int initramfs_write(const struct initramfs *in, int fd, struct err *err);

/*
 * The "depends=" of a module: its names, separated by commas, into out.  The
 * file is checked as hostile; -ENOEXEC when it is no module.
 */
int module_depends(const void *elf, size_t len, char *out, size_t size);

#endif
