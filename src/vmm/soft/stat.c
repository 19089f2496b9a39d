// SPDX-License-Identifier: MIT
/*
 * stat.c - the counters of the software CPU, by name, for `machinen inspect`.
 *
 * They are read while the vCPU counts on: each is a word, no two need agree.
 */
#include <jansson.h>

#include <Zydis/Zydis.h>

#include "vmm/soft/jit.h"
#include "vmm/soft/soft.h"

#define TOP 12		/* mnemonics that are told */
_Static_assert(ZYDIS_MNEMONIC_MAX_VALUE < JIT_MNEMONICS, "a counter for each");

struct counter {
	const char *name;
	size_t off;		/* of an uint64_t */
};

#define CPU(name, field) { name, offsetof(struct soft_cpu, field) }
static const struct counter cpu_counters[] = {
	CPU("instructions", icount), CPU("decoded", stat.decoded),
	CPU("attention", stat.exits), CPU("interrupts", stat.irqs),
	CPU("exceptions", stat.exceptions), CPU("mmio", stat.mmio),
	CPU("port_io", stat.pio), CPU("tlb_fills", stat.tlb_fill),
	CPU("page_walks", stat.tlb_walk), CPU("code_writes", stat.code_hits),
	CPU("code_flushes", stat.flushes),
};

#define JIT(name, field) { name, offsetof(struct jit, stat.field) }
static const struct counter jit_counters[] = {
	JIT("blocks", translated), JIT("guest_bytes", guest_bytes),
	JIT("host_bytes", host_bytes), JIT("careful", careful), JIT("entries", enters),
	JIT("links", links), JIT("dropped", dropped), JIT("flushes", flushes),
	JIT("transfers", transfers),
};

#define CAUSE(name, cause) { name, offsetof(struct jit, stat.interpreted[cause]) }
static const struct counter cause_counters[] = {
	CAUSE("memory", CAUSE_MEMORY), CAUSE("branch", CAUSE_BRANCH),
	CAUSE("string", CAUSE_STRING), CAUSE("system", CAUSE_SYSTEM),
	CAUSE("host_fault", CAUSE_FAULT), CAUSE("kind", CAUSE_KIND),
	CAUSE("block_end", CAUSE_END),
};
_Static_assert(ARRAY_LEN(cause_counters) == NR_CAUSES, "a name for each");

static json_t *read_all(const void *base, const struct counter *c, unsigned n, uint64_t *sum)
{
	json_t *o = json_object();

	for (unsigned k = 0; k < n; k++) {
		uint64_t v = *(const uint64_t *)(const void *)((const char *)base + c[k].off);

		json_object_set_new(o, c[k].name, json_integer((json_int_t)v));
		*sum += v;
	}
	return o;
}

/* What the translator leaves to the interpreter by its kind, the most frequent first. */
static json_t *not_translated(const struct jit *j)
{
	bool told[JIT_MNEMONICS] = { false };
	json_t *o = json_object();

	for (unsigned n = 0; n < TOP; n++) {
		uint64_t most = 0;
		unsigned at = 0;

		for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
			if (!told[m] && j->by_mnemonic[m] > most)
				most = j->by_mnemonic[at = m];
		if (!most)
			break;
		told[at] = true;
		json_object_set_new(o, ZydisMnemonicGetString((ZydisMnemonic)at),
				    json_integer((json_int_t)most));
	}
	return o;
}

static json_t *jit_stats(const struct jit *j)
{
	uint64_t sum = 0, interpreted = 0;
	json_t *o = read_all(j, jit_counters, ARRAY_LEN(jit_counters), &sum);
	json_t *why = read_all(j, cause_counters, ARRAY_LEN(cause_counters), &interpreted);

	json_object_set_new(o, "interpreted", json_integer((json_int_t)interpreted));
	json_object_set_new(o, "interpreted_by_cause", why);
	json_object_set_new(o, "not_translated", not_translated(j));
	return o;
}

void soft_cpu_stats(const struct soft_cpu *cpu, json_t *obj)
{
	uint64_t sum = 0;
	json_t *o = read_all(cpu, cpu_counters, ARRAY_LEN(cpu_counters), &sum);

	json_object_update(obj, o);
	json_decref(o);
	if (cpu->jit)
		json_object_set_new(obj, "translator", jit_stats(cpu->jit));
}
