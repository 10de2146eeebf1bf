/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nat_api.h: what Python calls of the NAT: it makes what the instance has on the host, and reports.
 * Plain declarations; cffi reads them. Addresses and ports are in host byte order.
 */
#ifndef HB_NAT_API_H
#define HB_NAT_API_H
#include <stdint.h>

/* hb_nf.host of an instance; used by the one lcore that serves it. */
typedef struct hb_nat hb_nat;

#define HB_NAT_MOST_INSIDE 256
#define HB_NAT_MOST_EXTERNAL 256
#define HB_NAT_MOST_RANGES 64
#define HB_NAT_MOST_MAPPINGS 16777216

/* Which packets from outside may use a mapping (RFC 4787 section 5): those of anybody, ... */
#define HB_NAT_FILTER_NONE 0
#define HB_NAT_FILTER_ADDRESS 1 /* ... of addresses that it was used to send to, ... */
#define HB_NAT_FILTER_PORT 2    /* ... of addresses and ports likewise */

/* Protocols have ports of their own and hold times of their own. */
#define HB_NAT_TCP 0
#define HB_NAT_UDP 1
#define HB_NAT_ICMP 2
#define HB_NAT_OTHER 3 /* no ports: one inside host at a time for each external address */
#define HB_NAT_CLASSES 4

/* hb_nat_new() copies all of it. */
typedef struct {
    const uint32_t *inside; /* [nb_inside][2]: address, mask */
    uint32_t nb_inside;
    const uint32_t *external; /* [nb_external], in ascending order */
    uint32_t nb_external;
    const uint16_t *range; /* [nb_ranges][2]: first and last port; apart, in ascending order */
    uint32_t nb_ranges;
    uint32_t mappings; /* that there is room for, forwards included ... */
    uint32_t peers;    /* ... and for whom they were used to send to; none without a filter */
    uint32_t filter;   /* HB_NAT_FILTER_* */
    uint32_t hold[HB_NAT_CLASSES]; /* seconds that a mapping outlives its last flow */
    uint8_t hairpin;
    uint8_t paired;   /* all mappings of a host have one external address */
    uint8_t parity;   /* UDP ports stay even or odd */
    uint8_t preserve; /* ports stay what they are where that port is free */
    uint64_t secret[2];
} hb_nat_config;

/* NULL without memory. */
hb_nat *hb_nat_new(const hb_nat_config *c);
void hb_nat_free(hb_nat *n);

/* A mapping for ever, that anybody may use; before the start. 0, or -1: its external port is taken,
 * or its inside port has a mapping already, or there is no room. */
int hb_nat_forward(hb_nat *n, uint32_t protocol, uint16_t zone, uint32_t inside, uint16_t port,
                   uint32_t external, uint16_t external_port);

typedef struct {
    uint32_t mappings;    /* in use, forwards included, and ... */
    uint32_t held;        /* ... those of them that wait for the end of their hold time */
    uint32_t peers;       /* in use, likewise with those that are held */
    uint64_t no_port;     /* packets for which there was no port ... */
    uint64_t full;        /* ... or no room for another mapping or peer */
    uint64_t filtered;    /* packets from outside that the filter did not let in */
    uint64_t icmp_errors; /* ICMP errors translated */
} hb_nat_counts;
/* From any thread. */
hb_nat_counts hb_nat_count(const hb_nat *n);
/* Free ports of an external address (by index) and protocol. From any thread. */
uint32_t hb_nat_ports_free(const hb_nat *n, uint32_t external, uint32_t protocol);

typedef struct {
    uint32_t inside;
    uint32_t external;
    uint16_t port;
    uint16_t external_port;
    uint16_t zone;
    uint8_t protocol;
    uint8_t forward; /* 1: for ever */
    uint32_t flows;  /* that use it */
} hb_nat_view;
/* Mapping number i of 0 .. room - 1; 0 if there is none. Exact when nothing runs. */
int hb_nat_look(const hb_nat *n, uint32_t i, hb_nat_view *view);

#endif
