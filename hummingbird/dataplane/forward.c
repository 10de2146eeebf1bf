/* SPDX-License-Identifier: BSD-3-Clause */
/* forward.c: packet forwarding (paper section IV-A3): ask the policy for the next node, hand the
 * packets to the lcore that serves it. Nobody blocks: what does not fit is dropped with the name of
 * what was full. */
#include <string.h>

#include "dataplane.h"
#include "taps.h"

/* The bits of hb_mbuf.path that decide where a packet goes next: type and route. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ROUTED 0x00ffffffu
#else
#define ROUTED 0xffffff00u
#endif

/* ---- how packets end ------------------------------------------------------------------------- */

/* Everything that is counted when n packets with one path end. */
static inline void count_end(hb_lcore *lc, uint32_t path, uint32_t n, bool sent)
{
    const hb_mbuf *m = &(hb_mbuf){.path = path};
    lc->ended[m->type * 2 + !sent] += n;
    /* release: they have asked their policy for the last time, which may now be replaced */
    __atomic_store_n(&lc->stats->retired[m->route], lc->stats->retired[m->route] + n,
                     __ATOMIC_RELEASE);
    /* relaxed: a credit more or less seen early harms nothing; single writer, so no RMW */
    uint64_t ended = atomic_load_explicit(&lc->ended_from[m->in_port], memory_order_relaxed);
    atomic_store_explicit(&lc->ended_from[m->in_port], ended + n, memory_order_relaxed);
}

void hb_end_sent(hb_lcore *lc, uint32_t node, const hb_leaving *packets, const uint32_t *handles,
                 uint32_t n)
{
    uint64_t bytes = 0;
    uint32_t begin = 0;
    for (uint32_t i = 0; i < n; i++) {
        bytes += packets[i].bytes;
        if (packets[i].path == packets[begin].path)
            continue;
        count_end(lc, packets[begin].path, i - begin, true); /* a run of packets with one path */
        begin = i;
    }
    count_end(lc, packets[begin].path, n - begin, true);
    hb_count_out(lc, node, n, bytes);
    if (handles)
        hb_release(&lc->cache, handles, n);
    /* release, after the packets' own counters: whoever sees them gone sees how they ended */
    __atomic_store_n(&lc->stats->gone, lc->stats->gone + n, __ATOMIC_RELEASE);
}

void hb_free_dead(hb_lcore *lc)
{
    hb_release(&lc->cache, lc->dead, lc->deads);
    /* release: as in hb_end_sent() */
    __atomic_store_n(&lc->stats->gone, lc->stats->gone + lc->deads, __ATOMIC_RELEASE);
    lc->deads = 0;
}

static void count_drop(hb_lcore *lc, uint32_t node, enum hb_reason reason, uint32_t handle)
{
    lc->drops[node * HB_REASONS + reason]++;
    lc->node_stats[node].dropped++;
    if (hb_watched(lc))
        hb_trace_dropped(lc, node, reason, handle);
    count_end(lc, hb_header(&lc->dp->arena, handle)->path, 1, false);
}

void hb_drop(hb_lcore *lc, uint32_t node, enum hb_reason reason, uint32_t handle)
{
    count_drop(lc, node, reason, handle);
    if (lc->deads == HB_BURST)
        hb_free_dead(lc);
    lc->dead[lc->deads++] = handle;
}

void hb_quarantine(hb_lcore *lc, uint32_t node, uint32_t handle)
{
    count_drop(lc, node, HB_REASON_device_lost, handle);
    __atomic_store_n(&lc->stats->quarantined, lc->stats->quarantined + 1, __ATOMIC_RELEASE);
}

/* ---- how packets move on --------------------------------------------------------------------- */

/* To the input of a node, here or behind the ring to another lcore. */
static void queue(hb_lcore *lc, uint32_t to, uint32_t target, const uint32_t *handles, uint32_t n)
{
    bool here = target == lc->id;
    uint64_t now = lc->sampled = hb_now();
    for (uint32_t i = 0; i < n; i++)
        hb_header(&lc->dp->arena, handles[i])->hop_tick = now;
    uint32_t put = here ? hb_fifo_put(&lc->input[to], handles, n)
                        : hb_ring_put(lc->to[target], to, handles, n);
    for (uint32_t i = put; i < n; i++)
        hb_drop(lc, to, here ? HB_REASON_node_full : HB_REASON_ring_full, handles[i]);
}

/* May the packets be worked on at once, ahead of nobody? So a chain on one lcore is run to its end,
 * and what a burst has in common need not be found out at each hop. */
static bool can_run_now(const hb_lcore *lc, uint32_t node)
{
    return lc->dp->node[node].kind == HB_NODE_CNF && !hb_fifo_count(&lc->input[node]) &&
           lc->nested < HB_MOST_NESTED;
}

static void send_to(hb_lcore *lc, uint32_t to, uint32_t target, uint32_t *handles, uint32_t n,
                    const hb_burst_sum *sum)
{
    if (target != lc->id || !can_run_now(lc, to)) {
        queue(lc, to, target, handles, n);
        return;
    }
    lc->nested++;
    hb_run_cnf(lc, to, handles, n, sum);
    lc->nested--;
}

/* To a node that several lcores serve: each gets its flows. */
static void share_out(hb_lcore *lc, uint32_t to, const uint32_t *handles, uint32_t n, bool alike)
{
    const hb_node *node = &lc->dp->node[to];
    uint32_t group[HB_BURST];
    for (uint32_t k = 0; k < node->lcores; k++) {
        hb_burst_sum sum = {.alike = alike};
        uint32_t count = 0;
        for (uint32_t i = 0; i < n; i++) {
            const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
            uint32_t mine = hb_spread(m->hash, node->lcores) == k;
            group[count] = handles[i];
            sum.bytes += m->data_len & -mine;
            count += mine;
        }
        if (count)
            send_to(lc, to, node->lcore[k], group, count, &sum);
    }
}

/* n packets go to node `next`, which may be no node. */
static void deliver(hb_lcore *lc, uint32_t from, uint32_t next, uint32_t *handles, uint32_t n,
                    const hb_burst_sum *sum)
{
    hb_dataplane *dp = lc->dp;
    if (next >= dp->nodes) {
        enum hb_reason why = next == HB_NEXT_DROP ? HB_REASON_policy : HB_REASON_no_route_row;
        for (uint32_t i = 0; i < n; i++)
            hb_drop(lc, from, why, handles[i]);
        return;
    }
    if (hb_watched(lc))
        hb_tap_packets(lc, from, next, handles, n);
    const hb_node *node = &dp->node[next];
    lc->edges[from * dp->max_nodes + next] += n;
    if (node->kind != HB_NODE_PORT) {
        lc->node_stats[next].in_packets += n;
        lc->node_stats[next].in_bytes += sum->bytes;
    }
    if (node->lcores == 1)
        send_to(lc, next, node->lcore[0], handles, n, sum);
    else if (node->kind == HB_NODE_PORT && lc->input[next].slot)
        queue(lc, next, lc->id, handles, n); /* a queue of the interface is ours */
    else
        share_out(lc, next, handles, n, sum->alike);
}

static void forward_run(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n, uint64_t bytes)
{
    hb_dataplane *dp = lc->dp;
    const hb_mbuf *m = hb_header(&dp->arena, handles[0]);
    uint32_t cell = from * dp->config.types + m->type;
    lc->hops[cell] += n;
    deliver(lc, from, dp->policy[hb_policy_slot(m)].next[cell], handles, n,
            &(hb_burst_sum){.bytes = bytes, .alike = true});
}

/* Before they move on: whoever sees them gone has seen that they came by. */
static void count_out(hb_lcore *lc, uint32_t from, uint32_t n, uint64_t bytes)
{
    if (lc->dp->node[from].kind != HB_NODE_PORT)
        hb_count_out(lc, from, n, bytes);
}

void hb_forward_alike(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n, uint64_t bytes)
{
    uint32_t account = hb_account_shared(lc, HB_ACCOUNT_FORWARD);
    count_out(lc, from, n, bytes);
    forward_run(lc, from, handles, n, bytes);
    hb_account(lc, account);
}

/* A burst with few changes from one packet to the next: piece by piece. */
static void forward_runs(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n)
{
    const hb_arena *a = &lc->dp->arena;
    for (uint32_t begin = 0, end; begin < n; begin = end) {
        uint32_t path = hb_header(a, handles[begin])->path;
        uint64_t bytes = 0;
        for (end = begin; end < n; end++) {
            const hb_mbuf *m = hb_header(a, handles[end]);
            if ((m->path ^ path) & ROUTED)
                break;
            bytes += m->data_len;
        }
        forward_run(lc, from, handles + begin, end - begin, bytes);
    }
}

/* A burst in which types alternate: each packet's next node is looked up, and each node gets its
 * packets together. Those for one node stay in order, whatever their types. */
static void forward_apart(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n,
                          uint64_t all_bytes)
{
    hb_dataplane *dp = lc->dp;
    uint32_t row = from * dp->config.types, left[HB_BURST], group[HB_BURST], differ = 0;
    uint64_t *hops = lc->hops + row;
    uint16_t next[HB_BURST];
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&dp->arena, handles[i]);
        hops[m->type]++;
        next[i] = dp->policy[hb_policy_slot(m)].next[row + m->type];
        differ |= (uint32_t)next[i] ^ next[0];
    }
    if (!differ) {
        deliver(lc, from, next[0], handles, n, &(hb_burst_sum){.bytes = all_bytes});
        return;
    }
    memcpy(left, handles, n * sizeof *handles);
    while (n) {
        uint32_t to = next[0], others = 0, alike = 0;
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < n; i++) { /* without branches: which one comes is a coin toss */
            uint32_t handle = left[i], goes = next[i], mine = goes == to;
            bytes += hb_header(&dp->arena, handle)->data_len & -mine;
            group[alike] = handle;
            left[others] = handle;
            next[others] = (uint16_t)goes;
            alike += mine;
            others += !mine;
        }
        deliver(lc, from, to, group, alike, &(hb_burst_sum){.bytes = bytes});
        n = others;
    }
}

#define FEW 8 /* a burst with at most n / FEW changes is forwarded in runs */

void hb_forward(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n)
{
    const hb_arena *a = &lc->dp->arena;
    if (!n)
        return;
    uint32_t account = hb_account_shared(lc, HB_ACCOUNT_FORWARD);
    uint32_t path = hb_header(a, handles[0])->path, changes = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        changes += ((m->path ^ path) & ROUTED) != 0;
        path = m->path;
        bytes += m->data_len;
    }
    count_out(lc, from, n, bytes);
    if (!changes)
        forward_run(lc, from, handles, n, bytes);
    else if (changes <= n / FEW)
        forward_runs(lc, from, handles, n);
    else
        forward_apart(lc, from, handles, n, bytes);
    hb_account(lc, account);
}
