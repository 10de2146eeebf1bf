/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/*
 * Longest prefix match: what the trie shows is what the routes say, one by one, after any changes;
 * and what a thread sees that looks up meanwhile is always the route before or the one after.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hummingbird.h"
#include "nf/lpm.h"
#include "nf/router.cl"
#include "nf/router_api.h"

static uint64_t seed = 4711;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1du;
}

/* ---- the routes, in a list ---------------------------------------------------------------------
 */

typedef struct {
    hb_address prefix;
    uint32_t length;
    int hop; /* -1: withdrawn */
} route;

static bool covers(const route *r, hb_address a)
{
    hb_address p = hb_prefix_of(a, r->length);
    return r->hop >= 0 && p.hi == r->prefix.hi && p.lo == r->prefix.lo;
}

static uint32_t best(const route *r, uint32_t n, hb_address a)
{
    int length = -1, hop = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (covers(&r[i], a) && (int)r[i].length > length) {
            length = (int)r[i].length;
            hop = r[i].hop;
        }
    }
    return (uint32_t)(hop + 1);
}

/* ---- against the list --------------------------------------------------------------------------
 */

/* Bits that are mostly equal, so that prefixes nest. */
static hb_address near_address(bool v6)
{
    hb_address a = {draw() & draw() & draw(), v6 ? draw() & draw() & draw() : 0};
    if (!v6)
        a.hi &= 0xffffffff00000000u;
    return a;
}

/* Just in front of a prefix, its first and last address, and just behind. */
static hb_address edge(const route *r, bool v6, uint32_t which)
{
    unsigned __int128 p = (unsigned __int128)r->prefix.hi << 64 | r->prefix.lo;
    unsigned __int128 rest = r->length == 128 ? 0 : ~(unsigned __int128)0 >> r->length;
    unsigned __int128 one = v6 ? 1 : (unsigned __int128)1 << 96;
    unsigned __int128 at[] = {p - one, p, p | rest, (p | rest) + 1};
    hb_address a = {(uint64_t)(at[which] >> 64), v6 ? (uint64_t)at[which] : 0};
    if (!v6)
        a.hi &= 0xffffffff00000000u;
    return a;
}

static void compare(const hb_lpm *l, const route *r, uint32_t n, bool v6)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t which = 0; which < 5; which++) {
            hb_address a = which < 4 ? edge(&r[i], v6, which) : near_address(v6);
            CHECK_EQUAL(hb_lpm_lookup(l, a), best(r, n, a));
            const hb_rib_slot *s = hb_rib_cover(&l->rib, a, v6 ? 129 : 33);
            CHECK_EQUAL(s ? s->hop + 1 : 0, best(r, n, a));
        }
    }
}

static enum hb_lpm_end change(hb_lpm *l, route *r, int hop)
{
    enum hb_lpm_end end;
    CHECK_EQUAL(hb_rib_reserve(&l->rib, 1), 0);
    end = hop < 0 ? hb_lpm_remove(l, r->prefix, r->length)
                  : hb_lpm_put(l, r->prefix, r->length, (uint16_t)hop);
    if (end == HB_LPM_DONE)
        r->hop = hop;
    return end;
}

static bool stands_before(const route *r, uint32_t i)
{
    for (uint32_t j = 0; j < i; j++) {
        if (r[j].length == r[i].length && r[j].prefix.hi == r[i].prefix.hi &&
            r[j].prefix.lo == r[i].prefix.lo)
            return true;
    }
    return false;
}

static void random_changes(bool v6)
{
    enum { ROUTES = 160, GROUPS = 2400 };
    static route r[ROUTES];
    void *entry = calloc(1, hb_lpm_bytes(v6, GROUPS));
    hb_lpm l;
    CHECK_EQUAL(hb_lpm_init(&l, v6, entry, GROUPS), 0);
    for (uint32_t i = 0; i < ROUTES; i++) {
        do {
            r[i].length = (uint32_t)(draw() % (v6 ? 129 : 33));
            if (draw() % 4 == 0)
                r[i].length = v6 ? 128 : 32;
            r[i].prefix = hb_prefix_of(near_address(v6), r[i].length);
            r[i].hop = -1;
        } while (stands_before(r, i) || (!v6 && r[i].length < 10 && draw() % 32));
    }
    for (uint32_t round = 0; round < 12; round++) {
        for (uint32_t i = 0; i < ROUTES; i++) {
            route *one = &r[draw() % ROUTES];
            CHECK_EQUAL(change(&l, one, draw() % 3 ? (int)(draw() % 0x7fff) : -1), HB_LPM_DONE);
        }
        compare(&l, r, ROUTES, v6);
    }
    for (uint32_t i = 0; i < ROUTES; i++)
        CHECK_EQUAL(change(&l, &r[i], -1), HB_LPM_DONE);
    compare(&l, r, ROUTES, v6);
    CHECK_EQUAL(l.rib.routes, 0);
    CHECK_EQUAL(l.used, 0);
    CHECK_EQUAL(l.free, GROUPS);
    uint8_t *bytes = entry, any = 0; /* of the root: what groups show that nobody reads is old */
    for (size_t i = 0; i < ((size_t)1 << l.root_bits) * (v6 ? 4 : 2); i++)
        any |= bytes[i] | l.depth[i / (v6 ? 4 : 2)];
    CHECK_EQUAL(any, 0);
    hb_lpm_free(&l);
    free(entry);
}

/* ---- room ---------------------------------------------------------------------------------------
 */

static route v4(uint32_t address, uint32_t length)
{
    return (route){{(uint64_t)address << 32, 0}, length, -1};
}

static void test_groups_run_out_and_come_back(void)
{
    void *entry = calloc(1, hb_lpm_bytes(false, 2));
    hb_lpm l;
    CHECK_EQUAL(hb_lpm_init(&l, false, entry, 2), 0);
    route a = v4(0x0a000001, 32), b = v4(0x0a000101, 32), c = v4(0x0a000201, 32);
    CHECK_EQUAL(change(&l, &a, 1), HB_LPM_DONE);
    CHECK_EQUAL(change(&l, &b, 2), HB_LPM_DONE);
    CHECK_EQUAL(change(&l, &c, 3), HB_LPM_FULL);
    CHECK_EQUAL(l.rib.routes, 2);
    l.read = true;
    CHECK_EQUAL(change(&l, &a, -1), HB_LPM_DONE);
    CHECK_EQUAL(change(&l, &c, 3), HB_LPM_WAIT);
    CHECK_EQUAL(hb_lpm_lookup(&l, c.prefix), 0);
    hb_lpm_readers_passed(&l);
    CHECK_EQUAL(change(&l, &c, 3), HB_LPM_DONE);
    CHECK_EQUAL(hb_lpm_lookup(&l, c.prefix), 4);
    CHECK_EQUAL(hb_lpm_lookup(&l, a.prefix), 0);
    hb_lpm_free(&l);
    free(entry);
}

static void test_a_rib_grows_and_shrinks(void)
{
    enum { MANY = 50000 };
    hb_rib rib;
    CHECK_EQUAL(hb_rib_init(&rib), 0);
    CHECK_EQUAL(hb_rib_reserve(&rib, MANY), 0);
    for (uint32_t i = 0; i < MANY; i++)
        CHECK(hb_rib_put(&rib, (hb_address){(uint64_t)i << 40, 0}, 24, (uint16_t)i));
    for (uint32_t i = 0; i < MANY; i += 2)
        hb_rib_remove(&rib, (hb_address){(uint64_t)i << 40, 0}, 24);
    for (uint32_t i = 0; i < MANY; i++) {
        const hb_rib_slot *s = hb_rib_find(&rib, (hb_address){(uint64_t)i << 40, 0}, 24);
        CHECK_EQUAL(s ? s->hop : -1, i % 2 ? (uint16_t)i : -1);
    }
    CHECK_EQUAL(rib.routes, MANY / 2);
    CHECK_EQUAL(rib.of_length[24], MANY / 2);
    hb_rib_free(&rib);
}

/* ---- while others look up
 * ------------------------------------------------------------------------
 *
 *   region i = 10.i.0.0/16: always a route to next hop 2 i; inside it more specific ones to 2 i + 1
 *   come and go. So an address of region i leads to one of these two, or somebody has seen a group
 *   half made, or one that is another region's already.
 */

enum { REGIONS = 16, LIVE = 4, ROOM = 16 };
#ifdef __SANITIZE_THREAD__
enum { CHANGES = 1000, ONE_THREAD = 0 }; /* it sees a missing order at once, and is slow */
#else
enum { CHANGES = 5000, ONE_THREAD = 1 };
#endif

static struct {
    void *table;
    _Atomic uint32_t passes; /* of the reader */
    _Atomic int stop;
    uint64_t wrong;
    uint64_t lookups;
} shared;

static void *look_up(void *unused)
{
    uint64_t state = 99;
    while (!atomic_load(&shared.stop)) {
        uint32_t address[64];
        uint16_t entry[64];
        uint8_t six[64][16] = {{0}};
        uint16_t entry6[64];
        for (uint32_t i = 0; i < 64; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            address[i] = 10u << 24 | (uint32_t)(state >> 33) % (REGIONS << 16);
            address[i] &= ~0xfcu; /* few addresses, where the writer is at work */
            memcpy(six[i], &(uint32_t){__builtin_bswap32(address[i])}, 4);
            six[i][15] = (uint8_t)address[i];
        }
        hb_router_lookup_bulk(shared.table, address, entry, 64);
        hb_router_lookup6_bulk(shared.table, six[0], entry6, 64);
        for (uint32_t i = 0; i < 64; i++) {
            uint32_t region = address[i] >> 16 & 255;
            shared.wrong += (entry[i] - 1u) / 2 != region;
            shared.wrong += (entry6[i] - 1u) / 2 != region;
        }
        shared.lookups += 128;
        atomic_fetch_add(&shared.passes, 1);
    }
    return unused;
}

static void change_one(hb_router *r, uint32_t family, uint32_t address, uint8_t length, int32_t hop)
{
    hb_address prefix = {(uint64_t)address << 32, 0};
    if (family == 6 && length > 24) {
        length = (uint8_t)(length + 96);
        prefix.lo = address & 255;
    }
    prefix = hb_prefix_of(prefix, length);
    uint32_t done;
    while (hb_router_change(r, family, &prefix.hi, &prefix.lo, &length, &hop, 1, &done) ==
           HB_ROUTER_WAIT) {
        for (uint32_t at = atomic_load(&shared.passes); atomic_load(&shared.passes) - at < 2;)
            sched_yield();
        hb_router_readers_passed(r);
    }
    CHECK_EQUAL(done, 1);
}

static void test_lookups_while_routes_change(void)
{
    /* An IPv6 host route hangs 14 groups deep. */
    uint32_t room6 = ROOM * 14;
    shared.table = aligned_alloc(128, (hb_router_bytes(ROOM, room6) + 127) / 128 * 128);
    memset(shared.table, 0, hb_router_bytes(ROOM, room6));
    hb_router *r = hb_router_new(shared.table, ROOM, room6, 0, -1);
    for (uint32_t i = 0; i < REGIONS; i++) {
        change_one(r, 4, 10u << 24 | i << 16, 16, (int32_t)(2 * i));
        change_one(r, 6, 10u << 24 | i << 16, 16, (int32_t)(2 * i));
    }
    hb_router_move(r, shared.table);
    pthread_t reader;
    CHECK_EQUAL(pthread_create(&reader, NULL, look_up, NULL), 0);
    struct {
        uint32_t address;
        uint8_t length;
    } live[LIVE] = {{0, 0}}; /* long prefixes, in different /24: each takes groups */
    for (uint32_t i = 0; i < CHANGES; i++) {
        uint32_t slot = (uint32_t)(draw() % LIVE), region = (uint32_t)(draw() % REGIONS);
        for (uint32_t family = 4; family <= 6; family += 2) {
            if (live[slot].length)
                change_one(r, family, live[slot].address, live[slot].length, -1);
        }
        live[slot].address = 10u << 24 | region << 16 | slot << 8 | (uint32_t)(draw() & 255);
        live[slot].length = (uint8_t)(25 + draw() % 8);
        for (uint32_t family = 4; family <= 6; family += 2)
            change_one(r, family, live[slot].address, live[slot].length, (int32_t)(2 * region + 1));
        if (i % 64 == 0) { /* a route that repaints what lies above and below groups */
            change_one(r, 4, 10u << 24 | region << 16, 16, (int32_t)(2 * region));
            change_one(r, 6, 10u << 24 | region << 16, 16, (int32_t)(2 * region));
        }
    }
    atomic_store(&shared.stop, 1);
    pthread_join(reader, NULL);
    CHECK_EQUAL(shared.wrong, 0);
    CHECK(shared.lookups > 0);
    CHECK(hb_router_used(r, 4).groups <= LIVE);
    hb_router_free(r);
    free(shared.table);
}

/* ---- next hops
 * ------------------------------------------------------------------------------------
 */

static void test_a_next_hop_changes_in_its_other_record(void)
{
    void *table = calloc(1, hb_router_bytes(0, 0));
    hb_router *r = hb_router_new(table, 0, 0, 7, 3);
    uint32_t *word = table;
    CHECK_EQUAL(word[0], HB_ROUTER_MAGIC);
    CHECK_EQUAL(word[2], 4);
    CHECK_EQUAL(word[3], 7);
    uint8_t macs[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    CHECK_EQUAL(hb_router_set_hop(r, 5, HB_ROUTER_FORWARD, macs, 1500, NULL, 0), HB_ROUTER_DONE);
    hb_router_move(r, table);
    uint32_t before = word[HB_ROUTER_HOPS + 5], *old = word + hb_router_record(5, before);
    CHECK_EQUAL(old[0], 0x01020304);
    CHECK_EQUAL(old[3], 1500);
    macs[0] = 99;
    CHECK_EQUAL(hb_router_set_hop(r, 5, HB_ROUTER_FORWARD, macs, 1400, NULL, 0), HB_ROUTER_DONE);
    CHECK_EQUAL(old[0], 0x01020304); /* who read the word before still finds it whole */
    CHECK_EQUAL((word + hb_router_record(5, word[HB_ROUTER_HOPS + 5]))[0], 0x63020304);
    CHECK_EQUAL(hb_router_set_hop(r, 5, HB_ROUTER_FORWARD, macs, 1300, NULL, 0), HB_ROUTER_WAIT);
    hb_router_readers_passed(r);
    uint16_t members[2] = {1, 2};
    CHECK_EQUAL(hb_router_set_group(r, 5, members, 2), HB_ROUTER_DONE);
    CHECK_EQUAL(word[HB_ROUTER_HOPS + 5] & 0xff00ff, HB_ROUTER_GROUP | 2 << 16);
    uint64_t offset[8], bytes[8];
    CHECK_EQUAL(hb_router_changed(r, offset, bytes), 2);
    CHECK_EQUAL(offset[1], 4 * (HB_ROUTER_HOPS + 5));
    CHECK_EQUAL(hb_router_changed(r, offset, bytes), 0);
    hb_router_free(r);
    free(table);
}

int main(void)
{
    if (ONE_THREAD) {
        random_changes(false);
        random_changes(true);
    }
    test_groups_run_out_and_come_back();
    test_a_rib_grows_and_shrinks();
    test_a_next_hop_changes_in_its_other_record();
    test_lookups_while_routes_change();
    return failures != 0;
}
