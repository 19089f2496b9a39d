// SPDX-License-Identifier: MIT
/*
 * seg.c - what long mode has left of segmentation: loading selectors, far
 * transfers, descriptor table registers, LAR, LSL, VERR, VERW.
 *
 * Limits and most types mean nothing in 64-bit mode, but selectors, attributes
 * and faults are architectural and guests look at them.  CS may be loaded with a
 * 32-bit descriptor; code then gets #UD at its first instruction (docs/cpu.md).
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"
#include "vmm/soft/seg.h"

static bool desc_address(struct soft_cpu *cpu, uint16_t sel, unsigned size, uint64_t *va)
{
	unsigned off = sel & ~7u;

	if (sel & 4) {
		const struct x86_segment *ldt = &cpu->seg[X86_LDTR];

		if ((ldt->attr & X86_SEG_UNUSABLE) || off + size - 1 > ldt->limit)
			return false;
		*va = ldt->base + off;
		return true;
	}
	*va = cpu->gdt.base + off;
	return off + size - 1 <= cpu->gdt.limit;
}

bool desc_try(struct soft_cpu *cpu, uint16_t sel, uint64_t *desc)
{
	uint64_t va;

	if (!desc_address(cpu, sel, 8, &va))
		return false;
	*desc = sys_load(cpu, va, 8);
	return true;
}

uint64_t desc_load(struct soft_cpu *cpu, uint16_t sel, unsigned vector)
{
	uint64_t desc;

	if (!desc_try(cpu, sel, &desc))
		cpu_raise(cpu, vector, sel & ~3u);
	return desc;
}

struct x86_segment desc_unpack(uint16_t sel, uint64_t desc)
{
	struct x86_segment s = {
		.sel = sel,
		.base = (desc >> 16 & 0xffffff) | (desc >> 56 & 0xff) << 24,
		.limit = (desc & 0xffff) | (desc >> 32 & 0xf0000),
		.attr = desc >> 40 & 0xf0ff,
	};

	if (s.attr & SEG_G)
		s.limit = s.limit << 12 | 0xfff;
	return s;
}

void desc_accessed(struct soft_cpu *cpu, uint16_t sel, uint64_t desc)
{
	uint64_t va;

	if (!(desc >> 40 & 1) && desc_address(cpu, sel, 8, &va))
		sys_store(cpu, va + 5, (desc >> 40 & 0xff) | 1, 1);
}

void set_cs(struct soft_cpu *cpu, uint16_t sel, uint64_t desc, unsigned cpl)
{
	cpu->seg[X86_CS] = desc_unpack((sel & ~3u) | cpl, desc);
	cpu->seg[X86_CS].attr |= 1;
	cpu->cpl = cpl;
	cpu_mode_changed(cpu);
}

void set_null_ss(struct soft_cpu *cpu, unsigned cpl)
{
	cpu->seg[X86_SS] = (struct x86_segment){
		.sel = cpl, .attr = X86_SEG_UNUSABLE | cpl << 5,
	};
}

void set_flat(struct soft_cpu *cpu, enum x86_seg s, uint16_t sel, unsigned dpl, bool code)
{
	cpu->seg[s] = (struct x86_segment){
		.sel = sel, .limit = 0xffffffff,
		.attr = SEG_P | SEG_S | SEG_G | dpl << 5 |
			(code ? 0xb | SEG_L : 0x3 | SEG_DB),
	};
}

static void set_base(struct soft_cpu *cpu, enum x86_seg s)
{
	if (s == X86_FS)
		cpu->fs_base = cpu->seg[s].base;
	if (s == X86_GS)
		cpu->gs_base = cpu->seg[s].base;
}

static void load_null(struct soft_cpu *cpu, enum x86_seg s, uint16_t sel)
{
	if (s == X86_SS) {
		if (cpu->cpl == 3 || (sel & 3) != cpu->cpl)
			cpu_gp(cpu);
		set_null_ss(cpu, cpu->cpl);
		return;
	}
	/* the base goes too, as Intel's do */
	cpu->seg[s] = (struct x86_segment){ .sel = sel, .attr = X86_SEG_UNUSABLE };
	set_base(cpu, s);
}

void load_data_seg(struct soft_cpu *cpu, enum x86_seg s, uint16_t sel)
{
	unsigned rpl = sel & 3, type, dpl, attr;
	uint64_t desc;

	if (!(sel & ~3u)) {
		load_null(cpu, s, sel);
		return;
	}
	desc = desc_load(cpu, sel, VEC_GP);
	attr = desc >> 40;
	type = attr & 15;
	dpl = SEG_DPL(attr);
	if (!(attr & SEG_S))
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (s == X86_SS) {
		if (rpl != cpu->cpl || dpl != cpu->cpl || (type & 0xa) != 2)
			cpu_raise(cpu, VEC_GP, sel & ~3u);
	} else {
		if ((type & 0xa) == 8)	/* code that cannot be read */
			cpu_raise(cpu, VEC_GP, sel & ~3u);
		if ((type & 0xc) != 0xc && (rpl > dpl || cpu->cpl > dpl))
			cpu_raise(cpu, VEC_GP, sel & ~3u);
	}
	if (!(attr & SEG_P))
		cpu_raise(cpu, s == X86_SS ? VEC_SS : VEC_NP, sel & ~3u);
	desc_accessed(cpu, sel, desc);
	cpu->seg[s] = desc_unpack(sel, desc);
	cpu->seg[s].attr |= 1;
	set_base(cpu, s);
}

/* --- moves of segment registers ----------------------------------------------------------- */

static enum x86_seg modrm_seg(const struct insn *i, unsigned at)
{
	return i->raw[at] >> 3 & 7;
}

/* The opcode 8C or 8E comes before its ModRM. */
static unsigned modrm_at(const struct insn *i)
{
	unsigned at = 0;

	while (at < i->len && i->raw[at] != 0x8c && i->raw[at] != 0x8e)
		at++;
	return at + 1;
}

HANDLER(mov_from_seg)
{
	uint16_t sel = cpu->seg[modrm_seg(i, modrm_at(i))].sel;

	if (i->flags & INSN_MEM)
		store2(cpu, insn_ea(cpu, i), sel);
	else
		set_n(cpu, i->rd, sel, i->size);
	NEXT(cpu, i);
}

HANDLER(mov_to_seg)
{
	enum x86_seg s = modrm_seg(i, modrm_at(i));
	uint16_t sel = i->flags & INSN_MEM ? load2(cpu, insn_ea(cpu, i)) :
					     reg2(cpu, i->rs);

	load_data_seg(cpu, s, sel);
	if (s == X86_SS)
		cpu_set_shadow(cpu, SHADOW_MOV_SS);
	cpu->rip += i->len;
	if (s == X86_SS) {
		cpu->icount += i->nr;
		return NULL;
	}
	DISPATCH(cpu, i + 1);
}

const struct insn *pop_seg(struct soft_cpu *cpu, const struct insn *i)
{
	enum x86_seg s = i->raw[i->len - 1] == 0xa1 ? X86_FS : X86_GS;
	uint16_t sel = load_n(cpu, cpu->gpr[X86_RSP], i->size);

	load_data_seg(cpu, s, sel);
	cpu->gpr[X86_RSP] += i->size;
	NEXT(cpu, i);
}

/* LSS, LFS, LGS: offset, then selector. */
HANDLER(load_far_pointer)
{
	enum x86_seg s = i->mnemonic == ZYDIS_MNEMONIC_LSS ? X86_SS :
			 i->mnemonic == ZYDIS_MNEMONIC_LFS ? X86_FS : X86_GS;
	uint64_t ea = insn_ea(cpu, i), off = load_n(cpu, ea, i->size);
	uint16_t sel = load2(cpu, ea + i->size);

	load_data_seg(cpu, s, sel);
	set_n(cpu, i->rd, off, i->size);
	NEXT(cpu, i);
}

/* --- far transfers -------------------------------------------------------------------------- */

/* Checks a code descriptor for a transfer without privilege change. */
static void check_code(struct soft_cpu *cpu, uint16_t sel, uint64_t desc)
{
	unsigned attr = desc >> 40, dpl = SEG_DPL(attr);
	bool conforming = attr & 4;

	if (!(attr & SEG_S) || !(attr & 8))
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (conforming ? dpl > cpu->cpl : dpl != cpu->cpl || (sel & 3) > cpu->cpl)
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (!(attr & SEG_P))
		cpu_raise(cpu, VEC_NP, sel & ~3u);
	if ((desc >> 40 & SEG_L) && (desc >> 40 & SEG_DB))
		cpu_raise(cpu, VEC_GP, sel & ~3u);
}

static void far_target(struct soft_cpu *cpu, const struct insn *i, uint16_t *sel,
		       uint64_t *desc, uint64_t *off)
{
	unsigned size = i->len && i->raw[0] != 0x66 ? 4 : 2;
	uint64_t ea = insn_ea(cpu, i);

	for (unsigned k = 0; k < i->len; k++)
		if ((i->raw[k] & 0xf8) == 0x48 && i->raw[k + 1] == 0xff)
			size = 8;
	*off = load_n(cpu, ea, size);
	*sel = load2(cpu, ea + size);
	if (!(*sel & ~3u))
		cpu_gp(cpu);
	*desc = desc_load(cpu, *sel, VEC_GP);
	check_code(cpu, *sel, *desc);
	if (!canonical(*off))
		cpu_gp(cpu);
}

const struct insn *jmp_far(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t desc, off;
	uint16_t sel;

	far_target(cpu, i, &sel, &desc, &off);
	desc_accessed(cpu, sel, desc);
	set_cs(cpu, sel, desc, cpu->cpl);
	cpu->rip = off;
	cpu->icount += i->nr;
	return NULL;
}

const struct insn *call_far(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t desc, off, rsp = cpu->gpr[X86_RSP];
	unsigned n = i->size >= 8 ? 8 : 4;
	uint16_t sel;

	far_target(cpu, i, &sel, &desc, &off);
	store_n(cpu, rsp - n, cpu->seg[X86_CS].sel, n);
	store_n(cpu, rsp - 2 * n, cpu->rip + i->len, n);
	desc_accessed(cpu, sel, desc);
	set_cs(cpu, sel, desc, cpu->cpl);
	cpu->gpr[X86_RSP] = rsp - 2 * n;
	cpu->rip = off;
	cpu->icount += i->nr;
	return NULL;
}

const struct insn *ret_far(struct soft_cpu *cpu, const struct insn *i)
{
	bool with_imm = i->raw[i->len - 1] != 0xcb;
	unsigned n = i->size;

	far_return(cpu, n, with_imm ? i->raw[i->len - 2] | i->raw[i->len - 1] << 8 : 0);
	cpu->icount += i->nr;
	return NULL;
}

/* --- tables ------------------------------------------------------------------------------- */

static void privileged(struct soft_cpu *cpu)
{
	if (cpu->cpl)
		cpu_gp(cpu);
}

static void check_umip(struct soft_cpu *cpu)
{
	if (cpu->cpl == 3 && (cpu->cr4 & CR4_UMIP))
		cpu_gp(cpu);
}

static const struct insn *store_table(struct soft_cpu *cpu, const struct insn *i,
				      const struct x86_dtable *t)
{
	uint8_t b[10];

	check_umip(cpu);
	__builtin_memcpy(b, &t->limit, 2);
	__builtin_memcpy(b + 2, &t->base, 8);
	guest_write(cpu, insn_ea(cpu, i), b, sizeof(b));
	return insn_done(cpu, i);
}

static const struct insn *load_table(struct soft_cpu *cpu, const struct insn *i,
				     struct x86_dtable *t)
{
	uint8_t b[10];
	struct x86_dtable new;

	privileged(cpu);
	guest_read(cpu, insn_ea(cpu, i), b, sizeof(b));
	__builtin_memcpy(&new.limit, b, 2);
	__builtin_memcpy(&new.base, b + 2, 8);
	if (!canonical(new.base))
		cpu_gp(cpu);
	*t = new;
	return insn_done(cpu, i);
}

HANDLER(sgdt)
{
	return store_table(cpu, i, &cpu->gdt);
}
HANDLER(sidt)
{
	return store_table(cpu, i, &cpu->idt);
}
HANDLER(lgdt)
{
	return load_table(cpu, i, &cpu->gdt);
}
HANDLER(lidt)
{
	return load_table(cpu, i, &cpu->idt);
}

/* To memory these store 16 bits whatever the operand size. */
static const struct insn *store_word(struct soft_cpu *cpu, const struct insn *i, uint64_t v)
{
	check_umip(cpu);
	if (i->flags & INSN_MEM)
		store2(cpu, insn_ea(cpu, i), v);
	else
		set_n(cpu, i->rd, v, i->size);
	return insn_done(cpu, i);
}

HANDLER(sldt)
{
	return store_word(cpu, i, cpu->seg[X86_LDTR].sel);
}
HANDLER(str)
{
	return store_word(cpu, i, cpu->seg[X86_TR].sel);
}
HANDLER(smsw)
{
	return store_word(cpu, i, cpu->cr0);
}

static uint16_t word_operand(struct soft_cpu *cpu, const struct insn *i)
{
	return i->flags & INSN_MEM ? load2(cpu, insn_ea(cpu, i)) : reg2(cpu, i->rd);
}

/* System descriptors are 16 bytes: LDT and TSS. */
static void load_system(struct soft_cpu *cpu, const struct insn *i, enum x86_seg s,
			unsigned type)
{
	uint64_t va, lo, hi;
	uint16_t sel;

	privileged(cpu);
	sel = word_operand(cpu, i);
	if (!(sel & ~3u)) {
		if (s == X86_TR)
			cpu_gp(cpu);
		cpu->seg[s] = (struct x86_segment){ .sel = sel, .attr = X86_SEG_UNUSABLE };
		return;
	}
	if ((sel & 4) || !desc_address(cpu, sel, 16, &va))
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	lo = sys_load(cpu, va, 8);
	hi = sys_load(cpu, va + 8, 8);
	if ((lo >> 40 & 0x1f) != type)
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (!(lo >> 40 & SEG_P))
		cpu_raise(cpu, VEC_NP, sel & ~3u);
	if (!canonical((hi << 32) | (lo >> 32 & 0xff000000)))
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (s == X86_TR) {	/* becomes busy */
		lo |= 2ull << 40;
		sys_store(cpu, va + 5, lo >> 40, 1);
	}
	cpu->seg[s] = desc_unpack(sel, lo);
	cpu->seg[s].base |= hi << 32;
}

HANDLER(lldt)
{
	load_system(cpu, i, X86_LDTR, 2);
	NEXT(cpu, i);
}
HANDLER(ltr)
{
	load_system(cpu, i, X86_TR, 9);
	NEXT(cpu, i);
}

/* --- LAR, LSL, VERR, VERW: ask about a selector, the answer in ZF ------------------------------ */

static void set_zf(struct soft_cpu *cpu, bool zf)
{
	cpu->cc = zf ? cpu->cc | CC_ZF : cpu->cc & ~CC_ZF;
}

/* May the program know of this descriptor at all? */
static bool visible(struct soft_cpu *cpu, uint16_t sel, uint64_t *desc, bool limit)
{
	unsigned attr, dpl;

	if (!(sel & ~3u) || !desc_try(cpu, sel, desc))
		return false;
	attr = *desc >> 40;
	dpl = SEG_DPL(attr);
	if (!(attr & SEG_S)) {
		unsigned type = attr & 15;

		if (type != 2 && type != 9 && type != 11 && (limit || type != 12))
			return false;
	} else if ((attr & 0xc) == 0xc) {
		return true;	/* conforming code */
	}
	return cpu->cpl <= dpl && (sel & 3) <= dpl;
}

static uint16_t selector_operand(struct soft_cpu *cpu, const struct insn *i)
{
	return i->flags & INSN_MEM ? load2(cpu, insn_ea(cpu, i)) : reg2(cpu, i->rs);
}

HANDLER(lar)
{
	uint64_t desc;
	bool ok = visible(cpu, selector_operand(cpu, i), &desc, false);

	if (ok)
		set_n(cpu, i->rd, desc >> 32 & 0xf0ff00, i->size);
	set_zf(cpu, ok);
	return insn_done(cpu, i);
}

HANDLER(lsl)
{
	uint16_t sel = selector_operand(cpu, i);
	uint64_t desc;
	bool ok = visible(cpu, sel, &desc, true);

	if (ok)
		set_n(cpu, i->rd, desc_unpack(sel, desc).limit, i->size);
	set_zf(cpu, ok);
	return insn_done(cpu, i);
}

static const struct insn *verify(struct soft_cpu *cpu, const struct insn *i, bool write)
{
	uint16_t sel = word_operand(cpu, i);
	uint64_t desc;
	bool ok = visible(cpu, sel, &desc, false) && (desc >> 40 & SEG_S);
	unsigned type = ok ? desc >> 40 & 15 : 0;

	if (ok && write)
		ok = (type & 0xa) == 2;
	else if (ok)
		ok = !(type & 8) || (type & 2);
	set_zf(cpu, ok);
	return insn_done(cpu, i);
}

HANDLER(verr)
{
	return verify(cpu, i, false);
}
HANDLER(verw)
{
	return verify(cpu, i, true);
}

insn_fn *mov_seg_choose(const struct insn *i)
{
	return i->raw[modrm_at(i) - 1] == 0x8c ? mov_from_seg : mov_to_seg;
}

const struct op ops_seg[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_SGDT, .any = sgdt },
	{ .mnemonic = ZYDIS_MNEMONIC_SIDT, .any = sidt },
	{ .mnemonic = ZYDIS_MNEMONIC_LGDT, .any = lgdt },
	{ .mnemonic = ZYDIS_MNEMONIC_LIDT, .any = lidt },
	{ .mnemonic = ZYDIS_MNEMONIC_SLDT, .any = sldt },
	{ .mnemonic = ZYDIS_MNEMONIC_STR, .any = str },
	{ .mnemonic = ZYDIS_MNEMONIC_SMSW, .any = smsw },
	{ .mnemonic = ZYDIS_MNEMONIC_LLDT, .any = lldt },
	{ .mnemonic = ZYDIS_MNEMONIC_LTR, .any = ltr },
	{ .mnemonic = ZYDIS_MNEMONIC_LAR, .any = lar },
	{ .mnemonic = ZYDIS_MNEMONIC_LSL, .any = lsl },
	{ .mnemonic = ZYDIS_MNEMONIC_VERR, .any = verr },
	{ .mnemonic = ZYDIS_MNEMONIC_VERW, .any = verw },
	{ .mnemonic = ZYDIS_MNEMONIC_LSS, .any = load_far_pointer },
	{ .mnemonic = ZYDIS_MNEMONIC_LFS, .any = load_far_pointer },
	{ .mnemonic = ZYDIS_MNEMONIC_LGS, .any = load_far_pointer },
	{ .mnemonic = 0 },
};
