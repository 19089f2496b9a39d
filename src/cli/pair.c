// SPDX-License-Identifier: MIT
/* pair.c - HOST:GUEST on the command line; see cmd.h. */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"

int path_pair(const char *word, enum mn_code code, bool json, char **text,
	      const char **host, const char **guest)
{
	const char *colon = strrchr(word, ':');
	char *copy;

	if (!colon || colon == word || !colon[1])
		return out_usage_error(code, json, "\"%s\": must be HOST:GUEST", word);
	copy = strdup(word);
	if (!copy)
		return out_usage_error(MN_HOST_FAILED, json, "out of memory");
	copy[colon - word] = '\0';
	*text = copy;
	*host = copy;
	*guest = copy + (colon - word) + 1;
	return 0;
}
