/* SPDX-License-Identifier: MIT */
/*
 * process.h - the VMM as a process: what it is started with, what it watches
 * beside the VM, how it reports its beginning and its end.
 */
#ifndef VMM_PROCESS_H
#define VMM_PROCESS_H

struct err;
struct process;
struct restore;
struct spec;
struct spec_fds;

/* Exit statuses of machinen-vmm; docs/protocol.md lists them. */
enum process_status {
	PROCESS_POWEROFF = 0,	/* the guest powered off */
	PROCESS_FAILED = 1,	/* never ran, or an error of ours */
	PROCESS_USAGE = 2,
	PROCESS_REBOOT = 3,	/* the guest asked for a reset */
	PROCESS_STOPPED = 4,	/* control socket, SIGTERM, or foreground gone */
	PROCESS_CRASHED = 5,	/* triple fault, or the CPU backend gave up */
};

/* Runs one VM from beginning to end; takes all over.  An exit status.  restore is
 * NULL but in a sibling made by fork. */
int process_run(struct spec *spec, struct spec_fds *fds, struct restore *restore);
/* Reports that it cannot even begin.  An exit status. */
int process_fail(struct spec *spec, struct spec_fds *fds, const struct err *err);
/* The VM lives on when whoever started it goes.  NULL is fine. */
void process_detach(struct process *p);

#endif
