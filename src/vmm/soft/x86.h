/* SPDX-License-Identifier: MIT */
/* x86.h - architectural constants (Intel SDM vol. 3, AMD APM vol. 2). */
#ifndef SOFT_X86_H
#define SOFT_X86_H

#define FL_CF	0x1u
#define FL_ONE	0x2u
#define FL_PF	0x4u
#define FL_AF	0x10u
#define FL_ZF	0x40u
#define FL_SF	0x80u
#define FL_TF	0x100u
#define FL_IF	0x200u
#define FL_DF	0x400u
#define FL_OF	0x800u
#define FL_IOPL	0x3000u
#define FL_NT	0x4000u
#define FL_RF	0x10000u
#define FL_VM	0x20000u
#define FL_AC	0x40000u
#define FL_VIF	0x80000u
#define FL_VIP	0x100000u
#define FL_ID	0x200000u
#define FL_CC	(FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)
#define FL_KNOWN 0x3f7fd7u

#define CR0_PE	0x1u
#define CR0_MP	0x2u
#define CR0_EM	0x4u
#define CR0_TS	0x8u
#define CR0_ET	0x10u
#define CR0_NE	0x20u
#define CR0_WP	0x10000u
#define CR0_AM	0x40000u
#define CR0_NW	0x20000000u
#define CR0_CD	0x40000000u
#define CR0_PG	0x80000000u

#define CR3_NOFLUSH	(1ull << 63)

#define CR4_VME		0x1u
#define CR4_PVI		0x2u
#define CR4_TSD		0x4u
#define CR4_DE		0x8u
#define CR4_PSE		0x10u
#define CR4_PAE		0x20u
#define CR4_MCE		0x40u
#define CR4_PGE		0x80u
#define CR4_PCE		0x100u
#define CR4_OSFXSR	0x200u
#define CR4_OSXMMEXCPT	0x400u
#define CR4_UMIP	0x800u
#define CR4_FSGSBASE	0x10000u
#define CR4_PCIDE	0x20000u
#define CR4_OSXSAVE	0x40000u
#define CR4_SMEP	0x100000u
#define CR4_SMAP	0x200000u

#define EFER_SCE	0x1u
#define EFER_LME	0x100u
#define EFER_LMA	0x400u
#define EFER_NX		0x800u

enum x86_vector {
	VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_DF,
	VEC_TS = 10, VEC_NP, VEC_SS, VEC_GP, VEC_PF, VEC_MF = 16, VEC_AC, VEC_MC,
	VEC_XM,
};

#define PTE_P	0x1u
#define PTE_W	0x2u
#define PTE_U	0x4u
#define PTE_A	0x20u
#define PTE_D	0x40u
#define PTE_PS	0x80u
#define PTE_G	0x100u
#define PTE_NX	(1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

#define PF_P	0x1u
#define PF_W	0x2u
#define PF_U	0x4u
#define PF_RSVD	0x8u
#define PF_I	0x10u

/* struct x86_segment.attr */
#define SEG_TYPE	0xfu
#define SEG_S		0x10u
#define SEG_DPL(a)	(((a) >> 5) & 3)
#define SEG_P		0x80u
#define SEG_L		0x2000u
#define SEG_DB		0x4000u
#define SEG_G		0x8000u

#define DR6_FIXED	0xffff0ff0u
#define DR6_BD		0x2000u
#define DR6_BS		0x4000u
#define DR7_FIXED	0x400u
#define DR7_GD		0x2000u

/* MSRs that are only stored; index into soft_cpu.msr (msr.c names them). */
#define MSR_NR_STORED 64

#define MSR_EFER		0xc0000080
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_CSTAR		0xc0000083
#define MSR_SFMASK		0xc0000084
#define MSR_FS_BASE		0xc0000100
#define MSR_GS_BASE		0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102
#define MSR_TSC_AUX		0xc0000103

#endif
