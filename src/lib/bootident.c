// SPDX-License-Identifier: MIT
/*
 * bootident.c - which kernel a VM is booted with: its version and its digest, for
 * the registry and for bundles.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "base/wire.h"
#include "lib/install.h"
#include "lib/vm.h"

/* Linux/x86 boot protocol: offsets in a bzImage. */
#define HEADER_MAGIC   0x202
#define HEADER_VERSION 0x20e	/* u16: where the text is, from 0x200 on */
#define HEADER_END     0x210
#define MANIFEST_MAX   (1u << 20)

/* "6.1.0-56-cloud-amd64 (…) …": its first word; "" for what says none. */
static void kernel_version(int fd, char *out, size_t size)
{
	uint8_t head[HEADER_END], text[128] = "";
	struct wire_r r;
	uint16_t at;

	if (io_pread_full(fd, head, sizeof(head), 0) != sizeof(head) ||
	    memcmp(head + HEADER_MAGIC, "HdrS", 4))
		return;
	wire_r_init(&r, head + HEADER_VERSION, 2);
	at = wire_u16(&r);
	if (!at || io_pread_full(fd, text, sizeof(text) - 1, 0x200 + at) <= 0)
		return;
	for (size_t i = 0; i < sizeof(text); i++)
		if (text[i] <= ' ' || text[i] > '~')
			text[i] = '\0';
	snprintf(out, size, "%s", (const char *)text);
}

/* A base's files do not change after install digested them; sizes tell damage. */
static bool from_manifest(const char *base, off_t size, char hex[65])
{
	cleanup(json_putp) json_t *doc = NULL;
	struct buf text = BUF_INIT;
	char path[PATH_MAX];
	const json_t *f;

	if (!lib_path(path, NULL, "%s/manifest.json", base) &&
	    !io_read_file(AT_FDCWD, path, MANIFEST_MAX, &text) && text.data)
		doc = json_parse(text.data, text.len, NULL);
	buf_done(&text);
	f = json_object_get(json_object_get(doc, "files"), "vmlinuz");
	if (json_integer_value(json_object_get(f, "size")) != size)
		return false;
	snprintf(hex, 65, "%s", json_str_opt(f, "sha256", "", NULL));
	return strlen(hex) == 64;
}

void boot_identify_kernel(struct booting *b, int fd)
{
	struct reg_vm *reg = &b->vm->reg;
	char path[40];
	uint64_t size;
	struct stat st;

	kernel_version(fd, reg->kernel, sizeof(reg->kernel));
	if (!b->cfg->kernel && !fstat(fd, &st) &&
	    from_manifest(b->base, st.st_size, reg->kernel_sha256))
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (file_digest(path, reg->kernel_sha256, &size, NULL))
		*reg->kernel_sha256 = '\0';
}
