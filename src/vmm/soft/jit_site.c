// SPDX-License-Identifier: MIT
/*
 * jit_site.c - jumps that leave their page remember where they led.
 *
 * A branch within its page is linked for good: both ends are in one physical page.
 * To another page the way depends on what is mapped there, so each such branch, each
 * indirect call and each jump through a pointer has a record of its own (struct
 * jit_site): target address, epoch, host code.  While address and epoch are the
 * same, the target's page is mapped as it was and the way is a compare, a compare and
 * a jump.  Else the thunk `find` asks the jump cache, fills the record in and goes on
 * behind the compares; where that has no host code either, the run loop is asked.
 *
 * The epoch is cpu->link, of the address space, or in kernel code, which is in global
 * pages, cpu->link_global.  They change with those of the jump cache; and as it
 * cannot be known which records lead into a page, also when any page that was executed
 * is invalidated.  A record whose target was dropped leads to its body's way out.
 *
 * Records are data, in ordinary memory behind the code and in reach of it, so that
 * code that is shared with siblings need not be written when a way changes.
 */
#include "vmm/soft/jit_tr.h"

/* op reg, [rip + ...] of something near the code */
static void e_rip(struct tr *tr, uint8_t op, int reg, const void *at)
{
	struct emit *e = &tr->e;
	const uint8_t *next = tr->j->rx + (e->p - tr->j->rw) + 7;

	e8(e, 0x48 | (reg >> 3) << 2);
	e8(e, op);
	e8(e, 0x05 | (reg & 7) << 3);
	e32(e, (uint32_t)((const uint8_t *)at - next));
}

uint32_t jit_site_new(struct tr *tr, uint32_t id)
{
	struct jit *j = tr->j;

	j->site[j->nr_site] = (struct jit_site){ .id = id };
	return j->nr_site++;
}

void jit_site_check(struct tr *tr, uint32_t site)
{
	struct jit_site *s = &tr->j->site[site];
	struct emit *e = &tr->e;
	uint8_t *other;

	clobber(tr);
	e_rip(tr, 0x3b, H_S1, &s->va);
	other = e_jump(e, 5);
	e_ld(e, H_S2, tr->cpu->cpl == 3 ? OFF(link) : OFF(link_global));
	e_rip(tr, 0x3b, H_S2, &s->epoch);
	add_tail(tr, (struct tail){ .kind = TAIL_SITE, .check = other, .id = site,
				    .site = e_jump(e, 5) });
	s->resume = tr->j->rx + (e->p - tr->j->rw);
}

void jit_site_tail(struct tr *tr, const struct tail *tl)
{
	struct jit *j = tr->j;

	e_patch(tl->check, tr->e.p);
	e_rip(tr, 0x8d, H_S2, &j->site[tl->id]);
	e_patch(e_jump(&tr->e, -1), j->find + (j->rw - j->rx));
}

void jit_site_go(struct tr *tr, uint32_t site, bool lost)
{
	struct jit_site *s = &tr->j->site[site];

	if (lost)
		e_rip(tr, 0x8b, H_S1, &s->va);
	e_imm(&tr->e, true, 4, H_S1, -(int)PAGE_SIZE);
	e_st(&tr->e, OFF(scratch[JIT_PAGE_VA]), H_S1);
	e8(&tr->e, 0xff);			/* jmp [rip + ...] */
	e8(&tr->e, 0x25);
	e32(&tr->e, (uint32_t)((const uint8_t *)&s->host -
			       (tr->j->rx + (tr->e.p + 4 - tr->j->rw))));
}

static void e_field(struct emit *e, uint8_t op, int reg, int base, size_t field)
{
	e_mem(e, true, op, reg, base, (int)field);
}

/*
 * H_S1: target, H_S2: record.  The epoch that goes in is the one by which the jump
 * cache found it; a global one in user code, or one that is not in kernel code, will
 * not match and be looked up again each time.
 */
void jit_site_thunk(struct jit *j, struct emit *e)
{
	uint8_t *miss[JIT_MISSES], *none, *local;

	e_st(e, OFF(scratch[JIT_TARGET]), H_S1);
	e_st(e, OFF(scratch[JIT_CODE]), H_S2);
	jit_emit_lookup(e, miss);
	e_field(e, 0x8b, H_S1, H_S2, offsetof(struct jump, host));
	e_st(e, OFF(aside[JIT_RAX]), H_RAX);
	e8(e, 0x48); e8(e, 0xb8); e64(e, (uintptr_t)j->miss);	/* mov rax, */
	e_rr(e, true, 0x39, H_S1, H_RAX);
	none = e_jump(e, 4);
	e_ld(e, H_RAX, OFF(scratch[JIT_CODE]));
	e_field(e, 0x89, H_S1, H_RAX, offsetof(struct jit_site, host));
	e_field(e, 0x8b, H_S1, H_S2, offsetof(struct jump, gen));
	e_ld(e, H_S2, OFF(link_global));
	e_rsp(e, true, 0x3b, H_S1, OFF(gen_global));
	local = e_jump(e, 4);
	e_ld(e, H_S2, OFF(link));
	e_patch(local, e->p);
	e_field(e, 0x89, H_S2, H_RAX, offsetof(struct jit_site, epoch));
	e_ld(e, H_S1, OFF(scratch[JIT_TARGET]));
	e_field(e, 0x89, H_S1, H_RAX, offsetof(struct jit_site, va));
	e_mov(e, H_S2, H_RAX);
	e_ld(e, H_RAX, OFF(aside[JIT_RAX]));
	e_field(e, 0xff, 4, H_S2, offsetof(struct jit_site, resume));	/* jmp */
	e_patch(none, e->p);
	e_ld(e, H_RAX, OFF(aside[JIT_RAX]));
	for (unsigned k = 0; k < JIT_MISSES; k++)
		e_patch(miss[k], e->p);
	e_ld(e, H_S2, OFF(scratch[JIT_CODE]));
	e_mem(e, false, 0x8b, H_S2, H_S2, offsetof(struct jit_site, id));
	e_patch(e_jump(e, -1), j->exit + (j->rw - j->rx));
}
