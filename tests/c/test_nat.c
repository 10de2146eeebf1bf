/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mappings of a NAT without packets: against a list of them, while they are made, held and let
 * go at random; ports when they are few, when there are none, and when they come back; the clock.
 */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "nf/nat_table.h"

#define SECOND 1000000000ull

static uint64_t seed = 4711;

static uint32_t draw(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed * 0x2545f4914f6cdd1du >> 32) * n >> 32);
}

static const uint32_t inside[] = {0x0a000000, 0xff000000};
static const uint32_t external[] = {0xcb007101, 0xcb007102};
static const uint16_t range[] = {1000, 1009, 40000, 40089};

static hb_nat_config config(void)
{
    return (hb_nat_config){.inside = inside,
                           .nb_inside = 1,
                           .external = external,
                           .nb_external = 2,
                           .range = range,
                           .nb_ranges = 2,
                           .mappings = 1000,
                           .hold = {10, 10, 10, 10},
                           .secret = {1, 2}};
}

static hb_nat_end end_of(uint32_t host, uint32_t port, uint32_t protocol)
{
    return (hb_nat_end){
        .address = 0x0a000000 + host, .port = (uint16_t)port, .protocol = (uint8_t)protocol};
}

/* ---- against a list ----------------------------------------------------------------------------
 */

#define ENDS 400

typedef struct {
    uint32_t mapping; /* HB_NAT_NONE: never made, or forgotten */
    uint32_t holders;
    uint64_t until;
} known;

static hb_nat_end numbered(uint32_t i)
{
    static const uint8_t protocol[] = {6, 17, 1};
    return i % 4 == 3 ? end_of(i, 0, 47) : end_of(i % 20, i, protocol[i % 4]);
}

/* No two have the same external end, and each is found by both of its ends. */
static void check_all(hb_nat *n, const known *k, uint64_t now)
{
    for (uint32_t i = 0; i < ENDS; i++) {
        hb_nat_end e = numbered(i);
        uint32_t m = hb_nat_by_inside(n, &e);
        if (!k[i].holders && (k[i].mapping == HB_NAT_NONE || k[i].until <= now)) {
            CHECK_EQUAL(m, HB_NAT_NONE);
            continue;
        }
        CHECK_EQUAL(m, k[i].mapping);
        const hb_nat_mapping *found = &n->mapping[k[i].mapping];
        CHECK_EQUAL(hb_nat_by_external(n, found->external, e.protocol, found->external_port), m);
        CHECK_EQUAL(found->life.holders, k[i].holders);
    }
}

static void hold_one(hb_nat *n, known *k, uint32_t i, uint64_t now)
{
    hb_nat_end e = numbered(i);
    bool live = k[i].holders || (k[i].mapping != HB_NAT_NONE && k[i].until > now);
    uint32_t m = hb_nat_get(n, &e);
    if (live)
        CHECK_EQUAL(m, k[i].mapping);
    if (m == HB_NAT_NONE)
        return;
    if (!live)
        k[i].holders = 0;
    k[i].mapping = m;
    k[i].holders++;
}

static void test_against_a_list(void)
{
    hb_nat_config c = config();
    for (uint32_t round = 0; round < 8; round++) {
        c.paired = round & 1;
        c.parity = round >> 1 & 1;
        c.preserve = round >> 2 & 1;
        hb_nat *n = hb_nat_new(&c);
        known k[ENDS];
        for (uint32_t i = 0; i < ENDS; i++)
            k[i] = (known){.mapping = HB_NAT_NONE};
        uint64_t now = n->clock.now;
        for (uint32_t step = 0; step < 20000; step++) {
            uint32_t i = draw(ENDS);
            if (draw(8) == 0)
                now += draw(4) * SECOND;
            n->clock.now = now;
            if (draw(2) || !k[i].holders) {
                hold_one(n, k, i, now);
            } else {
                hb_nat_release(n, k[i].mapping);
                if (!--k[i].holders)
                    k[i].until = now + 10 * SECOND;
            }
            if (step % 1000 == 0)
                check_all(n, k, now);
        }
        for (uint32_t i = 0; i < ENDS; i++)
            for (; k[i].holders; k[i].holders--)
                hb_nat_release(n, k[i].mapping);
        n->clock.now = now + 11 * SECOND;
        hb_nat_end e = end_of(99, 99, 6);
        for (uint32_t i = 0; i < ENDS; i++) /* 64 go at a time */
            hb_nat_release(n, hb_nat_get(n, &e));
        hb_nat_counts left = hb_nat_count(n);
        CHECK_EQUAL(left.mappings, 1);
        CHECK_EQUAL(left.held, 1);
        for (uint32_t x = 0; x < 2; x++) {
            CHECK_EQUAL(hb_nat_ports_free(n, x, 17), 100);
            CHECK_EQUAL(hb_nat_ports_free(n, x, 1), 100);
        }
        hb_nat_free(n);
    }
}

/* ---- ports --------------------------------------------------------------------------------------
 */

/* All of them are given out, each once; then there is none, until one has been let go for so long
 * as it is kept. */
static void test_ports_run_out_and_come_back(void)
{
    hb_nat_config c = config();
    c.nb_external = 1;
    hb_nat *n = hb_nat_new(&c);
    bool seen[65536] = {false};
    uint32_t first = HB_NAT_NONE;
    for (uint32_t i = 0; i < 100; i++) {
        hb_nat_end e = end_of(i, 5000 + i, 6);
        uint32_t m = hb_nat_get(n, &e);
        CHECK(m != HB_NAT_NONE);
        uint32_t port = n->mapping[m].external_port;
        CHECK((port >= 1000 && port <= 1009) || (port >= 40000 && port <= 40089));
        CHECK(!seen[port]);
        seen[port] = true;
        if (!i)
            first = m;
    }
    hb_nat_end another = end_of(500, 1, 6), udp = end_of(500, 1, 17);
    CHECK_EQUAL(hb_nat_get(n, &another), HB_NAT_NONE);
    CHECK_EQUAL(hb_nat_count(n).no_port, 1);
    CHECK_EQUAL(hb_nat_ports_free(n, 0, 6), 0);
    CHECK(hb_nat_get(n, &udp) != HB_NAT_NONE); /* which has ports of its own */

    uint32_t port = n->mapping[first].external_port;
    hb_nat_release(n, first);
    n->clock.now += 9 * SECOND;
    CHECK_EQUAL(hb_nat_get(n, &another), HB_NAT_NONE);
    n->clock.now += 1 * SECOND;
    uint32_t m = hb_nat_get(n, &another);
    CHECK(m != HB_NAT_NONE);
    CHECK_EQUAL(n->mapping[m].external_port, port);
    CHECK_EQUAL(hb_nat_count(n).no_port, 2);
    hb_nat_free(n);
}

static void test_mappings_run_out(void)
{
    hb_nat_config c = config();
    c.mappings = 3;
    hb_nat *n = hb_nat_new(&c);
    for (uint32_t i = 0; i < 5; i++) {
        hb_nat_end e = end_of(i, i, 6);
        CHECK_EQUAL(hb_nat_get(n, &e) == HB_NAT_NONE, i > 2);
    }
    CHECK_EQUAL(hb_nat_count(n).full, 2);
    hb_nat_free(n);
}

/* Even ones stay even, until there are only odd ones. */
static void test_parity(void)
{
    static const uint16_t few[] = {2000, 2009};
    hb_nat_config c = config();
    c.nb_external = 1;
    c.range = few;
    c.nb_ranges = 1;
    c.parity = 1;
    hb_nat *n = hb_nat_new(&c);
    for (uint32_t i = 0; i < 10; i++) {
        hb_nat_end e = end_of(i, 6000, 17);
        uint32_t m = hb_nat_get(n, &e);
        CHECK(m != HB_NAT_NONE);
        CHECK_EQUAL(n->mapping[m].external_port % 2, i >= 5);
    }
    hb_nat_free(n);
}

static void test_a_port_is_kept_where_it_is_free(void)
{
    hb_nat_config c = config();
    c.nb_external = 1;
    c.preserve = 1;
    hb_nat *n = hb_nat_new(&c);
    hb_nat_end e[] = {end_of(1, 40010, 6), end_of(2, 40010, 6), end_of(1, 40089, 6),
                      end_of(3, 40089, 6)};
    static const uint32_t port[] = {40010, 40011, 40089, 1000};
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQUAL(n->mapping[hb_nat_get(n, &e[i])].external_port, port[i]);
    hb_nat_free(n);
}

/* A host has one address if it must, and more if it may. */
static void test_pooling(void)
{
    for (uint32_t paired = 0; paired < 2; paired++) {
        hb_nat_config c = config();
        c.paired = (uint8_t)paired;
        hb_nat *n = hb_nat_new(&c);
        uint32_t made = 0, of[2] = {0, 0};
        for (uint32_t i = 0; i < 250; i++) {
            hb_nat_end e = end_of(7, 100 + i, 6);
            uint32_t m = hb_nat_get(n, &e);
            if (m == HB_NAT_NONE)
                continue;
            made++;
            of[n->mapping[m].external]++;
        }
        CHECK_EQUAL(made, paired ? 100 : 200);
        CHECK_EQUAL(of[0] == 0 || of[1] == 0, paired);
        hb_nat_free(n);
    }
}

/* One inside host at a time has a protocol without ports, for each external address. */
static void test_protocols_without_ports(void)
{
    hb_nat_config c = config();
    c.nb_external = 1;
    hb_nat *n = hb_nat_new(&c);
    hb_nat_end gre = end_of(1, 0, 47), other = end_of(2, 0, 47), esp = end_of(2, 0, 50);
    uint32_t m = hb_nat_get(n, &gre);
    CHECK(m != HB_NAT_NONE);
    CHECK_EQUAL(hb_nat_get(n, &other), HB_NAT_NONE);
    CHECK(hb_nat_get(n, &esp) != HB_NAT_NONE);
    hb_nat_release(n, m);
    CHECK_EQUAL(hb_nat_get(n, &other), HB_NAT_NONE);
    n->clock.now += 10 * SECOND;
    CHECK(hb_nat_get(n, &other) != HB_NAT_NONE);
    hb_nat_free(n);
}

static void test_forwards(void)
{
    hb_nat_config c = config();
    hb_nat *n = hb_nat_new(&c);
    CHECK_EQUAL(hb_nat_forward(n, 6, 0, 0x0a000005, 80, 1, 443), 0);
    CHECK_EQUAL(hb_nat_forward(n, 6, 0, 0x0a000006, 80, 1, 443), -1);
    CHECK_EQUAL(hb_nat_forward(n, 6, 0, 0x0a000005, 80, 0, 443), -1);
    CHECK_EQUAL(hb_nat_forward(n, 6, 0, 0x0a000005, 81, 1, 1000), 0);
    CHECK_EQUAL(hb_nat_ports_free(n, 1, 6), 99);
    hb_nat_end e = end_of(5, 80, 6);
    uint32_t m = hb_nat_by_external(n, 1, 6, 443);
    CHECK_EQUAL(hb_nat_by_inside(n, &e), m);
    CHECK_EQUAL(hb_nat_get(n, &e), m);
    hb_nat_release(n, m);
    n->clock.now += 1000 * SECOND;
    CHECK_EQUAL(hb_nat_by_external(n, 1, 6, 443), m);
    CHECK(hb_nat_permitted(n, m, 1, 1));
    hb_nat_free(n);
}

/* ---- peers --------------------------------------------------------------------------------------
 */

static void test_peers(void)
{
    hb_nat_config c = config();
    c.peers = 3;
    for (c.filter = HB_NAT_FILTER_ADDRESS; c.filter <= HB_NAT_FILTER_PORT; c.filter++) {
        hb_nat *n = hb_nat_new(&c);
        hb_nat_end e = end_of(1, 1, 6), other = end_of(1, 2, 6);
        uint32_t m = hb_nat_get(n, &e), m2 = hb_nat_get(n, &other);
        uint32_t p = hb_nat_permit(n, m, 77, 1000);
        CHECK_EQUAL(hb_nat_permit(n, m, 77, 1000), p);
        CHECK(hb_nat_permitted(n, m, 77, 1000));
        CHECK_EQUAL(hb_nat_permitted(n, m, 77, 1001), c.filter == HB_NAT_FILTER_ADDRESS);
        CHECK(!hb_nat_permitted(n, m, 78, 1000));
        CHECK(!hb_nat_permitted(n, m2, 77, 1000));
        CHECK(hb_nat_permit(n, m, 78, 1000) != HB_NAT_NONE);
        CHECK(hb_nat_permit(n, m2, 77, 1000) != HB_NAT_NONE);
        CHECK_EQUAL(hb_nat_permit(n, m2, 78, 1000), HB_NAT_NONE);
        CHECK_EQUAL(hb_nat_count(n).full, 1);
        hb_nat_release_peer(n, p);
        hb_nat_release_peer(n, p);
        n->clock.now += 9 * SECOND;
        CHECK(hb_nat_permitted(n, m, 77, 1000));
        n->clock.now += 1 * SECOND;
        CHECK(!hb_nat_permitted(n, m, 77, 1000));
        CHECK_EQUAL(hb_nat_permit(n, m2, 78, 1000), p);
        hb_nat_free(n);
    }
}

/* A mapping's place, used again by another protocol, knows none of the peers before. */
static void test_peers_do_not_outlive_their_mapping(void)
{
    hb_nat_config c = config();
    c.peers = 1000;
    c.mappings = 1;
    c.filter = HB_NAT_FILTER_PORT;
    hb_nat *n = hb_nat_new(&c);
    for (uint32_t turn = 0; turn < 50; turn++) {
        hb_nat_end e = end_of(1, turn, turn % 2 ? 6 : 17);
        uint32_t m = hb_nat_get(n, &e), peer[200];
        CHECK_EQUAL(m, 0);
        for (uint32_t i = 0; i < 200; i++) {
            CHECK(!hb_nat_permitted(n, m, i, 9));
            if (i % 3 == turn % 3)
                peer[i] = hb_nat_permit(n, m, i, 9);
        }
        for (uint32_t i = turn % 3; i < 200; i += 3)
            hb_nat_release_peer(n, peer[i]);
        hb_nat_release(n, m);
        n->clock.now += 10 * SECOND;
    }
    CHECK(hb_nat_count(n).peers < 400);
    hb_nat_free(n);
}

/* ---- time ---------------------------------------------------------------------------------------
 */

static void test_the_clock_never_runs_backwards(void)
{
    hb_nat_config c = config();
    hb_nat *n = hb_nat_new(&c);
    uint64_t start = n->clock.now, day = 86400 * SECOND, t = 20000 * day;
    hb_clock_see(&n->clock, 0, t);
    CHECK_EQUAL(n->clock.now, start);
    hb_clock_see(&n->clock, 0, t + 5);
    CHECK_EQUAL(n->clock.now, start + 5);
    hb_clock_see(&n->clock, 0, t); /* mixed up a little */
    CHECK_EQUAL(n->clock.now, start + 5);
    hb_clock_see(&n->clock, 0, t + day); /* set */
    CHECK_EQUAL(n->clock.now, start + 5);
    hb_clock_see(&n->clock, 0, t + day + 10);
    CHECK_EQUAL(n->clock.now, start + 15);
    hb_clock_see(&n->clock, 0, 0); /* set back */
    hb_clock_see(&n->clock, 0, 20);
    CHECK_EQUAL(n->clock.now, start + 35);
    hb_clock_see(&n->clock, 3, 17); /* a port with a time of its own */
    hb_clock_see(&n->clock, 3, 18);
    hb_clock_see(&n->clock, 0, 20);
    CHECK_EQUAL(n->clock.now, start + 36);
    hb_nat_free(n);
}

/* SipHash-2-4 of the bytes 0 .. 15 with the key 0 .. 15: the reference's vector. */
static void test_hash(void)
{
    const uint64_t secret[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    CHECK(hb_nat_hash(secret, 0x0706050403020100u, 0x0f0e0d0c0b0a0908u) == 0x3f2acc7f57c29bdbu);
}

static void test_who_is_where(void)
{
    hb_nat_config c = config();
    hb_nat *n = hb_nat_new(&c);
    CHECK(hb_nat_is_inside(n, 0x0a123456));
    CHECK(!hb_nat_is_inside(n, 0x0b000000));
    CHECK_EQUAL(hb_nat_external(n, external[0]), 0);
    CHECK_EQUAL(hb_nat_external(n, external[1]), 1);
    CHECK_EQUAL(hb_nat_external(n, external[1] + 1), HB_NAT_NONE);
    CHECK_EQUAL(hb_nat_external(n, 0), HB_NAT_NONE);
    hb_nat_free(n);
}

int main(void)
{
    test_hash();
    test_who_is_where();
    test_the_clock_never_runs_backwards();
    test_against_a_list();
    test_ports_run_out_and_come_back();
    test_mappings_run_out();
    test_parity();
    test_a_port_is_kept_where_it_is_free();
    test_pooling();
    test_protocols_without_ports();
    test_forwards();
    test_peers();
    test_peers_do_not_outlive_their_mapping();
    return failures != 0;
}
