// SPDX-License-Identifier: MIT
/* arch/x86/aml.c - ACPI machine language; see aml.h. */
#include "vmm/arch/x86/aml.h"

#include <string.h>

#include "base/util.h"

enum {
	OP_NAME = 0x08, OP_BYTE = 0x0a, OP_WORD, OP_DWORD, OP_STRING, OP_QWORD,
	OP_SCOPE = 0x10, OP_BUFFER = 0x11, OP_PACKAGE = 0x12, OP_METHOD = 0x14,
	OP_EXT = 0x5b, OP_LOCAL0 = 0x60, OP_STORE = 0x70, OP_AND = 0x7b,
	OP_NOTIFY = 0x86, OP_IF = 0xa0,
	EXT_REGION = 0x80, EXT_FIELD = 0x81, EXT_DEVICE = 0x82,
};

#define LENGTH_BYTES	3
#define SPACE_IO	1

void aml_bytes(struct aml *a, const void *p, size_t n)
{
	if (a->bad || n > a->cap - a->len) {
		a->bad = true;
		return;
	}
	memcpy(a->data + a->len, p, n);
	a->len += n;
}

void aml_byte(struct aml *a, uint8_t b)
{
	aml_bytes(a, &b, 1);
}

static void put_le(struct aml *a, uint64_t v, unsigned n)
{
	aml_bytes(a, &v, n);	/* the host is little endian */
}

/* --- packages --------------------------------------------------------------- */

static size_t open_package(struct aml *a)
{
	size_t mark = a->len;

	aml_bytes(a, "\0\0\0", LENGTH_BYTES);
	return mark;
}

/* PkgLength of three bytes: bits 7:6 of the first say how many follow. */
void aml_close(struct aml *a, size_t mark)
{
	size_t n = a->len - mark;

	if (a->bad || n >= 1 << 20) {
		a->bad = true;
		return;
	}
	a->data[mark] = (uint8_t)(2 << 6 | (n & 0xf));
	a->data[mark + 1] = (uint8_t)(n >> 4);
	a->data[mark + 2] = (uint8_t)(n >> 12);
}

/* NameSegs are padded with underscores; a leading \ is the root. */
void aml_ref(struct aml *a, const char *name)
{
	char seg[4] = { '_', '_', '_', '_' };

	if (*name == '\\')
		aml_byte(a, (uint8_t)*name++);
	memcpy(seg, name, MIN(strlen(name), sizeof(seg)));
	aml_bytes(a, seg, sizeof(seg));
}

size_t aml_scope(struct aml *a, const char *name)
{
	size_t mark;

	aml_byte(a, OP_SCOPE);
	mark = open_package(a);
	aml_ref(a, name);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_DEVICE);
	mark = open_package(a);
	aml_ref(a, name);
	return mark;
}

size_t aml_method(struct aml *a, const char *name, unsigned nr_args)
{
	size_t mark;

	aml_byte(a, OP_METHOD);
	mark = open_package(a);
	aml_ref(a, name);
	aml_byte(a, (uint8_t)(nr_args | 1 << 3));
	return mark;
}

size_t aml_package(struct aml *a, unsigned nr)
{
	size_t mark;

	aml_byte(a, OP_PACKAGE);
	mark = open_package(a);
	aml_byte(a, (uint8_t)nr);
	return mark;
}

/* --- values ----------------------------------------------------------------- */

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_NAME);
	aml_ref(a, name);
}

void aml_int(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		aml_byte(a, (uint8_t)v);	/* ZeroOp, OneOp */
	} else if (v <= UINT8_MAX) {
		aml_byte(a, OP_BYTE);
		put_le(a, v, 1);
	} else if (v <= UINT16_MAX) {
		aml_byte(a, OP_WORD);
		put_le(a, v, 2);
	} else if (v <= UINT32_MAX) {
		aml_byte(a, OP_DWORD);
		put_le(a, v, 4);
	} else {
		aml_byte(a, OP_QWORD);
		put_le(a, v, 8);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* Three letters of five bits and four hex digits, big endian (19.3.4). */
void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;

	for (int i = 0; i < 3; i++)
		v = v << 5 | (uint32_t)(id[i] - 'A' + 1);
	for (int i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	aml_byte(a, OP_DWORD);
	put_le(a, __builtin_bswap32(v), 4);
}

/* --- code ------------------------------------------------------------------- */

void aml_port_field(struct aml *a, const char *region, uint16_t port,
		    const char *field)
{
	size_t mark;

	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_REGION);
	aml_ref(a, region);
	aml_byte(a, SPACE_IO);
	aml_int(a, port);
	aml_int(a, 1);

	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_FIELD);
	mark = open_package(a);
	aml_ref(a, region);
	aml_byte(a, 1);		/* byte access, no lock */
	aml_ref(a, field);
	aml_byte(a, 8);		/* bits */
	aml_close(a, mark);
}

void aml_read_local0(struct aml *a, const char *field)
{
	aml_byte(a, OP_STORE);
	aml_ref(a, field);
	aml_byte(a, OP_LOCAL0);
}

void aml_notify_if(struct aml *a, uint32_t mask, const char *device, uint8_t code)
{
	size_t mark;

	aml_byte(a, OP_IF);
	mark = open_package(a);
	aml_byte(a, OP_AND);
	aml_byte(a, OP_LOCAL0);
	aml_int(a, mask);
	aml_byte(a, 0);		/* result goes nowhere */
	aml_byte(a, OP_NOTIFY);
	aml_ref(a, device);
	aml_int(a, code);
	aml_close(a, mark);
}

/* --- resources -------------------------------------------------------------- */

struct aml_crs aml_crs_open(struct aml *a)
{
	struct aml_crs c;

	aml_name(a, "_CRS");
	aml_byte(a, OP_BUFFER);
	c.buffer = open_package(a);
	aml_byte(a, OP_WORD);
	c.size = a->len;
	put_le(a, 0, 2);
	return c;
}

void aml_crs_close(struct aml *a, struct aml_crs c)
{
	size_t n;

	aml_bytes(a, "\x79\0", 2);	/* end tag; no checksum */
	n = a->len - c.size - 2;
	if (!a->bad) {
		a->data[c.size] = (uint8_t)n;
		a->data[c.size + 1] = (uint8_t)(n >> 8);
	}
	aml_close(a, c.buffer);
}

void aml_crs_memory(struct aml *a, uint32_t base, uint32_t len)
{
	aml_byte(a, 0x86);	/* 32-bit fixed memory range */
	put_le(a, 9, 2);
	aml_byte(a, 1);		/* writable */
	put_le(a, base, 4);
	put_le(a, len, 4);
}

void aml_crs_ports(struct aml *a, uint16_t base, uint8_t len)
{
	aml_byte(a, 0x47);	/* I/O port */
	aml_byte(a, 1);		/* decodes 16 bits */
	put_le(a, base, 2);
	put_le(a, base, 2);
	aml_byte(a, 1);
	aml_byte(a, len);
}

void aml_crs_irq(struct aml *a, uint32_t gsi, bool shared)
{
	aml_byte(a, 0x89);	/* extended interrupt */
	put_le(a, 6, 2);
	aml_byte(a, 0x03 | shared << 3);	/* consumer, edge, high */
	aml_byte(a, 1);
	put_le(a, gsi, 4);
}
