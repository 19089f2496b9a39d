/* SPDX-License-Identifier: MIT */
/*
 * policy.h - which frames of the guest may go out.
 *
 * Always: nothing reaches the host's loopback by its own addresses (by the
 * gateway's only where that was asked for), and the resolver answers DNS only.  With rules (HOST|CIDR[:PORT]): what they do
 * not name is refused.
 */
#ifndef VMM_NET_POLICY_H
#define VMM_NET_POLICY_H

#include <stdbool.h>

struct err;
struct frame;
struct policy;
struct state_r;
struct state_w;

enum policy_verdict {
	POLICY_PASS,
	POLICY_DROP,
	POLICY_REFUSE,		/* drop, and say so to the guest */
};

/*
 * rules: NULL-terminated, or NULL for none.  host_loopback: the gateway's address is
 * the host's loopback, and open; else it is reached by nothing but answers.
 */
struct policy *policy_new(char *const *rules, bool host_loopback, struct err *err);
void policy_free(struct policy *p);

enum policy_verdict policy_check(struct policy *p, const struct frame *f);
/* A frame on its way to the guest: DNS answers teach host names' addresses. */
void policy_learn(struct policy *p, const struct frame *f);

/* What was learned: a program asks for a name once and then keeps the address. */
void policy_save(const struct policy *p, struct state_w *w);
void policy_load(struct policy *p, struct state_r *r);

#endif
