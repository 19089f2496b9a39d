// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "tests/lib/devfix.h"
#include "tests/lib/fakenet.h"
#include "vmm/console.h"
#include "vmm/dev/blk.h"
#include "vmm/dev/console.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/net.h"
#include "vmm/dev/vsock.h"
#include "vmm/disk/disk.h"

static void attach_blk(struct devfix *f)
{
	struct blk_config cfg;
	int fd = memfd_create("disk", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	cfg.disk = disk_open_raw(fd, false, NULL);
	vd_attach(&f->d, &blk_class, "root", &cfg);
}

static void attach_console(struct devfix *f)
{
	struct console_config cfg;

	if (!f->console) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, f->fd), 0);
		f->console = console_new(f->d.loop, &f->d.lock, -1, f->fd[0], NULL);
	}
	cfg.console = f->console;
	vd_attach(&f->d, &console_class, "", &cfg);
}

static void attach_vsock(struct devfix *f)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct vsock_config cfg = { .cid = 3 };

	if (f->fd[0] < 0) {
		f->fd[0] = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(bind(f->fd[0], (void *)&addr, sizeof(sa_family_t)), 0);
		assert_int_equal(listen(f->fd[0], 8), 0);
	}
	cfg.listen_fd = f->fd[0];
	vd_attach(&f->d, &vsock_class, "", &cfg);
}

static void attach_net(struct devfix *f)
{
	struct net_config cfg = { .mac = { 2, 0, 0, 0, 0, 1 } };

	cfg.netif = &fakenet_new()->netif;
	vd_attach(&f->d, &net_class, "", &cfg);
}

static void attach_plain(struct devfix *f)
{
	vd_attach(&f->d, f->class, "", NULL);
}

static const struct {
	const struct virtio_class *class;
	void (*attach)(struct devfix *f);
} makers[] = {
	{ &blk_class, attach_blk },
	{ &console_class, attach_console },
	{ &rng_class, attach_plain },
	{ &vsock_class, attach_vsock },
	{ &net_class, attach_net },
	{ &balloon_class, attach_plain },
};

static void attach(struct devfix *f)
{
	for (unsigned i = 0; i < ARRAY_LEN(makers); i++)
		if (makers[i].class == f->class) {
			makers[i].attach(f);
			return;
		}
	fail_msg("devfix.c does not know device %s", f->class->name);
}

void devfix_init(struct devfix *f, const struct virtio_class *class)
{
	memset(f, 0, sizeof(*f));
	memset(f->fd, 0xff, sizeof(f->fd));
	f->class = class;
	vd_init_host(&f->d);
	attach(f);
}

void devfix_replace(struct devfix *f)
{
	virtio_free(f->d.dev);
	attach(f);
}

void devfix_done(struct devfix *f)
{
	virtio_free(f->d.dev);
	f->d.dev = NULL;
	console_free(f->console);
	vd_done(&f->d);
	for (unsigned i = 0; i < ARRAY_LEN(f->fd); i++)
		io_close(f->fd[i]);
}
