// SPDX-License-Identifier: MIT
/*
 * fp_mask.c - instructions that touch only some elements of their memory operand:
 * MASKMOVDQU and MASKMOVQ, VMASKMOV and VPMASKMOV, the gathers.
 *
 * Masked moves run natively when the whole operand is in a page that the TLB has.
 * Else the elements that count are found out and moved one by one through a
 * bounce buffer, so that the others neither fault nor get written.
 *
 * Gathers are done element by element.  After each, destination and mask are as
 * the architecture wants to see them if the next one faults.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "vmm/soft/fp.h"
#include "vmm/soft/ops.h"

/* --- a vector register's bytes ------------------------------------------------------ */

enum { PEEK, POKE };

/* VMOVUPS between [rdi] and register r. */
static void *access_stub(struct fp *fp, unsigned what, unsigned r)
{
	const uint8_t code[] = {
		0xc5, r < 8 ? 0xfc : 0x7c,
		what == PEEK ? 0x11 : 0x10, (r & 7) << 3 | X86_RDI,
	};

	return fp_stub(fp, code, sizeof(code));
}

static bool make_access(struct fp *fp)
{
	for (unsigned what = 0; what < 2; what++)
		for (unsigned r = 0; r < 16; r++)
			if (!(fp->access[what][r] = access_stub(fp, what, r)))
				return false;
	return true;
}

static void peek(struct soft_cpu *cpu, unsigned r, void *to)
{
	fp_call(fp_of(cpu)->access[PEEK][r], to);
}

static void poke(struct soft_cpu *cpu, unsigned r, const void *from)
{
	fp_call(fp_of(cpu)->access[POKE][r], from);
}

/* --- masked moves ------------------------------------------------------------------- */

/*
 * Which bytes a masked store writes: run twice over different backgrounds, the
 * written ones come out the same.  img has them then.
 */
static uint64_t written_bytes(struct soft_cpu *cpu, const struct insn *i, uint8_t *img,
			      unsigned len)
{
	uint8_t *other = img + 64;
	uint64_t mask = 0;

	for (unsigned n = 0; n < len; n++) {
		img[n] = 0;
		other[n] = 0xff;
	}
	if (fp_call(i->ptr, img))	/* MMX: an x87 exception is pending */
		fp_raise(cpu, VEC_MF);
	fp_call(i->ptr, other);
	for (unsigned n = 0; n < len; n++)
		if (img[n] == other[n])
			mask |= BIT(n);
	return mask;
}

static void store_slow(struct soft_cpu *cpu, const struct insn *i, uint64_t va,
		       unsigned len)
{
	uint8_t *img = fp_of(cpu)->image;
	uint64_t mask = written_bytes(cpu, i, img, len);
	bool all = i->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;	/* as hardware does */

	for (unsigned n = 0; n < len; n++)
		if (all || mask >> n & 1)
			guest_check_write(cpu, va + n, 1);
	for (unsigned n = 0; n < len; n++)
		if (mask >> n & 1)
			guest_write(cpu, va + n, img + n, 1);
}

HANDLER(masked_store)
{
	union fp_aux a = fp_aux(i);
	uint64_t va;
	unsigned fault = 0;

	fp_check(cpu, a.cls);
	va = insn_ea(cpu, i);
	if (likely(tlb_writes(cpu->tlb, va, a.msize)))
		fault = fp_call(i->ptr, tlb_host(cpu->tlb, va));
	else
		store_slow(cpu, i, va, a.msize);
	if (unlikely(fault))
		fp_raise(cpu, fault);
	return insn_done(cpu, i);
}

/* arg: number of the mask register; bit 7: elements of 8 bytes, else 4. */
static void *load_slow(struct soft_cpu *cpu, const struct insn *i, uint64_t va)
{
	union fp_aux a = fp_aux(i);
	uint8_t *img = fp_of(cpu)->image, *mask = img + 64;
	unsigned step = a.arg & 0x80 ? 8 : 4;

	peek(cpu, a.arg & 15, mask);
	fp_zero(img, a.msize);
	for (unsigned n = 0; n < a.msize; n += step)
		if (mask[n + step - 1] & 0x80)
			guest_read(cpu, va + n, img + n, step);
	return img;
}

HANDLER(masked_load)
{
	union fp_aux a = fp_aux(i);
	uint64_t va;

	fp_check(cpu, a.cls);
	va = insn_ea(cpu, i);
	if (likely(tlb_reads(cpu->tlb, va, a.msize)))
		fp_call(i->ptr, tlb_host(cpu->tlb, va));
	else
		fp_call(i->ptr, load_slow(cpu, i, va));
	return insn_done(cpu, i);
}

/* --- gathers ------------------------------------------------------------------------- */

union gather {
	uint64_t u;
	struct {
		uint8_t dest, mask, index;	/* registers */
		uint8_t count;			/* elements */
		uint8_t size, isize;		/* bytes of element and index */
		uint8_t scale;			/* shift */
	};
};

static uint64_t element_va(struct soft_cpu *cpu, const struct insn *i, union gather g,
			   const uint8_t *index, unsigned n)
{
	int64_t idx = g.isize == 8 ? *(const int64_t *)(const void *)(index + 8 * n) :
				     *(const int32_t *)(const void *)(index + 4 * n);
	uint64_t va = reg8(cpu, i->base) + ((uint64_t)idx << g.scale) + (int64_t)i->disp;

	if (i->flags & INSN_ADDR32)
		va = (uint32_t)va;
	return va + reg8(cpu, i->seg);
}

/* The sign bit of each element becomes the whole element; what is beyond the vector
 * length is cleared. */
static void widen_mask(uint8_t *mask, union gather g)
{
	unsigned vl = g.count * MAX(g.size, g.isize);

	for (unsigned n = 0; n < 32u / g.size; n++) {
		bool set = n * g.size < vl && mask[n * g.size + g.size - 1] & 0x80;

		for (unsigned k = 0; k < g.size; k++)
			mask[n * g.size + k] = set ? 0xff : 0;
	}
}

HANDLER(do_gather)
{
	union gather g = { .u = i->aux };
	uint8_t *dest = fp_of(cpu)->image, *mask = dest + 64, *index = dest + 128;
	unsigned used = g.count * g.size;

	fp_check(cpu, FP_AVX);
	peek(cpu, g.dest, dest);
	peek(cpu, g.mask, mask);
	peek(cpu, g.index, index);
	widen_mask(mask, g);
	if (g.count * MAX(g.size, g.isize) == 16)
		fp_zero(dest + 16, 16);
	poke(cpu, g.mask, mask);
	for (unsigned n = 0; n < g.count; n++) {
		uint8_t *m = mask + n * g.size;

		if (!(m[g.size - 1] & 0x80))
			continue;
		guest_read(cpu, element_va(cpu, i, g, index, n), dest + n * g.size, g.size);
		fp_zero(m, g.size);
		poke(cpu, g.dest, dest);
		poke(cpu, g.mask, mask);
	}
	fp_zero(dest + used, 32 - used);
	fp_zero(mask, 32);
	poke(cpu, g.dest, dest);
	poke(cpu, g.mask, mask);
	return insn_done(cpu, i);
}

static unsigned index_size(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VGATHERDPS: case ZYDIS_MNEMONIC_VPGATHERDD:
	case ZYDIS_MNEMONIC_VGATHERDPD: case ZYDIS_MNEMONIC_VPGATHERDQ:
		return 4;
	case ZYDIS_MNEMONIC_VGATHERQPS: case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VGATHERQPD: case ZYDIS_MNEMONIC_VPGATHERQQ:
		return 8;
	default:
		return 0;
	}
}

static unsigned element_size(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VGATHERDPS: case ZYDIS_MNEMONIC_VPGATHERDD:
	case ZYDIS_MNEMONIC_VGATHERQPS: case ZYDIS_MNEMONIC_VPGATHERQD:
		return 4;
	default:
		return 8;
	}
}

static uint8_t base_slot(ZydisRegister r)
{
	if (r == ZYDIS_REGISTER_NONE)
		return SLOT_ZERO;
	return 8 * ZydisRegisterGetId(r);
}

/* The address of an operand that cpu's decoder does not know. */
static void set_address(struct insn *i, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *o)
{
	/* Zydis 4.0 invents a base here after a 67 prefix and REX.B. */
	bool none = z->attributes & ZYDIS_ATTRIB_HAS_SIB && z->raw.modrm.mod == 0 &&
		    z->raw.sib.base == 5;

	i->base = none ? SLOT_ZERO : base_slot(o->mem.base);
	i->index = SLOT_ZERO;
	i->scale = 0;
	i->disp = z->raw.disp.size ? (int32_t)z->raw.disp.value : 0;
	i->seg = o->mem.segment == ZYDIS_REGISTER_FS ? SLOT_FS :
		 o->mem.segment == ZYDIS_REGISTER_GS ? SLOT_GS : SLOT_ZERO;
	i->flags |= INSN_MEM;
	if (z->address_width == 32)
		i->flags |= INSN_ADDR32;
}

bool fp_gather_decode(struct soft_cpu *cpu, const ZydisDecodedInstruction *z,
		      const ZydisDecodedOperand *ops, struct insn *i, union fp_aux a)
{
	unsigned isize = index_size(z->mnemonic), vl = z->avx.vector_length / 8;
	union gather g = { .u = 0 };

	if (!isize)
		return false;
	g.isize = isize;
	g.size = element_size(z->mnemonic);
	g.count = vl / MAX(g.size, g.isize);
	g.dest = ZydisRegisterGetId(ops[0].reg.value);
	g.mask = ZydisRegisterGetId(ops[2].reg.value);
	g.index = ZydisRegisterGetId(ops[1].mem.index);
	g.scale = (unsigned)__builtin_ctz(ops[1].mem.scale | 16);
	set_address(i, z, &ops[1]);
	i->aux = g.u;
	i->fn = do_gather;
	if (g.dest == g.mask || g.dest == g.index || g.mask == g.index ||
	    !make_access(cpu->fp)) {
		i->fn = fp_of(cpu)->full ? fp_full : fp_ud;
		i->flags |= INSN_END;
	}
	return true;
}

/* --- decoding -------------------------------------------------------------------------- */

insn_fn *fp_mask_decode(struct soft_cpu *cpu, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *ops, struct insn *i, union fp_aux *a)
{
	bool wide = false;

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ: case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		for (unsigned n = 0; n < z->operand_count; n++)
			if (ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
				set_address(i, z, &ops[n]);
		return masked_store;
	case ZYDIS_MNEMONIC_VMASKMOVPD: case ZYDIS_MNEMONIC_VPMASKMOVQ:
		wide = true;
		break;
	case ZYDIS_MNEMONIC_VMASKMOVPS: case ZYDIS_MNEMONIC_VPMASKMOVD:
		break;
	default:
		return NULL;
	}
	if (ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
		return masked_store;
	a->arg = ZydisRegisterGetId(ops[1].reg.value) | (wide ? 0x80 : 0);
	return make_access(cpu->fp) ? masked_load : fp_full;
}
