/* SPDX-License-Identifier: MIT */
/*
 * verdict.h - what the probe of a CPU backend found, remembered between VMs.
 * For accel.c.
 *
 * The file is the user's own, opened by the library in the user's home and given as
 * role "verdict".  It holds one verdict, and what that depends on as one line of
 * text, so that another kernel, boot or device does not match and is probed anew.
 */
#ifndef VMM_VERDICT_H
#define VMM_VERDICT_H

#include <stdbool.h>

#define VERDICT_IDENTITY_MAX 256

struct err;

/*
 * True when fd holds a verdict for this identity: *ret is 0, or negative with err
 * saying why not.  A file that others could have written, or that is
 * torn, holds none.
 */
bool verdict_get(int fd, const char *identity, int *ret, struct err *err);
/* Best effort: a verdict that is not remembered costs a probe. */
void verdict_put(int fd, const char *identity, int ret, const struct err *err);

#endif
