// SPDX-License-Identifier: MIT
/*
 * accel.c - the table of CPU backends and the choice among them.
 *
 * `auto` takes the first row that works, and says so when that is not the first:
 * a slow VM must not be a riddle.  A backend that was asked for by name and does
 * not work is an error, never replaced.
 */
#include "vmm/accel.h"

#include <errno.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/limits.h"
#include "vmm/snapshot.h"

static const struct {
	enum spec_accel kind;
	const struct accel *accel;
} backends[] = {
	{ SPEC_ACCEL_KVM, &accel_kvm },
	{ SPEC_ACCEL_SOFT, &accel_soft },
};

static int probe(unsigned i, unsigned limit_ms, struct err *err)
{
	return backends[i].accel->probe ? backends[i].accel->probe(limit_ms, err) : 0;
}

static const struct accel *choose_auto(struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(backends); i++) {
		if (!probe(i, LIMIT_PROBE_MS, err))
			return backends[i].accel;
		log_info("accel", "%s is not usable: %s",
			 spec_accel_name(backends[i].kind), err_message(err));
	}
	err_wrap_code(err, ERR_BOOT_ACCEL_UNAVAILABLE, -ENOTSUP,
		      "no CPU backend works here");
	return NULL;
}

const struct accel *accel_choose(enum spec_accel want, struct err *err)
{
	struct err own = ERR_INIT;
	const struct accel *found = NULL;
	int ret;

	if (want == SPEC_ACCEL_AUTO)
		found = choose_auto(&own);
	for (unsigned i = 0; i < ARRAY_LEN(backends); i++) {
		if (backends[i].kind != want)
			continue;
		/* asked for by name: a loaded host may take its time */
		ret = probe(i, 20 * LIMIT_PROBE_MS, &own);
		if (!ret)
			return backends[i].accel;
		err_wrap_code(&own, ERR_BOOT_ACCEL_UNAVAILABLE, ret,
			      "the %s backend does not work here",
			      spec_accel_name(want));
	}
	if (!found && err)
		*err = own;
	return found;
}

void accel_report(FILE *out, const struct restore *restore)
{
	for (unsigned i = 0; i < ARRAY_LEN(backends); i++) {
		struct err err = ERR_INIT;
		struct cpu_model model;
		int ret = probe(i, LIMIT_PROBE_MS, &err);

		if (!ret && restore)
			ret = restore_model(restore, backends[i].accel, &model, &err);
		fprintf(out, "%s %s\n", spec_accel_name(backends[i].kind),
			ret ? err_message(&err) : "ok");
	}
}
