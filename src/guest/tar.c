// SPDX-License-Identifier: MIT
/* tar.c - numbers, checksums and pax records; see tar.h. */
#include "guest/tar.h"

#include <stdio.h>
#include <string.h>

bool tar_number(const char *field, size_t len, uint64_t *v)
{
	const uint8_t *p = (const uint8_t *)field;
	size_t i = 0;

	*v = 0;
	if (p[0] & 0x80) {
		if (p[0] != 0x80)	/* negative, or beyond 64 bits */
			return false;
		for (i = 1; i < len; i++) {
			if (*v >> 55)
				return false;
			*v = *v << 8 | p[i];
		}
		return true;
	}
	while (i < len && p[i] == ' ')
		i++;
	for (; i < len && p[i] >= '0' && p[i] <= '7'; i++)
		*v = *v << 3 | (p[i] - '0');
	return i == len || p[i] == ' ' || p[i] == '\0';
}

bool tar_put_number(char *field, size_t len, uint64_t v)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%0*llo", (int)len - 1,
			 (unsigned long long)v);

	if (n >= (int)len)
		return false;
	memcpy(field, text, n + 1);
	return true;
}

unsigned tar_checksum(const struct tar_head *h)
{
	const uint8_t *p = (const uint8_t *)h;
	unsigned sum = 0;

	for (size_t i = 0; i < sizeof(*h); i++)
		sum += i >= offsetof(struct tar_head, sum) &&
		       i < offsetof(struct tar_head, type) ? ' ' : p[i];
	return sum;
}

bool tar_record_next(const char **p, const char *end, struct tar_record *r,
		     bool *bad)
{
	const char *start = *p, *q = start, *eq;
	size_t len = 0;

	*bad = false;
	if (q >= end)
		return false;
	*bad = true;
	while (q < end && *q >= '0' && *q <= '9' && len < TAR_PAX_MAX)
		len = len * 10 + (*q++ - '0');
	if (q == start || q >= end || *q != ' ' || len > (size_t)(end - start) ||
	    len < (size_t)(q - start) + 4 || start[len - 1] != '\n')
		return false;
	q++;
	eq = memchr(q, '=', start + len - q);
	if (!eq || eq == q)
		return false;
	*r = (struct tar_record){
		.key = q, .key_len = eq - q,
		.value = eq + 1, .value_len = start + len - 1 - (eq + 1),
	};
	*p = start + len;
	*bad = false;
	return true;
}
