// SPDX-License-Identifier: MIT
/*
 * arch/x86/kernel.c - bzImage and ELF into guest RAM.
 *
 * There is no firmware and the kernel's own decompressor never runs: the payload
 * of a bzImage is unpacked here and its ELF segments go straight to the physical
 * addresses they are linked for.  The unpacked file is seen once, as a stream; the
 * placer keeps its first page (ELF and program headers) and after that copies
 * what belongs to segments.  Nothing is ever held whole.
 *
 * The formats: Linux Documentation/arch/x86/boot.rst, ELF-64 gABI.
 */
#include "vmm/arch/x86/kernel.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"
#include "vmm/arch/x86/unpack.h"

#define MAX_SEGMENTS	16
#define HEAD_SIZE	4096u	/* ELF and program headers must be in it */

/* Setup header fields, by file offset. */
#define H_SETUP_SECTS	0x1f1
#define H_BOOT_FLAG	0x1fe
#define H_JUMP_LEN	0x201
#define H_MAGIC		0x202
#define H_VERSION	0x206
#define H_LOADFLAGS	0x211
#define H_ALIGNMENT	0x230
#define H_XLOADFLAGS	0x236
#define H_CMDLINE_SIZE	0x238
#define H_PAYLOAD	0x248
#define H_PAYLOAD_LEN	0x24c
#define H_PREF_ADDRESS	0x258
#define H_INIT_SIZE	0x260
#define XLF_KERNEL_64	1
#define VERSION_XLOADFLAGS 0x020c

struct segment {
	uint64_t off, len;	/* in the file */
	uint8_t *dst;		/* in guest RAM */
};

struct placer {
	struct mem *mem;
	struct kernel *k;
	uint64_t pos;		/* bytes of the stream seen */
	struct segment seg[MAX_SEGMENTS];
	unsigned nr_segs;
	bool parsed;
	uint8_t head[HEAD_SIZE];
};

static int refuse(struct err *err, const char *what)
{
	return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, EINVAL,
			"this is not a usable Linux kernel: %s", what);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* --- ELF -------------------------------------------------------------------- */

static int add_segment(struct placer *p, const Elf64_Phdr *ph, struct err *err)
{
	struct kernel *k = p->k;
	uint64_t end;
	uint8_t *dst;

	if (!ph->p_memsz)
		return 0;
	if (ph->p_filesz > ph->p_memsz || ph->p_paddr < KERNEL_LOWEST ||
	    __builtin_add_overflow(ph->p_paddr, ph->p_memsz, &end) ||
	    ph->p_offset > KERNEL_UNPACKED_MAX)
		return refuse(err, "an ELF segment makes no sense");
	if (p->nr_segs == MAX_SEGMENTS)
		return refuse(err, "it has too many ELF segments");
	dst = mem_ptr(p->mem, ph->p_paddr, ph->p_memsz);
	if (!dst)
		return err_code(err, ERR_BOOT_MEMORY_INVALID, ENOMEM,
				"the kernel needs memory up to %llu MiB; give "
				"the VM more", (unsigned long long)(end >> 20) + 1);
	/* RAM is fresh, but segments of a hostile file may overlap: only what
	 * the file does not give is cleared, and that before anything comes. */
	memset(dst + ph->p_filesz, 0, ph->p_memsz - ph->p_filesz);
	p->seg[p->nr_segs++] = (struct segment){
		.off = ph->p_offset, .len = ph->p_filesz, .dst = dst,
	};
	k->start = MIN(k->start, ph->p_paddr);
	k->end = MAX(k->end, end);
	return 0;
}

static int parse_elf(struct placer *p, struct err *err)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	int ret = 0;

	memcpy(&eh, p->head, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_ident[EI_DATA] != ELFDATA2LSB || eh.e_machine != EM_X86_64)
		return refuse(err, "it has no x86-64 ELF inside");
	if (eh.e_phentsize != sizeof(ph) || eh.e_phoff > HEAD_SIZE ||
	    eh.e_phnum > (HEAD_SIZE - eh.e_phoff) / sizeof(ph))
		return refuse(err, "its ELF program headers are out of place");
	p->k->start = UINT64_MAX;
	p->k->end = 0;
	for (unsigned i = 0; i < eh.e_phnum && !ret; i++) {
		memcpy(&ph, p->head + eh.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type == PT_LOAD)
			ret = add_segment(p, &ph, err);
	}
	if (!ret && (eh.e_entry < p->k->start || eh.e_entry >= p->k->end))
		ret = refuse(err, "its entry point is outside of it");
	p->k->entry = eh.e_entry;
	p->parsed = true;
	return ret;
}

/* Copies what the stream's bytes [pos, pos + len) give to a segment. */
static void copy_part(const struct segment *s, uint64_t pos, const uint8_t *data,
		      size_t len)
{
	uint64_t from = MAX(pos, s->off);
	uint64_t to = MIN(pos + len, s->off + s->len);

	if (from < to)
		memcpy(s->dst + (from - s->off), data + (from - pos), to - from);
}

static int place(void *arg, const void *data, size_t len, struct err *err)
{
	struct placer *p = arg;
	const uint8_t *bytes = data;
	size_t n = 0;

	if (!p->parsed) {
		int ret = 0;

		n = MIN(len, (size_t)(HEAD_SIZE - p->pos));
		memcpy(p->head + p->pos, bytes, n);
		p->pos += n;
		if (p->pos < HEAD_SIZE)
			return 0;
		ret = parse_elf(p, err);
		if (ret < 0)
			return ret;
		for (unsigned i = 0; i < p->nr_segs; i++)
			copy_part(&p->seg[i], 0, p->head, HEAD_SIZE);
	}
	for (unsigned i = 0; i < p->nr_segs; i++)
		copy_part(&p->seg[i], p->pos, bytes + n, len - n);
	p->pos += len - n;
	return 0;
}

static int finish(const struct placer *p, struct err *err)
{
	if (!p->parsed || !p->nr_segs)
		return refuse(err, "it is cut off");
	for (unsigned i = 0; i < p->nr_segs; i++) {
		if (p->seg[i].len > p->pos || p->seg[i].off > p->pos - p->seg[i].len)
			return refuse(err, "an ELF segment is cut off");
	}
	return 0;
}

/* --- the file --------------------------------------------------------------- */

static void put32(struct kernel *k, unsigned off, uint32_t v)
{
	memcpy(k->header + (off - SETUP_HEADER), &v, sizeof(v));
}

/* What a kernel without setup header would have had. */
static void default_header(struct kernel *k)
{
	memset(k->header, 0, sizeof(k->header));
	k->header[H_BOOT_FLAG - SETUP_HEADER] = 0x55;
	k->header[H_BOOT_FLAG + 1 - SETUP_HEADER] = 0xaa;
	memcpy(k->header + (H_MAGIC - SETUP_HEADER), "HdrS", 4);
	put32(k, H_VERSION, VERSION_XLOADFLAGS);
	k->header[H_LOADFLAGS - SETUP_HEADER] = 1;	/* loaded high */
	put32(k, H_ALIGNMENT, 0x1000000);
	put32(k, H_CMDLINE_SIZE, 2047);
}

static int load_bzimage(struct placer *p, const uint8_t *file, size_t len,
			struct err *err)
{
	struct unpack_sink sink = { place, p };
	uint64_t base, off, n, need;
	size_t header = 0x202u + file[H_JUMP_LEN] - SETUP_HEADER;
	int ret;

	if (get16(file + H_VERSION) < VERSION_XLOADFLAGS ||
	    !(get16(file + H_XLOADFLAGS) & XLF_KERNEL_64))
		return refuse(err, "it is not a 64-bit kernel, or older than 3.8");
	base = ((file[H_SETUP_SECTS] ? file[H_SETUP_SECTS] : 4) + 1) * 512u;
	off = base + get32(file + H_PAYLOAD);
	n = get32(file + H_PAYLOAD_LEN);
	if (off > len || n > len - off)
		return refuse(err, "it is cut off");
	memset(p->k->header, 0, sizeof(p->k->header));
	memcpy(p->k->header, file + SETUP_HEADER, MIN(header, sizeof(p->k->header)));
	ret = unpack_payload(file + off, n, KERNEL_UNPACKED_MAX, &sink, err);
	if (ret < 0)
		return ret;
	/* While starting it uses more than its segments say. */
	need = get32(file + H_INIT_SIZE);
	if (p->parsed && mem_ptr(p->mem, p->k->start, need))
		p->k->end = MAX(p->k->end, p->k->start + need);
	return 0;
}

static int load_image(struct placer *p, const uint8_t *file, size_t len,
		      struct err *err)
{
	int ret;

	if (len < HEAD_SIZE)
		return refuse(err, "it is too short");
	if (!memcmp(file, ELFMAG, SELFMAG)) {
		default_header(p->k);
		ret = place(p, file, len, err);
	} else if (get16(file + H_BOOT_FLAG) == 0xaa55 &&
		   !memcmp(file + H_MAGIC, "HdrS", 4)) {
		ret = load_bzimage(p, file, len, err);
	} else {
		ret = refuse(err, "neither a bzImage nor an ELF file");
	}
	return ret < 0 ? ret : finish(p, err);
}

int kernel_load(struct kernel *k, struct mem *mem, int fd, struct err *err)
{
	struct placer *p = calloc(1, sizeof(*p));
	uint8_t *file = NULL;
	struct stat st;
	ssize_t got;
	int ret;

	*k = (struct kernel){ .entry = 0 };
	if (fstat(fd, &st) < 0) {
		ret = err_wrap_code(err, ERR_BOOT_KERNEL_NOT_FOUND, -errno,
				    "cannot read the kernel");
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > KERNEL_FILE_MAX) {
		ret = refuse(err, "not a file, or too large");
		goto out;
	}
	file = malloc((size_t)st.st_size + 1);
	if (!file || !p) {
		ret = err_set(err, ENOMEM, "out of memory");
		goto out;
	}
	/* Read, not mapped: a file cut short later would be a SIGBUS. */
	got = io_pread_full(fd, file, (size_t)st.st_size, 0);
	if (got < 0) {
		ret = err_wrap_code(err, ERR_BOOT_KERNEL_NOT_FOUND, (int)got,
				    "cannot read the kernel");
		goto out;
	}
	p->mem = mem;
	p->k = k;
	ret = load_image(p, file, (size_t)got, err);
out:
	free(file);
	free(p);
	return ret;
}
