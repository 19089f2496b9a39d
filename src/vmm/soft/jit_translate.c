// SPDX-License-Identifier: MIT
/*
 * jit_translate.c - one guest block into host code.
 *
 * Registers.  A guest register lives in the host register of the same number,
 * except rsp (host r9) and r9, r10, r11, the ones compilers use least, which stay
 * in struct soft_cpu.  Host r10 and r11 are scratch, host rsp points at the
 * struct.  Instructions are copied with their registers renamed and their memory
 * operand replaced by [r10], the host address (recode.c).
 *
 * Memory.  Address into r10; r11 = its TLB entry; r10 ^= tag gives the offset in
 * the page on a hit and something large on a miss, so that one unsigned compare
 * with (page size - operand size) catches misses and page crossings; adding the
 * entry's host page gives the host address.  Anything but a hit interprets that
 * one instruction and comes back behind it.
 *
 * Flags.  The guest's are in the host's (HOST), in cpu->cc (CC) or in both.  The
 * TLB check destroys the host's, so flags that are live across it are saved first,
 * and loaded again when an instruction wants them.  A block has two entries, one
 * for each place its predecessor left them in; the one that does not fit what the
 * body expects converts and falls through.  At the end of a block all flags count
 * as live, unless the successor is in the same page and sets them before use.
 *
 * Addresses.  Nothing in host code holds a guest virtual address: rip is the page
 * being executed (scratch[JIT_PAGE_VA]) plus a constant, so that one translation
 * serves every process that maps the page.
 *
 * A fault sees precise registers and memory.  Arithmetic flags in the pushed RFLAGS
 * may be stale when the block sets them again before any use: nothing that
 * returns to the instruction can tell.
 */
#include <errno.h>

#include <Zydis/Zydis.h>

#include "vmm/soft/jit_emit.h"
#include "vmm/soft/recode.h"

#define ALL_FLAGS 0xd7u		/* LAHF's order, OF in bit 1 */
#define FLAG_CF	  0x01u
#define FLAG_ZF	  0x40u
#define MAX_INSNS 72		/* above what block.c makes */

/* Where the guest's arithmetic flags are. */
enum { IN_HOST = 1, IN_CC = 2 };

enum form {
	F_COPY,			/* recode.c does it */
	F_LEA, F_PUSH, F_POP, F_LEAVE, F_NOP, F_PAUSE, F_PUSHF, F_CLI, F_STI, F_BT,
	F_CALL_OUT,		/* the interpreter does it */
	F_JCC,
	/* these end the block */
	F_JMP, F_CALL, F_RET, F_JMP_RM, F_CALL_RM,
	F_INTERP,		/* ends translation: the interpreter goes on */
	F_FALL,			/* the block ends without a branch */
};

struct tinsn {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	const struct insn *i;
	enum form form;
	int off;		/* from the start of the page */
	uint8_t use, kill;	/* flags read; flags surely replaced */
	bool def;		/* some flags change */
	uint8_t before, after;	/* flags live */
	bool write;		/* memory operand is written */
	uint8_t msize;		/* its bytes; 0: none */
};

/* Code that lies behind the block's own. */
struct tail {
	enum { TAIL_SLOW, TAIL_EXIT } kind;
	uint8_t *site;		/* rel32 that leads here */
	unsigned k;		/* instruction */
	const uint8_t *resume;	/* SLOW: rw address to go on at */
	int where;		/* flags at site */
	bool live;		/* SLOW without a site: are they wanted */
	uint32_t fault;		/* its record, or NO_FAULT */
};
#define NO_FAULT UINT32_MAX

struct tr {
	struct emit e;
	struct jit *j;
	struct soft_cpu *cpu;
	struct block *b;
	struct tinsn *t;	/* MAX_INSNS */
	unsigned n;
	int where;		/* IN_HOST | IN_CC at this point */
	struct tail tail[2 * MAX_INSNS + 8];
	unsigned nr_tails;
	int page_off;		/* of the block in its page */
};

static const int8_t host_of[16] = {
	H_RAX, H_RCX, H_RDX, H_RBX, H_R9, H_RBP, H_RSI, H_RDI,
	H_R8, -1, -1, -1, H_R12, H_R13, H_R14, H_R15,
};

#define HOST_GUEST_RSP H_R9

/* --- what an instruction is ------------------------------------------------- */

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

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
		return F_LEA;
	case ZYDIS_MNEMONIC_PUSH:
		return plain_push_pop(t) ? F_PUSH : F_CALL_OUT;
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
	case ZYDIS_MNEMONIC_CLI:
		return F_CLI;
	case ZYDIS_MNEMONIC_STI:
		/* as the last of its block its shadow is the run loop's */
		return t->i[1].mnemonic ? F_STI : F_INTERP;
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
	if (t->i->flags & INSN_END || z->meta.category == ZYDIS_CATEGORY_COND_BR ||
	    is_system_move(t))
		return F_INTERP;
	return copy_form(t);
}

/* FP instructions run natively only in the mode they were translated for. */
static void analyse(struct tr *tr, const ZydisDecoder *d, struct tinsn *t)
{
	const struct insn *i = t->i;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, i->raw, i->len, &t->z, t->ops))) {
		t->form = i->flags & INSN_END ? F_INTERP : F_CALL_OUT;
	} else {
		t->form = form_of(t);
		if (i->flags & INSN_FP && t->form == F_COPY && tr->j->fp_deny)
			t->form = F_CALL_OUT;
	}
	t->use = uses(i);
	t->kill = kills(i);
	t->def = i->cc_def;
	if (t->form == F_CALL_OUT)
		t->kill = 0;
	else if (t->form == F_INTERP)
		t->use = ALL_FLAGS;
}

/* --- pieces ------------------------------------------------------------------ */

static void want_cc(struct tr *tr, uint8_t live)
{
	if (live && !(tr->where & IN_CC)) {
		e_flags_save(&tr->e);
		tr->where |= IN_CC;
	}
}

/* The host's flags are about to be destroyed. */
static void clobber(struct tr *tr)
{
	tr->where = IN_CC;
}

static void want_host(struct tr *tr)
{
	if (!(tr->where & IN_HOST)) {
		e_flags_load(&tr->e);
		tr->where |= IN_HOST;
	}
}

static void add_tail(struct tr *tr, struct tail t)
{
	tr->tail[tr->nr_tails++] = t;
}

/* Host register that holds guest register r; loads a spilled one into tmp. */
static int guest_reg(struct tr *tr, int r, int tmp)
{
	if (host_of[r] >= 0)
		return host_of[r];
	e_ld(&tr->e, tmp, OFF_GPR(r));
	return tmp;
}

/* The memory operand's linear address, into dst; uses H_S2. */
static void emit_ea(struct tr *tr, const struct tinsn *t, int dst, bool w)
{
	const struct insn *i = t->i;
	int base = -1, index = -1;
	int32_t disp = i->disp;

	if (i->flags & INSN_ADDR32)
		w = false;
	if (i->base == SLOT_RIP) {
		e_ld(&tr->e, H_S1, OFF(scratch[JIT_PAGE_VA]));
		base = H_S1;
		disp += t->off;
	} else if (i->base != SLOT_ZERO) {
		base = guest_reg(tr, i->base / 8, H_S1);
	}
	if (i->index != SLOT_ZERO)
		index = guest_reg(tr, i->index / 8, H_S2);
	if (base >= 0 && index < 0 && !disp)
		e_rr(&tr->e, w, 0x89, dst, base);
	else
		e_lea(&tr->e, w, dst, base, index, i->scale, disp);
}

/* H_S1: guest virtual address -> host address.  Destroys flags and H_S2. */
static uint8_t *emit_tlb(struct tr *tr, bool write, unsigned size)
{
	struct emit *e = &tr->e;
	uint8_t *site;

	e_rr(e, false, 0x89, H_S2, H_S1);
	e_shift_imm(e, false, 5, H_S2, PAGE_SHIFT - 5);
	e_imm(e, false, 4, H_S2, (TLB_SIZE - 1) << 5);
	e_rsp(e, true, 0x03, H_S2, OFF(tlb));
	e_mem(e, true, 0x33, H_S1, H_S2, write ? offsetof(struct tlb_entry, wtag)
					       : offsetof(struct tlb_entry, rtag));
	e_imm(e, true, 7, H_S1, PAGE_SIZE - size);
	site = e_jump(e, 7);			/* ja */
	e_mem(e, true, 0x03, H_S1, H_S2, offsetof(struct tlb_entry, host));
	return site;
}
_Static_assert(sizeof(struct tlb_entry) == 32, "index arithmetic above");

/* A check whose miss interprets instruction k; returns its tail's index. */
static unsigned access(struct tr *tr, unsigned k, bool write, unsigned size)
{
	clobber(tr);
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT,
				    .site = emit_tlb(tr, write, size) });
	return tr->nr_tails - 1;
}

/* The host instruction to come may fault; its stub is known with the tail. */
static void note_fault(struct tr *tr, unsigned tail)
{
	struct jit *j = tr->j;

	tr->tail[tail].fault = j->nr_fault;
	j->fault[j->nr_fault++].code = (uint32_t)(tr->e.p - j->rw);
}

/* --- instructions ------------------------------------------------------------ */

/* Spilled registers an instruction names: bit per register. */
static unsigned spilled(const struct tinsn *t, unsigned *written)
{
	unsigned set = 0;

	*written = 0;
	for (unsigned k = 0; k < t->z.operand_count; k++) {
		const ZydisDecodedOperand *o = &t->ops[k];
		int id;

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    ZydisRegisterGetClass(o->reg.value) < ZYDIS_REGCLASS_GPR8 ||
		    ZydisRegisterGetClass(o->reg.value) > ZYDIS_REGCLASS_GPR64)
			continue;
		id = ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
			ZYDIS_MACHINE_MODE_LONG_64, o->reg.value));
		if (host_of[id] >= 0)
			continue;
		set |= 1u << id;
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			*written |= 1u << id;
	}
	return set;
}

/* Fills the map; false when there are more spilled registers than scratch ones. */
static bool rename(const struct tinsn *t, struct recode_map *map, unsigned set)
{
	int8_t free[2] = { H_S2, t->msize ? -1 : H_S1 };
	unsigned n = 0;

	for (int r = 0; r < 16; r++) {
		map->gpr[r] = host_of[r];
		if (set & 1u << r) {
			if (n == 2 || free[n] < 0)
				return false;
			map->gpr[r] = free[n++];
		}
	}
	map->mem_base = t->msize ? H_S1 : -1;
	map->mem_disp = 0;
	return true;
}

static void call_out(struct tr *tr, unsigned k)
{
	struct jit *j = tr->j;
	const struct tinsn *t = &tr->t[k];
	uint32_t id = jit_meta_new(j, META_SLOW);

	want_cc(tr, t->before);
	e_movi(&tr->e, H_S2, id);
	e_patch(e_jump(&tr->e, -1), j->slow + (j->rw - j->rx));
	j->meta[id].i = t->i;
	j->meta[id].off = t->off;
	j->meta[id].resume = j->rx + (tr->e.p - j->rw);
	tr->where = IN_HOST | IN_CC;
}

static bool may_fault(const struct tinsn *t)
{
	return t->msize || t->i->flags & INSN_FP ||
	       t->z.mnemonic == ZYDIS_MNEMONIC_DIV ||
	       t->z.mnemonic == ZYDIS_MNEMONIC_IDIV;
}

static void copy(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	unsigned written, set = spilled(t, &written), tail = 0;
	bool host_flags = t->use || (t->def && t->after & ~t->kill);
	struct recode_map map;
	uint8_t out[RECODE_MAX];
	int len;

	if (!rename(t, &map, set) ||
	    (len = insn_recode(&t->z, t->ops, t->i->raw, &map, out)) < 0) {
		call_out(tr, k);
		return;
	}
	if (t->msize) {
		want_cc(tr, t->before);
		emit_ea(tr, t, H_S1, true);
		if (t->i->seg != SLOT_ZERO)
			e_rsp(&tr->e, true, 0x03, H_S1,
			      t->i->seg == SLOT_FS ? OFF(fs_base) : OFF(gs_base));
		tail = access(tr, k, t->write, t->msize);
	} else if (may_fault(t)) {
		add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k,
					    .where = tr->where, .live = t->before,
					    .fault = NO_FAULT });
		tail = tr->nr_tails - 1;
	}
	if (host_flags)
		want_host(tr);
	for (int r = 9; r <= 11; r++)
		if (set & 1u << r)
			e_ld(&tr->e, map.gpr[r], OFF_GPR(r));
	if (may_fault(t))
		note_fault(tr, tail);
	memcpy(tr->e.p, out, len);
	tr->e.p += len;
	for (int r = 9; r <= 11; r++)
		if (written & 1u << r)
			e_st(&tr->e, OFF_GPR(r), map.gpr[r]);
	if (t->def)
		tr->where = IN_HOST;
	if (may_fault(t))
		tr->tail[tail].resume = tr->e.p;
}

static void lea(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int rd = t->i->rd / 8, dst = host_of[rd];
	unsigned width = t->z.operand_width;

	if (width == 16 || t->i->flags & INSN_ADDR32) {
		emit_ea(tr, t, H_S1, true);
		if (width != 16) {
			dst = dst < 0 ? H_S1 : dst;
			e_rr(&tr->e, width == 64, 0x89, dst, H_S1);
			if (host_of[rd] < 0)
				e_st(&tr->e, OFF_GPR(rd), dst);
			return;
		}
		e8(&tr->e, 0x66);
		if (dst >= 0)
			e_rr(&tr->e, false, 0x89, dst, H_S1);
		else
			e_rsp(&tr->e, false, 0x89, H_S1, OFF_GPR(rd));
		return;
	}
	emit_ea(tr, t, dst < 0 ? H_S1 : dst, width == 64);
	if (dst < 0)
		e_st(&tr->e, OFF_GPR(rd), H_S1);
}

static void push(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	bool imm = t->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	int src;
	unsigned tail;

	want_cc(tr, t->before);
	e_lea(&tr->e, true, H_S1, HOST_GUEST_RSP, -1, 0, -8);
	tail = access(tr, k, true, 8);
	if (imm) {
		e_mem(&tr->e, true, 0xc7, 0, H_S1, 0);
		e32(&tr->e, t->ops[0].imm.value.s);
	} else {
		src = guest_reg(tr, ZydisRegisterGetId(t->ops[0].reg.value), H_S2);
		e_mem(&tr->e, true, 0x89, src, H_S1, 0);
	}
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
	tr->tail[tail].resume = tr->e.p;
}

static void pop(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int r = ZydisRegisterGetId(t->ops[0].reg.value);
	int dst = host_of[r] < 0 ? H_S2 : host_of[r];
	unsigned tail;

	want_cc(tr, t->before);
	e_mov(&tr->e, H_S1, HOST_GUEST_RSP);
	tail = access(tr, k, false, 8);
	if (r != X86_RSP)
		e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8);
	e_mem(&tr->e, true, 0x8b, dst, H_S1, 0);
	if (host_of[r] < 0)
		e_st(&tr->e, OFF_GPR(r), dst);
	tr->tail[tail].resume = tr->e.p;
}

static void leave(struct tr *tr, unsigned k)
{
	unsigned tail;

	want_cc(tr, tr->t[k].before);
	e_mov(&tr->e, H_S1, H_RBP);
	tail = access(tr, k, false, 8);
	e_lea(&tr->e, true, HOST_GUEST_RSP, H_RBP, -1, 0, 8);
	e_mem(&tr->e, true, 0x8b, H_RBP, H_S1, 0);
	tr->tail[tail].resume = tr->e.p;
}

/* RFLAGS from its two parts, without RF. */
static void pushf(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;
	unsigned tail;

	want_cc(tr, ALL_FLAGS);
	e_lea(e, true, H_S1, HOST_GUEST_RSP, -1, 0, -8);
	tail = access(tr, k, true, 8);
	e_ld32(e, H_S2, OFF(rflags));
	e_imm(e, false, 4, H_S2, ~(int)FL_RF);
	e_mem(e, true, 0x89, H_S2, H_S1, 0);
	e_movzx8(e, H_S2, OFF(cc) + 1);
	e_imm(e, false, 4, H_S2, FL_CC & 0xff);
	e_mem(e, false, 0x09, H_S2, H_S1, 0);		/* or [r10], r11d */
	e_movzx8(e, H_S2, OFF(cc));
	e_shift_imm(e, false, 4, H_S2, 11);
	e_mem(e, false, 0x09, H_S2, H_S1, 0);
	e_lea(e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
	tr->tail[tail].resume = e->p;
}

/* A byte of the CPU that must be zero, or the interpreter does it. */
static void unless_zero(struct tr *tr, unsigned k, int off)
{
	e_rsp(&tr->e, false, 0x80, 7, off);	/* cmp byte */
	e8(&tr->e, 0);
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT, .site = e_jump(&tr->e, 5) });
}

/* Kernel code, as CPL 0 always may; STI only with no interrupt waiting. */
static void set_if(struct tr *tr, unsigned k, bool on)
{
	struct emit *e = &tr->e;
	unsigned first = tr->nr_tails;

	want_cc(tr, tr->t[k].before);
	clobber(tr);
	unless_zero(tr, k, OFF(cpl));
	if (on)
		unless_zero(tr, k, OFF(irq_latched));
	e_rsp(e, false, 0x81, on ? 1 : 4, OFF(rflags));	/* or, and */
	e32(e, on ? FL_IF : ~FL_IF);
	for (unsigned n = first; n < tr->nr_tails; n++)
		tr->tail[n].resume = e->p;
}

/*
 * The bit is in the dword or qword at EA + (index >> log2(bits)) * size; the
 * register form of the instruction on that word masks the index itself.
 */
static void bit_string(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	struct emit *e = &tr->e;
	int r = ZydisRegisterGetId(t->ops[1].reg.value), index = host_of[r];
	bool w = t->ops[0].size == 64, write = t->z.mnemonic != ZYDIS_MNEMONIC_BT;
	unsigned size = t->ops[0].size / 8, tail;

	want_cc(tr, t->before);
	clobber(tr);
	emit_ea(tr, t, H_S1, true);
	if (w) {
		e_mov(e, H_S2, index);
	} else {				/* movsxd r11, index */
		e8(e, 0x4c | index >> 3);
		e8(e, 0x63);
		e8(e, 0xd8 | (index & 7));
	}
	e_shift_imm(e, true, 7, H_S2, 3);	/* sar */
	e_imm(e, true, 4, H_S2, -(int)size);
	e_rr(e, true, 0x01, H_S1, H_S2);
	if (t->i->flags & INSN_ADDR32)
		e_rr(e, false, 0x89, H_S1, H_S1);
	tail = access(tr, k, write, size);
	if (t->use || t->after & ~t->kill)
		want_host(tr);
	e_mem(e, w, 0x8b, H_S2, H_S1, 0);
	e8(e, 0x41 | w << 3 | (index >> 3) << 2);	/* bt* r11, index */
	e8(e, 0x0f);
	e8(e, t->z.opcode);
	e8(e, 0xc3 | (index & 7) << 3);
	if (write)
		e_mem(e, w, 0x89, H_S2, H_S1, 0);
	tr->where = IN_HOST;
	tr->tail[tail].resume = e->p;
}

/* --- leaving the block ------------------------------------------------------- */

/* Are arithmetic flags wanted at this offset of our page?  Only a block that is
 * decoded can tell that they are not. */
static bool target_live(struct tr *tr, int target)
{
	const struct block *b;

	if (target < 0 || target >= (int)PAGE_SIZE)
		return true;
	if (target == tr->page_off)
		return jit_block_live_in(tr->b);
	b = block_peek(tr->cpu, (tr->b->gpa & PAGE_MASK) + (unsigned)target);
	return !b || jit_block_live_in(b);
}

/* To where only the run loop knows. */
static void emit_exit(struct tr *tr, uint32_t id)
{
	e_movi(&tr->e, H_S2, id);
	e_patch(e_jump(&tr->e, -1), tr->j->exit + (tr->j->rw - tr->j->rx));
}

static void miss(struct tr *tr, uint8_t *site, unsigned k)
{
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT, .site = site });
}

/*
 * Looks H_S1 up in the jump cache: H_S2 points at its entry, the target is in
 * scratch[JIT_TARGET].  On a miss instruction k is the interpreter's, which also
 * sees to targets that are no addresses; so nothing may be changed before this.
 */
static void lookup(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;
	uint8_t *found;

	e_st(e, OFF(scratch[JIT_TARGET]), H_S1);
	e_rsp(e, false, 0x83, 7, OFF(attention));	/* cmp */
	e8(e, 0);
	miss(tr, e_jump(e, 5), k);
	/* jump_hash() */
	e_mov(e, H_S2, H_S1);
	e_shift_imm(e, true, 5, H_S2, PAGE_SHIFT);
	e_rr(e, false, 0x31, H_S2, H_S1);
	e_imm(e, false, 4, H_S2, JUMP_SIZE - 1);
	e_shift_imm(e, false, 4, H_S2, 5);
	e_rsp(e, true, 0x03, H_S2, OFF(jumps));
	e_mem(e, true, 0x3b, H_S1, H_S2, offsetof(struct jump, rip));
	miss(tr, e_jump(e, 5), k);
	e_mem(e, true, 0x8b, H_S1, H_S2, offsetof(struct jump, gen));
	e_rsp(e, true, 0x3b, H_S1, OFF(gen));
	found = e_jump(e, 4);
	e_rsp(e, true, 0x3b, H_S1, OFF(gen_global));
	miss(tr, e_jump(e, 5), k);
	e_patch(found, e->p);
}

/* The page of scratch[JIT_TARGET] becomes the current one. */
static void enter_page(struct tr *tr)
{
	e_ld(&tr->e, H_S1, OFF(scratch[JIT_TARGET]));
	e_imm(&tr->e, true, 4, H_S1, -(int)PAGE_SIZE);
	e_st(&tr->e, OFF(scratch[JIT_PAGE_VA]), H_S1);
}

/* To the address in H_S1; flags are in cpu->cc. */
static void indirect(struct tr *tr, unsigned k)
{
	lookup(tr, k);
	enter_page(tr);
	e_mem(&tr->e, false, 0xff, 4, H_S2, offsetof(struct jump, host));	/* jmp */
}
_Static_assert(sizeof(struct jump) == 32, "shift by 5 above");

/*
 * A direct branch to another page, whose address is in H_S1.  A miss leaves: the
 * instruction has done its work, so the interpreter need not repeat it.
 */
static void far_direct(struct tr *tr, int target)
{
	uint32_t id = jit_meta_new(tr->j, META_LINK);
	unsigned first = tr->nr_tails;

	tr->j->meta[id].off = target;
	indirect(tr, 0);
	while (tr->nr_tails > first)
		e_patch(tr->tail[--tr->nr_tails].site, tr->e.p);
	emit_exit(tr, id);
}

/* A direct branch from here; from: offset of the branching instruction. */
static void direct(struct tr *tr, int from, int target)
{
	bool live = target_live(tr, target);
	struct jit *j = tr->j;
	struct emit *e = &tr->e;
	uint8_t *check = NULL;
	struct jit_meta *m;
	uint32_t id;

	if (target < 0 || target >= (int)PAGE_SIZE) {
		want_cc(tr, ALL_FLAGS);
		e_ld(e, H_S1, OFF(scratch[JIT_PAGE_VA]));
		e_lea(e, true, H_S1, H_S1, -1, 0, target);
		far_direct(tr, target);
		return;
	}
	id = jit_meta_new(j, META_LINK);
	m = &j->meta[id];
	m->off = target;
	if (target <= from) {
		want_cc(tr, live);
		clobber(tr);
		e_rsp(e, false, 0x83, 7, OFF(attention));	/* cmp */
		e8(e, 0);
		check = e_jump(e, 5);
	}
	m->site = e_jump(e, -1);
	m->host_flags = live && tr->where == IN_HOST;
	if (check)
		e_patch(check, e->p);
	e_patch(m->site, e->p);
	m->stub = j->rx + (e->p - j->rw);
	if (m->host_flags)
		e_flags_save(e);
	emit_exit(tr, id);
}

static void push_return(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];

	e_lea(&tr->e, true, H_S1, HOST_GUEST_RSP, -1, 0, -8);
	access(tr, k, true, 8);
	e_ld(&tr->e, H_S2, OFF(scratch[JIT_PAGE_VA]));
	e_lea(&tr->e, true, H_S2, H_S2, -1, 0, t->off + t->i->len);
	e_mem(&tr->e, true, 0x89, H_S2, H_S1, 0);
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

/* Branch target in memory or a register, into H_S1. */
static void load_target(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int r;

	if (t->i->flags & INSN_MEM) {
		emit_ea(tr, t, H_S1, true);
		if (t->i->seg != SLOT_ZERO)
			e_rsp(&tr->e, true, 0x03, H_S1,
			      t->i->seg == SLOT_FS ? OFF(fs_base) : OFF(gs_base));
		access(tr, k, false, 8);
		e_mem(&tr->e, true, 0x8b, H_S1, H_S1, 0);
		return;
	}
	r = ZydisRegisterGetId(t->ops[0].reg.value);
	if (host_of[r] < 0)
		e_ld(&tr->e, H_S1, OFF_GPR(r));
	else
		e_mov(&tr->e, H_S1, host_of[r]);
}

static void ret(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	bool imm = t->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		   t->ops[0].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;

	e_mov(&tr->e, H_S1, HOST_GUEST_RSP);
	access(tr, k, false, 8);
	e_mem(&tr->e, true, 0x8b, H_S1, H_S1, 0);
	lookup(tr, k);
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0,
	      8 + (imm ? (int)(t->ops[0].imm.value.u & 0xffff) : 0));
	enter_page(tr);
	e_mem(&tr->e, false, 0xff, 4, H_S2, offsetof(struct jump, host));
}

static void call_rm(struct tr *tr, unsigned k)
{
	load_target(tr, k);
	lookup(tr, k);
	e_mem(&tr->e, true, 0x8b, H_S2, H_S2, offsetof(struct jump, host));
	e_st(&tr->e, OFF(scratch[JIT_CODE]), H_S2);
	push_return(tr, k);
	enter_page(tr);
	e_rsp(&tr->e, false, 0xff, 4, OFF(scratch[JIT_CODE]));	/* jmp */
}

static void leave_to_interp(struct tr *tr, unsigned k)
{
	struct jit *j = tr->j;
	uint32_t id = jit_meta_new(j, META_INTERP);

	want_cc(tr, ALL_FLAGS);
	j->meta[id].i = tr->t[k].i;
	j->meta[id].off = tr->t[k].off;
	emit_exit(tr, id);
}

static int branch_target(const struct tinsn *t)
{
	return t->off + t->i->len + (int)(int64_t)t->i->imm;
}

/* The taken side lies behind the block. */
static void jcc(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];

	want_host(tr);
	add_tail(tr, (struct tail){ .kind = TAIL_EXIT, .k = k, .where = tr->where,
				    .site = e_jump(&tr->e, t->z.opcode & 15) });
}

static void emit_insn(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];

	switch (t->form) {
	case F_COPY: copy(tr, k); break;
	case F_LEA: lea(tr, k); break;
	case F_PUSH: push(tr, k); break;
	case F_POP: pop(tr, k); break;
	case F_LEAVE: leave(tr, k); break;
	case F_NOP: break;
	case F_PAUSE: e8(&tr->e, 0xf3); e8(&tr->e, 0x90); break;
	case F_PUSHF: pushf(tr, k); break;
	case F_CLI: set_if(tr, k, false); break;
	case F_STI: set_if(tr, k, true); break;
	case F_BT: bit_string(tr, k); break;
	case F_CALL_OUT: call_out(tr, k); break;
	case F_JCC: jcc(tr, k); break;
	case F_JMP: direct(tr, t->off, branch_target(t)); break;
	case F_CALL:
		want_cc(tr, ALL_FLAGS);
		push_return(tr, k);
		direct(tr, t->off, branch_target(t));
		break;
	case F_RET: want_cc(tr, ALL_FLAGS); ret(tr, k); break;
	case F_JMP_RM:
		want_cc(tr, ALL_FLAGS);
		load_target(tr, k);
		indirect(tr, k);
		break;
	case F_CALL_RM: want_cc(tr, ALL_FLAGS); call_rm(tr, k); break;
	case F_INTERP: leave_to_interp(tr, k); break;
	case F_FALL: direct(tr, -1, t->off); break;
	}
}

/* --- whole blocks -------------------------------------------------------------- */

static void emit_slow(struct tr *tr, const struct tail *tl)
{
	const struct tinsn *t = &tr->t[tl->k];
	struct jit *j = tr->j;
	uint32_t id = jit_meta_new(j, tl->resume ? META_SLOW : META_INTERP);
	struct jit_meta *m = &j->meta[id];

	if (tl->fault != NO_FAULT)
		j->fault[tl->fault].stub = (uint32_t)(tr->e.p - j->rw);
	if (tl->live && !(tl->where & IN_CC))
		e_flags_save(&tr->e);
	m->i = t->i;
	m->off = t->off;
	if (!tl->resume) {
		emit_exit(tr, id);
		return;
	}
	m->resume = j->rx + (tl->resume - j->rw);
	e_movi(&tr->e, H_S2, id);
	e_patch(e_jump(&tr->e, -1), j->slow + (j->rw - j->rx));
}

static void emit_tails(struct tr *tr)
{
	for (unsigned n = 0; n < tr->nr_tails; n++) {
		const struct tail *tl = &tr->tail[n];

		if (tl->site)
			e_patch(tl->site, tr->e.p);
		if (tl->kind == TAIL_SLOW) {
			emit_slow(tr, tl);
			continue;
		}
		tr->where = tl->where;
		direct(tr, tr->t[tl->k].off, branch_target(&tr->t[tl->k]));
	}
}

/* Decodes again for the operands; stops where the interpreter must go on. */
static void gather(struct tr *tr)
{
	struct block *b = tr->b;
	ZydisDecoder d;
	int off = tr->page_off;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (unsigned k = 0; k < b->nr && tr->n < MAX_INSNS - 1; k++) {
		struct tinsn *t = &tr->t[tr->n++];

		*t = (struct tinsn){ .i = &b->insn[k], .off = off };
		analyse(tr, &d, t);
		off += t->i->len;
		if (t->form >= F_JMP)
			return;
	}
	tr->t[tr->n++] = (struct tinsn){ .form = F_FALL, .off = off,
					 .i = &b->insn[b->nr], .use = ALL_FLAGS };
}

static void liveness(struct tr *tr)
{
	uint8_t live = ALL_FLAGS;

	for (unsigned k = tr->n; k-- > 0;) {
		struct tinsn *t = &tr->t[k];

		if (t->form == F_JCC && target_live(tr, branch_target(t)))
			live = ALL_FLAGS;
		t->after = live;
		live = (live & ~t->kill) | t->use;
		t->before = live;
	}
}

/* Does anything destroy the host's flags before an instruction wants them? */
static bool body_wants_cc(const struct tr *tr)
{
	for (unsigned k = 0; k < tr->n; k++) {
		const struct tinsn *t = &tr->t[k];

		if (t->form == F_COPY && !t->msize) {
			if (t->use || t->def)
				return false;
		} else if (t->form == F_JCC) {
			return false;
		} else if (t->form != F_LEA && t->form != F_NOP && t->form != F_PAUSE &&
			   t->form != F_FALL &&
			   t->form != F_JMP) {
			return true;
		}
	}
	return false;
}

static void entries(struct tr *tr, struct jblock *jb)
{
	struct jit *j = tr->j;
	uint8_t *alt = tr->e.p;

	if (!tr->t[0].before) {
		tr->where = IN_CC;
	} else if (body_wants_cc(tr)) {
		e_flags_save(&tr->e);
		tr->where = IN_CC;
	} else {
		e_flags_load(&tr->e);
		tr->where = IN_HOST;
	}
	jb->entry_m = jb->entry_h = j->rx + (tr->e.p - j->rw);
	if (tr->t[0].before && tr->where == IN_CC)
		jb->entry_h = j->rx + (alt - j->rw);
	else if (tr->t[0].before)
		jb->entry_m = j->rx + (alt - j->rw);
	/* jit_drop() puts a 5-byte jump over the body's start */
	e8(&tr->e, 0x0f); e8(&tr->e, 0x1f); e8(&tr->e, 0x44);
	e8(&tr->e, 0x00); e8(&tr->e, 0x00);
	jb->body = tr->e.p - 5;
}

/* What a dropped block's body starts with a jump to: look it up again. */
static void emit_gone(struct tr *tr, struct jblock *jb, bool save)
{
	struct jit *j = tr->j;
	uint32_t id = jit_meta_new(j, META_LINK);

	j->meta[id].off = tr->page_off;
	jb->gone = tr->e.p;
	if (save)
		e_flags_save(&tr->e);
	emit_exit(tr, id);
}

struct jblock *jit_translate(struct soft_cpu *cpu, struct block *b)
{
	struct jit *j = cpu->jit;
	struct tinsn t[MAX_INSNS];
	struct tr tr = { .j = j, .cpu = cpu, .b = b, .t = t,
			 .e.p = j->rw + ALIGN_UP(j->used, (size_t)16),
			 .page_off = b->gpa & (PAGE_SIZE - 1) };
	struct jblock *jb;
	bool host;

	gather(&tr);
	if (t[0].form == F_INTERP)
		return NULL;
	liveness(&tr);
	jb = &j->jblock[j->nr_jblock++];
	jb->block = b;
	list_init(&jb->incoming);
	entries(&tr, jb);
	host = tr.where & IN_HOST;
	for (unsigned k = 0; k < tr.n; k++)
		emit_insn(&tr, k);
	emit_tails(&tr);
	emit_gone(&tr, jb, host);
	j->stat.translated++;
	j->stat.guest_bytes += b->bytes;
	j->stat.host_bytes += (size_t)(tr.e.p - j->rw) - j->used;
	j->used = (size_t)(tr.e.p - j->rw);
	return jb;
}
