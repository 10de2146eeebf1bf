/* SPDX-License-Identifier: BSD-3-Clause */
/* generator.c: made-up traffic. A packet is a copy of a template (one for each pair of size
 * and protocol) in which the flow's source address and port are set. */
#include "port.h"
#include "zipf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_SIZES 8
#define MOST_PROTOCOLS 4
#define SHORTEST 60
#define LONGEST 1514
#define STRIDE 1536
#define MOST_FLOWS (1u << 28) /* all differ in address or port */
#define CHUNK 64              /* bytes copied at a time, the last ones beyond the packet's end */
_Static_assert(LONGEST <= STRIDE && STRIDE % CHUNK == 0, "chunks stay in a template");
_Static_assert(STRIDE <= 2048 - HB_FRAME_RESERVED - HB_FRAME_HEADROOM, "and in any frame");

enum { ICMP = 1, TCP = 6, UDP = 17 };
enum { IP = 14, IP_LENGTH = IP + 2, IP_CHECKSUM = IP + 10, IP_SRC = IP + 12, IP_DST = IP + 16 };
enum { L4 = 34, PORTS = 64512, FIRST_PORT = 1024, PORT_STEP = 40503 };

typedef struct {
    uint16_t length;
    uint16_t port_at;     /* offset of the source port or the echo id */
    uint16_t checksum_at; /* of the transport checksum */
    bool has_pseudo;      /* which covers the addresses, too */
    uint32_t ip_sum;      /* one's complement sums without what varies */
    uint32_t l4_sum;
    uint8_t *bytes;
} template;

/* Which flow is next. */
typedef struct {
    uint32_t flow;
    uint32_t protocol; /* index */
    uint32_t port;     /* index of its port among the ports */
} cursor;

typedef struct {
    hb_port port;
    template template[MOST_SIZES][MOST_PROTOCOLS];
    uint8_t *store;             /* of the templates */
    uint32_t sizes;             /* of the mix */
    uint64_t below[MOST_SIZES]; /* a draw below this is size i, if not an earlier one */
    uint32_t protocols;
    uint32_t flows;
    uint32_t src;
    cursor next;
    hb_zipf zipf;     /* without columns: the flows come in turn */
    uint64_t random;  /* of the size mix */
    uint64_t flow_at; /* of the flows, apart: what is drawn does not depend on the bursts */
    uint64_t left;    /* packets to make */
    bool paced;
    hb_pacer pacer;
    uint64_t start_ticks; /* 0: not started */
    uint64_t start_ns;    /* time of day then */
    double ns_per_tick;
} generator;

/* ---- numbers --------------------------------------------------------------------------------- */

static inline void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint32_t sum16(const uint8_t *p, uint32_t bytes)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < bytes; i++)
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    return sum;
}

static inline uint32_t checksum(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

/* ---- packets --------------------------------------------------------------------------------- */

/* Distinct for all flows: those that share a source address differ in the port. */
static inline uint32_t flow_src(const generator *g, const cursor *c)
{
    return (g->src & 0xffff0000) | ((g->src + c->flow) & 0xffff);
}

static inline const template *next_template(generator *g, const cursor *c)
{
    if (g->sizes == 1)
        return &g->template[0][c->protocol];
    uint32_t at = (uint32_t)(hb_random(&g->random) >> 32), size = 0;
    for (uint32_t i = 0; i + 1 < g->sizes; i++)
        size += at >= g->below[i];
    return &g->template[size][c->protocol];
}

/* Any flow. Its port is (flow / 65536 + flow % 65536 * PORT_STEP) % PORTS; the sum fits 32 bits. */
static inline cursor cursor_of(const generator *g, uint32_t flow)
{
    uint32_t port = ((flow >> 16) + (flow & 0xffff) * PORT_STEP) % PORTS;
    return (cursor){flow, g->protocols == 1 ? 0 : flow % g->protocols, port};
}

/* The same by small steps. */
static inline void next_flow(const generator *g, cursor *c)
{
    if (++c->protocol == g->protocols)
        c->protocol = 0;
    if (++c->flow == g->flows)
        c->flow = c->protocol = 0;
    c->port += PORT_STEP;
    c->port -= c->port >= PORTS ? PORTS : 0;
    if (!(c->flow & 0xffff))
        c->port = c->flow >> 16;
}

static inline void write_packet(uint8_t *p, const template *t, uint32_t src, uint32_t port)
{
    uint32_t address_sum = (src >> 16) + (src & 0xffff);
    for (uint32_t i = 0; i < t->length; i += CHUNK) /* of a known size: no call */
        memcpy(p + i, t->bytes + i, CHUNK);
    put32(p + IP_SRC, src);
    put16(p + IP_CHECKSUM, checksum(t->ip_sum + address_sum));
    put16(p + t->port_at, port);
    uint32_t sum = checksum(t->l4_sum + port + (t->has_pseudo ? address_sum : 0));
    put16(p + t->checksum_at, sum ? sum : 0xffff); /* 0 is "none" in UDP, the same in the others */
}

static uint64_t time_of(generator *g, uint64_t now)
{
    if (!g->start_ticks) {
        g->start_ns = hb_clock_time_ns();
        g->start_ticks = now;
    }
    if (now < g->start_ticks)
        return g->start_ns;
    return g->start_ns + (uint64_t)((double)(now - g->start_ticks) * g->ns_per_tick);
}

static inline void make(generator *g, const hb_arena *a, uint32_t handle, const cursor *c,
                        uint64_t time_ns, uint32_t serial)
{
    hb_mbuf *m = hb_header(a, handle);
    const template *t = next_template(g, c);
    write_packet(hb_data(a, m), t, flow_src(g, c), FIRST_PORT + c->port);
    m->data_len = t->length;
    m->time_ns = time_ns;
    m->serial = serial;
}

static void in_turn(generator *g, const hb_arena *a, const uint32_t *handles, uint32_t n,
                    uint64_t time_ns)
{
    cursor next = g->next;            /* a copy, which what is written to packets cannot change */
    uint32_t serial = g->port.serial; /* likewise */
    for (uint32_t i = 0; i < n; i++) {
        make(g, a, handles[i], &next, time_ns, ++serial);
        next_flow(g, &next);
    }
    g->next = next;
    g->port.serial = serial;
}

/* All columns are asked for before the first is needed: a table of many flows is in no cache. */
static uint32_t by_rank(generator *g, const hb_arena *a, const uint32_t *handles, uint32_t n,
                        uint64_t time_ns)
{
    uint64_t drawn[HB_BURST];
    uint32_t serial = g->port.serial;
    n = n < HB_BURST ? n : HB_BURST;
    for (uint32_t i = 0; i < n; i++) {
        drawn[i] = hb_random(&g->flow_at);
        hb_zipf_prefetch(&g->zipf, drawn[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        cursor c = cursor_of(g, hb_zipf_rank(&g->zipf, drawn[i]));
        make(g, a, handles[i], &c, time_ns, ++serial);
    }
    g->port.serial = serial;
    return n;
}

static uint32_t generator_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    generator *g = (generator *)port;
    uint64_t now = hb_now();
    uint64_t time_ns = time_of(g, now);
    if (g->paced)
        n = hb_pacer_due(&g->pacer, now, n);
    if (n > g->left)
        n = (uint32_t)g->left;
    if (g->zipf.column)
        n = by_rank(g, a, handles, n, time_ns);
    else
        in_turn(g, a, handles, n, time_ns);
    g->pacer.sent += n;
    if (port->has_end && (g->left -= n) == 0)
        atomic_store_explicit(&port->done, true, memory_order_relaxed);
    return n;
}

static void generator_close(hb_port *port)
{
    generator *g = (generator *)port;
    hb_zipf_free(&g->zipf);
    free(g->store);
    free(g);
}

/* ---- open ------------------------------------------------------------------------------------ */

static void write_transport(template *t, const hb_generator *gen, uint32_t protocol)
{
    uint8_t *l4 = t->bytes + L4;
    uint32_t bytes = t->length - L4;
    t->port_at = L4;
    if (protocol == ICMP) {
        memcpy(l4, (uint8_t[8]){8}, 8); /* echo request */
        t->port_at = L4 + 4;
        t->checksum_at = L4 + 2;
        return;
    }
    put16(l4, 0);
    put16(l4 + 2, gen->dst_port);
    if (protocol == UDP) {
        put16(l4 + 4, bytes);
        t->checksum_at = L4 + 6;
    } else {
        l4[12] = 5 << 4; /* header words */
        l4[13] = gen->tcp_flags;
        put16(l4 + 14, 65535);
        put16(l4 + 18, 0);
        t->checksum_at = L4 + 16;
    }
    put16(t->bytes + t->checksum_at, 0);
}

static void write_template(template *t, const hb_generator *gen, uint32_t protocol,
                           uint64_t *random)
{
    static const uint8_t head[IP_SRC] = {
        2,    0, 0, 0, 0, 2, 2,    0, 0,  0, 0, 1, 8, 0, /* local MAC addresses, IPv4 */
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 0, 0, 0};      /* do not fragment, time to live 64 */
    for (uint32_t i = 0; i < t->length; i++)
        t->bytes[i] = (uint8_t)hb_random(random);
    memcpy(t->bytes, head, sizeof head);
    put16(t->bytes + IP_LENGTH, t->length - IP);
    t->bytes[IP + 9] = (uint8_t)protocol;
    put32(t->bytes + IP_SRC, 0);
    put32(t->bytes + IP_DST, gen->dst);
    write_transport(t, gen, protocol);
    t->has_pseudo = protocol != ICMP;
    t->ip_sum = sum16(t->bytes + IP, L4 - IP);
    t->l4_sum = sum16(t->bytes + L4, t->length - L4);
    if (t->has_pseudo)
        t->l4_sum += sum16(t->bytes + IP_DST, 4) + protocol + (t->length - L4);
}

static void write_templates(generator *g, const hb_generator *gen)
{
    uint64_t random = gen->seed;
    for (uint32_t s = 0; s < gen->sizes; s++)
        for (uint32_t p = 0; p < gen->protocols; p++) {
            template *t = &g->template[s][p];
            t->bytes = g->store + (s * MOST_PROTOCOLS + p) * STRIDE;
            t->length = gen->size[s];
            write_template(t, gen, gen->protocol[p], &random);
        }
    g->random = random;
}

static void share_sizes(generator *g, const hb_generator *gen)
{
    uint64_t all = 0, so_far = 0;
    for (uint32_t i = 0; i < gen->sizes; i++)
        all += gen->weight[i];
    for (uint32_t i = 0; i + 1 < gen->sizes; i++) {
        so_far += gen->weight[i];
        g->below[i] = (so_far << 32) / all;
    }
    g->sizes = gen->sizes;
}

/* What is wrong with the settings, or NULL. */
static const char *fault(const hb_generator *gen)
{
    uint32_t weights = 0;
    if (gen->sizes < 1 || gen->sizes > MOST_SIZES)
        return "it needs 1 to 8 sizes";
    for (uint32_t i = 0; i < gen->sizes; i++) {
        weights += gen->weight[i];
        if (gen->size[i] < SHORTEST || gen->size[i] > LONGEST)
            return "a size must be 60 to 1514 bytes";
    }
    if (!weights)
        return "one of the sizes must have a weight";
    if (gen->protocols < 1 || gen->protocols > MOST_PROTOCOLS)
        return "it needs 1 to 4 protocols";
    for (uint32_t i = 0; i < gen->protocols; i++)
        if (gen->protocol[i] != TCP && gen->protocol[i] != UDP && gen->protocol[i] != ICMP)
            return "a protocol must be TCP (6), UDP (17) or ICMP (1)";
    if (!gen->flows)
        return "it needs at least one flow";
    if (gen->flows > MOST_FLOWS)
        return "it makes 268435456 flows at most";
    if (!(gen->zipf >= 0 && gen->zipf <= HB_ZIPF_STEEPEST))
        return "its zipf must be 0 to 3";
    if (gen->zipf > 0 && gen->flows > HB_ZIPF_RANKS)
        return "with zipf it makes 4194304 flows at most";
    if (gen->pace != HB_PACE_FAST && gen->pace != HB_PACE_RATE)
        return "its pace must be fast or a rate";
    if (gen->pace == HB_PACE_RATE && !(isfinite(gen->rate) && gen->rate > 0))
        return "the rate must be more than 0";
    return NULL;
}

hb_port *hb_generator_open(const hb_generator *gen, char *error, size_t error_size)
{
    static const hb_port_ops ops = {.rx = generator_rx, .close = generator_close};
    const char *wrong = fault(gen);
    generator *g = wrong ? NULL : calloc(1, sizeof *g);
    if (g)
        g->store = malloc((size_t)MOST_SIZES * MOST_PROTOCOLS * STRIDE);
    if (!g || !g->store || (gen->zipf > 0 && hb_zipf_init(&g->zipf, gen->flows, gen->zipf))) {
        snprintf(error, error_size, "generator: %s", wrong ? wrong : "not enough memory");
        if (g)
            generator_close(&g->port);
        return NULL;
    }
    g->port.ops = &ops;
    g->port.live = true;
    g->port.paced = g->paced = gen->pace == HB_PACE_RATE;
    g->port.has_end = gen->packets != 0;
    g->left = gen->packets ? gen->packets : UINT64_MAX;
    g->src = gen->src;
    g->flows = gen->flows;
    g->protocols = gen->protocols;
    g->flow_at = ~gen->seed;
    write_templates(g, gen);
    share_sizes(g, gen);
    if (g->paced)
        g->pacer = hb_pacer_at(gen->rate);
    g->ns_per_tick = 1e9 / hb_tick_rate();
    return &g->port;
}
