/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* The mbuf pool: no handle is given to two, none is lost, whoever gives it back. */
#include "check.h"
#include "mbuf.h"
#include "ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- one thread ------------------------------------------------------------------------------ */

static void test_every_handle_once(uint32_t mbufs, uint32_t burst)
{
    hb_arena a;
    hb_cache c;
    uint32_t *handles = calloc(mbufs + burst, sizeof *handles), n = 0, got;
    uint8_t *seen = calloc(mbufs, 1);
    CHECK_EQUAL(hb_arena_init(&a, NULL, 2048, mbufs, 1), 0);
    hb_cache_init(&c, &a);
    CHECK_EQUAL(hb_arena_count_free(&a), mbufs);
    while ((got = hb_alloc(&c, handles + n, burst)) && n <= mbufs)
        n += got;
    CHECK_EQUAL(n, mbufs);
    CHECK_EQUAL(hb_arena_count_free(&a), 0);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(handles[i] < mbufs && !seen[handles[i]]++);
        CHECK_EQUAL(hb_header(&a, handles[i])->frame, handles[i]);
    }
    for (uint32_t i = 0; i < n; i += burst)
        hb_release(&c, handles + i, n - i < burst ? n - i : burst);
    CHECK_EQUAL(hb_arena_count_free(&a), mbufs);
    CHECK_EQUAL(hb_alloc(&c, handles, mbufs), mbufs);
    hb_arena_free(&a);
    free(handles);
    free(seen);
}

/* What one cache holds back is at most its two magazines. */
static void test_what_a_cache_holds_back(void)
{
    enum { MBUFS = 10 * HB_MAGAZINE };
    static uint32_t handles[MBUFS];
    hb_arena a;
    hb_cache c[2];
    CHECK_EQUAL(hb_arena_init(&a, NULL, 2048, MBUFS, 2), 0);
    hb_cache_init(&c[0], &a);
    hb_cache_init(&c[1], &a);
    CHECK_EQUAL(hb_alloc(&c[0], handles, MBUFS), MBUFS);
    hb_release(&c[0], handles, MBUFS);
    CHECK_EQUAL(hb_alloc(&c[1], handles, MBUFS), MBUFS - 2 * HB_MAGAZINE);
    CHECK_EQUAL(hb_alloc(&c[1], handles, 1), 0);
    hb_arena_free(&a);
}

/* ---- several threads ------------------------------------------------------------------------- */

/* A thread wants more than there are even by itself: half of them fit into the ring that the next
 * one may not empty yet, and its own cache holds some back. */
enum { THREADS = 3, MBUFS = 400, RING = 256, MOST = 300, ROUNDS = 4000 };

/* Each thread takes handles, uses them, gives some to the next thread and frees the others, and
 * what it got from the one before it. */
typedef struct {
    pthread_t thread;
    hb_arena *arena;
    _Atomic uint8_t *owner; /* [MBUFS] 0: free, else the thread that holds it, from 1 */
    hb_cache cache;
    hb_ring *from, *to;
    uint32_t number;
    uint64_t random;
    uint64_t short_of; /* allocations that got less than they asked for */
    uint64_t twice;    /* handles that somebody else had */
    uint64_t spoilt;   /* headers that changed while held */
    uint32_t held[MOST];
    uint32_t holds;
} user;

static uint32_t draw(user *u, uint32_t below)
{
    u->random = u->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(u->random >> 33) % below;
}

static void take(user *u)
{
    uint32_t want = 1 + draw(u, 200), got;
    if (want > MOST - u->holds)
        want = MOST - u->holds;
    got = hb_alloc(&u->cache, u->held + u->holds, want);
    u->short_of += got < want;
    for (uint32_t i = u->holds; i < u->holds + got; i++) {
        hb_mbuf *m = hb_header(u->arena, u->held[i]);
        u->twice += atomic_exchange(&u->owner[u->held[i]], (uint8_t)u->number) != 0;
        m->rx_tick = u->number; /* plain: the sanitizer sees if another thread still uses it */
        m->flow = u->held[i];
    }
    u->holds += got;
}

static void give_back(user *u, const uint32_t *handles, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = hb_header(u->arena, handles[i]);
        u->spoilt += m->rx_tick != u->number || m->flow != handles[i];
        u->twice += atomic_exchange(&u->owner[handles[i]], 0) != u->number;
    }
    hb_release(&u->cache, handles, n);
}

static void hand_over(user *u, uint32_t n)
{
    for (; n && u->holds; n--) {
        uint32_t h = u->held[u->holds - 1];
        if (!hb_ring_put(u->to, 0, &h, 1))
            break;
        u->holds--;
    }
    hb_ring_flush(u->to);
}

static void receive(user *u, uint32_t n)
{
    uint64_t e[MBUFS];
    uint32_t handles[MBUFS];
    n = hb_ring_take(u->from, e, n);
    for (uint32_t i = 0; i < n; i++) {
        handles[i] = (uint32_t)e[i];
        hb_header(u->arena, handles[i])->rx_tick = u->number;
        atomic_store(&u->owner[handles[i]], (uint8_t)u->number);
    }
    give_back(u, handles, n);
}

static void *use(void *arg)
{
    user *u = arg;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        take(u);
        hand_over(u, draw(u, 100));
        receive(u, 1 + draw(u, 150));
        uint32_t n = draw(u, u->holds + 1);
        u->holds -= n;
        give_back(u, u->held + u->holds, n);
        if (round % 16 == 0)
            sched_yield(); /* one CPU must not keep the threads apart */
    }
    give_back(u, u->held, u->holds);
    return NULL;
}

static hb_ring *new_ring(void)
{
    hb_ring *r = aligned_alloc(128, (sizeof *r + 127) / 128 * 128);
    memset(r, 0, sizeof *r);
    hb_ring_init(r, RING);
    return r;
}

static void set_up(user *u, hb_arena *a, _Atomic uint8_t *owner, hb_ring **ring)
{
    for (uint32_t i = 0; i < THREADS; i++) {
        u[i].arena = a;
        u[i].owner = owner;
        u[i].number = i + 1;
        u[i].random = i;
        u[i].to = ring[i];
        u[i].from = ring[(i + THREADS - 1) % THREADS];
        hb_cache_init(&u[i].cache, a);
    }
}

static void test_threads(void)
{
    static user u[THREADS];
    static _Atomic uint8_t owner[MBUFS];
    hb_ring *ring[THREADS];
    hb_arena a;
    CHECK_EQUAL(hb_arena_init(&a, NULL, 2048, MBUFS, THREADS), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        ring[i] = new_ring();
    set_up(u, &a, owner, ring);
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_create(&u[i].thread, NULL, use, &u[i]);
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(u[i].thread, NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        receive(&u[i], MBUFS); /* what still lay in the ring */
        CHECK_EQUAL(u[i].twice, 0);
        CHECK_EQUAL(u[i].spoilt, 0);
        CHECK(u[i].short_of > 0); /* the pool did run empty */
    }
    CHECK_EQUAL(hb_arena_count_free(&a), MBUFS);
    for (uint32_t i = 0; i < MBUFS; i++)
        CHECK_EQUAL(owner[i], 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        free(ring[i]->entry);
        free(ring[i]);
    }
    hb_arena_free(&a);
}

int main(void)
{
    for (uint32_t mbufs = 1; mbufs <= 1000; mbufs += mbufs < 130 ? 1 : 145)
        test_every_handle_once(mbufs, 1 + mbufs * 37 % 256);
    test_what_a_cache_holds_back();
    test_threads();
    return failures != 0;
}
