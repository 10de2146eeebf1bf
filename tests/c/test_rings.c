/* SPDX-License-Identifier: BSD-3-Clause */
/* tsan */
/* hb_ring between two threads, and hb_fifo: what goes in comes out, once and in order. */
#include "check.h"
#include "ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>

static hb_ring *ring_at(uint32_t entries, uint32_t start)
{
    hb_ring *r = aligned_alloc(128, (sizeof *r + 127) / 128 * 128);
    memset(r, 0, sizeof *r);
    CHECK_EQUAL(hb_ring_init(r, entries), 0);
    r->next = r->head_seen = r->tail_seen = start;
    atomic_init(&r->head, start);
    atomic_init(&r->tail, start);
    return r;
}

static void free_ring(hb_ring *r)
{
    free(r->entry);
    free(r);
}

/* One entry: node in the upper half, handle in the lower. */
static uint32_t put_one(hb_ring *r, uint64_t e)
{
    uint32_t handle = (uint32_t)e;
    return hb_ring_put(r, (uint32_t)(e >> 32), &handle, 1);
}

/* ---- edges, in one thread -------------------------------------------------------------------- */

static void fill_ring(hb_ring *r, uint32_t entries, uint64_t first)
{
    uint32_t half = entries / 2, handles[64], n = entries - half + 3;
    bool together = n <= 64 && first >> 32 == (first + entries + 3) >> 32; /* one node for all */
    for (uint32_t i = 0; i < (together ? half : entries); i++)
        CHECK(put_one(r, first + i));
    for (uint32_t i = 0; together && i < n; i++)
        handles[i] = (uint32_t)first + half + i;
    /* more than there is room for: as many as fit, the first ones */
    if (together)
        CHECK_EQUAL(hb_ring_put(r, (uint32_t)(first >> 32), handles, n), entries - half);
    CHECK(!put_one(r, 0));
    hb_ring_flush(r);
    CHECK(!put_one(r, 0));
}

static void empty_ring(hb_ring *r, uint32_t entries, uint64_t first, uint32_t step)
{
    uint64_t e[1024];
    for (uint32_t i = 0; i < entries;) {
        uint32_t n = hb_ring_take(r, e, step);
        CHECK_EQUAL(n, entries - i < step ? entries - i : step);
        for (uint32_t k = 0; k < n; k++)
            CHECK_EQUAL(e[k], first + i + k);
        i += n ? n : entries;
    }
    CHECK_EQUAL(hb_ring_take(r, e, 1), 0);
}

/* Full and empty, wherever the free-running indices stand when it happens. */
static void test_edges(uint32_t entries)
{
    uint64_t e = 0;
    for (uint32_t start = 0xffffffffu - 2 * entries; start != 2 * entries; start++) {
        hb_ring *r = ring_at(entries, start);
        CHECK_EQUAL(hb_ring_take(r, &e, 1), 0);
        fill_ring(r, entries, start);
        CHECK_EQUAL(hb_ring_take(r, &e, 1), 1);
        CHECK_EQUAL(e, start);
        CHECK(put_one(r, start + (uint64_t)entries));
        CHECK(!put_one(r, 0));
        hb_ring_flush(r);
        empty_ring(r, entries, start + 1ull, 1 + start % 5);
        free_ring(r);
    }
}

static void test_unseen_until_flushed(void)
{
    hb_ring *r = ring_at(8, 0);
    uint64_t e[8];
    CHECK(put_one(r, 1));
    CHECK_EQUAL(hb_ring_take(r, e, 8), 0);
    hb_ring_flush(r);
    hb_ring_flush(r);
    CHECK(put_one(r, 2));
    CHECK_EQUAL(hb_ring_take(r, e, 8), 1);
    CHECK_EQUAL(e[0], 1);
    hb_ring_flush(r);
    CHECK_EQUAL(hb_ring_take(r, e, 8), 1);
    CHECK_EQUAL(e[0], 2);
    free_ring(r);
}

/* ---- two threads ----------------------------------------------------------------------------- */

/* `plain` stands for the header that an entry names: handed over with it, without a lock. */
typedef struct {
    hb_ring *ring;
    uint64_t entries; /* to pass through */
    uint64_t *plain;  /* [entries] */
    uint32_t most;    /* entries put before a flush */
} passage;

static void *produce(void *arg)
{
    passage *p = arg;
    for (uint64_t i = 0; i < p->entries; i++) {
        p->plain[i] = i * i;
        while (!put_one(p->ring, i)) {
            hb_ring_flush(p->ring);
            sched_yield();
        }
        if (i % p->most == 0)
            hb_ring_flush(p->ring);
    }
    hb_ring_flush(p->ring);
    return NULL;
}

static void consume(passage *p)
{
    uint32_t step = 1;
    uint64_t e[300], seen = 0, wrong = 0;
    while (seen < p->entries && !wrong) {
        uint32_t n = hb_ring_take(p->ring, e, step);
        for (uint32_t k = 0; k < n; k++, seen++)
            wrong += e[k] != seen || p->plain[seen] != seen * seen;
        if (!n)
            sched_yield();
        step = 1 + (step * 7 + 3) % 300;
    }
    CHECK_EQUAL(wrong, 0);
    CHECK_EQUAL(seen, p->entries);
}

static void test_two_threads(uint32_t entries, uint64_t total)
{
    pthread_t thread;
    uint64_t *plain = calloc(total, sizeof *plain), e;
    passage p = {ring_at(entries, 0xffffff00u), total, plain, 1 + entries / 2};
    pthread_create(&thread, NULL, produce, &p);
    consume(&p);
    pthread_join(thread, NULL);
    CHECK_EQUAL(hb_ring_take(p.ring, &e, 1), 0);
    free_ring(p.ring);
    free(plain);
}

/* ---- fifo ------------------------------------------------------------------------------------ */

static void test_fifo(uint32_t entries)
{
    hb_fifo f = {.head = 0xffffffffu - entries, .tail = 0xffffffffu - entries};
    uint32_t in = 0, out = 0, handles[300];
    CHECK_EQUAL(hb_fifo_init(&f, entries), 0);
    CHECK_EQUAL(hb_fifo_take(&f, handles, 300), 0);
    for (uint32_t round = 0; round < 4 * entries + 4; round++) {
        uint32_t offered = 1 + round % (entries < 300 ? entries : 300), room = entries - (in - out);
        for (uint32_t i = 0; i < offered; i++)
            handles[i] = in + i;
        uint32_t put = hb_fifo_put(&f, handles, offered);
        CHECK_EQUAL(put, offered < room ? offered : room);
        in += put;
        CHECK_EQUAL(hb_fifo_count(&f), in - out);
        uint32_t want = round % 300, have = in - out;
        uint32_t n = hb_fifo_take(&f, handles, want);
        CHECK_EQUAL(n, want < have ? want : have);
        for (uint32_t i = 0; i < n; i++)
            CHECK_EQUAL(handles[i], out++);
    }
    free(f.slot);
}

int main(void)
{
    for (uint32_t entries = 1; entries <= 1024; entries *= 2) {
        test_edges(entries < 64 ? entries : 64);
        test_fifo(entries);
        test_two_threads(entries,
                         1100ull * entries); /* a busy CPU may switch threads at each turn */
    }
    test_unseen_until_flushed();
    return failures != 0;
}
