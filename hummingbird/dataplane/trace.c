/* SPDX-License-Identifier: BSD-3-Clause */
/* trace.c: follows some packets on their whole way: what happens to each is written down as it
 * happens, and what an NF has changed is found by a copy of the packet as it came there. */
#include "taps.h"

#include <stdlib.h>
#include <string.h>

#define RING_BYTES (64u << 10) /* events of an lcore: some 900 */
_Static_assert(HB_TRACE_PASS == HB_VERDICT_PASS && HB_TRACE_DROP == HB_VERDICT_DROP &&
                   HB_TRACE_RETYPE == HB_VERDICT_RETYPE,
               "api and kernels name verdicts alike");

#define ALL_SLOTS ((1u << HB_TRACE_SLOTS) - 1)
#define NOBODY UINT32_MAX /* a slot's handle while it is free */

/* ---- control ----------------------------------------------------------------------------------
 */

static bool get_memory(hb_tap *tap, const hb_trace *trace, uint32_t frame_size)
{
    size_t stride = sizeof(hb_tap_ring) + RING_BYTES, bytes = tap->rings * stride;
    tap->memory = aligned_alloc(HB_LINE, bytes);
    tap->copies = malloc((size_t)HB_TRACE_SLOTS * frame_size);
    tap->rules = calloc(trace->nb_rules + 1, sizeof *tap->rules);
    if (!tap->memory || !tap->copies || !tap->rules)
        return false;
    memset(tap->memory, 0, bytes);
    memcpy(tap->rules, trace->rules ? trace->rules : tap->rules,
           trace->nb_rules * sizeof *tap->rules);
    for (uint32_t l = 0; l < tap->rings; l++)
        tap->end[l].w =
            (hb_tap_writer){.ring = (hb_tap_ring *)(tap->memory + l * stride), .size = RING_BYTES};
    for (uint32_t s = 0; s < HB_TRACE_SLOTS; s++) {
        tap->slot[s].copy = tap->copies + (size_t)s * frame_size;
        atomic_init(&tap->slot[s].handle, NOBODY);
    }
    return true;
}

int hb_add_trace(hb_dataplane *dp, const hb_trace *trace)
{
    hb_tap *tap;
    int number = hb_new_tap(dp, HB_TAP_TRACE, &tap);
    if (number < 0)
        return -1;
    if (!get_memory(tap, trace, dp->config.frame_size)) {
        hb_free_tap(tap);
        return hb_fail(dp, "out of memory");
    }
    tap->nb_rules = trace->nb_rules;
    tap->type = trace->type;
    tap->count = trace->count;
    tap->first = (uint8_t)(number * HB_TRACE_SLOTS + 1);
    atomic_init(&tap->free_slots, ALL_SLOTS);
    hb_show_tap(dp, number, tap);
    return number;
}

uint32_t hb_trace_take(hb_dataplane *dp, int number, hb_trace_event *events, uint32_t most)
{
    hb_tap *tap = hb_tap_at(dp, (uint32_t)number);
    uint32_t n = 0;
    for (uint32_t l = 0; l < tap->rings; l++) {
        hb_tap_ring *ring = tap->end[l].w.ring;
        /* acquire: the events before it */
        uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE), tail = ring->tail;
        for (; tail != head && n < most; tail += sizeof *events)
            hb_tap_get(ring, RING_BYTES, tail, &events[n++], sizeof *events);
        /* release: they have been read, and may be overwritten */
        __atomic_store_n(&ring->tail, tail, __ATOMIC_RELEASE);
    }
    return n;
}

void hb_trace_look(const hb_dataplane *dp, int number, hb_trace_state *state)
{
    const hb_tap *tap = hb_tap_at(dp, (uint32_t)number);
    /* relaxed: counts, each for itself; who sees `ended` takes the events once more (acquire) */
    *state = (hb_trace_state){.ended = atomic_load_explicit(&tap->ended, memory_order_acquire),
                              .sampled = atomic_load_explicit(&tap->sampled, memory_order_relaxed),
                              .skipped = atomic_load_explicit(&tap->skipped, memory_order_relaxed)};
    for (uint32_t l = 0; l < tap->rings; l++)
        state->missed += __atomic_load_n(&tap->end[l].w.ring->missed, __ATOMIC_RELAXED);
}

/* ---- slots ------------------------------------------------------------------------------------
 */

static int take_slot(hb_tap *tap)
{
    uint32_t free_slots = atomic_load_explicit(&tap->free_slots, memory_order_relaxed);
    while (free_slots) {
        uint32_t bit = free_slots & -free_slots;
        /* acquire: whoever had it before has done with it */
        if (atomic_compare_exchange_weak_explicit(&tap->free_slots, &free_slots, free_slots & ~bit,
                                                  memory_order_acquire, memory_order_relaxed))
            return __builtin_ctz(bit);
    }
    return -1;
}

static void give_slot_back(hb_tap *tap, hb_trace_slot *slot)
{
    atomic_store_explicit(&slot->handle, NOBODY, memory_order_relaxed);
    /* release: we have done with it */
    atomic_fetch_or_explicit(&tap->free_slots, 1u << (slot - tap->slot), memory_order_release);
}

/* The number of the next packet to follow, or 0: there are enough. */
static uint32_t next_packet(hb_tap *tap)
{
    uint64_t n = atomic_load_explicit(&tap->sampled, memory_order_relaxed);
    do {
        if (n >= tap->count)
            return 0;
        /* relaxed: a count */
    } while (!atomic_compare_exchange_weak_explicit(&tap->sampled, &n, n + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return (uint32_t)n + 1;
}

/* A packet that is followed. */
typedef struct {
    hb_tap *tap;
    hb_trace_slot *slot;
} traced;

/* By the number in its header, which may be left from a trace that is over: then slot is NULL. */
static traced find(const hb_dataplane *dp, uint32_t trace, uint32_t handle)
{
    uint32_t place = trace - 1;
    hb_tap *tap = trace ? hb_tap_at(dp, place / HB_TRACE_SLOTS) : NULL;
    if (!tap || tap->kind != HB_TAP_TRACE)
        return (traced){0};
    hb_trace_slot *slot = &tap->slot[place % HB_TRACE_SLOTS];
    /* relaxed: if it is ours, we have written it, or who gave us the packet has */
    bool ours = atomic_load_explicit(&slot->handle, memory_order_relaxed) == handle;
    return (traced){tap, ours ? slot : NULL};
}

/* Is any packet followed now? Else nobody needs to look for its number. */
static bool any_followed(const hb_dataplane *dp)
{
    bool any = false;
    for (uint32_t k = 0; k < HB_MOST_TAPS; k++) {
        const hb_tap *tap = hb_tap_at(dp, k);
        /* relaxed: who gave us such a packet has taken its slot before */
        any |= tap && tap->kind == HB_TAP_TRACE &&
               atomic_load_explicit(&tap->free_slots, memory_order_relaxed) != ALL_SLOTS;
    }
    return any;
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void write_event(hb_lcore *lc, traced t, hb_trace_event *e)
{
    e->lcore = (uint8_t)lc->id;
    e->packet = t.slot->packet;
    e->rx_tick = t.slot->rx_tick;
    hb_tap_write(&t.tap->end[lc->id].w, e, sizeof *e, e, 0);
}

static hb_trace_event event(const hb_mbuf *m, uint8_t kind, uint32_t node, uint32_t to)
{
    return (hb_trace_event){.tick = hb_now(),
                            .kind = kind,
                            .node = (uint16_t)node,
                            .to = (uint16_t)to,
                            .type = m->type,
                            .length = m->data_len};
}

/* The packet has ended. */
static void end(hb_lcore *lc, traced t, hb_trace_event *e)
{
    write_event(lc, t, e);
    give_slot_back(t.tap, t.slot);
    /* release: who counts it sees its events */
    atomic_fetch_add_explicit(&t.tap->ended, 1, memory_order_release);
}

/* ---- what happens to packets ------------------------------------------------------------------
 */

static bool wanted(const hb_tap *tap, const hb_mbuf *m, const hb_key *key)
{
    return (tap->type >= HB_MAX_TYPES || tap->type == m->type) &&
           (!tap->nb_rules || hb_match_rules(tap->rules, tap->nb_rules, key, m->direction));
}

static void begin(hb_lcore *lc, uint32_t k, hb_tap *tap, uint32_t node, uint32_t handle,
                  const hb_key *key)
{
    hb_mbuf *m = hb_header(&lc->dp->arena, handle);
    int place = take_slot(tap);
    if (place < 0) {
        atomic_fetch_add_explicit(&tap->skipped, 1, memory_order_relaxed);
        return;
    }
    traced t = {tap, &tap->slot[place]};
    t.slot->packet = next_packet(tap);
    if (!t.slot->packet) {
        give_slot_back(tap, t.slot);
        return;
    }
    t.slot->rx_tick = m->rx_tick;
    atomic_store_explicit(&t.slot->handle, handle, memory_order_relaxed);
    m->trace = (uint8_t)(k * HB_TRACE_SLOTS + (uint32_t)place + 1);
    hb_trace_event e = event(m, HB_TRACE_RECEIVED, node, node);
    uint32_t src = m->direction, dst = !src;
    e.tick = m->rx_tick;
    if (key) {
        memcpy(e.flow.src, key->addr[src], sizeof e.flow.src);
        memcpy(e.flow.dst, key->addr[dst], sizeof e.flow.dst);
        e.flow.src_port = key->port[src];
        e.flow.dst_port = key->port[dst];
        e.flow.protocol = key->protocol;
        e.flow.fragment = key->fragment;
    }
    write_event(lc, t, &e);
}

static bool wants_more(const hb_tap *tap)
{
    return tap && tap->kind == HB_TAP_TRACE &&
           atomic_load_explicit(&tap->sampled, memory_order_relaxed) < tap->count;
}

void hb_trace_arrivals(hb_lcore *lc, uint32_t node, const uint32_t *handles, const hb_key *keys,
                       uint32_t n)
{
    for (uint32_t k = 0; k < HB_MOST_TAPS; k++) {
        hb_tap *tap = hb_tap_at(lc->dp, k);
        if (!wants_more(tap))
            continue;
        for (uint32_t i = 0; i < n; i++) {
            const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
            if (!m->trace && wanted(tap, m, &keys[i]))
                begin(lc, k, tap, node, handles[i], &keys[i]);
        }
    }
}

void hb_trace_unclassified(hb_lcore *lc, uint32_t node, uint32_t handle)
{
    const hb_mbuf *m = hb_header(&lc->dp->arena, handle);
    for (uint32_t k = 0; k < HB_MOST_TAPS && !m->trace; k++) {
        hb_tap *tap = hb_tap_at(lc->dp, k);
        if (wants_more(tap) && !tap->nb_rules && tap->type >= HB_MAX_TYPES)
            begin(lc, k, tap, node, handle, NULL);
    }
}

void hb_trace_hop(hb_lcore *lc, uint32_t from, uint32_t to, const uint32_t *handles, uint32_t n)
{
    const hb_arena *a = &lc->dp->arena;
    bool nf = lc->dp->node[to].kind != HB_NODE_PORT;
    if (!any_followed(lc->dp))
        return;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        traced t = find(lc->dp, m->trace, handles[i]);
        if (!t.slot)
            continue;
        hb_trace_event e = event(m, HB_TRACE_GOES, from, to);
        write_event(lc, t, &e);
        if (nf) {
            t.slot->length = m->data_len;
            memcpy(t.slot->copy, hb_data(a, m), m->data_len);
        }
    }
}

void hb_trace_published(hb_lcore *lc, uint32_t node, uint32_t workgroup, uint32_t row,
                        const uint32_t *handles, uint32_t n)
{
    if (!any_followed(lc->dp))
        return;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
        traced t = find(lc->dp, m->trace, handles[i]);
        if (!t.slot)
            continue;
        hb_trace_event e = event(m, HB_TRACE_PUBLISHED, node, node);
        e.row.workgroup = workgroup;
        e.row.row = row;
        e.row.lane = i;
        write_event(lc, t, &e);
    }
}

/* What is different in a packet from how it came to the NF. */
static void compare(hb_trace_event *e, const hb_trace_slot *slot, const uint8_t *now,
                    uint32_t length)
{
    uint32_t both = length < slot->length ? length : slot->length, last = UINT32_MAX;
    e->nf.longer = (int32_t)length - (int32_t)slot->length;
    for (uint32_t i = 0; i < both; i++) {
        if (now[i] == slot->copy[i])
            continue;
        e->nf.changed++;
        if (e->nf.ranges < HB_TRACE_RANGES && (!e->nf.ranges || last + 1 != i))
            e->nf.range[e->nf.ranges++][0] = (uint16_t)i;
        e->nf.range[e->nf.ranges - 1][1] = (uint16_t)i;
        last = i;
    }
}

void hb_trace_verdicts(hb_lcore *lc, uint32_t node, const uint32_t *handles,
                       const uint32_t *verdict, uint32_t n)
{
    if (!any_followed(lc->dp))
        return;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
        traced t = find(lc->dp, m->trace, handles[i]);
        if (!t.slot)
            continue;
        uint32_t v = verdict ? verdict[i] : HB_PASS;
        hb_trace_event e = event(m, HB_TRACE_VERDICT, node, v >> 8);
        e.nf.verdict = (uint8_t)v;
        if (e.nf.verdict == HB_VERDICT_RETYPE)
            e.type = (uint16_t)(v >> 8);
        if (e.nf.verdict != HB_VERDICT_DROP) /* else it lies perhaps not where the header says */
            compare(&e, t.slot, hb_data(&lc->dp->arena, m), m->data_len);
        write_event(lc, t, &e);
    }
}

void hb_trace_dropped(hb_lcore *lc, uint32_t node, enum hb_reason reason, uint32_t handle)
{
    hb_mbuf *m = hb_header(&lc->dp->arena, handle);
    traced t = find(lc->dp, m->trace, handle);
    m->trace = 0;
    if (!t.slot)
        return;
    hb_trace_event e = event(m, HB_TRACE_DROPPED, node, reason);
    end(lc, t, &e);
}

void hb_trace_remember(const hb_lcore *lc, const uint32_t *handles, uint32_t n, uint8_t *trace)
{
    bool any = any_followed(lc->dp);
    for (uint32_t i = 0; i < n; i++)
        trace[i] = any ? hb_header(&lc->dp->arena, handles[i])->trace : 0;
}

void hb_trace_sent(hb_lcore *lc, uint32_t node, const hb_leaving *packets, const uint32_t *handles,
                   const uint8_t *trace, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        traced t = find(lc->dp, trace[i], handles[i]);
        if (!t.slot)
            continue;
        const hb_mbuf m = {.path = packets[i].path, .data_len = (uint16_t)packets[i].bytes};
        hb_trace_event e = event(&m, HB_TRACE_SENT, node, node);
        end(lc, t, &e);
    }
}
