// SPDX-License-Identifier: MIT
/*
 * mem.c - data accesses that miss the first-level TLB: fills, accesses across a
 * page's end, pages with decoded code, data breakpoints, device registers.
 *
 * An access of two pages is translated in full before a byte is moved.  The
 * order of the faults is that of the addresses.
 */
#include "vmm/soft/insn.h"

/* A resolved piece of an access that lies in one page. */
struct piece {
	uint64_t gpa;
	uint8_t *host;		/* of RAM */
	bool ram;
	unsigned len;
};

static void resolve(struct soft_cpu *cpu, uint64_t va, unsigned len, unsigned acc,
		    struct piece *p)
{
	const struct tlb2_entry *t;
	unsigned sys = acc & ACC_SYSTEM;

	if (unlikely(cpu->watch && cpu->watch->interpreting)) {
		p->host = cpu->watch->access(cpu, va, len, acc, &p->gpa);
		p->ram = true;
		p->len = len;
		return;
	}
	t = mmu_translate(cpu, va, acc);
	p->gpa = t->gpa | (va & ~PAGE_MASK);
	p->host = cpu->mem->base + p->gpa;
	p->ram = t->flags & WALK_RAM;
	p->len = len;
	if (p->ram && !cpu->mmu.watching)
		mmu_fill(cpu, va, t, sys);
}

/* One or two pieces; their number. */
static unsigned resolve_all(struct soft_cpu *cpu, uint64_t va, unsigned len,
			    unsigned acc, struct piece p[2])
{
	unsigned first = PAGE_SIZE - (va & ~PAGE_MASK);

	if (unlikely(cpu->mmu.watching) && !(acc & ACC_SYSTEM))
		debug_watch(cpu, va, len, acc & ACC_WRITE);
	if (len <= first) {
		resolve(cpu, va, len, acc, &p[0]);
		return 1;
	}
	resolve(cpu, va, first, acc, &p[0]);
	resolve(cpu, va + first, len - first, acc, &p[1]);
	return 2;
}

bool mmu_touch(struct soft_cpu *cpu, uint64_t va, bool dirty, bool write)
{
	unsigned acc = dirty ? ACC_WRITE : ACC_READ;
	const struct tlb2_entry *t;

	if (unlikely(cpu->mmu.watching))
		return false;
	t = mmu_translate(cpu, va, acc | ACC_PROBE);
	if (!t || !(t->flags & WALK_RAM))
		return false;
	mmu_fill(cpu, va, t, 0);
	return write ? tlb_writes(cpu->tlb, va, 1) : tlb_reads(cpu->tlb, va, 1);
}

static void copy(void *dst, const void *src, unsigned long n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static void piece_read(struct soft_cpu *cpu, const struct piece *p, uint8_t *dst)
{
	if (p->ram) {
		copy(dst, p->host, p->len);
		return;
	}
	for (unsigned done = 0; done < p->len;) {
		unsigned n = MIN(p->len - done, 8u);
		uint64_t v = mmio_load(cpu, p->gpa + done, n);

		copy(dst + done, &v, n);
		done += n;
	}
}

static void piece_write(struct soft_cpu *cpu, const struct piece *p,
			const uint8_t *src)
{
	if (p->ram) {
		copy(p->host, src, p->len);
		if (__atomic_load_n(&cpu->mem->code[p->gpa >> PAGE_SHIFT], __ATOMIC_ACQUIRE))
			block_wrote(cpu, p->gpa, p->len);
		return;
	}
	for (unsigned done = 0; done < p->len;) {
		unsigned n = MIN(p->len - done, 8u);
		uint64_t v = 0;

		copy(&v, src + done, n);
		mmio_store(cpu, p->gpa + done, v, n);
		done += n;
	}
}

static void access_read(struct soft_cpu *cpu, uint64_t va, void *dst, unsigned len,
			unsigned acc)
{
	struct piece p[2];
	unsigned n = resolve_all(cpu, va, len, acc, p);

	piece_read(cpu, &p[0], dst);
	if (n > 1)
		piece_read(cpu, &p[1], (uint8_t *)dst + p[0].len);
}

static void access_write(struct soft_cpu *cpu, uint64_t va, const void *src,
			 unsigned len, unsigned acc)
{
	struct piece p[2];
	unsigned n = resolve_all(cpu, va, len, acc, p);

	piece_write(cpu, &p[0], src);
	if (n > 1)
		piece_write(cpu, &p[1], (const uint8_t *)src + p[0].len);
}

/*
 * Aligned accesses to RAM are single ones: a device or kvmclock reader on
 * another thread must not see halves.
 */
static bool load_ram(struct soft_cpu *cpu, const struct piece *p, uint64_t *val)
{
	const uint8_t *host = p->host;

	if (!p->ram)
		return false;
	switch (p->len) {
	case 1: *val = *(const volatile uint8_t *)host; break;
	case 2: *val = *(const volatile uint16_t *)(const void *)host; break;
	case 4: *val = *(const volatile uint32_t *)(const void *)host; break;
	default: *val = *(const volatile uint64_t *)(const void *)host;
	}
	return true;
}

static uint64_t load(struct soft_cpu *cpu, uint64_t va, unsigned len, unsigned acc)
{
	struct piece p[2];
	uint64_t v = 0;
	unsigned n = resolve_all(cpu, va, len, acc, p);

	if (n == 1 && load_ram(cpu, &p[0], &v))
		return v;
	piece_read(cpu, &p[0], (uint8_t *)&v);
	if (n > 1)
		piece_read(cpu, &p[1], (uint8_t *)&v + p[0].len);
	return v;
}

static void store(struct soft_cpu *cpu, uint64_t va, uint64_t v, unsigned len,
		  unsigned acc)
{
	struct piece p[2];
	unsigned n = resolve_all(cpu, va, len, acc | ACC_WRITE, p);
	uint8_t *host = p[0].host;

	if (n > 1 || !p[0].ram) {
		piece_write(cpu, &p[0], (uint8_t *)&v);
		if (n > 1)
			piece_write(cpu, &p[1], (uint8_t *)&v + p[0].len);
		return;
	}
	switch (len) {
	case 1: *(volatile uint8_t *)host = v; break;
	case 2: *(volatile uint16_t *)(void *)host = v; break;
	case 4: *(volatile uint32_t *)(void *)host = v; break;
	default: *(volatile uint64_t *)(void *)host = v;
	}
	if (__atomic_load_n(&cpu->mem->code[p[0].gpa >> PAGE_SHIFT], __ATOMIC_ACQUIRE))
		block_wrote(cpu, p[0].gpa, len);
}

uint64_t mmu_load(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	return load(cpu, va, len, ACC_READ);
}

void mmu_store(struct soft_cpu *cpu, uint64_t va, uint64_t val, unsigned len)
{
	store(cpu, va, val, len, 0);
}

uint64_t sys_load(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	const struct tlb *t = &cpu->mmu.tlb[TLB_KERNEL];

	if (len == 8 && tlb_reads(t, va, 8))
		return *(volatile uint64_t *)tlb_host(t, va);
	return load(cpu, va, len, ACC_SYSTEM);
}

void sys_store(struct soft_cpu *cpu, uint64_t va, uint64_t val, unsigned len)
{
	const struct tlb *t = &cpu->mmu.tlb[TLB_KERNEL];

	if (len == 8 && tlb_writes(t, va, 8))
		*(volatile uint64_t *)tlb_host(t, va) = val;
	else
		store(cpu, va, val, len, ACC_SYSTEM);
}

void guest_read(struct soft_cpu *cpu, uint64_t va, void *dst, unsigned len)
{
	access_read(cpu, va, dst, len, ACC_READ);
}

void guest_write(struct soft_cpu *cpu, uint64_t va, const void *src, unsigned len)
{
	access_write(cpu, va, src, len, ACC_WRITE);
}

void guest_check_write(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	struct piece p[2];

	resolve_all(cpu, va, len, ACC_WRITE, p);
}

const void *guest_read_ptr(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	struct piece p[2];

	if (likely(tlb_reads(cpu->tlb, va, len)))
		return tlb_host(cpu->tlb, va);
	if (resolve_all(cpu, va, len, ACC_READ, p) > 1 || !p[0].ram)
		return NULL;
	return p[0].host;
}

void *guest_write_ptr(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	struct piece p[2];

	if (likely(tlb_writes(cpu->tlb, va, len)))
		return tlb_host(cpu->tlb, va);
	if (resolve_all(cpu, va, len, ACC_WRITE, p) > 1 || !p[0].ram ||
	    __atomic_load_n(&cpu->mem->code[p[0].gpa >> PAGE_SHIFT], __ATOMIC_ACQUIRE))
		return NULL;
	return p[0].host;
}

/*
 * In plain RAM the caller works in place, so that LOCK is one; where decoded
 * code must be dropped after it, rmw_end() does that.  Else it works on a copy.
 */
uint8_t *mmu_rmw(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	struct mmu *m = &cpu->mmu;
	struct piece p[2];
	unsigned n = resolve_all(cpu, va, len, ACC_WRITE, p);

	if (n == 1 && p[0].ram) {
		uint8_t *host = p[0].host;

		if (!__atomic_load_n(&cpu->mem->code[p[0].gpa >> PAGE_SHIFT], __ATOMIC_ACQUIRE))
			return host;
		m->rmw_gpa = p[0].gpa;
		m->rmw_bounced = false;
		m->rmw_len = len;
		cpu->rmw_slow = true;
		return host;
	}
	piece_read(cpu, &p[0], m->bounce);
	if (n > 1)
		piece_read(cpu, &p[1], m->bounce + p[0].len);
	m->rmw_va = va;
	m->rmw_bounced = true;
	m->rmw_len = len;
	cpu->rmw_slow = true;
	return m->bounce;
}

void mmu_rmw_end(struct soft_cpu *cpu)
{
	struct mmu *m = &cpu->mmu;

	cpu->rmw_slow = false;
	if (m->rmw_bounced)
		access_write(cpu, m->rmw_va, m->bounce, m->rmw_len, ACC_WRITE);
	else
		block_wrote(cpu, m->rmw_gpa, m->rmw_len);
}
