/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tap_ring.h: a ring of bytes from one lcore to one reader, which may be another process. The lcore
 * trusts nothing that the reader writes: a tail that cannot be means that there is no room.
 *
 *   word              writer   published with
 *   bytes, records    lcore    head (release)
 *   tail              reader   tail (release): the bytes before it may be overwritten
 */
#ifndef HB_TAP_RING_H
#define HB_TAP_RING_H
#include <stdbool.h>
#include <string.h>

#include "taps_api.h"

/* The lcore's end: what it needs to know stands here and not in memory that others may write. */
typedef struct {
    hb_tap_ring *ring; /* its bytes are behind it */
    uint64_t size;     /* of these; a power of two */
    uint64_t head;
    uint64_t tail_seen;
} hb_tap_writer;

static inline uint8_t *hb_tap_bytes(const hb_tap_ring *ring)
{
    return (uint8_t *)ring + sizeof *ring;
}

static inline void hb_tap_put(hb_tap_writer *w, uint64_t at, const void *from, uint64_t n)
{
    uint8_t *bytes = hb_tap_bytes(w->ring);
    uint64_t place = at & (w->size - 1), first = w->size - place < n ? w->size - place : n;
    memcpy(bytes + place, from, first);
    memcpy(bytes, (const uint8_t *)from + first, n - first);
}

static inline bool hb_tap_has_room(hb_tap_writer *w, uint64_t n)
{
    if (w->head - w->tail_seen + n <= w->size)
        return true;
    /* acquire: the reader has done with the bytes that we are about to overwrite */
    uint64_t tail = __atomic_load_n(&w->ring->tail, __ATOMIC_ACQUIRE);
    if (w->head - tail > w->size)
        return false;
    w->tail_seen = tail;
    return w->head - tail + n <= w->size;
}

/* One record out of two parts, or a miss. */
static inline void hb_tap_write(hb_tap_writer *w, const void *one, uint64_t n, const void *other,
                                uint64_t m)
{
    hb_tap_ring *ring = w->ring;
    if (!hb_tap_has_room(w, n + m)) {
        /* relaxed: a count, and its only writer is this lcore */
        __atomic_store_n(&ring->missed, ring->missed + 1, __ATOMIC_RELAXED);
        return;
    }
    hb_tap_put(w, w->head, one, n);
    hb_tap_put(w, w->head + n, other, m);
    w->head += n + m;
    __atomic_store_n(&ring->records, ring->records + 1, __ATOMIC_RELAXED); /* likewise */
    /* release: the bytes before the index that shows them */
    __atomic_store_n(&ring->head, w->head, __ATOMIC_RELEASE);
}

/* Reader: copies n bytes from a place in the ring. */
static inline void hb_tap_get(const hb_tap_ring *ring, uint64_t size, uint64_t at, void *to,
                              uint64_t n)
{
    const uint8_t *bytes = hb_tap_bytes(ring);
    uint64_t place = at & (size - 1), first = size - place < n ? size - place : n;
    memcpy(to, bytes + place, first);
    memcpy((uint8_t *)to + first, bytes, n - first);
}

#endif
