/* SPDX-License-Identifier: BSD-3-Clause */
/* node_port.c: the common part of every port: counting, parsing, packet types, credits. */
#include "dataplane.h"
#include "guard.h"
#include "neighbour.h"
#include "taps.h"

#include <string.h>

/* How many packets an input port may take now. An unpaced one holds credits: it never has more in
 * flight than every queue on the way can hold, so a replay sees no overload drop. */
static uint32_t allowance(hb_lcore *lc, uint32_t node, const hb_port *port)
{
    hb_dataplane *dp = lc->dp;
    /* acquire: pairs with change_to() of policy.c */
    if (atomic_load_explicit(&dp->draining, memory_order_relaxed) ||
        atomic_load_explicit(&dp->held, memory_order_acquire))
        return 0;
    if (port->paced)
        return dp->rx_burst;
    uint64_t ended = 0;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        ended += atomic_load_explicit(&dp->lcore[l].ended_from[node], memory_order_relaxed);
    uint64_t in_flight = lc->admitted[node] - ended;
    uint64_t left = in_flight < dp->credits ? dp->credits - in_flight : 0;
    if (left >= dp->rx_burst)
        return dp->rx_burst;
    if (lc->sampling && in_flight)
        lc->node_stats[node].held_ticks += lc->pass_ticks;
    return (uint32_t)left;
}

/* Packets of IP that are of no flow, because the table is full, end here. Returns how many stay. */
static uint32_t drop_refused(hb_lcore *lc, uint32_t node, uint32_t *handles, hb_mbuf *const *m,
                             uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (m[i]->flow == HB_NO_FLOW && m[i]->l3 != HB_NO_LAYER)
            hb_drop(lc, node, HB_REASON_flows_full, handles[i]);
        else
            handles[kept++] = handles[i];
    }
    return kept;
}

/* The policy that is current now admits the packets and routes them to their end. Called by the
 * lcore that routes them first, so that version counts are exact per lcore. */
static void classify(hb_lcore *lc, uint32_t node, uint32_t *handles, hb_mbuf *const *m,
                     const hb_key *keys, uint32_t n, uint64_t busy_since)
{
    uint32_t refused = n ? hb_flow_classify(&lc->flows, &lc->dp->arena, m, keys, n) : 0;
    if (hb_watched(lc))
        hb_trace_arrivals(lc, node, handles, keys, n);
    if (refused)
        n = drop_refused(lc, node, handles, m, n);
    hb_count_busy(lc, node, busy_since);
    hb_forward(lc, node, handles, n);
}

/* Packets that another lcore received but whose flows are ours: parse again for the key, which does
 * not travel with the packet, then on as if received here. */
static uint32_t poll_handed_over(hb_lcore *lc, uint32_t node)
{
    uint32_t handles[HB_RX_BURST];
    hb_mbuf *m[HB_RX_BURST];
    hb_key keys[HB_RX_BURST];
    hb_arena *a = &lc->dp->arena;
    uint32_t n = hb_fifo_take(&lc->input[HB_HANDED_OVER(node)], handles, HB_RX_BURST);
    if (!n)
        return 0;
    uint64_t begin = lc->sampled;
    uint32_t account = hb_account_shared(lc, HB_ACCOUNT_CLASSIFY);
    for (uint32_t i = 0; i < n; i++) {
        m[i] = hb_header(a, handles[i]);
        m[i]->owner = (uint8_t)lc->id;
        hb_parse(hb_data(a, m[i]), m[i]->data_len, m[i], &keys[i]);
        hb_flow_prefetch(&lc->flows, m[i]->hash);
    }
    classify(lc, node, handles, m, keys, n, begin);
    hb_account(lc, account);
    return n;
}

/* What has just arrived: fill in the rest of the header, much of which is the same for a burst.
 * Returns why it must be dropped, or none. */
static inline enum hb_reason admit(const hb_arena *a, hb_mbuf *m, const hb_mbuf *same, hb_key *key)
{
    m->path = same->path;
    m->owner_untraced = same->owner_untraced;
    m->zone = same->zone;
    m->rx_tick = same->rx_tick;
    return hb_parse(hb_data(a, m), m->data_len, m, key);
}

/* A question for an address of the port becomes its answer, and leaves by the same port: true if it
 * was one. */
static bool answer(hb_lcore *lc, uint32_t node, const hb_owned *owned, uint32_t handle)
{
    const hb_arena *a = &lc->dp->arena;
    hb_mbuf *m = hb_header(a, handle);
    uint32_t length =
        hb_answer_neighbour(owned, hb_data(a, m), m->data_len, a->frame_size - m->data_off);
    if (!length)
        return false;
    m->data_len = (uint16_t)length;
    m->flow = HB_NO_FLOW;
    lc->node_stats[node].answered++;
    if (!hb_fifo_put(&lc->input[node], &handle, 1))
        hb_drop(lc, node, HB_REASON_node_full, handle);
    return true;
}

/* It has no type yet, and will not get one. */
static void drop_unclassified(hb_lcore *lc, uint32_t node, enum hb_reason why, uint32_t handle)
{
    if (hb_watched(lc))
        hb_trace_unclassified(lc, node, handle);
    hb_drop(lc, node, why, handle);
}

/* What arrived broken, may ask for what the port has (`asked`, else NULL), or may be another
 * lcore's: true if it stays here. */
static bool stays(hb_lcore *lc, uint32_t node, uint32_t handle, enum hb_reason bad,
                  const hb_owned *asked)
{
    hb_dataplane *dp = lc->dp;
    hb_mbuf *m = hb_header(&dp->arena, handle);
    if (bad != HB_REASON_none) {
        drop_unclassified(lc, node, bad, handle);
        return false;
    }
    if (asked && answer(lc, node, asked, handle))
        return false;
    uint32_t owner = dp->owner[hb_spread(m->hash, dp->owners)];
    if (owner == lc->id)
        return true;
    if (!hb_ring_put(lc->to[owner], HB_HANDED_OVER(node), &handle, 1))
        drop_unclassified(lc, node, HB_REASON_ring_full, handle);
    return false;
}

/* Parse what arrived; what is sound and ours is classified and goes on, the rest is handed over or
 * dropped. */
static void take_in(hb_lcore *lc, uint32_t node, const hb_port *port, uint32_t *handles, uint32_t n,
                    uint64_t busy_since)
{
    hb_account_shared(lc, HB_ACCOUNT_CLASSIFY);
    hb_dataplane *dp = lc->dp;
    hb_arena *a = &dp->arena;
    hb_mbuf *m[HB_RX_BURST];
    hb_key keys[HB_RX_BURST];
    uint32_t slot = atomic_load_explicit(&dp->current, memory_order_acquire), kept = 0;
    uint8_t admission = hb_admission(slot, atomic_load_explicit(&dp->epoch, memory_order_relaxed));
    const hb_mbuf same = {.route = admission,
                          .in_port = (uint8_t)node,
                          .owner = (uint8_t)lc->id,
                          .zone = port->zone,
                          .rx_tick = hb_now()};
    uint64_t bytes = 0;
    bool alone = dp->owners == 1; /* every flow is this lcore's */
    /* acquire: what is in it; the control thread waits for this pass before it frees it */
    const hb_owned *owned = atomic_load_explicit(&port->owned, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t handle = handles[i];
        m[kept] = hb_header(a, handle);
        enum hb_reason bad = admit(a, m[kept], &same, &keys[kept]);
        bytes += m[kept]->data_len;
        const hb_owned *asked = owned && hb_may_ask(m[kept]) ? owned : NULL;
        if (__builtin_expect((bad != HB_REASON_none) | !alone | (asked != NULL), 0) &&
            !stays(lc, node, handle, bad, asked))
            continue;
        hb_flow_prefetch(&lc->flows, m[kept]->hash);
        handles[kept++] = handle;
    }
    lc->node_stats[node].in_bytes += bytes;
    /* relaxed: read only when a whole pass has gone by since slot and epoch were current */
    __atomic_store_n(&lc->stats->admitted[admission], lc->stats->admitted[admission] + n,
                     __ATOMIC_RELAXED);
    classify(lc, node, handles, m, keys, kept, busy_since);
}

/* Fill the port's reserve of empty mbufs to at least `want` if the pool can. */
static uint32_t reserve(hb_lcore *lc, uint32_t node, uint32_t want)
{
    uint32_t have = lc->spares[node];
    if (have < want)
        have += hb_alloc(&lc->cache, lc->spare[node] + have, want - have);
    lc->spares[node] = have;
    return have < want ? have : want;
}

static void count_too_long(hb_lcore *lc, uint32_t node, hb_port *port)
{
    lc->node_stats[node].in_packets += port->too_long;
    lc->node_stats[node].in_bytes += port->too_long_bytes;
    lc->node_stats[node].dropped += port->too_long;
    lc->drops[node * HB_REASONS + HB_REASON_too_long] += port->too_long;
    lc->ended[1] += port->too_long; /* never classified: type 0 */
    port->too_long = port->too_long_bytes = 0;
}

/* Of which types lost packets were. */
static void count_lost_types(hb_lcore *lc, hb_port *port)
{
    for (uint32_t t = 0; t < lc->dp->config.types; t++) {
        lc->ended[t * 2] -= port->lost_by_type[t];
        lc->ended[t * 2 + 1] += port->lost_by_type[t];
        port->lost_by_type[t] = 0;
    }
}

/* What the port took but did not bring out was not sent after all. */
static void count_lost(hb_lcore *lc, uint32_t node, hb_port *port)
{
    if (port->lost_by_type)
        count_lost_types(lc, port);
    lc->node_stats[node].out_packets -= port->lost;
    lc->node_stats[node].dropped += port->lost;
    lc->drops[node * HB_REASONS + HB_REASON_port_error] += port->lost;
    port->lost = 0;
}

void hb_count_port(hb_lcore *lc, uint32_t node, hb_port *port)
{
    if (port->too_long)
        count_too_long(lc, node, port);
    if (port->lost)
        count_lost(lc, node, port);
    if (port->missed) {
        lc->node_stats[node].missed += port->missed;
        port->missed = 0;
    }
}

/* Take the mbufs from the end of the reserve that rx() filled; returns the first of them. */
static uint32_t receive(hb_lcore *lc, uint32_t node, hb_port *port, uint32_t *handles)
{
    hb_arena *a = &lc->dp->arena;
    uint32_t want = reserve(lc, node, allowance(lc, node, port));
    if (!want && !port->ops->keeps)
        return 0;
    uint32_t first = lc->spares[node] - want;
    memcpy(handles, lc->spare[node] + first, want * sizeof *handles);
    for (uint32_t i = 0; i < want; i++) {
        hb_header(a, handles[i])->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
        hb_unguard(a, handles[i]);
    }
    uint32_t got = port->ops->rx(port, a, handles, want);
    /* those left over stay in the reserve */
    memcpy(lc->spare[node] + first, handles + got, (want - got) * sizeof *handles);
    lc->spares[node] -= got;
    return got;
}

/* n packets have come into being here. */
static void count_in(hb_lcore *lc, uint32_t node, uint32_t n)
{
    lc->node_stats[node].in_packets += n;
    lc->node_stats[node].bursts++;
    lc->admitted[node] += n;
    /* release, before anything can end: in flight is never seen too small */
    __atomic_store_n(&lc->stats->born, lc->stats->born + n, __ATOMIC_RELEASE);
}

/* What has come in at one queue of a port. */
static uint32_t poll_queue(hb_lcore *lc, uint32_t node, hb_port *port)
{
    uint32_t handles[HB_RX_BURST];
    uint64_t begin = lc->sampled;
    uint32_t n = receive(lc, node, port, handles);
    hb_count_port(lc, node, port);
    if (n) {
        count_in(lc, node, n);
        if (hb_watched(lc))
            hb_tap_packets(lc, HB_TAP_OUTSIDE, node, handles, n);
        take_in(lc, node, port, handles, n, begin);
        return n;
    }
    if (lc->sampling)
        lc->sampled = hb_now(); /* looking for nothing is nobody's work */
    if (lc->flows.lives && port->live) {
        hb_flow_clock(lc->flows.lives, node,
                      hb_clock_time_ns()); /* flows age also without packets */
    }
    return n;
}

/* acquire: what the control thread did to the port before it gave it back */
static inline bool usable(const hb_port *port)
{
    return !atomic_load_explicit(&port->away, memory_order_acquire);
}

uint32_t hb_poll_input(hb_lcore *lc, uint32_t node)
{
    const hb_node *n = &lc->dp->node[node];
    uint32_t handled = poll_handed_over(lc, node), ended = 0, mine = 0;
    for (uint32_t q = 0; q < n->lcores; q++) {
        hb_port *port = n->port[q];
        if (n->lcore[q] != lc->id)
            continue;
        if (usable(port))
            handled += poll_queue(lc, node, port);
        ended += atomic_load_explicit(&port->done, memory_order_relaxed);
        mine++;
    }
    if (mine && ended == mine)
        __atomic_store_n(&lc->node_stats[node].end, 1, __ATOMIC_RELEASE);
    return handled;
}

/* The queue of a port that this lcore sends by: its first one. */
static hb_port *own_queue(const hb_lcore *lc, const hb_node *node)
{
    uint32_t q = 0;
    while (node->lcore[q] != lc->id)
        q++;
    return node->port[q];
}

/* The first packets of `handles` go out, as many as the port takes; returns how many that are, and
 * why the next one must be dropped. */
static uint32_t offer(hb_lcore *lc, hb_port *port, const uint32_t *handles, uint32_t n,
                      enum hb_reason *why)
{
    *why = HB_REASON_port_down;
    if (!usable(port))
        return 0;
    uint32_t sent = port->ops->tx(port, &lc->dp->arena, handles, n);
    *why = (enum hb_reason)port->unsent;
    return sent;
}

static void send(hb_lcore *lc, uint32_t node, hb_port *port, const uint32_t *handles, uint32_t n)
{
    hb_leaving leaving[HB_BURST];
    uint8_t trace[HB_BURST];
    bool watched = hb_watched(lc);
    if (watched) { /* now: sent, the headers may be others' */
        hb_tap_packets(lc, node, HB_TAP_OUTSIDE, handles, n);
        hb_trace_remember(lc, handles, n, trace);
    }
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
        leaving[i] = (hb_leaving){m->path, m->data_len};
    }
    for (uint32_t at = 0; at < n;) {
        enum hb_reason why;
        uint32_t sent = offer(lc, port, handles + at, n - at, &why);
        if (sent && watched)
            hb_trace_sent(lc, node, leaving + at, handles + at, trace + at, sent);
        if (sent)
            hb_end_sent(lc, node, leaving + at, port->ops->keeps ? NULL : handles + at, sent);
        at += sent;
        uint32_t refused = why == HB_REASON_too_long ? 1 : n; /* else those behind it may go */
        for (; at < n && refused; at++, refused--)
            hb_drop(lc, node, why, handles[at]);
    }
}

/* A packet of this type came in at this tick, and is sent after work since `begin`: an output's
 * latency, and a chain's, is the whole stay. */
static void sample_stay(hb_lcore *lc, uint32_t node, uint32_t type, uint64_t came, uint64_t begin)
{
    if (!lc->sampling)
        return;
    hb_sample_work(lc, node, begin, came);
    hb_count_sample(lc->chain_latency + type * HB_HIST_BUCKETS, lc->sampled - came);
}

uint32_t hb_poll_output(hb_lcore *lc, uint32_t node)
{
    uint32_t handles[HB_BURST];
    lc->node_stats[node].depth = hb_fifo_count(&lc->input[node]);
    uint32_t n = hb_fifo_take(&lc->input[node], handles, HB_BURST);
    if (!n)
        return 0;
    uint64_t begin = lc->sampled;
    hb_port *port = own_queue(lc, &lc->dp->node[node]);
    /* not always the first: types that are rare would rarely be seen. Sent, it is another's */
    const hb_mbuf *m = hb_header(&lc->dp->arena, handles[(uint32_t)lc->stats->passes % n]);
    uint64_t came = m->rx_tick;
    uint32_t type = m->type;
    send(lc, node, port, handles, n);
    sample_stay(lc, node, type, came, begin);
    lc->node_stats[node].bursts++;
    hb_count_port(lc, node, port);
    return n;
}
