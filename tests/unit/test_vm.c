// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/fake_vm.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "proto/ctl.h"
#include "vmm/console.h"
#include "vmm/layout.h"
#include "vmm/process.h"
#include "vmm/vm.h"

static char dir[64];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/vm-test-XXXXXX");
	fake_vm.guest = NULL;
	fake_vm.runs = 0;
	fake_vm.refuse = 0;
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	return io_remove_tree(AT_FDCWD, dir);
}

static const char *in_dir(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void make_spec(struct spec *s, unsigned cpus)
{
	spec_init(s);
	s->memory_mib = 64;
	s->cpus = cpus;
	s->cpu_model = strdup("portable");
}

static struct vm *make_vm(unsigned cpus)
{
	struct spec spec;
	struct spec_fds fds = { .nr = 0 };
	struct err err = ERR_INIT;
	struct vm *vm;

	make_spec(&spec, cpus);
	vm = vm_new(&spec, &fds, NULL, &err);
	if (!vm)
		print_error("%s: %s\n", err_message(&err), err_cause(&err, 0));
	assert_non_null(vm);
	return vm;
}

/* ---- vCPUs ---- */

static _Atomic unsigned long progress;

static enum accel_exit busy_guest(struct vcpu *c, struct err *err)
{
	uint32_t v = 0;

	for (int i = 0; i < 50; i++)
		vcpu_mmio(c, LAYOUT_VIRTIO_ADDR(0), &v, 4, false);
	if (v != 0x74726976)
		return ACCEL_EXIT_ERROR;
	progress++;
	c->vm->accel->vcpu_kick(c);	/* come again */
	return ACCEL_EXIT_KICK;
}

static void parking_stops_and_nests(void **state)
{
	struct vm *vm;
	unsigned long seen;

	fake_vm.guest = busy_guest;
	vm = make_vm(4);
	assert_int_equal(vm_start(vm, NULL), 0);
	for (int i = 0; i < 200; i++) {
		vcpu_park_all(vm);
		vcpu_park_all(vm);
		seen = progress;
		vcpu_unpark_all(vm);
		sched_yield();
		assert_int_equal(progress, seen);
		vcpu_unpark_all(vm);
		while (i % 10 == 0 && progress == seen)
			sched_yield();
	}
	vm_end(vm, VM_END_STOPPED);
	assert_int_equal(vm_run(vm), VM_END_STOPPED);
	vm_free(vm);
}

static void starts_paused_and_ends_paused(void **state)
{
	struct vm *vm = make_vm(2);

	fake_vm.guest = busy_guest;
	vm_pause(vm);
	vm_pause(vm);
	assert_int_equal(vm_start(vm, NULL), 0);
	vcpu_park_all(vm);
	assert_int_equal(fake_vm.runs, 0);
	vcpu_unpark_all(vm);
	vm_end(vm, VM_END_POWEROFF);
	vm_end(vm, VM_END_REBOOT);	/* the first reason stays */
	assert_int_equal(vm_run(vm), VM_END_POWEROFF);
	vm_free(vm);
}

static enum accel_exit dying_guest(struct vcpu *c, struct err *err)
{
	if (c->id)
		return ACCEL_EXIT_KICK;
	err_set(err, EFAULT, "a reason");
	return ACCEL_EXIT_SHUTDOWN;
}

static const char *last_cause(const struct err *err)
{
	const char *last = "";

	for (unsigned i = 0; err_cause(err, i); i++)
		last = err_cause(err, i);
	return last;
}

static void triple_fault_ends_the_vm(void **state)
{
	struct vm *vm = make_vm(2);

	log_to(open("/dev/null", O_WRONLY | O_CLOEXEC));
	fake_vm.guest = dying_guest;
	assert_int_equal(vm_start(vm, NULL), 0);
	assert_int_equal(vm_run(vm), VM_END_CRASHED);
	assert_non_null(strstr(err_message(&vm->end_err), "triple fault"));
	assert_non_null(strstr(err_cause(&vm->end_err, 0), "at rip "));
	assert_string_equal(last_cause(&vm->end_err), "a reason");
	vcpu_park_all(vm);	/* nobody waits for the dead */
	vm_free(vm);
}

static void parking_does_not_wait_for_a_crashed_vcpu(void **state)
{
	struct vm *vm = make_vm(2);

	fake_vm.guest = dying_guest;
	assert_int_equal(vm_start(vm, NULL), 0);
	while (!atomic_load(&vm->end))
		sched_yield();
	vcpu_park_all(vm);
	vcpu_unpark_all(vm);
	vcpu_park_all(vm);
	vm_run(vm);
	vm_free(vm);
}

static void stray_accesses_give_ones(void **state)
{
	struct vm *vm = make_vm(1);
	uint64_t v = 0;

	vcpu_mmio(&vm->vcpu[0], 0xfed00000, &v, 8, false);
	assert_true(v == UINT64_MAX);
	v = 0;
	vcpu_pio(&vm->vcpu[0], 0x70, &v, 1, false);
	assert_true(v == 0xff);
	vcpu_pio(&vm->vcpu[0], 0x70, &v, 1, true);
	v = 0;
	vcpu_mmio(&vm->vcpu[0], LAYOUT_VIRTIO_ADDR(0) + 1, &v, 4, false);
	assert_true(v == UINT32_MAX);
	vm_free(vm);
}

/* ---- control socket ---- */

static int listen_at(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	assert_true(strlen(path) < sizeof(sa.sun_path));
	strcpy(sa.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

static struct vm *make_ctl_vm(void)
{
	struct spec spec;
	struct spec_fds fds = { .nr = 0 };
	struct vm *vm;

	make_spec(&spec, 2);
	spec_fds_add(&fds, listen_at(in_dir("control")), "control");
	vm = vm_new(&spec, &fds, NULL, NULL);
	assert_non_null(vm);
	assert_int_equal(vm_start(vm, NULL), 0);
	return vm;
}

static int request(int fd, const char *text, json_t **answer, struct err *err)
{
	cleanup(json_putp) json_t *req = json_parse(text, strlen(text), NULL);

	err_clear(err);
	return ctl_call(fd, req, NULL, 0, NULL, NULL, answer, err);
}

static void *ctl_client(void *arg)
{
	struct err err = ERR_INIT;
	int fd = ctl_connect(in_dir("control"), &err), other;
	json_t *a;
	char junk[100];

	assert_true(fd >= 0);
	assert_int_equal(request(fd, "{\"op\":\"status\"}", &a, &err), 0);
	assert_string_equal(json_str(a, "state", NULL), "running");
	assert_string_equal(json_str(a, "accel", NULL), "fake");
	json_decref(a);
	assert_int_equal(request(fd, "{\"op\":\"pause\"}", NULL, &err), 0);
	assert_int_equal(request(fd, "{\"op\":\"pause\"}", NULL, &err), 0);
	assert_int_equal(request(fd, "{\"op\":\"status\"}", &a, &err), 0);
	assert_string_equal(json_str(a, "state", NULL), "paused");
	json_decref(a);
	assert_int_equal(request(fd, "{\"op\":\"resume\"}", NULL, &err), 0);
	assert_int_equal(request(fd, "{\"op\":\"stop\"}", NULL, &err), 0);
	assert_int_equal(fake_vm.power, 1);
	assert_int_equal(request(fd, "{\"op\":\"explode\"}", NULL, &err), -EOPNOTSUPP);
	assert_int_equal(request(fd, "[]", NULL, &err), -EOPNOTSUPP);
	assert_int_equal(request(fd, "{\"op\":7}", NULL, &err), -EOPNOTSUPP);
	assert_int_equal(request(fd, "{\"op\":\"stop\",\"now\":3}", NULL, &err), -EINVAL);
	assert_int_equal(send(fd, "not json", 8, 0), 8);
	assert_true(recv(fd, junk, sizeof(junk), 0) > 0);
	/* hang up with an answer on the way */
	other = ctl_connect(in_dir("control"), &err);
	assert_int_equal(send(other, "{\"op\":\"status\"}", 15, 0), 15);
	close(other);
	/* never reads; must not hold the others up */
	other = ctl_connect(in_dir("control"), &err);
	for (int i = 0; i < 5000; i++)
		send(other, "{\"op\":\"status\"}", 15, MSG_DONTWAIT);
	assert_int_equal(request(fd, "{\"op\":\"stop\",\"now\":true}", NULL, &err), 0);
	close(other);
	close(fd);
	return NULL;
}

static void control_socket(void **state)
{
	struct vm *vm = make_ctl_vm();
	pthread_t t;

	fake_vm.power = 0;
	pthread_create(&t, NULL, ctl_client, NULL);
	assert_int_equal(vm_run(vm), VM_END_STOPPED);
	pthread_join(t, NULL);
	vm_free(vm);
}

static void *many_clients(void *arg)
{
	struct err err = ERR_INIT;
	int fd[LIMIT_CTL_CLIENTS + 10];

	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = ctl_connect(in_dir("control"), &err);
		assert_true(fd[i] >= 0);
	}
	close(fd[0]);
	for (unsigned i = 1; i < ARRAY_LEN(fd); i++) {
		/* those past the limit are served as others leave */
		assert_int_equal(request(fd[i], "{\"op\":\"status\"}", NULL, &err), 0);
		close(fd[i]);
	}
	vm_end(arg, VM_END_STOPPED);
	return NULL;
}

static void clients_are_limited_not_refused(void **state)
{
	struct vm *vm = make_ctl_vm();
	pthread_t t;

	pthread_create(&t, NULL, many_clients, vm);
	vm_run(vm);
	pthread_join(t, NULL);
	vm_free(vm);
}

/* ---- console ---- */

static void console_log_stays_bounded(void **state)
{
	struct loop *l = loop_new(NULL);
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int fd = open(in_dir("console"), O_RDWR | O_CREAT | O_APPEND, 0600);
	struct console *c = console_new(l, &lock, fd, -1, NULL);
	char line[1000], last[sizeof(line)];
	struct stat st;

	memset(line, '.', sizeof(line));
	for (int i = 0; i < 3 * (int)(LIMIT_CONSOLE_LOG / sizeof(line)); i++) {
		snprintf(line, 20, "%08d", i);
		assert_int_equal(console_write(c, line, sizeof(line)), sizeof(line));
	}
	fstat(fd, &st);
	assert_true(st.st_size <= LIMIT_CONSOLE_LOG);
	assert_true(st.st_size > LIMIT_CONSOLE_LOG / 3);
	pread(fd, last, sizeof(last), st.st_size - sizeof(last));
	assert_memory_equal(line, last, sizeof(last));
	console_free(c);
	loop_free(l);
	close(fd);
}

struct heard {
	struct console_listener l;
	struct loop *loop;
	int events;
};

static void heard(struct console_listener *l)
{
	struct heard *h = container_of(l, struct heard, l);

	h->events++;
	loop_stop(h->loop);
}

static void slow_stream_pushes_back(void **state)
{
	struct heard h = { .l.event = heard, .loop = loop_new(NULL) };
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct console *c;
	static char big[1 << 20];
	size_t sent = 0, n, got = 0;
	int sock[2];

	socketpair(AF_UNIX, SOCK_STREAM, 0, sock);
	c = console_new(h.loop, &lock, -1, sock[0], NULL);
	console_listen(c, &h.l);
	while ((n = console_write(c, big, 10000)) == 10000)
		sent += n;
	sent += n;
	assert_int_equal(console_write(c, big, 1), 0);
	while (got < sent) {
		ssize_t r = recv(sock[1], big, sizeof(big), MSG_DONTWAIT);

		if (r > 0)
			got += r;
		else
			loop_run(h.loop);	/* room: it writes the rest */
	}
	assert_int_equal(got, sent);
	assert_true(h.events > 0);
	/* the other way, past the buffer's size */
	io_set_nonblock(sock[1], true);
	for (sent = 0; (n = write(sock[1], big, 5000)) != (size_t)-1; )
		sent += n;
	for (got = 0; got < sent; ) {
		n = console_read(c, big, 777);
		got += n;
		if (!n)
			loop_run(h.loop);
	}
	close(sock[1]);
	loop_run(h.loop);
	console_write(c, big, 1);	/* notices */
	assert_int_equal(console_write(c, big, 100000), 100000);
	console_free(c);
	loop_free(h.loop);
	close(sock[0]);
}

/* ---- the process ---- */

struct started {
	pid_t pid;
	int ready, alive;
	char line[300];
};

static void start_process(struct started *s)
{
	struct spec_fds fds = { .nr = 0 };
	struct spec spec;
	int ready[2], alive[2];
	ssize_t n;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
	s->pid = fork();
	if (!s->pid) {
		close(ready[0]);
		close(alive[1]);
		make_spec(&spec, 1);
		spec_fds_add(&fds, ready[1], "ready");
		spec_fds_add(&fds, alive[0], "alive");
		spec_fds_add(&fds, open(dir, O_RDONLY | O_DIRECTORY), "dir");
		spec_fds_add(&fds, open("/dev/null", O_WRONLY), "log");
		_exit(process_run(&spec, &fds, NULL));
	}
	close(ready[1]);
	close(alive[0]);
	s->alive = alive[1];
	n = io_read_full(ready[0], s->line, sizeof(s->line) - 1);
	close(ready[0]);
	s->line[n > 0 ? n : 0] = '\0';
}

static int wait_process(struct started *s, json_t **report)
{
	struct buf b = BUF_INIT;
	int status;

	waitpid(s->pid, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(io_read_file(AT_FDCWD, in_dir("exit.json"), 10000, &b), 0);
	*report = json_parse(b.data, b.len, NULL);
	assert_non_null(*report);
	assert_int_equal(json_int(*report, "status", 0, 9, NULL), WEXITSTATUS(status));
	buf_done(&b);
	close(s->alive);
	return WEXITSTATUS(status);
}

static void sigterm_stops_in_order(void **state)
{
	struct started s;
	json_t *report;

	start_process(&s);
	assert_string_equal(s.line, "ready\n");
	kill(s.pid, SIGTERM);
	assert_int_equal(wait_process(&s, &report), PROCESS_STOPPED);
	assert_string_equal(json_str(report, "end", NULL), "stopped");
	json_decref(report);
}

static void foreground_death_stops(void **state)
{
	struct started s;
	json_t *report;

	start_process(&s);
	close(s.alive);
	s.alive = -1;
	assert_int_equal(wait_process(&s, &report), PROCESS_STOPPED);
	json_decref(report);
}

static void crash_is_reported(void **state)
{
	struct started s;
	json_t *report;

	fake_vm.guest = dying_guest;
	start_process(&s);
	assert_int_equal(wait_process(&s, &report), PROCESS_CRASHED);
	assert_non_null(strstr(json_str(json_object_get(report, "error"), "message",
					NULL), "triple fault"));
	json_decref(report);
}

static void failure_to_start_is_one_line(void **state)
{
	struct started s;
	json_t *report;

	fake_vm.refuse = ENOTSUP;
	start_process(&s);
	assert_string_equal(s.line, "failed BOOT_ACCEL_UNAVAILABLE cannot set up "
			    "the CPU backend: no CPU here\n");
	assert_int_equal(wait_process(&s, &report), PROCESS_FAILED);
	json_decref(report);
}

static bool have_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0,
		       LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

/* Power off means: all as it should be. */
static enum accel_exit intruder(struct vcpu *c, struct err *err)
{
	static char *const argv[] = { NULL };
	int fd;

	if (execve("/bin/true", argv, argv) != -1 || errno != ENOSYS)
		return ACCEL_EXIT_ERROR;
	if (syscall(SYS_ptrace, 0, 0, 0, 0) != -1 || errno != ENOSYS)
		return ACCEL_EXIT_ERROR;
	if (kill(getppid(), SIGTERM) != -1 || errno != ENOSYS)
		return ACCEL_EXIT_ERROR;
	fd = open("/etc/passwd", O_RDONLY);
	if (fd >= 0 && have_landlock())
		return ACCEL_EXIT_ERROR;
	vm_end(c->vm, VM_END_POWEROFF);
	return ACCEL_EXIT_KICK;
}

static void intruder_finds_nothing(void **state)
{
	struct started s;
	json_t *report;

	fake_vm.guest = intruder;
	start_process(&s);
	assert_int_equal(wait_process(&s, &report), PROCESS_POWEROFF);
	json_decref(report);
}

#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(parking_stops_and_nests),
		T(starts_paused_and_ends_paused),
		T(triple_fault_ends_the_vm),
		T(parking_does_not_wait_for_a_crashed_vcpu),
		T(stray_accesses_give_ones),
		T(control_socket),
		T(clients_are_limited_not_refused),
		T(console_log_stays_bounded),
		T(slow_stream_pushes_back),
		T(sigterm_stops_in_order),
		T(foreground_death_stops),
		T(crash_is_reported),
		T(failure_to_start_is_one_line),
		T(intruder_finds_nothing),
	};

	signal(SIGPIPE, SIG_IGN);	/* as process.c does */
	return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
