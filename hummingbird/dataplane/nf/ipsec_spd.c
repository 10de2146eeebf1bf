/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec_spd.c: see ipsec_spd.h. A few entries are the rule, so they are compared one by one. */
#include "ipsec_spd.h"

#include <stdlib.h>
#include <string.h>

#include "inet.h"

#define IPV4_BITS 96 /* in front of an IPv4 address in its 128-bit form */

enum { TCP = 6, UDP = 17, SCTP = 132 };

/* ---- making it ------------------------------------------------------------------------------- */

static bool is_ipv4(const uint8_t address[16], uint32_t bits)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return bits >= IPV4_BITS && !memcmp(address, mapped, sizeof mapped);
}

static bool is_any(const uint16_t range[2])
{
    return range[0] == 0 && range[1] == 65535;
}

/* The first `bits` of n bytes set. */
static void set_mask(uint8_t *mask, uint32_t bits, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, bits -= bits < 8 ? bits : 8)
        mask[i] = bits >= 8 ? 0xff : (uint8_t)(0xff00 >> bits);
}

static hb_spd_rest rest_of(const hb_ipsec_selector *s)
{
    hb_spd_rest rest = {.proto = s->proto,
                        .proto_mask = s->any_proto ? 0 : 0xff,
                        .ports = !is_any(s->src_port) || !is_any(s->dst_port) || !is_any(s->port),
                        .action = s->action,
                        .policy = s->policy};
    memcpy(rest.src_port, s->src_port, sizeof rest.src_port);
    memcpy(rest.dst_port, s->dst_port, sizeof rest.dst_port);
    memcpy(rest.port, s->port, sizeof rest.port);
    return rest;
}

static void add4(hb_spd *spd, const hb_ipsec_selector *s)
{
    uint8_t ends[8], mask[8];
    memcpy(ends, s->src + 12, 4);
    memcpy(ends + 4, s->dst + 12, 4);
    set_mask(mask, s->src_bits ? s->src_bits - IPV4_BITS : 0, 4);
    set_mask(mask + 4, s->dst_bits ? s->dst_bits - IPV4_BITS : 0, 4);
    hb_spd_entry4 *e = spd->v4 + spd->n4++;
    e->rest = rest_of(s);
    memcpy(&e->ends, ends, sizeof e->ends);
    memcpy(&e->mask, mask, sizeof e->mask);
    e->ends &= e->mask;
}

static void add6(hb_spd *spd, const hb_ipsec_selector *s)
{
    hb_spd_entry6 *e = spd->v6 + spd->n6++;
    uint8_t mask[32];
    e->rest = rest_of(s);
    memcpy(e->ends, s->src, 16);
    memcpy(e->ends + 2, s->dst, 16);
    set_mask(mask, s->src_bits, 16);
    set_mask(mask + 16, s->dst_bits, 16);
    memcpy(e->mask, mask, sizeof e->mask);
    for (int i = 0; i < 4; i++)
        e->ends[i] &= e->mask[i];
}

int hb_spd_init(hb_spd *spd, const hb_ipsec_selector *selector, uint32_t n)
{
    *spd = (hb_spd){.v4 = calloc(n + 1, sizeof *spd->v4), .v6 = calloc(n + 1, sizeof *spd->v6)};
    if (!spd->v4 || !spd->v6) {
        hb_spd_free(spd);
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        const hb_ipsec_selector *s = selector + i;
        bool src4 = is_ipv4(s->src, s->src_bits), dst4 = is_ipv4(s->dst, s->dst_bits);
        if ((src4 || !s->src_bits) && (dst4 || !s->dst_bits))
            add4(spd, s);
        if (!src4 && !dst4)
            add6(spd, s);
    }
    return 0;
}

void hb_spd_free(hb_spd *spd)
{
    free(spd->v4);
    free(spd->v6);
    *spd = (hb_spd){.n4 = 0};
}

/* ---- looking at packets ---------------------------------------------------------------------- */

static inline bool in_range(uint32_t port, const uint16_t range[2])
{
    return port >= range[0] && port <= range[1];
}

/* Are the ports those of an entry that asks for some? Ports that cannot be seen may be. */
static bool ports_match(const hb_spd_rest *e, const hb_spd_packet *p, bool *hidden)
{
    uint32_t proto = p->m->protocol, l4 = p->m->l4;
    if (proto != TCP && proto != UDP && proto != SCTP)
        return false;
    *hidden = hb_spd_is_fragment(p) || l4 == HB_NO_LAYER || l4 + 4 > p->m->data_len;
    if (*hidden)
        return true;
    uint32_t src = hb_get_be16(p->bytes + l4), dst = hb_get_be16(p->bytes + l4 + 2);
    return in_range(src, e->src_port) && in_range(dst, e->dst_port) &&
           (in_range(src, e->port) || in_range(dst, e->port));
}

/* Does an entry match, whose addresses do? Then *action is its action, or HB_SPD_FRAGMENT: ports
 * that nobody sees may be the ones of this entry or not. Whatever comes behind it must not get the
 * packet: it might leave in the clear (RFC 4301 section 7). */
static inline bool matches(const hb_spd_rest *e, const hb_spd_packet *p, int32_t only,
                           int32_t *action)
{
    bool hidden = false;
    if ((p->m->protocol ^ e->proto) & e->proto_mask)
        return false;
    if (only >= 0 && e->action >= 0 && e->action != only)
        return false;
    if (e->ports && !ports_match(e, p, &hidden))
        return false;
    *action = hidden ? HB_SPD_FRAGMENT : e->action;
    return true;
}

static int32_t find6(const hb_spd *spd, const hb_spd_packet *p, int32_t only, uint32_t *policy)
{
    uint64_t a[4];
    int32_t action;
    memcpy(a, p->ends, sizeof a);
    for (const hb_spd_entry6 *e = spd->v6; e < spd->v6 + spd->n6; e++) {
        uint64_t differ = ((a[0] ^ e->ends[0]) & e->mask[0]) | ((a[1] ^ e->ends[1]) & e->mask[1]) |
                          ((a[2] ^ e->ends[2]) & e->mask[2]) | ((a[3] ^ e->ends[3]) & e->mask[3]);
        if (!differ && matches(&e->rest, p, only, &action)) {
            *policy = e->rest.policy;
            return action;
        }
    }
    return HB_SPD_NONE;
}

int32_t hb_spd_find(const hb_spd *spd, const hb_spd_packet *packet, int32_t only, uint32_t *policy)
{
    if (packet->v6)
        return find6(spd, packet, only, policy);
    uint64_t ends;
    int32_t action;
    memcpy(&ends, packet->ends, sizeof ends);
    for (const hb_spd_entry4 *e = spd->v4; e < spd->v4 + spd->n4; e++)
        if (!((ends ^ e->ends) & e->mask) && matches(&e->rest, packet, only, &action)) {
            *policy = e->rest.policy;
            return action;
        }
    return HB_SPD_NONE;
}
