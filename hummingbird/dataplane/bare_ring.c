/* SPDX-License-Identifier: BSD-3-Clause */
/* bare_ring.c: what it costs to move a cache line, and packets, between two CPUs. */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "clock.h"
#include "mbuf.h"
#include "ring.h"

#define BURST 32
#define RING 1024   /* entries */
#define POOL 4096u  /* headers, taken in turn: one is free again long before it is written again */
#define WARM_UP 200 /* round trips, bursts */

/* Two threads on two CPUs; each finds the other spinning. */
typedef struct {
    alignas(128) _Atomic uint32_t there; /* threads that have started */
    alignas(128) _Atomic uint32_t ball;  /* written by both in turn */
    alignas(128) uint32_t rounds;
    uint64_t packets;
    bool headers;
    hb_ring *ring;
    hb_mbuf *header;
    uint64_t sum;  /* written by the consumer, so that its reads are not left out */
    double result; /* ns; written by one of them */
} pair;

static void meet(pair *p)
{
    atomic_fetch_add(&p->there, 1);
    while (atomic_load(&p->there) < 2)
        hb_pause();
}

static int start(pthread_t *thread, int cpu, void *(*run)(void *), pair *p)
{
    pthread_attr_t attributes;
    cpu_set_t set;
    if (cpu < 0 || cpu >= CPU_SETSIZE || pthread_attr_init(&attributes))
        return -1;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    int rc = pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
    if (!rc)
        rc = pthread_create(thread, &attributes, run, p);
    pthread_attr_destroy(&attributes);
    return rc ? -1 : 0;
}

/* Run both to their end. -1: a CPU may not be used; then neither has done anything. */
static int run_pair(pair *p, int cpu_a, void *(*a)(void *), int cpu_b, void *(*b)(void *))
{
    cpu_set_t allowed;
    pthread_t first, second;
    if (cpu_a == cpu_b || cpu_a < 0 || cpu_b < 0 || cpu_a >= CPU_SETSIZE || cpu_b >= CPU_SETSIZE ||
        sched_getaffinity(0, sizeof allowed, &allowed) || !CPU_ISSET((unsigned)cpu_a, &allowed) ||
        !CPU_ISSET((unsigned)cpu_b, &allowed) || start(&first, cpu_a, a, p))
        return -1;
    int rc = start(&second, cpu_b, b, p);
    if (rc) /* the first waits for somebody: play the second */
        b(p);
    else
        pthread_join(second, NULL);
    pthread_join(first, NULL);
    return rc;
}

/* ---- one line ---------------------------------------------------------------------------------
 */

static void await(pair *p, uint32_t value)
{
    while (atomic_load_explicit(&p->ball, memory_order_acquire) != value)
        hb_pause();
}

static void *serve(void *arg)
{
    pair *p = arg;
    uint64_t start_ns = 0;
    meet(p);
    for (uint32_t i = 0; i < p->rounds + WARM_UP; i++) {
        if (i == WARM_UP)
            start_ns = hb_monotonic_ns();
        atomic_store_explicit(&p->ball, 2 * i + 1, memory_order_release);
        await(p, 2 * i + 2);
    }
    p->result = (double)(hb_monotonic_ns() - start_ns) / p->rounds;
    return NULL;
}

static void *give_back(void *arg)
{
    pair *p = arg;
    meet(p);
    for (uint32_t i = 0; i < p->rounds + WARM_UP; i++) {
        await(p, 2 * i + 1);
        atomic_store_explicit(&p->ball, 2 * i + 2, memory_order_release);
    }
    return NULL;
}

double hb_ping_pong(int cpu_a, int cpu_b, uint32_t rounds)
{
    pair p = {.rounds = rounds};
    return rounds && !run_pair(&p, cpu_a, serve, cpu_b, give_back) ? p.result : -1;
}

/* ---- a ring -----------------------------------------------------------------------------------
 */

static void *produce(void *arg)
{
    pair *p = arg;
    uint32_t handles[BURST];
    meet(p);
    for (uint64_t n = 0; n < p->packets; n += BURST) {
        for (uint32_t i = 0; i < BURST; i++) {
            handles[i] = (uint32_t)((n + i) % POOL);
            if (p->headers) /* as where a burst is queued */
                p->header[handles[i]].hop_tick = n;
        }
        for (uint32_t put = 0; put < BURST;) {
            uint32_t more = hb_ring_put(p->ring, 0, handles + put, BURST - put);
            if (!more)
                hb_pause();
            put += more;
        }
        hb_ring_flush(p->ring);
    }
    return NULL;
}

/* As lcore.c takes a burst from a ring: fetch the headers ahead, then look at each. */
static uint64_t look(const pair *p, const uint64_t *e, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        __builtin_prefetch(&p->header[e[i]]);
    for (uint32_t i = 0; i < n; i++)
        sum += p->header[e[i]].hop_tick + p->header[e[i]].data_len;
    return sum;
}

static void *consume(void *arg)
{
    pair *p = arg;
    uint64_t e[BURST], got = 0, counted = 0, sum = 0, start_ns = 0;
    meet(p);
    while (got < p->packets) {
        uint32_t n = hb_ring_take(p->ring, e, BURST);
        if (!n)
            hb_pause();
        sum += p->headers ? look(p, e, n) : n;
        got += n;
        if (!start_ns && got >= WARM_UP * BURST) {
            start_ns = hb_monotonic_ns();
            counted = got;
        }
    }
    p->result = (double)(hb_monotonic_ns() - start_ns) / (double)(got - counted);
    p->sum = sum;
    return NULL;
}

double hb_ring_hop(int cpu_a, int cpu_b, uint64_t packets, int headers)
{
    hb_ring *r = aligned_alloc(128, (sizeof *r + 127) / 128 * 128);
    hb_mbuf *header = aligned_alloc(64, POOL * sizeof *header);
    pair p = {.headers = headers, .ring = r, .header = header};
    int rc = -1;
    p.packets = (packets + 2 * WARM_UP * BURST) / BURST * BURST;
    if (r && header) {
        memset(r, 0, sizeof *r);
        memset(header, 0, POOL * sizeof *header);
        if (!hb_ring_init(r, RING)) {
            rc = run_pair(&p, cpu_a, produce, cpu_b, consume);
            free(r->entry);
        }
    }
    free(header);
    free(r);
    return rc ? -1 : p.result;
}
