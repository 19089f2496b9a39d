// SPDX-License-Identifier: MIT
/*
 * jit_call.c - SYSCALL and SYSRET in host code.
 *
 * A thunk each, for they are long: what the manual makes conditions, a look for the
 * target's translation in the jump cache as the mode to come sees it, and only then
 * the change of mode, which is the fields that set_flat(), rflags_set() and
 * cpu_mode_changed() write.  Where a condition does not hold (a flag that makes the
 * run loop look at each instruction, an interrupt that waits for IF, no translation)
 * nothing has changed and the functions in sys.c do it.
 */
#include "vmm/soft/jit_tr.h"

enum { IF_ZERO = 4, UNLESS_ZERO = 5 };

/* Jumps to the interpreter's way, to be filled in. */
struct ways_out {
	uint8_t *site[8];
	unsigned n;
};

static void out_if(struct emit *e, struct ways_out *w, int cc)
{
	w->site[w->n++] = e_jump(e, cc);
}

/* op byte [rsp + off], imm: group 80 /7 is CMP, F6 /0 is TEST, C6 /0 is MOV */
static void byte_op(struct emit *e, uint8_t op, int group, int off, uint8_t imm)
{
	e_rsp(e, false, op, group, off);
	e8(e, imm);
}

/* op dword [rsp + off], imm: group 81 /1 is OR, /4 is AND; C7 /0 is MOV */
static void dword_op(struct emit *e, bool w, uint8_t op, int group, int off, uint32_t imm)
{
	e_rsp(e, w, op, group, off);
	e32(e, imm);
}

static void out_unless_clear(struct emit *e, struct ways_out *w, int off, uint8_t bits)
{
	byte_op(e, 0xf6, 0, off, bits);
	out_if(e, w, UNLESS_ZERO);
}

static void need_sce(struct emit *e, struct ways_out *w)
{
	byte_op(e, 0xf6, 0, OFF(efer), EFER_SCE);
	out_if(e, w, IF_ZERO);
	e_rsp(e, false, 0x83, 7, OFF(attention));
	e8(e, 0);
	out_if(e, w, UNLESS_ZERO);
}

/* What set_flat() leaves, but for the selector. */
static void flat(struct emit *e, int seg, unsigned dpl, bool code)
{
	unsigned attr = SEG_P | SEG_S | SEG_G | dpl << 5 | (code ? 0xb | SEG_L : 0x3 | SEG_DB);

	dword_op(e, true, 0xc7, 0, seg + (int)offsetof(struct x86_segment, base), 0);
	dword_op(e, false, 0xc7, 0, seg + (int)offsetof(struct x86_segment, limit), 0xffffffff);
	dword_op(e, false, 0xc7, 0, seg + (int)offsetof(struct x86_segment, attr), attr);
}

static void store_selector(struct emit *e, int seg, int reg)
{
	e8(e, 0x66);
	e_st32(e, seg + (int)offsetof(struct x86_segment, sel), reg);
}

/* cpu->tlb, ret_base; the epochs are the caller's.  Destroys reg. */
static void store_address(struct emit *e, int field, int off, int reg)
{
	e_lea(e, true, reg, H_RSP, -1, 0, off);
	e_st(e, field, reg);
}

/* One of the epochs of cpu_mode_changed(), of this level; destroys H_S1. */
static void epoch(struct emit *e, int to, int from, int user)
{
	e_ld(e, H_S1, from);
	if (user)
		e_imm(e, true, 1, H_S1, user);
	e_st(e, to, H_S1);
}

/* To the target whose jump cache entry is H_S2's. */
static void go(struct emit *e, int target)
{
	e_st(e, OFF(scratch[JIT_TARGET]), target);
	e_mov(e, H_S1, target);
	e_imm(e, true, 4, H_S1, -(int)PAGE_SIZE);
	e_st(e, OFF(scratch[JIT_PAGE_VA]), H_S1);
}

static void emit_ways_out(struct jit *j, struct emit *e, struct ways_out *w)
{
	for (unsigned k = 0; k < w->n; k++)
		e_patch(w->site[k], e->p);
	e_ld32(e, H_S2, OFF(aside[JIT_SOURCE]));
	e_patch(e_jump(e, -1), j->slow + (j->rw - j->rx));
}

/* --- SYSCALL ------------------------------------------------------------------------- */

/* R11, RFLAGS and cpu->cc; H_S1 and rcx are free. */
static void mask_flags(struct emit *e)
{
	e_ld32(e, H_S1, OFF(rflags));
	e_imm(e, false, 4, H_S1, ~(int)FL_RF);
	e_movzx8(e, H_RCX, OFF(cc) + 1);
	e_imm(e, false, 4, H_RCX, FL_CC & 0xff);
	e_rr(e, false, 0x09, H_S1, H_RCX);
	e_movzx8(e, H_RCX, OFF(cc));
	e_shift_imm(e, false, 4, H_RCX, 11);
	e_rr(e, false, 0x09, H_S1, H_RCX);
	e_st(e, OFF_GPR(X86_R11), H_S1);
	e_ld32(e, H_RCX, OFF(sfmask));
	e8(e, 0xf7); e8(e, 0xd1);			/* not ecx */
	e_rr(e, false, 0x21, H_S1, H_RCX);
	e_imm(e, false, 4, H_RCX, ~(int)FL_RF);
	e_imm(e, false, 1, H_RCX, FL_ONE);
	e_rsp(e, false, 0x21, H_RCX, OFF(rflags));
	e_rr(e, false, 0x89, H_RCX, H_S1);
	e_imm(e, false, 4, H_RCX, FL_CC & 0xff);
	e_shift_imm(e, false, 4, H_RCX, 8);
	e_shift_imm(e, false, 5, H_S1, 11);
	e_imm(e, false, 4, H_S1, 1);
	e_rr(e, false, 0x09, H_RCX, H_S1);
	e_st32(e, OFF(cc), H_RCX);
}

/* AC is clear, before and so after it. */
static void kernel_tlb(struct emit *e)
{
	uint8_t *smap;

	e_lea(e, true, H_S1, H_RSP, -1, 0, OFF(mmu.tlb[TLB_KERNEL]));
	byte_op(e, 0xf6, 0, OFF(cr4) + 2, CR4_SMAP >> 16);
	smap = e_jump(e, UNLESS_ZERO);
	e_lea(e, true, H_S1, H_RSP, -1, 0, OFF(mmu.tlb[TLB_KERNEL_AC]));
	e_patch(smap, e->p);
	e_st(e, OFF(tlb), H_S1);
}

/* H_S2: LSTAR's entry, which must be of kernel code. */
static void find_kernel(struct emit *e, struct ways_out *w)
{
	uint8_t *found;

	e_ld(e, H_S1, OFF(lstar));
	w->site[w->n++] = jit_emit_slot(e);
	e_mem(e, true, 0x8b, H_S1, H_S2, offsetof(struct jump, gen));
	e_rsp(e, true, 0x3b, H_S1, OFF(mmu.gen_global));
	found = e_jump(e, IF_ZERO);
	e_rsp(e, true, 0x3b, H_S1, OFF(mmu.gen));
	out_if(e, w, UNLESS_ZERO);
	e_patch(found, e->p);
}

void jit_syscall_thunk(struct jit *j, struct emit *e)
{
	struct ways_out w = { .n = 0 };

	need_sce(e, &w);
	out_unless_clear(e, &w, OFF(rflags) + 2, FL_AC >> 16);
	find_kernel(e, &w);
	mask_flags(e);
	e_ld32(e, H_RCX, OFF(star) + 4);
	e_imm(e, false, 4, H_RCX, 0xfffc);
	store_selector(e, OFF(seg[X86_CS]), H_RCX);
	e_imm(e, false, 0, H_RCX, 8);
	store_selector(e, OFF(seg[X86_SS]), H_RCX);
	flat(e, OFF(seg[X86_CS]), 0, true);
	flat(e, OFF(seg[X86_SS]), 0, false);
	byte_op(e, 0xc6, 0, OFF(cpl), 0);
	kernel_tlb(e);
	store_address(e, OFF(ret_base), OFF(ret[0]), H_S1);
	epoch(e, OFF(gen), OFF(mmu.gen), 0);
	epoch(e, OFF(gen_global), OFF(mmu.gen_global), 0);
	epoch(e, OFF(link), OFF(mmu.links), 0);
	epoch(e, OFF(link_global), OFF(mmu.links_global), 0);
	e_ld(e, H_RCX, OFF(lstar));
	go(e, H_RCX);
	e_ld(e, H_RCX, OFF(scratch[JIT_CODE]));
	e_mem(e, false, 0xff, 4, H_S2, offsetof(struct jump, host));	/* jmp */
	emit_ways_out(j, e, &w);
}

/* --- SYSRET to 64-bit code --------------------------------------------------------------- */

#define SYSRET_FLAGS	(0x3c7fd7 & FL_KNOWN)

/* RFLAGS and cpu->cc from R11; H_S1 is free. */
static void return_flags(struct emit *e)
{
	const uint32_t sys = SYSRET_FLAGS & ~FL_CC;

	e_ld32(e, H_S1, OFF_GPR(X86_R11));
	e_imm(e, false, 4, H_S1, (int)sys);
	e_imm(e, false, 1, H_S1, FL_ONE);
	dword_op(e, false, 0x81, 4, OFF(rflags), ~sys);
	e_rsp(e, false, 0x09, H_S1, OFF(rflags));
	e_movzx8(e, H_S1, OFF_GPR(X86_R11));
	e_imm(e, false, 4, H_S1, FL_CC & 0xff);
	e_shift_imm(e, false, 4, H_S1, 8);
	e_st32(e, OFF(cc), H_S1);
	e_movzx8(e, H_S1, OFF_GPR(X86_R11) + 1);
	e_shift_imm(e, false, 5, H_S1, 3);
	e_imm(e, false, 4, H_S1, 1);
	e_rsp(e, false, 0x09, H_S1, OFF(cc));
}

/* H_S2: rcx's entry, which must be of user code; that is never global. */
static void find_user(struct emit *e, struct ways_out *w)
{
	e_mov(e, H_S1, H_RCX);
	e_shift_imm(e, true, 4, H_S1, 16);
	e_shift_imm(e, true, 7, H_S1, 16);
	e_rr(e, true, 0x39, H_S1, H_RCX);
	out_if(e, w, UNLESS_ZERO);		/* not canonical */
	w->site[w->n++] = jit_emit_slot(e);
	e_mem(e, true, 0x8b, H_S1, H_S2, offsetof(struct jump, gen));
	e_imm(e, true, 6, H_S1, 1);
	e_rsp(e, true, 0x3b, H_S1, OFF(mmu.gen));
	out_if(e, w, UNLESS_ZERO);
}

void jit_sysret_thunk(struct jit *j, struct emit *e)
{
	struct ways_out w = { .n = 0 };

	need_sce(e, &w);
	out_unless_clear(e, &w, OFF(cpl), 3);
	out_unless_clear(e, &w, OFF(irq_latched), 0xff);
	out_unless_clear(e, &w, OFF_GPR(X86_R11) + 1, FL_TF >> 8);
	find_user(e, &w);
	return_flags(e);
	e_movzx16(e, H_S1, OFF(star) + 6);
	e_imm(e, false, 0, H_S1, 8);
	e_imm(e, false, 1, H_S1, 3);
	store_selector(e, OFF(seg[X86_SS]), H_S1);
	e_imm(e, false, 0, H_S1, 8);
	store_selector(e, OFF(seg[X86_CS]), H_S1);
	flat(e, OFF(seg[X86_CS]), 3, true);
	flat(e, OFF(seg[X86_SS]), 3, false);
	byte_op(e, 0xc6, 0, OFF(cpl), 3);
	store_address(e, OFF(tlb), OFF(mmu.tlb[TLB_USER]), H_S1);
	store_address(e, OFF(ret_base), OFF(ret[1]), H_S1);
	epoch(e, OFF(gen), OFF(mmu.gen), 1);
	epoch(e, OFF(link), OFF(mmu.links), 1);
	dword_op(e, true, 0xc7, 0, OFF(gen_global), 1);
	dword_op(e, true, 0xc7, 0, OFF(link_global), 1);
	go(e, H_RCX);
	e_mem(e, false, 0xff, 4, H_S2, offsetof(struct jump, host));	/* jmp */
	emit_ways_out(j, e, &w);
}

/* --- the instructions ------------------------------------------------------------------------ */

bool jit_system_call(struct tr *tr, unsigned k)
{
	const struct tinsn *t = &tr->t[k];
	bool call = t->z.mnemonic == ZYDIS_MNEMONIC_SYSCALL;
	struct emit *e = &tr->e;

	if (!call && (t->z.mnemonic != ZYDIS_MNEMONIC_SYSRET || t->i->size != 8))
		return false;
	dword_op(e, false, 0xc7, 0, OFF(aside[JIT_SOURCE]),
		 jit_meta_insn(tr, META_TRANSFER, k));
	if (call) {
		e_ld(e, H_S2, OFF(scratch[JIT_PAGE_VA]));
		e_lea(e, true, H_S2, H_S2, -1, 0, t->off + t->i->len);
		e_st(e, OFF(scratch[JIT_CODE]), H_S2);
	}
	e_patch(e_jump(e, -1), (call ? tr->j->syscall : tr->j->sysret) + (tr->j->rw - tr->j->rx));
	return true;
}
