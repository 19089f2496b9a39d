// SPDX-License-Identifier: MIT
/* The board around a CPU that does nothing: ports, power, boot, state. */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/board.h"
#include "vmm/arch/x86/boot.h"
#include "vmm/arch/x86/state.h"
#include "vmm/console.h"
#include "vmm/layout.h"
#include "vmm/state.h"
#include "vmm/vm.h"

struct rig {
	struct vm vm;
	unsigned pulses[24];
	struct x86_state cpu[2];
	int log;
};

static void on_irq(struct vm *vm, unsigned gsi, bool level)
{
	struct rig *r = container_of(vm, struct rig, vm);

	assert_in_range(gsi, 0, 23);
	r->pulses[gsi] += level;
}

static int on_set(struct vcpu *c, const struct x86_state *s, struct err *err)
{
	container_of(c->vm, struct rig, vm)->cpu[c->id] = *s;
	return 0;
}

static const struct accel accel = { .irq_set = on_irq, .vcpu_set = on_set };

static int setup(void **state)
{
	struct rig *r = aligned_alloc(64, ALIGN_UP(sizeof(*r), 64ul));

	memset(r, 0, sizeof(*r));
	r->vm.accel = &accel;
	r->vm.loop = loop_new(NULL);
	r->log = memfd_create("log", 0);
	pthread_mutex_init(&r->vm.lock, NULL);
	r->vm.console = console_new(r->vm.loop, &r->vm.lock, r->log, -1, NULL);
	r->vm.nr_vcpus = 2;
	for (unsigned i = 0; i < 2; i++)
		r->vm.vcpu[i] = (struct vcpu){ .vm = &r->vm, .id = i };
	assert_int_equal(mem_init(&r->vm.mem, 64 * MIB, -1, NULL), 0);
	assert_int_equal(board_init(&r->vm, NULL), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	board_done(&r->vm);
	console_free(r->vm.console);
	loop_free(r->vm.loop);
	mem_done(&r->vm.mem);
	close(r->log);
	free(r);
	return 0;
}

static uint8_t in(struct rig *r, unsigned port)
{
	const struct bus_region *b = bus_find(&r->vm.pio, port, 1);

	assert_non_null(b);
	return (uint8_t)b->read(b->dev, port - b->base, 1);
}

static void out(struct rig *r, unsigned port, uint8_t v)
{
	const struct bus_region *b = bus_find(&r->vm.pio, port, 1);

	assert_non_null(b);
	b->write(b->dev, port - b->base, 1, v);
}

static void sleep_register(void **state)
{
	struct rig *r = *state;

	out(r, 0x600, 5 << 2);			/* not enabled */
	out(r, 0x600, 3 << 2 | 0x20);		/* not S5 */
	assert_int_equal(r->vm.end, VM_END_NONE);
	out(r, 0x600, 5 << 2 | 0x20);
	assert_int_equal(r->vm.end, VM_END_POWEROFF);
}

static void reset_register(void **state)
{
	struct rig *r = *state;

	out(r, 0x602, 0xfe);
	assert_int_equal(r->vm.end, VM_END_NONE);
	out(r, 0x602, 1);
	assert_int_equal(r->vm.end, VM_END_REBOOT);
}

static void events(void **state)
{
	struct rig *r = *state;
	static const uint8_t id[16] = "another";

	assert_int_equal(board_power_button(&r->vm), 0);
	board_new_generation(&r->vm, id);
	assert_int_equal(r->pulses[LAYOUT_ACPI_GSI], 2);
	assert_int_equal(in(r, 0x603), 3);
	assert_int_equal(in(r, 0x603), 0);
	assert_memory_equal(mem_ptr(&r->vm.mem, LAYOUT_VMGENID, 16), id, 16);
}

/* Lines go at once; a rest without a newline when the board ends, at the latest. */
static void uart_reaches_the_console(void **state)
{
	struct rig *r = *state;
	char text[32] = "";

	for (const char *p = "one\ntw"; *p; p++)
		out(r, 0x3f8, (uint8_t)*p);
	assert_int_equal(pread(r->log, text, sizeof(text), 0), 4);
	board_done(&r->vm);
	assert_int_equal(pread(r->log, text, sizeof(text), 0), 6);
	assert_memory_equal(text, "one\ntw", 6);
}

static void add_kernel(struct rig *r)
{
	static uint8_t elf[8192];
	Elf64_Ehdr *eh = (void *)elf;
	Elf64_Phdr *ph = (void *)(elf + sizeof(*eh));
	int fd = memfd_create("kernel", 0);

	memcpy(eh->e_ident, ELFMAG, SELFMAG);
	eh->e_ident[EI_CLASS] = ELFCLASS64;
	eh->e_ident[EI_DATA] = ELFDATA2LSB;
	eh->e_machine = EM_X86_64;
	eh->e_phoff = sizeof(*eh);
	eh->e_phentsize = sizeof(*ph);
	eh->e_phnum = 1;
	eh->e_entry = 0x200000;
	*ph = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = 4096, .p_paddr = 0x200000,
			    .p_filesz = 4096, .p_memsz = 4096 };
	assert_int_equal(io_write_full(fd, elf, sizeof(elf)), 0);
	assert_int_equal(spec_fds_add(&r->vm.fds, fd, "kernel"), 0);
}

static void boots(void **state)
{
	struct rig *r = *state;
	struct err err = ERR_INIT;
	uint64_t rsdp;

	assert_true(board_boot(&r->vm, &err) < 0);
	assert_int_equal(err.code, ERR_BOOT_KERNEL_NOT_FOUND);
	add_kernel(r);
	r->vm.nr_devs = 3;
	assert_int_equal(board_boot(&r->vm, &err), 0);
	assert_int_equal(r->cpu[0].rip, 0x200000);
	assert_int_equal(r->cpu[0].run_state, X86_RUNNING);
	assert_int_equal(r->cpu[1].run_state, X86_WAIT_SIPI);
	assert_true(mem_read(&r->vm.mem, BOOT_ZERO_PAGE + 0x70, &rsdp, 8));
	assert_memory_equal(mem_ptr(&r->vm.mem, rsdp, 8), "RSD PTR ", 8);
	r->vm.spec.has_initrd = true;
	assert_true(board_boot(&r->vm, &err) < 0);
	close(spec_fds_get(&r->vm.fds, "kernel"));
	spec_fds_done(&r->vm.fds);
}

static void state_round_trip(void **state)
{
	struct rig *r = *state;
	struct buf file = BUF_INIT;
	struct state_w w;
	struct state_r rd;
	struct err err = ERR_INIT;

	out(r, 0x3ff, 0x42);
	board_power_button(&r->vm);
	state_w_init(&w, &file);
	board_save(&r->vm, &w);
	assert_int_equal(state_w_finish(&w, &err), 0);
	out(r, 0x3ff, 0);
	assert_int_equal(in(r, 0x603), 1);
	assert_int_equal(state_r_init(&rd, file.data, file.len, &err), 0);
	assert_int_equal(board_load(&r->vm, &rd, &err), 0);
	assert_int_equal(in(r, 0x3ff), 0x42);
	assert_int_equal(in(r, 0x603), 1);
	buf_done(&file);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(sleep_register), T(reset_register), T(events),
		T(uart_reaches_the_console), T(boots), T(state_round_trip),
	};
#undef T

	return cmocka_run_group_tests_name("board", tests, NULL, NULL);
}
