/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* Captures and traces come and go under traffic: what they show is what there was, whole and in
 * order; what they could not show is counted; and no packet is lost for their sake. */
#include "check.h"
#include "plane.c"
#include "taps.h"

#ifdef __SANITIZE_THREAD__ /* under which threads are slow, and a few turns show what there is */
enum { TURNS = 30, PACKETS = 2000 };
#else
enum { TURNS = 200, PACKETS = 20000 };
#endif

enum { RING = 64 << 10, BUFFER = 1 << 16, SOURCE_0 = 0, SIFT = 2, OUT = 5, NODES = 7 };

/* ---- captures -------------------------------------------------------------------------------- */

typedef struct {
    void *region;
    size_t bytes;
    int number;
    uint64_t records, last_ns;
    uint64_t next[PLANE_SOURCES]; /* least number that may come, if there is an order */
    uint32_t snap;
} look;

static look begin(plane *p, uint16_t from, uint16_t to, uint32_t ring, uint32_t snap)
{
    look l = {.bytes = hb_capture_bytes(p->dp, ring), .snap = snap};
    l.region = memset(aligned_alloc(128, (l.bytes + 127) / 128 * 128), 0, l.bytes);
    l.number = hb_add_capture(p->dp, &(hb_capture){from, to, snap, ring, l.region});
    return l;
}

/* Is this packet one that a source made? */
static void check_record(look *l, const uint32_t *head, const uint8_t *packet, bool in_order)
{
    uint8_t wanted[2048];
    uint32_t source = packet[IP + 13];
    uint64_t number = 0, ns = head[0] * 1000000000ull + head[1];
    for (uint32_t i = 0; i < NUMBER_BYTES; i++)
        number |= (uint64_t)(packet[PAYLOAD + i] - 'a' & 15) << (4 * i);
    CHECK(source < PLANE_SOURCES);
    CHECK_EQUAL(head[3], plane_packet(wanted, source % PLANE_SOURCES, number));
    CHECK_EQUAL(head[2], l->snap && l->snap < head[3] ? l->snap : head[3]);
    CHECK(!memcmp(packet, wanted, head[2]));
    if (in_order) {
        CHECK(number >= l->next[source] && ns >= l->last_ns);
        l->next[source] = number + 1;
        l->last_ns = ns;
    }
}

static uint64_t take(look *l, uint64_t room, uint64_t most, bool in_order)
{
    uint8_t buffer[BUFFER];
    uint64_t records, bytes, at = 0;
    bytes = hb_capture_take(l->region, l->bytes, buffer, room, most, &records);
    CHECK(bytes <= room && records <= most);
    l->records += records;
    for (; at < bytes; records--) {
        uint32_t head[4];
        memcpy(head, buffer + at, sizeof head);
        check_record(l, head, buffer + at + sizeof head, in_order);
        at += sizeof head + head[2];
    }
    CHECK_EQUAL(at, bytes);
    CHECK_EQUAL(records, 0);
    return bytes;
}

static void end(plane *p, look *l, bool in_order)
{
    hb_remove_tap(p->dp, l->number);
    while (take(l, BUFFER, UINT64_MAX, in_order))
        ;
    CHECK_EQUAL(l->records, hb_capture_records(l->region));
    free(l->region);
}

static uint64_t edge(const plane *p, int from, int to)
{
    uint64_t n = 0;
    for (uint32_t l = 0; l < p->config.lcores; l++)
        n += p->dp->lcore[l].edges[(uint32_t)from * p->dp->max_nodes + (uint32_t)to];
    return n;
}

/* Nobody reads: what fits is there, the rest is counted. */
static void test_a_reader_that_sleeps(void)
{
    plane *p = plane_short_chain(&(plane_config){0}, NF_forward, PACKETS, 2);
    look l = begin(p, 0, 1, RING, 0), small = begin(p, 1, HB_TAP_ANY, RING, 60);
    plane_start(p);
    plane_wait(p);
    uint64_t missed = hb_capture_missed(l.region);
    CHECK(missed > 0 && missed < PACKETS);
    CHECK_EQUAL(hb_capture_records(l.region) + missed, PACKETS);
    CHECK_EQUAL(edge(p, 0, 1), PACKETS);
    CHECK(hb_capture_missed(small.region) < missed);
    CHECK_EQUAL(take(&l, 3, UINT64_MAX, true), 0); /* no room for any */
    CHECK(take(&l, BUFFER, 1, true) > 0);
    CHECK_EQUAL(l.records, 1);
    end(p, &l, true);
    end(p, &small, true);
    plane_end(p);
}

/* A reader that keeps up: every packet, before and behind a device, from outside and to it. */
static void test_a_reader_that_is_awake(void)
{
    static const uint16_t edges[][2] = {{HB_TAP_OUTSIDE, 0}, {0, 1}, {1, 2}, {2, HB_TAP_OUTSIDE}};
    plane *p = plane_short_chain(&(plane_config){0}, NF_forward, PACKETS, 2);
    look l[4];
    for (uint32_t i = 0; i < 4; i++)
        l[i] = begin(p, edges[i][0], edges[i][1], 1 << 20, 0);
    plane_start(p);
    while (!hb_finished(p->dp))
        for (uint32_t i = 0; i < 4; i++)
            take(&l[i], BUFFER, UINT64_MAX, true);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t missed = hb_capture_missed(l[i].region);
        end(p, &l[i], true);
        CHECK_EQUAL(l[i].records + missed, PACKETS);
    }
    plane_end(p);
}

/* What the reader writes harms nobody but the reader. */
static void test_a_reader_that_lies(void)
{
    plane *p = plane_short_chain(&(plane_config){0}, NF_forward, 0, 2);
    look l = begin(p, 0, HB_TAP_ANY, RING, 0);
    hb_capture_head *h = l.region;
    hb_tap_ring *ring = (hb_tap_ring *)((uint8_t *)l.region + h->rings_off);
    plane_start(p);
    for (uint64_t i = 0; i < 20; i++) {
        uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
        __atomic_store_n(&ring->tail, i % 2 ? UINT64_MAX / (i + 1) : head + i, __ATOMIC_RELEASE);
        CHECK(plane_wait_for_packets(p, 100));
    }
    uint64_t records;
    uint8_t buffer[64];
    h->stride = 1ull << 40;
    CHECK_EQUAL(hb_capture_take(l.region, l.bytes, buffer, sizeof buffer, 1, &records), UINT64_MAX);
    hb_remove_tap(p->dp, l.number);
    free(l.region);
    plane_end(p);
}

/* ---- traces ---------------------------------------------------------------------------------- */

enum { MOST_EVENTS = 4096, MOST_FOLLOWED = 64 };

typedef struct {
    uint32_t events, begun, ended, dropped, published, verdicts;
    uint32_t of[MOST_FOLLOWED + 1]; /* events of each packet */
    uint32_t node[MOST_FOLLOWED + 1];
    uint64_t tick[MOST_FOLLOWED + 1];
} story;

static void tell(story *s, const plane *p, const hb_trace_event *e)
{
    uint32_t n = e->packet;
    CHECK(n >= 1 && n <= MOST_FOLLOWED);
    CHECK(e->tick >= s->tick[n] && e->tick >= e->rx_tick && e->lcore < p->config.lcores);
    s->tick[n] = e->tick;
    CHECK_EQUAL(e->kind == HB_TRACE_RECEIVED, s->of[n] == 0);
    if (s->of[n]++)
        CHECK_EQUAL(e->node, s->node[n]);
    s->node[n] = e->kind == HB_TRACE_GOES ? e->to : e->node;
    s->begun += e->kind == HB_TRACE_RECEIVED;
    s->published += e->kind == HB_TRACE_PUBLISHED;
    s->verdicts += e->kind == HB_TRACE_VERDICT;
    s->dropped += e->kind == HB_TRACE_DROPPED;
    s->ended += e->kind == HB_TRACE_SENT || e->kind == HB_TRACE_DROPPED;
    s->events++;
    if (e->kind == HB_TRACE_VERDICT)
        CHECK_EQUAL(e->nf.changed, 0); /* none of these NFs writes */
}

static int by_time(const void *a, const void *b)
{
    const hb_trace_event *one = a, *other = b;
    return (one->tick > other->tick) - (one->tick < other->tick);
}

static story hear(plane *p, int tap)
{
    static hb_trace_event events[MOST_EVENTS];
    story s = {0};
    uint32_t n = hb_trace_take(p->dp, tap, events, MOST_EVENTS);
    qsort(events, n, sizeof *events, by_time);
    for (uint32_t i = 0; i < n; i++)
        tell(&s, p, &events[i]);
    return s;
}

static int follow(plane *p, uint32_t type, uint32_t count)
{
    return hb_add_trace(p->dp, &(hb_trace){.type = type, .count = count});
}

/* The whole way of some packets, on one lcore and on three. */
static void test_the_way(uint32_t lcores)
{
    plane *p = plane_long_chain(&(plane_config){.lcores = lcores}, PACKETS, 2);
    int tap = follow(p, HB_MAX_TYPES, MOST_FOLLOWED);
    plane_start(p);
    plane_wait(p);
    story s = hear(p, tap);
    hb_trace_state state;
    hb_trace_look(p->dp, tap, &state);
    CHECK_EQUAL(state.missed, 0);
    CHECK_EQUAL(state.sampled, MOST_FOLLOWED);
    CHECK_EQUAL(state.ended, MOST_FOLLOWED);
    CHECK_EQUAL(s.begun, MOST_FOLLOWED);
    CHECK_EQUAL(s.ended, MOST_FOLLOWED);
    CHECK_EQUAL(s.dropped, 0);
    CHECK_EQUAL(s.verdicts, 2 * MOST_FOLLOWED); /* sift, and one of the two behind it */
    CHECK(s.published > MOST_FOLLOWED && s.published < 2 * MOST_FOLLOWED);
    CHECK_EQUAL(s.events, MOST_FOLLOWED * 7 + s.published);
    plane_end(p);
}

/* No packet is of this type when it comes in; at the end nothing has happened. */
static void test_a_type_that_never_comes(void)
{
    plane *p = plane_short_chain(&(plane_config){0}, NF_forward, PACKETS, 2);
    int tap = follow(p, SUSPICIOUS, 1);
    plane_start(p);
    plane_wait(p);
    CHECK_EQUAL(hear(p, tap).events, 0);
    plane_end(p);
}

/* What is lost with the device, or dropped by a drain, has an end too. */
static void test_lost_packets(void)
{
    plane *p = plane_short_chain(&(plane_config){0}, NF_forward, 0, 2);
    plane_start(p);
    CHECK(plane_wait_for(&p->sink[0].packets, 100));
    fake_hold(p->gpu, true);
    CHECK(plane_wait_for_full_rows(p));
    int tap = follow(p, HB_MAX_TYPES, 20);
    hb_drain(p->dp, 20);
    fake_hold(p->gpu, false);
    hb_drain(p->dp, PATIENCE_MS);
    hb_trace_state state;
    hb_trace_look(p->dp, tap, &state);
    CHECK_EQUAL(state.ended, state.sampled);
    plane_end(p);
}

static void test_too_many(void)
{
    plane *p = plane_short_chain(&(plane_config){0}, NF_forward, PACKETS, 2);
    for (int i = 0; i < HB_MOST_TAPS; i++)
        CHECK_EQUAL(follow(p, HB_MAX_TYPES, 10), i);
    CHECK_EQUAL(follow(p, HB_MAX_TYPES, 10), -1);
    hb_remove_tap(p->dp, 3);
    hb_remove_tap(p->dp, 3);
    hb_remove_tap(p->dp, -1);
    CHECK_EQUAL(follow(p, HB_MAX_TYPES, 10), 3);
    plane_start(p);
    plane_wait(p);
    uint32_t begun = 0; /* a packet is followed by one at a time */
    for (int i = 0; i < HB_MOST_TAPS; i++)
        begun += hear(p, i).begun;
    CHECK_EQUAL(begun, 10 * HB_MOST_TAPS);
    plane_end(p); /* which removes what is left */
}

/* ---- both ------------------------------------------------------------------------------------ */

/* They come and go in any order while packets flow. */
static void test_coming_and_going(enum plane_executor e, uint32_t lcores)
{
    plane *p = plane_long_chain(&(plane_config){.executor = e, .lcores = lcores}, 0, 2);
    plane_start(p);
    for (uint32_t i = 0; i < TURNS; i++) {
        uint64_t random = mix(i);
        look l = begin(p, random % NODES, HB_TAP_ANY, RING, random >> 8 & 127);
        int one = follow(p, HB_MAX_TYPES, 1 + (random >> 16) % MOST_FOLLOWED);
        if (random & 1 << 20)
            CHECK(plane_wait_for_packets(p, random >> 24 & 255));
        int other = follow(p, SUSPICIOUS, 1000);
        if (l.snap >= PAYLOAD + NUMBER_BYTES || !l.snap)
            take(&l, BUFFER, UINT64_MAX, false);
        hear(p, other);
        hb_remove_tap(p->dp, one);
        hb_remove_tap(p->dp, l.number);
        hb_remove_tap(p->dp, other);
        free(l.region);
    }
    CHECK(plane_wait_for(&p->sink[0].packets, 100));
    plane_totals t = plane_end(p);
    CHECK_EQUAL(t.dropped, 0);
    CHECK_EQUAL(t.sent, t.received);
}

int main(void)
{
    test_a_reader_that_sleeps();
    test_a_reader_that_is_awake();
    test_a_reader_that_lies();
    test_the_way(1);
    test_the_way(3);
    test_a_type_that_never_comes();
    test_lost_packets();
    test_too_many();
    PLANE_EACH_EXECUTOR(e)
    for (uint32_t lcores = 1; lcores <= 3; lcores += 2)
        test_coming_and_going(e, lcores);
    return failures != 0;
}
