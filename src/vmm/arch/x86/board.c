// SPDX-License-Identifier: MIT
/*
 * arch/x86/board.c - UART, ACPI registers, and the start of a kernel; see
 * board.h, and docs/device.md for the whole machine.
 *
 * The UART's bytes are gathered into lines before they go to the console, whose
 * every write is a system call.  A line that does not end (a prompt, a panic's
 * last words) is flushed by the loop thread, which the first byte posts.
 */
#include "vmm/arch/x86/board.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/acpi.h"
#include "vmm/arch/x86/boot.h"
#include "vmm/arch/x86/state.h"
#include "vmm/console.h"
#include "vmm/dev/serial.h"
#include "vmm/layout.h"
#include "vmm/state.h"
#include "vmm/vm.h"

#define LINE_MAX_BYTES	256
#define ACPI_VERSION	1
#define SLEEP_ENABLE	0x20u
#define SLEEP_TYPE(v)	((v) >> 2 & 7)

struct board {
	struct vm *vm;		/* borrowed */
	struct serial serial;	/* vm->serial */
	uint8_t events;		/* ACPI_EVENT_*, cleared by reading */
	uint8_t line[LINE_MAX_BYTES];
	unsigned line_len;
	struct loop_work flush;
};

static struct board *board_of(struct vm *vm)
{
	return container_of(vm->serial, struct board, serial);
}

static void set_line(void *arg, unsigned gsi, bool level)
{
	struct vm *vm = arg;

	vm->accel->irq_set(vm, gsi, level);
}

/* --- UART ------------------------------------------------------------------- */

static void flush_line(struct board *b)
{
	if (b->line_len && b->vm->console)
		console_write(b->vm->console, b->line, b->line_len);
	b->line_len = 0;
}

static void flush_posted(struct loop_work *w)
{
	struct board *b = container_of(w, struct board, flush);

	pthread_mutex_lock(&b->vm->lock);
	flush_line(b);
	pthread_mutex_unlock(&b->vm->lock);
}

static void serial_out(void *arg, uint8_t byte)
{
	struct board *b = arg;

	b->line[b->line_len++] = byte;
	if (byte == '\n' || b->line_len == sizeof(b->line))
		flush_line(b);
	else if (b->line_len == 1 && b->vm->loop)
		loop_post(b->vm->loop, &b->flush);
}

/* --- ACPI registers --------------------------------------------------------- */

static void raise_event(struct board *b, uint8_t bit)
{
	struct irq_line line = {
		.set = set_line, .arg = b->vm, .gsi = LAYOUT_ACPI_GSI,
	};

	b->events |= bit;
	irq_pulse(&line);
}

static uint64_t acpi_read(void *dev, uint64_t off, unsigned len)
{
	struct board *b = dev;
	uint8_t v = 0;

	if (off == LAYOUT_ACPI_EVENTS) {
		v = b->events;
		b->events = 0;
	}
	return v;
}

static void acpi_write_reg(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct board *b = dev;

	if (off == LAYOUT_ACPI_SLEEP && val & SLEEP_ENABLE &&
	    SLEEP_TYPE(val) == ACPI_SLEEP_S5) {
		flush_line(b);
		vm_end(b->vm, VM_END_POWEROFF);
	} else if (off == LAYOUT_ACPI_RESET && val == ACPI_RESET_VALUE) {
		flush_line(b);
		vm_end(b->vm, VM_END_REBOOT);
	}
}

int board_power_button(struct vm *vm)
{
	raise_event(board_of(vm), ACPI_EVENT_POWER);
	return 0;
}

/* --- life ------------------------------------------------------------------- */

int board_init(struct vm *vm, struct err *err)
{
	struct board *b = calloc(1, sizeof(*b));
	struct irq_line irq = {
		.set = set_line, .arg = vm, .gsi = LAYOUT_SERIAL_GSI,
	};
	const struct bus_region uart = {
		.name = "serial", .base = LAYOUT_SERIAL_PORT, .size = SERIAL_SIZE,
		.min_len = 1, .max_len = 1,
		.read = serial_read, .write = serial_write, .dev = b ? &b->serial : NULL,
	};
	const struct bus_region acpi = {
		.name = "acpi", .base = LAYOUT_ACPI_PORT, .size = LAYOUT_ACPI_PORTS,
		.min_len = 1, .max_len = 1,
		.read = acpi_read, .write = acpi_write_reg, .dev = b,
	};
	int ret;

	if (!b)
		return err_set(err, ENOMEM, "out of memory");
	b->vm = vm;
	b->flush.cb = flush_posted;
	serial_init(&b->serial, &irq, serial_out, b);
	vm->serial = &b->serial;
	ret = bus_add(&vm->pio, &uart, err);
	return ret < 0 ? ret : bus_add(&vm->pio, &acpi, err);
}

void board_done(struct vm *vm)
{
	if (!vm->serial)
		return;
	flush_line(board_of(vm));	/* a crash ends in the middle of a line */
	free(board_of(vm));
	vm->serial = NULL;
}

/* --- boot ------------------------------------------------------------------- */

static int set_vcpus(struct vm *vm, struct x86_state *s, struct err *err)
{
	int ret = vm->accel->vcpu_set(&vm->vcpu[0], s, err);

	for (unsigned i = 1; i < vm->nr_vcpus && ret >= 0; i++) {
		boot_reset_state(s, i);
		ret = vm->accel->vcpu_set(&vm->vcpu[i], s, err);
	}
	return ret;
}

/* The backend's words come first, so that the user's can undo them. */
static int make_cmdline(const struct vm *vm, char *out, size_t size, struct err *err)
{
	const char *own = vm->accel->cmdline, *user = vm->spec.cmdline;
	int n = snprintf(out, size, "%s%s%s", own ? own : "", own ? " " : "",
			 user ? user : "");

	if (n < 0 || (size_t)n >= size)
		return err_set(err, E2BIG, "the kernel command line is too long");
	return 0;
}

int board_boot(struct vm *vm, struct err *err)
{
	char cmdline[SPEC_CMDLINE_MAX + 64];
	const struct acpi_config acpi = {
		.nr_cpus = vm->nr_vcpus,
		.nr_slots = vm->nr_devs,
		.vmgenid = vm->spec.vmgenid,
	};
	struct boot boot = {
		.kernel_fd = spec_fds_get(&vm->fds, "kernel"),
		.initrd_fd = vm->spec.has_initrd ? spec_fds_get(&vm->fds, "initrd") : -1,
		.cmdline = cmdline,
	};
	struct x86_state *s;
	int ret;

	if (boot.kernel_fd < 0)
		return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, ENOENT,
				"there is no kernel");
	if (vm->spec.has_initrd && boot.initrd_fd < 0)
		return err_code(err, ERR_BOOT_KERNEL_NOT_FOUND, ENOENT,
				"there is no initrd");
	ret = make_cmdline(vm, cmdline, sizeof(cmdline), err);
	if (ret)
		return ret;
	s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64));
	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	ret = acpi_write(&vm->mem, &acpi, &boot.rsdp, err);
	if (ret >= 0)
		ret = boot_load(&vm->mem, &boot, s, err);
	if (ret >= 0)
		ret = set_vcpus(vm, s, err);
	free(s);
	return ret;
}

/* --- state ------------------------------------------------------------------ */

void board_save(struct vm *vm, struct state_w *w)
{
	struct board *b = board_of(vm);

	flush_line(b);
	serial_save(&b->serial, w);
	state_begin(w, "acpi", 0, ACPI_VERSION, true);
	state_put_u8(w, b->events);
	state_end(w);
}

static int find(struct state_r *r, const char *name, uint16_t version,
		struct err *err)
{
	int ret = state_find(r, name, 0);

	if (ret < 0)
		return err_code(err, ERR_SNAPSHOT_DAMAGED, -ret,
				"the state has no section %s", name);
	if (r->version != version)
		return err_code(err, ERR_SNAPSHOT_VERSION, ENOTSUP,
				"section %s has version %u, not %u", name,
				r->version, version);
	return 0;
}

int board_load(struct vm *vm, struct state_r *r, struct err *err)
{
	struct board *b = board_of(vm);
	int ret = find(r, "serial", SERIAL_VERSION, err);

	if (ret < 0)
		return ret;
	serial_load(&b->serial, r);
	ret = state_close(r, err);
	if (ret >= 0)
		ret = find(r, "acpi", ACPI_VERSION, err);
	if (ret < 0)
		return ret;
	b->events = state_get_u8(r) & (ACPI_EVENT_POWER | ACPI_EVENT_VMGENID);
	return state_close(r, err);
}

void board_new_generation(struct vm *vm, const uint8_t id[16])
{
	acpi_set_vmgenid(&vm->mem, id);
	raise_event(board_of(vm), ACPI_EVENT_VMGENID);
}
