// SPDX-License-Identifier: MIT
/* out.c - what goes to people and programs; see cmd.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "cli/cmd.h"

int out_json(json_t *doc)
{
	json_t *all = json_pack("{s:i}", "schema_version", CMD_JSON_VERSION);
	struct buf text = BUF_INIT;

	json_object_update(all, doc);
	json_print(all, &text);
	if (!text.oom)
		fwrite(text.data, 1, text.len, stdout);
	fflush(stdout);
	buf_done(&text);
	json_decref(doc);
	json_decref(all);
	return 0;
}

static void print_error(const char *code, const char *message)
{
	const char *red = out_colour(2) ? "\033[31m" : "";

	fprintf(stderr, "%smachinen: (%s)%s: %s\n", red, code, *red ? "\033[0m" : "",
		message);
}

/* causes: a reference that is taken, or NULL. */
static void json_error(const char *code, const char *message, json_t *causes)
{
	out_json(json_pack("{s:b, s:{s:s, s:s, s:o*}}", "ok", 0, "error",
			   "code", code, "message", message, "causes", causes));
}

static json_t *json_causes(const struct mn_error *err)
{
	json_t *list = mn_error_cause(err, 0) ? json_array() : NULL;
	const char *cause;

	for (unsigned i = 0; list && (cause = mn_error_cause(err, i)); i++)
		json_array_append_new(list, json_string(cause));
	return list;
}

int out_error(const struct mn_error *err, bool json)
{
	const char *code = mn_code_name(err->code), *cause;

	if (json) {
		json_error(code, mn_error_message(err), json_causes(err));
		return 1;
	}
	print_error(code, mn_error_message(err));
	for (unsigned i = 0; (cause = mn_error_cause(err, i)); i++)
		fprintf(stderr, "  caused by: %s\n", cause);
	return 1;
}

int out_usage_error(enum mn_code code, bool json, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (json)
		json_error(mn_code_name(code), text, NULL);
	else
		print_error(mn_code_name(code), text);
	return 2;
}

void out_note(const char *fmt, ...)
{
	va_list ap;

	fputs("machinen: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

bool out_colour(int fd)
{
	const char *no = getenv("NO_COLOR");

	return isatty(fd) && !(no && *no);
}

unsigned out_width(void)
{
	struct winsize ws;

	return isatty(1) && !ioctl(1, TIOCGWINSZ, &ws) ? ws.ws_col : 0;
}

void out_bytes(char *to, size_t size, uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	unsigned u = 0;

	while (v >= 1024 && u < 4) {
		v /= 1024;
		u++;
	}
	snprintf(to, size, u && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void out_identity(const char *row, const char *name, const char *sha256)
{
	if (*name || *sha256)
		printf("%-12s %s%s%.12s\n", row, *name ? name : "unknown",
		       *sha256 ? ", sha256 " : "", sha256);
}

void out_duration(char *to, size_t size, uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (s < 60)
		snprintf(to, size, "%us", (unsigned)s);
	else if (s < 3600)
		snprintf(to, size, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(to, size, "%uh%02um", (unsigned)(s / 3600),
			 (unsigned)(s / 60 % 60));
	else
		snprintf(to, size, "%llud%02uh", (unsigned long long)(s / 86400),
			 (unsigned)(s / 3600 % 24));
}

#define PROGRESS_NS 50000000ull	/* between two looks of a reader */

/* --- progress ------------------------------------------------------------- */

void progress_init(struct progress *p)
{
	const char *log = getenv("MACHINEN_LOG");

	*p = (struct progress){ .tty = isatty(2),
				.phases = log && strstr(log, "phase") };
}

static void show(struct progress *p, const char *text)
{
	if (p->tty)
		fprintf(stderr, "\r\033[K%s", text);
	p->shown = p->tty;
}

int progress_event(const struct mn_event *ev, void *arg)
{
	struct progress *p = arg;
	char text[256], done[32], total[32];

	switch (ev->type) {
	case MN_EVENT_NOTE:
		show(p, ev->name);
		break;
	case MN_EVENT_PROGRESS:
		if (io_now_ns() < p->when + PROGRESS_NS)
			break;
		p->when = io_now_ns();
		out_bytes(done, sizeof(done), ev->done);
		out_bytes(total, sizeof(total), ev->total);
		snprintf(text, sizeof(text), ev->total ? "%s: %s of %s" :
			 ev->done ? "%s: %s" : "%s", ev->name, done, total);
		show(p, text);
		break;
	case MN_EVENT_PHASE:
		if (p->phases) {
			progress_end(p);
			out_note("phase %s %.1f ms", ev->name, ev->ms);
		}
		break;
	default:
		break;
	}
	return 0;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
