/* SPDX-License-Identifier: MIT */
/*
 * recode.h - the same instruction with other registers and another address.
 *
 * Both engines run instructions of the guest on the host CPU unchanged but for
 * where their general registers and their memory operand are.  Included by
 * src/vmm/soft alone.
 */
#ifndef SOFT_RECODE_H
#define SOFT_RECODE_H

#include <stdbool.h>
#include <stdint.h>

struct ZydisDecodedInstruction_;
struct ZydisDecodedOperand_;

#define RECODE_MAX 20	/* bytes of output, at most */

struct recode_map {
	/* Host register that stands for each guest register where an operand
	 * names one; -1: must not occur.  Implied registers (AX of FNSTSW, RCX
	 * of shifts, ...) are the caller's to arrange. */
	int8_t gpr[16];
	/* The memory operand becomes [mem_base + (mem_index << mem_scale) + mem_disp]; the caller computes
	 * the address, so address size and segment prefixes are dropped, also
	 * where the address is implied (MASKMOVDQU, string instructions). */
	int8_t mem_base;	/* host register; -1: must not have one */
	int8_t mem_index;	/* host register but rsp; -1: none */
	uint8_t mem_scale;	/* the index is shifted by this */
	int32_t mem_disp;
	/* The register in ModRM.rm becomes memory, [rsp + mem_disp].  The caller knows
	 * that this instruction means the same then; it has no memory operand. */
	bool rm_slot;
};

/*
 * Length of the output, or -ENOTSUP: VSIB addresses, AH to BH where they cannot
 * be had, moffs, relative branches, encodings other than legacy and VEX, or a
 * register that the map leaves out.
 */
int insn_recode(const struct ZydisDecodedInstruction_ *z,
		const struct ZydisDecodedOperand_ *ops, const uint8_t *raw,
		const struct recode_map *map, uint8_t out[RECODE_MAX]);

#endif
