/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_poll.c: what lcores do for tracked flows in each pass.
 *
 * A flow index is used again when no packet can hold it any more. Packets are admitted in epochs,
 * and counted in and out by epoch (hb_mbuf.route). When a flow has been released in epoch e, only
 * packets admitted in e or before may hold its index: when those are all gone, the index is
 * nobody's. The first owner ends an epoch when some owner waits for that:
 *
 *     epoch = e + 1;  every lcore begins a new pass: nobody admits in e any more;
 *     as many gone as admitted in e: done = e
 */
#include "dataplane.h"

#define SETS_A_PASS 8    /* looked at for idle flows ... */
#define SETS_AT_REST 128 /* ... and when there is nothing else to do */
#define ENDS_A_PASS 256

static bool all_passed(const hb_dataplane *dp)
{
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        if (atomic_load_explicit(&dp->lcore[l].passes, memory_order_acquire) < dp->epoch_passes[l])
            return false;
    return true;
}

static bool all_gone(const hb_dataplane *dp, uint32_t epoch)
{
    for (uint32_t slot = 0; slot < HB_MAX_POLICIES; slot++)
        if (hb_admitted_in_flight(dp, hb_admission(slot, epoch)))
            return false;
    return true;
}

static void turn_epoch(hb_dataplane *dp)
{
    uint32_t epoch = atomic_load_explicit(&dp->epoch, memory_order_relaxed);
    if (!dp->epoch_ends) {
        if (!atomic_exchange_explicit(&dp->epoch_wanted, 0, memory_order_relaxed))
            return;
        /* seq_cst: stored before the passes are read */
        atomic_store_explicit(&dp->epoch, epoch + 1, memory_order_seq_cst);
        for (uint32_t l = 0; l < dp->config.lcores; l++)
            dp->epoch_passes[l] =
                atomic_load_explicit(&dp->lcore[l].passes, memory_order_seq_cst) + 2;
        dp->epoch_ends = true;
    } else if (all_passed(dp) && all_gone(dp, epoch - 1)) {
        /* release: all that was done to those packets, before their flows are told to be over */
        atomic_store_explicit(&dp->epoch_done, epoch - 1, memory_order_release);
        dp->epoch_ends = false;
    }
}

/* Everybody has heard of the ends before this one. */
static uint32_t heard_by_all(const hb_dataplane *dp, uint32_t owner, const hb_flow_lives *l)
{
    uint32_t drained = atomic_load_explicit(&l->drained, memory_order_relaxed), most = 0;
    for (uint32_t i = 0; i < dp->config.lcores; i++) {
        const hb_lcore *lc = &dp->lcore[i];
        if (!lc->stateful)
            continue;
        /* acquire: they are done with the entries */
        uint32_t heard = atomic_load_explicit(&lc->ends_heard[owner], memory_order_acquire);
        if (drained - heard > most)
            most = drained - heard;
    }
    return drained - most;
}

static void look_after_own(hb_lcore *lc, bool at_rest)
{
    hb_dataplane *dp = lc->dp;
    hb_flows *f = &lc->flows;
    uint32_t sets = at_rest ? SETS_AT_REST : SETS_A_PASS;
    hb_flows_age(f, sets < f->mask + 1 ? sets : f->mask + 1);
    /* acquire: pairs with turn_epoch() */
    uint32_t done = atomic_load_explicit(&dp->epoch_done, memory_order_acquire);
    /* seq_cst: no packet of a later epoch can have found a flow that was released before this */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t epoch = atomic_load_explicit(&dp->epoch, memory_order_relaxed);
    if (hb_flows_drain(f, epoch, done))
        atomic_store_explicit(&dp->epoch_wanted, 1, memory_order_relaxed);
    if (f->lives->freed != atomic_load_explicit(&f->lives->drained, memory_order_relaxed))
        hb_flows_reuse(f, heard_by_all(dp, f->base / hb_flows_places(f), f->lives));
}

void hb_poll_flows(hb_lcore *lc, bool at_rest)
{
    hb_dataplane *dp = lc->dp;
    if (lc->flows.lives)
        look_after_own(lc, at_rest);
    hb_end_flows(lc, ENDS_A_PASS);
    if (lc->id == dp->owner[0])
        turn_epoch(dp);
}

/* ---- the end of the run: the control thread, when all lcores have ended -------------------------
 */

void hb_end_all_flows(hb_dataplane *dp)
{
    for (uint32_t o = 0; dp->tracked && o < dp->owners; o++) {
        hb_flows *f = &dp->lcore[dp->owner[o]].flows;
        for (uint32_t at = 0; at < hb_flows_places(f); at++)
            if (f->tag[at] & 1)
                hb_flow_release(f, at, HB_FLOW_END_SHUTDOWN);
        atomic_store_explicit(&f->lives->drained, f->lives->released, memory_order_relaxed);
    }
    for (uint32_t l = 0; dp->tracked && l < dp->config.lcores; l++)
        hb_end_flows(&dp->lcore[l], UINT32_MAX);
}

/* ---- readers: the control thread ----------------------------------------------------------------
 */

/* False: it is no live flow, or became another one while we looked. */
static bool view_flow(const hb_flows *f, uint32_t at, hb_flow_view *v)
{
    const hb_flow *e = &f->flow[at];
    const hb_flow_lives *l = f->lives;
    /* acquire, twice: what is read between two equal words is that flow's, or a moment newer */
    uint64_t word = atomic_load_explicit(&e->word, memory_order_acquire);
    if (!(word >> 32))
        return false;
    *v = (hb_flow_view){.zone = e->key.zone,
                        .protocol = e->key.protocol,
                        .fragment = e->key.fragment,
                        .port = {e->key.port[0], e->key.port[1]},
                        .type = {(uint16_t)word, (uint16_t)(word >> 16)},
                        .index = f->base + at,
                        .generation = (uint32_t)(word >> 32),
                        .state = e->state,
                        .first = e->seen_of & HB_SEEN_FIRST};
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t b = 0; b < 16; b++)
            v->addr[i][b] = e->key.addr[i][b];
    if (l) {
        v->age_ns = (uint64_t)(hb_flow_now(l) - e->began) << HB_FLOW_TICK_SHIFT;
        v->idle_ns = (uint64_t)hb_flow_idle(l, e) << HB_FLOW_TICK_SHIFT;
    }
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&e->word, memory_order_relaxed) >> 32 == word >> 32;
}

uint32_t hb_list_flows(const hb_dataplane *dp, uint64_t *cursor, hb_flow_view *view, uint32_t most)
{
    uint32_t places = hb_flow_places(dp->config.flows), n = 0;
    uint64_t end = (uint64_t)places * dp->owners;
    for (; *cursor < end && n < most; ++*cursor) {
        const hb_flows *f = &dp->lcore[dp->owner[*cursor / places]].flows;
        uint32_t at = (uint32_t)(*cursor % places);
        n += f->tag[at] & 1 && view_flow(f, at, &view[n]);
    }
    return n;
}
