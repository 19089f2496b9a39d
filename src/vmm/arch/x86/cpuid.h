/* SPDX-License-Identifier: MIT */
/*
 * arch/x86/cpuid.h - the CPU models a guest can see.
 *
 * One table names every feature once: its name, where CPUID shows it, and which
 * models have it.  From it follow the leaves both backends serve, the feature
 * list in bundles and the check on restore.
 */
#ifndef ARCH_X86_CPUID_H
#define ARCH_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct err;

#define CPUID_MAX_LEAVES 64
#define CPUID_NR_WORDS   16	/* feature words, one bit a feature */

/* Index of a feature word, and the CPUID register it is. */
enum cpuid_word {
	CPUID_1_ECX, CPUID_1_EDX, CPUID_6_EAX, CPUID_7_EBX, CPUID_7_ECX,
	CPUID_7_EDX, CPUID_7_1_EAX, CPUID_D_1_EAX, CPUID_KVM_EAX,
	CPUID_EXT_ECX, CPUID_EXT_EDX, CPUID_EXT7_EDX, CPUID_EXT8_EBX,
};

struct cpuid_leaf {
	uint32_t leaf, subleaf;
	bool has_subleaf;
	uint32_t eax, ebx, ecx, edx;
};

struct cpu_model {
	const char *name;	/* borrowed, static: "portable", "host" */
	uint64_t tsc_khz;
	uint64_t xcr0_mask;	/* XSAVE components the guest may enable */
	uint32_t xsave_size;	/* of the largest standard-format area */
	uint32_t word[CPUID_NR_WORDS];
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES];
	unsigned nr_leaves;
};

/*
 * Builds a model.  `can` tells what the backend can run: for KVM its supported
 * CPUID, for the software CPU its own list intersected with the host's.
 * -ENOTSUP with err naming the missing features when `portable` cannot be had.
 */
int cpu_model_init(struct cpu_model *m, const char *name,
		   const uint32_t can[CPUID_NR_WORDS], uint64_t tsc_khz,
		   unsigned nr_cpus, struct err *err);
/* Feature words of a CPU given by its leaves, as KVM lists what it can do. */
void cpu_words_from_leaves(const struct cpuid_leaf *leaf, unsigned n,
			   uint32_t word[CPUID_NR_WORDS]);
/* Feature words of the host CPU itself. */
void cpu_host_words(uint32_t word[CPUID_NR_WORDS]);
/*
 * What CPUID answers on vCPU `apic_id`; unknown leaves are zeroes.  What depends
 * on control registers is left to the backend: OSXSAVE (leaf 1 ecx bit 27) and
 * the current XSAVE size (leaf 0xd subleaf 0 ebx, here the largest).
 */
void cpu_model_query(const struct cpu_model *m, unsigned apic_id, uint32_t leaf,
		     uint32_t subleaf, uint32_t out[4]);
/* Space-separated names of the model's features, appended. */
void cpu_model_features(const struct cpu_model *m, struct buf *out);
/*
 * The words of a feature list.  A restore gives cpu_model_init() what the backend
 * can AND these, so that the guest sees what it saw before and nothing newer.
 */
void cpu_feature_words(const char *names, uint32_t word[CPUID_NR_WORDS]);
/* Names in `features` that `m` lacks are appended to `missing`; their number. */
unsigned cpu_model_missing(const struct cpu_model *m, const char *features,
			   struct buf *missing);

#endif
