// SPDX-License-Identifier: MIT
/*
 * fp_image.c - instructions that store or load whole images of the state:
 * FXSAVE, XSAVE and their like, FNSAVE, FNSTENV.
 *
 * Each goes through an aligned bounce buffer.  Storing: the host's own
 * instruction fills the buffer, pointers into our stubs are cleared, and the
 * parts that the architecture says are written go to the guest.  Loading: the
 * image is copied first and everything that would make the host's
 * instruction fault is checked on the copy, since there it would be our fault, not
 * the guest's (Intel SDM vol. 1, chapter 13; vol. 2, FXRSTOR), and devices may write
 * what was checked.
 *
 * XSAVE and XSAVEOPT, which cannot fault for what is in memory, fill the guest's area
 * itself where it is in one page.  Not by the host's XSAVEOPT: that leaves out what
 * was not modified since an XRSTOR from the same host address, but the guest's
 * addresses are what counts.
 *
 * The compacted format of XSAVEC differs from the standard one, for x87, SSE and
 * AVX, in the header and in when MXCSR moves, not in offsets.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/fp.h"
#include "vmm/soft/ops.h"

#define X87	1u	/* bits of XCR0, XSTATE_BV */
#define SSE	2u
#define AVX	4u
#define COMPACT	(1ull << 63)

#define OFF_POINTERS	6	/* FOP, FIP, FDP up to MXCSR */
#define OFF_MXCSR	24
#define OFF_ST		32
#define OFF_XMM		160
#define OFF_LEGACY_END	416	/* the rest is the guest's own */
#define OFF_BV		512
#define OFF_COMP	520
#define OFF_AVX		576
#define MXCSR_INIT	0x1f80u

static uint64_t get64(const uint8_t *p)
{
	return *(const uint64_t *)(const void *)p;
}

static uint32_t get32(const uint8_t *p)
{
	return *(const uint32_t *)(const void *)p;
}

static void put64(uint8_t *p, uint64_t v)
{
	*(uint64_t *)(void *)p = v;
}

static void put32(uint8_t *p, uint32_t v)
{
	*(uint32_t *)(void *)p = v;
}

/* --- x87 alone ------------------------------------------------------------------- */

/* Seven fields of w bytes: control, status, tags, then four of pointers; a reserved
 * half behind the last. */
static void clear_env(uint8_t *img, unsigned w)
{
	fp_zero(img + 3 * w, w == 2 ? 8 : 14);
}

static void store_env(struct soft_cpu *cpu, const struct insn *i, unsigned len,
		      unsigned w)
{
	uint8_t *img = fp_of(cpu)->image;
	uint64_t va = insn_ea(cpu, i);

	guest_check_write(cpu, va, len);
	if (len > 28 && w == 2)
		asm volatile("data16 fnsave (%0)" : : "r"(img) : "memory");
	else if (len > 28)
		asm volatile("fnsave (%0)" : : "r"(img) : "memory");
	else if (w == 2)
		asm volatile("data16 fnstenv (%0)" : : "r"(img) : "memory");
	else
		asm volatile("fnstenv (%0)" : : "r"(img) : "memory");
	clear_env(img, w);
	guest_write(cpu, va, img, len);
}

HANDLER(do_fnstenv)
{
	unsigned w = fp_aux(i).arg;

	fp_check(cpu, FP_X87);
	store_env(cpu, i, 7 * w, w);
	return insn_done(cpu, i);
}

HANDLER(do_fnsave)
{
	unsigned w = fp_aux(i).arg;

	fp_check(cpu, FP_X87);
	store_env(cpu, i, 7 * w + 80, w);
	return insn_done(cpu, i);
}

/* FLDENV and FRSTOR wait for a pending exception first. */
static void check_pending(struct soft_cpu *cpu)
{
	uint16_t sw;

	asm volatile("fnstsw %0" : "=m"(sw));
	if (sw & 0x80)
		fp_raise(cpu, VEC_MF);
}

static const uint8_t *load_env(struct soft_cpu *cpu, const struct insn *i, unsigned len,
			       unsigned w)
{
	uint8_t *img = fp_of(cpu)->image;

	fp_check(cpu, FP_X87);
	check_pending(cpu);
	guest_read(cpu, insn_ea(cpu, i), img, len);
	clear_env(img, w);
	return img;
}

HANDLER(do_fldenv)
{
	unsigned w = fp_aux(i).arg;
	const uint8_t *img = load_env(cpu, i, 7 * w, w);

	if (w == 2)
		asm volatile("data16 fldenv (%0)" : : "r"(img) : "memory");
	else
		asm volatile("fldenv (%0)" : : "r"(img) : "memory");
	return insn_done(cpu, i);
}

HANDLER(do_frstor)
{
	unsigned w = fp_aux(i).arg;
	const uint8_t *img = load_env(cpu, i, 7 * w + 80, w);

	if (w == 2)
		asm volatile("data16 frstor (%0)" : : "r"(img) : "memory");
	else
		asm volatile("frstor (%0)" : : "r"(img) : "memory");
	return insn_done(cpu, i);
}

/* --- FXSAVE --------------------------------------------------------------------- */

static uint64_t image_ea(struct soft_cpu *cpu, const struct insn *i, unsigned cls,
			 unsigned align)
{
	uint64_t va;

	fp_check(cpu, cls);
	va = insn_ea(cpu, i);
	if (va & (align - 1))
		cpu_gp(cpu);
	return va;
}

static void clear_pointers(struct soft_cpu *cpu, uint8_t *img)
{
	fp_zero(img + OFF_POINTERS, OFF_MXCSR - OFF_POINTERS);
	put32(img + OFF_MXCSR + 4, fp_of(cpu)->mxcsr_mask);
}

HANDLER(do_fxsave)
{
	uint8_t *img = fp_of(cpu)->image;
	uint64_t va = image_ea(cpu, i, FP_X87, 16);

	guest_check_write(cpu, va, 512);
	asm volatile("fxsave64 (%0)" : : "r"(img) : "memory");
	clear_pointers(cpu, img);
	guest_write(cpu, va, img, OFF_LEGACY_END);
	return insn_done(cpu, i);
}

static void check_mxcsr(struct soft_cpu *cpu, const uint8_t *img)
{
	if (get32(img + OFF_MXCSR) & ~fp_of(cpu)->mxcsr_mask)
		cpu_gp(cpu);
}

HANDLER(do_fxrstor)
{
	uint8_t *img = fp_of(cpu)->image;
	uint64_t va = image_ea(cpu, i, FP_X87, 16);

	guest_read(cpu, va, img, 512);
	check_mxcsr(cpu, img);
	clear_pointers(cpu, img);
	asm volatile("fxrstor64 (%0)" : : "r"(img) : "memory");
	return insn_done(cpu, i);
}

/* --- XSAVE ---------------------------------------------------------------------- */

static uint32_t requested(const struct soft_cpu *cpu)
{
	return cpu->gpr[X86_RAX] & cpu->xcr0 & cpu->host_xcr0;
}

/* Writes the components of `which`, and MXCSR, to the guest. */
static void write_parts(struct soft_cpu *cpu, uint64_t va, const uint8_t *img,
			uint32_t which, bool mxcsr)
{
	if (which & X87) {
		guest_write(cpu, va, img, OFF_MXCSR);
		guest_write(cpu, va + OFF_ST, img + OFF_ST, OFF_XMM - OFF_ST);
	}
	if (mxcsr)
		guest_write(cpu, va + OFF_MXCSR, img + OFF_MXCSR, 8);
	if (which & SSE)
		guest_write(cpu, va + OFF_XMM, img + OFF_XMM, OFF_LEGACY_END - OFF_XMM);
	if (which & AVX)
		guest_write(cpu, va + OFF_AVX, img + OFF_AVX, FP_IMAGE_SIZE - OFF_AVX);
}

/* A full image of what is requested, with the header of the state alone. */
static uint8_t *take_image(struct soft_cpu *cpu, uint64_t va, uint32_t want)
{
	uint8_t *img = fp_of(cpu)->image;

	guest_check_write(cpu, va, want & AVX ? FP_IMAGE_SIZE : OFF_AVX);
	fp_zero(img + OFF_BV, 64);
	fp_xsave(cpu, img, want);
	clear_pointers(cpu, img);
	return img;
}

/* XINUSE */
static uint32_t in_use_now(void)
{
	uint32_t a, d;

	asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(1));
	return a;
}

static bool xsave_in_place(struct soft_cpu *cpu, uint64_t va, uint32_t want,
			   bool skip_initial)
{
	const struct fp *fp = fp_of(cpu);
	uint8_t *img;
	uint64_t bv;
	uint32_t now;

	if (!fp->xinuse || (want & (X87 | SSE)) != (X87 | SSE))
		return false;
	img = guest_write_ptr(cpu, va, want & AVX ? FP_IMAGE_SIZE : OFF_AVX);
	if (!img)
		return false;
	bv = get64(img + OFF_BV);
	now = skip_initial ? want & in_use_now() : want;
	fp_xsave(cpu, img, now);
	put64(img + OFF_BV, (bv & ~(uint64_t)want) | (get64(img + OFF_BV) & now));
	if (now & X87)
		clear_pointers(cpu, img);
	asm volatile("stmxcsr %0" : "=m"(*(uint32_t *)(void *)(img + OFF_MXCSR)));
	put32(img + OFF_MXCSR + 4, fp->mxcsr_mask);
	return true;
}

static void xsave(struct soft_cpu *cpu, const struct insn *i, bool skip_initial)
{
	uint64_t va = image_ea(cpu, i, FP_XSAVE, 64), bv;
	uint32_t want = requested(cpu), in_use;
	uint8_t *img;

	if (xsave_in_place(cpu, va, want, skip_initial))
		return;
	img = take_image(cpu, va, want);
	in_use = get64(img + OFF_BV);
	write_parts(cpu, va, img, skip_initial ? want & in_use : want,
		    want & (SSE | AVX));
	guest_read(cpu, va + OFF_BV, &bv, 8);
	bv = (bv & ~(uint64_t)want) | in_use;
	guest_write(cpu, va + OFF_BV, &bv, 8);
}

HANDLER(do_xsave)
{
	xsave(cpu, i, false);
	return insn_done(cpu, i);
}

HANDLER(do_xsaveopt)
{
	xsave(cpu, i, true);
	return insn_done(cpu, i);
}

HANDLER(do_xsavec)
{
	uint64_t va = image_ea(cpu, i, FP_XSAVE, 64);
	uint32_t want = requested(cpu), in_use;
	uint8_t *img = take_image(cpu, va, want);

	in_use = get64(img + OFF_BV);
	if (want & SSE && get32(img + OFF_MXCSR) != MXCSR_INIT)
		in_use |= SSE;
	write_parts(cpu, va, img, in_use, in_use & SSE);
	put64(img + OFF_BV, in_use);
	put64(img + OFF_COMP, want | COMPACT);
	guest_write(cpu, va + OFF_BV, img + OFF_BV, 16);
	return insn_done(cpu, i);
}

HANDLER(do_xsaves)
{
	if (cpu->cpl)
		cpu_gp(cpu);
	return do_xsavec(cpu, i);
}

/* Turns a compacted image into a standard one with the same effect. */
static void expand(struct soft_cpu *cpu, uint8_t *img, uint32_t want)
{
	uint64_t bv = get64(img + OFF_BV), comp = get64(img + OFF_COMP) & ~COMPACT;
	uint32_t mxcsr;

	if (comp & ~cpu->xcr0 || bv & ~comp)
		cpu_gp(cpu);
	for (unsigned n = OFF_COMP + 8; n < OFF_AVX; n += 8)
		if (get64(img + n))
			cpu_gp(cpu);
	if (!(want & SSE))
		asm volatile("stmxcsr %0" : "=m"(mxcsr));
	else if (!(bv & SSE))
		mxcsr = MXCSR_INIT;
	else
		mxcsr = get32(img + OFF_MXCSR);
	put32(img + OFF_MXCSR, mxcsr);
	put64(img + OFF_COMP, 0);
}

static void read_image(struct soft_cpu *cpu, uint64_t va, uint8_t *img, unsigned len)
{
	const void *p = guest_read_ptr(cpu, va, len);

	if (p)
		fp_copy(img, p, len);
	else
		guest_read(cpu, va, img, len);
}

static void xrstor(struct soft_cpu *cpu, const struct insn *i, bool supervisor)
{
	uint8_t *img = fp_of(cpu)->image;
	uint64_t va = image_ea(cpu, i, FP_XSAVE, 64);
	uint32_t want = requested(cpu);

	read_image(cpu, va, img, OFF_AVX);
	if (get64(img + OFF_COMP) & COMPACT) {
		if (!(cpu->model->word[CPUID_D_1_EAX] & 2))
			cpu_gp(cpu);
		expand(cpu, img, want);
	} else if (supervisor) {
		cpu_gp(cpu);
	} else if (get64(img + OFF_COMP) || get64(img + OFF_COMP + 8) ||
		   get64(img + OFF_BV) & ~cpu->xcr0) {
		cpu_gp(cpu);
	}
	if (want & (SSE | AVX))
		check_mxcsr(cpu, img);
	if (want & get64(img + OFF_BV) & AVX)
		read_image(cpu, va + OFF_AVX, img + OFF_AVX, FP_IMAGE_SIZE - OFF_AVX);
	clear_pointers(cpu, img);
	put64(img + OFF_BV, get64(img + OFF_BV) & want);
	fp_xrstor(cpu, img, want);
}

HANDLER(do_xrstor)
{
	xrstor(cpu, i, false);
	return insn_done(cpu, i);
}

HANDLER(do_xrstors)
{
	if (cpu->cpl)
		cpu_gp(cpu);
	xrstor(cpu, i, true);
	return insn_done(cpu, i);
}

insn_fn *fp_image_handler(unsigned mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_FNSTENV: return do_fnstenv;
	case ZYDIS_MNEMONIC_FNSAVE: return do_fnsave;
	case ZYDIS_MNEMONIC_FLDENV: return do_fldenv;
	case ZYDIS_MNEMONIC_FRSTOR: return do_frstor;
	case ZYDIS_MNEMONIC_FXSAVE: case ZYDIS_MNEMONIC_FXSAVE64: return do_fxsave;
	case ZYDIS_MNEMONIC_FXRSTOR: case ZYDIS_MNEMONIC_FXRSTOR64: return do_fxrstor;
	case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64: return do_xsave;
	case ZYDIS_MNEMONIC_XSAVEOPT: case ZYDIS_MNEMONIC_XSAVEOPT64: return do_xsaveopt;
	case ZYDIS_MNEMONIC_XSAVEC: case ZYDIS_MNEMONIC_XSAVEC64: return do_xsavec;
	case ZYDIS_MNEMONIC_XSAVES: case ZYDIS_MNEMONIC_XSAVES64: return do_xsaves;
	case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64: return do_xrstor;
	case ZYDIS_MNEMONIC_XRSTORS: case ZYDIS_MNEMONIC_XRSTORS64: return do_xrstors;
	default: return NULL;
	}
}
