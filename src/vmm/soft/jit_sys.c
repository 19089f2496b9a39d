// SPDX-License-Identifier: MIT
/*
 * jit_sys.c - system instructions in host code: what kernels do at each entry,
 * exit and switch.
 *
 * All are short: a test of what the manual makes a condition (privilege, a bit of
 * CR4), then the field of struct soft_cpu.  Where the condition does not hold, or
 * the answer is anything but the usual, the interpreter does the instruction and
 * raises its fault.
 */
#include "vmm/soft/jit_tr.h"

/* Host flags at a check's branch mean: the interpreter's. */
static void slow_if(struct tr *tr, unsigned k, int cc)
{
	add_tail(tr, (struct tail){ .kind = TAIL_SLOW, .k = k, .where = IN_CC,
				    .fault = NO_FAULT, .site = e_jump(&tr->e, cc) });
}
enum { IF_ZERO = 4, UNLESS_ZERO = 5 };

/* op byte [rsp + off], imm: 7 of group 80 is CMP, 0 of group F6 is TEST */
static void byte_op(struct tr *tr, uint8_t op, int group, int off, uint8_t imm)
{
	e_rsp(&tr->e, false, op, group, off);
	e8(&tr->e, imm);
}

static void need_cpl0(struct tr *tr, unsigned k)
{
	byte_op(tr, 0x80, 7, OFF(cpl), 0);
	slow_if(tr, k, UNLESS_ZERO);
}

/* bit: of CR4; the interpreter's when it is clear, or when it is set. */
static void check_cr4(struct tr *tr, unsigned k, uint32_t bit, int cc)
{
	unsigned byte = (unsigned)__builtin_ctz(bit) / 8;

	byte_op(tr, 0xf6, 0, OFF(cr4) + (int)byte, bit >> 8 * byte);
	slow_if(tr, k, cc);
}

/* RFLAGS op imm: 1 is OR, 4 is AND */
static void rflags_op(struct tr *tr, unsigned op, int32_t imm)
{
	e_rsp(&tr->e, false, 0x81, (int)op, OFF(rflags));
	e32(&tr->e, (uint32_t)imm);
}

/* STI only with no interrupt waiting: then its shadow is the run loop's. */
static void set_if(struct tr *tr, unsigned k, bool on)
{
	need_cpl0(tr, k);
	if (on) {
		byte_op(tr, 0x80, 7, OFF(irq_latched), 0);
		slow_if(tr, k, UNLESS_ZERO);
	}
	rflags_op(tr, on ? 1 : 4, on ? FL_IF : ~FL_IF);
}

/* Picks the TLB as mmu_mode() does. */
static void set_ac(struct tr *tr, unsigned k, bool on)
{
	enum tlb_mode mode = on ? TLB_KERNEL_AC : TLB_KERNEL;

	need_cpl0(tr, k);
	check_cr4(tr, k, CR4_SMAP, IF_ZERO);
	rflags_op(tr, on ? 1 : 4, on ? FL_AC : ~FL_AC);
	e_lea(&tr->e, true, H_S1, H_RSP, -1, 0, OFF(mmu.tlb) + mode * (int)sizeof(struct tlb));
	e_st(&tr->e, OFF(tlb), H_S1);
}

static void swapgs(struct tr *tr, unsigned k)
{
	struct emit *e = &tr->e;

	need_cpl0(tr, k);
	e_ld(e, H_S1, OFF(gs_base));
	e_ld(e, H_S2, OFF(kernel_gs_base));
	e_st(e, OFF(kernel_gs_base), H_S1);
	e_st(e, OFF(gs_base), H_S2);
}

/* Only while the guest's clock ticks as the host's does. */
static void rdtsc(struct tr *tr, unsigned k, bool with_aux)
{
	struct emit *e = &tr->e;

	check_cr4(tr, k, CR4_TSD, UNLESS_ZERO);
	e_ld(e, H_S1, OFF(time.clock));
	e_mem(e, true, 0x83, 7, H_S1, offsetof(struct gclock, ratio));	/* cmp */
	e8(e, 0);
	slow_if(tr, k, UNLESS_ZERO);
	e8(e, 0x0f);				/* rdtsc */
	e8(e, 0x31);
	e_rsp(e, false, 0x03, H_RAX, OFF(time.offset));		/* add */
	e_rsp(e, false, 0x13, H_RDX, OFF(time.offset) + 4);	/* adc */
	if (with_aux)
		e_ld32(e, H_RCX, OFF(tsc_aux));
}

static void read_base(struct tr *tr, unsigned k, int off)
{
	struct tinsn *t = &tr->t[k];
	int r = t->i->rd / 8, dst = host_of[r] < 0 ? H_S1 : host_of[r];

	check_cr4(tr, k, CR4_FSGSBASE, IF_ZERO);
	e_rsp(&tr->e, t->i->size == 8, 0x8b, dst, off);
	if (host_of[r] < 0)
		e_st(&tr->e, OFF_GPR(r), dst);
}

static void write_base(struct tr *tr, unsigned k, int off)
{
	struct tinsn *t = &tr->t[k];
	struct emit *e = &tr->e;
	int src = guest_reg(tr, t->i->rd / 8, H_S1);

	check_cr4(tr, k, CR4_FSGSBASE, IF_ZERO);
	if (t->i->size == 8) {		/* canonical? */
		e_mov(e, H_S2, src);
		e_shift_imm(e, true, 4, H_S2, 16);
		e_shift_imm(e, true, 7, H_S2, 16);
		e_rr(e, true, 0x39, H_S2, src);
		slow_if(tr, k, UNLESS_ZERO);
	} else {
		e_rr(e, false, 0x89, H_S1, src);
		src = H_S1;
	}
	e_st(e, off, src);
}

static int segment_of(const struct tinsn *t)
{
	return ZydisRegisterGetId(t->ops[1].reg.value);
}

/* MOV r, sreg of 16, 32 or 64 bits; MOV m16, sreg */
static void read_selector(struct tr *tr, unsigned k)
{
	static const int off[] = {	/* Zydis's order is the manual's, and ours */
		OFF(seg[X86_ES].sel), OFF(seg[X86_CS].sel), OFF(seg[X86_SS].sel),
		OFF(seg[X86_DS].sel), OFF(seg[X86_FS].sel), OFF(seg[X86_GS].sel),
	};
	struct tinsn *t = &tr->t[k];
	struct emit *e = &tr->e;
	int r = t->i->rd / 8, dst = host_of[r];

	if (t->i->flags & INSN_MEM) {
		jit_ea(tr, t, H_S1, true);
		jit_segment(tr, t);
		jit_access(tr, k, true, 2, false);
	}
	e_movzx16(e, H_S2, off[segment_of(t)]);
	if (t->i->flags & INSN_MEM || t->i->size == 2)
		e8(e, 0x66);
	if (t->i->flags & INSN_MEM)
		e_mem(e, false, 0x89, H_S2, H_S1, 0);
	else if (dst >= 0)
		e_rr(e, false, 0x89, dst, H_S2);
	else
		e_rsp(e, t->i->size >= 4, 0x89, H_S2, OFF_GPR(r));
}

static bool reads_selector(const struct tinsn *t)
{
	return t->z.opcode == 0x8c &&
	       ZydisRegisterGetClass(t->ops[1].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
	       segment_of(t) < 6;
}

static int control_offset(const struct tinsn *t)
{
	switch (t->ops[1].reg.value) {
	case ZYDIS_REGISTER_CR0: return OFF(cr0);
	case ZYDIS_REGISTER_CR2: return OFF(cr2);
	case ZYDIS_REGISTER_CR3: return OFF(cr3);
	case ZYDIS_REGISTER_CR4: return OFF(cr4);
	default: return 0;
	}
}

static void read_control(struct tr *tr, unsigned k)
{
	struct tinsn *t = &tr->t[k];
	int r = t->i->rd / 8, dst = host_of[r] < 0 ? H_S1 : host_of[r];

	need_cpl0(tr, k);
	e_ld(&tr->e, dst, control_offset(t));
	if (host_of[r] < 0)
		e_st(&tr->e, OFF_GPR(r), dst);
}

enum form jit_sys_move_form(const struct tinsn *t)
{
	bool control = ZydisRegisterGetClass(t->ops[1].reg.value) == ZYDIS_REGCLASS_CONTROL;

	if (control && control_offset(t))
		return F_SYS;
	return t->z.opcode == 0x22 ? F_TRANSFER : F_INTERP;	/* to a control register */
}

enum form jit_sys_form(const struct tinsn *t)
{
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_CLAC: case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_CLI: case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_SWAPGS: case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP: case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE: case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		return F_SYS;
	case ZYDIS_MNEMONIC_STI:
		/* as the last of its block its shadow is the run loop's */
		return t->i[1].mnemonic ? F_SYS : F_INTERP;
	case ZYDIS_MNEMONIC_LFENCE: case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
		return F_RAW;
	case ZYDIS_MNEMONIC_MOV:
		return reads_selector(t) ? F_SYS : F_CALL_OUT;
	default:
		return F_CALL_OUT;
	}
}

static void emit_one(struct tr *tr, unsigned k)
{
	switch (tr->t[k].z.mnemonic) {
	case ZYDIS_MNEMONIC_CLI: set_if(tr, k, false); break;
	case ZYDIS_MNEMONIC_STI: set_if(tr, k, true); break;
	case ZYDIS_MNEMONIC_CLD: rflags_op(tr, 4, ~FL_DF); break;
	case ZYDIS_MNEMONIC_CLAC: set_ac(tr, k, false); break;
	case ZYDIS_MNEMONIC_STAC: set_ac(tr, k, true); break;
	case ZYDIS_MNEMONIC_SWAPGS: swapgs(tr, k); break;
	case ZYDIS_MNEMONIC_RDTSC: rdtsc(tr, k, false); break;
	case ZYDIS_MNEMONIC_RDTSCP: rdtsc(tr, k, true); break;
	case ZYDIS_MNEMONIC_RDFSBASE: read_base(tr, k, OFF(fs_base)); break;
	case ZYDIS_MNEMONIC_RDGSBASE: read_base(tr, k, OFF(gs_base)); break;
	case ZYDIS_MNEMONIC_WRFSBASE: write_base(tr, k, OFF(fs_base)); break;
	case ZYDIS_MNEMONIC_WRGSBASE: write_base(tr, k, OFF(gs_base)); break;
	default:		/* MOV */
		if (tr->t[k].z.opcode == 0x8c)
			read_selector(tr, k);
		else
			read_control(tr, k);
		break;
	}
}

void jit_sys(struct tr *tr, unsigned k)
{
	unsigned first = tr->nr_tails;

	want_cc(tr, tr->t[k].before);
	clobber(tr);
	emit_one(tr, k);
	for (unsigned n = first; n < tr->nr_tails; n++)
		tr->tail[n].resume = tr->e.p;
}
