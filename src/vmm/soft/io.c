// SPDX-License-Identifier: MIT
/*
 * io.c - what leaves the CPU: port I/O instructions and accesses to addresses
 * that are not RAM.
 *
 * The LAPIC page and the IOAPIC are answered here, doorbells signal their
 * eventfd; all else goes to the VM, with the guest's FP state put away.
 */
#include <sys/syscall.h>

#include <Zydis/Zydis.h>

#include "vmm/soft/ops.h"
#include "vmm/vcpu.h"

/* --- MMIO ----------------------------------------------------------------------------- */

static bool is_lapic(const struct soft_cpu *cpu, uint64_t gpa)
{
	return (gpa & PAGE_MASK) == LAPIC_PAGE;
}

static bool is_ioapic(uint64_t gpa)
{
	return (gpa & PAGE_MASK) == IOAPIC_PAGE;
}

uint64_t mmio_load(struct soft_cpu *cpu, uint64_t gpa, unsigned len)
{
	uint64_t v = ~0ull;

	cpu->stat.mmio++;
	if (is_lapic(cpu, gpa))
		return lapic_mmio_read(&cpu->lapic, gpa & ~PAGE_MASK, len);
	if (is_ioapic(gpa))
		return ioapic_mmio_read(&cpu->svm->ioapic, gpa & ~PAGE_MASK, len);
	if (!cpu->vcpu)
		return v;
	fp_save(cpu);
	vcpu_mmio(cpu->vcpu, gpa, &v, len, false);
	fp_load(cpu);
	return v;
}

/* write(2) of an eventfd, as a system call alone: errno is not ours here. */
static void ring(int efd)
{
	static const uint64_t one = 1;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret)
			 : "a"(SYS_write), "D"((long)efd), "S"(&one), "d"(8L)
			 : "rcx", "r11", "memory");
}

static bool doorbell(struct soft_vm *svm, uint64_t gpa, uint64_t val)
{
	unsigned n = atomic_load_explicit(&svm->nr_doorbells, memory_order_acquire);

	for (unsigned k = 0; k < n; k++) {
		if (svm->doorbell[k].gpa == gpa && svm->doorbell[k].value == val &&
		    svm->doorbell[k].efd >= 0) {
			ring(svm->doorbell[k].efd);
			return true;
		}
	}
	return false;
}

void mmio_store(struct soft_cpu *cpu, uint64_t gpa, uint64_t val, unsigned len)
{
	cpu->stat.mmio++;
	if (is_lapic(cpu, gpa)) {
		lapic_mmio_write(&cpu->lapic, gpa & ~PAGE_MASK, len, val);
		return;
	}
	if (is_ioapic(gpa)) {
		ioapic_mmio_write(&cpu->svm->ioapic, gpa & ~PAGE_MASK, len, val);
		return;
	}
	if (len == 4 && doorbell(cpu->svm, gpa, val))
		return;
	if (!cpu->vcpu)
		return;
	fp_save(cpu);
	vcpu_mmio(cpu->vcpu, gpa, &val, len, true);
	fp_load(cpu);
}

/* --- ports ------------------------------------------------------------------------------ */

/* The I/O permission bitmap of the TSS (SDM vol. 1, 19.5.2). */
static void check_port(struct soft_cpu *cpu, uint16_t port, unsigned len)
{
	const struct x86_segment *tr = &cpu->seg[X86_TR];
	unsigned map, bits;

	if (cpu->cpl <= (cpu->rflags >> 12 & 3))
		return;
	if (tr->limit < 0x67)
		cpu_gp(cpu);
	map = sys_load(cpu, tr->base + 0x66, 2) + port / 8;
	if (map + 1 > tr->limit)
		cpu_gp(cpu);
	bits = sys_load(cpu, tr->base + map, 2) >> (port & 7);
	if (bits & ((1u << len) - 1))
		cpu_gp(cpu);
}

static uint64_t port_in(struct soft_cpu *cpu, uint16_t port, unsigned len)
{
	uint64_t v = ~0ull;

	cpu->stat.pio++;
	if (!cpu->vcpu)
		return v;
	fp_save(cpu);
	vcpu_pio(cpu->vcpu, port, &v, len, false);
	fp_load(cpu);
	return v;
}

static void port_out(struct soft_cpu *cpu, uint16_t port, uint64_t v, unsigned len)
{
	cpu->stat.pio++;
	if (!cpu->vcpu)
		return;
	fp_save(cpu);
	vcpu_pio(cpu->vcpu, port, &v, len, true);
	fp_load(cpu);
}

/* The port is DX, or an immediate: opcodes E4 to E7. */
static uint16_t port_of(struct soft_cpu *cpu, const struct insn *i)
{
	bool dx = i->raw[i->len - 1] >= 0xec && i->raw[i->len - 1] <= 0xef &&
		  !(i->len > 1 && (i->raw[i->len - 2] & 0xfc) == 0xe4);

	return dx ? reg2(cpu, X86_RDX * 8) : i->raw[i->len - 1];
}

/* 1, 2 or 4 bytes: the opcode's low bit, and the operand size. */
static unsigned port_size(const struct insn *i, uint8_t opcode)
{
	if (!(opcode & 1))
		return 1;
	for (unsigned k = 0; k + 1 < i->len; k++)
		if (i->raw[k] == 0x66)
			return 2;
	return 4;
}

static uint8_t port_opcode(const struct insn *i)
{
	if (i->len > 1 && (i->raw[i->len - 2] & 0xfc) == 0xe4)
		return i->raw[i->len - 2];
	return i->raw[i->len - 1];
}

HANDLER(in)
{
	unsigned n = port_size(i, port_opcode(i));
	uint16_t port = port_of(cpu, i);

	check_port(cpu, port, n);
	set_n(cpu, X86_RAX * 8, port_in(cpu, port, n), n);
	return insn_done(cpu, i);
}

HANDLER(out)
{
	unsigned n = port_size(i, port_opcode(i));
	uint16_t port = port_of(cpu, i);

	check_port(cpu, port, n);
	port_out(cpu, port, reg_n(cpu, X86_RAX * 8, n), n);
	return insn_done(cpu, i);
}

static uint64_t string_count(struct soft_cpu *cpu, const struct insn *i)
{
	if (!(i->flags & INSN_REP))
		return 1;
	return i->flags & INSN_ADDR32 ? reg4(cpu, X86_RCX * 8) : cpu->gpr[X86_RCX];
}

static void string_step(struct soft_cpu *cpu, const struct insn *i, unsigned reg, unsigned n)
{
	uint64_t mask = i->flags & INSN_ADDR32 ? 0xffffffff : ~0ull;
	int64_t by = cpu->rflags & FL_DF ? -(int64_t)n : n;

	cpu->gpr[reg] = (cpu->gpr[reg] + by) & mask;
	if (i->flags & INSN_REP)
		cpu->gpr[X86_RCX] = (cpu->gpr[X86_RCX] - 1) & mask;
}

static uint64_t string_address(struct soft_cpu *cpu, const struct insn *i, unsigned reg)
{
	return i->flags & INSN_ADDR32 ? (uint32_t)cpu->gpr[reg] : cpu->gpr[reg];
}

/* One element at a time; an interrupt may come in between. */
HANDLER(ins)
{
	unsigned n = port_size(i, i->raw[i->len - 1]);
	uint16_t port = reg2(cpu, X86_RDX * 8);

	check_port(cpu, port, n);
	for (uint64_t count = string_count(cpu, i); count; count--) {
		uint64_t at = string_address(cpu, i, X86_RDI);

		guest_check_write(cpu, at, n);
		store_n(cpu, at, port_in(cpu, port, n), n);
		string_step(cpu, i, X86_RDI, n);
		if (count > 1 && attention(cpu))
			return NULL;
	}
	return insn_done(cpu, i);
}

HANDLER(outs)
{
	unsigned n = port_size(i, i->raw[i->len - 1]);
	uint16_t port = reg2(cpu, X86_RDX * 8);

	check_port(cpu, port, n);
	for (uint64_t count = string_count(cpu, i); count; count--) {
		uint64_t at = string_address(cpu, i, X86_RSI) +
			      *(uint64_t *)(void *)reg_ptr(cpu, i->seg);

		port_out(cpu, port, load_n(cpu, at, n), n);
		string_step(cpu, i, X86_RSI, n);
		if (count > 1 && attention(cpu))
			return NULL;
	}
	return insn_done(cpu, i);
}

const struct op ops_io[] = {
	{ .mnemonic = ZYDIS_MNEMONIC_IN, .any = in },
	{ .mnemonic = ZYDIS_MNEMONIC_OUT, .any = out },
	{ .mnemonic = ZYDIS_MNEMONIC_INSB, .any = ins },
	{ .mnemonic = ZYDIS_MNEMONIC_INSW, .any = ins },
	{ .mnemonic = ZYDIS_MNEMONIC_INSD, .any = ins },
	{ .mnemonic = ZYDIS_MNEMONIC_OUTSB, .any = outs },
	{ .mnemonic = ZYDIS_MNEMONIC_OUTSW, .any = outs },
	{ .mnemonic = ZYDIS_MNEMONIC_OUTSD, .any = outs },
	{ .mnemonic = 0 },
};
