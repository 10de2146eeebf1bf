/* SPDX-License-Identifier: BSD-3-Clause */
/* dataplane.c: set-up, start, drain and stop: the control thread's side of everything in api.h. */
#include "dataplane.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "stats.h"
#include "syncer.h"
#include "taps.h"

int hb_fail(hb_dataplane *dp, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(dp->error, sizeof dp->error, format, args);
    va_end(args);
    return -1;
}

const char *hb_error(const hb_dataplane *dp)
{
    return dp->error;
}

/* For types that ask for lines of their own. */
static void *zeroed(size_t bytes)
{
    bytes = (bytes + HB_LINE - 1) / HB_LINE * HB_LINE;
    void *p = aligned_alloc(HB_LINE, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

hb_dataplane *hb_new(const hb_config *config, uint32_t nodes, char *error, size_t error_size)
{
    hb_dataplane *dp = zeroed(sizeof *dp);
    if (dp)
        dp->lcore = zeroed(config->lcores * sizeof(hb_lcore));
    if (!dp || !dp->lcore ||
        hb_arena_init(&dp->arena, config->frames, config->frame_size, config->mbufs,
                      config->lcores + 1)) {
        snprintf(error, error_size, "out of memory for %u mbufs", config->mbufs);
        hb_free(dp);
        return NULL;
    }
    dp->config = *config;
    dp->max_nodes = nodes;
    hb_cache_init(&dp->cache, &dp->arena);
    atomic_init(&dp->epoch, dp->epoch_done + 1); /* the first one is not over yet */
    dp->stats = config->stats;
    dp->device_stats = hb_stats_init(config->stats, config->lcores, nodes, config->types);
    for (uint32_t l = 0; l < config->lcores; l++) {
        hb_lcore *lc = &dp->lcore[l];
        lc->dp = dp;
        lc->id = l;
        lc->cpu = config->cpus[l];
        hb_stats_attach(lc);
        lc->profiling = config->profile != 0;
        lc->sampling = config->samples != 0;
        hb_cache_init(&lc->cache, &dp->arena);
    }
    return dp;
}

/* ---- nodes ------------------------------------------------------------------------------------
 */

int hb_add_node(hb_dataplane *dp, const hb_node *node)
{
    if (dp->nodes == dp->max_nodes)
        return hb_fail(dp, "more than the %u nodes that were announced", dp->max_nodes);
    dp->node[dp->nodes] = *node;
    return (int)dp->nodes++;
}

static int add_nf(hb_dataplane *dp, enum hb_node_kind kind, const hb_nf *nf, uint32_t workgroups)
{
    hb_node node = {.kind = kind, .lcores = nf->lcores, .nf = *nf, .workgroups = workgroups};
    memcpy(node.lcore, nf->lcore, sizeof node.lcore);
    return hb_add_node(dp, &node);
}

int hb_add_cnf(hb_dataplane *dp, const hb_nf *nf)
{
    return add_nf(dp, HB_NODE_CNF, nf, 0);
}

int hb_add_gnf(hb_dataplane *dp, const hb_nf *nf, uint32_t workgroups)
{
    return add_nf(dp, HB_NODE_GNF, nf, workgroups);
}

int hb_add_peer(hb_dataplane *dp, const hb_nf *nf)
{
    return add_nf(dp, HB_NODE_PEER, nf, 0);
}

int hb_set_device(hb_dataplane *dp, const hb_device *device)
{
    hb_device_ctl *d = zeroed(sizeof *d);
    if (!d)
        return hb_fail(dp, "out of memory");
    d->config = *device;
    d->control = device->control;
    d->stats = dp->device_stats;
    d->frames = dp->arena.frames;
    d->frame_size = dp->config.frame_size;
    hb_control_init(device->control, device->workgroups, device->lanes, device->depth,
                    device->groups);
    dp->device = d;
    return hb_device_track_tables(d) ? hb_fail(dp, "out of memory") : 0;
}

int hb_set_rules(hb_dataplane *dp, const hb_rule *rules, uint32_t count)
{
    free(dp->rules);
    dp->rules = calloc(count + 1, sizeof *rules);
    if (!dp->rules)
        return hb_fail(dp, "out of memory");
    memcpy(dp->rules, rules, count * sizeof *rules);
    dp->nb_rules = count;
    return 0;
}

/* ---- start ------------------------------------------------------------------------------------
 */

static bool served_by(const hb_node *node, uint32_t lcore)
{
    for (uint32_t i = 0; i < node->lcores; i++)
        if (node->lcore[i] == lcore)
            return true;
    return false;
}

static bool is_cnf(const hb_node *node)
{
    return node->kind == HB_NODE_CNF;
}

static bool is_peer(const hb_node *node)
{
    return node->kind == HB_NODE_PEER;
}

/* Inputs, then NFs, then outputs, so that one pass carries a packet through its CNFs. GNFs are
 * served by the lcore's CPUSyncer, all together. */
static void order_duties(hb_lcore *lc)
{
    static const struct {
        bool (*is)(const hb_node *node);
        uint32_t (*run)(hb_lcore *lc, uint32_t node);
    } order[] = {{hb_is_input, hb_poll_input},
                 {is_cnf, hb_poll_cnf},
                 {is_peer, hb_poll_peer},
                 {hb_is_output, hb_poll_output}};
    const hb_dataplane *dp = lc->dp;
    for (uint32_t k = 0; k < sizeof order / sizeof *order; k++)
        for (uint32_t i = 0; i < dp->nodes; i++) {
            bool handed_over = order[k].run == hb_poll_input && lc->flows.flow;
            if (order[k].is(&dp->node[i]) && (handed_over || served_by(&dp->node[i], lc->id)))
                lc->duty[lc->duties++] = (hb_duty){order[k].run, i};
        }
}

/* What an NF is on one lcore: its state, its engine's, and what it opens for itself. */
static int seat_nf(hb_dataplane *dp, hb_lcore *lc, uint32_t node)
{
    const hb_nf *nf = &dp->node[node].nf;
    const hb_nf_kind *kind = nf->code ? nf->code : hb_nf_kind_of(nf->kind);
    hb_nf_seat *seat = &lc->seat[node];
    if (!kind || nf->engine >= kind->nb_engines)
        return hb_fail(dp, "there is no engine %u of NF kind %u", nf->engine, nf->kind);
    const hb_nf_engine *engine = &kind->engines[nf->engine];
    *seat = (hb_nf_seat){.arena = &dp->arena,
                         .engine = engine,
                         .table = hb_nf_table(dp->config.tables, nf->instance),
                         .states = hb_nf_states(dp->config.tables, nf->instance),
                         .set_up = dp->set_up[node],
                         .host = nf->host,
                         .state = zeroed(kind->state_bytes + 1),
                         .engine_state = zeroed(engine->state_bytes + 1),
                         .hits = calloc(nf->rules + 1, sizeof *seat->hits),
                         .rules = nf->rules,
                         .node = node,
                         .lcore = lc};
    if (!seat->state || !seat->engine_state || !seat->hits)
        return -1;
    if (nf->flow_bytes) {
        lc->stateful_node[lc->stateful++] = node;
        bool copied = dp->node[node].kind == HB_NODE_GNF && dp->device && dp->device->config.staged;
        if (copied && !(seat->fresh = calloc(seat->states.flows, 1)))
            return -1;
    }
    if (kind->open && kind->open(seat))
        return -1;
    seat->kind = kind; /* from here on there is something to close */
    bool on_cpu = dp->node[node].kind == HB_NODE_CNF;
    if (on_cpu && engine->open && engine->open(seat))
        return hb_fail(dp, "engine %s of an NF cannot start", engine->name);
    seat->opened = on_cpu;
    return 0;
}

static void unseat_nf(hb_nf_seat *seat)
{
    if (seat->opened && seat->engine->close)
        seat->engine->close(seat);
    if (seat->kind && seat->kind->close)
        seat->kind->close(seat);
    free(seat->state);
    free(seat->engine_state);
    free(seat->hits);
    free(seat->fresh);
}

static int set_up_inputs(hb_dataplane *dp, hb_lcore *lc)
{
    for (uint32_t i = 0; i < dp->nodes; i++) {
        const hb_node *node = &dp->node[i];
        if (hb_is_input(node) && lc->flows.flow &&
            hb_fifo_init(&lc->input[HB_HANDED_OVER(i)], dp->config.queue))
            return -1;
        if (!served_by(node, lc->id))
            continue;
        bool port = node->kind == HB_NODE_PORT;
        if ((!port || hb_is_output(node)) && hb_fifo_init(&lc->input[i], dp->config.queue))
            return -1;
        if (!port && seat_nf(dp, lc, i))
            return -1;
    }
    return 0;
}

static int connect_lcores(hb_dataplane *dp)
{
    for (uint32_t from = 0; from < dp->config.lcores; from++)
        for (uint32_t to = 0; to < dp->config.lcores; to++) {
            if (from == to)
                continue;
            hb_ring *r = zeroed(sizeof *r);
            if (!r)
                return -1;
            dp->lcore[from].to[to] = dp->lcore[to].from[from] = r;
            if (hb_ring_init(r, dp->config.queue))
                return -1;
        }
    return 0;
}

/* What NFs with state of flows have to know of each. */
static int set_up_states(hb_dataplane *dp)
{
    uint32_t flows = dp->owners * hb_flow_places(dp->config.flows);
    for (uint32_t i = 0; i < dp->nodes; i++) {
        const hb_nf *nf = &dp->node[i].nf;
        if (!nf->flow_bytes)
            continue;
        hb_states states = hb_nf_states(dp->config.tables, nf->instance);
        if (states.flows < flows || states.bytes != nf->flow_bytes)
            return hb_fail(dp, "the tables have states of %u flows of %u bytes, not of %u of %u",
                           states.flows, states.bytes, flows, nf->flow_bytes);
        dp->set_up[i] = hb_region_new((size_t)flows * sizeof *dp->set_up[i]);
        if (!dp->set_up[i])
            return -1;
    }
    return 0;
}

static int make_owner(hb_dataplane *dp, hb_lcore *lc)
{
    if (lc->flows.flow)
        return 0;
    if (hb_flows_init(&lc->flows, dp->config.flows, dp->owners * hb_flow_places(dp->config.flows),
                      dp->rules, dp->nb_rules, lc->stats) ||
        (dp->tracked && hb_flows_track(&lc->flows, &dp->config)))
        return -1;
    dp->owner[dp->owners++] = lc->id;
    return 0;
}

/* Lcores with an input port own flows: both directions of a flow meet at one of them. */
static int set_up_owners(hb_dataplane *dp)
{
    uint32_t unpaced = 0;
    for (uint32_t i = 0; i < dp->nodes; i++)
        dp->tracked = dp->tracked || dp->node[i].nf.flow_bytes;
    for (uint32_t i = 0; i < dp->nodes; i++) {
        const hb_node *node = &dp->node[i];
        if (!hb_is_input(node))
            continue;
        unpaced += !node->port[0]->paced;
        for (uint32_t q = 0; q < node->lcores; q++)
            if (make_owner(dp, &dp->lcore[node->lcore[q]]))
                return -1;
    }
    /* together no more than any one queue holds, and never the whole pool */
    uint32_t most =
        dp->config.queue < dp->config.mbufs / 2 ? dp->config.queue : dp->config.mbufs / 2;
    dp->credits = most / (unpaced ? unpaced : 1);
    if (dp->credits > HB_MOST_CREDITS)
        dp->credits = HB_MOST_CREDITS;
    dp->rx_burst = dp->config.queue < HB_RX_BURST ? dp->config.queue : HB_RX_BURST;
    return 0;
}

static int set_up_device(hb_dataplane *dp)
{
    uint32_t first_w = 0;
    if (!dp->device)
        return 0;
    for (uint32_t i = 0; i < dp->nodes; i++)
        if (dp->node[i].kind == HB_NODE_GNF)
            dp->device->program[dp->node[i].nf.instance] = &dp->node[i].nf;
    for (uint32_t l = 0; l < dp->config.lcores; l++) {
        hb_lcore *lc = &dp->lcore[l];
        bool any = false;
        for (uint32_t i = 0; i < dp->nodes; i++)
            any |= dp->node[i].kind == HB_NODE_GNF && served_by(&dp->node[i], l);
        if (!any)
            continue;
        lc->syncer = hb_syncer_new(lc, dp->device, &first_w, dp->device->syncers == 0);
        if (!lc->syncer)
            return -1;
        dp->device->syncers++;
    }
    if (first_w > dp->device->config.workgroups)
        return hb_fail(dp, "the device has %u workgroups, the GNFs were given %u",
                       dp->device->config.workgroups, first_w);
    return hb_device_start(dp->device);
}

int hb_start(hb_dataplane *dp)
{
    hb_fail(dp, "out of memory");
    if (!dp->versions)
        return hb_fail(dp, "no route policy was published");
    if (set_up_owners(dp) || set_up_states(dp) || connect_lcores(dp))
        return -1;
    for (uint32_t l = 0; l < dp->config.lcores; l++) {
        if (set_up_inputs(dp, &dp->lcore[l]))
            return -1;
        order_duties(&dp->lcore[l]);
    }
    if (set_up_device(dp))
        return -1;
    hb_give_ports(dp, true);
    hb_stats_begin(dp->stats);
    dp->running = true;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        if (hb_lcore_start(&dp->lcore[l])) {
            dp->config.lcores = l; /* those that run are stopped by hb_stop */
            return hb_fail(dp, "cannot start a thread for lcore %u", l);
        }
    return 0;
}

/* ---- drain and stop ---------------------------------------------------------------------------
 */

int64_t hb_in_flight(const hb_dataplane *dp)
{
    uint64_t gone = 0, born = 0;
    /* the dead first: read the other way round, a packet born and gone meanwhile would count -1 */
    for (uint32_t l = 0; l < dp->config.lcores; l++) {
        const hb_lcore_stats *s = dp->lcore[l].stats;
        gone += __atomic_load_n(&s->gone, __ATOMIC_ACQUIRE);
        gone += __atomic_load_n(&s->quarantined, __ATOMIC_ACQUIRE);
    }
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        born += __atomic_load_n(&dp->lcore[l].stats->born, __ATOMIC_ACQUIRE);
    return (int64_t)(born - gone);
}

int hb_finished(hb_dataplane *dp)
{
    for (uint32_t i = 0; i < dp->nodes; i++) {
        const hb_node *node = &dp->node[i];
        for (uint32_t q = 0; hb_is_input(node) && q < node->lcores; q++)
            if (!__atomic_load_n(&dp->lcore[node->lcore[q]].node_stats[i].end, __ATOMIC_ACQUIRE))
                return 0;
    }
    return hb_in_flight(dp) == 0;
}

/* What every lcore has come to when it has begun a pass from here on, and ended it. */
static void mark_passes(const hb_dataplane *dp, uint64_t *seen)
{
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        seen[l] = atomic_load_explicit(&dp->lcore[l].passes, memory_order_acquire) + 2;
}

static bool have_passed(const hb_dataplane *dp, const uint64_t *seen)
{
    bool passed = true;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        passed &= atomic_load_explicit(&dp->lcore[l].passes, memory_order_acquire) >= seen[l];
    return passed;
}

int64_t hb_wait_empty(hb_dataplane *dp, uint32_t timeout_ms)
{
    struct timespec t = {0, 200000};
    uint64_t until = hb_monotonic_ns() + timeout_ms * 1000000ull;
    /* inputs see `draining` or `held` at their next pass; only then is "none in flight" final */
    uint64_t seen[HB_MAX_LCORES];
    mark_passes(dp, seen);
    for (;;) {
        bool passed = have_passed(dp, seen);
        int64_t left = hb_in_flight(dp);
        if ((passed && !left) || hb_monotonic_ns() > until)
            return left;
        nanosleep(&t, NULL);
    }
}

void hb_hold(hb_dataplane *dp, int hold)
{
    dp->holding = hold != 0;
    /* release: pairs with allowance() of node_port.c, as in change_to() of policy.c */
    atomic_store_explicit(&dp->held, dp->holding, memory_order_release);
    mark_passes(dp, dp->hold_seen);
}

int64_t hb_held_in_flight(const hb_dataplane *dp)
{
    bool seen = !dp->running || have_passed(dp, dp->hold_seen); /* passes before packets */
    return seen ? hb_in_flight(dp) : -1;
}

int64_t hb_drain(hb_dataplane *dp, uint32_t timeout_ms)
{
    if (!dp->running)
        return 0;
    /* one that ran out of time goes on: what it has ended, as a peer, does not work again */
    if (!dp->draining)
        atomic_store_explicit(&dp->draining, 1, memory_order_relaxed);
    bool stuck = !hb_wait_passes(dp); /* then waiting helps nobody */
    int64_t left = stuck ? hb_in_flight(dp) : hb_wait_empty(dp, timeout_ms);
    if (!left)
        return 0;
    atomic_store_explicit(&dp->draining, 2, memory_order_relaxed);
    hb_wait_empty(dp, stuck ? 0 : timeout_ms);
    return left;
}

int hb_stop(hb_dataplane *dp)
{
    if (!dp->running || dp->stuck)
        return dp->stuck ? -1 : 0;
    /* the executor first: it ends the kernel, and syncers still reap what that finished */
    if (dp->device) {
        hb_device_stop(dp->device);
        hb_device_abandon(dp->device);
    }
    if (dp->draining && hb_in_flight(dp))
        hb_wait_empty(dp, 1000);
    atomic_store_explicit(&dp->stop, 1, memory_order_relaxed);
    if (!hb_join_lcores(dp)) {
        dp->stuck = true;
        return -1;
    }
    dp->running = false;
    hb_give_ports(dp, false);
    hb_end_all_flows(dp);
    return 0;
}

static void free_lcore(hb_lcore *lc)
{
    for (uint32_t l = 0; l < HB_MAX_LCORES; l++)
        if (lc->to[l]) {
            free(lc->to[l]->entry);
            free(lc->to[l]);
        }
    for (uint32_t q = 0; q < HB_QUEUES; q++)
        free(lc->input[q].slot);
    for (uint32_t i = 0; i < HB_MAX_NODES; i++)
        unseat_nf(&lc->seat[i]);
    if (lc->flows.flow)
        hb_flows_free(&lc->flows);
    hb_syncer_free(lc->syncer);
}

void hb_free(hb_dataplane *dp)
{
    if (!dp)
        return;
    hb_stop(dp);
    hb_free_taps(dp);
    hb_close_ports(dp);
    for (uint32_t l = 0; dp->lcore && l < dp->config.lcores; l++)
        free_lcore(&dp->lcore[l]);
    for (uint32_t s = 0; s < HB_MAX_POLICIES; s++)
        free(dp->policy[s].next);
    for (uint32_t i = 0; i < dp->nodes; i++)
        hb_region_free(dp->set_up[i],
                       dp->owners * hb_flow_places(dp->config.flows) * sizeof *dp->set_up[i]);
    if (dp->device)
        hb_device_free(dp->device);
    hb_arena_free(&dp->arena);
    free(dp->rules);
    free(dp->lcore);
    free(dp);
}

/* ---- readers ----------------------------------------------------------------------------------
 */

int64_t hb_count_free(const hb_dataplane *dp)
{
    return (int64_t)hb_arena_count_free(&dp->arena);
}

uint64_t hb_rule_hits(const hb_dataplane *dp, uint32_t node, uint32_t rule)
{
    uint64_t hits = 0;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        if (dp->lcore[l].seat[node].hits && rule < dp->node[node].nf.rules)
            hits += dp->lcore[l].seat[node].hits[rule];
    return hits;
}

void hb_tables_begin(hb_dataplane *dp)
{
    if (dp->device)
        hb_device_begin_tables(dp->device);
}

void hb_tables_end(hb_dataplane *dp)
{
    if (dp->device)
        hb_device_end_tables(dp->device);
}

void hb_tables_changed(hb_dataplane *dp, const void *at, uint64_t bytes)
{
    if (dp->device)
        hb_device_mark_tables(dp->device, at, bytes);
}

int hb_wait_readers(hb_dataplane *dp)
{
    if (!dp->running)
        return 0;
    if (!hb_wait_passes(dp))
        return -1;
    if (dp->device)
        hb_device_wait_rows(dp->device);
    return 0;
}

int hb_device_state(const hb_dataplane *dp)
{
    if (!dp->device)
        return 0;
    if (atomic_load_explicit(&dp->device->condition, memory_order_relaxed) == HB_DEVICE_HUNG)
        return 2;
    return (int)atomic_load_explicit(&dp->device->failed, memory_order_relaxed);
}
