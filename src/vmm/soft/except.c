// SPDX-License-Identifier: MIT
/*
 * except.c - delivery of exceptions and interrupts through the IDT, and the ways
 * back: IRET and far RET.
 *
 * Everything is read and checked before anything of the CPU changes; stack
 * writes may have happened when a later one faults, as on hardware.  A fault
 * in here becomes a double or triple fault in cpu_raise().
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"
#include "vmm/soft/seg.h"

#define GATE_INTERRUPT	14
#define GATE_TRAP	15

/* Error code about IDT entry `vector`. */
static uint32_t idt_error(const struct soft_event *e)
{
	return e->vector * 8u | 2 | (e->soft ? 0 : 1);
}

struct gate {
	uint64_t rip;
	uint16_t sel;
	unsigned type, ist;
};

static struct gate gate_load(struct soft_cpu *cpu, const struct soft_event *e)
{
	uint64_t at = cpu->idt.base + e->vector * 16u, lo, hi;
	struct gate g;

	if (e->vector * 16u + 15 > cpu->idt.limit)
		cpu_raise(cpu, VEC_GP, idt_error(e));
	lo = sys_load(cpu, at, 8);
	hi = sys_load(cpu, at + 8, 8);
	g.type = lo >> 40 & 0x1f;
	if (g.type != GATE_INTERRUPT && g.type != GATE_TRAP)
		cpu_raise(cpu, VEC_GP, idt_error(e));
	if (e->soft && cpu->cpl > (lo >> 45 & 3))
		cpu_raise(cpu, VEC_GP, idt_error(e));
	if (!(lo >> 47 & 1))
		cpu_raise(cpu, VEC_NP, idt_error(e));
	g.rip = (lo & 0xffff) | (lo >> 32 & 0xffff0000) | hi << 32;
	g.sel = lo >> 16;
	g.ist = lo >> 32 & 7;
	return g;
}

/* The handler's code segment; its privilege level in *cpl. */
static uint64_t handler_cs(struct soft_cpu *cpu, uint16_t sel, unsigned ext, unsigned *cpl)
{
	uint64_t desc;
	unsigned attr;

	if (!(sel & ~3u))
		cpu_raise(cpu, VEC_GP, ext);
	if (!desc_try(cpu, sel, &desc))
		cpu_raise(cpu, VEC_GP, (sel & ~3u) | ext);
	attr = desc >> 40;
	if (!(attr & SEG_S) || !(attr & 8) || SEG_DPL(attr) > cpu->cpl)
		cpu_raise(cpu, VEC_GP, (sel & ~3u) | ext);
	if (!(attr & SEG_L) || (attr & SEG_DB))
		cpu_raise(cpu, VEC_GP, (sel & ~3u) | ext);
	if (!(attr & SEG_P))
		cpu_raise(cpu, VEC_NP, (sel & ~3u) | ext);
	*cpl = attr & 4 ? cpu->cpl : SEG_DPL(attr);
	return desc;
}

/* A stack pointer from the 64-bit TSS. */
static uint64_t tss_stack(struct soft_cpu *cpu, unsigned off, unsigned ext)
{
	const struct x86_segment *tr = &cpu->seg[X86_TR];
	uint64_t rsp;

	if (off + 7 > tr->limit)
		cpu_raise(cpu, VEC_TS, (tr->sel & ~3u) | ext);
	rsp = sys_load(cpu, tr->base + off, 8);
	if (!canonical(rsp))
		cpu_raise(cpu, VEC_SS, ext);
	return rsp;
}

static bool is_fault(const struct soft_event *e)
{
	return !e->trap && e->vector != VEC_DB && e->vector != VEC_DF;
}

void event_deliver(struct soft_cpu *cpu)
{
	const struct soft_event e = cpu->event;
	unsigned ext = !e.soft, cpl;
	struct gate g = gate_load(cpu, &e);
	uint64_t desc = handler_cs(cpu, g.sel, ext, &cpl);
	uint64_t rsp = cpu->gpr[X86_RSP], flags = rflags_get(cpu);

	if (g.ist)
		rsp = tss_stack(cpu, 0x24 + 8 * (g.ist - 1), ext);
	else if (cpl < cpu->cpl)
		rsp = tss_stack(cpu, 4 + 8 * cpl, ext);
	if (!canonical(g.rip))
		cpu_raise(cpu, VEC_GP, ext);
	if (is_fault(&e))
		flags |= FL_RF;
	rsp &= ~15ull;
	sys_store(cpu, rsp - 8, cpu->seg[X86_SS].sel, 8);
	sys_store(cpu, rsp - 16, cpu->gpr[X86_RSP], 8);
	sys_store(cpu, rsp - 24, flags, 8);
	sys_store(cpu, rsp - 32, cpu->seg[X86_CS].sel, 8);
	sys_store(cpu, rsp - 40, e.next, 8);
	rsp -= 40;
	if (e.has_error) {
		rsp -= 8;
		sys_store(cpu, rsp, e.error, 8);
	}
	if (cpl != cpu->cpl)
		set_null_ss(cpu, cpl);
	cpu->gpr[X86_RSP] = rsp;
	cpu->rip = g.rip;
	cpu->rflags &= ~(FL_TF | FL_NT | FL_RF | FL_VM);
	if (g.type == GATE_INTERRUPT)
		cpu->rflags &= ~FL_IF;
	set_cs(cpu, g.sel, desc, cpl);
	cpu->shadow = SHADOW_NONE;
	cpu_update_stepping(cpu);
}

/* --- the ways back ------------------------------------------------------------------------------ */

struct frame {
	uint64_t rip, cs, flags, rsp, ss;
};

/* Checks of the code segment a return goes to; its descriptor. */
static uint64_t return_cs(struct soft_cpu *cpu, uint16_t sel)
{
	unsigned rpl = sel & 3, attr;
	uint64_t desc;

	if (!(sel & ~3u))
		cpu_gp(cpu);
	desc = desc_load(cpu, sel, VEC_GP);
	attr = desc >> 40;
	if (!(attr & SEG_S) || !(attr & 8) || rpl < cpu->cpl)
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (attr & 4 ? SEG_DPL(attr) > rpl : SEG_DPL(attr) != rpl)
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (!(attr & SEG_P))
		cpu_raise(cpu, VEC_NP, sel & ~3u);
	if ((attr & SEG_L) && (attr & SEG_DB))
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	return desc;
}

/* The stack segment of a return: null only for 64-bit code that is not CPL 3. */
static uint64_t return_ss(struct soft_cpu *cpu, uint16_t sel, unsigned cpl, bool long_cs)
{
	unsigned attr;
	uint64_t desc;

	if (!(sel & ~3u)) {
		if (!long_cs || cpl == 3 || (sel & 3) != cpl)
			cpu_gp(cpu);
		return 0;
	}
	desc = desc_load(cpu, sel, VEC_GP);
	attr = desc >> 40;
	if ((sel & 3) != cpl || SEG_DPL(attr) != cpl || !(attr & SEG_S) ||
	    (attr & 0xa) != 2)
		cpu_raise(cpu, VEC_GP, sel & ~3u);
	if (!(attr & SEG_P))
		cpu_raise(cpu, VEC_SS, sel & ~3u);
	return desc;
}

/* Data segments the outer level may not have become null. */
static void drop_segments(struct soft_cpu *cpu)
{
	static const uint8_t data[] = { X86_ES, X86_DS, X86_FS, X86_GS };

	for (unsigned k = 0; k < sizeof(data); k++) {
		struct x86_segment *s = &cpu->seg[data[k]];

		if ((s->attr & X86_SEG_UNUSABLE) || (s->attr & 0xc) == 0xc)
			continue;
		if (SEG_DPL(s->attr) < cpu->cpl)
			*s = (struct x86_segment){ .attr = X86_SEG_UNUSABLE };
	}
}

static void set_ss(struct soft_cpu *cpu, uint16_t sel, uint64_t desc, unsigned cpl)
{
	if (!desc) {
		set_null_ss(cpu, cpl);
		cpu->seg[X86_SS].sel = sel;
		return;
	}
	desc_accessed(cpu, sel, desc);
	cpu->seg[X86_SS] = desc_unpack(sel, desc);
	cpu->seg[X86_SS].attr |= 1;
}

/* Everything but flags; with_stack: the frame has RSP and SS. */
static void return_to(struct soft_cpu *cpu, const struct frame *f, bool with_stack)
{
	uint16_t cs = f->cs, ss = f->ss;
	uint64_t desc = return_cs(cpu, cs), ss_desc = 0;
	unsigned cpl = cs & 3, old = cpu->cpl;
	bool long_cs = desc >> 40 & SEG_L;

	if (with_stack)
		ss_desc = return_ss(cpu, ss, cpl, long_cs);
	if (long_cs && !canonical(f->rip))
		cpu_gp(cpu);
	desc_accessed(cpu, cs, desc);
	set_cs(cpu, cs, desc, cpl);
	if (with_stack) {
		set_ss(cpu, ss, ss_desc, cpl);
		cpu->gpr[X86_RSP] = long_cs ? f->rsp : (uint32_t)f->rsp;
	}
	cpu->rip = long_cs ? f->rip : (uint32_t)f->rip;
	if (cpl > old)
		drop_segments(cpu);
}

void iret_transfer(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t sp = cpu->gpr[X86_RSP], mask = FL_CC | FL_TF | FL_DF | FL_NT;
	unsigned n = i->size, cpl = cpu->cpl;
	struct frame f;

	if (cpu->rflags & FL_NT)
		cpu_gp(cpu);
	f.rip = load_n(cpu, sp, n);
	f.cs = load_n(cpu, sp + n, n);
	f.flags = load_n(cpu, sp + 2 * n, n);
	f.rsp = load_n(cpu, sp + 3 * n, n);
	f.ss = load_n(cpu, sp + 4 * n, n);
	return_to(cpu, &f, true);
	if (n > 2)
		mask |= FL_RF | FL_AC | FL_ID;
	if (cpl <= (cpu->rflags >> 12 & 3))
		mask |= FL_IF;
	if (cpl == 0)
		mask |= FL_IOPL;
	cpu->nmi_masked = false;
	rflags_set(cpu, f.flags, mask);
	if (cpu->nmi_pending)
		atomic_fetch_or(&cpu->attention, ATT_SLOW);
}
HANDLER(iret)
{
	iret_transfer(cpu, i);
	return branch_to(cpu, i);
}

void far_return(struct soft_cpu *cpu, unsigned n, unsigned drop)
{
	uint64_t sp = cpu->gpr[X86_RSP];
	struct frame f = { 0 };
	bool outer;

	f.rip = load_n(cpu, sp, n);
	f.cs = load_n(cpu, sp + n, n);
	outer = (f.cs & 3) > cpu->cpl;
	if (outer) {
		f.rsp = load_n(cpu, sp + 2 * n + drop, n);
		f.ss = load_n(cpu, sp + 3 * n + drop, n);
	}
	return_to(cpu, &f, outer);
	if (outer)
		cpu->gpr[X86_RSP] += drop;
	else
		cpu->gpr[X86_RSP] = sp + 2 * n + drop;
}

HANDLER(int_n)
{
	cpu_soft_int(cpu, i->imm & 0xff, i->len);
}
HANDLER(int3)
{
	cpu_soft_int(cpu, VEC_BP, i->len);
}
HANDLER(int1)
{
	cpu->event = (struct soft_event){
		.vector = VEC_DB, .pending = true, .trap = true, .next = cpu->rip + i->len,
	};
	return NULL;
}
HANDLER(ud)
{
	cpu_ud(cpu);
}

const struct op ops_misc[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_IRET, .flags = INSN_END, .any = iret },
	{ .mnemonic = ZYDIS_MNEMONIC_IRETD, .flags = INSN_END, .any = iret },
	{ .mnemonic = ZYDIS_MNEMONIC_IRETQ, .flags = INSN_END, .any = iret },
	{ .mnemonic = ZYDIS_MNEMONIC_INT, .flags = INSN_END, .any = int_n },
	{ .mnemonic = ZYDIS_MNEMONIC_INT3, .flags = INSN_END, .any = int3 },
	{ .mnemonic = ZYDIS_MNEMONIC_INT1, .flags = INSN_END, .any = int1 },
	{ .mnemonic = ZYDIS_MNEMONIC_UD0, .flags = INSN_END, .any = ud },
	{ .mnemonic = ZYDIS_MNEMONIC_UD1, .flags = INSN_END, .any = ud },
	{ .mnemonic = ZYDIS_MNEMONIC_UD2, .flags = INSN_END, .any = ud },
	{ .mnemonic = 0 },
};
