// SPDX-License-Identifier: MIT
/*
 * kvm_x86.c - x86 state between KVM's structures and the neutral form of
 * arch/x86/state.h.
 *
 * Order matters when setting.  The special registers come before MSRs (EFER
 * decides what some of them mean), CPUID before both (KVM checks values against
 * it), the LAPIC after the special registers (they hold the APIC base and with
 * it the mode), the TSC before the deadline (the deadline is compared with it),
 * pending events last.
 *
 * MSRs: the table below is what Linux can have changed and what has no field of
 * its own in x86_state.  KVM offers a subset of it on each host; one that it does
 * not know is left out on save.  On load a refused MSR is an error unless the value
 * is zero, which is the reset value of all of them that a host may lack.
 *
 * #ioctls KVM_SET_TSS_ADDR KVM_SET_IDENTITY_MAP_ADDR KVM_CREATE_IRQCHIP
 * #ioctls KVM_CHECK_EXTENSION KVM_GET_SUPPORTED_CPUID KVM_SET_CPUID2
 * #ioctls KVM_GET_TSC_KHZ KVM_SET_TSC_KHZ
 * #ioctls KVM_GET_REGS KVM_SET_REGS KVM_GET_SREGS KVM_SET_SREGS KVM_GET_MSRS
 * #ioctls KVM_SET_MSRS KVM_GET_XSAVE KVM_GET_XSAVE2 KVM_SET_XSAVE KVM_GET_XCRS
 * #ioctls KVM_SET_XCRS KVM_GET_LAPIC KVM_SET_LAPIC KVM_GET_DEBUGREGS
 * #ioctls KVM_SET_DEBUGREGS KVM_GET_VCPU_EVENTS KVM_SET_VCPU_EVENTS
 * #ioctls KVM_GET_MP_STATE KVM_SET_MP_STATE KVM_GET_IRQCHIP KVM_SET_IRQCHIP
 * #ioctls KVM_GET_CLOCK KVM_SET_CLOCK
 */
#include "vmm/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/arch/x86/cpuid.h"
#include "vmm/arch/x86/state.h"

#define MSR_TSC		 0x10
#define MSR_TSC_DEADLINE 0x6e0

#define TSC_SAME_PPM	 250	/* what KVM does not scale either */
#define TSC_NEAR_PPM	 10000	/* a guest can live with, its NTP with less */

static const uint32_t saved_msrs[] = {
	0x3b,				/* TSC_ADJUST */
	0x48,				/* SPEC_CTRL */
	0x174, 0x175, 0x176,		/* SYSENTER_CS, ESP, EIP */
	0x1a0,				/* MISC_ENABLE */
	0x277,				/* PAT */
	0x2ff,				/* MTRR default type */
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
	0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
	0x250, 0x258, 0x259,		/* fixed MTRRs */
	0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
	0x17a, 0x17b,			/* MCG_STATUS, MCG_CTL */
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,	/* STAR … SFMASK */
	0xc0000102, 0xc0000103,		/* KERNEL_GS_BASE, TSC_AUX */
	0x4b564d00, 0x4b564d01,		/* kvmclock; 0x11 and 0x12 are the same two */
	0x4b564d02, 0x4b564d03, 0x4b564d04,	/* async PF, steal time, PV EOI */
};

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[X86_MAX_MSRS];
};
_Static_assert(ARRAY_LEN(saved_msrs) <= X86_MAX_MSRS, "a state has room for all");

static int failed(struct err *err, const char *what)
{
	return err_set(err, errno, "%s: %s", what, strerror(errno));
}

int kvm_x86_vm_init(struct kvm_vm *k, struct err *err)
{
	uint64_t identity = KVM_IDENTITY_MAP_GPA;
	int size;

	if (ioctl(k->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_GPA) < 0)
		return failed(err, "KVM_SET_TSS_ADDR");
	if (ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return failed(err, "KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return failed(err, "KVM_CREATE_IRQCHIP");
	size = ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	k->xsave_size = size > 0 ? (size_t)size : sizeof(struct kvm_xsave);
	return 0;
}

/* --- CPUID ------------------------------------------------------------------ */

struct cpuid_list {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[256];
};

void kvm_x86_cpuid_can(uint32_t *words)
{
	struct cpuid_list list = { .head.nent = ARRAY_LEN(list.entry) };
	struct cpuid_leaf leaf[ARRAY_LEN(list.entry)];
	int fd = kvm_open(NULL);
	unsigned n = 0;

	if (fd >= 0 && ioctl(fd, KVM_GET_SUPPORTED_CPUID, &list) == 0)
		n = list.head.nent;
	if (fd >= 0)
		close(fd);
	for (unsigned i = 0; i < n; i++)
		leaf[i] = (struct cpuid_leaf){
			.leaf = list.entry[i].function,
			.subleaf = list.entry[i].index,
			.eax = list.entry[i].eax, .ebx = list.entry[i].ebx,
			.ecx = list.entry[i].ecx, .edx = list.entry[i].edx,
		};
	cpu_words_from_leaves(leaf, n, words);
}

static int set_cpuid(struct kvm_vcpu *v, const struct cpu_model *m,
		     unsigned apic_id, struct err *err)
{
	struct cpuid_list list = { .head.nent = m->nr_leaves };

	for (unsigned i = 0; i < m->nr_leaves; i++) {
		const struct cpuid_leaf *l = &m->leaf[i];
		struct kvm_cpuid_entry2 *e = &list.entry[i];
		uint32_t out[4];

		cpu_model_query(m, apic_id, l->leaf, l->subleaf, out);
		*e = (struct kvm_cpuid_entry2){
			.function = l->leaf, .index = l->subleaf,
			.flags = l->has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = out[0], .ebx = out[1], .ecx = out[2], .edx = out[3],
		};
	}
	if (ioctl(v->fd, KVM_SET_CPUID2, &list) < 0)
		return failed(err, "KVM refused the CPU model");
	return 0;
}

/* --- the speed of the TSC ---------------------------------------------------- */

/* Old kernels have no such ioctl of VMs. */
uint64_t kvm_x86_host_khz(const struct kvm_vm *k)
{
	int khz = ioctl(k->vm_fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint64_t)khz : 0;
}

static uint64_t ppm_apart(uint64_t a, uint64_t b)
{
	return (a > b ? a - b : b - a) * 1000000 / b;
}

/*
 * The guest keeps time by its TSC, and by the frequency that it was told when it
 * booted, perhaps on another host.
 */
static int set_tsc_khz(struct kvm_vm *k, struct kvm_vcpu *v, uint64_t khz,
		       struct err *err)
{
	int now = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

	k->tsc_khz = now > 0 ? (uint64_t)now : khz;
	if (ppm_apart(k->tsc_khz, khz) <= TSC_SAME_PPM)
		return 0;
	if (ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0) {
		if (ioctl(v->fd, KVM_SET_TSC_KHZ, khz) < 0)
			return failed(err, "KVM_SET_TSC_KHZ");
		k->tsc_khz = khz;
		return 0;
	}
	if (ppm_apart(k->tsc_khz, khz) <= TSC_NEAR_PPM) {
		log_warn("kvm", "the guest's clock is %llu ppm off: this CPU cannot scale it",
			 (unsigned long long)ppm_apart(k->tsc_khz, khz));
		return 0;
	}
	return err_code(err, ERR_SNAPSHOT_CPU_MISMATCH, ENOTSUP,
			"the guest's clock ticks at %llu kHz, this CPU's at %llu, and the CPU "
			"cannot scale it: use --accel soft", (unsigned long long)khz,
			(unsigned long long)k->tsc_khz);
}

int kvm_x86_vcpu_init(struct kvm_vm *k, struct kvm_vcpu *v,
		      const struct cpu_model *model, unsigned apic_id,
		      struct err *err)
{
	int ret = set_tsc_khz(k, v, model->tsc_khz, err);

	return ret ? ret : set_cpuid(v, model, apic_id, err);
}

/* --- registers -------------------------------------------------------------- */

/* x86_gpr order against struct kvm_regs, used both ways. */
static void gprs_get(const struct kvm_regs *r, uint64_t g[16])
{
	const uint64_t v[16] = {
		r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
		r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15,
	};

	memcpy(g, v, sizeof(v));
}

static void gprs_set(struct kvm_regs *r, const uint64_t g[16])
{
	*r = (struct kvm_regs){
		.rax = g[X86_RAX], .rcx = g[X86_RCX], .rdx = g[X86_RDX],
		.rbx = g[X86_RBX], .rsp = g[X86_RSP], .rbp = g[X86_RBP],
		.rsi = g[X86_RSI], .rdi = g[X86_RDI], .r8 = g[8], .r9 = g[9],
		.r10 = g[10], .r11 = g[11], .r12 = g[12], .r13 = g[13],
		.r14 = g[14], .r15 = g[15],
	};
}

static struct x86_segment seg_get(const struct kvm_segment *s)
{
	return (struct x86_segment){
		.base = s->base, .limit = s->limit, .sel = s->selector,
		.attr = (uint32_t)(s->type | s->s << 4 | s->dpl << 5 |
				   s->present << 7 | s->avl << 12 | s->l << 13 |
				   s->db << 14 | s->g << 15) |
			(s->unusable ? X86_SEG_UNUSABLE : 0),
	};
}

static struct kvm_segment seg_set(const struct x86_segment *s)
{
	return (struct kvm_segment){
		.base = s->base, .limit = s->limit, .selector = s->sel,
		.type = s->attr & 15, .s = s->attr >> 4 & 1,
		.dpl = s->attr >> 5 & 3, .present = s->attr >> 7 & 1,
		.avl = s->attr >> 12 & 1, .l = s->attr >> 13 & 1,
		.db = s->attr >> 14 & 1, .g = s->attr >> 15 & 1,
		.unusable = !!(s->attr & X86_SEG_UNUSABLE),
	};
}

static void sregs_get(const struct kvm_sregs *r, struct x86_state *s)
{
	s->seg[X86_ES] = seg_get(&r->es);
	s->seg[X86_CS] = seg_get(&r->cs);
	s->seg[X86_SS] = seg_get(&r->ss);
	s->seg[X86_DS] = seg_get(&r->ds);
	s->seg[X86_FS] = seg_get(&r->fs);
	s->seg[X86_GS] = seg_get(&r->gs);
	s->seg[X86_LDTR] = seg_get(&r->ldt);
	s->seg[X86_TR] = seg_get(&r->tr);
	s->gdt = (struct x86_dtable){ r->gdt.base, r->gdt.limit };
	s->idt = (struct x86_dtable){ r->idt.base, r->idt.limit };
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->cr8 = r->cr8;
	s->efer = r->efer;
	s->apic_base = r->apic_base;
}

static void sregs_set(struct kvm_sregs *r, const struct x86_state *s)
{
	*r = (struct kvm_sregs){
		.es = seg_set(&s->seg[X86_ES]), .cs = seg_set(&s->seg[X86_CS]),
		.ss = seg_set(&s->seg[X86_SS]), .ds = seg_set(&s->seg[X86_DS]),
		.fs = seg_set(&s->seg[X86_FS]), .gs = seg_set(&s->seg[X86_GS]),
		.ldt = seg_set(&s->seg[X86_LDTR]), .tr = seg_set(&s->seg[X86_TR]),
		.gdt = { .base = s->gdt.base, .limit = s->gdt.limit },
		.idt = { .base = s->idt.base, .limit = s->idt.limit },
		.cr0 = s->cr0, .cr2 = s->cr2, .cr3 = s->cr3, .cr4 = s->cr4,
		.cr8 = s->cr8, .efer = s->efer, .apic_base = s->apic_base,
	};
}

static void events_get(const struct kvm_vcpu_events *e, struct x86_state *s)
{
	bool exc = e->exception.injected || e->exception.pending;

	memset(&s->ev, 0, sizeof(s->ev));
	s->ev.pending = exc || e->interrupt.injected;
	s->ev.vector = exc ? e->exception.nr : e->interrupt.nr;
	s->ev.has_error = exc && e->exception.has_error_code;
	s->ev.error = s->ev.has_error ? e->exception.error_code : 0;
	s->ev.nmi_pending = e->nmi.pending || e->nmi.injected;
	/* One on its way in masks others on AMD; it would wait for its own IRET. */
	s->ev.nmi_masked = e->nmi.masked && !e->nmi.injected;
	/* AMD has one shadow for both, and KVM sets both bits. */
	s->ev.sti_shadow = e->interrupt.shadow & KVM_X86_SHADOW_INT_STI;
	s->ev.mov_ss_shadow = e->interrupt.shadow == KVM_X86_SHADOW_INT_MOV_SS;
}

/*
 * An INT n that is due goes in as an ordinary interrupt: its rip is past the
 * instruction, and KVM, told that it is a software interrupt, would look for the
 * instruction at rip to skip it.
 */
static void events_set(struct kvm_vcpu_events *e, const struct x86_state *s)
{
	bool exc = s->ev.pending && s->ev.vector < 32 && !s->ev.soft;

	*e = (struct kvm_vcpu_events){
		.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING,
		.nmi = { .pending = s->ev.nmi_pending, .masked = s->ev.nmi_masked },
	};
	e->interrupt.shadow = (s->ev.sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) |
			      (s->ev.mov_ss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0);
	if (exc) {
		e->exception.injected = 1;
		e->exception.nr = s->ev.vector;
		e->exception.has_error_code = s->ev.has_error;
		e->exception.error_code = s->ev.error;
	} else if (s->ev.pending) {
		e->interrupt.injected = 1;
		e->interrupt.nr = s->ev.vector;
	}
}

/* --- MSRs ------------------------------------------------------------------- */

/* Of MSRs at a time; KVM stops at one that it does not know or refuses. */
static unsigned msrs_do(struct kvm_vcpu *v, unsigned long request, struct msr_list *list)
{
	int n = ioctl(v->fd, request, list);

	return n > 0 ? MIN((unsigned)n, list->head.nmsrs) : 0;
}

static void msrs_get(struct kvm_vcpu *v, struct x86_state *s)
{
	struct msr_list list;
	unsigned done = 0, n;

	for (s->nr_msrs = 0; done < ARRAY_LEN(saved_msrs); done += n + 1) {
		list.head = (struct kvm_msrs){ .nmsrs = ARRAY_LEN(saved_msrs) - done };
		for (unsigned i = 0; i < list.head.nmsrs; i++)
			list.entry[i] = (struct kvm_msr_entry){ .index = saved_msrs[done + i] };
		n = msrs_do(v, KVM_GET_MSRS, &list);
		for (unsigned i = 0; i < n; i++)
			s->msr[s->nr_msrs++] = (struct x86_msr){ list.entry[i].index,
								 list.entry[i].data };
	}
}

static int msr_get(struct kvm_vcpu *v, uint32_t index, uint64_t *value)
{
	struct msr_list one = { .head.nmsrs = 1, .entry[0].index = index };

	if (ioctl(v->fd, KVM_GET_MSRS, &one) != 1)
		return -EIO;
	*value = one.entry[0].data;
	return 0;
}

static int msr_set(struct kvm_vcpu *v, uint32_t index, uint64_t value,
		   struct err *err)
{
	struct msr_list one = { .head.nmsrs = 1, .entry[0].index = index,
				.entry[0].data = value };

	if (ioctl(v->fd, KVM_SET_MSRS, &one) != 1 && value)
		return err_set(err, EINVAL, "KVM refused MSR %#x = %#llx", index,
			       (unsigned long long)value);
	return 0;
}

static int msrs_set(struct kvm_vcpu *v, const struct x86_state *s,
		    struct err *err)
{
	int ret = msr_set(v, MSR_TSC, s->tsc, err);
	struct msr_list list;
	unsigned done, n;

	for (done = 0; !ret && done < s->nr_msrs; done += n + 1) {
		list.head = (struct kvm_msrs){ .nmsrs = s->nr_msrs - done };
		for (unsigned i = 0; i < list.head.nmsrs; i++)
			list.entry[i] = (struct kvm_msr_entry){
				.index = s->msr[done + i].index,
				.data = s->msr[done + i].value,
			};
		n = msrs_do(v, KVM_SET_MSRS, &list);
		if (n < list.head.nmsrs)	/* that one, by itself, says why */
			ret = msr_set(v, list.entry[n].index, list.entry[n].data, err);
	}
	return ret;
}

/* --- extended state, debug registers, LAPIC --------------------------------- */

static int xsave_get(struct kvm_vm *k, struct kvm_vcpu *v, struct x86_state *s,
		     struct err *err)
{
	uint8_t *area = calloc(1, k->xsave_size);
	bool big = k->xsave_size > sizeof(struct kvm_xsave);
	int ret = 0;

	if (!area)
		return err_set(err, ENOMEM, "out of memory");
	if (ioctl(v->fd, big ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area) < 0)
		ret = failed(err, "KVM_GET_XSAVE");
	s->xsave_size = MIN(k->xsave_size, sizeof(s->xsave));
	memcpy(s->xsave, area, s->xsave_size);
	free(area);
	return ret;
}

static int xsave_set(struct kvm_vm *k, struct kvm_vcpu *v,
		     const struct x86_state *s, struct err *err)
{
	uint8_t *area = calloc(1, MAX(k->xsave_size, sizeof(s->xsave)));
	int ret = 0;

	if (!area)
		return err_set(err, ENOMEM, "out of memory");
	memcpy(area, s->xsave, MIN(s->xsave_size, sizeof(s->xsave)));
	if (ioctl(v->fd, KVM_SET_XSAVE, area) < 0)
		ret = failed(err, "KVM_SET_XSAVE");
	free(area);
	return ret;
}

static int xcr0_get(struct kvm_vcpu *v, struct x86_state *s, struct err *err)
{
	struct kvm_xcrs x = { 0 };

	if (ioctl(v->fd, KVM_GET_XCRS, &x) < 0)
		return failed(err, "KVM_GET_XCRS");
	s->xcr0 = 1;
	for (unsigned i = 0; i < x.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (x.xcrs[i].xcr == 0)
			s->xcr0 = x.xcrs[i].value;
	return 0;
}

static int xcr0_set(struct kvm_vcpu *v, const struct x86_state *s,
		    struct err *err)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };

	return ioctl(v->fd, KVM_SET_XCRS, &x) < 0 ? failed(err, "KVM_SET_XCRS") : 0;
}

static void lapic_get(const struct kvm_lapic_state *l, struct x86_state *s)
{
	for (unsigned i = 0; i < sizeof(l->regs) / 16; i++)
		memcpy(&s->lapic[i], l->regs + i * 16, 4);
}

static void lapic_set(struct kvm_lapic_state *l, const struct x86_state *s)
{
	memset(l, 0, sizeof(*l));
	for (unsigned i = 0; i < sizeof(l->regs) / 16; i++)
		memcpy(l->regs + i * 16, &s->lapic[i], 4);
}

static void debug_get(const struct kvm_debugregs *d, struct x86_state *s)
{
	memcpy(s->dr, d->db, sizeof(s->dr));
	s->dr6 = d->dr6;
	s->dr7 = d->dr7;
}

/* --- whole state ------------------------------------------------------------ */

int kvm_x86_get(struct kvm_vm *k, struct kvm_vcpu *v, struct x86_state *s,
		struct err *err)
{
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events ev;
	struct kvm_debugregs dbg;
	struct kvm_mp_state mp;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int ret;

	memset(s, 0, sizeof(*s));
	/* First: it takes an INIT or SIPI that has come, which changes registers. */
	if (ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0 ||
	    ioctl(v->fd, KVM_GET_REGS, &regs) < 0 ||
	    ioctl(v->fd, KVM_GET_SREGS, &sregs) < 0 ||
	    ioctl(v->fd, KVM_GET_LAPIC, &lapic) < 0 ||
	    ioctl(v->fd, KVM_GET_DEBUGREGS, &dbg) < 0 ||
	    ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev) < 0)
		return failed(err, "cannot read the vCPU's state");
	gprs_get(&regs, s->gpr);
	s->rip = regs.rip;
	s->rflags = regs.rflags;
	sregs_get(&sregs, s);
	lapic_get(&lapic, s);
	debug_get(&dbg, s);
	events_get(&ev, s);
	s->run_state = mp.mp_state == KVM_MP_STATE_HALTED ? X86_HALTED :
		       mp.mp_state == KVM_MP_STATE_RUNNABLE ? X86_RUNNING :
		       X86_WAIT_SIPI;
	msrs_get(v, s);
	if (msr_get(v, MSR_TSC, &s->tsc) < 0 ||
	    msr_get(v, MSR_TSC_DEADLINE, &s->tsc_deadline) < 0)
		return err_set(err, EIO, "cannot read the vCPU's clock");
	ret = xcr0_get(v, s, err);
	return ret ? ret : xsave_get(k, v, s, err);
}

static int regs_set(struct kvm_vcpu *v, const struct x86_state *s,
		    struct err *err)
{
	struct kvm_debugregs dbg = { .dr6 = s->dr6, .dr7 = s->dr7 };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	memcpy(dbg.db, s->dr, sizeof(s->dr));
	gprs_set(&regs, s->gpr);
	regs.rip = s->rip;
	regs.rflags = s->rflags;
	sregs_set(&sregs, s);
	if (ioctl(v->fd, KVM_SET_SREGS, &sregs) < 0 ||
	    ioctl(v->fd, KVM_SET_REGS, &regs) < 0 ||
	    ioctl(v->fd, KVM_SET_DEBUGREGS, &dbg) < 0)
		return failed(err, "KVM refused the vCPU's registers");
	return 0;
}

static int events_and_lapic_set(struct kvm_vcpu *v, const struct x86_state *s,
				struct err *err)
{
	struct kvm_mp_state mp = {
		s->run_state == X86_HALTED ? KVM_MP_STATE_HALTED :
		s->run_state == X86_RUNNING ? KVM_MP_STATE_RUNNABLE :
		KVM_MP_STATE_INIT_RECEIVED,	/* UNINITIALIZED ignores a SIPI */
	};
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events ev;

	lapic_set(&lapic, s);
	events_set(&ev, s);
	if (ioctl(v->fd, KVM_SET_LAPIC, &lapic) < 0 ||
	    ioctl(v->fd, KVM_SET_MP_STATE, &mp) < 0 ||
	    ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) < 0)
		return failed(err, "KVM refused the vCPU's interrupt state");
	return msr_set(v, MSR_TSC_DEADLINE, s->tsc_deadline, err);
}

int kvm_x86_set(struct kvm_vm *k, struct kvm_vcpu *v, const struct x86_state *s,
		struct err *err)
{
	int ret = regs_set(v, s, err);

	if (!ret)
		ret = xcr0_set(v, s, err);
	if (!ret)
		ret = xsave_set(k, v, s, err);
	if (!ret)
		ret = msrs_set(v, s, err);
	if (!ret)
		ret = events_and_lapic_set(v, s, err);
	return ret;
}

/* --- board ------------------------------------------------------------------ */

int kvm_x86_board_get(struct kvm_vm *k, struct x86_ioapic_state *ioapic,
		      struct x86_clock_state *clock, struct err *err)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_clock_data now = { 0 };
	struct timespec real;

	if (ioctl(k->vm_fd, KVM_GET_IRQCHIP, &chip) < 0 ||
	    ioctl(k->vm_fd, KVM_GET_CLOCK, &now) < 0)
		return failed(err, "cannot read the board's state");
	*ioapic = (struct x86_ioapic_state){
		.id = chip.chip.ioapic.id,
		.ioregsel = chip.chip.ioapic.ioregsel,
		.irr = chip.chip.ioapic.irr,
	};
	for (unsigned i = 0; i < ARRAY_LEN(ioapic->redir); i++)
		ioapic->redir[i] = chip.chip.ioapic.redirtbl[i].bits;
	clock->kvmclock_ns = now.clock;
	clock->tsc_khz = k->tsc_khz;
	if (now.flags & KVM_CLOCK_REALTIME) {
		clock->realtime_ns = now.realtime;
		return 0;
	}
	clock_gettime(CLOCK_REALTIME, &real);
	clock->realtime_ns = (uint64_t)real.tv_sec * NSEC_PER_SEC + (uint64_t)real.tv_nsec;
	return 0;
}

int kvm_x86_board_set(struct kvm_vm *k, const struct x86_ioapic_state *ioapic,
		      const struct x86_clock_state *clock, struct err *err)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_clock_data now = { .clock = clock->kvmclock_ns };

	if (ioctl(k->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
		return failed(err, "KVM_GET_IRQCHIP");
	chip.chip.ioapic.id = ioapic->id;
	chip.chip.ioapic.ioregsel = ioapic->ioregsel;
	chip.chip.ioapic.irr = ioapic->irr;
	for (unsigned i = 0; i < ARRAY_LEN(ioapic->redir); i++)
		chip.chip.ioapic.redirtbl[i].bits = ioapic->redir[i];
	if (ioctl(k->vm_fd, KVM_SET_IRQCHIP, &chip) < 0 ||
	    ioctl(k->vm_fd, KVM_SET_CLOCK, &now) < 0)
		return failed(err, "KVM refused the board's state");
	return 0;
}
