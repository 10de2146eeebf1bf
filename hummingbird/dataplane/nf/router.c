/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * router.c: what the router is on the host. The engine "cpu" looks up a burst at a time. finish()
 * makes ICMP errors and fragments, and passes on what ARP and ND packets say of neighbours to the
 * control thread, which changes the table.
 */
#include <stdlib.h>
#include <string.h>

#include "dataplane.h"
#include "inet.h"
#include "nf/router.cl"
#include "nf/router_api.h"
#include "nf/router_ask.h"

#define HEARD 256u /* neighbours that may wait for the control thread, a power of two */

/* What one lcore does; it alone writes, but `taken`. */
typedef struct {
    alignas(128) hb_icmp_limit limit;
    hb_router_counts count;
    hb_router_heard heard[HEARD]; /* a ring: the elements taken .. given - 1, modulo HEARD */
    _Atomic uint32_t given;
    alignas(128) _Atomic uint32_t taken; /* by the control thread */
} lane;

struct hb_router_host {
    hb_icmp_source from;
    int32_t type; /* of ICMP errors; -1: as the packet that they are about */
    bool learn;
    hb_router_asker *asker;   /* router_ask.c; NULL: nobody is asked */
    lane lane[HB_MAX_LCORES]; /* by lcore */
};

hb_router_host *hb_router_host_new(const uint8_t *ipv4, const uint8_t *ipv6, uint32_t rate,
                                   int32_t type, int learn)
{
    size_t bytes = (sizeof(hb_router_host) + 127) / 128 * 128;
    hb_router_host *h = aligned_alloc(128, bytes);
    if (!h)
        return NULL;
    memset(h, 0, bytes);
    memcpy(h->from.ipv4, ipv4, 4);
    memcpy(h->from.ipv6, ipv6, 16);
    h->type = type;
    h->learn = learn;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++)
        h->lane[i].limit.rate = rate;
    return h;
}

void hb_router_host_free(hb_router_host *h)
{
    if (h)
        hb_router_asker_free(h->asker);
    free(h);
}

void hb_router_host_ask(hb_router_host *h, const hb_ip_address *own, uint32_t n)
{
    h->asker = hb_router_asker_new(own, n);
}

/* ---- counters: one writer, any reader -----------------------------------------------------------
 */

static void add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

hb_router_counts hb_router_count(const hb_router_host *h)
{
    hb_router_counts sum = {0};
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        const hb_router_counts *c = &h->lane[i].count;
        sum.icmp_errors += __atomic_load_n(&c->icmp_errors, __ATOMIC_RELAXED);
        sum.icmp_suppressed += __atomic_load_n(&c->icmp_suppressed, __ATOMIC_RELAXED);
        sum.fragmented += __atomic_load_n(&c->fragmented, __ATOMIC_RELAXED);
        sum.asked += __atomic_load_n(&c->asked, __ATOMIC_RELAXED);
        sum.unheard += __atomic_load_n(&c->unheard, __ATOMIC_RELAXED);
    }
    return sum;
}

/* ---- neighbours ---------------------------------------------------------------------------------
 */

static void hear(lane *l, const hb_router_heard *heard)
{
    /* Relaxed: its own word. Acquire: the control thread has copied what it took. */
    uint32_t given = atomic_load_explicit(&l->given, memory_order_relaxed);
    if (given - atomic_load_explicit(&l->taken, memory_order_acquire) == HEARD) {
        add(&l->count.unheard, 1);
        return;
    }
    l->heard[given % HEARD] = *heard;
    /* Release: the element before the word that gives it. */
    atomic_store_explicit(&l->given, given + 1, memory_order_release);
}

uint32_t hb_router_hear(hb_router_host *h, hb_router_heard *heard, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        lane *l = &h->lane[i];
        /* As in hear(), the other way round. */
        uint32_t taken = atomic_load_explicit(&l->taken, memory_order_relaxed);
        uint32_t given = atomic_load_explicit(&l->given, memory_order_acquire);
        while (taken != given && n < most)
            heard[n++] = l->heard[taken++ % HEARD];
        atomic_store_explicit(&l->taken, taken, memory_order_release);
    }
    return n;
}

/* The address of one station, neither a group's nor none. */
static bool is_unicast(const uint8_t *mac)
{
    static const uint8_t none[6];
    return !(mac[0] & 1) && memcmp(mac, none, 6) != 0;
}

/* The sender of an ARP request or reply (RFC 826) for IPv4 over Ethernet. */
static void learn_arp(lane *l, const hb_mbuf *m, const uint8_t *packet)
{
    static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
    uint32_t at = 14;
    while (at + 4 <= m->data_len && at < 22 && hb_get_be16(packet + at - 2) != 0x0806)
        at += 4;
    const uint8_t *arp = packet + at;
    if (at + 28 > m->data_len || memcmp(arp, head, sizeof head) || !is_unicast(arp + 8) ||
        !hb_get_be32(arp + 14)) /* 0.0.0.0 asks whether an address is free */
        return;
    hb_router_heard heard = {.family = 4, .in_port = m->in_port};
    memcpy(heard.mac, arp + 8, 6);
    memcpy(heard.address, arp + 14, 4);
    hear(l, &heard);
}

static bool sum_is_right(const uint8_t *ip, uint32_t payload)
{
    uint64_t pseudo = payload + 58;
    for (uint32_t i = 8; i < 40; i += 2)
        pseudo += hb_get_be16(ip + i);
    return hb_inet_sum(ip + 40, payload, pseudo) == 0;
}

/* The sender of a neighbour solicitation, or the target of an advertisement, and the link-layer
 * address in its options (RFC 4861 sections 4.3 and 4.4). */
static void learn_nd(lane *l, const hb_mbuf *m, const uint8_t *packet)
{
    const uint8_t *ip = packet + m->l3, *nd = ip + 40;
    if (m->l3 == HB_NO_LAYER || m->l3 + 64u > m->data_len)
        return;
    uint32_t payload = hb_get_be16(ip + 4);
    if (payload < 24 || m->l3 + 40 + payload > m->data_len || nd[1] || !sum_is_right(ip, payload))
        return;
    bool advertisement = nd[0] == 136;
    hb_router_heard heard = {.family = 6, .in_port = m->in_port};
    memcpy(heard.address, advertisement ? nd + 8 : ip + 8, 16);
    for (uint32_t at = 24; at + 8 <= payload && nd[at + 1]; at += nd[at + 1] * 8u) {
        if (nd[at] != (advertisement ? 2 : 1) || !is_unicast(nd + at + 2))
            continue;
        memcpy(heard.mac, nd + at + 2, 6);
        hear(l, &heard);
        return;
    }
}

/* ---- finish -------------------------------------------------------------------------------------
 */

/* Type and code of the ICMP (RFC 792, RFC 1812 section 5.2.7) and ICMPv6 (RFC 4443) error for each
 * HB_ROUTER_DO_*. */
static const uint8_t errors[][2][2] = {
    [HB_ROUTER_DO_TIME] = {{11, 0}, {3, 0}},   [HB_ROUTER_DO_NO_ROUTE] = {{3, 0}, {1, 0}},
    [HB_ROUTER_DO_HOST] = {{3, 1}, {1, 3}},    [HB_ROUTER_DO_PROHIBITED] = {{3, 13}, {1, 1}},
    [HB_ROUTER_DO_TOO_BIG] = {{3, 4}, {2, 0}},
};

static void say(hb_nf_seat *seat, hb_router_host *h, lane *l, uint32_t handle, uint32_t what,
                uint32_t mtu)
{
    const hb_mbuf *m = hb_header(seat->arena, handle);
    const uint8_t *error = errors[what][hb_data(seat->arena, m)[m->l3] >> 4 == 6];
    uint32_t type = h->type < 0 ? m->type : (uint32_t)h->type;
    uint64_t before = l->limit.suppressed;
    bool made = hb_icmp_error(seat, &l->limit, &h->from, handle, error[0], error[1],
                              what == HB_ROUTER_DO_TOO_BIG ? mtu : 0, type);
    add(&l->count.icmp_errors, made);
    add(&l->count.icmp_suppressed, l->limit.suppressed - before);
}

/* The Ethernet address of a next hop is not known, or not sure: ask for it. One that has not
 * answered is not there, and then its packets' senders are told; nobody is while it may answer. */
static void ask(hb_nf_seat *seat, hb_router_host *h, lane *l, uint32_t handle, uint32_t hop,
                bool confirm)
{
    hb_router_question q = {.family = 0};
    enum hb_router_asked asked = HB_ROUTER_CANNOT;
    if (h->asker && hop)
        asked = hb_router_ask(h->asker, seat, handle, hop - 1, &q);
    add(&l->count.asked, asked == HB_ROUTER_ASKED || asked == HB_ROUTER_ASKED_AGAIN);
    bool silent = asked == HB_ROUTER_ASKED_AGAIN || asked == HB_ROUTER_SILENT;
    if (asked == HB_ROUTER_ASKED_AGAIN && confirm) {
        hb_router_heard heard = {.family = q.family};
        memcpy(heard.address, q.target, sizeof heard.address);
        hear(l, &heard);
    }
    if (!confirm && (silent || asked == HB_ROUTER_CANNOT))
        say(seat, h, l, handle, HB_ROUTER_DO_HOST, 0);
}

static void act(hb_nf_seat *seat, hb_router_host *h, uint32_t handle, uint64_t result,
                uint32_t *verdict)
{
    lane *l = &h->lane[seat->lcore->id];
    const hb_mbuf *m = hb_header(seat->arena, handle);
    uint32_t what = (uint32_t)(result >> 32), mtu = (uint32_t)(result >> 16) & 0xffff;
    if (what == HB_ROUTER_DO_ARP || what == HB_ROUTER_DO_ND) {
        if (h->learn)
            (what == HB_ROUTER_DO_ARP ? learn_arp : learn_nd)(l, m, hb_data(seat->arena, m));
    } else if (what == HB_ROUTER_DO_FRAGMENT) {
        if (hb_fragment(seat, handle, mtu))
            add(&l->count.fragmented, 1);
        else /* no mbufs, or a next hop that takes less than any link must */
            *verdict = HB_DROP(HB_REASON_too_big);
    } else if (what == HB_ROUTER_DO_ASK || what == HB_ROUTER_DO_CONFIRM) {
        ask(seat, h, l, handle, (uint32_t)result & 0xffff, what == HB_ROUTER_DO_CONFIRM);
    } else if (what <= HB_ROUTER_DO_TOO_BIG) {
        say(seat, h, l, handle, what, mtu);
    }
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    hb_router_host *h = seat->host;
    for (uint32_t i = 0; h && i < n; i++) {
        if (result[i] >> 32)
            act(seat, h, handles[i], result[i], &verdict[i]);
    }
}

/* ---- the engine ---------------------------------------------------------------------------------
 */

#define STEP 64u /* packets whose headers and entries wait in the cache together */

/* What is known of the packets of one step. */
typedef struct {
    hb_packet packet[STEP];
    uint32_t verdict[STEP];
    uint64_t result[STEP];
    uint32_t n4; /* those of IPv4 that may be looked up: ... */
    uint8_t at4[STEP];
    uint32_t address[STEP];
    uint16_t entry[STEP];
} step;

/* The first pass: are they fit to be looked up? */
static void check(const hb_nf_burst *b, step *s, uint32_t first, uint32_t n)
{
    s->n4 = 0;
    for (uint32_t i = 0; i < n; i++)
        __builtin_prefetch(hb_data(b->arena, hb_header(b->arena, b->handles[first + i])));
    for (uint32_t i = 0; i < n; i++) {
        hb_packet *p = &s->packet[i];
        *p = hb_packet_of(b, first + i);
        s->result[i] = 0;
        uint32_t version = hb_ip_version(p);
        s->verdict[i] = hb_router_check(p, version, &s->result[i]);
        if (s->verdict[i] != HB_PASS || version != 4)
            continue;
        uint32_t address = hb_get32(p, p->l3 + 16);
        __builtin_prefetch(b->table->base + 2 * (HB_ROUTER_V4 + (uint64_t)(address >> 8)));
        s->at4[s->n4] = (uint8_t)i;
        s->address[s->n4++] = address;
    }
}

static void run_step(const hb_nf_burst *b, step *s, uint32_t first, uint32_t n)
{
    check(b, s, first, n);
    hb_router_lookup_bulk(b->table->base, s->address, s->entry, s->n4);
    for (uint32_t i = 0, next4 = 0; i < n; i++) {
        hb_packet *p = &s->packet[i];
        bool v4 = next4 < s->n4 && s->at4[next4] == i;
        uint32_t entry = v4 ? s->entry[next4++] : 0;
        if (s->verdict[i] == HB_PASS) {
            if (!v4)
                entry = hb_router_lookup6(b->table, p, p->l3 + 24);
            s->verdict[i] = hb_router_send(p, b->table, entry, &s->result[i]);
        }
        if (b->result)
            b->result[first + i] = s->result[i];
        if (s->verdict[i] != HB_PASS)
            hb_answer(b->answers, first + i, p, s->verdict[i], s->result[i]);
    }
}

/* As the packet function in a loop, but one pass over the headers, one over the table's entries,
 * so that many of the entries are on their way at once. */
static void run(hb_nf_seat *seat, const hb_nf_burst *b)
{
    (void)seat;
    step s;
    for (uint32_t first = 0; first < b->n; first += STEP)
        run_step(b, &s, first, b->n - first < STEP ? b->n - first : STEP);
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = run}};
extern const hb_nf_kind hb_router_kind;
const hb_nf_kind hb_router_kind = {.finish = finish, .engines = engines, .nb_engines = 1};
