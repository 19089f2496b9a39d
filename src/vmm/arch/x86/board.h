/* SPDX-License-Identifier: MIT */
/*
 * arch/x86/board.h - the machine around the CPUs and the virtio devices: UART,
 * ACPI registers and tables, and how a kernel is started on it.
 *
 * vm.c alone calls these, in the order below.  The accel's vm_init has been
 * called before all of them; devices_create() before board_boot(), which needs to
 * know the devices for the DSDT.
 */
#ifndef ARCH_X86_BOARD_H
#define ARCH_X86_BOARD_H

#include <stdint.h>

struct err;
struct state_r;
struct state_w;
struct vm;

/* Adds the board's registers to vm->pio and vm->mmio, and vm->serial. */
int board_init(struct vm *vm, struct err *err);
void board_done(struct vm *vm);		/* half-built is fine */

/*
 * Loads roles "kernel" and "initrd", writes zero page and tables, and sets the
 * state of every vCPU (accel->vcpu_init has been called): vCPU 0 at the entry,
 * the others waiting for SIPI.
 */
int board_boot(struct vm *vm, struct err *err);

/* The ACPI power button; under vm->lock.  -ENOTSUP where the guest has none. */
int board_power_button(struct vm *vm);

/* The board's own registers (UART, ACPI); the interrupt controllers and the
 * clock are the accel's (board_get).  Under vm->lock, vCPUs parked. */
void board_save(struct vm *vm, struct state_w *w);
int board_load(struct vm *vm, struct state_r *r, struct err *err);

/* After a restore: a new VM generation ID, and the guest is told.  Under
 * vm->lock; the accel's board_set has been called. */
void board_new_generation(struct vm *vm, const uint8_t id[16]);

#endif
