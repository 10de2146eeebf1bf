/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/*
 * A port answers for its addresses in the middle of traffic, at two queues on two lcores, while the
 * control thread gives it others:
 *
 *   queue 0, lcore 0 ─┐          ┌─ answers: back by the same port, created by nobody
 *   queue 1, lcore 1 ─┴─ "port" ─┴─ all else ── CNF forward ── sink: unchanged
 *
 * plane_free() checks that all packets, mbufs and counters add up. What an answer looks like, and
 * what is no question, tests/test_neighbour.py asks scapy.
 */
#include "plane.h"

#include <string.h>
#include <unistd.h>

#include "check.h"
#include "inet.h"
#include "neighbour.h"
#include "plane.c"

enum { QUEUES = 2, KINDS = 5, MOST_IN_FLIGHT = 256 };
enum kind { ARP_OURS, ND_OURS, ARP_OTHER, ND_OTHER, DATA }; /* packet number % KINDS */

static const uint8_t macs[2][6] = {{2, 0, 0, 0, 1, 1}, {2, 0, 0, 0, 1, 2}};
static const hb_ip_address addresses[2] = {{{192, 0, 2, 1}, 4},
                                           {{0x20, 1, 0xd, 0xb8, [15] = 1}, 6}};

/* One queue of the port. The plane's source and sink of the same number have its counts. */
typedef struct {
    hb_port port;
    plane *p;
    uint32_t number;
    _Atomic uint64_t packets;    /* all that it makes */
    _Atomic uint64_t answers[2]; /* by Ethernet address */
    uint64_t wrong;
} queue_port;

/* ---- packets --------------------------------------------------------------------------------- */

static uint32_t arp_request(uint8_t *p, uint8_t last)
{
    memset(p, 0xff, 6);
    memcpy(p + 6, "\2\0\0\0\0\7\10\6\0\1\10\0\6\4\0\1\2\0\0\0\0\7\xc0\0\2\x63", 26);
    memset(p + 32, 0, 6);
    memcpy(p + 38, (uint8_t[]){192, 0, 2, last}, 4);
    return 42;
}

static uint32_t solicitation(uint8_t *p, uint8_t last)
{
    uint64_t sum = 24 + 58;
    memset(p, 0, 78);
    memcpy(p, (uint8_t[]){0x33, 0x33, 0xff, 0, 0, last, 2, 0, 0, 0, 0, 7, 0x86, 0xdd, 0x60}, 15);
    memcpy(p + 18, (uint8_t[]){0, 24, 58, 255, 0x20, 1, 0xd, 0xb8}, 8);
    p[37] = 0x63;
    memcpy(p + 38, (uint8_t[]){0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, last}, 16);
    p[54] = 135;
    memcpy(p + 62, addresses[1].bytes, 16);
    p[77] = last;
    for (uint32_t i = 22; i < 54; i += 2)
        sum += hb_get_be16(p + i);
    hb_put_be16(p + 56, hb_inet_sum(p + 54, 24, sum));
    return 78;
}

static uint32_t make(uint8_t *p, uint32_t source, uint64_t number)
{
    switch (number % KINDS) {
    case ARP_OURS:
    case ARP_OTHER:
        return arp_request(p, number % KINDS == ARP_OURS ? 1 : 77);
    case ND_OURS:
    case ND_OTHER:
        return solicitation(p, number % KINDS == ND_OURS ? 1 : 77);
    default:
        return plane_packet(p, source, number);
    }
}

static uint32_t as_made(plane_sink *s, uint8_t *packet, uint32_t source, uint64_t number,
                        const uint8_t *have, uint32_t length)
{
    (void)s, (void)have, (void)length;
    return make(packet, source, number);
}

/* ---- the port -------------------------------------------------------------------------------- */

static uint64_t gone(const plane *p)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < p->sinks; i++)
        n += atomic_load(&p->sink[i].packets);
    return n;
}

static uint32_t queue_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    queue_port *q = (queue_port *)port;
    plane_source *s = &q->p->source[q->number];
    uint64_t packets = atomic_load(&q->packets), left = s->made < packets ? packets - s->made : 0;
    n = n < left ? n : (uint32_t)left;
    if (QUEUES * s->made > gone(q->p) + MOST_IN_FLIGHT)
        n = 0;
    for (uint32_t i = 0; i < n; i++, s->made++) {
        hb_mbuf *m = hb_header(a, handles[i]);
        m->data_len = (uint16_t)make(hb_data(a, m), q->number, s->made);
        m->time_ns = (uint64_t)q->number << 48 | s->made;
    }
    if (s->made >= packets)
        atomic_store(&port->done, true);
    return n;
}

/* Only answers leave by it, each to the question that it was. */
static uint32_t queue_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    queue_port *q = (queue_port *)port;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        const uint8_t *p = hb_data(a, m);
        uint64_t number = m->time_ns & 0xffffffffffffu;
        bool arp = number % KINDS == ARP_OURS, second = p[11] == macs[1][5];
        q->wrong += !arp && number % KINDS != ND_OURS;
        q->wrong += m->data_len != (arp ? 42 : 86) || p[arp ? 21 : 54] != (arp ? 2 : 136);
        q->wrong += memcmp(p + 6, macs[second], 6) || memcmp(p, "\2\0\0\0\0\7", 6);
        q->wrong += memcmp(p + (arp ? 22 : 80), macs[second], 6) != 0; /* one answer, one address */
        atomic_fetch_add(&q->answers[second], 1);
    }
    atomic_fetch_add(&q->p->sink[q->number].packets, n);
    return n;
}

/* Returns its node. */
static int add_two_way(plane *p, queue_port *queues, uint32_t lcores, uint64_t packets)
{
    static const hb_port_ops ops = {.rx = queue_rx, .tx = queue_tx, .close = nothing_to_close};
    int node = 0;
    for (uint32_t i = 0; i < QUEUES; i++) {
        queue_port *q = &queues[i];
        *q = (queue_port){.p = p, .number = i, .packets = packets};
        q->port = (hb_port){.ops = &ops, .paced = true, .has_end = true};
        p->sources++;
        p->sinks++;
        if (i == 0)
            node = add_port(p, 0, &q->port);
        hb_node *n = &p->dp->node[node];
        n->lcores = i + 1;
        n->lcore[i] = i % lcores;
        n->port[i] = &q->port;
        q->port.cache = queues[0].port.cache;
        q->port.unsent = queues[0].port.unsent;
    }
    return node;
}

static plane *chain(queue_port *queues, uint32_t lcores, uint64_t packets, int *port)
{
    plane *p = plane_new(&(plane_config){.lcores = lcores});
    plane_sink *sink;
    *port = add_two_way(p, queues, lcores, packets);
    int nf = plane_add_nf(p, NF_forward, lcores == 1 ? 1 : 3, 0);
    int out = plane_add_sink(p, 0, &sink);
    sink->expect = as_made;
    sink->any_order = true; /* numbers of a flow are only in order without our questions */
    plane_route_all(p, *port, nf);
    plane_route_all(p, nf, out);
    return p;
}

static uint64_t answered(const plane *p, int node)
{
    uint64_t n = 0;
    for (uint32_t l = 0; l < p->config.lcores; l++)
        n += p->dp->lcore[l].node_stats[node].answered;
    return n;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_answers(uint32_t lcores)
{
    enum { PACKETS = 10000 };
    queue_port queues[QUEUES];
    int node;
    plane *p = chain(queues, lcores, PACKETS, &node);
    CHECK_EQUAL(hb_set_addresses(p->dp, (uint32_t)node, addresses, 2, macs[0]), 0);
    plane_start(p);
    plane_wait(p);
    CHECK_EQUAL(answered(p, node), QUEUES * PACKETS / KINDS * 2);
    for (uint32_t i = 0; i < QUEUES; i++) { /* each by its own queue if each has its own lcore */
        CHECK_EQUAL(queues[i].wrong, 0);
        CHECK_EQUAL(queues[i].answers[1], 0);
        CHECK_EQUAL(queues[i].answers[0],
                    lcores > 1 ? PACKETS / KINDS * 2 : (i == 0) * QUEUES * PACKETS / KINDS * 2);
    }
    plane_totals t = plane_end(p);
    CHECK_EQUAL(t.sent, QUEUES * PACKETS);
    CHECK_EQUAL(t.created, 0);
}

static void test_no_addresses(void)
{
    enum { PACKETS = 1000 };
    queue_port queues[QUEUES];
    int node;
    plane *p = chain(queues, 1, PACKETS, &node);
    CHECK_EQUAL(hb_set_addresses(p->dp, (uint32_t)node, addresses, 2, macs[0]), 0);
    CHECK_EQUAL(hb_set_addresses(p->dp, (uint32_t)node, addresses, 0, macs[0]), 0); /* taken back */
    plane_start(p);
    plane_wait(p);
    CHECK_EQUAL(answered(p, node), 0);
    CHECK_EQUAL(p->sink[QUEUES].packets, QUEUES * PACKETS);
    plane_end(p);
}

/* With either Ethernet address. */
static bool both_answered(const queue_port *queues)
{
    return queues[0].answers[0] + queues[1].answers[0] > 0 &&
           queues[0].answers[1] + queues[1].answers[1] > 0;
}

/* Other addresses and another Ethernet address again and again: each packet sees one or the other,
 * whole. */
static void test_changes(void)
{
    enum { PACKETS = 30000 };
    queue_port queues[QUEUES];
    int node;
    plane *p = chain(queues, 2, UINT64_MAX, &node);
    plane_start(p);
    for (uint32_t changes = 0; !hb_finished(p->dp); changes++) {
        CHECK_EQUAL(
            hb_set_addresses(p->dp, (uint32_t)node, addresses, changes % 3, macs[changes & 1]), 0);
        /* only then is it over: this thread may get no CPU for long */
        if (changes > 6 && gone(p) > QUEUES * PACKETS && both_answered(queues))
            for (uint32_t i = 0; i < QUEUES; i++)
                atomic_store(&queues[i].packets, 0);
    }
    uint64_t seen = 0;
    for (uint32_t i = 0; i < QUEUES; i++) {
        CHECK_EQUAL(queues[i].wrong, 0);
        seen += queues[i].answers[0] + queues[i].answers[1];
    }
    CHECK_EQUAL(answered(p, node), seen);
    plane_totals t = plane_end(p);
    CHECK_EQUAL(t.sent, t.received);
}

static void test_refused(void)
{
    queue_port queues[QUEUES];
    int node;
    plane *p = chain(queues, 1, 0, &node);
    hb_ip_address many[HB_MOST_ADDRESSES + 1] = {{{1}, 4}};
    uint32_t port = (uint32_t)node, sink = port + 2;
    CHECK_EQUAL(hb_set_addresses(p->dp, port, many, HB_MOST_ADDRESSES + 1, macs[0]), -1);
    CHECK_EQUAL(hb_set_addresses(p->dp, sink, addresses, 1, macs[0]), -1);
    CHECK(strstr(hb_error(p->dp), "come in and go out") != NULL);
    CHECK_EQUAL(hb_set_addresses(p->dp, port, addresses, 1, NULL), -1);
    CHECK(strstr(hb_error(p->dp), "no Ethernet address") != NULL);
    memcpy(queues[0].port.mac, macs[1], 6); /* the driver knows it */
    CHECK_EQUAL(hb_set_addresses(p->dp, port, addresses, 1, NULL), 0);
    CHECK(memcmp(queues[0].port.owned->mac, macs[1], 6) == 0);
    CHECK(queues[1].port.owned == queues[0].port.owned);
    plane_free(p);
}

int main(void)
{
    test_answers(1);
    test_answers(2);
    test_no_addresses();
    test_changes();
    test_refused();
    return failures != 0;
}
