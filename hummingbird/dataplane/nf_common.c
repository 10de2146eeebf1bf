/* SPDX-License-Identifier: BSD-3-Clause */
/* nf_common.c: what happens to a packet around an NF, whether a CPU or a device ran it. */
#include <string.h>

#include "dataplane.h"
#include "inet.h"
#include "taps.h"

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
    if (m->l3 != HB_NO_LAYER && m->l3 + 20u <= m->data_len && l3[0] >> 4 == 4 &&
        !(hb_get_be16(l3 + 6) & 0x1fff)) {
        m->l4 = (uint8_t)(m->l3 + (l3[0] & 15) * 4);
        m->protocol = l3[9];
        return;
    }
    hb_mbuf fresh = {.zone = m->zone}; /* what else it may be; its hash stays that of its flow */
    hb_key key;
    hb_parse(hb_data(a, m), m->data_len, &fresh, &key);
    m->l3 = fresh.l3;
    m->l4 = fresh.l4;
    m->protocol = fresh.protocol;
}

static void retype(hb_lcore *lc, uint32_t node, hb_mbuf *m, uint16_t type)
{
    hb_dataplane *dp = lc->dp;
    lc->node_stats[node].retyped++;
    m->type = type;
    if (dp->node[node].nf.sticky && m->flow != HB_NO_FLOW)
        hb_flow_retype(&dp->lcore[m->owner].flows, m, type);
}

/* Apply the possible answers to the headers and say what each packet's verdict is; packets with an
 * impossible one are dropped, and leave the arrays. Returns how many stay. */
static uint32_t apply(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n, uint64_t *result,
                      uint32_t *verdict, const hb_answers *answers)
{
    const hb_arena *a = &lc->dp->arena;
    uint32_t kept = 0, next = 0;
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = hb_header(a, handles[i]);
        const struct hb_done *d = NULL;
        if (next < answers->n && answers->at[next] == i)
            d = &answers->done[next++];
        if (d && !possible(lc->dp, &lc->dp->node[node].nf, m, d)) {
            hb_drop(lc, node, HB_REASON_bad_result, handles[i]);
            continue;
        }
        if (d && d->verdict != HB_VERDICT_DROP &&
            (d->offset != m->data_off || d->length != m->data_len)) {
            m->data_off = d->offset;
            m->data_len = d->length;
            refresh_offsets(a, m);
        }
        if (result)
            result[kept] = result[i];
        verdict[kept] = d ? d->verdict | (uint32_t)d->value << 8 : HB_PASS;
        handles[kept++] = handles[i];
    }
    return kept;
}

/* Carry out the verdicts; packets that are dropped leave the array. Returns how many live on. */
static uint32_t carry_out(hb_lcore *lc, uint32_t node, uint32_t *handles, const uint32_t *verdict,
                          uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t handle = handles[i];
        if ((verdict[i] & 255) == HB_VERDICT_DROP) {
            hb_drop(lc, node, verdict[i] >> 8, handle);
            continue;
        }
        if (verdict[i] != HB_PASS)
            retype(lc, node, hb_header(&lc->dp->arena, handle), (uint16_t)(verdict[i] >> 8));
        handles[kept++] = handle;
    }
    return kept;
}

/* What finish() made goes its way behind the burst; taken out first, because NFs further on may run
 * within this one. */
static uint32_t take_made(hb_lcore *lc, uint32_t *made)
{
    uint32_t n = lc->mades;
    memcpy(made, lc->made, n * sizeof *made);
    lc->mades = 0;
    return n;
}

static bool all_pass(const uint32_t *verdict, uint32_t n)
{
    uint32_t differ = 0;
    for (uint32_t i = 0; i < n; i++)
        differ |= verdict[i] ^ HB_PASS;
    return !differ;
}

void hb_finish(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n, uint64_t *result,
               const hb_answers *answers, const hb_burst_sum *sum)
{
    hb_nf_seat *seat = &lc->seat[node];
    uint32_t verdict[HB_BURST], made[HB_BURST], mades = 0;
    bool as_came = !answers->n, judged = answers->n || seat->kind->finish;
    lc->node_stats[node].bursts++;
    if (judged) {
        n = apply(lc, node, handles, n, result, verdict, answers);
        if (seat->kind->finish) {
            seat->resized = false;
            seat->kind->finish(seat, handles, result, verdict, n);
            mades = take_made(lc, made);
            /* a packet that was cut has other bytes than it came with */
            as_came = as_came && !mades && !seat->resized && all_pass(verdict, n);
        }
    }
    if (hb_watched(lc))
        hb_trace_verdicts(lc, node, handles, judged ? verdict : NULL, n);
    if (!as_came)
        n = carry_out(lc, node, handles, verdict, n);
    if (sum && sum->alike && as_came && n)
        hb_forward_alike(lc, node, handles, n, sum->bytes);
    else
        hb_forward(lc, node, handles, n);
    hb_forward(lc, node, made, mades);
}
