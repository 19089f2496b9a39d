/* SPDX-License-Identifier: MIT */
/*
 * frame.h - Ethernet frames taken apart, as far as policy and bookkeeping need,
 * and the few we make ourselves.  Frames from the guest are hostile: what
 * frame_parse() accepts has all its headers inside it.
 */
#ifndef VMM_NET_FRAME_H
#define VMM_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ETH_HDR		14
#define ETH_IP4		0x0800
#define ETH_ARP		0x0806
#define ETH_IP6		0x86dd

#define IP_ICMP		1
#define IP_TCP		6
#define IP_UDP		17
#define IP_ICMP6	58

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* IPv4 as ::ffff:a.b.c.d, so that one comparison serves both. */
struct naddr {
	uint8_t b[16];
};

struct frame {
	uint8_t *eth;		/* borrowed: the whole frame */
	size_t len;
	uint16_t type;		/* ETH_* */
	/* of IP packets */
	bool v6;
	bool fragment;		/* any but a whole packet: no ports */
	bool options;		/* of IPv4 */
	uint8_t proto;
	struct naddr src, dst;
	uint8_t *l4;		/* TCP or UDP header */
	size_t l4_len;		/* to the end of the packet */
	uint16_t sport, dport;
	/* of TCP */
	uint8_t flags;
	uint32_t seq, ack;
};

/* False when a header is cut off or contradicts the length. */
bool frame_parse(struct frame *f, uint8_t *data, size_t len);

/* Ones' complement sum, not yet inverted; add up parts with `sum`. */
uint32_t frame_sum(const void *data, size_t len, uint32_t sum);
uint16_t frame_fold(uint32_t sum);

struct frame_tcp {
	uint8_t dst_mac[6];
	struct naddr src, dst;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t flags;
};

#define FRAME_TCP_MAX (ETH_HDR + 40 + 20)
/* A TCP segment without data; its length. */
size_t frame_make_tcp(uint8_t out[FRAME_TCP_MAX], const struct frame_tcp *t);

#define FRAME_ARP_LEN (ETH_HDR + 28)
/* The guest announces its IPv4 address. */
void frame_make_arp(uint8_t out[FRAME_ARP_LEN], const uint8_t mac[6], const uint8_t ip[4]);

/* Of a TCP segment. */
void frame_blank_options(struct frame *f);

/* Turns a UDP DNS query into its own answer "refused"; false: too short. */
bool frame_refuse_dns(struct frame *f);

struct naddr naddr4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
bool naddr_eq(const struct naddr *a, const struct naddr *b);
bool naddr_is4(const struct naddr *a);
/* The first `bits` of all 128 agree. */
bool naddr_in(const struct naddr *a, const struct naddr *net, unsigned bits);
bool naddr_parse(struct naddr *a, const char *text);
void naddr_print(const struct naddr *a, char out[46]);

#endif
