// SPDX-License-Identifier: MIT
/*
 * exec_string.c - MOVS, STOS, LODS, CMPS, SCAS with their repeat prefixes.
 *
 * Each iteration commits before the next begins, so a fault in the middle leaves
 * the registers where hardware does.  Forward MOVS and STOS run a page's part
 * at a time on the host's own REP instruction, which also gives overlapping
 * copies their architectural result.  Between iterations, or parts, the
 * attention word is tested; an interrupted instruction starts again from its
 * registers.
 */
#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"

static inline uint64_t amask(const struct insn *i)
{
	return i->flags & INSN_ADDR32 ? 0xffffffffull : ~0ull;
}

/* Address registers and the counter are 32 bits with an address size prefix. */
static inline void areg_set(struct soft_cpu *cpu, const struct insn *i, unsigned r,
			    uint64_t v)
{
	cpu->gpr[r] = v & amask(i);
}

static inline uint64_t areg(const struct soft_cpu *cpu, const struct insn *i, unsigned r)
{
	return cpu->gpr[r] & amask(i);
}

static inline uint64_t src_address(struct soft_cpu *cpu, const struct insn *i)
{
	return areg(cpu, i, X86_RSI) + *(uint64_t *)(void *)reg_ptr(cpu, i->seg);
}

static inline int64_t step(const struct soft_cpu *cpu, const struct insn *i)
{
	return cpu->rflags & FL_DF ? -(int64_t)i->size : i->size;
}

static void host_movs(void *dst, const void *src, unsigned long n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	case 2: __asm__ volatile("rep movsw" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	case 4: __asm__ volatile("rep movsl" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	default: __asm__ volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
	}
}

static void host_stos(void *dst, uint64_t v, unsigned long n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(v) : "memory"); break;
	case 2: __asm__ volatile("rep stosw" : "+D"(dst), "+c"(n) : "a"(v) : "memory"); break;
	case 4: __asm__ volatile("rep stosl" : "+D"(dst), "+c"(n) : "a"(v) : "memory"); break;
	default: __asm__ volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(v) : "memory");
	}
}

/* Elements from va on that lie wholly in its page. */
static uint64_t in_page(uint64_t va, unsigned size)
{
	return (PAGE_SIZE - (va & ~PAGE_MASK)) / size;
}

/*
 * The parts below do one or more iterations, at most n, and tell how many.
 * Registers but the counter are theirs.
 */
static uint64_t movs_part(struct soft_cpu *cpu, const struct insn *i, uint64_t n)
{
	uint64_t src = src_address(cpu, i), dst = areg(cpu, i, X86_RDI);
	uint64_t room = MIN(in_page(src, i->size), in_page(dst, i->size));
	uint64_t part = MIN(n, room);
	const void *from;
	void *to;

	if (part > 1 && !(cpu->rflags & FL_DF) &&
	    (from = guest_read_ptr(cpu, src, part * i->size)) &&
	    (to = guest_write_ptr(cpu, dst, part * i->size))) {
		host_movs(to, from, part, i->size);
	} else {
		store_n(cpu, dst, load_n(cpu, src, i->size), i->size);
		part = 1;
	}
	areg_set(cpu, i, X86_RSI, cpu->gpr[X86_RSI] + step(cpu, i) * part);
	areg_set(cpu, i, X86_RDI, cpu->gpr[X86_RDI] + step(cpu, i) * part);
	return part;
}

static uint64_t stos_part(struct soft_cpu *cpu, const struct insn *i, uint64_t n)
{
	uint64_t dst = areg(cpu, i, X86_RDI);
	uint64_t part = MIN(n, in_page(dst, i->size));
	void *to;

	if (part > 1 && !(cpu->rflags & FL_DF) &&
	    (to = guest_write_ptr(cpu, dst, part * i->size))) {
		host_stos(to, cpu->gpr[X86_RAX], part, i->size);
	} else {
		store_n(cpu, dst, cpu->gpr[X86_RAX], i->size);
		part = 1;
	}
	areg_set(cpu, i, X86_RDI, cpu->gpr[X86_RDI] + step(cpu, i) * part);
	return part;
}

static uint64_t lods_part(struct soft_cpu *cpu, const struct insn *i, uint64_t n)
{
	set_n(cpu, 0, load_n(cpu, src_address(cpu, i), i->size), i->size);
	areg_set(cpu, i, X86_RSI, cpu->gpr[X86_RSI] + step(cpu, i));
	return 1;
}

static void compare(struct soft_cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
	uint32_t cc;

	switch (size) {
	case 1: __asm__("cmpb %b2, %b1" CC_OUT : "=a"(cc) : "q"(a), "q"(b) : "cc"); break;
	case 2: __asm__("cmpw %w2, %w1" CC_OUT : "=a"(cc) : "r"(a), "r"(b) : "cc"); break;
	case 4: __asm__("cmpl %k2, %k1" CC_OUT : "=a"(cc) : "r"(a), "r"(b) : "cc"); break;
	default: __asm__("cmpq %2, %1" CC_OUT : "=a"(cc) : "r"(a), "r"(b) : "cc");
	}
	cpu->cc = (uint16_t)cc;
}

static uint64_t cmps_part(struct soft_cpu *cpu, const struct insn *i, uint64_t n)
{
	/* in the order in which hardware faults */
	uint64_t b = load_n(cpu, areg(cpu, i, X86_RDI), i->size);
	uint64_t a = load_n(cpu, src_address(cpu, i), i->size);

	compare(cpu, a, b, i->size);
	areg_set(cpu, i, X86_RSI, cpu->gpr[X86_RSI] + step(cpu, i));
	areg_set(cpu, i, X86_RDI, cpu->gpr[X86_RDI] + step(cpu, i));
	return 1;
}

static uint64_t scas_part(struct soft_cpu *cpu, const struct insn *i, uint64_t n)
{
	uint64_t b = load_n(cpu, areg(cpu, i, X86_RDI), i->size);

	compare(cpu, reg_n(cpu, 0, i->size), b, i->size);
	areg_set(cpu, i, X86_RDI, cpu->gpr[X86_RDI] + step(cpu, i));
	return 1;
}

/* Upper halves go with a 32-bit address size, whether the first round faults or not. */
static void narrow(struct soft_cpu *cpu, const struct insn *i, uint64_t count)
{
	areg_set(cpu, i, X86_RCX, count);
	if (!count)
		return;
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB: case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD: case ZYDIS_MNEMONIC_MOVSQ:
		areg_set(cpu, i, X86_RSI, cpu->gpr[X86_RSI]);
		areg_set(cpu, i, X86_RDI, cpu->gpr[X86_RDI]);
		break;
	case ZYDIS_MNEMONIC_STOSB: case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD: case ZYDIS_MNEMONIC_STOSQ:
		areg_set(cpu, i, X86_RDI, cpu->gpr[X86_RDI]);
		break;
	default:
		break;
	}
}

/*
 * until_zf: 2 never; else the ZF at which the repetition ends.  False when it is
 * to start again after what attention asks for.
 */
static inline bool repeat(struct soft_cpu *cpu, const struct insn *i,
	uint64_t (*part)(struct soft_cpu *, const struct insn *, uint64_t), unsigned until_zf)
{
	uint32_t cc = cpu->cc;	/* CMPS and SCAS that fault leave these */
	/* a trap after each round */
	bool single = cpu->rflags & FL_TF || cpu->dr7 & 0xff;
	uint64_t n;

	if (!(i->flags & (INSN_REP | INSN_REPNE))) {
		part(cpu, i, 1);
		return true;
	}
	n = areg(cpu, i, X86_RCX);
	if (i->flags & INSN_ADDR32)
		narrow(cpu, i, n);
	while (n) {
		cpu->cc = cc;
		n -= part(cpu, i, single ? 1 : n);
		areg_set(cpu, i, X86_RCX, n);
		if (until_zf < 2 && !!(cpu->cc & CC_ZF) == until_zf)
			break;
		if (n && unlikely(attention(cpu)) &&
		    (single || cpu->attention & ~(uint32_t)ATT_SLOW))
			return false;
	}
	return true;
}

HANDLER(movs)
{
	if (!repeat(cpu, i, movs_part, 2))
		return NULL;
	NEXT(cpu, i);
}
HANDLER(stos)
{
	if (!repeat(cpu, i, stos_part, 2))
		return NULL;
	NEXT(cpu, i);
}
HANDLER(lods)
{
	if (!repeat(cpu, i, lods_part, 2))
		return NULL;
	NEXT(cpu, i);
}
HANDLER(cmps)
{
	if (!repeat(cpu, i, cmps_part, i->flags & INSN_REPNE ? 1 : 0))
		return NULL;
	NEXT(cpu, i);
}
HANDLER(scas)
{
	if (!repeat(cpu, i, scas_part, i->flags & INSN_REPNE ? 1 : 0))
		return NULL;
	NEXT(cpu, i);
}

/* MOVSD and CMPSD are vector instructions too; fp.c has taken those. */
const struct op ops_string[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_MOVSB, .any = movs },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVSW, .any = movs },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVSD, .any = movs },
	{ .mnemonic = ZYDIS_MNEMONIC_MOVSQ, .any = movs },
	{ .mnemonic = ZYDIS_MNEMONIC_STOSB, .any = stos },
	{ .mnemonic = ZYDIS_MNEMONIC_STOSW, .any = stos },
	{ .mnemonic = ZYDIS_MNEMONIC_STOSD, .any = stos },
	{ .mnemonic = ZYDIS_MNEMONIC_STOSQ, .any = stos },
	{ .mnemonic = ZYDIS_MNEMONIC_LODSB, .any = lods },
	{ .mnemonic = ZYDIS_MNEMONIC_LODSW, .any = lods },
	{ .mnemonic = ZYDIS_MNEMONIC_LODSD, .any = lods },
	{ .mnemonic = ZYDIS_MNEMONIC_LODSQ, .any = lods },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPSB, .any = cmps },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPSW, .any = cmps },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPSD, .any = cmps },
	{ .mnemonic = ZYDIS_MNEMONIC_CMPSQ, .any = cmps },
	{ .mnemonic = ZYDIS_MNEMONIC_SCASB, .any = scas },
	{ .mnemonic = ZYDIS_MNEMONIC_SCASW, .any = scas },
	{ .mnemonic = ZYDIS_MNEMONIC_SCASD, .any = scas },
	{ .mnemonic = ZYDIS_MNEMONIC_SCASQ, .any = scas },
	{ .mnemonic = 0 },
};
