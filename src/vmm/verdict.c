// SPDX-License-Identifier: MIT
/*
 * verdict.c - see verdict.h.  The file is four lines:
 *
 *	machinen verdict 1
 *	IDENTITY
 *	ok | ERRNO MESSAGE
 *	end
 *
 * Two VMs that write at once write the same; who reads between finds no "end".
 */
#include "vmm/verdict.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define HEAD	 "machinen verdict 1\n"
#define TAIL	 "\nend\n"
#define FILE_MAX 1024

/* A verdict says which code runs a hostile guest: nobody else may decide that. */
static bool is_our_own(int fd)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* Cuts off what must stand at the start; NULL when it does not. */
static char *after(char *text, const char *start)
{
	size_t n = strlen(start);

	return text && !strncmp(text, start, n) ? text + n : NULL;
}

bool verdict_get(int fd, const char *identity, int *ret, struct err *err)
{
	char text[FILE_MAX + 1], *p, *end;
	ssize_t n = is_our_own(fd) ? io_pread_full(fd, text, FILE_MAX, 0) : -EPERM;
	long num;

	if (n < 0)
		return false;
	text[n] = '\0';
	p = after(after(after(text, HEAD), identity), "\n");
	end = p ? strstr(p, TAIL) : NULL;
	if (!end || end[strlen(TAIL)])
		return false;
	*end = '\0';
	*ret = 0;
	if (!strcmp(p, "ok"))
		return true;
	num = strtol(p, &p, 10);
	if (num <= 0 || num > 4095 || *p != ' ' || strchr(p, '\n'))
		return false;
	*ret = err_set(err, (int)num, "%s", p + 1);
	return true;
}

void verdict_put(int fd, const char *identity, int ret, const struct err *err)
{
	char text[FILE_MAX];
	int n;

	if (!is_our_own(fd) || strchr(identity, '\n'))
		return;
	if (!ret)
		n = snprintf(text, sizeof(text), HEAD "%s\nok" TAIL, identity);
	else
		n = snprintf(text, sizeof(text), HEAD "%s\n%d %s" TAIL, identity, -ret,
			     err_message(err));
	if (n >= (int)sizeof(text) || ftruncate(fd, 0) < 0)
		return;
	io_pwrite_full(fd, text, (size_t)n, 0);
}
