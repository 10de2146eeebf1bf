/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * router_api.h: what Python calls of the router: its table, changed while packets are looked up.
 * Plain declarations; cffi reads them. One thread at a time, except the lookups.
 */
#ifndef HB_ROUTER_API_H
#define HB_ROUTER_API_H
#include <stdint.h>

#include "api.h"

typedef struct hb_router hb_router;

#define HB_ROUTER_HOPS_MOST 32767   /* next hops; more do not fit an entry of 16 bits */
#define HB_ROUTER_GROUPS_MOST 32768 /* groups of IPv4 entries */

/* Bytes of a table with room for so many groups of entries of both families. */
uint64_t hb_router_bytes(uint32_t groups4, uint32_t groups6);
/* Lay out an empty table in zeroed memory, and what the host keeps beside it. `seed` goes into the
 * flow hash; packets to the router itself get the packet type `local` (-1: they are dropped).
 * NULL without memory. */
hb_router *hb_router_new(void *table, uint32_t groups4, uint32_t groups6, uint32_t seed,
                         int32_t local);
void hb_router_free(hb_router *r);
/* The table lies there from now on: a copy of it. From here on it has readers. */
void hb_router_move(hb_router *r, void *table);
/* Whoever looks up now sees nothing of what was there before the last change. */
void hb_router_readers_passed(hb_router *r);

/* What a change can end with. WAIT: call hb_router_readers_passed() when that is so, and repeat. */
#define HB_ROUTER_DONE 0
#define HB_ROUTER_WAIT 1
#define HB_ROUTER_FULL 2   /* there is no room for another group of entries */
#define HB_ROUTER_MEMORY 3 /* the host has no memory */

/* n changes of routes, of one family (4 or 6), in order: prefix (IPv4: the upper 32 bits of hi),
 * length, next hop (-1: withdraw). *done tells how many were made. */
int hb_router_change(hb_router *r, uint32_t family, const uint64_t *hi, const uint64_t *lo,
                     const uint8_t *length, const int32_t *hop, uint32_t n, uint32_t *done);

/* Kinds of next hops: HB_ROUTER_FORWARD and so on of router.cl. */
/* Set a next hop: its addresses (destination and source MAC, 12 bytes) and MTU; its IP address, to
 * ask for the MAC (NULL: it is the packet's destination), and whether the MAC is to be confirmed.
 */
int hb_router_set_hop(hb_router *r, uint32_t hop, uint32_t kind, const uint8_t *macs, uint32_t mtu,
                      const hb_ip_address *address, int confirm);
/* Make it a group; each member is another next hop, which is none. 1 to 32. */
int hb_router_set_group(hb_router *r, uint32_t hop, const uint16_t *members, uint32_t n);

/* Parts of the table that have changed since the last call, as offsets and bytes, for devices with
 * a copy of their own. Returns how many; at most 8. */
uint32_t hb_router_changed(hb_router *r, uint64_t *offset, uint64_t *bytes);

typedef struct {
    uint32_t routes;
    uint32_t groups;      /* in use */
    uint32_t groups_room; /* there is room for */
} hb_router_use;
hb_router_use hb_router_used(const hb_router *r, uint32_t family);

/* The longest route shorter than `below` bits to an address: its length in bits, or -1. */
int hb_router_route(const hb_router *r, uint32_t family, uint64_t hi, uint64_t lo, uint32_t below,
                    uint32_t *hop);

/* ---- the instance while packets flow ------------------------------------------------------------
 */

/* What the lcores share of an instance: hb_nf.host. */
typedef struct hb_router_host hb_router_host;

/* ICMP errors come from these addresses (all 0: there is none), at most `rate` a second and lcore,
 * as packets of `type` (-1: of the type of the packet they are about, 0xffff: of that which the
 * rules give them). `learn`: report the neighbours that ARP and ND packets name. NULL without
 * memory. */
hb_router_host *hb_router_host_new(const uint8_t *ipv4, const uint8_t *ipv6, uint32_t rate,
                                   int32_t type, int learn);
void hb_router_host_free(hb_router_host *h);
/* Before the start: it asks for neighbours, as one that has these addresses (HB_MOST_ADDRESSES at
 * most): an ARP request or a neighbour solicitation for each packet that cannot leave or whose next
 * hop is to be confirmed, but no more than one a second for each neighbour, as a packet of the same
 * type, so that it leaves where the packet would. */
void hb_router_host_ask(hb_router_host *h, const hb_ip_address *own, uint32_t n);

typedef struct {
    uint8_t address[16]; /* IPv4: the first 4 bytes */
    uint8_t mac[6];      /* all 0: it did not answer when it was asked */
    uint8_t family;      /* 4 or 6 */
    uint8_t in_port;     /* node that it came in at */
} hb_router_heard;
/* Neighbours heard of since the last call, at most `most`. By the control thread. */
uint32_t hb_router_hear(hb_router_host *h, hb_router_heard *heard, uint32_t most);

typedef struct {
    uint64_t icmp_errors;     /* made */
    uint64_t icmp_suppressed; /* not made: over the rate, or no mbuf */
    uint64_t fragmented;      /* packets that were cut */
    uint64_t asked;           /* ARP requests and neighbour solicitations that were made */
    uint64_t unheard;         /* ARP and ND packets that came faster than they were taken */
} hb_router_counts;
/* Sums over the lcores; from any thread. */
hb_router_counts hb_router_count(const hb_router_host *h);

/* ---- lookups alone ------------------------------------------------------------------------------
 */

/* Next hops + 1 of addresses (host byte order), 0 where there is no route. From any thread. */
void hb_router_lookup_bulk(const void *table, const uint32_t *address, uint16_t *entry, uint32_t n);
/* The same for IPv6; addresses as they stand in packets. */
void hb_router_lookup6_bulk(const void *table, const uint8_t *address, uint16_t *entry, uint32_t n);

#endif
