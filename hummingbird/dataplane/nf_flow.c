/* SPDX-License-Identifier: BSD-3-Clause */
/* nf_flow.c: what NFs have of flows: their state, its beginning and its end. */
#include <string.h>

#include "dataplane.h"

/* ---- for the host parts of NFs ----------------------------------------------------------------
 */

void *hb_flow_state(const hb_nf_seat *seat, uint32_t flow)
{
    return hb_state_at(&seat->states, flow);
}

static hb_flows *table_of(const hb_dataplane *dp, uint32_t flow)
{
    uint32_t owner = flow / hb_flow_places(dp->config.flows);
    return owner < dp->owners ? &dp->lcore[dp->owner[owner]].flows : NULL;
}

uint32_t hb_flow_generation(const hb_nf_seat *seat, uint32_t flow)
{
    const hb_flows *f = table_of(seat->lcore->dp, flow);
    if (!f)
        return 0;
    /* relaxed: who compares it knows that it may be over a moment later */
    return (uint32_t)(atomic_load_explicit(&f->flow[flow - f->base].word, memory_order_relaxed) >>
                      32);
}

uint32_t hb_flow_find(const hb_nf_seat *seat, const hb_key *key)
{
    const hb_dataplane *dp = seat->lcore->dp;
    uint32_t hash = hb_key_hash(key);
    const hb_flows *f = &dp->lcore[dp->owner[hb_spread(hash, dp->owners)]].flows;
    uint32_t at = hb_flow_place(f, key, hash);
    return at == HB_NO_FLOW ? at : f->base + at;
}

void hb_flow_adopt(const hb_nf_seat *seat, uint32_t handle, uint32_t flow, uint32_t generation,
                   uint32_t direction)
{
    const hb_dataplane *dp = seat->lcore->dp;
    hb_flows *f = table_of(dp, flow);
    if (!f || !generation || hb_flow_generation(seat, flow) != generation)
        return;
    hb_mbuf *m = hb_header(seat->arena, handle);
    hb_flow *e = &f->flow[flow - f->base];
    m->flow = flow;
    m->flow_gen = generation;
    m->owner = dp->owner[flow / hb_flow_places(dp->config.flows)];
    m->hash = e->hash;
    m->direction = (uint8_t)direction;
    if (f->lives)
        hb_flow_join(f->lives, e, m, hb_data(seat->arena, m));
}

/* ---- the beginning ----------------------------------------------------------------------------
 */

/* The flow is new here, and none of its packets is: its state is nobody's but ours. */
static enum hb_reason set_up(hb_nf_seat *seat, uint32_t handle, const hb_mbuf *m)
{
    void *state = hb_flow_state(seat, m->flow);
    memset(state, 0, seat->states.stride);
    if (seat->kind->flow_setup) {
        enum hb_reason bad = seat->kind->flow_setup(seat, handle, state);
        if (bad != HB_REASON_none)
            return bad;
    }
    if (seat->fresh)
        seat->fresh[m->flow] = 1;
    /* relaxed: only this lcore acts on it while packets flow; others look */
    __atomic_store_n(&seat->set_up[m->flow], m->flow_gen, __ATOMIC_RELAXED);
    return HB_REASON_none;
}

uint32_t hb_set_up_flows(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n)
{
    hb_nf_seat *seat = &lc->seat[node];
    bool here = lc->dp->node[node].kind == HB_NODE_CNF;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        if (m->flow == HB_NO_FLOW)
            continue;
        __builtin_prefetch(seat->set_up + m->flow);
        if (here) /* the states of a GNF's flows are in the caches of the device, and stay there */
            __builtin_prefetch(hb_flow_state(seat, m->flow), 1);
    }
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        enum hb_reason bad = HB_REASON_none;
        if (m->flow != HB_NO_FLOW && seat->set_up[m->flow] != m->flow_gen)
            bad = set_up(seat, handles[i], m);
        if (bad == HB_REASON_none)
            handles[kept++] = handles[i];
        else
            hb_drop(lc, node, bad, handles[i]);
    }
    return kept;
}

int hb_flow_is_set_up(const hb_dataplane *dp, uint32_t node, uint32_t index, uint32_t generation)
{
    const uint32_t *set_up = dp->set_up[node];
    return set_up && __atomic_load_n(set_up + index, __ATOMIC_RELAXED) == generation;
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void end_flow(hb_nf_seat *seat, const hb_flows *f, const hb_flow_gone *gone)
{
    uint32_t flow = f->base + gone->at;
    if (seat->set_up[flow] != gone->generation)
        return;
    if (seat->kind->flow_end)
        seat->kind->flow_end(seat, flow, &f->flow[gone->at].key, gone->why,
                             hb_flow_state(seat, flow));
    __atomic_store_n(&seat->set_up[flow], 0, __ATOMIC_RELAXED);
}

/* The NFs here that the flow comes to. */
static void tell(hb_lcore *lc, const hb_flows *f, const hb_flow_gone *gone)
{
    const hb_dataplane *dp = lc->dp;
    uint32_t hash = f->flow[gone->at].hash;
    for (uint32_t i = 0; i < lc->stateful; i++) {
        uint32_t number = lc->stateful_node[i];
        const hb_node *node = &dp->node[number];
        if (node->lcore[hb_spread(hash, node->lcores)] == lc->id)
            end_flow(&lc->seat[number], f, gone);
    }
}

void hb_end_flows(hb_lcore *lc, uint32_t most)
{
    const hb_dataplane *dp = lc->dp;
    for (uint32_t o = 0; o < dp->owners && lc->stateful; o++) {
        const hb_flows *f = &dp->lcore[dp->owner[o]].flows;
        /* acquire: pairs with hb_flows_drain() */
        uint32_t drained = atomic_load_explicit(&f->lives->drained, memory_order_acquire);
        uint32_t heard = atomic_load_explicit(&lc->ends_heard[o], memory_order_relaxed);
        if (heard == drained)
            continue;
        for (uint32_t i = 0; i < most && heard != drained; i++, heard++)
            tell(lc, f, &f->lives->gone[heard % hb_flows_places(f)]);
        /* release: we are done with the entries before the owner uses them again */
        atomic_store_explicit(&lc->ends_heard[o], heard, memory_order_release);
    }
}
