/* SPDX-License-Identifier: BSD-3-Clause */
/* load_balancer.h: what the files of the load balancer share on the host. */
#ifndef HB_LOAD_BALANCER_H
#define HB_LOAD_BALANCER_H
#include "dataplane.h"
#include "nf/load_balancer.cl"
#include "nf/load_balancer_api.h"

#define HB_LB_WORDS 8 /* of a flow's state */

/* What one lcore does; it alone writes. */
typedef struct {
    alignas(128) hb_icmp_limit limit;
    hb_lb_counts count;
    uint32_t cut;   /* packets cut so far, for their IP ids */
    hb_lb_use *use; /* [slots] */
} hb_lb_lane;

struct hb_lb_host {
    const hb_lb_config *config; /* release by the control thread, acquire by the lcores */
    uint64_t seed;
    uint32_t slots;
    int32_t type; /* of ICMP errors; -1: as the packet that they are about */
    hb_lb_use *use;
    hb_lb_lane lane[HB_MAX_LCORES]; /* by lcore */
};

/* Counters have one writer and any reader. */
static inline void hb_lb_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline hb_lb_lane *hb_lb_lane_of(const hb_nf_seat *seat)
{
    return &((hb_lb_host *)seat->host)->lane[seat->lcore->id];
}

/* Acquire: everything in it was written before it became the current one. */
static inline const hb_lb_config *hb_lb_current(const hb_lb_host *h)
{
    return __atomic_load_n(&h->config, __ATOMIC_ACQUIRE);
}

/* ---- load_balancer_config.c ---------------------------------------------------------------------
 */

/* The service at an address and port, or NULL. */
const hb_lb_service *hb_lb_service_at(const hb_lb_config *config, const uint8_t *address,
                                      uint32_t protocol, uint32_t port);
/* Where replies from an address and port go, or NULL. */
const hb_lb_reply *hb_lb_reply_at(const hb_lb_config *config, const uint8_t *address,
                                  uint32_t protocol, uint32_t port);
/* Is there any service at, or any reply from, an address, whatever the port? */
bool hb_lb_has_service(const hb_lb_config *config, const uint8_t *address, uint32_t protocol);
bool hb_lb_has_reply(const hb_lb_config *config, const uint8_t *address, uint32_t protocol);

/* ---- load_balancer.c ----------------------------------------------------------------------------
 */

/* Two ends of a packet, 0 the source and 1 the destination; addresses as in hb_key. */
typedef struct {
    uint8_t addr[2][16];
    uint16_t port[2];
    uint16_t zone;
    uint8_t protocol;
    bool fragment;
    bool has_ports; /* they are known, and lie where the packet function finds them */
} hb_lb_ends;

/* The state of packets to a service, `end` of the packet being the service: that of the connection
 * if it is known, else by the hash. HB_REASON_none, or no_backend. */
enum hb_reason hb_lb_toward(hb_nf_seat *seat, const hb_lb_service *service, const hb_lb_ends *ends,
                            uint32_t end, bool known, uint32_t *state);

/* What is known of the flow between two ends: a copy of its state, or false. Another lcore may
 * serve it, and end it meanwhile: then what was read does not count. */
bool hb_lb_find_state(const hb_nf_seat *seat, const hb_lb_ends *ends, uint32_t *state);

/* ---- load_balancer_icmp.c -----------------------------------------------------------------------
 */

/* An ICMP error about a balanced connection, from either side: made one about what whoever gets it
 * knows. *result as the packet function's. The verdict. */
uint32_t hb_lb_translate(hb_nf_seat *seat, uint32_t handle, uint64_t *result);

/* A packet as the packet function takes it, with this state. */
hb_packet hb_lb_packet(const hb_nf_seat *seat, const hb_mbuf *m, uint32_t *state);
/* It lies there now, if it has got an outer header. */
void hb_lb_moved(hb_nf_seat *seat, hb_mbuf *m, const hb_packet *p);
#endif
