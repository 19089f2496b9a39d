// SPDX-License-Identifier: MIT
/*
 * jit_insn.c - host code for single instructions, and for their memory accesses.
 */
#include "vmm/soft/jit_tr.h"
#include "vmm/soft/recode.h"

void jit_ea(struct tr *tr, const struct tinsn *t, int dst, bool w)
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

void jit_segment(struct tr *tr, const struct tinsn *t)
{
	if (t->i->seg != SLOT_ZERO)
		e_rsp(&tr->e, true, 0x03, H_S1,
		      t->i->seg == SLOT_FS ? OFF(fs_base) : OFF(gs_base));
}

void jit_tlb_offset(struct tr *tr, bool write)
{
	struct emit *e = &tr->e;

	e_rr(e, false, 0x89, H_S2, H_S1);
	if (tr->table >= 0) {
		e_shift_imm(e, false, 5, H_S2, 32 - TLB_BITS);
	} else {
		e_shift_imm(e, false, 5, H_S2, 32 - TLB_BITS - 3);
		e_imm(e, false, 4, H_S2, -8);
		e_rsp(e, true, 0x03, H_S2, OFF(tlb));
	}
	jit_tlb_field(tr, 0x33, H_S1, write ? offsetof(struct tlb, wtag) :
					      offsetof(struct tlb, rtag));
}

void jit_tlb_field(struct tr *tr, uint8_t op, int reg, size_t field)
{
	if (tr->table >= 0)
		e_memx(&tr->e, true, op, reg, H_RSP, H_S2, 3,
		       OFF(mmu.tlb) + tr->table * (int)sizeof(struct tlb) + (int)field);
	else
		e_mem(&tr->e, true, op, reg, H_S2, (int)field);
}

unsigned jit_access(struct tr *tr, unsigned k, bool write, unsigned size, bool distance)
{
	struct emit *e = &tr->e;

	clobber(tr);
	jit_tlb_offset(tr, write);
	e_imm(e, true, 7, H_S1, PAGE_SIZE - size);
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT,
				    .site = e_jump(e, 7) });	/* ja */
	if (distance)
		jit_tlb_field(tr, 0x8b, H_S1, offsetof(struct tlb, addend));
	else
		jit_tlb_field(tr, 0x03, H_S1, offsetof(struct tlb, host));
	return tr->nr_tails - 1;
}

/* The host instruction to come may fault; its stub is known with the tail. */
static void note_fault(struct tr *tr, unsigned tail)
{
	struct jit *j = tr->j;

	tr->tail[tail].fault = j->nr_fault;
	j->fault[j->nr_fault++].code = (uint32_t)(tr->e.p - j->rw);
}

/* Registers that live in struct soft_cpu, in an instruction; a bit each. */
struct spills {
	unsigned named;		/* need a host register */
	unsigned read, written;	/* of these */
	int slot;		/* the one in ModRM.rm, as memory; -1 */
};

/* May the register in ModRM.rm be memory instead, to no other effect? */
static bool takes_memory(const struct tinsn *t, const ZydisDecodedOperand *rm)
{
	if (t->msize || rm->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
		return false;
	/* a write of 32 bits clears the upper half of a register */
	if (rm->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE && rm->size == 32)
		return false;
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV: case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX: case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_ADD: case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_SUB: case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_AND: case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR: case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_TEST: case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_INC: case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_NEG: case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
		return true;
	default:
		return t->z.meta.category == ZYDIS_CATEGORY_CMOV;
	}
}

/* XOR and SUB of a register and itself: zero, whatever it was. */
static bool makes_zero(const struct tinsn *t)
{
	return (t->z.mnemonic == ZYDIS_MNEMONIC_XOR || t->z.mnemonic == ZYDIS_MNEMONIC_SUB) &&
	       t->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && t->ops[0].size >= 32 &&
	       t->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       t->ops[0].reg.value == t->ops[1].reg.value;
}

/* Does operand k's register matter before it is written? */
static bool reads(const struct tinsn *t, unsigned k)
{
	if (makes_zero(t))
		return false;
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV: case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX: case ZYDIS_MNEMONIC_MOVSXD:
		return k > 0 || t->ops[0].size < 32;
	default:
		return true;
	}
}

static struct spills spills(const struct tinsn *t)
{
	struct spills s = { .slot = -1 };

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
		if (takes_memory(t, o) && !makes_zero(t)) {
			s.slot = id;
			continue;
		}
		s.named |= 1u << id;
		if (reads(t, k))
			s.read |= 1u << id;
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			s.written |= 1u << id;
	}
	return s;
}

/* Fills the map; false when there are more spilled registers than scratch ones. */
static bool rename(const struct tinsn *t, struct recode_map *map, const struct spills *s)
{
	int8_t free[2] = { H_S2, t->msize ? -1 : H_S1 };
	unsigned n = 0;

	*map = (struct recode_map){ .mem_base = t->msize ? H_S1 : -1, .mem_index = -1 };
	for (int r = 0; r < 16; r++) {
		map->gpr[r] = host_of[r];
		if (s->named & 1u << r) {
			if (n == 2 || free[n] < 0)
				return false;
			map->gpr[r] = free[n++];
		}
	}
	if (s->slot >= 0) {
		map->rm_slot = true;
		map->mem_disp = OFF_GPR(s->slot);
	}
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
	j->meta[id].cause = CAUSE_KIND;
	j->meta[id].i = t->i;
	j->meta[id].off = t->off;
	j->meta[id].resume = j->rx + (tr->e.p - j->rw);
	tr->where = IN_HOST | IN_CC;
}

/* On the host, when memory has been seen to. */
static bool may_fault(const struct tinsn *t)
{
	return t->i->flags & INSN_FP ||
	       t->z.mnemonic == ZYDIS_MNEMONIC_DIV ||
	       t->z.mnemonic == ZYDIS_MNEMONIC_IDIV ||
	       t->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;	/* alignment */
}

/* The memory operand's place, which the map takes over. */
static struct addr place_operand(struct tr *tr, unsigned k, struct recode_map *map)
{
	struct tinsn *t = &tr->t[k];
	struct addr a = { .held = -1, .tail = NO_TAIL };

	if (t->msize) {
		a = jit_operand(tr, k, t->write, t->msize);
		map->mem_base = a.base;
		map->mem_index = a.index;
		map->mem_scale = a.scale;
		map->mem_disp = a.disp;
	}
	if (may_fault(t) && a.tail == NO_TAIL) {
		add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k,
					    .where = tr->where, .live = t->before,
					    .fault = NO_FAULT });
		a.tail = tr->nr_tails - 1;
	}
	return a;
}

/*
 * AH to BH, which no instruction with a REX prefix can name.  None of those that name
 * them faults once its memory has been seen to: DIV implies AH.
 */
static bool names_high_byte(const struct tinsn *t)
{
	for (unsigned k = 0; k < t->z.operand_count_visible; k++)
		if (t->ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    t->ops[k].reg.value >= ZYDIS_REGISTER_AH &&
		    t->ops[k].reg.value <= ZYDIS_REGISTER_BH)
			return true;
	return false;
}

/* The address is in rsi and the guest's rsi in H_S1, or back again. */
static void swap_address(struct tr *tr)
{
	e_rr(&tr->e, true, 0x87, H_S1, H_RSI);		/* xchg */
}

/* Makes H_S1 all of the operand's address, for swap_address(). */
static void gather_address(struct tr *tr, struct addr *a, struct recode_map *map)
{
	if (a->index >= 0 || a->disp)
		e_lea(&tr->e, true, H_S1, a->base, a->index, a->scale, a->disp);
	a->held = -1;
	map->mem_base = H_RSI;
	map->mem_index = -1;
	map->mem_disp = 0;
}

static void copy(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	const struct spills s = spills(t);
	bool high = t->msize && names_high_byte(t);
	bool host_flags = t->use || (t->def && t->after & ~t->kill);
	bool held = tr->held_at == tr->e.p && !t->msize && !(s.named & (s.named - 1));
	struct recode_map map;
	struct addr a;
	uint8_t out[RECODE_MAX];

	if (!rename(t, &map, &s)) {
		call_out(tr, k);
		return;
	}
	if (high)
		map.mem_base = H_RSI;
	if (insn_recode(&t->z, t->ops, t->i->raw, &map, out) < 0) {
		call_out(tr, k);
		return;
	}
	a = place_operand(tr, k, &map);
	if (held)
		a.held = tr->held;
	if (high)
		gather_address(tr, &a, &map);
	if (host_flags)
		want_host(tr);
	for (int r = 9; r <= 11; r++)
		if (s.read & 1u << r)
			e_ld(&tr->e, map.gpr[r], OFF_GPR(r));
	if (high)
		swap_address(tr);
	if (a.tail != NO_TAIL)
		note_fault(tr, a.tail);
	tr->e.p += insn_recode(&t->z, t->ops, t->i->raw, &map, tr->e.p);
	if (high)
		swap_address(tr);
	for (int r = 9; r <= 11; r++)
		if (s.written & 1u << r)
			e_st(&tr->e, OFF_GPR(r), map.gpr[r]);
	if (t->def)
		tr->where = IN_HOST;
	access_done(tr, &a);
}

static void lea(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int rd = t->i->rd / 8, dst = host_of[rd];
	unsigned width = t->z.operand_width;

	if (width == 16 || t->i->flags & INSN_ADDR32) {
		jit_ea(tr, t, H_S1, true);
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
	jit_ea(tr, t, dst < 0 ? H_S1 : dst, width == 64);
	if (dst < 0)
		e_st(&tr->e, OFF_GPR(rd), H_S1);
}

/* The operand is read before the slot below rsp is: that is the order of faults. */
static void push_mem(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;
	struct addr from = jit_operand(tr, k, false, 8), to;

	e_at(e, true, 0x8b, H_S2, &from);
	e_st(e, OFF(scratch[JIT_CODE]), H_S2);
	to = jit_stack(tr, k, -8, true);
	e_ld(e, H_S2, OFF(scratch[JIT_CODE]));
	e_at(e, true, 0x89, H_S2, &to);
	e_lea(e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
	if (from.tail != NO_TAIL)
		to.held = -1;
	access_done(tr, &from);
	access_done(tr, &to);
}

static void push(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	struct addr a;
	int src;

	if (t->i->flags & INSN_MEM) {
		push_mem(tr, k);
		return;
	}
	a = jit_stack(tr, k, -8, true);
	if (t->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		e_at(&tr->e, true, 0xc7, 0, &a);
		e32(&tr->e, t->ops[0].imm.value.s);
	} else {
		src = guest_reg(tr, ZydisRegisterGetId(t->ops[0].reg.value), H_S2);
		e_at(&tr->e, true, 0x89, src, &a);
	}
	e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
	access_done(tr, &a);
}

static void pop(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int r = ZydisRegisterGetId(t->ops[0].reg.value);
	int dst = host_of[r] < 0 ? H_S2 : host_of[r];
	struct addr a = jit_stack(tr, k, 0, false);

	e_at(&tr->e, true, 0x8b, dst, &a);
	if (r != X86_RSP)
		e_lea(&tr->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8);
	if (host_of[r] < 0)
		e_st(&tr->e, OFF_GPR(r), dst);
	access_done(tr, &a);
}

static void leave(struct tr *tr, unsigned k)
{
	struct addr a = jit_frame(tr, k);

	e_lea(&tr->e, true, HOST_GUEST_RSP, H_RBP, -1, 0, 8);
	e_at(&tr->e, true, 0x8b, H_RBP, &a);
	access_done(tr, &a);
}

/* RFLAGS from its two parts, without RF. */
static void pushf(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;
	struct addr a;

	want_cc(tr, ALL_FLAGS);
	clobber(tr);
	a = jit_stack(tr, k, -8, true);
	e_ld32(e, H_S2, OFF(rflags));
	e_imm(e, false, 4, H_S2, ~(int)FL_RF);
	e_at(e, true, 0x89, H_S2, &a);
	e_movzx8(e, H_S2, OFF(cc) + 1);
	e_imm(e, false, 4, H_S2, FL_CC & 0xff);
	e_at(e, false, 0x09, H_S2, &a);			/* or */
	e_movzx8(e, H_S2, OFF(cc));
	e_shift_imm(e, false, 4, H_S2, 11);
	e_at(e, false, 0x09, H_S2, &a);
	e_lea(e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
	access_done(tr, &a);
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
	jit_ea(tr, t, H_S1, true);
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
	tail = jit_access(tr, k, write, size, false);
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

/* The very bytes: no operands, no flags. */
static void raw(struct tr *tr, unsigned k)
{
	const struct insn *i = tr->t[k].i;

	memcpy(tr->e.p, i->raw, i->len);
	tr->e.p += i->len;
}

void jit_insn(struct tr *tr, unsigned k)
{
	switch (tr->t[k].form) {
	case F_COPY: copy(tr, k); break;
	case F_LEA: lea(tr, k); break;
	case F_PUSH: push(tr, k); break;
	case F_POP: pop(tr, k); break;
	case F_LEAVE: leave(tr, k); break;
	case F_PAUSE: e8(&tr->e, 0xf3); e8(&tr->e, 0x90); break;
	case F_PUSHF: pushf(tr, k); break;
	case F_RAW: raw(tr, k); break;
	case F_SYS: jit_sys(tr, k); break;
	case F_BT: bit_string(tr, k); break;
	case F_STRING: jit_string(tr, k); break;
	case F_CALL_OUT: call_out(tr, k); break;
	default: break;			/* F_NOP */
	}
}
