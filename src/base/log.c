// SPDX-License-Identifier: MIT
/*
 * log.c - one line, one write.  The area table is filled once at start and
 * only read afterwards, so it needs no lock.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define MAX_AREAS 32

static struct {
	int fd;
	enum log_level level;		/* of areas that are not listed */
	unsigned nr;
	struct {
		char name[24];
		enum log_level level;
	} area[MAX_AREAS];
} log_state = { .fd = STDERR_FILENO, .level = LOG_WARN };

static const char *const level_names[] = {
	[LOG_ERR] = "error", [LOG_WARN] = "warn",
	[LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

static int parse_level(const char *s, size_t len)
{
	for (unsigned i = 0; i < ARRAY_LEN(level_names); i++)
		if (strlen(level_names[i]) == len &&
		    !strncmp(level_names[i], s, len))
			return i;
	return -1;
}

static void set_area(const char *name, size_t len, enum log_level level)
{
	if (len == 3 && !strncmp(name, "all", 3)) {
		log_state.level = level;
		return;
	}
	if (log_state.nr == MAX_AREAS || !len ||
	    len >= sizeof(log_state.area[0].name))
		return;
	memcpy(log_state.area[log_state.nr].name, name, len);
	log_state.area[log_state.nr].name[len] = '\0';
	log_state.area[log_state.nr++].level = level;
}

void log_setup(const char *spec)
{
	while (spec && *spec) {
		size_t len = strcspn(spec, ",");
		const char *colon = memchr(spec, ':', len);
		size_t name = colon ? (size_t)(colon - spec) : len;
		int level = colon ? parse_level(colon + 1, len - name - 1)
				  : LOG_DEBUG;

		if (level >= 0)
			set_area(spec, name, level);
		spec += len + (spec[len] == ',');
	}
}

void log_to(int fd)
{
	log_state.fd = fd;
}

bool log_on(const char *area, enum log_level level)
{
	for (unsigned i = 0; i < log_state.nr; i++)
		if (!strcmp(log_state.area[i].name, area))
			return level <= log_state.area[i].level;
	return level <= log_state.level;
}

void log_line(const char *area, enum log_level level, const char *fmt, ...)
{
	char line[1024];
	struct timespec now;
	size_t len;
	va_list ap;

	if (!log_on(area, level))
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	len = snprintf(line, sizeof(line), "%5lld.%06ld %s %s: ",
		       (long long)now.tv_sec, now.tv_nsec / 1000, area,
		       level_names[level]);
	va_start(ap, fmt);
	len += vsnprintf(line + len, sizeof(line) - len, fmt, ap);
	va_end(ap);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (write(log_state.fd, line, len) < 0)
		return;			/* nowhere left to complain */
}

void assert_failed(const char *file, int line, const char *what)
{
	log_line("bug", LOG_ERR, "%s:%d: assertion failed: %s", file, line, what);
	abort();
}
