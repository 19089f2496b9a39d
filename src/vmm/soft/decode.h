/* SPDX-License-Identifier: MIT */
/* decode.h - the decoder's tables; only decode.c and block.c include this. */
#ifndef SOFT_DECODE_H
#define SOFT_DECODE_H

#include <Zydis/Zydis.h>

#include "vmm/soft/insn.h"
#include "vmm/soft/memo.h"

struct op;

struct decoder {
	ZydisDecoder zydis;
	const struct op *by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	struct memo memo;
};

void decoder_init(struct decoder *d);
bool insn_uses_stack(struct soft_cpu *cpu, const uint8_t *p, unsigned n, bool write);
struct decoder *cpu_decoder(struct soft_cpu *cpu);

#endif
