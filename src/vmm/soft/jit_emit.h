/* SPDX-License-Identifier: MIT */
/*
 * jit_emit.h - the few host instructions the translator adds of its own.
 *
 * Bytes go to *p, which has room (JIT_BLOCK_ROOM is checked once a block).
 * Register numbers are the host's; `off` is a byte offset from host rsp, which
 * points JIT_BIAS into struct soft_cpu.
 */
#ifndef SOFT_JIT_EMIT_H
#define SOFT_JIT_EMIT_H

#include <stdint.h>
#include <string.h>

#include "vmm/soft/jit.h"

enum { H_RAX, H_RCX, H_RDX, H_RBX, H_RSP, H_RBP, H_RSI, H_RDI,
       H_R8, H_R9, H_R10, H_R11, H_R12, H_R13, H_R14, H_R15 };

#define H_S1 H_R10	/* scratch: address, then host pointer */
#define H_S2 H_R11	/* scratch: TLB entry, spilled operand */

#define OFF(field) ((int)offsetof(struct soft_cpu, field) - JIT_BIAS)
#define OFF_GPR(r) (OFF(gpr) + (r) * 8)

struct emit {
	uint8_t *p;		/* rw */
};

static inline void e8(struct emit *e, uint8_t b)
{
	*e->p++ = b;
}

static inline void e32(struct emit *e, uint32_t v)
{
	__builtin_memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void e64(struct emit *e, uint64_t v)
{
	__builtin_memcpy(e->p, &v, 8);
	e->p += 8;
}

/* op reg, [rsp + off]; w: 64 bit */
static inline void e_rsp(struct emit *e, bool w, uint8_t op, int reg, int off)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3) << 2;
	bool short_off = off == (int8_t)off;

	if (rex != 0x40)
		e8(e, rex);
	e8(e, op);
	e8(e, (short_off ? 0x44 : 0x84) | (reg & 7) << 3);
	e8(e, 0x24);
	if (short_off)
		e8(e, off);
	else
		e32(e, off);
}

static inline void e_ld(struct emit *e, int reg, int off)
{
	e_rsp(e, true, 0x8b, reg, off);
}

static inline void e_st(struct emit *e, int off, int reg)
{
	e_rsp(e, true, 0x89, reg, off);
}

static inline void e_ld32(struct emit *e, int reg, int off)
{
	e_rsp(e, false, 0x8b, reg, off);
}

static inline void e_st32(struct emit *e, int off, int reg)
{
	e_rsp(e, false, 0x89, reg, off);
}

/* movzx r32, byte or word [rsp + off] */
static inline void e_movzx(struct emit *e, uint8_t op, int reg, int off)
{
	uint8_t rex = 0x40 | (reg >> 3) << 2;
	bool short_off = off == (int8_t)off;

	if (rex != 0x40)
		e8(e, rex);
	e8(e, 0x0f);
	e8(e, op);
	e8(e, (short_off ? 0x44 : 0x84) | (reg & 7) << 3);
	e8(e, 0x24);
	if (short_off)
		e8(e, off);
	else
		e32(e, off);
}

static inline void e_movzx8(struct emit *e, int reg, int off)
{
	e_movzx(e, 0xb6, reg, off);
}

static inline void e_movzx16(struct emit *e, int reg, int off)
{
	e_movzx(e, 0xb7, reg, off);
}

/* op rm, reg between registers (0x89 mov, 0x01 add, 0x31 xor, 0x21 and …) */
static inline void e_rr(struct emit *e, bool w, uint8_t op, int rm, int reg)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3) << 2 | rm >> 3;

	if (rex != 0x40)
		e8(e, rex);
	e8(e, op);
	e8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void e_mov(struct emit *e, int dst, int src)
{
	e_rr(e, true, 0x89, dst, src);
}

/* op reg, [base + disp] */
static inline void e_mem(struct emit *e, bool w, uint8_t op, int reg, int base, int disp)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3) << 2 | base >> 3;
	uint8_t mod = !disp && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

	if (rex != 0x40)
		e8(e, rex);
	e8(e, op);
	e8(e, mod << 6 | (reg & 7) << 3 | (base & 7));
	if ((base & 7) == 4)
		e8(e, 0x24);
	if (mod == 1)
		e8(e, disp);
	else if (mod == 2)
		e32(e, disp);
}

/* op reg, [base + (index << scale) + disp]; index -1: none */
static inline void e_memx(struct emit *e, bool w, uint8_t op, int reg, int base, int index,
			  unsigned scale, int disp)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3) << 2 | (index >> 3 & 1) << 1 | base >> 3;
	uint8_t mod = !disp && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

	if (index < 0) {
		e_mem(e, w, op, reg, base, disp);
		return;
	}
	if (rex != 0x40)
		e8(e, rex);
	e8(e, op);
	e8(e, mod << 6 | (reg & 7) << 3 | 4);
	e8(e, scale << 6 | (index & 7) << 3 | (base & 7));
	if (mod == 1)
		e8(e, disp);
	else if (mod == 2)
		e32(e, disp);
}

/* lea reg, [base + (index << scale) + disp]; base or index -1: none */
static inline void e_lea(struct emit *e, bool w, int reg, int base, int index,
			 unsigned scale, int32_t disp)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3) << 2 |
		      (index >= 8 ? 2 : 0) | (base >= 8 ? 1 : 0);
	uint8_t mod;

	if (base >= 0 && index < 0) {
		e_mem(e, w, 0x8d, reg, base, disp);
		return;
	}
	mod = base < 0 || (!disp && (base & 7) != 5) ? 0 : disp == (int8_t)disp ? 1 : 2;
	if (rex != 0x40)
		e8(e, rex);
	e8(e, 0x8d);
	e8(e, mod << 6 | (reg & 7) << 3 | 4);
	e8(e, scale << 6 | (index < 0 ? 4 : index & 7) << 3 | (base < 0 ? 5 : base & 7));
	if (mod == 1)
		e8(e, disp);
	else if (mod == 2 || base < 0)
		e32(e, disp);
}

/* op reg, imm32 of the 81 group (0 add, 4 and, 7 cmp) */
static inline void e_imm(struct emit *e, bool w, unsigned op, int reg, int32_t imm)
{
	uint8_t rex = 0x40 | w << 3 | reg >> 3;
	bool short_imm = imm == (int8_t)imm;

	if (rex != 0x40)
		e8(e, rex);
	e8(e, short_imm ? 0x83 : 0x81);
	e8(e, 0xc0 | op << 3 | (reg & 7));
	if (short_imm)
		e8(e, imm);
	else
		e32(e, imm);
}

static inline void e_shift_imm(struct emit *e, bool w, unsigned op, int reg, uint8_t n)
{
	uint8_t rex = 0x40 | w << 3 | reg >> 3;

	if (rex != 0x40)
		e8(e, rex);
	e8(e, 0xc1);
	e8(e, 0xc0 | op << 3 | (reg & 7));
	e8(e, n);
}

/* mov r32, imm32 (upper half becomes zero) */
static inline void e_movi(struct emit *e, int reg, uint32_t v)
{
	if (reg > 7)
		e8(e, 0x41);
	e8(e, 0xb8 | (reg & 7));
	e32(e, v);
}

/* jmp or jcc (cc 0..15; -1: jmp) to be filled in: where its rel32 is */
static inline uint8_t *e_jump(struct emit *e, int cc)
{
	if (cc < 0) {
		e8(e, 0xe9);
	} else {
		e8(e, 0x0f);
		e8(e, 0x80 | cc);
	}
	e32(e, 0);
	return e->p - 4;
}

/* r8 to r15 */
static inline void e_jmp_reg(struct emit *e, int reg)
{
	e8(e, 0x41);
	e8(e, 0xff);
	e8(e, 0xe0 | (reg & 7));
}

/* Points the rel32 at `site` (rw) to `to` (rw or both rx: same distance). */
static inline void e_patch(uint8_t *site, const uint8_t *to)
{
	int32_t rel = (int32_t)(to - (site + 4));

	__builtin_memcpy(site, &rel, 4);
}

/*
 * Guest flags from the host's to cpu->cc and back, in the form of LAHF; SETO AL.
 * Both use H_S2 and leave the host's flags as they were.
 */
static inline void e_flags_save(struct emit *e)
{
	e_mov(e, H_S2, H_RAX);
	e8(e, 0x9f);				/* lahf */
	e8(e, 0x0f); e8(e, 0x90); e8(e, 0xc0);	/* seto al */
	e8(e, 0x66);				/* cc's upper half is always 0 */
	e_st32(e, OFF(cc), H_RAX);
	e_mov(e, H_RAX, H_S2);
}

static inline void e_flags_load(struct emit *e)
{
	e_mov(e, H_S2, H_RAX);
	e_movzx16(e, H_RAX, OFF(cc));
	e8(e, 0x04); e8(e, 0x7f);		/* add al, 127: OF = bit 0 */
	e8(e, 0x9e);				/* sahf */
	e_mov(e, H_RAX, H_S2);
}

#endif
