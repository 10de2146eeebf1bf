/* SPDX-License-Identifier: BSD-3-Clause */
/* flow_life.c: how tracked flows begin, age and end. All is decided by what the CPU has parsed and
 * by packet time, never by what a device wrote. */
#include <stdlib.h>

#include "flow.h"

#define NS_PER_SECOND 1000000000ull

enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

static const char *const state_names[HB_FLOW_STATES] = {
    "other",    "tcp_syn", "tcp_established", "tcp_midstream", "tcp_closing", "udp",
    "udp_both", "icmp",    "fragment"};

const char *hb_flow_state_name(uint32_t state)
{
    return state < HB_FLOW_STATES ? state_names[state] : NULL;
}

static void publish_tick(hb_flow_lives *l)
{
    /* relaxed: a time, which publishes nothing */
    atomic_store_explicit(&l->tick, (uint32_t)(l->clock.now >> HB_FLOW_TICK_SHIFT),
                          memory_order_relaxed);
}

int hb_flows_track(hb_flows *f, const hb_config *config)
{
    uint32_t places = hb_flows_places(f);
    hb_flow_lives *l = aligned_alloc(128, (sizeof *l + 127) / 128 * 128);
    if (!l)
        return -1;
    *l = (hb_flow_lives){.limit = config->flows,
                         .evict = config->flows_evict != 0,
                         .clock = {.now = HB_CLOCK_START},
                         .expendable = calloc(places + 1, sizeof *l->expendable),
                         .gone = calloc(places, sizeof *l->gone)};
    for (uint32_t i = 0; i < HB_FLOW_STATES; i++)
        l->timeout[i] = (uint32_t)(config->flow_timeout[i] * NS_PER_SECOND >> HB_FLOW_TICK_SHIFT);
    publish_tick(l);
    f->lives = l;
    if (!l->expendable || !l->gone)
        return -1;
    l->expendable[places].older = l->expendable[places].newer = places;
    return 0;
}

/* ---- the clock --------------------------------------------------------------------------------
 */

void hb_flow_clock(hb_flow_lives *l, uint32_t port, uint64_t time_ns)
{
    hb_clock_see(&l->clock, port, time_ns);
    publish_tick(l);
}

uint32_t hb_flow_idle(const hb_flow_lives *l, const hb_flow *e)
{
    return hb_flow_now(l) - atomic_load_explicit(&e->seen, memory_order_relaxed);
}

/* ---- states -----------------------------------------------------------------------------------
 */

static uint32_t tcp_flags(const hb_mbuf *m, const uint8_t *packet)
{
    uint32_t at = m->l4 + 13u;
    return m->protocol == TCP && m->l4 != HB_NO_LAYER && at < m->data_len ? packet[at] : 0;
}

static uint8_t first_state(const hb_flow *e, const hb_mbuf *m, uint32_t flags)
{
    if (e->key.fragment)
        return HB_FLOW_FRAGMENT;
    switch (m->protocol) {
    case TCP:
        return flags & (FIN | RST) ? HB_FLOW_TCP_CLOSING
               : flags & SYN       ? HB_FLOW_TCP_SYN
                                   : HB_FLOW_TCP_MIDSTREAM;
    case UDP:
        return HB_FLOW_UDP;
    case ICMP:
    case ICMPV6:
        return HB_FLOW_ICMP;
    default:
        return HB_FLOW_OTHER;
    }
}

/* What a packet that is not the flow's first makes of its state. */
static uint8_t next_state(const hb_flow *e, uint32_t flags, bool by_first)
{
    switch (e->state) {
    case HB_FLOW_TCP_SYN: /* the handshake ends with the ACK of who began it */
        if (flags & (FIN | RST))
            return HB_FLOW_TCP_CLOSING;
        return (flags & (SYN | ACK)) == ACK && by_first ? HB_FLOW_TCP_ESTABLISHED : e->state;
    case HB_FLOW_TCP_MIDSTREAM:
    case HB_FLOW_TCP_ESTABLISHED:
        if (flags & (FIN | RST))
            return HB_FLOW_TCP_CLOSING;
        return e->seen_of & HB_SEEN_BOTH ? HB_FLOW_TCP_ESTABLISHED : e->state;
    case HB_FLOW_UDP:
        return e->seen_of & HB_SEEN_BOTH ? HB_FLOW_UDP_BOTH : e->state;
    default:
        return e->state;
    }
}

void hb_flow_join(const hb_flow_lives *l, hb_flow *e, const hb_mbuf *m, const uint8_t *packet)
{
    uint8_t joined = (uint8_t)(HB_JOINED_DIRECTION << m->direction);
    if (tcp_flags(m, packet) & (FIN | RST))
        joined |= HB_JOINED_END;
    /* relaxed, all three: they publish nothing */
    atomic_store_explicit(&e->seen, hb_flow_now(l), memory_order_relaxed);
    if (joined & ~atomic_load_explicit(&e->joined, memory_order_relaxed))
        atomic_fetch_or_explicit(&e->joined, joined, memory_order_relaxed);
}

/* Half-open or nearly over: what it has to go for may be more. */
static bool is_expendable(uint8_t state)
{
    return state != HB_FLOW_TCP_ESTABLISHED && state != HB_FLOW_UDP_BOTH;
}

static uint32_t generation_of(const hb_flow *e)
{
    return (uint32_t)(atomic_load_explicit(&e->word, memory_order_relaxed) >> 32);
}

static bool is_first_fragment(const hb_flow *e, const hb_mbuf *m)
{
    return e->key.fragment && m->l4 != HB_NO_LAYER;
}

/* ---- flows that may be evicted, oldest first ----------------------------------------------------
 */

static void append(hb_flows *f, uint32_t at)
{
    hb_flow_lives *l = f->lives;
    uint32_t end = hb_flows_places(f), newest = l->expendable[end].older;
    l->expendable[at].older = newest;
    l->expendable[at].newer = end;
    l->expendable[newest].newer = l->expendable[end].older = at;
}

static void take_out(hb_flow_lives *l, uint32_t at)
{
    l->expendable[l->expendable[at].older].newer = l->expendable[at].newer;
    l->expendable[l->expendable[at].newer].older = l->expendable[at].older;
}

static void set_state(hb_flows *f, uint32_t at, uint8_t state)
{
    hb_flow *e = f->flow + at;
    if (is_expendable(e->state) && !is_expendable(state))
        take_out(f->lives, at);
    if (!is_expendable(e->state) && is_expendable(state))
        append(f, at);
    e->state = state;
}

/* What packets that have joined make of it. */
static void count_joined(hb_flows *f, uint32_t at)
{
    hb_flow *e = f->flow + at;
    if (!atomic_load_explicit(&e->joined, memory_order_relaxed))
        return;
    uint8_t joined = atomic_exchange_explicit(&e->joined, 0, memory_order_relaxed);
    uint32_t other = HB_JOINED_DIRECTION << !(e->seen_of & HB_SEEN_FIRST);
    if (joined & other)
        e->seen_of |= HB_SEEN_BOTH;
    set_state(f, at, next_state(e, joined & HB_JOINED_END ? FIN : 0, false));
}

bool hb_flow_admit(hb_flows *f)
{
    hb_flow_lives *l = f->lives;
    if (l->live < l->limit)
        return true;
    uint32_t end = hb_flows_places(f), oldest = l->expendable[end].newer;
    if (!l->evict || oldest == end)
        return false;
    f->stats->flow_evictions++;
    hb_flow_release(f, oldest, HB_FLOW_END_EVICTED);
    return true;
}

/* ---- a packet ---------------------------------------------------------------------------------
 */

void hb_flow_begin(hb_flows *f, uint32_t at, const hb_mbuf *m, const uint8_t *packet)
{
    hb_flow *e = f->flow + at;
    e->began = hb_flow_now(f->lives);
    atomic_store_explicit(&e->seen, e->began, memory_order_relaxed);
    atomic_store_explicit(&e->joined, 0, memory_order_relaxed);
    e->seen_of = m->direction ? HB_SEEN_FIRST : 0;
    if (is_first_fragment(e, m))
        e->seen_of |= HB_SEEN_FRAGMENT;
    e->state = first_state(e, m, tcp_flags(m, packet));
    f->stats->flows_live = ++f->lives->live;
    if (is_expendable(e->state))
        append(f, at);
}

bool hb_flow_goes_on(hb_flows *f, uint32_t at, const hb_mbuf *m, const uint8_t *packet)
{
    hb_flow *e = f->flow + at;
    uint32_t flags = tcp_flags(m, packet);
    count_joined(f, at);
    if (hb_flow_idle(f->lives, e) > f->lives->timeout[e->state]) {
        hb_flow_release(f, at, HB_FLOW_END_IDLE);
        return false;
    }
    bool again = e->state == HB_FLOW_TCP_CLOSING && (flags & (SYN | ACK | RST)) == SYN;
    if (again || (is_first_fragment(e, m) && e->seen_of & HB_SEEN_FRAGMENT)) {
        hb_flow_release(f, at, HB_FLOW_END_REPLACED);
        return false;
    }
    bool by_first = m->direction == (e->seen_of & HB_SEEN_FIRST);
    uint8_t seen_of = e->seen_of | (by_first ? 0 : HB_SEEN_BOTH) |
                      (is_first_fragment(e, m) ? HB_SEEN_FRAGMENT : 0);
    if (e->seen_of != seen_of)
        e->seen_of = seen_of;
    uint8_t state = next_state(e, flags, by_first);
    if (e->state != state)
        set_state(f, at, state);
    return true;
}

/* ---- the end ----------------------------------------------------------------------------------
 */

void hb_flow_release(hb_flows *f, uint32_t at, enum hb_flow_end why)
{
    hb_flow_lives *l = f->lives;
    hb_flow *e = f->flow + at;
    if (why == HB_FLOW_END_IDLE && e->state == HB_FLOW_TCP_CLOSING)
        why = HB_FLOW_END_CLOSED;
    l->gone[l->released++ % hb_flows_places(f)] = (hb_flow_gone){at, generation_of(e), why};
    if (is_expendable(e->state))
        take_out(l, at);
    f->tag[at] = HB_TAG_HELD;
    atomic_store_explicit(&e->word, 0, memory_order_relaxed); /* no re-type holds any more */
    f->stats->flows_live = --l->live;
}

void hb_flows_age(hb_flows *f, uint32_t sets)
{
    hb_flow_lives *l = f->lives;
    for (; sets; sets--, l->scan = (l->scan + 1) & f->mask)
        for (uint32_t at = l->scan * HB_FLOW_WAYS; at < (l->scan + 1) * HB_FLOW_WAYS; at++) {
            if (!(f->tag[at] & 1))
                continue;
            count_joined(f, at);
            if (hb_flow_idle(l, &f->flow[at]) > l->timeout[f->flow[at].state])
                hb_flow_release(f, at, HB_FLOW_END_IDLE);
        }
}

bool hb_flows_drain(hb_flows *f, uint32_t epoch, uint32_t done)
{
    hb_flow_lives *l = f->lives;
    uint32_t drained = atomic_load_explicit(&l->drained, memory_order_relaxed);
    if (drained != l->closing && (int32_t)(done - l->epoch) >= 0) {
        drained = l->closing;
        /* release: what is known of these flows, before whoever hears that they are over */
        atomic_store_explicit(&l->drained, drained, memory_order_release);
    }
    if (drained == l->closing && l->released != l->closing) {
        l->closing = l->released;
        l->epoch = epoch;
    }
    return drained != l->closing;
}

void hb_flows_reuse(hb_flows *f, uint32_t heard)
{
    hb_flow_lives *l = f->lives;
    for (; l->freed != heard; l->freed++) {
        f->tag[l->gone[l->freed % hb_flows_places(f)].at] = HB_TAG_FREE;
        f->stats->flow_ends++;
    }
}
