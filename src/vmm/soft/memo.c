// SPDX-License-Identifier: MIT
/* memo.c - see memo.h. */
#include "vmm/soft/memo.h"

#include "base/util.h"

#define HEAD_MAX 8

static uint64_t load8(const uint8_t *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, 8);
	return v;
}

static unsigned slot(uint64_t first, unsigned head)
{
	uint64_t x = head == 8 ? first : first & ((1ull << head * 8) - 1);

	return (x + head) * 0x9e3779b97f4a7c15ull >> (64 - MEMO_BITS);
}

/* bytes: of an instruction, with 8 more behind; f.len is not 0. */
static int64_t read_field(const uint8_t *bytes, struct memo_field f)
{
	uint64_t v = load8(bytes + f.off);
	unsigned unused = 64 - f.len * 8;

	return f.is_signed ? (int64_t)(v << unused) >> unused :
			     (int64_t)(v << unused >> unused);
}

/* The entry's instruction with the fields of these bytes. */
static bool fill(const struct memo_entry *e, struct insn *i, const uint8_t *bytes)
{
	*i = e->i;
	for (unsigned k = 0; k < i->len; k++)
		i->raw[k] = bytes[k];
	if (e->disp.len) {
		int64_t disp = e->disp_from + read_field(bytes, e->disp);

		i->disp = disp;
		if (i->disp != disp)
			return false;	/* decode.c has another form for it */
	}
	if (e->imm.len)
		i->imm = read_field(bytes, e->imm);
	return true;
}

bool memo_get(const struct memo *m, struct insn *i, const uint8_t *p)
{
	uint8_t bytes[24] = { 0 };	/* read once; read_field() looks past the end */
	uint64_t first = load8(p), last = load8(p + 7);

	for (unsigned head = 1; head <= HEAD_MAX; head++) {
		const struct memo_entry *e = &m->entry[slot(first, head)];

		if (e->head != head || ((load8(e->i.raw) ^ first) & e->mask[0]) ||
		    ((load8(e->i.raw + 7) ^ last) & e->mask[1]))
			continue;
		/* byte 7 is in both */
		last = (last & ~0xffull) | first >> 56;
		__builtin_memcpy(bytes + 7, &last, 8);
		__builtin_memcpy(bytes, &first, 8);
		return fill(e, i, bytes);
	}
	return false;
}

static bool in_field(unsigned k, struct memo_field f)
{
	return k >= f.off && k < f.off + f.len;
}

void memo_put(struct memo *m, const struct insn *i, struct memo_field disp,
	      struct memo_field imm)
{
	uint8_t bytes[24] = { 0 };
	unsigned head = i->len;
	struct memo_entry *e;

	if (disp.len)
		head = MIN(head, (unsigned)disp.off);
	if (imm.len)
		head = MIN(head, (unsigned)imm.off);
	if (!head || head > HEAD_MAX)
		return;
	e = &m->entry[slot(load8(i->raw), head)];
	*e = (struct memo_entry){ .i = *i, .disp = disp, .imm = imm, .head = head };
	__builtin_memcpy(bytes, i->raw, sizeof(i->raw));
	if (disp.len)
		e->disp_from = i->disp - read_field(bytes, disp);
	for (unsigned k = 0; k < i->len; k++) {
		if (in_field(k, disp) || in_field(k, imm))
			continue;
		if (k < 8)
			e->mask[0] |= 0xffull << 8 * k;
		if (k >= 7)
			e->mask[1] |= 0xffull << 8 * (k - 7);
	}
}

void memo_forget(struct memo *m)
{
	for (unsigned k = 0; k < ARRAY_LEN(m->entry); k++)
		m->entry[k].head = 0;
}
