// SPDX-License-Identifier: MIT
/* user.c - users and groups of the guest's root file system; see user.h. */
#include "guest/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER_FILE_MAX (1u << 20)

/* One colon-separated field of the line at p; returns what follows it. */
static const char *field(const char *p, char *out, size_t size)
{
	size_t len = strcspn(p, ":\n");

	snprintf(out, size, "%.*s", (int)len, p);
	return p + len + (p[len] == ':');
}

static const char *next_line(const char *p)
{
	p += strcspn(p, "\n");
	return *p ? p + 1 : p;
}

static bool parse_id(const char *s, unsigned *id)
{
	unsigned long v;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	v = strtoul(s, &end, 10);
	if (*end || errno || v >= 0xffffffffu)
		return false;
	*id = v;
	return true;
}

/* Fills u from the entry whose name (or, when name is NULL, uid) matches. */
static bool find_passwd(struct user *u, const char *passwd, const char *name)
{
	for (const char *p = passwd; p && *p; p = next_line(p)) {
		char entry[64], skip[256], uid[16], gid[16];
		unsigned id, group;
		const char *q;

		q = field(p, entry, sizeof(entry));
		q = field(q, skip, sizeof(skip));
		q = field(q, uid, sizeof(uid));
		q = field(q, gid, sizeof(gid));
		if (!entry[0] || !parse_id(uid, &id) || !parse_id(gid, &group) ||
		    (name ? strcmp(name, entry) : id != u->uid))
			continue;
		q = field(q, skip, sizeof(skip));
		q = field(q, u->home, sizeof(u->home));
		field(q, u->shell, sizeof(u->shell));
		u->uid = id;
		u->gid = group;
		memcpy(u->name, entry, sizeof(u->name));
		return true;
	}
	return false;
}

static bool is_member(const char *list, const char *name)
{
	size_t len = strlen(name);

	while (*list && *list != '\n') {
		size_t n = strcspn(list, ",\n");

		if (n == len && !memcmp(list, name, n))
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

static const char *group_fields(const char *p, char name[64], unsigned *gid)
{
	char skip[256], id[16];

	p = field(p, name, 64);
	p = field(p, skip, sizeof(skip));
	p = field(p, id, sizeof(id));
	return parse_id(id, gid) ? p : NULL;
}

static void find_groups(struct user *u, const char *group)
{
	u->groups[0] = u->gid;
	u->nr_groups = 1;
	for (const char *p = group; u->name[0] && p && *p; p = next_line(p)) {
		char name[64];
		unsigned gid;
		const char *members = group_fields(p, name, &gid);

		if (members && gid != u->gid && is_member(members, u->name) &&
		    u->nr_groups < USER_GROUPS_MAX)
			u->groups[u->nr_groups++] = gid;
	}
}

static int find_gid(gid_t *out, const char *group, const char *spec)
{
	unsigned gid;

	if (parse_id(spec, &gid)) {
		*out = gid;
		return 0;
	}
	for (const char *p = group; p && *p; p = next_line(p)) {
		char name[64];

		if (group_fields(p, name, &gid) && !strcmp(name, spec)) {
			*out = gid;
			return 0;
		}
	}
	return -ENOENT;
}

int user_lookup(struct user *u, const char *spec, const char *passwd,
		const char *group)
{
	char name[64];
	const char *colon;
	unsigned uid = 0;
	int r = 0;

	*u = (struct user){ .uid = 0 };
	if (!spec || !*spec)
		spec = "0";
	colon = strchr(spec, ':');
	if (strcspn(spec, ":") >= sizeof(name) || *spec == ':' ||
	    (colon && !colon[1]))
		return -EINVAL;
	field(spec, name, sizeof(name));
	if (parse_id(name, &uid)) {
		u->uid = uid;
		find_passwd(u, passwd, NULL);
	} else if (!find_passwd(u, passwd, name) && strcmp(name, "root")) {
		return -ENOENT;
	}
	find_groups(u, group);
	if (colon) {
		r = find_gid(&u->gid, group, colon + 1);
		u->groups[0] = u->gid;
		u->nr_groups = 1;
	}
	if (!u->home[0])
		strcpy(u->home, u->uid ? "/" : "/root");
	if (!u->shell[0])
		strcpy(u->shell, "/bin/sh");
	return r;
}

/* A regular file as a string; NULL when it is not one or too big. */
static char *slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text = NULL;
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	    st.st_size <= USER_FILE_MAX && (text = malloc(st.st_size + 1))) {
		ssize_t n = read(fd, text, st.st_size);

		text[n > 0 ? n : 0] = '\0';
	}
	if (fd >= 0)
		close(fd);
	return text;
}

int user_find(struct user *u, const char *spec)
{
	char *passwd = slurp("/etc/passwd");
	char *group = slurp("/etc/group");
	int r = user_lookup(u, spec, passwd, group);

	free(passwd);
	free(group);
	return r;
}
