/* SPDX-License-Identifier: MIT */
/* acl.h - POSIX access control lists of archive entries, both ways.  Included by
 * src/image alone. */
#ifndef IMAGE_ACL_H
#define IMAGE_ACL_H

#include <stddef.h>

struct archive_entry;
struct err;
struct tree;
struct tree_inode;

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* Adds what the entry has as attributes of the inode. */
int acl_add(struct tree *t, struct tree_inode *i, struct archive_entry *e,
	    struct err *err);
/* Sets the entry's from an attribute; name is one of the two above. */
int acl_to_entry(struct archive_entry *e, const char *name, const void *value,
		 size_t len, struct err *err);

#endif
