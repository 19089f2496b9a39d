// SPDX-License-Identifier: MIT
/*
 * gen.c - the random program generator of the hardware comparison.
 *
 * Instructions are made from random bytes steered to where the opcode maps are
 * dense: prefixes, an opcode map, an opcode, a ModRM byte.  What Zydis decodes,
 * the engine offers and user code may run without leaving the sandbox of the
 * sequence (no system calls, nothing whose answer differs between a guest and its
 * host) is kept.  So every encoding of every instruction comes up, the
 * redundant ones too.
 *
 * A memory operand is aimed: moves that load base and index registers go in front of
 * the instruction, so that it hits the data area, its page boundary or the
 * unmapped page behind it.  Sometimes the aim is left to chance.  Branches go
 * forward to an instruction of the sequence; a run always ends.
 */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "tests/lib/gen.h"

struct gen {
	const struct gen_config *cfg;
	struct gen_seq *s;
	uint64_t rnd;
	bool last;		/* nothing may follow */
	ZydisDecoder dec;
};

uint64_t gen_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint32_t below(struct gen *g, uint32_t n)
{
	return (gen_random(&g->rnd) >> 32) * n >> 32;
}

static bool chance(struct gen *g, unsigned percent)
{
	return below(g, 100) < percent;
}

/* --- what may run --- */

static bool denied_mnemonic(ZydisMnemonic m)
{
	switch (m) {
	/* leave the sandbox */
	case ZYDIS_MNEMONIC_SYSCALL: case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_INT: case ZYDIS_MNEMONIC_INT1:
	/* answers differ between guest and host */
	case ZYDIS_MNEMONIC_CPUID: case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP: case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_RDPRU: case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_RDRAND: case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_XGETBV: case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT: case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR: case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LAR: case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR: case ZYDIS_MNEMONIC_VERW:
	/* would take the host's thread pointer or code segment away */
	case ZYDIS_MNEMONIC_WRFSBASE: case ZYDIS_MNEMONIC_WRGSBASE:
	case ZYDIS_MNEMONIC_RDFSBASE: case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_LFS: case ZYDIS_MNEMONIC_LGS: case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_IRET: case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	/* wait, or are virtualised */
	case ZYDIS_MNEMONIC_MONITOR: case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_XBEGIN: case ZYDIS_MNEMONIC_XEND:
	case ZYDIS_MNEMONIC_XABORT: case ZYDIS_MNEMONIC_XTEST:
	case ZYDIS_MNEMONIC_IN: case ZYDIS_MNEMONIC_OUT:
	case ZYDIS_MNEMONIC_INSB: case ZYDIS_MNEMONIC_INSD: case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_OUTSB: case ZYDIS_MNEMONIC_OUTSD:
	case ZYDIS_MNEMONIC_OUTSW:
		return true;
	default:
		return false;
	}
}

static bool denied_category(const ZydisDecodedInstruction *i)
{
	switch (i->meta.isa_set) {
	case ZYDIS_ISA_SET_VTX: case ZYDIS_ISA_SET_SVM: case ZYDIS_ISA_SET_SMX:
	case ZYDIS_ISA_SET_SGX: case ZYDIS_ISA_SET_SGX_ENCLV:
	case ZYDIS_ISA_SET_MPX: case ZYDIS_ISA_SET_PT: case ZYDIS_ISA_SET_VMFUNC:
	case ZYDIS_ISA_SET_WAITPKG: case ZYDIS_ISA_SET_PKU: case ZYDIS_ISA_SET_CET:
	case ZYDIS_ISA_SET_RTM: case ZYDIS_ISA_SET_MONITOR:
	case ZYDIS_ISA_SET_MONITORX: case ZYDIS_ISA_SET_XSAVES:
		return true;
	default:
		return false;
	}
}

static bool is_segment(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static bool denied(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *op)
{
	if (denied_mnemonic(i->mnemonic) || denied_category(i))
		return true;
	if (i->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
		return true;
	if (i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return true;
	for (unsigned n = 0; n < i->operand_count; n++)
		if (is_segment(&op[n]) && op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			return true;
	return false;
}

/* --- bytes --- */

static unsigned put_legacy_map(struct gen *g, uint8_t *b)
{
	unsigned n = 0, kind = below(g, 100);

	if (chance(g, 40)) {
		static const uint8_t p[] = {
			0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0x67, 0x2e, 0x3e,
			0x65, 0xf0,
		};
		b[n++] = p[below(g, sizeof(p))];
		if (chance(g, 15))
			b[n++] = p[below(g, sizeof(p))];
	}
	if (chance(g, 50))
		b[n++] = 0x40 | below(g, 16);
	if (kind < 30) {
		b[n++] = below(g, 256);
	} else if (kind < 45) {
		b[n++] = 0xd8 | below(g, 8);
	} else if (kind < 80) {
		b[n++] = 0x0f;
		b[n++] = below(g, 256);
	} else {
		b[n++] = 0x0f;
		b[n++] = chance(g, 70) ? 0x38 : 0x3a;
		b[n++] = below(g, 256);
	}
	return n;
}

static unsigned put_vex_map(struct gen *g, uint8_t *b)
{
	unsigned map = 1 + below(g, 3), n = 0;

	if (map == 1 && chance(g, 40)) {
		b[n++] = 0xc5;
		b[n++] = below(g, 256);
	} else {
		b[n++] = 0xc4;
		b[n++] = (below(g, 8) << 5) | map;
		b[n++] = below(g, 256);
	}
	/* vvvv must be 1111 where it is not an operand */
	if (chance(g, 40))
		b[n - 1] |= 0x78;
	b[n++] = below(g, 256);
	return n;
}

static unsigned put_bytes(struct gen *g, uint8_t b[32])
{
	unsigned n = chance(g, 25) ? put_vex_map(g, b) : put_legacy_map(g, b);
	unsigned end = n + 12;

	while (n < end)
		b[n++] = below(g, 256);
	return n;
}

/* --- aiming --- */

static void append(struct gen *g, const uint8_t *b, unsigned len)
{
	struct gen_insn *i = &g->s->insn[g->s->nr++];

	memset(i, 0, sizeof(*i));
	memcpy(i->byte, b, len);
	i->len = len;
}

/* mov r32, imm32: changes no flag. */
static void set_reg(struct gen *g, unsigned reg, uint32_t val)
{
	uint8_t b[6], n = 0;

	if (reg >= 8)
		b[n++] = 0x41;
	b[n++] = 0xb8 | (reg & 7);
	memcpy(b + n, &val, 4);
	append(g, b, n + 4);
}

static void pin_last(struct gen *g)
{
	g->s->insn[g->s->nr - 1].keep = true;
	g->s->insn[g->s->nr - 1].glued = true;
}

/* For what must be there when the next instruction runs. */
static void pin_reg(struct gen *g, unsigned reg, uint32_t val)
{
	set_reg(g, reg, val);
	pin_last(g);
}

static uint32_t pick_address(struct gen *g, unsigned size)
{
	uint32_t off;

	if (chance(g, 8))
		off = SEQ_DATA_SIZE - below(g, size + 1);	/* the far end */
	else if (chance(g, 12))
		off = SEQ_DATA_SIZE / 2 - below(g, size + 1);	/* pages meet */
	else
		off = below(g, SEQ_DATA_SIZE - 512);
	if (chance(g, 60))
		off &= ~63u;
	else if (chance(g, 50))
		off &= ~15u;
	return SEQ_DATA + off;
}

/* These may or may not have written, or fault, in part: keep them off the edge. */
static bool is_ragged(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o)
{
	if (o->size == 80)
		return true;
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_FBSTP: case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU: case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return true;
	default:
		return false;
	}
}

static int gpr_id(ZydisRegister r)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(r);

	if (c != ZYDIS_REGCLASS_GPR64 && c != ZYDIS_REGCLASS_GPR32)
		return -1;
	return ZydisRegisterGetId(r);
}

static void aim_operand(struct gen *g, const ZydisDecodedInstruction *i,
			const ZydisDecodedOperand *o, uint8_t *b, uint32_t at)
{
	int base = gpr_id(o->mem.base), index = gpr_id(o->mem.index);
	unsigned scale = o->mem.scale ? o->mem.scale : 1;
	int32_t disp = i->raw.disp.size ? i->raw.disp.value : 0;

	/* Zydis 4.0 invents a base here after a 67 prefix and REX.B. */
	if (i->attributes & ZYDIS_ATTRIB_HAS_SIB && i->raw.modrm.mod == 0 &&
	    i->raw.sib.base == 5)
		base = -1;
	if (i->raw.disp.size == 32) {		/* keep it near */
		disp = chance(g, 50) ? (int32_t)below(g, 4096) - 2048 : 0;
		memcpy(b + i->raw.disp.offset, &disp, 4);
	}
	if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
		disp = at - SEQ_CODE - (is_ragged(i, o) ? SEQ_CODE_SIZE / 2 : below(g, SEQ_CODE_SIZE / 2));
		memcpy(b + i->raw.disp.offset, &disp, 4);
		return;
	}
	if (base < 0 && i->raw.disp.size == 32) {
		disp = at;
		memcpy(b + i->raw.disp.offset, &disp, 4);
		if (index >= 0)
			set_reg(g, index, 0);
		return;
	}
	at -= disp;
	if (index >= 0 && index == base) {
		set_reg(g, base, at / (scale + 1));
		return;
	}
	if (index >= 0) {
		uint32_t val = below(g, 64);

		set_reg(g, index, val);
		at -= val * scale;
	}
	if (base >= 0)
		set_reg(g, base, at);
}

/* BT and friends with a register offset reach far beyond their operand. */
static void tame_bit_offset(struct gen *g, const ZydisDecodedInstruction *i,
			    const ZydisDecodedOperand *op)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTS:
		if (op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && chance(g, 90) &&
		    gpr_id(op[1].reg.value) >= 0)
			set_reg(g, gpr_id(op[1].reg.value), below(g, 2048));
		break;
	default:
		break;
	}
}

static void aim(struct gen *g, const ZydisDecodedInstruction *i,
		const ZydisDecodedOperand *op, uint8_t *b)
{
	if (i->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
			     ZYDIS_ATTRIB_HAS_REPNE) && chance(g, 95))
		set_reg(g, 1, below(g, chance(g, 90) ? 40 : 3000));
	for (unsigned n = 0; n < i->operand_count; n++) {
		const ZydisDecodedOperand *o = &op[n];

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    (!is_ragged(i, o) && chance(g, 3)))
			continue;
		if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			continue;	/* base alone decides; see aim_vsib() */
		if (ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
		    o->mem.base) == ZYDIS_REGISTER_RSP &&
		    o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			continue;	/* push and pop: leave the stack be */
		aim_operand(g, i, o, b, is_ragged(i, o) ? SEQ_DATA + below(g, SEQ_DATA_SIZE - 64) :
				pick_address(g, o->size / 8));
	}
	tame_bit_offset(g, i, op);
}

/* Images whose x87 pointers an engine does not reproduce end a sequence; the
 * fields are left out of the comparison. */
static void blind(struct gen *g, unsigned off, unsigned len)
{
	struct gen_seq *s = g->s;

	if (s->nr_blind < ARRAY_LEN(s->blind)) {
		s->blind[s->nr_blind].off = off;
		s->blind[s->nr_blind++].len = len;
	}
}

/* The fields to leave out, for an image at off; false: no image. */
static bool blind_image(struct gen *g, const ZydisDecodedInstruction *i, unsigned off)
{
	unsigned w = i->operand_width == 16 ? 2 : 4;

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE: case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT: case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC: case ZYDIS_MNEMONIC_XSAVEC64:
		blind(g, off + 6, 18);
		blind(g, off + 28, 4);
		blind(g, off + 416, 96);
		return true;
	case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE:
		blind(g, off + 3 * w, w == 2 ? 8 : 14);
		return true;
	case ZYDIS_MNEMONIC_FLDENV: case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_FXRSTOR: case ZYDIS_MNEMONIC_FXRSTOR64:
		return true;
	default:
		return false;
	}
}

/* The instruction that stores what this one loads, as 0F AE or DD with its /digit. */
static void store_first(struct gen *g, const ZydisDecodedInstruction *i, uint32_t at)
{
	uint8_t b[12], n = 0, digit;

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64: digit = 4; break;
	case ZYDIS_MNEMONIC_FXRSTOR: case ZYDIS_MNEMONIC_FXRSTOR64: digit = 0; break;
	case ZYDIS_MNEMONIC_FRSTOR: case ZYDIS_MNEMONIC_FLDENV: digit = 6; break;
	default: return;
	}
	if (digit == 6 && i->operand_width == 16)
		b[n++] = 0x66;
	if (digit == 6) {
		b[n++] = i->mnemonic == ZYDIS_MNEMONIC_FLDENV ? 0xd9 : 0xdd;
	} else {
		b[n++] = 0x48;
		b[n++] = 0x0f;
		b[n++] = 0xae;
	}
	b[n++] = digit << 3 | 4;	/* [disp32] */
	b[n++] = 0x25;
	memcpy(b + n, &at, 4);
	blind(g, at - SEQ_DATA, digit == 6 ? 28 : 32);
	blind(g, at - SEQ_DATA + 416, digit == 6 ? 0 : 96);
	append(g, b, n + 4);
}

/* Which fault wins when only a part of an image is mapped, is the CPU's choice. */
static uint32_t pick_image(struct gen *g, const ZydisDecodedInstruction *i)
{
	uint32_t at = pick_address(g, 1);

	return i->mnemonic == ZYDIS_MNEMONIC_XRSTOR ||
	       i->mnemonic == ZYDIS_MNEMONIC_XRSTOR64 ?
	       MIN(at, SEQ_DATA + SEQ_DATA_SIZE - SEQ_XSAVE) : at;
}

static bool aim_image(struct gen *g, const ZydisDecodedInstruction *i,
		      const ZydisDecodedOperand *o, uint8_t *b)
{
	uint32_t at = pick_image(g, i);

	if (!blind_image(g, i, at - SEQ_DATA))
		return false;
	g->last = true;
	g->s->cr2 = MAX((int)(g->s->cr2), CR2_PAGE);
	pin_reg(g, 0, below(g, 8));
	pin_reg(g, 2, 0);
	if (chance(g, 60) && at <= SEQ_DATA + SEQ_DATA_SIZE - SEQ_XSAVE) {
		store_first(g, i, at);
		pin_last(g);
		pin_reg(g, 0, below(g, 8));
	}
	aim_operand(g, i, o, b, at);
	pin_last(g);
	return true;
}

/* --- one instruction --- */

/* The displacement is the last thing in the instruction and is filled later. */
static void add_branch(struct gen *g, const ZydisDecodedInstruction *i, uint8_t *b)
{
	append(g, b, i->length);
	g->s->insn[g->s->nr - 1].branch = true;
	g->s->insn[g->s->nr - 1].target = below(g, 4);
}

static void before_popf(struct gen *g)
{
	/* any flags but TF, NT, AC and the privileged ones */
	uint32_t val = gen_random(&g->rnd) & 0xcd5;
	uint8_t push[5] = { 0x68 };

	memcpy(push + 1, &val, 4);
	append(g, push, 5);
	pin_last(g);
}

static void add_vsib(struct gen *g, const ZydisDecodedInstruction *i,
		     const ZydisDecodedOperand *o)
{
	int base = gpr_id(o->mem.base);

	/* Indices are whatever the register holds; most elements miss unless
	 * it is clear, so clear it half of the time: vpxor x,x,x. */
	if (base >= 0)
		set_reg(g, base, pick_address(g, 8));
	if (chance(g, 70)) {
		unsigned r = ZydisRegisterGetId(o->mem.index);
		uint8_t b[5] = {
			0xc4, (r < 8 ? 0xe1 : 0x41), ((~r & 15) << 3) | 5, 0xef,
			0xc0 | (r & 7) << 3 | (r & 7),
		};

		append(g, b, 5);
	}
}

/* An image whose address is not known when it is made, or uses the registers that
 * select its components. */
static bool bad_image(struct gen *g, const ZydisDecodedInstruction *i,
		      const ZydisDecodedOperand *o)
{
	int base = gpr_id(o->mem.base), index = gpr_id(o->mem.index);

	if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || !blind_image(g, i, 0))
		return false;
	g->s->nr_blind = 0;
	return o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP ||
	       base == 0 || base == 2 || index == 0 || index == 2 || base == index;
}

static unsigned cr2_of(const ZydisDecodedInstruction *i)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ: case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	/* two operands in memory: which is read first? */
	case ZYDIS_MNEMONIC_CMPSB: case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD: case ZYDIS_MNEMONIC_CMPSQ:
		return CR2_ANY;
	case ZYDIS_MNEMONIC_VMASKMOVPS: case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD: case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return CR2_PAGE;
	default:
		return CR2_EXACT;
	}
}

/*
 * Shifts by more than one leave OF undefined, and it depends on the encoding: LAHF
 * keeps the other flags for the comparison, INC defines OF again.
 */
static void define_of(struct gen *g, const ZydisDecodedInstruction *i)
{
	uint8_t inc[3] = { 0x41, 0xff, 0xc0 | below(g, 8) };

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_ROL: case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR: case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
		if (i->opcode == 0xd0 || i->opcode == 0xd1)
			return;
		break;
	case ZYDIS_MNEMONIC_SHLD: case ZYDIS_MNEMONIC_SHRD:
		break;
	default:
		return;
	}
	if (chance(g, 50))
		append(g, (uint8_t[]){ 0x9f }, 1);
	append(g, inc, 3);
}

/* Nobody jumps past the first of the instructions that make the last one safe. */
static void glue(struct gen *g)
{
	unsigned first = g->s->nr;

	if (g->last)
		for (first = 0; first < g->s->nr && !g->s->insn[first].keep; first++)
			;
	else if (g->s->nr > 1 && g->s->insn[g->s->nr - 2].keep)
		first = g->s->nr - 1;
	for (; first < g->s->nr; first++)
		g->s->insn[first].glued = true;
}

/* Bytes that are no instruction to Zydis had better be none to the CPU. */
static bool add_garbage(struct gen *g, const uint8_t *b)
{
	append(g, b, 15);
	pin_last(g);
	g->last = true;
	return true;
}

static bool add_one(struct gen *g)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction i;
	uint8_t b[32];
	unsigned len = put_bytes(g, b);

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->dec, b, len, &i, op)))
		return chance(g, 2) && add_garbage(g, b);
	if (denied(&i, op) || !g->cfg->offers(&i, g->cfg->arg))
		return false;
	if (bad_image(g, &i, &op[0]))
		return false;
	if (i.raw.imm[0].is_relative) {
		if (i.raw.imm[0].offset + i.raw.imm[0].size / 8 != i.length)
			return false;
		add_branch(g, &i, b);
		return true;
	}
	g->s->cr2 = MAX(g->s->cr2, cr2_of(&i));
	if (i.mnemonic == ZYDIS_MNEMONIC_POPF || i.mnemonic == ZYDIS_MNEMONIC_POPFQ)
		before_popf(g);
	if (op[1].type == ZYDIS_OPERAND_TYPE_MEMORY && i.operand_count > 1 &&
	    op[1].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		add_vsib(g, &i, &op[1]);
	else if (!aim_image(g, &i, &op[0], b))
		aim(g, &i, op, b);
	append(g, b, i.length);
	glue(g);
	define_of(g, &i);
	return true;
}

/* --- state --- */

static uint64_t random_value(struct gen *g)
{
	static const uint64_t edge[] = {
		0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff,
		0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000,
		0xffffffffffffffff, 0x5555555555555555, 0xffffffff80000000,
	};

	switch (below(g, 6)) {
	case 0: return edge[below(g, ARRAY_LEN(edge))];
	case 1: return below(g, 256);
	case 2: return SEQ_DATA + below(g, SEQ_DATA_SIZE);
	case 3: return (uint32_t)gen_random(&g->rnd);
	default: return gen_random(&g->rnd);
	}
}

static uint64_t random_lane(struct gen *g)
{
	static const uint64_t edge[] = {
		0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000,
		0x7ff0000000000000, 0xfff8000000000000, 0x7ff4000000000001,
		1, 0x7fefffffffffffff, 0x4330000000000000, 0x43e0000000000000,
		0x3f8000003f800000, 0x7f8000007fc00001, 0xbf80000000000001,
		0x7fa000014f000000, 0x0010000000000000, 0x4009000040490fdb,
	};

	if (chance(g, 40))
		return edge[below(g, ARRAY_LEN(edge))];
	if (chance(g, 30))	/* an ordinary number near one */
		return 0x3f80000000000000ull + (gen_random(&g->rnd) >> 8);
	return gen_random(&g->rnd);
}

static void random_x87(struct gen *g, uint8_t *x)
{
	uint16_t cw = 0x37f, sw = 0;

	if (chance(g, 50))	/* rounding and precision */
		cw = 0x7f | (below(g, 16) << 8);
	if (chance(g, 10))
		cw = (cw & ~0x3f) | below(g, 64);
	if (chance(g, 50))
		sw = below(g, 8) << 11;
	if (chance(g, 30))
		sw |= gen_random(&g->rnd) & 0x4700;
	memcpy(x, &cw, 2);
	memcpy(x + 2, &sw, 2);
	x[4] = chance(g, 50) ? gen_random(&g->rnd) : chance(g, 50) ? 0xff : 0;
	for (int i = 0; i < 8; i++) {
		uint64_t man = random_lane(g);
		uint16_t exp = chance(g, 60) ? 0x3fc0 + below(g, 128) :
						gen_random(&g->rnd);

		if (chance(g, 80))
			man |= 1ull << 63;
		if (chance(g, 15))
			exp |= 0x7fff;
		memcpy(x + 32 + 16 * i, &man, 8);
		memcpy(x + 32 + 16 * i + 8, &exp, 2);
	}
}

static void random_xsave(struct gen *g, uint8_t *x)
{
	uint32_t mxcsr = 0x1f80;

	memset(x, 0, SEQ_XSAVE);
	random_x87(g, x);
	if (chance(g, 50))
		mxcsr ^= gen_random(&g->rnd) & 0xe07f;	/* flags, DAZ, RC, FZ */
	if (chance(g, 8))
		mxcsr ^= below(g, 64) << 7;		/* unmasked */
	memcpy(x + 24, &mxcsr, 4);
	for (int i = 0; i < 32; i++) {
		uint64_t lo = random_lane(g), hi = random_lane(g);

		memcpy(x + 160 + 8 * i, &lo, 8);
		memcpy(x + 576 + 8 * i, &hi, 8);
	}
	x[512] = 7;
}

static void random_state(struct gen *g, struct seq_in *in)
{
	for (int i = 0; i < 16; i++)
		in->gpr[i] = random_value(g);
	in->gpr[4] = SEQ_DATA + SEQ_DATA_SIZE / 2 + 8 * (int)below(g, 128) - 512;
	in->rflags = 0x202 | (gen_random(&g->rnd) & (chance(g, 80) ? 0x8d5 : 0xcd5));
	random_xsave(g, in->xsave);
	for (unsigned i = 0; i < SEQ_DATA_SIZE; i += 8) {
		uint64_t v = i % 32 ? gen_random(&g->rnd) : random_lane(g);

		memcpy(in->data + i, &v, 8);
	}
}

void gen_make(const struct gen_config *cfg, uint64_t seed, struct gen_seq *s,
	      struct seq_in *in)
{
	struct gen g = { .cfg = cfg, .s = s, .rnd = seed };
	unsigned want;

	memset(s, 0, sizeof(*s));
	s->seed = seed;
	ZydisDecoderInit(&g.dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderEnableMode(&g.dec, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	random_state(&g, in);
	want = 1 + below(&g, MIN(cfg->max_insns, GEN_MAX_INSNS - 10u));
	while (s->nr < want && !g.last)
		add_one(&g);
	/* mostly at an ordinary place, sometimes across the page boundary */
	s->start = chance(&g, 70) ? 64 * below(&g, 32) :
				    SEQ_CODE_SIZE / 2 - below(&g, 16 * s->nr);
}

/* --- assembling and printing --- */

static void fill_branch(const struct gen_seq *s, unsigned n, const unsigned *at,
			uint8_t *code)
{
	const struct gen_insn *i = &s->insn[n];
	unsigned next = n + 1, skip = i->target, end = at[n] + i->len;

	while (next < s->nr && (skip || s->insn[next].drop || s->insn[next].glued)) {
		skip -= skip && !s->insn[next].drop && !s->insn[next].glued;
		next++;
	}
	int32_t disp = (int32_t)(at[next] - end);
	ZydisDecoder dec;
	ZydisDecodedInstruction d;

	ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderDecodeInstruction(&dec, NULL, i->byte, i->len, &d);
	memcpy(code + at[n] + d.raw.imm[0].offset, &disp, d.raw.imm[0].size / 8);
}

void gen_assemble(const struct gen_seq *s, struct seq_in *in)
{
	unsigned at[GEN_MAX_INSNS + 1], pos = s->start;

	memset(in->code, 0xcc, sizeof(in->code));
	for (unsigned n = 0; n < s->nr; n++) {
		at[n] = pos;
		if (s->insn[n].drop)
			continue;
		memcpy(in->code + pos, s->insn[n].byte, s->insn[n].len);
		pos += s->insn[n].len;
	}
	at[s->nr] = pos;
	for (unsigned n = 0; n < s->nr; n++)
		if (s->insn[n].branch && !s->insn[n].drop)
			fill_branch(s, n, at, in->code);
	int32_t disp = SEQ_EXIT - (SEQ_CODE + pos + 5);

	in->code[pos] = 0xe9;
	memcpy(in->code + pos + 1, &disp, 4);
	in->rip = SEQ_CODE + s->start;
}

void gen_print(const struct gen_seq *s, const struct seq_in *in, void *f)
{
	ZydisDisassembledInstruction d;
	unsigned pos = s->start;

	for (unsigned n = 0; n < s->nr; n++) {
		if (s->insn[n].drop)
			continue;
		fprintf(f, "#   %08x  ", SEQ_CODE + pos);
		for (unsigned k = 0; k < 15; k++)
			if (k < s->insn[n].len)
				fprintf(f, "%02x", in->code[pos + k]);
			else
				fprintf(f, "  ");
		if (ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64,
		    SEQ_CODE + pos, in->code + pos, 15, &d)))
			fprintf(f, "  %s", d.text);
		fprintf(f, "\n");
		pos += s->insn[n].len;
	}
}

void gen_count(const struct gen_seq *s, uint32_t hits[ZYDIS_MNEMONIC_MAX_VALUE + 1])
{
	ZydisDecoder dec;
	ZydisDecodedInstruction d;

	ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (unsigned n = 0; n < s->nr; n++)
		if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&dec, NULL,
		    s->insn[n].byte, s->insn[n].len, &d)))
			hits[d.mnemonic]++;
}
