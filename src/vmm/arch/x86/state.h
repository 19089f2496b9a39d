/* SPDX-License-Identifier: MIT */
/*
 * arch/x86/state.h - the architectural state of one x86-64 vCPU and of the
 * board's interrupt and clock hardware, in the one form that both backends get and
 * set, and that bundles store.  No KVM struct is a format.
 */
#ifndef ARCH_X86_STATE_H
#define ARCH_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct mem;
struct state_r;
struct state_w;

/* In instruction encoding order, so that index 4 is rsp. */
enum x86_gpr {
	X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
	X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14, X86_R15,
};
enum x86_seg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_LDTR, X86_TR,
	       X86_NR_SEGS };

/* attr: bits 8..15 and 20..23 of a descriptor's second word, shifted down by 8:
 * type[3:0] s[4] dpl[6:5] p[7] avl[12] l[13] db[14] g[15]; bit 16: unusable. */
struct x86_segment {
	uint64_t base;
	uint32_t limit;		/* bytes, granularity applied */
	uint32_t attr;
	uint16_t sel;
};
#define X86_SEG_UNUSABLE 0x10000u

struct x86_dtable {
	uint64_t base;
	uint16_t limit;
};

#define X86_MAX_MSRS   128
#define X86_XSAVE_SIZE 4096	/* standard format; room for AVX-512 */

struct x86_msr {
	uint32_t index;
	uint64_t value;
};

enum x86_run_state { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI };

struct x86_state {
	uint64_t gpr[16], rip, rflags;
	struct x86_segment seg[X86_NR_SEGS];
	struct x86_dtable gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t dr[4], dr6, dr7;

	/* Event being delivered or held back, as after an exit mid-delivery. */
	struct {
		bool pending;		/* inject `vector` on entry */
		uint8_t vector;
		bool has_error;
		uint32_t error;
		bool soft;		/* INT n: rip already past it */
		bool nmi_pending, nmi_masked;
		bool sti_shadow, mov_ss_shadow;
	} ev;
	enum x86_run_state run_state;

	struct x86_msr msr[X86_MAX_MSRS];	/* everything not named above */
	unsigned nr_msrs;

	uint8_t xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));
	uint32_t xsave_size;		/* bytes used */

	/* LAPIC registers at their xAPIC offsets; x2APIC ids normalised. */
	uint32_t lapic[256];		/* offset / 16 */
	uint64_t apic_base, tsc_deadline;
	uint64_t tsc;			/* guest TSC at the instant of the save */
};

struct x86_ioapic_state {
	uint32_t id, ioregsel;
	uint64_t redir[24];
	uint32_t irr;			/* input levels latched */
};

struct x86_clock_state {
	uint64_t kvmclock_ns;		/* guest monotonic base */
	uint64_t realtime_ns;		/* host CLOCK_REALTIME then */
	uint64_t tsc_khz;
};

/* Sections "vcpu" (one per instance), "ioapic", "clock". */
void x86_state_save(struct state_w *w, const struct x86_state *s, unsigned id);
int x86_state_load(struct state_r *r, struct x86_state *s, unsigned id,
		   struct err *err);
void x86_ioapic_save(struct state_w *w, const struct x86_ioapic_state *s);
int x86_ioapic_load(struct state_r *r, struct x86_ioapic_state *s, struct err *err);
void x86_clock_save(struct state_w *w, const struct x86_clock_state *s);
int x86_clock_load(struct state_r *r, struct x86_clock_state *s, struct err *err);

/* Puts registers and the code at rip, in words, before what err holds (explain.c). */
void x86_explain(const struct x86_state *s, const struct mem *m, struct err *err);

#endif
