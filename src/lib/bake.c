// SPDX-License-Identifier: MIT
/*
 * bake.c - mn_bake: an image, changed by steps in a VM, becomes a new image.
 *
 * The VM boots like any other, with a layer of its own over the image's disk.  The
 * steps run through the agent; then the guest powers off, which leaves a clean file
 * system, and the host reads base and layer and writes the archive.  So nothing of
 * ours is in it, and nobody sees it before it is whole: it is written into a file
 * without a name that gets the image's name at the end.  Last, the disk of the new
 * image is prepared, so that its first boot finds it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "image/cache.h"
#include "lib/agent_client.h"
#include "lib/install.h"
#include "lib/newfile.h"
#include "lib/vm.h"

#define TAIL_MAX     800	/* bytes of a step's output in an error */
#define TAIL_LINES   20
#define STEP_MAX     200	/* bytes of a step's text in messages */
#define POWEROFF_MS  120000	/* a slow host may have much to write */

struct baking {
	const struct mn_bake *cfg;
	struct mn_vm *vm;
	char from[PATH_MAX];	/* the archive it begins with */
	int base, layer;	/* of the root disk; owned */
	struct newfile out;
	struct buf tail;	/* of the step's output */
	struct err *err;
};

/* A public error as one of ours. */
static int take_error(struct err *err, const struct mn_error *pub, int ret)
{
	enum err_code code = (enum err_code)pub->code;
	unsigned i = pub->nr_causes;

	if (!i)
		return err_code(err, code, pub->num, "%s", mn_error_message(pub));
	err_set(err, pub->num, "%s", mn_error_cause(pub, --i));
	while (i)
		err_wrap(err, ret, "%s", mn_error_cause(pub, --i));
	return err_wrap_code(err, code, ret, "%s", mn_error_message(pub));
}

/* --- before the VM -------------------------------------------------------- */

static int check_step(struct baking *b, const struct mn_step *s)
{
	struct stat st;

	if (!s->run == !s->copy_from)
		return err_set(b->err, EINVAL, "a step either runs or copies");
	if (s->run)
		return 0;
	if (!s->copy_to || s->copy_to[0] != '/')
		return err_code(b->err, ERR_MOUNT_PATH_INVALID, EINVAL,
				"copy to \"%s\": the guest's path must be absolute",
				s->copy_to ? s->copy_to : "");
	if (stat(s->copy_from, &st) < 0)
		return err_code(b->err, ERR_FILES_HOST_NOT_FOUND, errno,
				"cannot copy %s: %s", s->copy_from, strerror(errno));
	return 0;
}

/* What the writer would say of the name after the steps, it can say before. */
static bool archive_name(const char *name)
{
	static const char *const ends[] = { ".tar", ".tar.gz", ".tgz", ".tar.zst",
					    ".tzst", ".tar.xz", ".txz" };
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		size_t n = strlen(ends[i]);

		if (len > n && !strcmp(name + len - n, ends[i]))
			return true;
	}
	return false;
}

static int check(struct baking *b)
{
	const char *cwd = b->cfg->cwd;
	int ret = 0;

	if (!b->cfg->out || !archive_name(b->cfg->out))
		return err_code(b->err, ERR_PARSE_FLAG_MALFORMED, EINVAL,
				"\"%s\": an image's name ends in .tar, .tar.gz, .tar.zst or .tar.xz",
				b->cfg->out ? b->cfg->out : "");
	if (cwd && *cwd != '/')
		return err_code(b->err, ERR_BOOT_CWD_INVALID, EINVAL,
				"--cwd \"%s\": must be an absolute path", cwd);
	for (size_t i = 0; !ret && i < b->cfg->nr_steps; i++)
		ret = check_step(b, &b->cfg->steps[i]);
	return ret;
}

static int open_out(struct baking *b)
{
	return newfile_open(&b->out, b->cfg->out, b->err);
}

static int open_from(struct baking *b)
{
	char dir[PATH_MAX] = "", cache[PATH_MAX];
	struct image_opts opts = { .min_size = boot_min_size(b->cfg->disk_size) };
	struct cache_disk disk = CACHE_DISK_INIT;
	int ret = b->cfg->from ? 0 : base_find(dir, b->err);

	if (!ret)
		ret = boot_image_path(b->from, b->cfg->from, dir, b->err);
	if (!ret)
		ret = home_path(cache, "cache", b->err);
	/* it is the one that the VM booted from, else its layer does not fit */
	if (!ret)
		ret = cache_get(cache, b->from, &opts, &disk, b->err);
	b->base = disk.fd;
	disk.fd = -1;
	cache_disk_done(&disk);
	return ret;
}

/* --- in the VM ------------------------------------------------------------ */

static int start_vm(struct baking *b)
{
	struct mn_error pub = { .code = MN_OK };
	MN_CONFIG(struct mn_boot, boot);
	int ret;

	boot.image = b->cfg->from;
	boot.env = b->cfg->env;
	boot.memory_mib = b->cfg->memory_mib;
	boot.cpus = b->cfg->cpus;
	boot.disk_size = b->cfg->disk_size;
	boot.accel = b->cfg->accel;
	boot.engine = b->cfg->engine;
	boot.no_net = b->cfg->no_net;
	boot.timeout_ms = b->cfg->timeout_ms;
	boot.event = b->cfg->event;
	boot.event_arg = b->cfg->event_arg;
	ret = mn_boot(&boot, &b->vm, &pub);
	if (ret)
		return take_error(b->err, &pub, ret);
	b->layer = openat(b->vm->dir, "root.layer", O_RDONLY | O_CLOEXEC);
	return b->layer >= 0 ? 0 :
	       err_code(b->err, ERR_HOST_FAILED, errno, "the VM's disk is gone");
}

static int on_output(const struct mn_event *ev, void *arg)
{
	struct baking *b = arg;

	if (ev->type == MN_EVENT_STDOUT || ev->type == MN_EVENT_STDERR) {
		buf_add(&b->tail, ev->data, ev->len);
		if (b->tail.len > 16 * TAIL_MAX)
			buf_drop(&b->tail, b->tail.len - TAIL_MAX);
	}
	return b->cfg->event ? b->cfg->event(ev, b->cfg->event_arg) : 0;
}

/* What a step said last, as a cause. */
static void tail_cause(struct baking *b)
{
	size_t end = b->tail.len, at, lines = TAIL_LINES;

	while (end && strchr("\r\n", b->tail.data[end - 1]))
		end--;
	for (at = end; at && end - at < TAIL_MAX; at--)
		if (b->tail.data[at - 1] == '\n' && !--lines)
			break;
	err_set(b->err, EIO, "%s%.*s", end ? "its output ended with:\n" :
		"it said nothing", (int)(end - at), end ? b->tail.data + at : "");
}

static int run_command(struct baking *b, const struct mn_step *s, const char *what)
{
	struct mn_error pub = { .code = MN_OK };
	MN_CONFIG(struct mn_exec, exec);
	struct mn_exit end;
	int ret;

	exec.shell = s->run;
	exec.cwd = "/";		/* the baked one may be what steps are to make */
	exec.event = on_output;
	exec.event_arg = b;
	ret = mn_exec(b->vm, &exec, &end, &pub);
	if (ret) {
		take_error(b->err, &pub, ret);
		return err_wrap(b->err, ret, "%s", what);
	}
	if (!end.status)
		return 0;
	tail_cause(b);
	return err_wrap(b->err, -EIO, end.signaled ? "%s: ended by signal %d" :
			"%s: failed with status %d", what,
			end.signaled ? end.status - 128 : end.status);
}

static int run_copy(struct baking *b, const struct mn_step *s, const char *what)
{
	struct mn_error pub = { .code = MN_OK };
	MN_CONFIG(struct mn_copy, copy);
	int ret;

	copy.parents = true;
	copy.event = b->cfg->event;
	copy.event_arg = b->cfg->event_arg;
	ret = mn_push(b->vm, s->copy_from, s->copy_to, &copy, &pub);
	if (ret) {
		take_error(b->err, &pub, ret);
		err_wrap(b->err, ret, "%s", what);
	}
	return ret;
}

static int run_step(struct baking *b, size_t i)
{
	const struct mn_step *s = &b->cfg->steps[i];
	struct mn_event ev = { .type = MN_EVENT_STEP, .done = i + 1,
			       .total = b->cfg->nr_steps };
	char text[STEP_MAX + 8], what[STEP_MAX + 64];
	int n, ret;

	n = s->run ? snprintf(text, STEP_MAX, "run %s", s->run) :
		     snprintf(text, STEP_MAX, "copy %s:%s", s->copy_from, s->copy_to);
	if (n >= STEP_MAX)
		strcpy(text + STEP_MAX - 4, "...");
	snprintf(what, sizeof(what), "step %zu of %zu (%s)", i + 1, b->cfg->nr_steps,
		 text);
	ev.name = text;
	ret = b->cfg->event ? b->cfg->event(&ev, b->cfg->event_arg) : 0;
	if (ret)
		return err_set(b->err, -ret, "stopped");
	buf_clear(&b->tail);
	ret = s->run ? run_command(b, s, what) : run_copy(b, s, what);
	if (ret)
		b->err->code = ERR_PROVISION_INSTALL_HOOK_FAILED;
	return ret;
}

static int run_steps(struct baking *b)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < b->cfg->nr_steps; i++)
		ret = run_step(b, i);
	return ret;
}

/* A guest that powers off itself leaves no journal behind. */
static int end_vm(struct baking *b)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s}", "op", "poweroff");
	int fd = agent_request(b->vm->dir, b->vm->pidfd, req, NULL, b->err);

	if (fd < 0)
		return err_wrap(b->err, fd, "the VM cannot be powered off");
	io_close(fd);
	if (proc_wait(b->vm->pidfd, POWEROFF_MS) <= 0)
		return err_code(b->err, ERR_EXEC_TIMEOUT, ETIMEDOUT,
				"the VM did not power off in %d s", POWEROFF_MS / 1000);
	return 0;
}

/* --- after the VM --------------------------------------------------------- */

static bool same_key(const char *a, const char *b)
{
	size_t n = strcspn(a, "=");

	return !strncmp(a, b, n) && b[n] == '=';
}

/* The image's environment and ours on top; the array is owned, its words borrowed. */
static char **merge_env(char **baked, const char *const *more)
{
	const char **out;
	size_t n = 0, at = 0;

	for (size_t i = 0; baked && baked[i]; i++)
		n++;
	for (size_t i = 0; more && more[i]; i++)
		n++;
	out = calloc(n + 1, sizeof(*out));
	for (size_t i = 0, k; out && i < n; i++) {
		const char *word = baked && *baked ? *baked++ : *more++;

		for (k = 0; k < at && !same_key(word, out[k]); k++)
			;
		out[k] = word;
		at += k == at;
	}
	return (char **)(uintptr_t)out;
}

static void on_entries(void *arg, uint64_t entries)
{
	struct baking *b = arg;
	struct mn_event ev = { .type = MN_EVENT_NOTE };
	char text[64];

	if (!b->cfg->event)
		return;
	snprintf(text, sizeof(text), "writing the image: %llu entries",
		 (unsigned long long)entries);
	ev.name = text;
	b->cfg->event(&ev, b->cfg->event_arg);
}

static int export(struct baking *b)
{
	const struct image_config *baked = &b->vm->config;
	const int disk[] = { b->base, b->layer };
	struct image_config config = {
		.cmd = b->cfg->cmd ? (char **)(uintptr_t)b->cfg->cmd : baked->cmd,
		.cwd = b->cfg->cwd ? (char *)(uintptr_t)b->cfg->cwd : baked->cwd,
		.env = merge_env(baked->env, b->cfg->env),
	};
	struct image_export_opts opts = { .name = b->cfg->out, .clamp_times = true,
					  .progress = on_entries, .arg = b };
	int ret;

	if (!config.env)
		return err_set(b->err, ENOMEM, "out of memory");
	if (config.cmd || config.cwd || *config.env)
		opts.config = &config;
	ret = image_export(disk, ARRAY_LEN(disk), b->out.fd, &opts, NULL, b->err);
	free(config.env);
	if (!ret)
		ret = newfile_place(&b->out, b->err);
	return ret ? err_wrap(b->err, ret, "cannot write the image %s", b->cfg->out) : 0;
}

static void on_prime(void *arg, uint64_t done, uint64_t total)
{
	struct baking *b = arg;

	lib_progress(b->cfg->event, b->cfg->event_arg, "preparing its disk", done, total);
}

/* The image is there; that its disk is not costs the first boot its time alone. */
static int prime(struct baking *b)
{
	struct image_opts opts = { .progress = on_prime, .arg = b };
	struct cache_disk disk = CACHE_DISK_INIT;
	struct err none = ERR_INIT;
	char cache[PATH_MAX];

	if (!home_path(cache, "cache", &none))
		cache_get(cache, b->cfg->out, &opts, &disk, &none);
	cache_disk_done(&disk);
	return 0;
}

static const struct {
	const char *phase;
	int (*run)(struct baking *b);
} stages[] = {
	{ NULL, check },
	{ NULL, open_out },
	{ "image", open_from },
	{ "boot", start_vm },
	{ "steps", run_steps },
	{ "power-off", end_vm },
	{ "export", export },
	{ "prepare", prime },
};

static int bake(const struct mn_bake *cfg, struct err *err)
{
	struct baking b = { .cfg = cfg, .base = -1, .layer = -1, .out = NEWFILE_INIT,
			    .err = err };
	uint64_t since = io_now_ns();
	int ret = 0;

	for (size_t i = 0; !ret && i < ARRAY_LEN(stages); i++) {
		ret = stages[i].run(&b);
		if (!ret && stages[i].phase)
			ret = lib_phase(cfg->event, cfg->event_arg, stages[i].phase,
					&since);
	}
	newfile_done(&b.out);
	io_close(b.base);
	io_close(b.layer);
	buf_done(&b.tail);
	mn_vm_free(b.vm);
	return ret;
}

int mn_bake(const struct mn_bake *cfg, struct mn_error *err)
{
	struct err e = ERR_INIT;
	struct mn_bake own;
	int ret = lib_config(&own, sizeof(own), cfg, &e);

	return lib_return(err, &e, ret ? ret : bake(&own, &e));
}
