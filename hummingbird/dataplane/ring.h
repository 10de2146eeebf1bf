/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring.h: how packets wait. hb_ring between two lcores (single producer, single consumer), hb_fifo
 * in front of a node on its own lcore. Both hold a power of two of entries and never block.
 */
#ifndef HB_RING_H
#define HB_RING_H
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Entry: handle in the low half, destination node in the high half. `tail` is written by the
 * producer and `head` by the consumer, each with its own copy of the other's word beside it, so
 * that a line moves between cores only when a copy has run out. */
typedef struct {
    alignas(128) _Atomic uint32_t tail;
    uint32_t next;      /* producer: entries written; published when it is stored to tail */
    uint32_t head_seen; /* producer */
    alignas(128) _Atomic uint32_t head;
    uint32_t tail_seen; /* consumer */
    alignas(128) uint32_t mask;
    uint64_t *entry;
} hb_ring;

static inline int hb_ring_init(hb_ring *r, uint32_t entries)
{
    r->mask = entries - 1;
    r->entry = calloc(entries, sizeof *r->entry);
    return r->entry ? 0 : -1;
}

/* Producer: how many more entries fit, at most n. */
static inline uint32_t hb_ring_room(hb_ring *r, uint32_t n)
{
    if (r->next - r->head_seen + n > r->mask + 1)
        /* acquire: the consumer has read the entries that we are about to overwrite */
        r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
    uint32_t room = r->mask + 1 - (r->next - r->head_seen);
    return n < room ? n : room;
}

/* Producer: write n handles for `node`, as many as fit; they are seen after hb_ring_flush().
 * Returns how many were put. */
static inline uint32_t hb_ring_put(hb_ring *r, uint32_t node, const uint32_t *handles, uint32_t n)
{
    n = hb_ring_room(r, n);
    for (uint32_t i = 0; i < n; i++)
        r->entry[(r->next + i) & r->mask] = (uint64_t)node << 32 | handles[i];
    r->next += n;
    return n;
}

/* Producer: publish what was put. */
static inline void hb_ring_flush(hb_ring *r)
{
    /* release: entries, and the headers and frames they name, before the index */
    if (atomic_load_explicit(&r->tail, memory_order_relaxed) != r->next)
        atomic_store_explicit(&r->tail, r->next, memory_order_release);
}

/* Consumer: take up to n entries; returns how many. */
static inline uint32_t hb_ring_take(hb_ring *r, uint64_t *e, uint32_t n)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (r->tail_seen - head < n)
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
    uint32_t have = r->tail_seen - head;
    if (have < n)
        n = have;
    for (uint32_t i = 0; i < n; i++)
        e[i] = r->entry[(head + i) & r->mask];
    if (n) /* release: our reads are done before the producer may overwrite */
        atomic_store_explicit(&r->head, head + n, memory_order_release);
    return n;
}

/* Handles waiting for a node; producer and consumer are the same lcore. */
typedef struct {
    uint32_t *slot;
    uint32_t mask;
    uint32_t head;
    uint32_t tail;
} hb_fifo;

static inline int hb_fifo_init(hb_fifo *f, uint32_t entries)
{
    f->mask = entries - 1;
    f->slot = calloc(entries, sizeof *f->slot);
    return f->slot ? 0 : -1;
}

static inline uint32_t hb_fifo_count(const hb_fifo *f)
{
    return f->tail - f->head;
}

/* Puts as many of n handles as fit; returns how many. */
static inline uint32_t hb_fifo_put(hb_fifo *f, const uint32_t *handles, uint32_t n)
{
    uint32_t room = f->mask + 1 - hb_fifo_count(f), at = f->tail & f->mask;
    if (room < n)
        n = room;
    uint32_t first = f->mask + 1 - at < n ? f->mask + 1 - at : n; /* up to the end of the array */
    memcpy(f->slot + at, handles, first * sizeof *handles);
    memcpy(f->slot, handles + first, (n - first) * sizeof *handles);
    f->tail += n;
    return n;
}

/* Takes up to n handles; returns how many there were. */
static inline uint32_t hb_fifo_take(hb_fifo *f, uint32_t *handles, uint32_t n)
{
    uint32_t have = hb_fifo_count(f), at = f->head & f->mask;
    if (have < n)
        n = have;
    uint32_t first = f->mask + 1 - at < n ? f->mask + 1 - at : n;
    memcpy(handles, f->slot + at, first * sizeof *handles);
    memcpy(handles + first, f->slot, (n - first) * sizeof *handles);
    f->head += n;
    return n;
}

#endif
