/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* CPUSyncers and both executors with a whole data plane around them, on a fake GPU: everything
 * comes out whole, once and in order, or is counted; also when the device fails, hangs or lies. */
#include "check.h"
#include "plane.c"

enum { FORWARD = 1, NIDS = 3, IPSEC = 4 }; /* NF kinds */
enum { NORMAL, SUSPICIOUS };               /* packet types */

/* What plays the device's side; the last one copies all that a kernel needs. */
static const enum plane_executor executors[] = {PLANE_PERSISTENT, PLANE_LAUNCH, PLANE_STAGED};
#define EACH_EXECUTOR(e)                                                                           \
    for (uint32_t i_ = 0, e = 0; i_ < 3 && (e = executors[i_], true); i_++)

static void route_all(plane *p, int from, int to)
{
    for (uint32_t type = 0; type < p->config.types; type++)
        plane_route(p, type, from, to);
}

/* source -> GNF -> sink, on one lcore */
static plane *short_chain(const plane_config *c, uint32_t kind, uint64_t packets,
                          uint32_t workgroups)
{
    plane *p = plane_new(c);
    int in = plane_add_source(p, 0, packets, false);
    int gnf = plane_add_nf(p, kind, 1, workgroups);
    int out = plane_add_sink(p, 0, NULL);
    route_all(p, in, gnf);
    route_all(p, gnf, out);
    return p;
}

static plane_totals run(plane *p)
{
    plane_start(p);
    plane_wait(p);
    return plane_end(p);
}

/* ---- a sound device -------------------------------------------------------------------------- */

/*
 *   source 0 --> GNF nids -- normal ------> CNF forward --> sink 0
 *   source 1 ------'     '-- suspicious --> GNF forward --> sink 1
 *
 * One lcore does it all; of three, 0 and 1 have a source each and so own flows, 1 and 2 serve nids
 * and the CNF.
 */
static plane *long_chain(const plane_config *c, uint64_t packets, uint32_t workgroups)
{
    uint32_t last = c->lcores - 1, some = c->lcores == 1 ? 1 : 6;
    plane *p = plane_new(c);
    int in = plane_add_source(p, 0, packets, false);
    int other = plane_add_source(p, last / 2, packets, false);
    int nids = plane_add_nf(p, NIDS, some, workgroups);
    int cnf = plane_add_nf(p, FORWARD, some, 0);
    int gnf = plane_add_nf(p, FORWARD, 1, workgroups);
    int out = plane_add_sink(p, last, NULL), odd = plane_add_sink(p, last / 2, NULL);
    route_all(p, in, nids);
    route_all(p, other, nids);
    plane_route(p, NORMAL, nids, cnf);
    plane_route(p, SUSPICIOUS, nids, gnf);
    route_all(p, cnf, out);
    route_all(p, gnf, odd);
    return p;
}

static void check_all_sent(const plane_totals *t, uint64_t packets)
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

static void test_long_chain(const plane_config *c, uint32_t workgroups)
{
    enum { PACKETS = 1000 };
    plane *p = long_chain(c, PACKETS, workgroups);
    plane_start(p);
    plane_wait(p);
    CHECK_EQUAL(p->sink[1].packets, 2 * (PACKETS / 5));
    plane_totals t = plane_end(p);
    check_all_sent(&t, 2 * PACKETS);
    CHECK_EQUAL(t.row_packets, 2 * PACKETS + 2 * (PACKETS / 5));
}

static void test_long_chains(void)
{
    static const uint32_t workgroups[] = {1, 2, 5};
    EACH_EXECUTOR(e)
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
    EACH_EXECUTOR(e)
    for (uint32_t lanes = 1; lanes <= 300; lanes += 299) {
        plane_config c = {.executor = e, .lanes = lanes, .depth = 2};
        plane_totals t = run(short_chain(&c, FORWARD, 1200, 2));
        check_all_sent(&t, 1200);
        CHECK(t.rows <= 1200 && (lanes > 1 || t.rows == 1200));
    }
}

/* Packets that grow at both ends: equal to what a CPU makes of them, sequence numbers in order. */
static void test_growth(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e};
        plane *p = short_chain(&c, IPSEC, 600, 3);
        p->sink[0].expect = plane_encrypted;
        plane_start(p);
        plane_wait(p);
        CHECK_EQUAL(p->sink[0].last_sequence, 600);
        plane_totals t = plane_end(p);
        check_all_sent(&t, 600);
    }
}

/* A source that waits for nobody, and a device that does nothing for a while. */
static void test_overload(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .queue = 64, .gpu.resident = 1};
        plane *p = short_chain(&c, FORWARD, 0, 2);
        p->source[0].port.paced = true;
        plane_start(p);
        CHECK(plane_wait_for(&p->sink[0].packets, 100));
        fake_hold(p->gpu, true);
        usleep(10000);
        fake_hold(p->gpu, false);
        CHECK(plane_wait_for(&p->sink[0].packets, atomic_load(&p->sink[0].packets) + 500));
        plane_totals t = plane_end(p);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK(t.reason[HB_REASON_node_full] > 0);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_node_full]);
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
    plane *p = short_chain(&c, FORWARD, 0, 5);
    p->source[0].burst = 20;
    plane_start(p);
    CHECK(wait_for_launches(p, 1500));
    plane_totals t = plane_end(p);
    check_all_sent(&t, t.received);
    CHECK(t.received > 1500);
}

/* A packet now and then: the kernel has gone each time, the next row brings it back. */
static void test_idle(void)
{
    plane_config c = {.idle_us = 50};
    plane *p = short_chain(&c, FORWARD, 300, 2);
    p->source[0].burst = 1;
    p->source[0].gap_us = 1500;
    plane_totals t = run(p);
    check_all_sent(&t, 300);
    CHECK(t.launches > 100);
}

/* Without a drain: threads end at once, what was in flight is still counted. */
static void test_stop_under_traffic(void)
{
    EACH_EXECUTOR(e)
    for (uint32_t i = 0; i < 5; i++) {
        plane_config c = {.executor = e, .lcores = 3};
        plane *p = long_chain(&c, 0, 2);
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
    EACH_EXECUTOR(e)
    for (uint32_t i = 0; i < 3; i++) {
        plane_config c = {.executor = e, .gpu.callback_us = 20000};
        plane_totals t = run(short_chain(&c, FORWARD, 10, 1));
        check_all_sent(&t, 10);
    }
}

/* A drain that runs out of time, because the device takes its own: all the same nothing is left
 * when it has stopped. */
static void test_drain_runs_out(uint32_t lcores)
{
    EACH_EXECUTOR(e)
    for (uint32_t i = 0; i < 5; i++) {
        plane_config c = {.executor = e, .lcores = lcores};
        plane *p = long_chain(&c, 0, 2);
        plane_start(p);
        CHECK(plane_wait_for(&p->sink[0].packets, 100));
        fake_hold(p->gpu, true);
        usleep(5000);
        CHECK(hb_drain(p->dp, 20) > 0);
        fake_hold(p->gpu, false);
        hb_stop(p->dp);
        plane_totals t = plane_free(p);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK(t.reason[HB_REASON_shutdown] > 0);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_shutdown] + t.reason[HB_REASON_device_lost]);
    }
}

/* ---- a device that fails --------------------------------------------------------------------- */

/* What a launch that failed had not finished is lost, nothing else; then all goes on. */
static void test_failure(const plane_config *c, uint32_t strikes)
{
    enum { PACKETS = 3000, WORKGROUPS = 2 };
    plane *p = short_chain(c, NIDS, PACKETS, WORKGROUPS);
    plane_start(p);
    plane_wait(p);
    CHECK_EQUAL(hb_device_state(p->dp), 1);
    plane_totals t = plane_end(p);
    CHECK_EQUAL(t.received, PACKETS);
    CHECK_EQUAL(t.gpu.strikes, strikes);
    CHECK_EQUAL(t.failures, strikes);
    CHECK(t.reason[HB_REASON_device_lost] > 0);
    CHECK(t.reason[HB_REASON_device_lost] <= strikes * WORKGROUPS * 4 * 4);
    CHECK_EQUAL(t.dropped, t.reason[HB_REASON_device_lost]);
    CHECK_EQUAL(t.quarantined, 0);
    CHECK_EQUAL(t.in_flight, 0);
}

static void test_failures(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lifetime_us = 1000};
        c.gpu = (fake_config){.fault = FAKE_FAIL, .first = 20, .every = 100, .times = 3};
        test_failure(&c, 3);
        c.gpu = (fake_config){.fault = FAKE_REFUSE, .first = 3, .every = 2, .times = 2};
        test_failure(&c, 2);
    }
}

/* Failures under several syncers: each cleans up its own rows. */
static void test_failures_of_many(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = 3};
        c.gpu = (fake_config){.fault = FAKE_FAIL, .first = 50, .every = 150, .times = 4};
        plane_totals t = run(long_chain(&c, 1500, 2));
        CHECK_EQUAL(t.received, 3000);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_device_lost]);
        CHECK_EQUAL(t.failures, t.gpu.strikes);
        CHECK(t.failures > 0);
        CHECK_EQUAL(t.in_flight, 0);
    }
}

/* Answers that cannot be, and answers that never came: each such packet is dropped, no other. */
static void test_wrong_answers(enum fake_fault fault)
{
    EACH_EXECUTOR(e)
    for (uint32_t kind = NIDS; kind <= IPSEC; kind++) {
        plane_config c = {.executor = e};
        c.gpu = (fake_config){.fault = fault, .first = 9, .every = 10};
        plane *p = short_chain(&c, kind, 800, 2);
        if (kind == IPSEC)
            p->sink[0].expect = plane_encrypted;
        plane_totals t = run(p);
        CHECK(t.gpu.garbled > 20);
        CHECK_EQUAL(t.reason[HB_REASON_bad_result], t.gpu.garbled);
        CHECK_EQUAL(t.dropped, t.gpu.garbled);
        CHECK_EQUAL(t.sent, 800 - t.dropped);
    }
}

/* An index from nowhere: the launch is given up, and all goes on. */
static void test_impossible_index(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e};
        c.gpu = (fake_config){.fault = FAKE_INDEX, .first = 30, .every = 40, .times = 6};
        plane_totals t = run(short_chain(&c, NIDS, 2000, 2));
        CHECK_EQUAL(t.gpu.strikes, e == PLANE_STAGED ? 0 : 6);
        CHECK(e != PLANE_PERSISTENT || t.failures == 6);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_device_lost]);
        CHECK_EQUAL(t.received, 2000);
        CHECK_EQUAL(t.in_flight, 0);
    }
}

/* A launch that does not end: its mbufs are never used again, and what comes is dropped. */
static void test_hang(enum fake_fault fault)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = 3, .lifetime_us = 5000, .hang_ms = 50};
        c.gpu = (fake_config){.fault = fault, .first = fault == FAKE_HANG ? 40 : 2, .times = 1};
        plane *p = long_chain(&c, 1500, 2);
        plane_start(p);
        plane_wait(p);
        CHECK_EQUAL(hb_device_state(p->dp), 2);
        plane_totals t = plane_end(p);
        CHECK_EQUAL(t.received, 3000);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_device_lost]);
        CHECK(t.sent > 0);
        CHECK(t.quarantined > 0 && t.quarantined <= 6 * 4 * 4);
    }
}

/* As a drain runs out: a launch that hangs, though it is not yet known. */
static void test_hang_at_the_end(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = 3, .lifetime_us = 5000, .hang_ms = 300};
        c.gpu = (fake_config){.fault = FAKE_HANG, .first = 40, .times = 1};
        plane *p = long_chain(&c, 0, 2);
        plane_start(p);
        while (!fake_count(p->gpu).strikes)
            usleep(1000);
        CHECK(hb_drain(p->dp, 20) > 0);
        CHECK_EQUAL(hb_device_state(p->dp), 0);
        hb_stop(p->dp);
        CHECK_EQUAL(hb_device_state(p->dp), 2);
        plane_totals t = plane_free(p);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK(t.quarantined > 0);
    }
}

int main(int argc, char **argv)
{
    uint64_t t0 = hb_monotonic_ns();
#define T(x) do { if (argc < 2 || strstr(#x, argv[1])) { x; uint64_t n = hb_monotonic_ns(); printf("%-40s %.2f s %d\n", #x, (double)(n - t0) / 1e9, failures); t0 = n; fflush(stdout); } } while (0)
    T(test_long_chains());
    T(test_row_sizes());
    T(test_growth());
    T(test_overload());
    T(test_relaunch(1));
    T(test_relaunch(2));
    T(test_idle());
    T(test_stop_under_traffic());
    T(test_late_callback());
    T(test_drain_runs_out(1));
    T(test_drain_runs_out(3));
    T(test_failures());
    T(test_failures_of_many());
    T(test_wrong_answers(FAKE_GARBAGE));
    T(test_wrong_answers(FAKE_SKIP));
    T(test_impossible_index());
    T(test_hang(FAKE_HANG));
    T(test_hang(FAKE_NO_START));
    T(test_hang_at_the_end());
    return failures != 0;
}
