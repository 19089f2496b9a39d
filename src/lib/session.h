/* SPDX-License-Identifier: MIT */
/* session.h - commands in a VM; the public part is in machinen.h.  For src/lib. */
#ifndef LIB_SESSION_H
#define LIB_SESSION_H

#include <stdint.h>

struct err;
struct mn_vm;

/* Waits until the agent takes connections. */
int session_probe(struct mn_vm *vm, uint64_t deadline, struct err *err);

#endif
