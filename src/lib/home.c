// SPDX-License-Identifier: MIT
/* home.c - where everything lives: see lib.h. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/util.h"
#include "lib/lib.h"

int lib_path(char path[PATH_MAX], struct err *err, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(path, PATH_MAX, fmt, ap);
	va_end(ap);
	if (n < 0 || n >= PATH_MAX)
		return err_set(err, ENAMETOOLONG, "too long a path: %.200s...", path);
	return 0;
}

/* A variable's value when it is set to something. */
static const char *env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

static int absolute(char path[PATH_MAX], const char *given, struct err *err)
{
	char cwd[PATH_MAX];

	if (*given == '/')
		return lib_path(path, err, "%s", given);
	if (!getcwd(cwd, sizeof(cwd)))
		return err_set(err, errno, "no working directory: %s",
			       strerror(errno));
	return lib_path(path, err, "%s/%s", cwd, given);
}

int home_get(char path[PATH_MAX], struct err *err)
{
	const char *given = env("MACHINEN_HOME"), *user = env("HOME");
	char buf[4096];
	struct passwd pw, *found = NULL;

	if (given)
		return absolute(path, given, err);
	if (!user && !getpwuid_r(getuid(), &pw, buf, sizeof(buf), &found) && found)
		user = found->pw_dir;
	if (!user)
		return err_set(err, ENOENT, "neither MACHINEN_HOME nor HOME is set");
	return lib_path(path, err, "%s/.machinen", user);
}

int home_path(char path[PATH_MAX], const char *sub, struct err *err)
{
	char home[PATH_MAX];
	int ret = home_get(home, err);

	return ret ? ret : lib_path(path, err, "%s/%s", home, sub);
}

static int make_dir(const char *path, struct err *err)
{
	int ret = io_mkdir_all(path, 0700);

	return ret ? lib_host_err(err, ret, path, "cannot create") : 0;
}

int home_open(const char *sub, struct err *err)
{
	char path[PATH_MAX];
	int ret, fd;

	ret = home_path(path, sub, err);
	if (!ret)
		ret = make_dir(path, err);
	if (ret)
		return ret;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? lib_host_err(err, -errno, path, "cannot open") : fd;
}

int home_registry(char path[PATH_MAX], struct err *err)
{
	const char *given = env("MACHINEN_REGISTRY_DIR");
	int ret = given ? absolute(path, given, err) : home_path(path, "vms", err);

	return ret ? ret : make_dir(path, err);
}

int mn_home(char *path, size_t size, struct mn_error *err)
{
	struct err e = ERR_INIT;
	char buf[PATH_MAX];
	int ret = home_get(buf, &e);

	if (!ret && strlen(buf) >= size)
		ret = err_set(&e, ENAMETOOLONG, "too long a path: %s", buf);
	if (!ret)
		memcpy(path, buf, strlen(buf) + 1);
	return lib_return(err, &e, ret);
}

int home_program(char path[PATH_MAX], const char *name, struct err *err)
{
	static const char *const places[] = {
		"", "../guest/", "../libexec/machinen/", "../bin/",
		"../../bin/", "../../guest/",	/* from tests and examples */
	};
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (n < 0)
		return err_set(err, errno, "cannot read /proc/self/exe: %s",
			       strerror(errno));
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		if (!lib_path(path, NULL, "%s%s%s", exe, places[i], name) &&
		    !access(path, X_OK))
			return 0;
	}
	return err_set(err, ENOENT, "%s is neither in %s nor in %s../libexec/machinen",
		       name, exe, exe);
}
