/* SPDX-License-Identifier: MIT */
/*
 * log.h - diagnostics of the VMM, by area and level.
 *
 * MACHINEN_LOG=area:level,… chooses; `all` is an area, the default is `warn`.
 * Lines go to one descriptor (stderr unless log_to() was called), written with
 * one write(2) each, so that threads do not mix.  The library never logs: it
 * returns errors and calls back with events.
 *
 * LOG_ONCE is for what a guest can cause: it logs the first time and counts
 * silently after, so that a guest cannot fill the host's disk.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Parses MACHINEN_LOG's syntax; unknown words are ignored.  Not thread-safe:
 * call before threads start. */
void log_setup(const char *spec);
/* Borrowed descriptor for all further lines. */
void log_to(int fd);
bool log_on(const char *area, enum log_level level);
void log_line(const char *area, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_err(area, ...) log_line(area, LOG_ERR, __VA_ARGS__)
#define log_warn(area, ...) log_line(area, LOG_WARN, __VA_ARGS__)
#define log_info(area, ...) \
	do { if (log_on(area, LOG_INFO)) log_line(area, LOG_INFO, __VA_ARGS__); } while (0)
#define log_debug(area, ...) \
	do { if (log_on(area, LOG_DEBUG)) log_line(area, LOG_DEBUG, __VA_ARGS__); } while (0)

/* `flag` is a bool that lives as long as the object complained about. */
#define log_once(flag, area, ...) \
	do { if (!(flag)) { (flag) = true; log_line(area, LOG_WARN, __VA_ARGS__); } } while (0)

#endif
