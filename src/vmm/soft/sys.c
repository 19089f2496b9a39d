// SPDX-License-Identifier: MIT
/*
 * sys.c - system instructions: control and debug registers, SYSCALL and SYSRET,
 * interrupt flag, HLT, CPUID, time stamps, TLB maintenance, fences.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/jit.h"
#include "vmm/soft/ops.h"
#include "vmm/soft/seg.h"
#include "vmm/soft/sys.h"

#define TRANSFER(name) \
	HANDLER(name) \
	{ \
		name##_transfer(cpu, i); \
		return branch_to(cpu, i); \
	}

static inline void privileged(struct soft_cpu *cpu)
{
	if (cpu->cpl)
		cpu_gp(cpu);
}

/* --- control registers ---------------------------------------------------------------- */

#define CR0_KNOWN (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | \
		   CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_KNOWN (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | \
		   CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | \
		   CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)

/* Long mode is never left: clearing PE, PG or PAE is refused. */
static void write_cr0(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->cr0;

	if (v >> 32 || !(v & CR0_PE) || !(v & CR0_PG) || ((v & CR0_NW) && !(v & CR0_CD)))
		cpu_gp(cpu);
	cpu->cr0 = (v & CR0_KNOWN) | CR0_ET;
	fp_mode_changed(cpu);
	if ((old ^ cpu->cr0) & CR0_WP)
		mmu_flush_all(cpu);
}

static void write_cr3(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t addr = v & ~CR3_NOFLUSH;

	if (!(cpu->cr4 & CR4_PCIDE) && (v & CR3_NOFLUSH))
		cpu_gp(cpu);
	if (addr >> 52 || (addr & cpu->mmu.rsvd))
		cpu_gp(cpu);
	mmu_set_cr3(cpu, v);
}

static void write_cr4(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->cr4;

	if ((v & ~(uint64_t)CR4_KNOWN) || !(v & CR4_PAE))
		cpu_gp(cpu);
	if ((v & ~old & CR4_PCIDE) && (cpu->cr3 & 0xfff))
		cpu_gp(cpu);
	cpu->cr4 = v;
	fp_mode_changed(cpu);
	if ((old ^ v) & CR4_SMAP)
		jit_flush(cpu);		/* what knows its TLB's address */
	if ((old ^ v) & (CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		mmu_flush_all(cpu);
}

static void write_cr8(struct soft_cpu *cpu, uint64_t v)
{
	if (v & ~15ull)
		cpu_gp(cpu);
	lapic_set_cr8(&cpu->lapic, v);
	atomic_fetch_or(&cpu->attention, ATT_IRQ);
}

/* Number of the control or debug register: ModRM.reg with REX.R. */
static unsigned special_reg(const struct insn *i)
{
	unsigned at = 0, rex = 0;

	while (i->raw[at] != 0x0f) {
		rex = (i->raw[at] & 0xf0) == 0x40 ? i->raw[at] : 0;
		at++;
	}
	return (i->raw[at + 2] >> 3 & 7) | (rex & 4 ? 8 : 0);
}

HANDLER(read_cr)
{
	uint64_t v;

	privileged(cpu);
	switch (special_reg(i)) {
	case 0: v = cpu->cr0; break;
	case 2: v = cpu->cr2; break;
	case 3: v = cpu->cr3; break;
	case 4: v = cpu->cr4; break;
	case 8: v = lapic_cr8(&cpu->lapic); break;
	default: cpu_ud(cpu);
	}
	set8(cpu, i->rd, v);
	NEXT(cpu, i);
}

static void write_cr_transfer(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t v = reg8(cpu, i->rs);

	privileged(cpu);
	switch (special_reg(i)) {
	case 0: write_cr0(cpu, v); break;
	case 2: cpu->cr2 = v; break;
	case 3: write_cr3(cpu, v); break;
	case 4: write_cr4(cpu, v); break;
	case 8: write_cr8(cpu, v); break;
	default: cpu_ud(cpu);
	}
	cpu->rip += i->len;
}
TRANSFER(write_cr)

HANDLER(clts)
{
	privileged(cpu);
	cpu->cr0 &= ~(uint64_t)CR0_TS;
	fp_mode_changed(cpu);
	NEXT(cpu, i);
}

/* LMSW can set PE but not clear it. */
HANDLER(lmsw)
{
	uint16_t v;

	privileged(cpu);
	v = i->flags & INSN_MEM ? load2(cpu, insn_ea(cpu, i)) : reg2(cpu, i->rd);
	cpu->cr0 = (cpu->cr0 & ~0xeull) | (v & 0xf) | CR0_PE;
	fp_mode_changed(cpu);
	NEXT(cpu, i);
}

/* --- debug registers -------------------------------------------------------------------- */

void debug_update(struct soft_cpu *cpu)
{
	bool watching = false;

	for (unsigned k = 0; k < 4; k++)
		if ((cpu->dr7 >> (2 * k) & 3) && (cpu->dr7 >> (16 + 4 * k) & 1))
			watching = true;
	if (watching != cpu->mmu.watching) {
		cpu->mmu.watching = watching;
		mmu_flush_all(cpu);
	}
	cpu_update_stepping(cpu);
}

void debug_watch(struct soft_cpu *cpu, uint64_t va, unsigned len, bool write)
{
	static const uint8_t size[4] = { 1, 2, 8, 4 };

	for (unsigned k = 0; k < 4; k++) {
		unsigned type = cpu->dr7 >> (16 + 4 * k) & 3;
		unsigned n = size[cpu->dr7 >> (18 + 4 * k) & 3];
		uint64_t at = cpu->dr[k] & ~(uint64_t)(n - 1);

		if (!(cpu->dr7 >> (2 * k) & 3) || !(type & 1) || (type == 1 && !write))
			continue;
		if (va < at + n && at < va + len)
			cpu->pending_db |= 1u << k;
	}
}

static unsigned debug_reg(struct soft_cpu *cpu, const struct insn *i)
{
	unsigned n = special_reg(i);

	if (n > 7 || ((n == 4 || n == 5) && (cpu->cr4 & CR4_DE)))
		cpu_ud(cpu);
	privileged(cpu);
	if (cpu->dr7 & DR7_GD) {
		cpu->dr7 &= ~(uint64_t)DR7_GD;
		cpu->dr6 |= DR6_BD;
		cpu_raise(cpu, VEC_DB, 0);
	}
	return n == 4 || n == 5 ? n + 2 : n;
}

HANDLER(read_dr)
{
	unsigned n = debug_reg(cpu, i);

	set8(cpu, i->rd, n < 4 ? cpu->dr[n] : n == 6 ? cpu->dr6 : cpu->dr7);
	NEXT(cpu, i);
}

HANDLER(write_dr)
{
	unsigned n = debug_reg(cpu, i);
	uint64_t v = reg8(cpu, i->rs);

	if (n < 4) {
		cpu->dr[n] = v;
	} else if (v >> 32) {
		cpu_gp(cpu);
	} else if (n == 6) {
		cpu->dr6 = (v & 0xe00f) | DR6_FIXED;
	} else {
		cpu->dr7 = (v & 0xffff2bff) | DR7_FIXED;
		debug_update(cpu);
	}
	cpu->rip += i->len;
	return branch_to(cpu, i);
}

insn_fn *mov_cr_choose(const struct insn *i)
{
	unsigned at = 0;

	while (i->raw[at] != 0x0f)
		at++;
	switch (i->raw[at + 1]) {
	case 0x20: return read_cr;
	case 0x21: return read_dr;
	case 0x22: return write_cr;
	case 0x23: return write_dr;
	default: return NULL;
	}
}

/* --- SYSCALL ------------------------------------------------------------------------------- */

static void syscall_transfer(struct soft_cpu *cpu, const struct insn *i)
{
	if (!(cpu->efer & EFER_SCE))
		cpu_ud(cpu);
	cpu->gpr[X86_RCX] = cpu->rip + i->len;
	cpu->gpr[X86_R11] = rflags_get(cpu) & ~(uint64_t)FL_RF;
	set_flat(cpu, X86_CS, cpu->star >> 32 & 0xfffc, 0, true);
	set_flat(cpu, X86_SS, (cpu->star >> 32 & 0xfffc) + 8, 0, false);
	cpu->rip = cpu->lstar;
	cpu->cpl = 0;
	rflags_set(cpu, rflags_get(cpu) & ~cpu->sfmask & ~(uint64_t)FL_RF, FL_KNOWN);
	cpu_mode_changed(cpu);
}
TRANSFER(syscall)

/* Without REX.W to 32-bit code, which then gets #UD. */
static void sysret_transfer(struct soft_cpu *cpu, const struct insn *i)
{
	bool wide = i->size == 8;
	uint64_t rip = cpu->gpr[X86_RCX];
	uint16_t sel = cpu->star >> 48;

	if (!(cpu->efer & EFER_SCE))
		cpu_ud(cpu);
	privileged(cpu);
	if (wide && !canonical(rip))
		cpu_gp(cpu);
	set_flat(cpu, X86_CS, (wide ? sel + 16 : sel) | 3, 3, true);
	if (!wide)
		cpu->seg[X86_CS].attr ^= SEG_L | SEG_DB;
	set_flat(cpu, X86_SS, (sel + 8) | 3, 3, false);
	cpu->rip = wide ? rip : (uint32_t)rip;
	cpu->cpl = 3;
	rflags_set(cpu, cpu->gpr[X86_R11], 0x3c7fd7);
	cpu_mode_changed(cpu);
}
TRANSFER(sysret)

/* As with a null SYSENTER_CS: these lead to 32-bit code, which is not ours. */
HANDLER(sysenter)
{
	cpu_gp(cpu);
}

HANDLER(swapgs)
{
	uint64_t base = cpu->gs_base;

	privileged(cpu);
	cpu->gs_base = cpu->kernel_gs_base;
	cpu->kernel_gs_base = base;
	NEXT(cpu, i);
}

/* --- interrupt flag, AC, HLT ------------------------------------------------------------------ */

static inline void need_iopl(struct soft_cpu *cpu)
{
	if (cpu->cpl > (cpu->rflags >> 12 & 3))
		cpu_gp(cpu);
}

HANDLER(cli)
{
	need_iopl(cpu);
	cpu->rflags &= ~FL_IF;
	NEXT(cpu, i);
}

/* See run.c for the shadow.  What follows in the block cannot be interrupted. */
HANDLER(sti)
{
	bool was = cpu->rflags & FL_IF;
	bool last = !i[1].mnemonic;

	need_iopl(cpu);
	cpu->rflags |= FL_IF;
	if (was || (!last && !cpu->irq_latched && !attention(cpu)))
		NEXT(cpu, i);
	cpu_set_shadow(cpu, SHADOW_STI);
	if (cpu->irq_latched)
		atomic_fetch_or(&cpu->attention, ATT_IRQ);
	cpu->rip += i->len;
	cpu->icount += i->nr;
	return NULL;
}

HANDLER(clac)
{
	if (cpu->cpl)
		cpu_ud(cpu);
	cpu->rflags &= ~FL_AC;
	cpu->tlb = &cpu->mmu.tlb[mmu_mode(cpu)];
	NEXT(cpu, i);
}

HANDLER(stac)
{
	if (cpu->cpl)
		cpu_ud(cpu);
	cpu->rflags |= FL_AC;
	cpu->tlb = &cpu->mmu.tlb[mmu_mode(cpu)];
	NEXT(cpu, i);
}

HANDLER(hlt)
{
	privileged(cpu);
	cpu->halted = true;
	cpu->rip += i->len;
	cpu->icount += i->nr;
	atomic_fetch_or(&cpu->attention, ATT_SLOW);
	return NULL;
}

/* --- identification and time --------------------------------------------------------------------- */

HANDLER(cpuid)
{
	uint32_t leaf = cpu->gpr[X86_RAX], out[4];

	cpuid_query(cpu, leaf, cpu->gpr[X86_RCX], out);
	set4(cpu, X86_RAX * 8, out[0]);
	set4(cpu, X86_RBX * 8, out[1]);
	set4(cpu, X86_RCX * 8, out[2]);
	set4(cpu, X86_RDX * 8, out[3]);
	return insn_done(cpu, i);
}

uint64_t cpu_tsc(const struct soft_cpu *cpu)
{
	return gclock_tsc(&cpu->time);
}

static void put_tsc(struct soft_cpu *cpu)
{
	uint64_t t;

	if (cpu->cpl && (cpu->cr4 & CR4_TSD))
		cpu_gp(cpu);
	t = cpu_tsc(cpu);
	set4(cpu, X86_RAX * 8, t);
	set4(cpu, X86_RDX * 8, t >> 32);
}

HANDLER(rdtsc)
{
	put_tsc(cpu);
	NEXT(cpu, i);
}

HANDLER(rdtscp)
{
	put_tsc(cpu);
	set4(cpu, X86_RCX * 8, cpu->tsc_aux);
	NEXT(cpu, i);
}

HANDLER(rdpid)
{
	set8(cpu, i->rd, cpu->tsc_aux);
	NEXT(cpu, i);
}

/* Counters there are none; the leaf that would tell of them says so. */
HANDLER(rdpmc)
{
	cpu_gp(cpu);
}

HANDLER(rdmsr)
{
	uint64_t v;

	privileged(cpu);
	if (!msr_read(cpu, cpu->gpr[X86_RCX], &v))
		cpu_gp(cpu);
	set4(cpu, X86_RAX * 8, v);
	set4(cpu, X86_RDX * 8, v >> 32);
	return insn_done(cpu, i);
}

static void wrmsr_transfer(struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t v = (uint64_t)reg4(cpu, X86_RDX * 8) << 32 | reg4(cpu, X86_RAX * 8);

	privileged(cpu);
	if (!msr_write(cpu, cpu->gpr[X86_RCX], v))
		cpu_gp(cpu);
	cpu->rip += i->len;
}
TRANSFER(wrmsr)

HANDLER(xgetbv)
{
	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_ud(cpu);
	if (reg4(cpu, X86_RCX * 8) > 1)
		cpu_gp(cpu);
	set4(cpu, X86_RAX * 8, cpu->xcr0);
	set4(cpu, X86_RDX * 8, cpu->xcr0 >> 32);
	NEXT(cpu, i);
}

HANDLER(xsetbv)
{
	uint64_t v = (uint64_t)reg4(cpu, X86_RDX * 8) << 32 | reg4(cpu, X86_RAX * 8);

	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_ud(cpu);
	privileged(cpu);
	if (reg4(cpu, X86_RCX * 8) || !xcr0_valid(cpu, v))
		cpu_gp(cpu);
	cpu->xcr0 = v;
	fp_mode_changed(cpu);
	NEXT(cpu, i);
}

/* --- segment bases ---------------------------------------------------------------------------------- */

static void need_fsgsbase(struct soft_cpu *cpu)
{
	if (!(cpu->cr4 & CR4_FSGSBASE))
		cpu_ud(cpu);
}

HANDLER(rdfsbase)
{
	need_fsgsbase(cpu);
	set_n(cpu, i->rd, cpu->fs_base, i->size);
	NEXT(cpu, i);
}

HANDLER(rdgsbase)
{
	need_fsgsbase(cpu);
	set_n(cpu, i->rd, cpu->gs_base, i->size);
	NEXT(cpu, i);
}

HANDLER(wrfsbase)
{
	uint64_t v = reg_n(cpu, i->rd, i->size);

	need_fsgsbase(cpu);
	if (!canonical(v))
		cpu_gp(cpu);
	cpu->fs_base = v;
	NEXT(cpu, i);
}

HANDLER(wrgsbase)
{
	uint64_t v = reg_n(cpu, i->rd, i->size);

	need_fsgsbase(cpu);
	if (!canonical(v))
		cpu_gp(cpu);
	cpu->gs_base = v;
	NEXT(cpu, i);
}

/* --- TLB and caches ----------------------------------------------------------------------------------- */

static void invlpg_transfer(struct soft_cpu *cpu, const struct insn *i)
{
	privileged(cpu);
	mmu_invlpg(cpu, insn_ea(cpu, i));
	cpu->rip += i->len;
}
TRANSFER(invlpg)

HANDLER(invpcid)
{
	uint64_t type = reg8(cpu, i->rd), desc[2];

	privileged(cpu);
	guest_read(cpu, insn_ea(cpu, i), desc, sizeof(desc));
	if (type > 3 || desc[0] >> 12 || (type == 0 && !canonical(desc[1])))
		cpu_gp(cpu);
	if (type < 2 && !(cpu->cr4 & CR4_PCIDE) && desc[0])
		cpu_gp(cpu);
	mmu_invpcid(cpu, type, desc[0], desc[1]);
	cpu->rip += i->len;
	return NULL;
}

/* Caches are coherent here. */
HANDLER(cache_all)
{
	privileged(cpu);
	NEXT(cpu, i);
}

/* Faults as a load of the byte does. */
HANDLER(cache_line)
{
	load1(cpu, insn_ea(cpu, i));
	NEXT(cpu, i);
}

HANDLER(fence)
{
	__asm__ volatile("mfence" : : : "memory");
	NEXT(cpu, i);
}

/* Ends the block, so that code written before is fetched again. */
HANDLER(serialize)
{
	cpu->rip += i->len;
	return branch_to(cpu, i);
}

#define RANDOM(op, n, T) \
	HANDLER(op##n) \
	{ \
		T v = 0; \
		uint32_t cc; \
		__asm__ volatile(#op " %[v]" CC_OUT : [v] "=&r"(v), "=&a"(cc) : : "cc"); \
		set##n(cpu, i->rd, v); \
		cpu->cc = (uint16_t)cc; \
		NEXT(cpu, i); \
	}
RANDOM(rdrand, 2, uint16_t)
RANDOM(rdrand, 4, uint32_t)
RANDOM(rdrand, 8, uint64_t)
RANDOM(rdseed, 2, uint16_t)
RANDOM(rdseed, 4, uint32_t)
RANDOM(rdseed, 8, uint64_t)
static insn_fn *const rdrand_fn[NR_FORMS][4] = { [FORM_R] = { NULL, rdrand2, rdrand4, rdrand8 } };
static insn_fn *const rdseed_fn[NR_FORMS][4] = { [FORM_R] = { NULL, rdseed2, rdseed4, rdseed8 } };

transfer_fn *transfer_of(const struct insn *i)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: return write_cr_transfer;	/* no other MOV ends a block */
	case ZYDIS_MNEMONIC_SYSCALL: return syscall_transfer;
	case ZYDIS_MNEMONIC_SYSRET: return sysret_transfer;
	case ZYDIS_MNEMONIC_IRETQ: return iret_transfer;
	case ZYDIS_MNEMONIC_WRMSR: return wrmsr_transfer;
	case ZYDIS_MNEMONIC_INVLPG: return invlpg_transfer;
	default: return NULL;
	}
}

const struct op ops_sys[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_CLTS, .any = clts },
	{ .mnemonic = ZYDIS_MNEMONIC_LMSW, .any = lmsw },
	{ .mnemonic = ZYDIS_MNEMONIC_SYSCALL, .flags = INSN_END, .any = syscall },
	{ .mnemonic = ZYDIS_MNEMONIC_SYSRET, .flags = INSN_END, .any = sysret },
	{ .mnemonic = ZYDIS_MNEMONIC_SYSENTER, .flags = INSN_END, .any = sysenter },
	{ .mnemonic = ZYDIS_MNEMONIC_SYSEXIT, .flags = INSN_END, .any = sysenter },
	{ .mnemonic = ZYDIS_MNEMONIC_SWAPGS, .any = swapgs },
	{ .mnemonic = ZYDIS_MNEMONIC_CLI, .any = cli },
	{ .mnemonic = ZYDIS_MNEMONIC_STI, .any = sti },
	{ .mnemonic = ZYDIS_MNEMONIC_CLAC, .any = clac },
	{ .mnemonic = ZYDIS_MNEMONIC_STAC, .any = stac },
	{ .mnemonic = ZYDIS_MNEMONIC_HLT, .flags = INSN_END, .any = hlt },
	{ .mnemonic = ZYDIS_MNEMONIC_CPUID, .any = cpuid },
	{ .mnemonic = ZYDIS_MNEMONIC_RDTSC, .any = rdtsc },
	{ .mnemonic = ZYDIS_MNEMONIC_RDTSCP, .any = rdtscp },
	{ .mnemonic = ZYDIS_MNEMONIC_RDPID, .any = rdpid },
	{ .mnemonic = ZYDIS_MNEMONIC_RDPMC, .any = rdpmc },
	{ .mnemonic = ZYDIS_MNEMONIC_RDMSR, .any = rdmsr },
	{ .mnemonic = ZYDIS_MNEMONIC_WRMSR, .flags = INSN_END, .any = wrmsr },
	{ .mnemonic = ZYDIS_MNEMONIC_XGETBV, .any = xgetbv },
	{ .mnemonic = ZYDIS_MNEMONIC_XSETBV, .any = xsetbv },
	{ .mnemonic = ZYDIS_MNEMONIC_RDFSBASE, .any = rdfsbase },
	{ .mnemonic = ZYDIS_MNEMONIC_RDGSBASE, .any = rdgsbase },
	{ .mnemonic = ZYDIS_MNEMONIC_WRFSBASE, .any = wrfsbase },
	{ .mnemonic = ZYDIS_MNEMONIC_WRGSBASE, .any = wrgsbase },
	{ .mnemonic = ZYDIS_MNEMONIC_INVLPG, .flags = INSN_END, .any = invlpg },
	{ .mnemonic = ZYDIS_MNEMONIC_INVPCID, .flags = INSN_END, .any = invpcid },
	{ .mnemonic = ZYDIS_MNEMONIC_INVD, .any = cache_all },
	{ .mnemonic = ZYDIS_MNEMONIC_WBINVD, .any = cache_all },
	{ .mnemonic = ZYDIS_MNEMONIC_CLFLUSH, .any = cache_line },
	{ .mnemonic = ZYDIS_MNEMONIC_CLFLUSHOPT, .any = cache_line },
	{ .mnemonic = ZYDIS_MNEMONIC_CLWB, .any = cache_line },
	{ .mnemonic = ZYDIS_MNEMONIC_MFENCE, .any = fence },
	{ .mnemonic = ZYDIS_MNEMONIC_LFENCE, .any = fence },
	{ .mnemonic = ZYDIS_MNEMONIC_SFENCE, .any = fence },
	{ .mnemonic = ZYDIS_MNEMONIC_SERIALIZE, .flags = INSN_END, .any = serialize },
	{ .mnemonic = ZYDIS_MNEMONIC_RDRAND, .form = rdrand_fn },
	{ .mnemonic = ZYDIS_MNEMONIC_RDSEED, .form = rdseed_fn },
	{ .mnemonic = 0 },
};
