/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_balancer_icmp.c: ICMP errors about balanced connections. An error quotes the packet that it
 * is about, as whoever sends it has seen that:
 *   from a client's side, a packet of the virtual address: becomes one of the backend, and goes
 *   there; from a backend's side, a packet to the backend: becomes one to the virtual address.
 */
#include <string.h>

#include "inet.h"
#include "nf/load_balancer.h"

enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17, IP_ICMP6 = 58 };

#define QUOTED_L4 8u /* bytes of the quoted transport header that there are at least: the ports */

/* An error and what it quotes. */
typedef struct {
    uint8_t *ip; /* outer header */
    uint8_t *icmp;
    uint8_t *quoted;    /* IP header */
    uint8_t *quoted_l4; /* transport header, of which there are ... */
    uint32_t left;      /* ... so many bytes */
    bool six;
    hb_lb_ends outer;
    hb_lb_ends inner;
} quote;

static void address_of(uint8_t *to, const uint8_t *from, bool six)
{
    memset(to, 0, 16);
    to[10] = to[11] = 0xff;
    memcpy(to + (six ? 0 : 12), from, six ? 16 : 4);
}

static void addresses_of(hb_lb_ends *ends, const uint8_t *ip, bool six)
{
    for (uint32_t i = 0; i < 2; i++)
        address_of(ends->addr[i], ip + (six ? 8 + 16 * i : 12 + 4 * i), six);
}

/* The quoted packet, from its first byte on. False if it is not a whole TCP or UDP packet's, or the
 * first piece's, or if extension headers hide that. */
static bool look_inside(quote *q, uint32_t left)
{
    const uint8_t *ip = q->quoted;
    uint32_t header = q->six ? 40 : 20;
    if (left < header + QUOTED_L4 || ip[0] >> 4 != (q->six ? 6 : 4))
        return false;
    header = q->six ? 40 : (ip[0] & 15u) * 4;
    q->inner.protocol = ip[q->six ? 6 : 9];
    bool later = !q->six && hb_get_be16(ip + 6) & 0x1fff;
    if (header < 20 || left < header + QUOTED_L4 || later ||
        (q->inner.protocol != IP_TCP && q->inner.protocol != IP_UDP))
        return false;
    q->quoted_l4 = q->quoted + header;
    q->left = left - header;
    addresses_of(&q->inner, ip, q->six);
    for (uint32_t i = 0; i < 2; i++)
        q->inner.port[i] = (uint16_t)hb_get_be16(q->quoted_l4 + 2 * i);
    return true;
}

static bool look(const hb_nf_seat *seat, const hb_mbuf *m, quote *q)
{
    uint8_t *bytes = hb_data(seat->arena, m);
    memset(q, 0, sizeof *q);
    if (m->l3 == HB_NO_LAYER || m->l4 == HB_NO_LAYER || m->l3 + 40u > m->data_len ||
        (m->protocol != IP_ICMP && m->protocol != IP_ICMP6))
        return false;
    q->ip = bytes + m->l3;
    q->icmp = bytes + m->l4;
    q->quoted = q->icmp + 8;
    q->six = q->ip[0] >> 4 == 6;
    uint32_t total = q->six ? 40 + hb_get_be16(q->ip + 4) : hb_get_be16(q->ip + 2);
    uint32_t before = m->l4 + 8u, end = m->l3 + total;
    if (end > m->data_len || before > end)
        return false;
    addresses_of(&q->outer, q->ip, q->six);
    q->inner.zone = m->zone;
    return look_inside(q, end - before);
}

/* ---- rewriting ----------------------------------------------------------------------------------
 */

static void put16(uint8_t *at, uint32_t value, uint32_t *change)
{
    *change += hb_lb_change16(hb_get_be16(at), value);
    hb_put_be16(at, value);
}

static void put_address(uint8_t *at, const uint8_t *address, bool six, uint32_t *change)
{
    const uint8_t *from = address + (six ? 0 : 12);
    for (uint32_t i = 0; i < (six ? 16u : 4u); i += 2)
        put16(at + i, hb_get_be16(from + i), change);
}

/* A checksum, by what has changed of what it covers. It is part of what others cover, too. */
static void put_sum(uint8_t *at, uint32_t change, uint32_t *outer)
{
    put16(at, hb_lb_updated(hb_get_be16(at), change), outer);
}

/* The quoted packet's end (0 its source, 1 its destination) becomes this address and port (0: as it
 * is). */
static void put_quoted(quote *q, uint32_t end, const uint8_t *address, uint32_t port)
{
    uint32_t addresses = 0, ports = 0, sums = 0;
    put_address(q->quoted + (q->six ? 8 + 16 * end : 12 + 4 * end), address, q->six, &addresses);
    if (!q->six)
        put_sum(q->quoted + 10, addresses, &sums);
    if (port)
        put16(q->quoted_l4 + 2 * end, port, &ports);
    bool udp = q->inner.protocol == IP_UDP;
    uint8_t *sum = q->quoted_l4 + (udp ? 6 : 16);
    if (q->left >= (udp ? 8 : 18) && !(udp && !hb_get_be16(sum)))
        put_sum(sum, hb_lb_fold(addresses) + ports, &sums);
    uint32_t unused = 0;
    put_sum(q->icmp + 2, hb_lb_fold(addresses) + ports + sums, &unused);
}

/* The error's own end becomes this address. */
static void put_outer(quote *q, uint32_t end, const uint8_t *address)
{
    uint32_t change = 0, unused = 0;
    put_address(q->ip + (q->six ? 8 + 16 * end : 12 + 4 * end), address, q->six, &change);
    put_sum(q->six ? q->icmp + 2 : q->ip + 10, change, &unused); /* ICMPv6 covers the addresses */
}

/* ---- which way ----------------------------------------------------------------------------------
 */

/* From a client's side: it goes where the packets of the connection go. */
static uint32_t to_backend(hb_nf_seat *seat, hb_mbuf *m, quote *q, const hb_lb_service *s,
                           uint64_t *result)
{
    uint32_t state[HB_LB_WORDS] = {0};
    enum hb_reason bad = hb_lb_toward(seat, s, &q->inner, 0, true, state);
    if (bad != HB_REASON_none)
        return HB_DROP(bad);
    state[0] |= (uint32_t)m->direction << 8;
    hb_packet p = hb_lb_packet(seat, m, state);
    if ((state[0] & 255) == HB_LB_TUNNEL) {
        uint32_t verdict = hb_lb_act(&p, &seat->table, result);
        if (verdict == HB_PASS)
            hb_lb_moved(seat, m, &p);
        return verdict;
    }
    uint8_t address[16];
    bool six = state[0] & HB_LB_SIX;
    if (six != q->six)
        return HB_PASS;
    for (uint32_t i = 0; i < 4; i++)
        hb_put_be32(address + 4 * i, state[4 + i]);
    put_quoted(q, 0, address, state[2] & 0xffff);
    put_outer(q, 1, address);
    hb_lb_macs(&p, &seat->table, state[0]);
    *result = (state[1] & 0xffff) + 1;
    return HB_PASS;
}

/* The client knows the backend by its own address. */
static bool is_direct(const hb_nf_seat *seat, const quote *q)
{
    uint32_t state[HB_LB_WORDS];
    return hb_lb_find_state(seat, &q->inner, state) && (state[0] & 255) == HB_LB_PASS;
}

/* From a backend's side: as if the virtual address had been written to. */
static uint32_t to_client(quote *q, const hb_lb_reply *r, uint64_t *result)
{
    put_quoted(q, 1, r->virtual_address, r->virtual_port);
    if (!memcmp(q->outer.addr[0], r->address, sizeof r->address)) /* the backend itself says so */
        put_outer(q, 0, r->virtual_address);
    *result = (r->slot + 1u) | HB_LB_REPLY;
    return HB_PASS;
}

uint32_t hb_lb_translate(hb_nf_seat *seat, uint32_t handle, uint64_t *result)
{
    hb_mbuf *m = hb_header(seat->arena, handle);
    const hb_lb_config *c = hb_lb_current(seat->host);
    quote q;
    *result = 0;
    if (!look(seat, m, &q))
        return HB_PASS;
    const hb_lb_service *s =
        hb_lb_service_at(c, q.inner.addr[0], q.inner.protocol, q.inner.port[0]);
    const hb_lb_reply *r = hb_lb_reply_at(c, q.inner.addr[1], q.inner.protocol, q.inner.port[1]);
    uint32_t verdict = HB_PASS;
    if (s && !memcmp(q.outer.addr[1], q.inner.addr[0], 16))
        verdict = to_backend(seat, m, &q, s, result);
    else if (r && !memcmp(q.outer.addr[1], q.inner.addr[0], 16) && !is_direct(seat, &q))
        verdict = to_client(&q, r, result);
    else
        return HB_PASS;
    hb_lb_add(&hb_lb_lane_of(seat)->count.icmp_translated, verdict == HB_PASS);
    return verdict;
}
