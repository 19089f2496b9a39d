// SPDX-License-Identifier: MIT
/*
 * accel.c - the table of CPU backends and the choice among them.
 *
 * `auto` takes the first row that works, and says so when that is not the first:
 * a slow VM must not be a riddle.  A backend that was asked for by name and does
 * not work is an error, never replaced; it is probed even when it is remembered not to
 * work, because the verdict was given in less time.
 */
#include "vmm/accel.h"

#include <errno.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/limits.h"
#include "vmm/snapshot.h"
#include "vmm/verdict.h"

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

/* The probe's answer, from memory where there is one. */
static int recall(unsigned i, int verdict_fd, struct err *err)
{
	const struct accel *a = backends[i].accel;
	char identity[VERDICT_IDENTITY_MAX];
	bool known = a->identity && !a->identity(identity, sizeof(identity));
	int ret;

	if (known && verdict_get(verdict_fd, identity, &ret, err)) {
		log_debug("accel", "%s: the verdict is remembered", a->name);
		return ret;
	}
	ret = probe(i, LIMIT_PROBE_MS, err);
	if (known)
		verdict_put(verdict_fd, identity, ret, err);
	return ret;
}

static const struct accel *choose_auto(int verdict_fd, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(backends); i++) {
		if (!recall(i, verdict_fd, err))
			return backends[i].accel;
		log_info("accel", "%s is not usable: %s",
			 spec_accel_name(backends[i].kind), err_message(err));
	}
	err_wrap_code(err, ERR_BOOT_ACCEL_UNAVAILABLE, -ENOTSUP,
		      "no CPU backend works here");
	return NULL;
}

static const struct accel *choose_named(enum spec_accel want, int verdict_fd,
					struct err *err)
{
	unsigned i = 0;
	int ret;

	while (backends[i].kind != want)
		i++;
	if (!recall(i, verdict_fd, err))
		return backends[i].accel;
	/* asked for by name: a loaded host may take its time */
	ret = probe(i, 20 * LIMIT_PROBE_MS, err);
	if (!ret)
		return backends[i].accel;
	err_wrap_code(err, ERR_BOOT_ACCEL_UNAVAILABLE, ret,
		      "the %s backend does not work here", spec_accel_name(want));
	return NULL;
}

const struct accel *accel_choose(enum spec_accel want, int verdict_fd, struct err *err)
{
	struct err own = ERR_INIT;
	const struct accel *found = want == SPEC_ACCEL_AUTO ?
				    choose_auto(verdict_fd, &own) :
				    choose_named(want, verdict_fd, &own);

	if (!found && err)
		*err = own;
	return found;
}

int accel_check_cpus(const struct accel *accel, unsigned cpus, struct err *err)
{
	if (!accel->max_cpus || cpus <= accel->max_cpus)
		return 0;
	return err_code(err, ERR_BOOT_ACCEL_UNAVAILABLE, ENOTSUP,
			"the %s backend runs %u CPU, not %u: more need KVM",
			accel->name, accel->max_cpus, cpus);
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
