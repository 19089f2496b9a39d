/* SPDX-License-Identifier: MIT */
/*
 * kvm/kvm.h - what the files of the KVM backend share.  Nobody else includes
 * this; no KVM struct leaves this folder.
 */
#ifndef VMM_KVM_KVM_H
#define VMM_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpu_model;
struct err;
struct x86_clock_state;
struct x86_ioapic_state;
struct x86_state;

#define KVM_NR_GSIS	24	/* one IOAPIC */
#define KVM_KICK_SIGNAL	SIGUSR2	/* interrupts KVM_RUN, does nothing else */

/* A page and three of KVM's own, for Intel hosts without unrestricted guest; in the
 * device hole below 4 GiB, where no RAM and no device is. */
#define KVM_IDENTITY_MAP_GPA	0xfffbc000ull
#define KVM_TSS_GPA		0xfffbd000ull

struct kvm_vm {
	int kvm_fd, vm_fd;	/* owned */
	size_t run_size;	/* bytes of the shared run page(s) */
	size_t xsave_size;	/* bytes KVM_GET_XSAVE2 fills */
	int irqfd[KVM_NR_GSIS];	/* owned; -1: the line is set by ioctl */
	bool dirty_log;
	uint64_t tsc_khz;	/* of the guest; known with the first vCPU */
};

struct kvm_vcpu {
	int fd;			/* owned */
	struct kvm_run *run;	/* owned mapping, shared with the kernel */
	pthread_t thread;	/* valid while running */
	_Atomic bool running;	/* in vcpu_run(): kicks need the signal */
};

/* kvm_x86.c */
int kvm_x86_vm_init(struct kvm_vm *k, struct err *err);
uint64_t kvm_x86_host_khz(const struct kvm_vm *k);	/* 0: KVM does not say */
int kvm_x86_vcpu_init(struct kvm_vm *k, struct kvm_vcpu *v,
		      const struct cpu_model *model, unsigned apic_id,
		      struct err *err);
void kvm_x86_cpuid_can(uint32_t *words);
int kvm_x86_get(struct kvm_vm *k, struct kvm_vcpu *v, struct x86_state *s,
		struct err *err);
int kvm_x86_set(struct kvm_vm *k, struct kvm_vcpu *v, const struct x86_state *s,
		struct err *err);
int kvm_x86_board_get(struct kvm_vm *k, struct x86_ioapic_state *ioapic,
		      struct x86_clock_state *clock, struct err *err);
int kvm_x86_board_set(struct kvm_vm *k, const struct x86_ioapic_state *ioapic,
		      const struct x86_clock_state *clock, struct err *err);

/* kvm_probe.c */
int kvm_probe(unsigned limit_ms, struct err *err);
int kvm_identity(char *line, size_t size);
/* Opens /dev/kvm and checks the API; a descriptor or -errno with what to do. */
int kvm_open(struct err *err);

#endif
