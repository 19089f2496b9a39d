// SPDX-License-Identifier: MIT
/*
 * jit_form.c - how the translator will do an instruction; see jit_form.h.
 *
 * Only what is listed here is copied into host code: an instruction whose kind or
 * operands are not known to be harmless there is the interpreter's.
 */
#include "vmm/soft/jit_form.h"
#include "vmm/soft/ops.h"

static bool is_shift(unsigned mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR: case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR: case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return true;
	default:
		return false;
	}
}

static bool is_prefix(uint8_t b)
{
	switch (b) {
	case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65:
	case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3:
		return true;
	default:
		return (b & 0xf0) == 0x40;	/* REX */
	}
}

/* A shift by zero leaves all flags alone: is the count surely another? */
static bool shifts(const struct insn *i)
{
	unsigned k = 0;

	while (k < i->len && is_prefix(i->raw[k]))
		k++;
	switch (i->raw[k]) {
	case 0xd0: case 0xd1:
		return true;
	case 0xd2: case 0xd3:
		return false;
	case 0x0f:
		if (i->raw[k + 1] & 1)	/* SHLD, SHRD by CL */
			return false;
		break;
	}
	return i->imm & (i->size == 8 ? 63 : 31);
}

/* Flags surely replaced. */
static uint8_t kills(const struct insn *i)
{
	if (i->flags & (INSN_REP | INSN_REPNE) ||
	    (is_shift(i->mnemonic) && !shifts(i)))
		return 0;
	/* undefined, and on some hosts left as they were */
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_DIV: case ZYDIS_MNEMONIC_IDIV:
		return 0;
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTC:
		return FLAG_CF;
	case ZYDIS_MNEMONIC_BSF: case ZYDIS_MNEMONIC_BSR:
		return FLAG_ZF;
	default:
		return i->cc_def;
	}
}

static uint8_t uses(const struct insn *i)
{
	return i->cc_use | (i->cc_def & ~kills(i));
}

static bool is_jcc(const struct insn *i)
{
	return (i->raw[0] & 0xf0) == 0x70 ||
	       (i->raw[0] == 0x0f && (i->raw[1] & 0xf0) == 0x80);
}

uint8_t jit_block_live_in(const struct block *b)
{
	uint8_t live = 0, dead = 0;

	for (unsigned k = 0; k < b->nr && dead != ALL_FLAGS; k++) {
		const struct insn *i = &b->insn[k];

		live |= uses(i) & ~dead;
		if (i->flags & INSN_END || is_jcc(i))
			break;
		dead |= kills(i);
	}
	return live | (ALL_FLAGS & ~dead);
}

static bool hidden_ok(const ZydisDecodedOperand *o)
{
	int id;

	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_FLAGS:
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
		return true;
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		id = ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
			ZYDIS_MACHINE_MODE_LONG_64, o->reg.value));
		return host_of[id] == id;
	default:
		/* status words of the FPU and MXCSR are the guest's own */
		return o->reg.value == ZYDIS_REGISTER_X87STATUS ||
		       o->reg.value == ZYDIS_REGISTER_X87CONTROL ||
		       o->reg.value == ZYDIS_REGISTER_X87TAG ||
		       o->reg.value == ZYDIS_REGISTER_MXCSR;
	}
}

/* Not segment, control and debug registers: never those. */
static bool visible_ok(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8: case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64:
	case ZYDIS_REGCLASS_X87: case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_XMM: case ZYDIS_REGCLASS_YMM:
		return true;
	default:
		return r == ZYDIS_REGISTER_NONE;
	}
}

/* Operands that can be renamed: general, x87 and vector registers, immediates,
 * one plain memory operand. */
static bool operands_ok(struct tinsn *t)
{
	for (unsigned k = 0; k < t->z.operand_count; k++) {
		const ZydisDecodedOperand *o = &t->ops[k];

		if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
			if (!hidden_ok(o))
				return false;
			continue;
		}
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    !visible_ok(o->reg.value))
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || !o->size ||
			    o->size > 256 || t->msize)
				return false;
			t->msize = o->size / 8;
			t->write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		} else if (o->type == ZYDIS_OPERAND_TYPE_POINTER) {
			return false;
		}
	}
	return true;
}

/* BT and its like with a bit string in memory: index in a pinned register. */
static enum form bit_form(const struct tinsn *t)
{
	int r = ZydisRegisterGetId(t->ops[1].reg.value);
	unsigned size = t->ops[0].size;

	if (t->i->flags & INSN_LOCK || (size != 32 && size != 64) || host_of[r] < 0 ||
	    t->i->seg != SLOT_ZERO)
		return F_CALL_OUT;
	return F_BT;
}

bool jit_string_stores(const struct tinsn *t)
{
	uint8_t op = t->z.opcode & ~1;

	return op == 0xa4 || op == 0xaa;	/* MOVS, STOS */
}

bool jit_string_loads(const struct tinsn *t)
{
	uint8_t op = t->z.opcode & ~1;

	return op == 0xa4 || op == 0xac;	/* MOVS, LODS */
}

/* CMPS and SCAS are the interpreter's, and LODS with a pointless prefix. */
static enum form string_form(const struct tinsn *t)
{
	bool rep = t->i->flags & (INSN_REP | INSN_REPNE);

	if (t->i->flags & INSN_ADDR32 || !(jit_string_loads(t) || jit_string_stores(t)) ||
	    (rep && !jit_string_stores(t)))
		return F_CALL_OUT;
	return F_STRING;
}

static enum form copy_form(struct tinsn *t)
{
	switch (t->z.meta.category) {
	case ZYDIS_CATEGORY_BITBYTE:
		/* a register index reaches beyond the operand */
		if (t->i->flags & INSN_MEM && t->z.operand_count > 1 &&
		    t->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    t->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return bit_form(t);
		break;
	case ZYDIS_CATEGORY_STRINGOP:
		return string_form(t);
	case ZYDIS_CATEGORY_BINARY: case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_LOGICAL: case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_ROTATE: case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_SETCC: case ZYDIS_CATEGORY_CONVERT:
	case ZYDIS_CATEGORY_SEMAPHORE: case ZYDIS_CATEGORY_BMI1:
	case ZYDIS_CATEGORY_BMI2: case ZYDIS_CATEGORY_LZCNT:
	case ZYDIS_CATEGORY_SSE: case ZYDIS_CATEGORY_AVX:
	case ZYDIS_CATEGORY_AVX2: case ZYDIS_CATEGORY_VFMA:
	case ZYDIS_CATEGORY_LOGICAL_FP: case ZYDIS_CATEGORY_X87_ALU:
	case ZYDIS_CATEGORY_MMX: case ZYDIS_CATEGORY_AES:
	case ZYDIS_CATEGORY_PCLMULQDQ: case ZYDIS_CATEGORY_SHA:
	case ZYDIS_CATEGORY_FCMOV: case ZYDIS_CATEGORY_BROADCAST:
		break;
	case ZYDIS_CATEGORY_FLAGOP:
		if (t->z.mnemonic != ZYDIS_MNEMONIC_CLC &&
		    t->z.mnemonic != ZYDIS_MNEMONIC_STC &&
		    t->z.mnemonic != ZYDIS_MNEMONIC_CMC)
			return F_CALL_OUT;
		break;
	default:
		return F_CALL_OUT;
	}
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_FLDENV: case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE: case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_LDMXCSR: case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_RDPID: case ZYDIS_MNEMONIC_MOVDIR64B:
		return F_CALL_OUT;
	default:
		return operands_ok(t) ? F_COPY : F_CALL_OUT;
	}
}

static bool plain_push_pop(const struct tinsn *t)
{
	return t->z.operand_width == 64 &&
	       (t->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ||
		(t->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		 ZydisRegisterGetClass(t->ops[0].reg.value) == ZYDIS_REGCLASS_GPR64));
}

/* MOV to and from control and debug registers leaves its block. */
static bool is_system_move(const struct tinsn *t)
{
	for (unsigned k = 0; k < t->z.operand_count_visible; k++) {
		ZydisRegisterClass c = ZydisRegisterGetClass(t->ops[k].reg.value);

		if (t->ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG))
			return true;
	}
	return false;
}

static enum form form_of(struct tinsn *t)
{
	const ZydisDecodedInstruction *z = &t->z;
	bool rel = t->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	bool wide = z->operand_width == 64;
	enum form form;

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
		return F_LEA;
	case ZYDIS_MNEMONIC_PUSH:
		return plain_push_pop(t) || (wide && t->i->flags & INSN_MEM) ?
			F_PUSH : F_CALL_OUT;
	case ZYDIS_MNEMONIC_POP:
		return plain_push_pop(t) ? F_POP : F_CALL_OUT;
	case ZYDIS_MNEMONIC_LEAVE:
		return wide ? F_LEAVE : F_CALL_OUT;
	case ZYDIS_MNEMONIC_NOP: case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_PREFETCHT0: case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2: case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHW:
		return F_NOP;
	case ZYDIS_MNEMONIC_PAUSE:
		return F_PAUSE;
	case ZYDIS_MNEMONIC_PUSHFQ:
		return F_PUSHF;
	case ZYDIS_MNEMONIC_JMP:
		return rel ? F_JMP : z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR && wide ?
			F_JMP_RM : F_INTERP;
	case ZYDIS_MNEMONIC_CALL:
		return rel ? F_CALL : z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR && wide ?
			F_CALL_RM : F_INTERP;
	case ZYDIS_MNEMONIC_RET:
		return z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR && wide ? F_RET : F_INTERP;
	default:
		break;
	}
	if (is_jcc(t->i))
		return F_JCC;
	if (is_system_move(t))
		return jit_sys_move_form(t);
	if (t->i->flags & INSN_END)
		return transfer_of(t->i) ? F_TRANSFER : F_INTERP;
	if (z->meta.category == ZYDIS_CATEGORY_COND_BR)
		return F_INTERP;
	form = jit_sys_form(t);
	return form != F_CALL_OUT ? form : copy_form(t);
}

/* Displacements are added to offsets in the page, in 32 bits. */
static bool rip_out_of_reach(const struct insn *i)
{
	int32_t sum;

	return i->flags & INSN_MEM && i->base == SLOT_RIP &&
	       __builtin_add_overflow(i->disp, (int32_t)PAGE_SIZE, &sum);
}

/* FP instructions run natively only in the mode they were translated for. */
void jit_analyse(const ZydisDecoder *d, struct tinsn *t, bool fp_deny)
{
	const struct insn *i = t->i;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, i->raw, i->len, &t->z, t->ops))) {
		t->form = i->flags & INSN_END ? F_INTERP : F_CALL_OUT;
	} else {
		t->form = form_of(t);
		if (i->flags & INSN_FP && t->form == F_COPY && fp_deny)
			t->form = F_CALL_OUT;
	}
	if (rip_out_of_reach(i))
		t->form = i->flags & INSN_END ? F_INTERP : F_CALL_OUT;
	t->use = uses(i);
	t->kill = kills(i);
	t->def = i->cc_def;
	if (t->form == F_CALL_OUT)
		t->kill = 0;
	else if (t->form == F_INTERP || t->form == F_TRANSFER)
		t->use = ALL_FLAGS;
}
