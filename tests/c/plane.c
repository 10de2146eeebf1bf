/* SPDX-License-Identifier: BSD-3-Clause */
/* plane.c: see plane.h. */
#include "plane.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "device.h"
#include "fake_gpu.c"

enum { IP = 14, UDP = 34, PAYLOAD = 42, NUMBER_BYTES = 16 };
enum { TABLES_BYTES = 65536, TABLE_BYTES = 4096, FLOWS = 1024, STATE_STRIDE = 64 };
enum { STATES = PLANE_SOURCES * 2 * FLOWS, STATES_BYTES = STATES * STATE_STRIDE };
enum { REGION_BYTES = TABLES_BYTES + PLANE_NODES * STATES_BYTES };

/* ---- packets --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z) /* splitmix64 */
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void put16_at(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put_headers(uint8_t *p, uint32_t length, uint32_t source, uint32_t flow)
{
    static const uint8_t head[PAYLOAD] = {2,
                                          0,
                                          0,
                                          0,
                                          0,
                                          2,
                                          2,
                                          0,
                                          0,
                                          0,
                                          0,
                                          1,
                                          8,
                                          0,
                                          0x45,
                                          [IP + 8] = 64,
                                          17,
                                          [IP + 12] = 10,
                                          [IP + 16] = 10,
                                          200};
    uint32_t sum = 0;
    memcpy(p, head, PAYLOAD);
    p[IP + 13] = (uint8_t)source;
    p[IP + 15] = (uint8_t)flow;
    put16_at(p + IP + 2, length - IP);
    for (uint32_t i = IP; i < UDP; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    put16_at(p + IP + 10, ~(sum + (sum >> 16)));
    put16_at(p + UDP, 1000 + flow);
    put16_at(p + UDP + 2, 53);
    put16_at(p + UDP + 4, length - UDP);
}

bool plane_is_suspicious(uint64_t number)
{
    return number % 5 == 0;
}

uint32_t plane_packet(uint8_t *packet, uint32_t source, uint64_t number)
{
    uint64_t random = mix(number << 8 | source);
    uint32_t length = PAYLOAD + NUMBER_BYTES + 2 + random % 100 + (number % 16 ? 0 : random % 1200);
    put_headers(packet, length, source, number % PLANE_FLOWS);
    for (uint32_t i = 0; i < NUMBER_BYTES; i++) /* small letters, as all that follows */
        packet[PAYLOAD + i] = (uint8_t)('a' + (number >> (4 * i) & 15));
    for (uint32_t i = PAYLOAD + NUMBER_BYTES; i < length; i++)
        packet[i] = (uint8_t)('a' + (random >> i % 59) % 26);
    if (plane_is_suspicious(number))
        packet[PAYLOAD + NUMBER_BYTES + number % (length - PAYLOAD - NUMBER_BYTES)] = 'X';
    return length;
}

static uint32_t unchanged(plane_sink *s, uint8_t *packet, uint32_t source, uint64_t number,
                          const uint8_t *have, uint32_t length)
{
    (void)s, (void)have, (void)length;
    return plane_packet(packet, source, number);
}

uint32_t plane_stamped(plane_sink *s, uint8_t *packet, uint32_t source, uint64_t number,
                       const uint8_t *have, uint32_t length)
{
    uint8_t frame[2048];
    uint64_t stamp = 0, result = 0;
    uint32_t offset = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
    hb_packet p = {.frame = frame, .offset = offset, .l3 = IP, .l4 = UDP, .flow = HB_NO_FLOW};
    if (length < UDP + 8)
        return 0;
    for (uint32_t i = UDP + 4; i < UDP + 8; i++)
        stamp = stamp << 8 | have[i];
    s->disordered += stamp <= s->last_number;
    s->last_number = stamp;
    p.length = plane_packet(frame + offset, source, number);
    p.low = offset - STAMP_HEAD;
    p.high = sizeof frame;
    CHECK_EQUAL(hb_nf_stamp(&p, NULL, stamp, &result), HB_PASS);
    memcpy(packet, frame + p.offset, p.length);
    return p.length;
}

/* ---- ports ----------------------------------------------------------------------------------- */

static uint32_t source_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    plane_source *s = (plane_source *)port;
    uint64_t now = hb_monotonic_ns();
    for (; atomic_load(&s->stuck); usleep(100))
        atomic_fetch_add(&s->waited, 1);
    if (now - s->polled_ns < s->gap_us * 1000ull)
        return 0;
    s->polled_ns = now;
    if (n > s->burst)
        n = s->burst;
    if (port->has_end && n > s->packets - s->made)
        n = (uint32_t)(s->packets - s->made);
    for (uint32_t i = 0; i < n; i++, s->made++) {
        hb_mbuf *m = hb_header(a, handles[i]);
        m->data_len = (uint16_t)plane_packet(hb_data(a, m), s->index, s->made);
        m->time_ns = (uint64_t)s->index << 48 | s->made;
    }
    if (port->has_end && s->made == s->packets)
        atomic_store(&port->done, true);
    return n;
}

static void check_packet(plane_sink *s, const hb_arena *a, const hb_mbuf *m)
{
    uint8_t wanted[2048];
    uint32_t source = (uint32_t)(m->time_ns >> 48);
    uint64_t number = m->time_ns & 0xffffffffffffu;
    const uint8_t *have = hb_data(a, m);
    uint32_t length = s->expect(s, wanted, source, number, have, m->data_len);
    s->altered += length != m->data_len || memcmp(have, wanted, length) != 0;
    uint64_t *next = &s->next[source][number % PLANE_FLOWS];
    s->disordered += number < *next;
    *next = number + 1;
}

static uint32_t sink_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    plane_sink *s = (plane_sink *)port;
    for (uint32_t i = 0; i < n; i++)
        check_packet(s, a, hb_header(a, handles[i]));
    atomic_fetch_add(&s->packets, n);
    return n;
}

static void nothing_to_close(hb_port *port)
{
    (void)port;
}

/* The driver that a sink brings is replaced by one of ours. */
static int add_port(plane *p, uint32_t lcore, hb_port *port)
{
    int node = hb_add_sink(p->dp, lcore);
    hb_node *n = &p->dp->node[node];
    port->cache = n->port[0]->cache;
    port->unsent = n->port[0]->unsent;
    n->port[0]->ops->close(n->port[0]);
    n->port[0] = port;
    return node;
}

int plane_add_source(plane *p, uint32_t lcore, uint64_t packets, bool paced)
{
    static const hb_port_ops ops = {.rx = source_rx, .close = nothing_to_close};
    plane_source *s = &p->source[p->sources];
    s->index = p->sources++;
    s->packets = packets;
    s->burst = HB_BURST;
    s->port.ops = &ops;
    s->port.paced = paced;
    s->port.has_end = packets != 0;
    return add_port(p, lcore, &s->port);
}

int plane_add_sink(plane *p, uint32_t lcore, plane_sink **sink)
{
    static const hb_port_ops ops = {.tx = sink_tx, .close = nothing_to_close};
    plane_sink *s = &p->sink[p->sinks++];
    s->plane = p;
    s->expect = unchanged;
    s->port.ops = &ops;
    if (sink)
        *sink = s;
    return add_port(p, lcore, &s->port);
}

/* ---- NFs ------------------------------------------------------------------------------------- */

static struct hb_tables *tables_of(plane *p)
{
    return p->memory.tables;
}

static uint32_t *table_of(plane *p, uint32_t instance)
{
    return (uint32_t *)((uint8_t *)p->memory.tables + HB_LINE * 32 + instance * TABLE_BYTES);
}

static hb_nf declare(enum plane_nf kind)
{
    hb_nf nf = {.kind = kind, .reads = HB_READS_HEADER, .writes = HB_WRITES_NOTHING};
    if (kind == NF_sift) {
        nf.code = (void *)&sift_kind;
        nf.reads = HB_READS_PACKET;
        nf.rules = 1;
    }
    if (kind == NF_tally) {
        nf.code = (void *)&tally_kind;
        nf.reads = HB_READS_PACKET;
        nf.rules = TALLY_HITS;
        nf.flow_bytes = TALLY_WORDS * sizeof(uint32_t);
    }
    if (kind == NF_stamp) {
        nf.code = (void *)&stamp_kind;
        nf.reads = HB_READS_PACKET;
        nf.writes = HB_WRITES_PACKET;
        nf.head = STAMP_HEAD;
        nf.tail = STAMP_TAIL;
    }
    return nf;
}

int plane_add_nf(plane *p, enum plane_nf kind, uint32_t lcores, uint32_t workgroups)
{
    hb_nf nf = declare(kind);
    struct hb_tables *t = tables_of(p);
    nf.instance = p->nfs++;
    for (uint32_t l = 0; l < p->config.lcores; l++)
        if (lcores & 1u << l)
            nf.lcore[nf.lcores++] = l;
    uint8_t *base = p->memory.tables;
    ((struct hb_program *)(base + t->programs_off))[nf.instance] =
        (struct hb_program){.count = 1, .nf = {nf.instance}};
    ((struct hb_nf_instance *)(base + t->nfs_off))[nf.instance] =
        (struct hb_nf_instance){.kind = kind,
                                .generation = 1,
                                .base = (uint64_t)((uint8_t *)table_of(p, nf.instance) - base),
                                .length = TABLE_BYTES,
                                .state_base = TABLES_BYTES + nf.instance * STATES_BYTES,
                                .state_flows = nf.flow_bytes ? STATES : 0,
                                .state_stride = STATE_STRIDE,
                                .state_bytes = nf.flow_bytes};
    p->workgroups += nf.lcores * workgroups;
    return workgroups ? hb_add_gnf(p->dp, &nf, workgroups) : hb_add_cnf(p->dp, &nf);
}

void plane_route(plane *p, uint32_t type, int from, int to)
{
    p->next[(uint32_t)from * p->config.types + type] = (uint16_t)to;
}

void plane_route_all(plane *p, int from, int to)
{
    for (uint32_t type = 0; type < p->config.types; type++)
        plane_route(p, type, from, to);
}

/* ---- chains ---------------------------------------------------------------------------------- */

plane *plane_short_chain(const plane_config *config, enum plane_nf kind, uint64_t packets,
                         uint32_t workgroups)
{
    plane *p = plane_new(config);
    int in = plane_add_source(p, 0, packets, false);
    int gnf = plane_add_nf(p, kind, 1, workgroups);
    int out = plane_add_sink(p, 0, NULL);
    plane_route_all(p, in, gnf);
    plane_route_all(p, gnf, out);
    return p;
}

plane *plane_long_chain(const plane_config *config, uint64_t packets, uint32_t workgroups)
{
    plane *p = plane_new(config);
    uint32_t last = p->config.lcores - 1, some = last ? 6 : 1;
    int in = plane_add_source(p, 0, packets, false);
    int other = plane_add_source(p, last / 2, packets, false);
    int sift = plane_add_nf(p, NF_sift, some, workgroups);
    int cnf = plane_add_nf(p, NF_forward, some, 0);
    int gnf = plane_add_nf(p, NF_forward, 1, workgroups);
    int out = plane_add_sink(p, last, NULL), odd = plane_add_sink(p, last / 2, NULL);
    plane_route_all(p, in, sift);
    plane_route_all(p, other, sift);
    plane_route(p, NORMAL, sift, cnf);
    plane_route(p, SUSPICIOUS, sift, gnf);
    plane_route_all(p, cnf, out);
    plane_route_all(p, gnf, odd);
    return p;
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static void or_default(uint32_t *value, uint32_t otherwise)
{
    if (!*value)
        *value = otherwise;
}

static void complete(plane_config *c)
{
    or_default(&c->lcores, 1);
    or_default(&c->types, 2);
    or_default(&c->mbufs, 2048);
    or_default(&c->queue, 1024);
    or_default(&c->lanes, 4);
    or_default(&c->depth, 4);
    or_default(&c->groups, 4);
    or_default(&c->lifetime_us, 200000);
    or_default(&c->idle_us, 100000);
    or_default(&c->gpu.resident, 2);
}

static void set_up_memory(plane *p)
{
    const plane_config *c = &p->config;
    size_t stats = hb_stats_size(c->lcores, PLANE_NODES, c->types);
    p->memory = (hb_config){.frames = hb_region_new((size_t)c->mbufs * 2048),
                            .tables = hb_region_new(REGION_BYTES),
                            .stats = aligned_alloc(128, (stats + 127) / 128 * 128),
                            .mbufs = c->mbufs,
                            .frame_size = 2048,
                            .queue = c->queue,
                            .flows = FLOWS,
                            .types = c->types,
                            .lcores = c->lcores};
    for (uint32_t l = 0; l < c->lcores; l++)
        p->memory.cpus[l] = -1;
    for (uint32_t i = 0; i < HB_FLOW_STATES; i++)
        p->memory.flow_timeout[i] = 60;
    memset(p->memory.stats, 0, stats);
    *tables_of(p) = (struct hb_tables){.magic = HB_TABLES_MAGIC,
                                       .version = HB_LAYOUT_VERSION,
                                       .programs = PLANE_NODES,
                                       .nfs = PLANE_NODES,
                                       .programs_off = HB_LINE,
                                       .nfs_off = HB_LINE * 16};
}

plane *plane_new(const plane_config *config)
{
    char error[256];
    plane *p = calloc(1, sizeof *p);
    p->config = *config;
    complete(&p->config);
    set_up_memory(p);
    memset(p->next, 0xff, sizeof p->next);
    for (uint32_t i = 0; i < PLANE_NODES * p->config.types; i++)
        p->next[i] = HB_NEXT_NONE;
    p->dp = hb_new(&p->memory, PLANE_NODES, error, sizeof error);
    return p;
}

static void set_up_device(plane *p)
{
    const plane_config *c = &p->config;
    bool persistent = c->executor == PLANE_PERSISTENT;
    size_t bytes = hb_control_size(p->workgroups, c->lanes, c->depth, c->groups);
    p->device = (hb_device){.executor = persistent ? HB_EXECUTOR_PERSISTENT : HB_EXECUTOR_LAUNCH,
                            .control = hb_region_new(bytes),
                            .staged = c->executor == PLANE_STAGED,
                            .on_cpu = c->executor == PLANE_LAUNCH,
                            .workgroups = p->workgroups,
                            .lanes = c->lanes,
                            .depth = c->depth,
                            .groups = c->groups,
                            .lifetime_us = c->lifetime_us,
                            .idle_us = c->idle_us};
    p->gpu =
        fake_new(&c->gpu, persistent, p->device.control, p->memory.frames, 2048, p->memory.tables);
    fake_handles(p->gpu, &p->device);
    CHECK_EQUAL(hb_set_device(p->dp, &p->device), 0);
    if (c->hang_ms)
        p->dp->device->overdue_ns = c->hang_ms * 1000000ull;
}

void plane_start(plane *p)
{
    if (p->workgroups)
        set_up_device(p);
    CHECK_EQUAL(hb_publish_policy(p->dp, p->next), 1);
    if (hb_start(p->dp)) {
        printf("%s\n", hb_error(p->dp));
        failures++;
    }
}

/* ---- waiting --------------------------------------------------------------------------------- */

enum { PATIENCE_MS = 60000 };

/* Threads still run, but whoever sees a packet gone also sees, in plain memory, how it ended. */
static void check_quiet(const plane *p)
{
    uint64_t in = 0, out = 0;
    for (uint32_t l = 0; l < p->config.lcores; l++)
        for (uint32_t i = 0; i < p->dp->nodes; i++) {
            const hb_node_stats *s = &p->dp->lcore[l].node_stats[i];
            in += p->dp->node[i].kind == HB_NODE_PORT ? s->in_packets : 0;
            out += p->dp->node[i].kind == HB_NODE_PORT ? s->out_packets : 0;
            out += s->dropped;
        }
    CHECK_EQUAL(in, out);
}

void plane_wait(plane *p)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (!hb_finished(p->dp) && hb_monotonic_ns() < until)
        usleep(200);
    CHECK(hb_finished(p->dp));
    check_quiet(p);
}

bool plane_wait_for(const _Atomic uint64_t *what, uint64_t least)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (atomic_load(what) < least && hb_monotonic_ns() < until)
        usleep(200);
    return atomic_load(what) >= least;
}

static uint64_t born(const plane *p)
{
    uint64_t n = 0;
    for (uint32_t l = 0; l < p->dp->config.lcores; l++)
        n += __atomic_load_n(&p->dp->lcore[l].stats->born, __ATOMIC_ACQUIRE);
    return n;
}

bool plane_wait_for_packets(plane *p, uint64_t more)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull, before = born(p);
    while (born(p) < before + more && hb_monotonic_ns() < until)
        usleep(100);
    return born(p) >= before + more;
}

static bool full(plane *p)
{
    struct hb_control *c = p->dp->device->control;
    for (uint32_t w = 0; w < c->workgroups; w++)
        if (hb_load_acquire(hb_control_word(c, c->cpu_off, w)) -
                hb_load_acquire(hb_control_word(c, c->gpu_off, w)) ==
            c->depth)
            return true;
    return false;
}

bool plane_wait_for_full_rows(plane *p)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (!full(p) && hb_monotonic_ns() < until)
        usleep(100);
    return full(p);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void add_lcore(plane_totals *t, const hb_lcore *lc)
{
    t->quarantined += lc->stats->quarantined;
    t->rows += lc->stats->rows;
    t->row_packets += lc->stats->row_packets;
}

/* What came into a node has left it, by the node's own counters. */
static void check_node(const plane *p, uint32_t node, plane_totals *t)
{
    hb_node_stats sum = {0};
    uint64_t unrouted = 0, reasons = 0;
    for (uint32_t l = 0; l < p->config.lcores; l++) {
        const hb_lcore *lc = &p->dp->lcore[l];
        const uint64_t *drops = lc->drops + node * HB_REASONS;
        sum.in_packets += lc->node_stats[node].in_packets;
        sum.out_packets += lc->node_stats[node].out_packets;
        sum.dropped += lc->node_stats[node].dropped;
        sum.created += lc->node_stats[node].created;
        unrouted += drops[HB_REASON_policy] + drops[HB_REASON_no_route_row];
        for (uint32_t r = 0; r < HB_REASONS; r++) {
            reasons += drops[r];
            t->reason[r] += drops[r];
        }
    }
    CHECK_EQUAL(sum.dropped, reasons);
    t->dropped += sum.dropped;
    t->created += sum.created;
    if (p->dp->node[node].kind == HB_NODE_PORT) {
        t->received += sum.in_packets;
        t->sent += sum.out_packets;
    } else if (!t->in_flight) { /* an NF's `out` counts what its verdict lets pass, routed or not */
        CHECK_EQUAL(sum.in_packets, sum.out_packets + sum.dropped - unrouted);
    }
}

static void check_sinks(const plane *p, const plane_totals *t)
{
    uint64_t packets = 0;
    for (uint32_t i = 0; i < p->sinks; i++) {
        packets += p->sink[i].packets;
        CHECK_EQUAL(p->sink[i].altered, 0);
        CHECK(p->sink[i].disordered == 0 || p->sink[i].any_order);
    }
    CHECK_EQUAL(packets, t->sent);
}

static plane_totals count(const plane *p)
{
    plane_totals t = {0};
    uint64_t made = 0;
    t.in_flight = (uint64_t)hb_in_flight(p->dp);
    for (uint32_t l = 0; l < p->config.lcores; l++)
        add_lcore(&t, &p->dp->lcore[l]);
    for (uint32_t i = 0; i < p->dp->nodes; i++)
        check_node(p, i, &t);
    for (uint32_t i = 0; i < p->sources; i++)
        made += p->source[i].made;
    t.launches = p->dp->device_stats->launches;
    t.failures = p->dp->device_stats->failures;
    if (p->gpu)
        t.gpu = fake_count(p->gpu);
    if (p->sources)
        CHECK_EQUAL(t.received, made);
    CHECK_EQUAL(t.received + t.created, t.sent + t.dropped + t.in_flight);
    CHECK_EQUAL(hb_count_free(p->dp), p->config.mbufs - t.in_flight - t.quarantined);
    CHECK(t.rows <= t.row_packets && t.row_packets <= t.rows * p->config.lanes);
    if (p->sinks)
        check_sinks(p, &t);
    return t;
}

plane_totals plane_free(plane *p)
{
    plane_totals t = count(p);
    bool hung = hb_device_state(p->dp) == 2;
    hb_free(p->dp);
    if (p->gpu) {
        uint32_t left = fake_free(p->gpu);
        CHECK(left == 0 || hung);
        hb_region_free(p->device.control, hb_control_size(p->workgroups, p->config.lanes,
                                                          p->config.depth, p->config.groups));
    }
    hb_region_free(p->memory.frames, (size_t)p->config.mbufs * 2048);
    hb_region_free(p->memory.tables, REGION_BYTES);
    free(p->memory.stats);
    free(p);
    return t;
}

plane_totals plane_end(plane *p)
{
    hb_drain(p->dp, PATIENCE_MS);
    hb_stop(p->dp);
    return plane_free(p);
}

plane_totals plane_run(plane *p)
{
    plane_start(p);
    plane_wait(p);
    return plane_end(p);
}

void plane_all_sent(const plane_totals *t, uint64_t packets)
{
    CHECK_EQUAL(t->received, packets);
    CHECK_EQUAL(t->sent, packets);
    CHECK_EQUAL(t->dropped, 0);
    CHECK_EQUAL(t->in_flight, 0);
    CHECK_EQUAL(t->failures, 0);
    CHECK_EQUAL(t->gpu.rows, t->rows);
    CHECK_EQUAL(t->gpu.packets, t->row_packets);
    CHECK_EQUAL(t->gpu.launches, t->launches);
}
