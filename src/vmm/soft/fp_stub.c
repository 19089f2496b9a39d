// SPDX-License-Identifier: MIT
/*
 * fp_stub.c - little host functions that run one instruction each.
 *
 * A stub is the instruction and a RET, behind an 8-byte head.  Instructions
 * with the same bytes share one; a hash over the bytes finds it.  The area is
 * codemem.c's: no page is ever writable and executable.
 *
 * An exception that the guest has unmasked reaches the host as SIGFPE with rip at
 * the instruction.  The handler recognises a stub by its head, leaves the trap
 * number in rsi, where fp_call() looks for it, and goes on at the RET.  The
 * instruction has then changed nothing but the status flags, which stay in the
 * registers, where the guest's handler will find them.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "vmm/soft/fp.h"
#include "vmm/soft/jit.h"

struct stub {
	uint32_t magic;
	uint8_t len, pad[3];
	uint8_t code[];
};
#define STUB_MAGIC 0x74735046u	/* not an instruction start of ours */

static void on_sigfpe(int sig, siginfo_t *si, void *arg)
{
	greg_t *g = ((ucontext_t *)arg)->uc_mcontext.gregs;

	if (jit_signal(arg))
		return;
	const struct stub *s = (const void *)(uintptr_t)(g[REG_RIP] -
							 (greg_t)sizeof(*s));

	if ((g[REG_TRAPNO] != VEC_MF && g[REG_TRAPNO] != VEC_XM) ||
	    s->magic != STUB_MAGIC) {
		signal(sig, SIG_DFL);	/* ours: die of it on return */
		return;
	}
	g[REG_RSI] = g[REG_TRAPNO];
	g[REG_RIP] += s->len;
}

int fp_stub_init(struct fp *fp)
{
	struct sigaction sa = { .sa_sigaction = on_sigfpe,
				.sa_flags = SA_SIGINFO | SA_ONSTACK };

	fp->hash_size = 1024;
	fp->hash = calloc(fp->hash_size, sizeof(*fp->hash));
	fp->used = 16;
	fp->limit = FP_AREA_SIZE;
	if (!fp->hash)
		return -ENOMEM;
	if (sigaction(SIGFPE, &sa, NULL))
		return -errno;
	return codemem_init(&fp->area, FP_AREA_SIZE, 0);
}

void fp_stub_done(struct fp *fp)
{
	codemem_done(&fp->area);
	free(fp->hash);
	fp->hash = NULL;
}

static const struct stub *stub_at(const struct fp *fp, uint32_t off)
{
	return (const struct stub *)(const void *)(fp->area.rx + off);
}

static uint32_t hash_bytes(const uint8_t *p, unsigned n)
{
	uint32_t h = 2166136261u;

	while (n--)
		h = (h ^ *p++) * 16777619u;
	return h ^ h >> 15;
}

/* The slot where the code is, or where it belongs. */
static uint32_t *find_slot(const struct fp *fp, const uint8_t *code, unsigned len)
{
	uint32_t h = hash_bytes(code, len);

	for (;; h++) {
		uint32_t *slot = &fp->hash[h & (fp->hash_size - 1)];
		const struct stub *s = stub_at(fp, *slot);

		if (!*slot || (s->len == len && !memcmp(s->code, code, len)))
			return slot;
	}
}

static bool grow(struct fp *fp)
{
	uint32_t *old = fp->hash, n = fp->hash_size;
	uint32_t *bigger = calloc(2 * (size_t)n, sizeof(*bigger));

	if (!bigger)
		return false;
	fp->hash = bigger;
	fp->hash_size = 2 * n;
	for (uint32_t i = 0; i < n; i++) {
		const struct stub *s = stub_at(fp, old[i]);

		if (old[i])
			*find_slot(fp, s->code, s->len) = old[i];
	}
	free(old);
	return true;
}

/* The address to call, of what is at `slot`. */
static void *entry(const struct fp *fp, const uint32_t *slot)
{
	return (void *)(uintptr_t)stub_at(fp, *slot)->code;
}

void *fp_stub(struct fp *fp, const uint8_t *code, unsigned len)
{
	uint32_t *slot = find_slot(fp, code, len);
	unsigned size = ALIGN_UP(sizeof(struct stub) + len + 1, 8u);
	struct stub *s;

	if (*slot)
		return entry(fp, slot);
	if (fp->used + size > fp->limit ||
	    (fp->nr_stubs >= fp->hash_size / 2 && !grow(fp)) ||
	    !codemem_own(&fp->area, fp->used, size)) {
		fp->full = true;
		return NULL;
	}
	slot = find_slot(fp, code, len);
	s = (struct stub *)(void *)(fp->area.rw + fp->used);
	s->magic = STUB_MAGIC;
	s->len = len;
	memcpy(s->code, code, len);
	s->code[len] = 0xc3;
	*slot = fp->used;
	fp->used += size;
	fp->nr_stubs++;
	return entry(fp, slot);
}

void fp_stub_flush(struct fp *fp)
{
	memset(fp->hash, 0, fp->hash_size * sizeof(*fp->hash));
	fp->used = 16;
	fp->nr_stubs = 0;
	fp->full = false;
}
