/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_seat.h: what the NIDS keeps for one lcore: state of flows, alerts that wait, counters. */
#ifndef HB_NIDS_SEAT_H
#define HB_NIDS_SEAT_H
#include <stdalign.h>
#include <stdatomic.h>

#include "nids_rules.h"

/* What is known of one flow of the flow cache: valid while its generation is `generation`. */
typedef struct {
    uint32_t generation;
    uint32_t state; /* HB_SEEN_* */
} hb_nids_flow;

/* Alerts between an lcore and the control thread. `tail` is the lcore's, `head` the control
 * thread's. */
typedef struct {
    alignas(128) _Atomic uint32_t tail;
    alignas(128) _Atomic uint32_t head;
    alignas(128) uint32_t mask;
    hb_nids_alert *alert; /* [mask + 1] */
} hb_nids_ring;

/* Alerts of one rule in one second of packet time. */
typedef struct {
    uint64_t second;
    uint32_t alerts;
} hb_nids_rate;

/* Written by the lcore; the control thread reads counters and takes from the ring. */
struct hb_nids_seat {
    hb_nids_ring ring;
    hb_nids *nids;
    hb_nids_scratch scratch;
    hb_nids_counters count;
    uint64_t *suppressed; /* [rules] */
    hb_nids_rate *rate;   /* [rules] */
    uint32_t *matched;    /* [rules]: of the present packet */
    uint32_t *ids;        /* [patterns]: likewise */
    hb_nids_flow *flow;   /* [flows] by flow index; NULL: no rule asks */
    uint32_t flows;       /* indexes of all flow tables */
    bool always[3];       /* some rules without a pattern concern TCP, UDP, other packets */
};

/* NULL: no memory. */
hb_nids_seat *hb_nids_seat_new(hb_nids *nids, uint32_t flows);
void hb_nids_seat_free(hb_nids_seat *s);

/* Take notice of a packet's place in its flow; for every packet, in order. */
void hb_nids_flow_see(hb_nids_seat *s, const hb_mbuf *m, const uint8_t *packet);
/* HB_NIDS_FLOW_* of a packet that was taken notice of. */
uint32_t hb_nids_flow_of(hb_nids_seat *s, const hb_mbuf *m, const hb_nids_packet *p);

/* An alert, unless the rule has had too many in this second, or the ring is full. */
void hb_nids_alarm(hb_nids_seat *s, uint32_t rule, const hb_mbuf *m, const hb_nids_packet *p,
                   bool blocked);
#endif
