/* SPDX-License-Identifier: BSD-3-Clause */
/* nf_make.c: packets that an NF makes itself: counted as created, and routed like any other. */
#include "dataplane.h"
#include "guard.h"

uint32_t hb_nf_create(hb_nf_seat *seat, uint32_t about)
{
    hb_lcore *lc = seat->lcore;
    const hb_arena *a = &lc->dp->arena;
    uint32_t handle;
    if (lc->mades == HB_BURST || !hb_alloc(&lc->cache, &handle, 1))
        return HB_NO_MBUF;
    hb_mbuf *m = hb_header(a, handle);
    const hb_mbuf *like = hb_header(a, about);
    uint32_t frame = m->frame;
    *m = *like;
    m->frame = frame;
    hb_unguard(a, handle);
    m->trace = 0;
    m->in_port = (uint8_t)seat->node; /* no port gets a credit back for it */
    m->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
    m->data_len = 0;
    m->flow = HB_NO_FLOW;
    lc->node_stats[seat->node].created++;
    /* Relaxed: `about` is in flight on the same version, so its slot is not looked at for reuse
     * until that has ended, behind this. */
    __atomic_store_n(&lc->stats->admitted[m->route], lc->stats->admitted[m->route] + 1,
                     __ATOMIC_RELAXED);
    /* release, before it can end: in flight is never seen too small */
    __atomic_store_n(&lc->stats->born, lc->stats->born + 1, __ATOMIC_RELEASE);
    return handle;
}

void hb_nf_emit(hb_nf_seat *seat, uint32_t handle, uint32_t type)
{
    hb_lcore *lc = seat->lcore;
    hb_mbuf *m = hb_header(&lc->dp->arena, handle);
    hb_key key;
    m->type = 0;
    enum hb_reason bad = hb_parse(hb_data(&lc->dp->arena, m), m->data_len, m, &key);
    if (type == HB_TYPE_BY_RULES) {
        const hb_rule *rule = hb_match_rules(lc->dp->rules, lc->dp->nb_rules, &key, m->direction);
        type = rule ? rule->type : 0;
    }
    m->type = (uint16_t)type;
    if (bad != HB_REASON_none)
        hb_drop(lc, seat->node, bad, handle);
    else
        lc->made[lc->mades++] = handle;
}
