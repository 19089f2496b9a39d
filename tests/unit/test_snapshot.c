// SPDX-License-Identifier: MIT
/*
 * Snapshot, restore and fork of VMs whose guest is a C function.  VMs are real
 * processes here, sandbox and all, talked to over their control sockets.
 *
 * A sibling starts threads after a fork(2) with threads: under TSan run this with
 * TSAN_OPTIONS=die_after_fork=0.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/fake_vm.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "layer/layer.h"
#include "proto/ctl.h"
#include "proto/memsum.h"
#include "vmm/process.h"
#include "vmm/vm.h"

#define COUNTER	(2 * PAGE_SIZE)		/* the guest counts here */
#define RAM	(96 * MIB)

static char dir[64];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/snap-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	return io_remove_tree(AT_FDCWD, dir);
}

static const char *in_dir(const char *name)
{
	static char path[512][128];	/* live long enough for any test */
	static unsigned next;
	char *p = path[next++ % 512];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

/* Counts, and dirties a page in each of the chunks now and then. */
static enum accel_exit counting_guest(struct vcpu *c, struct err *err)
{
	uint64_t *n = mem_ptr(&c->vm->mem, COUNTER, 8);
	uint8_t *far = mem_ptr(&c->vm->mem, 70 * MIB, 1);

	++*n;
	*far = 1 + *n % 100;
	c->vm->accel->vcpu_kick(c);
	return ACCEL_EXIT_KICK;
}

static int listen_at(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(strlen(path) < sizeof(sa.sun_path));
	strcpy(sa.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

/* Every VM, siblings too, ends when this program does, however it does. */
static int alive[2];

struct running {
	pid_t pid;
	int ctl;
	char ready[300];
};

/* Until the guest ran a few times. */
static void wait_for_guest(int ctl)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s}", "op", "status");
	struct err err = ERR_INIT;
	int64_t runs = 0;

	while (runs < 5) {
		json_t *a = NULL;

		assert_int_equal(ctl_call(ctl, req, NULL, 0, NULL, NULL, &a, &err), 0);
		runs = json_int(json_object_get(a, "counters"), "runs", 0,
				INT32_MAX, NULL);
		json_decref(a);
	}
}

/* A base of 1 MiB with one layer on it, as roles root.0 and root.1. */
static void add_disk(struct spec *spec, struct spec_fds *fds)
{
	int base = open(in_dir("base"), O_RDWR | O_CREAT, 0600);
	int top = open(in_dir("top"), O_RDWR | O_CREAT, 0600);

	if (ftruncate(base, MIB) || layer_create(top, base, true, 0, NULL))
		_exit(99);
	spec_fds_add(fds, base, "root.0");
	spec_fds_add(fds, top, "root.1");
	spec->disk[0].id = strdup("root");
	spec->disk[0].nr_layers = 2;
	spec->nr_disks = 1;
}

static bool with_disk;

/* bundle: NULL to boot. */
static void start_as(struct running *r, const char *name, const char *bundle, bool wait)
{
	struct spec_fds fds = { .nr = 0 };
	char sock[64];
	struct err err = ERR_INIT;
	struct spec spec;
	int ready[2], listener;
	ssize_t n;

	fake_vm.guest = counting_guest;
	snprintf(sock, sizeof(sock), "%s.sock", name);
	listener = listen_at(in_dir(sock));
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	r->pid = fork();
	if (!r->pid) {
		spec_init(&spec);
		spec.memory_mib = RAM / MIB;
		spec.cpu_model = strdup("portable");
		spec.restore = bundle;
		spec_fds_add(&fds, listener, "control");
		spec_fds_add(&fds, ready[1], "ready");
		close(alive[1]);
		spec_fds_add(&fds, alive[0], "alive");
		spec_fds_add(&fds, open("/dev/null", O_WRONLY), "log");
		if (with_disk)
			add_disk(&spec, &fds);
		if (bundle)
			spec_fds_add(&fds, open(bundle, O_RDONLY | O_DIRECTORY),
				     "bundle");
		_exit(process_run(&spec, &fds, NULL));
	}
	close(ready[1]);
	close(listener);
	n = io_read_full(ready[0], r->ready, sizeof(r->ready) - 1);
	r->ready[n > 0 ? n : 0] = '\0';
	close(ready[0]);
	r->ctl = strcmp(r->ready, "ready\n") ? -1 : ctl_connect(in_dir(sock), &err);
	if (r->ctl >= 0 && wait)
		wait_for_guest(r->ctl);
}

static void start(struct running *r, const char *name, const char *bundle)
{
	start_as(r, name, bundle, true);
}

static int stop(struct running *r)
{
	int status;

	close(r->ctl);
	kill(r->pid, SIGTERM);
	waitpid(r->pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- snapshots ---- */

static unsigned progress_packets;

static void on_progress(const json_t *p, void *arg)
{
	progress_packets++;
}

static int snapshot_into(int ctl, bool keep, const char *const path[3], json_t **answer,
			 struct err *err)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:b, s:[s,s,s]}", "op",
		"snapshot", "keep_alive", keep, "roles", "state", "memory", "sums");
	int fd[3], ret;

	err_clear(err);
	for (int i = 0; i < 3; i++)
		fd[i] = open(path[i], O_RDWR | O_CREAT, 0600);
	ret = ctl_call(ctl, req, fd, 3, on_progress, NULL, answer, err);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	return ret;
}

static int snapshot(int ctl, bool keep, const char *bundle, struct err *err)
{
	char path[3][128];
	const char *const p[3] = { path[0], path[1], path[2] };
	json_t *a = NULL;
	int ret;

	mkdir(bundle, 0700);
	snprintf(path[0], 128, "%s/state", bundle);
	snprintf(path[1], 128, "%s/memory", bundle);
	snprintf(path[2], 128, "%s/sums", bundle);
	ret = snapshot_into(ctl, keep, p, &a, err);
	if (!ret) {
		assert_true(json_int(json_object_get(a, "phases"), "pause_us", 0,
				     10000000, NULL) > 0);
		assert_true(json_int(json_object_get(a, "memory"), "pages", 1,
				     1000, NULL) < 100);
	}
	json_decref(a);
	return ret;
}

static uint64_t counter_in(const char *bundle)
{
	char path[128];
	uint64_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/memory", bundle);
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, &n, 8, COUNTER), 8);
	close(fd);
	return n;
}

static int verify(const char *bundle, struct err *err)
{
	char path[128];
	struct buf sums = BUF_INIT;
	int fd, ret;

	err_clear(err);
	snprintf(path, sizeof(path), "%s/sums", bundle);
	assert_int_equal(io_read_file(AT_FDCWD, path, 1 << 20, &sums), 0);
	snprintf(path, sizeof(path), "%s/memory", bundle);
	fd = open(path, O_RDONLY);
	ret = memsum_verify(fd, sums.data, sums.len, NULL, NULL, err);
	close(fd);
	buf_done(&sums);
	return ret;
}

static uint64_t runs_on(struct running *r)
{
	static unsigned nr;
	struct err err = ERR_INIT;
	char name[32], path[128];

	snprintf(name, sizeof(name), "probe%u", nr++);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(snapshot(r->ctl, true, path, &err), 0);
	return counter_in(path);
}

/* Waits for the guest to get further than n. */
static void runs_past(struct running *r, uint64_t n)
{
	unsigned tries = 0;

	while (runs_on(r) <= n)
		assert_true(tries++ < 1000);
}

static void source_goes_on_and_bundle_resumes(void **state)
{
	const char *one = in_dir("one");
	struct running src, dst;
	struct err err = ERR_INIT;
	struct stat st;
	uint64_t n;

	progress_packets = 0;
	start(&src, "src", NULL);
	assert_int_equal(snapshot(src.ctl, true, one, &err), 0);
	assert_true(progress_packets > 0);
	n = counter_in(one);
	assert_int_equal(verify(one, &err), 0);
	stat(in_dir("one/memory"), &st);
	assert_true((uint64_t)st.st_size == RAM && (uint64_t)st.st_blocks * 512 < MIB);
	runs_past(&src, n);
	assert_int_equal(stop(&src), PROCESS_STOPPED);

	start(&dst, "dst", one);
	assert_string_equal(dst.ready, "ready\n");
	assert_int_equal(snapshot(dst.ctl, true, in_dir("three"), &err), 0);
	assert_true(counter_in(in_dir("three")) >= n);
	assert_int_equal(verify(in_dir("three"), &err), 0);
	assert_int_equal(verify(one, &err), 0);	/* the clone left it alone */
	stop(&dst);
}

static void end_frozen(struct running *r)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:b}", "op", "stop", "now", 1);
	struct err err = ERR_INIT;
	int status;

	assert_int_equal(ctl_call(r->ctl, req, NULL, 0, NULL, NULL, NULL, &err), 0);
	close(r->ctl);
	waitpid(r->pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), PROCESS_STOPPED);
}

static void without_keep_alive_the_source_waits_for_stop(void **state)
{
	struct running src, dst;
	struct err err = ERR_INIT;
	uint64_t n;

	start(&src, "src", NULL);
	assert_int_equal(snapshot(src.ctl, false, in_dir("one"), &err), 0);
	n = runs_on(&src);
	assert_true(n == counter_in(in_dir("one")));	/* frozen */
	assert_true(runs_on(&src) == n);
	end_frozen(&src);
	start(&dst, "dst", in_dir("one"));
	assert_string_equal(dst.ready, "ready\n");
	stop(&dst);
}

static void whoever_asked_and_left_thaws_the_source(void **state)
{
	struct running src;
	struct err err = ERR_INIT;

	start(&src, "src", NULL);
	assert_int_equal(snapshot(src.ctl, false, in_dir("one"), &err), 0);
	close(src.ctl);
	src.ctl = ctl_connect(in_dir("src.sock"), &err);
	runs_past(&src, counter_in(in_dir("one")));
	stop(&src);
}

static void failures_leave_the_source_running(void **state)
{
	const char *bad[][3] = {
		{ "/dev/full", in_dir("m"), in_dir("x") },
		{ in_dir("s"), "/dev/full", in_dir("x") },
		{ in_dir("s"), in_dir("m"), "/dev/full" },
	};
	struct running src;
	struct err err = ERR_INIT;
	uint64_t before;

	start(&src, "src", NULL);
	for (unsigned i = 0; i < 6; i++) {
		before = runs_on(&src);
		assert_true(snapshot_into(src.ctl, i < 3, bad[i % 3], NULL, &err) < 0);
		assert_true(err.code == ERR_HOST_NO_SPACE ||
			    err.code == ERR_SNAPSHOT_DUMP_FAILED);
		runs_past(&src, before);
	}
	stop(&src);
}

static void bad_requests_are_refused(void **state)
{
	static const char *const bad[] = {
		"{\"op\":\"snapshot\"}",
		"{\"op\":\"snapshot\",\"roles\":[\"state\"]}",
		"{\"op\":\"snapshot\",\"roles\":[\"state\",\"state\"]}",
		"{\"op\":\"snapshot\",\"roles\":[\"state\",3]}",
		"{\"op\":\"snapshot\",\"keep_alive\":1,\"roles\":[\"a\",\"b\"]}",
		"{\"op\":\"fork\",\"roles\":[\"a\"]}",
		"{\"op\":\"fork\",\"spec\":{\"memory_mib\":3},\"roles\":[\"a\",\"b\"]}",
		"{\"op\":\"fork\",\"spec\":{\"disks\":[{\"id\":\"x\"}]},\"roles\":[\"a\",\"b\"]}",
		"{\"op\":\"fork\",\"spec\":[],\"roles\":[\"a\",\"b\"]}",
	};
	struct running src;
	struct err err = ERR_INIT;
	int fd[2] = { open("/dev/null", O_RDWR), open("/dev/null", O_RDWR) };

	start(&src, "src", NULL);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		json_t *req = json_parse(bad[i], strlen(bad[i]), NULL);

		assert_true(ctl_call(src.ctl, req, fd, 2, NULL, NULL, NULL, &err) < 0);
		json_decref(req);
	}
	runs_on(&src);
	stop(&src);
	close(fd[0]);
	close(fd[1]);
}

/* A requester that goes away in the middle, by a pipe as the memory file: the
 * writer blocks on it until we know that it is at work. */
static void requester_dies(void **state)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:b, s:[s,s,s]}", "op",
		"snapshot", "keep_alive", 0, "roles", "state", "memory", "sums");
	struct running src;
	struct err err = ERR_INIT;
	int ctl, fd[3];

	start(&src, "src", NULL);
	runs_on(&src);
	ctl = ctl_connect(in_dir("src.sock"), &err);
	for (int i = 0; i < 3; i++)
		fd[i] = memfd_create("f", 0);
	assert_int_equal(ctl_send(ctl, req, fd, 3, &err), 0);
	close(ctl);
	/* EBUSY until it was noticed, then it works: the VM was not ended */
	while (snapshot(src.ctl, true, in_dir("again"), &err))
		assert_int_equal(err.num, EBUSY);
	stop(&src);
}

/* ---- damaged bundles ---- */

static void expect_refusal(const char *bundle, const char *code)
{
	static unsigned nr;
	struct running r;
	char name[32], want[64];

	snprintf(name, sizeof(name), "refused%u", nr++);
	snprintf(want, sizeof(want), "failed %s ", code);
	start(&r, name, bundle);
	if (strncmp(r.ready, want, strlen(want)))
		print_error("%s\n", r.ready);
	assert_int_equal(strncmp(r.ready, want, strlen(want)), 0);
	waitpid(r.pid, NULL, 0);
}

/* It starts, for memory is checked later, and then ends. */
static void expect_crash(const char *bundle)
{
	struct running r;
	int status;

	start_as(&r, "crash", bundle, false);
	assert_string_equal(r.ready, "ready\n");
	waitpid(r.pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), PROCESS_CRASHED);
	close(r.ctl);
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 0x10;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static void damage_is_found(void **state)
{
	const char *b = in_dir("b");
	struct running src;
	struct err err = ERR_INIT;
	int fd;

	start(&src, "src", NULL);
	assert_int_equal(snapshot(src.ctl, true, b, &err), 0);
	stop(&src);
	b = in_dir("b");
	for (off_t at = 20; at < 400; at += 61) {
		flip(in_dir("b/state"), at);
		expect_refusal(b, "SNAPSHOT_DAMAGED");
		flip(in_dir("b/state"), at);
	}
	flip(in_dir("b/state"), 8);
	expect_refusal(b, "SNAPSHOT_VERSION");
	flip(in_dir("b/state"), 8);

	flip(in_dir("b/memory"), COUNTER + 9);
	assert_int_equal(verify(b, &err), -EBADMSG);
	assert_non_null(strstr(err_message(&err), "offset 0"));
	expect_crash(b);
	flip(in_dir("b/memory"), COUNTER + 9);
	assert_int_equal(verify(b, &err), 0);
	flip(in_dir("b/memory"), 80 * MIB + 5);		/* was a hole */
	assert_int_equal(verify(b, &err), -EBADMSG);
	fd = open(in_dir("b/memory"), O_RDWR);
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 80 * MIB, 2 * MIB);
	assert_int_equal(verify(b, &err), 0);
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 70 * MIB, 2 * MIB);
	assert_int_equal(verify(b, &err), -EBADMSG);
	assert_non_null(strstr(err_message(&err), "73400320"));
	assert_int_equal(ftruncate(fd, RAM - PAGE_SIZE), 0);
	close(fd);
	assert_int_equal(verify(b, &err), -EBADMSG);
	expect_refusal(b, "SNAPSHOT_DAMAGED");
	unlink(in_dir("b/memory"));
	expect_refusal(b, "SNAPSHOT_DAMAGED");
}

/* ---- fork ---- */

static void fork_vm(struct running *src, struct running *dst, const char *name)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:{s:s}, s:[s,s,s]}",
		"op", "fork", "spec", "name", name, "roles", "control", "ready", "alive");
	struct err err = ERR_INIT;
	char sock[64];
	int ready[2], fd[3];
	json_t *a = NULL;
	ssize_t n;

	snprintf(sock, sizeof(sock), "%s.sock", name);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	fd[0] = listen_at(in_dir(sock));
	fd[1] = ready[1];
	fd[2] = alive[0];
	assert_int_equal(ctl_call(src->ctl, req, fd, 3, NULL, NULL, &a, &err), 0);
	close(fd[0]);
	close(fd[1]);
	n = io_read_full(ready[0], dst->ready, sizeof(dst->ready) - 1);
	dst->ready[n > 0 ? n : 0] = '\0';
	close(ready[0]);
	assert_string_equal(dst->ready, "ready\n");
	dst->pid = json_int(a, "pid", 1, INT32_MAX, NULL);
	dst->ctl = ctl_connect(in_dir(sock), &err);
	assert_true(dst->ctl >= 0);
	json_decref(a);
}

/* Not our child: it is gone when its control connection is. */
static void stop_sibling(struct running *r)
{
	char c;

	kill(r->pid, SIGTERM);
	assert_int_equal(recv(r->ctl, &c, 1, 0), 0);
	close(r->ctl);
}

static void forks_of_forks_live_apart(void **state)
{
	struct running src, kid[8];
	uint64_t at[8], now;
	char name[16];

	start(&src, "src", NULL);
	for (int i = 0; i < 8; i++) {
		/* a chain of four, then a fan of four */
		snprintf(name, sizeof(name), "kid%d", i);
		at[i] = runs_on(i && i < 4 ? &kid[i - 1] : &src);
		fork_vm(i && i < 4 ? &kid[i - 1] : &src, &kid[i], name);
	}
	for (int i = 0; i < 8; i++) {
		runs_past(&kid[i], at[i]);
		now = runs_on(&kid[i]);
		runs_past(&kid[i], now);
	}
	/* the source's end is not theirs */
	assert_int_equal(stop(&src), PROCESS_STOPPED);
	for (int i = 0; i < 8; i++) {
		now = runs_on(&kid[i]);
		runs_past(&kid[i], now);
		stop_sibling(&kid[i]);
	}
}

static void snapshot_of_a_fork_of_a_restore(void **state)
{
	struct running src, dst, kid, last;
	struct err err = ERR_INIT;
	uint64_t n;

	start(&src, "src", NULL);
	assert_int_equal(snapshot(src.ctl, false, in_dir("one"), &err), 0);
	end_frozen(&src);
	start(&dst, "dst", in_dir("one"));
	fork_vm(&dst, &kid, "kid");
	stop(&dst);
	assert_int_equal(snapshot(kid.ctl, true, in_dir("two"), &err), 0);
	assert_int_equal(verify(in_dir("two"), &err), 0);
	n = counter_in(in_dir("two"));
	stop_sibling(&kid);
	start(&last, "last", in_dir("two"));
	assert_string_equal(last.ready, "ready\n");
	assert_true(runs_on(&last) >= n);
	stop(&last);
}

/* ---- disks ---- */

static int64_t layers(const json_t *answer)
{
	return json_int(json_array_get(json_object_get(answer, "disks"), 0), "layers",
			0, 99, NULL);
}

/* Files in the test's directory play the roles; ready and control are made. */
static int ask(int ctl, const char *text, const char *const *role, unsigned nr,
	       json_t **answer)
{
	cleanup(json_putp) json_t *req = json_parse(text, strlen(text), NULL);
	json_t *roles = json_array();
	struct err err = ERR_INIT;
	int fd[8], ret;

	for (unsigned i = 0; i < nr; i++) {
		json_array_append_new(roles, json_string(role[i]));
		fd[i] = !strcmp(role[i], "alive") ? dup(alive[0]) :
			!strcmp(role[i], "control") ? listen_at(in_dir("sib.sock")) :
			open(in_dir(role[i]), O_RDWR | O_CREAT | O_TRUNC, 0600);
	}
	json_object_set_new(req, "roles", roles);
	ret = ctl_call(ctl, req, fd, nr, NULL, NULL, answer, &err);
	for (unsigned i = 0; i < nr; i++)
		close(fd[i]);
	return ret;
}

static bool is_sealed(const char *name)
{
	struct layer_info info;
	int fd = open(in_dir(name), O_RDONLY);

	assert_int_equal(layer_inspect(fd, &info, NULL), 0);
	close(fd);
	return info.sealed;
}

static void disks_are_sealed_and_apart(void **state)
{
	static const char *const files[] = { "state", "memory", "sums", "seal.root" };
	static const char *const sib[] = { "control", "alive", "seal.root", "top.root" };
	static const char keep[] = "{\"op\":\"snapshot\",\"keep_alive\":true}";
	struct running src, kid = { .pid = 0 };
	struct err err = ERR_INIT;
	json_t *a = NULL;

	with_disk = true;
	start(&src, "src", NULL);
	with_disk = false;
	assert_int_equal(ask(src.ctl, keep, files, 3, NULL), -EINVAL);
	assert_false(is_sealed("top"));
	assert_int_equal(ask(src.ctl, keep, files, 4, &a), 0);
	assert_int_equal(layers(a), 2);
	json_decref(a);
	assert_true(is_sealed("top"));
	assert_false(is_sealed("seal.root"));
	rename(in_dir("seal.root"), in_dir("second"));

	assert_int_equal(ask(src.ctl, "{\"op\":\"fork\"}", sib, 3, NULL), -EINVAL);
	unlink(in_dir("sib.sock"));
	assert_int_equal(ask(src.ctl, "{\"op\":\"fork\"}", sib, 4, &a), 0);
	assert_int_equal(layers(a), 3);
	kid.pid = json_int(a, "pid", 1, INT32_MAX, NULL);
	json_decref(a);
	assert_false(is_sealed("seal.root"));
	kid.ctl = ctl_connect(in_dir("sib.sock"), &err);
	assert_int_equal(ask(kid.ctl, "{\"op\":\"status\"}", NULL, 0, &a), 0);
	assert_int_equal(layers(a), 4);
	json_decref(a);
	assert_false(is_sealed("top.root"));
	stop_sibling(&kid);
	stop(&src);
}

/* Is the file a layer at rest?  What is being written is none, or not yet. */
static bool is_merged(const char *name)
{
	struct layer_info info;
	int fd = open(in_dir(name), O_RDONLY);
	bool yes = !layer_inspect(fd, &info, NULL) && info.clean && info.sealed;

	close(fd);
	return yes;
}

/* On a connection of its own, which pins nothing afterwards. */
static int ask_once(const char *text, const char *const *role, unsigned nr,
		    json_t **answer)
{
	struct err err = ERR_INIT;
	int ctl = ctl_connect(in_dir("src.sock"), &err);
	int ret = ask(ctl, text, role, nr, answer);

	close(ctl);
	return ret;
}

static int64_t layers_now(bool *merging)
{
	json_t *a = NULL;
	int64_t n;

	assert_int_equal(ask_once("{\"op\":\"status\"}", NULL, 0, &a), 0);
	n = layers(a);
	if (merging)
		*merging = json_is_true(json_object_get(a, "merging"));
	json_decref(a);
	return n;
}

/* Keep-alive snapshots, each of which adds a layer. */
static void seal_times(unsigned times)
{
	static const char *const files[] = { "state", "memory", "sums", "seal.root" };
	static unsigned nr;

	while (times--) {
		char name[16];

		assert_int_equal(ask_once("{\"op\":\"snapshot\",\"keep_alive\":true}",
					  files, 4, NULL), 0);
		snprintf(name, sizeof(name), "l%u", nr++);
		rename(in_dir("seal.root"), in_dir(name));
	}
}

/* Begins one and does not wait; the connection. */
static int begin_merge(const char *file)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:s}", "op", "merge", "id", "root");
	int ctl = ctl_connect(in_dir("src.sock"), NULL);
	int fd = open(in_dir(file), O_RDWR | O_CREAT, 0600);
	json_t *doc = NULL;

	assert_int_equal(ctl_send(ctl, req, &fd, 1, NULL), 0);
	close(fd);
	assert_int_equal(ctl_recv(ctl, &doc, NULL, NULL, NULL), 1);
	assert_true(json_is_true(json_object_get(json_object_get(doc, "progress"), "taken")));
	json_decref(doc);
	return ctl;
}

static void layers_become_fewer(void **state)
{
	static const char merge[] = "{\"op\":\"merge\",\"id\":\"root\"}";
	static const char *const file[] = { "unused" };
	static const char *const sib[] = { "control", "alive", "seal.root", "top.root" };
	struct running src, kid = { .pid = 0 };
	struct err err = ERR_INIT;
	json_t *a = NULL;
	bool merging;
	int pin, asker;

	with_disk = true;
	start(&src, "src", NULL);
	with_disk = false;
	seal_times(5);
	assert_int_equal(layers_now(NULL), 7);
	assert_int_equal(ask_once(merge, NULL, 0, NULL), -EINVAL);
	assert_int_equal(ask_once("{\"op\":\"merge\",\"id\":\"x\"}", file, 1, NULL), -ENOENT);
	/* who knows layers by their number is not surprised */
	pin = ctl_connect(in_dir("src.sock"), &err);
	assert_int_equal(ask(pin, "{\"op\":\"layers\",\"id\":\"root\"}", NULL, 0, NULL), 0);
	assert_int_equal(ask(pin, merge, file, 1, NULL), -EDEADLK);
	asker = begin_merge("merged");
	while (!is_merged("merged"))
		;
	assert_int_equal(layers_now(&merging), 7);
	assert_true(merging);
	close(pin);
	assert_int_equal(ctl_recv(asker, &a, NULL, NULL, &err), 1);
	assert_int_equal(json_int(a, "merged", 0, 99, NULL), 5);
	assert_int_equal(json_int(a, "layers", 0, 99, NULL), 3);
	json_decref(a);
	close(asker);
	assert_int_equal(layers_now(&merging), 3);
	assert_false(merging);
	/* nothing that is worth it, and a file that is not empty */
	assert_int_equal(ask_once(merge, file, 1, &a), 0);
	assert_int_equal(json_int(a, "merged", 0, 99, NULL), 0);
	json_decref(a);
	seal_times(2);
	asker = open(in_dir("full"), O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(asker, "x", 1), 1);
	close(asker);
	asker = begin_merge("full");
	assert_int_equal(ctl_recv(asker, &a, NULL, NULL, &err), 1);
	assert_false(json_is_true(json_object_get(a, "ok")));
	json_decref(a);
	close(asker);
	assert_int_equal(layers_now(NULL), 5);

	assert_int_equal(ask_once("{\"op\":\"fork\"}", sib, 4, &a), 0);
	assert_int_equal(layers(a), 5);
	kid.pid = json_int(a, "pid", 1, INT32_MAX, NULL);
	json_decref(a);
	kid.ctl = ctl_connect(in_dir("sib.sock"), &err);
	wait_for_guest(kid.ctl);
	stop_sibling(&kid);
	/* it ends while one is under way, and nobody waits for that */
	close(begin_merge("last"));
	assert_int_equal(stop(&src), PROCESS_STOPPED);
}

#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(source_goes_on_and_bundle_resumes),
		T(without_keep_alive_the_source_waits_for_stop),
		T(whoever_asked_and_left_thaws_the_source),
		T(failures_leave_the_source_running),
		T(bad_requests_are_refused),
		T(requester_dies),
		T(damage_is_found),
		T(forks_of_forks_live_apart),
		T(snapshot_of_a_fork_of_a_restore),
		T(disks_are_sealed_and_apart),
		T(layers_become_fewer),
	};

	signal(SIGPIPE, SIG_IGN);
	if (pipe2(alive, O_CLOEXEC) < 0)
		return 1;
	return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
