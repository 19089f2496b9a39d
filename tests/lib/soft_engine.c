// SPDX-License-Identifier: MIT
/*
 * soft_engine.c - see soft_engine.h.
 *
 * The pages of code and data, neighbours in virtual memory, lie apart and in the
 * wrong order in guest memory, so that an access across the boundary that does not
 * translate both halves goes wrong.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/err.h"
#include "base/util.h"
#include "tests/lib/soft_engine.h"
#include "vmm/soft/fp.h"
#include "vmm/soft/jit.h"
#include "vmm/soft/soft.h"

#define RAM_SIZE	(64 * MIB)
#define GPA_TABLES	0x8000u
#define STEP_LIMIT	20000u

static const uint32_t code_gpa[3] = { 0x25000, 0x21000, 0x30000 };
static const uint32_t data_gpa[2] = { 0x42000, 0x40000 };

struct soft_engine {
	enum soft_engine_how how;
	struct mem mem;
	struct cpu_model model;
	struct soft_cpu *cpu;
	uint8_t last_code[SEQ_CODE_SIZE];
};

static void put_entry(struct soft_engine *e, uint32_t table, unsigned i, uint64_t val)
{
	mem_write(&e->mem, table + 8 * i, &val, 8);
}

/* One page table each for code and data. */
static void make_tables(struct soft_engine *e)
{
	const uint32_t pml4 = GPA_TABLES, pdpt = pml4 + 0x1000, pd = pml4 + 0x2000,
		       pt_code = pml4 + 0x3000, pt_data = pml4 + 0x4000,
		       pt_exit = pml4 + 0x5000, pd_high = pml4 + 0x6000;
	const uint64_t user = PTE_P | PTE_U, rw = user | PTE_W;

	put_entry(e, pml4, 0, pdpt | rw);
	put_entry(e, pdpt, 0, pd | rw);
	put_entry(e, pdpt, SEQ_EXIT >> 30, pd_high | rw);
	put_entry(e, pd, SEQ_CODE >> 21, pt_code | rw);
	put_entry(e, pd, SEQ_DATA >> 21, pt_data | rw);
	put_entry(e, pd_high, (SEQ_EXIT >> 21) & 511, pt_exit | rw);
	put_entry(e, pt_exit, (SEQ_EXIT >> 12) & 511, code_gpa[2] | user);
	for (unsigned i = 0; i < 2; i++)
		put_entry(e, pt_code, i, code_gpa[i] | user);
	for (unsigned i = 0; i < 2; i++)
		put_entry(e, pt_data, i, data_gpa[i] | rw | PTE_NX);
}

static struct x86_segment segment(uint16_t sel, uint32_t attr)
{
	return (struct x86_segment){ .sel = sel, .limit = 0xffffffff, .attr = attr };
}

static bool set_user_mode(struct soft_engine *e)
{
	struct x86_state *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64u));
	struct err err = ERR_INIT;
	bool ok;

	if (!s)
		return false;
	soft_get_state(e->cpu, s);
	for (int i = 0; i < X86_NR_SEGS; i++)
		s->seg[i] = segment(0, X86_SEG_UNUSABLE);
	s->seg[X86_CS] = segment(SEQ_CS, 0xa0fb);	/* 64-bit code, DPL 3 */
	s->seg[X86_SS] = segment(SEQ_SS, 0xc0f3);	/* data, DPL 3 */
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = GPA_TABLES;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	s->xcr0 = e->model.xcr0_mask;
	s->rflags = 0x202;
	s->run_state = X86_RUNNING;
	ok = soft_set_state(e->cpu, s, &err) == 0;
	free(s);
	return ok;
}

static void *page(struct soft_engine *e, uint32_t gpa)
{
	return mem_ptr(&e->mem, gpa, PAGE_SIZE);
}

/* Code that changed is dropped from the decoder's cache, as for any guest. */
static void load_code(struct soft_engine *e, const struct seq_in *in)
{
	for (unsigned i = 0; i < 2; i++) {
		unsigned off = i * PAGE_SIZE;

		if (!memcmp(e->last_code + off, in->code + off, PAGE_SIZE))
			continue;
		memcpy(e->last_code + off, in->code + off, PAGE_SIZE);
		memcpy(page(e, code_gpa[i]), in->code + off, PAGE_SIZE);
		block_wrote(e->cpu, code_gpa[i], PAGE_SIZE);
	}
}

static void set_start(struct soft_engine *e, const struct seq_in *in)
{
	struct soft_cpu *cpu = e->cpu;

	memcpy(cpu->gpr, in->gpr, sizeof(cpu->gpr));
	cpu->rip = in->rip;
	rflags_set(cpu, in->rflags, FL_KNOWN);
	memset(&cpu->event, 0, sizeof(cpu->event));
	cpu->halted = false;
	cpu->delivering = false;
	cpu->shadow = SHADOW_NONE;
	memcpy(cpu->xsave, in->xsave, SEQ_XSAVE);
	fp_sanitise(cpu);
}

static void take_end(struct soft_engine *e, enum soft_stop why, struct seq_out *out)
{
	struct soft_cpu *cpu = e->cpu;

	memcpy(out->gpr, cpu->gpr, sizeof(out->gpr));
	out->rip = why == SOFT_STOP_EXCEPTION ? cpu->event.next : cpu->rip;
	out->rflags = rflags_get(cpu);
	if (why == SOFT_STOP_RIP || (why == SOFT_STOP_EXCEPTION && cpu->rip == SEQ_EXIT))
		out->vector = -1;
	else
		out->vector = why == SOFT_STOP_EXCEPTION ? cpu->event.vector : -2;
	out->error = out->vector >= 0 && cpu->event.has_error ? cpu->event.error : 0;
	out->cr2 = out->vector == VEC_PF ? cpu->cr2 : 0;
	memcpy(out->xsave, cpu->xsave, SEQ_XSAVE);
	seq_xsave_normalise(out->xsave);
	for (unsigned i = 0; i < 2; i++)
		memcpy(out->data + i * PAGE_SIZE, page(e, data_gpa[i]), PAGE_SIZE);
}

/* A sequence that does not end is kicked out of the engine, by CPU time: on a busy
 * host others take long too. */
static struct soft_cpu *watched;
static volatile unsigned kicks;

static void on_alarm(int sig)
{
	if (watched) {
		kicks++;
		soft_attention(watched, ATT_KICK);
	}
}

static void run(void *arg, const struct seq_in *in, struct seq_out *out)
{
	struct soft_engine *e = arg;
	enum soft_stop why;

	load_code(e, in);
	for (unsigned i = 0; i < 2; i++)
		memcpy(page(e, data_gpa[i]), in->data + i * PAGE_SIZE, PAGE_SIZE);
	set_start(e, in);
	watched = e->cpu;
	kicks = 0;
	do
		why = e->how == SOFT_STEPS ? soft_run(e->cpu, STEP_LIMIT, SEQ_EXIT) :
					     soft_run(e->cpu, 0, 0);
	while (why == SOFT_STOP_KICK && kicks < 3);
	watched = NULL;
	take_end(e, why, out);
}

/* --- what the generator may use ------------------------------------------------------ */

static bool general_set(const struct soft_engine *e, ZydisISASet set)
{
	const uint32_t *w = e->model.word;

	switch (set) {
	case ZYDIS_ISA_SET_I86: case ZYDIS_ISA_SET_I186: case ZYDIS_ISA_SET_I286REAL:
	case ZYDIS_ISA_SET_I286PROTECTED: case ZYDIS_ISA_SET_I386:
	case ZYDIS_ISA_SET_I486: case ZYDIS_ISA_SET_I486REAL:
	case ZYDIS_ISA_SET_PENTIUMREAL: case ZYDIS_ISA_SET_PPRO:
	case ZYDIS_ISA_SET_CMOV: case ZYDIS_ISA_SET_FAT_NOP:
	case ZYDIS_ISA_SET_PREFETCH_NOP: case ZYDIS_ISA_SET_LONGMODE:
	case ZYDIS_ISA_SET_LAHF: case ZYDIS_ISA_SET_CMPXCHG16B:
	case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSE2: case ZYDIS_ISA_SET_PAUSE:
	case ZYDIS_ISA_SET_CLFSH: case ZYDIS_ISA_SET_SSE_PREFETCH:
		return true;
	case ZYDIS_ISA_SET_POPCNT: return w[CPUID_1_ECX] >> 23 & 1;
	case ZYDIS_ISA_SET_SSE42: return w[CPUID_1_ECX] >> 20 & 1;
	case ZYDIS_ISA_SET_MOVBE: return w[CPUID_1_ECX] >> 22 & 1;
	case ZYDIS_ISA_SET_BMI1: return w[CPUID_7_EBX] >> 3 & 1;
	case ZYDIS_ISA_SET_BMI2: return w[CPUID_7_EBX] >> 8 & 1;
	case ZYDIS_ISA_SET_ADOX_ADCX: return w[CPUID_7_EBX] >> 19 & 1;
	case ZYDIS_ISA_SET_LZCNT: return w[CPUID_EXT_ECX] >> 5 & 1;
	default: return false;
	}
}

static bool offers(const ZydisDecodedInstruction *z, void *arg)
{
	const struct soft_engine *e = arg;

	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	return fp_offers(&e->model, z) || general_set(e, z->meta.isa_set);
}

bool soft_engine_init(struct engine *engine, enum soft_engine_how how)
{
	struct soft_engine *e = calloc(1, sizeof(*e));
	static const char *const names[] = {
		[SOFT_BLOCKS] = "interpreter", [SOFT_STEPS] = "interpreter, single steps",
		[SOFT_CRAMPED] = "interpreter, small stub area", [SOFT_JIT] = "translator",
	};
	/* not on the stack of a sequence that runs, natively or translated */
	const struct sigaction alarm = { .sa_handler = on_alarm,
					 .sa_flags = SA_ONSTACK | SA_RESTART };
	const struct itimerval tick = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	uint32_t words[CPUID_NR_WORDS];
	struct err err = ERR_INIT;

	if (!e)
		return false;
	*engine = (struct engine){
		.name = names[how],
		.stale_flags = how == SOFT_JIT,
		.run = run, .offers = offers, .arg = e,
	};
	e->how = how;
	cpu_host_words(words);
	if (cpu_model_init(&e->model, "portable", words, 1000000, 1, &err) ||
	    mem_init(&e->mem, RAM_SIZE, -1, &err))
		return false;
	make_tables(e);
	e->cpu = soft_new(&e->mem, &e->model);
	if (!e->cpu)
		return false;
	e->cpu->bare = true;
	if (how == SOFT_CRAMPED)
		((struct fp *)e->cpu->fp)->limit = 4096;
	if (how == SOFT_JIT) {
		if (jit_init(e->cpu))
			return false;
		e->cpu->jit->heat = 1;
	}
	/* at full speed nothing looks at rip: a run ends by #UD at SEQ_EXIT */
	mem_write(&e->mem, code_gpa[2], "\x0f\x0b", 2);
	sigaction(SIGPROF, &alarm, NULL);
	setitimer(ITIMER_PROF, &tick, NULL);
	return set_user_mode(e);
}

void soft_engine_done(struct engine *engine)
{
	struct soft_engine *e = engine->arg;
	const struct itimerval off = { 0 };

	if (!e)
		return;
	setitimer(ITIMER_PROF, &off, NULL);
	soft_free(e->cpu);
	mem_done(&e->mem);
	free(e);
}
