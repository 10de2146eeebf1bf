/* SPDX-License-Identifier: BSD-3-Clause */
/* Tracked flows: states and timeouts by packet time, when a flow is over, and when its index is
 * used again. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "flow.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { LIMIT = 64, PLACES = 2 * LIMIT };

#define S 1000000000ull

static hb_lcore_stats stats;
static hb_flows flows;
static hb_arena arena; /* one packet, of whatever TCP flags */
static uint64_t now = 1700000000 * S;
static uint32_t epoch;

static const hb_config config = {.flows = LIMIT,
                                 .flow_timeout = {[HB_FLOW_OTHER] = 60,
                                                  [HB_FLOW_TCP_SYN] = 30,
                                                  [HB_FLOW_TCP_ESTABLISHED] = 7200,
                                                  [HB_FLOW_TCP_MIDSTREAM] = 120,
                                                  [HB_FLOW_TCP_CLOSING] = 10,
                                                  [HB_FLOW_UDP] = 30,
                                                  [HB_FLOW_UDP_BOTH] = 180,
                                                  [HB_FLOW_ICMP] = 20,
                                                  [HB_FLOW_FRAGMENT] = 15}};

static void set_up_for(uint32_t limit, bool evict)
{
    static uint8_t frame[2048];
    hb_config c = config;
    c.flows = limit;
    c.flows_evict = evict;
    memset(&stats, 0, sizeof stats);
    arena = (hb_arena){.frames = frame, .frame_size = 2048};
    epoch = 0;
    CHECK_EQUAL(hb_flows_init(&flows, limit, 1000, NULL, 0, &stats), 0);
    CHECK_EQUAL(hb_flows_track(&flows, &c), 0);
    CHECK_EQUAL(hb_flows_places(&flows), 2 * limit);
}

static void set_up(bool evict)
{
    set_up_for(LIMIT, evict);
}

static void tear_down(void)
{
    hb_flows_free(&flows);
}

typedef struct {
    uint32_t number;                          /* of the flow */
    uint8_t protocol, flags, direction, port; /* input port */
    bool fragment, first;
} packet;

static hb_mbuf send(packet p)
{
    hb_key key = {.port = {1024, 80}, .protocol = p.protocol, .fragment = p.fragment};
    memcpy(key.addr[0] + 10, (uint8_t[]){255, 255, 10, 0, 0, 1}, 6);
    memcpy(key.addr[1] + 10, (uint8_t[]){255, 255, 10, 1, 0, 0}, 6);
    memcpy(key.addr[1] + 12, &p.number, 4);
    bool has_l4 = !p.fragment || p.first;
    hb_mbuf m = {.hash = hb_key_hash(&key),
                 .direction = p.direction,
                 .protocol = p.protocol,
                 .l3 = 14,
                 .l4 = has_l4 ? 34 : HB_NO_LAYER,
                 .in_port = p.port,
                 .data_len = 60,
                 .time_ns = now};
    hb_mbuf *one = &m;
    arena.frames[34 + 13] = p.flags;
    uint32_t refused = hb_flow_classify(&flows, &arena, &one, &key, 1);
    CHECK_EQUAL(refused, m.flow == HB_NO_FLOW);
    CHECK(refused || (m.flow - 1000 < hb_flows_places(&flows) && m.flow_gen));
    return m;
}

static hb_mbuf tcp(uint32_t number, uint8_t flags, uint8_t direction)
{
    return send((packet){.number = number, .protocol = 6, .flags = flags, .direction = direction});
}

static uint32_t state_of(const hb_mbuf *m)
{
    return flows.flow[m->flow - 1000].state;
}

static bool same(const hb_mbuf *a, const hb_mbuf *b)
{
    return a->flow == b->flow && a->flow_gen == b->flow_gen;
}

/* Every packet is gone, and everybody has heard of every end. */
static void settle(void)
{
    for (int i = 0; i < 3; i++) {
        hb_flows_drain(&flows, epoch, epoch - 1);
        epoch++;
        hb_flows_drain(&flows, epoch, epoch - 1);
    }
    hb_flows_reuse(&flows, atomic_load(&flows.lives->drained));
    CHECK_EQUAL(flows.lives->freed, flows.lives->released);
}

static void establish(uint32_t number)
{
    tcp(number, SYN, 0);
    tcp(number, SYN | ACK, 1);
    tcp(number, ACK, 0);
}

/* ---- states -----------------------------------------------------------------------------------
 */

static void test_handshake(void)
{
    set_up(false);
    hb_mbuf a = tcp(1, SYN, 1);
    CHECK_EQUAL(state_of(&a), HB_FLOW_TCP_SYN);
    CHECK_EQUAL(flows.flow[a.flow - 1000].seen_of & HB_SEEN_FIRST, 1);
    hb_mbuf b = tcp(1, SYN | ACK, 0);
    CHECK(same(&a, &b));
    CHECK_EQUAL(state_of(&b), HB_FLOW_TCP_SYN);
    tcp(1, ACK, 0); /* not of who began */
    CHECK_EQUAL(state_of(&b), HB_FLOW_TCP_SYN);
    tcp(1, ACK, 1);
    CHECK_EQUAL(state_of(&b), HB_FLOW_TCP_ESTABLISHED);
    tcp(1, FIN | ACK, 0);
    CHECK_EQUAL(state_of(&b), HB_FLOW_TCP_CLOSING);
    b = tcp(1, ACK, 1);
    CHECK(same(&a, &b));
    CHECK_EQUAL(state_of(&b), HB_FLOW_TCP_CLOSING);
    tear_down();
}

static void test_no_handshake(void)
{
    set_up(false);
    hb_mbuf a = tcp(1, ACK, 0);
    CHECK_EQUAL(state_of(&a), HB_FLOW_TCP_MIDSTREAM);
    tcp(1, ACK, 0);
    CHECK_EQUAL(state_of(&a), HB_FLOW_TCP_MIDSTREAM);
    tcp(1, ACK, 1);
    CHECK_EQUAL(state_of(&a), HB_FLOW_TCP_ESTABLISHED);
    a = tcp(2, RST, 0);
    CHECK_EQUAL(state_of(&a), HB_FLOW_TCP_CLOSING);
    a = send((packet){.number = 3, .protocol = 17});
    CHECK_EQUAL(state_of(&a), HB_FLOW_UDP);
    send((packet){.number = 3, .protocol = 17, .direction = 1});
    CHECK_EQUAL(state_of(&a), HB_FLOW_UDP_BOTH);
    a = send((packet){.number = 4, .protocol = 58});
    CHECK_EQUAL(state_of(&a), HB_FLOW_ICMP);
    a = send((packet){.number = 5, .protocol = 47});
    CHECK_EQUAL(state_of(&a), HB_FLOW_OTHER);
    a = send((packet){.number = 6, .protocol = 17, .fragment = true});
    CHECK_EQUAL(state_of(&a), HB_FLOW_FRAGMENT);
    CHECK_EQUAL(stats.flows_live, 6);
    tear_down();
}

/* A port is used again: a SYN begins a new connection where the old one was closing, and only
 * there.
 */
static void test_port_reuse(void)
{
    set_up(false);
    establish(1);
    hb_mbuf a = tcp(1, SYN, 0), b = tcp(1, RST, 1);
    CHECK(same(&a, &b));
    hb_mbuf c = tcp(1, SYN, 1);
    CHECK(!same(&a, &c) && a.flow != c.flow);
    CHECK_EQUAL(state_of(&c), HB_FLOW_TCP_SYN);
    CHECK_EQUAL(flows.lives->gone[0].why, HB_FLOW_END_REPLACED);
    CHECK_EQUAL(stats.flows_live, 1);
    tear_down();
}

/* A datagram's id comes again: its first fragment is judged again. */
static void test_fragments(void)
{
    set_up(false);
    packet first = {.number = 1, .protocol = 17, .fragment = true, .first = true};
    packet later = first;
    later.first = false;
    hb_mbuf a = send(later), b = send(first), c = send(later);
    CHECK(same(&a, &b) && same(&b, &c));
    hb_mbuf d = send(first), e = send(later);
    CHECK(!same(&a, &d) && same(&d, &e));
    tear_down();
}

/* ---- time -------------------------------------------------------------------------------------
 */

/* Idle for its timeout a flow goes on, idle for longer it is over, whether or not it was looked
 * for.
 */
static void test_timeouts(void)
{
    static const packet kinds[] = {{.protocol = 6, .flags = SYN},
                                   {.protocol = 6, .flags = ACK},
                                   {.protocol = 6, .flags = RST},
                                   {.protocol = 17},
                                   {.protocol = 1},
                                   {.protocol = 47}};
    for (uint32_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        set_up(false);
        packet p = kinds[i];
        hb_mbuf a = send(p);
        uint64_t seconds = config.flow_timeout[state_of(&a)];
        now += seconds * S;
        hb_mbuf b = send(p);
        CHECK(same(&a, &b));
        now += seconds * S + S / 5;
        hb_mbuf c = send(p);
        CHECK(!same(&a, &c));
        CHECK_EQUAL(flows.lives->gone[0].why,
                    p.flags == RST ? HB_FLOW_END_CLOSED : HB_FLOW_END_IDLE);
        now += seconds * S + S / 5;
        send((packet){.number = 2, .protocol = 17}); /* time goes on ... */
        hb_flows_age(&flows, flows.mask + 1);        /* ... and somebody looks */
        CHECK_EQUAL(stats.flows_live, 1);
        tear_down();
    }
}

/* Time goes back, or leaps, at one port: flows neither die of it nor live for ever. */
static void test_jumps(void)
{
    static const int64_t jumps[] = {-2, -86400, -1700000000 + 5, 86400, 7200, 3601};
    for (uint32_t i = 0; i < sizeof jumps / sizeof *jumps; i++) {
        set_up(false);
        uint64_t before = now;
        hb_mbuf a = send((packet){.number = 1, .protocol = 17});
        now += (uint64_t)jumps[i] * S;
        hb_mbuf b = send((packet){.number = 1, .protocol = 17});
        CHECK(same(&a, &b));
        now += 29 * S;
        b = send((packet){.number = 1, .protocol = 17});
        CHECK(same(&a, &b));
        now += 31 * S;
        b = send((packet){.number = 1, .protocol = 17});
        CHECK(!same(&a, &b));
        now = before;
        tear_down();
    }
}

/* Two captures of different years side by side. */
static void test_two_ports(void)
{
    set_up(false);
    hb_mbuf a = send((packet){.number = 1, .protocol = 17});
    uint64_t here = now, there = 1000 * S;
    for (int second = 0; second < 100; second++) {
        now = here + (uint64_t)second * S;
        hb_mbuf b = send((packet){.number = 1, .protocol = 17});
        CHECK(same(&a, &b));
        now = there + (uint64_t)second * S;
        b = send((packet){.number = 1, .protocol = 17, .port = 1});
        CHECK(same(&a, &b));
    }
    now = there + 131 * S;
    hb_mbuf b = send((packet){.number = 1, .protocol = 17, .port = 1});
    CHECK(!same(&a, &b));
    now = here;
    tear_down();
}

/* Packets that join a flow from another one keep it alive. */
static void test_adopted(void)
{
    set_up(false);
    hb_mbuf a = send((packet){.number = 1, .protocol = 17});
    for (int i = 0; i < 5; i++) {
        now += 20 * S;
        send((packet){.number = 2, .protocol = 17});
        hb_flow_join(flows.lives, &flows.flow[a.flow - 1000], &a, arena.frames);
    }
    CHECK_EQUAL(state_of(&a), HB_FLOW_UDP); /* all of the same end */
    hb_mbuf b = send((packet){.number = 1, .protocol = 17});
    CHECK(same(&a, &b));
    now += 31 * S;
    b = send((packet){.number = 1, .protocol = 17});
    CHECK(!same(&a, &b));
    tear_down();
}

/* They count for its state as its own do. */
static void test_joined(uint8_t protocol, uint8_t flags, uint8_t joins, uint32_t state)
{
    set_up(false);
    hb_mbuf a = send((packet){.number = 1, .protocol = protocol, .flags = flags}), answer = a;
    answer.direction = 1;
    arena.frames[34 + 13] = joins;
    hb_flow_join(flows.lives, &flows.flow[a.flow - 1000], &answer, arena.frames);
    hb_flows_age(&flows, flows.mask + 1);
    CHECK_EQUAL(state_of(&a), state);
    CHECK_EQUAL(atomic_load(&flows.flow[a.flow - 1000].joined), 0);
    tear_down();
}

/* ---- indexes ----------------------------------------------------------------------------------
 */

/* While a packet that may know the index is in flight, nobody else gets it. */
static void test_an_index_is_held(void)
{
    set_up(false);
    hb_mbuf a = tcp(1, SYN, 0);
    hb_flow_release(&flows, a.flow - 1000, HB_FLOW_END_IDLE);
    CHECK(hb_flows_drain(&flows, 5, 4)); /* packets of epoch 5 may know it */
    CHECK(hb_flows_drain(&flows, 6, 4));
    CHECK_EQUAL(atomic_load(&flows.lives->drained), 0);
    CHECK_EQUAL(flows.tag[a.flow - 1000], HB_TAG_HELD);
    hb_mbuf b = tcp(1, SYN, 0);
    CHECK(a.flow != b.flow);
    hb_flow_release(&flows, b.flow - 1000, HB_FLOW_END_IDLE);
    CHECK(hb_flows_drain(&flows, 6, 5)); /* the first is drained, the second waits for epoch 6 */
    CHECK_EQUAL(atomic_load(&flows.lives->drained), 1);
    CHECK(hb_flows_drain(&flows, 7, 5));
    CHECK_EQUAL(atomic_load(&flows.lives->drained), 1);
    CHECK(!hb_flows_drain(&flows, 7, 6));
    CHECK_EQUAL(atomic_load(&flows.lives->drained), 2);
    CHECK_EQUAL(flows.tag[a.flow - 1000], HB_TAG_HELD); /* nobody has heard of it yet */
    hb_flows_reuse(&flows, 1);
    CHECK_EQUAL(flows.tag[a.flow - 1000], HB_TAG_FREE);
    CHECK_EQUAL(flows.tag[b.flow - 1000], HB_TAG_HELD);
    CHECK_EQUAL(stats.flow_ends, 1);
    tear_down();
}

static void test_full_refuses(void)
{
    set_up(false);
    for (uint32_t i = 0; i < LIMIT; i++)
        CHECK(tcp(i, SYN, 0).flow != HB_NO_FLOW);
    CHECK_EQUAL(tcp(LIMIT, SYN, 0).flow, HB_NO_FLOW);
    CHECK(tcp(3, SYN, 0).flow != HB_NO_FLOW); /* the others go on */
    CHECK_EQUAL(stats.flow_refusals, 1);
    CHECK_EQUAL(stats.flow_evictions, 0);
    now += 31 * S;
    CHECK_EQUAL(tcp(LIMIT, SYN, 0).flow, HB_NO_FLOW);
    hb_flows_age(&flows, flows.mask + 1);
    CHECK(tcp(LIMIT, SYN, 0).flow != HB_NO_FLOW);
    CHECK_EQUAL(stats.flows_live, 1);
    tear_down();
}

/* The oldest half-open flow goes; established ones stay, whatever comes. */
static void test_full_evicts(void)
{
    set_up(true);
    for (uint32_t i = 0; i < LIMIT / 2; i++)
        establish(i);
    for (uint32_t i = LIMIT / 2; i < LIMIT; i++)
        tcp(i, SYN, 0);
    hb_mbuf known[LIMIT];
    for (uint32_t i = 0; i < LIMIT / 2; i++)
        known[i] = tcp(i, ACK, 0);
    for (uint32_t i = 0; i < 40 * LIMIT; i++) {
        CHECK(tcp(1000 + i, SYN, 0).flow != HB_NO_FLOW);
        hb_flow_gone last = flows.lives->gone[(flows.lives->released - 1) % PLACES];
        CHECK_EQUAL(last.why, HB_FLOW_END_EVICTED);
        settle();
    }
    CHECK_EQUAL(stats.flow_evictions, 40 * LIMIT);
    CHECK_EQUAL(stats.flows_live, LIMIT);
    for (uint32_t i = 0; i < LIMIT / 2; i++) {
        hb_mbuf m = tcp(i, ACK, 0);
        CHECK(same(&m, &known[i]));
    }
    tear_down();
}

static void test_the_oldest_goes(void)
{
    set_up(true);
    hb_mbuf first = tcp(0, SYN, 0), second = tcp(1, SYN, 0), third = tcp(2, SYN, 0);
    for (uint32_t i = 3; i < LIMIT; i++)
        tcp(i, SYN, 0);
    tcp(0, SYN | ACK, 1);
    tcp(0, ACK, 0); /* not half-open any more */
    tcp(LIMIT, SYN, 0);
    CHECK_EQUAL(flows.lives->gone[0].at, second.flow - 1000);
    tcp(LIMIT + 1, SYN, 0);
    CHECK_EQUAL(flows.lives->gone[1].at, third.flow - 1000);
    hb_mbuf again = tcp(0, ACK, 0);
    CHECK(same(&again, &first));
    tear_down();
}

/* All are established: nobody is half-open, so nobody goes. */
static void test_nobody_to_evict(void)
{
    set_up(true);
    for (uint32_t i = 0; i < LIMIT; i++)
        establish(i);
    CHECK_EQUAL(tcp(LIMIT, SYN, 0).flow, HB_NO_FLOW);
    CHECK_EQUAL(stats.flow_evictions, 0);
    tear_down();
}

/* Many generations of flows: every index that is given out is free, and memory does not grow. */
static void test_churn(void)
{
    static bool used[PLACES];
    set_up(false);
    srand(1);
    for (uint32_t i = 0; i < 200000; i++) {
        hb_mbuf m = tcp((uint32_t)rand() % 300, (uint8_t)(rand() % 32), (uint8_t)(rand() % 2));
        if (m.flow != HB_NO_FLOW)
            used[m.flow - 1000] = true;
        now += S / 20;
        hb_flows_age(&flows, 1);
        if (i % 7 == 0)
            settle();
        CHECK(stats.flows_live <= LIMIT);
        CHECK(flows.lives->released - flows.lives->freed <= PLACES);
    }
    CHECK(stats.flow_ends > 10000);
    uint32_t live = 0, all = 0;
    for (uint32_t i = 0; i < PLACES; i++) {
        live += flows.tag[i] & 1;
        all += used[i];
    }
    CHECK_EQUAL(live, stats.flows_live);
    CHECK(all > LIMIT);
    tear_down();
}

/* Addresses that count up: every one gets a place, up to the very limit, and keeps it. */
static void test_a_million(void)
{
    enum { MILLION = 1 << 20 };
    uint32_t *flow = malloc(MILLION * sizeof *flow), lost = 0;
    set_up_for(MILLION, false);
    for (uint32_t i = 0; i < MILLION; i++)
        flow[i] = send((packet){.number = i, .protocol = 17}).flow;
    CHECK_EQUAL(stats.flow_refusals, 0);
    CHECK_EQUAL(stats.flows_live, MILLION);
    for (uint32_t i = 0; i < MILLION; i++)
        lost += send((packet){.number = i, .protocol = 17, .direction = 1}).flow != flow[i];
    CHECK_EQUAL(lost, 0);
    free(flow);
    tear_down();
}

int main(void)
{
    test_a_million();
    test_handshake();
    test_no_handshake();
    test_port_reuse();
    test_fragments();
    test_timeouts();
    test_jumps();
    test_two_ports();
    test_adopted();
    test_joined(17, 0, 0, HB_FLOW_UDP_BOTH);
    test_joined(6, ACK, ACK, HB_FLOW_TCP_ESTABLISHED);
    test_joined(6, SYN, SYN | ACK, HB_FLOW_TCP_SYN);
    test_joined(6, ACK, RST, HB_FLOW_TCP_CLOSING);
    test_joined(6, SYN, FIN | ACK, HB_FLOW_TCP_CLOSING);
    test_joined(47, 0, 0, HB_FLOW_OTHER);
    test_an_index_is_held();
    test_full_refuses();
    test_full_evicts();
    test_the_oldest_goes();
    test_nobody_to_evict();
    test_churn();
    return failures != 0;
}
