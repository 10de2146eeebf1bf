/* SPDX-License-Identifier: BSD-3-Clause */
/* Packets that an NF makes: fragments that add up to the packet, errors in their bounds, and every
 * one of them counted. What scapy thinks of them, tests/test_nf_router.py and others ask. */
#include "check.h"
#include "dataplane.h"
#include "inet.h"

#include <stdlib.h>
#include <string.h>

enum { MBUFS = 64, L2 = 14, TYPE = 3 };

/* One lcore without a thread, with one NF seat. */
typedef struct {
    hb_dataplane *dp;
    hb_lcore *lc;
    hb_nf_seat seat;
    void *frames, *stats;
} bench;

static bench make_bench(void)
{
    bench b;
    char error[256];
    size_t stats = (hb_stats_size(1, 2, 8) + 127) / 128 * 128;
    b.frames = hb_region_new((size_t)MBUFS * 2048);
    b.stats = memset(aligned_alloc(128, stats), 0, stats);
    hb_config c = {.frames = b.frames,
                   .stats = b.stats,
                   .mbufs = MBUFS,
                   .frame_size = 2048,
                   .queue = 64,
                   .flows = 64,
                   .types = 8,
                   .lcores = 1,
                   .cpus = {-1}};
    b.dp = hb_new(&c, 2, error, sizeof error);
    b.lc = &b.dp->lcore[0];
    b.lc->pass_tick = hb_now();
    b.seat = (hb_nf_seat){.arena = &b.dp->arena, .node = 1, .lcore = b.lc};
    return b;
}

/* All that is held goes back; then every mbuf must be there again, and every packet accounted for.
 */
static void end_bench(bench *b, uint32_t handle)
{
    hb_free_dead(b->lc);
    b->lc->stats->gone += b->lc->mades;
    hb_release(&b->lc->cache, b->lc->made, b->lc->mades);
    hb_release(&b->lc->cache, &handle, 1);
    CHECK_EQUAL(hb_in_flight(b->dp), 0);
    CHECK_EQUAL(b->lc->node_stats[1].created, b->lc->stats->born);
    CHECK_EQUAL(hb_count_free(b->dp), MBUFS);
    hb_free(b->dp);
    hb_region_free(b->frames, (size_t)MBUFS * 2048);
    free(b->stats);
}

/* An IPv4 packet, UDP, whose bytes say where they are. */
static uint32_t packet(bench *b, uint32_t options, uint32_t data, uint32_t place)
{
    uint32_t handle, header = 20 + options, total = header + data;
    hb_alloc(&b->lc->cache, &handle, 1);
    hb_mbuf *m = hb_header(&b->dp->arena, handle);
    m->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
    m->data_len = (uint16_t)(L2 + total);
    m->type = TYPE;
    uint8_t *p = hb_data(&b->dp->arena, m), *ip = p + L2;
    memset(p, 0, L2 + header);
    memcpy(p, "\2\0\0\0\0\1\2\0\0\0\0\2\10\0", L2);
    ip[0] = (uint8_t)(0x40 + header / 4);
    hb_put_be16(ip + 2, total);
    hb_put_be16(ip + 6, place);
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, "\12\0\0\1\12\0\0\2", 8);
    if (options) { /* one that all fragments carry, and one that they do not */
        memset(ip + 20, 1, options);
        memcpy(ip + 20, "\x94\4\0\0", 4);
        if (options >= 8)
            memcpy(ip + 24, "\7\4\4\0", 4);
    }
    hb_put_be16(ip + 10, hb_inet_sum(ip, header, 0));
    for (uint32_t i = 0; i < data; i++)
        ip[header + i] = (uint8_t)(i * 7 + i / 256);
    if (!(place & 0x1fff) && data >= 8)
        hb_put_be16(ip + header + 4, data);
    hb_key key;
    CHECK_EQUAL(hb_parse(p, m->data_len, m, &key), HB_REASON_none);
    return handle;
}

/* The data of one fragment goes where it belongs; returns its end. */
static uint32_t put_together(bench *b, uint32_t handle, uint32_t mtu, uint8_t *data, bool *last)
{
    const hb_mbuf *m = hb_header(&b->dp->arena, handle);
    const uint8_t *ip = hb_data(&b->dp->arena, m) + L2;
    uint32_t header = (ip[0] & 15u) * 4, total = hb_get_be16(ip + 2), place = hb_get_be16(ip + 6);
    uint32_t at = (place & 0x1fff) * 8;
    CHECK(total <= mtu && m->data_len == L2 + total);
    CHECK_EQUAL(hb_inet_sum(ip, header, 0), 0);
    CHECK_EQUAL(m->type, TYPE);
    *last = !(place & 0x2000);
    CHECK(*last || (total - header) % 8 == 0);
    if (header > 20)
        CHECK_EQUAL(ip[20], 0x94);
    if (header >= 28 && at)
        CHECK_EQUAL(ip[24], 1); /* record route is not copied */
    memcpy(data + at, ip + header, total - header);
    return at + total - header;
}

static void test_fragments(uint32_t options, uint32_t bytes, uint32_t mtu)
{
    bench b = make_bench();
    uint32_t handle = packet(&b, options, bytes, 0), end = 0, pieces = 1;
    uint8_t before[2048], after[2048];
    memcpy(before, hb_data(&b.dp->arena, hb_header(&b.dp->arena, handle)) + L2 + 20 + options,
           bytes);
    CHECK(hb_fragment(&b.seat, handle, mtu));
    bool last;
    end = put_together(&b, handle, mtu, after, &last);
    for (uint32_t i = 0; i < b.lc->mades; i++, pieces++) {
        CHECK(!last);
        uint32_t ends = put_together(&b, b.lc->made[i], mtu, after, &last);
        CHECK(ends > end);
        end = ends;
    }
    CHECK(last && end == bytes && memcmp(before, after, bytes) == 0);
    CHECK_EQUAL(pieces, 1 + b.lc->node_stats[1].created);
    end_bench(&b, handle);
}

static void test_what_is_not_cut(void)
{
    bench b = make_bench();
    uint32_t handle = packet(&b, 0, 1000, 0x4000);
    CHECK(!hb_fragment(&b.seat, handle, 576)); /* DF */
    end_bench(&b, handle);
    b = make_bench();
    handle = packet(&b, 0, 500, 0);
    CHECK(!hb_fragment(&b.seat, handle, 520)); /* it fits */
    CHECK(!hb_fragment(&b.seat, handle, 27));  /* nothing would */
    end_bench(&b, handle);
    b = make_bench();
    handle = packet(&b, 0, 1400, 0);
    CHECK(!hb_fragment(&b.seat, handle, 28)); /* more pieces than mbufs: none at all */
    CHECK_EQUAL(b.lc->mades, 0);
    end_bench(&b, handle);
}

/* A fragment is cut again: it stays one of the same datagram. */
static void test_a_fragment_of_a_fragment(void)
{
    bench b = make_bench();
    uint32_t handle = packet(&b, 0, 800, 0x2000 | 100);
    CHECK(hb_fragment(&b.seat, handle, 420));
    CHECK_EQUAL(b.lc->mades, 1);
    const uint8_t *ip = hb_data(&b.dp->arena, hb_header(&b.dp->arena, b.lc->made[0])) + L2;
    CHECK_EQUAL(hb_get_be16(ip + 6), 0x2000 | (100 + 400 / 8)); /* more follow, as before */
    end_bench(&b, handle);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static const hb_icmp_source source = {.ipv4 = {192, 0, 2, 1}};

static void test_an_error_goes_back(void)
{
    bench b = make_bench();
    hb_icmp_limit limit = {.rate = 100};
    uint32_t handle = packet(&b, 0, 1000, 0);
    CHECK(hb_icmp_error(&b.seat, &limit, &source, handle, 3, 4, 1400, 5));
    CHECK_EQUAL(b.lc->mades, 1);
    const hb_mbuf *m = hb_header(&b.dp->arena, b.lc->made[0]);
    const uint8_t *p = hb_data(&b.dp->arena, m), *ip = p + L2;
    CHECK_EQUAL(memcmp(p, "\2\0\0\0\0\2\2\0\0\0\0\1\10\0", L2), 0);
    CHECK_EQUAL(memcmp(ip + 12, "\300\0\2\1\12\0\0\1", 8), 0);
    CHECK_EQUAL(hb_get_be16(ip + 2), 576);
    CHECK_EQUAL(hb_inet_sum(ip, 20, 0), 0);
    CHECK_EQUAL(hb_inet_sum(ip + 20, 556, 0), 0);
    CHECK_EQUAL(hb_get_be32(ip + 24), 1400);
    CHECK_EQUAL(m->type, 5);
    /* nobody is told about an error */
    CHECK(!hb_icmp_error(&b.seat, &limit, &source, b.lc->made[0], 11, 0, 0, 5));
    end_bench(&b, handle);
}

static void test_who_is_never_told(void)
{
    static const struct {
        uint32_t at; /* byte of the frame */
        uint8_t is;
    } change[] = {{0, 0xff}, {L2 + 16, 224}, {L2 + 12, 127}, {L2 + 12, 0}, {L2 + 7, 1}};
    for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
        bench b = make_bench();
        hb_icmp_limit limit = {.rate = 100};
        uint32_t handle = packet(&b, 0, 100, 0);
        hb_data(&b.dp->arena, hb_header(&b.dp->arena, handle))[change[i].at] = change[i].is;
        CHECK(!hb_icmp_error(&b.seat, &limit, &source, handle, 11, 0, 0, 5));
        end_bench(&b, handle);
    }
    bench b = make_bench();
    hb_icmp_limit limit = {.rate = 100};
    hb_icmp_source nobody = {0};
    uint32_t handle = packet(&b, 0, 100, 0);
    CHECK(!hb_icmp_error(&b.seat, &limit, &nobody, handle, 11, 0, 0, 5));
    end_bench(&b, handle);
}

/* A rate of 100: 11 at once, then one each 10 ms by the lcore's clock. */
static void test_the_rate_holds(void)
{
    bench b = make_bench();
    hb_icmp_limit limit = {.rate = 100};
    uint32_t handle = packet(&b, 0, 100, 0), made = 0;
    for (int i = 0; i < 30; i++)
        made += hb_icmp_error(&b.seat, &limit, &source, handle, 11, 0, 0, 5);
    CHECK_EQUAL(made, 11);
    CHECK_EQUAL(limit.suppressed, 19);
    for (int i = 0; i < 10; i++) {
        b.lc->pass_tick += (uint64_t)(hb_tick_rate() / 49);
        CHECK(hb_icmp_error(&b.seat, &limit, &source, handle, 11, 0, 0, 5));
        CHECK(hb_icmp_error(&b.seat, &limit, &source, handle, 11, 0, 0, 5));
        CHECK(!hb_icmp_error(&b.seat, &limit, &source, handle, 11, 0, 0, 5));
    }
    hb_icmp_limit none = {0};
    CHECK(!hb_icmp_error(&b.seat, &none, &source, handle, 11, 0, 0, 5));
    end_bench(&b, handle);
}

int main(void)
{
    for (uint32_t options = 0; options <= 40; options += 20)
        for (uint32_t mtu = 96; mtu < 1100; mtu += 131)
            for (uint32_t bytes = mtu; bytes < 1500; bytes += 173)
                test_fragments(options, bytes, mtu);
    test_what_is_not_cut();
    test_a_fragment_of_a_fragment();
    test_an_error_goes_back();
    test_who_is_never_told();
    test_the_rate_holds();
    return failures != 0;
}
