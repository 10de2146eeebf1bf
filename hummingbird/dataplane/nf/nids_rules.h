/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_rules.h: what the parts of the NIDS on the host share: compiled rules, a packet as rules see
 * it, what an lcore needs to evaluate them. */
#ifndef HB_NIDS_RULES_H
#define HB_NIDS_RULES_H
#include <stdbool.h>
#include <stdint.h>

#include "api.h"
#include "mbuf.h"
#include "nids_api.h"
#include "nids_regex.h"

/* Steps that a rule may take in one packet: contents that occur often, one behind the other, would
 * cost any time otherwise. Suricata's inspection-recursion-limit. */
#define HB_NIDS_MOST_TRIES 3000

typedef struct hb_nids_seat hb_nids_seat;

/* The rules of an NF instance; read-only once it runs, but for the seats. */
struct hb_nids {
    hb_nids_config c; /* its pointers are to copies in `memory` */
    void **memory;
    uint32_t blocks;                   /* of memory */
    hb_regex **regex;                  /* [c.regexes] */
    hb_nids_seat *seat[HB_MAX_LCORES]; /* NULL: none; by the control thread, while no lcore runs */
};

/* A packet as rules see it; all but `nids` and `scratch` is found out by hb_nids_view(). */
typedef struct {
    const uint8_t *packet;
    uint32_t length;
    uint32_t l3;
    uint32_t l4;
    uint32_t end;           /* of the IP packet */
    const uint8_t *payload; /* behind the transport header, if there is one, else behind IP's */
    uint32_t size;          /* bytes of it */
    uint64_t src[2];
    uint64_t dst[2];
    uint16_t src_port;
    uint16_t dst_port;
    uint8_t version;
    uint8_t protocol;
    bool has_l4; /* a whole transport header is there */
    bool has_ports;
    uint32_t flow; /* HB_NIDS_FLOW_* */
} hb_nids_packet;

/* False: not IP. `flow` is left alone. */
bool hb_nids_view(hb_nids_packet *p, const uint8_t *packet, const hb_mbuf *m);
/* A field of a packet's headers; false if it has none. */
bool hb_nids_field(const hb_nids_packet *p, uint32_t field, uint32_t *value);

/* What evaluation needs beside rules and packet: one for each lcore. */
typedef struct {
    hb_regex_scratch *regex;
    uint32_t tries; /* left for the present rule */
    uint64_t gave_up;
} hb_nids_scratch;

/* Does the packet match the rule? */
bool hb_nids_evaluate(const hb_nids *nids, uint32_t rule, const hb_nids_packet *p,
                      hb_nids_scratch *s);
#endif
