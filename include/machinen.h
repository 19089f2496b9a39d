/* SPDX-License-Identifier: MIT */
/*
 * machinen.h - boot, use and end microVMs from C: the public interface of
 * libmachinen.
 *
 * Rules for all of it:
 *  - A call that can fail returns 0 (or a positive result) on success and a
 *    negative errno on failure, and then fills `err` when that is not NULL.
 *  - A configuration struct begins with its size; MN_CONFIG(struct mn_boot, c)
 *    declares a zeroed one.  Zero means the default, in every field.
 *  - Strings and arrays that are handed in are borrowed until the call returns.
 *    Arrays of strings end with NULL.
 *  - A handle may be used by several threads at once; its _free call may not
 *    run beside another call.  The library keeps no other state.
 *  - Nothing is printed, nothing exits, no signal disposition changes.
 *
 * Files live below $MACHINEN_HOME (default ~/.machinen); a VM is known to every
 * process of the same user, by the pid of its machinen-vmm or by its name.
 */
#ifndef MACHINEN_H
#define MACHINEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MN_API __attribute__((visibility("default")))
#define MN_CONFIG(type, var) type var = { .size = sizeof(type) }

/* --- errors --------------------------------------------------------------- */

/* mn_code_text() says what each means. */
enum mn_code {
	MN_OK,
	MN_BOOT_VMM_MISSING,
	MN_BOOT_IMAGE_NOT_FOUND,
	MN_BOOT_IMAGE_INVALID,
	MN_BOOT_SNAPSHOT_NOT_FOUND,
	MN_BOOT_KERNEL_NOT_FOUND,
	MN_BOOT_CMD_MISSING,
	MN_BOOT_CWD_INVALID,
	MN_BOOT_MOUNT_INVALID,
	MN_BOOT_MOUNT_HOST_NOT_FOUND,
	MN_BOOT_LIVE_MOUNT_OVERRIDE_UNKNOWN,
	MN_BOOT_PORT_FORWARD_INVALID,
	MN_BOOT_PORT_FORWARD_CONFLICT,
	MN_BOOT_PORT_FORWARD_IN_USE,
	MN_BOOT_ACCEL_UNAVAILABLE,
	MN_BOOT_MEMORY_INVALID,
	MN_BOOT_TIMEOUT,
	MN_BOOT_READINESS_FAILED,
	MN_FORK_MEMORY_BACKPRESSURE,
	MN_EXEC_AGENT_UNAVAILABLE,
	MN_EXEC_TIMEOUT,
	MN_EXEC_NONZERO_EXIT,
	MN_EXEC_PROTOCOL,
	MN_SNAPSHOT_DUMP_FAILED,
	MN_SNAPSHOT_TIMEOUT,
	MN_SNAPSHOT_DAMAGED,
	MN_SNAPSHOT_VERSION,
	MN_SNAPSHOT_ARCH_MISMATCH,
	MN_SNAPSHOT_CPU_MISMATCH,
	MN_PROVISION_BASE_NOT_FOUND,
	MN_PROVISION_INSTALL_HOOK_FAILED,
	MN_PROVISION_DISK_TOO_SMALL,
	MN_REGISTRY_VM_NOT_FOUND,
	MN_REGISTRY_NAME_IN_USE,
	MN_REGISTRY_NAME_INVALID,
	MN_FILES_HOST_NOT_FOUND,
	MN_FILES_GUEST_NOT_FOUND,
	MN_MOUNT_PATH_INVALID,
	MN_MOUNT_PATH_ESCAPE,
	MN_SECRETS_VALUE_INVALID,
	MN_INSTALL_FAILED,
	MN_HOST_NO_SPACE,
	MN_HOST_FAILED,
	MN_PARSE_COMMAND_UNKNOWN,
	MN_PARSE_FLAG_UNKNOWN,
	MN_PARSE_FLAG_MISSING_VALUE,
	MN_PARSE_FLAG_DUPLICATE,
	MN_PARSE_FLAG_MALFORMED,
	MN_PARSE_PORT_INVALID,
	MN_PARSE_ARGUMENT_MISSING,
	MN_PARSE_ARGUMENT_EXTRA,
	MN_NR_CODES
};

#define MN_ERROR_TEXT 2048

struct mn_error {
	enum mn_code code;	/* MN_OK: nothing failed yet */
	int num;		/* positive errno */
	bool retryable;		/* the same call may succeed later */
	unsigned nr_causes;
	size_t len;		/* of text; private */
	char text[MN_ERROR_TEXT];	/* private: use the calls below */
};

/* Never NULL; "" when nothing failed. */
MN_API const char *mn_error_message(const struct mn_error *err);
/* What led to it, outermost first; NULL past the last. */
MN_API const char *mn_error_cause(const struct mn_error *err, unsigned i);

/* "BOOT_TIMEOUT" and so on; "" for MN_OK. */
MN_API const char *mn_code_name(enum mn_code code);
MN_API const char *mn_code_text(enum mn_code code);
MN_API bool mn_code_retryable(enum mn_code code);

MN_API const char *mn_version(void);

/* --- events --------------------------------------------------------------- */

enum mn_event_type {
	MN_EVENT_PHASE,		/* name and ms: a step of a longer call is over */
	MN_EVENT_PROGRESS,	/* name, done and total (0: unknown) in bytes or steps */
	MN_EVENT_NOTE,		/* name: one line a user would like to know */
	MN_EVENT_CONSOLE,	/* data, len: the guest's console */
	MN_EVENT_STDOUT,	/* data, len: of a command in the guest */
	MN_EVENT_STDERR,
	MN_EVENT_STDIN,		/* what was read for a command, before it is sent */
	MN_EVENT_STEP,		/* name: step `done` (from 1) of `total` begins */
};

struct mn_event {
	enum mn_event_type type;
	const char *name;
	double ms;
	uint64_t done, total;
	const void *data;	/* borrowed for the time of the callback */
	size_t len;
};

/*
 * Called on the thread that made the call.  A negative return stops the call
 * that reports, which then fails with that errno.
 */
typedef int (*mn_event_fn)(const struct mn_event *ev, void *arg);

/* --- boot ----------------------------------------------------------------- */

struct mn_vm;

struct mn_port {
	char host_addr[64];	/* "": 127.0.0.1 */
	uint16_t host_port;	/* 0 in a request: any free one */
	uint16_t guest_port;
	bool udp;
};

/* A copy mount: the guest gets a copy of the directory; the host's never changes. */
struct mn_mount {
	const char *host;	/* directory */
	const char *guest;	/* mount point below /mnt/ */
};

/* A live mount: the guest shares the directory with the host. */
struct mn_live_mount {
	const char *host;	/* directory */
	const char *guest;	/* mount point */
	bool readonly;
};

enum mn_accel { MN_ACCEL_AUTO, MN_ACCEL_KVM, MN_ACCEL_SOFT };

struct mn_boot {
	size_t size;
	const char *image;		/* archive; NULL: the installed base */
	const char *name;		/* registered name, or NULL */
	const char *const *env;		/* K=V, for every command in the VM */
	const char *cwd;		/* absolute, or NULL */
	uint64_t memory_mib;		/* 0: min(host / 2, 16384) */
	uint64_t cpus;			/* 0: 1 */
	uint64_t disk_size;		/* bytes; 0: max(2 GiB, 2.5 x content) */
	enum mn_accel accel;
	const char *engine;		/* software CPU: "interp", "jit"; NULL: best */
	const char *cpu_model;		/* "portable" (NULL), "host" */
	const char *kernel;		/* own kernel, or NULL */
	const char *initrd;		/* extra initramfs, or NULL */
	const char *append;		/* extra kernel command line, or NULL */
	const char *const *cmd;		/* started by the guest itself, with its output on
					 * the console; its end ends the VM.  With
					 * `detach`, NULL: what the image bakes in */
	bool need_cmd;			/* BOOT_CMD_MISSING when there is neither */
	bool no_net;
	const char *const *net_allow;	/* HOST or CIDR, then :PORT or nothing: all that
					 * the guest may reach; NULL: everything */
	bool net_host_loopback;		/* 10.0.2.2 is the host's loopback */
	bool detach;			/* outlives this process */
	const struct mn_port *ports;	/* forwarded from the start */
	size_t nr_ports;
	uint64_t timeout_ms;		/* until the guest is ready; 0: 60000 */
	mn_event_fn event;		/* or NULL */
	void *event_arg;
	const struct mn_mount *mounts;	/* copy mounts, in this order */
	size_t nr_mounts;
};

/*
 * Returns when the guest is ready for commands.  Without `detach` the VM ends
 * with this process, however that ends, or with mn_vm_free().
 */
MN_API int mn_boot(const struct mn_boot *cfg, struct mn_vm **vm,
		   struct mn_error *err);
/* What an image bakes in as command, one string a word; NULL when nothing. */
MN_API const char *const *mn_vm_baked_cmd(const struct mn_vm *vm);

/* --- running VMs ---------------------------------------------------------- */

/* By pid (digits only) or by name. */
MN_API int mn_vm_open(const char *target, struct mn_vm **vm,
		      struct mn_error *err);
/* Ends a VM that was booted by this handle and never detached.  NULL is fine. */
MN_API void mn_vm_free(struct mn_vm *vm);

MN_API pid_t mn_vm_pid(const struct mn_vm *vm);
MN_API const char *mn_vm_name(const struct mn_vm *vm);	/* NULL when unnamed */
/* The VM outlives this process from now on. */
MN_API int mn_vm_detach(struct mn_vm *vm, struct mn_error *err);
/* Waits for the VMM process to end: 1 when it did, 0 after timeout_ms (-1: never). */
MN_API int mn_vm_wait(struct mn_vm *vm, int64_t timeout_ms, struct mn_error *err);
MN_API int mn_vm_pause(struct mn_vm *vm, struct mn_error *err);
MN_API int mn_vm_resume(struct mn_vm *vm, struct mn_error *err);

enum mn_stopped { MN_STOPPED, MN_ALREADY_DEAD, MN_RECYCLED, MN_WOULD_STOP };

struct mn_stop {
	size_t size;
	bool force;		/* kill at once */
	bool dry_run;
	uint64_t grace_ms;	/* for each step; 0: 2000 */
};

/*
 * Power button, then SIGTERM, then SIGKILL, with a grace time between.  `target`
 * as in mn_vm_open(); entries of dead VMs are cleaned up.
 */
MN_API int mn_stop(const char *target, const struct mn_stop *cfg,
		   enum mn_stopped *how, pid_t *pid, struct mn_error *err);
MN_API int mn_vm_kill(struct mn_vm *vm, struct mn_error *err);

/* A descriptor of the console's log, to be closed by the caller. */
MN_API int mn_vm_console(struct mn_vm *vm, struct mn_error *err);
/* The same of what machinen-vmm logs: refused connections, devices that broke. */
MN_API int mn_vm_log(struct mn_vm *vm, struct mn_error *err);

/* Forwards of a running VM.  add: port becomes what it is, 0 a number. */
MN_API int mn_port_add(struct mn_vm *vm, struct mn_port *port, struct mn_error *err);
/* By host_port and udp, and by host_addr where that is not "". */
MN_API int mn_port_rm(struct mn_vm *vm, const struct mn_port *port,
		      struct mn_error *err);

struct mn_disk {
	char id[20];			/* "root", "mount0" */
	bool readonly;
	unsigned layers;		/* the base included */
	uint64_t own_bytes;		/* on disk, in files of this VM alone */
};

struct mn_status {
	size_t size;
	pid_t pid;
	char name[256];			/* "" when unnamed */
	char forked_from[256];		/* "" when not */
	char image[512];
	char directory[4096];		/* its files */
	char accel[16];			/* "kvm", "soft", "" when not known */
	char state[16];			/* "running", "paused", "unresponsive" */
	int64_t started_at_ms;		/* since the epoch */
	uint64_t uptime_ms;
	uint64_t rss_bytes;
	uint64_t ceiling_mib;
	uint64_t cpus;
	unsigned nr_ports;
	struct mn_port port[64];
	char image_sha256[65];		/* of the archive; "" when not known, and so */
	char kernel[128];		/* its version */
	char kernel_sha256[65];
	unsigned nr_disks;		/* with `deep` */
	struct mn_disk disk[16];
	char counters[4096];		/* with `deep`: the backend's, a JSON object; may be "" */
};

/* `deep` also asks the VMM, else registry and /proc alone are read. */
MN_API int mn_vm_status(struct mn_vm *vm, bool deep, struct mn_status *st,
			struct mn_error *err);

struct mn_memory {
	size_t size;
	uint64_t rss_bytes;	/* what the VM takes of the host now */
	uint64_t ceiling_bytes;	/* and can take at most */
	bool guest_known;	/* the guest's kernel has told the rest */
	uint64_t guest_total_bytes;
	uint64_t guest_free_bytes;
	uint64_t guest_available_bytes;	/* free, or can be had without swapping */
	uint64_t guest_cache_bytes;
};

/* Fails when the VMM does not answer. */
MN_API int mn_vm_memory(struct mn_vm *vm, struct mn_memory *out,
			struct mn_error *err);

/* Calls back for each live VM, oldest first; prunes dead entries as it goes. */
MN_API int mn_list(bool deep, int (*each)(const struct mn_status *st, void *arg),
		   void *arg, struct mn_error *err);

/* Removes what dead VMs left behind; each(what, path) tells; returns how many. */
MN_API int mn_gc(bool dry_run, int (*each)(const char *what, const char *path,
					   void *arg),
		 void *arg, struct mn_error *err);

/* --- commands in a VM ----------------------------------------------------- */

struct mn_exec {
	size_t size;
	const char *const *argv;	/* either this */
	const char *shell;		/* or a line for the guest's sh -c; neither: a
					 * login shell */
	const char *const *env;		/* K=V, added */
	const char *cwd;
	const char *user;		/* name or uid[:gid]; NULL: root */
	bool tty;			/* a terminal instead of pipes */
	uint16_t rows, cols;		/* of it */
	const char *term;		/* its TERM */
	bool main;			/* the VM ends when this command ends */
	bool use_stdin;			/* feed stdin_fd; else it is empty */
	int stdin_fd;			/* borrowed */
	uint64_t timeout_ms;		/* 0: none */
	mn_event_fn event;		/* MN_EVENT_STDOUT, _STDERR and _STDIN */
	void *event_arg;
	/* Not a new command but the VM's main one, which runs: of what is above,
	 * just the size of the terminal, stdin, timeout and event count.  Fails with
	 * ESRCH when there is none, EBUSY when another has it. */
	bool join;
};

struct mn_exit {
	int status;	/* the exit status, or 128 + N when signal N ended it */
	bool signaled;
};

struct mn_session;

/* Starts a command; the session must be waited for or freed. */
MN_API int mn_exec_start(struct mn_vm *vm, const struct mn_exec *cfg,
			 struct mn_session **session, struct mn_error *err);
/* Pumps its streams until it ends. */
MN_API int mn_exec_wait(struct mn_session *s, struct mn_exit *exit,
			struct mn_error *err);
/* These three may be called by any thread and by signal handlers. */
MN_API void mn_exec_resize(struct mn_session *s, uint16_t rows, uint16_t cols);
MN_API void mn_exec_signal(struct mn_session *s, int signo);
MN_API void mn_exec_cancel(struct mn_session *s);	/* wait fails, -ECANCELED */
/* Has the command a terminal?  A main command that was joined may or may not. */
MN_API bool mn_exec_has_tty(const struct mn_session *s);
/* Hangs the command up when it still runs; a main command goes on. */
MN_API void mn_exec_free(struct mn_session *s);
/* All of it at once. */
MN_API int mn_exec(struct mn_vm *vm, const struct mn_exec *cfg,
		   struct mn_exit *exit, struct mn_error *err);

/* --- files of a VM -------------------------------------------------------- */

struct mn_copy {
	size_t size;
	bool parents;		/* create what is missing above the destination */
	mn_event_fn event;	/* MN_EVENT_PROGRESS */
	void *event_arg;
};

/*
 * A file or a directory with all below it: modes, times, links, holes and, for
 * root, owners survive.  A destination that is a directory takes the copy in under
 * its own name, else it becomes the copy.  cfg may be NULL.
 */
MN_API int mn_push(struct mn_vm *vm, const char *host, const char *guest,
		   const struct mn_copy *cfg, struct mn_error *err);
MN_API int mn_pull(struct mn_vm *vm, const char *guest, const char *host,
		   const struct mn_copy *cfg, struct mn_error *err);

/* One file's content; parents are created; mode 0 is 0644. */
MN_API int mn_write_file(struct mn_vm *vm, const char *guest, const void *data,
			 size_t len, unsigned mode, bool append,
			 struct mn_error *err);
/* *data is the caller's to free(3); a NUL follows its *len bytes. */
MN_API int mn_read_file(struct mn_vm *vm, const char *guest, void **data,
			size_t *len, struct mn_error *err);

/* --- snapshot, restore, fork ---------------------------------------------- */

struct mn_snapshot {
	size_t size;
	const char *dir;	/* absent, or an empty directory */
	bool keep_alive;	/* else the VM ends once the bundle is complete */
	bool dry_run;		/* only checks */
	mn_event_fn event;	/* phases and progress */
	void *event_arg;
};

struct mn_snapshotted {
	size_t size;
	char path[4096];
	uint64_t bytes;		/* of its files on disk, linked ones included */
	uint64_t memory_bytes;	/* of them, memory */
	bool stopped;		/* the source has ended */
};

/*
 * Writes a bundle: whole or not at all.  Until it is complete the source loses
 * nothing: when this fails, or the process is killed, the source goes on.
 */
MN_API int mn_vm_snapshot(struct mn_vm *vm, const struct mn_snapshot *cfg,
			  struct mn_snapshotted *out, struct mn_error *err);

/* For restores and forks alike: what is the new VM's own. */
struct mn_resume {
	size_t size;
	const char *bundle;		/* mn_restore() only */
	const char *name;		/* NULL: SOURCE/PID, or SOURCE~PID */
	const char *const *env;		/* K=V, for later commands */
	const char *cwd;
	uint64_t memory_mib;		/* 0, or what the guest has */
	enum mn_accel accel;		/* mn_restore() only */
	const struct mn_port *ports;	/* none are inherited */
	size_t nr_ports;
	const char *out_dir;		/* mn_vm_fork(): keep a bundle, too */
	bool detach;
	uint64_t timeout_ms;		/* 0: 60000 */
	mn_event_fn event;
	void *event_arg;
	const char *image;		/* archive; refused when the guest runs from another */
	const struct mn_mount *mounts;	/* copied in once it runs: must be absent or empty */
	size_t nr_mounts;
	const struct mn_live_mount *live_mounts;	/* other directories for those it has */
	size_t nr_live_mounts;
};

/* Both return when the guest's agent has made the VM itself. */
MN_API int mn_restore(const struct mn_resume *cfg, struct mn_vm **vm,
		      struct mn_error *err);
MN_API int mn_vm_fork(struct mn_vm *source, const struct mn_resume *cfg,
		      struct mn_vm **vm, struct mn_error *err);

/*
 * What a bundle is, as JSON: meta.json with where its bytes are and whether it can
 * be resumed here added (docs/snapshot.md).  verify: every byte is checked first, and
 * damage is an error.  *json is to be freed.
 */
MN_API int mn_bundle_inspect(const char *path, bool verify, mn_event_fn event,
			     void *event_arg, char **json, struct mn_error *err);

/*
 * KEY=VALUE strings, for what begins in the VM from now on: into the environment
 * of commands and, a line each, into a file of mode 0600 (guest; NULL:
 * /run/machinen/secrets), in place of what was there.  No
 * configuration has them; the memory in a bundle does.
 */
MN_API int mn_set_secrets(struct mn_vm *vm, const char *const *secrets,
			  const char *guest, struct mn_error *err);

/* --- images --------------------------------------------------------------- */

/* Either runs a line with the guest's sh -c, or copies as mn_push() does. */
struct mn_step {
	const char *run;
	const char *copy_from;	/* host path */
	const char *copy_to;	/* guest path, absolute; parents are created */
};

struct mn_bake {
	size_t size;
	const char *out;		/* archive to write: .tar, .tar.gz, .tar.zst, .tar.xz */
	const char *from;		/* archive to begin with; NULL: the installed base */
	const struct mn_step *steps;	/* run in this order, in "/" */
	size_t nr_steps;
	/* Baked in as default on top of what `from` has; steps see env, too. */
	const char *const *env;
	const char *cwd;
	const char *const *cmd;
	/* Of the VM that runs the steps, as in struct mn_boot. */
	uint64_t memory_mib, cpus, disk_size;
	enum mn_accel accel;
	const char *engine;
	bool no_net;
	uint64_t timeout_ms;
	mn_event_fn event;		/* _STEP, and _STDOUT and _STDERR of steps */
	void *event_arg;
};

/*
 * Runs the steps in a VM and writes its root file system as a new image, whole or
 * not at all; its disk is prepared, so that its first boot is quick.
 */
MN_API int mn_bake(const struct mn_bake *cfg, struct mn_error *err);

struct mn_image {
	size_t size;
	char hash[65];			/* SHA-256 of the archive */
	uint64_t bytes;			/* of the archive */
	uint64_t content_bytes;		/* of its files, in whole blocks */
	uint64_t entries;
	bool cached;			/* its disk is prepared */
	char **cmd, **env, *cwd;	/* baked in; NULL: none */
};

/* Reads and checks an archive, quick when it is cached.  Ends with _done. */
MN_API int mn_image_inspect(const char *path, struct mn_image *image,
			    struct mn_error *err);
MN_API void mn_image_done(struct mn_image *image);

/* --- the base ------------------------------------------------------------- */

struct mn_install {
	size_t size;
	bool force;		/* also when it is there */
	mn_event_fn event;
	void *event_arg;
};

struct mn_installed {
	size_t size;
	bool fetched;		/* false: it was there already */
	char version[128];
	char path[4096];
	char kernel[256];	/* its release */
	uint64_t bytes;
};

MN_API int mn_install(const struct mn_install *cfg, struct mn_installed *out,
		      struct mn_error *err);

/* --- the host ------------------------------------------------------------- */

/* Where everything lives; 0, or -ENAMETOOLONG. */
MN_API int mn_home(char *path, size_t size, struct mn_error *err);

enum mn_finding_level { MN_FINDING_OK, MN_FINDING_WARN, MN_FINDING_FAIL };

struct mn_finding {
	enum mn_finding_level level;
	const char *check;	/* "kvm", "base", "space", ... */
	const char *what;	/* one sentence */
	const char *fix;	/* what to do, or NULL */
};

/* Looks the host over; each finding is borrowed for the callback's time. */
MN_API int mn_doctor(int (*each)(const struct mn_finding *f, void *arg),
		     void *arg, struct mn_error *err);

#ifdef __cplusplus
}
#endif

#endif
