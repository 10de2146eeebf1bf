/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* An NF that a peer runs, with a whole data plane around it:
 *
 *   source ... --> peer: a thread that takes and answers --> sink
 */
#include "check.h"
#include "nf/peer_api.h"
#include "plane.c"

/* What plays the peer; it reads and writes every packet that it takes. */
typedef struct {
    hb_peer *peer;
    pthread_t thread;
    uint32_t one_in; /* every so-manieth verdict is `verdict` */
    uint32_t verdict;
    uint32_t gap_us;       /* between packets of the source, which come one by one; 0: in bursts */
    uint32_t pause_us;     /* after each burst taken */
    _Atomic uint32_t hold; /* does not answer before this is 0 */
    _Atomic uint64_t taken;
    uint64_t answered;
    uint32_t impossible;
} player;

static void touch(const hb_peer *peer, const hb_peer_burst *b, uint32_t i)
{
    uint8_t *at = hb_peer_frames(peer) + (uint64_t)b->frame[i] * hb_peer_frame_size(peer);
    for (uint32_t k = 0; k < b->length[i]; k++)
        at[b->offset[i] + k] ^= 0x5a;
    for (uint32_t k = 0; k < b->length[i]; k++)
        at[b->offset[i] + k] ^= 0x5a;
    CHECK_EQUAL(hb_peer_headers(peer)[b->slot[i]].length, b->length[i]);
}

static void *play(void *arg)
{
    player *me = arg;
    hb_peer_burst b;
    uint32_t verdict[HB_PEER_BURST];
    int n;
    while ((n = hb_peer_take(me->peer, &b, 20)) >= 0) {
        CHECK_EQUAL(n, b.n);
        if (!n)
            continue;
        atomic_fetch_add(&me->taken, (uint64_t)n);
        for (uint32_t i = 0; i < b.n; i++) {
            touch(me->peer, &b, i);
            bool other = me->one_in && ++me->answered % me->one_in == 0;
            verdict[i] = other ? me->verdict : HB_PASS;
        }
        if (me->pause_us)
            usleep(me->pause_us);
        while (atomic_load(&me->hold))
            usleep(100);
        me->impossible += (uint32_t)hb_peer_answer(me->peer, verdict, b.n);
    }
    return NULL;
}

/* One source on lcore 0, or one on each of two; the peer is served by all lcores. */
static plane *chain(const plane_config *c, player *me, uint64_t packets, bool paced)
{
    static const uint16_t types[] = {SUSPICIOUS};
    plane *p = plane_new(c);
    int in[2] = {plane_add_source(p, 0, packets, paced), 0};
    if (p->config.lcores > 1)
        in[1] = plane_add_source(p, 1, packets, paced);
    if (me->gap_us) {
        p->source[0].gap_us = me->gap_us;
        p->source[0].burst = 1;
    }
    me->peer = hb_peer_new(types, 1);
    hb_nf nf = {.instance = p->nfs++, .host = me->peer, .code = hb_peer_kind()};
    for (; nf.lcores < p->config.lcores; nf.lcores++)
        nf.lcore[nf.lcores] = nf.lcores;
    int node = hb_add_peer(p->dp, &nf);
    int out = plane_add_sink(p, 0, NULL);
    for (uint32_t i = 0; i < p->sources; i++)
        plane_route_all(p, in[i], node);
    plane_route_all(p, node, out);
    pthread_create(&me->thread, NULL, play, me);
    plane_start(p);
    return p;
}

static plane_totals end(plane *p, player *me)
{
    hb_drain(p->dp, PATIENCE_MS);
    hb_stop(p->dp);
    hb_peer_close(me->peer);
    pthread_join(me->thread, NULL);
    plane_totals t = plane_free(p);
    hb_peer_free(me->peer);
    return t;
}

static void test_all_pass(uint32_t lcores, uint32_t queue)
{
    player me = {0};
    plane_config c = {.lcores = lcores, .queue = queue};
    plane *p = chain(&c, &me, 20000, false);
    plane_wait(p);
    plane_totals t = end(p, &me);
    CHECK_EQUAL(t.sent, 20000 * lcores);
    CHECK_EQUAL(t.dropped, 0);
    CHECK_EQUAL(me.taken, 20000 * lcores);
}

static void test_verdict(uint32_t verdict, enum hb_reason reason, uint32_t impossible)
{
    player me = {.one_in = 3, .verdict = verdict};
    plane_config c = {0};
    plane *p = chain(&c, &me, 3000, false);
    plane_wait(p);
    plane_totals t = end(p, &me);
    CHECK_EQUAL(t.reason[reason], reason ? 1000 : 0);
    CHECK_EQUAL(t.sent, reason ? 2000 : 3000);
    CHECK_EQUAL(me.impossible, impossible);
}

/* A source that waits for nobody, and a peer that does nothing for a while, then takes its time. */
static void test_overload(uint32_t lcores)
{
    player me = {.pause_us = 500, .hold = 1};
    plane_config c = {.lcores = lcores, .queue = 64};
    plane *p = chain(&c, &me, 0, true);
    CHECK(plane_wait_for_packets(p, 50000));
    atomic_store(&me.hold, 0);
    CHECK(plane_wait_for_packets(p, 5000));
    plane_totals t = end(p, &me);
    CHECK_EQUAL(t.in_flight, 0);
    /* of several lcores, all packets may find full the ring to one that gets no CPU */
    CHECK(t.reason[HB_REASON_node_full] > 0 || (lcores > 1 && t.dropped > 0));
    CHECK_EQUAL(t.dropped, t.reason[HB_REASON_node_full] + t.reason[HB_REASON_ring_full]);
}

/* The drain runs out of time: everything ends as shutdown, and the late answer harms nobody. */
static void test_shutdown(uint32_t lcores)
{
    player me = {.hold = 1};
    plane_config c = {.lcores = lcores};
    plane *p = chain(&c, &me, 400, false);
    CHECK(plane_wait_for(&me.taken, 1));
    int64_t left = hb_drain(p->dp, 50);
    CHECK(left > 0);
    CHECK_EQUAL(hb_drain(p->dp, PATIENCE_MS), 0); /* an lcore may get no CPU for 50 ms */
    CHECK_EQUAL(atomic_load(&p->dp->draining),
                2); /* the peer is closed: nobody waits for it again */
    CHECK_EQUAL(hb_in_flight(p->dp), 0);
    atomic_store(&me.hold, 0);
    plane_totals t = end(p, &me);
    CHECK_EQUAL(t.reason[HB_REASON_shutdown], left);
    CHECK_EQUAL(t.sent, 0);
}

/* Packets that come one by one: the peer sleeps between them and is woken for each. */
static void test_wake_up(void)
{
    player me = {.gap_us = 300};
    plane_config c = {0};
    plane *p = chain(&c, &me, 0, true);
    CHECK(plane_wait_for(&me.taken, 200));
    plane_totals t = end(p, &me);
    CHECK_EQUAL(t.dropped, 0);
}

int main(void)
{
    for (uint32_t lcores = 1; lcores <= 2; lcores++) {
        test_all_pass(lcores, 64);
        test_all_pass(lcores, 1024);
        test_overload(lcores);
        test_shutdown(lcores);
    }
    test_verdict(HB_DROP(HB_REASON_nf_action), HB_REASON_nf_action, 0);
    test_verdict(HB_RETYPE(SUSPICIOUS), HB_REASON_none, 0);
    test_verdict(HB_RETYPE(NORMAL), HB_REASON_bad_result, 1000);
    test_verdict(HB_RETYPE(70000), HB_REASON_bad_result, 1000);
    test_verdict(HB_DROP(HB_REASONS), HB_REASON_bad_result, 0);
    test_verdict(HB_PASS | 1 << 8, HB_REASON_bad_result, 1000);
    test_verdict(0, HB_REASON_bad_result, 0);
    test_wake_up();
    return failures != 0;
}
