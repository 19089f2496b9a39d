// SPDX-License-Identifier: MIT
/*
 * main.c - PID 1 of every guest: brings the system up, serves the host, and
 * when CMD has ended or the host says so, powers off.
 *
 * PID 1 must not end, whatever happens: the kernel would panic.  It is out of
 * the OOM killer's reach and no signal from inside the guest kills it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/boot.h"
#include "guest/guest.h"

#define INIT_NOFILE 65536

static void protect(const struct guest *g)
{
	struct rlimit nofile = { INIT_NOFILE, INIT_NOFILE };
	struct rlimit pipes;
	int fd = openat(g->proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (write(fd, "-1000", 5) < 0)
			guest_log(g, "oom_score_adj: %s", strerror(errno));
		close(fd);
	}
	/* keep a hard limit of ours that children may still raise theirs to */
	if (!getrlimit(RLIMIT_NOFILE, &pipes) && pipes.rlim_max > INIT_NOFILE)
		nofile.rlim_max = pipes.rlim_max;
	setrlimit(RLIMIT_NOFILE, &nofile);
}

/* The socket the host connects to; -1 in a VM without the device. */
static int listen_vsock(const struct guest *g)
{
	struct sockaddr_vm any = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
		.svm_port = AGENT_PORT,
	};
	unsigned cid = VMADDR_CID_ANY;
	int dev = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
	int fd;

	if (dev < 0)
		return -1;
	ioctl(dev, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid);
	close(dev);
	if (cid == VMADDR_CID_ANY)
		return -1;
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) ||
	    listen(fd, 1024)) {
		guest_log(g, "agent socket: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static void unmount_all(const struct guest *g)
{
	static const char *const lists[] = { "fs", "disks" };
	const struct doc *d = &g->config;

	sync();
	for (size_t i = 0; i < 2; i++) {
		unsigned id = doc_first(d, doc_get(d, DOC_ROOT, lists[i]));

		for (; id; id = doc_next(d, id)) {
			const char *path = doc_str(d, doc_get(d, id, "path"));

			if (path)
				umount2(path, UMOUNT_NOFOLLOW);
		}
	}
	/* leaves a clean journal: the next boot from this disk replays nothing */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL))
		sync();
}

int main(int argc, char **argv)
{
	struct guest g = {
		.pid1 = true, .console = -1, .kmsg = -1, .proc = -1, .pts = -1,
		.random = -1,
	};
	int r;

	if (getpid() != 1) {
		fprintf(stderr, "init: this is PID 1 of a machinen guest\n");
		return 2;
	}
	boot_system(&g);
	protect(&g);
	r = agent_run(&g, listen_vsock(&g));
	if (r)
		guest_log(&g, "agent: %s", strerror(-r));
	unmount_all(&g);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
