/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/*
 * Ports in both directions, with several queues and frames of their own, as NICs have them:
 *
 *   nic 0, queues 0 and 1 <--> CNF forward <--> nic 1, queues 0 and 1
 *
 * A queue swaps an empty mbuf for each that it fills, keeps what it sends for a while, and may go
 * away while packets flow. No packet and no mbuf is ever missing.
 */
#include "check.h"
#include "guard.h"
#include "plane.c"

enum { NICS = 2, QUEUES = 2, STOCK = 64, KEPT = 96, SMALL_POOL = 1024 };

/* One queue. Used by its lcore, or by the control thread while it is away; `rest` is. */
typedef struct {
    hb_port port;
    uint32_t nic;
    uint64_t packets, made; /* to come in, and that came */
    uint32_t stock[STOCK];  /* empty mbufs, filled from the first on */
    uint32_t stocked;
    uint32_t kept[SMALL_POOL]; /* sent, oldest first */
    uint32_t keeps;
    bool *held; /* by handle: an mbuf that some queue has */
    uint64_t sent, altered, doubled, opened, refused;
    bool refuses; /* to be opened again */
    bool hoards;  /* keeps what is sent until rx() gets no mbuf, or has made all packets */
    bool picky;   /* some packets are too long for it */
} queue_of_nic;

static void hold(queue_of_nic *q, uint32_t handle, bool held)
{
    q->doubled += q->held[handle] == held;
    q->held[handle] = held;
}

static void give_back(queue_of_nic *q, uint32_t *handles, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        hold(q, handles[i], false);
    hb_release(q->port.cache, handles, n);
}

static uint32_t nic_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    queue_of_nic *q = (queue_of_nic *)port;
    uint32_t got = 0;
    if (!n || q->made == q->packets) {
        give_back(q, q->kept, q->keeps);
        q->keeps = 0;
    }
    while (got < n && got < q->stocked && got < 32 && q->made < q->packets) {
        uint32_t filled = q->stock[got];
        hb_mbuf *m = hb_header(a, filled);
        m->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
        hb_unguard(a, filled);
        m->data_len = (uint16_t)plane_packet(hb_data(a, m), q->nic, q->made);
        m->time_ns = (uint64_t)q->nic << 48 | q->made++;
        hold(q, filled, false);
        hold(q, handles[got], true);
        q->stock[got] = handles[got];
        handles[got++] = filled;
    }
    if (q->made == q->packets)
        atomic_store(&port->done, true);
    return got;
}

static uint32_t nic_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    queue_of_nic *q = (queue_of_nic *)port;
    uint8_t wanted[2048];
    uint32_t most = q->hoards ? SMALL_POOL : KEPT;
    if (q->keeps > KEPT / 2 && !q->hoards) { /* half of them have left */
        give_back(q, q->kept, KEPT / 2);
        q->keeps -= KEPT / 2;
        memmove(q->kept, q->kept + KEPT / 2, q->keeps * sizeof *q->kept);
    }
    if (n > most - q->keeps) {
        n = most - q->keeps;
        port->unsent = HB_REASON_port_full;
    }
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        if (q->picky && m->time_ns % 7 < 2) {
            q->refused++;
            port->unsent = HB_REASON_too_long;
            n = i;
            break;
        }
        uint32_t length =
            plane_packet(wanted, (uint32_t)(m->time_ns >> 48), m->time_ns & 0xffffffffffffu);
        q->altered += length != m->data_len || memcmp(hb_data(a, m), wanted, length) != 0;
        hold(q, handles[i], true);
        q->kept[q->keeps++] = handles[i];
    }
    q->sent += n;
    return n;
}

static void nic_flush(hb_port *port)
{
    queue_of_nic *q = (queue_of_nic *)port;
    give_back(q, q->stock, q->stocked);
    give_back(q, q->kept, q->keeps);
    q->stocked = q->keeps = 0;
}

static int nic_reopen(hb_port *port, char *error, size_t error_size)
{
    queue_of_nic *q = (queue_of_nic *)port;
    nic_flush(port);
    if (q->refuses) {
        snprintf(error, error_size, "not there");
        return -1;
    }
    q->stocked = hb_alloc(port->cache, q->stock, STOCK);
    for (uint32_t i = 0; i < q->stocked; i++)
        hold(q, q->stock[i], true);
    q->opened++;
    return 0;
}

static const hb_port_ops nic_ops = {.rx = nic_rx,
                                    .tx = nic_tx,
                                    .flush = nic_flush,
                                    .reopen = nic_reopen,
                                    .close = nothing_to_close,
                                    .keeps = true};

typedef struct {
    plane *p;
    queue_of_nic queue[NICS][QUEUES];
    bool held[NICS * QUEUES][4096];
} two_nics;

static void add_nic(two_nics *t, uint32_t nic, uint32_t lcores, uint64_t packets)
{
    plane *p = t->p;
    for (uint32_t k = 0; k < QUEUES; k++) {
        queue_of_nic *q = &t->queue[nic][k];
        *q = (queue_of_nic){.nic = nic, .packets = packets, .held = t->held[nic * QUEUES + k]};
        q->port.ops = &nic_ops;
        q->port.paced = q->port.has_end = true;
    }
    hb_node *node = &p->dp->node[add_port(p, nic % lcores, &t->queue[nic][0].port)];
    node->lcores = QUEUES;
    node->lcore[1] = (nic + 1) % lcores;
    node->port[1] = &t->queue[nic][1].port;
    node->port[1]->cache = node->port[0]->cache;
    node->port[1]->unsent = HB_REASON_port_error;
    for (uint32_t k = 0; k < QUEUES; k++)
        CHECK_EQUAL(nic_reopen(node->port[k], NULL, 0), 0);
}

static two_nics *new_nics(uint32_t lcores, uint64_t packets, uint32_t mbufs)
{
    plane_config c = {.lcores = lcores, .mbufs = mbufs};
    two_nics *t = calloc(1, sizeof *t);
    t->p = plane_new(&c);
    for (uint32_t nic = 0; nic < NICS; nic++)
        add_nic(t, nic, lcores, packets);
    for (uint32_t nic = 0; nic < NICS; nic++) {
        int cnf = plane_add_nf(t->p, NF_forward, (1u << lcores) - 1, 0);
        plane_route_all(t->p, (int)nic, cnf);
        plane_route_all(t->p, cnf, (int)!nic);
    }
    return t;
}

static void check_queues(const two_nics *t, const plane_totals *all)
{
    uint64_t sent = 0;
    for (uint32_t i = 0; i < NICS * QUEUES; i++) {
        const queue_of_nic *q = &t->queue[i / QUEUES][i % QUEUES];
        CHECK_EQUAL(q->altered, 0);
        CHECK_EQUAL(q->doubled, 0);
        sent += q->sent;
    }
    CHECK_EQUAL(sent, all->sent);
    CHECK_EQUAL(all->sent + all->dropped, all->received);
}

enum { MANY = 20000 };

static void test_both_ways(uint32_t lcores)
{
    two_nics *t = new_nics(lcores, MANY, 4096);
    plane_start(t->p);
    plane_wait(t->p);
    plane_totals all = plane_end(t->p);
    CHECK_EQUAL(all.received, NICS * QUEUES * MANY);
    CHECK(all.sent > MANY);
    CHECK_EQUAL(all.dropped, all.reason[HB_REASON_port_full] + all.reason[HB_REASON_ring_full] +
                                 all.reason[HB_REASON_node_full]);
    check_queues(t, &all);
    free(t);
}

/* All mbufs that are not in stock lie with the queues, sent: they come back all the same. */
static void test_empty_pool(uint32_t lcores)
{
    two_nics *t = new_nics(lcores, MANY, SMALL_POOL);
    for (uint32_t i = 0; i < NICS * QUEUES; i++)
        t->queue[i / QUEUES][i % QUEUES].hoards = true;
    plane_start(t->p);
    plane_wait(t->p);
    plane_totals all = plane_end(t->p);
    CHECK_EQUAL(all.received, NICS * QUEUES * MANY);
    CHECK_EQUAL(all.sent + all.reason[HB_REASON_ring_full] + all.reason[HB_REASON_node_full],
                all.received);
    check_queues(t, &all);
    free(t);
}

/* Packets that are too long for an interface are dropped for that, and only they. */
static void test_too_long(uint32_t lcores)
{
    two_nics *t = new_nics(lcores, MANY, 4096);
    uint64_t refused = 0, wanted = 0;
    for (uint32_t i = 0; i < NICS * QUEUES; i++)
        t->queue[i / QUEUES][i % QUEUES].picky = true;
    plane_start(t->p);
    plane_wait(t->p);
    plane_totals all = plane_end(t->p);
    for (uint32_t i = 0; i < NICS * QUEUES; i++)
        refused += t->queue[i / QUEUES][i % QUEUES].refused;
    for (uint64_t nic = 0; nic < NICS; nic++)
        for (uint64_t made = 0; made < MANY; made++)
            wanted += QUEUES * ((nic << 48 | made) % 7 < 2);
    CHECK_EQUAL(all.reason[HB_REASON_too_long], refused);
    CHECK(refused > 0 && refused <= wanted); /* the others found no room before */
    CHECK_EQUAL(all.dropped, refused + all.reason[HB_REASON_port_full] +
                                 all.reason[HB_REASON_ring_full] + all.reason[HB_REASON_node_full]);
    check_queues(t, &all);
    free(t);
}

/* It goes, is gone for some packets of the other, will not come back at first, then does. */
static void test_away(uint32_t lcores)
{
    two_nics *t = new_nics(lcores, UINT64_MAX, 4096);
    queue_of_nic *gone = t->queue[0];
    plane_start(t->p);
    for (uint32_t turn = 0; turn < 5; turn++) {
        CHECK(plane_wait_for_packets(t->p, 2000));
        hb_port_away(t->p->dp, 0);
        uint64_t made = gone[0].made + gone[1].made;
        CHECK(plane_wait_for_packets(t->p, 2000));
        CHECK_EQUAL(gone[0].made + gone[1].made, made); /* nobody touches it */
        gone[1].refuses = true;
        CHECK_EQUAL(hb_port_reopen(t->p->dp, 0), -1);
        CHECK(!strcmp(hb_error(t->p->dp), "not there"));
        gone[1].refuses = false;
        CHECK_EQUAL(hb_port_reopen(t->p->dp, 0), 0);
    }
    CHECK(plane_wait_for_packets(t->p, 2000));
    plane_totals all = plane_end(t->p);
    CHECK(all.reason[HB_REASON_port_down] > 0);
    CHECK_EQUAL(gone[0].opened, 11);
    CHECK_EQUAL(gone[1].opened, 6);
    check_queues(t, &all);
    free(t);
}

int main(void)
{
    for (uint32_t lcores = 1; lcores <= 3; lcores++) {
        test_both_ways(lcores);
        test_empty_pool(lcores);
        test_too_long(lcores);
        test_away(lcores);
    }
    return failures != 0;
}
