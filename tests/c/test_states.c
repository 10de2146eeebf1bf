/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* NFs with state of flows, on CPUs and a fake GPU: no two packets of a flow are in one NF at once,
 * they stay in order also when their way changes, and every flow begins and ends once. */
#include "check.h"
#include "plane.c"

#ifdef __SANITIZE_THREAD__ /* under which threads are slow, and a few turns show what there is */
enum { MANY = 15, PACKETS = 300 };
#else
enum { MANY = 200, PACKETS = 1500 };
#endif

/*
 *   source 0 ---.-> GNF tally --.
 *               |               |--> GNF tally --> CNF tally --> sink
 *   source 1 ---'-> CNF tally --'
 *
 * A version of the policy knows one of the two ways.
 */
typedef struct {
    plane *p;
    int in[2], way[2], third, fourth, out;
} ways;

static ways new_ways(const plane_config *c, uint64_t packets, uint32_t workgroups)
{
    ways w = {.p = plane_new(c)};
    uint32_t last = w.p->config.lcores - 1, some = last ? 6 : 1;
    for (uint32_t i = 0; i < 2; i++)
        w.in[i] = plane_add_source(w.p, last / 2 * i, packets, false);
    w.way[0] = plane_add_nf(w.p, NF_tally, some, workgroups);
    w.way[1] = plane_add_nf(w.p, NF_tally, some, 0);
    w.third = plane_add_nf(w.p, NF_tally, 1, workgroups);
    w.fourth = plane_add_nf(w.p, NF_tally, 1u << last, 0);
    w.out = plane_add_sink(w.p, last, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        plane_route_all(w.p, w.in[i], w.way[0]);
        plane_route_all(w.p, w.way[i], w.third);
    }
    plane_route_all(w.p, w.third, w.fourth);
    plane_route_all(w.p, w.fourth, w.out);
    return w;
}

static uint64_t hits(const ways *w, int node, uint32_t counter)
{
    return hb_rule_hits(w->p->dp, (uint32_t)node, counter);
}

/* Drains, stops and looks: nothing was refused, and what flows counted is what came. */
static void end(ways *w)
{
    hb_drain(w->p->dp, PATIENCE_MS);
    hb_stop(w->p->dp);
    uint64_t flows = 2 * PLANE_FLOWS, sent = atomic_load(&w->p->sink[0].packets);
    uint64_t first = hits(w, w->way[0], TALLY_COUNTED) + hits(w, w->way[1], TALLY_COUNTED);
    CHECK_EQUAL(first, sent);
    for (int node = w->third; node <= w->fourth; node++) {
        CHECK_EQUAL(hits(w, node, TALLY_BEGUN), flows);
        CHECK_EQUAL(hits(w, node, TALLY_COUNTED), sent);
    }
    for (int node = w->way[0]; node <= w->fourth; node++)
        CHECK_EQUAL(hits(w, node, TALLY_ENDED), hits(w, node, TALLY_BEGUN));
    CHECK_EQUAL(w->p->sink[0].disordered, 0);
    plane_totals t = plane_free(w->p);
    CHECK_EQUAL(t.dropped, 0);
    CHECK_EQUAL(t.sent, t.received);
}

#define EACH_EXECUTOR(e) for (uint32_t e = PLANE_PERSISTENT; e <= PLANE_LAUNCH; e++)

static void test_one_way(void)
{
    EACH_EXECUTOR(e)
    for (uint32_t lcores = 1; lcores <= 3; lcores += 2)
        for (uint32_t lanes = 1; lanes <= 40; lanes += 39) { /* more lanes than flows, too */
            plane_config c = {.executor = e, .lcores = lcores, .lanes = lanes};
            ways w = new_ways(&c, PACKETS, 3);
            plane_start(w.p);
            plane_wait(w.p);
            end(&w);
        }
}

/* The way changes all the time. */
static void test_reloads(enum plane_executor e, uint32_t lcores)
{
    plane_config c = {.executor = e, .lcores = lcores};
    ways w = new_ways(&c, 0, 2);
    plane_start(w.p);
    /* once one was not drained in time, order says nothing any more */
    for (uint32_t i = 0; i < MANY && !hb_undrained_reloads(w.p->dp); i++) {
        for (uint32_t k = 0; k < 2; k++)
            plane_route_all(w.p, w.in[k], w.way[i % 2]);
        int version;
        while ((version = hb_publish_policy(w.p->dp, w.p->next)) < 0)
            usleep(100);
    }
    CHECK(plane_wait_for(&w.p->sink[0].packets, PACKETS));
    if (!hb_undrained_reloads(w.p->dp)) {
        end(&w);
        return;
    }
    printf("this machine is too busy to drain in time: order is not looked at\n");
    w.p->sink[0].any_order = true;
    plane_end(w.p);
}

/* The device fails: rows are lost, flows and their order are not. */
static void test_failures(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lifetime_us = 1000};
        c.gpu = (fake_config){.fault = FAKE_FAIL, .first = 50, .every = 150, .times = 4};
        ways w = new_ways(&c, 3000, 2);
        plane_start(w.p);
        plane_wait(w.p);
        hb_stop(w.p->dp);
        CHECK_EQUAL(w.p->sink[0].disordered, 0);
        for (int node = w.way[0]; node <= w.fourth; node++)
            CHECK_EQUAL(hits(&w, node, TALLY_ENDED), hits(&w, node, TALLY_BEGUN));
        plane_totals t = plane_free(w.p);
        CHECK_EQUAL(t.dropped, t.reason[HB_REASON_device_lost]);
        CHECK(t.failures > 0);
    }
}

/* A drain that runs out of time ends also what waits for its flow's turn. */
static void test_drain_in_vain(void)
{
    EACH_EXECUTOR(e)
    {
        plane_config c = {.executor = e, .lanes = 4, .depth = 4};
        ways w = new_ways(&c, 0, 1);
        plane_start(w.p);
        CHECK(plane_wait_for(&w.p->sink[0].packets, 100));
        fake_hold(w.p->gpu, true);
        CHECK(plane_wait_for_full_rows(w.p));
        int64_t left = hb_drain(w.p->dp, 50);
        CHECK(left > 0);
        fake_hold(w.p->gpu, false);
        plane_totals t = plane_end(w.p);
        CHECK_EQUAL(t.in_flight, 0);
        CHECK(t.reason[HB_REASON_shutdown] > 0);
    }
}

int main(void)
{
    test_one_way();
    EACH_EXECUTOR(e)
    for (uint32_t lcores = 1; lcores <= 3; lcores += 2)
        test_reloads(e, lcores);
    test_failures();
    test_drain_in_vain();
    return failures != 0;
}
