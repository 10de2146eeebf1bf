/* SPDX-License-Identifier: BSD-3-Clause */
/* tap_capture.c: copies of the packets of one edge, as records of a capture file, for a reader in
 * another process. */
#include "taps.h"

#include "clock.h"

/* What stands before each packet in a nanosecond capture file. */
typedef struct {
    uint32_t seconds;
    uint32_t nanoseconds;
    uint32_t length; /* that are here */
    uint32_t full;   /* that the packet has */
} record;

/* ---- control ----------------------------------------------------------------------------------
 */

static uint64_t whole_lines(uint64_t bytes)
{
    return (bytes + HB_LINE - 1) / HB_LINE * HB_LINE;
}

static hb_capture_head layout(uint32_t rings, uint32_t ring_bytes)
{
    return (hb_capture_head){.magic = HB_CAPTURE_MAGIC,
                             .version = HB_CAPTURE_VERSION,
                             .rings = rings,
                             .ring_bytes = ring_bytes,
                             .rings_off = whole_lines(sizeof(hb_capture_head)),
                             .stride = whole_lines(sizeof(hb_tap_ring) + ring_bytes)};
}

size_t hb_capture_bytes(const hb_dataplane *dp, uint32_t ring_bytes)
{
    hb_capture_head h = layout(dp->config.lcores, ring_bytes);
    return h.rings_off + h.rings * h.stride;
}

int hb_add_capture(hb_dataplane *dp, const hb_capture *capture)
{
    hb_tap *tap;
    int number = hb_new_tap(dp, HB_TAP_CAPTURE, &tap);
    if (number < 0)
        return -1;
    hb_capture_head *h = capture->region;
    *h = layout(tap->rings, capture->ring_bytes);
    for (uint32_t l = 0; l < tap->rings; l++)
        tap->end[l].w =
            (hb_tap_writer){.ring = (hb_tap_ring *)((uint8_t *)h + h->rings_off + l * h->stride),
                            .size = capture->ring_bytes};
    tap->from = capture->from;
    tap->to = capture->to;
    tap->snap = capture->snap;
    hb_show_tap(dp, number, tap);
    return number;
}

/* ---- lcores -----------------------------------------------------------------------------------
 */

static bool is(uint32_t wanted, uint32_t node)
{
    return wanted == node || (wanted == HB_TAP_ANY && node != HB_TAP_OUTSIDE);
}

void hb_capture_packets(hb_lcore *lc, const hb_tap *tap, uint32_t from, uint32_t to,
                        const uint32_t *handles, uint32_t n)
{
    if (!is(tap->from, from) || !is(tap->to, to))
        return;
    uint64_t now = hb_clock_time_ns();
    record r = {.seconds = (uint32_t)(now / 1000000000u),
                .nanoseconds = (uint32_t)(now % 1000000000u)};
    hb_tap_writer *w = (hb_tap_writer *)&tap->end[lc->id].w; /* ours alone */
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&lc->dp->arena, handles[i]);
        r.full = m->data_len;
        r.length = tap->snap && tap->snap < r.full ? tap->snap : r.full;
        hb_tap_write(w, &r, sizeof r, hb_data(&lc->dp->arena, m), r.length);
    }
}

/* ---- the reader -------------------------------------------------------------------------------
 */

static hb_tap_ring *ring_at(const hb_capture_head *h, uint64_t ring)
{
    return (hb_tap_ring *)((uint8_t *)h + h->rings_off + ring * h->stride);
}

static bool is_region(const hb_capture_head *h, uint64_t bytes)
{
    return bytes >= sizeof *h && h->magic == HB_CAPTURE_MAGIC && h->version == HB_CAPTURE_VERSION &&
           h->rings <= HB_MAX_LCORES && h->ring_bytes <= bytes && h->stride <= bytes &&
           h->stride >= sizeof(hb_tap_ring) + h->ring_bytes && h->rings_off <= bytes &&
           h->rings * h->stride <= bytes - h->rings_off && h->ring_bytes &&
           !(h->ring_bytes & (h->ring_bytes - 1));
}

/* One ring as the reader sees it during a call. */
typedef struct {
    hb_tap_ring *ring;
    uint64_t head, tail;
    record next; /* the record at the tail ... */
    uint64_t ns; /* ... and its time; UINT64_MAX: there is none */
} view;

static void look(view *v, uint64_t size)
{
    v->ns = UINT64_MAX;
    uint64_t have = v->head - v->tail;
    if (have < sizeof v->next || have > size)
        return;
    hb_tap_get(v->ring, size, v->tail, &v->next, sizeof v->next);
    if (v->next.length <= have - sizeof v->next)
        v->ns = (uint64_t)v->next.seconds * 1000000000u + v->next.nanoseconds;
}

static view *oldest(view *v, uint64_t n)
{
    view *best = NULL;
    for (uint64_t i = 0; i < n; i++)
        if (v[i].ns != UINT64_MAX && (!best || v[i].ns < best->ns))
            best = &v[i];
    return best;
}

uint64_t hb_capture_take(void *region, uint64_t region_bytes, uint8_t *to, uint64_t room,
                         uint64_t most, uint64_t *records)
{
    const hb_capture_head *h = region;
    view v[HB_MAX_LCORES], *from;
    uint64_t used = 0;
    *records = 0;
    if (!is_region(h, region_bytes))
        return UINT64_MAX;
    for (uint64_t i = 0; i < h->rings; i++) {
        v[i] = (view){.ring = ring_at(h, i)};
        v[i].tail = v[i].ring->tail; /* only we write it */
        /* acquire: the records before it */
        v[i].head = __atomic_load_n(&v[i].ring->head, __ATOMIC_ACQUIRE);
        look(&v[i], h->ring_bytes);
    }
    while (*records < most && (from = oldest(v, h->rings))) {
        uint64_t bytes = sizeof from->next + from->next.length;
        if (bytes > room - used)
            break;
        hb_tap_get(from->ring, h->ring_bytes, from->tail, to + used, bytes);
        from->tail += bytes;
        used += bytes;
        ++*records;
        look(from, h->ring_bytes);
    }
    for (uint64_t i = 0; i < h->rings; i++) /* release: we have read what may be overwritten now */
        __atomic_store_n(&v[i].ring->tail, v[i].tail, __ATOMIC_RELEASE);
    return used;
}

uint64_t hb_capture_missed(const void *region)
{
    const hb_capture_head *h = region;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < h->rings; i++)
        sum += __atomic_load_n(&ring_at(h, i)->missed, __ATOMIC_RELAXED);
    return sum;
}

uint64_t hb_capture_records(const void *region)
{
    const hb_capture_head *h = region;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < h->rings; i++)
        sum += __atomic_load_n(&ring_at(h, i)->records, __ATOMIC_RELAXED);
    return sum;
}
