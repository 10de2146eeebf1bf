/* SPDX-License-Identifier: BSD-3-Clause */
/* node_port.c: the common part of every port: counting, parsing, packet types, credits. */
#include "dataplane.h"

#include <string.h>

/* How many packets an input port may take now. An unpaced one holds credits: it never has more in
 * flight than every queue on the way can hold, so a replay sees no overload drop. */
static uint32_t allowance(hb_lcore *lc, uint32_t node, const hb_port *port)
{
    hb_dataplane *dp = lc->dp;
    if (atomic_load_explicit(&dp->draining, memory_order_relaxed))
        return 0;
    if (port->paced)
        return HB_BURST;
    uint64_t ended = 0;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        ended += atomic_load_explicit(&dp->lcore[l].ended_from[node], memory_order_relaxed);
    uint64_t in_flight = lc->admitted[node] - ended;
    uint64_t left = in_flight < dp->credits ? dp->credits - in_flight : 0;
    return left < HB_BURST ? (uint32_t)left : HB_BURST;
}

static void stamp(hb_dataplane *dp, uint32_t handle, uint32_t node, uint64_t now)
{
    hb_mbuf *m = hb_header(&dp->arena, handle);
    m->in_port = (uint16_t)node;
    m->type = 0;
    m->segments = 1;
    m->flow = HB_NO_FLOW;
    m->zone = 0;
    m->rx_tick = now;
}

/* The policy that is current now admits the packet and routes it to its end. Called by the lcore
 * that routes the packet first, so that version counts are exact per lcore. */
static uint32_t classify(hb_lcore *lc, uint32_t node, uint32_t *handles, hb_key *keys, uint32_t n)
{
    hb_dataplane *dp = lc->dp;
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = hb_header(&dp->arena, handles[i]);
        m->owner = (uint16_t)lc->id;
        if (m->l3 != HB_NO_LAYER)
            hb_flow_classify(&lc->flows, m, &keys[i]);
    }
    hb_forward(lc, node, handles, n);
    return n;
}

/* Packets that another lcore received but whose flows are ours: parse again for the key, which does
 * not travel with the packet, then on as if received here. */
static uint32_t poll_handed_over(hb_lcore *lc, uint32_t node)
{
    uint32_t handles[HB_BURST];
    hb_key keys[HB_BURST];
    hb_arena *a = &lc->dp->arena;
    uint32_t n = hb_fifo_take(&lc->input[node], handles, HB_BURST);
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = hb_header(a, handles[i]);
        hb_parse(hb_data(a, m), m->data_len, m, &keys[i]);
    }
    return n ? classify(lc, node, handles, keys, n) : 0;
}

/* Parse what arrived; keep what is sound and ours, hand over or drop the rest. Returns how many
 * were kept. */
static uint32_t sort_in(hb_lcore *lc, uint32_t node, uint32_t *handles, hb_key *keys, uint32_t n)
{
    hb_dataplane *dp = lc->dp;
    uint32_t slot = atomic_load_explicit(&dp->current, memory_order_acquire);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t h = handles[i];
        hb_mbuf *m = hb_header(&dp->arena, h);
        m->route = (uint8_t)slot;
        enum hb_reason bad = hb_parse(hb_data(&dp->arena, m), m->data_len, m, &keys[kept]);
        if (bad != HB_REASON_none) {
            hb_drop(lc, node, bad, h);
            continue;
        }
        uint32_t owner = dp->owner[hb_spread(m->hash, dp->owners)];
        if (owner == lc->id) {
            hb_flow_prefetch(&lc->flows, m->hash);
            handles[kept++] = h;
        } else if (!hb_ring_put(lc->to[owner], (uint64_t)node << 32 | h)) {
            hb_drop(lc, node, HB_REASON_ring_full, h);
        }
    }
    /* relaxed: read only when a whole pass has gone by since this slot was current */
    __atomic_store_n(&lc->stats->admitted[slot], lc->stats->admitted[slot] + n, __ATOMIC_RELAXED);
    return kept;
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

/* Take the mbufs from the end of the reserve that rx() filled; returns the first of them. */
static uint32_t receive(hb_lcore *lc, uint32_t node, hb_port *port, uint32_t *handles)
{
    hb_arena *a = &lc->dp->arena;
    uint32_t want = reserve(lc, node, allowance(lc, node, port));
    if (!want)
        return 0;
    uint32_t first = lc->spares[node] - want;
    memcpy(handles, lc->spare[node] + first, want * sizeof *handles);
    for (uint32_t i = 0; i < want; i++)
        hb_header(a, handles[i])->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
    uint32_t got = port->ops->rx(port, a, handles, want);
    /* those left over stay in the reserve */
    memcpy(lc->spare[node] + first, handles + got, (want - got) * sizeof *handles);
    lc->spares[node] -= got;
    return got;
}

uint32_t hb_poll_input(hb_lcore *lc, uint32_t node)
{
    hb_dataplane *dp = lc->dp;
    hb_port *port = dp->node[node].port;
    uint32_t handled = poll_handed_over(lc, node);
    if (dp->node[node].lcore[0] != lc->id)
        return handled;
    uint32_t handles[HB_BURST];
    hb_key keys[HB_BURST];
    uint32_t n = receive(lc, node, port, handles);
    if (port->too_long)
        count_too_long(lc, node, port);
    if (n) {
        uint64_t now = hb_now(), bytes = 0;
        for (uint32_t i = 0; i < n; i++) {
            stamp(dp, handles[i], node, now);
            bytes += hb_header(&dp->arena, handles[i])->data_len;
        }
        lc->node_stats[node].in_packets += n;
        lc->node_stats[node].in_bytes += bytes;
        lc->node_stats[node].bursts++;
        lc->admitted[node] += n;
        /* release, before anything can end: in flight is never seen too small */
        __atomic_store_n(&lc->stats->born, lc->stats->born + n, __ATOMIC_RELEASE);
        uint32_t kept = sort_in(lc, node, handles, keys, n);
        classify(lc, node, handles, keys, kept);
    }
    if (atomic_load_explicit(&port->done, memory_order_relaxed))
        __atomic_store_n(&lc->node_stats[node].end, 1, __ATOMIC_RELEASE);
    return handled + n;
}

uint32_t hb_poll_output(hb_lcore *lc, uint32_t node)
{
    hb_arena *a = &lc->dp->arena;
    hb_port *port = lc->dp->node[node].port;
    uint32_t handles[HB_BURST];
    uint32_t n = hb_fifo_take(&lc->input[node], handles, HB_BURST);
    if (!n)
        return 0;
    uint32_t sent = port->ops->tx(port, a, handles, n);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < sent; i++) {
        bytes += hb_header(a, handles[i])->data_len;
        hb_end(lc, handles[i], true);
    }
    for (uint32_t i = sent; i < n; i++)
        hb_drop(lc, node, HB_REASON_port_error, handles[i]);
    /* an output's latency is the packet's whole stay: from its input port to here */
    hb_sample_latency(lc, node, hb_now() - hb_header(a, handles[0])->rx_tick);
    lc->node_stats[node].bursts++;
    hb_count_out(lc, node, sent, bytes);
    return n;
}
