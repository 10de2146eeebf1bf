/* SPDX-License-Identifier: BSD-3-Clause */
/* nf_common.c: what happens to a packet around an NF, whether a CPU or a device ran it. */
#include "dataplane.h"

uint32_t hb_keep_with_room(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n)
{
    const hb_arena *a = &lc->dp->arena;
    const hb_nf *nf = &lc->dp->node[node].nf;
    if (!nf->head && !nf->tail)
        return n;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        if (m->data_off >= HB_FRAME_RESERVED + nf->head &&
            (uint32_t)m->data_off + m->data_len + nf->tail <= a->frame_size)
            handles[kept++] = handles[i];
        else
            hb_drop(lc, node, HB_REASON_no_room, handles[i]);
    }
    return kept;
}

/* Can this answer be true at all? The packet must lie where the NF may put it, which is inside its
 * frame (hb_has_room); every program of this version has one NF, number 0. */
static bool possible(const hb_dataplane *dp, const hb_nf *nf, const hb_mbuf *m,
                     const struct hb_done *d)
{
    uint32_t end = (uint32_t)m->data_off + m->data_len + nf->tail;
    if (d->offset + nf->head < m->data_off || !d->length || (uint32_t)d->offset + d->length > end ||
        d->stopped)
        return false;
    switch (d->verdict) {
    case HB_VERDICT_PASS:
        return true;
    case HB_VERDICT_DROP:
        return d->value > HB_REASON_none && d->value < HB_REASONS;
    case HB_VERDICT_RETYPE:
        return d->value < dp->config.types;
    default:
        return false;
    }
}

/* The NF changed the packet's extent: L2 stays in front, so L3 does too; find L4 again. */
static void refresh_offsets(const hb_arena *a, hb_mbuf *m)
{
    const uint8_t *l3 = hb_data(a, m) + m->l3;
    m->l4 = HB_NO_LAYER;
    if (m->l3 == HB_NO_LAYER || m->l3 + 20u > m->data_len || l3[0] >> 4 != 4)
        return;
    m->l4 = (uint8_t)(m->l3 + (l3[0] & 15) * 4);
    m->protocol = l3[9];
}

static void retype(hb_lcore *lc, uint32_t node, hb_mbuf *m, uint16_t type)
{
    hb_dataplane *dp = lc->dp;
    lc->node_stats[node].retyped++;
    m->type = type;
    if (dp->node[node].nf.sticky && m->flow != HB_NO_FLOW)
        hb_flow_retype(&dp->lcore[m->owner].flows, m, type);
}

void hb_prepare(hb_lcore *lc, uint32_t node, uint64_t *arg, uint32_t n)
{
    const hb_nf_seat *seat = &lc->seat[node];
    if (seat->hooks->prepare)
        seat->hooks->prepare(seat->state, &seat->table, arg, n);
}

/* Apply a possible answer to its packet. True if the packet lives on. */
static bool apply(hb_lcore *lc, uint32_t node, uint32_t handle, const struct hb_done *d)
{
    hb_mbuf *m = hb_header(&lc->dp->arena, handle);
    if (d->verdict == HB_VERDICT_DROP) {
        hb_drop(lc, node, d->value, handle);
        return false;
    }
    if (d->offset != m->data_off || d->length != m->data_len) {
        m->data_off = d->offset;
        m->data_len = d->length;
        refresh_offsets(&lc->dp->arena, m);
    }
    if (d->verdict == HB_VERDICT_RETYPE)
        retype(lc, node, m, d->value);
    return true;
}

/* Apply the answers; packets that ended, and results that cannot be believed, leave the arrays.
 * Returns how many packets live on. */
static uint32_t apply_all(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n,
                          uint64_t *result, uint32_t *results, const hb_answers *answers)
{
    const hb_nf *nf = &lc->dp->node[node].nf;
    uint32_t kept = 0, next = 0;
    *results = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t handle = handles[i];
        if (result)
            result[*results] = result[i];
        handles[kept] = handle;
        if (next == answers->n || answers->at[next] != i) {
            ++*results;
            kept++;
            continue;
        }
        const struct hb_done *d = &answers->done[next++];
        if (!possible(lc->dp, nf, hb_header(&lc->dp->arena, handle), d)) {
            hb_drop(lc, node, HB_REASON_bad_result, handle);
            continue;
        }
        ++*results;
        kept += apply(lc, node, handle, d);
    }
    return kept;
}

void hb_finish(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n, uint64_t *result,
               const hb_answers *answers, const hb_burst_sum *sum)
{
    const hb_nf_seat *seat = &lc->seat[node];
    uint32_t kept = n, results = n;
    if (answers->n)
        kept = apply_all(lc, node, handles, n, result, &results, answers);
    if (seat->hooks->finish)
        seat->hooks->finish(seat->state, result, results, seat->hits, lc->dp->node[node].nf.rules);
    lc->node_stats[node].bursts++;
    if (sum && sum->alike && !answers->n)
        hb_forward_alike(lc, node, handles, kept, sum->bytes);
    else
        hb_forward(lc, node, handles, kept);
}
