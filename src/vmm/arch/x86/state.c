// SPDX-License-Identifier: MIT
/*
 * arch/x86/state.c - vCPU, IOAPIC and clock sections of a snapshot.
 *
 * Fields go one by one, in the order of the structs.  A section is from outside
 * when it is read: counts are bounded here, values are checked by whoever puts
 * them into hardware (a backend treats them as it treats a guest's writes).
 */
#include "vmm/arch/x86/state.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "vmm/state.h"

#define VCPU_VERSION	1
#define IOAPIC_VERSION	1
#define CLOCK_VERSION	1
#define XSAVE_MIN	576u	/* legacy region and header */

/* --- vCPU ------------------------------------------------------------------- */

static void save_segments(struct state_w *w, const struct x86_state *s)
{
	for (unsigned i = 0; i < X86_NR_SEGS; i++) {
		state_put_u64(w, s->seg[i].base);
		state_put_u32(w, s->seg[i].limit);
		state_put_u32(w, s->seg[i].attr);
		state_put_u16(w, s->seg[i].sel);
	}
	state_put_u64(w, s->gdt.base);
	state_put_u16(w, s->gdt.limit);
	state_put_u64(w, s->idt.base);
	state_put_u16(w, s->idt.limit);
}

static void load_segments(struct state_r *r, struct x86_state *s)
{
	for (unsigned i = 0; i < X86_NR_SEGS; i++) {
		s->seg[i].base = state_get_u64(r);
		s->seg[i].limit = state_get_u32(r);
		s->seg[i].attr = state_get_u32(r);
		s->seg[i].sel = state_get_u16(r);
	}
	s->gdt.base = state_get_u64(r);
	s->gdt.limit = state_get_u16(r);
	s->idt.base = state_get_u64(r);
	s->idt.limit = state_get_u16(r);
}

static void save_event(struct state_w *w, const struct x86_state *s)
{
	state_put_u8(w, s->ev.pending);
	state_put_u8(w, s->ev.vector);
	state_put_u8(w, s->ev.has_error);
	state_put_u32(w, s->ev.error);
	state_put_u8(w, s->ev.soft);
	state_put_u8(w, s->ev.nmi_pending);
	state_put_u8(w, s->ev.nmi_masked);
	state_put_u8(w, s->ev.sti_shadow);
	state_put_u8(w, s->ev.mov_ss_shadow);
	state_put_u8(w, (uint8_t)s->run_state);
}

static void load_event(struct state_r *r, struct x86_state *s)
{
	uint8_t run;

	s->ev.pending = state_get_u8(r);
	s->ev.vector = state_get_u8(r);
	s->ev.has_error = state_get_u8(r);
	s->ev.error = state_get_u32(r);
	s->ev.soft = state_get_u8(r);
	s->ev.nmi_pending = state_get_u8(r);
	s->ev.nmi_masked = state_get_u8(r);
	s->ev.sti_shadow = state_get_u8(r);
	s->ev.mov_ss_shadow = state_get_u8(r);
	run = state_get_u8(r);
	if (run > X86_WAIT_SIPI)
		r->bad = true;
	else
		s->run_state = run;
}

/* cr0 … xcr0 and dr0 … dr7, in the order both directions use. */
static void control_fields(struct x86_state *s, uint64_t *field[13])
{
	field[0] = &s->cr0;
	field[1] = &s->cr2;
	field[2] = &s->cr3;
	field[3] = &s->cr4;
	field[4] = &s->cr8;
	field[5] = &s->efer;
	field[6] = &s->xcr0;
	for (unsigned i = 0; i < 4; i++)
		field[7 + i] = &s->dr[i];
	field[11] = &s->dr6;
	field[12] = &s->dr7;
}

static void save_control(struct state_w *w, const struct x86_state *s)
{
	const uint64_t v[] = {
		s->cr0, s->cr2, s->cr3, s->cr4, s->cr8, s->efer, s->xcr0,
		s->dr[0], s->dr[1], s->dr[2], s->dr[3], s->dr6, s->dr7,
	};

	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		state_put_u64(w, v[i]);
}

static void load_control(struct state_r *r, struct x86_state *s)
{
	uint64_t *field[13];

	control_fields(s, field);
	for (unsigned i = 0; i < ARRAY_LEN(field); i++)
		*field[i] = state_get_u64(r);
}

void x86_state_save(struct state_w *w, const struct x86_state *s, unsigned id)
{
	state_begin(w, "vcpu", id, VCPU_VERSION, true);
	for (unsigned i = 0; i < 16; i++)
		state_put_u64(w, s->gpr[i]);
	state_put_u64(w, s->rip);
	state_put_u64(w, s->rflags);
	save_segments(w, s);
	save_control(w, s);
	save_event(w, s);
	state_put_u32(w, s->nr_msrs);
	for (unsigned i = 0; i < s->nr_msrs; i++) {
		state_put_u32(w, s->msr[i].index);
		state_put_u64(w, s->msr[i].value);
	}
	state_put_blob(w, s->xsave, s->xsave_size);
	for (unsigned i = 0; i < ARRAY_LEN(s->lapic); i++)
		state_put_u32(w, s->lapic[i]);
	state_put_u64(w, s->apic_base);
	state_put_u64(w, s->tsc_deadline);
	state_put_u64(w, s->tsc);
	state_end(w);
}

static void load_msrs(struct state_r *r, struct x86_state *s)
{
	s->nr_msrs = state_get_u32(r);
	if (s->nr_msrs > X86_MAX_MSRS) {
		s->nr_msrs = 0;
		r->bad = true;
	}
	for (unsigned i = 0; i < s->nr_msrs; i++) {
		s->msr[i].index = state_get_u32(r);
		s->msr[i].value = state_get_u64(r);
	}
}

static void load_xsave(struct state_r *r, struct x86_state *s)
{
	uint32_t n = 0;
	const void *p = state_get_blob(r, &n, X86_XSAVE_SIZE);

	if (!p || n < XSAVE_MIN) {
		r->bad = true;
		return;
	}
	memcpy(s->xsave, p, n);
	s->xsave_size = n;
}

/* Finds a section and checks its version; state_close() ends it. */
static int open_section(struct state_r *r, const char *name, unsigned id,
			uint16_t version, struct err *err)
{
	int ret = state_find(r, name, id);

	if (ret < 0)
		return err_code(err, ERR_SNAPSHOT_DAMAGED, -ret,
				"the state has no section %s %u", name, id);
	if (r->version != version)
		return err_code(err, ERR_SNAPSHOT_VERSION, ENOTSUP,
				"section %s has version %u, not %u", name,
				r->version, version);
	return 0;
}

int x86_state_load(struct state_r *r, struct x86_state *s, unsigned id,
		   struct err *err)
{
	int ret = open_section(r, "vcpu", id, VCPU_VERSION, err);

	if (ret < 0)
		return ret;
	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = state_get_u64(r);
	s->rip = state_get_u64(r);
	s->rflags = state_get_u64(r);
	load_segments(r, s);
	load_control(r, s);
	load_event(r, s);
	load_msrs(r, s);
	load_xsave(r, s);
	for (unsigned i = 0; i < ARRAY_LEN(s->lapic); i++)
		s->lapic[i] = state_get_u32(r);
	s->apic_base = state_get_u64(r);
	s->tsc_deadline = state_get_u64(r);
	s->tsc = state_get_u64(r);
	return state_close(r, err);
}

/* --- IOAPIC and clock ------------------------------------------------------- */

void x86_ioapic_save(struct state_w *w, const struct x86_ioapic_state *s)
{
	state_begin(w, "ioapic", 0, IOAPIC_VERSION, true);
	state_put_u32(w, s->id);
	state_put_u32(w, s->ioregsel);
	for (unsigned i = 0; i < ARRAY_LEN(s->redir); i++)
		state_put_u64(w, s->redir[i]);
	state_put_u32(w, s->irr);
	state_end(w);
}

int x86_ioapic_load(struct state_r *r, struct x86_ioapic_state *s, struct err *err)
{
	int ret = open_section(r, "ioapic", 0, IOAPIC_VERSION, err);

	if (ret < 0)
		return ret;
	s->id = state_get_u32(r);
	s->ioregsel = state_get_u32(r);
	for (unsigned i = 0; i < ARRAY_LEN(s->redir); i++)
		s->redir[i] = state_get_u64(r);
	s->irr = state_get_u32(r);
	return state_close(r, err);
}

void x86_clock_save(struct state_w *w, const struct x86_clock_state *s)
{
	state_begin(w, "clock", 0, CLOCK_VERSION, true);
	state_put_u64(w, s->kvmclock_ns);
	state_put_u64(w, s->realtime_ns);
	state_put_u64(w, s->tsc_khz);
	state_end(w);
}

int x86_clock_load(struct state_r *r, struct x86_clock_state *s, struct err *err)
{
	int ret = open_section(r, "clock", 0, CLOCK_VERSION, err);

	if (ret < 0)
		return ret;
	s->kvmclock_ns = state_get_u64(r);
	s->realtime_ns = state_get_u64(r);
	s->tsc_khz = state_get_u64(r);
	/* Divided by, on both backends. */
	if (!s->tsc_khz || s->tsc_khz > 100000000)
		r->bad = true;
	return state_close(r, err);
}
