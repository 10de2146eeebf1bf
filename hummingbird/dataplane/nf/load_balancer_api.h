/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_balancer_api.h: what Python calls of the load balancer. Plain declarations; cffi reads them.
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; ports in host order.
 */
#ifndef HB_LOAD_BALANCER_API_H
#define HB_LOAD_BALANCER_API_H
#include <stdint.h>

/* Fill a Maglev table (load_balancer_maglev.py): permutation[i] is offset and skip of backend i, at
 * least one weight is not 0, size is a prime. 0 without memory. */
int hb_maglev_fill(const uint32_t *permutation, const uint32_t *weight, uint32_t n, uint16_t *table,
                   uint32_t size);

#define HB_LB_DNAT 0 /* modes of a service */
#define HB_LB_IPIP 1

typedef struct {
    uint8_t address[16];
    uint16_t port; /* 0: as it is in the packet */
    uint16_t slot; /* of its counters */
    uint8_t mac[6];
    uint8_t has_mac;
    uint8_t pad;
} hb_lb_backend;

/* A service; services do not overlap. `number` is its place in the topology. */
typedef struct {
    uint8_t address[16];
    uint16_t first; /* virtual ports */
    uint16_t last;
    uint16_t number;
    uint8_t protocol;
    uint8_t mode;
    uint8_t by_client; /* the client's address alone decides */
    uint8_t usable;    /* some backend gets new flows; else the table says nothing */
    uint16_t pad;
    uint32_t backends;
    uint32_t size;                /* of the table */
    const hb_lb_backend *backend; /* [backends] */
    const uint16_t *table;        /* [size]: index of a backend; borrowed */
} hb_lb_service;

/* Where replies of a backend come from, and seem to; replies do not overlap. */
typedef struct {
    uint8_t address[16];
    uint8_t virtual_address[16];
    uint16_t first;
    uint16_t last;
    uint16_t virtual_port; /* 0: as it is in the packet */
    uint16_t slot;
    uint16_t service;
    uint8_t protocol;
    uint8_t pad;
} hb_lb_reply;

/* Everything that a choice looks at; constant once it is made. The tables have to stay where they
 * are, of the rest it has a copy. */
typedef struct hb_lb_config hb_lb_config;
/* Services and replies sorted by (address, protocol, first). NULL without memory. */
hb_lb_config *hb_lb_config_new(const hb_lb_service *services, uint32_t n,
                               const hb_lb_reply *replies, uint32_t m);
void hb_lb_config_free(hb_lb_config *config);

/* What the lcores share of an instance: hb_nf.host. */
typedef struct hb_lb_host hb_lb_host;
/* `slots` counters for backends; ICMP errors: at most `rate` a second and lcore, as packets of
 * `type` (-1: of the type of the packet they are about). It takes `config`. NULL without memory. */
hb_lb_host *hb_lb_host_new(hb_lb_config *config, uint64_t seed, uint32_t slots, uint32_t rate,
                           int32_t type);
void hb_lb_host_free(hb_lb_host *host);
/* From now on this is looked at; what it was before may be freed once all readers have passed. By
 * the control thread. */
hb_lb_config *hb_lb_swap(hb_lb_host *host, hb_lb_config *config);

/* What the choice hangs on: client and virtual address, their ports, protocol. */
uint64_t hb_lb_hash(uint64_t seed, const uint8_t *client, uint32_t client_port,
                    const uint8_t *address, uint32_t port, uint32_t protocol);

typedef struct {
    uint64_t flows;         /* that were given to the backend ... */
    uint64_t ended;         /* ... and are over */
    uint64_t held;          /* flow states that name it in any way ... */
    uint64_t released;      /* ... and are gone */
    uint64_t packets;       /* to it */
    uint64_t bytes;         /* of these as they leave, Ethernet header included */
    uint64_t reply_packets; /* from it */
    uint64_t reply_bytes;
} hb_lb_use;
/* Sums over the lcores; from any thread. */
hb_lb_use hb_lb_used(const hb_lb_host *host, uint32_t slot);

typedef struct {
    uint64_t no_backend;      /* flows, or packets without a flow, that none was there for */
    uint64_t no_first;        /* fragments that came before the first one */
    uint64_t icmp_translated; /* ICMP errors about balanced connections */
    uint64_t icmp_errors;     /* made, about packets too big for a tunnel */
    uint64_t icmp_suppressed; /* not made: over the rate, or no mbuf */
    uint64_t fragmented;      /* tunnel packets that were cut */
    uint64_t without_flow;    /* packets chosen for one by one */
} hb_lb_counts;
hb_lb_counts hb_lb_count(const hb_lb_host *host);

#endif
