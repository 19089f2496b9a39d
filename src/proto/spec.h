/* SPDX-License-Identifier: MIT */
/*
 * spec.h - what a VM is made of: the one document the library hands to
 * machinen-vmm, and the one that bundles keep.
 *
 * It is JSON (schema_version 1).  Nothing in it depends on the host process:
 * files are named by *role* ("kernel", "root.0"), and the descriptors behind the
 * roles travel beside it in `struct spec_fds`, as the "fds" object of the
 * launch document.  The launch document is read from the descriptor given by
 * `machinen-vmm --spec-fd N`:
 *
 *	{ "schema_version": 1, "spec": {…}, "fds": { "kernel": 5, … } }
 *
 * Roles: kernel, initrd, control (listening SOCK_SEQPACKET), agent (listening
 * SOCK_STREAM), console (append-only log file), tty (raw byte stream for the
 * kernel console, optional), ready (pipe: one line "ready\n" or
 * "failed CODE message\n", then closed), alive (pipe read end: EOF means that
 * the foreground CLI died; optional), log (diagnostics), DISK.N (layer N of the
 * disk with that id, 0 = base, last = writable), bundle (directory; restore),
 * fs.ID (host directory of a live mount), dir (vms/<pid> directory), verdict (file
 * for what the probe of KVM found; optional).
 */
#ifndef PROTO_SPEC_H
#define PROTO_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

#define SPEC_VERSION   1
#define SPEC_MAX_DISKS 16
#define SPEC_MAX_FS    16
#define SPEC_MAX_PORTS 64
#define SPEC_MAX_CPUS  16
#define SPEC_MAX_FDS   256
#define SPEC_MAX_LAYERS 64
#define SPEC_MAX_ALLOW 64
#define SPEC_ID_MAX    19	/* bytes of an id; a virtio serial has 20 */
#define SPEC_MEMORY_MIN_MIB 64
#define SPEC_MEMORY_MAX_MIB (1 << 20)
#define SPEC_CMDLINE_MAX 4096

enum spec_accel { SPEC_ACCEL_AUTO, SPEC_ACCEL_KVM, SPEC_ACCEL_SOFT };
enum spec_engine { SPEC_ENGINE_AUTO, SPEC_ENGINE_INTERP, SPEC_ENGINE_JIT };

struct spec_disk {
	char *id;		/* "root", "mount0": role prefix and virtio serial */
	unsigned nr_layers;	/* 1: a raw file; more: raw base under layers */
	bool readonly;
	uint64_t size;		/* bytes the guest sees; 0: of the top layer */
};

struct spec_fs {
	char *id;		/* role fs.ID and virtiofs tag */
	char *guest;		/* mount point in the guest */
	bool readonly;
};

struct spec_port {
	char *host_addr;	/* "127.0.0.1" */
	uint16_t host_port;	/* 0: any free one */
	uint16_t guest_port;
	bool udp;
};

struct spec {
	char *name;		/* may be NULL */
	uint32_t memory_mib;
	uint32_t cpus;
	enum spec_accel accel;
	enum spec_engine engine;	/* of the software CPU */
	char *cpu_model;	/* "portable", "host" */
	char *cmdline;		/* complete kernel command line */
	bool has_initrd;
	bool restore;		/* resume from role "bundle" instead of booting */

	struct spec_disk disk[SPEC_MAX_DISKS];
	unsigned nr_disks;
	struct spec_fs fs[SPEC_MAX_FS];
	unsigned nr_fs;

	bool net;
	uint8_t mac[6];
	struct spec_port port[SPEC_MAX_PORTS];
	unsigned nr_ports;
	char **net_allow;	/* NULL-terminated, NULL: no policy */
	bool net_host_loopback;

	uint32_t vsock_cid;	/* 3 and up */
	uint8_t vmgenid[16];
};

struct spec_fds {
	struct { char *role; int fd; } fd[SPEC_MAX_FDS];	/* fds borrowed */
	unsigned nr;
};

void spec_init(struct spec *s);		/* defaults */
void spec_done(struct spec *s);

/* Checked as input from outside; 0 or -errno with err. */
int spec_parse(struct spec *s, const char *json, size_t len, struct err *err);
int spec_parse_json(struct spec *s, const json_t *o, struct err *err);
/* Appends the spec as JSON.  -EILSEQ (NULL) when a string is not UTF-8. */
int spec_print(const struct spec *s, struct buf *out);
json_t *spec_to_json(const struct spec *s);

/* The list "fs" of an object, into an empty one; err is not NULL. */
void spec_fs_parse(struct spec *s, const json_t *o, struct err *err);
json_t *spec_fs_print(const struct spec *s);
/* One port forward; *p is to be freed (host_addr) also after an error, which is
 * recorded in err (not NULL) unless one is already. */
void spec_port_parse(struct spec_port *p, const json_t *j, struct err *err);
json_t *spec_port_print(const struct spec_port *p);
const char *spec_accel_name(enum spec_accel accel);

/* The launch document.  Roles are copied; both outputs are to be _done. */
int spec_launch_parse(struct spec *s, struct spec_fds *fds, const char *json,
		      size_t len, struct err *err);
int spec_launch_print(const struct spec *s, const struct spec_fds *fds,
		      struct buf *out);

int spec_fds_add(struct spec_fds *f, int fd, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The descriptor of a role, -ENOENT when absent. */
int spec_fds_get(const struct spec_fds *f, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Forgets a role; fine when absent. */
void spec_fds_drop(struct spec_fds *f, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void spec_fds_done(struct spec_fds *f);

#endif
