// SPDX-License-Identifier: MIT
/*
 * guest.c - see guest.h; the code in the guest is in guest_rt.S.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/err.h"
#include "base/util.h"
#include "tests/lib/guest.h"
#include "vmm/soft/clock.h"
#include "vmm/soft/jit.h"

#define RAM_SIZE	(64 * MIB)
#define SECONDS		100	/* of the wall clock: a busy host is no hang */

extern const uint8_t guest_rt[], guest_rt_end[];

static struct guest *watched;	/* by the alarm */

static void on_end(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct guest *g = dev;

	g->ended = true;
	g->vm.accel->vcpu_kick(g->running);
}

/* As a device does: not through the CPU's page tables. */
static void on_dma(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct guest *g = dev;
	uint64_t dma[3] = { 0 };
	uint8_t bytes[64];

	mem_read(&g->vm.mem, G_DMA, dma, sizeof(dma));
	dma[2] = MIN(dma[2], sizeof(bytes));
	if (mem_read(&g->vm.mem, dma[0], bytes, dma[2]))
		mem_write(&g->vm.mem, dma[1], bytes, dma[2]);
}

static void on_alarm(int sig)
{
	if (watched) {
		watched->hung = true;
		watched->vm.accel->vcpu_kick(watched->running);
	}
}

static void put64(struct guest *g, uint64_t gpa, uint64_t val)
{
	mem_write(&g->vm.mem, gpa, &val, 8);
}

static void make_tables(struct guest *g)
{
	put64(g, G_PML4, G_PDPT | 7);
	put64(g, G_PDPT, G_PD | 7);
	put64(g, G_PD + 0, G_PT0 | 7);
	put64(g, G_PD + 8, G_PT1 | 7);
	put64(g, G_PD + 16, G_LARGE | 0x83);
	put64(g, G_PD + 24, 0x600000 | 0x87);
	for (uint64_t i = 0; i < 512; i++) {
		put64(g, G_PT0 + 8 * i, i << 12 | 3);
		put64(g, G_PT1 + 8 * i, G_USER + (i << 12) + 7);
	}
}

static void make_gdt(struct guest *g)
{
	static const uint64_t gdt[] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff,
		0x00cff3000000ffff, 0x00affb000000ffff,
		0x00008b0000000067 | (uint64_t)G_TSS << 16, 0,
		0x00cf13000000ffff,
	};

	for (unsigned i = 0; i < ARRAY_LEN(gdt); i++)
		put64(g, G_GDT + 8 * i, gdt[i]);
	put64(g, G_TSS + 4, G_STACK - 0x4000);	/* RSP0 */
	put64(g, G_TSS + 0x24, G_IST);		/* IST1 */
	put64(g, G_TSS + 0x60, 0x68ull << 48);	/* no I/O bitmap */
}

/* Interrupt gates; 3, 4 and 0x80 may be called by users.  Stubs are 16 bytes. */
static void make_idt(struct guest *g)
{
	for (uint64_t v = 0; v < 256; v++) {
		uint64_t at = G_RUNTIME + 16 * v;
		uint64_t dpl = v == 3 || v == 4 || v == 0x80 ? 3 : 0;

		put64(g, G_IDT + 16 * v, (at & 0xffff) | G_CS << 16 |
		      (0x8e00 | dpl << 13) << 32 | at >> 16 << 48);
		put64(g, G_IDT + 16 * v + 8, 0);
	}
}

static struct x86_segment flat(uint16_t sel, uint32_t attr)
{
	return (struct x86_segment){ .sel = sel, .limit = 0xffffffff, .attr = attr };
}

void guest_set_start(struct x86_state *s)
{
	for (int i = 0; i < X86_NR_SEGS; i++)
		s->seg[i] = flat(G_SS, 0xc093);
	s->seg[X86_CS] = flat(G_CS, 0xa09b);
	s->seg[X86_LDTR] = (struct x86_segment){ .attr = X86_SEG_UNUSABLE };
	s->seg[X86_TR] = (struct x86_segment){ G_TSS, 0x67, 0x8b, G_TR };
	s->gdt = (struct x86_dtable){ G_GDT, 9 * 8 - 1 };
	s->idt = (struct x86_dtable){ G_IDT, 4095 };
	s->cr0 = 0x80010033;	/* PG WP NE ET MP PE */
	s->cr3 = G_PML4;
	s->cr4 = 0x6a0;		/* OSXMMEXCPT OSFXSR PGE PAE */
	s->efer = 0xd01;	/* NX LMA LME SCE */
	s->xcr0 = 1;
	s->rflags = 2;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	memset(&s->ev, 0, sizeof(s->ev));
	s->rip = G_CODE;
	s->gpr[X86_RSP] = G_STACK;
	s->run_state = X86_RUNNING;
}

/* Code that runs once would never be hot. */
static void translate_at_once(struct guest *g)
{
	struct soft_cpu *cpu = g->vm.vcpu[0].accel_vcpu;

	if (g->vm.accel == &accel_soft && cpu->jit)
		cpu->jit->heat = 1;
}

/* A soft guest's TSC is slower than the host's, so that scaling is tested along. */
static int make_machine(struct guest *g, struct err *err)
{
	const struct accel *accel = g->vm.accel;
	uint32_t can[CPUID_NR_WORDS];
	int ret = accel->probe ? accel->probe(20 * LIMIT_PROBE_MS, err) : 0;

	if (!ret)
		ret = mem_init(&g->vm.mem, RAM_SIZE, -1, err);
	g->vm.model.tsc_khz = accel == &accel_soft ? 1000000 : 0;
	if (!ret)
		ret = accel->vm_init(&g->vm, err);
	if (!g->vm.host_khz)
		g->vm.host_khz = gclock_host_khz();
	accel->cpuid_can(can);
	if (!ret)
		ret = cpu_model_init(&g->vm.model, "portable", can, g->vm.model.tsc_khz ?
				     g->vm.model.tsc_khz : g->vm.host_khz, 1, err);
	if (!ret)
		ret = accel->mem_map(&g->vm, err);
	return ret ? ret : accel->vcpu_init(&g->vm.vcpu[0], err);
}

struct guest *guest_new(const struct accel *accel, enum spec_engine engine)
{
	struct bus_region end = { .name = "end", .base = G_PORT_END, .size = 1,
				  .min_len = 1, .max_len = 1, .write = on_end };
	struct bus_region dma = { .name = "dma", .base = G_PORT_DMA, .size = 1,
				  .min_len = 1, .max_len = 1, .write = on_dma };
	struct guest *g = calloc(1, sizeof(*g));
	struct err err = ERR_INIT;

	if (!g)
		return NULL;
	end.dev = dma.dev = g;
	g->state = aligned_alloc(64, ALIGN_UP(sizeof(*g->state), 64u));
	g->vm.accel = accel;
	g->vm.spec.engine = engine;
	g->vm.nr_vcpus = 1;
	g->vm.vcpu[0].vm = &g->vm;
	pthread_mutex_init(&g->vm.lock, NULL);
	if (g->state && !make_machine(g, &err) && !bus_add(&g->vm.pio, &end, &err) &&
	    !bus_add(&g->vm.pio, &dma, &err)) {
		translate_at_once(g);
		return g;
	}
	printf("# this backend does not run here: %s\n", err_message(&err));
	guest_free(g);
	return NULL;
}

void guest_free(struct guest *g)
{
	if (!g)
		return;
	if (g->vm.vcpu[0].accel_vcpu)
		g->vm.accel->vcpu_done(&g->vm.vcpu[0]);
	if (g->vm.accel_vm)
		g->vm.accel->vm_done(&g->vm);
	mem_done(&g->vm.mem);
	pthread_mutex_destroy(&g->vm.lock);
	free(g->state);
	free(g);
}

static void load(struct guest *g, const void *program, uint64_t len)
{
	struct mem *m = &g->vm.mem;
	void *low = mem_ptr(m, 0, 0x800000);

	memset(low, 0, 0x800000);
	mem_wrote(m, 0, 0x800000);
	make_tables(g);
	make_gdt(g);
	make_idt(g);
	mem_write(m, G_RUNTIME, guest_rt, (size_t)(guest_rt_end - guest_rt));
	mem_write(m, G_CODE, program, len);
	mem_write(m, G_USER + G_CODE, program, len);
	put64(g, G_LOGPTR, G_LOG);
}

/* An emulated machine takes its time (tests/lab). */
static unsigned slowness(void)
{
	const char *slow = getenv("TEST_SLOW");
	int n = slow ? atoi(slow) : 1;

	return n > 0 ? (unsigned)n : 1;
}

static void watch(struct guest *g, unsigned seconds)
{
	struct itimerval t = { .it_value.tv_sec = seconds };

	watched = g;
	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &t, NULL);
}

void guest_go_on(struct guest *g, struct vcpu *c)
{
	g->ended = g->hung = false;
	g->running = c;
	watch(g, SECONDS * slowness());
	do
		g->exit = g->vm.accel->vcpu_run(c, &g->err);
	while (g->exit == ACCEL_EXIT_KICK && !g->ended && !g->hung);
	watch(NULL, 0);
	g->vm.accel->vcpu_get(c, g->state, &g->err);
}

void guest_run(struct guest *g, const void *program, uint64_t len)
{
	struct vcpu *c = &g->vm.vcpu[0];
	uint64_t logptr = 0;

	load(g, program, len);
	err_clear(&g->err);
	if (g->vm.accel->vcpu_get(c, g->state, &g->err))
		return;
	guest_set_start(g->state);
	if (g->vm.accel->vcpu_set(c, g->state, &g->err))
		return;
	guest_go_on(g, c);
	mem_read(&g->vm.mem, G_LOGPTR, &logptr, 8);
	g->log = mem_ptr(&g->vm.mem, G_LOG, 0x10000);
	g->nr_log = (unsigned)((logptr - G_LOG) / G_REC_SIZE);
	g->result = mem_ptr(&g->vm.mem, G_RESULT, 0x10000);
}
