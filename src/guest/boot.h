/* SPDX-License-Identifier: MIT */
/* boot.h - from the kernel's first user process to a usable system. */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include <stdbool.h>
#include <stddef.h>

struct guest;

/*
 * Brings the system up: modules, root disk, mounts, host name, network, clock.
 * Does not return when there is no root file system to go on with: it says why
 * on the console and powers off.
 */
void boot_system(struct guest *g);

/* netup.c: loopback, and the network device when there is one. */
void net_up(struct guest *g);
/* Gives the network device another MAC address (colon form); 0 or -errno. */
int net_set_mac(const struct guest *g, const char *mac);

/* mounts.c: the mounts every Linux program expects, then the VM's own. */
void mounts_system(struct guest *g);
void mounts_config(const struct guest *g);
/*
 * Mounts a block device by virtio serial, or a virtiofs tag, on path, which is
 * created when absent.  0 or -errno.
 */
int mounts_disk(const struct guest *g, const char *serial, const char *path,
		bool ro);
int mounts_live(const char *tag, const char *path, bool ro);
/* "/dev/vdX" of the virtio disk with that serial; 0 or -ENOENT. */
int mounts_find_disk(const char *serial, char *dev, size_t size);
/* mkdir -p. */
int mounts_mkdir(const char *path);

#endif
