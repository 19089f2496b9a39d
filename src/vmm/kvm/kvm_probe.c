// SPDX-License-Identifier: MIT
/*
 * kvm_probe.c - does KVM on this host really run guests?
 *
 * A /dev/kvm that opens proves little: nested and para-virtual hosts emulate
 * guest kernel code, thousands of times slower than hardware, and miss
 * instructions that every kernel uses.  So a guest of some eighty instructions
 * (probe_guest.S) does once what a kernel does all the time, announcing each step
 * on a port; the last announced step is what failed.  The last step is plain speed:
 * a million turns of a loop, under a millisecond on hardware, seconds where kernel
 * code is interpreted.  All of it may take limit_ms of this thread's CPU time, which a
 * loaded host does not stretch, and many times that in all, for a timer interrupt that
 * never comes; a timer signal ends KVM_RUN then.
 *
 * The verdict is remembered (verdict.h) for as long as kernel, boot and device are
 * the same.  What this user may open is not part of it: that is tried each time.
 *
 * #ioctls KVM_GET_API_VERSION
 *
 *	0x1000 page tables   0x4000 IDT   0x5000 GDT   0x6000 TSS
 *	0x7000 scratch       0x8000 stack, down         0x10000 code
 */
#include "vmm/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/util.h"

#define PROBE_VERSION 1		/* of what the guest does */
#define WAIT	   40		/* times the limit, at most: load included */

#define RAM_SIZE   0x20000u
#define CODE_GPA   0x10000u
#define STEP_PORT  0x80
#define STEP_DONE  0xff
#define STEP_WRONG 0xfe

#define CR0_BITS 0x80050033ull	/* PG AM WP NE ET MP PE */
#define CR4_BITS 0x40620ull	/* OSXSAVE OSXMMEXCPT OSFXSR PAE */
#define EFER_BITS 0xd01ull	/* NXE LMA LME SCE */

extern const uint8_t kvm_probe_guest[], kvm_probe_guest_end[];
extern const uint8_t kvm_probe_bp[], kvm_probe_pf[], kvm_probe_timer[],
	kvm_probe_sys[];

static const char *const step_names[] = {
	[0] = "entering long mode",
	[1] = "privileged instructions",
	[2] = "int3",
	[3] = "cmpxchg16b",
	[4] = "XSAVE and XRSTOR",
	[5] = "a page fault",
	[6] = "SYSRET and SYSCALL",
	[7] = "a timer interrupt",
	[8] = "kernel code at full speed",
};

struct probe {
	int kvm_fd, vm_fd, vcpu_fd;	/* owned */
	uint8_t *ram;			/* owned mapping */
	struct kvm_run *run;		/* owned mapping */
	size_t run_size;
	unsigned step;			/* last one announced */
	unsigned failed_step;		/* when the guest saw a wrong result */
};

int kvm_open(struct err *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == EACCES)
		return err_set(err, EACCES, "/dev/kvm is not open to this user: "
			       "join the kvm group (usermod -aG kvm USER) and log in again");
	if (fd < 0)
		return err_set(err, errno, "/dev/kvm: %s: the kernel offers no "
			       "hardware virtualisation here", strerror(errno));
	if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		io_close(fd);
		return err_set(err, ENOTSUP, "/dev/kvm speaks another API version");
	}
	return fd;
}

static uint64_t guest_addr(const uint8_t *label)
{
	return CODE_GPA + (uint64_t)(label - kvm_probe_guest);
}

static void put64(struct probe *p, unsigned at, uint64_t v)
{
	memcpy(p->ram + at, &v, sizeof(v));
}

/* A 64-bit interrupt gate to kernel code (SDM 3A, 6.14.1). */
static void put_gate(struct probe *p, unsigned vector, const uint8_t *label)
{
	uint64_t to = guest_addr(label);

	put64(p, 0x4000 + vector * 16,
	      (to & 0xffff) | 8ull << 16 | 0x8eull << 40 | (to >> 16 & 0xffff) << 48);
	put64(p, 0x4000 + vector * 16 + 8, to >> 32);
}

static void fill_ram(struct probe *p)
{
	put64(p, 0x1000, 0x2007);	/* present, writable, user */
	put64(p, 0x2000, 0x3007);
	put64(p, 0x3000, 0x87);		/* one 2 MiB page at 0 */
	put64(p, 0x5008, 0x00af9b000000ffffull);	/* kernel code */
	put64(p, 0x5010, 0x00cf93000000ffffull);	/* kernel data */
	put64(p, 0x5020, 0x00cff3000000ffffull);	/* user data */
	put64(p, 0x5028, 0x00affb000000ffffull);	/* user code */
	put_gate(p, 3, kvm_probe_bp);
	put_gate(p, 14, kvm_probe_pf);
	put_gate(p, 0x40, kvm_probe_timer);
	memcpy(p->ram + CODE_GPA, kvm_probe_guest,
	       (size_t)(kvm_probe_guest_end - kvm_probe_guest));
}

static struct kvm_segment flat(uint16_t sel, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = sel, .type = type, .present = 1,
		.db = !code, .l = code, .s = 1, .g = 1,
	};
}

static int set_registers(struct probe *p)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = 0x9000, .rflags = 2 };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[3];
	} msrs = {
		.head.nmsrs = 3,
		.entry = {
			{ .index = 0xc0000081,	/* STAR */
			  .data = 8ull << 32 | 0x18ull << 48 },
			{ .index = 0xc0000082, .data = guest_addr(kvm_probe_sys) },
			{ .index = 0xc0000084, .data = 0x200 },
		},
	};
	struct kvm_sregs s;

	if (ioctl(p->vcpu_fd, KVM_GET_SREGS, &s) < 0)
		return -errno;
	s.cs = flat(8, 11, true);
	s.ds = s.es = s.fs = s.gs = s.ss = flat(0x10, 3, false);
	s.tr = (struct kvm_segment){ .base = 0x6000, .limit = 0x67,
				     .selector = 0x30, .type = 11, .present = 1 };
	s.gdt.base = 0x5000;
	s.gdt.limit = 0x3f;
	s.idt.base = 0x4000;
	s.idt.limit = 0x40 * 16 + 15;
	s.cr0 = CR0_BITS;
	s.cr3 = 0x1000;
	s.cr4 = CR4_BITS;
	s.efer = EFER_BITS;
	s.apic_base |= 0xc00;		/* on, x2APIC */
	if (ioctl(p->vcpu_fd, KVM_SET_SREGS, &s) < 0 ||
	    ioctl(p->vcpu_fd, KVM_SET_REGS, &regs) < 0 ||
	    ioctl(p->vcpu_fd, KVM_SET_MSRS, &msrs) != 3)
		return -EIO;
	return 0;
}

static int set_cpuid(struct probe *p)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[256];
	} list = { .head.nent = 256 };

	if (ioctl(p->kvm_fd, KVM_GET_SUPPORTED_CPUID, &list) < 0)
		return -errno;
	for (unsigned i = 0; i < list.head.nent; i++)
		if (list.entry[i].function == 1)
			list.entry[i].ecx |= 1u << 21;	/* x2APIC */
	return ioctl(p->vcpu_fd, KVM_SET_CPUID2, &list) < 0 ? -errno : 0;
}

static int build(struct probe *p)
{
	struct kvm_userspace_memory_region reg = { .memory_size = RAM_SIZE };
	uint64_t identity = KVM_IDENTITY_MAP_GPA;
	int size;

	p->vm_fd = ioctl(p->kvm_fd, KVM_CREATE_VM, 0);
	if (p->vm_fd < 0)
		return -errno;
	p->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->ram == MAP_FAILED) {
		p->ram = NULL;
		return -ENOMEM;
	}
	reg.userspace_addr = (uintptr_t)p->ram;
	fill_ram(p);
	if (ioctl(p->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_GPA) < 0 ||
	    ioctl(p->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(p->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0 ||
	    ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &reg) < 0)
		return -errno;
	p->vcpu_fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, 0);
	size = ioctl(p->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (p->vcpu_fd < 0 || size < (int)sizeof(struct kvm_run))
		return -EIO;
	p->run_size = size;
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		      p->vcpu_fd, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return -ENOMEM;
	}
	size = set_cpuid(p);
	return size ? size : set_registers(p);
}

static void out_of_time(int sig, siginfo_t *info, void *ctx)
{
	struct kvm_run *run = info->si_value.sival_ptr;

	run->immediate_exit = 1;
}

/* 0 when the guest is through, -ETIME, or -EIO with run->exit_reason. */
static int run_guest(struct probe *p)
{
	while (p->step != STEP_DONE && p->step != STEP_WRONG) {
		const uint8_t *data = (uint8_t *)p->run;

		if (ioctl(p->vcpu_fd, KVM_RUN, 0) < 0) {
			if (errno == EINTR && !p->run->immediate_exit)
				continue;
			return errno == EINTR ? -ETIME : -errno;
		}
		if (p->run->exit_reason == KVM_EXIT_INTR)
			continue;
		if (p->run->exit_reason != KVM_EXIT_IO ||
		    p->run->io.port != STEP_PORT)
			return -EIO;
		p->failed_step = p->step;
		p->step = data[p->run->io.data_offset];
	}
	return p->step == STEP_DONE ? 0 : -EPROTO;
}

/* Both limits send the same signal; again and again, for it may come too early. */
static int start_timer(clockid_t clock, struct itimerspec limit, struct kvm_run *run,
		       timer_t *timer)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL,
			       .sigev_signo = KVM_KICK_SIGNAL,
			       .sigev_value.sival_ptr = run };

	if (timer_create(clock, &ev, timer) < 0)
		return -errno;
	limit.it_interval.tv_nsec = 10000000;
	timer_settime(*timer, 0, &limit, NULL);
	return 0;
}

static struct itimerspec in_ms(unsigned ms)
{
	return (struct itimerspec){ .it_value = { ms / 1000, ms % 1000 * 1000000L } };
}

static int run_timed(struct probe *p, unsigned limit_ms)
{
	struct sigaction sa = { .sa_sigaction = out_of_time,
				.sa_flags = SA_SIGINFO }, old;
	const struct itimerspec work = in_ms(limit_ms), wait = in_ms(WAIT * limit_ms);
	timer_t cpu, wall;
	int ret;

	sigaction(KVM_KICK_SIGNAL, &sa, &old);
	ret = start_timer(CLOCK_THREAD_CPUTIME_ID, work, p->run, &cpu);
	if (!ret) {
		ret = start_timer(CLOCK_MONOTONIC, wait, p->run, &wall);
		if (!ret) {
			ret = run_guest(p);
			timer_delete(wall);
		}
		timer_delete(cpu);
	}
	sigaction(KVM_KICK_SIGNAL, &old, NULL);
	return ret;
}

static int verdict(struct probe *p, int ret, struct err *err)
{
	unsigned step = ret == -EPROTO ? p->failed_step : p->step;
	const char *what = step < ARRAY_LEN(step_names) ? step_names[step]
							: "the probe guest";

	switch (ret) {
	case 0:
		return 0;
	case -ETIME:
		return err_set(err, ETIME, "KVM is too slow or hangs at %s: this "
			       "host emulates guest kernel code", what);
	case -EPROTO:
		return err_set(err, ENOTSUP, "KVM computes %s wrongly", what);
	default:
		return err_set(err, ENOTSUP, "KVM fails at %s (exit %u%s)", what,
			       p->run->exit_reason,
			       p->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ?
			       ", not emulated" : "");
	}
}

/* The device node is made anew when its module is loaded again. */
int kvm_identity(char *line, size_t size)
{
	char boot[64] = "";
	struct utsname u;
	struct stat st;
	cleanup(io_closep) int fd = open("/proc/sys/kernel/random/boot_id",
					 O_RDONLY | O_CLOEXEC);
	cleanup(io_closep) int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int n;

	if (fd < 0 || dev < 0 || io_read_full(fd, boot, sizeof(boot) - 1) <= 0 ||
	    uname(&u) < 0 || fstat(dev, &st) < 0)
		return -EIO;
	boot[strcspn(boot, "\n")] = '\0';
	n = snprintf(line, size, "probe %d boot %s kernel %s device %llx:%llx:%llx.%lx",
		     PROBE_VERSION, boot, u.release, (unsigned long long)st.st_dev,
		     (unsigned long long)st.st_ino, (unsigned long long)st.st_ctim.tv_sec,
		     st.st_ctim.tv_nsec);
	return n < (int)size ? 0 : -ENAMETOOLONG;
}

int kvm_probe(unsigned limit_ms, struct err *err)
{
	struct probe p = { .vm_fd = -1, .vcpu_fd = -1 };
	int ret;

	p.kvm_fd = kvm_open(err);
	if (p.kvm_fd < 0)
		return p.kvm_fd;
	ret = build(&p);
	if (ret)
		err_set(err, -ret, "KVM cannot make a VM: %s", strerror(-ret));
	else
		ret = verdict(&p, run_timed(&p, limit_ms), err);
	if (p.run)
		munmap(p.run, p.run_size);
	io_close(p.vcpu_fd);
	io_close(p.vm_fd);
	io_close(p.kvm_fd);
	if (p.ram)
		munmap(p.ram, RAM_SIZE);
	return ret;
}
