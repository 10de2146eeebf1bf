/* SPDX-License-Identifier: BSD-3-Clause */
/* Which packets go into the next row: at most one of a flow, a flow in one workgroup at a time,
 * each flow's packets in order, rows as full as can be, and nobody waits for ever. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "flow_queue.h"

enum { FLOWS = 40, GROUPS = 3, LANES = 8, MBUFS = 512, DEPTH = 4, LOOSE = 5 };

static hb_flow_queue queue;
static hb_arena arena;
static uint32_t number_of[MBUFS]; /* of each packet: in the order they came */
static uint32_t last_of[FLOWS];   /* number of the flow's packet that went into a row last */
static uint32_t in_group[FLOWS];  /* workgroup + 1 that has packets of the flow, 0: none ... */
static uint32_t in_rows[FLOWS];   /* ... and how many */
static uint32_t waiting, numbers, free_mbuf[MBUFS], nb_free;

typedef struct {
    uint32_t handle[LANES], n;
} row;

static row rows[GROUPS][DEPTH + 1]; /* published ones and the open one: a queue */
static uint32_t published[GROUPS], reaped[GROUPS];

static row *open_row(uint32_t g)
{
    return &rows[g][published[g] % (DEPTH + 1)];
}

static void set_up(void)
{
    memset(last_of, 0, sizeof last_of);
    memset(in_rows, 0, sizeof in_rows);
    memset(in_group, 0, sizeof in_group);
    memset(published, 0, sizeof published);
    memset(reaped, 0, sizeof reaped);
    waiting = numbers = 0;
    arena = (hb_arena){.headers = aligned_alloc(64, MBUFS * sizeof(hb_mbuf)), .mbufs = MBUFS};
    for (nb_free = 0; nb_free < MBUFS; nb_free++)
        free_mbuf[nb_free] = nb_free;
    for (uint32_t g = 0; g < GROUPS; g++)
        open_row(g)->n = 0;
    CHECK_EQUAL(hb_flow_queue_init(&queue, FLOWS, MBUFS, GROUPS), 0);
}

static void tear_down(void)
{
    CHECK_EQUAL(queue.waiting, 0);
    hb_flow_queue_free(&queue);
    free(arena.headers);
}

static void put(uint32_t flow)
{
    uint32_t handle = free_mbuf[--nb_free];
    hb_header(&arena, handle)->flow = flow;
    number_of[handle] = ++numbers;
    hb_flow_put(&queue, handle, flow);
    waiting++;
}

static bool is_in_row(const row *r, uint32_t flow)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (hb_header(&arena, r->handle[i])->flow == flow)
            return true;
    return false;
}

static bool take(uint32_t g, bool own)
{
    row *r = open_row(g);
    uint32_t handle = hb_flow_take(&queue, g, own);
    if (handle == HB_NOTHING)
        return false;
    uint32_t flow = hb_header(&arena, handle)->flow;
    waiting--;
    if (flow < FLOWS) {
        CHECK(!is_in_row(r, flow));
        CHECK(!in_group[flow] || in_group[flow] == g + 1);
        CHECK(number_of[handle] > last_of[flow]);
        last_of[flow] = number_of[handle];
        in_group[flow] = g + 1;
        in_rows[flow]++;
    } else {
        CHECK(!own);
    }
    r->handle[r->n++] = handle;
    return true;
}

static void publish(uint32_t g)
{
    row *r = open_row(g);
    hb_flow_close_row(&queue, g, &arena, r->handle, r->n);
    published[g]++;
    open_row(g)->n = 0;
}

static void reap(uint32_t g)
{
    row *r = &rows[g][reaped[g]++ % (DEPTH + 1)];
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t flow = hb_header(&arena, r->handle[i])->flow;
        hb_flow_back(&queue, flow);
        free_mbuf[nb_free++] = r->handle[i];
        if (flow < FLOWS && !--in_rows[flow])
            in_group[flow] = 0;
    }
}

static void fill(uint32_t g)
{
    if (published[g] - reaped[g] == DEPTH)
        return;
    bool own = rand() % 2;
    while (open_row(g)->n < LANES && take(g, own))
        ;
    if (open_row(g)->n == LANES || (open_row(g)->n && rand() % 2))
        publish(g);
}

static void empty(void)
{
    for (uint32_t round = 0; round < 10 * MBUFS && (waiting || nb_free < MBUFS); round++)
        for (uint32_t g = 0; g < GROUPS; g++) {
            fill(g);
            if (published[g] != reaped[g])
                reap(g);
        }
    CHECK_EQUAL(waiting, 0);
    CHECK_EQUAL(nb_free, MBUFS);
}

/* Whatever happens, in whatever order. */
static void test_anything(int seed)
{
    set_up();
    srand((unsigned)seed);
    for (uint32_t i = 0; i < 50000; i++) {
        uint32_t g = (uint32_t)rand() % GROUPS, flow = (uint32_t)rand() % FLOWS;
        if (nb_free && rand() % 3)
            put(rand() % 3 ? flow % 4 : rand() % LOOSE ? flow : HB_NO_FLOW); /* few have most */
        if (rand() % 4 == 0)
            fill(g);
        if (rand() % 6 == 0 && published[g] != reaped[g])
            reap(g);
        CHECK_EQUAL(queue.waiting, waiting);
    }
    empty();
    tear_down();
}

/* One flow has a hundred packets, others one each: those are in the first row. */
static void test_a_hog_holds_up_only_itself(void)
{
    set_up();
    for (uint32_t i = 0; i < 100; i++)
        put(0);
    for (uint32_t i = 1; i < LANES; i++)
        put(i);
    while (open_row(0)->n < LANES && take(0, false))
        ;
    CHECK_EQUAL(open_row(0)->n, LANES);
    CHECK_EQUAL(hb_flow_waiting(&queue, 0), 99);
    publish(0);
    CHECK(take(0, true));
    CHECK(!take(0, true));  /* one of a flow */
    CHECK(!take(1, false)); /* and nowhere else */
    publish(0);
    empty();
    tear_down();
}

/* Flows that always have packets in rows do not keep out new ones. */
static void test_newcomers(void)
{
    set_up();
    for (uint32_t round = 0; round < 20; round++)
        for (uint32_t i = 0; i < LANES; i++)
            put(i);
    while (open_row(0)->n < LANES && take(0, false))
        ;
    publish(0);
    put(LANES);
    put(HB_NO_FLOW);
    while (open_row(0)->n < LANES && take(0, false))
        ;
    CHECK(is_in_row(open_row(0), LANES));
    CHECK(is_in_row(open_row(0), HB_NO_FLOW));
    publish(0);
    empty();
    tear_down();
}

static void test_drop_all(void)
{
    set_up();
    for (uint32_t i = 0; i < 300; i++)
        put(i % 7 ? i % FLOWS : HB_NO_FLOW);
    for (uint32_t g = 0; g < GROUPS; g++)
        fill(g);
    uint32_t handle, n = 0;
    for (; (handle = hb_flow_any(&queue)) != HB_NOTHING; n++)
        free_mbuf[nb_free++] = handle;
    CHECK_EQUAL(n, waiting);
    waiting = 0;
    empty();
    tear_down();
}

int main(void)
{
    for (int seed = 1; seed <= 4; seed++)
        test_anything(seed);
    test_a_hog_holds_up_only_itself();
    test_newcomers();
    test_drop_all();
    return failures != 0;
}
