// SPDX-License-Identifier: MIT
/*
 * decode.c - from bytes to struct insn, by Zydis and the tables of ops.
 *
 * Zydis says what the instruction is and what its operands are; here that is
 * packed for the handlers: register operands as byte offsets into gpr[], one
 * memory operand, one immediate.  fp.c is asked first for instructions that
 * touch x87 or vector registers.  What nobody handles gets #UD.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/decode.h"
#include "vmm/soft/fp.h"
#include "vmm/soft/ops.h"

static const struct op *const all_ops[] = {
	ops_alu, ops_shift, ops_bit, ops_mul, ops_mov, ops_branch, ops_string,
	ops_stack, ops_sys, ops_seg, ops_misc, ops_io,
};

HANDLER(undefined)
{
	cpu_ud(cpu);
}

HANDLER(too_long)
{
	cpu_gp(cpu);
}

void decoder_init(struct decoder *d)
{
	ZydisDecoderInit(&d->zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	/* no-operations of reserved encodings on a CPU without them */
	ZydisDecoderEnableMode(&d->zydis, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&d->zydis, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	for (unsigned t = 0; t < ARRAY_LEN(all_ops); t++)
		for (const struct op *op = all_ops[t]; op->mnemonic; op++)
			d->by_mnemonic[op->mnemonic] = op;
}

/* AL..BL are bytes 0 of registers 0..3, AH..BH bytes 1 of them, then SPL... */
static unsigned slot8(ZydisRegister r)
{
	unsigned n = r - ZYDIS_REGISTER_AL;

	if (n < 4)
		return n * 8;
	return n < 8 ? (n - 4) * 8 + 1 : (n - 4) * 8;
}

/* -1: not a general register */
static int reg_slot(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15B)
		return slot8(r);
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return (r - ZYDIS_REGISTER_AX) * 8;
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return (r - ZYDIS_REGISTER_EAX) * 8;
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return (r - ZYDIS_REGISTER_RAX) * 8;
	return -1;
}

static unsigned address_slot(ZydisRegister r)
{
	int slot = reg_slot(r);

	if (slot >= 0)
		return slot;
	if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
		return SLOT_RIP;
	return SLOT_ZERO;
}

static void set_memory(struct insn *i, const ZydisDecodedInstruction *z,
		       const ZydisDecodedOperand *op)
{
	int64_t disp = op->mem.disp.value;

	i->flags |= INSN_MEM;
	i->base = address_slot(op->mem.base);
	i->index = address_slot(op->mem.index);
	i->scale = op->mem.scale > 1 ? __builtin_ctz(op->mem.scale) : 0;
	/* Zydis 4.0 invents a base here after a 67 prefix and REX.B. */
	if (z->attributes & ZYDIS_ATTRIB_HAS_SIB && z->raw.modrm.mod == 0 &&
	    z->raw.sib.base == 5) {
		i->base = SLOT_ZERO;
		disp = z->raw.disp.value;
	}
	if (i->base == SLOT_RIP)
		disp += z->length;
	i->disp = disp;
	if (disp != i->disp) {	/* MOV with a 64-bit address alone has that */
		i->imm = disp;
		i->aux = OP_MOFFS;
	}
}

static void set_prefixes(struct insn *i, const ZydisDecodedInstruction *z)
{
	i->base = i->index = i->seg = SLOT_ZERO;
	if (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
		i->seg = SLOT_FS;
	if (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
		i->seg = SLOT_GS;
	if (z->address_width == 32)
		i->flags |= INSN_ADDR32;
	if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		i->flags |= INSN_LOCK;
	if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		i->flags |= INSN_REP;
	if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
		i->flags |= INSN_REPNE;
}

/* EFLAGS bits to the byte LAHF gives, with OF in the unused bit 1. */
static uint8_t pack_flags(uint32_t f)
{
	return (f & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) | (f & FL_OF ? 2 : 0);
}

static void set_flag_info(struct insn *i, const ZydisDecodedInstruction *z)
{
	const ZydisAccessedFlags *f = z->cpu_flags;

	if (!f)
		return;
	i->cc_use = pack_flags(f->tested);
	i->cc_def = pack_flags(f->modified | f->set_0 | f->set_1 | f->undefined);
}

static char operand_kind(const ZydisDecodedOperand *op)
{
	switch (op->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		return reg_slot(op->reg.value) >= 0 ? 'R' : 'O';
	case ZYDIS_OPERAND_TYPE_MEMORY:
		return 'M';
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		return 'I';
	default:
		return 'O';
	}
}

static enum op_form form_of(const ZydisDecodedOperand *ops, unsigned n)
{
	char a = n > 0 ? operand_kind(&ops[0]) : 0;
	char b = n > 1 ? operand_kind(&ops[1]) : 0;

	if (!a)
		return FORM_NONE;
	if (!b)
		return a == 'R' ? FORM_R : a == 'M' ? FORM_M :
		       a == 'I' ? FORM_I : FORM_OTHER;
	if (a == 'R')
		return b == 'R' ? FORM_RR : b == 'M' ? FORM_RM :
		       b == 'I' ? FORM_RI : FORM_OTHER;
	if (a == 'M')
		return b == 'R' ? FORM_MR : b == 'I' ? FORM_MI : FORM_OTHER;
	return FORM_OTHER;
}

/* The middle operand is the one that is never memory. */
static bool middle_is_extra(unsigned mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_ANDN || mnemonic == ZYDIS_MNEMONIC_PDEP ||
	       mnemonic == ZYDIS_MNEMONIC_PEXT || mnemonic == ZYDIS_MNEMONIC_MULX;
}

static enum op_form set_third(struct insn *i, const ZydisDecodedOperand *ops,
			      enum op_form form)
{
	int third = ops[2].type == ZYDIS_OPERAND_TYPE_REGISTER ?
		    reg_slot(ops[2].reg.value) : -1;

	if (middle_is_extra(i->mnemonic)) {
		i->aux = i->rs;
		i->rs = third >= 0 ? third : 0;
		return third >= 0 ? FORM_RR : FORM_RM;
	}
	if (i->mnemonic == ZYDIS_MNEMONIC_SHLD || i->mnemonic == ZYDIS_MNEMONIC_SHRD) {
		if (third >= 0)
			i->imm = 0x100;	/* by CL */
	} else if (third >= 0) {
		i->aux = third;
	}
	return form;
}

static enum op_form set_operands(struct insn *i, const ZydisDecodedInstruction *z,
				 const ZydisDecodedOperand *ops, unsigned n)
{
	enum op_form form = form_of(ops, n);
	bool imm = false;

	i->aux = form == FORM_I ? 0 : n;	/* a direct branch's link */
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		i->aux = OP_FAR;
	i->size = z->operand_width / 8;
	if (n && (ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY || operand_kind(&ops[0]) == 'R'))
		i->size = ops[0].size / 8;
	for (unsigned k = 0; k < n && k < 3; k++) {
		int slot = ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER ?
			   reg_slot(ops[k].reg.value) : -1;

		if (slot >= 0 && k == 0)
			i->rd = slot;
		else if (slot >= 0 && k == 1)
			i->rs = slot;
		if (ops[k].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			i->imm = ops[k].imm.value.u;
			imm = true;
		}
	}
	if (!imm && n > 1)
		i->imm = ops[1].size / 8;
	for (unsigned k = 0; k < n && k < 3; k++)
		if (ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
			set_memory(i, z, &ops[k]);
	if (n > 2)
		form = set_third(i, ops, form);
	/* BT with a register operand only: rd is also the source of one-operand forms */
	if (n == 1)
		i->rs = i->rd;
	return form;
}

static unsigned log2_size(unsigned size)
{
	return size ? __builtin_ctz(size) & 3 : 0;
}

static insn_fn *pick(const struct op *op, struct insn *i, enum op_form form)
{
	if (op->any)
		return op->any;
	if (op->choose)
		return op->choose(i, form);
	return op->form[form][log2_size(i->size)];
}

static void set_handler(struct decoder *d, struct insn *i, enum op_form form)
{
	const struct op *op = d->by_mnemonic[i->mnemonic];
	insn_fn *fn = op ? pick(op, i, form) : NULL;

	if (!fn) {
		i->fn = undefined;
		i->flags |= INSN_END;
		return;
	}
	i->fn = fn;
	i->flags |= op->flags & INSN_END;
}

static int bad_bytes(struct insn *i, const uint8_t *p, unsigned n, ZyanStatus st)
{
	if (st == ZYDIS_STATUS_NO_MORE_DATA && n < 15)
		return -1;
	/* as long as what was looked at, so that a write to any of it is noticed */
	*i = (struct insn){ .fn = undefined, .len = n, .flags = INSN_END };
	if (n >= 15 && (st == ZYDIS_STATUS_NO_MORE_DATA ||
			st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG))
		i->fn = too_long;
	for (unsigned k = 0; k < n && k < sizeof(i->raw); k++)
		i->raw[k] = p[k];
	return 0;
}

/* Where displacement and immediate value are, if they are what i says they are. */
static void remember(struct decoder *d, const struct insn *i,
		     const ZydisDecodedInstruction *z)
{
	struct memo_field disp = { .off = z->raw.disp.offset, .is_signed = true,
				   .len = z->raw.disp.size / 8 };
	struct memo_field imm = { .off = z->raw.imm[0].offset,
				  .len = z->raw.imm[0].size / 8,
				  .is_signed = z->raw.imm[0].is_signed };

	if (disp.len > 4 || !(i->flags & INSN_MEM) || i->aux == OP_MOFFS)
		disp.len = 0;
	/* In vector instructions it may be part of the opcode, or in a stub. */
	if (z->raw.imm[1].size || i->imm != z->raw.imm[0].value.u)
		imm.len = 0;
	if (i->flags & INSN_FP)
		disp.len = imm.len = 0;
	memo_put(&d->memo, i, disp, imm);
}

int insn_decode(struct soft_cpu *cpu, struct insn *i, const uint8_t *p, unsigned n)
{
	struct decoder *d = cpu_decoder(cpu);
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecoderContext ctx;
	ZyanStatus st;

	if (n >= 15 && memo_get(&d->memo, i, p))
		return 0;
	st = ZydisDecoderDecodeInstruction(&d->zydis, &ctx, p, n, &z);
	if (ZYAN_SUCCESS(st))
		st = ZydisDecoderDecodeOperands(&d->zydis, &ctx, &z, ops, z.operand_count);
	if (!ZYAN_SUCCESS(st))
		return bad_bytes(i, p, n, st);
	*i = (struct insn){ .mnemonic = z.mnemonic, .len = z.length };
	for (unsigned k = 0; k < z.length; k++)
		i->raw[k] = p[k];
	set_prefixes(i, &z);
	set_flag_info(i, &z);
	enum op_form form = set_operands(i, &z, ops, z.operand_count_visible);

	if (fp_decode(cpu, &z, ops, i))
		i->flags |= INSN_FP;
	else
		set_handler(d, i, form);
	if (i->fn != fp_full)
		remember(d, i, &z);
	return 0;
}

/*
 * Is the address this instruction failed at relative to the stack segment?  It
 * matters for the choice between #GP and #SS alone, so it is found out late.
 */
bool insn_uses_stack(struct soft_cpu *cpu, const uint8_t *p, unsigned n, bool write)
{
	uint8_t what = write ? ZYDIS_OPERAND_ACTION_MASK_WRITE : ZYDIS_OPERAND_ACTION_MASK_READ;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	bool stack = false, other = false;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&cpu_decoder(cpu)->zydis, p, n, &z, ops)))
		return false;
	if (z.mnemonic == ZYDIS_MNEMONIC_ENTER)	/* its reads through rbp are not listed */
		return true;
	for (unsigned k = 0; k < z.operand_count; k++) {
		if (ops[k].type != ZYDIS_OPERAND_TYPE_MEMORY || !(ops[k].actions & what))
			continue;
		if (ops[k].mem.segment == ZYDIS_REGISTER_SS)
			stack = true;
		else
			other = true;
	}
	return stack && !other;
}
