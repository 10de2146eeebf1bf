/* SPDX-License-Identifier: BSD-3-Clause */
/* stats.c: the layout of the stats region (api.h), and where each lcore finds its block. */
#include "stats.h"

static uint64_t place(uint64_t *at, uint64_t bytes)
{
    uint64_t off = *at;
    *at += (bytes + HB_LINE - 1) / HB_LINE * HB_LINE;
    return off;
}

static hb_stats_head layout(uint32_t lcores, uint32_t nodes, uint32_t types)
{
    hb_stats_head h = {.magic = HB_STATS_MAGIC,
                       .version = HB_STATS_VERSION,
                       .lcores = lcores,
                       .nodes = nodes,
                       .types = types,
                       .reasons = HB_REASONS};
    uint64_t at = 0, word = sizeof(uint64_t);
    place(&at, sizeof(hb_lcore_stats));
    h.nodes_off = place(&at, nodes * sizeof(hb_node_stats));
    h.drops_off = place(&at, (uint64_t)nodes * HB_REASONS * word);
    h.hops_off = place(&at, (uint64_t)nodes * types * word);
    h.ended_off = place(&at, (uint64_t)types * 2 * word);
    h.edges_off = place(&at, (uint64_t)nodes * nodes * word);
    h.latency_off = place(&at, (uint64_t)nodes * HB_HIST_BUCKETS * word);
    h.chain_latency_off = place(&at, (uint64_t)types * HB_HIST_BUCKETS * word);
    h.profile_off = place(&at, (nodes + HB_ACCOUNTS) * word);
    h.lcore_bytes = at;
    at = 0;
    place(&at, sizeof h);
    h.head_bytes = at;
    h.device_off = h.head_bytes + lcores * h.lcore_bytes;
    return h;
}

size_t hb_stats_size(uint32_t lcores, uint32_t nodes, uint32_t types)
{
    hb_stats_head h = layout(lcores, nodes, types);
    return h.device_off + sizeof(hb_device_stats);
}

hb_device_stats *hb_stats_init(void *region, uint32_t lcores, uint32_t nodes, uint32_t types)
{
    hb_stats_head *h = region;
    *h = layout(lcores, nodes, types);
    h->ticks_per_second = (uint64_t)hb_tick_rate();
    return (hb_device_stats *)((uint8_t *)region + h->device_off);
}

void hb_stats_begin(hb_stats_head *h)
{
    h->start_ticks = hb_now();
    h->start_ns = hb_clock_time_ns();
}

void hb_stats_attach(hb_lcore *lc)
{
    const hb_stats_head *h = lc->dp->stats;
    uint8_t *block = (uint8_t *)h + h->head_bytes + lc->id * h->lcore_bytes;
    lc->stats = (hb_lcore_stats *)block;
    lc->node_stats = (hb_node_stats *)(block + h->nodes_off);
    lc->drops = (uint64_t *)(block + h->drops_off);
    lc->hops = (uint64_t *)(block + h->hops_off);
    lc->ended = (uint64_t *)(block + h->ended_off);
    lc->edges = (uint64_t *)(block + h->edges_off);
    lc->latency = (uint64_t *)(block + h->latency_off);
    lc->chain_latency = (uint64_t *)(block + h->chain_latency_off);
    lc->profile = (uint64_t *)(block + h->profile_off);
}
