/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_api.h: what an ipsec instance has on the host, as the control plane makes and watches it.
 * Plain declarations, because cffi reads this file.
 *
 * The instance is served by one lcore, which alone writes sequence numbers, windows and counters;
 * the control thread reads them while it runs, and writes the limits.
 */
#ifndef HB_IPSEC_API_H
#define HB_IPSEC_API_H
#include <stdint.h>

/* A security association. Addresses are 128 bit, IPv4 as ::ffff:a.b.c.d, here and below. */
typedef struct {
    uint32_t spi;
    int outbound;
    uint8_t src[16]; /* outer; who tells a sender that its packets are too big */
    uint8_t dst[16]; /* inbound: with the SPI, what its packets are known by */
    uint16_t udp;    /* inbound: UDP port that its packets come to (RFC 3948); 0: plain ESP */
    uint32_t window; /* inbound: packets of the replay window, 64 to 4096 */
    uint32_t most; /* outbound: longest packet (IP header included) that the MTU leaves room for */
    int transport;
    int32_t type;  /* packet type that its packets get; -1: the one they have */
    uint64_t next; /* outbound: its first sequence number */
} hb_ipsec_sa;

/* Actions of a policy; from 0 on it is the index of a security association. */
#define HB_IPSEC_BYPASS -1
#define HB_IPSEC_DISCARD -2

/* One entry of the security policy database, in its order. All fields must match. */
typedef struct {
    uint8_t src[16];
    uint8_t dst[16];
    uint8_t src_bits; /* prefix lengths; 0 matches both address families */
    uint8_t dst_bits;
    uint8_t any_proto;
    uint8_t proto;
    uint16_t src_port[2]; /* first and last; 0 and 65535 match also packets without ports */
    uint16_t dst_port[2];
    uint16_t port[2]; /* matches if either port lies in it */
    int32_t action;   /* HB_IPSEC_*, or a security association */
    uint32_t policy;  /* whose packets are counted */
} hb_ipsec_selector;

typedef struct {
    const hb_ipsec_sa *sa;
    uint32_t sas;
    const hb_ipsec_selector *selector;
    uint32_t selectors;
    uint32_t policies;
    uint32_t mtu;            /* of the way that encapsulated packets take */
    int32_t icmp_type;       /* packet type of ICMP errors; -1: that of the packet they are about */
    uint32_t icmp_rate;      /* errors per second */
    uint8_t icmp_source[16]; /* of ICMP errors; all 0: the security association's src ... */
    uint8_t icmp_source6[16]; /* ... and of ICMPv6 errors; all 0: there are none */
} hb_ipsec_config;

typedef struct hb_ipsec hb_ipsec;

/* NULL: out of memory. Copies what the configuration points to. */
hb_ipsec *hb_ipsec_new(const hb_ipsec_config *config);
void hb_ipsec_free(hb_ipsec *ipsec);

/* Sequence numbers below `limit` may be used from now on: it is on the disk that nobody else will.
 * From `low` on the next limit is due. */
void hb_ipsec_set_limit(hb_ipsec *ipsec, uint32_t sa, uint64_t limit, uint64_t low);
/* The next number of an outbound SA. Exact once the data plane has stopped. */
uint64_t hb_ipsec_next(const hb_ipsec *ipsec, uint32_t sa);
/* Outbound SAs for which a new limit is due: at most `most`; returns how many. */
uint32_t hb_ipsec_due(const hb_ipsec *ipsec, uint32_t *sas, uint32_t most);

/* What came of the packets of an SA. Each is counted once. */
typedef struct {
    uint64_t packets;    /* encapsulated, or decapsulated and let through */
    uint64_t bytes;      /* of their IP packets: outbound with ESP around them, inbound without */
    uint64_t last;       /* outbound: last sequence number used; inbound: highest one seen */
    uint64_t no_number;  /* outbound: dropped for want of a sequence number */
    uint64_t too_big;    /* outbound: not sent; the sender was told, if it may be */
    uint64_t fragmented; /* outbound: sent in fragments; counted in packets, too */
    uint64_t not_authentic; /* inbound: the ICV was wrong */
    uint64_t replayed;      /* inbound: seen before, or older than the window */
    uint64_t mismatched;    /* inbound: what was in it is not what the SA's policies allow */
    uint64_t malformed;     /* what was in it is no IP packet, or it could not be processed */
} hb_ipsec_counts;
void hb_ipsec_count(const hb_ipsec *ipsec, uint32_t sa, hb_ipsec_counts *counts);

/* Of the instance. */
typedef struct {
    uint64_t bypassed;
    uint64_t discarded;  /* a policy says so */
    uint64_t no_policy;  /* nothing matched */
    uint64_t no_sa;      /* ESP to an address of ours with an SPI that no inbound SA has */
    uint64_t clear;      /* came in the clear, although a policy wants an inbound SA */
    uint64_t fragments;  /* of ESP, of what transport mode would need whole, or a policy's ports */
    uint64_t keepalives; /* of NAT (RFC 3948 section 2.3) */
    uint64_t icmp_suppressed; /* errors not sent, because of their rate */
} hb_ipsec_totals;
void hb_ipsec_total(const hb_ipsec *ipsec, hb_ipsec_totals *totals);
/* Packets that a policy decided on: outbound, bypassed, discarded, or allowed behind an SA. */
uint64_t hb_ipsec_policy_hits(const hb_ipsec *ipsec, uint32_t policy);

/* The replay window by itself, for tests: presents `n` verified sequence numbers in order to a
 * window; accepted[i] is 1 if number i is new. -1: out of memory. */
int hb_ipsec_replay(uint32_t window, const uint32_t *numbers, uint32_t n, uint8_t *accepted);

#endif
