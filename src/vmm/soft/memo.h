/* SPDX-License-Identifier: MIT */
/*
 * memo.h - instructions that were decoded before, by their bytes.  For decode.c.
 *
 * Code repeats itself: what differs between two instructions is often a displacement
 * or an immediate value alone, and decoding from scratch costs half a microsecond.
 * An entry is a decoded instruction with the places of those two in its bytes; it
 * fits other bytes that agree with its own everywhere else.  Prefixes, opcode,
 * ModRM and SIB come first in an instruction and say all about it but those values,
 * so bytes that fit an entry cannot mean anything else.
 */
#ifndef SOFT_MEMO_H
#define SOFT_MEMO_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/soft/insn.h"

/* A number within an instruction's bytes. */
struct memo_field {
	uint8_t off, len;	/* len 0: none */
	bool is_signed;
};

struct memo_entry {
	struct insn i;
	uint64_t mask[2];	/* of bytes 0 to 7, and 7 to 14, that must agree */
	int64_t disp_from;	/* i.disp is this and the field */
	struct memo_field disp, imm;
	uint8_t head;		/* bytes before the first field; 0: empty */
};

#define MEMO_BITS 11
struct memo {
	struct memo_entry entry[1u << MEMO_BITS];
};

/* p: 15 readable bytes, which may change meanwhile.  False: not known. */
bool memo_get(const struct memo *m, struct insn *i, const uint8_t *p);
/*
 * Keeps a decoded instruction.  disp: what i->disp counts from is this field;
 * imm: the field is i->imm.
 */
void memo_put(struct memo *m, const struct insn *i, struct memo_field disp,
	      struct memo_field imm);
void memo_forget(struct memo *m);

#endif
