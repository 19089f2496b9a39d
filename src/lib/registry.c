// SPDX-License-Identifier: MIT
/*
 * registry.c - which VMs there are; see registry.h.
 *
 * Theory of operation.  A VM's directory is made under a temporary name, filled,
 * and renamed to its pid once the process exists.  Claiming a name, renaming and
 * removing happen under one flock(2), which the kernel drops when its holder
 * dies, so there is no stale lock to break.  Looking is done without the lock:
 * every file is replaced by rename, so a reader sees an old or a new one, and
 * what it says is checked against /proc in any case.
 *
 * Names are stored flat, with '/' as '%' (which no name may hold): "web" and
 * "web/1" must be able to exist side by side.
 */
#include "lib/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/opt.h"
#include "base/util.h"
#include "lib/lib.h"

#define META_VERSION 1
#define META_MAX     (256u << 10)
#define NEAR_MAX     3		/* names in an error's suggestion */

int registry_open(struct registry *r, struct err *err)
{
	int ret;

	*r = (struct registry){ .dir = -1, .lock = -1 };
	ret = home_registry(r->path, err);
	if (ret)
		return ret;
	r->dir = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->dir < 0)
		return lib_host_err(err, -errno, r->path, "cannot open");
	if (mkdirat(r->dir, "names", 0700) < 0 && errno != EEXIST)
		ret = lib_host_err(err, -errno, r->path, "cannot write to");
	r->lock = openat(r->dir, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (!ret && r->lock < 0)
		ret = lib_host_err(err, -errno, r->path, "cannot write to");
	if (ret)
		registry_close(r);
	return ret;
}

void registry_close(struct registry *r)
{
	io_close(r->dir);
	io_close(r->lock);
	r->dir = r->lock = -1;
}

static int lock(struct registry *r, struct err *err)
{
	while (flock(r->lock, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_set(err, errno, "cannot lock %s", r->path);
	return 0;
}

static void unlock(struct registry *r)
{
	flock(r->lock, LOCK_UN);
}

static bool all_digits(const char *s)
{
	return *s && !s[strspn(s, "0123456789")];
}

int registry_check_name(const char *name, struct err *err)
{
	const char *why = NULL;

	if (!*name || strlen(name) > REG_NAME_MAX)
		why = "a name has 1 to 200 characters";
	else if (all_digits(name))
		why = "digits alone mean a pid";
	else if (*name == '/' || name[strlen(name) - 1] == '/' || strstr(name, "//"))
		why = "a name is like a/b/c";
	else if (*name == '-')
		why = "a name does not begin with -";
	for (const char *p = name; *p && !why; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("._-~+@/", *p))
			why = "a name is made of letters, digits, . _ - ~ + @ and /";
		else if (*p == '.' && (p == name || p[-1] == '/') &&
			 (!p[1] || p[1] == '/' || p[1] == '.'))
			why = "no part of a name is . or begins with ..";
	}
	return why ? err_code(err, ERR_REGISTRY_NAME_INVALID, EINVAL,
			      "\"%.*s\": %s", REG_NAME_MAX, name, why) : 0;
}

static void name_path(const char *name, char path[REG_NAME_MAX + 16])
{
	int n = snprintf(path, REG_NAME_MAX + 16, "names/%s", name);

	for (int i = 6; i < n; i++)
		if (path[i] == '/')
			path[i] = '%';
}

/* --- meta.json ------------------------------------------------------------ */

static json_t *meta_json(const struct reg_vm *vm)
{
	return json_pack("{s:i, s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:b, "
			 "s:{s:I, s:s, s:I, s:I}}",
			 "schema_version", META_VERSION, "pid", (int)vm->id.pid,
			 "name", vm->name, "forked_from", vm->forked_from,
			 "image", vm->image, "image_sha256", vm->image_sha256,
			 "kernel", vm->kernel, "kernel_sha256", vm->kernel_sha256,
			 "accel", vm->accel,
			 "memory_mib", (json_int_t)vm->memory_mib,
			 "cpus", (json_int_t)vm->cpus,
			 "started_at_ms", (json_int_t)vm->started_at_ms,
			 "detached", vm->detached,
			 "process", "start", (json_int_t)vm->id.start,
			 "boot", vm->id.boot, "dev", (json_int_t)vm->id.dev,
			 "ino", (json_int_t)vm->id.ino);
}

static int meta_write(int dirfd, const struct reg_vm *vm, struct err *err)
{
	json_t *doc = meta_json(vm);
	struct buf text = BUF_INIT;
	int ret;

	if (!doc)
		return err_set(err, EINVAL, "the VM's description is not UTF-8");
	json_print(doc, &text);
	json_decref(doc);
	ret = text.oom ? -ENOMEM :
	      io_write_file(dirfd, "meta.json", text.data, text.len, 0600);
	buf_done(&text);
	return ret ? err_set(err, -ret, "cannot write meta.json: %s", strerror(-ret)) : 0;
}

static void copy_str(char *to, size_t size, const json_t *doc, const char *key,
		     struct err *err)
{
	snprintf(to, size, "%s", json_str_opt(doc, key, "", err));
}

static void meta_take(struct reg_vm *vm, const json_t *doc, struct err *err)
{
	const json_t *p = json_obj_opt(doc, "process", err);

	copy_str(vm->name, sizeof(vm->name), doc, "name", err);
	copy_str(vm->forked_from, sizeof(vm->forked_from), doc, "forked_from", err);
	copy_str(vm->image, sizeof(vm->image), doc, "image", err);
	copy_str(vm->image_sha256, sizeof(vm->image_sha256), doc, "image_sha256", err);
	copy_str(vm->kernel, sizeof(vm->kernel), doc, "kernel", err);
	copy_str(vm->kernel_sha256, sizeof(vm->kernel_sha256), doc, "kernel_sha256", err);
	copy_str(vm->accel, sizeof(vm->accel), doc, "accel", err);
	vm->memory_mib = (uint64_t)json_int(doc, "memory_mib", 0, INT64_MAX, err);
	vm->cpus = (uint64_t)json_int(doc, "cpus", 0, 4096, err);
	vm->started_at_ms = json_int(doc, "started_at_ms", 0, INT64_MAX, err);
	vm->detached = json_bool_opt(doc, "detached", false, err);
	vm->id.pid = (pid_t)json_int(doc, "pid", 1, INT_MAX, err);
	if (!p)
		return;
	vm->id.start = (uint64_t)json_int(p, "start", 0, INT64_MAX, err);
	vm->id.dev = (uint64_t)json_int(p, "dev", INT64_MIN, INT64_MAX, err);
	vm->id.ino = (uint64_t)json_int(p, "ino", INT64_MIN, INT64_MAX, err);
	copy_str(vm->id.boot, sizeof(vm->id.boot), p, "boot", err);
}

/* The entry of a pid; whatever is wrong with it, vm->id.pid is set. */
static int meta_read(struct registry *r, pid_t pid, struct reg_vm *vm)
{
	struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	json_t *doc = NULL;
	char path[48];
	int ret;

	memset(vm, 0, sizeof(*vm));
	vm->id.pid = pid;
	snprintf(path, sizeof(path), "%d/meta.json", pid);
	ret = io_read_file(r->dir, path, META_MAX, &text);
	if (!ret)
		doc = json_parse(text.data, text.len, &err);
	buf_done(&text);
	if (doc)
		meta_take(vm, doc, &err);
	json_decref(doc);
	if (!ret && (err.num || vm->id.pid != pid))
		ret = -EINVAL;
	vm->id.pid = pid;
	return ret;
}

/* --- looking -------------------------------------------------------------- */

/*
 * What can be said of an entry that was read with result `got`.  Only what is known
 * to be dead may be cleared away: a process that is out of descriptors or memory
 * cannot read anything, and must not take that for a host without VMs.
 */
static enum proc_state state_of(const struct reg_vm *vm, int got)
{
	if (!got)
		return proc_check(&vm->id);
	if (got == -ENOENT)
		return PROC_DEAD;
	if (got == -EINVAL || got == -EFBIG)
		return kill(vm->id.pid, 0) < 0 && errno == ESRCH ? PROC_DEAD :
								   PROC_UNKNOWN;
	return PROC_UNKNOWN;
}

/* The pid behind a name's file, 0 when there is none; or -errno. */
static pid_t name_pid(struct registry *r, const char *path)
{
	struct buf text = BUF_INIT;
	int ret = io_read_file(r->dir, path, 64, &text);
	pid_t pid = ret || !text.data ? 0 : atoi(text.data);

	buf_done(&text);
	return ret && ret != -ENOENT ? ret : MAX(pid, 0);
}

static pid_t target_pid(struct registry *r, const char *target)
{
	char path[REG_NAME_MAX + 16];
	uint64_t pid;

	if (all_digits(target))
		return opt_uint(target, &pid) && pid <= INT_MAX ? (pid_t)pid : 0;
	if (registry_check_name(target, NULL))
		return 0;
	name_path(target, path);
	return name_pid(r, path);
}

static int unreadable(struct registry *r, const char *target, int ret, struct err *err)
{
	return err_code(err, ERR_HOST_FAILED, -ret, "cannot read what %s says of \"%s\": %s",
			r->path, target, strerror(-ret));
}

/* Whether the entry is of this name, when target is one. */
static bool is_target(const char *target, const struct reg_vm *vm)
{
	return all_digits(target) || !strcmp(target, vm->name);
}

int registry_name_free(struct registry *r, const char *name, struct err *err)
{
	pid_t pid = target_pid(r, name);
	enum proc_state state;
	struct reg_vm vm;
	int got;

	if (pid <= 0)
		return pid ? unreadable(r, name, pid, err) : 0;
	got = meta_read(r, pid, &vm);
	state = state_of(&vm, got);
	if (state == PROC_UNKNOWN)
		return unreadable(r, name, got ? got : -EAGAIN, err);
	if (state != PROC_LIVE || strcmp(vm.name, name))
		return 0;
	return err_code(err, ERR_REGISTRY_NAME_IN_USE, EEXIST,
			"the name %s is taken by pid %d; choose another or run: machinen stop %s",
			name, pid, name);
}

struct near {
	const char *target;	/* borrowed */
	struct {
		char name[REG_NAME_MAX + 1];
		unsigned distance;
	} best[NEAR_MAX];
	unsigned nr;
};

static int near_each(const struct reg_vm *vm, enum proc_state state, void *arg)
{
	struct near *n = arg;
	unsigned d, at;

	if (state != PROC_LIVE || !vm->name[0])
		return 0;
	d = strncmp(vm->name, n->target, strlen(n->target)) ?
	    opt_distance(n->target, vm->name) : 1;
	if (d > 2 + strlen(n->target) / 4)
		return 0;
	for (at = 0; at < n->nr && n->best[at].distance <= d; at++)
		;
	if (at == NEAR_MAX)
		return 0;
	n->nr = MIN(n->nr + 1, (unsigned)NEAR_MAX);
	memmove(&n->best[at + 1], &n->best[at],
		(n->nr - at - 1) * sizeof(n->best[0]));
	memcpy(n->best[at].name, vm->name, sizeof(vm->name));
	n->best[at].distance = d;
	return 0;
}

static int not_found(struct registry *r, const char *target, struct err *err)
{
	struct near n = { .target = target };
	char list[NEAR_MAX * (REG_NAME_MAX + 6)] = "";
	size_t len = 0;

	if (!all_digits(target))
		registry_each(r, near_each, &n, NULL);
	for (unsigned i = 0; i < n.nr; i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s\"%s\"",
					i ? " or " : "", n.best[i].name);
	if (n.nr)
		return err_code(err, ERR_REGISTRY_VM_NOT_FOUND, ENOENT,
				"no running VM \"%s\"; did you mean %s?", target, list);
	return err_code(err, ERR_REGISTRY_VM_NOT_FOUND, ENOENT,
			"no running VM \"%s\"; machinen list shows them", target);
}

int registry_look(struct registry *r, const char *target, struct reg_vm *vm,
		  enum proc_state *state, struct err *err)
{
	pid_t pid = target_pid(r, target);
	int got = pid > 0 ? meta_read(r, pid, vm) : pid ? pid : -ENOENT;

	*state = pid < 0 ? PROC_UNKNOWN : state_of(vm, got);
	if (*state == PROC_UNKNOWN)
		return unreadable(r, target, got ? got : -EAGAIN, err);
	return got || !is_target(target, vm) ? not_found(r, target, err) : 0;
}

int registry_find(struct registry *r, const char *target, struct reg_vm *vm,
		  struct err *err)
{
	enum proc_state state = PROC_DEAD;
	int ret = registry_look(r, target, vm, &state, err);

	if (!ret && state != PROC_LIVE)
		ret = not_found(r, target, err);
	return ret;
}

static const char *vm_path(pid_t pid, char path[24])
{
	snprintf(path, 24, "%d", pid);
	return path;
}

static int by_number(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

/* The pids that have a directory, sorted; the array is the caller's. */
static int list_pids(struct registry *r, pid_t **out, size_t *nr)
{
	int fd = openat(r->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	size_t cap = 0;
	struct dirent *de;
	int ret = 0;

	*out = NULL;
	*nr = 0;
	if (!dir) {
		io_close(fd);
		return -EIO;
	}
	while (!ret && (de = readdir(dir))) {
		if (!all_digits(de->d_name))
			continue;
		if (*nr == cap) {
			pid_t *v = reallocarray(*out, cap ? cap *= 2 : (cap = 64),
						sizeof(*v));

			if (!v) {
				ret = -ENOMEM;
				break;
			}
			*out = v;
		}
		(*out)[(*nr)++] = atoi(de->d_name);
	}
	closedir(dir);
	if (*nr)
		qsort(*out, *nr, sizeof(**out), by_number);
	return ret;
}

int registry_each(struct registry *r,
		  int (*each)(const struct reg_vm *vm, enum proc_state state,
			      void *arg),
		  void *arg, struct err *err)
{
	size_t nr;
	pid_t *pids;
	int ret = list_pids(r, &pids, &nr);

	if (ret)
		err_set(err, -ret, "cannot read %s", r->path);
	for (size_t i = 0; i < nr && !ret; i++) {
		struct reg_vm vm;
		char path[24];
		int got = meta_read(r, pids[i], &vm);

		if (got == -ENOENT && faccessat(r->dir, vm_path(pids[i], path),
						F_OK, 0))
			continue;	/* removed while we walked */
		ret = each(&vm, state_of(&vm, got), arg);
	}
	free(pids);
	return ret;
}

int registry_vm_dir(struct registry *r, pid_t pid)
{
	char path[24];
	int fd = openat(r->dir, vm_path(pid, path),
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* --- changing ------------------------------------------------------------- */

int registry_begin(struct registry *r, char tmp[32], struct err *err)
{
	for (unsigned i = 0; i < 100; i++) {
		int fd;

		snprintf(tmp, 32, ".new.%x.%llx", (unsigned)getpid(),
			 (unsigned long long)io_now_ns() + i);
		if (mkdirat(r->dir, tmp, 0700) < 0) {
			if (errno == EEXIST)
				continue;
			return lib_host_err(err, -errno, r->path, "cannot write to");
		}
		fd = openat(r->dir, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT)
			return lib_host_err(err, -errno, r->path, "cannot use a directory in");
		/* before it has the lock a gc may take it for abandoned */
		if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) &&
		    !faccessat(r->dir, tmp, F_OK, 0))
			return fd;
		io_close(fd);
		unlinkat(r->dir, tmp, AT_REMOVEDIR);
	}
	return err_set(err, EEXIST, "cannot make a directory in %s", r->path);
}

/* Under the lock: a name's file now says pid. */
static int claim(struct registry *r, const char *name, pid_t pid, struct err *err)
{
	char path[REG_NAME_MAX + 16], text[16];
	int ret = registry_name_free(r, name, err);

	if (ret)
		return ret;
	name_path(name, path);
	snprintf(text, sizeof(text), "%d\n", pid);
	ret = io_write_file(r->dir, path, text, strlen(text), 0600);
	return ret ? lib_host_err(err, ret, r->path, "cannot write to") : 0;
}

static void unclaim(struct registry *r, const char *name, pid_t pid)
{
	char path[REG_NAME_MAX + 16];

	name_path(name, path);
	if (name_pid(r, path) == pid)
		unlinkat(r->dir, path, 0);
}

int registry_commit(struct registry *r, const char *tmp, int dirfd,
		    const struct reg_vm *vm, struct err *err)
{
	char final[24];
	int ret = meta_write(dirfd, vm, err);

	if (!ret)
		ret = lock(r, err);
	if (ret)
		return ret;
	if (vm->name[0])
		ret = claim(r, vm->name, vm->id.pid, err);
	if (!ret) {
		/* what is there is of a dead process: the pid is now ours */
		io_remove_tree(r->dir, vm_path(vm->id.pid, final));
		if (renameat(r->dir, tmp, r->dir, final) < 0)
			ret = lib_host_err(err, -errno, r->path, "cannot write to");
		if (ret && vm->name[0])
			unclaim(r, vm->name, vm->id.pid);
	}
	unlock(r);
	return ret;
}

void registry_abort(struct registry *r, const char *tmp)
{
	io_remove_tree(r->dir, tmp);
}

int registry_update(struct registry *r, const struct reg_vm *vm, struct err *err)
{
	cleanup(io_closep) int dir = registry_vm_dir(r, vm->id.pid);

	if (dir < 0)
		return err_code(err, ERR_REGISTRY_VM_NOT_FOUND, -dir,
				"VM %d has ended", vm->id.pid);
	return meta_write(dir, vm, err);
}

/* Under the lock.  The pid may have come back as another VM meanwhile. */
static int remove_locked(struct registry *r, pid_t pid)
{
	struct reg_vm now;
	enum proc_state state = state_of(&now, meta_read(r, pid, &now));
	char path[24];

	if (state == PROC_LIVE || state == PROC_UNKNOWN)
		return -EBUSY;
	if (now.name[0])
		unclaim(r, now.name, pid);
	return io_remove_tree(r->dir, vm_path(pid, path));
}

int registry_remove(struct registry *r, const struct reg_vm *vm)
{
	int ret = lock(r, NULL);

	if (ret)
		return ret;
	ret = remove_locked(r, vm->id.pid);
	unlock(r);
	return ret;
}
