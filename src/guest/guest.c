// SPDX-License-Identifier: MIT
/* guest.c - log and environment lists; see guest.h. */
#include "guest/guest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void guest_log(const struct guest *g, const char *fmt, ...)
{
	char line[512] = "<4>machinen: ";
	size_t len = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + len, sizeof(line) - len, fmt, ap);
	va_end(ap);
	if (g->kmsg >= 0 && write(g->kmsg, line, strlen(line)) < 0)
		return;
}

int guest_env_add(char ***env, const char *assign)
{
	const char *eq = strchr(assign, '=');
	size_t key = eq ? (size_t)(eq - assign) + 1 : 0, nr = 0;
	char **list, *copy;

	if (key < 2)
		return -EINVAL;
	copy = strdup(assign);
	if (!copy)
		return -ENOMEM;
	for (; *env && (*env)[nr]; nr++) {
		if (!strncmp((*env)[nr], assign, key)) {
			free((*env)[nr]);
			(*env)[nr] = copy;
			return 0;
		}
	}
	list = realloc(*env, (nr + 2) * sizeof(*list));
	if (!list) {
		free(copy);
		return -ENOMEM;
	}
	list[nr] = copy;
	list[nr + 1] = NULL;
	*env = list;
	return 0;
}

const char *guest_env_get(char *const *env, const char *key)
{
	size_t len = strlen(key);

	for (; env && *env; env++)
		if (!strncmp(*env, key, len) && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}
