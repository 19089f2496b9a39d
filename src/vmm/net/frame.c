// SPDX-License-Identifier: MIT
/*
 * frame.c - parsing and making Ethernet frames.
 *
 * Only what the NAT behind us understands is taken apart: IPv6 packets with
 * extension headers, for instance, are not looked into, because it does not
 * either.  The caller drops what it cannot judge.
 */
#include "vmm/net/frame.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/util.h"

static uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* --- addresses -------------------------------------------------------------- */

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

struct naddr naddr4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	struct naddr n;

	memcpy(n.b, mapped, sizeof(mapped));
	n.b[12] = a;
	n.b[13] = b;
	n.b[14] = c;
	n.b[15] = d;
	return n;
}

bool naddr_eq(const struct naddr *a, const struct naddr *b)
{
	return !memcmp(a->b, b->b, sizeof(a->b));
}

bool naddr_is4(const struct naddr *a)
{
	return !memcmp(a->b, mapped, sizeof(mapped));
}

bool naddr_in(const struct naddr *a, const struct naddr *net, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a->b, net->b, whole))
		return false;
	return !rest || !((a->b[whole] ^ net->b[whole]) >> (8 - rest));
}

bool naddr_parse(struct naddr *a, const char *text)
{
	uint8_t v4[4];

	if (inet_pton(AF_INET, text, v4) == 1) {
		*a = naddr4(v4[0], v4[1], v4[2], v4[3]);
		return true;
	}
	return inet_pton(AF_INET6, text, a->b) == 1;
}

void naddr_print(const struct naddr *a, char out[46])
{
	if (naddr_is4(a))
		inet_ntop(AF_INET, a->b + 12, out, 46);
	else
		inet_ntop(AF_INET6, a->b, out, 46);
}

/* --- parsing ------------------------------------------------------------------ */

static bool parse_ports(struct frame *f)
{
	const uint8_t *p = f->l4;

	if (f->fragment || (f->proto != IP_TCP && f->proto != IP_UDP))
		return true;
	if (f->l4_len < (f->proto == IP_TCP ? 20 : 8))
		return false;
	f->sport = get16(p);
	f->dport = get16(p + 2);
	if (f->proto == IP_UDP)
		return get16(p + 4) >= 8 && get16(p + 4) <= f->l4_len;
	if (f->proto == IP_TCP) {
		if ((p[12] >> 4) * 4u < 20 || (p[12] >> 4) * 4u > f->l4_len)
			return false;
		f->seq = get32(p + 4);
		f->ack = get32(p + 8);
		f->flags = p[13];
	}
	return true;
}

static bool parse_ip4(struct frame *f)
{
	uint8_t *ip = f->eth + ETH_HDR;
	size_t room = f->len - ETH_HDR, hdr, total;

	if (room < 20 || ip[0] >> 4 != 4)
		return false;
	hdr = (ip[0] & 15) * 4u;
	total = get16(ip + 2);
	if (hdr < 20 || hdr > total || total > room)
		return false;
	f->fragment = get16(ip + 6) & 0x3fff;	/* more follow, or an offset */
	f->options = hdr > 20;
	f->proto = ip[9];
	f->src = naddr4(ip[12], ip[13], ip[14], ip[15]);
	f->dst = naddr4(ip[16], ip[17], ip[18], ip[19]);
	f->l4 = ip + hdr;
	f->l4_len = total - hdr;
	return parse_ports(f);
}

static bool parse_ip6(struct frame *f)
{
	uint8_t *ip = f->eth + ETH_HDR;
	size_t room = f->len - ETH_HDR;

	if (room < 40 || ip[0] >> 4 != 6 || get16(ip + 4) > room - 40)
		return false;
	f->v6 = true;
	f->proto = ip[6];
	memcpy(f->src.b, ip + 8, 16);
	memcpy(f->dst.b, ip + 24, 16);
	f->l4 = ip + 40;
	f->l4_len = get16(ip + 4);
	return parse_ports(f);
}

bool frame_parse(struct frame *f, uint8_t *data, size_t len)
{
	*f = (struct frame){ .eth = data, .len = len };
	if (len < ETH_HDR)
		return false;
	f->type = get16(data + 12);
	switch (f->type) {
	case ETH_IP4: return parse_ip4(f);
	case ETH_IP6: return parse_ip6(f);
	case ETH_ARP: return len >= ETH_HDR + 28;
	default: return true;
	}
}

/* --- checksums ---------------------------------------------------------------- */

/*
 * RFC 1071: the sum may be taken in any byte order and any width, as long as
 * carries are added back.  So: 32-bit words into 64 bits.
 */
uint32_t frame_sum(const void *data, size_t len, uint32_t start)
{
	const uint8_t *p = data;
	uint64_t sum = start;
	uint32_t w;

	for (; len >= 4; len -= 4, p += 4) {
		memcpy(&w, p, 4);
		sum += w;
	}
	w = 0;
	memcpy(&w, p, len);
	sum += w;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

uint16_t frame_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Over pseudo header and l4; both in memory order, so is the result. */
static uint16_t l4_checksum(bool v6, const struct naddr *src, const struct naddr *dst,
			    uint8_t proto, const void *l4, size_t len)
{
	unsigned from = v6 ? 0 : 12;
	uint8_t tail[8];
	uint32_t sum = 0;

	sum = frame_sum(src->b + from, 16 - from, sum);
	sum = frame_sum(dst->b + from, 16 - from, sum);
	put32(tail, len);
	put32(tail + 4, proto);
	sum = frame_sum(tail, sizeof(tail), sum);
	return frame_fold(frame_sum(l4, len, sum));
}

static void store_sum(uint8_t *at, uint16_t sum)
{
	memcpy(at, &sum, 2);
}

/* --- making ------------------------------------------------------------------- */

static size_t make_ip(uint8_t *ip, const struct frame_tcp *t, size_t payload)
{
	if (!naddr_is4(&t->dst)) {
		memset(ip, 0, 40);
		ip[0] = 0x60;
		put16(ip + 4, payload);
		ip[6] = IP_TCP;
		ip[7] = 64;
		memcpy(ip + 8, t->src.b, 16);
		memcpy(ip + 24, t->dst.b, 16);
		return 40;
	}
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, 20 + payload);
	ip[8] = 64;
	ip[9] = IP_TCP;
	memcpy(ip + 12, t->src.b + 12, 4);
	memcpy(ip + 16, t->dst.b + 12, 4);
	store_sum(ip + 10, frame_fold(frame_sum(ip, 20, 0)));
	return 20;
}

/* Locally administered; nobody resolves it. */
static const uint8_t our_mac[6] = { 0x52, 0x55, 0x0a, 0x00, 0x02, 0x02 };

size_t frame_make_tcp(uint8_t out[FRAME_TCP_MAX], const struct frame_tcp *t)
{
	bool v6 = !naddr_is4(&t->dst);
	size_t hdr;
	uint8_t *p;

	memcpy(out, t->dst_mac, 6);
	memcpy(out + 6, our_mac, 6);
	put16(out + 12, v6 ? ETH_IP6 : ETH_IP4);
	hdr = ETH_HDR + make_ip(out + ETH_HDR, t, 20);
	p = out + hdr;
	memset(p, 0, 20);
	put16(p, t->sport);
	put16(p + 2, t->dport);
	put32(p + 4, t->seq);
	put32(p + 8, t->ack);
	p[12] = 5 << 4;
	p[13] = t->flags;
	store_sum(p + 16, l4_checksum(v6, &t->src, &t->dst, IP_TCP, p, 20));
	return hdr + 20;
}

void frame_make_arp(uint8_t out[FRAME_ARP_LEN], const uint8_t mac[6], const uint8_t ip[4])
{
	uint8_t *p = out + ETH_HDR;

	memset(out, 0xff, 6);
	memcpy(out + 6, mac, 6);
	put16(out + 12, ETH_ARP);
	put16(p, 1);		/* Ethernet */
	put16(p + 2, ETH_IP4);
	p[4] = 6;
	p[5] = 4;
	put16(p + 6, 1);	/* request for its own address: an announcement */
	memcpy(p + 8, mac, 6);
	memcpy(p + 14, ip, 4);
	memset(p + 18, 0, 6);
	memcpy(p + 24, ip, 4);
}

static void swap(uint8_t *a, uint8_t *b, size_t n)
{
	while (n--) {
		uint8_t t = *a;

		*a++ = *b;
		*b++ = t;
	}
}

void frame_blank_options(struct frame *f)
{
	size_t hdr = (f->l4[12] >> 4) * 4u;	/* frame_parse() looked at it */

	memset(f->l4 + 20, 1, hdr - 20);	/* no operation (RFC 9293, 3.1) */
	store_sum(f->l4 + 16, 0);
	store_sum(f->l4 + 16, l4_checksum(f->v6, &f->src, &f->dst, IP_TCP, f->l4, f->l4_len));
}

bool frame_refuse_dns(struct frame *f)
{
	uint8_t *ip = f->eth + ETH_HDR, *udp = f->l4, *dns = f->l4 + 8;
	struct naddr src = f->dst, dst = f->src;

	if (f->l4_len < 8 + 12)
		return false;
	swap(f->eth, f->eth + 6, 6);
	if (f->v6)
		swap(ip + 8, ip + 24, 16);
	else
		swap(ip + 12, ip + 16, 4);
	swap(udp, udp + 2, 2);
	dns[2] |= 0x80;				/* an answer */
	dns[3] = (dns[3] & 0xf0) | 5;		/* REFUSED */
	put16(udp + 4, f->l4_len);
	store_sum(udp + 6, 0);
	store_sum(udp + 6, l4_checksum(f->v6, &src, &dst, IP_UDP, udp, f->l4_len));
	return true;
}
