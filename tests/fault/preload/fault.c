// SPDX-License-Identifier: MIT
/*
 * fault.c - a library to be preloaded: the Nth call of a kind fails, or the process
 * is killed there.
 *
 * Why preloaded.  The product stays what is shipped: no test build, no hooks, no
 * variable that it looks at.  A tracer (ptrace) would see each system call of all of
 * libc, but no allocation, slows a VM down a lot, and does not get hold of one
 * that is not dumpable; a seccomp notifier sees no allocation either and would have to
 * be installed before the VMM's own filter.  What is not seen here is what libc calls
 * within itself (opendir's open, a thread's mmap): these are few.
 *
 * $FAULT_CTL names a file of two pages, mapped shared by every process that the
 * tests start, so that a VM that has run for long, in its sandbox, can be told.
 * Page one is an order, text padded with NUL to FAULT_ORDER bytes:
 *
 *	WHO KIND NTH WHAT
 *
 * WHO: cli (the command), vmm (a VM's process, its loop thread), child (what a VM's
 * process has forked: writer of a bundle, or sibling), any.  KIND: one of the names
 * below, or a class of them: space (may find a full disk), file, ipc, alloc, all.  NTH:
 * from 1; "3+" is that one and all after it; 0 only counts.  WHAT: an errno by name;
 * kill, int, stop: that signal for the process itself, after which the call goes on.
 * Page two is ours: how many calls were of that kind, how many were acted on, and the
 * name of the last.  An order begins to count when page two is cleared.
 *
 * Allocations count when our programs or jansson make them, which is how documents come
 * to lack a field.  Not counted are GLib's, which ends the program when one fails, and
 * those of jansson's parser: version 2.14 frees a string twice when it has no memory for
 * its value.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FAULT_ORDER 256
#define PAGE	    4096

enum { SPACE = 1, FILES = 2, IPC = 4, ALLOC = 8, OTHER = 16, ALL = 31 };

struct report {
	uint32_t seen, acted;
	char last[32];
};

/* The order as it was last read, taken apart. */
struct order {
	char text[FAULT_ORDER];
	bool valid, sticky;
	char who[16], kind[24], what[16];
	unsigned nth;
};

static char *shared;			/* page one; NULL: nothing to do */
static struct report *report;		/* page two */
static struct order order;
static pid_t first;			/* the process that ran exec */
/*
 * Its first thread, also in what it forks.  No other is looked at: a vCPU's has the
 * guest's vector registers in the host's, and memcmp() would take them.
 */
static __thread bool is_main;
static bool is_vmm, is_cli;

/* ---- the order ---- */

static void take_apart(struct order *o)
{
	char text[FAULT_ORDER + 1], nth[16] = "";

	memcpy(text, o->text, FAULT_ORDER);
	text[FAULT_ORDER] = '\0';
	o->valid = sscanf(text, "%15s %23s %15s %15s", o->who, o->kind, nth, o->what) == 4;
	o->nth = strtoul(nth, NULL, 10);
	o->sticky = strchr(nth, '+');
}

static bool is_us(const char *who)
{
	bool child = getpid() != first;

	if (!strcmp(who, "cli"))
		return is_cli && !child;
	if (!strcmp(who, "vmm"))
		return is_vmm && !child;
	if (!strcmp(who, "child"))
		return is_vmm && child;
	return !strcmp(who, "any");
}

static bool is_kind(const char *kind, const char *name, int class)
{
	static const struct {
		const char *name;
		int classes;
	} known[] = {
		{ "space", SPACE }, { "file", SPACE | FILES }, { "ipc", IPC },
		{ "alloc", ALLOC }, { "all", ALL },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(kind, known[i].name))
			return class & known[i].classes;
	return !strcmp(kind, name);
}

static int number(const char *name)
{
	static const struct {
		const char *name;
		int num;
	} known[] = {
		{ "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EIO", EIO },
		{ "ENOMEM", ENOMEM }, { "EMFILE", EMFILE }, { "EFBIG", EFBIG },
		{ "EAGAIN", EAGAIN }, { "EACCES", EACCES }, { "EPIPE", EPIPE },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(name, known[i].name))
			return known[i].num;
	return EIO;
}

static void signal_self(int signo)
{
	syscall(SYS_tgkill, getpid(), gettid(), signo);
}

/* True: the call is to fail, errno is set. */
static bool act(const char *name)
{
	struct order *o = &order;

	__atomic_add_fetch(&report->acted, 1, __ATOMIC_RELAXED);
	strncpy(report->last, name, sizeof(report->last) - 1);
	if (!strcmp(o->what, "kill"))
		signal_self(SIGKILL);
	else if (!strcmp(o->what, "int"))
		signal_self(SIGINT);
	else if (!strcmp(o->what, "stop"))
		signal_self(SIGSTOP);
	else
		errno = number(o->what);
	return *o->what == 'E';
}

static bool fault(const char *name, int class)
{
	static __thread bool inside;
	int saved = errno;
	bool fails = false;
	unsigned n;

	if (!is_main || inside)
		return false;
	inside = true;
	if (memcmp(order.text, shared, FAULT_ORDER)) {
		memcpy(order.text, shared, FAULT_ORDER);
		take_apart(&order);
	}
	if (order.valid && is_us(order.who) && is_kind(order.kind, name, class)) {
		n = __atomic_add_fetch(&report->seen, 1, __ATOMIC_RELAXED);
		fails = order.nth && (n == order.nth || (order.sticky && n > order.nth)) &&
			act(name);
	}
	inside = false;
	if (!fails)
		errno = saved;
	return fails;
}

/* Before the program's own first line, and before any sandbox. */
__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FAULT_CTL");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	char *p = fd < 0 ? MAP_FAILED :
		  mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		return;
	first = getpid();
	is_main = true;
	is_vmm = !strcmp(program_invocation_short_name, "machinen-vmm");
	is_cli = !strcmp(program_invocation_short_name, "machinen") ||
		 !strcmp(program_invocation_short_name, "mn");
	report = (struct report *)(void *)(p + PAGE);
	shared = p;
}

/* ---- system calls ---- */

/* Found when loaded, not on a vCPU's thread; other constructors may be earlier. */
#define REAL(name) \
	static __typeof__(&name) real_##name; \
	__attribute__((constructor)) static void find_##name(void) \
	{ \
		real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
	}
#define CALL(name) \
	((real_##name ? (void)0 : find_##name()), real_##name)

#define WRAP(type, name, class, failed, params, args) \
	REAL(name) \
	type name params \
	{ \
		return fault(#name, class) ? (failed) : CALL(name) args; \
	}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

REAL(open)
int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return fault("open", flags & O_CREAT ? SPACE : FILES) ? -1 :
	       CALL(open)(path, flags, mode);
}

REAL(openat)
int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return fault("openat", flags & O_CREAT ? SPACE : FILES) ? -1 :
	       CALL(openat)(dir, path, flags, mode);
}

/* Only what makes a descriptor may fail. */
REAL(fcntl)
int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return cmd == F_DUPFD_CLOEXEC && fault("fcntl", OTHER) ? -1 :
	       CALL(fcntl)(fd, cmd, arg);
}

WRAP(int, mkdirat, SPACE, -1, (int d, const char *p, mode_t m), (d, p, m))
WRAP(int, mkdir, SPACE, -1, (const char *p, mode_t m), (p, m))
WRAP(int, renameat, SPACE, -1, (int a, const char *p, int b, const char *q), (a, p, b, q))
WRAP(int, linkat, SPACE, -1, (int a, const char *p, int b, const char *q, int f),
     (a, p, b, q, f))
WRAP(int, ftruncate, SPACE, -1, (int fd, off_t n), (fd, n))
WRAP(int, fallocate, SPACE, -1, (int fd, int m, off_t o, off_t n), (fd, m, o, n))
WRAP(int, fsync, SPACE, -1, (int fd), (fd))
WRAP(int, fdatasync, SPACE, -1, (int fd), (fd))
WRAP(ssize_t, write, SPACE, -1, (int fd, const void *p, size_t n), (fd, p, n))
WRAP(ssize_t, pwrite, SPACE, -1, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o))
WRAP(ssize_t, pwritev, SPACE, -1, (int fd, const struct iovec *v, int n, off_t o),
     (fd, v, n, o))
WRAP(ssize_t, copy_file_range, SPACE, -1,
     (int a, off_t *x, int b, off_t *y, size_t n, unsigned f), (a, x, b, y, n, f))
WRAP(ssize_t, read, FILES, -1, (int fd, void *p, size_t n), (fd, p, n))
WRAP(ssize_t, pread, FILES, -1, (int fd, void *p, size_t n, off_t o), (fd, p, n, o))
WRAP(int, flock, FILES, -1, (int fd, int op), (fd, op))
WRAP(int, socket, IPC, -1, (int d, int t, int p), (d, t, p))
WRAP(int, socketpair, IPC, -1, (int d, int t, int p, int v[2]), (d, t, p, v))
WRAP(int, listen, IPC, -1, (int fd, int n), (fd, n))
WRAP(int, pipe2, IPC, -1, (int v[2], int f), (v, f))
WRAP(ssize_t, sendmsg, IPC, -1, (int fd, const struct msghdr *m, int f), (fd, m, f))
WRAP(ssize_t, recvmsg, IPC, -1, (int fd, struct msghdr *m, int f), (fd, m, f))
WRAP(ssize_t, send, IPC, -1, (int fd, const void *p, size_t n, int f), (fd, p, n, f))
WRAP(ssize_t, recv, IPC, -1, (int fd, void *p, size_t n, int f), (fd, p, n, f))
WRAP(int, epoll_ctl, OTHER, -1, (int e, int op, int fd, struct epoll_event *v),
     (e, op, fd, v))
WRAP(void *, mmap, OTHER, MAP_FAILED, (void *a, size_t n, int p, int f, int fd, off_t o),
     (a, n, p, f, fd, o))
WRAP(pid_t, fork, OTHER, -1, (void), ())

/* ---- allocations ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t a, size_t b);
void *__libc_realloc(void *p, size_t n);

/* By the object that called; asked of the dynamic linker once an address. */
static bool ours(void *caller)
{
	static __thread void *last;
	static __thread bool last_ours;
	Dl_info info;

	if (caller == last)
		return last_ours;
	last = caller;
	last_ours = dladdr(caller, &info) && info.dli_fname &&
		    (strstr(info.dli_fname, "machinen") || strstr(info.dli_fname, "jansson"));
	return last_ours;
}

static __thread unsigned parsing;

/* jansson.h is not needed for more than this. */
void *json_loadb(const char *text, size_t len, size_t flags, void *err);
REAL(json_loadb)
void *json_loadb(const char *text, size_t len, size_t flags, void *err)
{
	void *doc;

	parsing++;
	doc = CALL(json_loadb)(text, len, flags, err);
	parsing--;
	return doc;
}

/* Looked up only under an order that asks for it: the linker's lock may be held. */
static bool wanted(void *caller)
{
	return is_main && !parsing && *shared && strstr(shared, " al") && ours(caller);
}

#define ALLOCATE(name, real) \
	(wanted(__builtin_return_address(0)) && fault(name, ALLOC) ? NULL : (real))

void *malloc(size_t n)
{
	return ALLOCATE("malloc", __libc_malloc(n));
}

void *calloc(size_t a, size_t b)
{
	return ALLOCATE("calloc", __libc_calloc(a, b));
}

void *realloc(void *p, size_t n)
{
	return ALLOCATE("realloc", __libc_realloc(p, n));
}
