// SPDX-License-Identifier: MIT
/*
 * lostpage.c - RAM that is mapped from a bundle, when its file was cut short or cannot
 * be read.
 *
 * The host says so by SIGBUS at an access, of whatever thread.  The page is lost and
 * nothing that uses it can go on, so this is the end; but whoever waits for the VM
 * should learn why.  All that a handler may do is done beforehand, the text above all.
 *
 * A process that was forked to write a bundle has the handler too, but not this VM's
 * end to tell: it dies of the signal, and the VM reports the snapshot as failed.
 *
 * #syscalls getpid rt_sigaction pwrite64 exit_group
 */
#include "vmm/lostpage.h"

#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#include "vmm/mem.h"
#include "vmm/process.h"

static const char text[] =
	"{\"schema_version\":1,\"end\":\"crashed\",\"status\":5,\"error\":{"
	"\"code\":\"SNAPSHOT_DAMAGED\",\"message\":\"the memory file of the bundle that the VM "
	"runs from was cut short, or cannot be read\",\"causes\":[]}}\n";
_Static_assert(PROCESS_CRASHED == 5, "the status in the text");

static struct {
	const uint8_t *ram;
	uint64_t span;
	int exit_fd;
	pid_t pid;
} lost_page;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	uintptr_t off = (uintptr_t)info->si_addr - (uintptr_t)lost_page.ram;

	if (off >= lost_page.span || getpid() != lost_page.pid) {
		signal(sig, SIG_DFL);	/* the access is repeated */
		return;
	}
	if (lost_page.exit_fd >= 0 &&
	    pwrite(lost_page.exit_fd, text, sizeof(text) - 1, 0) < 0)
		_exit(PROCESS_FAILED);
	_exit(PROCESS_CRASHED);
}

void lostpage_watch(const struct mem *mem, int exit_fd)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus,
				/* a vCPU's stack pointer may hold a guest's value */
				.sa_flags = SA_SIGINFO | SA_ONSTACK };

	if (mem->file_fd < 0)
		return;
	lost_page.ram = mem->base;
	lost_page.span = mem->span;
	lost_page.exit_fd = exit_fd;
	lost_page.pid = getpid();
	sigaction(SIGBUS, &sa, NULL);
}
