/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_monitor.c: what the flow monitor is on the host. A flow that ends leaves a record in a ring
 * of its lcore, from which the control thread takes it. Nobody waits: a full ring is counted.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane.h"
#include "nf/flow_monitor.cl"
#include "nf/flow_monitor_api.h"

/* The state of a flow, as flow_monitor.cl has it. */
typedef struct {
    uint64_t packets[2], octets[2], first[2], last[2], due;
    uint32_t flags[2], about, unused;
} flow_state;
_Static_assert(offsetof(flow_state, due) == 8 * HB_FLOW_MONITOR_DUE, "as the packet function");
_Static_assert(offsetof(flow_state, flags) == 4 * HB_FLOW_MONITOR_FLAGS, "as the packet function");
_Static_assert(offsetof(flow_state, about) == 4 * HB_FLOW_MONITOR_ABOUT, "as the packet function");

/* What the records of a flow so far have said. */
typedef struct {
    uint64_t packets[2], octets[2];
    uint64_t last[2]; /* where the next record begins; 0: at the first packet */
} told;

/* What one lcore does; it alone writes, but `taken`. */
typedef struct {
    hb_flow_record *record; /* a ring: the elements taken .. given - 1, modulo its size */
    uint32_t mask;
    told *told; /* [flows]; NULL without intermediate records */
    size_t told_bytes;
    hb_flow_monitor_counts count;
    _Atomic uint32_t given;
    alignas(128) _Atomic uint32_t taken; /* by the control thread */
} lane;

struct hb_flow_monitor {
    uint64_t active_ns;
    uint32_t ring;
    lane *lane[HB_MAX_LCORES]; /* by lcore; NULL: the monitor has no seat there */
    /* The control thread's own: flows that were still there when all lcores had ended. */
    hb_flow_record *rest;
    size_t rests, rest_room, rests_taken, rests_lost;
};

hb_flow_monitor *hb_flow_monitor_new(uint64_t active_ns, uint32_t ring)
{
    hb_flow_monitor *m = calloc(1, sizeof *m);
    if (m) {
        m->active_ns = active_ns;
        m->ring = ring;
    }
    return m;
}

static void free_lane(lane *l, uint32_t ring)
{
    if (!l)
        return;
    if (l->record)
        hb_region_free(l->record, ring * sizeof *l->record);
    if (l->told)
        hb_region_free(l->told, l->told_bytes);
    free(l);
}

void hb_flow_monitor_free(hb_flow_monitor *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++)
        free_lane(m->lane[i], m->ring);
    free(m->rest);
    free(m);
}

/* ---- counters: one writer, any reader -----------------------------------------------------------
 */

static void add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

hb_flow_monitor_counts hb_flow_monitor_count(const hb_flow_monitor *m)
{
    hb_flow_monitor_counts sum = {.records = m->rests + m->rests_lost, .lost = m->rests_lost};
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        if (!m->lane[i])
            continue;
        const hb_flow_monitor_counts *c = &m->lane[i]->count;
        sum.records += __atomic_load_n(&c->records, __ATOMIC_RELAXED);
        sum.lost += __atomic_load_n(&c->lost, __ATOMIC_RELAXED);
        sum.unmonitored += __atomic_load_n(&c->unmonitored, __ATOMIC_RELAXED);
    }
    return sum;
}

/* ---- records ------------------------------------------------------------------------------------
 */

/* From an lcore to the control thread. */
static void give(lane *l, const hb_flow_record *record)
{
    add(&l->count.records, 1);
    /* Relaxed: its own word. Acquire: the control thread has copied what it took. */
    uint32_t given = atomic_load_explicit(&l->given, memory_order_relaxed);
    if (given - atomic_load_explicit(&l->taken, memory_order_acquire) > l->mask) {
        add(&l->count.lost, 1);
        return;
    }
    l->record[given & l->mask] = *record;
    /* release: the record before its index */
    atomic_store_explicit(&l->given, given + 1, memory_order_release);
}

/* After all lcores have ended the control thread gives to itself, as many as there are. */
static void keep(hb_flow_monitor *m, const hb_flow_record *record)
{
    if (m->rests == m->rest_room) {
        size_t room = m->rest_room ? 2 * m->rest_room : 1024;
        hb_flow_record *more = realloc(m->rest, room * sizeof *more);
        if (!more) {
            m->rests_lost++;
            return;
        }
        m->rest = more;
        m->rest_room = room;
    }
    m->rest[m->rests++] = *record;
}

static uint32_t take_from(lane *l, hb_flow_record *records, uint32_t most)
{
    /* As in give(), the other way round. */
    uint32_t taken = atomic_load_explicit(&l->taken, memory_order_relaxed);
    uint32_t have = atomic_load_explicit(&l->given, memory_order_acquire) - taken;
    uint32_t n = have < most ? have : most;
    for (uint32_t i = 0; i < n; i++)
        records[i] = l->record[(taken + i) & l->mask];
    /* release: they are read before the lcore may overwrite them */
    atomic_store_explicit(&l->taken, taken + n, memory_order_release);
    return n;
}

uint32_t hb_flow_monitor_take(hb_flow_monitor *m, hb_flow_record *records, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++)
        if (m->lane[i])
            n += take_from(m->lane[i], records + n, most - n);
    while (n < most && m->rests_taken < m->rests)
        records[n++] = m->rest[m->rests_taken++];
    return n;
}

static bool is_ipv4(const uint8_t *address)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(address, mapped, sizeof mapped) == 0;
}

/* What the key says; `back`: who began stands second in it. */
static void fill_key(hb_flow_record *r, const hb_key *key, uint32_t back)
{
    for (uint32_t i = 0; i < 2; i++) {
        memcpy(r->address[i], key->addr[i ^ back], 16);
        r->port[i] = key->fragment ? 0 : key->port[i ^ back];
    }
    /* the id of an ICMP echo stands for its ports, which ICMP has not */
    if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6)
        r->port[0] = r->port[1] = 0;
    r->version = is_ipv4(key->addr[0]) && is_ipv4(key->addr[1]) ? 4 : 6;
    r->zone = key->zone;
    r->protocol = key->protocol;
    r->fragment = key->fragment;
    if (key->fragment) /* of IPv4 it has 16 bits, of IPv6 32 */
        r->fragment_id = r->version == 4 ? key->port[back]
                                         : (uint32_t)key->port[back] << 16 | key->port[back ^ 1];
}

/* What the state says that was not told before. */
static void fill_counts(hb_flow_record *r, const flow_state *s, const told *before)
{
    for (uint32_t i = 0; i < 2; i++) {
        r->packets[i] = s->packets[i];
        r->octets[i] = s->octets[i];
        r->first[i] = s->first[i];
        r->last[i] = s->last[i];
        r->flags[i] = (uint16_t)s->flags[i];
        if (!before)
            continue;
        r->packets[i] -= before->packets[i];
        r->octets[i] -= before->octets[i];
        if (!r->packets[i])
            r->first[i] = r->last[i] = 0;
        else if (before->packets[i])
            r->first[i] = before->last[i];
    }
}

static void fill(hb_flow_record *r, const hb_key *key, const flow_state *s, const told *before,
                 uint32_t reason)
{
    memset(r, 0, sizeof *r);
    fill_key(r, key, (s->about & HB_FLOW_MONITOR_BACK) != 0);
    fill_counts(r, s, before);
    r->reason = (uint8_t)reason;
}

static void tell(told *t, const flow_state *s)
{
    memcpy(t->packets, s->packets, sizeof t->packets);
    memcpy(t->octets, s->octets, sizeof t->octets);
    memcpy(t->last, s->last, sizeof t->last);
}

/* ---- a burst ------------------------------------------------------------------------------------
 */

static lane *lane_of(const hb_nf_seat *seat)
{
    hb_flow_monitor *m = seat->host;
    return m ? m->lane[seat->lcore->id] : NULL;
}

static void prepare(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    lane *l = lane_of(seat);
    uint32_t without = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        arg[i] = m->time_ns;
        without += m->flow == HB_NO_FLOW || m->l3 == HB_NO_LAYER;
    }
    if (l && without)
        add(&l->count.unmonitored, without);
}

/* A flow that goes on, up to this packet, whose result says that it is time. */
static void report(hb_nf_seat *seat, lane *l, const hb_mbuf *m)
{
    const flow_state *s = hb_flow_state(seat, m->flow);
    hb_mbuf copy = *m;
    hb_key key;
    hb_flow_record record;
    if (!s || !(s->about & HB_FLOW_MONITOR_SET) ||
        hb_parse(hb_data(seat->arena, m), m->data_len, &copy, &key) != HB_REASON_none)
        return;
    flow_state now = *s; /* once: a device may be counting the next packet */
    told *before = l->told + m->flow;
    fill(&record, &key, &now, before, HB_FLOW_MONITOR_ACTIVE);
    if (!record.packets[0] && !record.packets[1])
        return;
    tell(before, &now);
    give(l, &record);
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    lane *l = lane_of(seat);
    (void)verdict;
    for (uint32_t i = 0; l && l->told && i < n; i++)
        if (result[i])
            report(seat, l, hb_header(seat->arena, handles[i]));
}

/* ---- the life of a flow -------------------------------------------------------------------------
 */

/* What is not IP keeps a state of 0, which counts nothing. */
static enum hb_reason flow_setup(hb_nf_seat *seat, uint32_t handle, void *state)
{
    const hb_flow_monitor *monitor = seat->host;
    const hb_mbuf *m = hb_header(seat->arena, handle);
    flow_state *s = state;
    if (!monitor || m->l3 == HB_NO_LAYER)
        return HB_REASON_none;
    s->about = HB_FLOW_MONITOR_SET | (m->direction ? HB_FLOW_MONITOR_BACK : 0) |
               (m->protocol == IPPROTO_TCP ? HB_FLOW_MONITOR_TCP : 0);
    if (monitor->active_ns)
        s->due = m->time_ns + monitor->active_ns;
    return HB_REASON_none;
}

static uint32_t reason_of(enum hb_flow_end why)
{
    switch (why) {
    case HB_FLOW_END_CLOSED:
    case HB_FLOW_END_REPLACED:
        return HB_FLOW_MONITOR_CLOSED;
    case HB_FLOW_END_EVICTED:
        return HB_FLOW_MONITOR_EVICTED;
    case HB_FLOW_END_SHUTDOWN:
        return HB_FLOW_MONITOR_SHUTDOWN;
    default:
        return HB_FLOW_MONITOR_IDLE;
    }
}

static void flow_end(hb_nf_seat *seat, uint32_t flow, const hb_key *key, enum hb_flow_end why,
                     const void *state)
{
    lane *l = lane_of(seat);
    const flow_state *s = state;
    hb_flow_record record;
    if (!l)
        return;
    fill(&record, key, s, l->told ? l->told + flow : NULL, reason_of(why));
    if (l->told)
        l->told[flow] = (told){0};
    if (!record.packets[0] && !record.packets[1])
        return; /* not IP, or all has been told, or no packet got through the device */
    if (seat->lcore->dp->running)
        give(l, &record);
    else
        keep(seat->host, &record);
}

static lane *new_lane(const hb_flow_monitor *m, size_t flows)
{
    lane *l = aligned_alloc(alignof(lane), sizeof *l);
    if (!l)
        return NULL;
    memset(l, 0, sizeof *l);
    l->mask = m->ring - 1;
    l->record = hb_region_new(m->ring * sizeof *l->record);
    l->told_bytes = flows * sizeof *l->told;
    l->told = m->active_ns ? hb_region_new(l->told_bytes) : NULL;
    if (l->record && (l->told || !m->active_ns))
        return l;
    free_lane(l, m->ring);
    return NULL;
}

static int open_seat(hb_nf_seat *seat)
{
    hb_flow_monitor *m = seat->host;
    if (!m)
        return 0;
    /* hb_flow_monitor_free() frees it: Python takes records till then */
    m->lane[seat->lcore->id] = new_lane(m, seat->states.flows);
    return m->lane[seat->lcore->id] ? 0 : -1;
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_flow_monitor}};
extern const hb_nf_kind hb_flow_monitor_kind;
const hb_nf_kind hb_flow_monitor_kind = {.open = open_seat,
                                         .prepare = prepare,
                                         .finish = finish,
                                         .flow_setup = flow_setup,
                                         .flow_end = flow_end,
                                         .engines = engines,
                                         .nb_engines = 1};

/* ---- CSV ----------------------------------------------------------------------------------------
 */

static const char *const reasons[] = {[HB_FLOW_MONITOR_IDLE] = "idle",
                                      [HB_FLOW_MONITOR_ACTIVE] = "active",
                                      [HB_FLOW_MONITOR_CLOSED] = "closed",
                                      [HB_FLOW_MONITOR_SHUTDOWN] = "shutdown",
                                      [HB_FLOW_MONITOR_EVICTED] = "evicted"};

static void text_of(const hb_flow_record *r, int end, char text[INET6_ADDRSTRLEN])
{
    const uint8_t *address = r->address[end];
    if (r->version == 4)
        inet_ntop(AF_INET, address + 12, text, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, address, text, INET6_ADDRSTRLEN);
}

static int csv_line(const hb_flow_record *r, char *text)
{
    char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN], id[16] = "";
    uint32_t begins = !r->packets[0] || (r->packets[1] && r->first[1] < r->first[0]);
    uint32_t ends = !r->packets[0] || (r->packets[1] && r->last[1] > r->last[0]);
    uint64_t start = r->first[begins], end = r->last[ends], second = 1000000000;
    text_of(r, 0, src);
    text_of(r, 1, dst);
    if (r->fragment)
        snprintf(id, sizeof id, "%" PRIu32, r->fragment_id);
    return snprintf(text, HB_FLOW_MONITOR_CSV_BYTES,
                    "%" PRIu64 ".%09" PRIu64 ",%" PRIu64 ".%09" PRIu64 ",%s,%u,%s,%u,%s,%u,%u,"
                    "%" PRIu64 ",%" PRIu64 ",%u,%" PRIu64 ",%" PRIu64 ",%u,%s\n",
                    start / second, start % second, end / second, end % second, reasons[r->reason],
                    r->protocol, src, r->port[0], dst, r->port[1], r->zone, r->packets[0],
                    r->octets[0], r->flags[0], r->packets[1], r->octets[1], r->flags[1], id);
}

size_t hb_flow_monitor_csv(const hb_flow_record *records, uint32_t n, char *text)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += (size_t)csv_line(records + i, text + bytes);
    return bytes;
}
