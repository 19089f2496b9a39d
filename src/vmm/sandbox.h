/* SPDX-License-Identifier: MIT */
/*
 * sandbox.h - giving up what the VMM does not need any more.  See sandbox.c.
 */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

struct err;
struct vm;

/* First thing in main(): nothing gained by exec, no core dump, no tracer. */
int sandbox_early(struct err *err);
/*
 * When the VM is built and before its CPUs run: no files but the live mounts',
 * and the annotated system calls.  Needs nothing from the host: where the kernel
 * lacks a mechanism, that stage is left out and logged.
 */
int sandbox_enter(const struct vm *vm, struct err *err);

#endif
