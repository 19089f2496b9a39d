// SPDX-License-Identifier: MIT
/*
 * fp_state.c - guest floating point state in and out of the host's registers.
 *
 * The components x87, SSE and, where host and model have it, AVX move with one
 * XSAVE and one XRSTOR each.  What the host itself keeps in these registers is,
 * by its calling convention, the control words alone: coming out, XRSTOR of an
 * image with no component present puts everything into its initial state and
 * loads our MXCSR.
 *
 * An image in soft_cpu.xsave always loads without a fault: fp_sanitise() sees to
 * that for whatever came from a bundle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/soft/fp.h"

#define MXCSR_INIT	0x1f80u
#define MXCSR_MASK	0xffffu	/* what every CPU since SSE2 lets be set */
#define FCW_INIT	0x37fu
#define IMG_FOP		6	/* FOP, FIP, FDP: 18 bytes */
#define IMG_MXCSR	24
#define IMG_MXCSR_MASK	28
#define IMG_HEADER	512	/* XSTATE_BV, XCOMP_BV, zeroes */

static void put32(uint8_t *p, uint32_t v)
{
	*(uint32_t *)(void *)p = v;
}

static void put64(uint8_t *p, uint64_t v)
{
	*(uint64_t *)(void *)p = v;
}

void fp_xsave(const struct soft_cpu *cpu, void *image, uint64_t mask)
{
	if (cpu->host_xcr0)
		asm volatile("xsave64 (%0)"
			     : : "r"(image), "a"((uint32_t)mask), "d"(0) : "memory");
	else
		asm volatile("fxsave64 (%0)" : : "r"(image) : "memory");
}

void fp_xrstor(const struct soft_cpu *cpu, const void *image, uint64_t mask)
{
	if (cpu->host_xcr0)
		asm volatile("xrstor64 (%0)"
			     : : "r"(image), "a"((uint32_t)mask), "d"(0) : "memory");
	else
		asm volatile("fxrstor64 (%0)" : : "r"(image) : "memory");
}

void fp_save(struct soft_cpu *cpu)
{
	if (!cpu->fp_live)
		return;
	cpu->fp_live = false;
	fp_xsave(cpu, cpu->xsave, cpu->host_xcr0);
	/* They point into our stubs: not for snapshots. */
	fp_zero(cpu->xsave + IMG_FOP, 18);
	fp_xrstor(cpu, fp_of(cpu)->host, cpu->host_xcr0);
}

void fp_load(struct soft_cpu *cpu)
{
	if (cpu->fp_live)
		return;
	cpu->fp_live = true;
	asm volatile("stmxcsr %0"
		     : "=m"(*(uint32_t *)(void *)(fp_of(cpu)->host + IMG_MXCSR)));
	fp_xrstor(cpu, cpu->xsave, cpu->host_xcr0);
}

void fp_sanitise(struct soft_cpu *cpu)
{
	uint8_t *x = cpu->xsave;
	uint64_t bv;
	uint32_t mxcsr;

	memcpy(&bv, x + IMG_HEADER, 8);
	memcpy(&mxcsr, x + IMG_MXCSR, 4);
	fp_zero(x + IMG_HEADER, 64);
	put64(x + IMG_HEADER, bv & cpu->host_xcr0);
	put32(x + IMG_MXCSR, mxcsr & MXCSR_MASK);
	put32(x + IMG_MXCSR_MASK, MXCSR_MASK);
	fp_zero(x + IMG_FOP, 18);
	if (!cpu->host_xcr0 && !(bv & 1))	/* FXRSTOR knows no header */
		*(uint16_t *)(void *)x = FCW_INIT;
}

static void init_image(uint8_t *x)
{
	memset(x, 0, FP_IMAGE_SIZE);
	*(uint16_t *)(void *)x = FCW_INIT;
	put32(x + IMG_MXCSR, MXCSR_INIT);
	put32(x + IMG_MXCSR_MASK, MXCSR_MASK);
}

static uint64_t host_components(void)
{
	uint32_t a = 1, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	if (!(c >> 27 & 1))	/* OSXSAVE */
		return 0;
	asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return a & 7;
}

static bool host_tells_in_use(void)
{
	uint32_t a = 0xd, b, c = 1, d;

	if (!host_components())
		return false;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return a >> 2 & 1;
}

static void reset(struct soft_cpu *cpu)
{
	cpu->host_xcr0 = host_components();
	init_image(cpu->xsave);
	fp_mode_changed(cpu);
}

int fp_init(struct soft_cpu *cpu)
{
	struct fp *fp = calloc(1, sizeof(*fp));
	int ret;

	cpu->fp = fp;
	if (!fp)
		return -ENOMEM;
	fp->mxcsr_mask = MXCSR_MASK;
	fp->xinuse = host_tells_in_use();
	fp->host = aligned_alloc(64, ALIGN_UP(FP_IMAGE_SIZE, 64u));
	fp->image = aligned_alloc(64, ALIGN_UP(FP_IMAGE_SIZE, 64u));
	ret = fp->host && fp->image ? fp_stub_init(fp) : -ENOMEM;
	if (ret < 0) {
		fp_done(cpu);
		return ret;
	}
	init_image(fp->host);
	memset(fp->image, 0, FP_IMAGE_SIZE);
	reset(cpu);
	return 0;
}

int fp_fork(struct soft_cpu *cpu)
{
	return codemem_share(&fp_of(cpu)->area, fp_of(cpu)->used);
}

void fp_inherit(struct soft_cpu *cpu)
{
	reset(cpu);
}

void fp_done(struct soft_cpu *cpu)
{
	struct fp *fp = cpu->fp;

	if (!fp)
		return;
	fp_stub_done(fp);
	free(fp->host);
	free(fp->image);
	free(fp);
	cpu->fp = NULL;
}
