/* SPDX-License-Identifier: MIT */
/*
 * tar.h - the header block that tar_read.c and tar_write.c share (POSIX.1-2001
 * pax interchange format, ustar header), and pax records.
 */
#ifndef GUEST_TAR_H
#define GUEST_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAR_BLOCK 512
#define TAR_PAX_MAX (1u << 20)	/* of one entry's records, xattrs included */

struct tar_head {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8];
	char type, linkname[100], magic[6], version[2], uname[32], gname[32];
	char devmajor[8], devminor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_head) == TAR_BLOCK, "one block");

/*
 * A number: octal text, or base 256 when the first bit is set.  False when it is
 * neither, negative, or too big.
 */
bool tar_number(const char *field, size_t len, uint64_t *v);
/* False when v needs more digits than the field has. */
bool tar_put_number(char *field, size_t len, uint64_t v);
unsigned tar_checksum(const struct tar_head *h);

/*
 * Takes one "LEN KEY=VALUE\n" record off the front of *p; false at the end or
 * when the rest is not a record (*bad).  The value may hold any byte.
 */
struct tar_record {
	const char *key, *value;	/* into the records; key ends at '=' */
	size_t key_len, value_len;
};
bool tar_record_next(const char **p, const char *end, struct tar_record *r,
		     bool *bad);

#endif
