/* SPDX-License-Identifier: MIT */
/*
 * arch/x86/aml.h - emits ACPI machine language (ACPI 6.4, chapter 20) into a
 * fixed buffer.  Sticky `bad` when it does not fit.
 *
 * Packages (scopes, devices, methods, …) nest: aml_open() returns a mark that
 * aml_close() turns into the length.  Lengths always take three bytes, which
 * the encoding allows and which needs no second pass.
 */
#ifndef ARCH_X86_AML_H
#define ARCH_X86_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *data;		/* borrowed */
	size_t len, cap;
	bool bad;
};

void aml_bytes(struct aml *a, const void *p, size_t n);
void aml_byte(struct aml *a, uint8_t b);

size_t aml_scope(struct aml *a, const char *name);
size_t aml_device(struct aml *a, const char *name);
/* Serialized, with nr_args arguments. */
size_t aml_method(struct aml *a, const char *name, unsigned nr_args);
size_t aml_package(struct aml *a, unsigned nr);
void aml_close(struct aml *a, size_t mark);

/* Name(name, …): what follows is the value. */
void aml_name(struct aml *a, const char *name);
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
/* "PNP0501" compressed into an integer. */
void aml_eisaid(struct aml *a, const char *id);
/* A NameSeg of four characters, as term or target. */
void aml_ref(struct aml *a, const char *name);

/* Port range as an operation region `region` with one 8-bit field at 0. */
void aml_port_field(struct aml *a, const char *region, uint16_t port,
		    const char *field);
/* Local0 = field */
void aml_read_local0(struct aml *a, const char *field);
/* if (Local0 & mask) Notify(device, code) */
void aml_notify_if(struct aml *a, uint32_t mask, const char *device, uint8_t code);

/* ResourceTemplate: descriptors between open and close. */
struct aml_crs {
	size_t buffer, size;
};
struct aml_crs aml_crs_open(struct aml *a);
void aml_crs_close(struct aml *a, struct aml_crs c);
void aml_crs_memory(struct aml *a, uint32_t base, uint32_t len);
void aml_crs_ports(struct aml *a, uint16_t base, uint8_t len);
/* Edge triggered, active high. */
void aml_crs_irq(struct aml *a, uint32_t gsi, bool shared);

#endif
