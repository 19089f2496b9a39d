// SPDX-License-Identifier: MIT
/*
 * recode.c - see recode.h.
 *
 * Not an assembler: opcode, operand order and immediates are copied byte by
 * byte, so what runs is the very encoding the guest chose.  Only the register
 * fields (ModRM.reg, ModRM.rm, opcode bits 2..0, VEX.vvvv with the REX or VEX bits
 * that extend them) and the address (ModRM.mod and rm, SIB, displacement) are
 * written anew.  Redundant prefixes go, which keeps the result within the
 * architectural 15 bytes.  Formats: Intel SDM vol. 2, chapter 2.
 */
#include <errno.h>
#include <stdbool.h>

#include <Zydis/Zydis.h>

#include "base/util.h"
#include "vmm/soft/recode.h"

struct fields {
	int reg, rm, vvvv, op;	/* host registers; -1: as in the original */
	bool rex;		/* needed even when all its bits are 0 */
	bool high;		/* AH to BH occur: no REX may be there */
};

struct out {
	uint8_t *p;
	unsigned n;
};

static void put(struct out *o, uint8_t b)
{
	o->p[o->n++] = b;
}

static bool has_memory(const ZydisDecodedInstruction *z)
{
	return z->attributes & ZYDIS_ATTRIB_HAS_MODRM && z->raw.modrm.mod != 3;
}

/* Notes the host register of one GPR operand where its encoding puts it. */
static int map_operand(const ZydisDecodedOperand *o, const struct recode_map *map,
		       struct fields *f)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(o->reg.value);
	int id = ZydisRegisterGetId(o->reg.value), host;

	if (c < ZYDIS_REGCLASS_GPR8 || c > ZYDIS_REGCLASS_GPR64)
		return 0;
	if (map->rm_slot && o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
		host = 4;
	} else if (c == ZYDIS_REGCLASS_GPR8 && o->reg.value >= ZYDIS_REGISTER_AH &&
	    o->reg.value <= ZYDIS_REGISTER_BH) {
		host = map->gpr[o->reg.value - ZYDIS_REGISTER_AH];
		if (host < 0 || host > 3)
			return -ENOTSUP;
		host += 4;
		f->high = true;
	} else if (c == ZYDIS_REGCLASS_GPR8) {
		/* ids count AL CL DL BL, AH CH DH BH, SPL ..., R8B ... */
		id = o->reg.value <= ZYDIS_REGISTER_BL ? o->reg.value - ZYDIS_REGISTER_AL :
						    o->reg.value - ZYDIS_REGISTER_SPL + 4;
		host = map->gpr[id];
		f->rex |= host >= 4;
	} else {
		host = map->gpr[id];
	}
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		f->reg = host;
		break;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		f->rm = host;
		break;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		f->vvvv = host;
		break;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		f->op = host;
		break;
	default:
		return 0;	/* implied */
	}
	return host < 0 ? -ENOTSUP : 0;
}

static int map_fields(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		      const struct recode_map *map, struct fields *f)
{
	*f = (struct fields){ .reg = -1, .rm = -1, .vvvv = -1, .op = -1 };
	for (unsigned i = 0; i < z->operand_count; i++) {
		int ret = 0;

		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			ret = map_operand(&ops[i], map, f);
		else if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			 ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			ret = -ENOTSUP;
		else if (ops[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
			 ops[i].imm.is_relative)
			ret = -ENOTSUP;
		else if (ops[i].encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
			ret = -ENOTSUP;
		if (ret < 0)
			return ret;
	}
	if (has_memory(z)) {
		if (map->mem_base < 0)
			return -ENOTSUP;
		f->rm = map->mem_base;
	}
	return 0;
}

/* ModRM with what follows it up to the immediate. */
static void put_modrm(struct out *o, const ZydisDecodedInstruction *z,
		      const struct fields *f, const struct recode_map *map)
{
	uint8_t reg = f->reg >= 0 ? f->reg & 7 : z->raw.modrm.reg;
	uint8_t rm = f->rm >= 0 ? f->rm & 7 : z->raw.modrm.rm;
	int32_t d = map->mem_disp;
	uint8_t mod;

	if (!has_memory(z) && !map->rm_slot) {
		put(o, 0xc0 | reg << 3 | rm);
		return;
	}
	mod = d == 0 && rm != 5 ? 0 : d == (int8_t)d ? 1 : 2;
	put(o, mod << 6 | reg << 3 | (map->mem_index >= 0 ? 4 : rm));
	if (map->mem_index >= 0)
		put(o, map->mem_scale << 6 | (map->mem_index & 7) << 3 | rm);
	else if (rm == 4)
		put(o, 0x24);
	if (mod)
		put(o, d);
	for (int i = 1; mod == 2 && i < 4; i++)
		put(o, (uint32_t)d >> 8 * i);
}

/* From ModRM (or the end of the opcode) on. */
static void put_rest(struct out *o, const ZydisDecodedInstruction *z,
		     const struct fields *f, const struct recode_map *map,
		     const uint8_t *raw, unsigned tail)
{
	if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		tail = z->raw.modrm.offset + 1 + z->raw.disp.size / 8 +
		       !!(z->attributes & ZYDIS_ATTRIB_HAS_SIB);
		put_modrm(o, z, f, map);
	}
	while (tail < z->length)
		put(o, raw[tail++]);
}

/* REX.R or VEX.R and so on: from the mapped register, else the original. */
static bool ext(int host, bool original)
{
	return host >= 0 ? host > 7 : original;
}

static int recode_vex(const ZydisDecodedInstruction *z, const struct fields *f,
		      const struct recode_map *map, const uint8_t *raw, struct out *o)
{
	const uint8_t *v = raw + z->raw.vex.offset;
	bool three = v[0] == 0xc4;
	uint8_t p0 = v[1], p1 = three ? v[2] : v[1] & 0x7f, op = three ? 3 : 2;
	bool r = ext(f->reg, !(p0 & 0x80)), b = ext(f->rm, three && !(p0 & 0x20));
	bool x = has_memory(z) ? map->mem_index > 7 : f->rm < 0 && three && !(p0 & 0x40);
	uint8_t map_nr = three ? p0 & 0x1f : 1;

	if (f->vvvv >= 0)
		p1 = (p1 & 0x87) | (~f->vvvv & 15) << 3;
	if (x || b || map_nr != 1 || p1 & 0x80) {
		put(o, 0xc4);
		put(o, !r << 7 | !x << 6 | !b << 5 | map_nr);
		put(o, p1);
	} else {
		put(o, 0xc5);
		put(o, !r << 7 | p1);
	}
	put(o, v[op]);
	put_rest(o, z, f, map, raw, z->raw.vex.offset + op + 1);
	return o->n;
}

static void put_prefixes(struct out *o, const uint8_t *raw, unsigned n)
{
	uint8_t rep = 0;
	bool lock = false, size = false;

	for (unsigned i = 0; i < n; i++) {
		lock |= raw[i] == 0xf0;
		size |= raw[i] == 0x66;
		if (raw[i] == 0xf2 || raw[i] == 0xf3)
			rep = raw[i];
	}
	if (lock)
		put(o, 0xf0);
	if (size)
		put(o, 0x66);
	if (rep)
		put(o, rep);
}

static int recode_legacy(const ZydisDecodedInstruction *z, const struct fields *f,
			 const struct recode_map *map, const uint8_t *raw,
			 struct out *o)
{
	bool had = z->attributes & ZYDIS_ATTRIB_HAS_REX;
	const ZydisDecodedInstructionRawRex *r = &z->raw.rex;
	int low = f->op >= 0 ? f->op : f->rm;
	uint8_t rex = 0;
	unsigned i = z->raw.prefix_count;

	put_prefixes(o, raw, i);
	if (had)
		rex = r->W << 3;
	rex |= ext(f->reg, had && r->R) << 2 | ext(low, had && r->B);
	if (has_memory(z))
		rex |= (map->mem_index > 7) << 1;
	else if (low < 0)
		rex |= (had && r->X) << 1;
	if (rex || f->rex) {
		if (f->high)
			return -ENOTSUP;
		put(o, 0x40 | rex);
	}
	if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		put(o, raw[i++]);
	if (z->opcode_map == ZYDIS_OPCODE_MAP_0F38 ||
	    z->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
		put(o, raw[i++]);
	put(o, f->op >= 0 ? (raw[i] & ~7) | (f->op & 7) : raw[i]);
	put_rest(o, z, f, map, raw, i + 1);
	return o->n;
}

int insn_recode(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		const uint8_t *raw, const struct recode_map *map,
		uint8_t out[RECODE_MAX])
{
	struct out o = { .p = out };
	struct fields f;
	int ret = map_fields(z, ops, map, &f);

	if (ret < 0)
		return ret;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return recode_vex(z, &f, map, raw, &o);
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return recode_legacy(z, &f, map, raw, &o);
	return -ENOTSUP;
}
