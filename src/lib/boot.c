// SPDX-License-Identifier: MIT
/*
 * boot.c - mn_boot: from a configuration to a VM that takes commands.
 *
 * The steps, each a row of `steps`: check what can be checked without effect;
 * open the registry and a directory in it; disk, kernel, sockets; start the VMM
 * (it waits for its document); enter the registry under its pid; hand it the
 * document; wait until it runs and the agent answers.  Up to the last step
 * everything that was made is listed in struct booting, and one function,
 * boot_undo(), takes any prefix of it back.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "lib/install.h"
#include "lib/session.h"
#include "lib/vm.h"

#define MEMORY_MIN_MIB	   512
#define MEMORY_DEFAULT_MAX 16384
#define TIMEOUT_MS	   60000
#define GO_ON_MS	   200	/* between two looks whether the caller still waits */
#define TAIL_LINES	   20
#define TAIL_BYTES	   900	/* an error holds 1 KiB a message */
#define LOG_LINES	   3
#define LOG_BYTES	   300

int booting_role(struct booting *b, int fd, const char *role)
{
	int ret;

	if (b->nr_own == SPEC_MAX_FDS) {
		io_close(fd);
		return err_set(b->err, EMFILE, "too many files for one VM");
	}
	b->own[b->nr_own++] = fd;
	ret = spec_fds_add(&b->fds, fd, "%s", role);
	return ret < 0 ? err_set(b->err, -ret, "too many files for one VM") : 0;
}

/* --- checks --------------------------------------------------------------- */

static uint64_t default_memory(void)
{
	struct sysinfo si;
	uint64_t half;

	if (sysinfo(&si) < 0)
		return MEMORY_MIN_MIB;
	half = si.totalram * (uint64_t)si.mem_unit / MIB / 2;
	half = MIN(half, (uint64_t)MEMORY_DEFAULT_MAX);
	return MAX(half, (uint64_t)MEMORY_MIN_MIB);
}

static int check_env(const struct booting *b)
{
	for (const char *const *e = b->cfg->env; e && *e; e++)
		if (**e == '=' || !strchr(*e, '='))
			return err_code(b->err, ERR_PARSE_FLAG_MALFORMED, EINVAL,
					"environment \"%s\": must be KEY=VALUE", *e);
	return 0;
}

static int check(struct booting *b)
{
	const struct mn_boot *cfg = b->cfg;
	uint64_t mib = cfg->memory_mib ? cfg->memory_mib : default_memory();
	int ret = check_env(b);

	if (ret)
		return ret;
	if (mib < MEMORY_MIN_MIB || mib > 1 << 20)
		return err_code(b->err, ERR_BOOT_MEMORY_INVALID, EINVAL,
				"%llu MiB of memory; it must be %d to 1048576",
				(unsigned long long)mib, MEMORY_MIN_MIB);
	if (cfg->cpus > SPEC_MAX_CPUS)
		return err_set(b->err, EINVAL, "a VM has at most %d CPUs", SPEC_MAX_CPUS);
	if (cfg->cwd && cfg->cwd[0] != '/')
		return err_code(b->err, ERR_BOOT_CWD_INVALID, EINVAL,
				"--cwd \"%s\": must be an absolute path", cfg->cwd);
	b->spec.memory_mib = (uint32_t)mib;
	b->spec.cpus = cfg->cpus ? (uint32_t)cfg->cpus : 1;
	b->vm->reg.memory_mib = mib;
	b->vm->reg.cpus = b->spec.cpus;
	return cfg->name ? registry_check_name(cfg->name, b->err) : 0;
}

int boot_find_vmm(struct booting *b)
{
	const char *vmm = getenv("MACHINEN_VMM");
	int ret = 0;

	if (vmm && *vmm)
		ret = lib_path(b->vmm, b->err, "%s", vmm);
	else
		ret = home_program(b->vmm, "machinen-vmm", b->err);
	if (!ret && access(b->vmm, X_OK))
		ret = err_set(b->err, errno, "%s: %s", b->vmm, strerror(errno));
	return !ret ? 0 :
	       err_wrap_code(b->err, ERR_BOOT_VMM_MISSING, ret,
			     "machinen-vmm was not found; set MACHINEN_VMM or install machinen again");
}

static int find_parts(struct booting *b)
{
	struct err none = ERR_INIT;
	int ret = boot_find_vmm(b);

	if (ret)
		return ret;
	/* kernel and modules come from the base also when the image does not */
	ret = base_find(b->base, b->cfg->kernel && b->cfg->image ? &none : b->err);
	if (ret && b->cfg->kernel && b->cfg->image)
		ret = *b->base = 0;
	return ret;
}

int boot_settle(struct booting *b)
{
	static const enum spec_accel accel[] = {
		[MN_ACCEL_AUTO] = SPEC_ACCEL_AUTO, [MN_ACCEL_KVM] = SPEC_ACCEL_KVM,
		[MN_ACCEL_SOFT] = SPEC_ACCEL_SOFT,
	};
	const struct mn_boot *cfg = b->cfg;
	struct spec *s = &b->spec;
	struct timespec now;

	if ((unsigned)cfg->accel >= ARRAY_LEN(accel))
		return err_set(b->err, EINVAL, "unknown accel %d", cfg->accel);
	s->accel = accel[cfg->accel];
	if (cfg->engine)
		s->engine = strcmp(cfg->engine, "interp") ? SPEC_ENGINE_JIT :
							    SPEC_ENGINE_INTERP;
	if (!s->cpu_model)	/* a bundle's is there already */
		s->cpu_model = strdup(cfg->cpu_model ? cfg->cpu_model : "portable");
	if (cfg->name)
		s->name = strdup(cfg->name);
	snprintf(b->vm->reg.name, sizeof(b->vm->reg.name), "%s",
		 cfg->name ? cfg->name : "");
	if (getrandom(s->vmgenid, sizeof(s->vmgenid), 0) < 0 ||
	    getrandom(s->mac + 3, 3, 0) < 0)
		return err_set(b->err, errno, "no random numbers");
	clock_gettime(CLOCK_REALTIME, &now);
	b->vm->reg.started_at_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	b->vm->reg.detached = cfg->detach;
	return s->cpu_model && (s->name || !cfg->name) ? 0 :
	       err_set(b->err, ENOMEM, "out of memory");
}

/* --- making --------------------------------------------------------------- */

int boot_enter(struct booting *b)
{
	int ret = registry_open(&b->reg, b->err);

	if (!ret && b->cfg->name)
		ret = registry_name_free(&b->reg, b->cfg->name, b->err);
	if (ret)
		return ret;
	/* disks of VMs that were killed together with who booted them */
	registry_gc(&b->reg, false, NULL, NULL, NULL);
	b->vm->dir = registry_begin(&b->reg, b->tmp, b->err);
	if (b->vm->dir < 0) {
		*b->tmp = '\0';
		return b->vm->dir;
	}
	return 0;
}

static int add_file(struct booting *b, const char *name, const char *role)
{
	int fd = openat(b->vm->dir, name,
			O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return lib_host_err(b->err, -errno, b->reg.path, "cannot write to");
	return booting_role(b, fd, role);
}

/* Where the VMM remembers whether KVM works here; not worth failing for. */
static int add_verdict(struct booting *b)
{
	struct err none = ERR_INIT;
	char path[PATH_MAX];
	int fd;

	if (home_path(path, HOME_VERDICT, &none))
		return 0;
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? 0 : booting_role(b, fd, "verdict");
}

static int add_pipe(struct booting *b, const char *role, int theirs, int *ours)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_set(b->err, errno, "no pipe: %s", strerror(errno));
	*ours = fd[!theirs];
	return booting_role(b, fd[theirs], role);
}

int boot_channels(struct booting *b)
{
	int fd = socket_listen(b->vm->dir, "control", SOCK_SEQPACKET, b->err);
	int ret = fd < 0 ? fd : booting_role(b, fd, "control");

	if (!ret) {
		fd = socket_listen(b->vm->dir, "agent", SOCK_STREAM, b->err);
		ret = fd < 0 ? fd : booting_role(b, fd, "agent");
	}
	if (!ret)
		ret = add_file(b, "console.log", "console");
	if (!ret)
		ret = add_file(b, "vmm.log", "log");
	if (!ret)
		ret = add_verdict(b);
	if (!ret)
		ret = add_pipe(b, "ready", 1, &b->ready);
	if (!ret && (!b->cfg->detach || b->keep_alive_pipe))
		ret = add_pipe(b, "alive", 0, &b->vm->alive);
	if (!ret) {
		fd = fcntl(b->vm->dir, F_DUPFD_CLOEXEC, 0);
		ret = fd < 0 ? err_set(b->err, errno, "no descriptor") :
			       booting_role(b, fd, "dir");
	}
	return ret;
}

/*
 * Enters the registry.  A VM of another VM's past that nobody named is called
 * after it: PAST/PID, or PAST~PID where that is taken.
 */
int boot_commit(struct booting *b)
{
	struct reg_vm *reg = &b->vm->reg;
	int ret;

	if (reg->name[0] || !b->past || !*b->past)
		return registry_commit(&b->reg, b->tmp, b->vm->dir, reg, b->err);
	for (const char *sep = "/~"; *sep; sep++) {
		*b->err = (struct err)ERR_INIT;
		if (snprintf(reg->name, sizeof(reg->name), "%s%c%d", b->past, *sep,
			     reg->id.pid) >= (int)sizeof(reg->name))
			reg->name[0] = '\0';
		ret = registry_commit(&b->reg, b->tmp, b->vm->dir, reg, b->err);
		if (ret != -EEXIST)
			break;
	}
	return ret;
}

void boot_close_own(struct booting *b)
{
	while (b->nr_own)
		io_close(b->own[--b->nr_own]);
	spec_fds_done(&b->fds);
}

/* The launch document goes out only when the VM is in the registry. */
int boot_launch(struct booting *b)
{
	struct spawn s = { .vmm = b->vmm, .fds = &b->fds,
			   .log = spec_fds_get(&b->fds, "log") };
	struct buf doc = BUF_INIT;
	int ret = spawn_vmm(&s, b->err);

	if (ret)
		return ret;
	ret = proc_identify(s.pid, &b->vm->reg.id);
	b->vm->pidfd = ret ? ret : proc_open(&b->vm->reg.id);
	if (b->vm->pidfd < 0)
		ret = err_code(b->err, ERR_BOOT_READINESS_FAILED, -b->vm->pidfd,
			       "machinen-vmm ended at once");
	if (!ret)
		ret = boot_commit(b);
	if (!ret) {
		*b->tmp = '\0';
		ret = spec_launch_print(&b->spec, &b->fds, &doc);
		for (size_t at = 0; !ret && at < doc.len; ) {
			ssize_t n = send(s.doc, doc.data + at, doc.len - at, MSG_NOSIGNAL);

			if (n < 0 && errno != EINTR)
				break;	/* it ended; boot_wait_ready() finds out why */
			at += n > 0 ? (size_t)n : 0;
		}
		if (ret)
			err_set(b->err, -ret, "the VM's description is not UTF-8");
	}
	io_close(s.doc);
	buf_done(&doc);
	boot_close_own(b);	/* theirs alone now: EOF can be seen */
	return ret;
}

/* --- waiting -------------------------------------------------------------- */

static int ms_left(const struct booting *b)
{
	uint64_t now = io_now_ns();

	return now >= b->deadline ? 0 :
	       (int)MIN((b->deadline - now) / 1000000 + 1, 3600000ull);
}

/* While we wait: does the caller still want this? */
static int go_on(const struct booting *b)
{
	return lib_progress(b->cfg->event, b->cfg->event_arg,
			    "waiting for the guest", 0, 0);
}

/* Adds what the VMM said, how it ended, and the console's tail to an error. */
int boot_explain(struct booting *b, int ret)
{
	struct err inner = ERR_INIT;
	struct buf tail = BUF_INIT;

	if (vm_log_tail(b->vm->dir, "vmm.log", LOG_LINES, LOG_BYTES, &tail) > 0)
		buf_adds(&tail, "\n");
	vm_end_words(b->vm->dir, &tail);
	if (tail.len)
		buf_adds(&tail, "; ");
	buf_adds(&tail, "the console's last lines:\n");
	if (vm_log_tail(b->vm->dir, "console.log", TAIL_LINES, TAIL_BYTES, &tail) <= 0)
		buf_adds(&tail, "(nothing)");
	err_set(&inner, b->err->num, "%s", tail.oom ? "" : tail.data);
	err_wrap_code(&inner, b->err->code, ret, "%s", err_message(b->err));
	*b->err = inner;
	buf_done(&tail);
	return ret;
}

/* One line on "ready": ready, or failed CODE message. */
int boot_wait_ready(struct booting *b)
{
	char line[1024] = "", *space;
	size_t len = 0;
	enum err_code code;

	while (len < sizeof(line) - 1 && !memchr(line, '\n', len)) {
		struct pollfd p = { .fd = b->ready, .events = POLLIN };
		int n = poll(&p, 1, MIN(ms_left(b), GO_ON_MS));
		ssize_t got;

		if (n < 0 ? errno == EINTR : !n && ms_left(b)) {
			if (go_on(b))
				return err_set(b->err, EINTR, "stopped");
			continue;
		}
		if (n <= 0)
			return err_code(b->err, ERR_BOOT_TIMEOUT, ETIMEDOUT,
					"machinen-vmm did not start in time");
		got = read(b->ready, line + len, sizeof(line) - 1 - len);
		if (got <= 0)
			break;
		len += (size_t)got;
		line[len] = '\0';
	}
	line[strcspn(line, "\n")] = '\0';
	if (!strcmp(line, "ready"))
		return 0;
	if (strncmp(line, "failed ", 7))
		return boot_explain(b, err_code(b->err, ERR_BOOT_READINESS_FAILED, EIO,
					   "machinen-vmm ended before the VM ran"));
	space = strchr(line + 7, ' ');
	if (space)
		*space = '\0';
	code = err_code_parse(line + 7);
	if (code == ERR_BOOT_PORT_FORWARD_IN_USE)
		return boot_port_in_use(b, space ? space + 1 : line);
	return err_code(b->err, code ? code : ERR_BOOT_READINESS_FAILED, EIO, "%s",
			space ? space + 1 : "the VM could not be made");
}

/* The agent answers, or the VMM ends, or time is up. */
static int wait_agent(struct booting *b)
{
	struct err e = ERR_INIT;
	int ret;

	for (;;) {
		uint64_t slice = io_now_ns() + GO_ON_MS * 1000000ull;

		ret = session_probe(b->vm, MIN(slice, b->deadline), &e);
		if (!ret)
			return 0;
		if (ret != -ETIMEDOUT || slice >= b->deadline)
			break;
		if (go_on(b))
			return err_set(b->err, EINTR, "stopped");
		e = (struct err)ERR_INIT;
	}
	if (proc_wait(b->vm->pidfd, 0) > 0)
		return boot_explain(b, err_code(b->err, ERR_BOOT_READINESS_FAILED, EIO,
					   "the guest ended before it was ready"));
	if (ret == -ETIMEDOUT)
		return boot_explain(b, err_code(b->err, ERR_BOOT_TIMEOUT, ETIMEDOUT,
					   "the guest was not ready in %llu s; see --timeout",
					   (unsigned long long)(b->cfg->timeout_ms ?
					   b->cfg->timeout_ms : TIMEOUT_MS) / 1000));
	*b->err = e;
	return boot_explain(b, ret);
}

/* --- all of it ------------------------------------------------------------ */

static const struct boot_step steps[] = {
	{ NULL, check },
	{ NULL, boot_check_net },
	{ NULL, boot_check_ports },
	{ NULL, boot_check_mounts },
	{ NULL, find_parts },
	{ NULL, boot_settle },
	{ "registry", boot_enter },
	{ "disk", boot_disk },
	{ "mounts", boot_mounts },
	{ "kernel", boot_kernel },
	{ NULL, boot_channels },
	{ "spawn", boot_launch },
	{ "vmm", boot_wait_ready },
	{ "guest", wait_agent },
};

static void boot_undo(struct booting *b)
{
	struct mn_vm *vm = b->vm;

	if (vm->pidfd >= 0) {
		proc_signal(vm->pidfd, SIGKILL);
		proc_wait(vm->pidfd, 5000);
	}
	if (*b->tmp)
		registry_abort(&b->reg, b->tmp);
	else if (vm->reg.id.pid && b->reg.dir >= 0)
		registry_remove(&b->reg, &vm->reg);
}

int boot_run(struct booting *b, const struct mn_boot *cfg,
	     const struct boot_step *step, size_t nr, struct mn_vm **out)
{
	int ret = 0;

	b->cfg = cfg;
	b->vm = vm_alloc();
	b->ready = b->reg.dir = b->reg.lock = -1;
	b->since = io_now_ns();
	b->deadline = b->since +
		      (cfg->timeout_ms ? cfg->timeout_ms : TIMEOUT_MS) * 1000000;
	if (!b->vm)
		return err_set(b->err, ENOMEM, "out of memory");
	for (size_t i = 0; i < nr && !ret; i++) {
		ret = step[i].run(b);
		if (!ret && step[i].phase)
			ret = lib_phase(cfg->event, cfg->event_arg,
					step[i].phase, &b->since);
	}
	boot_close_own(b);
	io_close(b->ready);
	spec_done(&b->spec);
	if (ret) {
		boot_undo(b);
		vm_free(b->vm);
	} else {
		b->vm->ours = !cfg->detach;
		*out = b->vm;
	}
	registry_close(&b->reg);
	return ret;
}

static int boot(const struct mn_boot *cfg, struct mn_vm **out, struct err *err)
{
	struct booting b = { .err = err };

	spec_init(&b.spec);
	b.spec.net = !cfg->no_net;
	return boot_run(&b, cfg, steps, ARRAY_LEN(steps), out);
}

int mn_boot(const struct mn_boot *cfg, struct mn_vm **vm, struct mn_error *err)
{
	struct err e = ERR_INIT;
	struct mn_boot own;
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	*vm = NULL;
	if (!ret)
		ret = boot(&own, vm, &e);
	return lib_return(err, &e, ret);
}
