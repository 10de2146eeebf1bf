/* SPDX-License-Identifier: BSD-3-Clause */
/* router_ask.h: the router's questions for Ethernet addresses of next hops: which, and how often.
 */
#ifndef HB_ROUTER_ASK_H
#define HB_ROUTER_ASK_H
#include "nf.h"

/* What all lcores of an instance share. */
typedef struct hb_router_asker hb_router_asker;
hb_router_asker *hb_router_asker_new(const hb_ip_address *own,
                                     uint32_t n); /* NULL without memory */
void hb_router_asker_free(hb_router_asker *asker);

enum hb_router_asked {
    HB_ROUTER_CANNOT,      /* there is no address to ask with, or nothing to ask for */
    HB_ROUTER_WAITING,     /* asked less than a second ago, or too many are asked for */
    HB_ROUTER_ASKED,       /* now */
    HB_ROUTER_ASKED_AGAIN, /* now, but it has not answered so far, often enough to give up ... */
    HB_ROUTER_SILENT       /* ... and the same, less than a second ago */
};

/* Whom it is about; `target` as in hb_router_heard. */
typedef struct {
    uint8_t target[16];
    const uint8_t *own;
    uint8_t mac[6];
    uint8_t family;
} hb_router_question;

/* In finish(): a packet would leave for this next hop. Fills *q; a question is emitted as a packet
 * of the same type. */
enum hb_router_asked hb_router_ask(hb_router_asker *asker, hb_nf_seat *seat, uint32_t handle,
                                   uint32_t hop, hb_router_question *q);

#endif
