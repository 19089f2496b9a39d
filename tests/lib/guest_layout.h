/* SPDX-License-Identifier: MIT */
/*
 * guest_layout.h - where things are in a bare-metal test guest; for C and assembly.
 *
 * Virtual is physical.  0 to 2 MiB: supervisor, 4 KiB pages, executable; 2 to
 * 4 MiB: user, 4 KiB pages, where the program is a second time; 4 to 6 MiB: a
 * large supervisor page; 6 to 8 MiB: a large user page.  The rest is not mapped.
 */
#ifndef TEST_GUEST_LAYOUT_H
#define TEST_GUEST_LAYOUT_H

#define G_GDT		0x1000
#define G_IDT		0x2000
#define G_TSS		0x3000
#define G_VARS		0x4000
#define G_RECOVER	(G_VARS + 0)	/* where to go on after a fault; once */
#define G_LOGPTR	(G_VARS + 8)
#define G_DMA		(G_VARS + 16)	/* source, destination, length for G_PORT_DMA */
#define G_HANDLERS	(G_VARS + 0x100)	/* by vector; 0: recover, or end */
#define G_RUNTIME	0x5000
#define G_PML4		0x8000
#define G_PDPT		0x9000
#define G_PD		0xa000
#define G_PT0		0xb000
#define G_PT1		0xc000
#define G_CODE		0x20000
#define G_STACK		0x50000		/* top */
#define G_IST		0x58000		/* top */
#define G_LOG		0x60000
#define G_RESULT	0x70000
#define G_AP		0x90000		/* where another CPU starts */
#define G_KPAGE		0x100000	/* free supervisor pages from here */
#define G_USER		0x200000	/* + address: the same in user pages */
#define G_USTACK	0x350000	/* top */
#define G_UPAGE		0x300000	/* free user pages */
#define G_LARGE		0x400000

#define G_PTE(va)	(G_PT0 + (((va) >> 12) << 3))	/* both tables */

#define G_CS		0x08
#define G_SS		0x10
#define G_UCS		0x2b
#define G_USS		0x23
#define G_TR		0x30
#define G_SEL_ABSENT	0x40		/* a data segment that is not present */

#define G_PORT_END	0xf4
#define G_PORT_DMA	0xf5		/* a device copies memory */
#define G_PORT_ASK	0xf6		/* what the test says; nothing */

/* A record of the log. */
#define G_REC_VECTOR	0
#define G_REC_ERROR	8
#define G_REC_RIP	16
#define G_REC_CS	24
#define G_REC_RFLAGS	32
#define G_REC_RSP	40
#define G_REC_CR2	48
#define G_REC_DR6	56
#define G_REC_SIZE	64

#endif
