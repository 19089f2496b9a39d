// SPDX-License-Identifier: MIT
/*
 * cpu.c - making a software CPU, its reset state, and its state to and from
 * struct x86_state.
 *
 * A state that is set may come from a damaged or hostile bundle: everything that
 * could upset this process (FP images above all) is made harmless, what only
 * upsets the guest is let through.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "vmm/soft/insn.h"
#include "vmm/soft/jit.h"
#include "vmm/soft/seg.h"
#include "vmm/soft/sys.h"

static void lapic_attention(void *arg, unsigned why)
{
	struct soft_cpu *cpu = arg;
	uint32_t bits = 0;

	if (why & LAPIC_INTR)
		bits |= ATT_IRQ;
	if (why & LAPIC_NMI)
		bits |= ATT_NMI;
	if (why & LAPIC_TIMER)
		bits |= ATT_TIMER;
	if (why & LAPIC_INIT)
		bits |= ATT_INIT;
	if (why & LAPIC_SIPI)
		bits |= ATT_SIPI;
	soft_attention(cpu, bits);
}

static void reset(struct soft_cpu *cpu)
{
	cpu->rflags = FL_ONE;
	cpu->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LME | EFER_LMA;
	cpu->xcr0 = 1;
	cpu->dr6 = DR6_FIXED;
	cpu->dr7 = DR7_FIXED;
	set_flat(cpu, X86_CS, 0x10, 0, true);
	for (unsigned s = 0; s < X86_LDTR; s++)
		if (s != X86_CS)
			set_flat(cpu, s, 0x18, 0, false);
	cpu->seg[X86_LDTR].attr = X86_SEG_UNUSABLE;
	cpu->seg[X86_TR] = (struct x86_segment){ .limit = 0x67, .attr = SEG_P | 11 };
	msr_reset(cpu);
}

static void wire(struct soft_cpu *cpu, struct soft_vm *svm, unsigned id,
		 const struct cpu_model *model)
{
	cpu->svm = svm;
	cpu->mem = svm->mem;
	cpu->model = model;
	cpu->id = id;
	svm->cpu[id] = cpu;
	gclock_cpu_init(&cpu->time, &svm->clock);
	lapic_init(&cpu->lapic, &svm->hub, id, &cpu->time, lapic_attention, cpu);
	reset(cpu);
}

int soft_cpu_init(struct soft_cpu *cpu, struct soft_vm *svm, unsigned id,
		  const struct cpu_model *model)
{
	int ret;

	wire(cpu, svm, id, model);
	ret = blocks_init(cpu);
	if (!ret)
		ret = fp_init(cpu);
	if (ret < 0)
		return ret;
	mmu_init(cpu);
	cpu_mode_changed(cpu);
	return 0;
}

/* All but what says how memory is seen, and what belongs to other files. */
static void forget_state(struct soft_cpu *cpu)
{
	struct blocks *blocks = cpu->blocks;
	struct jump *jumps = cpu->jumps;
	struct jit *jit = cpu->jit;
	void *fp = cpu->fp;

	memset(cpu, 0, offsetof(struct soft_cpu, mmu));
	memset(&cpu->mmu + 1, 0, sizeof(*cpu) - offsetof(struct soft_cpu, mmu) -
	       sizeof(cpu->mmu));
	cpu->blocks = blocks;
	cpu->jumps = jumps;
	cpu->jit = jit;
	cpu->fp = fp;
}

void soft_cpu_inherit(struct soft_cpu *cpu, struct soft_vm *svm, unsigned id,
		      const struct cpu_model *model)
{
	mmu_inherit(cpu);
	forget_state(cpu);
	wire(cpu, svm, id, model);
	blocks_inherit(cpu);
	fp_inherit(cpu);
	jit_return_forget(cpu, true);
	cpu_mode_changed(cpu);
}

void soft_cpu_done(struct soft_cpu *cpu)
{
	if (!cpu)
		return;
	fp_done(cpu);
	jit_done(cpu);
	blocks_done(cpu);
}

/* Most of it is TLB that nobody will touch. */
struct soft_cpu *soft_cpu_alloc(void)
{
	struct soft_cpu *cpu = mmap(NULL, sizeof(*cpu), PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return cpu == MAP_FAILED ? NULL : cpu;
}

void soft_cpu_free(struct soft_cpu *cpu)
{
	if (cpu)
		munmap(cpu, sizeof(*cpu));
}

/* --- bare CPUs ----------------------------------------------------------------------------- */

struct soft_cpu *soft_new(struct mem *mem, const struct cpu_model *model)
{
	struct soft_vm *svm = calloc(1, sizeof(*svm));
	struct soft_cpu *cpu = soft_cpu_alloc();

	if (!mem->code)
		mem->code = calloc(1, mem->span >> PAGE_SHIFT);
	if (!svm || !cpu || !mem->code) {
		free(svm);
		soft_cpu_free(cpu);
		return NULL;
	}
	svm->mem = mem;
	svm->nr_cpus = 1;
	gclock_init(&svm->clock, mem, 1000000, 0);
	ioapic_init(&svm->ioapic, &svm->hub);
	cpu->bare = true;
	if (soft_cpu_init(cpu, svm, 0, model) < 0) {
		soft_free(cpu);
		return NULL;
	}
	return cpu;
}

void soft_free(struct soft_cpu *cpu)
{
	if (!cpu)
		return;
	soft_cpu_done(cpu);
	free(cpu->mem->code);
	cpu->mem->code = NULL;
	free(cpu->svm);
	soft_cpu_free(cpu);
}

/* --- CPUID ---------------------------------------------------------------------------------- */

/* Bytes of a standard-format area for these components. */
static uint32_t xsave_size(uint64_t xcr0)
{
	uint32_t size = 576;

	for (unsigned k = 2; k < 63; k++) {
		uint32_t a = 0xd, b, c = k, d;

		if (!(xcr0 >> k & 1))
			continue;
		__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
		if (a + b > size)
			size = a + b;
	}
	return size;
}

/*
 * Features: `host` needs the host's instruction; `own` is done here whatever the
 * host has.  AVX-512, PKU, TSX, CET, SVM and VMX are not offered.
 */
static const struct {
	uint8_t word;
	uint32_t host, own;
} offered[] = {
	{ CPUID_1_ECX, 0x76d83203, 0x81220000 },
	{ CPUID_1_EDX, 0x078a8901, 0x0001327c },
	{ CPUID_6_EAX, 0, 0x00000004 },
	{ CPUID_7_EBX, 0x218c0128, 0x00100681 },
	{ CPUID_7_ECX, 0x00000700, 0x00400004 },
	{ CPUID_7_EDX, 0x00000010, 0x00004000 },
	{ CPUID_7_1_EAX, 0x00000010, 0 },
	{ CPUID_D_1_EAX, 0x00000003, 0 },
	{ CPUID_EXT_ECX, 0x00000121, 0 },
	{ CPUID_EXT_EDX, 0x20000800, 0x0c100800 },
};

void soft_cpuid_can(uint32_t *words)
{
	uint32_t host[CPUID_NR_WORDS];

	cpu_host_words(host);
	memset(words, 0, sizeof(host));
	for (unsigned k = 0; k < ARRAY_LEN(offered); k++)
		words[offered[k].word] = (host[offered[k].word] & offered[k].host) |
					 offered[k].own;
}

void cpuid_query(struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	out[0] = out[1] = out[2] = out[3] = 0;
	if (!cpu->model)
		return;
	fp_save(cpu);
	cpu_model_query(cpu->model, cpu->id, leaf, subleaf, out);
	fp_load(cpu);
	if (leaf == 1) {
		out[2] &= ~(1u << 27);
		if (cpu->cr4 & CR4_OSXSAVE)
			out[2] |= 1u << 27;
	}
	if (leaf == 0xd && subleaf <= 1 && out[1])
		out[1] = xsave_size(cpu->xcr0);
}

bool xcr0_valid(const struct soft_cpu *cpu, uint64_t v)
{
	uint64_t all = cpu->host_xcr0;

	if (cpu->model)
		all &= cpu->model->xcr0_mask;
	if (!(v & 1) || (v & ~all))
		return false;
	if ((v & 4) && !(v & 2))
		return false;
	if ((v & 0xe0) && ((v & 0xe4) != 0xe4))
		return false;
	return true;
}

/* --- state ------------------------------------------------------------------------------------ */

static void get_event(const struct soft_cpu *cpu, struct x86_state *s)
{
	memset(&s->ev, 0, sizeof(s->ev));
	s->ev.pending = cpu->event.pending;
	s->ev.vector = cpu->event.vector;
	s->ev.has_error = cpu->event.has_error;
	s->ev.error = cpu->event.error;
	s->ev.soft = cpu->event.soft;
	s->ev.nmi_pending = cpu->nmi_pending;
	s->ev.nmi_masked = cpu->nmi_masked;
	s->ev.sti_shadow = cpu->shadow == SHADOW_STI;
	s->ev.mov_ss_shadow = cpu->shadow == SHADOW_MOV_SS;
	s->run_state = cpu->halted ? X86_HALTED : X86_RUNNING;
}

void soft_get_state(struct soft_cpu *cpu, struct x86_state *s)
{
	memset(s, 0, sizeof(*s));
	memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
	s->rip = cpu->rip;
	s->rflags = rflags_get(cpu);
	for (unsigned k = 0; k < X86_NR_SEGS; k++) {
		s->seg[k] = cpu->seg[k];
		s->seg[k].base = seg_base(cpu, k);
	}
	s->gdt = cpu->gdt;
	s->idt = cpu->idt;
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->cr8 = lapic_cr8(&cpu->lapic);
	s->efer = cpu->efer;
	s->xcr0 = cpu->xcr0;
	memcpy(s->dr, cpu->dr, sizeof(s->dr));
	s->dr6 = cpu->dr6;
	s->dr7 = cpu->dr7;
	get_event(cpu, s);
	memcpy(s->xsave, cpu->xsave, sizeof(s->xsave));
	s->xsave_size = xsave_size(cpu->host_xcr0);
	s->tsc = cpu_tsc(cpu);
	msr_get_all(cpu, s);
	lapic_get(&cpu->lapic, s);
}

static void set_xsave(struct soft_cpu *cpu, const struct x86_state *s)
{
	memset(cpu->xsave, 0, sizeof(cpu->xsave));
	memcpy(cpu->xsave, s->xsave, MIN(s->xsave_size, (uint32_t)X86_XSAVE_SIZE));
	fp_sanitise(cpu);
}

static int check_state(const struct x86_state *s, struct err *err)
{
	if (!(s->efer & EFER_LMA) || !(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE))
		return err_set(err, ENOTSUP,
			       "the software CPU runs 64-bit guests only, and this one is not in long mode");
	if (s->cr4 & 0x1000)
		return err_set(err, ENOTSUP,
			       "the software CPU has no 5-level paging, which this guest uses");
	return 0;
}

static void set_event(struct soft_cpu *cpu, const struct x86_state *s)
{
	cpu->event = (struct soft_event){
		.pending = s->ev.pending, .vector = s->ev.vector,
		.has_error = s->ev.has_error, .error = s->ev.error,
		.soft = s->ev.soft, .trap = s->ev.soft || s->ev.vector >= 32,
		.external = !s->ev.soft && s->ev.vector >= 32, .next = s->rip,
	};
	cpu->delivering = false;
	cpu->shutdown = false;
	cpu->nmi_pending = s->ev.nmi_pending;
	cpu->nmi_masked = s->ev.nmi_masked;
	cpu->halted = s->run_state == X86_HALTED;
	cpu->shadow = s->ev.sti_shadow ? SHADOW_STI :
		      s->ev.mov_ss_shadow ? SHADOW_MOV_SS : SHADOW_NONE;
}

static void set_segments(struct soft_cpu *cpu, const struct x86_state *s)
{
	memcpy(cpu->seg, s->seg, sizeof(cpu->seg));
	cpu->fs_base = s->seg[X86_FS].base;
	cpu->gs_base = s->seg[X86_GS].base;
	cpu->cpl = s->seg[X86_CS].sel & 3;
	cpu->gdt = s->gdt;
	cpu->idt = s->idt;
}

int soft_set_state(struct soft_cpu *cpu, const struct x86_state *s, struct err *err)
{
	int ret = check_state(s, err);

	if (ret < 0)
		return ret;
	memcpy(cpu->gpr, s->gpr, sizeof(cpu->gpr));
	cpu->rip = s->rip;
	set_segments(cpu, s);
	cpu->cr0 = s->cr0;
	cpu->cr2 = s->cr2;
	cpu->cr3 = s->cr3 & ~CR3_NOFLUSH;
	cpu->cr4 = s->cr4;
	cpu->efer = s->efer;
	cpu->xcr0 = xcr0_valid(cpu, s->xcr0) ? s->xcr0 : 1;
	memcpy(cpu->dr, s->dr, sizeof(cpu->dr));
	cpu->dr6 = s->dr6;
	cpu->dr7 = s->dr7;
	rflags_set(cpu, s->rflags, FL_KNOWN);
	set_xsave(cpu, s);
	fp_mode_changed(cpu);
	gclock_cpu_set_tsc(&cpu->time, s->tsc);
	msr_set_all(cpu, s);
	lapic_set(&cpu->lapic, s);
	lapic_set_cr8(&cpu->lapic, s->cr8 & 15);
	set_event(cpu, s);
	mmu_restored(cpu);
	debug_update(cpu);
	cpu->irq_latched = true;
	soft_attention(cpu, ATT_IRQ | ATT_TIMER | ATT_SLOW);
	return 0;
}
