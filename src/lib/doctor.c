// SPDX-License-Identifier: MIT
/*
 * doctor.c - looks the host over: what a VM needs, each with what to do when it
 * is not there.
 */
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/install.h"
#include "lib/run.h"
#include "lib/vm.h"

#define SPACE_MIN (2 * GIB)

struct doctor {
	int (*each)(const struct mn_finding *f, void *arg);
	void *arg;
	int ret;
};

static void find(struct doctor *d, enum mn_finding_level level, const char *check,
		 const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

static void find(struct doctor *d, enum mn_finding_level level, const char *check,
		 const char *fix, const char *fmt, ...)
{
	struct mn_finding f = { .level = level, .check = check, .fix = fix };
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	f.what = what;
	if (!d->ret)
		d->ret = d->each(&f, d->arg);
}

static void check_host(struct doctor *d)
{
	struct utsname u;

	uname(&u);
	if (strcmp(u.machine, "x86_64"))
		find(d, MN_FINDING_FAIL, "host", "use an x86-64 host",
		     "the host is %s; x86_64 is needed", u.machine);
	else
		find(d, MN_FINDING_OK, "host", NULL, "Linux %s on %s", u.release,
		     u.machine);
}

/* Asks the VMM which of its CPU backends run guests here: name and reason. */
static int ask_vmm(const char *path, struct buf *out)
{
	const char *const argv[] = { path, "--probe", NULL };
	struct run run = { .argv = argv, .output = out };

	return run_program(&run, NULL);
}

/* The next boot is not to believe what was remembered before this look. */
static void forget_verdict(void)
{
	struct err none = ERR_INIT;
	char path[PATH_MAX];

	if (!home_path(path, HOME_VERDICT, &none))
		unlink(path);
}

/* That /dev/kvm opens proves little (kvm_probe.c): a guest has to run. */
static void check_kvm(struct doctor *d, const char *vmm)
{
	struct buf out = BUF_INIT;
	char *reason = NULL;

	forget_verdict();
	if (*vmm && !ask_vmm(vmm, &out) && out.len && !strncmp(out.data, "kvm ", 4)) {
		reason = out.data + 4;
		reason[strcspn(reason, "\n")] = '\0';
	}
	if (reason && !strcmp(reason, "ok"))
		find(d, MN_FINDING_OK, "kvm", NULL, "KVM runs guests");
	else if (reason)
		find(d, MN_FINDING_WARN, "kvm", "nothing: VMs run on the software CPU",
		     "KVM cannot run guests here: %s", reason);
	buf_done(&out);
}

/* Leaves the VMM's path in `path`, or an empty one. */
static void check_vmm(struct doctor *d, char path[PATH_MAX])
{
	const char *given = getenv("MACHINEN_VMM");
	struct err e = ERR_INIT;

	*path = '\0';
	if (given && *given && !access(given, X_OK)) {
		snprintf(path, PATH_MAX, "%s", given);
		find(d, MN_FINDING_OK, "vmm", NULL, "%s (MACHINEN_VMM)", given);
	} else if (given && *given) {
		find(d, MN_FINDING_FAIL, "vmm", "correct or unset MACHINEN_VMM",
		     "%s cannot be run", given);
	} else if (!home_program(path, "machinen-vmm", &e)) {
		find(d, MN_FINDING_OK, "vmm", NULL, "%s", path);
	} else {
		*path = '\0';
		find(d, MN_FINDING_FAIL, "vmm", "install machinen again",
		     "%s", err_message(&e));
	}
}

static void check_base(struct doctor *d)
{
	struct err e = ERR_INIT;
	char path[PATH_MAX];

	if (!base_find(path, &e))
		find(d, MN_FINDING_OK, "base", NULL, "%s", path);
	else
		find(d, MN_FINDING_FAIL, "base", "run: machinen install", "%s",
		     err_message(&e));
}

static void check_home(struct doctor *d)
{
	struct err e = ERR_INIT;
	char path[PATH_MAX];
	struct statvfs fs;
	uint64_t left;
	int ret = home_registry(path, &e);

	if (ret || access(path, W_OK) || statvfs(path, &fs) < 0) {
		find(d, MN_FINDING_FAIL, "home", "set MACHINEN_HOME to a directory of yours",
		     "%s", ret ? err_message(&e) : "MACHINEN_HOME cannot be written to");
		return;
	}
	left = fs.f_bavail * fs.f_frsize;
	find(d, left < SPACE_MIN ? MN_FINDING_WARN : MN_FINDING_OK, "space",
	     left < SPACE_MIN ? "make room, or set MACHINEN_HOME to another file system" : NULL,
	     "%llu MiB free for VMs in %s", (unsigned long long)(left / MIB), path);
}

static void check_memory(struct doctor *d)
{
	struct sysinfo si;
	uint64_t total;

	if (sysinfo(&si) < 0)
		return;
	total = si.totalram * (uint64_t)si.mem_unit;
	find(d, total < GIB ? MN_FINDING_WARN : MN_FINDING_OK, "memory",
	     total < GIB ? "use --memory 512 and one VM at a time" : NULL,
	     "%llu MiB of memory, %ld CPUs", (unsigned long long)(total / MIB),
	     sysconf(_SC_NPROCESSORS_ONLN));
}

/* An ICMP socket of an ordinary user: what a guest's ping becomes. */
static void check_ping(struct doctor *d)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);

	if (fd >= 0)
		find(d, MN_FINDING_OK, "ping", NULL, "guests can ping the world");
	else
		find(d, MN_FINDING_WARN, "ping",
		     "as root: sysctl net.ipv4.ping_group_range='0 2147483647'",
		     "guests cannot ping the world: %s", strerror(errno));
	io_close(fd);
}

int mn_doctor(int (*each)(const struct mn_finding *f, void *arg), void *arg,
	      struct mn_error *err)
{
	struct doctor d = { .each = each, .arg = arg };
	struct err e = ERR_INIT;
	char vmm[PATH_MAX];

	check_host(&d);
	check_vmm(&d, vmm);
	check_kvm(&d, vmm);
	check_base(&d);
	check_home(&d);
	check_memory(&d);
	check_ping(&d);
	if (d.ret < 0)
		err_set(&e, -d.ret, "stopped by the caller");
	return lib_return(err, &e, d.ret);
}
