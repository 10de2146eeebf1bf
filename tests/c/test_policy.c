/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* Route policies are replaced under traffic: no packet is lost, none is routed by two versions, and
 * a version goes when its last packet has gone. */
#include "check.h"
#include "plane.c"

/*
 *              .--> left ---.
 *   source ----|            |--> sink       each version knows one of the two
 *              '--> right --'
 *
 * A packet that came by the left way and asked a version that knows only the right one would be
 * dropped: no_route_row.
 */
typedef struct {
    plane *p;
    int in, left, right, out;
} fork_plane;

static fork_plane new_fork(const plane_config *c, uint32_t workgroups)
{
    fork_plane f = {.p = plane_new(c)};
    uint32_t last = f.p->config.lcores - 1;
    f.in = plane_add_source(f.p, 0, 0, false);
    f.left = plane_add_nf(f.p, NF_forward, last ? 6 : 1, workgroups);
    f.right = plane_add_nf(f.p, NF_forward, 1u << last, 0);
    f.out = plane_add_sink(f.p, last, NULL);
    plane_route(f.p, 0, f.in, f.left);
    plane_route(f.p, 0, f.left, f.out);
    f.p->sink[0].any_order = true; /* order is kept on one version's path */
    return f;
}

static int swap(fork_plane *f, bool left)
{
    plane_route(f->p, 0, f->in, left ? f->left : f->right);
    plane_route(f->p, 0, f->left, left ? f->out : HB_NEXT_NONE);
    plane_route(f->p, 0, f->right, left ? HB_NEXT_NONE : f->out);
    return hb_publish_policy(f->p->dp, f->p->next);
}

/* Tries again while too many versions are alive. */
static int swap_soon(fork_plane *f, bool left)
{
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    int version;
    while ((version = swap(f, left)) < 0 && hb_monotonic_ns() < until)
        usleep(100);
    return version;
}

static uint32_t live(const fork_plane *f)
{
    return (uint32_t)__builtin_popcount(hb_live_policies(f->p->dp));
}

#ifdef __SANITIZE_THREAD__ /* under which threads are slow, and a few turns show what there is */
enum { MANY = 250, SOME = 25 };
#else
enum { MANY = 1000, SOME = 100 };
#endif

static void test_reloads(enum plane_executor e, uint32_t lcores, uint32_t reloads)
{
    plane_config c = {.executor = e, .lcores = lcores, .types = 1};
    fork_plane f = new_fork(&c, 2);
    f.p->source[0].burst = 16; /* short passes, so that a reload takes little time */
    plane_start(f.p);
    for (uint32_t i = 0; i < reloads; i++) {
        CHECK_EQUAL(swap_soon(&f, i % 2), i + 2);
        CHECK(live(&f) >= 1 && live(&f) <= HB_MAX_POLICIES);
        if (i < 2) /* lcores may sleep through all the others */
            CHECK(plane_wait_for_packets(f.p, 100));
    }
    CHECK(plane_wait_for(&f.p->sink[0].packets, 1000));
    CHECK_EQUAL(hb_drain(f.p->dp, PATIENCE_MS), 0);
    CHECK_EQUAL(live(&f), 1);
    plane_totals t = plane_end(f.p);
    CHECK_EQUAL(t.dropped, 0);
    CHECK_EQUAL(t.sent, t.received);
    CHECK(t.row_packets > 0 && t.row_packets < t.received); /* both ways were taken */
}

/* A device that stands still keeps the packets of each version it has seen. */
static void test_versions_in_flight(void)
{
    plane_config c = {.lcores = 1, .types = 1, .lanes = 1};
    fork_plane f = new_fork(&c, 2);
    f.p->source[0].burst = 1;
    f.p->source[0].gap_us = 100;
    plane_start(f.p);
    CHECK(plane_wait_for(&f.p->sink[0].packets, 10));
    fake_hold(f.p->gpu, true);
    for (int version = 2; version <= HB_MAX_POLICIES; version++) {
        CHECK(plane_wait_for_packets(f.p, 3)); /* some of the present version go to the device */
        CHECK_EQUAL(swap(&f, true), version);
        CHECK_EQUAL(live(&f), version);
    }
    CHECK(plane_wait_for_packets(f.p, 3));
    CHECK_EQUAL(swap(&f, false), -1);
    CHECK(strstr(hb_error(f.p->dp), "in flight") != NULL);
    CHECK_EQUAL(live(&f), HB_MAX_POLICIES);
    fake_hold(f.p->gpu, false);
    CHECK_EQUAL(swap_soon(&f, false), HB_MAX_POLICIES + 1);
    CHECK_EQUAL(hb_drain(f.p->dp, PATIENCE_MS), 0);
    CHECK_EQUAL(live(&f), 1);
    plane_totals t = plane_end(f.p);
    CHECK_EQUAL(t.dropped, 0);
}

/* Drops are counted where they belong: told to drop, or not told anything. */
static void test_drops(uint16_t next, enum hb_reason reason)
{
    plane_config c = {.types = 1};
    fork_plane f = new_fork(&c, 1);
    plane_start(f.p);
    plane_route(f.p, 0, f.left, next);
    CHECK_EQUAL(hb_publish_policy(f.p->dp, f.p->next), 2);
    uint64_t sent = atomic_load(&f.p->sink[0].packets);
    CHECK(plane_wait_for_packets(f.p, 3));
    plane_totals t = plane_end(f.p);
    CHECK(t.reason[reason] > 0);
    CHECK_EQUAL(t.dropped, t.reason[reason]);
    CHECK(t.sent >= sent);
}

#ifndef __SANITIZE_THREAD__ /* nothing here is a matter of threads, and it takes seconds */
/* An lcore that does not return may look at an old policy or table for good: nobody waits for it
 * that long, and all goes on if it does return. */
static void test_stuck(void)
{
    plane_config c = {.types = 1};
    fork_plane f = new_fork(&c, 1);
    plane_start(f.p);
    CHECK(plane_wait_for_packets(f.p, 3));
    CHECK_EQUAL(hb_wait_readers(f.p->dp), 0);
    atomic_store(&f.p->source[0].stuck, true);
    CHECK(plane_wait_for(&f.p->source[0].waited, 1));
    CHECK_EQUAL(hb_wait_readers(f.p->dp), -1);
    CHECK_EQUAL(swap(&f, false), HB_POLICY_STUCK);
    atomic_store(&f.p->source[0].stuck, false);
    uint64_t until = hb_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (hb_wait_readers(f.p->dp) && hb_monotonic_ns() < until)
        usleep(100);
    CHECK_EQUAL(hb_wait_readers(f.p->dp), 0);
    CHECK(swap_soon(&f, false) > 0);
    CHECK(plane_wait_for_packets(f.p, 3));
    plane_totals t = plane_end(f.p);
    CHECK_EQUAL(t.dropped, 0);
}
#endif

/* Before the start nothing can be in flight, however often the policy changes. */
static void test_before_start(void)
{
    plane_config c = {.types = 1};
    fork_plane f = new_fork(&c, 0);
    CHECK_EQUAL(hb_start(f.p->dp), -1);
    for (int version = 1; version <= 10; version++) {
        CHECK_EQUAL(swap(&f, true), version);
        CHECK_EQUAL(live(&f), 1);
    }
    plane_free(f.p);
}

int main(void)
{
    test_before_start();
    test_reloads(PLANE_PERSISTENT, 1, SOME);
    test_reloads(PLANE_PERSISTENT, 3, MANY);
    test_reloads(PLANE_LAUNCH, 3, SOME);
    test_reloads(PLANE_STAGED, 1, SOME);
    test_versions_in_flight();
    test_drops(HB_NEXT_DROP, HB_REASON_policy);
    test_drops(HB_NEXT_NONE, HB_REASON_no_route_row);
#ifndef __SANITIZE_THREAD__
    test_stuck();
#endif
    return failures != 0;
}
