// SPDX-License-Identifier: MIT
/*
 * error.c - errors, versions and events as the public header shows them.
 *
 * The two enums of codes and the two error structs are kept apart so that the
 * public header needs nothing of ours; that they agree is checked here at
 * compile time.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/io.h"
#include "base/util.h"
#include "lib/lib.h"

#define X(code, retryable, text) \
	_Static_assert((int)MN_##code == (int)ERR_##code, #code);
ERR_CODES(X)
#undef X
_Static_assert((int)MN_NR_CODES == (int)ERR_NR_CODES, "codes");
_Static_assert(MN_ERROR_TEXT == ERR_TEXT_MAX, "text");

const char *mn_error_message(const struct mn_error *err)
{
	return err && err->len ? err->text : "";
}

const char *mn_error_cause(const struct mn_error *err, unsigned i)
{
	const char *p;

	if (!err || i >= err->nr_causes)
		return NULL;
	p = err->text + strlen(err->text) + 1;
	while (i--)
		p += strlen(p) + 1;
	return p;
}

const char *mn_code_name(enum mn_code code)
{
	return err_code_name((enum err_code)code);
}

const char *mn_code_text(enum mn_code code)
{
	return err_code_text((enum err_code)code);
}

bool mn_code_retryable(enum mn_code code)
{
	return err_code_retryable((enum err_code)code);
}

const char *mn_version(void)
{
	return MN_VERSION;
}

int lib_return(struct mn_error *out, const struct err *e, int ret)
{
	if (ret >= 0 || !out)
		return ret;
	memset(out, 0, offsetof(struct mn_error, text));
	out->code = (enum mn_code)(e->code == ERR_NONE ? ERR_HOST_FAILED : e->code);
	out->num = e->num ? e->num : -ret;
	out->retryable = mn_code_retryable(out->code);
	out->nr_causes = e->nr_causes;
	out->len = e->len;
	memcpy(out->text, e->text, e->len);
	if (!e->len) {
		strncpy(out->text, strerror(-ret), MN_ERROR_TEXT - 1);
		out->len = strlen(out->text) + 1;
	}
	return ret;
}

int lib_config(void *dst, size_t dst_size, const void *src, struct err *err)
{
	const unsigned char *bytes = src;
	size_t size;

	memcpy(&size, src, sizeof(size));
	if (size < sizeof(size) || size > 65536)
		return err_set(err, EINVAL, "a configuration must begin with its size");
	for (size_t i = dst_size; i < size; i++)
		if (bytes[i])
			return err_set(err, E2BIG, "a configuration is of a newer version of the library than this one");
	memset(dst, 0, dst_size);
	memcpy(dst, src, MIN(size, dst_size));
	memcpy(dst, &dst_size, sizeof(dst_size));
	return 0;
}

int lib_progress(mn_event_fn fn, void *arg, const char *name, uint64_t done,
		 uint64_t total)
{
	struct mn_event ev = { .type = MN_EVENT_PROGRESS, .name = name,
			       .done = done, .total = total };

	return fn ? fn(&ev, arg) : 0;
}

int lib_note(mn_event_fn fn, void *arg, const char *text)
{
	struct mn_event ev = { .type = MN_EVENT_NOTE, .name = text };

	return fn ? fn(&ev, arg) : 0;
}

int lib_phase(mn_event_fn fn, void *arg, const char *name, uint64_t *since)
{
	uint64_t now = io_now_ns();
	struct mn_event ev = { .type = MN_EVENT_PHASE, .name = name,
			       .ms = (double)(now - *since) / 1e6 };

	*since = now;
	return fn ? fn(&ev, arg) : 0;
}

unsigned long long lib_free_mib(const char *path)
{
	char part[PATH_MAX], *slash;
	struct statvfs fs;

	snprintf(part, sizeof(part), "%s", path);
	while (statvfs(part, &fs) < 0) {
		slash = strrchr(part, '/');
		if (!slash || !strcmp(part, "/"))
			return 0;
		slash[slash == part] = '\0';
	}
	return (unsigned long long)fs.f_bavail * fs.f_frsize / MIB;
}

static bool in_home(const char *path)
{
	char home[PATH_MAX];

	return !home_get(home, NULL) && !strncmp(path, home, strlen(home));
}

int lib_host_err(struct err *err, int ret, const char *path, const char *what)
{
	if (ret != -ENOSPC && ret != -EDQUOT)
		return err_wrap_code(err, ERR_HOST_FAILED, ret, "%s %s", what, path);
	return err_wrap_code(err, ERR_HOST_NO_SPACE, ret,
			     "%s %s: the %s (%llu MiB free); make room or %s", what, path,
			     ret == -EDQUOT ? "quota is used up" : "file system is full",
			     lib_free_mib(path), in_home(path) ?
			     "set MACHINEN_HOME to another one" : "choose another place");
}
