// SPDX-License-Identifier: MIT
/*
 * libtool.c - calls of the library that no command makes, for test scripts.
 *
 *	libtool secrets TARGET K=V...	sets secrets
 *	libtool memory TARGET		prints a line a number
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <machinen.h>

static int fail(const struct mn_error *err)
{
	fprintf(stderr, "%s: %s\n", mn_code_name(err->code), mn_error_message(err));
	return 1;
}

static int memory(struct mn_vm *vm, struct mn_error *err)
{
	MN_CONFIG(struct mn_memory, m);

	if (mn_vm_memory(vm, &m, err))
		return fail(err);
	printf("rss %" PRIu64 "\nceiling %" PRIu64 "\n", m.rss_bytes, m.ceiling_bytes);
	if (m.guest_known)
		printf("total %" PRIu64 "\nfree %" PRIu64 "\navailable %" PRIu64
		       "\ncache %" PRIu64 "\n", m.guest_total_bytes, m.guest_free_bytes,
		       m.guest_available_bytes, m.guest_cache_bytes);
	return 0;
}

int main(int argc, char **argv)
{
	struct mn_error err = { .code = MN_OK };
	struct mn_vm *vm;
	int ret = 2;

	if (argc < 3)
		return 2;
	if (mn_vm_open(argv[2], &vm, &err))
		return fail(&err);
	if (!strcmp(argv[1], "memory"))
		ret = memory(vm, &err);
	else if (!strcmp(argv[1], "secrets"))
		ret = mn_set_secrets(vm, (const char *const *)argv + 3, NULL, &err) ?
		      fail(&err) : 0;
	mn_vm_free(vm);
	return ret;
}
