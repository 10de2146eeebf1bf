/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bare_queue.c: the queue protocol as node_syncer.c speaks it (docs/protocol.md), without ports,
 * routes and counters: what the queue itself can carry, and what it costs the host.
 * Rows go to the workgroups in turn, so they come back in turn.
 */
#include <stdlib.h>
#include <string.h>

#include "bare.h"
#include "clock.h"
#include "device.h"
#include "ring.h"

#define TICK_US 50          /* as node_syncer.c writes the tick word */
#define SPIN_PASSES 64      /* as lcore.c rests while something is in flight */
#define WARM_UP_S 0.02      /* a persistent kernel checks in within 5 ms */
#define STALL_S 10          /* no row for this long is a failure */
#define MAX_TRIPS (1 << 16) /* samples kept */

typedef struct {
    const hb_bare_config *config;
    struct hb_device_ctl *d;
    struct hb_control *c;
    hb_arena arena;
    hb_fifo free;               /* packets that are in no row */
    uint32_t *shadow;           /* [workgroups * depth][lanes] handles */
    uint64_t published, reaped; /* rows of all workgroups */
    uint64_t now;               /* tick of this pass */
    uint64_t shown;             /* tick of the last publishing */
    uint32_t tick;              /* last written, microseconds */
    double ticks_per_us;
    hb_bare_result *result;
    uint32_t trips;
    uint32_t *trip; /* [MAX_TRIPS] ticks */
} bare;

static uint32_t workgroup(const bare *b, uint64_t index)
{
    return (uint32_t)(index % b->config->device.workgroups);
}

/* Number of row `index` within its workgroup. */
static uint32_t row_of(const bare *b, uint64_t index)
{
    return (uint32_t)(index / b->config->device.workgroups);
}

static uint32_t slot_row(const bare *b, uint64_t index)
{
    uint32_t depth = b->config->device.depth;
    return workgroup(b, index) * depth + (row_of(b, index) & (depth - 1));
}

static uint32_t *shadow(const bare *b, uint64_t index)
{
    return b->shadow + (size_t)slot_row(b, index) * b->config->device.lanes;
}

/* ---- publish ----------------------------------------------------------------------------------
 */

static void fill_row(bare *b)
{
    uint32_t row = slot_row(b, b->published), n = b->config->count;
    size_t slot = (size_t)row * b->config->device.lanes;
    struct hb_work *work = (struct hb_work *)hb_control_array(b->c, b->c->work_off) + slot;
    uint64_t *arg = (uint64_t *)hb_control_array(b->c, b->c->arg_off) + slot;
    uint32_t *handles = shadow(b, b->published);
    hb_fifo_take(&b->free, handles, n);
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(&b->arena, handles[i]);
        work[i] = (struct hb_work){m->frame, m->data_off, m->data_len,    m->l3,
                                   m->l4,    m->type,     hb_work_flow(m)};
        arg[i] = b->config->touch;
    }
    ((struct hb_rowdesc *)hb_control_array(b->c, b->c->rowdesc_off))[row] =
        (struct hb_rowdesc){.count = (uint16_t)n, .generation = 1, .tick = b->now};
    b->published++;
}

/* Row `index` and all before it in its workgroup. */
static void show(bare *b, uint64_t index)
{
    /* release: work, arg and row descriptor before the index that shows them */
    hb_store_release(hb_control_word(b->c, b->c->cpu_off, workgroup(b, index)),
                     row_of(b, index) + 1);
}

/* ---- reap -------------------------------------------------------------------------------------
 */

static bool possible(const hb_mbuf *m, const struct hb_done *d)
{
    uint32_t end = (uint32_t)m->data_off + m->data_len;
    return d->offset >= m->data_off && d->length && (uint32_t)d->offset + d->length <= end &&
           !d->stopped && d->verdict == HB_VERDICT_PASS;
}

static void reap_row(bare *b)
{
    uint32_t n = b->config->count;
    const uint32_t *handles = shadow(b, b->reaped);
    struct hb_done *done = (struct hb_done *)hb_control_array(b->c, b->c->done_off) +
                           (size_t)slot_row(b, b->reaped) * b->config->device.lanes;
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = hb_header(&b->arena, handles[i]);
        if (possible(m, &done[i])) {
            m->data_off = done[i].offset;
            m->data_len = done[i].length;
        } else {
            b->result->wrong++;
        }
        done[i].verdict = 0;
        hb_fifo_put(&b->free, &handles[i], 1);
    }
    b->reaped++;
    b->result->rows++;
    b->result->packets += n;
    b->result->touched += n;
}

static bool finished(const bare *b, uint64_t index)
{
    /* acquire: the row's answers and packet bytes before we look at them */
    uint32_t word = hb_load_acquire(hb_control_word(b->c, b->c->gpu_off, workgroup(b, index)));
    return (int32_t)(word - row_of(b, index)) > 0;
}

/* ---- passes -----------------------------------------------------------------------------------
 */

static void write_tick(bare *b)
{
    uint32_t us = (uint32_t)(uint64_t)((double)b->now / b->ticks_per_us);
    if (us - b->tick < TICK_US)
        return;
    b->tick = us;
    hb_store_release(hb_control_word(b->c, b->c->tick_off, 0), us);
}

/* Take back what is finished, fill up to `rows` in flight. Rows moved. */
static uint32_t stream(bare *b, bool fill)
{
    uint64_t reaped = b->reaped, published = b->published;
    while (b->reaped != b->published && finished(b, b->reaped))
        reap_row(b);
    while (fill && b->published - b->reaped < b->config->rows) {
        fill_row(b);
        show(b, b->published - 1);
    }
    if (b->published != published)
        hb_device_wake(b->d);
    return (uint32_t)(b->reaped - reaped + b->published - published);
}

/* The rows that end the workgroups' queues: as many as there are workgroups in use. */
static uint32_t last_rows(const bare *b)
{
    uint32_t groups = b->config->device.workgroups;
    return groups < b->config->rows ? groups : b->config->rows;
}

static bool take_back_all(bare *b)
{
    for (uint32_t i = last_rows(b); i > 0; i--)
        if (!finished(b, b->published - i))
            return false;
    uint64_t ticks = hb_now() - b->shown;
    if (b->trips < MAX_TRIPS)
        b->trip[b->trips++] = ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
    while (b->reaped != b->published)
        reap_row(b);
    return true;
}

/* All rows are shown by one store for each workgroup, and taken back when all are finished. */
static uint32_t together(bare *b, bool fill)
{
    if (b->reaped != b->published && !take_back_all(b))
        return 0;
    if (!fill)
        return 1;
    while (b->published - b->reaped < b->config->rows)
        fill_row(b);
    b->shown = hb_now();
    for (uint32_t i = last_rows(b); i > 0; i--)
        show(b, b->published - i);
    hb_device_wake(b->d);
    return b->config->rows;
}

static void rest(uint32_t idle)
{
    if (idle < SPIN_PASSES)
        hb_pause();
    else
        sched_yield(); /* a CPU device may need this very core */
}

/* Keep rows in flight for so long, then wait for the last. -1: the device failed or stands still.
 */
static int run_for(bare *b, double seconds)
{
    double rate = b->ticks_per_us * 1e6;
    uint64_t begin = hb_now(), end = begin + (uint64_t)(seconds * rate), moved_at = begin;
    uint32_t idle = 0;
    for (b->now = begin; b->now < end || b->reaped != b->published; b->now = hb_now()) {
        bool fill = b->now < end;
        write_tick(b);
        if (b->config->together ? together(b, fill) : stream(b, fill)) {
            moved_at = hb_now();
            b->result->host_ticks += moved_at - b->now;
            idle = 0;
        } else {
            rest(++idle);
        }
        bool stuck = b->now > moved_at && (double)(b->now - moved_at) > STALL_S * rate;
        if (stuck || atomic_load(&b->d->failed) || atomic_load(&b->d->condition) == HB_DEVICE_HUNG)
            return -1;
    }
    b->result->seconds = (double)(b->now - begin) / rate;
    return 0;
}

/* ---- one measurement --------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static int measure(bare *b)
{
    hb_bare_result *r = b->result;
    if (run_for(b, WARM_UP_S))
        return -1;
    *r = (hb_bare_result){.touched = r->touched, .wrong = r->wrong};
    b->trips = 0;
    if (run_for(b, b->config->seconds))
        return -1;
    r->wrong += hb_bare_wrong(&b->arena, r->touched, b->config->touch);
    qsort(b->trip, b->trips, sizeof *b->trip, ascending);
    if (b->trips) {
        r->trip_p50 = b->trip[b->trips / 2];
        r->trip_p99 = b->trip[(uint64_t)b->trips * 99 / 100];
    }
    return 0;
}

static bool allocate(bare *b)
{
    const hb_bare_config *config = b->config;
    uint32_t entries = 1;
    while (entries < config->mbufs)
        entries *= 2;
    b->trip = calloc(MAX_TRIPS, sizeof *b->trip);
    b->shadow =
        calloc((size_t)config->device.workgroups * config->device.depth * config->device.lanes,
               sizeof *b->shadow);
    if (!b->trip || !b->shadow || hb_fifo_init(&b->free, entries) ||
        hb_arena_init(&b->arena, config->frames, config->frame_size, config->mbufs, 0))
        return false;
    hb_bare_fill(&b->arena, config->length);
    for (uint32_t i = 0; i < config->mbufs; i++)
        hb_fifo_put(&b->free, &i, 1);
    return true;
}

static void release(bare *b)
{
    hb_arena_free(&b->arena);
    free(b->free.slot);
    free(b->shadow);
    free(b->trip);
}

int hb_bare_queue(const hb_bare_config *config, hb_bare_result *result)
{
    hb_device_stats stats = {0};
    hb_nf nf = {.reads = HB_READS_PACKET, .writes = HB_WRITES_PACKET};
    bare b = {.config = config, .result = result, .ticks_per_us = hb_tick_rate() / 1e6};
    cpu_set_t before;
    int rc = -1;
    memset(result, 0, sizeof *result);
    b.d = hb_device_alone(&config->device, config->frames, config->frame_size, &nf, &stats);
    b.c = config->device.control;
    if (b.d && allocate(&b) && !hb_device_start(b.d)) {
        rc = hb_pin(config->cpu, &before) ? -1 : measure(&b); /* the executor stays unpinned */
        hb_unpin(&before);
        hb_device_stop(b.d);
    }
    result->launches = stats.launches;
    result->resident = stats.resident;
    if (b.d)
        hb_device_free(b.d);
    release(&b);
    return rc;
}
