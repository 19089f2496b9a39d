// SPDX-License-Identifier: MIT
/* boot_exec.c - boots a VM, runs a command in it, ends it. */
#include <stdio.h>

#include <machinen.h>

static int on_output(const struct mn_event *ev, void *arg)
{
	if (ev->type == MN_EVENT_STDOUT)
		fwrite(ev->data, 1, ev->len, stdout);
	return 0;
}

static int fail(const struct mn_error *err)
{
	fprintf(stderr, "%s: %s\n", mn_code_name(err->code), mn_error_message(err));
	return 1;
}

int main(void)
{
	const char *const argv[] = { "uname", "-sr", NULL };
	MN_CONFIG(struct mn_boot, boot);
	MN_CONFIG(struct mn_exec, exec);
	struct mn_error err = { .code = MN_OK };
	struct mn_exit end;
	struct mn_vm *vm;
	int ret;

	boot.name = "example";
	if (mn_boot(&boot, &vm, &err))
		return fail(&err);
	exec.argv = argv;
	exec.event = on_output;
	ret = mn_exec(vm, &exec, &end, &err);
	mn_vm_free(vm);		/* not detached: this ends it */
	return ret ? fail(&err) : end.status;
}
