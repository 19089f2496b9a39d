// SPDX-License-Identifier: MIT
/*
 * initramfs.c - the initramfs made for each boot; see cpio.h.
 *
 * Which module needs which is read from the modules themselves (the .modinfo
 * section that depmod reads too), so a directory with nothing but .ko files is
 * enough.  The load order is a depth-first walk over what is wanted.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "image/cpio.h"

#define MODULE_MAX_SIZE (16u << 20)
#define MODULE_MAX_DEPTH 16

struct module {
	char name[64];		/* dashes as underscores, no suffix */
	char *path;		/* owned */
	bool done;
};

struct walk {
	struct module *m;	/* owned */
	size_t nr, cap;
	struct cpio *out;
	struct buf list;
};

static void module_name(const char *file, size_t len, char out[64])
{
	snprintf(out, 64, "%.*s", (int)len, file);
	for (char *p = out; *p; p++)
		if (*p == '-')
			*p = '_';
}

static int add_module(struct walk *w, const char *path, const char *file)
{
	if (w->nr == w->cap) {
		size_t cap = w->cap ? w->cap * 2 : 64;
		struct module *m = realloc(w->m, cap * sizeof(*m));

		if (!m)
			return -ENOMEM;
		w->m = m;
		w->cap = cap;
	}
	w->m[w->nr] = (struct module){ .path = strdup(path) };
	module_name(file, strlen(file) - 3, w->m[w->nr].name);
	return w->m[w->nr++].path ? 0 : -ENOMEM;
}

static int scan(struct walk *w, const char *dir, unsigned depth)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = d ? 0 : -errno;

	while (!r && (e = readdir(d))) {
		size_t len = strlen(e->d_name);
		char path[4096];
		struct stat st;

		if (e->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >=
		    (int)sizeof(path) || lstat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode) && depth < MODULE_MAX_DEPTH)
			r = scan(w, path, depth + 1);
		else if (S_ISREG(st.st_mode) && len > 3 &&
			 !strcmp(e->d_name + len - 3, ".ko"))
			r = add_module(w, path, e->d_name);
	}
	if (d)
		closedir(d);
	return r;
}

/* A range of the file, or NULL when it is not inside. */
static const void *slice(const void *elf, size_t len, uint64_t off, uint64_t n)
{
	return off <= len && n <= len - off ? (const char *)elf + off : NULL;
}

static void find_depends(const char *info, size_t len, char *out, size_t size)
{
	const char *end = info + len;

	while (info < end) {
		size_t n = strnlen(info, end - info);

		if (n > 8 && !memcmp(info, "depends=", 8)) {
			snprintf(out, size, "%.*s", (int)(n - 8), info + 8);
			return;
		}
		info += n + 1;
	}
}

int module_depends(const void *elf, size_t len, char *out, size_t size)
{
	const Elf64_Ehdr *eh = slice(elf, len, 0, sizeof(*eh));
	const char *names;
	Elf64_Ehdr h;
	Elf64_Shdr s, str;

	*out = '\0';
	if (!eh)
		return -ENOEXEC;
	memcpy(&h, eh, sizeof(h));
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) ||
	    h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_shstrndx >= h.e_shnum ||
	    h.e_shentsize != sizeof(s) ||
	    !slice(elf, len, h.e_shoff, (uint64_t)h.e_shnum * sizeof(s)))
		return -ENOEXEC;
	memcpy(&str, (const char *)elf + h.e_shoff + h.e_shstrndx * sizeof(s),
	       sizeof(str));
	names = slice(elf, len, str.sh_offset, str.sh_size);
	for (unsigned i = 0; names && i < h.e_shnum; i++) {
		const char *data;

		memcpy(&s, (const char *)elf + h.e_shoff + i * sizeof(s),
		       sizeof(s));
		data = slice(elf, len, s.sh_offset, s.sh_size);
		if (s.sh_name >= str.sh_size || !data || s.sh_type == SHT_NOBITS ||
		    strnlen(names + s.sh_name, str.sh_size - s.sh_name) != 8 ||
		    memcmp(names + s.sh_name, ".modinfo", 8))
			continue;
		find_depends(data, s.sh_size, out, size);
		return 0;
	}
	return -ENOEXEC;
}

static int add_wanted(struct walk *w, const char *name, unsigned depth,
		      struct err *err);

static int add_depends(struct walk *w, const char *list, unsigned depth,
		       struct err *err)
{
	int r = 0;

	while (!r && *list) {
		size_t len = strcspn(list, ",");
		char name[64];

		module_name(list, len, name);
		r = add_wanted(w, name, depth + 1, err);
		list += len + (list[len] == ',');
	}
	return r;
}

static int add_file(struct walk *w, struct module *m, unsigned depth,
		    struct err *err)
{
	struct buf data = BUF_INIT;
	char depends[1024], file[96];
	int r = io_read_file(AT_FDCWD, m->path, MODULE_MAX_SIZE, &data);

	if (!r)
		r = module_depends(data.data, data.len, depends, sizeof(depends));
	if (r)
		err_set(err, -r, "%s is not a usable kernel module", m->path);
	else
		r = add_depends(w, depends, depth, err);
	if (!r) {
		snprintf(file, sizeof(file), "modules/%s.ko", m->name);
		cpio_file(w->out, file, 0600, data.data, data.len);
		buf_addf(&w->list, "%s.ko\n", m->name);
	}
	buf_done(&data);
	return r;
}

static int add_wanted(struct walk *w, const char *name, unsigned depth,
		      struct err *err)
{
	char plain[64];

	module_name(name, strlen(name), plain);
	for (size_t i = 0; i < w->nr; i++) {
		if (strcmp(w->m[i].name, plain))
			continue;
		if (w->m[i].done)
			return 0;
		if (depth > MODULE_MAX_DEPTH)
			return err_set(err, ELOOP, "kernel modules depend on "
				       "each other in a circle at %s", plain);
		w->m[i].done = true;	/* ends a circle, too */
		return add_file(w, &w->m[i], depth, err);
	}
	return 0;
}

static int add_modules(const struct initramfs *in, struct cpio *c,
		       struct err *err)
{
	struct walk w = { .out = c };
	int r = scan(&w, in->modules, 0);

	if (r)
		err_set(err, -r, "kernel modules in %s", in->modules);
	cpio_dir(c, "modules", 0700);
	for (size_t i = 0; !r && in->wanted && in->wanted[i]; i++)
		r = add_wanted(&w, in->wanted[i], 0, err);
	if (!r && w.list.oom)
		r = err_set(err, ENOMEM, "initramfs");
	if (!r)
		cpio_file(c, "modules.list", 0600, w.list.data, w.list.len);
	for (size_t i = 0; i < w.nr; i++)
		free(w.m[i].path);
	free(w.m);
	buf_done(&w.list);
	return r;
}

int initramfs_write(const struct initramfs *in, int fd, struct err *err)
{
	cleanup(io_closep) int init = open(in->init, O_RDONLY | O_CLOEXEC);
	struct cpio c;
	int r;

	if (init < 0)
		return err_set(err, errno, "guest program %s", in->init);
	cpio_init(&c, fd);
	cpio_dir(&c, "dev", 0755);
	cpio_dev(&c, "dev/console", S_IFCHR | 0600, 5, 1);
	cpio_file_fd(&c, "init", 0755, init);
	if (in->modules) {
		r = add_modules(in, &c, err);
		if (r)
			return r;
	}
	if (in->config)
		cpio_file(&c, "config", 0600, in->config, in->config_len);
	r = cpio_finish(&c);
	return r ? err_set(err, -r, "write the initramfs") : 0;
}
