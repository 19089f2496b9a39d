// SPDX-License-Identifier: MIT
/*
 * console.c - printing a VM's logs; see cmd.h.
 *
 * The log is cut when it grows too long, so a follower that finds the file
 * shorter than its place goes back to the start.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cmd.h"

#define BLOCK 65536
#define REFUSALS_SHOWN 10

off_t console_copy(int fd, off_t at)
{
	char data[BLOCK];
	struct stat st;
	ssize_t n;

	if (!fstat(fd, &st) && st.st_size < at)
		at = 0;
	while ((n = pread(fd, data, sizeof(data), at)) > 0) {
		if (fwrite(data, 1, (size_t)n, stdout) != (size_t)n)
			return -1;
		at += n;
	}
	return fflush(stdout) ? -1 : at;
}

off_t console_tail(int fd, uint64_t lines)
{
	struct stat st;
	off_t end, at;

	if (fstat(fd, &st) < 0)
		return 0;
	end = at = st.st_size;
	if (!lines)
		return end;
	while (at > 0) {
		char data[BLOCK];
		size_t want = at > BLOCK ? BLOCK : (size_t)at;

		at -= (off_t)want;
		if (pread(fd, data, want, at) != (ssize_t)want)
			return 0;
		for (size_t i = want; i--; ) {
			off_t next = at + (off_t)i + 1;

			/* the newline that ends the file begins no line */
			if (data[i] == '\n' && next < end && !--lines)
				return next;
		}
	}
	return 0;
}

void console_refusals(int log)
{
	static const char mark[] = " net warn: ";
	FILE *f = log < 0 ? NULL : fdopen(log, "r");
	char line[512], *said;
	unsigned nr = 0;

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		said = strstr(line, mark);
		if (said && ++nr <= REFUSALS_SHOWN)
			out_note("network: %s", said + strlen(mark));
	}
	if (nr > REFUSALS_SHOWN)
		out_note("network: %u more such lines", nr - REFUSALS_SHOWN);
	if (f)
		fclose(f);
}

int console_print(struct mn_vm *vm, uint64_t lines, struct mn_error *err)
{
	int fd = mn_vm_console(vm, err);

	if (fd < 0)
		return fd;
	console_copy(fd, console_tail(fd, lines));
	close(fd);
	return 0;
}
