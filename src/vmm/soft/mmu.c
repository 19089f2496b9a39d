// SPDX-License-Identifier: MIT
/*
 * mmu.c - paging: the walk, the second-level TLB, invalidation.
 *
 * Only 4-level paging exists here: a guest of this CPU starts in long mode and
 * cannot leave it.  A walk sets accessed and dirty bits atomically, as devices
 * and (later) other vCPUs may write the same tables.
 *
 * Address spaces: a CR3 value with its PCID has an epoch (`gen`) that tags its
 * entries in the second-level TLB and the jump cache.  Flushing a space is
 * taking a new epoch; switching to it again finds its old one.  Global pages
 * have an epoch of their own.  Epochs are multiples of 4; the low bits tell user
 * from kernel code in the jump cache.
 *
 * A permission that was widened in the page tables is found by a walk before a
 * fault is raised, so stale entries never cause faults.
 */
#include <string.h>

#include "vmm/soft/insn.h"
#include "vmm/soft/jit.h"

/*
 * The lower half of the address space is hashed by epoch too, so that processes do
 * not evict each other; global pages are honoured in the upper half alone.
 */
static inline struct tlb2_entry *tlb2_slot(struct soft_cpu *cpu, uint64_t va)
{
	uint64_t h = va >> 12 ^ va >> 23;

	if (!(va >> 63))
		h ^= cpu->mmu.gen * 0x9e3779b97f4a7c15ull >> 48;
	return &cpu->mmu.tlb2[h & (TLB2_SIZE - 1)];
}

static uint64_t new_gen(struct mmu *m)
{
	return m->next_gen += 4;
}

/* May this access be made through a page with these flags? */
static bool allowed(const struct soft_cpu *cpu, unsigned flags, unsigned acc)
{
	bool user = cpu->cpl == 3 && !(acc & ACC_SYSTEM);

	if (acc & ACC_EXEC) {
		if (flags & WALK_NX)
			return false;
		if (user)
			return flags & PTE_U;
		return !(flags & PTE_U) || !(cpu->cr4 & CR4_SMEP);
	}
	if (user)
		return (flags & PTE_U) && (!(acc & ACC_WRITE) || (flags & PTE_W));
	if ((flags & PTE_U) && (cpu->cr4 & CR4_SMAP) &&
	    ((acc & ACC_SYSTEM) || !(cpu->rflags & FL_AC)))
		return false;
	return !(acc & ACC_WRITE) || (flags & PTE_W) || !(cpu->cr0 & CR0_WP);
}

static uint32_t fault_code(const struct soft_cpu *cpu, unsigned acc, uint32_t why)
{
	if (acc & ACC_WRITE)
		why |= PF_W;
	if (cpu->cpl == 3 && !(acc & ACC_SYSTEM))
		why |= PF_U;
	if ((acc & ACC_EXEC) &&
	    ((cpu->efer & EFER_NX) || (cpu->cr4 & CR4_SMEP)))
		why |= PF_I;
	return why;
}

/* Bits that must be zero in an entry at this level (1: page table). */
static uint64_t reserved(const struct soft_cpu *cpu, unsigned level, uint64_t pte)
{
	uint64_t bad = cpu->mmu.rsvd;

	if (!(cpu->efer & EFER_NX))
		bad |= PTE_NX;
	if (level == 4)
		bad |= PTE_PS;
	else if (level == 3 && (pte & PTE_PS))
		bad |= 0x3fffe000;
	else if (level == 2 && (pte & PTE_PS))
		bad |= 0x1fe000;
	return bad & pte;
}

/* One entry: 1 leaf, 0 go on, -1 not there, -2 reserved bits. */
static int walk_entry(struct soft_cpu *cpu, uint64_t *slot, unsigned level,
		      uint64_t *pte, struct tlb2_entry *e)
{
	*pte = __atomic_load_n(slot, __ATOMIC_RELAXED);
	if (!(*pte & PTE_P))
		return -1;
	if (reserved(cpu, level, *pte))
		return -2;
	if (!(*pte & PTE_W))
		e->flags &= ~PTE_W;
	if (!(*pte & PTE_U))
		e->flags &= ~PTE_U;
	if (*pte & PTE_NX)
		e->flags |= WALK_NX;
	return level == 1 || (*pte & PTE_PS);
}

/* Sets bits in a page table entry that still is what was read. */
static bool mark(uint64_t *slot, uint64_t *pte, uint64_t bits)
{
	if ((*pte & bits) == bits)
		return true;
	if (!__atomic_compare_exchange_n(slot, pte, *pte | bits, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		return false;
	*pte |= bits;
	return true;
}

static void leaf_done(struct soft_cpu *cpu, struct tlb2_entry *e, uint64_t va,
		      uint64_t pte, unsigned level)
{
	uint64_t span = 1ull << (12 + 9 * (level - 1));

	e->va = va & PAGE_MASK;
	e->gpa = (pte & PTE_ADDR & ~(span - 1)) | (va & (span - 1) & PAGE_MASK);
	if (pte & PTE_D)
		e->flags |= PTE_D;
	if (level > 1)
		e->flags |= WALK_LARGE;
	e->gen = cpu->mmu.gen;
	if ((pte & PTE_G) && (cpu->cr4 & CR4_PGE) && va >> 63) {
		e->flags |= WALK_GLOBAL;
		e->gen = cpu->mmu.gen_global;
	}
	if (mem_ptr(cpu->mem, e->gpa, PAGE_SIZE))
		e->flags |= WALK_RAM;
}

enum walk_end { WALK_OK, WALK_FAULT, WALK_RETRY };

static enum walk_end walk_once(struct soft_cpu *cpu, uint64_t va, unsigned acc,
			       struct tlb2_entry *e, uint32_t *why)
{
	uint64_t table = cpu->cr3 & PTE_ADDR, pte;

	e->flags = PTE_W | PTE_U;
	for (unsigned level = 4;; level--) {
		uint64_t at = table + (va >> (3 + 9 * level) & 0x1ff) * 8;
		uint64_t *slot = mem_ptr(cpu->mem, at, 8);
		int r = slot ? walk_entry(cpu, slot, level, &pte, e) : -1;

		if (r < 0) {
			*why = r == -2 ? PF_P | PF_RSVD : 0;
			return WALK_FAULT;
		}
		if (r && !allowed(cpu, e->flags, acc)) {
			*why = PF_P;
			return WALK_FAULT;
		}
		if (!mark(slot, &pte, r && (acc & ACC_WRITE) ? PTE_A | PTE_D : PTE_A))
			return WALK_RETRY;
		if (r) {
			leaf_done(cpu, e, va, pte, level);
			return WALK_OK;
		}
		table = pte & PTE_ADDR;
	}
}

static unsigned large_hash(uint64_t va)
{
	return (va >> 21) * 0x9e3779b97f4a7c15ull >> 52;
}

static void large_mark(struct mmu *m, uint64_t va)
{
	unsigned h = large_hash(va);

	m->large[h >> 6] |= 1ull << (h & 63);
}

static bool large_test(const struct mmu *m, uint64_t va)
{
	unsigned h = large_hash(va);

	return m->large[h >> 6] >> (h & 63) & 1;
}

const struct tlb2_entry *mmu_translate(struct soft_cpu *cpu, uint64_t va,
				       unsigned acc)
{
	struct tlb2_entry *e = tlb2_slot(cpu, va), new;
	struct mmu *m = &cpu->mmu;
	enum walk_end end;
	uint32_t why;

	if (e->va == (va & PAGE_MASK) &&
	    (e->gen == m->gen || e->gen == m->gen_global) &&
	    allowed(cpu, e->flags, acc) &&
	    (!(acc & ACC_WRITE) || (e->flags & PTE_D)))
		return e;
	if (unlikely((uint64_t)((int64_t)(va << 16) >> 16) != va)) {
		if (acc & ACC_PROBE)
			return NULL;
		cpu_noncanonical(cpu, acc);
	}
	do
		end = walk_once(cpu, va, acc, &new, &why);
	while (end == WALK_RETRY);
	cpu->stat.tlb_walk++;
	if (end == WALK_FAULT) {
		if (acc & ACC_PROBE)
			return NULL;
		cpu->cr2 = va;
		cpu_raise(cpu, VEC_PF, fault_code(cpu, acc, why));
	}
	if (new.flags & WALK_LARGE)
		large_mark(m, va);
	*e = new;
	return e;
}

enum tlb_mode mmu_mode(const struct soft_cpu *cpu)
{
	if (cpu->cpl == 3)
		return TLB_USER;
	if (!(cpu->cr4 & CR4_SMAP) || (cpu->rflags & FL_AC))
		return TLB_KERNEL_AC;
	return TLB_KERNEL;
}

bool mmu_allowed(const struct soft_cpu *cpu, unsigned flags, unsigned acc)
{
	return allowed(cpu, flags, acc);
}

uint64_t mmu_fetch(struct soft_cpu *cpu, uint64_t va, bool *global)
{
	const struct tlb2_entry *e = mmu_translate(cpu, va, ACC_EXEC);

	*global = e->flags & WALK_GLOBAL;
	if (!(e->flags & WALK_RAM))
		return UINT64_MAX;
	return e->gpa | (va & ~PAGE_MASK);
}

/* --- pages in the jump cache ---------------------------------------------------- */

static unsigned exec_hash(uint64_t va)
{
	return (va >> 12) * 0x9e3779b97f4a7c15ull >> 48;
}
_Static_assert(EXEC_BITS == 1 << 16, "bits of the hash");

/* Jumps of the current address space, and global ones, remember nothing. */
static void forget_links(struct soft_cpu *cpu)
{
	struct mmu *m = &cpu->mmu;

	m->links = m->links_global = new_gen(m);
	for (unsigned i = 0; i < MMU_SPACES; i++)
		if (m->space[i].gen == m->gen)
			m->space[i].links = m->links;
	cpu_mode_changed(cpu);
}

static void forget_all_links(struct soft_cpu *cpu)
{
	for (unsigned i = 0; i < MMU_SPACES; i++)
		cpu->mmu.space[i].links = new_gen(&cpu->mmu);
	forget_links(cpu);
}

static void exec_forget(struct mmu *m)
{
	for (unsigned i = 0; m->nr_exec && i < ARRAY_LEN(m->exec); i++)
		m->exec[i] = 0;
	m->nr_exec = 0;
}

static void exec_mark(struct mmu *m, uint64_t va)
{
	unsigned h = exec_hash(va);

	m->nr_exec += !(m->exec[h >> 6] >> (h & 63) & 1);
	m->exec[h >> 6] |= 1ull << (h & 63);
}

/*
 * What the filter takes for code costs a search of the jump cache at INVLPG.  Pages
 * of processes that are gone fill it: then it starts afresh, and the cache too.
 */
void mmu_exec_mark(struct soft_cpu *cpu, uint64_t va, bool straddles)
{
	struct mmu *m = &cpu->mmu;

	if (m->nr_exec > EXEC_BITS / 16) {
		block_forget_all(cpu);
		forget_all_links(cpu);
		exec_forget(m);
	}
	exec_mark(m, va);
	if (straddles)
		exec_mark(m, va + PAGE_SIZE);
}

/* --- first level -------------------------------------------------------------- */

static void drop(struct tlb *t, unsigned slot)
{
	t->rtag[slot] = t->wtag[slot] = tlb_none(slot);
}

static void drop_logged(struct tlb *t, struct tlb_log *log)
{
	for (unsigned k = 0; k < log->nr; k++)
		drop(t, log->slot[k]);
	log->nr = 0;
}

/*
 * Where one entry gives way to another, its log goes on naming the slot, so that a
 * global page may be dropped with the others, but none is missed.
 */
static void note_filled(struct mmu *m, enum tlb_mode mode, unsigned slot, bool global)
{
	struct tlb_log *log = &m->log[mode][global];
	uint64_t old = m->tlb[mode].rtag[slot];

	if (old != tlb_none(slot) && (global || !(old >> 63)))
		return;
	if (log->nr == TLB_LOG)
		drop_logged(&m->tlb[mode], log);
	log->slot[log->nr++] = slot;
}

void mmu_fill(struct soft_cpu *cpu, uint64_t va, const struct tlb2_entry *from, unsigned sys)
{
	enum tlb_mode mode = sys ? TLB_KERNEL : mmu_mode(cpu);
	struct tlb *t = &cpu->mmu.tlb[mode];
	unsigned slot = tlb_slot(va);
	uint64_t page = va & PAGE_MASK;

	cpu->stat.tlb_fill++;
	note_filled(&cpu->mmu, mode, slot, from->flags & WALK_GLOBAL);
	t->host[slot] = cpu->mem->base + from->gpa;
	t->addend[slot] = (uint64_t)t->host[slot] - page;
	t->rtag[slot] = page;
	t->wtag[slot] = tlb_none(slot);
	if ((from->flags & PTE_D) && allowed(cpu, from->flags, ACC_WRITE | sys) &&
	    !__atomic_load_n(&cpu->mem->code[from->gpa >> PAGE_SHIFT], __ATOMIC_ACQUIRE))
		t->wtag[slot] = page;
}

static void tlb_flush(struct mmu *m, bool global)
{
	m->narrowed++;
	for (unsigned mode = 0; mode < TLB_MODES; mode++) {
		drop_logged(&m->tlb[mode], &m->log[mode][0]);
		if (global)
			drop_logged(&m->tlb[mode], &m->log[mode][1]);
	}
}

static void protect(struct tlb *t, const struct tlb_log *log, const uint8_t *host)
{
	for (unsigned k = 0; k < log->nr; k++) {
		unsigned slot = log->slot[k];

		if (t->host[slot] == host)
			t->wtag[slot] = tlb_none(slot);
	}
}

void mmu_protect(struct soft_cpu *cpu, uint64_t gpa)
{
	struct mmu *m = &cpu->mmu;
	const uint8_t *host = cpu->mem->base + (gpa & PAGE_MASK);

	m->narrowed++;
	for (unsigned mode = 0; mode < TLB_MODES; mode++) {
		protect(&m->tlb[mode], &m->log[mode][0], host);
		protect(&m->tlb[mode], &m->log[mode][1], host);
	}
}

/* --- address spaces --------------------------------------------------------------- */

static struct mmu_space *space_find(struct mmu *m, uint16_t pcid)
{
	for (unsigned i = 0; i < MMU_SPACES; i++)
		if (m->space[i].gen && m->space[i].pcid == pcid)
			return &m->space[i];
	return NULL;
}

static struct mmu_space *space_take(struct mmu *m, uint16_t pcid)
{
	struct mmu_space *s = &m->space[0];

	for (unsigned i = 1; i < MMU_SPACES; i++)
		if (m->space[i].used < s->used)
			s = &m->space[i];
	s->pcid = pcid;
	s->gen = s->links = new_gen(m);
	return s;
}

static uint16_t current_pcid(const struct soft_cpu *cpu)
{
	return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

/* Makes CR3's space the current one; keep: what is cached of it stays. */
static void space_switch(struct soft_cpu *cpu, bool keep)
{
	struct mmu *m = &cpu->mmu;
	uint16_t pcid = current_pcid(cpu);
	struct mmu_space *s = space_find(m, pcid);

	if (!s)
		s = space_take(m, pcid);
	else if (!keep)
		s->gen = s->links = new_gen(m);
	s->used = ++m->tick;
	m->gen = s->gen;
	m->links = s->links;
	tlb_flush(m, false);
	jit_return_forget(cpu, false);
	cpu_mode_changed(cpu);
}

void mmu_set_cr3(struct soft_cpu *cpu, uint64_t val)
{
	bool keep = (cpu->cr4 & CR4_PCIDE) && (val & CR3_NOFLUSH);
	uint64_t old = cpu->cr3;

	cpu->cr3 = val & ~CR3_NOFLUSH;
	if (keep && cpu->cr3 == old)
		return;
	space_switch(cpu, keep);
}

void mmu_flush_local(struct soft_cpu *cpu)
{
	space_switch(cpu, false);
}

void mmu_flush_all(struct soft_cpu *cpu)
{
	struct mmu *m = &cpu->mmu;

	for (unsigned i = 0; i < MMU_SPACES; i++)
		m->space[i].gen = 0;
	m->gen_global = m->links_global = new_gen(m);
	for (unsigned i = 0; i < ARRAY_LEN(m->large); i++)
		m->large[i] = 0;
	exec_forget(m);
	tlb_flush(m, true);
	cpu->ret_local = false;	/* block_find() will say so again */
	jit_return_forget(cpu, true);
	space_switch(cpu, false);
}

void mmu_invlpg(struct soft_cpu *cpu, uint64_t va)
{
	struct mmu *m = &cpu->mmu;
	struct tlb2_entry *e = tlb2_slot(cpu, va);
	unsigned h = exec_hash(va);

	if (large_test(m, va)) {
		/* pieces of the page are anywhere; global ones only above */
		if (va >> 63)
			mmu_flush_all(cpu);
		else
			mmu_flush_local(cpu);
		return;
	}
	m->narrowed++;
	for (unsigned mode = 0; mode < TLB_MODES; mode++)
		drop(&m->tlb[mode], tlb_slot(va));
	if (e->va == (va & PAGE_MASK))
		e->gen = 0;
	if (m->exec[h >> 6] >> (h & 63) & 1) {
		block_forget_page(cpu, va);
		forget_links(cpu);
	}
}

void mmu_invpcid(struct soft_cpu *cpu, unsigned type, uint16_t pcid, uint64_t va)
{
	struct mmu *m = &cpu->mmu;
	struct mmu_space *s = space_find(m, pcid);
	bool current = pcid == current_pcid(cpu);

	if (type == 0 && current) {
		mmu_invlpg(cpu, va);
	} else if (type <= 1) {
		if (current)
			mmu_flush_local(cpu);
		else if (s)
			s->gen = 0;
	} else if (type == 2) {
		mmu_flush_all(cpu);
	} else {
		for (unsigned i = 0; i < MMU_SPACES; i++)
			m->space[i].gen = 0;
		mmu_flush_local(cpu);
	}
}

/* Physical address width as the model's CPUID tells it. */
static unsigned phys_bits(const struct cpu_model *model)
{
	for (unsigned i = 0; model && i < model->nr_leaves; i++)
		if (model->leaf[i].leaf == 0x80000008)
			return model->leaf[i].eax & 0xff;
	return 46;
}

void mmu_init(struct soft_cpu *cpu)
{
	struct mmu *m = &cpu->mmu;
	unsigned bits = phys_bits(cpu->model);

	if (bits < 36 || bits > 52)
		bits = 46;
	m->rsvd = PTE_ADDR & ~((1ull << bits) - 1);
	for (unsigned mode = 0; mode < TLB_MODES; mode++) {
		drop(&m->tlb[mode], 0);
		drop(&m->tlb[mode], TLB_SIZE - 1);	/* zero is none for the others */
	}
	mmu_flush_all(cpu);
}

static void get_paging(const struct soft_cpu *cpu, uint64_t paging[4])
{
	paging[0] = cpu->cr0;
	paging[1] = cpu->cr3;
	paging[2] = cpu->cr4;
	paging[3] = cpu->efer;
}

void mmu_inherit(struct soft_cpu *cpu)
{
	cpu->mmu.inherited = true;
	get_paging(cpu, cpu->mmu.paging);
}

void mmu_restored(struct soft_cpu *cpu)
{
	struct mmu *m = &cpu->mmu;
	uint64_t paging[4];

	get_paging(cpu, paging);
	if (!m->inherited || memcmp(paging, m->paging, sizeof(paging)))
		mmu_flush_all(cpu);
	m->inherited = false;
	cpu_mode_changed(cpu);
}
