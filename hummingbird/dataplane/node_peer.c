/* SPDX-License-Identifier: BSD-3-Clause */
/* node_peer.c: an NF that a peer runs: the lcore's side of peer.h. */
#include "peer.h"

#include "dataplane.h"
#include "nf/peer_api.h"

static hb_peer_ring *ring_of(hb_peer *peer, const hb_lcore *lc)
{
    return atomic_load_explicit(&peer->ring[lc->id], memory_order_relaxed); /* its own */
}

/* Control thread, before the start. The peer frees it: its thread may outlive the data plane. */
static int open(hb_nf_seat *seat)
{
    hb_peer *peer = seat->host;
    uint32_t entries = seat->lcore->dp->config.queue;
    hb_peer_ring *ring = aligned_alloc(alignof(hb_peer_ring), sizeof *ring);
    if (!ring)
        return -1;
    *ring = (hb_peer_ring){.mask = entries - 1, .entry = calloc(entries, sizeof *ring->entry)};
    if (!ring->entry) {
        free(ring);
        return -1;
    }
    peer->arena = seat->arena;
    /* release: the peer's thread looks for rings already */
    atomic_store_explicit(&peer->ring[seat->lcore->id], ring, memory_order_release);
    return 0;
}

void *hb_peer_kind(void)
{
    static const hb_nf_engine engines[] = {{.name = "cpu"}};
    static const hb_nf_kind kind = {.open = open, .engines = engines, .nb_engines = 1};
    return (void *)&kind;
}

/* What it has answered goes its way. */
static uint32_t reap(hb_lcore *lc, uint32_t node, hb_peer_ring *ring)
{
    uint32_t handles[HB_BURST];
    hb_answers answers = {.n = 0};
    /* acquire: verdicts, and what the peer wrote to the packets */
    uint32_t n = atomic_load_explicit(&ring->done, memory_order_acquire) - ring->reaped;
    n = n < HB_BURST ? n : HB_BURST;
    if (!n)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_peer_entry *e = &ring->entry[(ring->reaped + i) & ring->mask];
        handles[i] = e->handle;
        if (e->verdict == HB_PASS)
            continue;
        const hb_mbuf *m = hb_header(&lc->dp->arena, e->handle);
        answers.at[answers.n] = (uint16_t)i;
        answers.done[answers.n++] = (struct hb_done){.offset = m->data_off,
                                                     .length = m->data_len,
                                                     .value = (uint16_t)(e->verdict >> 8),
                                                     .verdict = (uint8_t)e->verdict};
    }
    ring->reaped += n;
    hb_sample_latency(lc, node, hb_header(&lc->dp->arena, handles[0])->hop_tick);
    hb_finish(lc, node, handles, n, NULL, &answers, NULL);
    return n;
}

/* What has come here goes to it; what it has no room for is dropped. */
static uint32_t hand_over(hb_lcore *lc, uint32_t node, hb_peer *peer, hb_peer_ring *ring)
{
    uint32_t handles[HB_BURST];
    uint32_t published = atomic_load_explicit(&ring->published, memory_order_relaxed);
    uint32_t in_hands = published - ring->reaped, room = ring->mask + 1 - in_hands;
    lc->node_stats[node].depth = hb_fifo_count(&lc->input[node]) + in_hands;
    if (lc->sampling && in_hands)
        lc->node_stats[node].busy_ticks += lc->pass_ticks;
    uint32_t n = hb_fifo_take(&lc->input[node], handles, HB_BURST);
    uint32_t fit = n < room ? n : room;
    for (uint32_t i = 0; i < fit; i++)
        ring->entry[(published + i) & ring->mask].handle = handles[i];
    for (uint32_t i = fit; i < n; i++)
        hb_drop(lc, node, HB_REASON_node_full, handles[i]);
    if (fit) {
        /* release: entries, headers and frames before the index */
        atomic_store_explicit(&ring->published, published + fit, memory_order_release);
        hb_peer_wake(peer);
    }
    return n;
}

uint32_t hb_poll_peer(hb_lcore *lc, uint32_t node)
{
    hb_peer *peer = lc->seat[node].host;
    hb_peer_ring *ring = ring_of(peer, lc);
    if (atomic_load_explicit(&peer->closed, memory_order_relaxed))
        return 0;
    uint32_t work = reap(lc, node, ring);
    return work + hand_over(lc, node, peer, ring);
}

uint32_t hb_drop_peer(hb_lcore *lc, uint32_t node)
{
    hb_peer *peer = lc->seat[node].host;
    hb_peer_ring *ring = ring_of(peer, lc);
    uint32_t published = atomic_load_explicit(&ring->published, memory_order_relaxed);
    uint32_t n = published - ring->reaped;
    hb_peer_close(peer); /* whatever it still answers, nobody reads it */
    for (; ring->reaped != published; ring->reaped++)
        hb_drop(lc, node, HB_REASON_shutdown, ring->entry[ring->reaped & ring->mask].handle);
    return n;
}
