// SPDX-License-Identifier: MIT
/*
 * layers.c - the files of a running VM's disks stay few; see resume.h and
 * docs/snapshot.md, "Chains of layers".
 *
 * The VMM merges and knows no names; here are names.  A layer's file is in use when
 * the VMM has it, or when somebody is about to hand it over.  Who makes one holds
 * layers.lock shared from before until the VMM has answered; who removes what is no
 * longer in use holds it alone, and does without when others are at it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/resume.h"
#include "proto/ctl.h"

#define MANY	 8		/* layers of a disk: a merge is begun */
#define TOO_MANY 48		/* … and waited for; the limit is SPEC_MAX_LAYERS */
#define LOCK	 "layers.lock"
#define SUFFIX	 ".layer"
#define POLL_MS	 100		/* how soon a caller's wish to stop is seen */

/* --- which are in use ------------------------------------------------------- */

int layers_making(const struct mn_vm *vm)
{
	int fd = openat(vm->dir, LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0 && flock(fd, LOCK_SH) < 0) {
		io_close(fd);
		return -errno;
	}
	return fd < 0 ? -errno : fd;
}

struct in_use {
	ino_t ino[SPEC_MAX_FDS];
	unsigned nr;
};

static int ask_layers(int ctl, const char *id, struct in_use *used)
{
	json_t *req = json_pack("{s:s, s:s}", "op", "layers", "id", id), *doc = NULL;
	int fds[SPEC_MAX_LAYERS], ret = ctl_send(ctl, req, NULL, 0, NULL);
	unsigned nr = ARRAY_LEN(fds);
	struct stat st;

	json_decref(req);
	if (ret || ctl_recv(ctl, &doc, fds, &nr, NULL) <= 0)
		return -EIO;
	ret = json_is_true(json_object_get(doc, "ok")) ? 0 : -EIO;
	json_decref(doc);
	while (nr) {
		if (fstat(fds[--nr], &st) < 0 || used->nr == ARRAY_LEN(used->ino))
			ret = -EIO;
		else
			used->ino[used->nr++] = st.st_ino;
		io_close(fds[nr]);
	}
	return ret;
}

static bool is_used(const struct in_use *used, ino_t ino)
{
	for (unsigned i = 0; i < used->nr; i++)
		if (used->ino[i] == ino)
			return true;
	return false;
}

static void remove_others(int vm_dir, const struct in_use *used)
{
	DIR *dir = fdopendir(openat(vm_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *de;
	struct stat st;

	while (dir && (de = readdir(dir))) {
		size_t len = strlen(de->d_name);

		if (len > strlen(SUFFIX) &&
		    !strcmp(de->d_name + len - strlen(SUFFIX), SUFFIX) &&
		    !fstatat(vm_dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    !is_used(used, st.st_ino))
			unlinkat(vm_dir, de->d_name, 0);
	}
	if (dir)
		closedir(dir);
}

/* What a merge replaced, and what a killed requester left. */
static void sweep(struct mn_vm *vm)
{
	cleanup(io_closep) int lock = openat(vm->dir, LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cleanup(json_putp) json_t *status = NULL;
	cleanup(io_closep) int ctl = -1;
	struct in_use used = { .nr = 0 };
	json_t *disk;
	size_t i;

	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0 ||
	    vm_ctl(vm, json_pack("{s:s}", "op", "status"), &status, NULL) ||
	    !json_is_false(json_object_get(status, "merging")))
		return;
	ctl = socket_connect(vm->dir, "control", SOCK_SEQPACKET, NULL);
	json_array_foreach(json_object_get(status, "disks"), i, disk)
		if (ctl < 0 || ask_layers(ctl, json_str_opt(disk, "id", "", NULL), &used))
			return;
	remove_others(vm->dir, &used);
}

/* --- merging ---------------------------------------------------------------- */

/* How a merge is waited for. */
struct patience {
	mn_event_fn fn;		/* may say that nobody waits any more */
	void *arg;
	bool wait;		/* to the end, not to the beginning */
};

/* One packet; nothing but its sender ends the wait, or the caller's wish. */
static int receive(int ctl, const struct patience *p, json_t **doc)
{
	struct pollfd fd = { .fd = ctl, .events = POLLIN };
	int ret = 0;

	while (!ret) {
		ret = lib_progress(p->fn, p->arg, "merging disk layers", 0, 0);
		if (!ret)
			ret = poll(&fd, 1, POLL_MS);
		if (ret < 0 && errno == EINTR)
			ret = 0;
	}
	if (ret > 0)
		ret = ctl_recv(ctl, doc, NULL, NULL, NULL);
	return ret > 0 ? 0 : -EPIPE;
}

/*
 * Hands the VMM a file to merge into.  1: another disk's merge was under way, and
 * with p->wait it is over now.
 */
static int merge(struct mn_vm *vm, const char *id, const struct patience *p)
{
	cleanup(io_closep) int lock = layers_making(vm);
	cleanup(io_closep) int ctl = socket_connect(vm->dir, "control", SOCK_SEQPACKET, NULL);
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:s}", "op", "merge", "id", id);
	char name[48];
	int fd = ctl < 0 ? ctl : resume_new_layer(vm->dir, id, name, sizeof(name), NULL);
	int ret = fd < 0 ? fd : ctl_send(ctl, req, &fd, 1, NULL);
	bool taken = false, over = false;

	while (!ret && !over) {
		json_t *doc = NULL, *progress;

		ret = receive(ctl, p, &doc);
		progress = json_object_get(doc, "progress");
		taken |= json_is_true(json_object_get(progress, "taken"));
		over = !progress || !p->wait;
		if (!ret && !progress && !json_is_true(json_object_get(doc, "ok")))
			ret = -EIO;
		json_decref(doc);
	}
	io_close(fd);
	if (fd >= 0 && !taken)
		unlinkat(vm->dir, name, 0);
	return ret ? ret : !taken;
}

static int layers_of(const json_t *disk)
{
	return json_is_true(json_object_get(disk, "readonly")) ? 0 :
	       (int)json_int_opt(disk, "layers", 1, SPEC_MAX_LAYERS, 1, NULL);
}

/* A merge that fails is no failure of ours: there is room up to the limit. */
static void shorten(struct mn_vm *vm, int from, const struct patience *p)
{
	cleanup(json_putp) json_t *status = NULL;
	json_t *disk;
	size_t i;

	vm_ctl(vm, json_pack("{s:s}", "op", "status"), &status, NULL);
	json_array_foreach(json_object_get(status, "disks"), i, disk) {
		const char *id = json_str_opt(disk, "id", "", NULL);
		int ret = layers_of(disk) < from ? 0 : merge(vm, id, p);

		while (ret > 0 && p->wait)
			ret = merge(vm, id, p);
	}
}

void layers_before(struct mn_vm *vm, mn_event_fn fn, void *arg)
{
	struct patience p = { .fn = fn, .arg = arg, .wait = true };

	sweep(vm);
	shorten(vm, TOO_MANY, &p);
}

void layers_after(struct mn_vm *vm)
{
	struct patience p = { .wait = false };

	shorten(vm, MANY, &p);
}
