/* SPDX-License-Identifier: MIT */
/*
 * tree.h - the file system to be, in memory: directories, inodes, names, and
 * where on the disk the data of each file already lies.  Included by src/image
 * alone.
 *
 * Filled by archive.c or hostdir.c in any order, written out by ext4.c.  All
 * memory is one arena and goes at once.
 */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct space;

#define TREE_NAME_MAX 255u
#define TREE_PATH_MAX (32u << 10)
#define TREE_LINK_MAX 65000u	/* hard links of one inode in ext4 */
#define TREE_FILE_MAX ((1ull << 44) - 4096)	/* 32-bit block numbers */

struct tree_limits {
	uint32_t entries;
	uint32_t devices;	/* device nodes */
	uint32_t xattrs;	/* bytes of extended attributes of one entry */
};

struct tree_time {
	int64_t sec;
	uint32_t nsec;
};

struct tree_meta {
	uint32_t mode;		/* type and permissions */
	uint32_t uid, gid;
	uint32_t major, minor;	/* device nodes */
	uint64_t size;		/* regular files */
	struct tree_time mtime, atime, ctime;
	const char *target;	/* symbolic links; borrowed */
};

struct tree_extent {
	uint32_t lblk, len;	/* in file system blocks; len <= 32768 */
	uint64_t pblk;
};

struct tree_xattr {
	struct tree_xattr *next;
	char *name;
	void *value;
	size_t len;
};

/* One name in a directory. */
struct tree_dirent {
	struct tree_dirent *next;	/* of the same directory */
	struct tree_dirent *hash_next;
	struct tree_inode *dir, *inode;
	uint8_t name_len;
	char name[];			/* NUL-terminated */
};

struct tree_inode {
	struct tree_inode *next;	/* all, in order of creation */
	uint32_t ino;			/* given when writing */
	uint32_t mode, uid, gid, major, minor;
	uint32_t nlink;			/* names; 0: replaced, not written */
	uint64_t size;
	struct tree_time mtime, atime, ctime;
	struct tree_xattr *xattrs;
	struct tree_extent *extents;	/* files, long links; later directories */
	uint32_t nr_extents;
	char *target;			/* symbolic links */
	struct tree_inode *parent;	/* directories */
	struct tree_dirent *first, *last;
	uint32_t nr_entries, nr_subdirs;
	bool indexed;			/* written as a hash tree */
};

struct tree {
	struct tree_inode *root;
	struct tree_inode *last;	/* tail of the list that root begins */
	uint32_t nr_entries;		/* ever added: what limits count */
	uint32_t nr_devices;
	struct tree_limits limits;
	struct tree_time newest;	/* latest modification time seen */
	/* private */
	struct tree_chunk *chunks;
	struct tree_dirent **buckets;
	size_t nr_buckets, nr_names;
	uint64_t hash_key;
	char *last_dir;			/* path of the parent looked up last */
	size_t last_dir_len, last_dir_cap;
	struct tree_inode *last_dir_inode;
};

/* 0 or -ENOMEM; a half-built tree may go to tree_done(). */
int tree_init(struct tree *t, const struct tree_limits *limits);
void tree_done(struct tree *t);
/* NULL when out of memory. */
void *tree_alloc(struct tree *t, size_t size);

/*
 * Adds what `path` names, relative to the root: "a/b", "./a/b".  Absolute
 * paths, "..", and paths through anything but a directory are refused.  Missing
 * parents are made.  A name that exists is replaced, as tar does it; a
 * directory is only updated.  The tree decides nothing about data.
 */
int tree_add(struct tree *t, const char *path, const struct tree_meta *m,
	     struct tree_inode **out, struct err *err);
/* A further name for an existing file. */
int tree_link(struct tree *t, const char *path, const char *target,
	      struct err *err);
/* What `path` names, links not followed; NULL when absent. */
struct tree_inode *tree_find(struct tree *t, const char *path);
/* Copies name and value; a name that is there is replaced. */
int tree_xattr(struct tree *t, struct tree_inode *i, const char *name,
	       const void *value, size_t len, struct err *err);

/*
 * Gives a regular file room for the byte range [off, off + len), in rising
 * order, and writes into it.  tree_data fails on bytes no room was made for.
 */
int tree_room(struct tree *t, struct space *s, struct tree_inode *i,
	      uint64_t off, uint64_t len, struct err *err);
int tree_data(struct space *s, struct tree_inode *i, uint32_t *cursor,
	      uint64_t off, const void *data, size_t len, struct err *err);

#endif
