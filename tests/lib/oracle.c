// SPDX-License-Identifier: MIT
/*
 * oracle.c - the comparison: run on both, look for a difference, make it small,
 * print it.
 *
 * Compared is everything the architecture defines: sixteen GPRs, rip, flags, x87
 * data, control, status and tags, MXCSR, XMM and YMM, memory, the kind of fault,
 * its error code and CR2.  Left out: x87 instruction and data pointers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/lib/oracle.h"

static const char *const gpr_name[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

#define FLAGS_CC 0x8d5u	/* OF SF ZF AF PF CF */

struct pair {
	struct seq_out hw, sw;
};

static void blind(const struct gen_seq *s, struct seq_out *o)
{
	/* In the half of the host's kernel, which page is present is its affair. */
	if (o->vector == 14 && o->cr2 >> 47)
		o->error &= ~1u;
	if (s->cr2 == CR2_PAGE)
		o->cr2 &= ~0xfffull;
	if (s->cr2 == CR2_ANY)
		o->cr2 = 0;
	for (unsigned i = 0; i < s->nr_blind; i++) {
		unsigned off = MIN(s->blind[i].off, SEQ_DATA_SIZE);
		unsigned len = MIN(s->blind[i].len, SEQ_DATA_SIZE - off);

		memset(o->data + off, 0, len);
	}
}

static void blind_x87(struct seq_out *o)
{
	memset(o->xsave, 0, 24);
	memset(o->xsave + 32, 0, 128);
}

/*
 * What some CPUs have done already when a store faults, and the manuals leave open:
 * MMX stores switch the x87 unit to MMX (TOP 0, all tags valid), VCVTPS2PH sets
 * MXCSR flags.
 */
static void blind_store_fault(const struct seq_in *in, struct pair *p)
{
	ZydisDisassembledInstruction d;
	uint64_t off = p->hw.rip - SEQ_CODE;

	if (p->hw.vector < 12 || p->hw.vector > 14 || off >= SEQ_CODE_SIZE ||
	    !ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, 0,
						in->code + off, SEQ_CODE_SIZE - off, &d)))
		return;
	if (d.info.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH) {
		memset(p->hw.xsave + 24, 0, 4);
		memset(p->sw.xsave + 24, 0, 4);
	}
	if (d.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	    d.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ZydisRegisterGetClass(d.operands[1].reg.value) == ZYDIS_REGCLASS_MMX) {
		blind_x87(&p->hw);
		blind_x87(&p->sw);
	}
}

/*
 * A near CALL to an address that is not canonical has, on some CPUs, pushed the
 * return address before it faults; rsp is as it was.
 */
static void blind_call_fault(const struct seq_in *in, struct pair *p)
{
	ZydisDisassembledInstruction d;
	uint64_t off = p->hw.rip - SEQ_CODE, at = p->hw.gpr[4] - 8 - SEQ_DATA;

	if (p->hw.vector != 13 || off >= SEQ_CODE_SIZE || at > SEQ_DATA_SIZE - 8 ||
	    !ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, 0,
						in->code + off, SEQ_CODE_SIZE - off, &d)) ||
	    d.info.mnemonic != ZYDIS_MNEMONIC_CALL)
		return;
	memset(p->hw.data + at, 0, 8);
	memset(p->sw.data + at, 0, 8);
}

static bool same(const struct seq_out *a, const struct seq_out *b)
{
	return !memcmp(a->gpr, b->gpr, sizeof(a->gpr)) && a->rip == b->rip &&
	       a->rflags == b->rflags && a->vector == b->vector &&
	       a->error == b->error && a->cr2 == b->cr2 &&
	       !memcmp(a->xsave, b->xsave, sizeof(a->xsave)) &&
	       !memcmp(a->data, b->data, sizeof(a->data));
}

static bool agree(struct oracle *o, const struct gen_seq *s, struct seq_in *in,
		  struct pair *p)
{
	gen_assemble(s, in);
	if (!o->native) {
		o->engine->run(o->engine->arg, in, &p->sw);
		p->hw = p->sw;
		return true;
	}
	native_run(o->native, in, &p->hw);
	o->engine->run(o->engine->arg, in, &p->sw);
	blind(s, &p->hw);
	blind(s, &p->sw);
	blind_store_fault(in, p);
	if (o->engine->stale_flags && p->hw.vector >= 0)
		p->sw.rflags = (p->sw.rflags & ~FLAGS_CC) | (p->hw.rflags & FLAGS_CC);
	blind_call_fault(in, p);
	return same(&p->hw, &p->sw);
}

/* Drops instructions as long as a difference remains. */
static void minimise(struct oracle *o, struct gen_seq *s, struct seq_in *in,
		     struct pair *p)
{
	bool again = true;

	while (again) {
		again = false;
		for (unsigned i = 0; i < s->nr; i++) {
			if (s->insn[i].drop || s->insn[i].keep)
				continue;
			s->insn[i].drop = true;
			if (agree(o, s, in, p))
				s->insn[i].drop = false;
			else
				again = true;
		}
	}
	agree(o, s, in, p);
}

static void print_x(const char *what, const uint8_t *hw, const uint8_t *sw, int len)
{
	if (!memcmp(hw, sw, len))
		return;
	printf("#   %-7s hw ", what);
	for (int i = len - 1; i >= 0; i--)
		printf("%02x", hw[i]);
	printf("\n#   %-7s sw ", "");
	for (int i = len - 1; i >= 0; i--)
		printf("%02x", sw[i]);
	printf("\n");
}

static void print_xsave(const uint8_t *in, const uint8_t *hw, const uint8_t *sw)
{
	char name[8];

	print_x("fcw", hw, sw, 2);
	print_x("fsw", hw + 2, sw + 2, 2);
	print_x("ftw", hw + 4, sw + 4, 1);
	print_x("mxcsr", hw + 24, sw + 24, 4);
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "st%d", i);
		print_x(name, hw + 32 + 16 * i, sw + 32 + 16 * i, 10);
	}
	for (int i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "xmm%d", i);
		print_x(name, hw + 160 + 16 * i, sw + 160 + 16 * i, 16);
		snprintf(name, sizeof(name), "ymmh%d", i);
		print_x(name, hw + 576 + 16 * i, sw + 576 + 16 * i, 16);
	}
	printf("#   at start: fcw %02x%02x fsw %02x%02x mxcsr %02x%02x\n", in[1],
	       in[0], in[3], in[2], in[25], in[24]);
}

static void print_u64(const char *what, uint64_t in, uint64_t hw, uint64_t sw)
{
	if (hw != sw)
		printf("#   %-7s hw %016llx sw %016llx (was %016llx)\n", what,
		       (unsigned long long)hw, (unsigned long long)sw,
		       (unsigned long long)in);
}

static void print_diff(const struct seq_in *in, const struct pair *p)
{
	const struct seq_out *hw = &p->hw, *sw = &p->sw;
	unsigned shown = 0;

	print_u64("vector", -1, hw->vector, sw->vector);
	print_u64("error", 0, hw->error, sw->error);
	print_u64("cr2", 0, hw->cr2, sw->cr2);
	print_u64("rip", in->rip, hw->rip, sw->rip);
	print_u64("rflags", in->rflags, hw->rflags, sw->rflags);
	for (int i = 0; i < 16; i++)
		print_u64(gpr_name[i], in->gpr[i], hw->gpr[i], sw->gpr[i]);
	print_xsave(in->xsave, hw->xsave, sw->xsave);
	for (unsigned i = 0; i < SEQ_DATA_SIZE && shown < 8; i += 8) {
		uint64_t was, h, s;
		char name[24];

		memcpy(&was, in->data + i, 8);
		memcpy(&h, hw->data + i, 8);
		memcpy(&s, sw->data + i, 8);
		shown += h != s;
		snprintf(name, sizeof(name), "[%x]", SEQ_DATA + i);
		print_u64(name, was, h, s);
	}
	printf("#   hw ends by %d, sw by %d; registers at start:\n", hw->vector,
	       sw->vector);
	for (int i = 0; i < 16; i += 4)
		printf("#   %4s %016llx %4s %016llx %4s %016llx %4s %016llx\n",
		       gpr_name[i], (unsigned long long)in->gpr[i],
		       gpr_name[i + 1], (unsigned long long)in->gpr[i + 1],
		       gpr_name[i + 2], (unsigned long long)in->gpr[i + 2],
		       gpr_name[i + 3], (unsigned long long)in->gpr[i + 3]);
}

bool oracle_given(struct oracle *o, const struct gen_seq *seq, struct seq_in *in,
		  const char *what)
{
	struct gen_seq s = *seq;
	struct pair p, first;

	o->runs++;
	o->insns += s.nr;
	gen_count(&s, o->hits);
	if (agree(o, &s, in, &p)) {
		o->faults += p.hw.vector >= 0;
		return true;
	}
	first = p;
	if (agree(o, &s, in, &p)) {
		printf("# differed once, then no more:\n");
		print_diff(in, &first);
	} else {
		minimise(o, &s, in, &p);
	}
	printf("# %s differs from the hardware: %s (seed 0x%llx)\n",
	       o->engine->name, what, (unsigned long long)s.seed);
	gen_print(&s, in, stdout);
	print_diff(in, &p);
	fflush(stdout);
	return false;
}

bool oracle_seed(struct oracle *o, uint64_t seed)
{
	struct gen_config cfg = { .offers = o->engine->offers,
				  .arg = o->engine->arg,
				  .max_insns = o->max_insns };
	struct seq_in in;
	struct gen_seq s;

	gen_make(&cfg, seed, &s, &in);
	return oracle_given(o, &s, &in, "random program");
}

unsigned oracle_mnemonics(const struct oracle *o)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_LEN(o->hits); i++)
		n += o->hits[i] != 0;
	return n;
}
