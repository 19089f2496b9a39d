// SPDX-License-Identifier: MIT
/* Frames taken apart, and which of them may leave. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/util.h"
#include "vmm/net/frame.h"
#include "vmm/net/policy.h"
#include "vmm/state.h"

#define R(s) ((char *)(uintptr_t)(s))	/* rules are not written to */

static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };

static struct naddr addr(const char *s)
{
	struct naddr a;

	assert_true(naddr_parse(&a, s));
	return a;
}

/* A frame with `len` bytes of payload above IP; parsed. */
static struct frame make(uint8_t *buf, const char *src, const char *dst, uint8_t proto,
			 uint16_t sport, uint16_t dport, const void *data, size_t len)
{
	struct naddr s = addr(src), t = addr(dst);
	bool v6 = !naddr_is4(&t);
	size_t l4 = (proto == IP_TCP ? 20 : 8) + len;
	uint8_t *ip = buf + ETH_HDR, *p;
	struct frame f;

	memset(buf, 0, ETH_HDR + 60);
	memcpy(buf + 6, mac, 6);
	buf[12] = v6 ? 0x86 : 0x08;
	buf[13] = v6 ? 0xdd : 0x00;
	if (v6) {
		ip[0] = 0x60;
		ip[4] = l4 >> 8;
		ip[5] = l4;
		ip[6] = proto;
		memcpy(ip + 8, s.b, 16);
		memcpy(ip + 24, t.b, 16);
		p = ip + 40;
	} else {
		ip[0] = 0x45;
		ip[2] = (20 + l4) >> 8;
		ip[3] = 20 + l4;
		ip[9] = proto;
		memcpy(ip + 12, s.b + 12, 4);
		memcpy(ip + 16, t.b + 12, 4);
		p = ip + 20;
	}
	memset(p, 0, l4);
	p[0] = sport >> 8;
	p[1] = sport;
	p[2] = dport >> 8;
	p[3] = dport;
	if (proto == IP_TCP) {
		p[12] = 5 << 4;
		p[13] = TCP_SYN;
	} else {
		p[4] = l4 >> 8;
		p[5] = l4;
	}
	if (len)
		memcpy(p + l4 - len, data, len);
	assert_true(frame_parse(&f, buf, p + l4 - buf));
	return f;
}

static enum policy_verdict judge(struct policy *p, const char *dst, uint8_t proto, uint16_t port)
{
	uint8_t buf[256];
	struct frame f = make(buf, strchr(dst, ':') ? "fec0::15" : "10.0.2.15",
			      dst, proto, 1000, port, NULL, 0);

	return policy_check(p, &f);
}

static void cut_headers_are_refused(void **state)
{
	uint8_t buf[256];
	struct frame f;
	size_t full[] = { ETH_HDR + 40, ETH_HDR + 60 };

	for (unsigned v = 0; v < 2; v++) {
		make(buf, v ? "fec0::1" : "10.0.2.15", v ? "2001:db8::1" : "1.2.3.4",
		     IP_TCP, 1, 2, NULL, 0);
		for (size_t len = 0; len < full[v]; len++)
			assert_false(frame_parse(&f, buf, len));
		assert_true(frame_parse(&f, buf, full[v]));
		assert_true(frame_parse(&f, buf, full[v] + 6));	/* padding */
	}
	make(buf, "10.0.2.15", "1.2.3.4", IP_TCP, 1, 2, NULL, 0);
	buf[ETH_HDR] = 0x44;	/* header of 16 bytes */
	assert_false(frame_parse(&f, buf, 54));
	buf[ETH_HDR] = 0x4f;	/* longer than the packet says it is */
	assert_false(frame_parse(&f, buf, 54));
	buf[ETH_HDR] = 0x65;
	assert_false(frame_parse(&f, buf, 54));
}

static void made_segments_are_sound(void **state)
{
	static const char *const dst[] = { "10.0.2.15", "fec0::15" };
	static const char *const src[] = { "93.184.216.34", "2001:db8::9" };

	for (unsigned v = 0; v < 2; v++) {
		struct frame_tcp t = {
			.src = addr(src[v]), .dst = addr(dst[v]), .sport = 443,
			.dport = 40000, .seq = 0x01020304, .ack = 5,
			.flags = TCP_RST | TCP_ACK,
		};
		uint8_t out[FRAME_TCP_MAX], pseudo[40 + 20];
		size_t len = frame_make_tcp(out, &t), n = 0;
		struct frame f;

		assert_true(frame_parse(&f, out, len));
		assert_true(naddr_eq(&f.src, &t.src) && naddr_eq(&f.dst, &t.dst));
		assert_int_equal(f.seq, t.seq);
		assert_int_equal(f.flags, t.flags);
		if (!v)	/* the header sums to zero with its checksum in place */
			assert_int_equal(frame_fold(frame_sum(out + ETH_HDR, 20, 0)), 0);
		memcpy(pseudo + n, f.src.b + (v ? 0 : 12), v ? 16 : 4);
		n += v ? 16 : 4;
		memcpy(pseudo + n, f.dst.b + (v ? 0 : 12), v ? 16 : 4);
		n += v ? 16 : 4;
		memcpy(pseudo + n, "\0\0\0\x14\0\0\0\x06", 8);
		memcpy(pseudo + n + 8, f.l4, 20);
		assert_int_equal(frame_fold(frame_sum(pseudo, n + 28, 0)), 0);
	}
}

static void sums_agree_with_the_plain_way(void **state)
{
	uint8_t data[101];
	unsigned seed = 3;

	for (unsigned round = 0; round < 200; round++) {
		size_t len = rand_r(&seed) % sizeof(data);
		uint32_t plain = 0;

		for (size_t i = 0; i < len; i++)
			data[i] = rand_r(&seed);
		for (size_t i = 0; i < len; i++)
			plain += i & 1 ? data[i] << 8 : data[i];
		assert_int_equal(frame_fold(frame_sum(data, len, 0)), frame_fold(plain));
	}
}

static void loopback_is_out_of_reach(void **state)
{
	struct policy *p = policy_new(NULL, true, NULL);
	static const char *const bad[] = {
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "::1", "::",
		"::127.0.0.1",
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(judge(p, bad[i], IP_TCP, 80), POLICY_DROP);
		assert_int_equal(judge(p, bad[i], IP_UDP, 53), POLICY_DROP);
	}
	assert_int_equal(judge(p, "1.1.1.1", IP_TCP, 80), POLICY_PASS);
	assert_int_equal(judge(p, "2001:db8::1", IP_UDP, 80), POLICY_PASS);
	/* The resolver may itself sit on the loopback: DNS and nothing else. */
	assert_int_equal(judge(p, "10.0.2.3", IP_UDP, 53), POLICY_PASS);
	assert_int_equal(judge(p, "10.0.2.3", IP_TCP, 53), POLICY_PASS);
	assert_int_equal(judge(p, "10.0.2.3", IP_TCP, 22), POLICY_REFUSE);
	assert_int_equal(judge(p, "fec0::3", IP_TCP, 22), POLICY_REFUSE);
	assert_int_equal(judge(p, "1.1.1.1", 47, 0), POLICY_DROP);
	policy_free(p);
}

/* What the NAT makes the host's loopback of is closed, but for answers and DNS. */
static void gateway_is_the_loopback(void **state)
{
	static const char *const names[] = {
		"10.0.2.2", "10.0.2.255", "255.255.255.255", "fec0::2", "fec0::77", "ff02::1",
	};
	char *r[] = { R("10.0.2.0/24"), R("255.255.255.255"), R("::/0"), NULL };
	uint8_t buf[256];

	for (unsigned k = 0; k < 4; k++) {
		bool open = k & 1;
		struct policy *p = policy_new(k & 2 ? r : NULL, open, NULL);
		struct frame f;

		for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
			assert_int_equal(judge(p, names[i], IP_TCP, 80),
					 open ? POLICY_PASS : POLICY_REFUSE);
			assert_int_equal(judge(p, names[i], IP_UDP, 53),
					 open ? POLICY_PASS : POLICY_REFUSE);
		}
		assert_int_equal(judge(p, "10.0.2.2", IP_UDP, 67), POLICY_PASS);
		assert_int_equal(judge(p, "10.0.2.3", IP_UDP, 53), POLICY_PASS);
		assert_int_equal(judge(p, "10.0.2.3", IP_TCP, 53), POLICY_PASS);
		assert_int_equal(judge(p, "10.0.2.2", IP_ICMP, 0), POLICY_PASS);
		assert_int_equal(judge(p, "fec0::2", IP_ICMP6, 0), POLICY_PASS);
		/* Who came through a UDP forward gets an answer. */
		f = make(buf, "10.0.2.2", "10.0.2.15", IP_UDP, 5555, 1000, NULL, 0);
		policy_learn(p, &f);
		assert_int_equal(judge(p, "10.0.2.2", IP_UDP, 5555), POLICY_PASS);
		assert_int_equal(judge(p, "10.0.2.2", IP_UDP, 5556),
				 open ? POLICY_PASS : POLICY_REFUSE);
		policy_free(p);
	}
}

/* An IPv4 address dressed as IPv6 is not a way around. */
static void mapped_addresses(void **state)
{
	struct policy *p = policy_new(NULL, true, NULL);
	uint8_t buf[256];
	struct frame f = make(buf, "fec0::15", "2001:db8::1", IP_TCP, 1, 80, NULL, 0);

	memcpy(buf + ETH_HDR + 24, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
	assert_true(frame_parse(&f, buf, f.len));
	assert_int_equal(policy_check(p, &f), POLICY_DROP);
	policy_free(p);
}

static void rules(void **state)
{
	char *r[] = {
		R("93.184.216.34:443"), R("10.1.0.0/16"), R("[2001:db8::1]:80"),
		R("2001:db8:1::/48"), R("10.0.2.3"), NULL,
	};
	struct policy *p = policy_new(r, true, NULL);

	assert_non_null(p);
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 443), POLICY_PASS);
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 80), POLICY_REFUSE);
	assert_int_equal(judge(p, "10.1.255.1", IP_UDP, 9), POLICY_PASS);
	assert_int_equal(judge(p, "10.2.0.0", IP_UDP, 9), POLICY_REFUSE);
	assert_int_equal(judge(p, "2001:db8::1", IP_TCP, 80), POLICY_PASS);
	assert_int_equal(judge(p, "2001:db8::1", IP_TCP, 81), POLICY_REFUSE);
	assert_int_equal(judge(p, "2001:db8:1:2::", IP_TCP, 1), POLICY_PASS);
	assert_int_equal(judge(p, "10.0.2.3", IP_UDP, 53), POLICY_PASS);
	assert_int_equal(judge(p, "10.0.2.2", IP_TCP, 80), POLICY_REFUSE);
	assert_int_equal(judge(p, "1.1.1.1", IP_ICMP, 0), POLICY_REFUSE);
	assert_int_equal(judge(p, "10.0.2.2", IP_ICMP, 0), POLICY_PASS);
	assert_int_equal(judge(p, "255.255.255.255", IP_UDP, 67), POLICY_PASS);
	assert_int_equal(judge(p, "1.1.1.1", IP_UDP, 67), POLICY_REFUSE);
	policy_free(p);
}

static void fragments_and_options_never_pass(void **state)
{
	struct policy *p = policy_new(NULL, true, NULL);
	uint8_t buf[256];
	struct frame f = make(buf, "10.0.2.15", "1.1.1.1", IP_TCP, 1, 80, NULL, 0);

	assert_int_equal(policy_check(p, &f), POLICY_PASS);
	buf[ETH_HDR + 6] = 0x20;	/* more fragments */
	assert_true(frame_parse(&f, buf, f.len));
	assert_int_equal(policy_check(p, &f), POLICY_DROP);
	buf[ETH_HDR + 6] = 0;
	buf[ETH_HDR + 7] = 1;		/* at offset 8 */
	assert_true(frame_parse(&f, buf, f.len));
	assert_int_equal(policy_check(p, &f), POLICY_DROP);
	f = make(buf, "10.0.2.15", "1.1.1.1", IP_UDP, 1, 80, "01234567890123456789", 20);
	memmove(buf + ETH_HDR + 24, buf + ETH_HDR + 20, 28);
	buf[ETH_HDR] = 0x46;
	buf[ETH_HDR + 24 + 5] = 20;
	assert_true(frame_parse(&f, buf, f.len));
	assert_int_equal(policy_check(p, &f), POLICY_DROP);
	policy_free(p);
}

static void malformed_rules(void **state)
{
	static const char *const bad[] = {
		"", ":80", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4:0", "1.2.3.4:65536",
		"host/8", "a b", "[::1", "[::1]x", "::1/129", "*.", "1.2.3.4:http",
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		char *r[] = { (char *)(uintptr_t)bad[i], NULL };
		struct err err = ERR_INIT;

		if (policy_new(r, true, &err))
			fail_msg("\"%s\" was accepted", bad[i]);
		assert_int_equal(err.num, EINVAL);
	}
}

#define QUERY(name) "\x12\x34\x01\x00\0\1\0\0\0\0\0\0" name "\0\0\1\0\1"

static const char query[] = QUERY("\7example\3org");
/* CNAME first, then the address. */
static const char answer[] =
	"\x12\x34\x81\x80\0\1\0\2\0\0\0\0\7example\3org\0\0\1\0\1"
	"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\6\3www\xc0\x0c"
	"\xc0\x29\0\1\0\1\0\0\0\x3c\0\4\x5d\xb8\xd8\x22";

/* The verdict on a question to the resolver. */
static enum policy_verdict ask_name(struct policy *p, const char *q, size_t len)
{
	uint8_t buf[512];
	struct frame f = make(buf, "10.0.2.15", "10.0.2.3", IP_UDP, 999, 53, q, len);

	return policy_check(p, &f);
}
#define ASK(p, q) ask_name(p, q, sizeof(q) - 1)

/* The answer, from whoever says so. */
static void tell(struct policy *p, const char *from)
{
	uint8_t buf[512];
	struct frame f = make(buf, from, "10.0.2.15", IP_UDP, 53, 999, answer,
			      sizeof(answer) - 1);

	policy_learn(p, &f);
}

static void host_names(void **state)
{
	char *r[] = { R("example.org.:443"), R("*.debian.org"), NULL };
	struct policy *p = policy_new(r, true, NULL);

	assert_int_equal(ASK(p, query), POLICY_PASS);
	assert_int_equal(ASK(p, QUERY("\4evil\3org")), POLICY_REFUSE);
	assert_int_equal(ASK(p, QUERY("\3ftp\6debian\3ORG")), POLICY_PASS);
	assert_int_equal(ASK(p, QUERY("\6debian\3org")), POLICY_REFUSE);

	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 443), POLICY_REFUSE);
	/* Not from the resolver: teaches nothing. */
	tell(p, "6.6.6.6");
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 443), POLICY_REFUSE);
	tell(p, "10.0.2.3");
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 443), POLICY_PASS);
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 80), POLICY_REFUSE);
	policy_free(p);
}

/* What a policy_load() is given; state_close()'s verdict. */
static int load(struct policy *p, const struct buf *b)
{
	struct state_r in;

	assert_int_equal(state_r_init(&in, b->data, b->len, NULL), 0);
	assert_int_equal(state_find(&in, "policy", 0), 0);
	policy_load(p, &in);
	return state_close(&in, NULL);
}

/* A program that asked before the snapshot does not ask again after it. */
static void learned_addresses_are_state(void **state)
{
	char *r[] = { R("example.org:443"), NULL };
	struct policy *p = policy_new(r, true, NULL);
	struct buf b = BUF_INIT;
	struct state_w w;

	tell(p, "10.0.2.3");
	state_w_init(&w, &b);
	state_begin(&w, "policy", 0, 1, true);
	policy_save(p, &w);
	state_end(&w);
	assert_int_equal(state_w_finish(&w, NULL), 0);
	policy_free(p);

	p = policy_new(r, true, NULL);
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 443), POLICY_REFUSE);
	assert_int_equal(load(p, &b), 0);
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 443), POLICY_PASS);
	assert_int_equal(judge(p, "93.184.216.34", IP_TCP, 80), POLICY_REFUSE);
	assert_int_equal(judge(p, "93.184.216.35", IP_TCP, 443), POLICY_REFUSE);
	policy_free(p);
	buf_done(&b);
}

/* More than there can be, and fewer than it says. */
static void hostile_learned_addresses(void **state)
{
	static const uint32_t counts[] = { 2, 1025, UINT32_MAX };
	char *r[] = { R("example.org"), NULL };

	for (unsigned i = 0; i < ARRAY_LEN(counts); i++) {
		struct policy *p = policy_new(r, true, NULL);
		struct buf b = BUF_INIT;
		struct state_w w;

		state_w_init(&w, &b);
		state_begin(&w, "policy", 0, 1, true);
		state_put_u32(&w, counts[i]);
		state_put_bytes(&w, addr("9.9.9.9").b, 16);
		state_put_u16(&w, 0);
		state_end(&w);
		assert_int_equal(state_w_finish(&w, NULL), 0);
		assert_true(load(p, &b) < 0);
		policy_free(p);
		buf_done(&b);
	}
}

/* Cut and flipped DNS messages, in both directions. */
static void hostile_dns(void **state)
{
	char *r[] = { R("example.org"), NULL };
	struct policy *p = policy_new(r, true, NULL);
	uint8_t buf[512], msg[sizeof(answer)];
	unsigned seed = 5;

	for (unsigned i = 0; i < 20000; i++) {
		size_t len = rand_r(&seed) % sizeof(answer);
		struct frame f;

		memcpy(msg, answer, sizeof(msg));
		for (unsigned k = rand_r(&seed) % 4; k; k--)
			msg[rand_r(&seed) % sizeof(msg)] = rand_r(&seed);
		f = make(buf, "10.0.2.3", "10.0.2.15", IP_UDP, 53, 999, msg, len);
		policy_learn(p, &f);
		f = make(buf, "10.0.2.15", "10.0.2.3", IP_UDP, 999, 53, msg, len);
		policy_check(p, &f);
		frame_refuse_dns(&f);
	}
	policy_free(p);
}

/* A reply over a UDP forward goes back to who asked, and to nobody else. */
static void udp_peers(void **state)
{
	char *r[] = { R("1.1.1.1"), NULL };
	struct policy *p = policy_new(r, true, NULL);
	uint8_t buf[256];
	struct frame f;

	f = make(buf, "10.0.2.2", "10.0.2.15", IP_UDP, 5555, 1000, NULL, 0);
	policy_learn(p, &f);
	assert_int_equal(judge(p, "10.0.2.2", IP_UDP, 5555), POLICY_PASS);
	assert_int_equal(judge(p, "10.0.2.2", IP_UDP, 5556), POLICY_REFUSE);
	f = make(buf, "10.0.2.15", "10.0.2.2", IP_UDP, 1001, 5555, NULL, 0);
	assert_int_equal(policy_check(p, &f), POLICY_REFUSE);
	policy_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cut_headers_are_refused),
		cmocka_unit_test(made_segments_are_sound),
		cmocka_unit_test(sums_agree_with_the_plain_way),
		cmocka_unit_test(loopback_is_out_of_reach),
		cmocka_unit_test(gateway_is_the_loopback),
		cmocka_unit_test(mapped_addresses),
		cmocka_unit_test(rules),
		cmocka_unit_test(fragments_and_options_never_pass),
		cmocka_unit_test(malformed_rules),
		cmocka_unit_test(host_names),
		cmocka_unit_test(learned_addresses_are_state),
		cmocka_unit_test(hostile_learned_addresses),
		cmocka_unit_test(hostile_dns),
		cmocka_unit_test(udp_peers),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
