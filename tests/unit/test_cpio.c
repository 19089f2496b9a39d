// SPDX-License-Identifier: MIT
/* The initramfs: read back by libarchive, modules ordered, hostile modules. */
#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "image/cpio.h"

/* A file that is a module as far as its .modinfo goes. */
static size_t module_make(char out[1024], const char *depends)
{
	static const char names[] = "\0.modinfo\0.shstrtab";
	Elf64_Ehdr h = {
		.e_ident = ELFMAG "\2\1\1", .e_type = ET_REL,
		.e_shoff = 512, .e_shnum = 3, .e_shentsize = sizeof(Elf64_Shdr),
		.e_shstrndx = 2,
	};
	Elf64_Shdr s[3] = {
		[1] = { .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_offset = 64 },
		[2] = { .sh_name = 10, .sh_type = SHT_STRTAB, .sh_offset = 256,
			.sh_size = sizeof(names) },
	};

	memset(out, 0, 1024);
	s[1].sh_size = 1 + snprintf(out + 64, 190, "license=GPL%cdepends=%s", 0,
				    depends);
	memcpy(out + 256, names, sizeof(names));
	memcpy(out + 512, s, sizeof(s));
	memcpy(out, &h, sizeof(h));
	return 512 + sizeof(s);
}

static void depends_are_read(void **state)
{
	char elf[1024], out[64];
	size_t len = module_make(elf, "virtio,virtio_ring");

	assert_int_equal(module_depends(elf, len, out, sizeof(out)), 0);
	assert_string_equal(out, "virtio,virtio_ring");
}

static void hostile_modules_are_refused(void **state)
{
	char elf[1024], out[64];
	size_t len = module_make(elf, "virtio");

	/* no cut and no single byte makes it read outside; ASan looks on */
	for (size_t n = 0; n < len; n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, elf, n);
		assert_int_equal(module_depends(copy, n, out, sizeof(out)),
				 -ENOEXEC);
		free(copy);
	}
	for (size_t i = 0; i < len; i++) {
		char *copy = malloc(len);

		memcpy(copy, elf, len);
		copy[i] ^= 0xff;
		module_depends(copy, len, out, sizeof(out));
		free(copy);
	}
}

static void write_file(const char *dir, const char *name, const void *data,
		       size_t len)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY);

	assert_int_equal(io_write_file(fd, name, data, len, 0644), 0);
	close(fd);
}

static void add_module(const char *dir, const char *name, const char *depends)
{
	char elf[1024];

	write_file(dir, name, elf, module_make(elf, depends));
}

/* The archive's names, one a line, and the content of one of them. */
static void list(int fd, const char *want, char *names, char *content)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;

	*names = '\0';
	archive_read_support_format_cpio(a);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(archive_read_open_fd(a, fd, 4096), ARCHIVE_OK);
	while (archive_read_next_header(a, &e) == ARCHIVE_OK) {
		strcat(names, archive_entry_pathname(e));
		strcat(names, "\n");
		if (!strcmp(archive_entry_pathname(e), want))
			content[archive_read_data(a, content, 255)] = '\0';
	}
	archive_read_free(a);
}

static void initramfs_has_modules_in_order(void **state)
{
	static const char *const wanted[] = { "virtio-blk", "built_in", NULL };
	char dir[] = "/tmp/cpio-test-XXXXXX", init[64], names[512], text[256];
	struct initramfs in = {
		.init = init, .modules = dir, .wanted = wanted,
		.config = "{\"a\":1}", .config_len = 7,
	};
	struct err err = ERR_INIT;
	int fd = memfd_create("initrd", MFD_CLOEXEC);
	struct stat st;

	assert_non_null(mkdtemp(dir));
	snprintf(init, sizeof(init), "%s/init", dir);
	write_file(dir, "init", "#!init", 6);
	add_module(dir, "virtio_blk.ko", "virtio_ring,virtio");
	add_module(dir, "virtio_ring.ko", "virtio");
	add_module(dir, "virtio.ko", "");
	add_module(dir, "other.ko", "");
	assert_int_equal(initramfs_write(&in, fd, &err), 0);
	list(fd, "modules.list", names, text);
	assert_string_equal(text, "virtio.ko\nvirtio_ring.ko\nvirtio_blk.ko\n");
	assert_string_equal(names, "dev\ndev/console\ninit\nmodules\n"
			    "modules/virtio.ko\nmodules/virtio_ring.ko\n"
			    "modules/virtio_blk.ko\nmodules.list\nconfig\n");
	list(fd, "config", names, text);
	assert_string_equal(text, "{\"a\":1}");
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size % 512, 0);
	/* a circle ends; a file that is no module is an error that names it */
	add_module(dir, "virtio.ko", "virtio_blk");
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(initramfs_write(&in, fd, &err), 0);
	write_file(dir, "virtio.ko", "junk", 4);
	assert_int_equal(initramfs_write(&in, fd, &err), -ENOEXEC);
	assert_non_null(strstr(err_message(&err), "virtio.ko"));
	close(fd);
	assert_int_equal(io_remove_tree(AT_FDCWD, dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(depends_are_read),
		cmocka_unit_test(hostile_modules_are_refused),
		cmocka_unit_test(initramfs_has_modules_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
