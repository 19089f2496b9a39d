// SPDX-License-Identifier: MIT
/*
 * arch/x86/boot.c - zero page, initrd, first page tables, first CPU state; see
 * boot.h.  The kernel's file formats are kernel.c's.
 */
#include "vmm/arch/x86/boot.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "vmm/arch/x86/kernel.h"
#include "vmm/arch/x86/state.h"

/* Offsets in the zero page (Documentation/arch/x86/zero-page.rst). */
#define Z_RSDP		0x070
#define Z_E820_NR	0x1e8
#define Z_LOADER	0x210
#define Z_RAMDISK	0x218
#define Z_RAMDISK_SIZE	0x21c
#define Z_CMDLINE	0x228
#define Z_CMDLINE_MAX	0x238
#define Z_E820		0x2d0
#define LOADER_UNKNOWN	0xff

#define E820_RAM	1
#define E820_RESERVED	2

#define PTE_PRESENT	0x1ull
#define PTE_WRITE	0x2ull
#define PTE_LARGE	0x80ull
#define IDENTITY_GIB	4u

#define SEG_CODE64	0xa09bu		/* present, code, readable, long, 4K units */
#define SEG_DATA	0xc093u
#define SEG_TSS		0x008bu
#define SEG_REAL_CODE	0x009bu
#define SEG_REAL_DATA	0x0093u
#define SEG_LDT		0x0082u

#define MSR_MISC_ENABLE	0x1a0u
#define MSR_PAT		0x277u
#define MSR_MTRR_DEF	0x2ffu

static void put(uint8_t *z, unsigned off, uint64_t v, unsigned len)
{
	memcpy(z + off, &v, len);	/* little endian, as is the host */
}

/* --- memory map ------------------------------------------------------------- */

static void e820_add(uint8_t *z, uint64_t start, uint64_t end, uint32_t type)
{
	unsigned n = z[Z_E820_NR]++;
	unsigned off = Z_E820 + 20 * n;

	put(z, off, start, 8);
	put(z, off + 8, end - start, 8);
	put(z, off + 16, type, 4);
}

static void e820_fill(uint8_t *z, const struct mem *mem)
{
	e820_add(z, 0, BOOT_EBDA, E820_RAM);
	e820_add(z, BOOT_EBDA, 0xa0000, E820_RESERVED);
	e820_add(z, BOOT_ACPI, BOOT_ACPI_END, E820_RESERVED);
	for (unsigned i = 0; i < mem->nr_ranges; i++) {
		const struct mem_range *r = &mem->range[i];
		uint64_t end = r->start + r->len;

		e820_add(z, r->start ? r->start : BOOT_ACPI_END, end, E820_RAM);
	}
}

/* --- initrd ----------------------------------------------------------------- */

struct initrd {
	gpa_t start;
	uint64_t len;
};

/* As high as it goes below 3 GiB and above the kernel. */
static int initrd_load(struct mem *mem, const struct kernel *k, int fd,
		       struct initrd *out, struct err *err)
{
	uint64_t top = mem->range[0].start + mem->range[0].len, room;
	struct stat st;
	void *dst;
	ssize_t got;

	if (fstat(fd, &st) < 0)
		return err_wrap_code(err, ERR_BOOT_KERNEL_NOT_FOUND, -errno,
				     "cannot read the initrd");
	if (!S_ISREG(st.st_mode))
		return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, EINVAL,
				"the initrd is not a file");
	room = top > k->end ? top - k->end : 0;
	out->len = (uint64_t)st.st_size;
	if (out->len > room || room - out->len < PAGE_SIZE)
		return err_code(err, ERR_BOOT_MEMORY_INVALID, ENOMEM,
				"kernel and initrd do not fit in %llu MiB",
				(unsigned long long)(mem->size >> 20));
	out->start = ALIGN_DOWN(top - out->len, PAGE_SIZE);
	dst = mem_ptr(mem, out->start, out->len);
	if (!dst)
		return err_code(err, ERR_BOOT_MEMORY_INVALID, ENOMEM,
				"no room for the initrd");
	got = io_pread_full(fd, dst, out->len, 0);
	if (got < 0 || (uint64_t)got != out->len)
		return err_wrap_code(err, ERR_BOOT_KERNEL_NOT_FOUND,
				     got < 0 ? (int)got : -EIO,
				     "cannot read the initrd");
	return 0;
}

/* --- zero page, tables ------------------------------------------------------ */

static int cmdline_write(struct mem *mem, const struct kernel *k,
			 const char *cmdline, struct err *err)
{
	size_t len = strlen(cmdline);
	uint32_t max;

	memcpy(&max, k->header + (Z_CMDLINE_MAX - SETUP_HEADER), sizeof(max));
	if (len > max || len >= BOOT_EBDA - BOOT_CMDLINE)
		return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, E2BIG,
				"the kernel takes command lines of %u bytes, "
				"this one has %zu", max, len);
	if (!mem_write(mem, BOOT_CMDLINE, cmdline, len + 1))
		return err_code(err, ERR_BOOT_MEMORY_INVALID, ENOMEM, "no memory");
	return 0;
}

static void zero_page(uint8_t *z, const struct mem *mem, const struct kernel *k,
		      const struct initrd *rd, gpa_t rsdp)
{
	memset(z, 0, PAGE_SIZE);
	memcpy(z + SETUP_HEADER, k->header, sizeof(k->header));
	put(z, Z_RSDP, rsdp, 8);
	put(z, Z_LOADER, LOADER_UNKNOWN, 1);
	put(z, Z_CMDLINE, BOOT_CMDLINE, 4);
	put(z, Z_RAMDISK, (uint32_t)rd->start, 4);
	put(z, Z_RAMDISK_SIZE, (uint32_t)rd->len, 4);
	e820_fill(z, mem);
}

/* The first 4 GiB mapped to themselves in pages of 2 MiB. */
static void page_tables(uint8_t *tables)
{
	uint64_t *pml4 = (uint64_t *)(void *)tables;
	uint64_t *pdpt = pml4 + 512, *pd = pdpt + 512;

	memset(tables, 0, (2 + IDENTITY_GIB) * PAGE_SIZE);
	pml4[0] = (BOOT_TABLES + PAGE_SIZE) | PTE_PRESENT | PTE_WRITE;
	for (unsigned i = 0; i < IDENTITY_GIB; i++)
		pdpt[i] = (BOOT_TABLES + (2 + i) * PAGE_SIZE) | PTE_PRESENT | PTE_WRITE;
	for (uint64_t i = 0; i < IDENTITY_GIB * 512; i++)
		pd[i] = i << 21 | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
}

/* --- CPU state -------------------------------------------------------------- */

static void common_state(struct x86_state *s, unsigned id)
{
	uint16_t fcw = 0x37f;
	uint32_t mxcsr = 0x1f80;

	memset(s, 0, sizeof(*s));
	s->rflags = 2;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->xcr0 = 1;
	memcpy(s->xsave, &fcw, sizeof(fcw));
	memcpy(s->xsave + 24, &mxcsr, sizeof(mxcsr));
	s->xsave_size = 576;

	s->lapic[0x2] = id << 24;
	s->lapic[0x3] = 0x50014;
	s->lapic[0xe] = UINT32_MAX;
	s->lapic[0xf] = 0xff;
	for (unsigned i = 0x32; i <= 0x37; i++)
		s->lapic[i] = 0x10000;
	s->apic_base = 0xfee00800 | (id ? 0 : 0x100);

	s->msr[s->nr_msrs++] = (struct x86_msr){ MSR_MISC_ENABLE, 1 };
	s->msr[s->nr_msrs++] = (struct x86_msr){ MSR_PAT, 0x0007040600070406 };
	/* Enabled, write-back: what firmware leaves. */
	s->msr[s->nr_msrs++] = (struct x86_msr){ MSR_MTRR_DEF, 0xc06 };
}

void boot_reset_state(struct x86_state *s, unsigned id)
{
	common_state(s, id);
	s->cr0 = 0x60000010;
	s->rip = 0xfff0;
	for (unsigned i = 0; i < X86_LDTR; i++)
		s->seg[i] = (struct x86_segment){ 0, 0xffff, SEG_REAL_DATA, 0 };
	s->seg[X86_CS] = (struct x86_segment){ 0xffff0000, 0xffff, SEG_REAL_CODE, 0xf000 };
	s->seg[X86_LDTR] = (struct x86_segment){ 0, 0xffff, SEG_LDT, 0 };
	s->seg[X86_TR] = (struct x86_segment){ 0, 0xffff, SEG_TSS, 0 };
	s->gdt.limit = s->idt.limit = 0xffff;
	s->run_state = id ? X86_WAIT_SIPI : X86_RUNNING;
}

static void long_mode_state(struct x86_state *s, gpa_t entry)
{
	common_state(s, 0);
	for (unsigned i = 0; i < X86_LDTR; i++)
		s->seg[i] = (struct x86_segment){ 0, UINT32_MAX, SEG_DATA, 0x18 };
	s->seg[X86_CS] = (struct x86_segment){ 0, UINT32_MAX, SEG_CODE64, 0x10 };
	s->seg[X86_LDTR] = (struct x86_segment){ 0, 0, SEG_LDT | X86_SEG_UNUSABLE, 0 };
	s->seg[X86_TR] = (struct x86_segment){ 0, 0x67, SEG_TSS, 0x20 };
	s->gdt = (struct x86_dtable){ BOOT_GDT, 6 * 8 - 1 };
	s->cr0 = 0x80050033;		/* PG AM WP NE ET MP PE */
	s->cr3 = BOOT_TABLES;
	s->cr4 = 0x20;			/* PAE */
	s->efer = 0x500;		/* LME LMA */
	s->rip = entry;
	s->gpr[X86_RSI] = BOOT_ZERO_PAGE;
}

static const uint64_t boot_gdt[6] = {
	0, 0,
	0x00af9b000000ffff,	/* 0x10: __BOOT_CS */
	0x00cf93000000ffff,	/* 0x18: __BOOT_DS */
	0x00008b0000000067, 0,	/* 0x20: TSS at 0, never used */
};

int boot_load(struct mem *mem, const struct boot *b, struct x86_state *s,
	      struct err *err)
{
	uint8_t *z = mem_ptr(mem, BOOT_ZERO_PAGE, PAGE_SIZE);
	uint8_t *tables = mem_ptr(mem, BOOT_TABLES, (2 + IDENTITY_GIB) * PAGE_SIZE);
	struct initrd rd = { 0, 0 };
	struct kernel k;
	int ret;

	if (!z || !tables || !mem_ptr(mem, 0, BOOT_ACPI_END))
		return err_code(err, ERR_BOOT_MEMORY_INVALID, ENOMEM,
				"the VM has too little memory");
	ret = kernel_load(&k, mem, b->kernel_fd, err);
	if (ret < 0)
		return ret;
	if (k.end > IDENTITY_GIB * GIB)
		return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, EINVAL,
				"the kernel wants to lie above 4 GiB");
	if (b->initrd_fd >= 0)
		ret = initrd_load(mem, &k, b->initrd_fd, &rd, err);
	if (ret >= 0)
		ret = cmdline_write(mem, &k, b->cmdline, err);
	if (ret < 0)
		return ret;
	zero_page(z, mem, &k, &rd, b->rsdp);
	page_tables(tables);
	mem_write(mem, BOOT_GDT, boot_gdt, sizeof(boot_gdt));
	long_mode_state(s, k.entry);
	return 0;
}
