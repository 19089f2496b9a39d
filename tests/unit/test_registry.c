// SPDX-License-Identifier: MIT
/*
 * test_registry.c - names, entries, dead and recycled processes, races.
 *
 * "VMs" here are sleeping children of the test.
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
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "lib/registry.h"

static char home[] = "/tmp/registry-test-XXXXXX";
static struct registry reg;
static struct err error;

static int set_up(void **state)
{
	strcpy(home + strlen(home) - 6, "XXXXXX");
	assert_non_null(mkdtemp(home));
	setenv("MACHINEN_HOME", home, 1);
	unsetenv("MACHINEN_REGISTRY_DIR");
	assert_int_equal(registry_open(&reg, &error), 0);
	return 0;
}

static int tear_down(void **state)
{
	registry_close(&reg);
	io_remove_tree(AT_FDCWD, home);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return 0;
}

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int enter(pid_t pid, const char *name)
{
	struct reg_vm vm = { .memory_mib = 512, .cpus = 1 };
	char tmp[32];
	int dir = registry_begin(&reg, tmp, &error), ret;

	assert_true(dir >= 0);
	strcpy(vm.name, name);
	assert_int_equal(proc_identify(pid, &vm.id), 0);
	ret = registry_commit(&reg, tmp, dir, &vm, &error);
	close(dir);
	if (ret)
		registry_abort(&reg, tmp);
	return ret;
}

static void names(void **state)
{
	static const char *const good[] = { "a", "web", "a/b/c", "web/12", "x~1", "A.b-c_d", "1a" };
	static const char *const bad[] = { "", "12", "/a", "a/", "a//b", "..", "a/../b", ".",
					   "a/.", "-a", "a b", "a%b", "a\n", "\xc3\xa9" };
	char longest[300];

	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_int_equal(registry_check_name(good[i], &error), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(registry_check_name(bad[i], &error), -EINVAL);
		assert_int_equal(error.code, ERR_REGISTRY_NAME_INVALID);
	}
	memset(longest, 'a', sizeof(longest));
	longest[REG_NAME_MAX] = '\0';
	assert_int_equal(registry_check_name(longest, &error), 0);
	longest[REG_NAME_MAX] = 'a';
	longest[REG_NAME_MAX + 1] = '\0';
	assert_int_equal(registry_check_name(longest, &error), -EINVAL);
}

static void found_by_pid_and_name(void **state)
{
	pid_t pid = sleeper();
	struct reg_vm vm;
	char text[16];
	struct stat st;

	assert_int_equal(enter(pid, "a/b"), 0);
	assert_int_equal(registry_find(&reg, "a/b", &vm, &error), 0);
	assert_int_equal(vm.id.pid, pid);
	assert_int_equal(vm.memory_mib, 512);
	snprintf(text, sizeof(text), "%d", pid);
	assert_int_equal(registry_find(&reg, text, &vm, &error), 0);
	assert_string_equal(vm.name, "a/b");
	/* both a path and its beginning may be names */
	assert_int_equal(registry_find(&reg, "a", &vm, &error), -ENOENT);
	assert_int_equal(fstatat(reg.dir, text, &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	end(pid);
	assert_int_equal(registry_find(&reg, "a/b", &vm, &error), -ENOENT);
	assert_int_equal(error.code, ERR_REGISTRY_VM_NOT_FOUND);
}

static void a_live_name_is_taken(void **state)
{
	pid_t a = sleeper(), b = sleeper();
	struct reg_vm vm;

	assert_int_equal(enter(a, "web"), 0);
	assert_int_equal(enter(b, "web"), -EEXIST);
	assert_int_equal(error.code, ERR_REGISTRY_NAME_IN_USE);
	end(a);
	/* of a dead VM it is free at once, without gc */
	assert_int_equal(enter(b, "web"), 0);
	assert_int_equal(registry_find(&reg, "web", &vm, &error), 0);
	assert_int_equal(vm.id.pid, b);
	end(b);
}

static void near_names_are_suggested(void **state)
{
	pid_t pid = sleeper();
	struct reg_vm vm;

	enter(pid, "web");
	assert_int_equal(registry_find(&reg, "wbe", &vm, &error), -ENOENT);
	assert_non_null(strstr(err_message(&error), "did you mean \"web\"?"));
	registry_find(&reg, "database", &vm, &error);
	assert_null(strstr(err_message(&error), "did you mean"));
	end(pid);
}

static void a_recycled_pid_is_not_the_vm(void **state)
{
	pid_t pid = sleeper();
	enum proc_state now;
	struct reg_vm vm;

	enter(pid, "web");
	registry_find(&reg, "web", &vm, &error);
	vm.id.start++;
	assert_int_equal(proc_check(&vm.id), PROC_RECYCLED);
	assert_int_equal(proc_open(&vm.id), -ESRCH);
	assert_int_equal(registry_update(&reg, &vm, &error), 0);
	assert_int_equal(registry_look(&reg, "web", &vm, &now, &error), 0);
	assert_int_equal(now, PROC_RECYCLED);
	/* removed from the registry; the process that has the pid lives on */
	assert_int_equal(registry_remove(&reg, &vm), 0);
	assert_int_equal(kill(pid, 0), 0);
	strcpy(vm.id.boot, "another boot");
	assert_int_equal(proc_check(&vm.id), PROC_RECYCLED);
	end(pid);
}

static void the_program_counts(void **state)
{
	struct proc_id id;

	proc_identify(getpid(), &id);
	assert_int_equal(proc_check(&id), PROC_LIVE);
	id.ino++;
	assert_int_equal(proc_check(&id), PROC_RECYCLED);
}

static void a_live_entry_is_not_removed(void **state)
{
	pid_t pid = sleeper();
	struct reg_vm vm;

	enter(pid, "web");
	registry_find(&reg, "web", &vm, &error);
	assert_int_equal(registry_remove(&reg, &vm), -EBUSY);
	assert_int_equal(registry_find(&reg, "web", &vm, &error), 0);
	end(pid);
}

static int count_gc(const char *what, const char *path, void *arg)
{
	(*(int *)arg)++;
	return 0;
}

static void gc_takes_the_dead_alone(void **state)
{
	pid_t live = sleeper(), dead = sleeper();
	struct reg_vm vm;
	int held, n = 0, dir, found;
	char tmp[32], left[32];

	enter(live, "live");
	enter(dead, "dead");
	end(dead);
	held = registry_begin(&reg, tmp, &error);	/* being made: locked */
	dir = registry_begin(&reg, left, &error);
	close(dir);					/* abandoned */
	found = registry_gc(&reg, true, count_gc, &n, &error);
	assert_int_equal(found, 3);	/* VM, its name, the abandoned one */
	assert_int_equal(n, 3);
	assert_int_equal(faccessat(reg.dir, left, F_OK, 0), 0);
	assert_true(registry_gc(&reg, false, NULL, NULL, &error) > 0);
	assert_int_equal(registry_gc(&reg, false, NULL, NULL, &error), 0);
	assert_int_equal(faccessat(reg.dir, tmp, F_OK, 0), 0);
	assert_int_not_equal(faccessat(reg.dir, left, F_OK, 0), 0);
	assert_int_not_equal(faccessat(reg.dir, "names/dead", F_OK, 0), 0);
	assert_int_equal(registry_find(&reg, "live", &vm, &error), 0);
	close(held);
	end(live);
}

static void garbage_is_dead(void **state)
{
	assert_int_equal(mkdirat(reg.dir, "99999999", 0700), 0);
	io_write_file(reg.dir, "99999999/meta.json", "{\"pid\":", 7, 0600);
	io_write_file(reg.dir, "names/odd", "99999999\n", 9, 0600);
	assert_true(registry_gc(&reg, false, NULL, NULL, &error) >= 2);
	assert_int_equal(registry_gc(&reg, false, NULL, NULL, &error), 0);
}

/* As for a process without descriptors or memory: it must not clear a live VM away. */
static void what_cannot_be_read_stays(void **state)
{
	pid_t live = sleeper();
	char meta[32], away[32];
	struct reg_vm vm;

	enter(live, "live");
	snprintf(meta, sizeof(meta), "%d/meta.json", live);
	snprintf(away, sizeof(away), "%d/away", live);
	assert_int_equal(renameat(reg.dir, meta, reg.dir, away), 0);
	assert_int_equal(mkdirat(reg.dir, meta, 0700), 0);	/* EISDIR */
	assert_int_equal(registry_gc(&reg, false, NULL, NULL, &error), 0);
	vm.id.pid = live;
	assert_int_equal(registry_remove(&reg, &vm), -EBUSY);
	assert_int_equal(registry_find(&reg, "live", &vm, &error), -EISDIR);
	assert_int_equal(registry_name_free(&reg, "live", &error), -EISDIR);
	assert_int_equal(unlinkat(reg.dir, meta, AT_REMOVEDIR), 0);
	assert_int_equal(io_write_file(reg.dir, meta, "{", 1, 0600), 0);
	assert_int_equal(registry_gc(&reg, false, NULL, NULL, &error), 0);
	assert_int_equal(renameat(reg.dir, away, reg.dir, meta), 0);
	assert_int_equal(registry_find(&reg, "live", &vm, &error), 0);
	end(live);
}

/* Many processes claim one name at once: one gets it. */
static void one_claim_wins(void **state)
{
	enum { RACERS = 16 };
	pid_t vm[RACERS], racer[RACERS];
	int go[2], wins = 0, status;

	for (int i = 0; i < RACERS; i++)
		vm[i] = sleeper();
	assert_int_equal(pipe(go), 0);
	for (int i = 0; i < RACERS; i++) {
		racer[i] = fork();
		if (!racer[i]) {
			char c;

			close(go[1]);
			registry_close(&reg);
			_exit(registry_open(&reg, &error) || read(go[0], &c, 1) < 0 ||
			      enter(vm[i], "one") ? 1 : 0);
		}
	}
	close(go[0]);
	close(go[1]);
	for (int i = 0; i < RACERS; i++) {
		waitpid(racer[i], &status, 0);
		wins += WIFEXITED(status) && !WEXITSTATUS(status);
	}
	assert_int_equal(wins, 1);
	for (int i = 0; i < RACERS; i++)
		end(vm[i]);
}

static int count_vm(const struct reg_vm *vm, enum proc_state state, void *arg)
{
	*(int *)arg += state == PROC_LIVE;
	return 0;
}

static void two_hundred(void **state)
{
	pid_t vm[200];
	struct reg_vm found;
	uint64_t began;
	char name[16];
	int n = 0;

	for (int i = 0; i < 200; i++) {
		vm[i] = sleeper();
		snprintf(name, sizeof(name), "n/%d", i);
		assert_int_equal(enter(vm[i], name), 0);
	}
	began = io_now_ns();
	assert_int_equal(registry_each(&reg, count_vm, &n, &error), 0);
	assert_int_equal(n, 200);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "n/%d", i);
		assert_int_equal(registry_find(&reg, name, &found, &error), 0);
	}
	/* 400 look-ups: far from a second even on a loaded machine */
	assert_true(io_now_ns() - began < 2000000000ull);
	for (int i = 0; i < 200; i++)
		end(vm[i]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(names), T(found_by_pid_and_name), T(a_live_name_is_taken),
		T(near_names_are_suggested), T(a_recycled_pid_is_not_the_vm),
		T(the_program_counts), T(a_live_entry_is_not_removed),
		T(gc_takes_the_dead_alone), T(garbage_is_dead),
		T(what_cannot_be_read_stays), T(one_claim_wins),
		T(two_hundred),
	};

	return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
