/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* A device that fails, hangs or lies, under both executors: what it had is counted once, nothing
 * of it is used again before its time, and all the rest goes on. */
#include "check.h"
#include "plane.c"

/* ---- a device that fails --------------------------------------------------------------------- */

static bool wait_for_strikes(plane *p, uint64_t least)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (fake_count(p->gpu).strikes < least && hb_monotonic_ns() < until)
        usleep(500);
    return fake_count(p->gpu).strikes >= least;
}

/* What a launch that failed had not finished is lost, nothing else; then all goes on. A lost packet
 * never runs later: it would write to a frame that is another packet's by then. */
static void test_failure(const plane_config *c, uint32_t strikes)
{
    enum { WORKGROUPS = 2 };
    plane *p = plane_short_chain(c, NF_stamp, 0, WORKGROUPS);
    p->sink[0].expect = plane_stamped;
    plane_start(p);
    CHECK(wait_for_strikes(p, strikes));
    CHECK(plane_wait_for(&p->sink[0].packets, atomic_load(&p->sink[0].packets) + 300));
    CHECK_EQUAL(hb_device_state(p->dp), 1);
    plane_totals t = plane_end(p);
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
    PLANE_EACH_EXECUTOR(e)
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
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = 3};
        c.gpu = (fake_config){.fault = FAKE_FAIL, .first = 50, .every = 150, .times = 4};
        plane_totals t = plane_run(plane_long_chain(&c, 1500, 2));
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
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t kind = NF_sift; kind <= NF_stamp; kind++) {
        plane_config c = {.executor = e};
        c.gpu = (fake_config){.fault = fault, .first = 9, .every = 10};
        plane *p = plane_short_chain(&c, kind, 800, 2);
        if (kind == NF_stamp)
            p->sink[0].expect = plane_stamped;
        plane_totals t = plane_run(p);
        CHECK(t.gpu.garbled > 20);
        CHECK_EQUAL(t.reason[HB_REASON_bad_result], t.gpu.garbled);
        CHECK_EQUAL(t.dropped, t.gpu.garbled);
        CHECK_EQUAL(t.sent, 800 - t.dropped);
    }
}

/* An index from nowhere: the launch is given up, and all goes on. */
static void test_impossible_index(void)
{
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e};
        c.gpu = (fake_config){.fault = FAKE_INDEX, .first = 30, .every = 40, .times = 6};
        plane_totals t = plane_run(plane_short_chain(&c, NF_sift, 2000, 2));
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
    uint64_t sent = 0;
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = 3, .lifetime_us = 5000, .hang_ms = 50};
        c.gpu = (fake_config){.fault = fault, .first = fault == FAKE_HANG ? 40 : 2, .times = 1};
        /* more than one launch can do in its lifetime */
        plane *p = plane_long_chain(&c, 30000, 2);
        plane_start(p);
        plane_wait(p);
        CHECK_EQUAL(hb_device_state(p->dp), 2);
        plane_totals t = plane_end(p);
        CHECK_EQUAL(t.received, 60000);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_device_lost]);
        sent += t.sent;
        CHECK(t.quarantined > 0 && t.quarantined <= 6 * 4 * 4);
    }
    /* not by each: a device that gets no CPU for 50 ms hangs, too, perhaps at its first row */
    CHECK(sent > 0);
}

/* As a drain runs out: a launch that hangs, though it is not yet known. */
static void test_hang_at_the_end(void)
{
    enum { HANG_MS = 1000 };
    PLANE_EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lcores = 3, .lifetime_us = 5000, .hang_ms = HANG_MS};
        c.gpu = (fake_config){.fault = FAKE_HANG, .first = 40, .times = 1};
        plane *p = plane_long_chain(&c, 0, 2);
        uint64_t begin = hb_monotonic_ns();
        plane_start(p);
        CHECK(wait_for_strikes(p, 1));
        int64_t left = hb_drain(p->dp, 20);
        int state = hb_device_state(p->dp);
        if (hb_monotonic_ns() - begin < HANG_MS * 1000000ull) /* else it may well be known */
            CHECK(left > 0 && state == 0);
        hb_stop(p->dp);
        CHECK_EQUAL(hb_device_state(p->dp), 2);
        plane_totals t = plane_free(p);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK(t.quarantined > 0);
    }
}

/* ---- the probe ------------------------------------------------------------------------------- */

static int probe(enum plane_executor e, enum fake_fault fault, hb_probe_result *result)
{
    plane_config c = {.executor = e};
    c.gpu = (fake_config){.fault = fault, .first = 10, .times = 1};
    plane *p = plane_new(&c);
    plane_add_nf(p, NF_probe, 1, 1);
    set_up_device(p);
    hb_probe_config config = {.device = p->device,
                              .frames = p->memory.frames,
                              .frame_size = 2048,
                              .frames_used = 32,
                              .table = table_of(p, 0),
                              .rounds = 50,
                              .stall_ms = PATIENCE_MS};
    int rc = hb_probe(&config, result);
    plane_free(p);
    return rc;
}

static void test_probe(void)
{
    hb_probe_result r;
    PLANE_EACH_EXECUTOR(e)
    {
        CHECK_EQUAL(probe(e, FAKE_SOUND, &r), 0);
        CHECK_EQUAL(r.packets, 32 * 50);
        CHECK_EQUAL(r.stale_on_device, 0);
        CHECK_EQUAL(r.stale_on_host, 0);
        CHECK(r.launches > 0 && r.resident == (e == PLANE_PERSISTENT ? 2 : 0));
        CHECK_EQUAL(probe(e, FAKE_SKIP, &r), 0);
        CHECK_EQUAL(r.stale_on_host > 0, 1);
        CHECK_EQUAL(probe(e, FAKE_GARBAGE, &r), 0);
        CHECK_EQUAL(r.stale_on_host > 0, 1);
        CHECK_EQUAL(probe(e, FAKE_FAIL, &r), -1);
    }
}

int main(void)
{
    test_failures();
    test_failures_of_many();
    test_wrong_answers(FAKE_GARBAGE);
    test_wrong_answers(FAKE_SKIP);
    test_impossible_index();
    test_hang(FAKE_HANG);
    test_hang(FAKE_NO_START);
    test_hang_at_the_end();
    test_probe();
    return failures != 0;
}
