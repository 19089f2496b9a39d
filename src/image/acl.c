// SPDX-License-Identifier: MIT
/*
 * acl.c - POSIX access control lists: what libarchive parsed from pax headers
 * as against the form of the extended attributes (linux/posix_acl_xattr.h):
 * a version word 2, then { u16 tag, u16 permissions, u32 id } sorted by tag
 * and id.  libext2fs turns that into what ext4 keeps.
 */
#include "image/acl.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "base/wire.h"
#include "image/tree.h"

#define ACL_VERSION 2u
#define ACL_MAX	    256u	/* entries of one list */
#define NO_ID	    UINT32_MAX

static const struct {
	int ours;		/* ARCHIVE_ENTRY_ACL_ tag */
	uint16_t tag;		/* of the attribute, in its sort order */
	bool has_id;
} tags[] = {
	{ ARCHIVE_ENTRY_ACL_USER_OBJ, 0x01, false },
	{ ARCHIVE_ENTRY_ACL_USER, 0x02, true },
	{ ARCHIVE_ENTRY_ACL_GROUP_OBJ, 0x04, false },
	{ ARCHIVE_ENTRY_ACL_GROUP, 0x08, true },
	{ ARCHIVE_ENTRY_ACL_MASK, 0x10, false },
	{ ARCHIVE_ENTRY_ACL_OTHER, 0x20, false },
};

struct ace {
	uint16_t tag, perm;
	uint32_t id;
};

static int by_tag(const void *pa, const void *pb)
{
	const struct ace *a = pa, *b = pb;

	if (a->tag != b->tag)
		return a->tag < b->tag ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static int convert(struct ace *a, int tag, int perm, int id, const char *name,
		   struct err *err)
{
	for (unsigned k = 0; k < ARRAY_LEN(tags); k++) {
		if (tags[k].ours != tag)
			continue;
		if (tags[k].has_id && id < 0)
			return err_set(err, EINVAL, "its access control list "
				       "names '%.64s' without a number",
				       name ? name : "");
		*a = (struct ace){ tags[k].tag, perm & 7,
				   tags[k].has_id ? (uint32_t)id : NO_ID };
		return 0;
	}
	return err_set(err, EINVAL, "an unknown kind of access control entry");
}

static int add_one(struct tree *t, struct tree_inode *i, const char *name,
		   struct ace *a, unsigned nr, struct err *err)
{
	uint8_t value[4 + 8 * ACL_MAX];
	struct wire_w w;

	qsort(a, nr, sizeof(*a), by_tag);
	wire_w_init(&w, value, sizeof(value));
	wire_put_u32(&w, ACL_VERSION);
	for (unsigned k = 0; k < nr; k++) {
		wire_put_u16(&w, a[k].tag);
		wire_put_u16(&w, a[k].perm);
		wire_put_u32(&w, a[k].id);
	}
	return tree_xattr(t, i, name, value, wire_len(&w), err);
}

static int add_type(struct tree *t, struct tree_inode *i,
		    struct archive_entry *e, int type, const char *xattr,
		    struct err *err)
{
	struct ace a[ACL_MAX];
	int found, perm, tag, id, ret;
	const char *name;
	unsigned nr = 0;

	if (archive_entry_acl_reset(e, type) == 0)
		return 0;
	while (archive_entry_acl_next(e, type, &found, &perm, &tag, &id,
				      &name) == ARCHIVE_OK) {
		if (nr == ACL_MAX)
			return err_set(err, EINVAL, "an access control list of "
				       "more than %u entries", ACL_MAX);
		ret = convert(&a[nr++], tag, perm, id, name, err);
		if (ret)
			return ret;
	}
	return nr ? add_one(t, i, xattr, a, nr, err) : 0;
}

int acl_add(struct tree *t, struct tree_inode *i, struct archive_entry *e,
	    struct err *err)
{
	int types = archive_entry_acl_types(e), ret = 0;

	if (types & ARCHIVE_ENTRY_ACL_TYPE_ACCESS)
		ret = add_type(t, i, e, ARCHIVE_ENTRY_ACL_TYPE_ACCESS,
			       ACL_ACCESS, err);
	if (!ret && (types & ARCHIVE_ENTRY_ACL_TYPE_DEFAULT))
		ret = add_type(t, i, e, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT,
			       ACL_DEFAULT, err);
	return ret;
}

int acl_to_entry(struct archive_entry *e, const char *name, const void *value,
		 size_t len, struct err *err)
{
	int type = !strcmp(name, ACL_ACCESS) ? ARCHIVE_ENTRY_ACL_TYPE_ACCESS :
					       ARCHIVE_ENTRY_ACL_TYPE_DEFAULT;
	struct wire_r r;

	wire_r_init(&r, value, len);
	if (wire_u32(&r) != ACL_VERSION || wire_left(&r) % 8)
		return err_set(err, EBADMSG, "a damaged access control list");
	while (wire_left(&r)) {
		uint16_t tag = wire_u16(&r), perm = wire_u16(&r);
		uint32_t id = wire_u32(&r);
		unsigned k = 0;

		while (k < ARRAY_LEN(tags) && tags[k].tag != tag)
			k++;
		if (k == ARRAY_LEN(tags))
			return err_set(err, EBADMSG,
				       "a damaged access control list");
		archive_entry_acl_add_entry(e, type, perm & 7, tags[k].ours,
					    tags[k].has_id ? (int)id : -1, "");
	}
	return 0;
}
