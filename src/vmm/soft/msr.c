// SPDX-License-Identifier: MIT
/*
 * msr.c - the model-specific registers, in one table.
 *
 * A row is a register with storage of its own, one that only remembers what was
 * written to it, a constant, or a pair of functions.  LAPIC and clock registers
 * are theirs (lapic.h, clock.h).  What is not in the table is #GP, which kernels
 * expect and handle.
 */
#include "base/log.h"
#include "vmm/soft/sys.h"

enum msr_kind {
	MSR_FIELD,	/* a field of struct soft_cpu */
	MSR_ADDRESS,	/* the same, must be canonical */
	MSR_STORED,	/* cpu->msr[arg]; no effect */
	MSR_CONST,	/* arg; writes are ignored */
	MSR_FUNC,
};

struct msr_desc {
	uint32_t index;
	enum msr_kind kind;
	uint64_t arg;		/* offset, or slot, or value */
	bool saved;		/* in snapshots */
	uint64_t reset;		/* of a stored one */
	uint64_t mask;		/* writable bits of a stored or field one; 0: all */
	bool (*write)(struct soft_cpu *cpu, uint64_t val);
};

#define FIELD(f) offsetof(struct soft_cpu, f)

static bool write_efer(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t fixed = EFER_LMA | EFER_LME;

	if (v & ~(uint64_t)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX))
		return false;
	if (!(v & EFER_LME))
		return false;	/* paging is on: LME cannot change */
	if ((cpu->efer ^ v) & EFER_NX)
		mmu_flush_all(cpu);
	cpu->efer = (v & ~fixed) | fixed;
	return true;
}

enum {
	SLOT_PAT, SLOT_MISC_ENABLE, SLOT_SYSENTER_CS, SLOT_SYSENTER_ESP,
	SLOT_SYSENTER_EIP, SLOT_SPEC_CTRL, SLOT_MTRR_DEF, SLOT_XSS,
	SLOT_MTRR_VAR,			/* 16 */
	SLOT_MTRR_FIX = SLOT_MTRR_VAR + 16,	/* 11 */
	SLOT_NR = SLOT_MTRR_FIX + 11,
};
_Static_assert(SLOT_NR <= MSR_NR_STORED, "room for stored MSRs");

#define STORE(i, slot, ...) \
	{ .index = i, .kind = MSR_STORED, .arg = slot, .saved = true, __VA_ARGS__ }

static const struct msr_desc table[] = {
	{ .index = MSR_EFER, .kind = MSR_FUNC, .arg = FIELD(efer), .write = write_efer },
	{ .index = MSR_STAR, .kind = MSR_FIELD, .arg = FIELD(star), .saved = true },
	{ .index = MSR_LSTAR, .kind = MSR_ADDRESS, .arg = FIELD(lstar), .saved = true },
	{ .index = MSR_CSTAR, .kind = MSR_ADDRESS, .arg = FIELD(cstar), .saved = true },
	{ .index = MSR_SFMASK, .kind = MSR_FIELD, .arg = FIELD(sfmask), .saved = true,
	  .mask = 0xffffffff },
	{ .index = MSR_FS_BASE, .kind = MSR_ADDRESS, .arg = FIELD(fs_base) },
	{ .index = MSR_GS_BASE, .kind = MSR_ADDRESS, .arg = FIELD(gs_base) },
	{ .index = MSR_KERNEL_GS_BASE, .kind = MSR_ADDRESS, .arg = FIELD(kernel_gs_base),
	  .saved = true },
	{ .index = MSR_TSC_AUX, .kind = MSR_FIELD, .arg = FIELD(tsc_aux), .saved = true,
	  .mask = 0xffffffff },
	STORE(0x174, SLOT_SYSENTER_CS, .mask = 0xffff),
	STORE(0x175, SLOT_SYSENTER_ESP),
	STORE(0x176, SLOT_SYSENTER_EIP),
	STORE(0x277, SLOT_PAT, .reset = 0x0007040600070406),
	STORE(0x1a0, SLOT_MISC_ENABLE, .reset = 1),	/* fast strings */
	STORE(0x48, SLOT_SPEC_CTRL),
	STORE(0x2ff, SLOT_MTRR_DEF, .reset = 0xc06),	/* on, all write-back */
	STORE(0xda0, SLOT_XSS, .mask = 1ull << 63),
	{ .index = 0x49, .kind = MSR_CONST },		/* PRED_CMD */
	{ .index = 0xfe, .kind = MSR_CONST, .arg = 0x508 },	/* MTRRCAP: 8, fixed, WC */
	{ .index = 0x8b, .kind = MSR_CONST, .arg = 1ull << 32 },	/* microcode */
	{ .index = 0x17, .kind = MSR_CONST },		/* PLATFORM_ID */
	{ .index = 0x179, .kind = MSR_CONST },		/* MCG_CAP: no banks */
	{ .index = 0x17a, .kind = MSR_CONST },		/* MCG_STATUS */
	{ .index = 0x1d9, .kind = MSR_CONST },		/* DEBUGCTL */
	{ .index = 0x10a, .kind = MSR_CONST },		/* ARCH_CAPABILITIES */
	{ .index = 0xc0010015, .kind = MSR_CONST, .arg = 1u << 24 },	/* HWCR: TscFreqSel */
	{ .index = 0xc001001f, .kind = MSR_CONST },	/* NB_CFG */
	{ .index = 0xc0011029, .kind = MSR_CONST, .arg = 2 },	/* DE_CFG: LFENCE serialises */
	{ .index = 0xc0010010, .kind = MSR_CONST },	/* SYSCFG */
};

/* MTRRs: ranges of registers that only remember. */
static int mtrr_slot(uint32_t index)
{
	static const uint32_t fixed[11] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b,
					    0x26c, 0x26d, 0x26e, 0x26f };

	if (index >= 0x200 && index < 0x210)
		return SLOT_MTRR_VAR + (index - 0x200);
	for (unsigned k = 0; k < ARRAY_LEN(fixed); k++)
		if (index == fixed[k])
			return SLOT_MTRR_FIX + k;
	return -1;
}

static const struct msr_desc *find(uint32_t index)
{
	for (unsigned k = 0; k < ARRAY_LEN(table); k++)
		if (table[k].index == index)
			return &table[k];
	return NULL;
}

static uint64_t *storage(struct soft_cpu *cpu, const struct msr_desc *d)
{
	if (d->kind == MSR_STORED)
		return &cpu->msr[d->arg];
	return (uint64_t *)(void *)((char *)cpu + d->arg);
}

/* Outside our code: kvmclock pages are guest memory, and logging is libc's. */
static bool clock_msr(struct soft_cpu *cpu, uint32_t index, uint64_t *val, bool write)
{
	bool live = cpu->fp_live, ok;

	fp_save(cpu);
	ok = gclock_msr(&cpu->time, index, val, write);
	if (!ok)
		log_debug("cpu", "%s of MSR %#x at %#llx: #GP", write ? "write" : "read",
			  index, (unsigned long long)cpu->rip);
	if (live)
		fp_load(cpu);
	return ok;
}

static bool other_msr(struct soft_cpu *cpu, uint32_t index, uint64_t *val, bool write)
{
	int slot = mtrr_slot(index);

	if (slot >= 0) {
		if (write)
			cpu->msr[slot] = *val;
		else
			*val = cpu->msr[slot];
		return true;
	}
	return lapic_msr(&cpu->lapic, index, val, write) ||
	       clock_msr(cpu, index, val, write);
}

bool msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *val)
{
	const struct msr_desc *d = find(index);

	if (!d)
		return other_msr(cpu, index, val, false);
	*val = d->kind == MSR_CONST ? d->arg : *storage(cpu, d);
	return true;
}

bool msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t val)
{
	const struct msr_desc *d = find(index);

	if (!d)
		return other_msr(cpu, index, &val, true);
	if (d->write)
		return d->write(cpu, val);
	if (d->kind == MSR_CONST)
		return true;
	if (d->mask && (val & ~d->mask))
		return false;
	if (d->kind == MSR_ADDRESS && (uint64_t)((int64_t)(val << 16) >> 16) != val)
		return false;
	*storage(cpu, d) = val;
	return true;
}

void msr_reset(struct soft_cpu *cpu)
{
	for (unsigned k = 0; k < ARRAY_LEN(table); k++)
		if (table[k].kind == MSR_STORED)
			cpu->msr[table[k].arg] = table[k].reset;
}

/* --- snapshots: what is not in struct x86_state by name ------------------------------------ */

static void put(struct x86_state *s, uint32_t index, uint64_t value)
{
	if (s->nr_msrs < X86_MAX_MSRS)
		s->msr[s->nr_msrs++] = (struct x86_msr){ index, value };
}

/* Order matters on the way back: TSC_ADJUST and clocks come last. */
static const uint32_t clock_msrs[] = {
	MSR_TSC_ADJUST, MSR_KVM_WALL, MSR_KVM_TIME,
};

void msr_get_all(struct soft_cpu *cpu, struct x86_state *s)
{
	uint64_t v;

	s->nr_msrs = 0;
	for (unsigned k = 0; k < ARRAY_LEN(table); k++)
		if (table[k].saved)
			put(s, table[k].index, *storage(cpu, &table[k]));
	for (uint32_t index = 0x200; index < 0x270; index++)
		if (mtrr_slot(index) >= 0)
			put(s, index, cpu->msr[mtrr_slot(index)]);
	for (unsigned k = 0; k < ARRAY_LEN(clock_msrs); k++)
		if (gclock_msr(&cpu->time, clock_msrs[k], &v, false))
			put(s, clock_msrs[k], v);
}

void msr_set_all(struct soft_cpu *cpu, const struct x86_state *s)
{
	for (unsigned k = 0; k < s->nr_msrs && k < X86_MAX_MSRS; k++) {
		uint32_t index = s->msr[k].index;

		/* the state has these by name */
		if (index == MSR_EFER || index == MSR_FS_BASE || index == MSR_GS_BASE ||
		    index == MSR_TSC || index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE)
			continue;
		if (!msr_write(cpu, index, s->msr[k].value))
			log_debug("cpu", "MSR %#x of the snapshot is not known here", index);
	}
}
