// SPDX-License-Identifier: MIT
/*
 * kvm.c - the KVM backend: VM, memory, interrupts, the run loop.
 *
 * Interrupt controllers and clocks are the kernel's.  A virtio line is an irqfd:
 * all of them are edge triggered, so one write to the eventfd is the pulse and the
 * falling edge is nothing.  Doorbells are ioeventfds, so ringing one does not
 * leave the kernel.
 *
 * Kicking: the kicker sets kvm_run->immediate_exit, then signals the thread
 * if it is inside vcpu_run().  Whichever comes first, KVM_RUN ends with EINTR:
 * by the signal if the guest runs, by immediate_exit if it is about to.
 * vcpu_run() returns KICK from that EINTR alone, because KVM completes the
 * instruction of a handled MMIO or port access only on the next entry: leaving
 * anywhere else would save a state with the access half done.
 *
 * A fork of the VMM cannot use the parent's descriptors (KVM ties a VM to the
 * address space that made it): the child builds a new VM and sets the state.
 *
 * #syscalls ioctl mmap munmap madvise eventfd2 write tgkill rt_sigreturn
 * #ioctls KVM_CREATE_VM KVM_GET_VCPU_MMAP_SIZE KVM_SET_USER_MEMORY_REGION
 * #ioctls KVM_GET_DIRTY_LOG KVM_IRQFD KVM_IRQ_LINE KVM_IOEVENTFD KVM_CREATE_VCPU
 * #ioctls KVM_RUN KVM_KVMCLOCK_CTRL
 */
#include "vmm/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/accel.h"
#include "vmm/arch/x86/state.h"
#include "vmm/vm.h"

/* Lines below this may be level triggered (UART, power): set by ioctl. */
#define FIRST_EDGE_GSI 5

static int set_ram(struct kvm_vm *k, const struct mem *m, unsigned slot,
		   struct err *err)
{
	const struct mem_range *r = &m->range[slot];
	struct kvm_userspace_memory_region reg = {
		.slot = slot,
		.guest_phys_addr = r->start,
		.memory_size = r->len,
		.userspace_addr = (uintptr_t)(m->base + r->start),
		.flags = k->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
	};

	if (ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &reg) < 0)
		return err_set(err, errno, "KVM refused guest RAM at %#llx: %s",
			       (unsigned long long)r->start, strerror(errno));
	return 0;
}

static int mem_map(struct vm *vm, struct err *err)
{
	struct kvm_vm *k = vm->accel_vm;
	int ret = 0;

	for (unsigned i = 0; !ret && i < vm->mem.nr_ranges; i++)
		ret = set_ram(k, &vm->mem, i, err);
	return ret;
}

static int range_dirty(struct kvm_vm *k, const struct mem_range *r,
		       unsigned slot, bool all, uint64_t *bitmap)
{
	uint64_t *part = bitmap + (r->start >> (PAGE_SHIFT + 6));
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = part };

	if (all)
		memset(part, 0xff, r->len >> (PAGE_SHIFT + 3));
	else if (ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
		return -errno;
	return 0;
}

/*
 * One bit a page of [0, mem.span).  Logging costs the guest a fault per page and
 * round, so the first call switches it on and reports every page.
 */
static int mem_dirty(struct vm *vm, uint64_t *bitmap)
{
	struct kvm_vm *k = vm->accel_vm;
	bool first = !k->dirty_log;
	int ret = 0;

	k->dirty_log = true;
	if (first)
		ret = mem_map(vm, NULL);
	for (unsigned i = 0; !ret && i < vm->mem.nr_ranges; i++)
		ret = range_dirty(k, &vm->mem.range[i], i, first, bitmap);
	return ret;
}

static int add_irqfd(struct kvm_vm *k, unsigned gsi, struct err *err)
{
	struct kvm_irqfd req = { .gsi = gsi };
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return err_set(err, errno, "eventfd: %s", strerror(errno));
	k->irqfd[gsi] = fd;
	req.fd = fd;
	if (ioctl(k->vm_fd, KVM_IRQFD, &req) < 0)
		return err_set(err, errno, "KVM refused an irqfd for line %u: %s",
			       gsi, strerror(errno));
	return 0;
}

static void vm_done(struct vm *vm)
{
	struct kvm_vm *k = vm->accel_vm;

	if (!k)
		return;
	for (unsigned i = 0; i < KVM_NR_GSIS; i++)
		io_close(k->irqfd[i]);
	io_close(k->vm_fd);
	io_close(k->kvm_fd);
	free(k);
	vm->accel_vm = NULL;
}

static int create_vm(struct kvm_vm *k, struct err *err)
{
	int size;

	k->kvm_fd = kvm_open(err);
	if (k->kvm_fd < 0)
		return k->kvm_fd;
	do	/* a pending signal makes the kernel give up: ask again */
		k->vm_fd = ioctl(k->kvm_fd, KVM_CREATE_VM, 0);
	while (k->vm_fd < 0 && errno == EINTR);
	if (k->vm_fd < 0)
		return err_set(err, errno, "KVM_CREATE_VM: %s", strerror(errno));
	size = ioctl(k->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return err_set(err, EIO, "KVM has an implausible run page size %d", size);
	k->run_size = size;
	return kvm_x86_vm_init(k, err);
}

/* Interrupting KVM_RUN is all the signal is for. */
static void kick_handler(int sig)
{
}

static int vm_init(struct vm *vm, struct err *err)
{
	struct sigaction sa = { .sa_handler = kick_handler };
	struct kvm_vm *k = calloc(1, sizeof(*k));
	int ret;

	if (!k)
		return err_set(err, ENOMEM, "out of memory");
	k->kvm_fd = k->vm_fd = -1;
	memset(k->irqfd, -1, sizeof(k->irqfd));
	vm->accel_vm = k;
	sigaction(KVM_KICK_SIGNAL, &sa, NULL);
	ret = create_vm(k, err);
	for (unsigned gsi = FIRST_EDGE_GSI; !ret && gsi < KVM_NR_GSIS; gsi++)
		ret = add_irqfd(k, gsi, err);
	if (!vm->host_khz)
		vm->host_khz = ret ? 0 : kvm_x86_host_khz(k);
	if (ret)
		vm_done(vm);
	return ret;
}

static void set_line(struct vm *vm, unsigned gsi, bool level)
{
	struct kvm_vm *k = vm->accel_vm;
	struct kvm_irq_level line = { .irq = gsi, .level = level };
	uint64_t one = 1;

	if (gsi >= KVM_NR_GSIS)
		return;
	if (k->irqfd[gsi] < 0)
		ioctl(k->vm_fd, KVM_IRQ_LINE, &line);
	else if (level && write(k->irqfd[gsi], &one, sizeof(one)) < 0)
		log_debug("kvm", "irqfd %u: %s", gsi, strerror(errno));
}

static int doorbell(struct vm *vm, gpa_t gpa, uint32_t value, int efd)
{
	struct kvm_vm *k = vm->accel_vm;
	struct kvm_ioeventfd req = {
		.addr = gpa,
		.len = 4,
		.datamatch = value,
		.fd = efd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH |
			 (efd < 0 ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0),
	};

	return ioctl(k->vm_fd, KVM_IOEVENTFD, &req) < 0 ? -errno : 0;
}

static void vcpu_done(struct vcpu *c)
{
	struct kvm_vm *k = c->vm->accel_vm;
	struct kvm_vcpu *v = c->accel_vcpu;

	if (!v)
		return;
	if (v->run)
		munmap(v->run, k->run_size);
	io_close(v->fd);
	free(v);
	c->accel_vcpu = NULL;
}

static int map_vcpu(struct kvm_vm *k, struct kvm_vcpu *v, unsigned id,
		    struct err *err)
{
	void *run;

	v->fd = ioctl(k->vm_fd, KVM_CREATE_VCPU, id);
	if (v->fd < 0)
		return err_set(err, errno, "KVM_CREATE_VCPU %u: %s", id, strerror(errno));
	run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return err_set(err, errno, "cannot map the run page: %s", strerror(errno));
	v->run = run;
	/* A mapping keeps the vCPU, and it the VM, for as long as a sibling lives. */
	if (madvise(run, k->run_size, MADV_DONTFORK) < 0)
		return err_set(err, errno, "cannot keep the run page from forks: %s",
			       strerror(errno));
	return 0;
}

static int vcpu_init(struct vcpu *c, struct err *err)
{
	struct kvm_vm *k = c->vm->accel_vm;
	struct kvm_vcpu *v = calloc(1, sizeof(*v));
	int ret;

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	v->fd = -1;
	c->accel_vcpu = v;
	ret = map_vcpu(k, v, c->id, err);
	if (!ret)
		ret = kvm_x86_vcpu_init(k, v, &c->vm->model, c->id, err);
	if (ret)
		vcpu_done(c);
	return ret;
}

static void handle_pio(struct vcpu *c, struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
		vcpu_pio(c, run->io.port, data, run->io.size,
			 run->io.direction == KVM_EXIT_IO_OUT);
}

/* Why KVM ended KVM_RUN for good; whoever hears it adds the registers. */
static int internal_error(const struct kvm_run *run, struct err *err)
{
	static const char *const why[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "cannot emulate the instruction at rip",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "met two exceptions at once",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "failed while an event was delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "met an exit it does not know",
	};
	unsigned sub = run->internal.suberror;

	if (sub < ARRAY_LEN(why) && why[sub])
		return err_set(err, EIO, "KVM %s", why[sub]);
	return err_set(err, EIO, "KVM failed inside (error %u)", sub);
}

static enum accel_exit broken(struct kvm_vcpu *v, struct err *err)
{
	struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		err_set(err, EIO, "an exception could not be delivered, nor the double fault");
		return ACCEL_EXIT_SHUTDOWN;
	case KVM_EXIT_FAIL_ENTRY:
		err_set(err, EIO, "the CPU refused to enter the guest, reason %#llx",
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(run, err);
		break;
	case KVM_EXIT_UNKNOWN:
		err_set(err, EIO, "the CPU left the guest for an unknown reason %#llx",
			(unsigned long long)run->hw.hardware_exit_reason);
		break;
	default:
		err_set(err, EIO, "KVM left the guest for reason %u, which is not expected",
			run->exit_reason);
	}
	return ACCEL_EXIT_ERROR;
}

static enum accel_exit run_loop(struct vcpu *c, struct kvm_vcpu *v,
				struct err *err)
{
	struct kvm_run *run = v->run;

	for (;;) {
		if (ioctl(v->fd, KVM_RUN, 0) < 0) {
			if (errno == EINTR && run->immediate_exit) {
				run->immediate_exit = 0;
				return ACCEL_EXIT_KICK;
			}
			if (errno == EINTR || errno == EAGAIN)
				continue;
			err_set(err, errno, "KVM_RUN: %s", strerror(errno));
			return ACCEL_EXIT_ERROR;
		}
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			handle_pio(c, run);
			break;
		case KVM_EXIT_MMIO:
			vcpu_mmio(c, run->mmio.phys_addr, run->mmio.data,
				  run->mmio.len, run->mmio.is_write);
			break;
		case KVM_EXIT_INTR:
		case KVM_EXIT_IRQ_WINDOW_OPEN:
			break;
		default:
			return broken(v, err);
		}
	}
}

static enum accel_exit vcpu_run(struct vcpu *c, struct err *err)
{
	struct kvm_vcpu *v = c->accel_vcpu;
	enum accel_exit exit;
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, KVM_KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	v->thread = pthread_self();
	/* Time went by while it did not run: its watchdogs need not bark.  Refused
	 * where the guest has no kvmclock. */
	ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
	/* Pairs with vcpu_kick(): it sets immediate_exit, then looks at running;
	 * we set running, then enter KVM, which looks at immediate_exit. */
	atomic_store(&v->running, true);
	exit = run_loop(c, v, err);
	atomic_store(&v->running, false);
	return exit;
}

static void vcpu_kick(struct vcpu *c)
{
	struct kvm_vcpu *v = c->accel_vcpu;

	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (atomic_load(&v->running))
		pthread_kill(v->thread, KVM_KICK_SIGNAL);
}

static int vcpu_get(struct vcpu *c, struct x86_state *s, struct err *err)
{
	return kvm_x86_get(c->vm->accel_vm, c->accel_vcpu, s, err);
}

static int vcpu_set(struct vcpu *c, const struct x86_state *s, struct err *err)
{
	return kvm_x86_set(c->vm->accel_vm, c->accel_vcpu, s, err);
}

static int board_get(struct vm *vm, struct x86_ioapic_state *ioapic,
		     struct x86_clock_state *clock, struct err *err)
{
	return kvm_x86_board_get(vm->accel_vm, ioapic, clock, err);
}

static int board_set(struct vm *vm, const struct x86_ioapic_state *ioapic,
		     const struct x86_clock_state *clock, struct err *err)
{
	return kvm_x86_board_set(vm->accel_vm, ioapic, clock, err);
}

const struct accel accel_kvm = {
	.name		= "kvm",
	.probe		= kvm_probe,
	.identity	= kvm_identity,
	.cpuid_can	= kvm_x86_cpuid_can,
	.vm_init	= vm_init,
	.vm_done	= vm_done,
	.mem_map	= mem_map,
	.mem_dirty	= mem_dirty,
	.irq_set	= set_line,
	.doorbell	= doorbell,
	.vcpu_init	= vcpu_init,
	.vcpu_done	= vcpu_done,
	.vcpu_run	= vcpu_run,
	.vcpu_kick	= vcpu_kick,
	.vcpu_get	= vcpu_get,
	.vcpu_set	= vcpu_set,
	.board_get	= board_get,
	.board_set	= board_set,
};
