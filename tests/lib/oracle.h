/* SPDX-License-Identifier: MIT */
/*
 * oracle.h - compares an engine with the real CPU on random programs.
 */
#ifndef TEST_ORACLE_H
#define TEST_ORACLE_H

#include "tests/lib/gen.h"
#include "tests/lib/native.h"

struct engine {
	const char *name;
	void (*run)(void *arg, const struct seq_in *in, struct seq_out *out);
	/* May the generator use it? */
	bool (*offers)(const ZydisDecodedInstruction *insn, void *arg);
	void *arg;
	/* Arithmetic flags may be old ones when a fault ended the program. */
	bool stale_flags;
};

struct oracle {
	struct native *native;		/* NULL: run the engine alone */
	const struct engine *engine;
	unsigned max_insns;		/* of a sequence */
	uint64_t runs, insns, faults;
	uint32_t hits[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

/* Runs the sequence of one seed on both; true when they agree.  A difference is
 * minimised and printed as TAP comments. */
bool oracle_seed(struct oracle *o, uint64_t seed);
/* A given sequence and state; what names it in the report. */
bool oracle_given(struct oracle *o, const struct gen_seq *s, struct seq_in *in,
		  const char *what);
unsigned oracle_mnemonics(const struct oracle *o);

#endif
