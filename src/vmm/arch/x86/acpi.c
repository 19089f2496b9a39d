// SPDX-License-Identifier: MIT
/*
 * arch/x86/acpi.c - RSDP, XSDT, FADT, MADT, DSDT (ACPI 6.3).
 *
 * Hardware-reduced: no fixed hardware but the sleep and reset registers, no SCI.
 * Events (power button, new generation ID) come through a Generic Event Device
 * with an ordinary interrupt, whose method reads and so clears one event register.
 *
 * The DSDT has one LNRO0005 node for each virtio-mmio slot in use, the UART (else
 * Linux drives it without an interrupt and user space that writes to it waits for
 * ever), the power button, the event device and the generation ID.
 */
#include "vmm/arch/x86/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "base/wire.h"
#include "vmm/arch/x86/aml.h"
#include "vmm/arch/x86/boot.h"
#include "vmm/layout.h"

#define HEADER_SIZE	36u
#define OEM_ID		"MACHNN"
#define OEM_TABLE	"MACHINEN"
#define CREATOR		"MNEN"
#define FADT_SIZE	276u

/* FADT fields by offset (5.2.9). */
#define FADT_BOOT_ARCH	109
#define FADT_FLAGS	112
#define FADT_RESET	116
#define FADT_RESET_VALUE 128
#define FADT_MINOR	131
#define FADT_X_DSDT	140
#define FADT_SLEEP	244
#define FADT_SLEEP_STATUS 256
#define BOOT_ARCH_NO_VGA	BIT(2)
#define BOOT_ARCH_NO_MSI	BIT(3)
#define BOOT_ARCH_NO_ASPM	BIT(4)
#define BOOT_ARCH_NO_RTC	BIT(5)
#define FLAG_WBINVD		BIT(0)
#define FLAG_C1			BIT(2)
#define FLAG_POWER_BUTTON	BIT(4)	/* not a fixed one */
#define FLAG_SLEEP_BUTTON	BIT(5)
#define FLAG_RESET_REG		BIT(10)
#define FLAG_HW_REDUCED		BIT(20)

/* Where the next table goes. */
struct area {
	uint8_t *base;		/* borrowed: guest RAM at BOOT_ACPI */
	size_t used;
};
#define AREA_SIZE	((size_t)(LAYOUT_VMGENID - BOOT_ACPI))

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return (uint8_t)-sum;
}

/* Adds the header to a table whose body is at out + HEADER_SIZE. */
static gpa_t finish(struct area *a, const char *sig, uint8_t revision, size_t len)
{
	uint8_t *t = a->base + a->used;
	gpa_t at = BOOT_ACPI + a->used;
	struct wire_w w;

	wire_w_init(&w, t, HEADER_SIZE);
	wire_put_bytes(&w, sig, 4);
	wire_put_u32(&w, (uint32_t)len);
	wire_put_u8(&w, revision);
	wire_put_u8(&w, 0);
	wire_put_bytes(&w, OEM_ID, 6);
	wire_put_bytes(&w, OEM_TABLE, 8);
	wire_put_u32(&w, 1);
	wire_put_bytes(&w, CREATOR, 4);
	wire_put_u32(&w, 1);
	t[9] = checksum(t, len);
	a->used = ALIGN_UP(a->used + len, 16);
	return at;
}

/* --- DSDT ------------------------------------------------------------------- */

static void virtio_node(struct aml *a, unsigned slot, bool shared)
{
	struct aml_crs crs;
	char name[8];
	size_t dev;

	snprintf(name, sizeof(name), "VR%02u", slot % 100);
	dev = aml_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, "LNRO0005");
	aml_name(a, "_UID");
	aml_int(a, slot);
	crs = aml_crs_open(a);
	aml_crs_memory(a, (uint32_t)LAYOUT_VIRTIO_ADDR(slot), PAGE_SIZE);
	aml_crs_irq(a, LAYOUT_VIRTIO_GSI(slot), shared);
	aml_crs_close(a, crs);
	aml_close(a, dev);
}

static void serial_node(struct aml *a)
{
	size_t dev = aml_device(a, "COM1");
	struct aml_crs crs;

	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0501");
	aml_name(a, "_UID");
	aml_int(a, 0);
	crs = aml_crs_open(a);
	aml_crs_ports(a, LAYOUT_SERIAL_PORT, 8);
	aml_crs_irq(a, LAYOUT_SERIAL_GSI, false);
	aml_crs_close(a, crs);
	aml_close(a, dev);
}

static void event_nodes(struct aml *a)
{
	struct aml_crs crs;
	size_t dev, part;

	dev = aml_device(a, "PWRB");
	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0C0C");
	aml_close(a, dev);

	dev = aml_device(a, "VGEN");
	aml_name(a, "_HID");
	aml_string(a, "MCHN0001");
	aml_name(a, "_CID");
	aml_string(a, "VM_Gen_Counter");
	aml_name(a, "_DDN");
	aml_string(a, "VM_Gen_Counter");
	aml_name(a, "ADDR");
	part = aml_package(a, 2);
	aml_int(a, LAYOUT_VMGENID);
	aml_int(a, 0);
	aml_close(a, part);
	aml_close(a, dev);

	aml_port_field(a, "EVTR", LAYOUT_ACPI_PORT + LAYOUT_ACPI_EVENTS, "EVTS");
	dev = aml_device(a, "GED");
	aml_name(a, "_HID");
	aml_string(a, "ACPI0013");
	aml_name(a, "_UID");
	aml_int(a, 0);
	crs = aml_crs_open(a);
	aml_crs_irq(a, LAYOUT_ACPI_GSI, false);
	aml_crs_close(a, crs);
	part = aml_method(a, "_EVT", 1);
	aml_read_local0(a, "EVTS");
	aml_notify_if(a, ACPI_EVENT_POWER, "PWRB", 0x80);
	aml_notify_if(a, ACPI_EVENT_VMGENID, "VGEN", 0x80);
	aml_close(a, part);
	aml_close(a, dev);
}

static int dsdt(struct area *area, const struct acpi_config *c, gpa_t *at)
{
	struct aml a = {
		.data = area->base + area->used,
		.len = HEADER_SIZE,
		.cap = AREA_SIZE - area->used,
	};
	bool shared = c->nr_slots > 24 - LAYOUT_VIRTIO_GSI0;
	size_t mark;

	aml_name(&a, "\\_S5");
	mark = aml_package(&a, 4);
	aml_int(&a, ACPI_SLEEP_S5);
	for (int i = 0; i < 3; i++)
		aml_int(&a, 0);
	aml_close(&a, mark);

	mark = aml_scope(&a, "\\_SB");
	serial_node(&a);
	event_nodes(&a);
	for (unsigned slot = 0; slot < c->nr_slots; slot++)
		virtio_node(&a, slot, shared);
	aml_close(&a, mark);
	if (a.bad)
		return -ENOSPC;
	*at = finish(area, "DSDT", 2, a.len);
	return 0;
}

/* --- the other tables ------------------------------------------------------- */

/* A register in port space: Generic Address Structure (5.2.3.2). */
static void put_gas(uint8_t *p, uint16_t port)
{
	const uint8_t gas[12] = {
		1, 8, 0, 1, (uint8_t)port, (uint8_t)(port >> 8),
	};

	memcpy(p, gas, sizeof(gas));
}

static gpa_t fadt(struct area *a, gpa_t dsdt_at)
{
	uint8_t *t = a->base + a->used;
	uint16_t arch = BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_MSI | BOOT_ARCH_NO_ASPM |
			BOOT_ARCH_NO_RTC;
	uint32_t flags = FLAG_WBINVD | FLAG_C1 | FLAG_POWER_BUTTON |
			 FLAG_SLEEP_BUTTON | FLAG_RESET_REG | FLAG_HW_REDUCED;

	memset(t, 0, FADT_SIZE);
	memcpy(t + FADT_BOOT_ARCH, &arch, sizeof(arch));
	memcpy(t + FADT_FLAGS, &flags, sizeof(flags));
	put_gas(t + FADT_RESET, LAYOUT_ACPI_PORT + LAYOUT_ACPI_RESET);
	t[FADT_RESET_VALUE] = ACPI_RESET_VALUE;
	t[FADT_MINOR] = 3;
	memcpy(t + FADT_X_DSDT, &dsdt_at, sizeof(dsdt_at));
	put_gas(t + FADT_SLEEP, LAYOUT_ACPI_PORT + LAYOUT_ACPI_SLEEP);
	put_gas(t + FADT_SLEEP_STATUS, LAYOUT_ACPI_PORT + LAYOUT_ACPI_SLEEP_STATUS);
	return finish(a, "FACP", 6, FADT_SIZE);
}

static gpa_t madt(struct area *a, unsigned nr_cpus)
{
	struct wire_w w;

	wire_w_init(&w, a->base + a->used + HEADER_SIZE,
		    AREA_SIZE - a->used - HEADER_SIZE);
	wire_put_u32(&w, (uint32_t)LAYOUT_LAPIC);
	wire_put_u32(&w, 0);		/* no PIC */
	for (unsigned i = 0; i < nr_cpus; i++) {
		wire_put_u8(&w, 0);	/* local APIC */
		wire_put_u8(&w, 8);
		wire_put_u8(&w, (uint8_t)i);
		wire_put_u8(&w, (uint8_t)i);
		wire_put_u32(&w, 1);	/* enabled */
	}
	wire_put_u8(&w, 1);		/* IOAPIC */
	wire_put_u8(&w, 12);
	wire_put_u8(&w, 0);		/* its id */
	wire_put_u8(&w, 0);
	wire_put_u32(&w, (uint32_t)LAYOUT_IOAPIC);
	wire_put_u32(&w, 0);		/* first GSI */
	return finish(a, "APIC", 5, HEADER_SIZE + wire_len(&w));
}

static gpa_t xsdt(struct area *a, const gpa_t *table, unsigned nr)
{
	memcpy(a->base + a->used + HEADER_SIZE, table, nr * sizeof(*table));
	return finish(a, "XSDT", 1, HEADER_SIZE + nr * sizeof(*table));
}

static gpa_t rsdp_write(struct area *a, gpa_t xsdt_at)
{
	uint8_t *t = a->base + a->used;
	struct wire_w w;

	wire_w_init(&w, t, HEADER_SIZE);
	wire_put_bytes(&w, "RSD PTR ", 8);
	wire_put_u8(&w, 0);
	wire_put_bytes(&w, OEM_ID, 6);
	wire_put_u8(&w, 2);
	wire_put_u32(&w, 0);
	wire_put_u32(&w, HEADER_SIZE);
	wire_put_u64(&w, xsdt_at);
	wire_put_u32(&w, 0);
	t[8] = checksum(t, 20);
	t[32] = checksum(t, HEADER_SIZE);
	return BOOT_ACPI + a->used;
}

int acpi_write(struct mem *mem, const struct acpi_config *c, gpa_t *rsdp,
	       struct err *err)
{
	struct area a = { .base = mem_ptr(mem, BOOT_ACPI, BOOT_ACPI_END - BOOT_ACPI) };
	gpa_t dsdt_at, xsdt_at, table[2];
	int ret;

	if (!a.base)
		return err_set(err, ENOMEM, "no memory for ACPI tables");
	ret = dsdt(&a, c, &dsdt_at);
	if (ret < 0 || AREA_SIZE - a.used < PAGE_SIZE)
		return err_set(err, ENOSPC, "the ACPI tables are too large");
	table[0] = fadt(&a, dsdt_at);
	table[1] = madt(&a, c->nr_cpus);
	xsdt_at = xsdt(&a, table, ARRAY_LEN(table));
	*rsdp = rsdp_write(&a, xsdt_at);
	acpi_set_vmgenid(mem, c->vmgenid);
	return 0;
}

void acpi_set_vmgenid(struct mem *mem, const uint8_t id[16])
{
	mem_write(mem, LAYOUT_VMGENID, id, 16);
}
