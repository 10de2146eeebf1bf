/* SPDX-License-Identifier: BSD-3-Clause */
/* node_syncer.c: one poll pass of a CPUSyncer: reap, fill, publish (docs/protocol.md). */
#include <stdlib.h>
#include <string.h>

#include "guard.h"
#include "publish.h"
#include "syncer.h"
#include "taps.h"

#define TICK_US                                                                                    \
    50 /* the tick word moves in steps of this: its line stays in the device's cache between */

static uint32_t slot_row(const hb_device_ctl *d, const hb_workgroup *g, uint32_t index)
{
    return g->w * d->config.depth + (index & (d->config.depth - 1));
}

static uint32_t pending(const hb_workgroup *g)
{
    return g->published - g->reaped;
}

static uint32_t *shadow(const hb_device_ctl *d, const hb_workgroup *g, uint32_t index)
{
    return g->shadow + (size_t)(index & (d->config.depth - 1)) * d->config.lanes;
}

static struct hb_done *answers(const hb_device_ctl *d, const hb_workgroup *g, uint32_t index)
{
    return (struct hb_done *)hb_control_array(d->control, d->control->done_off) +
           (size_t)slot_row(d, g, index) * d->config.lanes;
}

/* Lines that the device has last had, and that we are about to write: on their way, and ours alone
 * when they come, while other work is done. */
static void ask_for(const void *array, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const uint8_t *)array + at, 1);
}

/* The row is ours again. No verdict is 0: a lane that does not answer next time, or whose answer
 * does not get here, is found out and not taken for what stood here before. */
static void clear_answers(const hb_device_ctl *d, const hb_workgroup *g, uint32_t index)
{
    struct hb_done *done = answers(d, g, index);
    for (uint32_t i = 0; i < g->shadow_count[index & (d->config.depth - 1)]; i++)
        done[i].verdict = 0;
}

/* ---- reap -------------------------------------------------------------------------------------
 */

/* What a device says of a burst: most packets come back as they went. */
static void sift(const hb_lcore *lc, const uint32_t *handles, const struct hb_done *done,
                 uint32_t n, uint64_t *result, hb_answers *answers)
{
    answers->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
        if (result)
            result[i] = done[i].result;
        if (done[i].verdict != HB_VERDICT_PASS || done[i].stopped ||
            done[i].offset != m->data_off || done[i].length != m->data_len) {
            answers->at[answers->n] = (uint16_t)i;
            answers->done[answers->n++] = done[i];
        }
    }
}

/* These packets have come back from rows. */
static void give_flows_back(const hb_lcore *lc, hb_gnf *f, const uint32_t *handles, uint32_t n)
{
    for (uint32_t i = 0; f->flows && i < n; i++)
        hb_flow_back(f->flows, hb_header(&lc->dp->arena, handles[i])->flow);
}

/* The next row of g is finished: its packets come from the shadow, what the device wrote is
 * checked. */
static uint32_t reap_row(hb_lcore *lc, hb_gnf *f, hb_workgroup *g)
{
    hb_device_ctl *d = lc->syncer->device;
    uint32_t n = g->shadow_count[g->reaped & (d->config.depth - 1)];
    uint32_t *handles = shadow(d, g, g->reaped);
    const hb_burst_sum *sum = &g->sum[g->reaped & (d->config.depth - 1)];
    const struct hb_done *done = answers(d, g, g->reaped);
    hb_answers burst;
    uint64_t results[HB_BURST];
    uint64_t *result = lc->seat[f->node].kind->finish ? results : NULL;
    give_flows_back(lc, f, handles, n);
    for (uint32_t i = 0; i < n; i += HB_BURST) {
        uint32_t part = n - i < HB_BURST ? n - i : HB_BURST;
        sift(lc, handles + i, done + i, part, result, &burst);
        hb_sample_latency(lc, f->node, hb_header(&lc->dp->arena, handles[i])->hop_tick);
        hb_finish(lc, f->node, handles + i, part, result, &burst, part == n ? sum : NULL);
    }
    clear_answers(d, g, g->reaped);
    g->reaped++;
    f->rows--;
    f->order_head++;
    if (g->reaped == g->published)
        g->idle_since = lc->pass_tick;
    return n;
}

/* Rows come back in the order they were published, whichever workgroup had them: the order of
 * packets through an NF is kept. */
static uint32_t reap(hb_lcore *lc, hb_gnf *f)
{
    uint32_t total = 0;
    while (f->rows) {
        hb_workgroup *g = &f->group[f->order[f->order_head & f->order_mask]];
        /* acquire: the row's done slots and packet bytes before we look at them */
        uint32_t finished = hb_load_acquire(g->gpu_word) - g->reaped;
        if (finished > g->published - g->reaped)
            hb_device_suspect(lc->syncer->device);
        if (!finished || finished > g->published - g->reaped)
            break;
        ask_for(answers(lc->syncer->device, g, g->reaped),
                g->shadow_count[g->reaped & (lc->syncer->device->config.depth - 1)] *
                    sizeof(struct hb_done));
        total += reap_row(lc, f, g);
    }
    return total;
}

/* ---- publish ----------------------------------------------------------------------------------
 */

/* A row may have more lanes than a burst has packets. */
static void prepare(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += HB_BURST)
        seat->kind->prepare(seat, handles + i, arg + i, n - i < HB_BURST ? n - i : HB_BURST);
}

/* The row of g that is being filled goes to the device. */
static void publish(hb_lcore *lc, hb_gnf *f, hb_workgroup *g)
{
    hb_device_ctl *d = lc->syncer->device;
    struct hb_control *c = d->control;
    const hb_nf *nf = &lc->dp->node[f->node].nf;
    uint32_t row = slot_row(d, g, g->published), n = g->open_count;
    hb_nf_seat *seat = &lc->seat[f->node];
    uint64_t *arg = (uint64_t *)hb_control_array(c, c->arg_off) + (size_t)row * d->config.lanes;
    if (seat->kind->prepare)
        prepare(seat, shadow(d, g, g->published), arg, n);
    if (f->flows)
        hb_flow_close_row(f->flows, (uint32_t)(g - f->group), &lc->dp->arena,
                          shadow(d, g, g->published), n);
    ((struct hb_rowdesc *)hb_control_array(c, c->rowdesc_off))[row] =
        (struct hb_rowdesc){.program = f->program,
                            .count = (uint16_t)n,
                            .head = (uint16_t)nf->head,
                            .tail = (uint16_t)nf->tail,
                            .generation = 1,
                            .tick = lc->pass_tick};
    g->shadow_count[g->published & (d->config.depth - 1)] = (uint16_t)n;
    if (hb_watched(lc))
        hb_trace_published(lc, f->node, g->w, g->published, shadow(d, g, g->published), n);
    f->order[f->order_tail++ & f->order_mask] = (uint32_t)(g - f->group);
    f->rows++;
    if (f->open == g)
        f->open = NULL;
    g->open_count = 0;
    lc->stats->rows++;
    lc->stats->row_packets += n;
    lc->stats->batch[31 - __builtin_clz(n)]++;
    /* release: work, arg, row descriptor, flow states and packet bytes before the index that shows
     * them */
    hb_store_release(g->cpu_word, ++g->published);
}

/* The workgroup with the shortest queue; of equals the one that ran dry last, its caches are
 * warmest. */
static hb_workgroup *pick(const hb_device_ctl *d, hb_gnf *f)
{
    hb_workgroup *best = NULL;
    for (uint32_t i = 0; i < f->groups; i++) {
        hb_workgroup *g = &f->group[i];
        uint32_t least = best ? pending(best) : d->config.depth;
        if (pending(g) < least || (best && pending(g) == least && g->idle_since > best->idle_since))
            best = g;
    }
    return best;
}

/* The n packets that have been put into the shadow behind those of the open row of g, into that
 * row. */
static void put_in_row(hb_lcore *lc, hb_gnf *f, hb_workgroup *g, uint32_t n)
{
    hb_device_ctl *d = lc->syncer->device;
    const uint32_t *row = shadow(d, g, g->published), *handles = row + g->open_count;
    struct hb_work *work = (struct hb_work *)hb_control_array(d->control, d->control->work_off) +
                           (size_t)slot_row(d, g, g->published) * d->config.lanes + g->open_count;
    hb_nf_seat *seat = &lc->seat[f->node];
    uint32_t path = hb_header(&lc->dp->arena, row[0])->path, differ = 0;
    hb_burst_sum *sum = &g->sum[g->published & (d->config.depth - 1)];
    if (!g->open_count)
        *sum = (hb_burst_sum){.alike = true};
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
        hb_unguard(&lc->dp->arena, handles[i]);
        sum->bytes += m->data_len;
        differ |= m->path ^ path;
        work[i] = (struct hb_work){m->frame, m->data_off, m->data_len,    m->l3,
                                   m->l4,    m->type,     hb_work_flow(m)};
        if (seat->fresh && m->flow != HB_NO_FLOW && seat->fresh[m->flow]) {
            work[i].flow |= HB_FLOW_FRESH;
            seat->fresh[m->flow] = 0;
        }
    }
    sum->alike = sum->alike && !differ;
    g->open_count += n;
}

/* Take waiting packets into the open row, as many as it has lanes for. Returns how many. */
static uint32_t fill_row(hb_lcore *lc, hb_gnf *f)
{
    hb_device_ctl *d = lc->syncer->device;
    hb_workgroup *g = f->open;
    uint32_t *handles = shadow(d, g, g->published) + g->open_count;
    uint32_t room = d->config.lanes - g->open_count;
    uint32_t taken = hb_fifo_take(&lc->input[f->node], handles, room);
    put_in_row(lc, f, g, hb_keep_with_room(lc, f->node, handles, taken));
    return taken;
}

/* Move waiting packets into rows; full rows are published at once. */
static uint32_t fill(hb_lcore *lc, hb_gnf *f)
{
    hb_device_ctl *d = lc->syncer->device;
    uint32_t total = 0;
    while (hb_fifo_count(&lc->input[f->node])) {
        if (!f->open && !(f->open = pick(d, f))) {
            lc->stats->starved++;
            break;
        }
        total += fill_row(lc, f);
        if (f->open->open_count == d->config.lanes)
            publish(lc, f, f->open);
    }
    return total;
}

/* ---- rows of flows that have state -------------------------------------------------------------
 */

/* A queue this full takes no more of a flow that has an eighth of it. */
#define FLOW_SHARE 8
/* Rows of a workgroup that are pending when no more are published for lack of other flows. */
#define ROWS_AHEAD 16

static void queue_packet(hb_lcore *lc, hb_gnf *f, uint32_t handle)
{
    const hb_mbuf *m = hb_header(&lc->dp->arena, handle);
    uint32_t most = lc->dp->config.queue;
    if (f->flows->waiting >= most && hb_flow_waiting(f->flows, m->flow) >= most / FLOW_SHARE)
        hb_drop(lc, f->node, HB_REASON_flow_share, handle);
    else
        hb_flow_put(f->flows, handle, m->flow);
}

/* Sort what has come in by flow, and set up what is new. */
static uint32_t sort_input(hb_lcore *lc, hb_gnf *f)
{
    uint32_t handles[HB_BURST], total = 0, taken;
    while (f->flows->waiting < 2 * lc->dp->config.queue &&
           (taken = hb_fifo_take(&lc->input[f->node], handles, HB_BURST))) {
        uint32_t n = hb_keep_with_room(lc, f->node, handles, taken);
        n = hb_set_up_flows(lc, f->node, handles, n);
        for (uint32_t i = 0; i < n; i++)
            hb_flow_prefetch_line(f->flows, hb_header(&lc->dp->arena, handles[i])->flow);
        for (uint32_t i = 0; i < n; i++)
            queue_packet(lc, f, handles[i]);
        total += taken;
    }
    return total;
}

/* Fill the row of g until it is full or no packet may go into it; `own`: only with packets of flows
 * that it has already. */
static void fill_from_flows(hb_lcore *lc, hb_gnf *f, hb_workgroup *g, bool own)
{
    hb_device_ctl *d = lc->syncer->device;
    uint32_t group = (uint32_t)(g - f->group), n = 0, handle;
    uint32_t *handles = shadow(d, g, g->published) + g->open_count;
    while (g->open_count + n < d->config.lanes &&
           (handle = hb_flow_take(f->flows, group, own)) != HB_NOTHING)
        handles[n++] = handle;
    if (n)
        put_in_row(lc, f, g, n);
    if (g->open_count == d->config.lanes)
        publish(lc, f, g);
}

static bool has_room(const hb_device_ctl *d, const hb_workgroup *g)
{
    return pending(g) < d->config.depth;
}

/* Flows that have packets in a workgroup go on there. */
static void fill_own(hb_lcore *lc, hb_gnf *f)
{
    hb_device_ctl *d = lc->syncer->device;
    for (uint32_t i = 0; i < f->groups; i++)
        while (f->flows->ready[i].count && has_room(d, &f->group[i]))
            fill_from_flows(lc, f, &f->group[i], true);
}

/* The fullest open row, or NULL. */
static hb_workgroup *fullest(hb_gnf *f)
{
    hb_workgroup *best = NULL;
    for (uint32_t i = 0; i < f->groups; i++)
        if (f->group[i].open_count > (best ? best->open_count : 0))
            best = &f->group[i];
    return best;
}

/* The others go where a row is open, or where the queue is shortest. */
static void fill_new(hb_lcore *lc, hb_gnf *f)
{
    while (f->flows->anywhere.count || f->flows->loose.count) {
        hb_workgroup *g = fullest(f);
        if (!g && !(g = pick(lc->syncer->device, f))) {
            lc->stats->starved++;
            break;
        }
        fill_from_flows(lc, f, g, false);
    }
}

/* Packets wait whose flows have one in the open row already. When they would fill a row it goes,
 * even though the device has work: it may get fuller if it waits, but the rows that those packets
 * need do not get fewer, and a launch takes what is published. Not many rows ahead: they are in the
 * way of the flows that come next. */
static bool publish_held_up(hb_lcore *lc, hb_gnf *f)
{
    bool any = false;
    for (uint32_t i = 0; i < f->groups; i++) {
        hb_workgroup *g = &f->group[i];
        if (f->flows->waiting < lc->syncer->device->config.lanes)
            break;
        if (f->flows->later[i].count && g->open_count && pending(g) < ROWS_AHEAD) {
            publish(lc, f, g);
            any = true;
        }
    }
    return any;
}

/* Which of the two come first alternates: neither is kept waiting by the other for ever. */
static uint32_t fill_by_flow(hb_lcore *lc, hb_gnf *f)
{
    uint32_t total = sort_input(lc, f);
    bool own_first = lc->stats->passes % 2;
    do {
        if (own_first)
            fill_own(lc, f);
        fill_new(lc, f);
        if (!own_first)
            fill_own(lc, f);
    } while (publish_held_up(lc, f));
    return total;
}

/* The end of a pass: rows that are not full, as the publishing rule has it (publish.h). */
static void publish_due(hb_lcore *lc, hb_gnf *f)
{
    hb_workgroup *g;
    while (hb_runs_dry(f->rows) && (g = f->flows ? fullest(f) : f->open) && g->open_count)
        publish(lc, f, g);
}

/* ---- when a device fails ----------------------------------------------------------------------
 */

/* The launch is over: finished rows count, the others are lost. Each row ran at most once. */
static void drop_rows(hb_lcore *lc, hb_gnf *f, bool quarantine)
{
    hb_device_ctl *d = lc->syncer->device;
    while (f->rows) {
        hb_workgroup *g = &f->group[f->order[f->order_head++ & f->order_mask]];
        uint32_t n = g->shadow_count[g->reaped & (d->config.depth - 1)];
        for (uint32_t i = 0; i < n; i++) {
            uint32_t handle = shadow(d, g, g->reaped)[i];
            give_flows_back(lc, f, &handle, 1);
            if (lc->seat[f->node].fresh && hb_header(&lc->dp->arena, handle)->flow != HB_NO_FLOW)
                /* who knows what the device has of it now: the last that we know of holds */
                lc->seat[f->node].fresh[hb_header(&lc->dp->arena, handle)->flow] = 1;
            if (quarantine)
                hb_quarantine(lc, f->node, handle);
            else
                hb_drop(lc, f->node, HB_REASON_device_lost, handle);
        }
        if (!quarantine)
            clear_answers(d, g, g->reaped);
        g->reaped++;
        f->rows--;
    }
    /* nothing runs on the device: the host may set GpuIndex, as at the first start */
    for (uint32_t i = 0; i < f->groups && !quarantine; i++)
        hb_store_release(f->group[i].gpu_word, f->group[i].reaped);
}

static void clean_up(hb_lcore *lc, bool quarantine)
{
    hb_syncer *s = lc->syncer;
    for (uint32_t i = 0; i < s->gnfs; i++) {
        reap(lc, &s->gnf[i]);
        /* with several workgroups a finished row may stand behind an unfinished one: it is lost too
         */
        drop_rows(lc, &s->gnf[i], quarantine);
    }
}

static uint32_t drop_open_row(hb_lcore *lc, hb_gnf *f, hb_workgroup *g, enum hb_reason reason)
{
    uint32_t *handles = shadow(lc->syncer->device, g, g->published), n = g->open_count;
    if (f->flows)
        hb_flow_close_row(f->flows, (uint32_t)(g - f->group), &lc->dp->arena, handles, n);
    give_flows_back(lc, f, handles, n);
    for (uint32_t i = 0; i < n; i++)
        hb_drop(lc, f->node, reason, handles[i]);
    g->open_count = 0;
    return n;
}

uint32_t hb_drop_waiting(hb_lcore *lc, enum hb_reason reason)
{
    hb_syncer *s = lc->syncer;
    uint32_t handle, total = 0;
    for (uint32_t i = 0; i < s->gnfs; i++) {
        hb_gnf *f = &s->gnf[i];
        for (uint32_t k = 0; k < f->groups; k++)
            total += drop_open_row(lc, f, &f->group[k], reason);
        f->open = NULL;
        for (; f->flows && (handle = hb_flow_any(f->flows)) != HB_NOTHING; total++)
            hb_drop(lc, f->node, reason, handle);
        for (; hb_fifo_take(&lc->input[f->node], &handle, 1); total++)
            hb_drop(lc, f->node, reason, handle);
    }
    return total;
}

/* True while the device must be left alone. */
static bool in_trouble(hb_lcore *lc, uint32_t *total)
{
    hb_syncer *s = lc->syncer;
    /* acquire: pairs with hb_device_lose() */
    uint32_t condition = atomic_load_explicit(&s->device->condition, memory_order_acquire);
    if (condition == HB_DEVICE_HEALTHY)
        return false;
    if (condition == HB_DEVICE_HUNG || condition == HB_DEVICE_GONE) {
        clean_up(lc, condition == HB_DEVICE_HUNG);
        /* the device is given up: what waits for it ends */
        *total = hb_drop_waiting(lc, HB_REASON_device_lost);
        return true;
    }
    uint32_t losses = atomic_load_explicit(&s->device->losses, memory_order_relaxed);
    if (losses != s->losses) {
        s->losses = losses;
        clean_up(lc, false);
        atomic_fetch_add_explicit(&s->device->acks, 1, memory_order_release);
        hb_device_ring(s->device);
    }
    return true;
}

/* ---- the node ---------------------------------------------------------------------------------
 */

static void write_tick(hb_lcore *lc)
{
    hb_syncer *s = lc->syncer;
    uint32_t us = (uint32_t)(uint64_t)((double)lc->pass_tick / s->ticks_per_us);
    if (us - s->tick < TICK_US)
        return;
    s->tick = us;
    struct hb_control *c = s->device->control;
    hb_store_release(hb_control_word(c, c->tick_off, 0), us);
    hb_device_look(s->device);
}

/* How the GNF is doing since the pass before. */
static void look(hb_lcore *lc, const hb_gnf *f)
{
    hb_node_stats *s = &lc->node_stats[f->node];
    s->depth = hb_fifo_count(&lc->input[f->node]) + (f->flows ? f->flows->waiting : 0);
    if (lc->sampling && f->rows)
        s->busy_ticks += lc->pass_ticks;
}

uint32_t hb_poll_syncer(hb_lcore *lc)
{
    hb_syncer *s = lc->syncer;
    uint32_t total = 0;
    uint64_t rows = lc->stats->rows;
    if (s->writes_tick)
        write_tick(lc);
    if (in_trouble(lc, &total))
        return total;
    for (uint32_t i = 0; i < s->gnfs; i++) {
        hb_account(lc, s->gnf[i].node);
        look(lc, &s->gnf[i]);
        total += reap(lc, &s->gnf[i]);
    }
    for (uint32_t i = 0; i < s->gnfs; i++) {
        hb_gnf *f = &s->gnf[i];
        hb_account(lc, f->node);
        total += f->flows ? fill_by_flow(lc, f) : fill(lc, f);
        publish_due(lc, f);
    }
    if (lc->stats->rows != rows)
        hb_device_wake(s->device);
    return total;
}

/* ---- set-up -----------------------------------------------------------------------------------
 */

static int flows_init(hb_gnf *f, const hb_dataplane *dp)
{
    f->flows = calloc(1, sizeof *f->flows);
    return !f->flows || hb_flow_queue_init(f->flows, dp->owners * hb_flow_places(dp->config.flows),
                                           dp->config.mbufs, f->groups)
               ? -1
               : 0;
}

static int gnf_init(hb_gnf *f, hb_device_ctl *d, const hb_dataplane *dp, uint32_t number,
                    uint32_t *first_w)
{
    uint32_t depth = d->config.depth, entries = 1;
    const hb_node *node = &dp->node[number];
    f->node = number;
    f->program = node->nf.instance;
    f->groups = node->workgroups;
    while (entries < f->groups * depth)
        entries *= 2;
    f->order_mask = entries - 1;
    f->order = calloc(entries, sizeof *f->order);
    f->group = calloc(f->groups, sizeof *f->group);
    if (!f->order || !f->group)
        return -1;
    for (uint32_t i = 0; i < f->groups; i++) {
        hb_workgroup *g = &f->group[i];
        g->w = (*first_w)++;
        g->cpu_word = hb_control_word(d->control, d->control->cpu_off, g->w);
        g->gpu_word = hb_control_word(d->control, d->control->gpu_off, g->w);
        g->shadow = calloc((size_t)depth * d->config.lanes, sizeof *g->shadow);
        g->shadow_count = calloc(depth, sizeof *g->shadow_count);
        g->sum = calloc(depth, sizeof *g->sum);
        if (!g->shadow || !g->shadow_count || !g->sum)
            return -1;
    }
    return node->nf.flow_bytes ? flows_init(f, dp) : 0;
}

static bool serves(const hb_node *node, uint32_t lcore)
{
    for (uint32_t i = 0; i < node->lcores; i++)
        if (node->lcore[i] == lcore)
            return node->kind == HB_NODE_GNF;
    return false;
}

hb_syncer *hb_syncer_new(hb_lcore *lc, hb_device_ctl *device, uint32_t *first_w, bool writes_tick)
{
    hb_syncer *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->device = device;
    s->writes_tick = writes_tick;
    s->ticks_per_us = hb_tick_rate() / 1e6;
    for (uint32_t i = 0; i < lc->dp->nodes; i++) {
        const hb_node *node = &lc->dp->node[i];
        if (serves(node, lc->id) && gnf_init(&s->gnf[s->gnfs++], device, lc->dp, i, first_w)) {
            hb_syncer_free(s);
            return NULL;
        }
    }
    return s;
}

void hb_syncer_free(hb_syncer *s)
{
    for (uint32_t i = 0; s && i < s->gnfs; i++) {
        for (uint32_t k = 0; s->gnf[i].group && k < s->gnf[i].groups; k++) {
            free(s->gnf[i].group[k].shadow);
            free(s->gnf[i].group[k].shadow_count);
            free(s->gnf[i].group[k].sum);
        }
        free(s->gnf[i].group);
        free(s->gnf[i].order);
        if (s->gnf[i].flows)
            hb_flow_queue_free(s->gnf[i].flows);
        free(s->gnf[i].flows);
    }
    free(s);
}
