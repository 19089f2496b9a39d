/* SPDX-License-Identifier: MIT */
/*
 * vm.h - a handle on a VM, and the steps of making one.  For src/lib only.
 */
#ifndef LIB_VM_H
#define LIB_VM_H

#include <jansson.h>
#include <pthread.h>

#include "image/config.h"
#include "lib/lib.h"
#include "lib/registry.h"
#include "proto/spec.h"

struct mn_vm {
	struct reg_vm reg;
	int dir;		/* vms/<pid>, owned */
	int pidfd;		/* the VMM, owned */
	int alive;		/* write end that keeps a foreground VM; -1: not ours */
	bool ours;		/* dies with this handle */
	struct image_config config;	/* baked into the image */
};

struct mn_vm *vm_alloc(void);
void vm_free(struct mn_vm *vm);		/* the memory and descriptors alone */

/* One request to the VMM; the answer may be NULL. */
int vm_ctl(struct mn_vm *vm, json_t *req, json_t **answer, struct err *err);
/* The last `lines` lines of a log in dir, at most `max` bytes, appended. */
int vm_log_tail(int dir, const char *name, unsigned lines, size_t max,
		struct buf *out);
/* How it ended, from exit.json: appended as words; "" when it does not say. */
void vm_end_words(int dir, struct buf *out);

/* files.c: a host directory becomes guest, which must be absent or empty. */
int copy_mount(struct mn_vm *vm, const char *host, const char *guest,
	       const struct mn_copy *cfg, struct err *err);

/* sockets.c: Unix sockets in a directory of any depth. */
int socket_listen(int dir, const char *name, int type, struct err *err);
int socket_connect(int dir, const char *name, int type, struct err *err);

/* spawn.c */
struct spawn {
	const char *vmm;	/* path of the program */
	struct spec_fds *fds;	/* roles with our descriptors; numbers for the
				 * child are put in their place */
	int log;		/* its stderr */
	/* results */
	pid_t pid;
	int doc;		/* stream for the launch document; owned */
};

/* Starts it; it waits for its launch document. */
int spawn_vmm(struct spawn *s, struct err *err);

/* bootdisk.c, initrd.c: pieces of a boot; each adds roles to fds. */
struct booting {
	const struct mn_boot *cfg;
	struct mn_vm *vm;
	struct registry reg;
	struct spec spec;
	struct spec_fds fds;	/* descriptors in it are owned by `own` */
	int own[SPEC_MAX_FDS];
	unsigned nr_own;
	char base[PATH_MAX];	/* directory of the base, or "" */
	char vmm[PATH_MAX];
	char tmp[32];		/* registry_begin()'s, "" when committed */
	int ready;		/* read end of "ready", owned */
	uint64_t since;		/* of the phase under way */
	uint64_t deadline;	/* CLOCK_MONOTONIC ns */
	const char *past;	/* the VM this one comes out of, or NULL; borrowed */
	bool keep_alive_pipe;	/* it ends with us until it is told otherwise */
	struct err *err;
};

/*
 * Steps of making a VM, for boots, restores and forks.  All of them are taken
 * back when one fails.
 */
struct boot_step {
	const char *phase;	/* reported when it is done, or NULL */
	int (*run)(struct booting *b);
};

/* b begins with its spec (taken over) and err. */
int boot_run(struct booting *b, const struct mn_boot *cfg,
	     const struct boot_step *step, size_t nr, struct mn_vm **out);

int boot_check_net(struct booting *b);	/* policy */
int boot_check_ports(struct booting *b);
/* The VMM's word on a busy port, as an error that names the holder. */
int boot_port_in_use(struct booting *b, const char *said);
int boot_find_vmm(struct booting *b);
int boot_settle(struct booting *b);	/* what is the VM's own: name, MAC, times */
int boot_enter(struct booting *b);	/* a directory in the registry */
int boot_channels(struct booting *b);	/* sockets, logs, pipes */
int boot_launch(struct booting *b);
void boot_close_own(struct booting *b);	/* the VMM has its own of all */
int boot_commit(struct booting *b);	/* reg.id is known */
int boot_wait_ready(struct booting *b);	/* the VMM's one line */
/* Adds how the VM ended, and its console's tail, to an error. */
int boot_explain(struct booting *b, int ret);
/* The last part of a VM's name as a host name. */
void boot_host_name(const char *name, char out[64]);

/* Adds a descriptor under a role; it is closed at the end of the boot. */
int booting_role(struct booting *b, int fd, const char *role);
int boot_disk(struct booting *b);	/* root disk; vm->config */
/*
 * The layer that takes this VM's writes to a disk: a header now, clusters as they
 * come.  `base`, the raw file below it, is taken over.
 */
int boot_layer(struct booting *b, struct spec_disk *d, int base);
/* The archive: the one named (may be NULL), or that of the base's directory. */
int boot_image_path(char path[PATH_MAX], const char *image, const char *base,
		    struct err *err);
/* image_opts.min_size for a disk of that size; 0 for both: the default. */
uint64_t boot_min_size(uint64_t disk_size);
/* bootmount.c: copy mounts, as disks mount0 and so on after the root disk. */
int boot_check_mounts(struct booting *b);
int boot_mounts(struct booting *b);
int boot_kernel(struct booting *b);	/* kernel, initrd, command line */
/* bootident.c: what the registry says about the kernel; "" where nothing is known. */
void boot_identify_kernel(struct booting *b, int fd);

#endif
