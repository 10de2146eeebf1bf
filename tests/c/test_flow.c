/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* The flow cache: rules run once per flow, both directions share an entry, a re-type sticks, and
 * an entry that was given to another flow is left alone. */
#include "check.h"
#include "flow.h"
#include "ring.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

static hb_lcore_stats stats;
static hb_flows flows;

/* ---- helpers --------------------------------------------------------------------------------- */

#define ANY_PORT                                                                                   \
    {                                                                                              \
        0, 65535                                                                                   \
    }

/* Type 3 to port 80, type 5 from port 80, type 6 for UDP. */
static const hb_rule rules[] = {
    {.type = 3, .any_proto = 1, .src_port = ANY_PORT, .dst_port = {80, 80}, .port = ANY_PORT},
    {.type = 5, .any_proto = 1, .src_port = {80, 80}, .dst_port = ANY_PORT, .port = ANY_PORT},
    {.type = 6, .proto = 17, .src_port = ANY_PORT, .dst_port = ANY_PORT, .port = ANY_PORT},
};

static void set_up(uint32_t remembered)
{
    memset(&stats, 0, sizeof stats);
    CHECK_EQUAL(hb_flows_init(&flows, remembered, 0, rules, 3, &stats), 0);
}

static void tear_down(void)
{
    hb_flows_free(&flows);
}

static uint32_t entries(void)
{
    return (flows.mask + 1) * HB_FLOW_WAYS;
}

/* TCP from 10.0.<number>:1024 to 10.1.0.0:port; direction 1 is the way back. */
static hb_key key_of(uint32_t number, uint16_t port)
{
    hb_key k = {.port = {1024, port}, .protocol = 6};
    for (uint32_t i = 0; i < 2; i++) {
        memset(k.addr[i] + 10, 0xff, 2);
        k.addr[i][12] = 10;
        k.addr[i][13] = (uint8_t)i;
    }
    k.addr[0][14] = (uint8_t)(number >> 8);
    k.addr[0][15] = (uint8_t)number;
    return k;
}

static hb_mbuf classify(const hb_key *k, uint8_t direction)
{
    hb_mbuf m = {.hash = hb_key_hash(k), .direction = direction, .flow = HB_NO_FLOW};
    hb_mbuf *one = &m;
    hb_flow_classify(&flows, NULL, &one, k, 1);
    CHECK(m.flow < entries());
    return m;
}

static uint16_t type_of(uint32_t number, uint16_t port, uint8_t direction)
{
    hb_key k = key_of(number, port);
    return classify(&k, direction).type;
}

/* ---- one thread ------------------------------------------------------------------------------ */

static void test_both_directions(void)
{
    set_up(64);
    hb_key k = key_of(1, 80), udp = key_of(1, 53), tcp = key_of(1, 53);
    hb_mbuf there = classify(&k, 0), back = classify(&k, 1);
    CHECK_EQUAL(there.type, 3);
    CHECK_EQUAL(back.type, 5);
    CHECK_EQUAL(there.flow, back.flow);
    CHECK_EQUAL(there.flow_gen, back.flow_gen);
    udp.protocol = 17;
    CHECK_EQUAL(classify(&udp, 0).type, 6);
    CHECK_EQUAL(classify(&tcp, 1).type, 0);
    CHECK_EQUAL(stats.flow_misses, 3);
    CHECK_EQUAL(stats.flow_hits, 1);
    CHECK_EQUAL(stats.flow_evictions, 0);
    tear_down();
}

static hb_mbuf classify_as(uint32_t number, uint16_t port, uint32_t hash)
{
    hb_key k = key_of(number, port);
    hb_mbuf m = {.hash = hash}, *one = &m;
    hb_flow_classify(&flows, NULL, &one, &k, 1);
    return m;
}

/* Keys decide, not hashes: flows with one hash have entries of their own, at first in the set that
 * the hash names, in the end all places of two. The upper half of a hash may be 0, too. */
static void test_equal_hashes(uint32_t hash)
{
    set_up(64);
    uint32_t at[2 * HB_FLOW_WAYS], in_first = 0;
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < 2 * HB_FLOW_WAYS; i++) {
            hb_mbuf m = classify_as(i, i % 2 ? 80 : 81, hash);
            CHECK_EQUAL(m.type, i % 2 ? 3 : 0);
            CHECK(round == 0 || m.flow == at[i]);
            bool first = m.flow / HB_FLOW_WAYS == hb_flow_set(&flows, hash);
            CHECK(first || i > HB_FLOW_WAYS / 2);
            in_first += first;
            at[i] = m.flow;
        }
    CHECK_EQUAL(in_first, 2 * HB_FLOW_WAYS); /* half of two rounds */
    CHECK_EQUAL(stats.flow_misses, 2 * HB_FLOW_WAYS);
    CHECK_EQUAL(stats.flow_hits, 2 * HB_FLOW_WAYS);
    CHECK_EQUAL(stats.flow_evictions, 0);
    tear_down();
}

/* A burst is as its packets one by one: known flows, new ones, the same one twice, and what is not
 * IP, whose key looks like that of a free entry. */
static void test_burst(void)
{
    enum { N = 200 };
    static hb_mbuf m[N], *burst[N];
    static hb_key keys[N];
    set_up(64);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t number = i * 7 % 31;
        if (number)
            keys[i] = key_of(number, 80);
        m[i] = (hb_mbuf){.hash = hb_key_hash(&keys[i]), .direction = i & 1};
        burst[i] = &m[i];
    }
    hb_flow_classify(&flows, NULL, burst, keys, N);
    for (uint32_t i = 0; i < N; i++) {
        CHECK_EQUAL(m[i].type, i * 7 % 31 == 0 ? 0 : i & 1 ? 5 : 3);
        CHECK(m[i].flow_gen != 0);
        CHECK(i < 31 || m[i].flow == m[i - 31].flow);
    }
    CHECK_EQUAL(stats.flow_misses, 31);
    CHECK_EQUAL(stats.flow_hits, N - 31);
    tear_down();
}

/* What is not IP has no key: pairs of stations are told apart by the whole hash, also where the set
 * and the tag are the same, and one's re-type is not the other's. */
static void test_not_ip(void)
{
    set_up(64);
    hb_key none = {.word = {0}};
    hb_mbuf a = {.hash = 0x00020001}, b = {.hash = 0x00030001}, *burst[2] = {&a, &b};
    hb_key keys[2] = {none, none};
    hb_flow_classify(&flows, NULL, burst, keys, 2);
    CHECK(a.flow != b.flow);
    hb_flow_retype(&flows, &a, 200);
    hb_flow_classify(&flows, NULL, burst, keys, 2);
    CHECK_EQUAL(a.type, 200);
    CHECK_EQUAL(b.type, 0);
    CHECK_EQUAL(stats.flow_misses, 2);
    CHECK_EQUAL(stats.flow_hits, 2);
    tear_down();
}

static void test_sticky(void)
{
    set_up(64);
    hb_key k = key_of(1, 80);
    hb_mbuf m = classify(&k, 1);
    hb_flow_retype(&flows, &m, 200);
    CHECK_EQUAL(type_of(1, 80, 0), 200);
    CHECK_EQUAL(type_of(1, 80, 1), 200);
    CHECK_EQUAL(type_of(2, 80, 0), 3);
    hb_flow_retype(&flows, &m, 0);
    CHECK_EQUAL(type_of(1, 80, 0), 0);
    tear_down();
}

/* A full set gives up the flow that was idle longest; its sticky type goes with it, and who
 * still holds one of its packets cannot re-type the newcomer. */
static void test_eviction(void)
{
    set_up(HB_FLOW_WAYS / 2);
    hb_key k = key_of(3, 80);
    for (uint32_t i = 0; i < HB_FLOW_WAYS; i++)
        type_of(i, 80, 0);
    hb_mbuf old = classify(&k, 0);
    hb_flow_retype(&flows, &old, 200);
    for (uint32_t round = 0; round < 300; round++) /* `seen` counts in hundreds of lookups */
        for (uint32_t i = 0; i < HB_FLOW_WAYS; i++)
            if (i != 3)
                CHECK_EQUAL(type_of(i, 80, 0), 3);
    CHECK_EQUAL(stats.flow_evictions, 0);

    hb_key newcomer = key_of(100, 81);
    hb_mbuf m = classify(&newcomer, 0);
    CHECK_EQUAL(stats.flow_evictions, 1);
    CHECK_EQUAL(m.flow, old.flow);
    CHECK(m.flow_gen != old.flow_gen);
    hb_flow_retype(&flows, &old, 201);
    CHECK_EQUAL(type_of(100, 81, 0), 0);
    uint64_t misses = stats.flow_misses;
    for (uint32_t i = 0; i < HB_FLOW_WAYS; i++)
        if (i != 3)
            type_of(i, 80, 0);
    CHECK_EQUAL(stats.flow_misses, misses);
    CHECK_EQUAL(type_of(3, 80, 0), 3);
    CHECK_EQUAL(stats.flow_misses, misses + 1);
    tear_down();
}

/* Generation 0 says that an entry is free: it is left out when the counter wraps. */
static void test_generations_wrap(void)
{
    set_up(64);
    flows.generation = 0xfffffffeu;
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQUAL(type_of(i, 80, 0), 3);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQUAL(type_of(i, 80, 1), 5);
    CHECK_EQUAL(stats.flow_misses, 4);
    tear_down();
}

/* ---- re-types from other lcores -------------------------------------------------------------- */

enum { FLOWS = 24, ENTRIES = 8, PACKETS = 40000, RETYPERS = 2, HEADERS = 512 };

/* Re-types each packet it is given to a type that belongs to the packet's flow. */
typedef struct {
    pthread_t thread;
    hb_ring *ring;
    hb_mbuf m[HEADERS];
    _Atomic uint64_t done; /* packets */
    _Atomic int stop;
} retyper;

static uint16_t sticky_type(uint32_t number)
{
    return (uint16_t)(1000 + number);
}

static void *retype(void *arg)
{
    retyper *r = arg;
    uint64_t e;
    while (!atomic_load(&r->stop)) {
        if (!hb_ring_take(r->ring, &e, 1)) {
            sched_yield();
            continue;
        }
        hb_mbuf m = r->m[e % HEADERS];
        hb_flow_retype(&flows, &m, sticky_type((uint32_t)m.rx_tick));
        atomic_fetch_add(&r->done, 1);
    }
    return NULL;
}

static void start(retyper *r)
{
    r->ring = aligned_alloc(128, (sizeof *r->ring + 127) / 128 * 128);
    memset(r->ring, 0, sizeof *r->ring);
    hb_ring_init(r->ring, HEADERS / 2);
    pthread_create(&r->thread, NULL, retype, r);
}

static void stop(retyper *r)
{
    atomic_store(&r->stop, 1);
    pthread_join(r->thread, NULL);
    free(r->ring->entry);
    free(r->ring);
}

/* The thread may not have run yet. */
static void wait_for_all(const retyper *r, uint64_t sent)
{
    while (atomic_load(&r->done) < sent)
        sched_yield();
}

/* Far more flows than entries, so most re-types come late: they must never hit another flow. With
 * room for all of them, every packet of the second half is of a flow that was re-typed. */
static void test_retypes_from_other_threads(uint32_t remembered, uint64_t least_sticky)
{
    static retyper r[RETYPERS];
    uint64_t sticky = 0, strange = 0, sent[RETYPERS] = {0};
    memset(r, 0, sizeof r);
    set_up(remembered);
    for (uint32_t i = 0; i < RETYPERS; i++)
        start(&r[i]);
    for (uint32_t i = 0; i < PACKETS; i++) {
        uint32_t number = i * 7 % FLOWS, to = i % RETYPERS;
        hb_key k = key_of(number, 80);
        hb_mbuf m = classify(&k, i / FLOWS % 2);
        sticky += m.type == sticky_type(number);
        strange += m.type != sticky_type(number) && m.type != (m.direction ? 5 : 3);
        m.rx_tick = number;
        /* the ring holds half the headers: this one is no longer read */
        if (i % 5 == 0 && sent[to] - atomic_load(&r[to].ring->head) < HEADERS / 2) {
            r[to].m[sent[to] % HEADERS] = m;
            if (hb_ring_put(r[to].ring, 0, &(uint32_t){(uint32_t)sent[to]}, 1))
                sent[to]++;
            hb_ring_flush(r[to].ring);
        }
        if (i % 512 == 0)
            sched_yield();
        for (uint32_t k = 0; i == PACKETS / 2 && k < RETYPERS; k++)
            wait_for_all(&r[k], sent[k]);
    }
    for (uint32_t i = 0; i < RETYPERS; i++)
        stop(&r[i]);
    CHECK_EQUAL(strange, 0);
    CHECK(sticky >= least_sticky);
    tear_down();
}

int main(void)
{
    test_both_directions();
    test_equal_hashes(1);
    test_equal_hashes(0xabcd0003u);
    test_burst();
    test_not_ip();
    test_sticky();
    test_eviction();
    test_generations_wrap();
    test_retypes_from_other_threads(ENTRIES, 0);
    test_retypes_from_other_threads(1024, PACKETS / 2 - 1);
    return failures != 0;
}
