/* SPDX-License-Identifier: MIT */
/*
 * util.h - the few macros everything uses.
 *
 * ASSERT stays on in release builds and must not contain side effects: a VMM
 * that goes on after a broken invariant is worse than one that stops.  It is
 * for our own bugs alone; nothing a guest, a file or a peer sends may reach it.
 */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a < _b ? _a : _b; })
#define MAX(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })
#define ALIGN_UP(x, a) (((x) + ((__typeof__(x))(a) - 1)) & ~((__typeof__(x))(a) - 1))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a) - 1))
#define container_of(p, type, field) \
	((type *)(uintptr_t)((const char *)(p) - offsetof(type, field)))
#define BIT(n) (1ull << (n))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

_Noreturn void assert_failed(const char *file, int line, const char *what);
#define ASSERT(x) \
	do { \
		if (unlikely(!(x))) \
			assert_failed(__FILE__, __LINE__, #x); \
	} while (0)

/* Runs fn on the variable's address when it leaves scope. */
#define cleanup(fn) __attribute__((cleanup(fn)))

#define NSEC_PER_SEC 1000000000ull
#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)

#endif
