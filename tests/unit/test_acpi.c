// SPDX-License-Identifier: MIT
/*
 * The ACPI tables: checksums, pointers, and the DSDT walked as AML far enough
 * to see that packages nest and that the devices are where the layout says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "vmm/arch/x86/acpi.h"
#include "vmm/arch/x86/aml.h"
#include "vmm/arch/x86/boot.h"
#include "vmm/layout.h"
#include "vmm/mem.h"

static const uint8_t genid[16] = "generation-id-16";

static int setup(void **state)
{
	struct mem *mem = malloc(sizeof(*mem));

	*state = mem;
	return mem_init(mem, 64 * MIB, -1, NULL);
}

static int teardown(void **state)
{
	mem_done(*state);
	free(*state);
	return 0;
}

static uint64_t get(const uint8_t *p, unsigned len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return v;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

static const uint8_t *table(const struct mem *mem, gpa_t at, const char *sig)
{
	const uint8_t *t = mem_ptr(mem, at, 36);
	uint32_t len;

	assert_non_null(t);
	assert_memory_equal(t, sig, 4);
	len = (uint32_t)get(t + 4, 4);
	assert_non_null(mem_ptr(mem, at, len));
	assert_true(at >= BOOT_ACPI && at + len <= LAYOUT_VMGENID);
	assert_int_equal(sum(t, len), 0);
	return t;
}

static const uint8_t *build(struct mem *mem, unsigned cpus, unsigned slots,
			    const uint8_t **fadt, const uint8_t **madt)
{
	struct acpi_config c = { cpus, slots, genid };
	const uint8_t *r, *x;
	gpa_t rsdp = 0;

	assert_int_equal(acpi_write(mem, &c, &rsdp, NULL), 0);
	r = mem_ptr(mem, rsdp, 36);
	assert_memory_equal(r, "RSD PTR ", 8);
	assert_int_equal(sum(r, 20), 0);
	assert_int_equal(sum(r, 36), 0);
	x = table(mem, get(r + 24, 8), "XSDT");
	assert_int_equal(get(x + 4, 4), 36 + 16);
	*fadt = table(mem, get(x + 36, 8), "FACP");
	*madt = table(mem, get(x + 44, 8), "APIC");
	return table(mem, get(*fadt + 140, 8), "DSDT");
}

static void tables_are_sound(void **state)
{
	const uint8_t *fadt, *madt;

	build(*state, 4, 3, &fadt, &madt);
	assert_true(get(fadt + 112, 4) & BIT(20));
	assert_int_equal(get(fadt + 116 + 4, 8), 0x602);
	assert_int_equal(get(fadt + 244 + 4, 8), 0x600);
	assert_int_equal(get(madt + 36, 4), LAYOUT_LAPIC);
	assert_int_equal(get(madt + 4, 4), 44 + 4 * 8 + 12);
	assert_int_equal(madt[44 + 8 * 3 + 3], 3);	/* APIC id of the last */
	assert_int_equal(get(madt + 44 + 8 * 4 + 4, 4), LAYOUT_IOAPIC);
	assert_memory_equal(mem_ptr(*state, LAYOUT_VMGENID, 16), genid, 16);
}

/* --- AML -------------------------------------------------------------------- */

static size_t pkg_length(const uint8_t *p, size_t *bytes)
{
	unsigned more = p[0] >> 6;
	size_t n = more ? p[0] & 15 : p[0] & 63;

	for (unsigned i = 0; i < more; i++)
		n |= (size_t)p[1 + i] << (4 + 8 * i);
	*bytes = 1 + more;
	return n;
}

struct found {
	unsigned virtio, devices;
	uint32_t base[32], gsi[32];
};

static size_t value_len(const uint8_t *p)
{
	size_t bytes;

	switch (*p) {
	case 0: case 1: return 1;
	case 0x0a: return 2;
	case 0x0b: return 3;
	case 0x0c: return 5;
	case 0x0d: return 2 + strlen((const char *)p + 1);
	case 0x0e: return 9;
	case 0x11: case 0x12: return 1 + pkg_length(p + 1, &bytes);
	default: fail_msg("value %#x", *p);
	}
	return 0;
}

/* _CRS of a virtio node: one memory range, one interrupt, the end. */
static void virtio_crs(const uint8_t *buf, struct found *f)
{
	const uint8_t *r = buf + 1 + 3 + 3;	/* op, length, size */

	assert_int_equal(get(buf + 5, 2), 12 + 9 + 2);
	assert_int_equal(r[0], 0x86);
	f->base[f->virtio] = (uint32_t)get(r + 4, 4);
	assert_int_equal(get(r + 8, 4), PAGE_SIZE);
	assert_int_equal(r[12], 0x89);
	assert_int_equal(r[15] & 7, 3);		/* edge, high, consumer */
	f->gsi[f->virtio] = (uint32_t)get(r + 17, 4);
	assert_int_equal(r[21], 0x79);
	f->virtio++;
}

static void walk(const uint8_t *p, const uint8_t *end, bool virtio, struct found *f);

static const uint8_t *walk_ext(const uint8_t *p, const uint8_t *end, struct found *f)
{
	size_t bytes, n;

	if (p[1] == 0x80)	/* region: name, space, offset, length */
		return p + 7 + value_len(p + 7) + 1;
	n = pkg_length(p + 2, &bytes);
	assert_true(p + 2 + n <= end);
	if (p[1] == 0x82) {
		const uint8_t *body = p + 2 + bytes + 4;
		bool virtio = !memcmp(p + 2 + bytes, "VR", 2);

		f->devices++;
		walk(body, p + 2 + n, virtio, f);
	}
	return p + 2 + n;
}

static void walk(const uint8_t *p, const uint8_t *end, bool virtio, struct found *f)
{
	while (p < end) {
		size_t bytes, n;

		switch (*p) {
		case 0x08:	/* name */
			p += p[1] == '\\' ? 6 : 5;
			if (virtio && !memcmp(p - 4, "_CRS", 4))
				virtio_crs(p, f);
			p += value_len(p);
			break;
		case 0x10:	/* scope */
			n = pkg_length(p + 1, &bytes);
			assert_true(p + 1 + n <= end);
			walk(p + 1 + bytes + 5, p + 1 + n, false, f);
			p += 1 + n;
			break;
		case 0x14:
			n = pkg_length(p + 1, &bytes);
			assert_true(p + 1 + n <= end);
			p += 1 + n;
			break;
		case 0x5b: p = walk_ext(p, end, f); break;
		default: fail_msg("term %#x", *p);
		}
	}
	assert_ptr_equal(p, end);
}

static void dsdt_has_the_devices(void **state)
{
	static const unsigned counts[] = { 0, 1, 5, 32 };

	for (unsigned i = 0; i < ARRAY_LEN(counts); i++) {
		const uint8_t *fadt, *madt, *d;
		struct found f = { .virtio = 0 };

		d = build(*state, 1, counts[i], &fadt, &madt);
		walk(d + 36, d + get(d + 4, 4), false, &f);
		assert_int_equal(f.virtio, counts[i]);
		assert_int_equal(f.devices, counts[i] + 4);
		for (unsigned slot = 0; slot < counts[i]; slot++) {
			assert_int_equal(f.base[slot], LAYOUT_VIRTIO_ADDR(slot));
			assert_int_equal(f.gsi[slot], LAYOUT_VIRTIO_GSI(slot));
		}
	}
}

static void emitter_encodings(void **state)
{
	uint8_t data[64];
	struct aml a = { .data = data, .cap = sizeof(data) };
	size_t mark;

	aml_eisaid(&a, "PNP0501");
	assert_memory_equal(data, "\x0c\x41\xd0\x05\x01", 5);
	a.len = 0;
	aml_int(&a, 0);
	aml_int(&a, 0x1234);
	aml_int(&a, 0x123456789aull);
	assert_memory_equal(data, "\x00\x0b\x34\x12\x0e\x9a\x78\x56\x34\x12\0\0\0", 13);
	a.len = 0;
	mark = aml_scope(&a, "\\_SB");
	aml_close(&a, mark);
	assert_memory_equal(data, "\x10\x88\0\0\\_SB_", 9);
	for (unsigned i = 0; i < 20; i++)
		aml_string(&a, "does not fit");
	assert_true(a.bad);
	assert_true(a.len <= sizeof(data));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_sound),
		cmocka_unit_test(dsdt_has_the_devices),
		cmocka_unit_test(emitter_encodings),
	};

	return cmocka_run_group_tests_name("acpi", tests, setup, teardown);
}
