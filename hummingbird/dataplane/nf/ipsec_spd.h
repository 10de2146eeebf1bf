/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec_spd.h: the security policy database (RFC 4301 section 4.4.1): which policy a packet meets
 * first. Constant once made. */
#ifndef HB_IPSEC_SPD_H
#define HB_IPSEC_SPD_H
#include <stdbool.h>
#include <stdint.h>

#include "ipsec_api.h"
#include "mbuf.h"

/* What an entry asks beside the addresses. Ports are in host order, protocol and ports in one so
 * that most entries are compared with one operation. */
typedef struct {
    uint16_t src_port[2];
    uint16_t dst_port[2];
    uint16_t port[2];
    uint8_t proto;
    uint8_t proto_mask; /* 0: any protocol */
    bool ports;         /* asks for ports at all */
    int32_t action;     /* HB_IPSEC_*, or a security association */
    uint32_t policy;
} hb_spd_rest;

/* Entries of each address family, in order: bytes as in a packet, source then destination. */
typedef struct {
    uint64_t ends, mask;
    hb_spd_rest rest;
} hb_spd_entry4;

typedef struct {
    uint64_t ends[4], mask[4];
    hb_spd_rest rest;
} hb_spd_entry6;

typedef struct {
    hb_spd_entry4 *v4;
    hb_spd_entry6 *v6;
    uint32_t n4;
    uint32_t n6;
} hb_spd;

/* What a policy sees of a packet. Ports are looked at only where a policy asks for them. */
typedef struct {
    const uint8_t *ends; /* source and destination address as in the packet; NULL: not sound IP */
    const uint8_t *bytes;
    const hb_mbuf *m;
    bool v6;
} hb_spd_packet;

#define HB_SPD_NONE (-3)     /* no entry matches */
#define HB_SPD_FRAGMENT (-4) /* ports decide, and a fragment shows none */

/* 0, or -1 without memory. */
int hb_spd_init(hb_spd *spd, const hb_ipsec_selector *selector, uint32_t n);
void hb_spd_free(hb_spd *spd);

/* A packet's view, from its header and bytes; nothing behind its end is read. */
static inline hb_spd_packet hb_spd_look(const hb_mbuf *m, const uint8_t *bytes)
{
    hb_spd_packet p = {.bytes = bytes, .m = m};
    const uint8_t *ip = bytes + m->l3;
    if (m->l3 == HB_NO_LAYER || m->l3 + 20u > m->data_len)
        return p;
    if (ip[0] >> 4 == 4) {
        p.ends = ip + 12;
    } else if (ip[0] >> 4 == 6 && m->l3 + 40u <= m->data_len) {
        p.v6 = true;
        p.ends = ip + 8;
    }
    return p;
}

/* Is it a fragment, of any offset? */
static inline bool hb_spd_is_fragment(const hb_spd_packet *p)
{
    return p->v6 ? p->ends[-2] == 44 : (p->ends[-6] & 0x3f) | p->ends[-5];
}

/* The action of the first entry that matches, or HB_SPD_*; *policy is its policy.
 * `only`: entries of other security associations do not count, to check what came out of one; -1:
 * all count. */
int32_t hb_spd_find(const hb_spd *spd, const hb_spd_packet *packet, int32_t only, uint32_t *policy);

#endif
