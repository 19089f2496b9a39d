// SPDX-License-Identifier: MIT
/*
 * The kernel loader on handmade images: every compression, every way of being
 * cut off or wrong, and a bounded run of random damage.
 */
#include <elf.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "vmm/arch/x86/boot.h"
#include "vmm/arch/x86/kernel.h"
#include "vmm/arch/x86/state.h"
#include "vmm/mem.h"

#define MEM_SIZE	(64 * MIB)
#define SEG_OFF		0x2000u
#define SEG_LEN		0x30000u
#define SEG_ADDR	0x1000000u
#define DATA_ADDR	0x1080000u
#define BSS_LEN		0x5000u
#define ELF_LEN		(SEG_OFF + SEG_LEN + 0x1000)
#define SETUP_LEN	1024u
#define FUZZ_ROUNDS	1500

struct image {
	uint8_t data[ELF_LEN * 2 + SETUP_LEN];
	size_t len;
};

static void make_elf(uint8_t *elf)
{
	Elf64_Ehdr *eh = (void *)elf;
	Elf64_Phdr *ph = (void *)(elf + sizeof(*eh));

	memset(elf, 0, ELF_LEN);
	for (unsigned i = SEG_OFF; i < ELF_LEN; i++)
		elf[i] = (uint8_t)(i * 7 + (i >> 9));
	memcpy(eh->e_ident, ELFMAG, SELFMAG);
	eh->e_ident[EI_CLASS] = ELFCLASS64;
	eh->e_ident[EI_DATA] = ELFDATA2LSB;
	eh->e_machine = EM_X86_64;
	eh->e_phoff = sizeof(*eh);
	eh->e_phentsize = sizeof(*ph);
	eh->e_phnum = 2;
	eh->e_entry = SEG_ADDR + 0x40;
	ph[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = SEG_OFF,
		.p_paddr = SEG_ADDR, .p_filesz = SEG_LEN, .p_memsz = SEG_LEN };
	ph[1] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = SEG_OFF + SEG_LEN,
		.p_paddr = DATA_ADDR, .p_filesz = 0x1000, .p_memsz = BSS_LEN };
}

/* --- packing ---------------------------------------------------------------- */

static size_t pack_lz4(const uint8_t *src, uint8_t *dst, size_t cap)
{
	uint32_t magic = 0x184c2102, n;

	memcpy(dst, &magic, 4);
	n = (uint32_t)LZ4_compress_default((const char *)src, (char *)dst + 8, ELF_LEN, (int)cap - 8);
	memcpy(dst + 4, &n, 4);
	return n + 8;
}

static size_t pack_zstd(const uint8_t *src, uint8_t *dst, size_t cap)
{
	return ZSTD_compress(dst, cap, src, ELF_LEN, 3);
}

static size_t pack_gzip(const uint8_t *src, uint8_t *dst, size_t cap)
{
	z_stream z = { .avail_in = ELF_LEN, .next_out = dst, .avail_out = (uInt)cap };

	memcpy(&z.next_in, &src, sizeof(src));
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, 0), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return cap - z.avail_out;
}

static size_t pack_xz(const uint8_t *src, uint8_t *dst, size_t cap)
{
	lzma_options_lzma opt;
	lzma_filter f[] = {
		{ LZMA_FILTER_X86, NULL }, { LZMA_FILTER_LZMA2, &opt },
		{ LZMA_VLI_UNKNOWN, NULL },
	};
	size_t n = 0;

	lzma_lzma_preset(&opt, 1);
	assert_int_equal(lzma_stream_buffer_encode(f, LZMA_CHECK_CRC32, NULL, src, ELF_LEN,
						   dst, &n, cap), LZMA_OK);
	return n;
}

typedef size_t (*pack_fn)(const uint8_t *src, uint8_t *dst, size_t cap);
static const pack_fn packers[] = { pack_lz4, pack_zstd, pack_gzip, pack_xz };

static void make_bzimage(struct image *img, pack_fn pack)
{
	uint8_t *elf = malloc(ELF_LEN), *d = img->data;
	uint32_t len = ELF_LEN, payload, init = 0x200000, cmd = 2047;
	uint16_t magic = 0xaa55, version = 0x020f, xload = 1;
	size_t n;

	make_elf(elf);
	memset(img, 0, sizeof(*img));
	d[0x1f1] = 1;
	memcpy(d + 0x1fe, &magic, 2);
	d[0x201] = 0x6a;
	memcpy(d + 0x202, "HdrS", 4);
	memcpy(d + 0x206, &version, 2);
	memcpy(d + 0x236, &xload, 2);
	memcpy(d + 0x238, &cmd, 4);
	memcpy(d + 0x260, &init, 4);
	n = pack(elf, d + SETUP_LEN, sizeof(img->data) - SETUP_LEN - 4);
	if (pack != pack_gzip) {
		memcpy(d + SETUP_LEN + n, &len, 4);
		n += 4;
	}
	payload = (uint32_t)n;
	memcpy(d + 0x24c, &payload, 4);
	img->len = MAX(SETUP_LEN + n, (size_t)4096);
	free(elf);
}

/* --- loading ---------------------------------------------------------------- */

static int load(struct mem *mem, const void *data, size_t len, const void *initrd,
		size_t initrd_len, struct x86_state *s, struct err *err)
{
	struct boot b = {
		.kernel_fd = memfd_create("kernel", 0), .initrd_fd = -1,
		.cmdline = "console=ttyS0", .rsdp = 0xe0000,
	};
	int ret;

	err_clear(err);
	assert_int_equal(io_write_full(b.kernel_fd, data, len), 0);
	if (initrd) {
		b.initrd_fd = memfd_create("initrd", 0);
		assert_int_equal(io_write_full(b.initrd_fd, initrd, initrd_len), 0);
	}
	ret = boot_load(mem, &b, s, err);
	close(b.kernel_fd);
	if (initrd)
		close(b.initrd_fd);
	return ret;
}

static uint64_t peek(const struct mem *mem, gpa_t gpa, unsigned len)
{
	uint64_t v = 0;

	assert_true(mem_read(mem, gpa, &v, len));
	return v;
}

static int setup(void **state)
{
	struct mem *mem = malloc(sizeof(*mem));

	*state = mem;
	return mem_init(mem, MEM_SIZE, -1, NULL);
}

static int teardown(void **state)
{
	mem_done(*state);
	free(*state);
	return 0;
}

static void check_placed(const struct mem *mem)
{
	uint8_t *elf = malloc(ELF_LEN);

	make_elf(elf);
	assert_memory_equal(mem_ptr(mem, SEG_ADDR, SEG_LEN), elf + SEG_OFF, SEG_LEN);
	assert_memory_equal(mem_ptr(mem, DATA_ADDR, 0x1000), elf + SEG_OFF + SEG_LEN, 0x1000);
	for (unsigned i = 0x1000; i < BSS_LEN; i += 8)
		assert_int_equal(peek(mem, DATA_ADDR + i, 8), 0);
	free(elf);
}

static void every_format_loads(void **state)
{
	struct mem *mem = *state;
	struct image *img = malloc(sizeof(*img));
	static struct x86_state s;
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < ARRAY_LEN(packers); i++) {
		make_bzimage(img, packers[i]);
		memset(mem_ptr(mem, KERNEL_LOWEST, MEM_SIZE - KERNEL_LOWEST), 0x5a,
		       MEM_SIZE - KERNEL_LOWEST);
		if (load(mem, img->data, img->len, NULL, 0, &s, &err) < 0)
			fail_msg("format %u: %s", i, err_message(&err));
		check_placed(mem);
		assert_int_equal(s.rip, SEG_ADDR + 0x40);
	}
	free(img);
}

static void plain_elf_loads(void **state)
{
	static struct x86_state s;
	struct err err = ERR_INIT;
	uint8_t *elf = malloc(ELF_LEN);

	make_elf(elf);
	assert_int_equal(load(*state, elf, ELF_LEN, NULL, 0, &s, &err), 0);
	check_placed(*state);
	assert_int_equal(load(*state, elf, ELF_LEN - 1, NULL, 0, &s, &err), -EINVAL);
	assert_int_equal(err.code, ERR_BOOT_KERNEL_NOT_FOUND);
	free(elf);
}

static void zero_page_and_state(void **state)
{
	struct mem *mem = *state;
	struct image *img = malloc(sizeof(*img));
	static struct x86_state s;
	static uint8_t initrd[5000];
	struct err err = ERR_INIT;
	gpa_t z = BOOT_ZERO_PAGE, rd, pd;

	memset(initrd, 0xd1, sizeof(initrd));
	make_bzimage(img, pack_lz4);
	assert_int_equal(load(mem, img->data, img->len, initrd, sizeof(initrd), &s, &err), 0);
	assert_int_equal(peek(mem, z + 0x202, 4), 0x53726448);
	assert_int_equal(peek(mem, z + 0x210, 1), 0xff);
	assert_int_equal(peek(mem, z + 0x070, 8), 0xe0000);
	assert_string_equal(mem_ptr(mem, peek(mem, z + 0x228, 4), 14), "console=ttyS0");
	rd = peek(mem, z + 0x218, 4);
	assert_int_equal(rd, MEM_SIZE - 2 * PAGE_SIZE);
	assert_int_equal(peek(mem, z + 0x21c, 4), sizeof(initrd));
	assert_memory_equal(mem_ptr(mem, rd, sizeof(initrd)), initrd, sizeof(initrd));
	/* low, EBDA, ACPI, from 1 MiB up */
	assert_int_equal(peek(mem, z + 0x1e8, 1), 4);
	assert_int_equal(peek(mem, z + 0x2d0 + 60, 8), 0x100000);
	assert_int_equal(peek(mem, z + 0x2d0 + 68, 8), MEM_SIZE - 0x100000);

	assert_int_equal(s.gpr[X86_RSI], BOOT_ZERO_PAGE);
	assert_int_equal(s.rflags, 2);
	pd = peek(mem, peek(mem, s.cr3, 8) & ~0xfffull, 8) & ~0xfffull;
	assert_int_equal(peek(mem, pd + 8 * 8, 8), 8 << 21 | 0x83);
	assert_int_equal(peek(mem, s.gdt.base + 0x10, 8), 0x00af9b000000ffff);
	free(img);
}

static void too_little_memory(void **state)
{
	static struct x86_state s;
	struct image *img = malloc(sizeof(*img));
	uint8_t *big = calloc(1, 60 * MIB);
	struct err err = ERR_INIT;

	make_bzimage(img, pack_zstd);
	assert_true(load(*state, img->data, img->len, big, 60 * MIB, &s, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_MEMORY_INVALID);
	make_elf(img->data);
	((Elf64_Phdr *)(void *)(img->data + sizeof(Elf64_Ehdr)))->p_memsz = MEM_SIZE;
	assert_true(load(*state, img->data, ELF_LEN, NULL, 0, &s, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_MEMORY_INVALID);
	free(big);
	free(img);
}

static void expect_refused(struct mem *mem, const struct image *img, size_t len)
{
	static struct x86_state s;
	struct err err = ERR_INIT;

	assert_true(load(mem, img->data, len, NULL, 0, &s, &err) < 0);
	assert_true(err.code == ERR_BOOT_KERNEL_NOT_FOUND ||
		    err.code == ERR_BOOT_MEMORY_INVALID);
}

static void cut_off_is_refused(void **state)
{
	struct image *img = malloc(sizeof(*img));

	for (unsigned i = 0; i < ARRAY_LEN(packers); i++) {
		make_bzimage(img, packers[i]);
		for (size_t len = 0; len < img->len; len += 1 + len / 7)
			expect_refused(*state, img, len);
	}
	free(img);
}

/* The payload says one length and has another, in both directions. */
static void wrong_length_is_refused(void **state)
{
	struct image *img = malloc(sizeof(*img));
	uint32_t n, total;

	for (unsigned i = 0; i < ARRAY_LEN(packers); i++) {
		for (int delta = -1; delta <= 1; delta += 2) {
			make_bzimage(img, packers[i]);
			memcpy(&n, img->data + 0x24c, 4);
			total = ELF_LEN + (uint32_t)delta;
			memcpy(img->data + SETUP_LEN + n - 4, &total, 4);
			expect_refused(*state, img, img->len);
		}
	}
	free(img);
}

static void wild_headers_are_refused(void **state)
{
	static const struct { unsigned off; uint64_t val; unsigned len; } wild[] = {
		{ 0x202, 0, 4 }, { 0x206, 0x0207, 2 }, { 0x236, 0, 2 },
		{ 0x248, UINT32_MAX, 4 }, { 0x24c, UINT32_MAX, 4 }, { 0x24c, 3, 4 },
		{ SETUP_LEN, 0, 8 },
	};
	struct image *img = malloc(sizeof(*img));

	for (unsigned i = 0; i < ARRAY_LEN(wild); i++) {
		make_bzimage(img, pack_gzip);
		memcpy(img->data + wild[i].off, &wild[i].val, wild[i].len);
		expect_refused(*state, img, img->len);
	}
	free(img);
}

static void wild_segments_are_refused(void **state)
{
	static const Elf64_Phdr wild[] = {
		{ .p_paddr = 0, .p_filesz = 16, .p_memsz = 16 },
		{ .p_paddr = UINT64_MAX - 8, .p_memsz = 16 },
		{ .p_paddr = SEG_ADDR, .p_memsz = UINT64_MAX },
		{ .p_paddr = SEG_ADDR, .p_filesz = 32, .p_memsz = 16 },
		{ .p_paddr = MEM_SIZE - 8, .p_memsz = 16 },
		{ .p_paddr = SEG_ADDR, .p_memsz = 16, .p_filesz = 16,
		  .p_offset = UINT64_MAX - 4 },
		{ .p_paddr = SEG_ADDR, .p_memsz = 0x100000, .p_filesz = 0x100000 },
	};
	struct image *img = malloc(sizeof(*img));
	Elf64_Phdr *ph = (void *)(img->data + sizeof(Elf64_Ehdr));

	for (unsigned i = 0; i < ARRAY_LEN(wild); i++) {
		make_elf(img->data);
		ph[1] = wild[i];
		ph[1].p_type = PT_LOAD;
		expect_refused(*state, img, ELF_LEN);
	}
	free(img);
}

static uint64_t rng(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Whatever the damage: an answer, and nothing outside guest RAM is touched. */
static void random_damage(void **state)
{
	struct image *img = malloc(sizeof(*img)), *hurt = malloc(sizeof(*hurt));
	static struct x86_state s;
	struct err err = ERR_INIT;
	uint64_t seed = 0x9e3779b97f4a7c15ull;

	for (unsigned i = 0; i < FUZZ_ROUNDS; i++) {
		if (i % 300 == 0)
			make_bzimage(img, packers[(i / 300) % ARRAY_LEN(packers)]);
		memcpy(hurt, img, sizeof(*hurt));
		for (unsigned n = 1 + rng(&seed) % 6; n--;) {
			size_t span = rng(&seed) % 2 ? 0x270 : hurt->len;
			size_t low = span == 0x270 ? 0x1f1 : 0;

			hurt->data[low + rng(&seed) % (span - low)] = (uint8_t)rng(&seed);
		}
		if (load(*state, hurt->data, hurt->len, NULL, 0, &s, &err) < 0)
			assert_true(err_message(&err)[0]);
	}
	free(hurt);
	free(img);
}

static void reset_state_waits(void **state)
{
	static struct x86_state s;

	boot_reset_state(&s, 3);
	assert_int_equal(s.run_state, X86_WAIT_SIPI);
	assert_int_equal(s.lapic[2], 3u << 24);
	boot_reset_state(&s, 0);
	assert_int_equal(s.run_state, X86_RUNNING);
	assert_int_equal(s.seg[X86_CS].base + s.rip, 0xfffffff0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_format_loads),
		cmocka_unit_test(plain_elf_loads),
		cmocka_unit_test(zero_page_and_state),
		cmocka_unit_test(too_little_memory),
		cmocka_unit_test(cut_off_is_refused),
		cmocka_unit_test(wrong_length_is_refused),
		cmocka_unit_test(wild_headers_are_refused),
		cmocka_unit_test(wild_segments_are_refused),
		cmocka_unit_test(random_damage),
		cmocka_unit_test(reset_state_waits),
	};

	return cmocka_run_group_tests_name("boot", tests, setup, teardown);
}
