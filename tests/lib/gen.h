/* SPDX-License-Identifier: MIT */
/*
 * gen.h - random instruction sequences that a user program may execute, with the
 * random state they start from.  The same seed gives the same sequence.
 */
#ifndef TEST_GEN_H
#define TEST_GEN_H

#include <stdbool.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

#include "tests/lib/native.h"

#define GEN_MAX_INSNS 24

struct gen_insn {
	uint8_t byte[15];
	uint8_t len;
	bool branch;		/* ends in a relative displacement, to be filled */
	uint8_t target;		/* instructions to skip, when a branch */
	bool drop;		/* left out by the minimiser */
	bool keep;		/* not to be left out: it makes the next one safe */
	bool glued;		/* not to be jumped at: what makes it safe is before it */
};

struct gen_seq {
	uint64_t seed;
	unsigned nr;
	struct gen_insn insn[GEN_MAX_INSNS];
	unsigned start;		/* offset in the code area */
	/* Which byte of the operand CR2 names is the CPU's choice. */
	enum { CR2_EXACT, CR2_PAGE, CR2_ANY } cr2;
	/* Bytes of the data area that no engine reproduces: pointers of the
	 * x87 unit in a stored image. */
	unsigned nr_blind;
	struct { unsigned off, len; } blind[8];
};

struct gen_config {
	/* Which instruction sets the engine under test offers. */
	bool (*offers)(const ZydisDecodedInstruction *insn, void *arg);
	void *arg;
	unsigned max_insns;
};

uint64_t gen_random(uint64_t *state);
/* Fills the sequence and the state, not the code: gen_assemble() does. */
void gen_make(const struct gen_config *cfg, uint64_t seed, struct gen_seq *s,
	      struct seq_in *in);
void gen_assemble(const struct gen_seq *s, struct seq_in *in);
/* One line an instruction into `f`; with the mnemonics counted into hits. */
void gen_print(const struct gen_seq *s, const struct seq_in *in, void *f);
void gen_count(const struct gen_seq *s, uint32_t hits[ZYDIS_MNEMONIC_MAX_VALUE + 1]);

#endif
