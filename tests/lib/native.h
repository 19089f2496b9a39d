/* SPDX-License-Identifier: MIT */
/*
 * native.h - runs a short instruction sequence on the CPU we are on.
 *
 * Everything lives at fixed low addresses, so that the same virtual addresses can
 * exist in a guest: two pages of code, a page that leaves the sequence, two pages
 * of data with nothing mapped around them.
 */
#ifndef TEST_NATIVE_H
#define TEST_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

#define SEQ_CODE	0x10000000u
#define SEQ_CODE_SIZE	8192u
#define SEQ_EXIT	0x6b6b0000u	/* jumping here ends a run */
#define SEQ_DATA	0x20000000u
#define SEQ_DATA_SIZE	8192u
#define SEQ_XSAVE	832u	/* legacy area, header, AVX */

/* What a 64-bit Linux process has. */
#define SEQ_CS		0x33
#define SEQ_SS		0x2b

/* The state a sequence starts with. */
struct seq_in {
	uint64_t gpr[16], rip, rflags;
	uint8_t xsave[SEQ_XSAVE] __attribute__((aligned(64)));
	uint8_t code[SEQ_CODE_SIZE];
	uint8_t data[SEQ_DATA_SIZE];
};

/* What it left. */
struct seq_out {
	uint64_t gpr[16], rip, rflags;
	int vector;		/* -1: came to SEQ_EXIT; -2: did not end */
	uint32_t error;		/* with vector, where it has one */
	uint64_t cr2;		/* #PF alone */
	uint8_t xsave[SEQ_XSAVE] __attribute__((aligned(64)));
	uint8_t data[SEQ_DATA_SIZE];
};

struct native;

/* NULL when the fixed addresses cannot be had.  One at a time. */
struct native *native_new(void);
void native_free(struct native *n);
void native_run(struct native *n, const struct seq_in *in, struct seq_out *out);

/* Components absent in XSTATE_BV get their initial values; instruction and data
 * pointers, which no engine reproduces, and unused bytes become zero. */
void seq_xsave_normalise(uint8_t x[SEQ_XSAVE]);
bool vector_has_error(int vector);

#endif
