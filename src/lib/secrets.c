// SPDX-License-Identifier: MIT
/*
 * secrets.c - KEY=VALUE pairs for a VM, over the agent.
 *
 * They reach the guest in one request and stay in its memory: nothing of them is
 * written on the host.  Each is a line of a file there, so none may hold a line
 * feed; and a key has to be one that every shell can name.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "lib/agent_client.h"
#include "lib/vm.h"

/* The value is told to nobody, in errors neither. */
static int check(const char *s, struct err *err)
{
	size_t key = strcspn(s, "=");

	for (size_t i = 0; i < key; i++)
		if (s[i] != '_' && !isalpha((unsigned char)s[i]) &&
		    (!i || !isdigit((unsigned char)s[i])))
			return err_code(err, ERR_SECRETS_VALUE_INVALID, EINVAL,
					"a secret's key has letters, digits and _ alone");
	if (!key || !s[key])
		return err_code(err, ERR_SECRETS_VALUE_INVALID, EINVAL,
				"a secret is KEY=VALUE");
	if (strchr(s, '\n'))
		return err_code(err, ERR_SECRETS_VALUE_INVALID, EINVAL,
				"the value of secret %.*s has a line feed; encode it",
				(int)MIN(key, (size_t)64), s);
	return 0;
}

static int set_secrets(struct mn_vm *vm, const char *const *secrets,
		       const char *guest, struct err *err)
{
	cleanup(json_putp) json_t *req = json_pack("{s:s, s:[]}", "op", "secrets",
						   "env");
	json_t *env = json_object_get(req, "env");
	int ret;

	for (; *secrets; secrets++) {
		ret = check(*secrets, err);
		if (ret)
			return ret;
		if (json_array_append_new(env, json_string(*secrets)))
			return err_code(err, ERR_SECRETS_VALUE_INVALID, EILSEQ,
					"a secret is not UTF-8 text; encode it");
	}
	if (guest)
		json_put(&req, "path", json_string(guest));
	ret = agent_request(vm->dir, vm->pidfd, req, NULL, err);
	if (ret < 0)
		return ret;
	close(ret);
	return 0;
}

int mn_set_secrets(struct mn_vm *vm, const char *const *secrets, const char *guest,
		   struct mn_error *err)
{
	struct err e = ERR_INIT;

	return lib_return(err, &e, set_secrets(vm, secrets, guest, &e));
}
