// SPDX-License-Identifier: MIT
/* cmd_boot.c - machinen boot */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/resume.h"

#define POWEROFF_MS 10000	/* for a guest whose command has ended */
#define PORTS_MAX   65		/* one more than a VM may have: the library says so */
#define MOUNTS_MAX  17		/* likewise */

struct opts {
	const char *image, *name, *cwd, *accel, *engine, *cpu, *kernel, *initrd, *append;
	struct opt_list env, mount, publish, net_allow, cmd;
	uint64_t memory, cpus, disk_size, timeout;
	bool detach, tty, no_net, host_loopback, json;
};

static enum mn_accel accel_of(const char *name)
{
	return !name || !strcmp(name, "auto") ? MN_ACCEL_AUTO :
	       !strcmp(name, "kvm") ? MN_ACCEL_KVM : MN_ACCEL_SOFT;
}

static int parse_mounts(const struct opts *o, struct mn_mount *m, char **text)
{
	for (unsigned i = 0; i < o->mount.nr && i < MOUNTS_MAX; i++) {
		int ret = path_pair(o->mount.v[i], MN_BOOT_MOUNT_INVALID, o->json,
				    &text[i], &m[i].host, &m[i].guest);

		if (ret)
			return ret;
	}
	return 0;
}

static int boot(const struct opts *o, struct mn_vm **vm, struct work *w)
{
	struct mn_port ports[PORTS_MAX];
	struct mn_mount mounts[MOUNTS_MAX];
	char *text[MOUNTS_MAX] = { NULL };
	MN_CONFIG(struct mn_boot, cfg);
	const char *accel = o->accel ? o->accel : getenv("MACHINEN_ACCEL");
	struct mn_error err = { .code = MN_OK };
	int ret;

	for (unsigned i = 0; i < o->publish.nr && i < PORTS_MAX; i++) {
		ret = port_parse(o->publish.v[i], &ports[i], o->json);
		if (ret)
			return ret;
		cfg.nr_ports++;
	}
	cfg.ports = ports;
	cfg.mounts = mounts;
	cfg.nr_mounts = o->mount.nr < MOUNTS_MAX ? o->mount.nr : MOUNTS_MAX;
	cfg.image = o->image;
	cfg.name = o->name;
	cfg.env = o->env.v;
	cfg.cwd = o->cwd;
	cfg.memory_mib = o->memory;
	cfg.cpus = o->cpus;
	cfg.disk_size = o->disk_size;
	cfg.accel = accel_of(accel);
	cfg.engine = o->engine;
	cfg.cpu_model = o->cpu;
	cfg.kernel = o->kernel;
	cfg.initrd = o->initrd;
	cfg.append = o->append;
	cfg.no_net = o->no_net;
	cfg.net_allow = o->net_allow.nr ? o->net_allow.v : NULL;
	cfg.net_host_loopback = o->host_loopback;
	cfg.detach = o->detach;
	cfg.timeout_ms = o->timeout * 1000;
	cfg.cmd = o->detach ? o->cmd.v : NULL;
	cfg.need_cmd = o->detach ? !o->cmd.nr : !o->cmd.nr && !terminal_both();
	cfg.event = work_event;
	cfg.event_arg = w;
	ret = parse_mounts(o, mounts, text);
	if (!ret && mn_boot(&cfg, vm, &err)) {
		progress_end(&w->progress);
		ret = work_signal() ? work_signal() : out_error(&err, o->json);
	}
	for (unsigned i = 0; i < MOUNTS_MAX; i++)
		free(text[i]);
	return ret;
}

static int tell(const struct opts *o, struct mn_vm *vm)
{
	const char *name = mn_vm_name(vm);

	if (o->json)
		return out_json(json_pack("{s:b, s:i, s:s?}", "ok", 1, "pid",
					  (int)mn_vm_pid(vm), "name", name));
	if (name)
		puts(name);
	else
		printf("%d\n", mn_vm_pid(vm));
	return 0;
}

/* CMD, what is baked in, or a login shell. */
static int run_main(const struct opts *o, struct mn_vm *vm)
{
	MN_CONFIG(struct mn_exec, cfg);
	int status = 0, ret, log = mn_vm_log(vm, NULL);

	cfg.argv = o->cmd.nr ? o->cmd.v : mn_vm_baked_cmd(vm);
	cfg.tty = o->tty || terminal_both();
	cfg.main = true;
	ret = terminal_exec(vm, &cfg, false, &status);
	if (!ret)
		mn_vm_wait(vm, POWEROFF_MS, NULL);
	console_refusals(log);
	return ret ? ret : status;
}

static int run(const void *v)
{
	const struct opts *o = v;
	struct mn_vm *vm = NULL;
	struct work w;
	int ret;

	if (o->json && !o->detach)
		return out_usage_error(MN_PARSE_FLAG_MALFORMED, true,
				       "--json needs --detach: the output is the command's");
	if (o->detach && o->tty)
		return out_usage_error(MN_PARSE_FLAG_MALFORMED, o->json,
				       "--tty and --detach exclude each other; use attach later");
	work_begin(&w);
	ret = boot(o, &vm, &w);
	json_decref(work_end(&w));
	if (!ret)
		ret = o->detach ? tell(o, vm) : run_main(o, vm);
	mn_vm_free(vm);
	return ret;
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_boot = {
	.opt = {
		.name = "boot",
		.summary = "Boot a VM and run a command in it",
		.details = "Without IMAGE the installed base boots; without CMD what the image bakes in\n"
			   "runs, else a login shell.  The VM ends when CMD ends, and machinen with CMD's\n"
			   "exit status.  With --detach CMD's output goes to the console (machinen logs).",
		.examples = "  machinen boot -- uname -a\n"
			    "  machinen boot\n"
			    "  machinen boot -d --name web --env A=1 -- sleep infinity",
		.json = "ok, pid, name",
		.args = (const struct opt_arg[]){
			{ .name = "IMAGE", .optional = true, OFF(image),
			  .help = "root file system archive (.tar, .tar.gz, .tar.zst)",
			  .words = OPT_WORDS_FILE },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			{ .name = "name", .kind = OPT_STRING, OFF(name), .meta = "NAME",
			  .help = "registered name, unique among running VMs; a/b/c is fine" },
			{ .name = "mount", .kind = OPT_LIST, OFF(mount),
			  .meta = "HOST:GUEST", .words = OPT_WORDS_FILE,
			  .help = "copy of a host directory at GUEST below /mnt/, written in the VM alone; repeatable" },
			{ .name = "env", .kind = OPT_LIST, OFF(env), .meta = "K=V",
			  .help = "environment of every command; repeatable" },
			{ .name = "cwd", .kind = OPT_STRING, OFF(cwd), .meta = "DIR",
			  .help = "working directory in the guest, absolute" },
			{ .name = "publish", .letter = 'p', .kind = OPT_LIST, OFF(publish),
			  .meta = "[ADDR:]HOST:GUEST[/tcp|udp]",
			  .help = "forward a host port (0: any free one) to the guest; on 127.0.0.1 unless told otherwise; repeatable" },
			{ .name = "memory", .kind = OPT_UINT, OFF(memory), .meta = "MIB",
			  .help = "ceiling of the guest's memory, committed as it is touched",
			  .def = "half the host's, at most 16384" },
			{ .name = "cpus", .kind = OPT_UINT, OFF(cpus), .meta = "N",
			  .min = 1, .max = 16, .help = "CPUs of the guest", .def = "1" },
			{ .name = "disk-size", .kind = OPT_SIZE, OFF(disk_size), .meta = "SIZE",
			  .help = "size of the root disk, sparse",
			  .def = "2G or 2.5 times its content" },
			{ .name = "accel", .kind = OPT_CHOICE, OFF(accel),
			  .meta = "auto|kvm|soft", .words = OPT_WORDS_CHOICE,
			  .help = "CPU backend; auto is KVM where it really runs guests",
			  .def = "auto" },
			{ .name = "engine", .kind = OPT_CHOICE, OFF(engine),
			  .meta = "interp|jit", .words = OPT_WORDS_CHOICE,
			  .help = "engine of the software CPU", .def = "the fastest" },
			{ .name = "cpu", .kind = OPT_CHOICE, OFF(cpu),
			  .meta = "portable|host", .words = OPT_WORDS_CHOICE,
			  .help = "CPU model that the guest sees", .def = "portable" },
			{ .name = "detach", .alias = "detached", .letter = 'd',
			  .kind = OPT_SWITCH, OFF(detach),
			  .help = "return when the guest is ready; the VM lives on" },
			{ .name = "tty", .letter = 't', .kind = OPT_SWITCH, OFF(tty),
			  .help = "give CMD a terminal",
			  .def = "when stdin and stdout are terminals" },
			{ .name = "kernel", .kind = OPT_STRING, OFF(kernel), .meta = "FILE",
			  .words = OPT_WORDS_FILE, .help = "another kernel" },
			{ .name = "initrd", .kind = OPT_STRING, OFF(initrd), .meta = "FILE",
			  .words = OPT_WORDS_FILE, .help = "an extra initramfs" },
			{ .name = "append", .kind = OPT_STRING, OFF(append), .meta = "TEXT",
			  .help = "more for the kernel's command line" },
			{ .name = "no-net", .kind = OPT_SWITCH, OFF(no_net),
			  .help = "no network device" },
			{ .name = "net-allow", .kind = OPT_LIST, OFF(net_allow),
			  .meta = "HOST|CIDR[:PORT]",
			  .help = "the guest may reach this and what else is allowed, nothing more; *.HOST is fine; repeatable",
			  .def = "everything" },
			{ .name = "net-host-loopback", .kind = OPT_SWITCH, OFF(host_loopback),
			  .help = "the guest reaches the host's loopback as 10.0.2.2" },
			{ .name = "timeout", .kind = OPT_UINT, OFF(timeout), .meta = "S",
			  .min = 1, .max = 86400, .def = "60",
			  .help = "seconds until the guest must be ready" },
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.literal = offsetof(struct opts, cmd) + 1,
		.literal_meta = "CMD...",
		.size = sizeof(struct opts),
	},
	.run = run,
};
