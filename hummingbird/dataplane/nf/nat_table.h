/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nat_table.h: the mappings of a NAT: (zone, inside address, port, protocol) <-> (external address,
 * port, protocol), and the peers that each was used to send to. All memory is taken at the start;
 * one thread at a time.
 *
 * Who uses a mapping or peer holds it. When the last holder has let go it is kept for the hold time
 * of its protocol; then it may go, and its port may be given to another.
 */
#ifndef HB_NAT_TABLE_H
#define HB_NAT_TABLE_H
#include <stdbool.h>
#include <stdint.h>

#include "api.h"
#include "nf/nat_api.h"
#include "nf/nat_ports.h"
#include "packet_clock.h"

enum { HB_NAT_IP_ICMP = 1, HB_NAT_IP_TCP = 6, HB_NAT_IP_UDP = 17 };

/* One end of a mapping: an inside host's, or (zone 0) an external one. */
typedef struct {
    uint32_t address;
    uint16_t port; /* ICMP: the id of a query; protocols without ports: 0 */
    uint16_t zone;
    uint8_t protocol;
} hb_nat_end;

/* How long something is kept: while it is held, and `until` then. */
typedef struct {
    uint64_t until;
    uint32_t holders;
    uint32_t older, newer; /* neighbours in the list of what nobody holds; index + 1, 0: none */
} hb_nat_life;

typedef struct {
    hb_nat_life life;
    hb_nat_end inside;
    uint32_t external; /* index; HB_NAT_NONE: this place is free */
    uint16_t external_port;
    uint8_t forward;
    uint32_t next_inside, next_external; /* in a hash chain, or in the list of free places */
} hb_nat_mapping;

typedef struct {
    hb_nat_life life;
    uint32_t mapping; /* HB_NAT_NONE: this place is free */
    uint32_t address;
    uint16_t port;
    uint8_t class; /* HB_NAT_*: which list it is in when nobody holds it */
    uint32_t next;
} hb_nat_peer;

/* What nobody holds, by protocol, oldest first. */
typedef struct {
    uint32_t oldest, newest;
} hb_nat_list;

struct hb_nat {
    hb_nat_config config; /* its arrays are copies */
    hb_packet_clock clock;
    hb_nat_ports *ports; /* [nb_external][3] */
    hb_nat_mapping *mapping;
    uint32_t *by_inside, *by_external; /* hash chains: index + 1 */
    uint32_t mask;
    uint32_t free_mapping; /* list: index + 1 */
    hb_nat_peer *peer;
    uint32_t *by_peer;
    uint32_t peer_mask;
    uint32_t free_peer;
    hb_nat_list held[HB_NAT_CLASSES], held_peers[HB_NAT_CLASSES];
    hb_nat_counts count;
    uint32_t range_ports; /* in all ranges */
};

bool hb_nat_is_inside(const hb_nat *n, uint32_t address);
/* Index, or HB_NAT_NONE. */
uint32_t hb_nat_external(const hb_nat *n, uint32_t address);

/* The mapping of an end, or HB_NAT_NONE. */
uint32_t hb_nat_by_inside(const hb_nat *n, const hb_nat_end *end);
uint32_t hb_nat_by_external(const hb_nat *n, uint32_t external, uint32_t protocol, uint32_t port);

/* The same, made if there is none, and held. HB_NAT_NONE, counted: no port or no room. */
uint32_t hb_nat_get(hb_nat *n, const hb_nat_end *inside);
void hb_nat_hold(hb_nat *n, uint32_t mapping);
void hb_nat_release(hb_nat *n, uint32_t mapping);

/* Packets of this peer may come in from now on; held. HB_NAT_NONE, counted: no room. Not called
 * without a filter. */
uint32_t hb_nat_permit(hb_nat *n, uint32_t mapping, uint32_t address, uint32_t port);
void hb_nat_release_peer(hb_nat *n, uint32_t peer);
/* May they? */
bool hb_nat_permitted(const hb_nat *n, uint32_t mapping, uint32_t address, uint32_t port);

uint32_t hb_nat_class(uint32_t protocol);

#endif
