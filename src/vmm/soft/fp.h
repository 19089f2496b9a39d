/* SPDX-License-Identifier: MIT */
/*
 * fp.h - the parts of fp*.c among each other, and what the translator needs.
 *
 * Included by src/vmm/soft and its tests alone; others use what soft.h and insn.h
 * declare.
 */
#ifndef SOFT_FP_H
#define SOFT_FP_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/soft/codemem.h"
#include "vmm/soft/insn.h"
#include "vmm/soft/recode.h"

/* What may keep an instruction from running; a bit each in soft_cpu.fp_deny. */
enum fp_class {
	FP_X87 = 1 << 0,	/* CR0.EM, CR0.TS: #NM */
	FP_WAIT = 1 << 1,	/* FWAIT: CR0.MP and CR0.TS: #NM */
	FP_MMX = 1 << 2,	/* CR0.EM: #UD; CR0.TS: #NM */
	FP_SSE = 1 << 3,	/* and CR4.OSFXSR clear: #UD */
	FP_AVX = 1 << 4,	/* CR4.OSXSAVE or XCR0 without AVX: #UD; TS: #NM */
	FP_XSAVE = 1 << 5,	/* CR4.OSXSAVE clear: #UD; TS: #NM */
};

/* struct insn.aux of our instructions. */
union fp_aux {
	uint64_t u;
	struct {
		uint8_t cls;		/* enum fp_class, one bit */
		uint8_t align;		/* mask the address must not have */
		uint8_t gpr[3];		/* guest register in host rax, rcx, rdx */
		uint8_t msize;		/* bytes of memory operand */
		uint8_t access;		/* FP_READ, FP_WRITE */
		uint8_t arg;		/* of the handler */
	};
};
#define FP_NO_GPR 0xff
#define FP_READ  1
#define FP_WRITE 2
_Static_assert(sizeof(union fp_aux) == 8, "fits into struct insn");

#define FP_AREA_SIZE (16u << 20)
#define FP_IMAGE_SIZE 832u	/* legacy area, header, AVX */

struct fp {
	struct codemem area;	/* owned: stubs */
	uint32_t used, limit;	/* bytes */
	uint32_t *hash;		/* owned; offsets of stubs, 0: free */
	uint32_t hash_size, nr_stubs;
	bool full;		/* to be flushed when nothing runs in it */

	uint32_t mxcsr_mask;	/* of the bits the guest may set */
	bool xinuse;		/* the host's XGETBV tells which components are in use */
	uint8_t *host;		/* owned; image of initial state, our own MXCSR */
	uint8_t *image;		/* owned; scratch for images of the guest */
	void *access[2][16];	/* stubs of fp_mask.c */
};

/* --- fp_stub.c -------------------------------------------------------------- */

int fp_stub_init(struct fp *fp);
void fp_stub_done(struct fp *fp);
/* Address of a stub that runs these bytes and returns; NULL when the area is
 * full (then fp->full is set).  rdi may hold an address for it. */
void *fp_stub(struct fp *fp, const uint8_t *code, unsigned len);
/* Forgets all stubs; nothing may hold one. */
void fp_stub_flush(struct fp *fp);

/*
 * Runs a stub that uses no general register but rdi and no flag.  Returns 0, or
 * the vector of the exception the host raised in it: VEC_MF, VEC_XM.
 */
static inline unsigned fp_call(const void *stub, const void *mem)
{
	unsigned fault = 0;

	asm volatile("call *%[stub]"
		     : "+S"(fault)
		     : [stub] "r"(stub), "D"(mem)
		     : "memory", "cc");
	return fault;
}

struct fp_io {
	uint64_t gpr[3];	/* rax, rcx, rdx */
	uint32_t cc;		/* soft_cpu.cc */
};

/* The same with registers and flags going in and coming out. */
static inline unsigned fp_call_io(const void *stub, const void *mem, struct fp_io *io)
{
	unsigned fault = 0;

	asm volatile("movl 24(%[io]), %%eax\n\t"
		     "addb $0x7f, %%al\n\t"	/* OF */
		     "sahf\n\t"
		     "movq (%[io]), %%rax\n\t"
		     "movq 8(%[io]), %%rcx\n\t"
		     "movq 16(%[io]), %%rdx\n\t"
		     "call *%[stub]\n\t"
		     "movq %%rax, (%[io])\n\t"
		     "movq %%rcx, 8(%[io])\n\t"
		     "movq %%rdx, 16(%[io])\n\t"
		     "lahf\n\t"
		     "seto %%al\n\t"
		     "movzwl %%ax, %%eax\n\t"
		     "movl %%eax, 24(%[io])"
		     : "+S"(fault)
		     : [stub] "r"(stub), "D"(mem), [io] "b"(io)
		     : "rax", "rcx", "rdx", "memory", "cc");
	return fault;
}

/* --- fp.c -------------------------------------------------------------------- */

static inline struct fp *fp_of(struct soft_cpu *cpu)
{
	return cpu->fp;
}

static inline union fp_aux fp_aux(const struct insn *i)
{
	return (union fp_aux){ .u = i->aux };
}

/* Does the model have this instruction, and is it fp.c's? */
bool fp_offers(const struct cpu_model *model, const struct ZydisDecodedInstruction_ *z);
/* Raises what keeps the class from running. */
_Noreturn void fp_denied(struct soft_cpu *cpu, unsigned cls);
/* The host raised `vector` in a stub. */
_Noreturn void fp_raise(struct soft_cpu *cpu, unsigned vector);

static inline void fp_check(struct soft_cpu *cpu, unsigned cls)
{
	if (unlikely(cpu->fp_deny & cls))
		fp_denied(cpu, cls);
}

/* Copies without vector registers, which libc's memcpy() would use. */
static inline void fp_copy(void *dst, const void *src, unsigned long n)
{
	asm volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static inline void fp_zero(void *dst, unsigned long n)
{
	asm volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(0) : "memory");
}

insn_fn fp_ud;			/* raises #UD */
insn_fn fp_full;		/* empties the stub area and starts over */

/* --- fp_state.c -------------------------------------------------------------- */

/* XSAVE and XRSTOR of the given components, in standard format; FXSAVE and FXRSTOR
 * where the host has no XSAVE. */
void fp_xsave(const struct soft_cpu *cpu, void *image, uint64_t mask);
void fp_xrstor(const struct soft_cpu *cpu, const void *image, uint64_t mask);

/* --- fp_image.c: FXSAVE, XSAVE, FNSAVE, FNSTENV and back ----------------------- */

/* NULL when the instruction is none of them. */
insn_fn *fp_image_handler(unsigned mnemonic);

/* --- fp_mask.c: instructions that touch only parts of their memory operand ----- */

/* NULL when it is none; may set the address and aux->arg. */
insn_fn *fp_mask_decode(struct soft_cpu *cpu, const struct ZydisDecodedInstruction_ *z,
			const struct ZydisDecodedOperand_ *ops, struct insn *i,
			union fp_aux *a);
/* True when it is a gather; sets fn, ptr, aux. */
bool fp_gather_decode(struct soft_cpu *cpu, const struct ZydisDecodedInstruction_ *z,
		      const struct ZydisDecodedOperand_ *ops, struct insn *i,
		      union fp_aux a);

#endif
