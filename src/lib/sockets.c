// SPDX-License-Identifier: MIT
/*
 * sockets.c - Unix sockets in directories of any depth.
 *
 * A socket's address holds 107 bytes of path, and $MACHINEN_HOME may be longer.
 * So sockets are named through a descriptor of their directory, by way of
 * /proc/self/fd, which is short whatever the directory's path.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "lib/vm.h"

#define BACKLOG 128

static void address(struct sockaddr_un *a, int dir, const char *name)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%s", dir, name);
}

int socket_listen(int dir, const char *name, int type, struct err *err)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un a;

	address(&a, dir, name);
	/* before bind: the file must never be there with a wider mode */
	if (fd >= 0 && !fchmod(fd, 0600) &&
	    !bind(fd, (struct sockaddr *)&a, sizeof(a)) &&
	    !fchmodat(dir, name, 0600, 0) && !listen(fd, BACKLOG))
		return fd;
	err_set(err, errno, "cannot make the socket %s: %s", name, strerror(errno));
	io_close(fd);
	return -err->num;
}

int socket_connect(int dir, const char *name, int type, struct err *err)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un a;
	int num;

	address(&a, dir, name);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	num = errno;
	io_close(fd);
	return err_set(err, num, "cannot connect to the VM's %s socket: %s", name,
		       strerror(num));
}
