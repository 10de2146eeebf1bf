/* SPDX-License-Identifier: BSD-3-Clause */
#include "mbuf.h"

#include <stdlib.h>
#include <string.h>

#include "guard.h"

static void push(hb_arena *a, hb_stack *s, hb_magazine *m)
{
    uint64_t top = atomic_load_explicit(&s->top, memory_order_relaxed);
    uint64_t new_top;
    do {
        atomic_store_explicit(&m->next, (uint32_t)top, memory_order_relaxed);
        new_top = ((top >> 32) + 1) << 32 | (uint32_t)(m - a->magazines + 1);
        /* release: whoever pops the magazine must see its handles and its link */
    } while (!atomic_compare_exchange_weak_explicit(&s->top, &top, new_top, memory_order_release,
                                                    memory_order_relaxed));
}

static hb_magazine *pop(hb_arena *a, hb_stack *s)
{
    uint64_t top = atomic_load_explicit(&s->top, memory_order_acquire);
    for (;;) {
        if (!(uint32_t)top)
            return NULL;
        hb_magazine *m = a->magazines + (uint32_t)top - 1;
        /* `next` may be stale if another thread popped m meanwhile; the counter in the upper half
         * then makes the exchange fail. */
        uint32_t next = atomic_load_explicit(&m->next, memory_order_relaxed);
        uint64_t new_top = ((top >> 32) + 1) << 32 | next;
        if (atomic_compare_exchange_weak_explicit(&s->top, &top, new_top, memory_order_acquire,
                                                  memory_order_acquire))
            return m;
    }
}

int hb_arena_init(hb_arena *a, void *frames, uint32_t frame_size, uint32_t mbufs, uint32_t caches)
{
    memset(a, 0, sizeof *a);
    a->frames = frames;
    a->frame_size = frame_size;
    a->mbufs = mbufs;
    uint32_t full = (mbufs + HB_MAGAZINE - 1) / HB_MAGAZINE;
    /* each cache holds two; one more each so that a release always finds an empty one */
    a->nb_magazines = full + 3 * caches;
    a->headers = hb_region_new((size_t)mbufs * sizeof(hb_mbuf));
    a->magazines = calloc(a->nb_magazines, sizeof(hb_magazine));
    if (!a->headers || !a->magazines)
        return -1;
    for (uint32_t i = 0; i < mbufs; i++) {
        a->headers[i].frame = i;
    }
    /* the last magazine pushed is the first taken: hand out low frames first */
    for (uint32_t i = a->nb_magazines; i-- > 0;) {
        hb_magazine *m = a->magazines + i;
        uint32_t first = i * HB_MAGAZINE;
        for (uint32_t k = 0; k < HB_MAGAZINE && first + k < mbufs; k++)
            m->handle[m->count++] = first + k;
        push(a, m->count ? &a->full : &a->empty, m);
    }
    return 0;
}

void hb_arena_free(hb_arena *a)
{
    for (uint32_t i = 0; a->headers && i < a->mbufs; i++)
        hb_unguard(a, i); /* the frames are somebody else's again */
    hb_region_free(a->headers, (size_t)a->mbufs * sizeof(hb_mbuf));
    free(a->magazines);
}

uint64_t hb_arena_count_free(const hb_arena *a)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->nb_magazines; i++)
        n += a->magazines[i].count;
    return n;
}

void hb_cache_init(hb_cache *c, hb_arena *a)
{
    c->arena = a;
    c->loaded = pop(a, &a->empty);
    c->spare = pop(a, &a->empty);
}

/* Make `loaded` the one with handles; false if neither the cache nor the pool has any. */
static bool refill(hb_cache *c)
{
    hb_magazine *m = c->spare;
    if (!m->count) {
        hb_magazine *full = pop(c->arena, &c->arena->full);
        if (!full)
            return false;
        push(c->arena, &c->arena->empty, m);
        m = full;
    }
    c->spare = c->loaded;
    c->loaded = m;
    return true;
}

uint32_t hb_alloc(hb_cache *c, uint32_t *handles, uint32_t n)
{
    uint32_t got = 0;
    while (got < n) {
        if (!c->loaded->count && !refill(c))
            break;
        hb_magazine *m = c->loaded;
        uint32_t take = n - got < m->count ? n - got : m->count;
        m->count -= take;
        memcpy(handles + got, m->handle + m->count, take * sizeof *handles);
        got += take;
    }
    return got;
}

/* Make `loaded` one with room. There are magazines for every handle plus three per cache, so an
 * empty one is always found. */
static void make_room(hb_cache *c)
{
    hb_magazine *m = c->spare;
    if (m->count == HB_MAGAZINE) {
        hb_magazine *empty = pop(c->arena, &c->arena->empty);
        if (!empty)
            abort(); /* impossible by the count above: a double free */
        push(c->arena, &c->arena->full, m);
        m = empty;
    }
    c->spare = c->loaded;
    c->loaded = m;
}

void hb_release(hb_cache *c, const uint32_t *handles, uint32_t n)
{
    while (n) {
        if (c->loaded->count == HB_MAGAZINE)
            make_room(c);
        hb_magazine *m = c->loaded;
        uint32_t room = HB_MAGAZINE - m->count;
        uint32_t put = n < room ? n : room;
        memcpy(m->handle + m->count, handles, put * sizeof *handles);
        m->count += put;
        handles += put;
        n -= put;
    }
}
