/* SPDX-License-Identifier: MIT */
/*
 * mmu.h - guest memory as instructions see it: software TLB and paging.
 *
 * Only src/vmm/soft includes this, through soft.h.  All of this runs on the
 * vCPU's thread and leaves by cpu_raise() when the access faults.
 *
 * Two levels.  The first is direct-mapped, one table per mode, without address
 * space tags, made to be inlined: a hit is index, compare, add.  It holds only
 * RAM; what needs a closer look (devices, pages with decoded code, page table
 * bits to set) has no tag there.  The second is tagged by address space epoch,
 * so that a CR3 switch back finds its entries again.
 */
#ifndef SOFT_MMU_H
#define SOFT_MMU_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/soft/x86.h"

struct soft_cpu;

#define PAGE_MASK (~0xfffull)

/*
 * The slot of an address is bits 12 to 31: what two instructions leave of it, and so
 * many that pages of one process seldom meet in one.  Only slots that are used take
 * memory.
 */
#define TLB_BITS	20
#define TLB_SIZE	(1u << TLB_BITS)

static inline unsigned tlb_slot(uint64_t va)
{
	return (uint32_t)va >> (32 - TLB_BITS);
}

/*
 * The tag of an empty slot: a page whose address belongs in another slot, and not
 * in the next one either.  So neither the page of an access's last byte (the
 * interpreter's check) nor address ^ tag below the page size (the translator's)
 * ever takes it for a hit.  Zero, but where that is this slot or the next.
 */
static inline uint64_t tlb_none(unsigned slot)
{
	return slot == 0 || slot == TLB_SIZE - 1 ? 2 << 12 : 0;
}

/* By slot. */
struct tlb {
	uint64_t rtag[TLB_SIZE], wtag[TLB_SIZE];	/* page address, or tlb_none() */
	uint64_t addend[TLB_SIZE];	/* host address - guest virtual address */
	uint8_t *host[TLB_SIZE];	/* the page in host memory */
};

/* May all of [va, va + len) be read, written, at the address tlb_host() tells? */
static inline bool tlb_reads(const struct tlb *t, uint64_t va, unsigned len)
{
	return ((va + len - 1) & PAGE_MASK) == t->rtag[tlb_slot(va)];
}

static inline bool tlb_writes(const struct tlb *t, uint64_t va, unsigned len)
{
	return ((va + len - 1) & PAGE_MASK) == t->wtag[tlb_slot(va)];
}

static inline void *tlb_host(const struct tlb *t, uint64_t va)
{
	return (void *)(t->addend[tlb_slot(va)] + va);
}

/* Slots that were filled, some more than once. */
#define TLB_LOG 8192
struct tlb_log {
	unsigned nr;
	uint32_t slot[TLB_LOG];
};

/* CPL 3; CPL 0 without access to user pages (SMAP, AC clear); CPL 0 with. */
enum tlb_mode { TLB_USER, TLB_KERNEL, TLB_KERNEL_AC, TLB_MODES };

#define TLB2_BITS	12
#define TLB2_SIZE	(1u << TLB2_BITS)

/* A finished walk. */
struct tlb2_entry {
	uint64_t va;		/* page */
	uint64_t gen;		/* epoch of its address space; 0: empty */
	uint64_t gpa;		/* page */
	uint8_t flags;		/* PTE_W, PTE_U, PTE_D; WALK_* */
};
#define WALK_NX		0x80
#define WALK_GLOBAL	0x10
#define WALK_LARGE	0x08
#define WALK_RAM	0x20

#define MMU_SPACES 8
#define EXEC_BITS 65536
struct mmu_space {
	uint16_t pcid;
	uint64_t gen;		/* 0: unused; multiple of 4 */
	uint64_t links;		/* the like for jumps: see struct mmu */
	uint64_t used;		/* for eviction */
};

struct mmu {
	struct tlb_log log[TLB_MODES][2];	/* to be emptied; [1]: of global pages */
	struct tlb2_entry tlb2[TLB2_SIZE];
	struct mmu_space space[MMU_SPACES];
	uint64_t gen;		/* of the current address space */
	uint64_t gen_global;	/* of global pages */
	/* The same for what jumps remember of their targets (jit_site.c): changes with
	 * the above, and when a page that was executed is invalidated. */
	uint64_t links, links_global;
	uint64_t next_gen, tick;
	uint64_t narrowed;	/* times that entries of tlb[] were taken back */
	uint64_t rsvd;		/* page table bits above the physical width */
	bool watching;		/* data breakpoints: nothing goes into tlb */
	bool inherited;		/* all this holds while CR0, CR3, CR4, EFER are */
	uint64_t paging[4];	/* these */
	uint64_t large[64];	/* hash of 2 MiB regions with a large page cut up */
	uint64_t exec[EXEC_BITS / 64];	/* hash of pages in the jump cache */
	unsigned nr_exec;	/* bits of it that are set */
	uint64_t rmw_va, rmw_gpa;	/* rmw_begin() to rmw_end() */
	uint8_t rmw_len;
	bool rmw_bounced;
	uint8_t bounce[64] __attribute__((aligned(64)));
	struct tlb tlb[TLB_MODES] __attribute__((aligned(PAGE_SIZE)));
};

/* What an access wants. */
enum mmu_access {
	ACC_READ = 0, ACC_WRITE = PTE_W, ACC_EXEC = WALK_NX,
	ACC_SYSTEM = 0x100,	/* implicit supervisor access: tables, delivery */
	ACC_PROBE = 0x200,	/* do not fault: 0 when it would */
};

/* len <= 4096.  A write that faults has written nothing. */
void guest_read(struct soft_cpu *cpu, uint64_t va, void *dst, unsigned len);
void guest_write(struct soft_cpu *cpu, uint64_t va, const void *src, unsigned len);
/* Faults unless all of it can be written; marks pages dirty. */
void guest_check_write(struct soft_cpu *cpu, uint64_t va, unsigned len);
/*
 * Host pointer to [va, va + len) for reading, or NULL when it crosses a page or
 * is not RAM (then use guest_read()).  Valid until the instruction ends.
 */
const void *guest_read_ptr(struct soft_cpu *cpu, uint64_t va, unsigned len);
/* The same for writing; NULL for pages with decoded code too. */
void *guest_write_ptr(struct soft_cpu *cpu, uint64_t va, unsigned len);

/*
 * Brings va's page into the TLB where that takes no fault; dirty: it is about to be
 * written.  True when the TLB then allows reading, and writing if asked for.
 */
bool mmu_touch(struct soft_cpu *cpu, uint64_t va, bool dirty, bool write);

/*
 * A walk's result into the first level; sys: ACC_SYSTEM, or 0.  The current mode's
 * table, or for ACC_SYSTEM the kernel's.
 */
void mmu_fill(struct soft_cpu *cpu, uint64_t va, const struct tlb2_entry *t, unsigned sys);

/* The walk; NULL only with ACC_PROBE.  Good until the next call. */
const struct tlb2_entry *mmu_translate(struct soft_cpu *cpu, uint64_t va, unsigned acc);
bool mmu_allowed(const struct soft_cpu *cpu, unsigned flags, unsigned acc);

/* What the inline accessors below fall back to. */
uint64_t mmu_load(struct soft_cpu *cpu, uint64_t va, unsigned len);
void mmu_store(struct soft_cpu *cpu, uint64_t va, uint64_t val, unsigned len);
uint8_t *mmu_rmw(struct soft_cpu *cpu, uint64_t va, unsigned len);
void mmu_rmw_end(struct soft_cpu *cpu);

/* Supervisor accesses of the CPU itself: descriptors, IDT, stack pushes. */
uint64_t sys_load(struct soft_cpu *cpu, uint64_t va, unsigned len);
void sys_store(struct soft_cpu *cpu, uint64_t va, uint64_t val, unsigned len);

/* Where instructions are fetched from: gpa, or #PF.  Non-RAM: UINT64_MAX. */
uint64_t mmu_fetch(struct soft_cpu *cpu, uint64_t va, bool *global);
/* Notes that the jump cache is about to have code of this page, or of the next too. */
void mmu_exec_mark(struct soft_cpu *cpu, uint64_t va, bool straddles);
/* Device registers and memory that is not there; bus.c of this folder. */
uint64_t mmio_load(struct soft_cpu *cpu, uint64_t gpa, unsigned len);
void mmio_store(struct soft_cpu *cpu, uint64_t gpa, uint64_t val, unsigned len);

void mmu_init(struct soft_cpu *cpu);
/* The CPU's state is about to be set anew, perhaps to what it is; and it has been. */
void mmu_inherit(struct soft_cpu *cpu);
void mmu_restored(struct soft_cpu *cpu);
void mmu_set_cr3(struct soft_cpu *cpu, uint64_t val);	/* CR3 was written */
void mmu_flush_all(struct soft_cpu *cpu);		/* global ones too */
void mmu_flush_local(struct soft_cpu *cpu);
void mmu_invlpg(struct soft_cpu *cpu, uint64_t va);
void mmu_invpcid(struct soft_cpu *cpu, unsigned type, uint16_t pcid, uint64_t va);
/* RFLAGS.AC or CPL changed, which picks the table. */
enum tlb_mode mmu_mode(const struct soft_cpu *cpu);
/* Writes to this page take the slow path from now on. */
void mmu_protect(struct soft_cpu *cpu, uint64_t gpa);

#endif
