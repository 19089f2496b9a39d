// SPDX-License-Identifier: MIT
/*
 * test_sandbox.c - what the sandbox refuses, and that a guest runs in it.
 *
 * Each test is a process of its own that enters a stage, tries, and tells.  The
 * system calls are made bare, as an intruder's code would.  BACKEND=kvm does it
 * with a VM on KVM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "tests/lib/guest.h"
#include "vmm/sandbox.h"

extern const uint8_t prog_stacks[], prog_stacks_end[];

static bool on_kvm(void)
{
	const char *name = getenv("BACKEND");

	return name && !strcmp(name, "kvm");
}

static struct guest *make_guest(void)
{
	return guest_new(on_kvm() ? &accel_kvm : &accel_soft, SPEC_ENGINE_JIT);
}

static bool guest_works(struct guest *g)
{
	guest_run(g, prog_stacks, (uint64_t)(prog_stacks_end - prog_stacks));
	return g->ended && g->nr_log == 4;
}

#define GOOD 42		/* /bin/true would say 0 */

/* Runs `body` in a process; true when it says so. */
static bool in_process(bool (*body)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		bool good = body();

		fflush(stdout);
		_exit(good ? GOOD : 1);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("# ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) && WEXITSTATUS(status) == GOOD;
}

/* ---- early ---- */

static bool early(void)
{
	struct err err = ERR_INIT;

	return !sandbox_early(&err) && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
	       prctl(PR_GET_DUMPABLE) == 0;
}

static void early_stage(void **state)
{
	assert_true(in_process(early));
}

/* ---- refusals ---- */

#define NONE (-1)
static long a(const void *p)
{
	return (long)(uintptr_t)p;
}

static char page[4096] __attribute__((aligned(4096)));
static char *no_args[] = { NULL };
static struct clone_args clone_user = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };

struct attempt {
	const char *what;
	long nr, arg[6];
};

/* ENOSYS is the filter's word. */
static bool is_refused(const struct attempt *t)
{
	long ret = syscall(t->nr, t->arg[0], t->arg[1], t->arg[2], t->arg[3], t->arg[4],
			   t->arg[5]);

	if (ret == -1 && errno == ENOSYS)
		return true;
	printf("# %s: %ld, %s\n", t->what, ret, ret < 0 ? strerror(errno) : "done");
	return false;
}

/* What no VM may do. */
static bool all_refused(bool net)
{
	const struct attempt attempts[] = {
		{ "execve", SYS_execve, { a("/bin/true"), a(no_args), a(no_args) } },
		{ "execveat", SYS_execveat, { AT_FDCWD, a("/bin/true"), a(no_args), a(no_args) } },
		{ "ptrace", SYS_ptrace, { 0 } },
		{ "process_vm_readv", SYS_process_vm_readv, { getppid() } },
		{ "pidfd_open", SYS_pidfd_open, { getppid() } },
		{ "kill", SYS_kill, { getppid() } },
		{ "open", SYS_open, { a("/etc/passwd"), O_RDONLY } },
		{ "mprotect to code", SYS_mprotect, { a(page), 4096, PROT_READ | PROT_EXEC } },
		{ "mprotect to all", SYS_mprotect,
		  { a(page), 4096, PROT_READ | PROT_WRITE | PROT_EXEC } },
		{ "pkey_mprotect", SYS_pkey_mprotect, { a(page), 4096, PROT_EXEC, NONE } },
		{ "anonymous code", SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC,
		  MAP_PRIVATE | MAP_ANONYMOUS, NONE } },
		{ "shared anonymous code", SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC,
		  MAP_SHARED | MAP_ANONYMOUS, NONE } },
		{ "writable code", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		  MAP_SHARED, NONE } },
		{ "a library", SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0 } },
		{ "a Unix socket", SYS_socket, { AF_UNIX, SOCK_STREAM } },
		{ "a netlink socket", SYS_socket, { AF_NETLINK, SOCK_RAW } },
		{ "a packet socket", SYS_socket, { AF_PACKET, SOCK_RAW } },
		{ "a vsock", SYS_socket, { AF_VSOCK, SOCK_STREAM } },
		{ "a raw socket", SYS_socket, { AF_INET, SOCK_RAW, IPPROTO_ICMP } },
		{ "TIOCSTI", SYS_ioctl, { 0, TIOCSTI, a("x") } },
		{ "TIOCSTI with upper bits", SYS_ioctl,
		  { 0, (long)(1ull << 32 | TIOCSTI), a("x") } },
		{ "FIOCLEX", SYS_ioctl, { 0, FIOCLEX } },
		{ "KVM_SET_USER_MEMORY_REGION2", SYS_ioctl, { 0, _IOW(KVMIO, 0x49, char[160]) } },
		{ "becoming dumpable", SYS_prctl, { PR_SET_DUMPABLE, 1 } },
		{ "a seccomp of its own", SYS_seccomp, { 0 } },
		{ "clone into a namespace", SYS_clone, { CLONE_NEWUSER | SIGCHLD } },
		{ "clone3", SYS_clone3, { a(&clone_user), sizeof(clone_user) } },
		{ "unshare", SYS_unshare, { CLONE_NEWUSER } },
		{ "setns", SYS_setns, { 0 } },
		{ "mount", SYS_mount, { 0 } },
		{ "chroot", SYS_chroot, { a("/") } },
		{ "unlink", SYS_unlink, { a("/tmp/none") } },
		{ "bpf", SYS_bpf, { 0 } },
		{ "perf_event_open", SYS_perf_event_open, { 0 } },
		{ "userfaultfd", SYS_userfaultfd, { 0 } },
		{ "io_uring_setup", SYS_io_uring_setup, { 1 } },
		{ "keyctl", SYS_keyctl, { 0 } },
		{ "init_module", SYS_init_module, { 0 } },
		{ "open_by_handle_at", SYS_open_by_handle_at, { 0 } },
		{ "shmget", SYS_shmget, { 0 } },
		{ "setuid", SYS_setuid, { 0 } },
	};
	const struct attempt outside[] = {
		{ "TCP without a network", SYS_socket, { AF_INET, SOCK_STREAM } },
		{ "UDP without a network", SYS_socket, { AF_INET6, SOCK_DGRAM } },
	};
	bool good = true;

	for (unsigned i = 0; i < ARRAY_LEN(attempts); i++)
		good &= is_refused(&attempts[i]);
	for (unsigned i = 0; !net && i < ARRAY_LEN(outside); i++)
		good &= is_refused(&outside[i]);
	return good;
}

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0,
		       LANDLOCK_CREATE_RULESET_VERSION) >= 1;
}

/* By name: nothing but what the VM is about. */
static bool files_refused(void)
{
	static const struct { const char *path; int flags; } files[] = {
		{ "/etc/passwd", O_RDONLY }, { "/proc/self/mem", O_RDWR },
		{ "/tmp", O_RDONLY | O_DIRECTORY }, { "/tmp/made-by-test", O_RDWR | O_CREAT },
		{ "/dev/null", O_RDWR }, { ".", O_RDONLY | O_DIRECTORY },
	};
	bool good = true;

	for (unsigned i = 0; i < ARRAY_LEN(files); i++) {
		int fd = open(files[i].path, files[i].flags, 0600);

		if (fd < 0 && errno == EACCES)
			continue;
		printf("# %s: %s\n", files[i].path, fd < 0 ? strerror(errno) : "opened");
		good = false;
	}
	return good;
}

/* ---- what still works ---- */

static void *thread(void *arg)
{
	*(bool *)arg = true;
	return NULL;
}

static bool child_works(void)
{
	int status = 1;
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static bool needed_works(bool net)
{
	bool ran = false, good = child_works();
	int fd = eventfd(0, EFD_CLOEXEC);
	pthread_t t;

	good &= fd >= 0 && !close(fd);
	good &= !pthread_create(&t, NULL, thread, &ran) && !pthread_join(t, NULL) && ran;
	if (net) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		good &= fd >= 0 && !close(fd);
	}
	if (!good)
		printf("# something that is needed does not work\n");
	return good;
}

/* A sibling made by fork is built in the sandbox of its source. */
static bool sibling_works(void)
{
	struct guest *g = make_guest();
	bool good = g && guest_works(g);

	if (!good)
		printf("# a second VM cannot be built and run inside\n");
	guest_free(g);
	return good;
}

static bool confined(bool net)
{
	struct guest *g = make_guest();
	bool landlock = has_landlock(), good = true;
	struct err err = ERR_INIT;

	if (!g)
		return false;
	g->vm.spec.net = net;
	if (sandbox_early(&err) || sandbox_enter(&g->vm, &err)) {
		printf("# %s\n", err_message(&err));
		return false;
	}
	if (landlock)
		good = files_refused();
	else
		printf("# no Landlock in this kernel: files were not tried\n");
	good &= all_refused(net) & needed_works(net) & sibling_works();
	if (!guest_works(g)) {
		printf("# its guest does not run\n");
		good = false;
	}
	return good;
}

static bool confined_net(void)
{
	return confined(true);
}

static bool confined_alone(void)
{
	return confined(false);
}

static void entered_with_network(void **state)
{
	assert_true(in_process(confined_net));
}

static void entered_without_network(void **state)
{
	assert_true(in_process(confined_alone));
}

/* ---- the tests' own mode ---- */

static bool strict(void)
{
	struct guest *g = make_guest();
	struct err err = ERR_INIT;

	setenv("MACHINEN_SANDBOX", "strict", 1);
	if (!g || sandbox_enter(&g->vm, &err))
		return false;
	syscall(SYS_keyctl, 0);
	return true;
}

static void strict_ends_the_process(void **state)
{
	assert_false(in_process(strict));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(early_stage),
		cmocka_unit_test(entered_with_network),
		cmocka_unit_test(entered_without_network),
		cmocka_unit_test(strict_ends_the_process),
	};

	log_setup("sandbox:error");
	return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
