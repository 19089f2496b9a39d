// SPDX-License-Identifier: MIT
/*
 * fp.c - x87, MMX, SSE and AVX instructions: run by the host CPU itself.
 *
 * Theory of operation.  While a vCPU runs, the guest's floating point and vector
 * state is in the host's registers, and nothing compiled here touches those
 * (-mgeneral-regs-only; no libc).  So an instruction on them needs no
 * emulation: decoding prepares a stub (fp_stub.c) that holds the guest's own
 * instruction, with
 *
 *	its memory operand replaced by [rdi],
 *	its general registers replaced by rax, rcx, rdx,
 *
 * and the handler computes the address, finds the host memory behind it (or
 * bounces, where it crosses pages or is not RAM), loads registers and flags
 * where the instruction uses them, and calls the stub.  Rounding, NaNs, flags,
 * sticky bits: all are the hardware's.
 *
 * What the host may not decide is checked before: CR0.EM, CR0.TS, CR4.OSFXSR,
 * CR4.OSXSAVE and XCR0 (fp_deny, kept up to date by fp_mode_changed()), the
 * features of the CPU model (at decode), alignment of legacy SSE operands.  A
 * page fault comes before the stub runs, so the instruction has then done nothing.
 * Exceptions that the guest unmasked come back from the stub as a vector.
 *
 * Deliberately not done: x87 instruction and data pointers (FIP, FDP, FOP) would
 * be those of the stub; the guest sees zeroes.  AVX-512 is not in the model.
 */
#include <errno.h>
#include <stdlib.h>

#include <Zydis/Zydis.h>

#include "vmm/soft/fp.h"
#include "vmm/soft/ops.h"

/* --- which instructions, which feature ---------------------------------------- */

struct isa {
	uint16_t set;		/* ZydisISASet */
	uint8_t cls;		/* FP_SSE: FP_MMX when it names no XMM register */
	uint8_t word, bit;	/* feature of the model */
};

static const struct isa isas[] = {
	{ ZYDIS_ISA_SET_X87, FP_X87, CPUID_1_EDX, 0 },
	{ ZYDIS_ISA_SET_FCMOV, FP_X87, CPUID_1_EDX, 15 },
	{ ZYDIS_ISA_SET_PPRO, FP_X87, CPUID_1_EDX, 15 },	/* FCOMI and kin */
	{ ZYDIS_ISA_SET_SSE3X87, FP_X87, CPUID_1_ECX, 0 },
	{ ZYDIS_ISA_SET_PENTIUMMMX, FP_MMX, CPUID_1_EDX, 23 },
	{ ZYDIS_ISA_SET_FXSAVE, FP_X87, CPUID_1_EDX, 24 },
	{ ZYDIS_ISA_SET_FXSAVE64, FP_X87, CPUID_1_EDX, 24 },
	{ ZYDIS_ISA_SET_SSE, FP_SSE, CPUID_1_EDX, 25 },
	{ ZYDIS_ISA_SET_SSEMXCSR, FP_SSE, CPUID_1_EDX, 25 },
	{ ZYDIS_ISA_SET_SSE2, FP_SSE, CPUID_1_EDX, 26 },
	{ ZYDIS_ISA_SET_SSE2MMX, FP_SSE, CPUID_1_EDX, 26 },
	{ ZYDIS_ISA_SET_SSE3, FP_SSE, CPUID_1_ECX, 0 },
	{ ZYDIS_ISA_SET_SSSE3, FP_SSE, CPUID_1_ECX, 9 },
	{ ZYDIS_ISA_SET_SSSE3MMX, FP_SSE, CPUID_1_ECX, 9 },
	{ ZYDIS_ISA_SET_SSE4, FP_SSE, CPUID_1_ECX, 19 },
	{ ZYDIS_ISA_SET_SSE42, FP_SSE, CPUID_1_ECX, 20 },
	{ ZYDIS_ISA_SET_AES, FP_SSE, CPUID_1_ECX, 25 },
	{ ZYDIS_ISA_SET_PCLMULQDQ, FP_SSE, CPUID_1_ECX, 1 },
	{ ZYDIS_ISA_SET_SHA, FP_SSE, CPUID_7_EBX, 29 },
	{ ZYDIS_ISA_SET_GFNI, FP_SSE, CPUID_7_ECX, 8 },
	{ ZYDIS_ISA_SET_AVX, FP_AVX, CPUID_1_ECX, 28 },
	{ ZYDIS_ISA_SET_AVXAES, FP_AVX, CPUID_1_ECX, 25 },
	{ ZYDIS_ISA_SET_AVX2, FP_AVX, CPUID_7_EBX, 5 },
	{ ZYDIS_ISA_SET_AVX2GATHER, FP_AVX, CPUID_7_EBX, 5 },
	{ ZYDIS_ISA_SET_F16C, FP_AVX, CPUID_1_ECX, 29 },
	{ ZYDIS_ISA_SET_FMA, FP_AVX, CPUID_1_ECX, 12 },
	{ ZYDIS_ISA_SET_AVX_GFNI, FP_AVX, CPUID_7_ECX, 8 },
	{ ZYDIS_ISA_SET_VAES, FP_AVX, CPUID_7_ECX, 9 },
	{ ZYDIS_ISA_SET_VPCLMULQDQ, FP_AVX, CPUID_7_ECX, 10 },
	{ ZYDIS_ISA_SET_AVX_VNNI, FP_AVX, CPUID_7_1_EAX, 4 },
	{ ZYDIS_ISA_SET_XSAVE, FP_XSAVE, CPUID_1_ECX, 26 },
	{ ZYDIS_ISA_SET_XSAVEOPT, FP_XSAVE, CPUID_D_1_EAX, 0 },
	{ ZYDIS_ISA_SET_XSAVEC, FP_XSAVE, CPUID_D_1_EAX, 1 },
	{ ZYDIS_ISA_SET_XSAVES, FP_XSAVE, CPUID_D_1_EAX, 3 },
};

static const struct isa *find_isa(const ZydisDecodedInstruction *z)
{
	for (unsigned n = 0; n < ARRAY_LEN(isas); n++)
		if (isas[n].set == z->meta.isa_set)
			return &isas[n];
	return NULL;
}

bool fp_offers(const struct cpu_model *model, const ZydisDecodedInstruction *z)
{
	const struct isa *isa = find_isa(z);

	return isa && model->word[isa->word] >> isa->bit & 1 &&
	       (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
		z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX);
}

static bool is_vector_register(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_X87: case ZYDIS_REGCLASS_MMX: case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM: case ZYDIS_REGCLASS_ZMM: case ZYDIS_REGCLASS_MASK:
	case ZYDIS_REGCLASS_TMM:
		return true;
	default:
		return r == ZYDIS_REGISTER_MXCSR;
	}
}

static bool names(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		  ZydisRegisterClass c)
{
	for (unsigned n = 0; n < z->operand_count; n++)
		if (ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(ops[n].reg.value) == c)
			return true;
	return false;
}

/* Does it use state that is ours, whether the model has it or not? */
static bool is_ours(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_XGETBV: case ZYDIS_MNEMONIC_XSETBV:
		return false;
	case ZYDIS_MNEMONIC_VZEROALL: case ZYDIS_MNEMONIC_VZEROUPPER:
	case ZYDIS_MNEMONIC_EMMS:
	/* of memory these name no vector register, but use MXCSR */
	case ZYDIS_MNEMONIC_CVTSS2SI: case ZYDIS_MNEMONIC_CVTTSS2SI:
	case ZYDIS_MNEMONIC_CVTSD2SI: case ZYDIS_MNEMONIC_CVTTSD2SI:
	case ZYDIS_MNEMONIC_VCVTSS2SI: case ZYDIS_MNEMONIC_VCVTTSS2SI:
	case ZYDIS_MNEMONIC_VCVTSD2SI: case ZYDIS_MNEMONIC_VCVTTSD2SI:
		return true;
	default:
		break;
	}
	switch (z->meta.isa_set) {
	case ZYDIS_ISA_SET_X87: case ZYDIS_ISA_SET_FCMOV: case ZYDIS_ISA_SET_SSE3X87:
	case ZYDIS_ISA_SET_FXSAVE: case ZYDIS_ISA_SET_FXSAVE64:
	case ZYDIS_ISA_SET_XSAVE: case ZYDIS_ISA_SET_XSAVEOPT:
	case ZYDIS_ISA_SET_XSAVEC: case ZYDIS_ISA_SET_XSAVES:
	case ZYDIS_ISA_SET_SSEMXCSR:
		return true;
	default:
		break;
	}
	for (unsigned n = 0; n < z->operand_count; n++)
		if ((ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		     is_vector_register(ops[n].reg.value)) ||
		    (ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		     ops[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB))
			return true;
	return false;
}

static uint8_t class_of(const struct isa *isa, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *ops)
{
	if (z->mnemonic == ZYDIS_MNEMONIC_FWAIT)
		return FP_WAIT;
	if (z->mnemonic == ZYDIS_MNEMONIC_FISTTP)	/* SSE3 to Zydis */
		return FP_X87;
	if (isa->cls == FP_SSE && names(z, ops, ZYDIS_REGCLASS_MMX) &&
	    !names(z, ops, ZYDIS_REGCLASS_XMM))
		return FP_MMX;
	return isa->cls;
}

/* --- handlers ------------------------------------------------------------------- */

const struct insn *fp_ud(struct soft_cpu *cpu, const struct insn *i)
{
	cpu_ud(cpu);
}

_Noreturn void fp_denied(struct soft_cpu *cpu, unsigned cls)
{
	bool no_sse = cls == FP_SSE && !(cpu->cr4 & CR4_OSFXSR);
	bool no_xsave = cls & (FP_AVX | FP_XSAVE) && !(cpu->cr4 & CR4_OSXSAVE);
	bool no_avx = cls == FP_AVX && (cpu->xcr0 & 6) != 6;
	bool em = cls & (FP_MMX | FP_SSE) && cpu->cr0 & CR0_EM;

	if (no_sse || no_xsave || no_avx || em)
		cpu_ud(cpu);
	cpu_nm(cpu);
}

_Noreturn void fp_raise(struct soft_cpu *cpu, unsigned vector)
{
	if (vector == VEC_XM && !(cpu->cr4 & CR4_OSXMMEXCPT))
		cpu_ud(cpu);
	cpu_raise(cpu, vector, 0);
}

void fp_mode_changed(struct soft_cpu *cpu)
{
	uint8_t deny = 0;

	if (cpu->cr0 & CR0_EM)
		deny |= FP_X87 | FP_MMX | FP_SSE;
	if (cpu->cr0 & CR0_TS)
		deny |= FP_X87 | FP_MMX | FP_SSE | FP_AVX | FP_XSAVE;
	if (cpu->cr0 & CR0_TS && cpu->cr0 & CR0_MP)
		deny |= FP_WAIT;
	if (!(cpu->cr4 & CR4_OSFXSR))
		deny |= FP_SSE;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		deny |= FP_AVX | FP_XSAVE;
	if ((cpu->xcr0 & 6) != 6)
		deny |= FP_AVX;
	cpu->fp_deny = deny;
}

/* The area is full: starts afresh, and has this instruction decoded again. */
const struct insn *fp_full(struct soft_cpu *cpu, const struct insn *i)
{
	fp_save(cpu);
	blocks_flush(cpu);
	fp_stub_flush(cpu->fp);
	fp_load(cpu);
	return NULL;
}

HANDLER(fp_reg)
{
	unsigned fault;

	fp_check(cpu, fp_aux(i).cls);
	fault = fp_call(i->ptr, NULL);
	if (unlikely(fault))
		fp_raise(cpu, fault);
	NEXT(cpu, i);
}

/* An x87 exception that is pending comes before a fault of the operand. */
static __attribute__((noinline)) void pending_mf(struct soft_cpu *cpu, const struct insn *i)
{
	uint16_t sw;

	if (!(fp_aux(i).cls & (FP_X87 | FP_MMX)) ||
	    i->mnemonic == ZYDIS_MNEMONIC_FNSTCW ||
	    i->mnemonic == ZYDIS_MNEMONIC_FNSTSW)
		return;
	asm volatile("fnstsw %0" : "=m"(sw));
	if (sw & 0x80)
		fp_raise(cpu, VEC_MF);
}

static inline uint64_t aligned_ea(struct soft_cpu *cpu, const struct insn *i,
				  union fp_aux a)
{
	uint64_t va = insn_ea(cpu, i);

	if (unlikely(va & a.align)) {
		pending_mf(cpu, i);
		cpu_gp(cpu);
	}
	return va;
}

static __attribute__((noinline)) const void *
read_slow(struct soft_cpu *cpu, const struct insn *i, uint64_t va, unsigned len)
{
	const void *p;

	pending_mf(cpu, i);
	p = guest_read_ptr(cpu, va, len);
	if (p)
		return p;
	guest_read(cpu, va, fp_of(cpu)->image, len);
	return fp_of(cpu)->image;
}

static inline const void *read_operand(struct soft_cpu *cpu, const struct insn *i,
				       uint64_t va, unsigned len)
{
	if (likely(tlb_reads(cpu->tlb, va, len)))
		return tlb_host(cpu->tlb, va);
	return read_slow(cpu, i, va, len);
}

HANDLER(fp_load_op)
{
	union fp_aux a = fp_aux(i);
	const void *p;
	unsigned fault;

	fp_check(cpu, a.cls);
	p = read_operand(cpu, i, aligned_ea(cpu, i, a), a.msize);
	fault = fp_call(i->ptr, p);
	if (unlikely(fault))
		fp_raise(cpu, fault);
	NEXT(cpu, i);
}

/*
 * A store whose exception is unmasked stores nothing, so it does not fault either.
 * Found out by running it twice over different backgrounds.
 */
static bool x87_stores_nothing(struct soft_cpu *cpu, const struct insn *i,
			       union fp_aux a)
{
	uint8_t *img = fp_of(cpu)->image, *state = img + 256;
	uint16_t cw;

	asm volatile("fnstcw %0" : "=m"(cw));
	if (a.cls != FP_X87 || (cw & 0x3f) == 0x3f)
		return false;
	fp_zero(img, 16);
	asm volatile("fxsave64 (%0)" : : "r"(state) : "memory");
	fp_call(i->ptr, img);
	asm volatile("fxrstor64 (%0)" : : "r"(state) : "memory");
	for (unsigned n = 0; n < 16; n++)
		img[16 + n] = ~img[n];
	fp_call(i->ptr, img + 16);
	asm volatile("fxrstor64 (%0)" : : "r"(state) : "memory");
	for (unsigned n = 0; n < a.msize; n++)
		if (img[n] == img[16 + n])
			return false;
	return true;
}

/*
 * The bounce starts as what is there: an x87 store whose exception is unmasked
 * stores nothing and raises it later.
 */
static void *bounce_for_write(struct soft_cpu *cpu, uint64_t va, union fp_aux a)
{
	guest_check_write(cpu, va, a.msize);
	if (a.cls == FP_X87)
		guest_read(cpu, va, fp_of(cpu)->image, a.msize);
	return fp_of(cpu)->image;
}

/* NULL: not in the TLB. */
static inline void *write_fast(struct soft_cpu *cpu, uint64_t va, unsigned len)
{
	if (likely(tlb_writes(cpu->tlb, va, len)))
		return tlb_host(cpu->tlb, va);
	return NULL;
}

static void *write_slow(struct soft_cpu *cpu, const struct insn *i, uint64_t va,
			union fp_aux a, bool *bounced)
{
	void *p;

	pending_mf(cpu, i);
	if (x87_stores_nothing(cpu, i, a))
		return fp_of(cpu)->image;
	p = guest_write_ptr(cpu, va, a.msize);
	if (p)
		return p;
	*bounced = true;
	return bounce_for_write(cpu, va, a);
}

static __attribute__((noinline)) const struct insn *
store_slow(struct soft_cpu *cpu, const struct insn *i, uint64_t va)
{
	union fp_aux a = fp_aux(i);
	bool bounced = false;
	void *p = fp_of(cpu)->image;
	unsigned fault;

	/* converts, and raises what comes of it, before it stores */
	if (i->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH)
		bounced = true;
	else
		p = write_slow(cpu, i, va, a, &bounced);
	fault = fp_call(i->ptr, p);

	if (fault)
		fp_raise(cpu, fault);
	if (bounced)
		guest_write(cpu, va, fp_of(cpu)->image, a.msize);
	return insn_done(cpu, i);
}

HANDLER(fp_store_op)
{
	union fp_aux a = fp_aux(i);
	unsigned fault;
	uint64_t va;
	void *p;

	fp_check(cpu, a.cls);
	va = aligned_ea(cpu, i, a);
	p = write_fast(cpu, va, a.msize);
	if (unlikely(!p))
		return store_slow(cpu, i, va);
	fault = fp_call(i->ptr, p);
	if (unlikely(fault))
		fp_raise(cpu, fault);
	NEXT(cpu, i);
}

static void get_gprs(const struct soft_cpu *cpu, union fp_aux a, struct fp_io *io)
{
	for (unsigned n = 0; n < 3; n++)
		io->gpr[n] = a.gpr[n] == FP_NO_GPR ? 0 : cpu->gpr[a.gpr[n]];
	io->cc = cpu->cc;
}

static void put_gprs(struct soft_cpu *cpu, union fp_aux a, const struct fp_io *io)
{
	for (unsigned n = 0; n < 3; n++)
		if (a.gpr[n] != FP_NO_GPR)
			cpu->gpr[a.gpr[n]] = io->gpr[n];
	cpu->cc = io->cc;
}

/* With general registers or flags, with or without memory. */
HANDLER(fp_any)
{
	union fp_aux a = fp_aux(i);
	bool bounced = false;
	struct fp_io io;
	uint64_t va = 0;
	const void *p = NULL;
	unsigned fault;

	fp_check(cpu, a.cls);
	if (a.access) {
		va = aligned_ea(cpu, i, a);
		if (!(a.access & FP_WRITE))
			p = read_operand(cpu, i, va, a.msize);
		else if (!(p = write_fast(cpu, va, a.msize)))
			p = write_slow(cpu, i, va, a, &bounced);
	}
	get_gprs(cpu, a, &io);
	fault = fp_call_io(i->ptr, p, &io);
	if (unlikely(fault))
		fp_raise(cpu, fault);
	put_gprs(cpu, a, &io);
	if (unlikely(bounced))
		guest_write(cpu, va, fp_of(cpu)->image, a.msize);
	return insn_done(cpu, i);
}

/* Reserved bits must not reach the host's LDMXCSR: it would fault here. */
HANDLER(fp_ldmxcsr)
{
	uint32_t val;

	fp_check(cpu, fp_aux(i).cls);
	guest_read(cpu, insn_ea(cpu, i), &val, 4);
	if (val & ~fp_of(cpu)->mxcsr_mask)
		cpu_gp(cpu);
	asm volatile("ldmxcsr %0" : : "m"(val));
	return insn_done(cpu, i);
}

/* --- decoding -------------------------------------------------------------------- */

/* Legacy SSE operands of 16 bytes are aligned but for these; of VEX, just moves. */
static uint8_t align_of(const ZydisDecodedInstruction *z, unsigned size)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI: case ZYDIS_MNEMONIC_PCMPISTRM:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
		return 0;
	case ZYDIS_MNEMONIC_VMOVAPS: case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA: case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD: case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return size - 1;
	default:
		return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && size == 16 ?
		       15 : 0;
	}
}

static int gpr_number(ZydisRegister r)
{
	ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64 ?
	       ZydisRegisterGetId(full) : -1;
}

/* Implied registers stay what they are; a named one takes the first free of
 * rax, rcx, rdx.  Host numbers of those are 0, 1, 2. */
static bool map_gprs(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		     struct recode_map *map, union fp_aux *a)
{
	bool any = false;

	for (unsigned n = 0; n < z->operand_count; n++) {
		int r, host = 0;

		if (ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    (r = gpr_number(ops[n].reg.value)) < 0)
			continue;
		any = true;
		if (map->gpr[r] >= 0)
			continue;
		if (ops[n].encoding == ZYDIS_OPERAND_ENCODING_NONE)
			host = r;
		else
			while (host < 3 && a->gpr[host] != FP_NO_GPR)
				host++;
		if (host >= 3)
			return false;
		a->gpr[host] = r;
		map->gpr[r] = host;
	}
	return any;
}

static void map_memory(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		       struct recode_map *map, union fp_aux *a)
{
	for (unsigned n = 0; n < z->operand_count; n++) {
		if (ops[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		map->mem_base = X86_RDI;
		a->msize = ops[n].size / 8;
		a->align = align_of(z, a->msize);
		if (ops[n].actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			a->access |= FP_READ;
		if (ops[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			a->access |= FP_WRITE;
	}
}

static bool uses_flags(const ZydisDecodedInstruction *z)
{
	const ZydisAccessedFlags *f = z->cpu_flags;

	return f && (f->tested | f->modified | f->set_0 | f->set_1 | f->undefined) & FL_CC;
}

static insn_fn *choose(bool io, union fp_aux a)
{
	if (io)
		return fp_any;
	if (a.access & FP_WRITE)
		return fp_store_op;
	return a.access ? fp_load_op : fp_reg;
}

/* fn, ptr and aux of an instruction that a stub runs. */
static void decode_stub(struct soft_cpu *cpu, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *ops, struct insn *i,
			union fp_aux a)
{
	struct recode_map map = { .mem_base = -1, .mem_index = -1 };
	uint8_t code[RECODE_MAX];
	insn_fn *special;
	bool io;
	int len;

	for (unsigned n = 0; n < 16; n++)
		map.gpr[n] = -1;
	a.gpr[0] = a.gpr[1] = a.gpr[2] = FP_NO_GPR;
	io = map_gprs(z, ops, &map, &a) || uses_flags(z);
	map_memory(z, ops, &map, &a);
	special = fp_mask_decode(cpu, z, ops, i, &a);
	len = insn_recode(z, ops, i->raw, &map, code);
	i->fn = special ? special : choose(io, a);
	i->aux = a.u;
	if (len < 0)
		i->fn = fp_ud;
	else if (!(i->ptr = fp_stub(cpu->fp, code, len)))
		i->fn = fp_full;
	if (i->fn == fp_full || i->fn == fp_ud)
		i->flags |= INSN_END;
}

bool fp_decode(struct soft_cpu *cpu, const ZydisDecodedInstruction *z,
	       const ZydisDecodedOperand *ops, struct insn *i)
{
	union fp_aux a = { .u = 0 };

	if (!is_ours(z, ops))
		return false;
	if (!fp_offers(cpu->model, z)) {
		i->fn = fp_ud;
		i->flags |= INSN_END;
		return true;
	}
	i->flags |= INSN_FP;
	a.cls = class_of(find_isa(z), z, ops);
	if (z->mnemonic == ZYDIS_MNEMONIC_LDMXCSR ||
	    z->mnemonic == ZYDIS_MNEMONIC_VLDMXCSR)
		i->fn = fp_ldmxcsr;
	else
		i->fn = fp_image_handler(z->mnemonic);
	if (i->fn) {
		a.arg = z->operand_width == 16 ? 2 : 4;
		i->aux = a.u;
		return true;
	}
	if (fp_gather_decode(cpu, z, ops, i, a))
		return true;
	decode_stub(cpu, z, ops, i, a);
	return true;
}
