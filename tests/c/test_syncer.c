/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* CPUSyncers and both executors with a whole data plane around them, on a fake GPU: everything
 * comes out whole, once and in order, or is counted. */
#include "check.h"
#include "plane.c"

/* ---- a sound device -------------------------------------------------------------------------- */

static void test_long_chain(const plane_config *c, uint32_t workgroups)
{
    enum { PACKETS = 1000 };
    plane *p = plane_long_chain(c, PACKETS, workgroups);
    plane_start(p);
    plane_wait(p);
    CHECK_EQUAL(p->sink[1].packets, 2 * (PACKETS / 5));
    plane_totals t = plane_end(p);
    plane_all_sent(&t, 2 * PACKETS);
    CHECK_EQUAL(t.row_packets, 2 * PACKETS + 2 * (PACKETS / 5));
}

static void test_long_chains(void)
{
    static const uint32_t workgroups[] = {1, 2, 5};
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t lcores = 1; lcores <= 3; lcores += 2)
        for (uint32_t resident = 1; resident <= 2; resident++)
            for (uint32_t i = 0; i < 3; i++) {
                plane_config c = {.executor = e, .lcores = lcores, .gpu.resident = resident};
                test_long_chain(&c, workgroups[i]);
            }
}

/* Rows of one packet, and rows longer than a burst. */
static void test_row_sizes(void)
{
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t lanes = 1; lanes <= 300; lanes += 299) {
        plane_config c = {.executor = e, .lanes = lanes, .depth = 2};
        plane_totals t = plane_run(plane_short_chain(&c, NF_forward, 1200, 2));
        plane_all_sent(&t, 1200);
        CHECK(t.rows <= 1200 && (lanes > 1 || t.rows == 1200));
    }
}

/* Packets that grow at both ends: equal to what a CPU makes of them, sequence numbers in order. */
static void test_growth(void)
{
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e};
        plane *p = plane_short_chain(&c, NF_stamp, 600, 3);
        p->sink[0].expect = plane_stamped;
        plane_start(p);
        plane_wait(p);
        CHECK_EQUAL(p->sink[0].last_number, 600);
        plane_totals t = plane_end(p);
        plane_all_sent(&t, 600);
    }
}

/* Sources that wait for nobody, and a device that does nothing for a while. */
static void test_overload(uint32_t lcores)
{
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = lcores, .queue = 64, .gpu.resident = 1};
        plane *p = plane_long_chain(&c, 0, 2);
        p->source[0].port.paced = p->source[1].port.paced = true;
        plane_start(p);
        CHECK(plane_wait_for(&p->sink[0].packets, 100));
        fake_hold(p->gpu, true);
        /* far more than all queues hold, and long enough that each lcore has had its turn */
        CHECK(plane_wait_for_packets(p, 100000));
        fake_hold(p->gpu, false);
        CHECK(plane_wait_for(&p->sink[0].packets, atomic_load(&p->sink[0].packets) + 500));
        plane_totals t = plane_end(p);
        CHECK_EQUAL(t.in_flight, 0);
        /* of several lcores, all packets may find full the ring to one that gets no CPU */
        CHECK(t.reason[HB_REASON_node_full] > 0 || (lcores > 1 && t.dropped > 0));
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_node_full] + t.reason[HB_REASON_ring_full]);
    }
}

/* One GNF has more rows than a launch can take; another one's few must not wait for ever. */
static void test_fairness(void)
{
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lanes = 1, .depth = 512};
        c.gpu = (fake_config){.resident = 1, .row_us = 20};
        plane *p = plane_new(&c);
        int flood = plane_add_source(p, 0, 0, true), drip = plane_add_source(p, 0, 0, false);
        int busy = plane_add_nf(p, NF_forward, 1, 1), calm = plane_add_nf(p, NF_forward, 1, 1);
        int out = plane_add_sink(p, 0, NULL), other = plane_add_sink(p, 0, NULL);
        p->source[1].burst = 1;
        plane_route_all(p, flood, busy);
        plane_route_all(p, drip, calm);
        plane_route_all(p, busy, out);
        plane_route_all(p, calm, other);
        plane_start(p);
        CHECK(plane_wait_for(&p->sink[0].packets, 1500));
        CHECK(p->sink[1].packets >= 10);
        plane_end(p);
    }
}

/* ---- launches come and go -------------------------------------------------------------------- */

static bool wait_for_launches(plane *p, uint64_t least)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (fake_count(p->gpu).launches < least && hb_monotonic_ns() < until)
        usleep(500);
    return fake_count(p->gpu).launches >= least;
}

/* Kernels that live for a moment, under traffic that never ends. */
static void test_relaunch(uint32_t resident)
{
    plane_config c = {.lifetime_us = 50, .gpu.resident = resident};
    plane *p = plane_short_chain(&c, NF_forward, 0, 5);
    p->source[0].burst = 20;
    plane_start(p);
    CHECK(wait_for_launches(p, 1500));
    plane_totals t = plane_end(p);
    plane_all_sent(&t, t.received);
    CHECK(t.received > 1500);
}

/* A packet now and then: the kernel has gone, the next row brings it back. Not each time: who has
 * to see that it idles may get no CPU in between. */
static void test_idle(void)
{
    plane_config c = {.idle_us = 50};
    plane *p = plane_short_chain(&c, NF_forward, 0, 2);
    p->source[0].burst = 1;
    p->source[0].gap_us = 1500;
    plane_start(p);
    CHECK(wait_for_launches(p, 100));
    plane_totals t = plane_end(p);
    plane_all_sent(&t, t.received);
}

/* Without a drain: threads end at once, what was in flight is still counted. */
static void test_stop_under_traffic(void)
{
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t i = 0; i < 5; i++) {
        plane_config c = {.executor = e, .lcores = 3};
        plane *p = plane_long_chain(&c, 0, 2);
        plane_start(p);
        CHECK(plane_wait_for(&p->sink[0].packets, 100 * i));
        hb_stop(p->dp);
        plane_totals t = plane_free(p);
        CHECK(t.in_flight <= 2048);
    }
}

/* The runtime calls back long after it has said that a launch is over. */
static void test_late_callback(void)
{
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t i = 0; i < 3; i++) {
        plane_config c = {.executor = e, .gpu.callback_us = 20000};
        plane_totals t = plane_run(plane_short_chain(&c, NF_forward, 10, 1));
        plane_all_sent(&t, 10);
    }
}

/* A drain that runs out of time, because the device takes its own: all the same nothing is left
 * when it has stopped. */
static void test_drain_runs_out(uint32_t lcores)
{
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t i = 0; i < 5; i++) {
        plane_config c = {.executor = e, .lcores = lcores};
        plane *p = plane_long_chain(&c, 0, 2);
        plane_start(p);
        CHECK(plane_wait_for(&p->sink[0].packets, 100));
        fake_hold(p->gpu, true);
        CHECK(plane_wait_for_full_rows(p));
        CHECK(hb_drain(p->dp, 20) > 0);
        fake_hold(p->gpu, false);
        hb_stop(p->dp);
        plane_totals t = plane_free(p);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK(t.reason[HB_REASON_shutdown] > 0);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_shutdown] + t.reason[HB_REASON_device_lost]);
    }
}

int main(void)
{
    test_long_chains();
    test_row_sizes();
    test_growth();
    test_overload(1);
    test_overload(3);
    test_fairness();
    test_relaunch(1);
    test_relaunch(2);
    test_idle();
    test_stop_under_traffic();
    test_late_callback();
    test_drain_runs_out(1);
    test_drain_runs_out(3);
    return failures != 0;
}
