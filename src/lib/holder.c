// SPDX-License-Identifier: MIT
/*
 * holder.c - who holds a host port: a VM of ours, else any process.
 *
 * VMs are asked first, since "VM web" helps more than "machinen-vmm".  For others
 * the kernel says which socket has the port (/proc/net/tcp and its kin: address,
 * user, inode), and the process is the one with that socket among its
 * descriptors.  Those of other users cannot be looked into; then the user is all
 * there is to say.
 */
#include "lib/holder.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/util.h"
#include "lib/lib.h"
#include "proto/spec.h"

struct search {
	const struct spec_port *port;	/* borrowed */
	char *text;			/* HOLDER_TEXT bytes, borrowed */
	bool found;
};

/* --- VMs ------------------------------------------------------------------ */

static bool any_address(const char *s)
{
	return !strcmp(s, "0.0.0.0") || !strcmp(s, "::");
}

/* Two sockets are in each other's way on one address, or when one has all. */
static bool overlap(const char *a, const char *b)
{
	return any_address(a) || any_address(b) || !strcmp(a, b);
}

static int holds(const struct mn_status *st, void *arg)
{
	struct search *s = arg;

	for (unsigned i = 0; i < st->nr_ports && !s->found; i++) {
		const struct mn_port *p = &st->port[i];

		if (p->host_port != s->port->host_port || p->udp != s->port->udp ||
		    !overlap(p->host_addr, s->port->host_addr))
			continue;
		s->found = true;
		snprintf(s->text, HOLDER_TEXT,
			 *st->name ? "VM %s (pid %d)" : "VM %.0s%d", st->name, st->pid);
	}
	return 0;
}

/* --- other processes -------------------------------------------------------- */

struct owner {
	unsigned long inode;
	unsigned uid;
};

/* The kernel prints addresses as words of its own byte order. */
static bool address(const char *hex, char text[INET6_ADDRSTRLEN])
{
	uint32_t word[4] = { 0 };
	size_t n = strlen(hex) / 8;

	if (n != 1 && n != 4)
		return false;
	for (size_t i = 0; i < n; i++)
		if (sscanf(hex + i * 8, "%8x", &word[i]) != 1)
			return false;
	return inet_ntop(n == 1 ? AF_INET : AF_INET6, word, text, INET6_ADDRSTRLEN);
}

static bool row_matches(const struct spec_port *p, const char *row, struct owner *o)
{
	char hex[33], text[INET6_ADDRSTRLEN];
	unsigned port, state;

	if (sscanf(row, " %*u: %32[0-9A-F]:%x %*32[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %u %*u %lu",
		   hex, &port, &state, &o->uid, &o->inode) != 5)
		return false;
	/* 10 is TCP_LISTEN; a connection of that port is in nobody's way */
	return port == p->host_port && (p->udp || state == 10) &&
	       address(hex, text) && overlap(text, p->host_addr);
}

static bool find_socket(const struct spec_port *p, struct owner *o)
{
	static const char *const tables[2][2] = {
		{ "/proc/net/tcp", "/proc/net/tcp6" },
		{ "/proc/net/udp", "/proc/net/udp6" },
	};
	bool found = false;

	for (unsigned i = 0; i < 2 && !found; i++) {
		FILE *f = fopen(tables[p->udp][i], "re");
		char row[512];

		while (!found && f && fgets(row, sizeof(row), f))
			found = row_matches(p, row, o);
		if (f)
			fclose(f);
	}
	return found;
}

/* dir is /proc/PID/fd; taken over. */
static bool has_socket(int dir, unsigned long inode)
{
	DIR *d = fdopendir(dir);
	char want[32], is[32];
	struct dirent *e;
	bool found = false;

	if (!d) {
		io_close(dir);
		return false;
	}
	snprintf(want, sizeof(want), "socket:[%lu]", inode);
	while (!found && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, is, sizeof(is) - 1);

		if (n > 0) {
			is[n] = '\0';
			found = !strcmp(is, want);
		}
	}
	closedir(d);
	return found;
}

static void name_process(const char *pid, char text[HOLDER_TEXT])
{
	char path[64], name[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(name, sizeof(name), f))
		strcpy(name, "a process");
	if (f)
		fclose(f);
	name[strcspn(name, "\n")] = '\0';
	/* a process chooses its name: no terminal codes */
	for (char *c = name; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	snprintf(text, HOLDER_TEXT, "%s (pid %.20s)", name, pid);
}

static void name_owner(const struct owner *o, char text[HOLDER_TEXT])
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	bool found = false;

	while (!found && proc && (e = readdir(proc))) {
		char path[300];
		int dir;

		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "%s/fd", e->d_name);
		dir = openat(dirfd(proc), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		found = dir >= 0 && has_socket(dir, o->inode);
		if (found)
			name_process(e->d_name, text);
	}
	if (!found)
		snprintf(text, HOLDER_TEXT, "a process of user %u", o->uid);
	if (proc)
		closedir(proc);
}

bool holder_find(const struct spec_port *port, char text[HOLDER_TEXT])
{
	struct search s = { .port = port, .text = text };
	struct owner o;

	mn_list(true, holds, &s, NULL);
	if (s.found)
		return true;
	if (!find_socket(port, &o))
		return false;
	name_owner(&o, text);
	return true;
}
