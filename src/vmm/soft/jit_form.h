/* SPDX-License-Identifier: MIT */
/*
 * jit_form.h - what the translator knows of an instruction before it emits it:
 * how it will be done, which flags it reads and replaces, its memory operand.
 * Only jit_*.c include this.
 */
#ifndef SOFT_JIT_FORM_H
#define SOFT_JIT_FORM_H

#include <Zydis/Zydis.h>

#include "vmm/soft/jit_emit.h"

#define ALL_FLAGS 0xd7u		/* LAHF's order, OF in bit 1 */
#define FLAG_CF	  0x01u
#define FLAG_ZF	  0x40u

enum form {
	F_COPY,			/* recode.c does it */
	F_LEA, F_PUSH, F_POP, F_LEAVE, F_NOP, F_PAUSE, F_PUSHF, F_BT, F_STRING,
	F_RAW,			/* the very bytes */
	F_SYS,			/* jit_sys.c does it */
	F_CALL_OUT,		/* the interpreter does it */
	F_JCC,
	/* these end the block */
	F_JMP, F_CALL, F_RET, F_JMP_RM, F_CALL_RM,
	F_TRANSFER,		/* ops.h: leads elsewhere, and host code goes on there */
	F_INTERP,		/* ends translation: the interpreter goes on */
	F_FALL,			/* the block ends without a branch */
};

/* A memory access that may go through a window (jit_window.c). */
struct access {
	int window;		/* -1: none */
	int64_t added;		/* to the base since the window's reckoning began */
};

struct tinsn {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	const struct insn *i;
	enum form form;
	int off;		/* from the start of the page */
	uint8_t use, kill;	/* flags read; flags surely replaced */
	bool def;		/* some flags change */
	uint8_t before, after;	/* flags live */
	bool write;		/* memory operand is written */
	uint8_t msize;		/* its bytes; 0: none */
	struct access operand, stack;
};

/* Where each guest register lives; -1: in struct soft_cpu. */
static const int8_t host_of[16] = {
	H_RAX, H_RCX, H_RDX, H_RBX, H_R9, H_RBP, H_RSI, H_RDI,
	H_R8, -1, -1, -1, H_R12, H_R13, H_R14, H_R15,
};
#define HOST_GUEST_RSP H_R9

/* t->i and t->off are set; fp_deny: FP instructions are not for host code. */
void jit_analyse(const ZydisDecoder *d, struct tinsn *t, bool fp_deny);
/* F_STRING: does it read from [rsi], write to [rdi]? */
bool jit_string_loads(const struct tinsn *t);
bool jit_string_stores(const struct tinsn *t);
/* jit_sys.c: what it does itself; F_CALL_OUT for all others. */
enum form jit_sys_form(const struct tinsn *t);
/* The same of MOV from and to control and debug registers. */
enum form jit_sys_move_form(const struct tinsn *t);
/* Arithmetic flags somebody may read before this block has set them. */
uint8_t jit_block_live_in(const struct block *b);

#endif
