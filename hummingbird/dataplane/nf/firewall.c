/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall.c: what the firewall is on the host. prepare() finds the flow that an ICMP error or a
 * first fragment is about; finish() counts. The engines search for many packets at once
 * (firewall_engine.c).
 */
#include "firewall.h"

#include <string.h>

#include "dataplane.h"
#include "inet.h"

enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58, SCTP = 132 };

/* ---- the flow that a packet is about ----------------------------------------------------------
 */

/* An IP header: where its addresses and what is behind it are. */
typedef struct {
    const uint8_t *src, *dst;
    uint32_t address; /* bytes of each */
    uint8_t protocol;
    const uint8_t *l4;
    uint32_t left; /* bytes at l4 */
} header;

static void put_address(uint8_t *to, const uint8_t *address, uint32_t bytes)
{
    memset(to, 0, 10);
    memset(to + 10, 0xff, 2);
    memcpy(to + 16 - bytes, address, bytes);
}

static bool is_echo(const header *h)
{
    return h->protocol == ICMP ? h->l4[0] == 8 || h->l4[0] == 0
                               : h->l4[0] == 128 || h->l4[0] == 129;
}

/* Source and destination port as a key has them; false if they are not there. */
static bool ports_of(const header *h, uint32_t port[2])
{
    port[0] = port[1] = 0;
    if (h->protocol == TCP || h->protocol == UDP || h->protocol == SCTP) {
        if (h->left < 4)
            return false;
        port[0] = hb_get_be16(h->l4);
        port[1] = hb_get_be16(h->l4 + 2);
    } else if (h->protocol == (h->address == 4 ? ICMP : ICMPV6)) {
        if (h->left < 8 || !is_echo(h))
            return false;
        port[0] = port[1] = hb_get_be16(h->l4 + 4);
    }
    return true;
}

/* The key of the flow that a packet with this header belongs to, if it is not a fragment. */
static bool key_of(const header *h, uint16_t zone, hb_key *key)
{
    uint8_t end[2][16];
    uint32_t port[2];
    if (!ports_of(h, port))
        return false;
    put_address(end[0], h->src, h->address);
    put_address(end[1], h->dst, h->address);
    int order = memcmp(end[0], end[1], 16);
    uint32_t back = order > 0 || (order == 0 && port[0] > port[1]);
    memset(key, 0, sizeof *key);
    memcpy(key->addr[back], end[0], 16);
    memcpy(key->addr[!back], end[1], 16);
    key->port[back] = (uint16_t)port[0];
    key->port[!back] = (uint16_t)port[1];
    key->zone = zone;
    key->protocol = h->protocol;
    return true;
}

static uint64_t about(const hb_nf_seat *seat, const hb_mbuf *m, const header *h)
{
    hb_key key;
    if (!key_of(h, m->zone, &key))
        return HB_FIREWALL_ABOUT_NONE;
    uint32_t flow = hb_flow_find(seat, &key);
    if (flow == HB_NO_FLOW)
        return HB_FIREWALL_ABOUT_NONE;
    /* until its first packet has come here, what lies there is of a flow before it */
    const uint32_t *state = hb_flow_state(seat, flow);
    if (__atomic_load_n(&seat->set_up[flow], __ATOMIC_RELAXED) != hb_flow_generation(seat, flow) ||
        !state[HB_FIREWALL_STATUS])
        return HB_FIREWALL_ABOUT_UNDECIDED;
    return HB_FIREWALL_ABOUT_ACCEPTED | (uint64_t)state[HB_FIREWALL_VERDICT] << 32;
}

/* ---- what packets are about another flow ------------------------------------------------------
 */

static header header_at(const uint8_t *ip, const uint8_t *l4, uint32_t left, uint8_t protocol)
{
    bool v4 = ip[0] >> 4 == 4;
    return (header){.src = ip + (v4 ? 12 : 8),
                    .dst = ip + (v4 ? 16 : 24),
                    .address = v4 ? 4 : 16,
                    .protocol = protocol,
                    .l4 = l4,
                    .left = left};
}

/* RFC 792: unreachable, quench, redirect, time exceeded, parameter problem. RFC 4443: below 128. */
static bool is_error(uint8_t protocol, uint8_t type)
{
    if (protocol == ICMPV6)
        return type >= 1 && type <= 4;
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* The header that an ICMP error quotes; it must quote what its receiver has sent. */
static uint64_t about_quoted(const hb_nf_seat *seat, const hb_mbuf *m, const uint8_t *packet)
{
    const uint8_t *ip = packet + m->l4 + 8, *outer = packet + m->l3;
    uint32_t left = m->data_len - m->l4 - 8u;
    bool v4 = m->protocol == ICMP;
    uint32_t bytes = v4 ? (ip[0] & 15) * 4u : 40;
    if (ip[0] >> 4 != (v4 ? 4 : 6) || left < bytes || bytes < 20 ||
        (v4 && hb_get_be16(ip + 6) & 0x1fff))
        return HB_FIREWALL_ABOUT_NONE;
    if (memcmp(v4 ? ip + 12 : ip + 8, v4 ? outer + 16 : outer + 24, v4 ? 4 : 16))
        return HB_FIREWALL_ABOUT_NONE;
    header h = header_at(ip, ip + bytes, left - bytes, ip[v4 ? 9 : 6]);
    return about(seat, m, &h);
}

/* Is it a first fragment? Of IPv6 the fragment header, the last one, stands in front of l4. */
static bool is_first_fragment(const hb_mbuf *m, const uint8_t *ip)
{
    if (ip[0] >> 4 == 4)
        return (hb_get_be16(ip + 6) & 0x3fff) == 0x2000;
    if (ip[6] == m->protocol)
        return false;
    hb_mbuf copy = *m;
    hb_key key;
    return !hb_parse(ip - m->l3, m->data_len, &copy, &key) && key.fragment;
}

static uint64_t argument(const hb_nf_seat *seat, const hb_mbuf *m, const uint8_t *packet)
{
    if (m->l3 == HB_NO_LAYER || m->l4 == HB_NO_LAYER || m->l4 >= m->data_len)
        return HB_FIREWALL_ABOUT_NONE;
    const uint8_t *ip = packet + m->l3;
    if (is_first_fragment(m, ip)) {
        header h = header_at(ip, packet + m->l4, m->data_len - (uint32_t)m->l4, m->protocol);
        return about(seat, m, &h);
    }
    if (m->protocol != (ip[0] >> 4 == 4 ? ICMP : ICMPV6) || m->data_len < m->l4 + 28u ||
        !is_error(m->protocol, packet[m->l4]))
        return HB_FIREWALL_ABOUT_NONE;
    return about_quoted(seat, m, packet);
}

static void prepare(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        arg[i] = argument(seat, m, hb_data(seat->arena, m));
    }
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    (void)handles, (void)verdict;
    for (uint32_t i = 0; i < n; i++)
        if (result[i] && result[i] <= seat->rules)
            seat->hits[result[i] - 1]++;
}

static const hb_nf_engine engines[] = {HB_FIREWALL_ENGINES};
extern const hb_nf_kind hb_firewall_kind;
const hb_nf_kind hb_firewall_kind = {.prepare = prepare,
                                     .finish = finish,
                                     .engines = engines,
                                     .nb_engines = sizeof engines / sizeof *engines};
