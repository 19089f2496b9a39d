// SPDX-License-Identifier: MIT
/*
 * kmod.c - kernel modules; see kmod.h.
 *
 * Names compare with '-' and '_' as the same letter, as the kernel does.  A
 * table holds every module file of the tree with its place; a depth-first walk
 * from the wanted ones, dependencies first, gives the order.
 */
#include "lib/kmod.h"

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define NAME_LEN   64
#define MODULE_MAX (64u << 20)
#define DEPTH_MAX  32		/* a chain of dependencies */

/* What guests load, in a sensible order; "!" marks what must exist. */
static const char *const wanted[] = {
	"crc32c_generic", "crc32c_intel", "!virtio_mmio", "!virtio_blk", "!ext4",
	"!virtio_console", "virtio_rng", "!vmw_vsock_virtio_transport",
	"virtio_net", "virtio_balloon", "fuse", "virtiofs", "overlay", NULL,
};

struct module {
	char name[NAME_LEN];	/* with '_' */
	char *path;		/* owned */
	bool done;
};

struct tree {
	struct module *v;	/* owned */
	size_t nr, cap;
	char *builtin;		/* text of modules.builtin, owned; may be NULL */
	const char *dst;	/* borrowed */
	struct buf dep;		/* modules.dep so far */
};

/* "virtio-rng.ko.xz" gives "virtio_rng"; false when it is no module. */
static bool module_name(const char *file, size_t len, char name[NAME_LEN])
{
	const char *ko = memmem(file, len, ".ko", 3);
	size_t n = ko ? (size_t)(ko - file) : 0;

	if (!n || n >= NAME_LEN || (n + 3 < len && ko[3] != '.'))
		return false;
	for (size_t i = 0; i < n; i++)
		name[i] = file[i] == '-' ? '_' : file[i];
	name[n] = '\0';
	return true;
}

static int tree_add(struct tree *t, const char *file, const char *path)
{
	struct module m = { .done = false };

	if (!module_name(file, strlen(file), m.name))
		return 0;
	if (t->nr == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 512;
		struct module *v = reallocarray(t->v, cap, sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->v = v;
		t->cap = cap;
	}
	m.path = strdup(path);
	if (!m.path)
		return -ENOMEM;
	t->v[t->nr++] = m;
	return 0;
}

static int tree_scan(struct tree *t, const char *dir, struct err *err)
{
	char *paths[] = { (char *)(uintptr_t)dir, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *e;
	int ret = 0;

	if (!fts)
		return err_set(err, errno, "cannot read %s: %s", dir, strerror(errno));
	while (!ret && (e = fts_read(fts)))
		if (e->fts_info == FTS_F)
			ret = tree_add(t, e->fts_name, e->fts_path);
	fts_close(fts);
	if (!ret && !t->nr)
		return err_set(err, ENOENT, "no kernel modules in %s", dir);
	return ret;
}

static void tree_done(struct tree *t)
{
	for (size_t i = 0; i < t->nr; i++)
		free(t->v[i].path);
	free(t->v);
	free(t->builtin);
	buf_done(&t->dep);
}

static struct module *tree_find(struct tree *t, const char *name)
{
	for (size_t i = 0; i < t->nr; i++)
		if (!strcmp(t->v[i].name, name))
			return &t->v[i];
	return NULL;
}

static bool is_builtin(const struct tree *t, const char *name)
{
	const char *line = t->builtin;

	while (line && *line) {
		size_t len = strcspn(line, "\n");
		const char *slash = memrchr(line, '/', len);
		const char *file = slash ? slash + 1 : line;
		char got[NAME_LEN];

		if (module_name(file, len - (size_t)(file - line), got) &&
		    !strcmp(got, name))
			return true;
		line += len + (line[len] == '\n');
	}
	return false;
}

/* Reads a module, compressed or not. */
static int module_read(const char *path, struct buf *out, struct err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	la_ssize_t n = -1;

	if (!a)
		return err_set(err, ENOMEM, "out of memory");
	archive_read_support_format_raw(a);
	archive_read_support_filter_all(a);
	if (archive_read_open_filename(a, path, 65536) == ARCHIVE_OK &&
	    archive_read_next_header(a, &e) == ARCHIVE_OK)
		do {
			char *p = buf_reserve(out, 65536);

			n = p ? archive_read_data(a, p, 65536) : -1;
			if (n > 0)
				out->len += (size_t)n;
		} while (n > 0 && out->len < MODULE_MAX);
	archive_read_free(a);
	return n ? err_set(err, EIO, "cannot read %s", path) : 0;
}

/* The section's bytes within the file, or NULL; everything is bounds-checked. */
static const char *elf_section(const struct buf *file, const char *want,
			       size_t *len)
{
	Elf64_Ehdr eh;
	Elf64_Shdr sh, names;
	size_t wlen = strlen(want) + 1;

	if (file->len < sizeof(eh))
		return NULL;
	memcpy(&eh, file->data, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_shentsize != sizeof(sh) ||
	    eh.e_shoff > file->len || eh.e_shstrndx >= eh.e_shnum ||
	    (file->len - eh.e_shoff) / sizeof(sh) < eh.e_shnum)
		return NULL;
	memcpy(&names, file->data + eh.e_shoff + eh.e_shstrndx * sizeof(sh), sizeof(sh));
	if (names.sh_offset > file->len || names.sh_size > file->len - names.sh_offset)
		return NULL;
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		memcpy(&sh, file->data + eh.e_shoff + i * sizeof(sh), sizeof(sh));
		if (sh.sh_name > names.sh_size || names.sh_size - sh.sh_name < wlen ||
		    memcmp(file->data + names.sh_offset + sh.sh_name, want, wlen))
			continue;
		if (sh.sh_offset > file->len || sh.sh_size > file->len - sh.sh_offset)
			return NULL;
		*len = sh.sh_size;
		return file->data + sh.sh_offset;
	}
	return NULL;
}

/* The value of "depends=" in .modinfo (NUL-separated strings), "" when none. */
static int module_depends(const struct buf *file, char *out, size_t size)
{
	size_t len = 0;
	const char *p = elf_section(file, ".modinfo", &len);
	const char *end = p + len;

	*out = '\0';
	if (!p)
		return -EINVAL;
	while (p < end) {
		size_t n = strnlen(p, (size_t)(end - p));

		if (n > 8 && !memcmp(p, "depends=", 8)) {
			if (n - 8 >= size)
				return -E2BIG;
			memcpy(out, p + 8, n - 8);
			out[n - 8] = '\0';
			return 0;
		}
		p += n + 1;
	}
	return 0;
}

static int tree_take(struct tree *t, const char *name, bool must, int depth,
		     struct err *err);

static int take_depends(struct tree *t, char *depends, int depth, struct err *err)
{
	char *save = NULL;
	int ret = 0;

	for (char *d = strtok_r(depends, ",", &save); d && !ret;
	     d = strtok_r(NULL, ",", &save)) {
		for (char *c = d; *c; c++)
			*c = *c == '-' ? '_' : *c;
		ret = tree_take(t, d, true, depth + 1, err);
	}
	return ret;
}

static void note_depends(struct tree *t, const char *name, const char *depends)
{
	buf_addf(&t->dep, "%s.ko:", name);
	while (*depends) {
		size_t n = strcspn(depends, ",");
		char dep[NAME_LEN];

		snprintf(dep, sizeof(dep), "%.*s", (int)n, depends);
		for (char *c = dep; *c; c++)
			*c = *c == '-' ? '_' : *c;
		if (!is_builtin(t, dep))
			buf_addf(&t->dep, " %s.ko", dep);
		depends += n + (depends[n] == ',');
	}
	buf_adds(&t->dep, "\n");
}

/* Takes one module after what it depends on. */
static int tree_take(struct tree *t, const char *name, bool must, int depth,
		     struct err *err)
{
	struct module *m = tree_find(t, name);
	char depends[1024], again[1024], dst[PATH_MAX];
	struct buf file = BUF_INIT;
	int ret;

	if (!m && must && !is_builtin(t, name))
		return err_set(err, ENOENT, "the kernel has no module %s", name);
	if (!m || m->done)
		return 0;
	if (depth > DEPTH_MAX)
		return err_set(err, ELOOP, "module %s depends on itself", name);
	ret = module_read(m->path, &file, err);
	if (!ret && module_depends(&file, depends, sizeof(depends)))
		ret = err_set(err, EINVAL, "%s is not a kernel module", m->path);
	if (!ret) {
		memcpy(again, depends, sizeof(again));
		ret = take_depends(t, depends, depth, err);
	}
	if (!ret) {
		m->done = true;
		note_depends(t, m->name, again);
		snprintf(dst, sizeof(dst), "%s/%s.ko", t->dst, m->name);
		ret = io_write_file(AT_FDCWD, dst, file.data, file.len, 0600);
		if (ret)
			err_set(err, -ret, "cannot write %s: %s", dst, strerror(-ret));
	}
	buf_done(&file);
	return ret;
}

int kmod_collect(const char *tree, const char *dst, struct err *err)
{
	struct tree t = { .dst = dst };
	struct buf builtin = BUF_INIT;
	char path[PATH_MAX];
	int ret;

	snprintf(path, sizeof(path), "%s/modules.builtin", tree);
	if (!io_read_file(AT_FDCWD, path, MIB, &builtin))
		t.builtin = buf_steal(&builtin);
	buf_done(&builtin);
	snprintf(path, sizeof(path), "%s/kernel", tree);
	ret = tree_scan(&t, path, err);
	for (size_t i = 0; !ret && wanted[i]; i++) {
		bool must = wanted[i][0] == '!';

		ret = tree_take(&t, wanted[i] + must, must, 0, err);
	}
	snprintf(path, sizeof(path), "%s/modules.dep", dst);
	if (!ret && t.dep.oom)
		ret = err_set(err, ENOMEM, "out of memory");
	if (!ret) {
		ret = io_write_file(AT_FDCWD, path, t.dep.data ? t.dep.data : "",
				    t.dep.len, 0600);
		if (ret)
			err_set(err, -ret, "cannot write %s: %s", path, strerror(-ret));
	}
	tree_done(&t);
	return ret;
}
