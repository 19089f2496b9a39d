// SPDX-License-Identifier: MIT
/*
 * arch/x86/cpuid.c - CPU models; see cpuid.h.
 *
 * The table below is the only list of features.  Its last column says who has one:
 *
 *	ALL	portable must have it; what every server CPU since Broadwell and
 *		Zen has, that is x86-64-v3 and a few more
 *	MAY	portable has it where the backend has it: young AMD parts and all
 *		Intel ones do, the first Zens do not, and it is worth much (PCID
 *		spares TLB flushes).  Bundles name it, so a restore elsewhere checks
 *	OURS	the backend makes it, whatever the host has
 *	HOST	in the `host` model alone.  RDSEED is among these because kernels
 *		hide it on CPUs where it is broken: a MAY would keep bundles from
 *		moving there for an instruction that nobody misses
 *
 * Portable calls itself GenuineIntel, family 6, model 0x4f.  One fixed vendor
 * keeps bundles the same everywhere; Linux pokes the fewest MSRs on this one (no
 * HWCR, DE_CFG, SYSCFG, no probing of segment and FXSAVE quirks), all of them
 * with faults caught, and KVM serves it on AMD hosts too.  The model number has
 * no quirks in Linux that apply under a hypervisor.
 */
#include "vmm/arch/x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/util.h"

enum who { ALL, MAY, OURS, HOST };

struct feature {
	const char *name;
	uint8_t word, bit, who;
};

#define F(name, word, bit, who) { name, CPUID_##word, bit, who }
static const struct feature features[] = {
	F("fpu", 1_EDX, 0, ALL), F("vme", 1_EDX, 1, HOST), F("de", 1_EDX, 2, ALL),
	F("pse", 1_EDX, 3, ALL), F("tsc", 1_EDX, 4, ALL), F("msr", 1_EDX, 5, ALL),
	F("pae", 1_EDX, 6, ALL), F("cx8", 1_EDX, 8, ALL), F("apic", 1_EDX, 9, OURS),
	F("sep", 1_EDX, 11, ALL), F("mtrr", 1_EDX, 12, OURS), F("pge", 1_EDX, 13, ALL),
	F("cmov", 1_EDX, 15, ALL), F("pat", 1_EDX, 16, ALL), F("pse36", 1_EDX, 17, ALL),
	F("clflush", 1_EDX, 19, ALL), F("mmx", 1_EDX, 23, ALL), F("fxsr", 1_EDX, 24, ALL),
	F("sse", 1_EDX, 25, ALL), F("sse2", 1_EDX, 26, ALL),

	F("sse3", 1_ECX, 0, ALL), F("pclmulqdq", 1_ECX, 1, ALL), F("ssse3", 1_ECX, 9, ALL),
	F("fma", 1_ECX, 12, ALL), F("cx16", 1_ECX, 13, ALL), F("pcid", 1_ECX, 17, MAY),
	F("sse4_1", 1_ECX, 19, ALL), F("sse4_2", 1_ECX, 20, ALL), F("x2apic", 1_ECX, 21, OURS),
	F("movbe", 1_ECX, 22, ALL), F("popcnt", 1_ECX, 23, ALL),
	F("tsc_deadline", 1_ECX, 24, OURS), F("aes", 1_ECX, 25, ALL), F("xsave", 1_ECX, 26, ALL),
	F("avx", 1_ECX, 28, ALL), F("f16c", 1_ECX, 29, ALL), F("rdrand", 1_ECX, 30, ALL),
	F("hypervisor", 1_ECX, 31, OURS),

	F("arat", 6_EAX, 2, OURS),

	F("fsgsbase", 7_EBX, 0, ALL), F("bmi1", 7_EBX, 3, ALL), F("avx2", 7_EBX, 5, ALL),
	F("smep", 7_EBX, 7, ALL), F("bmi2", 7_EBX, 8, ALL), F("erms", 7_EBX, 9, MAY),
	F("invpcid", 7_EBX, 10, MAY), F("avx512f", 7_EBX, 16, HOST),
	F("avx512dq", 7_EBX, 17, HOST), F("rdseed", 7_EBX, 18, HOST), F("adx", 7_EBX, 19, ALL),
	F("smap", 7_EBX, 20, ALL), F("avx512ifma", 7_EBX, 21, HOST),
	F("clflushopt", 7_EBX, 23, HOST), F("clwb", 7_EBX, 24, HOST),
	F("avx512cd", 7_EBX, 28, HOST), F("sha_ni", 7_EBX, 29, HOST),
	F("avx512bw", 7_EBX, 30, HOST), F("avx512vl", 7_EBX, 31, HOST),

	F("avx512vbmi", 7_ECX, 1, HOST), F("umip", 7_ECX, 2, HOST), F("pku", 7_ECX, 3, HOST),
	F("avx512_vbmi2", 7_ECX, 6, HOST), F("gfni", 7_ECX, 8, HOST), F("vaes", 7_ECX, 9, HOST),
	F("vpclmulqdq", 7_ECX, 10, HOST), F("avx512_vnni", 7_ECX, 11, HOST),
	F("avx512_bitalg", 7_ECX, 12, HOST), F("avx512_vpopcntdq", 7_ECX, 14, HOST),
	F("rdpid", 7_ECX, 22, HOST), F("movdiri", 7_ECX, 27, HOST),
	F("movdir64b", 7_ECX, 28, HOST),

	F("fsrm", 7_EDX, 4, HOST), F("avx512_vp2intersect", 7_EDX, 8, HOST),
	F("md_clear", 7_EDX, 10, HOST), F("serialize", 7_EDX, 14, HOST),
	F("avx512_fp16", 7_EDX, 23, HOST), F("spec_ctrl", 7_EDX, 26, HOST),
	F("intel_stibp", 7_EDX, 27, HOST), F("flush_l1d", 7_EDX, 28, HOST),
	F("arch_capabilities", 7_EDX, 29, HOST), F("spec_ctrl_ssbd", 7_EDX, 31, HOST),

	F("avx_vnni", 7_1_EAX, 4, HOST), F("avx512_bf16", 7_1_EAX, 5, HOST),
	F("fzrm", 7_1_EAX, 10, HOST), F("fsrs", 7_1_EAX, 11, HOST), F("fsrc", 7_1_EAX, 12, HOST),

	F("xsaveopt", D_1_EAX, 0, ALL), F("xsavec", D_1_EAX, 1, HOST),
	F("xgetbv1", D_1_EAX, 2, HOST), F("xsaves", D_1_EAX, 3, HOST),

	F("kvmclock_old", KVM_EAX, 0, OURS), F("kvm_nopiodelay", KVM_EAX, 1, OURS),
	F("kvmclock", KVM_EAX, 3, OURS), F("kvmclock_stable", KVM_EAX, 24, OURS),

	F("lahf_lm", EXT_ECX, 0, ALL), F("abm", EXT_ECX, 5, ALL), F("sse4a", EXT_ECX, 6, HOST),
	F("misalignsse", EXT_ECX, 7, HOST), F("3dnowprefetch", EXT_ECX, 8, HOST),

	F("syscall", EXT_EDX, 11, ALL), F("nx", EXT_EDX, 20, ALL),
	F("pdpe1gb", EXT_EDX, 26, ALL), F("rdtscp", EXT_EDX, 27, ALL), F("lm", EXT_EDX, 29, ALL),

	F("invtsc", EXT7_EDX, 8, OURS),

	F("clzero", EXT8_EBX, 0, HOST), F("xsaveerptr", EXT8_EBX, 2, HOST),
	F("wbnoinvd", EXT8_EBX, 9, HOST), F("ibpb", EXT8_EBX, 12, HOST),
	F("amd_ibrs", EXT8_EBX, 14, HOST), F("amd_stibp", EXT8_EBX, 15, HOST),
	F("amd_ssbd", EXT8_EBX, 24, HOST),
};
#undef F

static const struct {
	uint32_t leaf, subleaf;
	uint8_t reg;	/* eax, ebx, ecx, edx */
} word_source[CPUID_NR_WORDS] = {
	[CPUID_1_ECX] = { 1, 0, 2 }, [CPUID_1_EDX] = { 1, 0, 3 },
	[CPUID_6_EAX] = { 6, 0, 0 },
	[CPUID_7_EBX] = { 7, 0, 1 }, [CPUID_7_ECX] = { 7, 0, 2 },
	[CPUID_7_EDX] = { 7, 0, 3 }, [CPUID_7_1_EAX] = { 7, 1, 0 },
	[CPUID_D_1_EAX] = { 0xd, 1, 0 }, [CPUID_KVM_EAX] = { 0x40000001, 0, 0 },
	[CPUID_EXT_ECX] = { 0x80000001, 0, 2 }, [CPUID_EXT_EDX] = { 0x80000001, 0, 3 },
	[CPUID_EXT7_EDX] = { 0x80000007, 0, 3 }, [CPUID_EXT8_EBX] = { 0x80000008, 0, 1 },
};

#define MAX_BASIC	0x16u
#define MAX_EXTENDED	0x80000008u
#define MAX_HYPERVISOR	0x40000010u
#define APIC_TIMER_KHZ	1000000u	/* as KVM's */
#define FAMILY_PORTABLE	0x000406f1u	/* family 6, model 0x4f, stepping 1 */
#define XCR0_AVX512	0xe0u
#define XCR0_PKRU	0x200u
#define XSAVE_LEGACY	576u
#define XSAVE_AVX	832u

/* --- the host --------------------------------------------------------------- */

static void host_leaf(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	uint32_t max = __get_cpuid_max(leaf & 0x80000000, NULL);

	memset(r, 0, 4 * sizeof(*r));
	if (leaf <= max)
		__cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}

void cpu_host_words(uint32_t word[CPUID_NR_WORDS])
{
	uint32_t r[4];

	memset(word, 0, CPUID_NR_WORDS * sizeof(*word));
	for (unsigned w = 0; w < CPUID_NR_WORDS; w++) {
		/* The hypervisor's own leaves say nothing about the CPU. */
		if (!word_source[w].leaf || word_source[w].leaf == 0x40000001)
			continue;
		host_leaf(7, 0, r);
		if (w == CPUID_7_1_EAX && !r[0])
			continue;	/* no subleaf 1 */
		host_leaf(word_source[w].leaf, word_source[w].subleaf, r);
		word[w] = r[word_source[w].reg];
	}
}

void cpu_words_from_leaves(const struct cpuid_leaf *leaf, unsigned n,
			   uint32_t word[CPUID_NR_WORDS])
{
	memset(word, 0, CPUID_NR_WORDS * sizeof(*word));
	for (unsigned w = 0; w < CPUID_NR_WORDS; w++)
		for (unsigned i = 0; i < n; i++) {
			const uint32_t r[4] = { leaf[i].eax, leaf[i].ebx,
						leaf[i].ecx, leaf[i].edx };

			if (word_source[w].leaf &&
			    leaf[i].leaf == word_source[w].leaf &&
			    leaf[i].subleaf == word_source[w].subleaf)
				word[w] = r[word_source[w].reg];
		}
}

/* --- building --------------------------------------------------------------- */

static bool has(const uint32_t *word, const struct feature *f)
{
	return word[f->word] >> f->bit & 1;
}

static int choose(struct cpu_model *m, bool portable,
		  const uint32_t can[CPUID_NR_WORDS], struct err *err)
{
	struct buf missing = BUF_INIT;
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		const struct feature *f = &features[i];

		if (portable && f->who == HOST)
			continue;
		if (f->who == OURS || has(can, f))
			m->word[f->word] |= 1u << f->bit;
		else if (portable && f->who == ALL)
			buf_addf(&missing, " %s", f->name);
	}
	if (missing.len || missing.oom)
		ret = err_set(err, ENOTSUP, "this CPU lacks what the portable "
			      "model needs:%s; --cpu host may work",
			      missing.data ? missing.data : "");
	buf_done(&missing);
	return ret;
}

static void add(struct cpu_model *m, uint32_t leaf, int subleaf, uint32_t eax,
		uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	ASSERT(m->nr_leaves < CPUID_MAX_LEAVES);
	m->leaf[m->nr_leaves++] = (struct cpuid_leaf){
		.leaf = leaf,
		.subleaf = subleaf < 0 ? 0 : (uint32_t)subleaf,
		.has_subleaf = subleaf >= 0,
		.eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx,
	};
}

static uint32_t text4(const char *s)
{
	uint32_t v;

	memcpy(&v, s, 4);
	return v;
}

/* sets: number of sets; shared: logical CPUs that share it. */
static void add_cache(struct cpu_model *m, int sub, unsigned type, unsigned level,
		      unsigned ways, unsigned sets, unsigned shared, unsigned cpus)
{
	add(m, 4, sub, type | level << 5 | 1u << 8 | (shared - 1) << 14 | (cpus - 1) << 26,
	    63 | (ways - 1) << 22, sets - 1, 0);
}

static unsigned log2_up(unsigned n)
{
	return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

static void add_topology(struct cpu_model *m, unsigned cpus)
{
	unsigned slots = 1u << log2_up(cpus);

	add_cache(m, 0, 1, 1, 8, 64, 1, slots);		/* 32 KiB data */
	add_cache(m, 1, 2, 1, 8, 64, 1, slots);		/* 32 KiB code */
	add_cache(m, 2, 3, 2, 8, 512, 1, slots);	/* 256 KiB */
	add_cache(m, 3, 3, 3, 16, 16384, slots, slots);	/* 16 MiB */
	add(m, 4, 4, 0, 0, 0, 0);
	add(m, 0xb, 0, 0, 1, 1 << 8, 0);
	add(m, 0xb, 1, log2_up(cpus), cpus, 1 | 2 << 8, 0);
	add(m, 0xb, 2, 0, 0, 2, 0);
}

static void add_xsave(struct cpu_model *m)
{
	uint32_t r[4];

	m->xcr0_mask = 3;
	m->xsave_size = XSAVE_LEGACY;
	if (m->word[CPUID_1_ECX] & 1u << 28) {
		m->xcr0_mask |= 4;
		m->xsave_size = XSAVE_AVX;
	}
	if (m->word[CPUID_7_EBX] & 1u << 16)
		m->xcr0_mask |= XCR0_AVX512;
	if (m->word[CPUID_7_ECX] & 1u << 3)
		m->xcr0_mask |= XCR0_PKRU;

	add(m, 0xd, 1, m->word[CPUID_D_1_EAX], 0, 0, 0);
	for (int i = 2; i < 10; i++) {
		if (!(m->xcr0_mask >> i & 1))
			continue;
		/* Past AVX the standard format differs between vendors. */
		host_leaf(0xd, (uint32_t)i, r);
		if (i == 2) {
			r[0] = 256;
			r[1] = XSAVE_LEGACY;
			r[2] = 0;
		}
		add(m, 0xd, i, r[0], r[1], r[2], 0);
		m->xsave_size = MAX(m->xsave_size, r[0] + r[1]);
	}
	add(m, 0xd, 0, (uint32_t)m->xcr0_mask, m->xsave_size, m->xsave_size, 0);
}

static void add_identity(struct cpu_model *m, bool portable, unsigned cpus)
{
	char brand[48] = "machinen portable";
	uint32_t v[4], family = FAMILY_PORTABLE;

	memcpy(&v[1], "GenuntelineI", 12);	/* ebx, ecx, edx */
	if (!portable) {
		host_leaf(1, 0, v);
		family = v[0];
		for (unsigned i = 0; i < 3; i++) {
			host_leaf(0x80000002 + i, 0, v);
			memcpy(brand + 16 * i, v, 16);
		}
		host_leaf(0, 0, v);
	}
	add(m, 0, -1, MAX_BASIC, v[1], v[2], v[3]);
	add(m, 0x80000000, -1, MAX_EXTENDED, v[1], v[2], v[3]);
	/* ebx: CLFLUSH line, logical CPUs; the APIC id comes at the query. */
	add(m, 1, -1, family, 8 << 8 | (1u << log2_up(cpus)) << 16,
	    m->word[CPUID_1_ECX], m->word[CPUID_1_EDX] | (cpus > 1) << 28);
	for (unsigned i = 0; i < 3; i++) {
		const char *b = brand + 16 * i;

		add(m, 0x80000002 + i, -1, text4(b), text4(b + 4), text4(b + 8),
		    text4(b + 12));
	}
}

static void add_extended(struct cpu_model *m, bool portable)
{
	uint32_t r[4] = { 40 | 48 << 8 };	/* physical and virtual bits */

	if (!portable)
		host_leaf(0x80000008, 0, r);
	add(m, 0x80000001, -1, 0, 0, m->word[CPUID_EXT_ECX], m->word[CPUID_EXT_EDX]);
	add(m, 0x80000006, -1, 0, 0, 256u << 16 | 6 << 12 | 64, 0);
	add(m, 0x80000007, -1, 0, 0, 0, m->word[CPUID_EXT7_EDX]);
	add(m, 0x80000008, -1, (r[0] & 0xff) | 48 << 8, m->word[CPUID_EXT8_EBX], 0, 0);
}

static void add_time(struct cpu_model *m)
{
	uint32_t khz = (uint32_t)m->tsc_khz, mhz = khz / 1000;

	/* The crystal is also the APIC timer's clock (SDM, leaf 15H). */
	add(m, 0x15, -1, APIC_TIMER_KHZ, khz, APIC_TIMER_KHZ * 1000, 0);
	add(m, 0x16, -1, mhz, mhz, 100, 0);
	add(m, 0x40000000, -1, MAX_HYPERVISOR, text4("KVMK"), text4("VMKV"), text4("M\0\0"));
	add(m, 0x40000001, -1, m->word[CPUID_KVM_EAX], 0, 0, 0);
	add(m, 0x40000010, -1, khz, APIC_TIMER_KHZ, 0, 0);
}

int cpu_model_init(struct cpu_model *m, const char *name,
		   const uint32_t can[CPUID_NR_WORDS], uint64_t tsc_khz,
		   unsigned nr_cpus, struct err *err)
{
	bool portable = !strcmp(name, "portable");
	int ret;

	if (!portable && strcmp(name, "host"))
		return err_set(err, EINVAL, "no such CPU model: %s", name);
	*m = (struct cpu_model){
		.name = portable ? "portable" : "host", .tsc_khz = tsc_khz,
	};
	ret = choose(m, portable, can, err);
	if (ret < 0)
		return ret;
	add_identity(m, portable, nr_cpus);
	/* 0xff: caches are told by leaf 4, TLBs not at all. */
	add(m, 2, -1, 0xff01, 0, 0, 0);
	add(m, 6, -1, m->word[CPUID_6_EAX], 0, 0, 0);
	add(m, 7, 0, !!m->word[CPUID_7_1_EAX], m->word[CPUID_7_EBX],
	    m->word[CPUID_7_ECX], m->word[CPUID_7_EDX]);
	if (m->word[CPUID_7_1_EAX])
		add(m, 7, 1, m->word[CPUID_7_1_EAX], 0, 0, 0);
	add_topology(m, nr_cpus);
	add_xsave(m);
	add_time(m);
	add_extended(m, portable);
	return 0;
}

/* --- asking ----------------------------------------------------------------- */

static const struct cpuid_leaf *find_leaf(const struct cpu_model *m,
					  uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->nr_leaves; i++) {
		const struct cpuid_leaf *l = &m->leaf[i];

		if (l->leaf == leaf && (!l->has_subleaf || l->subleaf == subleaf))
			return l;
	}
	return NULL;
}

void cpu_model_query(const struct cpu_model *m, unsigned apic_id, uint32_t leaf,
		     uint32_t subleaf, uint32_t out[4])
{
	const struct cpuid_leaf *l = find_leaf(m, leaf, subleaf);

	memset(out, 0, 4 * sizeof(*out));
	if (l) {
		out[0] = l->eax;
		out[1] = l->ebx;
		out[2] = l->ecx;
		out[3] = l->edx;
	} else if (leaf == 0xb) {
		out[2] = subleaf & 0xff;
	}
	if (leaf == 1)
		out[1] |= apic_id << 24;
	if (leaf == 0xb)
		out[3] = apic_id;
}

void cpu_model_features(const struct cpu_model *m, struct buf *out)
{
	bool first = true;

	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		if (!has(m->word, &features[i]))
			continue;
		buf_addf(out, first ? "%s" : " %s", features[i].name);
		first = false;
	}
}

static const struct feature *find_feature(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		if (strlen(features[i].name) == len &&
		    !memcmp(features[i].name, name, len))
			return &features[i];
	}
	return NULL;
}

void cpu_feature_words(const char *names, uint32_t word[CPUID_NR_WORDS])
{
	memset(word, 0, CPUID_NR_WORDS * sizeof(*word));
	while (*names) {
		size_t len = strcspn(names, " ");
		const struct feature *f = find_feature(names, len);

		if (f)
			word[f->word] |= 1u << f->bit;
		names += len + (names[len] == ' ');
	}
}

unsigned cpu_model_missing(const struct cpu_model *m, const char *names,
			   struct buf *missing)
{
	unsigned n = 0;

	while (*names) {
		size_t len = strcspn(names, " ");
		const struct feature *f = find_feature(names, len);

		if (len && !(f && has(m->word, f))) {
			buf_addf(missing, n ? " %.*s" : "%.*s", (int)(len < 64 ? len : 64), names);
			n++;
		}
		names += len + (names[len] == ' ');
	}
	return n;
}
