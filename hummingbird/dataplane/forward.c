/* SPDX-License-Identifier: BSD-3-Clause */
/* forward.c: packet forwarding (paper section IV-A3): ask the policy for the next node, hand the
 * packet to the lcore that serves it. Nobody blocks: what does not fit is dropped with the name of
 * what was full. */
#include "dataplane.h"

/* Everything that is counted when a packet ends. */
static void count_end(hb_lcore *lc, const hb_mbuf *m, bool sent)
{
    lc->ended[m->type * 2 + !sent]++;
    /* release: the packet has asked its policy for the last time, which may now be replaced */
    __atomic_store_n(&lc->stats->retired[m->route], lc->stats->retired[m->route] + 1,
                     __ATOMIC_RELEASE);
    /* relaxed: a credit more or less seen early harms nothing; single writer, so no RMW */
    uint64_t n = atomic_load_explicit(&lc->ended_from[m->in_port], memory_order_relaxed);
    atomic_store_explicit(&lc->ended_from[m->in_port], n + 1, memory_order_relaxed);
}

void hb_end(hb_lcore *lc, uint32_t handle, bool sent)
{
    count_end(lc, hb_header(&lc->dp->arena, handle), sent);
    if (lc->deads == HB_BURST)
        hb_free_dead(lc);
    lc->dead[lc->deads++] = handle;
}

void hb_free_dead(hb_lcore *lc)
{
    hb_release(&lc->cache, lc->dead, lc->deads);
    /* release, after the packets' own counters: whoever sees them gone sees how they ended */
    __atomic_store_n(&lc->stats->gone, lc->stats->gone + lc->deads, __ATOMIC_RELEASE);
    lc->deads = 0;
}

void hb_drop(hb_lcore *lc, uint32_t node, enum hb_reason reason, uint32_t handle)
{
    lc->drops[node * HB_REASONS + reason]++;
    lc->node_stats[node].dropped++;
    hb_end(lc, handle, false);
}

void hb_quarantine(hb_lcore *lc, uint32_t node, uint32_t handle)
{
    lc->drops[node * HB_REASONS + HB_REASON_device_lost]++;
    lc->node_stats[node].dropped++;
    count_end(lc, hb_header(&lc->dp->arena, handle), false);
    __atomic_store_n(&lc->stats->quarantined, lc->stats->quarantined + 1, __ATOMIC_RELEASE);
}

void hb_deliver(hb_lcore *lc, uint32_t to, uint32_t handle, hb_mbuf *m)
{
    const hb_node *node = &lc->dp->node[to];
    uint32_t target = node->lcore[hb_spread(m->hash, node->lcores)];
    m->hop_tick = lc->pass_tick;
    lc->node_stats[to].in_packets++;
    lc->node_stats[to].in_bytes += m->data_len;
    if (target == lc->id) {
        if (!hb_fifo_put(&lc->input[to], handle))
            hb_drop(lc, to, HB_REASON_node_full, handle);
    } else if (!hb_ring_put(lc->to[target], (uint64_t)to << 32 | handle)) {
        hb_drop(lc, to, HB_REASON_ring_full, handle);
    }
}

void hb_forward(hb_lcore *lc, uint32_t from, const uint32_t *handles, uint32_t n)
{
    hb_dataplane *dp = lc->dp;
    uint32_t types = dp->config.types;
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = hb_header(&dp->arena, handles[i]);
        uint32_t cell = from * types + m->type;
        uint32_t to = dp->policy[m->route].next[cell];
        lc->hops[cell]++;
        if (to < dp->nodes)
            hb_deliver(lc, to, handles[i], m);
        else
            hb_drop(lc, from, to == HB_NEXT_DROP ? HB_REASON_policy : HB_REASON_no_route_row,
                    handles[i]);
    }
}
