// SPDX-License-Identifier: MIT
/*
 * boot.c - from the kernel's first user process to a usable system; see boot.h.
 *
 * The initramfs holds /init, /modules.list with the modules in load order,
 * /modules/NAME, and /config.  Root is the disk whose virtio serial the
 * configuration names.  A block device may appear after its driver's module is
 * loaded; the wait is for the kernel's uevents, not for time to pass.
 *
 * The switch to the real root mounts nothing by a path of that file system from
 * outside: after chroot symbolic links in the image resolve inside the image,
 * so the kernel's file systems are mounted anew there rather than moved.
 */
#include "guest/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "guest/guest.h"

#define BOOT_ROOT_WAIT_MS 20000	/* for a disk */
#define BOOT_NAME_WAIT_MS 1000	/* for the named one, when there is another */
#define BOOT_CONFIG_MAX (4u << 20)
#define BOOT_EXT4_RESIZE _IOW('f', 16, uint64_t)
#define BOOT_BLKGETSIZE64 _IOR(0x12, 114, size_t)

static _Noreturn void die(const struct guest *g, const char *what, int error)
{
	if (g->console >= 0)
		dprintf(g->console, "machinen: boot failed: %s: %s\n", what,
			strerror(error));
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void open_console(struct guest *g)
{
	int fd;

	if (g->console >= 0)
		close(g->console);
	g->console = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
	fd = g->console >= 0 ? g->console : open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (g->console < 0 && fd > 2)
		close(fd);
}

static void early_mounts(struct guest *g)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	open_console(g);
	g->kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
}

/* The whole file, NUL-terminated; NULL with errno. */
static char *read_whole(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	struct stat st;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && st.st_size <= BOOT_CONFIG_MAX &&
	    (text = malloc(st.st_size + 1))) {
		ssize_t n = read(fd, text, st.st_size);

		*len = n > 0 ? n : 0;
		text[*len] = '\0';
	}
	close(fd);
	return text;
}

static void load_config(struct guest *g)
{
	size_t len = 0;
	char *text = read_whole("/config", &len);
	int r = text ? doc_parse(&g->config, text, len) : 0;

	free(text);
	if (r)
		die(g, "configuration", -r);
}

static void load_module(const struct guest *g, const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/modules/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
		guest_log(g, "module %s: %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
	unlink(path);		/* the initramfs is memory */
}

static void load_modules(const struct guest *g)
{
	size_t len = 0;
	char *list = read_whole("/modules.list", &len), *save = NULL;

	for (char *name = list ? strtok_r(list, "\n", &save) : NULL; name;
	     name = strtok_r(NULL, "\n", &save))
		load_module(g, name);
	free(list);
}

static int uevent_open(void)
{
	struct sockaddr_nl any = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_KOBJECT_UEVENT);

	if (fd >= 0)
		bind(fd, (struct sockaddr *)&any, sizeof(any));
	return fd;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* False when nothing happened until the deadline. */
static bool uevent_wait(int fd, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t left = deadline - now_ms();
	char drop[4096];

	if (left <= 0 || poll(&p, 1, left) <= 0)
		return false;
	while (recv(fd, drop, sizeof(drop), 0) > 0)
		;
	return true;
}

/* The disk named by the configuration, or the first when none has the name. */
static void find_root(const struct guest *g, const char *serial, char *dev,
		      size_t size)
{
	int64_t start = now_ms();
	int fd = uevent_open();

	while (mounts_find_disk(serial, dev, size)) {
		bool other = !access("/dev/vda", F_OK);

		if (uevent_wait(fd, start + (other ? BOOT_NAME_WAIT_MS :
						     BOOT_ROOT_WAIT_MS)))
			continue;
		if (!other)
			die(g, "there is no root disk", ENODEV);
		snprintf(dev, size, "/dev/vda");
		break;
	}
	if (fd >= 0)
		close(fd);
}

/* Grows the mounted ext4 at "." to the size of its device. */
static void grow_root(const struct guest *g, const char *dev)
{
	int disk = open(dev, O_RDONLY | O_CLOEXEC);
	int dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t bytes = 0, blocks;
	struct statfs fs;

	if (disk >= 0 && dir >= 0 && !fstatfs(dir, &fs) && fs.f_bsize > 0 &&
	    !ioctl(disk, BOOT_BLKGETSIZE64, &bytes)) {
		blocks = bytes / fs.f_bsize;
		if (ioctl(dir, BOOT_EXT4_RESIZE, &blocks) && errno != ENOTTY)
			guest_log(g, "root disk not grown: %s", strerror(errno));
	}
	if (disk >= 0)
		close(disk);
	if (dir >= 0)
		close(dir);
}

static void mount_root(const struct guest *g)
{
	unsigned cfg = doc_get(&g->config, DOC_ROOT, "root");
	bool ro = doc_bool(&g->config, doc_get(&g->config, cfg, "ro"), false);
	const char *serial = doc_str(&g->config,
				     doc_get(&g->config, cfg, "serial"));
	const char *type = doc_str(&g->config, doc_get(&g->config, cfg, "type"));
	char dev[64];

	find_root(g, serial ? serial : "root", dev, sizeof(dev));
	mkdir("/root", 0755);
	if (mount(dev, "/root", type ? type : "ext4", ro ? MS_RDONLY : 0, NULL))
		die(g, "root disk cannot be mounted", errno);
	if (chdir("/root"))
		die(g, "root directory", errno);
	if (!ro)
		grow_root(g, dev);
}

/* The mounted root at "." becomes "/"; the initramfs is emptied below it. */
static void switch_root(const struct guest *g)
{
	unlink("/init");
	unlink("/config");
	unlink("/modules.list");
	rmdir("/modules");
	umount2("/dev", MNT_DETACH);
	umount2("/sys", MNT_DETACH);
	umount2("/proc", MNT_DETACH);
	if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die(g, "switch to the root disk", errno);
}

static void set_clock(const struct guest *g)
{
	int64_t ns = doc_int(&g->config,
			     doc_get(&g->config, DOC_ROOT, "time_ns"), 0);
	struct timespec now, then = { .tv_sec = ns / 1000000000,
				      .tv_nsec = ns % 1000000000 };

	/* kvmclock has the right time; this is for a machine without it */
	clock_gettime(CLOCK_REALTIME, &now);
	if (ns > 0 && now.tv_sec < then.tv_sec)
		clock_settime(CLOCK_REALTIME, &then);
}

static void load_defaults(struct guest *g)
{
	char **env = doc_strv(&g->config, doc_get(&g->config, DOC_ROOT, "env"));
	const char *cwd = doc_str(&g->config,
				  doc_get(&g->config, DOC_ROOT, "cwd"));

	for (char **e = env; e && *e; e++)
		if (guest_env_add(&g->env, *e))
			guest_log(g, "not an assignment: %s", *e);
	free(env);
	g->cwd = cwd ? strdup(cwd) : NULL;
}

void boot_system(struct guest *g)
{
	const char *name;

	umask(0);
	early_mounts(g);
	load_config(g);
	load_modules(g);
	open_console(g);	/* its driver may have been a module */
	mount_root(g);
	switch_root(g);
	mounts_system(g);
	umask(022);
	name = doc_str(&g->config, doc_get(&g->config, DOC_ROOT, "hostname"));
	if (name && sethostname(name, strlen(name)))
		guest_log(g, "host name %s: %s", name, strerror(errno));
	set_clock(g);
	load_defaults(g);
	net_up(g);
	mounts_config(g);
}
