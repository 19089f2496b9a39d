// SPDX-License-Identifier: MIT
/*
 * policy.c - the filter in front of the NAT.
 *
 * The NAT opens sockets for what passes here, with the host user's rights, so this
 * is where a guest's reach is decided.  Judged are packets that begin something: a
 * TCP SYN, any UDP or ICMP packet.  Later TCP segments pass, since without a
 * connection the NAT answers them with a reset.
 *
 * Host names in rules work through DNS: a question for an allowed name passes to
 * the resolver, others are answered REFUSED, and the addresses in the answers to
 * allowed questions become allowed.  Answers come from the host's resolver on a
 * path the guest cannot write to.  (A rule that allows the resolver's address
 * itself lets every question pass.)
 *
 * Replies over UDP port forwards go to whoever sent the packet they answer, so
 * the last senders are remembered.  One on the host's loopback has the gateway's
 * address here, which is why libslirp is not told to keep the loopback closed (it
 * would drop these replies with everything else): keeping it closed is ours.
 *
 * Fragments never pass.  They hide their ports, and libslirp 4.7 can be made to
 * follow a pointer out of a fragment's payload when it puts a packet together
 * (tests/dev/test_slirp.c found it).  The guest's MTU is 65520, so it has no reason
 * to send any.  IPv4 options and TFTP go the same way: parsers nobody needs.
 */
#include "vmm/net/policy.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/limits.h"
#include "vmm/net/frame.h"
#include "vmm/net/nat.h"
#include "vmm/state.h"

#define MAX_LEARNED	1024u
#define MAX_PEERS	64
#define MAX_LOGGED	128
#define NAME_MAX_LEN	254

struct rule {
	char *host;		/* owned; NULL: net/bits */
	struct naddr net;
	unsigned bits;
	uint16_t port;		/* 0: any */
};

struct target {
	struct naddr addr;
	uint16_t port;		/* learned: 0 is any; logged: as sent */
	uint16_t guest_port;	/* of a UDP peer */
};

struct policy {
	bool active;		/* rules were given */
	bool host_loopback;	/* may be reached through the gateway's address */
	struct rule rule[LIMIT_NET_RULES];
	unsigned nr_rules;
	/* rings: the oldest entry gives way */
	struct target learned[MAX_LEARNED];
	unsigned nr_learned;
	struct target peer[MAX_PEERS];
	unsigned nr_peers;
	struct target logged[MAX_LOGGED];
	unsigned nr_logged;
};

/* --- rules ---------------------------------------------------------------------- */

static bool parse_num(const char *s, unsigned max, unsigned *out)
{
	char *end;
	unsigned long v;

	if (*s < '0' || *s > '9')
		return false;
	v = strtoul(s, &end, 10);
	*out = v;
	return !*end && v <= max;
}

/* Cuts ":PORT" off; a bare IPv6 address has colons of its own. */
static bool split_port(char *s, uint16_t *port)
{
	char *colon = strrchr(s, ':'), *end;
	unsigned num = 0;

	*port = 0;
	if (*s == '[') {
		end = strchr(s, ']');
		if (!end || (end[1] && end[1] != ':'))
			return false;
		colon = end[1] ? end + 1 : NULL;
		*end = '\0';
		memmove(s, s + 1, strlen(s + 1) + 1);
		if (colon && (!parse_num(colon + 1, 65535, &num) || !num))
			return false;
		*port = num;
		return true;
	}
	if (!colon || colon != strchr(s, ':'))
		return true;
	if (!parse_num(colon + 1, 65535, &num) || !num)
		return false;
	*colon = '\0';
	*port = num;
	return true;
}

static bool host_ok(const char *s)
{
	size_t len = strlen(s);

	if (!strncmp(s, "*.", 2))
		s += 2;
	return *s && len < NAME_MAX_LEN &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789-_.") == strlen(s);
}

/* False: not a rule.  s is taken apart. */
static bool parse_rule(struct rule *r, char *s)
{
	char *slash;
	unsigned max;

	if (!split_port(s, &r->port))
		return false;
	slash = strchr(s, '/');
	if (slash)
		*slash = '\0';
	if (naddr_parse(&r->net, s)) {
		max = naddr_is4(&r->net) ? 32 : 128;
		r->bits = max;
		if (slash && !parse_num(slash + 1, max, &r->bits))
			return false;
		r->bits += 128 - max;
		return true;
	}
	/* a name's last dot is not in what is compared: see dns_name() */
	if (strlen(s) > 1 && s[strlen(s) - 1] == '.')
		s[strlen(s) - 1] = '\0';
	if (slash || !host_ok(s))
		return false;
	r->host = strdup(s);
	return r->host != NULL;
}

static int add_rule(struct policy *p, const char *text, struct err *err)
{
	char buf[NAME_MAX_LEN + 64];

	if (p->nr_rules == LIMIT_NET_RULES)
		return err_code(err, ERR_PARSE_FLAG_MALFORMED, E2BIG, "more than %u network rules", p->nr_rules);
	if (strlen(text) >= sizeof(buf))
		return err_code(err, ERR_PARSE_FLAG_MALFORMED, EINVAL, "network rule too long");
	strcpy(buf, text);
	if (!parse_rule(&p->rule[p->nr_rules], buf))
		return err_code(err, ERR_PARSE_FLAG_MALFORMED, EINVAL,
				"\"%s\" is no network rule: HOST or CIDR, then :PORT or nothing", text);
	p->nr_rules++;
	return 0;
}

struct policy *policy_new(char *const *rules, bool host_loopback, struct err *err)
{
	struct policy *p = calloc(1, sizeof(*p));
	int ret = p ? 0 : err_set(err, ENOMEM, "out of memory");

	if (p) {
		p->active = rules != NULL;
		p->host_loopback = host_loopback;
	}
	for (unsigned i = 0; !ret && rules && rules[i]; i++)
		ret = add_rule(p, rules[i], err);
	if (!ret)
		return p;
	policy_free(p);
	return NULL;
}

void policy_free(struct policy *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < LIMIT_NET_RULES; i++)
		free(p->rule[i].host);
	free(p);
}

/* --- tables ----------------------------------------------------------------------- */

static bool in_table(const struct target *t, unsigned nr, unsigned max,
		     const struct naddr *addr, uint16_t port, uint16_t guest_port)
{
	for (unsigned i = 0; i < MIN(nr, max); i++)
		if (naddr_eq(&t[i].addr, addr) && (!t[i].port || t[i].port == port) &&
		    t[i].guest_port == guest_port)
			return true;
	return false;
}

/* Newest over oldest. */
static void remember(struct target *t, unsigned *nr, unsigned max, struct target what)
{
	t[(*nr)++ % max] = what;
}

/*
 * What libslirp makes the host's loopback of: in 4.7 the gateway, the broadcast
 * address, all of fec0::/64 and ff02::1, in older versions all of 10.0.2.0/24.
 */
static bool is_loopback(const struct naddr *a)
{
	static const struct naddr all_nodes = { { 0xff, 0x02, [15] = 1 } };
	struct naddr broadcast = naddr4(255, 255, 255, 255);

	return nat_is_inside(a) || naddr_eq(a, &broadcast) || naddr_eq(a, &all_nodes);
}

static void log_refusal(struct policy *p, const struct frame *f)
{
	char text[46];

	if (p->nr_logged > MAX_LOGGED ||
	    (p->nr_logged && in_table(p->logged, p->nr_logged, MAX_LOGGED, &f->dst, f->dport, f->proto)))
		return;
	if (p->nr_logged == MAX_LOGGED) {
		p->nr_logged++;
		log_warn("net", "more targets refused; no more of them are logged");
		return;
	}
	remember(p->logged, &p->nr_logged, MAX_LOGGED,
		 (struct target){ f->dst, f->dport, f->proto });
	naddr_print(&f->dst, text);
	if (f->proto == IP_TCP || f->proto == IP_UDP)
		log_warn("net", "refused: %s to %s port %u%s",
			 f->proto == IP_TCP ? "TCP" : "UDP", text, f->dport,
			 p->host_loopback || !is_loopback(&f->dst) ? "" :
			 ", which is the host's loopback");
	else
		log_warn("net", "refused: ICMP to %s", text);
}

/* --- DNS ---------------------------------------------------------------------------- */

/*
 * The name at *pos of a message into `out`, as dotted text; *pos moves behind it.
 * Questions are never compressed; pointers in answers are only skipped.
 */
static bool dns_name(const uint8_t *msg, size_t len, size_t *pos, char *out)
{
	size_t n = 0, at = *pos;

	while (at < len && msg[at]) {
		uint8_t label = msg[at++];

		if ((label & 0xc0) == 0xc0) {
			*pos = at + 1;
			return !out && at < len;
		}
		if (label > 63 || label > len - at || n + label + 2 > NAME_MAX_LEN)
			return false;
		if (out)
			memcpy(out + n, msg + at, label);
		n += label;
		if (out)
			out[n] = '.';
		n++;
		at += label;
	}
	if (at >= len)
		return false;
	if (out)
		out[n ? n - 1 : 0] = '\0';
	*pos = at + 1;
	return !out || (n && strlen(out) == n - 1);
}

static bool host_matches(const char *rule, const char *name)
{
	size_t len = strlen(name), want;

	if (strncmp(rule, "*.", 2))
		return !strcasecmp(rule, name);
	rule++;		/* ".example.org" */
	want = strlen(rule);
	return len > want && !strcasecmp(name + len - want, rule);
}

static const struct rule *rule_for_name(const struct policy *p, const char *name, unsigned from)
{
	for (unsigned i = from; i < p->nr_rules; i++)
		if (p->rule[i].host && host_matches(p->rule[i].host, name))
			return &p->rule[i];
	return NULL;
}

/* The one question of a message; false when it has none or several. */
static bool dns_question(const struct frame *f, char name[NAME_MAX_LEN], size_t *pos)
{
	const uint8_t *msg = f->l4 + 8;
	size_t len = f->l4_len - 8;

	if (f->l4_len < 8 + 12 || msg[4] || msg[5] != 1)
		return false;
	*pos = 12;
	if (!dns_name(msg, len, pos, name) || len - *pos < 4)
		return false;
	*pos += 4;
	return true;
}

static void learn_address(struct policy *p, const char *name, const struct naddr *a)
{
	const struct rule *r = rule_for_name(p, name, 0);

	for (; r; r = rule_for_name(p, name, r - p->rule + 1))
		if (!in_table(p->learned, p->nr_learned, MAX_LEARNED, a, r->port, 0))
			remember(p->learned, &p->nr_learned, MAX_LEARNED,
				 (struct target){ .addr = *a, .port = r->port });
}

/* Each address record of an answer to an allowed question (RFC 1035, 4.1.3). */
static void learn_answers(struct policy *p, const struct frame *f)
{
	const uint8_t *msg = f->l4 + 8;
	size_t len = f->l4_len - 8, pos;
	char name[NAME_MAX_LEN];
	unsigned left;

	if (!dns_question(f, name, &pos) || !rule_for_name(p, name, 0))
		return;
	for (left = msg[6] << 8 | msg[7]; left; left--) {
		unsigned type, size;
		struct naddr a;

		if (!dns_name(msg, len, &pos, NULL) || len < pos + 10)
			return;
		type = msg[pos] << 8 | msg[pos + 1];
		size = msg[pos + 8] << 8 | msg[pos + 9];
		pos += 10;
		if (size > len - pos)
			return;
		if (type == 1 && size == 4)
			a = naddr4(msg[pos], msg[pos + 1], msg[pos + 2], msg[pos + 3]);
		else if (type == 28 && size == 16)
			memcpy(a.b, msg + pos, 16);
		pos += size;
		if ((type == 1 && size == 4) || (type == 28 && size == 16))
			learn_address(p, name, &a);
	}
}

static bool allowed_by_rule(const struct policy *p, const struct naddr *a, uint16_t port)
{
	for (unsigned i = 0; i < p->nr_rules; i++) {
		const struct rule *r = &p->rule[i];

		if (!r->host && naddr_in(a, &r->net, r->bits) &&
		    (!r->port || r->port == port))
			return true;
	}
	return in_table(p->learned, p->nr_learned, MAX_LEARNED, a, port, 0);
}

/* The guest needs nobody to have spoken to it first. */
static bool may_begin(const struct policy *p, const struct naddr *a, uint16_t port)
{
	return (p->host_loopback || !is_loopback(a)) &&
	       (!p->active || allowed_by_rule(p, a, port));
}

void policy_learn(struct policy *p, const struct frame *f)
{
	if ((f->type != ETH_IP4 && f->type != ETH_IP6) || f->proto != IP_UDP || f->fragment)
		return;
	if (nat_is_dns(&f->src) && f->sport == 53)
		learn_answers(p, f);
	else if (!may_begin(p, &f->src, f->sport) &&
		 !in_table(p->peer, p->nr_peers, MAX_PEERS, &f->src, f->sport, f->dport))
		remember(p->peer, &p->nr_peers, MAX_PEERS,
			 (struct target){ f->src, f->sport, f->dport });
}

/* --- state ----------------------------------------------------------------------------- */

void policy_save(const struct policy *p, struct state_w *w)
{
	unsigned nr = MIN(p->nr_learned, MAX_LEARNED);

	state_put_u32(w, nr);
	for (unsigned i = 0; i < nr; i++) {
		state_put_bytes(w, p->learned[i].addr.b, sizeof(p->learned[i].addr.b));
		state_put_u16(w, p->learned[i].port);
	}
}

/* A bundle that lies here could as well lie about the rules, which it also holds. */
void policy_load(struct policy *p, struct state_r *r)
{
	uint32_t nr = state_get_u32(r);

	if (nr > MAX_LEARNED)
		r->bad = true;
	p->nr_learned = 0;
	while (nr-- && !r->bad) {
		struct target t = { .port = 0 };

		state_get_bytes(r, t.addr.b, sizeof(t.addr.b));
		t.port = state_get_u16(r);
		if (p->active && !r->bad)
			remember(p->learned, &p->nr_learned, MAX_LEARNED, t);
	}
}

/* --- verdicts ------------------------------------------------------------------------- */

/* Addresses that mean the host itself, or nobody, when a socket gets them. */
static bool is_forbidden(const struct frame *f)
{
	static const struct {
		struct naddr net;
		unsigned bits;
	} v4[] = {
		{ { { [10] = 0xff, [11] = 0xff, [12] = 127 } }, 104 },
		{ { { [10] = 0xff, [11] = 0xff } }, 104 },	/* 0.0.0.0/8 */
	};
	static const struct naddr v6_low;	/* ::/96: unspecified, loopback, old */

	if (f->v6)
		return naddr_is4(&f->dst) || naddr_in(&f->dst, &v6_low, 96);
	for (unsigned i = 0; i < ARRAY_LEN(v4); i++)
		if (naddr_in(&f->dst, &v4[i].net, v4[i].bits))
			return true;
	return false;
}

/* What keeps the link itself going: DHCP, neighbours, routers, the gateway's echo. */
static bool is_housekeeping(const struct frame *f)
{
	static const struct naddr link_local = { { 0xfe, 0x80 } };
	static const struct naddr multicast = { { 0xff, 0x02 } };
	struct naddr gateway = naddr4(10, 0, 2, 2), broadcast = naddr4(255, 255, 255, 255);

	if (f->proto == IP_UDP)
		return f->dport == 67 &&
		       (naddr_eq(&f->dst, &gateway) || naddr_eq(&f->dst, &broadcast));
	if (f->proto == IP_ICMP6)
		return naddr_in(&f->dst, &link_local, 10) ||
		       naddr_in(&f->dst, &multicast, 16) || nat_is_inside(&f->dst);
	return f->proto == IP_ICMP && nat_is_inside(&f->dst);
}

/* Names are guest text: only what can stand in a host name is shown. */
static void log_name(struct policy *p, char *name)
{
	struct target t = { .port = 53, .guest_port = 1 };
	uint64_t h[2] = { 14695981039346656037ull, 1 };

	for (char *s = name; *s; s++) {
		h[0] = (h[0] ^ (uint8_t)*s) * 1099511628211ull;
		h[1] = h[1] * 31 + (uint8_t)*s;
		if (*s <= ' ' || *s >= 127)
			*s = '?';
	}
	memcpy(t.addr.b, h, sizeof(t.addr.b));
	if (p->nr_logged >= MAX_LOGGED ||
	    in_table(p->logged, p->nr_logged, MAX_LOGGED, &t.addr, 53, 1))
		return;
	remember(p->logged, &p->nr_logged, MAX_LOGGED, t);
	log_warn("net", "refused: DNS for %s", name);
}

static enum policy_verdict by_name(struct policy *p, const struct frame *f)
{
	char name[NAME_MAX_LEN];
	size_t pos;

	if (!dns_question(f, name, &pos)) {
		log_refusal(p, f);
		return POLICY_DROP;
	}
	if (rule_for_name(p, name, 0))
		return POLICY_PASS;
	log_name(p, name);
	return POLICY_REFUSE;
}

static enum policy_verdict by_rules(struct policy *p, const struct frame *f)
{
	if (f->proto == IP_TCP && (f->flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return POLICY_PASS;
	if (is_housekeeping(f) || may_begin(p, &f->dst, f->dport))
		return POLICY_PASS;
	if (f->proto == IP_UDP &&
	    in_table(p->peer, p->nr_peers, MAX_PEERS, &f->dst, f->dport, f->sport))
		return POLICY_PASS;
	if (nat_is_dns(&f->dst) && (!p->active || allowed_by_rule(p, &f->dst, f->dport)))
		return POLICY_PASS;	/* not the loopback: policy_check() saw to the port */
	if (f->proto == IP_UDP && nat_is_dns(&f->dst))
		return by_name(p, f);
	log_refusal(p, f);
	return POLICY_REFUSE;
}

enum policy_verdict policy_check(struct policy *p, const struct frame *f)
{
	if (f->type == ETH_ARP)
		return POLICY_PASS;
	if (f->type != ETH_IP4 && f->type != ETH_IP6)
		return POLICY_DROP;
	if (f->proto != IP_TCP && f->proto != IP_UDP &&
	    f->proto != (f->v6 ? IP_ICMP6 : IP_ICMP))
		return POLICY_DROP;
	if (f->fragment || f->options)
		return POLICY_DROP;
	if (is_forbidden(f)) {
		log_refusal(p, f);
		return POLICY_DROP;
	}
	if (nat_is_dns(&f->dst) && f->dport != 53 &&
	    (f->proto == IP_TCP || f->proto == IP_UDP)) {
		log_refusal(p, f);
		return POLICY_REFUSE;
	}
	if (nat_is_inside(&f->dst) && f->proto == IP_UDP && f->dport == 69)
		return POLICY_DROP;
	return by_rules(p, f);
}
