// SPDX-License-Identifier: MIT
/*
 * arch/x86/explain.c - where a CPU that cannot go on stood, for a human to read.
 *
 * Everything here is the guest's: page tables are walked with checks, and what
 * cannot be read is said to be so.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "vmm/arch/x86/state.h"
#include "vmm/mem.h"

#define CR0_PG		(1ull << 31)
#define CR4_LA57	(1ull << 12)
#define EFER_LMA	(1ull << 10)
#define PTE_PRESENT	1ull
#define PTE_LARGE	(1ull << 7)
#define PTE_ADDRESS	0x000ffffffffff000ull

#define BEFORE 8	/* bytes of code shown ahead of rip */
#define AFTER  16

/* Four levels of tables (SDM 3A, 4.5); false when nothing is mapped. */
static bool walk(const struct x86_state *s, const struct mem *m, uint64_t va, gpa_t *out)
{
	gpa_t at = s->cr3 & PTE_ADDRESS;
	uint64_t entry = 0;

	for (int shift = 39; shift >= PAGE_SHIFT; shift -= 9) {
		if (!mem_read(m, at + (va >> shift & 511) * 8, &entry, 8) ||
		    !(entry & PTE_PRESENT))
			return false;
		at = entry & PTE_ADDRESS;
		if (shift == PAGE_SHIFT || (entry & PTE_LARGE && shift < 39)) {
			uint64_t in = (1ull << shift) - 1;

			*out = (at & ~in) | (va & in);
			return true;
		}
	}
	return false;
}

static bool read_byte(const struct x86_state *s, const struct mem *m, uint64_t va,
		      uint8_t *byte)
{
	gpa_t gpa = va;

	if (s->cr4 & CR4_LA57 || (s->cr0 & CR0_PG && !(s->efer & EFER_LMA)))
		return false;	/* other page tables than we run */
	if (s->cr0 & CR0_PG && !walk(s, m, va, &gpa))
		return false;
	return mem_read(m, gpa, byte, 1);
}

/* "48 89 e5 <0f> 0b …", with the byte at rip marked. */
static void explain_code(const struct x86_state *s, const struct mem *m, struct err *err)
{
	char text[4 * (BEFORE + AFTER) + 3];
	size_t n = 0;
	bool here = false;
	uint8_t byte;

	for (int i = -BEFORE; i < AFTER; i++) {
		uint64_t at = s->seg[X86_CS].base + s->rip + (uint64_t)(int64_t)i;

		if (!read_byte(s, m, at, &byte))
			continue;
		here |= i == 0;
		n += (size_t)snprintf(text + n, sizeof(text) - n, i ? "%s%02x" : "%s<%02x>",
				      n ? " " : "", byte);
	}
	err_wrap(err, -EIO, here ? "code: %s" : "code: none can be read at rip", text);
}

static void explain_registers(const struct x86_state *s, struct err *err)
{
	const uint64_t *g = s->gpr;

	err_wrap(err, -EIO, "cr0 %#" PRIx64 " cr2 %#" PRIx64 " cr3 %#" PRIx64 " cr4 %#"
		 PRIx64 " efer %#" PRIx64 " gdt %#" PRIx64 "/%#x idt %#" PRIx64 "/%#x",
		 s->cr0, s->cr2, s->cr3, s->cr4, s->efer, s->gdt.base, s->gdt.limit,
		 s->idt.base, s->idt.limit);
	err_wrap(err, -EIO, "rax %#" PRIx64 " rbx %#" PRIx64 " rcx %#" PRIx64 " rdx %#"
		 PRIx64 " rsi %#" PRIx64 " rdi %#" PRIx64 " rbp %#" PRIx64 " r8 %#" PRIx64
		 " r9 %#" PRIx64 " r10 %#" PRIx64 " r11 %#" PRIx64 " r12 %#" PRIx64
		 " r13 %#" PRIx64 " r14 %#" PRIx64 " r15 %#" PRIx64,
		 g[X86_RAX], g[X86_RBX], g[X86_RCX], g[X86_RDX], g[X86_RSI], g[X86_RDI],
		 g[X86_RBP], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
}

/* KVM on AMD resets a vCPU that shut down: nothing is left to tell (INIT state). */
static bool was_reset(const struct x86_state *s)
{
	return !(s->cr0 & 1) && s->rip == 0xfff0;
}

void x86_explain(const struct x86_state *s, const struct mem *m, struct err *err)
{
	if (was_reset(s)) {
		err_wrap(err, -EIO, "the host's CPU kept none of the guest's registers");
		return;
	}
	explain_registers(s, err);
	explain_code(s, m, err);
	err_wrap(err, -EIO, "at rip %#" PRIx64 " (cs %#x, privilege %u), rsp %#" PRIx64
		 ", rflags %#" PRIx64 "%s", s->rip, s->seg[X86_CS].sel,
		 s->seg[X86_SS].attr >> 5 & 3, s->gpr[X86_RSP], s->rflags,
		 s->ev.pending ? ", with an exception or interrupt due" : "");
}
