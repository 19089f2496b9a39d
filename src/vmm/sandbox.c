// SPDX-License-Identifier: MIT
/*
 * sandbox.c - self-isolation of the VMM, in stages, each as early as it can be.
 *
 *	early	no_new_privs: an exec gains nothing.  Not dumpable: no core with
 *		guest memory in it, and other processes of the user cannot attach.
 *	enter	Landlock: no file can be opened by name any more, except below
 *		live mounts, and the resolver's configuration.  Descriptors that
 *		came with the launch document, or come over the control socket,
 *		stay usable.
 *	enter	seccomp: the system calls that sources ask for in "#syscalls"
 *		annotations, gathered when the VMM is built.  So a device's file
 *		says itself what the device needs, and what no file needs is not
 *		there for an intruder either: no execve, no ptrace, no mount.
 *
 *		Arguments are looked at where they decide what a call is: the
 *		numbers of ioctls ("#ioctls"), memory that is to be executed,
 *		families of sockets, what prctl sets.
 *
 * A call outside the list is answered with ENOSYS, and logged: libraries
 * then fall back or fail in order, and a forgotten annotation is a line to read,
 * not a dead VM.  Tests set MACHINEN_SANDBOX=strict, where it is a dead VM.
 *
 * What libc, GLib and libslirp need on their own:
 * #syscalls brk mmap munmap mremap mprotect madvise futex rseq membarrier
 * #syscalls rt_sigreturn rt_sigaction rt_sigprocmask sigaltstack tgkill
 * #syscalls exit exit_group clone set_robust_list restart_syscall
 * #syscalls gettid getpid getppid getuid geteuid getgid getegid sched_yield
 * #syscalls sched_getaffinity sched_setaffinity sysinfo prlimit64 uname
 * #syscalls clock_gettime clock_nanosleep nanosleep gettimeofday time getrandom
 * #syscalls read write readv writev pread64 pwrite64 close close_range fcntl
 * #syscalls fstat newfstatat statx lseek poll ppoll select pselect6 dup dup2 dup3
 * #syscalls prctl wait4 pipe2 ioctl
 * Event loop, its timers and eventfds; signals:
 * #syscalls epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
 * #syscalls eventfd2 signalfd4 timerfd_create timerfd_settime
 * Sockets of the control server, the agent bridge and libslirp:
 * #syscalls socket socketpair bind listen accept accept4 connect shutdown
 * #syscalls sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
 * #syscalls getsockname getpeername getsockopt setsockopt
 * A sibling made by fork is built inside, so backends also need what they begin
 * with (and /dev/kvm, below):
 * #syscalls memfd_create timer_create timer_settime timer_delete setsid
 * Console log; live mounts and the resolver's configuration open files:
 * #syscalls ftruncate openat
 */
#include "vmm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/vm.h"
#include "vmm_syscalls.h"

/* ---- early ---- */

int sandbox_early(struct err *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, errno, "cannot set no_new_privs");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_set(err, errno, "cannot become undumpable");
	return 0;
}

/* ---- Landlock ---- */

/* Rights of ABI 1 and what later ABIs added, by ABI. */
static const uint64_t fs_rights[] = {
	[1] = (1ull << 13) - 1,
	[2] = (1ull << 14) - 1,	/* + refer */
	[3] = (1ull << 15) - 1,	/* + truncate */
	[4] = (1ull << 15) - 1,
	[5] = (1ull << 16) - 1,	/* + ioctl on devices */
};
#define FS_IOCTL_DEV (1ull << 15)	/* newer than the headers may be */
#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

static int landlock_allow(int ruleset, int fd, uint64_t rights, uint64_t handled)
{
	struct landlock_path_beneath_attr rule = {
		.parent_fd = fd, .allowed_access = rights & handled,
	};

	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
		       &rule, 0) < 0 ? -errno : 0;
}

static void allow_file(int ruleset, const char *path, uint64_t rights, uint64_t handled)
{
	cleanup(io_closep) int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd >= 0)
		landlock_allow(ruleset, fd, rights, handled);
}

static int landlock_rules(const struct vm *vm, int ruleset, uint64_t handled)
{
	int ret = 0;

	for (unsigned i = 0; i < vm->spec.nr_fs && !ret; i++) {
		const struct spec_fs *fs = &vm->spec.fs[i];
		int fd = spec_fds_get(&vm->fds, "fs.%s", fs->id);

		if (fd >= 0)
			ret = landlock_allow(ruleset, fd,
					     fs->readonly ? READ_RIGHTS : handled,
					     handled);
	}
	/* libslirp looks at the host's resolver again and again. */
	if (vm->spec.net)
		allow_file(ruleset, "/etc/resolv.conf", LANDLOCK_ACCESS_FS_READ_FILE,
			   handled);
	allow_file(ruleset, "/dev/kvm", LANDLOCK_ACCESS_FS_READ_FILE |
		   LANDLOCK_ACCESS_FS_WRITE_FILE | FS_IOCTL_DEV, handled);
	return ret;
}

static int enter_landlock(const struct vm *vm, struct err *err)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0,
			   LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr;
	int ruleset, ret;

	if (abi < 1) {
		log_info("sandbox", "this kernel has no Landlock");
		return 0;
	}
	attr = (struct landlock_ruleset_attr){
		.handled_access_fs = fs_rights[MIN((size_t)abi, ARRAY_LEN(fs_rights) - 1)],
	};
	ruleset = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return err_set(err, errno, "cannot make a Landlock ruleset");
	ret = landlock_rules(vm, ruleset, attr.handled_access_fs);
	if (!ret && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		ret = -errno;
	io_close(ruleset);
	return ret ? err_set(err, -ret, "cannot enter Landlock") : 0;
}

/* ---- seccomp ---- */

static const struct {
	const char *name, *wanted_by;
} allowed[] = {
#define X(name, file) { name, file },
	VMM_SYSCALLS(X)
#undef X
};

static const uint32_t ioctls[] = {
#define X(number, file) number,
	VMM_IOCTLS(X)
#undef X
};

#define NR_ARGS 3
#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | \
		    CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

/* What a call's arguments must be: (arg & mask) == value; rows of one call are
 * alternatives.  The kernel itself ignores the upper half of an int. */
#define INT 0xffffffffull
static const struct arg_rule {
	const char *call;
	bool net;		/* only for a VM that has a network */
	struct { unsigned arg; uint64_t mask, value; } must[NR_ARGS];
	unsigned nr;
} arg_rules[] = {
	/* Code appears as a shared mapping of a file that is not writable there,
	 * and as nothing else: that is how the software CPU's caches come. */
	{ "mmap", .must = { { 2, PROT_EXEC, 0 } }, .nr = 1 },
	{ "mmap", .nr = 2,
	  .must = { { 2, ~0ull, PROT_READ | PROT_EXEC },
		    { 3, MAP_TYPE | MAP_ANONYMOUS, MAP_SHARED } } },
	{ "mprotect", .must = { { 2, PROT_EXEC, 0 } }, .nr = 1 },
	/* Unix sockets are given to us; making one could reach any daemon's. */
	{ "socket", .net = true, .nr = 2,
	  .must = { { 0, INT, AF_INET }, { 1, 15, SOCK_STREAM } } },
	{ "socket", .net = true, .nr = 2,
	  .must = { { 0, INT, AF_INET }, { 1, 15, SOCK_DGRAM } } },
	{ "socket", .net = true, .nr = 2,
	  .must = { { 0, INT, AF_INET6 }, { 1, 15, SOCK_STREAM } } },
	{ "socket", .net = true, .nr = 2,
	  .must = { { 0, INT, AF_INET6 }, { 1, 15, SOCK_DGRAM } } },
	{ "prctl", .must = { { 0, INT, PR_SET_PDEATHSIG } }, .nr = 1 },
	{ "prctl", .must = { { 0, INT, PR_SET_NAME } }, .nr = 1 },
	{ "clone", .must = { { 0, NAMESPACES, 0 } }, .nr = 1 },
};

/* log_line() formats on the stack and makes one write: fit for a handler. */
static void refused(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;

	log_line("sandbox", LOG_WARN, "system call %d was refused", si->si_syscall);
	uc->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
}

static void refused_for_good(int sig, siginfo_t *si, void *context)
{
	refused(sig, si, context);
	_exit(1);
}

static int catch_refusals(bool strict)
{
	struct sigaction sa = {
		.sa_sigaction = strict ? refused_for_good : refused,
		.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK,
	};

	return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

static struct scmp_arg_cmp must_be(unsigned arg, uint64_t mask, uint64_t value)
{
	return SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, value);
}

static int add_arg_rule(scmp_filter_ctx ctx, const struct arg_rule *r, int nr)
{
	struct scmp_arg_cmp cmp[NR_ARGS];

	for (unsigned i = 0; i < r->nr; i++)
		cmp[i] = must_be(r->must[i].arg, r->must[i].mask, r->must[i].value);
	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, r->nr, cmp);
}

/* The call as a whole, unless there are rules for its arguments. */
static int allow_call(scmp_filter_ctx ctx, const char *name, int nr, bool net)
{
	bool whole = true;
	int ret = 0;

	for (size_t i = 0; i < ARRAY_LEN(arg_rules) && !ret; i++) {
		if (strcmp(arg_rules[i].call, name))
			continue;
		whole = false;
		if (net || !arg_rules[i].net)
			ret = add_arg_rule(ctx, &arg_rules[i], nr);
	}
	for (size_t i = 0; !strcmp(name, "ioctl") && i < ARRAY_LEN(ioctls) && !ret; i++) {
		whole = false;
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1, must_be(1, INT, ioctls[i]));
	}
	return whole ? seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0) : ret;
}

static int allow_calls(scmp_filter_ctx ctx, bool net, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < ARRAY_LEN(allowed) && !ret; i++) {
		int nr = seccomp_syscall_resolve_name(allowed[i].name);

		if (nr == __NR_SCMP_ERROR)
			return err_set(err, EINVAL, "%s wants system call %s, which is none",
				       allowed[i].wanted_by, allowed[i].name);
		ret = allow_call(ctx, allowed[i].name, nr, net);
		if (ret == -EDOM || ret == -EEXIST)
			ret = 0;	/* not on this architecture; twice */
	}
	return ret;
}

static int enter_seccomp(const struct vm *vm, bool strict, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int ret = ctx ? catch_refusals(strict) : -ENOMEM;

	if (!ret)
		ret = allow_calls(ctx, vm->spec.net, err);
	/* Its flags are in memory, where no filter sees them; libc takes clone then. */
	if (!ret)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	/* libslirp asks for one whenever a guest pings and the host has no ICMP for
	 * this user: nothing that is worth a line each time. */
	if (!ret)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(socket), 2,
				       must_be(0, INT, AF_INET), must_be(1, 15, SOCK_RAW));
	/* Pool threads may be there already. */
	if (!ret)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!ret)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret ? err_wrap(err, ret, "cannot enter seccomp") : 0;
}

int sandbox_enter(const struct vm *vm, struct err *err)
{
	const char *mode = getenv("MACHINEN_SANDBOX");
	int ret;

	if (mode && !strcmp(mode, "off")) {
		log_warn("sandbox", "switched off by MACHINEN_SANDBOX");
		return 0;
	}
	ret = enter_landlock(vm, err);
	return ret ? ret : enter_seccomp(vm, mode && !strcmp(mode, "strict"), err);
}
